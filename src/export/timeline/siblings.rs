//! Which spans of a long list the timeline draws.

use crate::trace::Span;

/// How much is drawn of the spans below one span, and of those without a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    /// All of them.
    Nothing,
    /// Of more than [`MAX_SIBLINGS`] the first, the last, and some that failed. A line says how many are left out.
    LongLists,
}

/// A longer list is folded.
pub(crate) const MAX_SIBLINGS: usize = 60;
/// How many spans are drawn at each end of a folded list.
const ENDS: usize = 15;
/// How many of those between that failed are drawn as well, the first ones.
const FAILED: usize = 15;

/// A line of a list, or what is left out there.
pub(super) enum Sibling<'l, 'a> {
    /// The span at this index of the whole list.
    Shown { at: usize, span: &'a Span },
    /// At least one span.
    LeftOut(&'l [&'a Span]),
}

/// What is drawn of a list, in its order.
pub(super) fn folded<'l, 'a>(list: &'l [&'a Span], fold: Fold) -> Vec<Sibling<'l, 'a>> {
    let is_long = fold == Fold::LongLists && list.len() > MAX_SIBLINGS;
    let (mut siblings, mut next, mut failed) = (Vec::new(), 0, 0);
    for (at, span) in list.iter().enumerate() {
        if is_long && at >= ENDS && at < list.len() - ENDS {
            failed += usize::from(span.is_error());
            if !span.is_error() || failed > FAILED {
                continue;
            }
        }
        if at > next {
            siblings.push(Sibling::LeftOut(&list[next..at]));
        }
        siblings.push(Sibling::Shown { at, span });
        next = at + 1;
    }
    siblings
}

#[cfg(test)]
mod tests {
    use super::super::tests::span;
    use super::*;
    use crate::trace::{Status, StatusCode};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_span_is_drawn_or_left_out_once_in_order(failed in prop::collection::vec(any::<bool>(), 0..300)) {
            let spans: Vec<Span> = failed.iter().enumerate().map(|(at, failed)| {
                let mut span = span(&at.to_string(), None, "x", 0, 1);
                if *failed {
                    span.status = Status { status_code: StatusCode::Error, description: None };
                }
                span
            }).collect();
            let list: Vec<&Span> = spans.iter().collect();
            for fold in [Fold::Nothing, Fold::LongLists] {
                let (mut ids, mut lines) = (Vec::new(), 0);
                for sibling in folded(&list, fold) {
                    lines += 1;
                    match sibling {
                        Sibling::Shown { at, span } => {
                            prop_assert_eq!(&span.span_id, &at.to_string());
                            ids.push(span.span_id.clone());
                        }
                        Sibling::LeftOut(spans) => {
                            prop_assert!(!spans.is_empty());
                            ids.extend(spans.iter().map(|span| span.span_id.clone()));
                        }
                    }
                }
                prop_assert_eq!(ids, (0..failed.len()).map(|at| at.to_string()).collect::<Vec<_>>());
                let bound = if fold == Fold::Nothing { failed.len() } else { MAX_SIBLINGS.max(2 * ENDS + 2 * FAILED + 1) };
                prop_assert!(lines <= bound, "{} lines", lines);
            }
        }
    }
}
