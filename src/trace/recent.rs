//! The newest entries of a map, in a bounded number.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A map that forgets its oldest entries.
#[derive(Clone, Debug)]
pub struct Recent<K, V> {
    entries: HashMap<K, V>,
    // Keys that were taken are still in it until they are the oldest.
    order: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty one, of at most so many entries.
    pub fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), most }
    }

    /// An entry.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// An entry, which is forgotten.
    pub fn take(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// Adds an entry, or changes it.
    pub fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let mut recent = Recent::new(2);
        recent.put(1, "a");
        recent.put(2, "b");
        recent.put(1, "c");
        recent.put(3, "d");
        assert_eq!((recent.get(&1), recent.get(&2)), (None, Some(&"b")));
        assert_eq!((recent.take(&3), recent.take(&3)), (Some("d"), None));
    }
}
