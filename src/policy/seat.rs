//! A seat: a filter instance in a slot, with its mode, its behaviour on a fault, and its counters.
//!
//! Each seat belongs to one thread: those of [`CorePolicies`] to a core, [`WindowSeat`] to the control thread. A seat whose instance
//! is spent answers as `on_fault` says until control sends a new one, which it does at most once per second: an endless loop costs
//! one deadline per second.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::abi;
use super::abi::{PairAction, RecordAction, RequestAction, WindowAction};
use super::host::{Answer, Fault, Instance, RecordAnswer};
use super::memo::{CommandTag, Memo, Remembered};
use super::stats::{NoteKind, PolicyNote, SeatStats};
use super::view_context::ViewContext;
use base::model::{FilterName, OnFault, PolicyMode, PolicySetting, PolicySlot, limits};
use base::stdx::prng::SplitMix64;

/// Class of the divergence that a faulting comparison counts as.
const FAULT_CLASS: &str = "policy_fault";
/// Class of every divergence beyond the limit on classes.
const OTHER_CLASS: &str = "other";

/// What a seat is created from.
#[derive(Debug)]
pub struct SeatSetup {
    pub setting: PolicySetting,
    pub instance: Instance,
    /// Seed of the samples drawn for a mirror policy.
    pub seed: u64,
    /// Equal if and only if filter, module and configuration are equal.
    pub identity: u64,
}

/// All seats of one interlay on one core.
#[derive(Debug, Default)]
pub struct CorePolicies {
    /// Number of the set of filters, as sent by control.
    pub generation: u64,
    pub request: Option<RequestSeat>,
    pub pair: Option<PairSeat>,
    pub record: Option<RecordSeat>,
}

/// The filters of an interlay on one core. The core replaces the contents; the relay and the lane ask the filters.
pub type SharedPolicies = Rc<RefCell<CorePolicies>>;

impl CorePolicies {
    /// Adopts a new plan: answers remembered under the old one are forgotten.
    pub fn enter(&mut self, context: ViewContext) {
        if let Some(request) = &mut self.request {
            request.enter(context);
        }
        if let Some(pair) = &mut self.pair {
            pair.context = context;
        }
    }

    #[must_use]
    pub fn stats(&self) -> Vec<SeatStats> {
        let request = self.request.as_ref().map(RequestSeat::stats);
        let pair = self.pair.as_ref().map(PairSeat::stats);
        let record = self.record.as_ref().map(RecordSeat::stats);
        [request, pair, record].into_iter().flatten().collect()
    }

    #[must_use]
    pub fn has_notes(&self) -> bool {
        let has = |seat: &Seat| !seat.notes.is_empty();
        self.request.as_ref().is_some_and(|seat| has(&seat.seat))
            || self.pair.as_ref().is_some_and(|seat| has(&seat.seat))
            || self.record.as_ref().is_some_and(|seat| has(&seat.seat))
    }

    /// The notes since the last call.
    pub fn take_notes(&mut self) -> Vec<PolicyNote> {
        let request = self.request.as_mut().map(|seat| &mut seat.seat);
        let pair = self.pair.as_mut().map(|seat| &mut seat.seat);
        let record = self.record.as_mut().map(|seat| &mut seat.seat);
        [request, pair, record].into_iter().flatten().flat_map(Seat::take_notes).collect()
    }
}

/// What all seats have in common.
#[derive(Debug)]
struct Seat {
    slot: PolicySlot,
    filter: FilterName,
    mode: PolicyMode,
    on_fault: OnFault,
    instance: Instance,
    absent: u64,
    restrained: u64,
    notes: Vec<PolicyNote>,
    /// Start of the current second, and the warnings within it.
    warned: (i64, u32),
}

/// Why there is no answer.
enum NoAnswer {
    Faulted,
    /// The instance waits to be replaced.
    Absent,
}

impl Seat {
    fn new(slot: PolicySlot, setup: SeatSetup) -> Self {
        let PolicySetting { filter, mode, on_fault, config: _ } = setup.setting;
        Self {
            slot,
            filter,
            mode,
            on_fault,
            instance: setup.instance,
            absent: 0,
            restrained: 0,
            notes: Vec::new(),
            warned: (0, 0),
        }
    }

    fn call<A>(&mut self, call: impl FnOnce(&mut Instance) -> Result<A, Fault>) -> Result<A, NoAnswer> {
        if self.instance.is_spent() {
            self.absent += 1;
            return Err(NoAnswer::Absent);
        }
        let outcome = call(&mut self.instance);
        if self.instance.has_log() {
            let lines = self.instance.take_log();
            let kinds = lines.into_iter().map(|line| NoteKind::Log { level: line.level, text: line.text });
            kinds.for_each(|kind| self.note(kind));
        }
        outcome.map_err(|fault| {
            let spent = self.instance.is_spent();
            self.note(NoteKind::Fault { kind: fault.kind, text: fault.text, spent });
            NoAnswer::Faulted
        })
    }

    fn note(&mut self, kind: NoteKind) {
        if self.notes.len() < limits::POLICY_NOTES_MAX {
            self.notes.push(PolicyNote { slot: self.slot, kind });
        }
    }

    fn take_notes(&mut self) -> Vec<PolicyNote> {
        std::mem::take(&mut self.notes)
    }

    /// Whether a verdict that stops something is carried out. If not, it is counted, and reported in mode `warn`.
    fn enforces(&mut self, what: impl FnOnce() -> String, now_ms: i64) -> bool {
        if self.mode == PolicyMode::Block {
            return true;
        }
        self.restrained += 1;
        if self.mode == PolicyMode::Warn {
            let second = now_ms.div_euclid(1000);
            if self.warned.0 != second {
                self.warned = (second, 0);
            }
            if self.warned.1 < limits::POLICY_WARNINGS_PER_SECOND_MAX {
                self.warned.1 += 1;
                self.note(NoteKind::Warned { text: what() });
            }
        }
        false
    }

    fn stats(&self, memo_hits: u64, verdicts: Vec<(&'static str, u64)>) -> SeatStats {
        let own = self.instance.stats();
        SeatStats {
            slot: self.slot,
            filter: self.filter.clone(),
            calls: own.calls,
            call_ns: own.call_ns,
            memo_hits,
            faults: own.faults,
            absent: self.absent,
            memory_bytes: own.memory_bytes,
            verdicts,
            restrained: self.restrained,
            counters: own.counters,
            dropped: own.dropped,
        }
    }
}

// ---- requests -------------------------------------------------------------------------------------------------------

/// One command as its relay knows it.
#[derive(Debug, Clone)]
pub struct RequestFacts<'a, K> {
    /// The relay's number for this command and class, different for each pair. `None`: there is none, and no answer is remembered.
    pub number: Option<u32>,
    pub protocol: abi::Protocol,
    pub class: abi::Class,
    /// Bits of `abi::flags::REQUEST_*`.
    pub flags: u32,
    pub client: u64,
    /// The relay's number for this database, different for each.
    pub database_number: u32,
    pub database: &'a [u8],
    pub command: &'a [u8],
    pub keys: K,
    /// The whole frame.
    pub frame: &'a [u8],
}

impl<'a, K: Iterator<Item = &'a [u8]> + Clone> RequestFacts<'a, K> {
    fn view(self, context: ViewContext, sample: u32) -> abi::host::Request<'a, K> {
        abi::host::Request {
            protocol: self.protocol,
            class: self.class,
            phase: context.phase(),
            authority: context.authority(),
            flags: self.flags,
            client: self.client,
            sample,
            database: self.database,
            command: self.command,
            keys: self.keys,
            size: self.frame.len() as u64,
            frame: self.frame,
        }
    }
}

/// What the shadow gets of a command. The plan may allow less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirroring {
    Forward,
    Mirror,
    Compare,
}

/// The decision on one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestDecision {
    Send(Mirroring),
    /// The command is sent to neither server; the client gets this text.
    Refuse(Arc<str>),
}

/// The mirror policy of one core.
#[derive(Debug)]
pub struct RequestSeat {
    seat: Seat,
    context: ViewContext,
    samples: SplitMix64,
    memo: Memo,
    memo_hits: u64,
    /// By action, in the order of [`RequestAction::ALL`].
    verdicts: [u64; 4],
}

impl RequestSeat {
    #[must_use]
    pub fn new(setup: SeatSetup) -> Self {
        let samples = SplitMix64::new(setup.seed);
        Self {
            seat: Seat::new(PolicySlot::Mirror, setup),
            context: ViewContext::default(),
            samples,
            memo: Memo::default(),
            memo_hits: 0,
            verdicts: [0; 4],
        }
    }

    pub fn enter(&mut self, context: ViewContext) {
        self.context = context;
        self.memo.clear();
    }

    /// The remembered answer to this command, if it is still valid. `number` and `database`: as in [`RequestFacts`].
    pub fn recall<'a>(
        &mut self,
        number: u32,
        database: u32,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
        now_ms: i64,
    ) -> Option<RequestDecision> {
        let known = self.memo.find(CommandTag { command: number, database }, keys)?;
        let (action, text) = (known.action, known.text.clone());
        self.memo_hits += 1;
        Some(self.carry_out(action, || text.unwrap_or_default(), now_ms))
    }

    /// The policy's decision on one command.
    pub fn decide<'a, K: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        facts: RequestFacts<'a, K>,
        now_ms: i64,
    ) -> RequestDecision {
        let database = facts.database_number;
        if let Some(known) = facts.number.and_then(|number| self.recall(number, database, facts.keys.clone(), now_ms)) {
            return known;
        }
        let tag = facts.number.map(|command| CommandTag { command, database });
        let sample = (self.samples.draw() >> 32) as u32;
        let view = facts.view(self.context, sample);
        match self.seat.call(|instance| instance.on_request(&view, now_ms)) {
            Ok(Answer { action, memo: abi::Memo::None, text }) => self.carry_out(action, || text.into(), now_ms),
            Ok(Answer { action, memo, text }) => {
                let text: Option<Arc<str>> = (!text.is_empty()).then(|| text.into());
                if let Some(tag) = tag {
                    self.memo.keep(tag, memo, view.keys.clone(), Remembered { action, text: text.clone() });
                }
                self.carry_out(action, || text.unwrap_or_default(), now_ms)
            }
            Err(NoAnswer::Faulted | NoAnswer::Absent) => self.fault_decision(now_ms),
        }
    }

    fn carry_out(&mut self, action: RequestAction, text: impl FnOnce() -> Arc<str>, now_ms: i64) -> RequestDecision {
        self.verdicts[usize::from(action.code() & 3)] += 1;
        match action {
            RequestAction::Forward => RequestDecision::Send(Mirroring::Forward),
            RequestAction::Mirror => RequestDecision::Send(Mirroring::Mirror),
            RequestAction::MirrorCompare => RequestDecision::Send(Mirroring::Compare),
            RequestAction::Refuse => {
                let text = text();
                if self.seat.enforces(|| format!("would have refused a command: {text}"), now_ms) {
                    RequestDecision::Refuse(text)
                } else {
                    RequestDecision::Send(Mirroring::Forward)
                }
            }
        }
    }

    fn fault_decision(&mut self, now_ms: i64) -> RequestDecision {
        let filter = self.seat.filter.clone();
        let refuses = self.seat.on_fault == OnFault::FailClosed
            && self.seat.enforces(|| format!("{filter} failed and would have refused a command"), now_ms);
        if refuses {
            RequestDecision::Refuse(format!("policy {filter} failed").into())
        } else {
            RequestDecision::Send(Mirroring::Forward)
        }
    }

    fn stats(&self) -> SeatStats {
        let words = RequestAction::ALL.iter().map(|action| action.word());
        self.seat.stats(self.memo_hits, occurred(words, &self.verdicts))
    }
}

fn occurred<'a>(
    words: impl Iterator<Item = &'static str>,
    counts: impl IntoIterator<Item = &'a u64>,
) -> Vec<(&'static str, u64)> {
    words.zip(counts).filter(|(_, count)| **count > 0).map(|(word, count)| (word, *count)).collect()
}

// ---- pairs ----------------------------------------------------------------------------------------------------------

/// A comparison policy's verdict on two replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opinion {
    /// The built-in comparison decides.
    Builtin,
    Equal,
    Equivalent,
    /// The class of the difference.
    Divergent(String),
    /// The pair is not counted.
    Ignore,
}

/// The comparison policy of the core that compares.
#[derive(Debug)]
pub struct PairSeat {
    seat: Seat,
    pub context: ViewContext,
    classes: BTreeSet<String>,
    /// By action, in the order of [`PairAction::ALL`].
    verdicts: [u64; 5],
}

impl PairSeat {
    #[must_use]
    pub fn new(setup: SeatSetup) -> Self {
        let seat = Seat::new(PolicySlot::Compare, setup);
        Self { seat, context: ViewContext::default(), classes: BTreeSet::new(), verdicts: [0; 5] }
    }

    /// `authority` and `shadow`: the two replies; the context says which of them is the source's.
    pub fn judge<'a, K: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        facts: RequestFacts<'a, K>,
        authority: abi::host::ReplyParts<'a>,
        shadow: abi::host::ReplyParts<'a>,
        now_ms: i64,
    ) -> Opinion {
        let (source, target) = match self.context.authority() {
            abi::Authority::Source => (authority, shadow),
            abi::Authority::Target => (shadow, authority),
        };
        let pair =
            abi::host::Pair { request: facts.view(self.context, 0), source, target, digests: None, raced: false };
        let answer = match self.seat.call(|instance| instance.on_pair(&pair, now_ms)) {
            Ok(answer) => answer,
            Err(NoAnswer::Faulted | NoAnswer::Absent) => {
                return match self.seat.on_fault {
                    OnFault::FailOpen => Opinion::Builtin,
                    OnFault::FailClosed => Opinion::Divergent(FAULT_CLASS.to_owned()),
                };
            }
        };
        self.verdicts[usize::from(answer.action.code() & 7)] += 1;
        match answer.action {
            PairAction::Builtin => Opinion::Builtin,
            PairAction::Equal => Opinion::Equal,
            PairAction::Equivalent => Opinion::Equivalent,
            PairAction::Divergent => Opinion::Divergent(self.class(answer.text)),
            PairAction::Ignore => Opinion::Ignore,
        }
    }

    fn class(&mut self, text: String) -> String {
        if self.classes.contains(&text) {
            return text;
        }
        if self.classes.len() >= abi::limits::CLASSES_MAX {
            return OTHER_CLASS.to_owned();
        }
        self.classes.insert(text.clone());
        text
    }

    fn stats(&self) -> SeatStats {
        self.seat.stats(0, occurred(PairAction::ALL.iter().map(|action| action.word()), &self.verdicts))
    }
}

// ---- records --------------------------------------------------------------------------------------------------------

/// What is copied of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordVerdict {
    Keep,
    /// The new value, in the encoding in which the record was shown.
    Replace(Vec<u8>),
    Drop,
}

/// The records policy of the thread that copies. It always fails closed: a redaction that fails must not leak.
#[derive(Debug)]
pub struct RecordSeat {
    seat: Seat,
    /// See [`SeatSetup::identity`]: records copied under another identity must be copied again.
    pub identity: u64,
    /// By action, in the order of [`RecordAction::ALL`].
    verdicts: [u64; 3],
}

impl RecordSeat {
    #[must_use]
    pub fn new(setup: SeatSetup) -> Self {
        Self { identity: setup.identity, seat: Seat::new(PolicySlot::Records, setup), verdicts: [0; 3] }
    }

    /// Whether the instance is spent; the seat then has no answer until it is replaced.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.seat.instance.is_spent()
    }

    /// `None`: the filter has no answer, so the record is not to be copied now.
    pub fn look(&mut self, record: &abi::host::Record<'_>, now_ms: i64) -> Option<RecordVerdict> {
        let answer = self.seat.call(|instance| instance.on_record(record, now_ms)).ok()?;
        let (action, verdict) = match answer {
            RecordAnswer::Keep => (RecordAction::Keep, RecordVerdict::Keep),
            RecordAnswer::Replace(value) => (RecordAction::Replace, RecordVerdict::Replace(value)),
            RecordAnswer::Drop => (RecordAction::Drop, RecordVerdict::Drop),
        };
        self.verdicts[usize::from(action.code() & 3)] += 1;
        Some(verdict)
    }

    fn stats(&self) -> SeatStats {
        self.seat.stats(0, occurred(RecordAction::ALL.iter().map(|action| action.word()), &self.verdicts))
    }
}

// ---- windows --------------------------------------------------------------------------------------------------------

/// What the rollback policy asks for, after its mode is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    Continue,
    Warn(String),
    /// No step forward in this window.
    Hold(String),
    RollBack(String),
}

/// The rollback policy of one interlay, on the control thread.
#[derive(Debug)]
pub struct WindowSeat {
    seat: Seat,
    /// By action, in the order of [`WindowAction::ALL`].
    verdicts: [u64; 4],
}

impl WindowSeat {
    #[must_use]
    pub fn new(setup: SeatSetup) -> Self {
        Self { seat: Seat::new(PolicySlot::Rollback, setup), verdicts: [0; 4] }
    }

    pub fn judge(&mut self, window: &abi::host::Window<'_>, now_ms: i64) -> Judgement {
        let filter = self.seat.filter.clone();
        let answer = match self.seat.call(|instance| instance.on_window(window, now_ms)) {
            Ok(answer) => answer,
            Err(NoAnswer::Faulted | NoAnswer::Absent) => {
                let text = format!("policy {filter} failed");
                let holds = self.seat.on_fault == OnFault::FailClosed && self.seat.enforces(|| text.clone(), now_ms);
                return if holds { Judgement::Hold(text) } else { Judgement::Warn(text) };
            }
        };
        self.verdicts[usize::from(answer.action.code() & 3)] += 1;
        let text = answer.text;
        match answer.action {
            WindowAction::Continue => Judgement::Continue,
            WindowAction::Warn => Judgement::Warn(text),
            WindowAction::Hold if self.seat.enforces(|| format!("would have held: {text}"), now_ms) => {
                Judgement::Hold(text)
            }
            WindowAction::RollBack if self.seat.enforces(|| format!("would have rolled back: {text}"), now_ms) => {
                Judgement::RollBack(text)
            }
            // Not carried out because of the mode; mode `warn` leaves a note.
            WindowAction::Hold | WindowAction::RollBack => Judgement::Continue,
        }
    }

    /// Whether the instance is spent and must be replaced.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.seat.instance.is_spent()
    }

    pub fn take_notes(&mut self) -> Vec<PolicyNote> {
        self.seat.take_notes()
    }

    #[must_use]
    pub fn stats(&self) -> SeatStats {
        self.seat.stats(0, occurred(WindowAction::ALL.iter().map(|action| action.word()), &self.verdicts))
    }
}
