//! What keeps the target in step and how it is chosen; how far behind it may be; what counts as compared.

use super::tests::{advance, checked, go, good, in_step, kind, lowered, record, refused_gates};
use super::*;
use crate::events::MigrationEvent;
use base::model::{Decisions, FeedChoice, FeedKind, PlanMode, ShadowFrom, Side, Timestamp};
use movers::Feeds;

fn choice(kind: FeedKind) -> FeedChoice {
    FeedChoice::ALL.iter().copied().find(|choice| choice.kind() == Some(kind)).unwrap()
}

#[test]
fn the_feed_is_the_best_there_is_or_the_one_that_was_asked_for() {
    let (followed, dual) = (kind(PlanMode::Followed), kind(PlanMode::Dual));
    let both = || Feeds { usable: vec![followed, dual], refused: Vec::new() };
    let only =
        |usable, refused| Feeds { usable: vec![usable], refused: vec![(refused, "the policy p decides".to_owned())] };
    let none = || Feeds { usable: Vec::new(), refused: vec![(followed, "no".to_owned()), (dual, "never".to_owned())] };
    let cases: [(FeedChoice, Feeds, Result<FeedKind, ()>, &str); 9] = [
        (FeedChoice::Auto, both(), Ok(followed), "the best that both servers offer"),
        (FeedChoice::Auto, only(dual, followed), Ok(dual), "replication is refused: the policy p decides"),
        (FeedChoice::Auto, only(followed, dual), Ok(followed), "the best that both servers offer"),
        (FeedChoice::Auto, none(), Err(()), "replication is refused: no; "),
        (choice(followed), both(), Ok(followed), "asked for"),
        (choice(dual), both(), Ok(dual), "asked for"),
        (choice(followed), only(dual, followed), Err(()), "the policy p decides"),
        (choice(dual), only(followed, dual), Err(()), "the policy p decides"),
        (choice(dual), Feeds { usable: vec![followed], refused: Vec::new() }, Err(()), "do not offer"),
    ];
    for (asked, feeds, expected, words) in cases {
        let at = advance(&record(|d| d.feed = asked));
        let evidence = Evidence { feeds: Ok(feeds.clone()), ..good(&at, Timestamp(9)) };
        let chosen = chosen_feed(&at, &evidence);
        assert_eq!(chosen.as_ref().map(|(kind, _)| *kind).map_err(|_| ()), expected, "{asked} of {feeds:?}");
        let why = chosen.map_or_else(|why| why, |(_, why)| why);
        assert!(why.contains(words), "{asked} of {feeds:?}: {why}");
        let done = transition(&at, Command::Advance { to: None }, &evidence, Timestamp(9));
        match expected {
            Err(()) => {
                let Err(Refusal::UnmetGates { gates, .. }) = done else { panic!("{done:?}") };
                assert!(gates.len() == 1 && gates[0].name == "feed" && gates[0].measured.contains(words), "{gates:?}");
            }
            Ok(kind) => {
                let done = done.unwrap();
                assert_eq!((done.record.feed, done.record.feed_reason.as_ref()), (Some(kind), Some(&why)));
                assert_eq!(lowered(&done.record), (kind.plan_mode(), Side::Source, 10_000));
                assert!(done.events.contains(&MigrationEvent::FeedChosen { feed: kind, why }));
            }
        }
    }
}

/// Every dual phase of both directions, and a retry, with what was chosen once; whatever is offered later.
#[test]
fn the_feed_stays_what_it_was_chosen() {
    let followed = kind(PlanMode::Followed);
    let mut at = advance(&record(|d| d.shadow_from = ShadowFrom::Compare));
    let evidence =
        Evidence { feeds: Ok(Feeds { usable: vec![followed], refused: Vec::new() }), ..good(&at, Timestamp(9)) };
    at = transition(&at, Command::Advance { to: None }, &evidence, Timestamp(9)).unwrap().record;
    assert_eq!(lowered(&at), (PlanMode::Followed, Side::Source, 10_000));
    at = advance(&checked(&advance(&at)));
    assert_eq!((at.phase, lowered(&at)), (Phase::Migrate, (PlanMode::Followed, Side::Source, 0)));
    at = go(&at, Command::Flip);
    assert_eq!(lowered(&at), (PlanMode::Followed, Side::Target, 0));
    at = go(&go(&at, Command::Rollback { reason: "slow".to_owned() }), Command::Flip);
    assert_eq!(lowered(&at), (PlanMode::Followed, Side::Source, 0));
    at = go(&go(&at, Command::Advance { to: Some(Phase::Migrate) }), Command::Flip);
    at = advance(&at);
    assert_eq!((at.feed, lowered(&at)), (Some(followed), (PlanMode::PassThrough, Side::Target, 0)));
}

#[test]
fn late_shadowing_chooses_its_feed_when_it_begins() {
    let at = advance(&advance(&record(|d| d.shadow_from = ShadowFrom::Migrate)));
    let at = checked(&advance(&at));
    assert_eq!((at.phase, at.feed), (Phase::Test, None));
    let unknown = Evidence { feeds: Err("not measured yet".to_owned()), ..good(&at, Timestamp(99)) };
    assert_eq!(refused_gates(transition(&at, Command::Advance { to: None }, &unknown, Timestamp(99))), ["feed"]);
    assert_eq!(advance(&at).feed, Some(kind(PlanMode::Dual)));
}

fn one(gates: Vec<Gate>, name: &str) -> Gate {
    gates.into_iter().find(|gate| gate.name == name).unwrap_or_else(|| panic!("there is no gate {name}"))
}

/// A shadow that hangs: every hold would expire, so none begins, in either direction.
#[test]
fn no_client_is_held_for_a_shadow_that_is_half_a_budget_behind() {
    let mut at = checked(&record(|d| d.thresholds.fence_budget_ms = 500));
    in_step(&mut at);
    let back = MigrationRecord { phase: Phase::Rollback, authority: at.authority.flipped(), ..at.clone() };
    for at in [MigrationRecord { phase: Phase::Migrate, ..at }, back] {
        for (lag_us, met) in [(0, true), (250_000, true), (250_001, false), (u64::MAX, false)] {
            let mut evidence = good(&at, Timestamp(9));
            evidence.shadow.as_mut().unwrap().behind.lag_us = lag_us;
            let gate = one(flip_gates(&at, &evidence, Timestamp(9)), "lag");
            assert_eq!((gate.met, gate.measured), (met, format!("{lag_us} us")), "{}", at.phase);
            assert_eq!(transition(&at, Command::Flip, &evidence, Timestamp(9)).is_ok(), met, "{}", at.phase);
        }
    }
}

#[test]
fn a_clean_comparison_of_every_key_stands_in_for_reads() {
    let at = advance(&advance(&record(|d| d.thresholds.compare_min_reads = 1000)));
    let judge = |reads: u64, change: &dyn Fn(&mut Option<Verification>)| {
        let mut evidence = good(&at, Timestamp(9));
        evidence.shadow.as_mut().unwrap().reads.compared = reads;
        evidence.verification.as_mut().unwrap().keys = 3400;
        change(&mut evidence.verification);
        let gate = one(gates_now(&at, &evidence, Timestamp(9)), "reads_compared");
        (gate.met, gate.measured)
    };
    let set = |change: fn(&mut Verification)| move |seen: &mut Option<Verification>| change(seen.as_mut().unwrap());
    assert_eq!(judge(12, &|_| {}), (true, "12 reads, and every key: 3400".to_owned()));
    assert_eq!(judge(0, &set(|v| v.keys = 0)), (true, "0 reads, and every key: 0".to_owned()), "there are no more");
    for no_proof in [set(|v| v.divergent = 1), set(|v| v.inconclusive = 1), set(|v| v.epoch = v.epoch.next())] {
        assert_eq!(judge(999, &no_proof), (false, "999 reads".to_owned()));
        assert_eq!(judge(1000, &no_proof), (true, "1000 reads".to_owned()));
    }
    assert_eq!(judge(12, &|seen| *seen = None), (false, "12 reads".to_owned()));
}

#[test]
fn reads_that_prove_nothing_may_be_a_tenth_of_those_tried() {
    let early = advance(&advance(&record(|_| {})));
    let late = MigrationRecord { phase: Phase::Migrate, ..early.clone() };
    let late =
        MigrationRecord { decisions: Decisions { shadow_from: ShadowFrom::Migrate, ..late.decisions.clone() }, ..late };
    for (compared, inconclusive, met) in [
        (0, 0, true),
        (0, 99, true),
        (0, 100, false),
        (90, 10, true),
        (90, 11, false),
        (1000, 111, true),
        (1000, 112, false),
    ] {
        for at in [&early, &late] {
            let mut evidence = good(at, Timestamp(9));
            let reads = &mut evidence.shadow.as_mut().unwrap().reads;
            (reads.compared, reads.inconclusive) = (compared, inconclusive);
            let measured = format!("{inconclusive} of {} reads", compared + inconclusive);
            let gate = one(gates_now(at, &evidence, Timestamp(9)), "inconclusive");
            assert_eq!((gate.met, &gate.measured), (true, &measured), "{}: every key was compared", at.phase);
            evidence.verification.as_mut().unwrap().inconclusive = 1;
            let gate = one(gates_now(at, &evidence, Timestamp(9)), "inconclusive");
            assert_eq!((gate.met, gate.measured), (met, measured), "{}", at.phase);
        }
    }
}

/// What a script wrote unseen would be missing after the change of authority.
#[test]
fn a_script_that_no_comparison_has_seen_keeps_the_authority_where_it_is() {
    let at = MigrationRecord { phase: Phase::Migrate, ..checked(&advance(&advance(&record(|_| {})))) };
    let now = Timestamp(at.phase_since.0 + 100);
    let met = |at: &MigrationRecord, ran_at_ms: u64, compared_from: u64, divergent: u64| {
        let mut evidence = good(at, now);
        evidence.shadow.as_mut().unwrap().unseen_at_ms = ran_at_ms;
        evidence.shadow.as_mut().unwrap().unseen_last_at_ms = now.0;
        let seen = evidence.verification.as_mut().unwrap();
        (seen.started_at, seen.divergent) = (Timestamp(compared_from), divergent);
        let gates = flip_gates(at, &evidence, now);
        gates.iter().find(|gate| gate.name == "undeclared_writes").map(|gate| gate.met)
    };
    assert_eq!(met(&at, 0, now.0, 0), None, "none has run");
    assert_eq!(met(&at, now.0 - 1, now.0, 0), Some(true));
    assert_eq!(met(&at, now.0, now.0, 0), Some(false), "not begun after it");
    assert_eq!(met(&at, now.0 - 1, now.0, 1), Some(false), "not clean");
    // Going back would lose it as well.
    let back = MigrationRecord { phase: Phase::Rollback, authority: at.authority.flipped(), ..at.clone() };
    assert_eq!(met(&back, now.0, now.0, 0), Some(false));
    assert_eq!(met(&back, now.0 - 1, now.0, 0), Some(true));
    // Scripts that were seen to write elsewhere do it each time they run.
    let strayed = |ran_last_ms: u64, compared_from: u64| {
        let mut evidence = Evidence { strayed: true, ..good(&at, now) };
        let facts = evidence.shadow.as_mut().unwrap();
        (facts.unseen_at_ms, facts.unseen_last_at_ms) = (1, ran_last_ms);
        evidence.verification.as_mut().unwrap().started_at = Timestamp(compared_from);
        one(flip_gates(&at, &evidence, now), "undeclared_writes").met
    };
    assert!(!strayed(now.0, now.0), "one has run since");
    assert!(strayed(now.0 - 1, now.0));
    let waive = Command::Waive { finding: "undeclared-writes".into(), by: "bo".into(), reason: "known".into() };
    assert_eq!(met(&go(&at, waive), now.0, now.0, 0), Some(true));
}
