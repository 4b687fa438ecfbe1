//! What has been measured of a migration since the process started, by subject. Lost at its end, on purpose: a restart measures again.
//!
//! Plain data of the control thread; who changes what stands at each subject.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::workflow::{FirstCopy, MigrationRecord, Phase, PolicyWord, Verification};
use base::model::{Authority, Epoch, Ledger, Side, Timestamp, limits};
use bus::counters::SideCounters;
use movers::{Check, Feeds, Finding, FreshFacts, PassKind, Progress, ReadsCompared, ShadowFacts, WriteProbe};

pub(super) fn not_yet<T>() -> Result<T, String> {
    Err("not measured yet".to_owned())
}

fn unknown() -> Check {
    Check::Unknown("not measured yet".to_owned())
}

/// Whether both servers answer and the target can be used. By `checks`.
#[derive(Debug)]
pub struct Servers {
    pub source: Check,
    pub target: Check,
    pub exercised: Check,
    pub target_keys: Result<u64, String>,
    pub checked_at: Option<Instant>,
    pub checking: bool,
}

/// What two servers compared differ in, and by what they can be kept in step. By `checks`.
#[derive(Debug)]
pub struct Findings {
    pub found: Result<Vec<Finding>, String>,
    /// As the servers offer them; which policies are chosen is not considered here.
    pub feeds: Result<Feeds, String>,
    /// When the newest comparison began.
    pub at: Option<Timestamp>,
    pub comparing: bool,
}

impl Findings {
    /// Takes the outcome of a comparison; one that may not write says nothing of what only the first copy concerns.
    pub fn compared(&mut self, writes: WriteProbe, found: Result<Vec<Finding>, String>) {
        let kept = match &self.found {
            Ok(before) if writes == WriteProbe::Forbidden => {
                before.iter().filter(|finding| finding.before_copy).cloned().collect()
            }
            _ => Vec::new(),
        };
        self.found = found.map(|newer| kept.into_iter().chain(newer).collect());
    }

    /// Whether the servers are compared now: again and again while clients are on the source, since users and settings change there, and at the
    /// beginning of the phase that takes them to the target.
    #[must_use]
    pub fn are_due(&self, record: &MigrationRecord, early: bool, now: Timestamp) -> bool {
        let Some(at) = self.at else { return true };
        if record.authority.side == Side::Target {
            return false;
        }
        let pause = match &self.found {
            Err(_) => 2 * limits::JOB_RETRY_PAUSE,
            Ok(_) if early => 10 * limits::JOB_RETRY_PAUSE,
            Ok(_) => limits::FINDINGS_PERIOD,
        };
        let unseen = record.phase == Phase::Migrate && at < record.phase_since;
        unseen || u128::from(now.0.saturating_sub(at.0)) >= pause.as_millis()
    }
}

/// Where the phase began, to tell what came after. By `change`.
#[derive(Debug)]
pub struct PhaseBegin {
    /// Commands of all cores then.
    pub commands: u64,
    pub at: Instant,
}

/// A pass over everything both sides hold.
#[derive(Debug, Clone)]
pub struct Pass {
    pub number: u64,
    pub kind: PassKind,
    /// The authority's when it began.
    pub epoch: Epoch,
    pub began_at: Timestamp,
    pub done: bool,
    pub progress: Arc<Progress>,
}

/// How the shadow stands. By `mover_events`.
#[derive(Debug, Default)]
pub struct Shadow {
    pub facts: Option<FreshFacts>,
    /// The facts when dual operation ended, for the report.
    pub last: Option<ShadowFacts>,
    pub pass: Option<Pass>,
    /// Until it is in the record.
    pub first_copy: Option<FirstCopy>,
    /// By every pass since the process started.
    pub bytes_copied: u64,
}

/// Full comparisons. By `verification`.
#[derive(Debug)]
pub struct Verifications {
    pub newest: Option<Verification>,
    /// One found differences while something ran that may write what the feed does not see.
    pub strayed: bool,
    pub clean_since: Option<Timestamp>,
    pub running: Option<Arc<Progress>>,
    pub not_before: Instant,
    /// When to compare again although nothing asks for it.
    pub again_at: Instant,
    pub keys: u64,
    pub count: u64,
    /// Reads compared by when the shadow was last filled.
    pub reads_before: ReadsCompared,
}

/// What was proven different, kept in the store too.
#[derive(Debug)]
pub struct Divergences {
    pub ledger: Ledger,
    pub unsaved: bool,
}

/// Something that is tried again and again until it works.
#[derive(Debug)]
pub struct Attempts {
    pub running: bool,
    pub not_before: Instant,
}

/// How a try of a flip or a rehearsal ended. Unless it is done nothing changed, and trying again is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlipOutcome {
    Done,
    /// No client was held.
    Refused(String),
    /// Clients were held for nothing.
    Postponed(String),
}

/// Tries to hold clients, for a rehearsal or a change of authority. By `flip`.
#[derive(Debug)]
pub struct Holds {
    pub attempts: Attempts,
    /// Wait after the next attempt that fails; twice as long with each.
    pub pause: Duration,
    pub expired: u64,
}

/// What was announced of a run. By `progress` and `tick`.
#[derive(Debug, Default)]
pub struct Announced {
    /// A run is about to advance automatically.
    pub advancing: bool,
    pub gates_met: BTreeMap<&'static str, bool>,
    /// In which run, by which gate.
    pub approval_asked: Option<(u32, &'static str)>,
}

/// What had been counted at one moment, to tell what came after it.
#[derive(Debug, Clone)]
pub struct WindowTotals {
    pub at: Instant,
    pub phase: Phase,
    pub authority: Authority,
    pub source: SideCounters,
    pub target: SideCounters,
    pub compared: u64,
    /// Differences that reads found, and all that were found.
    pub read_divergences: u64,
    pub found: u64,
}

/// The second the rollback policy judged last. By `rollback_policy`.
#[derive(Debug)]
pub struct PolicyWindow {
    pub totals: Option<WindowTotals>,
    pub word: PolicyWord,
}

#[derive(Debug)]
pub struct Observed {
    pub servers: Servers,
    pub findings: Findings,
    pub phase_begin: PhaseBegin,
    pub shadow: Shadow,
    pub verification: Verifications,
    pub divergences: Divergences,
    pub smoke: Attempts,
    pub holds: Holds,
    pub announced: Announced,
    pub policy: PolicyWindow,
}

impl Observed {
    pub fn new(ledger: Ledger) -> Self {
        let now = Instant::now();
        let attempts = || Attempts { running: false, not_before: now };
        Self {
            servers: Servers {
                source: unknown(),
                target: unknown(),
                exercised: unknown(),
                target_keys: not_yet(),
                checked_at: None,
                checking: false,
            },
            findings: Findings { found: not_yet(), feeds: not_yet(), at: None, comparing: false },
            phase_begin: PhaseBegin { commands: 0, at: now },
            shadow: Shadow::default(),
            verification: Verifications {
                newest: None,
                strayed: false,
                clean_since: None,
                running: None,
                not_before: now,
                again_at: now,
                keys: 0,
                count: 0,
                reads_before: ReadsCompared::default(),
            },
            divergences: Divergences { ledger, unsaved: false },
            smoke: attempts(),
            holds: Holds { attempts: attempts(), pause: limits::FENCE_RETRY_PAUSE, expired: 0 },
            announced: Announced::default(),
            policy: PolicyWindow {
                totals: None,
                word: PolicyWord::Unknown("it has not judged a whole second yet".to_owned()),
            },
        }
    }

    /// Forgets what belongs to dual operation: the shadow is no longer kept in step.
    pub fn leave_dual(&mut self) {
        self.shadow.last = self.shadow.facts.take().map(|fresh| fresh.facts);
        if let Some(pass) = self.shadow.pass.take() {
            pass.progress.cancel();
        }
        self.verification.distrust();
        // The next shadow counts from 0.
        self.verification.reads_before = ReadsCompared::default();
    }

    /// Forgets what was proven of the shadow, because it is filled anew; reads that were compared with the old one no longer count.
    pub fn distrust_shadow(&mut self) {
        if let Some(fresh) = self.shadow.facts {
            self.verification.reads_before = fresh.facts.reads;
        }
        self.verification.distrust();
    }

    /// What of these reads was compared since the shadow was last filled.
    pub fn reads_since_filled(&self, all: ReadsCompared) -> ReadsCompared {
        let before = self.verification.reads_before;
        ReadsCompared {
            compared: all.compared.saturating_sub(before.compared),
            inconclusive: all.inconclusive.saturating_sub(before.inconclusive),
            ..all
        }
    }

    /// Divergences that are not resolved; unknown until something has been compared.
    pub fn divergences_open(&self) -> Result<u64, String> {
        let open = self.divergences.ledger.unresolved();
        let reads = self.shadow.facts.map_or(0, |fresh| self.reads_since_filled(fresh.facts.reads).compared);
        if open > 0 || reads > 0 || self.verification.newest.is_some() {
            Ok(open)
        } else {
            Err("nothing has been compared yet".to_owned())
        }
    }
}

impl Verifications {
    /// Forgets what was proven: both sides are compared anew.
    pub fn distrust(&mut self) {
        self.stop();
        self.newest = None;
        self.clean_since = None;
    }

    pub fn stop(&mut self) {
        if let Some(progress) = self.running.take() {
            progress.cancel();
        }
    }
}

impl Holds {
    /// After an attempt: when the next may begin. What fails again and again is tried less and less often.
    pub fn ended(&mut self, outcome: &FlipOutcome) {
        let wait = match outcome {
            FlipOutcome::Done => {
                self.pause = limits::FENCE_RETRY_PAUSE;
                self.pause
            }
            FlipOutcome::Refused(_) => limits::FENCE_RETRY_PAUSE,
            FlipOutcome::Postponed(_) => {
                let longer = (2 * self.pause).min(limits::FENCE_RETRY_PAUSE_MAX);
                std::mem::replace(&mut self.pause, longer)
            }
        };
        self.attempts.running = false;
        self.attempts.not_before = Instant::now() + wait;
    }

    /// Something else is due now: what failed before says nothing of it.
    pub fn begin_anew(&mut self) {
        self.pause = limits::FENCE_RETRY_PAUSE;
        self.attempts.not_before = Instant::now();
    }
}

impl Attempts {
    pub fn may_begin(&self) -> bool {
        !self.running && Instant::now() >= self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use movers::Severity;

    #[test]
    fn what_only_the_first_copy_concerns_is_kept_by_comparisons_that_may_not_write() {
        let one = |name: &str, before_copy| Finding {
            name: name.to_owned(),
            severity: Severity::Info,
            detail: String::new(),
            feed: None,
            before_copy,
        };
        let mut findings = Findings { found: not_yet(), feeds: not_yet(), at: None, comparing: false };
        let names = |findings: &Findings| match &findings.found {
            Ok(found) => found.iter().map(|finding| finding.name.clone()).collect::<Vec<_>>().join(" "),
            Err(why) => why.clone(),
        };
        findings.compared(WriteProbe::Allowed, Ok(vec![one("not-empty", true), one("settings", false)]));
        findings.compared(WriteProbe::Forbidden, Ok(vec![one("users", false)]));
        assert_eq!(names(&findings), "not-empty users");
        findings.compared(WriteProbe::Allowed, Ok(vec![one("users", false)]));
        assert_eq!(names(&findings), "users", "it has been looked for again");
        findings.compared(WriteProbe::Forbidden, Err("away".to_owned()));
        assert_eq!(names(&findings), "away");
    }
}
