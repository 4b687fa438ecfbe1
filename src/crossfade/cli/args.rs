//! The grammar of the command line. The commands are carried out in `mod.rs`, `filter.rs` and `interlay.rs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use control::api::types::{CreateMigration, PolicyGiven};

/// Moves live Redis traffic from one server to another, and back, without losing a write; pauses and analyses PostgreSQL traffic.
#[derive(Debug, Parser)]
#[command(name = "crossfade", version, max_term_width = 110)]
pub struct Cli {
    /// Address of the admin API of a running `crossfade serve`.
    #[arg(long, global = true, env = "CROSSFADE_ADMIN", default_value = "http://127.0.0.1:7171")]
    pub admin: String,
    /// Format of the output.
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
    /// Read a configuration, look at its servers and print the findings. Starts nothing; writes reserved keys to both servers and removes them.
    Check {
        #[arg(long)]
        config: PathBuf,
    },
    /// Show what Crossfade does, on temporary real servers.
    Demo {
        /// What to demonstrate: redis or postgres.
        #[arg(default_value = "redis")]
        kind: String,
        /// Leave everything running at the end.
        #[arg(long)]
        keep: bool,
        /// Approximate length of the load in seconds.
        #[arg(long)]
        seconds: Option<u64>,
        /// Use Valkey as the target; redis only.
        #[arg(long)]
        valkey: bool,
        /// Slow the target after the move, so that the rollback policy rolls back automatically; redis only.
        #[arg(long)]
        auto_rollback: bool,
        /// Seconds to stay in `compare`, where every read is compared; redis only.
        #[arg(long, default_value_t = 0)]
        compare_seconds: u64,
        /// What keeps the target in step; redis only, default lane.
        #[arg(long, value_parser = ["auto", "replication", "lane"])]
        feed: Option<String>,
    },
    /// Overview: interlays, authoritative servers, phases, lag, divergences.
    Status,
    /// Endpoints: the database servers.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Interlays: the listeners that applications connect to.
    #[command(subcommand)]
    Interlay(InterlayCommand),
    /// Migrations.
    #[command(subcommand)]
    Migration(MigrationCommand),
    /// Policy filters: WebAssembly modules that decide what is mirrored, what counts as a difference, when to roll back.
    #[command(subcommand)]
    Filter(FilterCommand),
}

#[derive(Debug, Subcommand)]
pub enum FilterCommand {
    /// The filters that are loaded, and where each is used.
    List,
    /// One filter: its module, its settings, its statistics.
    Show { name: String },
    /// Load a module, or replace the one of this name, under traffic. If that fails, the old one stays in use.
    Load {
        name: String,
        /// The module: NAME.wasm, or WAT text.
        file: PathBuf,
        /// Recorded cases, all of which must pass; default: STEM.cases.jsonl beside the file, if it exists.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
    /// Unload a filter. The built-in default then decides in its slots; records are not copied.
    Unload { name: String },
    /// Run a module's recorded cases, without a proxy; exit 1 when one fails.
    Test {
        file: PathBuf,
        /// Recorded cases; default: STEM.cases.jsonl beside the file.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
    /// Measure a module's hooks in nanoseconds per call, without a proxy.
    Bench {
        file: PathBuf,
        /// The configuration of the module, a JSON object.
        #[arg(long, value_name = "JSON", default_value = "{}")]
        config: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// The configured servers and how each is.
    List,
    /// One server: version, memory, modules, keys.
    Show { name: String },
    /// Check the server now.
    Check { name: String },
}

#[derive(Debug, Subcommand)]
pub enum InterlayCommand {
    /// The interlays, what each listens on and which server is authoritative.
    List,
    /// One interlay.
    Show { name: String },
    /// PostgreSQL: hold every client at its next statement; returns when nothing is outstanding at the server.
    Pause {
        name: String,
        /// Give up after this time, such as 2s, and list the sessions that did not finish; default 5s.
        #[arg(long, value_parser = super::duration::parse, value_name = "TIME")]
        deadline: Option<Duration>,
        /// Resume automatically after this time, such as 10m; default 10m.
        #[arg(long, value_parser = super::duration::parse, value_name = "TIME")]
        hold: Option<Duration>,
    },
    /// PostgreSQL: release the clients that a pause holds.
    Resume { name: String },
    /// Redis: the filter in each slot, who chose it, and its statistics.
    Policies { name: String },
    /// PostgreSQL: the connected clients and what each is doing.
    Sessions { name: String },
    /// PostgreSQL: the statements that applications run, and findings that matter for a move.
    Analyze {
        name: String,
        /// Compare the server with this endpoint; default: the interlay's target.
        #[arg(long)]
        target: Option<String>,
        /// Show at most this many different statements; default 50.
        #[arg(long)]
        limit: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub enum MigrationCommand {
    /// Record a migration; nothing moves yet.
    Create(Box<CreateArgs>),
    /// Every migration, those that have ended too: phase, authority, lag, unmet gates.
    List,
    /// One migration: the gates of its next step, how far it is, what was found.
    Show { id: String },
    /// Start a run; with --auto it advances automatically as its gates are met.
    Run {
        #[arg(long)]
        id: String,
        /// Advance automatically up to and including the change of authority.
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
        /// Retry for this many seconds while gates are unmet.
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
        /// migrate, flip or commit; default: the one that is due.
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
    /// Stop advancing, copying and changing the authority; both sides stay in step.
    Pause { id: String },
    /// Go on with a migration that is paused.
    Resume { id: String },
    /// Return to the source without losing a write.
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
        /// Commit although gates are unmet; needs --reason, which is recorded.
        #[arg(long, requires = "reason")]
        force: bool,
        #[arg(long)]
        reason: Option<String>,
        /// Retry for this many seconds while gates are unmet.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// End the migration on the source; the target is no longer kept in step and keeps what it holds.
    Abandon {
        id: String,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Choose the policy for one slot of a migration: a filter, none, or the interlay's.
    Policy(PolicyArgs),
    /// The evidence report: Markdown, or JSON with --output json.
    Report { id: String },
    /// The journal of a migration: every change of phase and authority, approvals, faults.
    Events {
        id: String,
        /// Keep printing events as they happen.
        #[arg(long)]
        follow: bool,
        /// Only events after this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// The keys that were found to differ, and which of them still do.
    Divergences { id: String },
    /// Wait until this side is authoritative, after the flip in `migrate` or in `rollback`.
    Wait {
        id: String,
        /// source or target.
        #[arg(long, default_value = "target")]
        authority: String,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

/// Options that are not given keep their values; with --filter they take their defaults.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct PolicyArgs {
    pub id: String,
    /// mirror, compare, rollback, records
    pub slot: String,
    /// builtin:NAME, or the name of a loaded filter.
    #[arg(long, value_name = "REF", group = "change", conflicts_with_all = ["none", "inherit"])]
    pub filter: Option<String>,
    /// No filter: the built-in default decides.
    #[arg(long, group = "change", conflicts_with_all = ["inherit", "mode", "on_fault", "config"])]
    pub none: bool,
    /// Use the interlay's policy.
    #[arg(long, group = "change", conflicts_with_all = ["mode", "on_fault", "config"])]
    pub inherit: bool,
    /// observe, warn, block: whether a verdict that stops something is carried out
    #[arg(long, group = "change")]
    pub mode: Option<String>,
    /// fail_open, fail_closed
    #[arg(long, group = "change")]
    pub on_fault: Option<String>,
    /// The configuration of the filter, a JSON object.
    #[arg(long, value_name = "JSON", group = "change")]
    pub config: Option<String>,
}

/// SLOT=REF
fn slot_and_filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((slot, filter)) if !slot.is_empty() && !filter.is_empty() => Ok((slot.to_owned(), filter.to_owned())),
        _ => Err(format!("{text:?} names no slot and filter: write mirror=NAME, mirror=builtin:NAME or mirror=none")),
    }
}

/// The decisions of a new migration; those not given take the first value listed.
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
    /// fail (the target must be empty), replace (it becomes an exact copy), skip (it keeps what it holds), exclude (see --exclude)
    #[arg(long)]
    conflict_policy: Option<String>,
    /// With --conflict-policy exclude: a pattern of keys that are not moved, as in KEYS; repeatable
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// copy
    #[arg(long)]
    data_movement: Option<String>,
    /// source, both (replies to writes wait until the target has them too)
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
    /// Require one more approval before the change of authority in migrate.
    #[arg(long)]
    hold_before_flip: bool,
    /// compare, migrate: the phase from which the target is kept in step
    #[arg(long)]
    shadow_from: Option<String>,
    /// auto, replication, lane: what keeps the target in step
    #[arg(long)]
    feed: Option<String>,
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
    /// The first copy is slowed down while the slowest hundredth of the source's answers takes longer; 0: never
    #[arg(long)]
    source_p99_ms: Option<u64>,
    /// The policy for a slot: mirror, compare, rollback or records, and a loaded filter, builtin:NAME or none; repeatable
    #[arg(long, value_name = "SLOT=REF", value_parser = slot_and_filter)]
    policy: Vec<(String, String)>,
    /// A JSON file with the same fields; flags take precedence over it.
    #[arg(long)]
    file: Option<PathBuf>,
}

impl CreateArgs {
    /// The request body.
    ///
    /// # Errors
    /// A sentence, when the file cannot be read or parsed.
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
            feed,
            analyze_min_commands,
            analyze_min_seconds,
            compare_min_reads,
            soak_seconds,
            dirty_before_fence_max,
            fence_budget_ms,
            ttl_grace_ms,
            source_p99_ms,
        );
        for (slot, filter) in &self.policy {
            body.policies.insert(slot.clone(), PolicyGiven::Name(filter.clone()));
        }
        if !self.exclude.is_empty() {
            body.exclude.clone_from(&self.exclude);
        }
        if self.hold_before_flip {
            body.hold_before_flip = Some(true);
        }
        Ok(body)
    }
}
