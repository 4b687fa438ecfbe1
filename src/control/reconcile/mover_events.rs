//! What movers tell by themselves, taken as it comes: facts of the shadow, passes, differences. Lives on the control thread; decides nothing.

use std::rc::Rc;

use super::state::{Control, Migration};
use crate::events::{FailedJob, ShadowEvent};
use crate::workflow::{FirstCopy, is_dual};
use base::model::{InterlayName, Sighting};
use movers::{Copied, MoverEvent, MoverEvents, PassKind, PassStarted};

use super::clock::now;
use super::observed::Pass;

impl Control {
    /// Takes events until the movers' thread has ended, which it does only when it failed or the process ends.
    pub async fn hear_movers(self: Rc<Self>, mut events: MoverEvents) {
        while let Some((interlay, event)) = events.recv().await {
            self.on_mover_event(&interlay, event).await;
        }
        self.fail("the movers' thread has ended".to_owned());
    }

    async fn on_mover_event(&self, name: &InterlayName, event: MoverEvent) {
        let Some(migration) = self.live(name) else { return };
        let about = migration.about();
        match event {
            MoverEvent::Facts(fresh) => {
                // The last facts may arrive after dual operation has ended.
                if is_dual(&migration.record.borrow()) {
                    migration.seen.borrow_mut().shadow.facts = Some(fresh);
                }
            }
            MoverEvent::PassStarted(started) => self.on_pass_started(&migration, started).await,
            MoverEvent::PassDone { number, copied } => self.on_pass_done(&migration, number, copied).await,
            MoverEvent::PassInterrupted { number, why } => {
                let failed = ShadowEvent::JobFailed(FailedJob::Pass { number, why });
                self.events.lasting(failed, &about).await;
            }
            MoverEvent::Divergence(seen) => on_divergence(&migration, seen),
            MoverEvent::NotCopied { database, key } => {
                self.events.lasting(ShadowEvent::RecordNotCopied { database, key }, &about).await;
            }
            MoverEvent::Loss { database, key, why } => {
                self.events.lasting(ShadowEvent::Loss { database, key, why }, &about).await;
            }
            MoverEvent::SideLost { side, reason } => {
                self.events.lasting(ShadowEvent::SideLost { side, reason }, &about).await;
            }
            MoverEvent::DoubtsWrittenDown { all } => {
                self.events.lasting(ShadowEvent::DoubtsWrittenDown { all }, &about).await;
            }
            MoverEvent::SideBack { side } => self.events.lasting(ShadowEvent::SideBack { side }, &about).await,
        }
    }

    /// A pass of everything makes whatever was proven before it void.
    async fn on_pass_started(&self, migration: &Migration, started: PassStarted) {
        let PassStarted { number, kind, epoch, reason, progress } = started;
        if !is_dual(&migration.record.borrow()) {
            progress.cancel();
            return;
        }
        {
            let mut seen = migration.seen.borrow_mut();
            match kind {
                PassKind::Full => seen.distrust_shadow(),
                PassKind::Volatile => {}
            }
            seen.shadow.pass = Some(Pass { number, kind, epoch, began_at: now(), done: false, progress });
        }
        self.events.lasting(ShadowEvent::PassStarted { number, kind, reason }, &migration.about()).await;
    }

    async fn on_pass_done(&self, migration: &Migration, number: u64, copied: Copied) {
        {
            let mut seen = migration.seen.borrow_mut();
            seen.shadow.bytes_copied += copied.bytes;
            if let Some(pass) = seen.shadow.pass.as_mut().filter(|pass| pass.number == number) {
                pass.done = true;
                let (began_at, finished_at) = (pass.began_at, now());
                let full = pass.kind == PassKind::Full;
                let copy = FirstCopy { began_at, finished_at, keys: copied.copied, bytes: copied.bytes };
                if full && migration.record.borrow().flips.is_empty() {
                    seen.shadow.first_copy.get_or_insert(copy);
                }
            }
        }
        self.events.lasting(ShadowEvent::PassDone { number, copied }, &migration.about()).await;
    }
}

fn on_divergence(migration: &Migration, seen: Sighting) {
    let mut observed = migration.seen.borrow_mut();
    observed.divergences.ledger.note(seen, now());
    observed.divergences.unsaved = true;
}
