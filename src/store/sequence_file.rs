//! Sequence counters in a file, for programs that assign sequence ids without asking a database: those that write to one
//! SQLite file, and those on a PostgreSQL server that is away.
//!
//! A counter is one read and one write of 96 bytes under a lock of the file, some microseconds. It holds ids that the store
//! does not know yet, so it is written before the id is used, and survives the end of the program. The file has a fixed size:
//! a counter that was not used for a day gives way to another, and if there is none, rollouts share one. Ids then have gaps;
//! they do not repeat. Without access to the file, a program counts on its own.

use crate::files::{Owner, check_unchangeable};
use crate::trace::RolloutId;
use aws_lc_rs::digest;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The counters in one file. The file is created with the first one.
pub(super) struct SequenceFile {
    path: PathBuf,
    file: Mutex<State>,
}

enum State {
    Unopened,
    Open(File),
    /// This program counts on its own until it tries again.
    Failed {
        since: Instant,
    },
}

impl SequenceFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(State::Unopened) }
    }

    /// Takes the next id of a rollout: at least `at_least`, and above all that were taken or noted.
    pub(super) fn take(&self, rollout: &RolloutId, at_least: u64) -> u64 {
        self.update(rollout, |last| at_least.max(last + 1)).unwrap_or(at_least)
    }

    /// Notes an id that came from elsewhere. Returns the highest one that is known now.
    pub(super) fn note(&self, rollout: &RolloutId, id: u64) -> u64 {
        self.update(rollout, |last| id.max(last)).unwrap_or(id)
    }

    /// Changes a rollout's counter. `None` if the file can't be used.
    fn update(&self, rollout: &RolloutId, change: impl FnOnce(u64) -> u64) -> Option<u64> {
        let mut state = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match std::mem::replace(&mut *state, State::Unopened) {
            State::Open(file) => Ok(file),
            State::Failed { since } if since.elapsed() < RETRY_INTERVAL => {
                *state = State::Failed { since };
                return None;
            }
            State::Failed { .. } | State::Unopened => open(&self.path),
        };
        match file.and_then(|file| Ok((change_in(&file, rollout, change)?, file))) {
            Ok((last, file)) => {
                *state = State::Open(file);
                Some(last)
            }
            Err(error) => {
                tracing::warn!(
                    %error, path = %self.path.display(),
                    "the file of sequence ids can't be used; ids may repeat if another program writes to the same rollouts"
                );
                *state = State::Failed { since: Instant::now() };
                None
            }
        }
    }
}

/// One rollout's counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counter {
    /// From the rollout's id; 0 in a counter that was never used. Two rollouts with one key share a counter.
    key: u64,
    last: u64,
    used_at_unix_s: u64,
}

/// The counters that a rollout can have: it takes any of them.
type Set = [Counter; SET_LEN];

const SET_LEN: usize = 4;
const COUNTER_BYTES: usize = 24;
const SET_BYTES: usize = SET_LEN * COUNTER_BYTES;
/// 3 MiB in all, of which the file system only stores what is used.
const SETS: u64 = 1 << 15;
/// After this time without use, all ids of a rollout are in the store, or lost with their program.
const KEPT: Duration = Duration::from_hours(24);
/// Between two tries to use a file that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Another program holds the lock for microseconds, unless it was stopped just then.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// Callers name no ids above 2^53, and no rollout takes as many more. What is above was not written by us.
const MAX_ID: u64 = 1 << 54;

fn open(path: &Path) -> io::Result<File> {
    check_unchangeable(path, Owner::ThisUser).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn change_in(file: &File, rollout: &RolloutId, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
    let digest = digest::digest(&digest::SHA256, rollout.as_str().as_bytes());
    let mut words = digest.as_ref().chunks_exact(8).map(word);
    let (key, set) = (words.next().unwrap_or_default().max(1), words.next().unwrap_or_default() % SETS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let _lock = FileLock::new(file)?;
    let offset = set * SET_BYTES as u64;
    let mut bytes = [0; SET_BYTES];
    read_up_to(file, &mut bytes, offset)?;
    let mut counters = decode(&bytes);
    let last = change_set(&mut counters, key, now, change);
    file.write_all_at(&encode(&counters), offset)?;
    Ok(last)
}

/// Changes the counter with this key.
fn change_set(set: &mut Set, key: u64, now_unix_s: u64, change: impl FnOnce(u64) -> u64) -> u64 {
    let is_used =
        |counter: &Counter| counter.key != 0 && now_unix_s.saturating_sub(counter.used_at_unix_s) < KEPT.as_secs();
    let of_others = set.iter().filter(|counter| is_used(counter)).map(|counter| counter.last).max().unwrap_or(0);
    let all_are_used = set.iter().all(is_used);
    let own = set.iter().position(|counter| counter.key == key);
    let oldest = || (0..SET_LEN).min_by_key(|at| (set[*at].key != 0, set[*at].used_at_unix_s));
    let index = own.or_else(oldest).unwrap_or_default();
    let last = match own {
        Some(own) => set[own].last,
        // The rollout may have had one of them before.
        None if all_are_used => of_others,
        None => 0,
    };
    let last = change(last);
    set[index] = Counter { key, last, used_at_unix_s: now_unix_s };
    last
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn decode(bytes: &[u8; SET_BYTES]) -> Set {
    let mut words = bytes.chunks_exact(8).map(word);
    let mut next = || words.next().unwrap_or_default();
    std::array::from_fn(|_| {
        let counter = Counter { key: next(), last: next(), used_at_unix_s: next() };
        if counter.last > MAX_ID { Counter::default() } else { counter }
    })
}

fn encode(set: &Set) -> [u8; SET_BYTES] {
    let mut bytes = [0; SET_BYTES];
    let words = set.iter().flat_map(|counter| [counter.key, counter.last, counter.used_at_unix_s]);
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Reads what the file has; the rest stays zero.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => return Ok(()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The lock of the file, released with this value.
struct FileLock<'a>(&'a File);

impl<'a> FileLock<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_TIMEOUT => std::thread::yield_now(),
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another program holds its lock"));
                }
            }
        }
    }
}

impl Drop for FileLock<'_> {
    fn drop(&mut self) {
        // A failure leaves the lock to the end of the program; others then count on their own.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the file of sequence ids can't be unlocked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};
    use std::sync::Arc;

    fn rollout(id: &str) -> RolloutId {
        RolloutId::from(id)
    }

    #[test]
    fn ids_continue_in_another_program_and_after_noted_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequences");
        let (one, other) = (SequenceFile::new(path.clone()), SequenceFile::new(path));
        let (a, b) = (rollout("a"), rollout("b"));
        assert_eq!([one.take(&a, 1), other.take(&a, 1), one.take(&a, 2), other.take(&b, 1)], [1, 2, 3, 1]);
        assert_eq!([one.note(&a, 9), other.note(&a, 4), other.take(&a, 1), one.take(&a, 20)], [9, 9, 10, 20]);
    }

    #[test]
    fn two_programs_never_take_the_same_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequences");
        let taken: Vec<_> = (0..4)
            .map(|_| {
                let file = SequenceFile::new(path.clone());
                std::thread::spawn(move || (0..500).map(|_| file.take(&rollout("a"), 1)).collect::<Vec<_>>())
            })
            .collect();
        let ids: HashSet<u64> = taken.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.len(), 2000);
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_program_to_its_own_count() {
        let folder = tempfile::tempdir().unwrap();
        let file = SequenceFile::new(folder.path().join("missing/sequences"));
        assert_eq!([file.take(&rollout("a"), 7), file.note(&rollout("a"), 3)], [7, 3]);
        let path = folder.path().join("sequences");
        let stopped = open(&path).unwrap();
        stopped.lock().unwrap();
        assert_eq!(SequenceFile::new(path).take(&rollout("a"), 5), 5);
    }

    #[test]
    fn what_others_wrote_into_the_file_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sequences");
        std::fs::write(&path, vec![0xff; SET_BYTES * SETS as usize]).unwrap();
        let file = Arc::new(SequenceFile::new(path));
        assert_eq!([file.take(&rollout("a"), 1), file.take(&rollout("a"), 1)], [1, 2]);
    }

    proptest! {
        /// Seven rollouts share a set of four counters. Each knows its own last id only while it is used.
        #[test]
        fn an_id_is_never_taken_twice_within_a_day(takes in prop::collection::vec((1_u64..8, 0_u64..600), 1..200)) {
            let (mut set, mut now) = (Set::default(), 0);
            let mut taken: HashMap<u64, HashSet<u64>> = HashMap::new();
            for (key, pause) in takes {
                now += pause;
                prop_assume!(now < KEPT.as_secs());
                let id = change_set(&mut set, key, now, |last| last + 1);
                prop_assert!(taken.entry(key).or_default().insert(id));
                prop_assert_eq!(decode(&encode(&set)), set);
            }
        }

        #[test]
        fn counters_have_no_gaps_while_there_is_room(takes in prop::collection::vec(1_u64..5, 1..100)) {
            let mut set = Set::default();
            let mut counts: HashMap<u64, u64> = HashMap::new();
            for key in takes {
                let count = counts.entry(key).or_default();
                *count += 1;
                prop_assert_eq!(change_set(&mut set, key, 0, |last| last + 1), *count);
            }
        }
    }

    #[test]
    fn a_counter_that_was_not_used_for_a_day_gives_way() {
        let mut set = Set::default();
        for key in 1..=4 {
            assert_eq!(change_set(&mut set, key, key, |last| last + 10), 10);
        }
        assert_eq!(change_set(&mut set, 5, 5, |last| last + 1), 11);
        assert_eq!(change_set(&mut set, 6, KEPT.as_secs() + 2, |last| last + 1), 1);
    }
}
