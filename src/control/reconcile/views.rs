//! What the control loop shows of itself: plain snapshots, `Send`, for the API to turn into its own types.
//!
//! Also re-exports the vocabulary those snapshots are made of, so that the API needs nothing below this file.

pub use super::analysis::{AnalysisView, SessionStateView};
use super::clock::now;
use super::error::ControlError;
use super::evidence::fresh_facts;
use super::feeds::passed_by;
use super::observed::Observed;
pub use super::pause_state::PauseState;
pub use super::policies::{BenchView, CasesView, FilterUseView, FilterView, LoadFilter, PoliciesView, SlotView};
use super::state::{Control, Interlay, Migration};
pub use super::statements::{FingerprintView, KindView, Totals};
use crate::store::JournalEntry;
use crate::workflow::Evidence;
pub use crate::workflow::{Command, Ended, Gate, MigrationRecord, Phase, Refusal, Verification};
pub use base::model::Endpoint;
pub use base::model::{
    Approval, ApprovalScope, AutoThrough, ConflictPolicy, DataMovement, DecisionError, Decisions, EndpointName,
    EndpointProtocol, FailureHandling, FeedChoice, FeedKind, FilterName, Flip, InterlayName, KeyPattern, Ledger,
    LedgerEntry, MigrationId, MigrationStatus, NameError, OnFault, PlanMode, PolicyChoice, PolicyMode, PolicySetting,
    PolicySettings, PolicySlot, ReadRouting, SessionInfo, ShadowFrom, Side, Strategy, Thresholds, Timestamp, Waiver,
    WriteConsistency, limits,
};
pub use bus::counters::CoreCounters;
pub use movers::{EndpointFacts, Finding, PassKind, PostgresFacts, ServerFacts, Severity, ShadowFacts};
pub use policy::SeatStats;

#[derive(Debug, Clone)]
pub struct StatusView {
    pub version: &'static str,
    pub driver: String,
    pub cores: usize,
    pub started: Timestamp,
    pub now: Timestamp,
    pub interlays: Vec<InterlayView>,
    pub migrations: Vec<MigrationView>,
    pub counters: CoreCounters,
}

#[derive(Debug, Clone)]
pub struct ReadyView {
    pub ready: bool,
    pub driver: String,
    /// One sentence per thing that is not as it should be.
    pub problems: Vec<String>,
    /// One sentence per thing that was wanted so and is worth knowing.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct MetricsView {
    pub status: StatusView,
    /// By core number.
    pub cores: Vec<(u16, CoreCounters)>,
    /// What the filters of each interlay have done.
    pub policies: Vec<(String, Vec<SeatStats>)>,
}

#[derive(Debug, Clone)]
pub struct EndpointView {
    pub name: String,
    pub kind: &'static str,
    pub address: String,
    pub database: u32,
    /// PostgreSQL: the database Crossfade itself connects to, when the url names one.
    pub dbname: Option<String>,
    pub user: Option<String>,
    /// The last look: the facts and when, or why it failed; `None` before the first.
    pub last: Option<Result<(ServerFacts, Timestamp), String>>,
}

#[derive(Debug, Clone)]
pub struct InterlayView {
    pub name: String,
    pub kind: &'static str,
    pub listen: String,
    pub authority: Side,
    pub epoch: u64,
    /// The endpoint whose replies clients see.
    pub authority_endpoint: String,
    pub authority_address: String,
    pub dual: bool,
    pub generation: u64,
    pub unacked_cores: Vec<u16>,
    pub source: String,
    pub target: Option<String>,
    /// The migration that is not over, and its phase.
    pub migration: Option<(String, Phase)>,
    pub pause: PauseState,
    /// Pauses that held, and pauses that did not, since the process started.
    pub pauses: u64,
    pub pause_failures: u64,
}

/// A pause that holds.
#[derive(Debug, Clone)]
pub struct PauseView {
    pub interlay: String,
    pub drained_in_us: u64,
    pub paused_at: Timestamp,
    /// When it ends automatically.
    pub resumes_at: Timestamp,
}

/// A pause that is over.
#[derive(Debug, Clone)]
pub struct ResumeView {
    pub interlay: String,
    pub held_clients: u64,
    pub longest_hold_us: u64,
    pub paused_for_us: u64,
}

/// Client sessions, those inside a unit of work first; at most so many per core are named, the counts are of all.
#[derive(Debug, Clone)]
pub struct SessionsView {
    pub interlay: String,
    pub total: u64,
    pub busy: u64,
    /// Cores that did not answer in time.
    pub cores_missing: u64,
    pub sessions: Vec<SessionInfo>,
}

#[derive(Debug, Clone, Default)]
pub struct BackfillView {
    pub pass: Option<(u64, PassKind, bool)>,
    pub done: u64,
    pub total: u64,
    pub bytes: u64,
    pub rate_per_second: f64,
    /// Until the present pass has copied everything, at the present rate; `None`: not known.
    pub eta_seconds: Option<u64>,
    /// Bytes of the authority's writes that wait for the shadow.
    pub waiting_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct MigrationView {
    pub record: MigrationRecord,
    pub dual: bool,
    /// Why the feed was chosen; before that, which would be and why, or why none can.
    pub feed_reason: Option<String>,
    pub authority_endpoint: String,
    pub authority_address: String,
    pub gates: Vec<Gate>,
    pub backfill: BackfillView,
    /// `Err`: why there is none.
    pub shadow: Result<ShadowFacts, String>,
    pub findings: Result<Vec<Finding>, String>,
    pub verification: Option<Verification>,
    /// (done, total) of the comparison under way.
    pub verifying: Option<(u64, u64)>,
    pub divergences_found: u64,
    pub divergences_resolved: u64,
    pub fences_expired: u64,
}

#[derive(Debug, Clone)]
pub struct DivergencesView {
    pub ledger: Ledger,
}

impl Control {
    pub(super) fn status_view(&self) -> StatusView {
        StatusView {
            version: env!("CARGO_PKG_VERSION"),
            driver: self.driver.clone(),
            cores: self.bus.cores.len(),
            started: self.started,
            now: now(),
            interlays: self.interlays_view(),
            migrations: self.migrations_view(),
            counters: sum(self.cores.borrow().counters.values().flatten()),
        }
    }

    pub(super) fn ready_view(&self) -> ReadyView {
        let mut problems = Vec::new();
        problems.extend(self.cores.borrow().failed.clone());
        problems.extend(self.store_failed.borrow().as_ref().map(|why| format!("the store failed: {why}")));
        for interlay in self.interlays.values() {
            let late = interlay.unacked.borrow().len();
            if late > 0 {
                problems.push(format!(
                    "interlay {}: the newest plan is not yet adopted by all cores ({late} missing)",
                    interlay.config.spec.name
                ));
            }
        }
        let notes = self.interlays.values().filter_map(|interlay| {
            let name = &interlay.config.spec.name;
            match interlay.pause.state() {
                PauseState::Running => None,
                PauseState::Pausing => Some(format!("interlay {name} is being paused")),
                PauseState::Resuming => Some(format!("interlay {name} is being resumed")),
                PauseState::Paused(paused) => Some(format!(
                    "interlay {name} is paused; it resumes automatically in {} s",
                    paused.until.0.saturating_sub(now().0) / 1000
                )),
            }
        });
        let passed_by = self.interlays.values().filter_map(|interlay| {
            let live = self.live(interlay.name())?;
            let record = live.record.borrow();
            let why = passed_by(&record, &interlay.config.policies.settings)?;
            Some(format!("interlay {}: {why}: it is not asked in migration {}", interlay.name(), record.id))
        });
        let notes = notes.chain(self.absent_policies()).chain(passed_by).collect();
        ReadyView { ready: problems.is_empty(), driver: self.driver.clone(), problems, notes }
    }

    pub(super) fn metrics_view(&self) -> MetricsView {
        let cores = self.cores.borrow();
        let cores = cores.counters.iter().map(|(core, interlays)| (core.0, sum(interlays))).collect();
        MetricsView { status: self.status_view(), cores, policies: self.policy_stats() }
    }

    pub(super) fn endpoint_view(&self, endpoint: &Endpoint) -> EndpointView {
        let (database, dbname) = databases(endpoint);
        EndpointView {
            name: endpoint.name.to_string(),
            kind: endpoint.kind().as_str(),
            address: endpoint.address.to_string(),
            database,
            dbname,
            user: endpoint.credentials.as_ref().and_then(|login| login.user.clone()),
            last: self.facts.borrow().get(&endpoint.name).cloned(),
        }
    }

    pub(super) fn interlays_view(&self) -> Vec<InterlayView> {
        self.interlays.values().map(|interlay| self.interlay_view(interlay)).collect()
    }

    pub(super) fn interlay_view(&self, interlay: &Interlay) -> InterlayView {
        let plan = interlay.plan();
        let authority = plan.endpoint(plan.authority.side);
        let spec = &interlay.config.spec;
        InterlayView {
            name: spec.name.to_string(),
            kind: spec.kind().as_str(),
            listen: spec.listen.to_string(),
            authority: plan.authority.side,
            epoch: plan.authority.epoch.0,
            authority_endpoint: authority.name.to_string(),
            authority_address: authority.address.to_string(),
            dual: plan.mode.is_dual(),
            generation: plan.generation.0,
            unacked_cores: interlay.unacked.borrow().iter().map(|core| core.0).collect(),
            source: plan.source.name.to_string(),
            target: plan.target.as_ref().map(|target| target.name.to_string()),
            migration: self.live(&spec.name).map(|migration| {
                let record = migration.record.borrow();
                (record.id.to_string(), record.phase)
            }),
            pause: interlay.pause.state(),
            pauses: interlay.pause.held.get(),
            pause_failures: interlay.pause.failed.get(),
        }
    }

    pub(super) fn migrations_view(&self) -> Vec<MigrationView> {
        self.migrations.borrow().values().map(|migration| self.migration_view(migration)).collect()
    }

    pub(super) fn migration_view(&self, migration: &Migration) -> MigrationView {
        let evidence = self.evidence(migration);
        let record = migration.record.borrow().clone();
        let seen = migration.seen.borrow();
        let authority = migration.route().authority;
        let backfill = seen.shadow.pass.as_ref().map_or_else(BackfillView::default, |pass| BackfillView {
            pass: Some((pass.number, pass.kind, pass.done)),
            done: pass.progress.done(),
            total: pass.progress.total(),
            bytes: pass.progress.bytes(),
            rate_per_second: pass.progress.rate_per_second(),
            eta_seconds: pass.progress.eta_seconds().filter(|_| !pass.done),
            waiting_bytes: seen.shadow.facts.map_or(0, |fresh| fresh.facts.behind.queue_bytes),
        });
        MigrationView {
            dual: crate::workflow::is_dual(&record),
            feed_reason: feed_reason(&record, &evidence),
            authority_endpoint: authority.name.to_string(),
            authority_address: authority.address.to_string(),
            gates: crate::workflow::gates_now(&record, &evidence, now()),
            backfill,
            shadow: fresh_facts(&record, &seen.shadow),
            findings: findings(&seen),
            verification: seen.verification.newest.clone(),
            verifying: seen.verification.running.as_ref().map(|progress| (progress.done(), progress.total())),
            divergences_found: seen.divergences.ledger.found,
            divergences_resolved: seen.divergences.ledger.resolved,
            fences_expired: seen.holds.expired,
            record,
        }
    }

    pub(super) fn divergences_view(&self, id: &MigrationId) -> Result<DivergencesView, ControlError> {
        let migration = self.migration(id)?;
        let ledger = migration.seen.borrow().divergences.ledger.clone();
        Ok(DivergencesView { ledger })
    }
}

/// What both servers were found to differ in, and what was found while they are kept in step.
fn findings(seen: &Observed) -> Result<Vec<Finding>, String> {
    let mut found = seen.findings.found.clone()?;
    let mixed = seen.shadow.facts.map_or(0, |fresh| fresh.facts.excluded.mixed);
    if mixed > 0 {
        let detail = format!(
            "{mixed} commands named an excluded key and one that is not: what they made of the latter was copied. After a change of \
             authority such a command reads what the other server holds under the excluded key"
        );
        let name = "commands-mix-excluded-keys".to_owned();
        found.push(Finding { name, severity: Severity::Warning, detail, feed: None, before_copy: false });
    }
    let losses = seen.shadow.facts.map_or(0, |fresh| fresh.facts.losses);
    if losses > 0 {
        let detail = format!(
            "the shadow cannot hold {losses} values as the authority does: the events `shadow_lacks` name the first {}. They are copied as well \
             as it can",
            limits::FEED_LOSSES_TOLD_MAX
        );
        found.push(Finding {
            name: "shadow-lacks-values".to_owned(),
            severity: Severity::Warning,
            detail,
            feed: None,
            before_copy: false,
        });
    }
    Ok(found)
}

fn feed_reason(record: &MigrationRecord, evidence: &Evidence) -> Option<String> {
    if record.feed.is_some() || record.is_over() {
        return record.feed_reason.clone();
    }
    let word = crate::workflow::chosen_feed(record, evidence);
    Some(word.map_or_else(|why| why, |(feed, why)| format!("{feed} would be used: {why}")))
}

/// Everything an auditor gets.
#[derive(Debug, Clone)]
pub struct ReportView {
    pub migration: MigrationView,
    pub version: &'static str,
    pub written_at: Timestamp,
    pub source: EndpointView,
    pub target: EndpointView,
    pub keys_verified: u64,
    pub verifications: u64,
    pub bytes_copied: u64,
    /// How the shadow stands, or stood when dual operation ended; `None` when it was never kept in step by this process.
    pub shadow: Option<ShadowFacts>,
    /// The journal of this migration, oldest first.
    pub journal: Vec<JournalEntry>,
}

fn sum<'a>(all: impl IntoIterator<Item = &'a (InterlayName, CoreCounters)>) -> CoreCounters {
    let mut total = CoreCounters::default();
    for (_, one) in all {
        total.add(one);
    }
    total
}

/// The database that Crossfade's own connections use: by number (Redis, else 0) and by name (PostgreSQL).
pub fn databases(endpoint: &Endpoint) -> (u32, Option<String>) {
    match &endpoint.protocol {
        EndpointProtocol::Redis { database } => (*database, None),
        EndpointProtocol::Postgres { dbname } => (0, dbname.clone()),
    }
}
