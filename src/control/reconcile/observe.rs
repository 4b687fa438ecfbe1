//! What the cores report, taken off the bus as it comes. Lives on the control thread; decides nothing.

use std::rc::Rc;

use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::events::About;
use super::state::{Control, Interlay, Migration, Pass, now};
use base::model::{CoreId, Generation, InterlayName, Side, Sighting};
use bus::{CompanionEvent, LaneEvent, LaneStatus, PassKind, Report};
use movers::Progress;

/// Reports handled before others on this thread get a turn.
const REPORTS_PER_TURN: usize = 256;

impl Control {
    /// Takes reports for as long as the thread lives.
    ///
    /// # Errors
    /// The operating system's, when the eventfd cannot be polled.
    pub async fn pump(self: Rc<Self>) -> std::io::Result<()> {
        let reports = self.bus.reports.clone();
        // To tokio an eventfd polls and reads like the end of a pipe.
        let wake = pipe::Receiver::from_owned_fd_unchecked(reports.wake_owned()?)?;
        loop {
            reports.arm();
            let mut taken = 0;
            while let Some(report) = reports.pop() {
                self.on_report(report);
                taken += 1;
                if taken % REPORTS_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            wake.readable().await?;
            // Read until it would block: only that makes the next wait wait.
            while wake.try_read(&mut [0; 8]).is_ok() {}
        }
    }

    fn on_report(self: &Rc<Self>, report: Report) {
        match report {
            Report::PlanAcked { core, interlay, generation } => self.on_ack(core, &interlay, generation),
            Report::Companion { interlay, event: CompanionEvent::Lane(event) } => self.on_lane(&interlay, event),
            Report::Counters { core, interlays } => {
                self.cores.borrow_mut().counters.insert(core, interlays);
            }
            Report::Hold { core, interlay, ticket, event } => {
                if let Some(interlay) = self.interlays.get(&interlay) {
                    interlay.gate.on_event(core, ticket, event);
                }
            }
            Report::Sessions { core, interlay, ticket, total, busy, sessions } => {
                if let Some(interlay) = self.interlays.get(&interlay) {
                    interlay.gate.on_sessions(core, ticket, total, busy, sessions);
                }
            }
            Report::PoliciesAdopted { core, interlay, generation, before } => {
                self.on_policies_adopted(core, &interlay, generation, before);
            }
            Report::Policies { core, interlay, generation: _, seats } => self.on_policy_stats(core, &interlay, seats),
            Report::PolicyNotes { core, interlay, generation, notes } => {
                if let Some(interlay) = self.interlays.get(&interlay) {
                    self.policy_notes(interlay, generation, Some(core), notes);
                }
            }
            Report::Statements { interlay, samples } => self.analyst.take(&interlay, samples),
            Report::Drained { core } => {
                self.cores.borrow_mut().drained.insert(core);
                self.acked.notify_waiters();
            }
            Report::CoreFailed { core, reason } => {
                let text = format!("core {} cannot go on: {reason}", core.0);
                tracing::error!("{text}");
                self.events.lasting("core_failed", &About::default(), text.clone(), now());
                self.cores.borrow_mut().failed.get_or_insert(text);
                self.acked.notify_waiters();
            }
        }
    }

    fn on_ack(&self, core: CoreId, name: &InterlayName, generation: Generation) {
        let Some(interlay) = self.interlays.get(name) else { return };
        // An ack of an older plan says nothing about the present one.
        if interlay.plan().generation == generation {
            interlay.unacked.borrow_mut().remove(&core);
            self.acked.notify_waiters();
        }
    }

    fn on_lane(self: &Rc<Self>, name: &InterlayName, event: LaneEvent) {
        let Some(interlay) = self.interlays.get(name).cloned() else { return };
        interlay.lane.on_event(&event);
        let Some(migration) = self.live(name) else { return };
        let about = migration.about();
        match event {
            LaneEvent::PassStarted { pass, kind, reason } => self.on_pass(&interlay, &migration, pass, kind, &reason),
            LaneEvent::Status(status) => on_status(&migration, status),
            LaneEvent::ReadDivergence { database, key, class, authority, shadow } => {
                let (source, target) = match migration.record.borrow().authority.side {
                    Side::Source => (authority, shadow),
                    Side::Target => (shadow, authority),
                };
                let seen = Sighting { database, key: key.into_vec(), class, source, target };
                let mut observed = migration.seen.borrow_mut();
                observed.ledger.note(seen, now());
                observed.ledger_unsaved = true;
            }
            LaneEvent::RecordNotCopied { database, key } => {
                let key = String::from_utf8_lossy(&key);
                let text = format!(
                    "key {key:?} of database {database}: the records policy gave no verdict; it stays uncopied and is tried again"
                );
                self.events.lasting("record_not_copied", &about, text, now());
            }
            LaneEvent::SideLost { side, reason } => {
                side_connected(&migration, side, false);
                self.events.lasting("side_lost", &about, format!("the {side} is not connected: {reason}"), now());
            }
            LaneEvent::SideBack { side } => {
                side_connected(&migration, side, true);
                self.events.lasting("side_back", &about, format!("the {side} is connected again"), now());
            }
            // Answers to tickets; the lane client has taken them.
            LaneEvent::Copied { .. }
            | LaneEvent::Probed { .. }
            | LaneEvent::ProbeFailed { .. }
            | LaneEvent::Fenced { .. }
            | LaneEvent::FenceExpired { .. }
            | LaneEvent::Released { .. } => {}
        }
    }

    /// The lane wants every key named (again): the old job is void, a new one begins.
    fn on_pass(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        migration: &Rc<Migration>,
        number: u64,
        kind: PassKind,
        reason: &str,
    ) {
        if !crate::workflow::is_dual(&migration.record.borrow()) {
            return;
        }
        let progress = Rc::new(Progress::default());
        {
            let mut seen = migration.seen.borrow_mut();
            if kind == PassKind::Full {
                seen.distrust();
            }
            let epoch = migration.record.borrow().authority.epoch;
            let pass = Pass { number, kind, epoch, done: false, progress: Rc::clone(&progress) };
            if let Some(old) = seen.pass.replace(pass) {
                old.progress.cancelled.set(true);
            }
        }
        let what = match kind {
            PassKind::Full => "every key",
            PassKind::Volatile => "every volatile key",
        };
        self.events.lasting("pass_started", &migration.about(), format!("pass {number} names {what}: {reason}"), now());
        self.spawn_backfill(interlay, migration, number, kind, progress);
    }
}

fn on_status(migration: &Migration, status: LaneStatus) {
    // A last status may arrive after dual operation has ended.
    if crate::workflow::is_dual(&migration.record.borrow()) {
        migration.seen.borrow_mut().lane = Some((status, Instant::now()));
    }
}

/// `SideLost` names source or target; the status speaks of authority and shadow.
fn side_connected(migration: &Migration, side: Side, connected: bool) {
    let authority = migration.record.borrow().authority.side;
    if let Some((status, _)) = &mut migration.seen.borrow_mut().lane {
        if side == authority {
            status.authority_connected = connected;
        } else {
            status.shadow_connected = connected;
        }
    }
}
