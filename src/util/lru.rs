//! Maps that hold a bounded number of entries and evict the least recently used one.

pub(crate) use lru::LruCache;
use std::hash::Hash;
use std::num::NonZeroUsize;

/// An empty map of at most `max_entries`, at least one. `get` and `put` make an entry the most recently used; `peek` does not.
pub(crate) fn lru<K: Hash + Eq, V>(max_entries: usize) -> LruCache<K, V> {
    LruCache::new(NonZeroUsize::new(max_entries).unwrap_or(NonZeroUsize::MIN))
}
