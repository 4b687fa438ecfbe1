//! Refusals beyond the conformance guests, the pool, threads, and random bytes as modules.

use proptest::prelude::*;

use super::*;
use crate::builtin;
use abi::Hook;

const HOOK: &str = "(func (export \"cf_on_request\") (param i32) (result i64) (i64.const 0x10))";

fn rule(host: &Host, wat: &str, config: &str) -> &'static str {
    refusal(host, wat.as_bytes(), config).rule
}

#[test]
fn what_is_known_of_a_module() {
    let host = host();
    let shipped = &builtin::shipped()[0];
    let module = host.load("mirror-reads", shipped.wasm).expect("it loads");
    assert_eq!((module.name(), module.size(), module.was_cached()), ("mirror-reads", shipped.wasm.len(), false));
    assert_eq!(module.hooks(), [Hook::Request]);
    assert!(module.has_hook(Hook::Request) && !module.has_hook(Hook::Record));
    let sums = include_str!("../../../../filters/dist/SHA256SUMS");
    assert!(sums.contains(module.digest()) && module.digest().len() == 64, "{}", module.digest());
    assert!(format!("{module:?} {host:?}").contains("mirror-reads"));
}

#[test]
fn text_is_as_good_as_binary_and_has_the_same_limits() {
    let host = host();
    let wat = guest("", HOOK);
    let binary = wat::parse_str(&wat).expect("a module");
    assert!(host.load("text", wat.as_bytes()).is_ok() && host.load("binary", &binary).is_ok());
    assert_eq!(refusal(&host, b"", "{}").rule, "validate");
    assert_eq!(refusal(&host, b"(module", "{}").rule, "validate");
    assert_eq!(refusal(&host, b"\xff\xfe", "{}").rule, "validate");
    assert_eq!(refusal(&host, b"\0asm\x0d\0\x01\0", "{}").rule, "validate");
    let data = |bytes: usize| guest("", &format!("{HOOK} (data \"{}\")", "x".repeat(bytes)));
    assert_eq!(rule(&host, &data(1 << 20), "{}"), "size");
    assert!(host.load("large", data((1 << 20) - 1000).as_bytes()).is_ok());
    assert_eq!(refusal(&host, &wat::parse_str(data(1 << 20)).expect("a module"), "{}").rule, "size");
    assert_eq!(rule(&host, &format!("{} ;; {}", guest("", HOOK), "x".repeat(5 << 20)), "{}"), "size");
}

#[test]
fn every_feature_beyond_the_document_is_refused_by_the_check() {
    let host = host();
    for (feature, wat) in [
        ("tail call", guest("", &format!("{HOOK} (func $f return_call $f)"))),
        ("extended const", guest("", &format!("{HOOK} (global i32 (i32.add (i32.const 1) (i32.const 2)))"))),
        ("memory64", guest("", HOOK).replace("\"memory\") 2", "\"memory\") i64 2")),
        ("custom page size", guest("", HOOK).replace("\"memory\") 2", "\"memory\") 2 (pagesize 1)")),
        ("externref", guest("", &format!("{HOOK} (func (param externref))"))),
        ("typed function references", guest("", &format!("{HOOK} (type $t (func)) (func (param (ref $t)))"))),
        ("gc", guest("", &format!("{HOOK} (type (struct (field i32)))"))),
        ("exceptions", guest("", &format!("{HOOK} (tag $t) (func (throw $t))"))),
        ("threads", guest("", &format!("{HOOK} (func (drop (i32.atomic.load (i32.const 0))))"))),
        (
            "wide arithmetic",
            guest("", &format!("{HOOK} (func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1)))")),
        ),
        ("relaxed simd", guest("", &format!("{HOOK} (func (param v128))"))),
        ("component", "(component)".to_owned()),
    ] {
        assert_eq!(rule(&host, &wat, "{}"), "validate", "{feature}");
    }
    for (feature, rest) in [
        ("multi-value", "(func (result i32 i32) (i32.const 1) (i32.const 2))"),
        ("sign extension", "(func (result i32) (i32.extend8_s (i32.const 255)))"),
        ("saturating", "(func (result i32) (i32.trunc_sat_f32_s (f32.const 1e10)))"),
        ("mutable global", "(global (export \"g\") (mut i32) (i32.const 1))"),
        ("funcref", "(func (param funcref)) (table 1 funcref)"),
        ("bulk memory", "(data \"x\") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1)) (data.drop 0))"),
    ] {
        let wat = guest("", &format!("{HOOK} {rest}"));
        assert!(host.load(feature, wat.as_bytes()).is_ok(), "{feature}");
    }
}

#[test]
fn imports_are_checked_by_module_name_and_type() {
    let host = host();
    let import = |import: &str| rule(&host, &guest(import, HOOK), "{}");
    assert_eq!(import(r#"(import "crossfade" "now_ms" (func (result i32)))"#), "import");
    assert_eq!(import(r#"(import "crossfade" "random" (global i64))"#), "import");
    assert_eq!(import(r#"(import "crossfad" "random" (func (result i64)))"#), "import");
    assert_eq!(import(r#"(import "crossfade" "" (func))"#), "import");
    assert_eq!(import(r#"(import "" "log" (func (param i32 i32 i32) (result i32)))"#), "import");
    assert_eq!(import(r#"(import "crossfade" "log" (table 1 funcref))"#), "import");
    let twice =
        r#"(import "crossfade" "random" (func (result i64))) (import "crossfade" "random" (func (result i64)))"#;
    assert!(host.load("twice", guest(twice, HOOK).as_bytes()).is_ok());
    let mixed =
        r#"(import "crossfade" "random" (func (result i64))) (import "crossfade" "random" (func (result i32)))"#;
    assert_eq!(import(mixed), "import");
    // An import that is exported again under the name of a hook has the wrong type.
    let passed_on = r#"(import "crossfade" "random" (func $r (result i64))) (export "cf_on_pair" (func $r))"#;
    assert_eq!(rule(&host, &guest(passed_on, HOOK), "{}"), "export");
}

#[test]
fn exports_tables_and_markers() {
    let host = host();
    let rest = |rest: &str| rule(&host, &guest("", rest), "{}");
    assert_eq!(
        rest(
            "(table 1 funcref) (table 1 funcref) (func (export \"cf_on_request\") (param i32) (result i64) (i64.const 16))"
        ),
        "table"
    );
    assert_eq!(rest(&format!("{HOOK} (func (export \"cf_abi_v2\"))")), "export");
    assert_eq!(
        rest(&format!("{HOOK} (func (export \"cf_configure\") (param i32) (result i64) (i64.const 0))")),
        "export"
    );
    assert_eq!(rest(&format!("{HOOK} (func (export \"cf_\"))")), "export");
    assert_eq!(rule(&host, &guest("", HOOK).replace("cf_buffer_len", "buffer_len"), "{}"), "export");
    assert_eq!(rule(&host, "(module)", "{}"), "marker");
    let long = "y".repeat(90_000);
    let said = refusal(&host, guest("", HOOK).replace("cf_abi_v1", &format!("cf_abi_v{long}")).as_bytes(), "{}");
    assert!(said.rule == "version" && said.text.len() < 300, "{}", said.text.len());
    let hook =
        |name: &str, body: &str| format!("(func (export \"{name}\") (param i32) (result i64) (i64.const {body}))");
    let all =
        [hook("cf_on_request", "16"), hook("cf_on_pair", "33"), hook("cf_on_window", "48"), hook("cf_on_record", "64")];
    let module = load(&host, "all", &guest("", &all.concat()));
    assert_eq!(module.hooks(), Hook::ALL);
    assert!(host.load("other names", guest("", &format!("{HOOK} (func (export \"anything\"))")).as_bytes()).is_ok());
}

#[test]
fn a_configuration_is_an_object_that_fits_and_is_taken() {
    let host = host();
    let without = guest("", HOOK);
    assert!(load(&host, "guest", &without).instantiate(" { } ", 1).is_ok());
    for config in ["{\"a\": 1}", "", "[]", "null", "{", "{}{}"] {
        assert_eq!(rule(&host, &without, config), "configure", "{config}");
    }
    // A guest that accepts a configuration of 13 bytes only.
    let with = guest(
        "",
        &format!(
            "{HOOK} (func (export \"cf_configure\") (param i32) (result i32) (select (i32.const 0) (i32.const 4) (i32.eq (local.get 0) (i32.const 13))))"
        ),
    );
    assert!(load(&host, "guest", &with).instantiate("{\"setting\":1}", 1).is_ok());
    let said = refusal(&host, with.as_bytes(), "{\"a\": 1}");
    assert_eq!((said.rule, said.text.as_str()), ("configure", "policy guest: {\"a\""));
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(65_536));
    let said = refusal(&host, with.as_bytes(), &long);
    assert!(said.rule == "configure" && said.text.contains("65536"), "{}", said.text);
    let shipped = host.load("mirror-reads", builtin::shipped()[0].wasm).expect("it loads");
    let said = shipped.instantiate("{\"sample_percent\": 200}", 1).expect_err("refused");
    assert!(said.text.contains("sample_percent"), "{}", said.text);
}

#[test]
fn a_start_that_cannot_lay_out_its_memory_is_refused() {
    let host = host();
    assert_eq!(rule(&host, &guest("", &format!("{HOOK} (data (i32.const 131072) \"x\")")), "{}"), "start");
    assert_eq!(rule(&host, &guest("", &format!("{HOOK} (table 1 funcref) (elem (i32.const 1) 0)")), "{}"), "start");
}

#[test]
fn a_full_pool_is_refused_and_has_room_again() {
    let host = Host::new(HostOptions { instances_max: 3, ..options() }).expect("a host");
    let module = load(&host, "guest", &guest("", HOOK));
    let mut held: Vec<Instance> = (0..3).map(|_| module.instantiate("{}", 1).expect("an instance")).collect();
    let said = module.instantiate("{}", 1).expect_err("no room");
    assert_eq!(said.rule, "host");
    assert!(said.text.contains("limit of 3"), "{}", said.text);
    held.iter_mut().for_each(|instance| assert!(request(instance).is_ok()));
    held.pop();
    held.push(module.instantiate("{}", 1).expect("room again"));
    assert!(module.instantiate("{}", 1).is_err());
    drop(held);
    // A spent instance frees its place in the pool like any other.
    let traps = load(&host, "traps", &request_guest("", "unreachable"));
    for _ in 0..10 {
        assert!(request(&mut traps.instantiate("{}", 1).expect("an instance")).is_err());
    }
}

#[test]
fn thousands_of_instances_may_be_allowed_and_too_many_are_refused() {
    let host = Host::new(HostOptions { instances_max: 5000, ..options() }).expect("a host");
    assert!(request(&mut begin(&host, &guest("", HOOK))).is_ok());
    let refused = Host::new(HostOptions { instances_max: u32::MAX, ..options() });
    assert_eq!(refused.expect_err("4 PiB").rule, "host");
}

#[test]
fn a_memory_is_clean_when_its_place_is_taken_again() {
    let host = Host::new(HostOptions { instances_max: 1, ..options() }).expect("a host");
    let rest = r#"(func (export "cf_on_request") (param i32) (result i64) (local $at i32) (local $found i32)
        (local.set $at (i32.const 65536))
        (loop $next
            (local.set $found (i32.or (local.get $found) (i32.load (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 4)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 131072))))
        (memory.fill (i32.const 65536) (i32.const 255) (i32.const 65536))
        (select (i64.const 0x11) (i64.const 0x10) (local.get $found)))"#;
    for name in ["one", "two"] {
        let module = load(&host, name, &guest("", rest));
        for _ in 0..3 {
            let mut instance = module.instantiate("{}", 1).expect("an instance");
            assert_eq!(request(&mut instance).map(|answer| answer.action), Ok(RequestAction::Forward));
            assert_eq!(request(&mut instance).map(|answer| answer.action), Ok(RequestAction::Mirror));
        }
    }
}

#[test]
fn an_instance_is_made_on_one_thread_and_called_on_others() {
    let host = host();
    let module = load(
        &host,
        "guest",
        &request_guest("", "(if (i32.load8_u (i32.const 16)) (then unreachable)) (i64.const 0x10)"),
    );
    let mut instance = module.instantiate("{}", 1).expect("an instance");
    for _ in 0..3 {
        instance = std::thread::spawn(move || {
            request(&mut instance).expect("an answer");
            instance
        })
        .join()
        .expect("no panic");
    }
    let trapped = std::thread::spawn(move || {
        let fault = instance.on_request(&Request { client: 1, ..request_view() }, 0).expect_err("it traps");
        (fault.kind, instance)
    });
    let (kind, instance) = trapped.join().expect("no panic");
    assert_eq!((kind, instance.is_spent()), (FaultKind::Trap, true));
    // The threads that used it have ended; it is dropped here.
    drop(instance);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| request(&mut module.instantiate("{}", 1).expect("an instance")).expect("an answer"));
        }
    });
}

/// Loads the bytes and calls every hook found; the only requirement is that this thread survives.
fn survive(host: &Host, bytes: &[u8]) {
    let Ok(module) = host.load("anything", bytes) else { return };
    let Ok(mut instance) = module.instantiate("{}", 1) else { return };
    for _ in 0..2 {
        let _ = instance.on_request(&request_view(), 0);
        let _ = instance.on_pair(&pair_view(b"a", b"b"), 0);
        let _ = instance.on_window(&window_view(), 0);
        let _ = instance.on_record(&record_view(b"value", Encoding::Raw), 0);
    }
    instance.take_log();
    assert!(instance.stats().memory_bytes <= 1 << 20);
}

/// One host for all cases: each would need a thread and a pool.
fn shared() -> &'static Host {
    static HOST: std::sync::OnceLock<Host> = std::sync::OnceLock::new();
    HOST.get_or_init(host)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_no_module_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let mut all = if magic { b"\0asm\x01\0\0\0".to_vec() } else { Vec::new() };
        all.extend(bytes);
        survive(shared(), &all);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_module_is_refused_or_contained(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        which in 0_usize..2,
    ) {
        // Small modules, so that those which pass the check compile quickly.
        let mut bytes: Vec<u8> = match which {
            0 => wat::parse_str(include_str!("../../../../filters/conformance/counters_flood.wat")).expect("a module"),
            _ => include_bytes!("../../../../filters/dist/sample_percent.wasm").to_vec(),
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        survive(shared(), &bytes);
    }
}
