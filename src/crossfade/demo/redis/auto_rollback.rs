//! The variant `--auto-rollback`: the target becomes slow without warning, and the rollback policy returns to the source automatically.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::director::{Director, MIGRATION, last_rate, on};
use super::report::{AutomaticRollback, Report};

/// How long each exchange with the target takes once it is slowed.
const SLOWED: Duration = Duration::from_millis(60);
/// Traffic on the target before that, as a base for the comparison.
const HEALTHY: Duration = Duration::from_secs(4);

impl Director<'_> {
    /// Moves to the target, slows it, and waits for the policy to return to the source.
    pub fn phases_with_automatic_rollback(&mut self, report: &mut Report) -> Result<(), String> {
        self.until_migrate(report)?;
        let now = self.wait("authority on the target", on("target"))?;
        self.show_flip(&now);
        self.linger(HEALTHY)?;

        self.screen.step("slowing the target");
        self.screen.say(&format!("every exchange with the target now takes {} ms longer", SLOWED.as_millis()));
        let slowed = Instant::now();
        let slow_proxy =
            self.rig.slow_proxy.as_ref().ok_or("this variant needs the slow proxy in front of the target")?;
        slow_proxy.delay(SLOWED);
        let rolled_back = self.wait("the rollback policy to act", |now| now["phase"] == "rollback")?;
        let decided = slowed.elapsed();
        let reason = rolled_back["rollback_reason"].as_str().unwrap_or_default().to_owned();
        self.screen.say(&format!("rolled back automatically after {:.1} s: {reason}", decided.as_secs_f64()));
        let now = self.wait("authority back on the source", on("source"))?;
        self.show_flip(&now);
        report.automatic_rollback = Some(AutomaticRollback { reason, decided, back: slowed.elapsed() });
        if let Some(slow_proxy) = &self.rig.slow_proxy {
            slow_proxy.delay(Duration::ZERO);
        }
        self.linger(HEALTHY)
    }

    /// Ends the migration on the source. The flips are read from the record first.
    pub fn abandon(&mut self, report: &mut Report) -> Result<(), String> {
        self.screen.step("abandon");
        let before = self.rig.admin.migration(MIGRATION)?;
        self.post("abandon", &serde_json::json!({ "reason": "the demo is over" }))?;
        self.wait("the end", |now: &Json| now["status"] == "rolled_back")?;
        self.summarise(&before, report);
        Ok(())
    }

    fn until_migrate(&mut self, report: &mut Report) -> Result<(), String> {
        self.create()?;
        self.advance_through(report)?;
        report.keys_per_second = report.keys_per_second.max(last_rate(&self.rig.admin.migration(MIGRATION)?));
        Ok(())
    }
}
