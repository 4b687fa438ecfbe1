//! A bounded queue of bytes: the first of them in memory, what does not fit in a file.
//!
//! A stream is read from its server as fast as it comes, so that nothing gathers in the server's memory, and waits here until it can be
//! used. Lives on one thread. The file has no name and is gone with the process; writes and reads of it go to the page cache in pieces
//! of at most [`limits::FOLLOW_READ_BYTES`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use base::model::limits;

/// How large a spill may become, and where its file is.
#[derive(Debug, Clone)]
pub struct SpillSpec {
    pub memory_bytes_max: u64,
    pub bytes_max: u64,
    pub folder: PathBuf,
}

/// Why bytes were not taken.
#[derive(Debug)]
pub enum SpillError {
    /// It holds as much as it may.
    Full { bytes_max: u64 },
    /// The folder or disk.
    Disk { folder: PathBuf, error: io::Error },
}

impl std::fmt::Display for SpillError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { bytes_max } => write!(
                f,
                "{bytes_max} bytes of the source's stream wait for the target, which is the most that is kept: the target is too slow for \
                 this rate of writes"
            ),
            Self::Disk { folder, error } => {
                write!(f, "the source's stream cannot be kept in {}: {error}", folder.display())
            }
        }
    }
}

impl std::error::Error for SpillError {}

/// The queue.
#[derive(Debug)]
pub struct Spill {
    spec: SpillSpec,
    /// Pieces of [`limits::FOLLOW_READ_BYTES`]; only the last has room.
    memory: VecDeque<Vec<u8>>,
    /// Emptied pieces, to be filled again: fresh memory costs more than what is done with the bytes.
    spare: Vec<Vec<u8>>,
    memory_bytes: u64,
    file: Option<File>,
    /// What lies in the file and has not been taken.
    unread: std::ops::Range<u64>,
    bytes_seen_max: u64,
}

impl Spill {
    #[must_use]
    pub fn new(spec: SpillSpec) -> Self {
        Self {
            spec,
            memory: VecDeque::new(),
            spare: Vec::new(),
            memory_bytes: 0,
            file: None,
            unread: 0..0,
            bytes_seen_max: 0,
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.memory_bytes + (self.unread.end - self.unread.start)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most that ever waited.
    #[must_use]
    pub fn bytes_seen_max(&self) -> u64 {
        self.bytes_seen_max
    }

    /// # Errors
    /// [`SpillError`]: nothing was taken, and what is taken later would not follow on what is here.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SpillError> {
        let more = bytes.len() as u64;
        if self.len() + more > self.spec.bytes_max {
            return Err(SpillError::Full { bytes_max: self.spec.bytes_max });
        }
        // Once the file holds something, what comes later belongs behind it.
        if self.unread.is_empty() && self.memory_bytes + more <= self.spec.memory_bytes_max {
            self.memory_bytes += more;
            self.keep(bytes);
        } else {
            self.write(bytes).map_err(|error| SpillError::Disk { folder: self.spec.folder.clone(), error })?;
        }
        self.bytes_seen_max = self.bytes_seen_max.max(self.len());
        Ok(())
    }

    fn keep(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.memory.back().map_or(0, |piece| limits::FOLLOW_READ_BYTES.saturating_sub(piece.len()));
            if room == 0 {
                let piece = self.piece();
                self.memory.push_back(piece);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(piece) = self.memory.back_mut() {
                piece.extend_from_slice(now);
            }
            bytes = later;
        }
    }

    fn piece(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(limits::FOLLOW_READ_BYTES))
    }

    /// Takes back a piece that was used.
    pub fn recycle(&mut self, mut piece: Vec<u8>) {
        if self.spare.len() < limits::FOLLOW_SPARE_PIECES_MAX {
            piece.clear();
            self.spare.push(piece);
        }
    }

    /// The next bytes, to be given back by [`Self::recycle`]; `None` when nothing waits.
    ///
    /// # Errors
    /// [`SpillError::Disk`].
    pub fn pop(&mut self) -> Result<Option<Vec<u8>>, SpillError> {
        if let Some(bytes) = self.memory.pop_front() {
            self.memory_bytes -= bytes.len() as u64;
            return Ok(Some(bytes));
        }
        if self.unread.is_empty() {
            return Ok(None);
        }
        self.read().map(Some).map_err(|error| SpillError::Disk { folder: self.spec.folder.clone(), error })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless(&self.spec.folder)?),
        };
        file.write_all_at(bytes, self.unread.end)?;
        self.unread.end += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let length = (self.unread.end - self.unread.start).min(limits::FOLLOW_READ_BYTES as u64);
        let mut bytes = self.piece();
        bytes.resize(length as usize, 0);
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("there is no file"))?;
        file.read_exact_at(&mut bytes, self.unread.start)?;
        self.unread.start += length;
        if self.unread.is_empty() {
            file.set_len(0)?;
            self.unread = 0..0;
        }
        Ok(bytes)
    }
}

/// A file that only this process sees.
fn nameless(folder: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("follow-{}-{number}.spill", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spill(memory_bytes_max: u64, bytes_max: u64) -> Spill {
        Spill::new(SpillSpec { memory_bytes_max, bytes_max, folder: std::env::temp_dir() })
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut spill = spill(10, 1000);
        let mut taken = Vec::new();
        let mut given = Vec::new();
        for round in 0..40u8 {
            let piece = vec![round; usize::from(round % 7) + 1];
            given.extend_from_slice(&piece);
            spill.push(&piece).expect("there is room");
            if round % 3 == 0 {
                taken.extend(spill.pop().expect("a disk").unwrap_or_default());
            }
        }
        assert!(spill.file.is_some(), "the file was used");
        while let Some(piece) = spill.pop().expect("a disk") {
            taken.extend(piece);
        }
        assert_eq!(taken, given);
        assert!(spill.is_empty() && spill.bytes_seen_max() > 10);
        spill.push(&[1]).expect("there is room again");
        assert_eq!(spill.memory.len(), 1, "an empty file is no reason to use the disk");
    }

    #[test]
    fn small_reads_share_a_piece_and_pieces_are_used_again() {
        let mut spill = spill(64 << 20, 64 << 20);
        let mut given: Vec<u8> = Vec::new();
        for round in 0..2000u32 {
            let bytes = round.to_le_bytes().repeat(100);
            spill.push(&bytes).expect("there is room");
            given.extend(bytes);
        }
        let held: usize = spill.memory.iter().map(Vec::capacity).sum();
        assert!(held < given.len() + 2 * limits::FOLLOW_READ_BYTES, "{held} bytes for {}", given.len());
        let mut taken = Vec::new();
        while let Some(piece) = spill.pop().expect("a disk") {
            taken.extend_from_slice(&piece);
            spill.recycle(piece);
        }
        assert_eq!(taken, given);
        assert_eq!(spill.spare.len(), limits::FOLLOW_SPARE_PIECES_MAX);
    }

    #[test]
    fn a_full_spill_says_so_and_keeps_what_it_has() {
        let mut spill = spill(4, 8);
        spill.push(&[1; 8]).expect("there is room");
        let error = spill.push(&[2]).expect_err("there is none").to_string();
        assert!(error.contains("8 bytes"), "{error}");
        assert_eq!(spill.pop().expect("a disk"), Some(vec![1; 8]));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let mut spill = Spill::new(SpillSpec { memory_bytes_max: 0, bytes_max: 8, folder: "/nowhere".into() });
        let error = spill.push(&[1]).expect_err("no such folder").to_string();
        assert!(error.contains("/nowhere"), "{error}");
    }
}
