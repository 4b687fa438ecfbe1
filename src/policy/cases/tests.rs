//! Cases that pass, cases that must fail, and lines that are not cases.

use super::*;
use crate::builtin;
use crate::host::{Host, HostOptions};

fn host() -> Host {
    Host::new(HostOptions { instances_max: 8, cache_dir: None, clock: || 0 }).expect("a host")
}

fn dist(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filters/dist").join(name)
}

#[test]
fn every_case_of_every_filter_passes() {
    let host = host();
    let mut passed = 0;
    for entry in std::fs::read_dir(dist("")).expect("filters/dist").flatten() {
        let file = entry.file_name().into_string().expect("UTF-8");
        let Some(name) = file.strip_suffix(".wasm") else { continue };
        let module = host.load(name, &std::fs::read(entry.path()).expect("a module")).expect("it loads");
        let cases = std::fs::read_to_string(dist(&format!("{name}.cases.jsonl"))).expect("cases");
        let report = run(&module, &cases).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(report.failed.is_empty(), "{name}: {:#?}", report.failed);
        passed += report.passed.len();
    }
    assert!(passed >= 95, "{passed}");
}

#[test]
fn the_filters_of_the_program_pass_their_own() {
    let host = host();
    for shipped in builtin::shipped() {
        let module = host.load(shipped.name, shipped.wasm).expect("it loads");
        let report = run(&module, shipped.cases).expect("cases");
        assert!(report.failed.is_empty() && !report.passed.is_empty(), "{}: {:?}", shipped.name, report.failed);
    }
}

/// A guest that counts its calls, refuses the third and traps on the fourth. Its buffer begins at 0.
const COUNTING: &str = r#"(module
  (import "crossfade" "counter_add" (func $count (param i32 i32 i64) (result i32)))
  (import "crossfade" "random" (func $random (result i64)))
  (import "crossfade" "now_ms" (func $now (result i64)))
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (data (i32.const 70000) "calls")
  (global $calls (mut i32) (i32.const 0))
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 4096))
  (func (export "cf_configure") (param i32) (result i32)
    (if (i32.gt_u (local.get 0) (i32.const 2)) (then (i32.store (i32.const 0) (i32.const 0x206f6f74)) (return (i32.const 3))))
    (i32.const 0))
  (func (export "cf_on_request") (param i32) (result i64)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (drop (call $count (i32.const 70000) (i32.const 5) (i64.const 1)))
    (if (i64.ne (call $random) (i64.extend_i32_u (global.get $calls))) (then unreachable))
    (if (i64.ne (call $now) (i64.const 77)) (then unreachable))
    (if (i32.eq (global.get $calls) (i32.const 4)) (then unreachable))
    (if (i32.eq (global.get $calls) (i32.const 3))
      (then (i32.store (i32.const 0) (i32.const 0x216f6e6e)) (return (i64.const 0x400000013))))
    (i64.const 0x112)))"#;

fn report(cases: &str) -> CasesReport {
    let module = host().load("counting", COUNTING.as_bytes()).expect("it loads");
    run(&module, cases).expect("cases")
}

#[test]
fn steps_share_an_instance_and_cases_do_not() {
    let first =
        r#"{"hook": "request", "expect": {"verdict": "mirror_compare", "memo": "command", "counters": {"calls": 1}}}"#;
    let steps = r#"[{"repeat": 2, "hook": "request", "expect": {"verdict": "mirror_compare", "memo": "command", "counters": {"calls": 2}}},
        {"hook": "request", "expect": {"verdict": "refuse", "text": "nno!", "text_contains": "no"}},
        {"hook": "request", "expect": {"verdict": "fault:trap"}}]"#
        .replace('\n', " ");
    let cases = format!(
        "// a comment\n\n{{\"case\": \"one\", \"now_ms\": 77, {}\n{{\"case\": \"two\", \"now_ms\": 77, \"steps\": {steps}}}\n{{\"case\": \"three\", \"configure\": {{\"a\": 1}}, \"expect_configure_error\": \"too\"}}\n",
        &first[1..]
    );
    let report = report(&cases);
    assert_eq!(report.failed, []);
    assert_eq!(report.passed, ["one", "two", "three"]);
}

#[test]
fn what_is_not_as_expected_is_said() {
    let case = |rest: &str| {
        let report = report(&format!("{{\"case\": \"c\", \"now_ms\": 77, {rest}}}"));
        assert_eq!(report.passed, [""; 0], "{rest}");
        report.failed[0].1.clone()
    };
    let one = |expect: &str| case(&format!("\"hook\": \"request\", \"expect\": {expect}"));
    assert_eq!(one(r#"{"verdict": "forward", "memo": "command"}"#), "verdict mirror_compare, expected forward");
    assert_eq!(one(r#"{"verdict": "mirror_compare"}"#), "memo command, expected none");
    assert!(
        one(r#"{"verdict": "mirror_compare", "memo": "key_prefix", "prefix": 3}"#).contains("prefix 0, expected 3")
    );
    assert!(
        one(r#"{"verdict": "mirror_compare", "memo": "command", "text": "x"}"#).contains("text \"\", expected \"x\"")
    );
    assert!(
        one(r#"{"verdict": "mirror_compare", "memo": "command", "counters": {"calls": 2}}"#).contains("calls is 1")
    );
    assert!(
        one(r#"{"verdict": "mirror_compare", "memo": "command", "counters": {"x": 0}}"#).contains("x is not there")
    );
    assert!(one(r#"{"verdict": "mirror_compare", "memo": "command", "replacement": "y"}"#).contains("expected \"y\""));
    let steps = |expect: &str| {
        format!(
            "\"steps\": [{{\"hook\": \"request\", \"repeat\": 5, \"expect\": {expect}}}, {{\"hook\": \"request\", \"expect\": {expect}}}]"
        )
    };
    let said = case(&steps(r#"{"verdict": "mirror_compare", "memo": "command"}"#));
    assert!(said.starts_with("step 1: time 3: verdict refuse (\"nno!\")"), "{said}");
    assert!(case("\"hook\": \"window\", \"expect\": {\"verdict\": \"warn\"}").contains("no hook for window"));
    assert!(case("\"expect_configure_error\": \"x\"").contains("was accepted"));
    assert!(case("\"configure\": {\"a\": 1}, \"expect_configure_error\": \"x\"").contains("does not contain \"x\""));
    assert!(
        case("\"configure\": {\"a\": 1}, \"hook\": \"request\", \"expect\": {\"verdict\": \"mirror\"}").contains("too")
    );
    let large =
        r#""hook": "request", "view": {"keys": [{"repeat": "k", "times": 5000}]}, "expect": {"verdict": "mirror"}"#;
    assert!(case(large).starts_with("view: it has 50"), "{}", case(large));
}

#[test]
fn lines_that_are_no_cases_are_named() {
    let said = |line: &str| {
        let module = host().load("counting", COUNTING.as_bytes()).expect("it loads");
        run(&module, &format!("// first\n{line}\n")).expect_err(line)
    };
    for (line, parts) in [
        ("{", &["line 2", "not JSON"][..]),
        ("[]", &["line 2", "object"]),
        (r#"{"hook": "request"}"#, &["line 2", "case"]),
        (r#"{"case": "c"}"#, &["line 2", "\"c\"", "hook"]),
        (r#"{"case": "c", "hook": "requests", "expect": {}}"#, &["\"c\"", "hook", "request, pair, window, record"]),
        (r#"{"case": "c", "hook": "request"}"#, &["\"c\"", "expect"]),
        (r#"{"case": "c", "hook": "request", "expect": {"verdict": "equal"}}"#, &["expect.verdict", "forward"]),
        (r#"{"case": "c", "hook": "request", "expect": {"verdict": "forward", "x": 1}}"#, &["expect.x"]),
        (r#"{"case": "c", "hook": "request", "expect": {"verdict": "forward", "memo": "all"}}"#, &["expect.memo"]),
        (r#"{"case": "c", "hook": "request", "view": {"x": 1}, "expect": {"verdict": "forward"}}"#, &["view.x"]),
        (r#"{"case": "c", "steps": [{"hook": "pair", "view": {"flags": [1]}}]}"#, &["steps[0].view.flags"]),
        (r#"{"case": "c", "steps": [], "hook": "pair"}"#, &["hook", "no field"]),
        (r#"{"case": "c", "configure": 1}"#, &["configure"]),
        (r#"{"case": "c", "hook": "request", "repeat": 0, "expect": {"verdict": "forward"}}"#, &["repeat"]),
        (r#"{"case": "c", "expect_configure_error": "x", "hook": "pair"}"#, &["hook"]),
    ] {
        let said = said(line);
        for part in parts {
            assert!(said.contains(part), "{line}: {said}");
        }
    }
}
