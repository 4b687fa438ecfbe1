//! Input and output of guests, beyond the conformance guests: texts, frames, digests, records, statistics.

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use abi::{PairAction, WindowAction, flags, layout};
use base::model::limits;

/// A guest that copies frame `which` from `offset` to address 70000, and counts the status and the bytes.
fn reads(hook: &str, which: u32, offset: u32) -> String {
    let import = r#"(import "crossfade" "frame_read" (func $read (param i32 i32 i32 i32) (result i32)))"#;
    let counter = r#"(import "crossfade" "counter_add" (func $count (param i32 i32 i64) (result i32)))"#;
    let answer = match hook {
        "cf_on_request" => 0x10,
        "cf_on_pair" => 0x21,
        _ => 0x40,
    };
    let rest = format!(
        r#"(data (i32.const 69990) "status") (data (i32.const 70100) "sum")
        (func (export "{hook}") (param i32) (result i64) (local $n i32)
            (memory.fill (i32.const 0) (i32.const 255) (i32.const 65536))
            (local.set $n (call $read (i32.const {which}) (i32.const {offset}) (i32.const 70000) (i32.const 8)))
            (drop (call $count (i32.const 69990) (i32.const 6) (i64.extend_i32_u (i32.add (local.get $n) (i32.const 10)))))
            (drop (call $count (i32.const 70100) (i32.const 3) (i64.and (i64.load (i32.const 70000)) (i64.const 0x7fffffffffffffff))))
            (i64.const {answer}))"#
    );
    guest(&format!("{import} {counter}"), &rest)
}

/// What `frame_read` answered, and the bytes it gave as a number.
fn seen(instance: &Instance) -> (i64, u64) {
    let counters = instance.stats().counters;
    let of = |id: &str| counters.iter().find(|(known, _)| known == id).map_or(0, |(_, value)| *value);
    (i64::try_from(of("status")).expect("small") - 10, of("sum"))
}

fn number(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

#[test]
fn a_frame_is_read_beyond_what_the_view_shows_and_after_the_view_is_gone() {
    let host = host();
    let frame: Vec<u8> = (0..5000_u32).map(|at| (at % 100) as u8 + 1).collect();
    let request = |offset, shown: usize| {
        let mut instance = begin(&host, &reads("cf_on_request", 0, offset));
        let view = Request { size: 5000, frame: &frame[..shown], ..request_view() };
        instance.on_request(&view, 0).expect("an answer");
        seen(&instance)
    };
    assert_eq!(request(0, 5000), (8, number(&[1, 2, 3, 4, 5, 6, 7, 8])));
    assert_eq!(request(4000, 5000), (8, number(&[1, 2, 3, 4, 5, 6, 7, 8])));
    assert_eq!(request(4997, 5000), (3, number(&[98, 99, 100, 0, 0, 0, 0, 0])));
    assert_eq!(request(5000, 5000), (0, 0));
    // The host has only the beginning of the frame.
    assert_eq!(request(2000, 2000), (-4, 0));

    let pair = |which| {
        let mut instance = begin(&host, &reads("cf_on_pair", which, 1));
        let mut view = pair_view(b"source bytes", b"target bytes");
        view.request = Request { size: 9, frame: b"a request", ..request_view() };
        instance.on_pair(&view, 0).expect("an answer");
        seen(&instance)
    };
    assert_eq!(pair(0), (8, number(b" request")));
    assert_eq!(pair(1), (8, number(b"ource by")));
    assert_eq!(pair(2), (8, number(b"arget by")));
    assert_eq!(pair(3), (-4, 0));

    let mut instance = begin(&host, &reads("cf_on_record", 3, 0));
    instance.on_record(&record_view(b"the value", Encoding::Raw), 0).expect("an answer");
    assert_eq!(seen(&instance), (8, number(b"the valu")));
}

#[test]
fn a_frame_is_gone_after_its_call() {
    let host = host();
    let import = r#"(import "crossfade" "frame_read" (func $read (param i32 i32 i32 i32) (result i32)))"#;
    let hook = |name: &str, status: i32, verdict: u8| {
        format!(
            r#"(func (export "{name}") (param i32) (result i64)
                (if (i32.ne (call $read (i32.const 0) (i32.const 0) (i32.const 70000) (i32.const 8)) (i32.const {status}))
                    (then unreachable))
                (i64.const {verdict}))"#
        )
    };
    let both = hook("cf_on_request", 5, 0x10) + &hook("cf_on_window", -4, 0x30);
    let mut instance = begin(&host, &guest(import, &both));
    let view = Request { size: 5, frame: b"12345", ..request_view() };
    for _ in 0..3 {
        instance.on_request(&view, 0).expect("the frame of this call");
        instance.on_window(&window_view(), 0).expect("the frame of another call");
    }
}

/// A pair hook whose class of divergence is the 16 bytes of the view at offset 40: both digests.
const DIGESTS: &str = r#"(func (export "cf_on_pair") (param i32) (result i64)
    (if (i32.eqz (i32.and (i32.load (i32.const 16)) (i32.const 4))) (then (return (i64.const 0x21))))
    (if (i64.ne (i64.load (i32.const 40)) (global.get $source)) (then (return (i64.const 0x20))))
    (if (i64.ne (i64.load (i32.const 48)) (global.get $target)) (then (return (i64.const 0x20))))
    (i64.const 0x22))"#;

#[test]
fn replies_too_long_for_the_view_come_with_their_digests() {
    let host = host();
    let (source, target) = (vec![b's'; 100_000], vec![b't'; 50_000]);
    let globals = format!(
        "(global $source i64 (i64.const {})) (global $target i64 (i64.const {}))",
        xxh3_64(&source).cast_signed(),
        xxh3_64(&target).cast_signed()
    );
    let mut instance = begin(&host, &guest("", &format!("{globals} {DIGESTS}")));
    let action =
        |instance: &mut Instance, view: &Pair<'_, NoKeys>| instance.on_pair(view, 0).expect("an answer").action;
    assert_eq!(action(&mut instance, &pair_view(&source, &target)), PairAction::Equivalent);
    assert_eq!(action(&mut instance, &pair_view(b"short", b"shorter")), PairAction::Equal);
    // A caller without the whole reply gives the digests.
    let mut cut = pair_view(&source[..1000], &target[..1000]);
    cut.source.length = 100_000;
    cut.digests = Some((xxh3_64(&source), xxh3_64(&target)));
    assert_eq!(action(&mut instance, &cut), PairAction::Equivalent);
    cut.digests = None;
    assert_eq!(action(&mut instance, &cut), PairAction::Equal);
}

#[test]
fn texts_are_made_fit_to_print_and_cut() {
    let host = host();
    let said = |bytes: &str, length: u64| {
        let body = format!(
            "(memory.init $text (i32.const 0) (i32.const 0) (i32.const {length})) (i64.const {})",
            length << 32 | 0x13
        );
        let hook =
            format!("(data $text \"{bytes}\") (func (export \"cf_on_request\") (param i32) (result i64) {body})");
        request(&mut begin(&host, &guest("", &hook))).map(|answer| answer.text)
    };
    assert_eq!(said("no, never", 9).as_deref(), Ok("no, never"));
    assert_eq!(said("a\\00\\1b[0m\\0a", 7).as_deref(), Ok("a  [0m "));
    assert_eq!(said("\\c3(", 2).as_deref(), Ok("\u{fffd}("));
    let text = said(&"\\ff".repeat(512), 512).expect("a text");
    assert_eq!((text.len(), text.chars().all(|c| c == '\u{fffd}')), (510, true));
    assert_eq!(said(&"x".repeat(512), 512).map(|text| text.len()), Ok(512));
    assert_eq!(said(&"x".repeat(513), 513).expect_err("too long").kind, FaultKind::BadVerdict);

    let class =
        format!("(memory.fill (i32.const 0) (i32.const 255) (i32.const 64)) (i64.const {})", 64_u64 << 32 | 0x23);
    let mut instance =
        begin(&host, &guest("", &format!("(func (export \"cf_on_pair\") (param i32) (result i64) {class})")));
    assert_eq!(instance.on_pair(&pair_view(b"a", b"b"), 0).expect("an answer").text.len(), 63);
    let warns = format!("(i32.store8 (i32.const 0) (i32.const 33)) (i64.const {})", 1_u64 << 32 | 0x31);
    let mut instance =
        begin(&host, &guest("", &format!("(func (export \"cf_on_window\") (param i32) (result i64) {warns})")));
    let answer = instance.on_window(&window_view(), 0).expect("an answer");
    assert_eq!((answer.action, answer.text.as_str()), (WindowAction::Warn, "!"));
}

#[test]
fn a_record_is_kept_replaced_or_dropped_and_an_opaque_one_never_replaced() {
    let host = host();
    let instance = |verdict: u64| {
        let body = format!("(memory.fill (i32.const 0) (i32.const 114) (i32.const 65536)) (i64.const {verdict})");
        begin(&host, &guest("", &format!("(func (export \"cf_on_record\") (param i32) (result i64) {body})")))
    };
    let answer = |verdict, encoding| instance(verdict).on_record(&record_view(b"v", encoding), 0);
    assert_eq!(answer(0x40, Encoding::Raw), Ok(RecordAnswer::Keep));
    assert_eq!(answer(0x42, Encoding::Opaque), Ok(RecordAnswer::Drop));
    assert_eq!(answer(3 << 32 | 0x41, Encoding::Raw), Ok(RecordAnswer::Replace(b"rrr".to_vec())));
    assert_eq!(answer(0x41, Encoding::Items), Ok(RecordAnswer::Replace(Vec::new())));
    assert_eq!(answer(65_536 << 32 | 0x41, Encoding::Raw), Ok(RecordAnswer::Replace(vec![b'r'; 65_536])));
    assert_eq!(answer(65_537 << 32 | 0x41, Encoding::Raw).expect_err("too long").kind, FaultKind::BadVerdict);
    assert_eq!(answer(3 << 32 | 0x41, Encoding::Opaque).expect_err("opaque").kind, FaultKind::BadVerdict);
}

#[test]
fn a_missing_hook_is_a_fault_and_is_not_called() {
    let host = host();
    let mut instance = begin(&host, &request_guest("", "(i64.const 0x10)"));
    assert_eq!(instance.on_window(&window_view(), 0).expect_err("no hook").kind, FaultKind::BadVerdict);
    assert_eq!((instance.is_spent(), instance.stats().calls, instance.stats().faults.total()), (false, 0, 0));
}

#[test]
fn while_loading_most_imports_are_unavailable() {
    let host = host();
    let imports = r#"(import "crossfade" "log" (func $log (param i32 i32 i32) (result i32)))
        (import "crossfade" "counter_add" (func $count (param i32 i32 i64) (result i32)))
        (import "crossfade" "frame_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "crossfade" "random" (func $random (result i64)))"#;
    let rest = r#"(data (i32.const 70000) "id")
        (func (export "cf_configure") (param i32) (result i32)
            (if (i32.ne (call $log (i32.const 3) (i32.const 0) (i32.const 1)) (i32.const -4)) (then unreachable))
            (if (i32.ne (call $count (i32.const 70000) (i32.const 2) (i64.const 1)) (i32.const -4)) (then unreachable))
            (if (i32.ne (call $read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)) (i32.const -4)) (then unreachable))
            (if (i64.eqz (call $random)) (then unreachable))
            (i32.const 0))
        (func (export "cf_on_request") (param i32) (result i64)
            (if (i32.ne (call $log (i32.const 3) (i32.const 70000) (i32.const 2)) (i32.const 0)) (then unreachable))
            (if (i32.ne (call $count (i32.const 70000) (i32.const 2) (i64.const 5)) (i32.const 0)) (then unreachable))
            (i64.const 0x10))"#;
    let mut instance = begin(&host, &guest(imports, rest));
    request(&mut instance).expect("an answer");
    assert_eq!(instance.take_log(), [super::super::LogLine { level: 3, text: "id".to_owned() }]);
    assert_eq!(instance.stats().counters, [("id".to_owned(), 5)]);
}

#[test]
fn random_follows_the_seed_and_one_call_in_64_is_measured() {
    let host = host();
    let imports = r#"(import "crossfade" "random" (func $random (result i64)))
        (import "crossfade" "counter_add" (func $count (param i32 i32 i64) (result i32)))"#;
    let rest = r#"(data (i32.const 70000) "drawn")
        (func (export "cf_on_request") (param i32) (result i64)
            (drop (call $count (i32.const 70000) (i32.const 5) (i64.shr_u (call $random) (i64.const 8))))
            (i64.const 0x10))"#;
    let module = load(&host, "guest", &guest(imports, rest));
    let drawn = |seed| {
        let mut instance = module.instantiate("{}", seed).expect("an instance");
        let every = limits::POLICY_CALL_SAMPLE;
        for _ in 0..=2 * every {
            request(&mut instance).expect("an answer");
        }
        let stats = instance.stats();
        assert_eq!((stats.calls, stats.call_ns.count()), (2 * every + 1, 3 * every));
        stats.counters[0].1
    };
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(7), drawn(8));
}

#[test]
fn a_view_longer_than_the_buffer_is_cut_and_flagged() {
    let host = host();
    // Answers mirror when the view is flagged `keys_cut` and is within 4 KiB.
    let rest = format!(
        r#"(func (export "cf_on_request") (param i32) (result i64)
            (if (i32.gt_u (local.get 0) (i32.const 4096)) (then unreachable))
            (select (i64.const 0x11) (i64.const 0x10) (i32.and (i32.load (i32.const {})) (i32.const {}))))"#,
        layout::REQUEST_FLAGS,
        flags::REQUEST_KEYS_CUT
    );
    let wat = guest("", &rest).replace("(i32.const 65536)", "(i32.const 4096)");
    let mut instance = begin(&host, &wat);
    let (short, long) = ([b'k'; 10], vec![b'k'; 10_000]);
    for (key, action) in [(&short[..], RequestAction::Forward), (&long[..], RequestAction::Mirror)] {
        let Request { protocol, class, phase, authority, .. } = request_view();
        let view = Request {
            protocol,
            class,
            phase,
            authority,
            flags: 0,
            client: 1,
            sample: 0,
            database: b"0",
            command: b"GET",
            keys: std::iter::once(key),
            size: 10,
            frame: b"0123456789",
        };
        assert_eq!(instance.on_request(&view, 0).expect("an answer").action, action);
    }
}

#[test]
fn a_guest_has_the_promised_stack_and_no_more() {
    let host = host();
    // A guest that calls itself as many times as the client's number.
    let rest = r#"
        (func $deeper (param i64) (result i64)
            (if (i64.eqz (local.get 0)) (then (return (i64.const 0))))
            (i64.add (i64.const 1) (call $deeper (i64.sub (local.get 0) (i64.const 1)))))
        (func (export "cf_on_request") (param i32) (result i64)
            (drop (call $deeper (i64.load (i32.const 16)))) (i64.const 0x10))"#;
    let mut instance = begin(&host, &guest("", rest));
    let shallow = Request { client: 200, ..request_view() };
    assert!(instance.on_request(&shallow, 0).is_ok());
    // A stack frame holds at least two words: the return address and the caller's frame.
    let deep = Request { client: 64 * 1024 / 16, ..request_view() };
    assert_eq!(instance.on_request(&deep, 0).expect_err("it has an end").kind, FaultKind::Trap);
}
