//! The spill file: bytes in flight for which memory is short.
//!
//! One file a process, which has no name: it is gone when the process ends, however it ends. It consists of blocks that
//! are used again, and is emptied when nothing is in use. A write takes as long as the disk does; on a runtime of several
//! threads other connections go on meanwhile.

use crate::error::{ErrorKind, ProxyError};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::{Handle, RuntimeFlavor};

/// The spill file of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SpillArea(Arc<Area>);

#[derive(Debug)]
struct Area {
    folder: PathBuf,
    state: Mutex<AreaState>,
    total_bytes: AtomicU64,
    errors: AtomicU64,
    /// Why the last write failed; None if it did not.
    failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct AreaState {
    /// None until the first spill.
    file: Option<Arc<File>>,
    /// Blocks of the file that are not in use; the file has `blocks` in all.
    free: Vec<u64>,
    blocks: u64,
}

/// Why bytes can't be spilled or read back.
#[derive(Debug, thiserror::Error)]
#[error("the spill file in {} failed: {source}", folder.display())]
pub(crate) struct SpillError {
    folder: PathBuf,
    source: io::Error,
}

impl From<SpillError> for ProxyError {
    fn from(error: SpillError) -> Self {
        Self::from_source(ErrorKind::ProxyInternalError, "", &error)
    }
}

impl From<SpillError> for io::Error {
    fn from(error: SpillError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Bytes in the spill file. Their blocks are free again when this is dropped.
#[derive(Debug)]
pub(crate) struct SpilledBytes {
    area: SpillArea,
    blocks: Vec<u64>,
    length: u64,
}

impl SpillArea {
    /// A spill file in `folder`, which is created when the first bytes are spilled.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Area {
            folder,
            state: Mutex::default(),
            total_bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failure: Mutex::default(),
        }))
    }

    /// Room for bytes; none yet.
    pub(crate) fn spilled(&self) -> SpilledBytes {
        SpilledBytes { area: self.clone(), blocks: Vec::new(), length: 0 }
    }

    /// Bytes of the blocks that are in use.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        let state = self.lock();
        (state.blocks - state.free.len() as u64) * BLOCK_BYTES
    }

    /// Bytes that were ever written.
    pub(crate) fn spilled_total(&self) -> u64 {
        self.0.total_bytes.load(Ordering::Relaxed)
    }

    /// Writes and reads that failed.
    pub(crate) fn errors(&self) -> u64 {
        self.0.errors.load(Ordering::Relaxed)
    }

    /// Why the last write failed, and what can be done. None if it did not.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure_slot().clone()
    }

    fn failure_slot(&self) -> MutexGuard<'_, Option<String>> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, AreaState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, and the number of a block of it that nothing uses.
    fn allocate(&self) -> io::Result<(Arc<File>, u64)> {
        let mut state = self.lock();
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(state.file.insert(Arc::new(self.create()?))),
        };
        let block = state.free.pop().unwrap_or_else(|| {
            state.blocks += 1;
            state.blocks - 1
        });
        Ok((file, block))
    }

    /// Creates the file, which never has a name where the file system can do without.
    fn create(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.0.folder)
    }

    fn free(&self, blocks: &[u64]) {
        let mut state = self.lock();
        state.free.extend_from_slice(blocks);
        if state.free.len() as u64 == state.blocks && state.blocks > 0 {
            // Nothing is in use. If this fails the blocks are used again all the same.
            let emptied = state.file.as_ref().is_some_and(|file| file.set_len(0).is_ok());
            if emptied {
                state.free = Vec::new();
                state.blocks = 0;
            }
        }
    }

    fn failed(&self, source: io::Error) -> SpillError {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
        let error = SpillError { folder: self.0.folder.clone(), source };
        let text = format!(
            "memory for calls in flight is used up and they can't be spilled, so what is recorded of them is incomplete; \
             make room on the disk, make the folder writable, or raise capture.memory_budget_bytes: {error}"
        );
        if self.failure_slot().replace(text).is_none() {
            tracing::error!(%error, "calls in flight can't be spilled to the disk; see GET /readyz");
        }
        error
    }
}

impl SpilledBytes {
    /// The number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Appends bytes; after an error none of them.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), SpillError> {
        let before = self.length;
        if let Err(error) = off_the_reactor(|| self.write(bytes)) {
            let blocks = usize::try_from(before.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
            self.area.free(&self.blocks.split_off(blocks.min(self.blocks.len())));
            self.length = before;
            return Err(self.area.failed(error));
        }
        self.area.0.total_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        *self.area.failure_slot() = None;
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let within = self.length % BLOCK_BYTES;
            let room = usize::try_from(BLOCK_BYTES - within).unwrap_or(usize::MAX);
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            let file = if within == 0 {
                let (file, block) = self.area.allocate()?;
                self.blocks.push(block);
                file
            } else {
                self.file()?
            };
            file.write_all_at(part, self.position(self.length))?;
            self.length += part.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Reads bytes from an offset on, and returns how many; 0 at the end.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, SpillError> {
        let in_block = BLOCK_BYTES - offset % BLOCK_BYTES;
        let readable = self.length.saturating_sub(offset).min(in_block);
        let length = into.len().min(usize::try_from(readable).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let read = off_the_reactor(|| self.file()?.read_exact_at(&mut into[..length], self.position(offset)));
        read.map_err(|error| self.area.failed(error))?;
        Ok(length)
    }

    /// Where a byte is in the file.
    fn position(&self, offset: u64) -> u64 {
        let at = usize::try_from(offset / BLOCK_BYTES).unwrap_or(usize::MAX);
        self.blocks.get(at).copied().unwrap_or_default() * BLOCK_BYTES + offset % BLOCK_BYTES
    }

    fn file(&self) -> io::Result<Arc<File>> {
        self.area.lock().file.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Drop for SpilledBytes {
    fn drop(&mut self) {
        self.area.free(&self.blocks);
    }
}

/// Does what may wait for the disk. Where the runtime has several threads, another one takes over its other tasks.
fn off_the_reactor<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) { tokio::task::block_in_place(work) } else { work() }
}

const BLOCK_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &SpilledBytes) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), vec![0; 50_000]);
        loop {
            match bytes.read_at(all.len() as u64, &mut piece).unwrap() {
                0 => return all,
                length => all.extend_from_slice(&piece[..length]),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn bytes_come_back_from_blocks_that_are_used_again(
            steps in prop::collection::vec((0_usize..4, 0_usize..150_000, any::<u8>()), 0..30),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let area = SpillArea::new(folder.path().to_owned());
            let mut held: Vec<(SpilledBytes, Vec<u8>)> = (0..4).map(|_| (area.spilled(), Vec::new())).collect();
            for (which, length, byte) in steps {
                let (spilled, expected) = &mut held[which];
                if length % 7 == 0 {
                    (*spilled, *expected) = (area.spilled(), Vec::new());
                } else {
                    let bytes: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at as u8)).collect();
                    spilled.append(&bytes).unwrap();
                    expected.extend(bytes);
                }
                for (spilled, expected) in &held {
                    prop_assert!(read(spilled) == *expected);
                }
            }
            prop_assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "the file has no name");
            drop(held);
            prop_assert_eq!((area.spilled_bytes(), area.failure()), (0, None));
        }
    }

    #[test]
    fn a_folder_that_takes_no_file_is_an_error_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let area = SpillArea::new(folder.path().join("missing"));
        let mut spilled = area.spilled();
        let error = spilled.append(b"abc").unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
        assert_eq!((spilled.len(), area.errors(), area.spilled_bytes()), (0, 1, 0));
        assert!(area.failure().unwrap().contains("capture.memory_budget_bytes"));
        std::fs::create_dir(folder.path().join("missing")).unwrap();
        spilled.append(b"abc").unwrap();
        assert_eq!((read(&spilled), area.failure()), (b"abc".to_vec(), None));
    }
}
