//! `crossfade filter …` and the policies of migrations and interlays.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::args::{FilterCommand, Output, PolicyArgs};
use super::{Console, Done, print, put, text, to_json};
use control::api::types::{
    FILTER_CASES_BYTES_MAX, FILTER_MODULE_BYTES_MAX, Filter, FilterBench, FilterTest, LoadFilter, Migration, Policy,
};

impl Console {
    pub(super) fn filter(&self, command: FilterCommand) -> Done {
        match command {
            FilterCommand::List => self.show("/api/v1/filters", |all: &Vec<Filter>| print::filters(all)),
            FilterCommand::Show { name } => self.show(&path(&name), |one: &Filter| print::filter(one)),
            FilterCommand::Load { name, file, cases } => {
                let body = load_body(&file, cases.as_deref())?;
                let loaded: Filter = self.client.put(&path(&name), &body).map_err(text)?;
                self.print(&loaded, print::filter)
            }
            FilterCommand::Unload { name } => {
                let gone: Filter = self.client.delete(&path(&name)).map_err(text)?;
                self.print(&gone, print::unloaded)
            }
            FilterCommand::Test { .. } | FilterCommand::Bench { .. } => {
                Err("this command does not talk to a proxy".to_owned())
            }
        }
    }

    pub(super) fn policy(&self, args: &PolicyArgs) -> Done {
        let path = format!("/api/v1/migrations/{}/policies/{}", args.id, args.slot);
        let migration: Migration = if args.inherit {
            self.client.delete(&path).map_err(text)?
        } else {
            let before = match args.filter {
                Some(_) => None,
                None => self.client.migration(&args.id).map_err(text)?.policies.remove(&args.slot),
            };
            self.client.put(&path, &policy_body(args, before)?).map_err(text)?
        };
        self.tell(&migration)
    }
}

/// The requested policy: a new filter, or the present policy with some settings changed.
fn policy_body(args: &PolicyArgs, before: Option<Policy>) -> Result<Policy, String> {
    if args.none {
        return Ok(Policy { filter: "none".to_owned(), ..Policy::default() });
    }
    let mut policy = match (&args.filter, before) {
        (Some(filter), _) => Policy { filter: filter.clone(), ..Policy::default() },
        (None, Some(before)) if before.filter != "none" => before,
        (None, _) => {
            return Err(format!(
                "migration {} has no filter of its own for {}: name one with --filter, or use --none or --inherit",
                args.id, args.slot
            ));
        }
    };
    if args.mode.is_some() {
        policy.mode.clone_from(&args.mode);
    }
    if args.on_fault.is_some() {
        policy.on_fault.clone_from(&args.on_fault);
    }
    if let Some(config) = &args.config {
        policy.config = Some(read_json(config)?);
    }
    Ok(policy)
}

fn read_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("--config is not JSON: {error}"))
}

fn load_body(file: &Path, cases: Option<&Path>) -> Result<LoadFilter, String> {
    let module = read_up_to(file, "a module", FILTER_MODULE_BYTES_MAX)?;
    let beside = file.with_extension("cases.jsonl");
    let cases: Option<PathBuf> = cases.map(Path::to_owned).or_else(|| beside.is_file().then_some(beside));
    let cases = match cases {
        Some(path) => {
            let text = read_up_to(&path, "recorded cases", FILTER_CASES_BYTES_MAX)?;
            Some(String::from_utf8(text).map_err(|_| format!("{} is not UTF-8 text", path.display()))?)
        }
        None => None,
    };
    let file = Some(file.display().to_string());
    Ok(LoadFilter { module_base64: STANDARD.encode(module), cases, file })
}

/// Reads a file that the proxy would refuse if it were longer; a longer one is not sent.
fn read_up_to(path: &Path, what: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > bytes_max {
        return Err(format!("{} is longer than {bytes_max} bytes, the most that {what} may have", path.display()));
    }
    Ok(bytes)
}

fn path(name: &str) -> String {
    format!("/api/v1/filters/{name}")
}

/// Prints the result of `crossfade filter test`. Returns the exit code: 1 when a case fails.
#[must_use]
pub fn print_filter_test(output: Output, found: &FilterTest) -> i32 {
    let ok = found.failed.is_empty();
    match output {
        Output::Json => {
            let mut value = to_json(found).unwrap_or_default();
            value["ok"] = json!(ok);
            put(&serde_json::to_string_pretty(&value).unwrap_or_default());
        }
        Output::Table => put(&print::filter_test(found)),
    }
    i32::from(!ok)
}

/// Prints the result of `crossfade filter bench`. Returns the exit code.
#[must_use]
pub fn print_filter_bench(output: Output, found: &FilterBench) -> i32 {
    match output {
        Output::Json => put(&serde_json::to_string_pretty(found).unwrap_or_default()),
        Output::Table => put(&print::filter_bench(found)),
    }
    0
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, MigrationCommand, Top};
    use super::*;

    fn policy_args(words: &str) -> PolicyArgs {
        let words = ["crossfade", "migration", "policy", "m", "mirror"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Top::Migration(MigrationCommand::Policy(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_policy_is_chosen_changed_or_left_to_the_interlay() {
        let whole = policy_args("--filter mine --mode block --on-fault fail_closed --config {\"n\":1}");
        let policy = policy_body(&whole, None).unwrap();
        assert_eq!(
            to_json(&policy).unwrap(),
            json!({"filter": "mine", "mode": "block", "on_fault": "fail_closed", "config": {"n": 1}})
        );
        let changed = policy_body(&policy_args("--mode warn"), Some(policy.clone())).unwrap();
        assert_eq!(changed, Policy { mode: Some("warn".to_owned()), ..policy });
        assert_eq!(policy_body(&policy_args("--none"), None).unwrap().filter, "none");
        assert!(policy_args("--inherit").inherit);
        let error = policy_body(&policy_args("--mode warn"), None).expect_err("nothing to change");
        assert!(error.contains("name one with --filter"), "{error}");
        let error = policy_body(&policy_args("--filter a --config {"), None).expect_err("not JSON");
        assert!(error.contains("--config is not JSON"), "{error}");
    }

    #[test]
    fn a_file_that_is_too_long_is_named_and_not_sent() {
        let path = std::env::temp_dir().join(format!("crossfade-too-long-{}.wasm", std::process::id()));
        std::fs::write(&path, vec![0; FILTER_MODULE_BYTES_MAX + 1]).unwrap();
        let error = load_body(&path, None).expect_err("too long");
        std::fs::write(&path, vec![0; FILTER_MODULE_BYTES_MAX]).unwrap();
        let fits = load_body(&path, None);
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("crossfade-too-long") && error.contains("1048576 bytes"), "{error}");
        assert!(fits.is_ok(), "{fits:?}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for words in ["", "--filter a --none", "--none --inherit", "--none --mode warn", "--inherit --config {}"] {
            let all = ["crossfade", "migration", "policy", "m", "mirror"].into_iter().chain(words.split_whitespace());
            assert!(Cli::try_parse_from(all).is_err(), "{words}");
        }
    }

    #[test]
    fn policies_of_a_new_migration_are_given_by_slot() {
        let words = "crossfade migration create --id m --interlay i --policy mirror=mine --policy compare=none";
        let Top::Migration(MigrationCommand::Create(args)) =
            Cli::try_parse_from(words.split_whitespace()).unwrap().command
        else {
            panic!("not a create");
        };
        let body = to_json(&args.body().unwrap()).unwrap();
        assert_eq!(body["policies"], json!({"compare": "none", "mirror": "mine"}));
        assert!(
            Cli::try_parse_from("crossfade migration create --id m --interlay i --policy mirror".split(' ')).is_err()
        );
    }

    #[test]
    fn a_feed_is_named_or_left_to_the_proxy() {
        let body = |words: &str| {
            let words = format!("crossfade migration create --id m --interlay i {words}");
            let Top::Migration(MigrationCommand::Create(args)) =
                Cli::try_parse_from(words.split_whitespace()).unwrap().command
            else {
                panic!("not a create");
            };
            to_json(&args.body().unwrap()).unwrap()
        };
        assert_eq!(body("")["feed"], serde_json::Value::Null);
        assert_eq!(body("--feed lane")["feed"], "lane");
        let demo = |feed: &str| Cli::try_parse_from(["crossfade", "demo", feed]);
        for feed in ["--feed=auto", "--feed=replication", "--feed=lane"] {
            assert!(demo(feed).is_ok(), "{feed}");
        }
        assert!(demo("--feed=pigeon").is_err());
    }

    #[test]
    fn a_module_is_sent_with_the_cases_beside_it() {
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filters/dist");
        let body = load_body(&dist.join("deny_dangerous.wasm"), None).unwrap();
        assert!(body.cases.is_some_and(|cases| cases.contains("FLUSHALL")));
        let body = load_body(&dist.join("deny_dangerous.cases.jsonl"), None).unwrap();
        assert_eq!(body.cases, None);
        assert!(load_body(Path::new("/nowhere/x.wasm"), None).expect_err("not there").contains("/nowhere/x.wasm"));
    }
}
