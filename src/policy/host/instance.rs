//! An instance and its hooks: writing the view into the guest's buffer, the call with its deadline, decoding the verdict.
//!
//! Belongs to one thread at a time. A call of a hook that answers without a text allocates nothing.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use wasmtime::{Memory, Store, Trap, TypedFunc};
use xxhash_rust::xxh3::xxh3_64;

use super::check::hook_name;
use super::imports::State;
use super::inner::Inner;
use super::text::printable;
use super::ticker::Waker;
use super::{Answer, Fault, FaultKind, InstanceStats, LogLine, RecordAnswer, abi, deadline, slot};
use crate::stats::FaultCounts;
use abi::host::{BadVerdict, Verdict};
use abi::{Encoding, Hook, PairAction, RecordAction, RequestAction, WindowAction, layout, limits as own};
use base::model::limits;
use base::stdx::histogram::Histogram;

type HookFunc = TypedFunc<u32, u64>;

/// The parts an instance is made of.
pub(super) struct Parts {
    /// Keeps the engine and its clock alive.
    pub host: Arc<Inner>,
    /// The module's name.
    pub name: Arc<str>,
    pub reads_frames: bool,
    pub store: Store<State>,
    pub memory: Memory,
    /// The exchange buffer, which is inside the memory: a memory never shrinks.
    pub buffer: Range<usize>,
    pub hooks: [Option<HookFunc>; 4],
    pub waker: Waker,
}

/// Lives on one thread at a time.
pub struct Instance {
    parts: Parts,
    reads_frames: bool,
    spent: Option<FaultKind>,
    calls: u64,
    call_ns: Histogram,
    faults: FaultCounts,
}

/// One frame that a recorded case gives to `frame_read`.
pub(crate) type CaseFrame<'a> = (u32, &'a [u8]);

/// A verdict in the form that recorded cases check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawVerdict {
    pub word: &'static str,
    pub memo: abi::Memo,
    pub text: Vec<u8>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("module", &self.parts.name)
            .field("spent", &self.spent)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Instance {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            reads_frames: parts.reads_frames,
            parts,
            spent: None,
            calls: 0,
            call_ns: Histogram::default(),
            faults: FaultCounts::default(),
        }
    }

    /// Called before a command is sent. `view.frame` may be the whole frame: the view shows the beginning of it, `frame_read` the rest.
    ///
    /// # Errors
    /// What the guest did wrong. After a trap or a missed deadline the instance is spent.
    #[inline]
    pub fn on_request<'a, K: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        view: &abi::host::Request<'a, K>,
        now_ms: i64,
    ) -> Result<Answer<RequestAction>, Fault> {
        self.must_be_callable(Hook::Request)?;
        let length = view.write(self.buffer_mut());
        if self.reads_frames {
            self.parts.store.data_mut().frames.put(layout::FRAME_REQUEST, view.frame, view.size);
        }
        let raw = self.call(Hook::Request, length, now_ms)?;
        let verdict = abi::host::decode_request(raw, self.parts.buffer.len());
        self.answer(Hook::Request, raw, verdict, own::TEXT_BYTES_MAX)
    }

    /// Called when both replies to a command are complete. A caller that holds only the beginning of a reply must give the digests of both.
    ///
    /// # Errors
    /// As [`Instance::on_request`].
    pub fn on_pair<'a, K: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        view: &abi::host::Pair<'a, K>,
        now_ms: i64,
    ) -> Result<Answer<PairAction>, Fault> {
        self.must_be_callable(Hook::Pair)?;
        let (source, target) = (&view.source, &view.target);
        let whole = source.length == source.bytes.len() as u64 && target.length == target.bytes.len() as u64;
        let length = if view.digests.is_none() && whole && view.needs_digests(self.parts.buffer.len()) {
            let digests = Some((xxh3_64(source.bytes), xxh3_64(target.bytes)));
            abi::host::Pair { digests, ..view.clone() }.write(self.buffer_mut())
        } else {
            view.write(self.buffer_mut())
        };
        if self.reads_frames {
            let frames = &mut self.parts.store.data_mut().frames;
            frames.put(layout::FRAME_REQUEST, view.request.frame, view.request.size);
            frames.put(layout::FRAME_SOURCE_REPLY, source.bytes, source.length);
            frames.put(layout::FRAME_TARGET_REPLY, target.bytes, target.length);
        }
        let raw = self.call(Hook::Pair, length, now_ms)?;
        let verdict = abi::host::decode_pair(raw, self.parts.buffer.len());
        self.answer(Hook::Pair, raw, verdict, own::CLASS_BYTES_MAX)
    }

    /// Called once a second.
    ///
    /// # Errors
    /// As [`Instance::on_request`].
    pub fn on_window(&mut self, view: &abi::host::Window<'_>, now_ms: i64) -> Result<Answer<WindowAction>, Fault> {
        self.must_be_callable(Hook::Window)?;
        let length = view.write(self.buffer_mut());
        let raw = self.call(Hook::Window, length, now_ms)?;
        let verdict = abi::host::decode_window(raw, self.parts.buffer.len());
        self.answer(Hook::Window, raw, verdict, own::TEXT_BYTES_MAX)
    }

    /// Called for each key, row or document.
    ///
    /// # Errors
    /// As [`Instance::on_request`].
    pub fn on_record(&mut self, view: &abi::host::Record<'_>, now_ms: i64) -> Result<RecordAnswer, Fault> {
        self.must_be_callable(Hook::Record)?;
        let length = view.write(self.buffer_mut());
        if self.reads_frames {
            let frames = &mut self.parts.store.data_mut().frames;
            frames.put(layout::FRAME_RECORD_VALUE, view.value, view.value_length);
        }
        let raw = self.call(Hook::Record, length, now_ms)?;
        let verdict = self.record_verdict(raw, view.encoding)?;
        Ok(match verdict.action {
            RecordAction::Keep => RecordAnswer::Keep,
            RecordAction::Replace => RecordAnswer::Replace(self.buffer()[..verdict.text_length].to_vec()),
            RecordAction::Drop => RecordAnswer::Drop,
        })
    }

    /// Calls a hook with a view made by the caller, which must fit into the buffer.
    pub(crate) fn call_for_case(
        &mut self,
        hook: Hook,
        view: &[u8],
        frames: &[CaseFrame<'_>],
        now_ms: i64,
    ) -> Result<RawVerdict, Fault> {
        self.must_be_callable(hook)?;
        let Some(room) = self.buffer_mut().get_mut(..view.len()) else {
            return Err(Fault {
                kind: FaultKind::BadVerdict,
                text: format!("a view of {} bytes does not fit into the policy's buffer", view.len()),
            });
        };
        room.copy_from_slice(view);
        for (which, bytes) in frames {
            self.parts.store.data_mut().frames.put(*which, bytes, bytes.len() as u64);
        }
        let raw = self.call(hook, view.len(), now_ms)?;
        let room = self.parts.buffer.len();
        let (word, memo, length) = match hook {
            Hook::Request => self
                .decoded(hook, raw, abi::host::decode_request(raw, room))
                .map(|v| (v.action.word(), v.memo, v.text_length)),
            Hook::Pair => self
                .decoded(hook, raw, abi::host::decode_pair(raw, room))
                .map(|v| (v.action.word(), v.memo, v.text_length)),
            Hook::Window => self
                .decoded(hook, raw, abi::host::decode_window(raw, room))
                .map(|v| (v.action.word(), v.memo, v.text_length)),
            Hook::Record => {
                let encoding = view.get(layout::RECORD_ENCODING).copied().and_then(Encoding::from_code);
                self.record_verdict(raw, encoding.unwrap_or(Encoding::Opaque))
                    .map(|v| (v.action.word(), v.memo, v.text_length))
            }
        }?;
        Ok(RawVerdict { word, memo, text: self.buffer()[..length].to_vec() })
    }

    pub(crate) fn has_hook(&self, hook: Hook) -> bool {
        self.parts.hooks[slot(hook)].is_some()
    }

    pub(crate) fn buffer_length(&self) -> usize {
        self.parts.buffer.len()
    }

    /// True after a trap or a missed deadline: no hook is called any more.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent.is_some()
    }

    #[must_use]
    pub fn stats(&self) -> InstanceStats {
        let state = self.parts.store.data();
        InstanceStats {
            calls: self.calls,
            call_ns: self.call_ns.clone(),
            faults: self.faults,
            memory_bytes: self.parts.memory.data_size(&self.parts.store) as u64,
            counters: state.counters.clone(),
            dropped: state.dropped,
        }
    }

    #[must_use]
    pub fn has_log(&self) -> bool {
        !self.parts.store.data().log.is_empty()
    }

    /// The log lines since the last call.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.parts.store.data_mut().log)
    }

    #[cfg(test)]
    pub(super) fn clock_alive(&self) -> std::sync::Weak<super::ticker::Ticker> {
        self.parts.waker.observe()
    }

    #[inline]
    fn must_be_callable(&self, hook: Hook) -> Result<(), Fault> {
        if self.spent.is_none() && self.parts.hooks[slot(hook)].is_some() {
            return Ok(());
        }
        Err(self.not_callable(hook))
    }

    #[cold]
    fn not_callable(&self, hook: Hook) -> Fault {
        let name = &*self.parts.name;
        match self.spent {
            Some(kind) => {
                Fault { kind, text: format!("policy {name} is not called again after its {}", kind.as_str()) }
            }
            None => Fault { kind: FaultKind::BadVerdict, text: format!("policy {name} has no {}", hook_name(hook)) },
        }
    }

    #[inline]
    fn buffer_mut(&mut self) -> &mut [u8] {
        &mut self.parts.memory.data_mut(&mut self.parts.store)[self.parts.buffer.clone()]
    }

    #[inline]
    fn buffer(&self) -> &[u8] {
        &self.parts.memory.data(&self.parts.store)[self.parts.buffer.clone()]
    }

    /// Calls a hook whose view is already in the buffer.
    #[inline]
    fn call(&mut self, hook: Hook, length: usize, now_ms: i64) -> Result<u64, Fault> {
        let Some(function) = &self.parts.hooks[slot(hook)] else { return Err(self.not_callable(hook)) };
        let store = &mut self.parts.store;
        store.data_mut().now_ms = now_ms;
        let measured = self.calls.is_multiple_of(limits::POLICY_CALL_SAMPLE);
        self.calls += 1;
        let begun = if measured { (self.parts.host.clock)() } else { 0 };
        deadline::begin(store, deadline::HOOK, &self.parts.waker);
        // A view is at most as long as the buffer, 256 KiB.
        let result = function.call(&mut *store, length as u32);
        deadline::end(store, &self.parts.waker);
        if measured {
            self.call_ns.record((self.parts.host.clock)().saturating_sub(begun), limits::POLICY_CALL_SAMPLE);
        }
        if self.reads_frames {
            store.data_mut().frames.clear();
        }
        result.map_err(|error| self.broken(hook, &error))
    }

    #[cold]
    fn broken(&mut self, hook: Hook, error: &wasmtime::Error) -> Fault {
        let (name, export) = (&*self.parts.name, hook_name(hook));
        let (kind, text) = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                self.faults.deadline += 1;
                let text = format!("policy {name}: {export} ran for more than {} ms", own::HOOK_DEADLINE_US / 1000);
                (FaultKind::Deadline, text)
            }
            Some(trap) => {
                self.faults.trap += 1;
                (FaultKind::Trap, format!("policy {name}: {export} trapped: {trap}"))
            }
            None => {
                self.faults.trap += 1;
                (FaultKind::Trap, format!("policy {name}: {export} could not be called: {error:#}"))
            }
        };
        self.spent = Some(kind);
        Fault { kind, text }
    }

    #[inline]
    fn answer<A>(
        &mut self,
        hook: Hook,
        raw: u64,
        verdict: Result<Verdict<A>, BadVerdict>,
        limit: usize,
    ) -> Result<Answer<A>, Fault> {
        let Verdict { action, memo, text_length } = self.decoded(hook, raw, verdict)?;
        let text = match text_length {
            0 => String::new(),
            length => printable(&self.buffer()[..length], limit),
        };
        Ok(Answer { action, memo, text })
    }

    fn record_verdict(&mut self, raw: u64, encoding: Encoding) -> Result<Verdict<RecordAction>, Fault> {
        let verdict = abi::host::decode_record(raw, self.parts.buffer.len());
        let verdict = self.decoded(Hook::Record, raw, verdict)?;
        if verdict.action == RecordAction::Replace && encoding == Encoding::Opaque {
            return Err(self.bad_verdict(Hook::Record, raw, &"an opaque record can be kept or dropped, not replaced"));
        }
        Ok(verdict)
    }

    #[inline]
    fn decoded<A>(
        &mut self,
        hook: Hook,
        raw: u64,
        verdict: Result<Verdict<A>, BadVerdict>,
    ) -> Result<Verdict<A>, Fault> {
        verdict.map_err(|bad| self.bad_verdict(hook, raw, &bad))
    }

    #[cold]
    fn bad_verdict(&mut self, hook: Hook, raw: u64, why: &dyn fmt::Display) -> Fault {
        self.faults.bad_verdict += 1;
        let text = format!("policy {}: {} answered {raw:#x}: {why}", &*self.parts.name, hook_name(hook));
        Fault { kind: FaultKind::BadVerdict, text }
    }
}
