//! Every guest of `filters/conformance/` must have the outcome in the table there, and must not affect the others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use abi::Hook;

/// A generous bound for a deadline of 2 ms on a busy machine.
const STOPPED_WITHIN: Duration = Duration::from_millis(200);

struct Row {
    guest: String,
    must: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filters/conformance")
}

/// Reads lines like "|  `good` | what it does | forward | and |".
fn table() -> Vec<Row> {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the table");
    let mut rows = Vec::new();
    for line in readme.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", guest, _, must, _, ""] = cells[..]
            && let Some(guest) = guest.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'))
        {
            let must = must.trim_end_matches("(host only)").trim().to_owned();
            rows.push(Row { guest: guest.to_owned(), must });
        }
    }
    rows
}

/// Bytes of a guest; the large one is what `large.sh` prints.
fn bytes(guest: &str) -> Vec<u8> {
    if guest == "too_large" {
        let data = "x".repeat(10_000_000);
        let hook = "(func (export \"cf_on_request\") (param i32) (result i64) (i64.const 0x10))";
        return super::guest("", &format!("{hook} (data \"{data}\")")).into_bytes();
    }
    std::fs::read(folder().join(format!("{guest}.wat"))).unwrap_or_else(|error| panic!("{guest}: {error}"))
}

/// The outcome of a guest, in the words of the table, and how long its hook took.
fn outcome(host: &Host, guest: &str) -> (String, Option<Instance>) {
    let made = host.load(guest, &bytes(guest)).and_then(|module| Ok((module.hooks()[0], module.instantiate("{}", 1)?)));
    let (hook, mut instance) = match made {
        Ok(made) => made,
        Err(refused) => {
            assert!(refused.text.contains(guest), "{guest} is not named: {}", refused.text);
            return (format!("refused {}", refused.rule), None);
        }
    };
    let said = call(&mut instance, hook);
    (said.unwrap_or_else(|fault| format!("fault {}", fault.kind.as_str())), Some(instance))
}

fn call(instance: &mut Instance, hook: Hook) -> Result<String, Fault> {
    Ok(match hook {
        Hook::Request => {
            let answer = instance.on_request(&request_view(), 0)?;
            assert!(answer.text.len() <= 512 && !answer.text.chars().any(char::is_control), "{:?}", answer.text);
            answer.action.word().to_owned()
        }
        Hook::Pair => instance.on_pair(&pair_view(b"", b""), 0)?.action.word().to_owned(),
        Hook::Window => instance.on_window(&window_view(), 0)?.action.word().to_owned(),
        Hook::Record => match instance.on_record(&record_view(b"", Encoding::Raw), 0)? {
            RecordAnswer::Keep => "keep".to_owned(),
            RecordAnswer::Replace(_) => "replace".to_owned(),
            RecordAnswer::Drop => "drop".to_owned(),
        },
    })
}

#[test]
fn every_guest_is_in_the_table_and_every_row_has_a_guest() {
    let rows: BTreeSet<String> = table().into_iter().map(|row| row.guest).collect();
    let files = std::fs::read_dir(folder()).expect("guests").filter_map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        name.strip_suffix(".wat").map(str::to_owned)
    });
    let mut files: BTreeSet<String> = files.collect();
    files.insert("too_large".to_owned());
    assert_eq!(rows, files);
    assert!(rows.len() >= 69, "{}", rows.len());
}

#[test]
fn every_guest_has_the_outcome_in_the_table_and_affects_no_other() {
    let host = host();
    let mut good =
        load(&host, "good", std::str::from_utf8(&bytes("good")).expect("text")).instantiate("{}", 1).expect("good");
    let mut wrong = Vec::new();
    for Row { guest, must } in table() {
        let begun = Instant::now();
        let (said, instance) = outcome(&host, &guest);
        if said != must {
            wrong.push(format!("{guest}: {said}, expected {must}"));
        }
        if let Some(mut instance) = instance {
            assert!(begun.elapsed() < Duration::from_secs(5), "{guest}");
            let spent = must == "fault trap" || must == "fault deadline";
            assert_eq!(instance.is_spent(), spent, "{guest}");
            let made = instance.stats().calls;
            let again = request(&mut instance);
            if spent {
                assert!(again.is_err() && instance.stats().calls == made, "{guest} was called again");
            }
        }
        assert_eq!(request(&mut good).map(|answer| answer.action), Ok(RequestAction::Forward), "after {guest}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_loop_costs_its_deadline_and_no_more() {
    let host = host();
    for guest in ["loops", "loops_in_calls", "loops_in_import"] {
        let module = host.load(guest, &bytes(guest)).expect("it loads");
        let mut instance = module.instantiate("{}", 1).expect("an instance");
        let begun = Instant::now();
        let fault = request(&mut instance).expect_err("it loops");
        assert_eq!(fault.kind, FaultKind::Deadline);
        assert!(begun.elapsed() < STOPPED_WITHIN, "{guest}: {:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(1), "{guest}: {:?}", begun.elapsed());
    }
}

#[test]
fn what_each_guest_leaves_behind() {
    let host = host();
    let stats = |guest: &str| outcome(&host, guest).1.expect("an instance").stats();
    assert_eq!(stats("counters_flood").counters.len(), 64);
    assert_eq!((stats("counters_flood").dropped, stats("log_floods").dropped), (1, 1));
    assert_eq!(stats("memory_grows").memory_bytes, 2 * 65_536);
    assert_eq!(stats("memory_grows_within").memory_bytes, 16 * 65_536);
    let mut logs = outcome(&host, "log_floods").1.expect("an instance");
    assert!(logs.has_log());
    assert_eq!((logs.take_log().len(), logs.has_log()), (10, false));
    assert_eq!((stats("verdict_zero").faults.bad_verdict, stats("trap").faults.trap), (1, 1));
    assert_eq!(stats("loops").faults.deadline, 1);
    let version = host.load("other", &bytes("other_version")).expect_err("another version");
    assert!(version.text.contains("cf_abi_v2") && version.text.contains("cf_abi_v1"), "{}", version.text);
}
