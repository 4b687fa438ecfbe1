//! Two Redis servers with a migration between them: for measuring dual operation, a first pass and changes of authority.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::bench::contestants::{Crossfade, INTERLAY, Program, client, redis};
use crate::bench::engine::fill;
use crate::crossfade::brief;

const ID: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(120);

/// Fields are dropped in this order.
#[derive(Debug)]
pub struct Dual {
    pub proxy: Program,
    pub source: Program,
    pub target: Program,
    binary: std::path::PathBuf,
}

impl Dual {
    /// Both servers, the source filled, the migration over this feed created with gates that a benchmark can meet, in phase `analyze`.
    ///
    /// # Errors
    /// What did not work.
    pub fn prepare(binary: &Path, keys: u64, value_bytes: usize, feed: &str) -> Result<Self, String> {
        let (source, target) = (redis()?, redis()?);
        // A server waits five seconds for further replicas before it begins a snapshot, unless it is told not to. That is no throughput.
        for server in [&source, &target] {
            redis::cmd("CONFIG")
                .arg(&["SET", "repl-diskless-sync-delay", "0"])
                .exec(&mut client(server.port))
                .map_err(|error| error.to_string())?;
        }
        fill(source.address(), keys, value_bytes).map_err(|error| format!("filling the source: {error}"))?;
        let proxy = Crossfade { binary, cores: 1, source: source.port, target: Some(target.port), more: "" }.start()?;
        let dual = Self { proxy, source, target, binary: binary.to_owned() };
        dual.proxy.cli(
            binary,
            &[
                "migration",
                "create",
                "--id",
                ID,
                "--interlay",
                INTERLAY,
                "--manual-approval",
                "false",
                "--analyze-min-commands",
                "10",
                "--analyze-min-seconds",
                "1",
                "--compare-min-reads",
                "10",
                "--feed",
                feed,
            ],
        )?;
        dual.advance("analyze")?;
        dual.reads(20)?;
        Ok(dual)
    }

    /// A few reads through the proxy: gates need some.
    ///
    /// # Errors
    /// The server's.
    pub fn reads(&self, count: usize) -> Result<(), String> {
        let mut connection = client(self.proxy.port);
        for _ in 0..count {
            redis::cmd("GET")
                .arg("key:000000000000")
                .query::<redis::Value>(&mut connection)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Advances as soon as the gates are met.
    ///
    /// # Errors
    /// The last refusal.
    pub fn advance(&self, phase: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.proxy.cli(&self.binary, &["migration", "advance", ID, "--to", phase]) {
                Ok(_) => return Ok(()),
                Err(why) if Instant::now() > deadline => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// # Errors
    /// What the proxy said.
    pub fn rollback(&self) -> Result<(), String> {
        self.proxy.cli(&self.binary, &["migration", "rollback", ID, "--reason", "benchmark"]).map(drop)
    }

    /// # Errors
    /// When the API does not answer.
    pub fn show(&self) -> Result<Json, String> {
        self.proxy.admin(&format!("/api/v1/migrations/{ID}"))
    }

    /// Polls every 20 ms until `done`.
    ///
    /// # Errors
    /// When it never is.
    pub fn until(&self, what: &str, done: impl Fn(&Json) -> bool) -> Result<Json, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.show()?;
            if done(&now) {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(format!("waited {PATIENCE:?} for {what}: {}\n{}", brief(&now), self.proxy.log_tail(3)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Phase `compare`, everything copied: from here the target is kept in step, and reads are repeated there.
    ///
    /// # Errors
    /// What did not work.
    pub fn compare(&self) -> Result<(), String> {
        self.advance("compare")?;
        self.until("a complete copy", copied).map(drop)
    }

    /// Waits until the servers have exchanged roles, in either direction.
    ///
    /// # Errors
    /// When they never do.
    pub fn authority(&self, side: &str) -> Result<Json, String> {
        self.until(&format!("authority of the {side}"), |now| now["authority"] == side)
    }
}

/// Whether nothing is left to copy and the feed knows it.
fn copied(now: &Json) -> bool {
    now["uncopied"] == false
        && match now["feed"].as_str() {
            Some("lane") => now["backfill"]["complete"] == true && now["lane"].is_object(),
            _ => now["feed"] == "replication",
        }
}

#[cfg(test)]
mod tests {
    use super::copied;
    use serde_json::json;

    #[test]
    fn a_pass_that_has_named_all_keys_is_not_yet_a_copy_of_them() {
        let mut now = json!({ "feed": "lane", "backfill": { "complete": true }, "uncopied": true, "lane": {} });
        assert!(!copied(&now));
        now["uncopied"] = json!(false);
        assert!(copied(&now));
        now["lane"] = json!(null);
        assert!(!copied(&now));
    }
}
