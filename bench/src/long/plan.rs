//! The calls of a run. Every id, log-probability and word is a function of its rollout and its position, so that the
//! endpoint and the checks compute the same values and keep none of them.

use crate::upstream::wished;
use anyhow::{Result, ensure};
use std::ops::Range;

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One JSON text.
    Json,
    /// Server-sent events: the prompt's ids in the first one, then a few sampled ids in each.
    Sse,
    /// One JSON text that also has the experts that each token was routed to.
    Experts,
}

/// Kinds by the names of their scenarios.
pub const KINDS: [(&str, Kind); 3] =
    [("long-json", Kind::Json), ("long-sse", Kind::Sse), ("long-experts", Kind::Experts)];

/// What the calls of one run have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How each is answered.
    pub kind: Kind,
    /// Rollouts, each with one call in flight.
    pub rollouts: u64,
    /// Calls of each rollout, one after the other. The prompt of each continues the one before.
    pub turns: u64,
    /// Ids of the prompt in the last turn.
    pub prompt_ids: u64,
    /// Ids of each response.
    pub sampled_ids: u64,
    /// How long the endpoint waits before it responds.
    pub delay_ms: u64,
    /// Time between two events of a stream.
    pub interval_ms: u64,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it has in common with the others.
    pub plan: Plan,
    /// From 0 to `plan.rollouts`.
    pub rollout: u64,
    /// From 0 to `plan.turns`.
    pub turn: u64,
}

/// A call as its endpoint gets it, in the request's `user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The call.
    pub call: Call,
    /// Who gets ids.
    pub ids: Ids,
}

/// Who gets ids from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Those that request them. Others get an error, so that nobody forgets.
    OnRequest,
    /// Everybody: what a relay passes on is then as long.
    Always,
}

impl Plan {
    /// The first prompt must have ids too.
    pub fn check(&self) -> Result<()> {
        let grown = (self.turns - 1) * (self.sampled_ids + TOOL_IDS);
        ensure!(self.sampled_ids > 0, "a response needs ids");
        ensure!(
            self.prompt_ids > grown,
            "a prompt that grows by {grown} ids in {} turns needs more than {} at its end",
            self.turns,
            self.prompt_ids
        );
        Ok(())
    }

    /// Calls in all.
    pub fn calls(&self) -> u64 {
        self.rollouts * self.turns
    }

    /// Ids in all, those that prompts of one rollout have in common counted once.
    pub fn distinct_ids(&self) -> u64 {
        self.rollouts * (self.prompt_ids + self.sampled_ids)
    }

    /// The call of a rollout in one of its turns.
    pub fn call(self, rollout: u64, turn: u64) -> Call {
        Call { plan: self, rollout, turn }
    }
}

impl Call {
    /// The id of its response.
    pub fn response_id(&self) -> String {
        format!("chatcmpl-{}-{}", self.rollout, self.turn)
    }

    /// The call with a response id that [`Self::response_id`] made.
    pub fn of_response_id(plan: Plan, id: &str) -> Option<Self> {
        let (rollout, turn) = id.strip_prefix("chatcmpl-")?.split_once('-')?;
        let (rollout, turn) = (rollout.parse().ok()?, turn.parse().ok()?);
        (rollout < plan.rollouts && turn < plan.turns).then(|| plan.call(rollout, turn))
    }

    /// Where the tokens of its prompt are in the text of its rollout.
    pub fn prompt(&self) -> Range<u64> {
        let turns_left = self.plan.turns - 1 - self.turn;
        0..self.plan.prompt_ids - turns_left * (self.plan.sampled_ids + TOOL_IDS)
    }

    /// Where the tokens of its response are.
    pub fn sampled(&self) -> Range<u64> {
        let end = self.prompt().end;
        end..end + self.plan.sampled_ids
    }

    /// The messages of its prompt, by their roles.
    pub fn messages(&self) -> Vec<(&'static str, Range<u64>)> {
        let mut messages = Vec::new();
        let mut from = 0;
        for turn in 0..=self.turn {
            let call = self.plan.call(self.rollout, turn);
            messages.push(("user", from..call.prompt().end));
            if turn < self.turn {
                messages.push(("assistant", call.sampled()));
                from = call.sampled().end;
            }
        }
        messages
    }

    /// The id at a position.
    pub fn id(&self, position: u64) -> u32 {
        u32::try_from(self.hash(Salt::Id, position) % VOCABULARY).unwrap_or(0)
    }

    /// The log-probability at a position, as an engine has it: 32 bits.
    pub fn logprob(&self, position: u64) -> f32 {
        let share = ((self.hash(Salt::Logprob, position) >> 40) + 1) as f32 / (1 << 24) as f32;
        -8.0 * share * share * share
    }

    /// The text at a position: three letters and a space.
    pub fn word(&self, position: u64) -> [u8; 4] {
        let letters = self.hash(Salt::Word, position).to_le_bytes();
        let letter = |at: usize| b'a' + letters[at] % 26;
        [letter(0), letter(1), letter(2), b' ']
    }

    /// Four of the experts that tokens are routed to.
    pub fn experts(&self, position: u64) -> [u8; 8] {
        (self.hash(Salt::Experts, position) & 0x007f_007f_007f_007f).to_le_bytes()
    }

    /// SplitMix64 of a rollout's position.
    fn hash(&self, salt: Salt, position: u64) -> u64 {
        let seed = (self.rollout << 40) ^ ((salt as u64) << 36) ^ position;
        let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What is made from a position.
#[derive(Clone, Copy)]
enum Salt {
    Id,
    Logprob,
    Word,
    Experts,
}

impl Order {
    /// As text, for a request's `user`.
    pub fn wish(&self) -> String {
        let Call { plan, rollout, turn } = self.call;
        let name = KINDS.iter().find(|(_, kind)| *kind == plan.kind).map_or("", |(name, _)| name);
        let Plan { rollouts, turns, prompt_ids, sampled_ids, delay_ms, interval_ms, .. } = plan;
        let always = u64::from(self.ids == Ids::Always);
        format!(
            "{name}&rollout={rollout}&turn={turn}&rollouts={rollouts}&turns={turns}&prompt_ids={prompt_ids}\
             &sampled_ids={sampled_ids}&delay_ms={delay_ms}&interval_ms={interval_ms}&always={always}"
        )
    }

    /// The order in a request's `user`. `None`: it is another kind of call.
    pub fn of_wish(wish: &str) -> Option<Self> {
        let (name, _) = wish.split_once('&')?;
        let (_, kind) = *KINDS.iter().find(|(known, _)| *known == name)?;
        let number = |name| wished(wish, name);
        let plan = Plan {
            kind,
            rollouts: number("rollouts"),
            turns: number("turns").max(1),
            prompt_ids: number("prompt_ids"),
            sampled_ids: number("sampled_ids"),
            delay_ms: number("delay_ms"),
            interval_ms: number("interval_ms"),
        };
        plan.check().ok()?;
        let ids = if number("always") == 1 { Ids::Always } else { Ids::OnRequest };
        Some(Self { call: plan.call(number("rollout"), number("turn").min(plan.turns - 1)), ids })
    }
}

/// Ids between a response and the end of the next prompt: the result of a tool.
const TOOL_IDS: u64 = 512;
const VOCABULARY: u64 = 150_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(turns: u64) -> Plan {
        let kind = Kind::Sse;
        Plan { kind, rollouts: 3, turns, prompt_ids: 4000, sampled_ids: 100, delay_ms: 5, interval_ms: 6 }
    }

    #[test]
    fn prompts_of_a_rollout_continue_each_other() {
        let call = |turn| plan(3).call(1, turn);
        assert_eq!(call(2).prompt(), 0..4000);
        assert_eq!(call(1).prompt(), 0..4000 - 612);
        assert_eq!(call(2).sampled(), 4000..4100);
        assert_eq!(call(0).sampled(), 2776..2876);
        let roles: Vec<_> = call(2).messages().iter().map(|(role, _)| *role).collect();
        assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"]);
        let mut end = 0;
        for (_, range) in call(2).messages() {
            assert_eq!(range.start, end);
            end = range.end;
        }
        assert_eq!(end, 4000);
        assert_eq!((plan(3).calls(), plan(3).distinct_ids()), (9, 12_300));
    }

    #[test]
    fn values_differ_between_rollouts_and_stay_in_their_ranges() {
        let (one, other) = (plan(1).call(0, 0), plan(1).call(1, 0));
        let ids = |call: Call| (0..1000).map(|at| call.id(at)).collect::<Vec<_>>();
        assert!(ids(one).iter().all(|id| *id < 150_000));
        assert!(ids(one).iter().zip(ids(other)).filter(|(one, other)| *one == other).count() < 10);
        assert_ne!(one.word(0), other.word(0));
        assert!((0..1000).map(|at| one.logprob(at)).all(|value| (-8.0..0.0).contains(&value)));
        assert!(one.experts(7).chunks(2).all(|expert| expert[0] < 128 && expert[1] == 0));
    }

    #[test]
    fn orders_and_response_ids_are_read_as_they_were_written() {
        for ids in [Ids::OnRequest, Ids::Always] {
            let order = Order { call: plan(2).call(2, 1), ids };
            assert_eq!(Order::of_wish(&order.wish()), Some(order));
        }
        let call = plan(2).call(2, 1);
        assert_eq!(Call::of_response_id(plan(2), &call.response_id()), Some(call));
        assert_eq!(Call::of_response_id(plan(2), "chatcmpl-3-0"), None);
        assert_eq!(Order::of_wish("chunks=64&interval_ms=1"), None);
        assert_eq!(Order::of_wish(""), None);
    }

    #[test]
    fn a_prompt_too_short_for_its_turns_is_rejected() {
        assert!(plan(6).check().is_ok());
        assert!(plan(8).check().is_err());
    }
}
