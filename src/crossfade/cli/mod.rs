//! The command line: speaks HTTP to the admin API and prints. Knows only the API's types.
//!
//! Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 usage.

mod args;
mod client;
mod duration;
mod filter;
mod interlay;
mod print;

use std::io::Write as _;
use std::time::{Duration, Instant};

pub use args::{Cli, FilterCommand, Output, Top};
use args::{EndpointCommand, MigrationCommand};
pub use clap::Parser;
pub use client::{AdminClient, ClientError};
pub use filter::{print_filter_bench, print_filter_test};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use control::api::types::{
    AdvanceBody, ApproveBody, CheckedFilter, CommitBody, Divergences, Endpoint, Finding, Migration, ReasonBody, Report,
    RunBody, Status, WaiveBody,
};

/// How often `--wait` retries.
const WAIT_STEP: Duration = Duration::from_millis(200);

/// Runs a command that talks to a running proxy. Returns the exit code.
#[must_use]
pub fn run(admin: &str, output: Output, command: Top) -> i32 {
    let console = Console { client: AdminClient::new(admin), output };
    let done = match command {
        Top::Status => console.show("/api/v1/status", print_of(|status: &Status| print::status(status))),
        Top::Endpoint(command) => console.endpoint(command),
        Top::Interlay(command) => console.interlay(command),
        Top::Migration(command) => console.migration(command),
        Top::Filter(command) => console.filter(command),
        Top::Serve { .. } | Top::Check { .. } | Top::Demo { .. } => {
            Err("this command does not talk to a proxy".to_owned())
        }
    };
    match done {
        Ok(()) => 0,
        Err(reason) => {
            // Empty: the command has already printed the error in its own format.
            if !reason.is_empty() {
                eprintln!("crossfade: {reason}");
            }
            1
        }
    }
}

/// Prints the result of `crossfade check`. Returns 1 when a server does not answer, a filter does not load or a finding is critical.
#[must_use]
pub fn print_check(
    output: Output,
    endpoints: &[Endpoint],
    pairs: &[(String, Result<Vec<Finding>, String>)],
    filters: &[CheckedFilter],
) -> i32 {
    let critical = |findings: &Result<Vec<Finding>, String>| match findings {
        Ok(findings) => findings.iter().any(|finding| finding.severity == "critical"),
        Err(_) => true,
    };
    let bad = endpoints.iter().any(|endpoint| endpoint.health != "up")
        || filters.iter().any(|filter| filter.problem.is_some())
        || pairs.iter().any(|(_, all)| critical(all));
    let text = match output {
        Output::Json => {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(interlay, found)| {
                    json!({"interlay": interlay, "findings": found.as_ref().ok(), "problem": found.as_ref().err()})
                })
                .collect();
            let found = json!({"ok": !bad, "endpoints": endpoints, "filters": filters, "interlays": pairs});
            serde_json::to_string_pretty(&found).unwrap_or_default()
        }
        Output::Table => {
            let mut parts = vec![print::endpoints(endpoints)];
            if !filters.is_empty() {
                parts.push(print::checked_filters(filters));
            }
            for (interlay, found) in pairs {
                parts.push(match found {
                    Ok(findings) if findings.is_empty() => format!("{interlay}: no compatibility findings"),
                    Ok(findings) => format!("{interlay}:\n{}", print::findings(findings)),
                    Err(why) => format!("{interlay}: not compared: {why}"),
                });
            }
            parts.join("\n")
        }
    };
    put(&text);
    i32::from(bad)
}

/// Prints a line; a closed pipe at the other end is not an error.
fn put(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print_of<T>(print: fn(&T) -> String) -> fn(&T) -> String {
    print
}

type Done = Result<(), String>;

#[derive(Debug)]
struct Console {
    client: AdminClient,
    output: Output,
}

impl Console {
    /// Fetches and prints: the API's own JSON, or a table.
    fn show<T: Serialize + DeserializeOwned>(&self, path: &str, print: fn(&T) -> String) -> Done {
        match self.output {
            Output::Json => {
                let value = self.client.raw(path).map_err(text)?;
                put(&serde_json::to_string_pretty(&value).map_err(text)?);
            }
            Output::Table => put(&print(&self.client.get(path).map_err(text)?)),
        }
        Ok(())
    }

    fn tell(&self, migration: &Migration) -> Done {
        match self.output {
            Output::Json => put(&serde_json::to_string_pretty(migration).map_err(text)?),
            Output::Table => put(&print::migration(migration)),
        }
        Ok(())
    }

    fn endpoint(&self, command: EndpointCommand) -> Done {
        match command {
            EndpointCommand::List => self.show("/api/v1/endpoints", |all: &Vec<Endpoint>| print::endpoints(all)),
            EndpointCommand::Show { name } => self.show(&format!("/api/v1/endpoints/{name}"), print::endpoint),
            EndpointCommand::Check { name } => {
                let path = format!("/api/v1/endpoints/{name}/check");
                let endpoint: Endpoint = self.client.post(&path, &json!({})).map_err(text)?;
                match self.output {
                    Output::Json => put(&serde_json::to_string_pretty(&endpoint).map_err(text)?),
                    Output::Table => put(&print::endpoint(&endpoint)),
                }
                Ok(())
            }
        }
    }

    fn migration(&self, command: MigrationCommand) -> Done {
        let verb = |id: &str, verb: &str, body: serde_json::Value| {
            self.client.verb(id, verb, &body).map_err(text).and_then(|migration| self.tell(&migration))
        };
        match command {
            MigrationCommand::Create(args) => {
                let migration: Migration = self.client.post("/api/v1/migrations", &args.body()?).map_err(text)?;
                self.tell(&migration)
            }
            MigrationCommand::List => self.show("/api/v1/migrations", |all: &Vec<Migration>| print::migrations(all)),
            MigrationCommand::Show { id } => self.show(&format!("/api/v1/migrations/{id}"), print::migration),
            MigrationCommand::Run { id, auto, through } => verb(&id, "run", to_json(&RunBody { auto, through })?),
            MigrationCommand::Advance { id, to, wait } => {
                self.until_possible(wait, || self.client.verb(&id, "advance", &AdvanceBody { to: to.clone() }))
            }
            MigrationCommand::Approve { id, by, reason, scope } => {
                verb(&id, "approve", to_json(&ApproveBody { by, reason, scope })?)
            }
            MigrationCommand::Waive { id, finding, by, reason } => {
                verb(&id, "waive", to_json(&WaiveBody { finding, by, reason })?)
            }
            MigrationCommand::Pause { id } => verb(&id, "pause", json!({})),
            MigrationCommand::Resume { id } => verb(&id, "resume", json!({})),
            MigrationCommand::Rollback { id, reason, wait } => {
                let migration = self.client.verb(&id, "rollback", &ReasonBody { reason }).map_err(text)?;
                match wait {
                    None => self.tell(&migration),
                    Some(seconds) => self.until_authority(&id, "source", seconds),
                }
            }
            MigrationCommand::Commit { id, force, reason, wait } => {
                let body = CommitBody { force, reason: reason.unwrap_or_default() };
                self.until_possible(wait, || self.client.verb(&id, "commit", &body))
            }
            MigrationCommand::Abandon { id, reason } => {
                verb(&id, "abandon", to_json(&ReasonBody { reason: reason.unwrap_or_default() })?)
            }
            MigrationCommand::Policy(args) => self.policy(&args),
            MigrationCommand::Report { id } => {
                self.show(&format!("/api/v1/migrations/{id}/report"), |report: &Report| report.markdown.clone())
            }
            MigrationCommand::Events { id, follow, after } => self.events(&id, follow, after),
            MigrationCommand::Divergences { id } => self
                .show(&format!("/api/v1/migrations/{id}/divergences"), |found: &Divergences| print::divergences(found)),
            MigrationCommand::Wait { id, authority, seconds } => self.until_authority(&id, &authority, seconds),
        }
    }

    /// Retries a step while unmet gates are the only obstacle, for as long as the operator allows.
    fn until_possible(&self, wait: Option<u64>, step: impl Fn() -> Result<Migration, ClientError>) -> Done {
        let deadline = Instant::now() + Duration::from_secs(wait.unwrap_or(0)).min(control::api::types::WAIT_MAX);
        loop {
            match step() {
                Ok(migration) => return self.tell(&migration),
                Err(error) if error.is_unmet() && Instant::now() < deadline => std::thread::sleep(WAIT_STEP),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn until_authority(&self, id: &str, side: &str, seconds: u64) -> Done {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let migration = self.client.migration(id).map_err(text)?;
            if migration.authority == side {
                return self.tell(&migration);
            }
            if let Some(how) = &migration.ended {
                return Err(format!("migration {id} is {how} with the {} authoritative", migration.authority));
            }
            if Instant::now() >= deadline {
                let open: Vec<_> = migration.gates.iter().filter(|gate| !gate.met).collect();
                let lines: Vec<_> = open
                    .iter()
                    .map(|gate| format!("\n  {}: {} (needs {})", gate.name, gate.measured, gate.threshold))
                    .collect();
                return Err(format!("the {side} is not authoritative after {seconds} s{}", lines.concat()));
            }
            std::thread::sleep(WAIT_STEP);
        }
    }

    fn events(&self, id: &str, follow: bool, after: u64) -> Done {
        let each = |event: &control::api::types::Event| {
            let line = match self.output {
                Output::Json => serde_json::to_string(event).unwrap_or_default(),
                Output::Table => print::event(event),
            };
            writeln!(std::io::stdout(), "{line}").is_ok()
        };
        // Without this check, a misspelt id would wait for ever without a message.
        self.client.migration(id).map_err(text)?;
        self.client.events(Some(id), after, follow, each).map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn to_json(body: &impl Serialize) -> Result<serde_json::Value, String> {
    serde_json::to_value(body).map_err(text)
}
