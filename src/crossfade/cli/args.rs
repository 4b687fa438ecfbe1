//! The command line: what may be written. What it does is in `commands.rs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use control::api::types::{CreateMigration, PolicyGiven};

/// Moves live Redis traffic from one server to another, and back, without losing a write; pauses and analyses PostgreSQL traffic.
#[derive(Debug, Parser)]
#[command(name = "crossfade", version, max_term_width = 110)]
pub struct Cli {
    /// Where the admin API of a running `crossfade serve` is.
    #[arg(long, global = true, env = "CROSSFADE_ADMIN", default_value = "http://127.0.0.1:7171")]
    pub admin: String,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Top,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Top {
    /// Run the proxy.
    Serve {
        #[arg(long)]
        config: PathBuf,
    },
    /// Read a configuration, probe its servers, print what is found. Starts nothing.
    Check {
        #[arg(long)]
        config: PathBuf,
    },
    /// The main job on throw-away real servers.
    Demo {
        /// What to demonstrate: redis or postgres.
        #[arg(default_value = "redis")]
        kind: String,
        /// Leave everything running at the end.
        #[arg(long)]
        keep: bool,
        /// Length of the load, roughly.
        #[arg(long)]
        seconds: Option<u64>,
        /// The target is a Valkey; redis only.
        #[arg(long)]
        valkey: bool,
        /// The target is slowed after the move and the rollback policy goes back by itself; redis only.
        #[arg(long)]
        auto_rollback: bool,
        /// Stay this long in `compare`, where every read is compared; redis only.
        #[arg(long, default_value_t = 0)]
        compare_seconds: u64,
    },
    /// One screen: interlays, who is authoritative, phases, lag, divergences.
    Status,
    /// Servers.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Listeners.
    #[command(subcommand)]
    Interlay(InterlayCommand),
    /// Migrations.
    #[command(subcommand)]
    Migration(MigrationCommand),
    /// Policy filters: WebAssembly modules that decide what is mirrored, what is a difference, when to go back.
    #[command(subcommand)]
    Filter(FilterCommand),
}

#[derive(Debug, Subcommand)]
pub enum FilterCommand {
    List,
    Show {
        name: String,
    },
    /// Load a module, or replace the one of this name, under traffic. What fails leaves the old one running.
    Load {
        name: String,
        /// NAME.wasm, or WAT text.
        file: PathBuf,
        /// Recorded cases, which all must pass; default: STEM.cases.jsonl beside the file, if it is there.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
    /// The built-in default stands in wherever it decided, and records are not copied.
    Unload {
        name: String,
    },
    /// Run a module's recorded cases, without a proxy; exit 1 when one fails.
    Test {
        file: PathBuf,
        /// Default: STEM.cases.jsonl beside the file.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
    /// Measure a module's hooks in nanoseconds per call, without a proxy.
    Bench {
        file: PathBuf,
        /// The JSON object the module is configured with.
        #[arg(long, value_name = "JSON", default_value = "{}")]
        config: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    List,
    Show {
        name: String,
    },
    /// Look at the server now.
    Check {
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum InterlayCommand {
    List,
    Show {
        name: String,
    },
    /// PostgreSQL: hold every client at its next statement; returns when nothing is outstanding at the server.
    Pause {
        name: String,
        /// Give up after this long, as in 2s, and say who holds the pause up; default 5s.
        #[arg(long, value_parser = super::duration::parse, value_name = "TIME")]
        deadline: Option<Duration>,
        /// Resume by itself after this long, as in 10m; default 10m.
        #[arg(long, value_parser = super::duration::parse, value_name = "TIME")]
        hold: Option<Duration>,
    },
    /// PostgreSQL: let the clients go on.
    Resume {
        name: String,
    },
    /// Redis: which filters decide, who chose them, what they have done.
    Policies {
        name: String,
    },
    /// PostgreSQL: who is connected, and what each is doing.
    Sessions {
        name: String,
    },
    /// PostgreSQL: what passes, and what would be in the way of a move.
    Analyze {
        name: String,
        /// Compare the server with this endpoint; default: the interlay's target.
        #[arg(long)]
        target: Option<String>,
        /// Show at most this many forms of statements; default 50.
        #[arg(long)]
        limit: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub enum MigrationCommand {
    /// Record a migration; nothing moves yet.
    Create(Box<CreateArgs>),
    List,
    Show {
        id: String,
    },
    /// Start it; with --auto it drives itself as its gates are met.
    Run {
        #[arg(long)]
        id: String,
        /// Drive itself up to and including the change of authority.
        #[arg(long)]
        auto: bool,
        /// How far --auto goes: flip (default) or commit.
        #[arg(long, requires = "auto")]
        through: Option<String>,
    },
    /// Go to the next phase, if its gates are met.
    Advance {
        id: String,
        /// pre-test, analyze, compare, test, migrate, commit.
        #[arg(long)]
        to: Option<String>,
        /// Keep trying for this many seconds while gates are unmet.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Give the approval that is due next.
    Approve {
        id: String,
        #[arg(long)]
        by: String,
        #[arg(long)]
        reason: String,
        /// migrate, flip or commit; without it, whichever is due.
        #[arg(long, alias = "for", value_name = "STEP")]
        scope: Option<String>,
    },
    /// Accept one critical compatibility finding by name.
    Waive {
        id: String,
        #[arg(long)]
        finding: String,
        #[arg(long)]
        by: String,
        #[arg(long)]
        reason: String,
    },
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    /// Return to the source, with every write.
    Rollback {
        id: String,
        #[arg(long)]
        reason: String,
        /// Wait this many seconds until the source is authoritative.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Make the target final and stop keeping the source in step.
    Commit {
        id: String,
        /// Although gates are unmet; needs --reason, which is recorded.
        #[arg(long, requires = "reason")]
        force: bool,
        #[arg(long)]
        reason: Option<String>,
        /// Keep trying for this many seconds while gates are unmet.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// End the migration on the source.
    Abandon {
        id: String,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Who makes one decision of a migration: a filter, nobody, or whoever makes it for the interlay.
    Policy(PolicyArgs),
    /// The evidence report: Markdown, or JSON with --output json.
    Report {
        id: String,
    },
    Events {
        id: String,
        /// Go on as events come.
        #[arg(long)]
        follow: bool,
        /// Only events after this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    Divergences {
        id: String,
    },
    /// Wait until the change of authority in `migrate` (or back in `rollback`) has happened.
    Wait {
        id: String,
        /// source or target.
        #[arg(long, default_value = "target")]
        authority: String,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

/// What is not given keeps its value; with --filter it takes its default.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct PolicyArgs {
    pub id: String,
    /// mirror, compare, rollback, records
    pub slot: String,
    /// builtin:NAME, or the name of a loaded filter.
    #[arg(long, value_name = "REF", group = "change", conflicts_with_all = ["none", "inherit"])]
    pub filter: Option<String>,
    /// Nobody: the built-in default.
    #[arg(long, group = "change", conflicts_with_all = ["inherit", "mode", "on_fault", "config"])]
    pub none: bool,
    /// As the interlay has it.
    #[arg(long, group = "change", conflicts_with_all = ["mode", "on_fault", "config"])]
    pub inherit: bool,
    /// observe, warn, block: whether a verdict that stops something is carried out
    #[arg(long, group = "change")]
    pub mode: Option<String>,
    /// fail_open, fail_closed
    #[arg(long, group = "change")]
    pub on_fault: Option<String>,
    /// The JSON object the filter is configured with.
    #[arg(long, value_name = "JSON", group = "change")]
    pub config: Option<String>,
}

/// SLOT=REF
fn slot_and_filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((slot, filter)) if !slot.is_empty() && !filter.is_empty() => Ok((slot.to_owned(), filter.to_owned())),
        _ => Err(format!("{text:?} names no filter: write mirror=NAME, mirror=builtin:NAME or mirror=none")),
    }
}

/// Decisions; those not given take the first value listed.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[arg(long, required_unless_present = "file")]
    id: Option<String>,
    #[arg(long, required_unless_present = "file")]
    interlay: Option<String>,
    /// Default: the server that is authoritative now.
    #[arg(long)]
    source: Option<String>,
    /// Default: the target of the interlay.
    #[arg(long)]
    target: Option<String>,
    /// blue_green, big_bang
    #[arg(long)]
    strategy: Option<String>,
    /// fail (the target must be empty), replace (the target becomes an exact copy)
    #[arg(long)]
    conflict_policy: Option<String>,
    /// copy
    #[arg(long)]
    data_movement: Option<String>,
    /// source
    #[arg(long)]
    write_consistency: Option<String>,
    /// authority, replicated
    #[arg(long)]
    read_routing: Option<String>,
    /// true
    #[arg(long)]
    ttl_preservation: Option<bool>,
    /// rollback_all, retry_then_all, allow_partial
    #[arg(long)]
    failure_handling: Option<String>,
    #[arg(long)]
    retry_count: Option<u32>,
    /// true, false: whether entering migrate and commit each need an approval
    #[arg(long)]
    manual_approval: Option<bool>,
    /// The change of authority inside migrate waits for one more approval.
    #[arg(long)]
    hold_before_flip: bool,
    /// compare, migrate: the phase from which the target is kept in step
    #[arg(long)]
    shadow_from: Option<String>,
    #[arg(long)]
    analyze_min_commands: Option<u64>,
    #[arg(long)]
    analyze_min_seconds: Option<u64>,
    #[arg(long)]
    compare_min_reads: Option<u64>,
    #[arg(long)]
    soak_seconds: Option<u64>,
    #[arg(long)]
    dirty_before_fence_max: Option<u64>,
    #[arg(long)]
    fence_budget_ms: Option<u64>,
    #[arg(long)]
    ttl_grace_ms: Option<u64>,
    /// Who makes a decision: mirror, compare, rollback or records, and a loaded filter, builtin:NAME or none; repeatable
    #[arg(long, value_name = "SLOT=REF", value_parser = slot_and_filter)]
    policy: Vec<(String, String)>,
    /// A JSON file with the same fields; flags win over it.
    #[arg(long)]
    file: Option<PathBuf>,
}

impl CreateArgs {
    /// The request body.
    ///
    /// # Errors
    /// A sentence, when the file cannot be read or understood.
    pub fn body(&self) -> Result<CreateMigration, String> {
        let mut body = match &self.file {
            None => CreateMigration::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
                serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?
            }
        };
        if let Some(id) = &self.id {
            body.id.clone_from(id);
        }
        if let Some(interlay) = &self.interlay {
            body.interlay.clone_from(interlay);
        }
        macro_rules! take {
            ($($field:ident),+ $(,)?) => {
                $(if self.$field.is_some() { body.$field.clone_from(&self.$field); })+
            };
        }
        take!(
            source,
            target,
            strategy,
            conflict_policy,
            data_movement,
            write_consistency,
            read_routing,
            ttl_preservation,
            failure_handling,
            retry_count,
            manual_approval,
            shadow_from,
            analyze_min_commands,
            analyze_min_seconds,
            compare_min_reads,
            soak_seconds,
            dirty_before_fence_max,
            fence_budget_ms,
            ttl_grace_ms,
        );
        for (slot, filter) in &self.policy {
            body.policies.insert(slot.clone(), PolicyGiven::Name(filter.clone()));
        }
        if self.hold_before_flip {
            body.hold_before_flip = Some(true);
        }
        Ok(body)
    }
}
