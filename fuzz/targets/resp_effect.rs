//! A write and what the server answered: effects are planned and derived without a panic, and each effect is a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::resp::command::{CompareRule, lookup};
use wire::resp::compare::{Comparison, compare};
use wire::resp::effect::{Effects, Outcome, derive, plan};
use wire::resp::frame::{reply_len, scan_request};
use wire::resp::{Args, RequestProgress, RequestScan};

fuzz_target!(|input: (&[u8], &[u8], Option<i64>, &[u8], i64)| {
    let (request, reply, deadline, other, grace_ms) = input;
    let grace_ms = grace_ms.rem_euclid(1 << 40);
    let RequestScan::Frame { len, inline: false } = scan_request(&mut RequestProgress::default(), request) else { return };
    let frame = &request[..len];
    let Some(reply) = reply_len(reply).map(|len| &reply[..len]) else { return };
    let command = Args::new(frame).next().map(lookup).expect("a request has a name");
    if let Ok(plan) = plan(command, frame) {
        let mut effects = Effects::default();
        let first_entry = reply_len(other).map(|len| &other[..len]);
        let outcome = Outcome { frame, reply, deadline, first_entry, grace_ms };
        let _ = derive(plan.shape, &outcome, &mut effects);
    }
    if let Some(other) = reply_len(other).map(|len| &other[..len]) {
        for rule in [
            CompareRule::Never,
            CompareRule::Exact,
            CompareRule::Scores,
            CompareRule::Unordered,
            CompareRule::UnorderedPairs,
            CompareRule::RemainingMs,
            CompareRule::RemainingSeconds,
        ] {
            assert_eq!(compare(rule, reply, reply, grace_ms), Comparison::Equal);
            assert_eq!(compare(rule, reply, other, grace_ms), compare(rule, other, reply, grace_ms), "{rule:?}");
        }
    }
});
