//! The five functions that a guest may import from its host: section 6 of `filters/ABI.md`. Lives within one instance, on its thread.

use std::ops::Range;

use wasmtime::{Caller, Engine, Linker, Memory};

use super::deadline::{self, Deadline};
use super::text::printable;
use super::{LogLine, abi};
use abi::{Status, limits as own, names};
use base::model::limits;
use base::stdx::prng::SplitMix64;

/// The numbers that `random` returns.
#[derive(Debug)]
pub(super) enum Random {
    Seeded(SplitMix64),
    /// 1, 2, 3 ..., for recorded cases; holds the last number returned.
    Counted(u64),
}

impl Random {
    fn draw(&mut self) -> u64 {
        match self {
            Self::Seeded(numbers) => numbers.draw(),
            Self::Counted(last) => {
                *last = last.wrapping_add(1);
                *last
            }
        }
    }
}

/// A frame that `frame_read` reads from: its beginning is in `Frames::bytes`.
#[derive(Debug, Clone)]
struct Frame {
    kept: Range<usize>,
    /// Length of the frame on the wire.
    whole: u64,
}

/// Frames of the running call. A copy, because the guest may write over the view while the call runs.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    frames: [Option<Frame>; 4],
}

impl Frames {
    /// `which`: a `layout::FRAME_...`.
    pub fn put(&mut self, which: u32, bytes: &[u8], whole: u64) {
        let Some(place) = self.frames.get_mut(which as usize) else { return };
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(limits::POLICY_FRAME_BYTES_MAX)]);
        *place = Some(Frame { kept: begin..self.bytes.len(), whole: whole.max(bytes.len() as u64) });
    }

    pub fn clear(&mut self) {
        self.frames = [const { None }; 4];
        self.bytes.clear();
        if self.bytes.capacity() > limits::POLICY_FRAME_BYTES_KEPT {
            self.bytes = Vec::new();
        }
    }

    /// Copies to the start of `out`; returns the number of bytes.
    fn read(&self, which: u32, offset: u32, out: &mut [u8]) -> Result<usize, Status> {
        let place = self.frames.get(which as usize).ok_or(Status::BadArgument)?;
        let frame = place.as_ref().ok_or(Status::Unavailable)?;
        let kept = self.bytes.get(frame.kept.clone()).ok_or(Status::Unavailable)?;
        let rest = kept.get(offset as usize..).unwrap_or(&[]);
        if rest.is_empty() && u64::from(offset) < frame.whole {
            return Err(Status::Unavailable);
        }
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// The state of one instance beside its memory.
#[derive(Debug)]
pub(super) struct State {
    /// Set once the instance is ready: until then imports that need it are unavailable.
    pub memory: Option<Memory>,
    pub now_ms: i64,
    pub frames: Frames,
    pub log: Vec<LogLine>,
    /// Sorted by id.
    pub counters: Vec<(String, u64)>,
    pub dropped: u64,
    pub deadline: Deadline,
    random: Random,
    log_second: i64,
    log_lines: u32,
}

impl AsMut<Deadline> for State {
    fn as_mut(&mut self) -> &mut Deadline {
        &mut self.deadline
    }
}

impl State {
    pub fn new(random: Random, now_ms: i64) -> Self {
        Self {
            memory: None,
            now_ms,
            frames: Frames::default(),
            log: Vec::new(),
            counters: Vec::new(),
            dropped: 0,
            deadline: Deadline::new(deadline::LOAD),
            random,
            log_second: i64::MIN,
            log_lines: 0,
        }
    }

    fn log(&mut self, level: i32, line: &[u8]) -> Status {
        let level = match level {
            1 => 1,
            2 => 2,
            3 => 3,
            4 => 4,
            _ => return Status::BadArgument,
        };
        let second = self.now_ms.div_euclid(1000);
        if second != self.log_second {
            (self.log_second, self.log_lines) = (second, 0);
        }
        if self.log_lines >= own::LOG_LINES_PER_SECOND_MAX || self.log.len() >= limits::POLICY_LOG_LINES_MAX {
            self.dropped += 1;
            return Status::Limit;
        }
        self.log_lines += 1;
        let line = &line[..line.len().min(own::LOG_BYTES_MAX)];
        self.log.push(LogLine { level, text: printable(line, own::LOG_BYTES_MAX) });
        Status::Ok
    }

    fn counter_add(&mut self, id: &[u8], delta: i64) -> Status {
        let Ok(delta) = u64::try_from(delta) else { return Status::BadArgument };
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
        if id.is_empty() || id.len() > own::COUNTER_ID_BYTES_MAX || !id.iter().all(allowed) {
            return Status::BadArgument;
        }
        match self.counters.binary_search_by(|(known, _)| known.as_bytes().cmp(id)) {
            Ok(at) => self.counters[at].1 = self.counters[at].1.saturating_add(delta),
            Err(_) if self.counters.len() >= own::COUNTERS_MAX => {
                self.dropped += 1;
                return Status::Limit;
            }
            Err(at) => self.counters.insert(at, (String::from_utf8_lossy(id).into_owned(), delta)),
        }
        Status::Ok
    }
}

/// The guest's memory and the instance's state, once the instance is ready.
fn ready<'c>(caller: &'c mut Caller<'_, State>) -> Result<(&'c mut [u8], &'c mut State), Status> {
    let memory = caller.data().memory.ok_or(Status::Unavailable)?;
    Ok(memory.data_and_store_mut(caller))
}

/// The range that `ptr` and `len` describe in a memory of `bytes` bytes.
fn range(ptr: u32, len: u32, bytes: usize) -> Result<Range<usize>, Status> {
    let (begin, length) = (ptr as usize, len as usize);
    let end = begin.checked_add(length).filter(|end| *end <= bytes).ok_or(Status::BadPointer)?;
    Ok(begin..end)
}

fn log(mut caller: Caller<'_, State>, level: i32, ptr: u32, len: u32) -> i32 {
    let mut run = || {
        let (bytes, state) = ready(&mut caller)?;
        let line = range(ptr, len, bytes.len())?;
        Ok(state.log(level, &bytes[line]))
    };
    run().unwrap_or_else(|status: Status| status).code()
}

fn counter_add(mut caller: Caller<'_, State>, ptr: u32, len: u32, delta: i64) -> i32 {
    let mut run = || {
        let (bytes, state) = ready(&mut caller)?;
        let id = range(ptr, len, bytes.len())?;
        Ok(state.counter_add(&bytes[id], delta))
    };
    run().unwrap_or_else(|status: Status| status).code()
}

fn frame_read(mut caller: Caller<'_, State>, which: u32, offset: u32, ptr: u32, len: u32) -> i32 {
    let mut run = || {
        let (bytes, state) = ready(&mut caller)?;
        let place = range(ptr, len, bytes.len())?;
        state.frames.read(which, offset, &mut bytes[place])
    };
    run().map_or_else(Status::code, |length| i32::try_from(length).unwrap_or(i32::MAX))
}

fn now_ms(caller: Caller<'_, State>) -> i64 {
    caller.data().now_ms
}

fn random(mut caller: Caller<'_, State>) -> u64 {
    caller.data_mut().random.draw()
}

/// # Errors
/// A name is defined twice, which cannot happen with these.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(names::IMPORT_MODULE, "log", log)?;
    linker.func_wrap(names::IMPORT_MODULE, "counter_add", counter_add)?;
    linker.func_wrap(names::IMPORT_MODULE, "frame_read", frame_read)?;
    linker.func_wrap(names::IMPORT_MODULE, "now_ms", now_ms)?;
    linker.func_wrap(names::IMPORT_MODULE, "random", random)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_at_its_length_and_bytes_not_kept_are_unavailable() {
        let mut frames = Frames::default();
        frames.put(0, b"abcdef", 6);
        frames.put(2, b"xy", 10);
        let mut out = [0; 4];
        assert_eq!(frames.read(0, 0, &mut out), Ok(4));
        assert_eq!((frames.read(0, 4, &mut out), &out[..2]), (Ok(2), &b"ef"[..]));
        assert_eq!((frames.read(0, 6, &mut out), frames.read(0, u32::MAX, &mut out)), (Ok(0), Ok(0)));
        assert_eq!(frames.read(2, 1, &mut out), Ok(1));
        assert_eq!((frames.read(2, 2, &mut out), frames.read(2, 10, &mut out)), (Err(Status::Unavailable), Ok(0)));
        assert_eq!(frames.read(1, 0, &mut out), Err(Status::Unavailable));
        assert_eq!(frames.read(4, 0, &mut out), Err(Status::BadArgument));
        frames.clear();
        assert_eq!(frames.read(0, 0, &mut out), Err(Status::Unavailable));
    }

    #[test]
    fn lines_are_counted_by_the_second_and_never_pile_up() {
        let mut state = State::new(Random::Counted(0), 0);
        for _ in 0..10 {
            assert_eq!(state.log(4, b"line"), Status::Ok);
        }
        assert_eq!((state.log(4, b"line"), state.dropped), (Status::Limit, 1));
        state.now_ms = 1000;
        assert_eq!(state.log(4, &[b'x'; 5000]), Status::Ok);
        assert_eq!(state.log.last().map(|line| line.text.len()), Some(own::LOG_BYTES_MAX));
        for second in 2..100 {
            state.now_ms = second * 1000;
            (0..10).for_each(|_| _ = state.log(1, b"line"));
        }
        assert_eq!(state.log.len(), limits::POLICY_LOG_LINES_MAX);
    }

    #[test]
    fn a_counter_never_wraps() {
        let mut state = State::new(Random::Counted(0), 0);
        for _ in 0..3 {
            assert_eq!(state.counter_add(b"many", i64::MAX), Status::Ok);
        }
        assert_eq!(state.counters, [("many".to_owned(), u64::MAX)]);
    }
}
