//! Finds the call that another one continues: the longest earlier sequence that is a prefix of its prompt.
//!
//! Every prompt is hashed once, from its start to its end. At each length that some sequence has, the hash so far is looked up
//! in a table of the hashes of whole sequences. A hit is then compared token by token, so that equal hashes prove nothing.
//! The cost is linear in the number of tokens; the memory is linear in the number of calls.

use super::call::{Call, Exclusion, Lineage};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

/// The call that another one continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// Index among the calls.
    pub call: usize,
    /// True if another call has the same prompt and the same answer: which of both was continued can't be known.
    pub is_ambiguous: bool,
}

/// The parent of each call. `calls` are in the order of their sequence ids; a parent comes before its children.
/// `prompts` are their prompts.
pub(super) fn parents(calls: &[Call], prompts: &[PromptKey<'_>]) -> Vec<Option<Parent>> {
    let sequences = SequenceTable::of(calls, prompts);
    // A call without token ids of an answer continues nothing: it would end a branch that its retry continues.
    let parent = |(at, call): (usize, &Call)| call.has_tokens().then(|| sequences.parent(calls, at, call)).flatten();
    calls.iter().enumerate().map(parent).collect()
}

/// The prompt of a call as a key of maps. It is hashed once, in one pass.
#[derive(PartialEq, Eq)]
pub(super) struct PromptKey<'a> {
    hash: u64,
    lineage: Lineage,
    prompt: &'a [u32],
}

impl<'a> PromptKey<'a> {
    pub(super) fn of(call: &'a Call) -> Self {
        Self { hash: hash(SEED, &call.prompt), lineage: call.lineage(), prompt: &call.prompt }
    }
}

impl Hash for PromptKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.hash, self.lineage).hash(state);
    }
}

/// The sequences of all calls, by lineage, length and hash.
struct SequenceTable {
    by_key: HashMap<Key, Vec<usize>>,
    // Lengths of the sequences, ascending.
    lengths: Vec<usize>,
    filter: Filter,
}

type Key = (Lineage, usize, u64);

impl SequenceTable {
    fn of(calls: &[Call], prompts: &[PromptKey<'_>]) -> Self {
        let mut by_key: HashMap<Key, Vec<usize>> = HashMap::with_capacity(calls.len());
        let mut lengths = Vec::with_capacity(calls.len());
        let mut filter = Filter::for_entries(calls.len());
        for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.has_tokens()) {
            let hash = hash(prompts[at].hash, &call.sampled);
            by_key.entry((call.lineage(), call.len(), hash)).or_default().push(at);
            filter.add(hash);
            lengths.push(call.len());
        }
        lengths.sort_unstable();
        lengths.dedup();
        Self { by_key, lengths, filter }
    }

    fn parent(&self, calls: &[Call], at: usize, call: &Call) -> Option<Parent> {
        let mut hits: Vec<&[usize]> = Vec::new();
        let (mut state, mut done) = (SEED, 0);
        for length in self.lengths.iter().copied().take_while(|length| *length <= call.prompt.len()) {
            state = hash(state, &call.prompt[done..length]);
            done = length;
            if self.filter.may_have(state)
                && let Some(found) = self.by_key.get(&(call.lineage(), length, state))
            {
                hits.push(found);
            }
        }
        hits.into_iter().rev().find_map(|found| {
            let earlier = &found[..found.partition_point(|one| *one < at)];
            let continued = || earlier.iter().copied().filter(|one| call.continues(&calls[*one]));
            // A retry got the very answer of another call, which is the one that is trained.
            let sampled = || continued().filter(|one| calls[*one].exclusion != Some(Exclusion::Retry));
            let call = sampled().next_back().or_else(|| continued().next_back())?;
            Some(Parent { call, is_ambiguous: sampled().count() > 1 })
        })
    }
}

/// A Bloom filter with one hash function, in front of the table: most lookups miss.
struct Filter {
    bits: Vec<u64>,
}

impl Filter {
    fn for_entries(entries: usize) -> Self {
        // 16 bits an entry: about one in 16 hashes that are not in the table passes.
        Self { bits: vec![0; (entries / 4).next_power_of_two().max(16)] }
    }

    fn add(&mut self, hash: u64) {
        let (word, bit) = self.place(hash);
        self.bits[word] |= bit;
    }

    fn may_have(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        self.bits[word] & bit != 0
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        // The last token is in the low bits only; a multiplication moves it to the high ones.
        let hash = hash.wrapping_mul(SEED);
        let word = usize::try_from(hash >> 32).unwrap_or_default() & (self.bits.len() - 1);
        (word, 1 << (hash >> 26 & 63))
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Continues a hash with more tokens. It is a polynomial in them, so that a sequence has the same hash however it is divided.
fn hash(state: u64, tokens: &[u32]) -> u64 {
    let term = |token: u32, factor: u64| u64::from(token).wrapping_mul(factor);
    let (steps, rest) = tokens.as_chunks();
    // The products of a step do not wait for each other.
    let state = steps.iter().fold(state, |state, [a, b, c, d]| {
        let added = term(*a, FACTORS[3]).wrapping_add(term(*b, FACTORS[2])).wrapping_add(term(*c, FACTORS[1]));
        state.wrapping_mul(FACTORS[4]).wrapping_add(added).wrapping_add(u64::from(*d))
    });
    rest.iter().fold(state, |state, token| state.wrapping_mul(FACTORS[1]).wrapping_add(u64::from(*token)))
}

/// Powers of an odd number.
const FACTORS: [u64; 5] = {
    let mut powers = [1_u64; 5];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1].wrapping_mul(0xff51_afd7_ed55_8ccd);
        at += 1;
    }
    powers
};

/// Length of the longest common prefix of a prompt and of prompt and answer of another call.
pub(super) fn common_prefix(prompt: &[u32], earlier: &Call) -> usize {
    let in_prompt = common(prompt, &earlier.prompt);
    if in_prompt < earlier.prompt.len() {
        return in_prompt;
    }
    in_prompt + common(&prompt[in_prompt..], &earlier.sampled)
}

fn common(one: &[u32], other: &[u32]) -> usize {
    // Whole blocks are compared at the speed of memory.
    let equal = one.chunks_exact(BLOCK).zip(other.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    equal + one[equal..].iter().zip(&other[equal..]).take_while(|(a, b)| a == b).count()
}

const BLOCK: usize = 64;
