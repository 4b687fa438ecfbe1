//! Files of the data folder that are mapped into memory, so that what is written there outlives a kill of the process. One of the files that may
//! hold `unsafe`.
//!
//! Writing costs no system call. What is written survives whatever ends the process, as the pages are the kernel's; a crash of the host may leave any
//! of them as they were at any time before.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use crate::contract::{KeptMemory, KeptWords};
use base::model::{InterlayName, limits};

/// Its folder in the data folder.
const FOLDER: &str = "intents";
const WORDS: usize = limits::INTENT_HEADER_WORDS + limits::INTENT_LOG_WORDS;
const BYTES: usize = WORDS * size_of::<u64>();

/// The file of one interlay. Lives on its companion's core.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
}

impl MappedFile {
    #[must_use]
    pub fn of_interlay(data_dir: &Path, interlay: &InterlayName) -> Self {
        Self { path: data_dir.join(FOLDER).join(interlay.as_str()) }
    }

    fn about(&self, what: &str, error: &std::io::Error) -> String {
        format!("{} cannot be {what}: {error}", self.path.display())
    }

    fn map(&self, file: &File) -> Result<KeptWords, String> {
        Mapping::new(file).map(|mapping| Rc::new(mapping) as KeptWords).map_err(|error| self.about("mapped", &error))
    }

    fn remove(&self) -> std::io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl KeptMemory for MappedFile {
    fn left(&mut self) -> Result<KeptWords, String> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => "there is none".to_owned(),
            _ => self.about("opened", &error),
        })?;
        let length = file.metadata().map_err(|error| self.about("opened", &error))?.len();
        if length != BYTES as u64 {
            return Err(format!("it has {length} bytes and not {BYTES}"));
        }
        self.map(&file)
    }

    fn fresh(&mut self) -> Result<KeptWords, String> {
        self.remove().map_err(|error| self.about("removed", &error))?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| self.about("made", &error))?;
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path);
        let file = file.map_err(|error| self.about("made", &error))?;
        // All of it at once: a disk that is full later would end the process at a write into memory.
        // SAFETY: takes no pointer; the descriptor is open for the call.
        let code = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, BYTES as libc::off_t) };
        if code != 0 {
            self.discard();
            return Err(self.about("made", &std::io::Error::from_raw_os_error(code)));
        }
        self.map(&file)
    }

    fn discard(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, path = %self.path.display(), "an intent log that is not needed any more cannot be removed");
        }
    }

    fn boot(&self) -> u128 {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        u128::from_str_radix(&id.trim().replace('-', ""), 16).unwrap_or(0)
    }
}

/// The pages of a file, for as long as this lives.
struct Mapping {
    words: *const AtomicU64,
}

impl Mapping {
    /// The file has [`BYTES`] bytes.
    fn new(file: &File) -> std::io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses where, so no memory of ours is replaced; the descriptor is open for the call, and not needed behind it.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { words: address.cast_const().cast() })
    }
}

impl AsRef<[AtomicU64]> for Mapping {
    #[inline]
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: `new` has mapped this many bytes at an address of a page, readable and writable, and `drop` alone unmaps them. Any bits are a
        // valid word, and an atomic may be changed by anybody, another process with the file included. Nothing shortens the file: it is ours,
        // it is never truncated, and a removed one keeps its pages.
        unsafe { std::slice::from_raw_parts(self.words, WORDS) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the very range that `new` has mapped; no slice of it can live longer than `self`.
        unsafe {
            libc::munmap(self.words.cast_mut().cast(), BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_is_written_is_found_by_the_next() {
        let folder = std::env::temp_dir().join(format!("crossfade-mapped-{}", std::process::id()));
        let name = InterlayName::new("orders").unwrap();
        let mut file = MappedFile::of_interlay(&folder, &name);
        assert_eq!(file.left().err().unwrap(), "there is none");
        let words = file.fresh().unwrap();
        assert!((*words).as_ref().iter().step_by(4096).all(|word| word.load(Ordering::Relaxed) == 0));
        (*words).as_ref()[WORDS - 1].store(7, Ordering::Relaxed);
        let left = file.left().unwrap();
        assert_eq!((*left).as_ref()[WORDS - 1].load(Ordering::Relaxed), 7);
        let fresh = file.fresh().unwrap();
        assert_eq!((*fresh).as_ref()[WORDS - 1].load(Ordering::Relaxed), 0);
        assert_eq!((*left).as_ref()[WORDS - 1].load(Ordering::Relaxed), 7, "it keeps its pages");
        File::options().write(true).open(&file.path).unwrap().set_len(5).unwrap();
        assert!(file.left().err().unwrap().contains("5 bytes"));
        file.discard();
        assert_eq!(file.left().err().unwrap(), "there is none");
        assert_eq!(file.boot(), file.boot());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
