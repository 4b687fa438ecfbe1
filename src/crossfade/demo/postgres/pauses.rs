//! Pauses of the interlay through the admin API, and the proof on the server itself that nothing runs meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::super::admin::Admin;
use super::super::process::rest;
use super::client::{Login, Sql};
use super::ledger::Tally;
use super::rig::INTERLAY;
use super::server::{APPLICATION_USER, DATABASE};
use control::api::types::{Paused, Resumed, Session};

/// How long a pause may take to drain.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a drained interlay stays paused.
const HOLD: Duration = Duration::from_millis(50);
/// Time after which a pause ends automatically if the demo has died.
const HOLD_AT_MOST: Duration = Duration::from_secs(10);
/// Deadline of the pause that is meant to fail.
pub const SHORT_DEADLINE: Duration = Duration::from_millis(300);
/// Application name of the session that makes that pause fail.
pub const HELD_OPEN: &str = "held-open";
/// Transactions that count as "traffic continues", and how long they may take.
const PROOF_OF_LIFE: u64 = 20;
const PROOF_PATIENCE: Duration = Duration::from_secs(10);

/// A pause that succeeded.
#[derive(Debug, Clone, Copy)]
pub struct PauseSeen {
    pub drained_in_us: u64,
    pub paused_for_us: u64,
    pub held_clients: u64,
    /// The longest time for which the proxy held a client; the client's own wait also includes server and machine.
    pub longest_hold_us: u64,
}

#[derive(Debug)]
pub enum Outcome {
    Held(PauseSeen),
    /// The error text, and the sessions it names.
    HeldUp(String, Vec<Session>),
}

/// The server's own view of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// Sessions inside a statement or transaction.
    busy: i64,
    /// The number of the next writing transaction, over all databases: always exact.
    next_transaction: i64,
    /// Transactions of the database so far. Sessions report them at most once a second each, so this is weaker than `next_transaction`.
    transactions: i64,
}

/// One statement, run in another database so that it does not count itself.
fn look_sql() -> String {
    format!(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND usename = '{APPLICATION_USER}' \
         AND backend_type = 'client backend' AND (state <> 'idle' OR xact_start IS NOT NULL)), \
         txid_snapshot_xmax(txid_current_snapshot()), \
         (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{DATABASE}')"
    )
}

/// Pauses and resumes the interlay.
pub struct Pauser<'a> {
    pub admin: &'a Admin,
    /// A connection to the server itself.
    pub direct: &'a Sql,
    /// Activity seen during a pause.
    pub violations: Vec<String>,
}

impl Pauser<'_> {
    fn look(&self) -> Result<Look, String> {
        match self.direct.numbers(&look_sql())?[..] {
            [busy, next_transaction, transactions] => Ok(Look { busy, next_transaction, transactions }),
            ref other => Err(format!("the server answered {other:?} to the query of its sessions")),
        }
    }

    /// The transactions begun between two looks without a pause. There must be some, otherwise the looks would prove nothing.
    pub fn look_without_a_pause(&self) -> Result<u64, String> {
        let deadline = Instant::now() + PROOF_PATIENCE;
        loop {
            let before = self.look()?;
            rest(HOLD)?;
            let begun = self.look()?.next_transaction - before.next_transaction;
            if begun > 0 {
                return Ok(begun.unsigned_abs());
            }
            if Instant::now() > deadline {
                return Err("the server saw no transaction although clients run".to_owned());
            }
        }
    }

    /// Pauses, looks twice, resumes.
    pub fn pause_and_resume(&mut self) -> Result<Outcome, String> {
        let paused = match self.pause(DEADLINE)? {
            Ok(paused) => paused,
            Err((detail, sessions)) => return Ok(Outcome::HeldUp(detail, sessions)),
        };
        let before = self.look()?;
        rest(HOLD)?;
        let after = self.look()?;
        if before.busy != 0 || before != after {
            self.violations.push(format!("the server was not at rest during a pause: {before:?}, then {after:?}"));
        }
        let (status, answer) = self.admin.post(&format!("/api/v1/interlays/{INTERLAY}/resume"), &json!({}))?;
        if status != 200 {
            return Err(format!("resume: {status} {answer}"));
        }
        let resumed: Resumed = serde_json::from_value(answer).map_err(|error| format!("resume: {error}"))?;
        Ok(Outcome::Held(PauseSeen {
            drained_in_us: paused.drained_in_us,
            paused_for_us: resumed.paused_for_us,
            held_clients: resumed.held_clients,
            longest_hold_us: resumed.longest_hold_us,
        }))
    }

    /// The inner `Err`: the pause failed because of these sessions.
    fn pause(&self, deadline: Duration) -> Result<Result<Paused, (String, Vec<Session>)>, String> {
        let body = json!({ "deadline_ms": deadline.as_millis() as u64, "hold_ms": HOLD_AT_MOST.as_millis() as u64 });
        let (status, answer) = self.admin.post(&format!("/api/v1/interlays/{INTERLAY}/pause"), &body)?;
        let held_up = answer["type"].as_str().is_some_and(|kind| kind.ends_with(":pause-held-up"));
        match status {
            200 => serde_json::from_value(answer).map(Ok).map_err(|error| format!("pause: {error}")),
            409 if held_up => {
                let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
                let sessions = answer.get("sessions").cloned().unwrap_or(Json::Array(Vec::new()));
                let sessions = serde_json::from_value(sessions).map_err(|error| format!("pause: {error}"))?;
                Ok(Err((detail, sessions)))
            }
            _ => Err(format!("pause: {status} {answer}")),
        }
    }

    /// Leaves a transaction open on purpose: a pause with a short deadline must fail and name its session, while other clients continue.
    /// Then commits it, with the given token.
    pub fn held_up_on_purpose(&mut self, through: &Login, tally: &Tally, token: i64) -> Result<FailedPause, String> {
        let open = Sql::open(through, HELD_OPEN)?;
        open.rows("BEGIN")?;
        open.rows(&format!("INSERT INTO ledger_tokens (token) VALUES ({token})"))?;
        // Gives the transaction a visible age.
        rest(Duration::from_millis(700))?;
        let asked = Instant::now();
        let (detail, sessions) = match self.pause(SHORT_DEADLINE)? {
            Err(held_up) => held_up,
            Ok(_) => return Err("a pause succeeded although a transaction was left open".to_owned()),
        };
        let took = asked.elapsed();
        let before = tally.acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + PROOF_PATIENCE;
        while tally.acknowledged.load(Ordering::Relaxed) < before + PROOF_OF_LIFE {
            if Instant::now() > deadline {
                return Err("traffic did not continue after the failed pause".to_owned());
            }
            rest(Duration::from_millis(10))?;
        }
        open.rows("COMMIT")?;
        let (held_open, others): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|session| session.application == HELD_OPEN);
        Ok(FailedPause { detail, took, named: held_open.into_iter().next(), others: others.len(), token })
    }
}

/// The result of a pause that failed.
#[derive(Debug)]
pub struct FailedPause {
    pub detail: String,
    pub took: Duration,
    /// The session that was left open, if it was named.
    pub named: Option<Session>,
    /// Further sessions that did not end in time.
    pub others: usize,
    /// Inserted by the transaction that was left open, and acknowledged at its end.
    pub token: i64,
}

impl FailedPause {
    /// Whether it named the right session with all that an operator needs to find it.
    pub fn is_right(&self) -> bool {
        self.named.as_ref().is_some_and(|session| {
            session.user == APPLICATION_USER
                && session.database == DATABASE
                && session.state == "idle in transaction"
                && session.age_ms >= 700
        })
    }
}
