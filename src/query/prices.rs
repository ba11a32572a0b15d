//! What tokens cost: the settings of `[prices]`.

use super::totals::ModelTokens;
use crate::util::glob::name_matches;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The section `[prices]`: prices by patterns of model names. The longest pattern that fits a model counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Prices(BTreeMap<String, Price>);

/// Prices of one million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    /// Tokens of prompts.
    #[serde(deserialize_with = "amount")]
    pub(crate) input: f64,
    /// For a million generated tokens.
    #[serde(deserialize_with = "amount")]
    pub(crate) output: f64,
    /// Tokens of prompts that the endpoint read from its cache. Without it they cost as the others.
    #[serde(default, deserialize_with = "some_amount", skip_serializing_if = "Option::is_none")]
    pub(crate) cached_input: Option<f64>,
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let amount = f64::deserialize(deserializer)?;
    let is_amount = amount.is_finite() && amount >= 0.0;
    if is_amount { Ok(amount) } else { Err(D::Error::custom("a price is a number that is not negative")) }
}

fn some_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    amount(deserializer).map(Some)
}

/// What calls cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// In the currency of the prices.
    pub(crate) amount: f64,
    /// True if a model has no price: its calls are not in the amount.
    pub(crate) is_partial: bool,
}

impl Prices {
    /// What the calls of some models cost. `None` if none of them has a price.
    pub(crate) fn cost(&self, models: &[ModelTokens]) -> Option<Cost> {
        let (mut cost, mut is_known) = (Cost::default(), false);
        for tokens in models.iter().filter(|tokens| tokens.input > 0 || tokens.output > 0) {
            let fitting = self.0.iter().filter(|(pattern, _)| name_matches(pattern, &tokens.model));
            match fitting.max_by_key(|(pattern, _)| pattern.len()) {
                Some((_, price)) => {
                    is_known = true;
                    cost.amount += price.of(tokens);
                }
                None => cost.is_partial = true,
            }
        }
        is_known.then_some(cost)
    }
}

impl Price {
    fn of(&self, tokens: &ModelTokens) -> f64 {
        let cached = tokens.cached.min(tokens.input);
        let cached_price = self.cached_input.unwrap_or(self.input);
        let sum = (tokens.input - cached) as f64 * self.input
            + cached as f64 * cached_price
            + tokens.output as f64 * self.output;
        sum / TOKENS_OF_PRICE
    }
}

const TOKENS_OF_PRICE: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(model: &str, input: u64, cached: u64, output: u64) -> ModelTokens {
        ModelTokens { model: model.to_owned(), input, cached, output }
    }

    #[test]
    fn the_longest_pattern_counts_and_unknown_models_are_told() {
        let prices: Prices = toml::from_str(
            "'*' = { input = 9, output = 9 }\n'Qwen*' = { input = 1, output = 10, cached_input = 0.5 }\n",
        )
        .unwrap();
        let cost = prices.cost(&[tokens("qwen3-8b", 2_000_000, 1_000_000, 100_000)]).unwrap();
        assert_eq!(cost, Cost { amount: 2.5, is_partial: false });
        let some: Prices = toml::from_str("gpt-5 = { input = 1.25, output = 10 }").unwrap();
        assert_eq!(some.cost(&[tokens("other", 5, 0, 5)]), None);
        let both = some.cost(&[tokens("other", 5, 0, 5), tokens("gpt-5", 1_000_000, 7, 0)]).unwrap();
        assert_eq!(both, Cost { amount: 1.25, is_partial: true });
        for wrong in ["gpt-5 = { input = -1, output = 10 }", "gpt-5 = { input = nan, output = 1 }", "a = { input = 1 }"]
        {
            assert!(toml::from_str::<Prices>(wrong).is_err(), "{wrong}");
        }
    }
}
