//! The tree of a rollout's spans, whatever their parents say: without cycles, with orphans as roots.

use crate::trace::Span;
use std::collections::HashMap;

/// Which span is the parent of which, by index.
pub(crate) struct SpanTree {
    parents: Vec<Option<usize>>,
    /// True for spans that name a parent which is, or descends from, the span itself. They count as roots.
    cut: Vec<bool>,
}

impl SpanTree {
    /// The tree of these spans. Of spans in a cycle the first one becomes a root.
    pub(crate) fn of(spans: &[Span]) -> Self {
        let by_id: HashMap<(&str, &str), usize> =
            spans.iter().enumerate().rev().map(|(at, span)| (key(span), at)).collect();
        let parent = |span: &Span| by_id.get(&(span.attempt_id.as_str(), span.parent_id.as_deref()?)).copied();
        let mut tree = Self { parents: spans.iter().map(parent).collect(), cut: vec![false; spans.len()] };
        tree.cut_cycles();
        tree
    }

    /// The parent of a span. `None` for roots, and for orphans.
    pub(super) fn parent(&self, at: usize) -> Option<usize> {
        self.parents[at]
    }

    /// True if the span names a parent that it can't have.
    pub(super) fn is_cut(&self, at: usize) -> bool {
        self.cut[at]
    }

    /// The spans in the order of the tree, each with its depth. Siblings stay in the order of the list.
    pub(crate) fn walk(&self) -> Vec<(usize, usize)> {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.parents.len()];
        let mut waiting = Vec::new();
        for (at, parent) in self.parents.iter().enumerate().rev() {
            match parent {
                Some(parent) => children[*parent].push(at),
                None => waiting.push((at, 0)),
            }
        }
        let mut walk = Vec::with_capacity(self.parents.len());
        while let Some((at, depth)) = waiting.pop() {
            walk.push((at, depth));
            waiting.extend(children[at].iter().map(|child| (*child, depth + 1)));
        }
        walk
    }

    /// Follows the parents of each span once. A walk that meets itself again has found a cycle.
    fn cut_cycles(&mut self) {
        // The walk that visited a span first; 0 for none.
        let mut visited = vec![0; self.parents.len()];
        for start in 0..self.parents.len() {
            let (walk, mut at) = (start + 1, start);
            while visited[at] == 0 {
                visited[at] = walk;
                let Some(parent) = self.parents[at] else { break };
                if visited[parent] == walk {
                    // The first span of the cycle in the list.
                    let first = self.first_in_cycle(parent);
                    self.parents[first] = None;
                    self.cut[first] = true;
                    break;
                }
                at = parent;
            }
        }
    }

    fn first_in_cycle(&self, member: usize) -> usize {
        let (mut first, mut at) = (member, member);
        while let Some(parent) = self.parents[at].filter(|parent| *parent != member) {
            first = first.min(parent);
            at = parent;
        }
        first
    }
}

/// Span ids are unique within an attempt.
fn key(span: &Span) -> (&str, &str) {
    (span.attempt_id.as_str(), span.span_id.as_str())
}
