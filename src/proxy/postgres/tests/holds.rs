//! Transcripts of sessions during a hold, and the count of those that are busy. Tests only.

use super::*;

#[test]
fn a_hold_makes_the_idle_wait_and_lets_transactions_end() {
    let mut dialogue = trusting();
    let (idle, idle_server) = dialogue.ready_client();
    let (open, open_server) = dialogue.ready_client();
    dialogue.says(open, &query("BEGIN"));
    dialogue.hears(open_server);
    dialogue.answers(open_server, &done("BEGIN", b'T'));
    assert_eq!(dialogue.hold(HoldOrder::Begin { ticket: 7 }), [], "a transaction is open");
    dialogue.now.mono_us += 500;
    dialogue.says(idle, &query("SELECT 1"));
    assert_eq!((dialogue.hears(idle_server), dialogue.relay.may_read_client(idle)), (Vec::new(), false));
    assert_eq!(dialogue.state_of(idle), SessionState::Held);
    let list = dialogue.relay.sessions(dialogue.now);
    assert_eq!((list.total, list.busy, list.sessions[0].state), (2, 1, SessionState::IdleInTransaction));
    assert_eq!(list.sessions[0].application, "test");
    for (sql, tag, status) in [("INSERT", "INSERT 0 1", b'T'), ("COMMIT", "COMMIT", b'I')] {
        dialogue.says(open, &query(sql));
        assert_eq!(client_tags(&dialogue.hears(open_server)), "Q", "{sql} goes on");
        dialogue.answers(open_server, &done(tag, status));
    }
    assert_eq!(dialogue.relay.take_hold_events(), [(7, HoldEvent::Drained)]);
    dialogue.says(open, &query("BEGIN"));
    assert_eq!(dialogue.hears(open_server), Vec::<u8>::new(), "the next unit waits");
    dialogue.now.mono_us += 1500;
    let opened = dialogue.hold(HoldOrder::Release { ticket: 8 });
    assert_eq!(opened, [(8, HoldEvent::Released { held: 2, longest_hold_us: 1500 })]);
    assert_eq!(client_tags(&dialogue.hears(idle_server)), "Q");
    assert_eq!(client_tags(&dialogue.hears(open_server)), "Q");
    assert_eq!(dialogue.relay.shared.hold.units, 2);
}

#[test]
fn a_release_that_comes_late_does_not_end_a_newer_hold() {
    let mut dialogue = trusting();
    let (client, _) = dialogue.ready_client();
    dialogue.hold(HoldOrder::Begin { ticket: 5 });
    assert_eq!(dialogue.hold(HoldOrder::Release { ticket: 4 }), []);
    dialogue.says(client, &query("SELECT 1"));
    assert_eq!(dialogue.state_of(client), SessionState::Held);
    assert!(matches!(dialogue.hold(HoldOrder::Release { ticket: 6 })[..], [(6, HoldEvent::Released { held: 1, .. })]));
}

#[test]
fn a_hold_cuts_a_pipeline_at_its_syncs() {
    let mut dialogue = trusting();
    let (client, server) = dialogue.ready_client();
    let mut batch = Vec::new();
    encode::query_with_parameter(&mut batch, "SELECT $1", b"x");
    dialogue.says(client, &batch);
    assert_eq!(client_tags(&dialogue.hears(server)), "PBES");
    assert_eq!(dialogue.hold(HoldOrder::Begin { ticket: 1 }), []);
    dialogue.says(client, &batch);
    assert_eq!(dialogue.hears(server), Vec::<u8>::new(), "what would follow depends on the answer");
    let mut answer = frame(b'1', b"");
    answer.extend_from_slice(&frame(b'2', b""));
    answer.extend_from_slice(&done("SELECT 1", b'I'));
    dialogue.answers(server, &answer);
    assert_eq!(dialogue.relay.take_hold_events(), [(1, HoldEvent::Drained)]);
    assert_eq!((dialogue.hears(server), dialogue.state_of(client)), (Vec::new(), SessionState::Held));
    dialogue.hold(HoldOrder::Release { ticket: 2 });
    assert_eq!(client_tags(&dialogue.hears(server)), "PBES");
    // The same inside a transaction: what follows is let through once the answer says so.
    dialogue.answers(server, &answer[..answer.len() - 1]);
    dialogue.hold(HoldOrder::Begin { ticket: 3 });
    dialogue.says(client, &batch);
    assert_eq!(dialogue.hears(server), Vec::<u8>::new());
    dialogue.answers(server, b"T");
    assert_eq!(client_tags(&dialogue.hears(server)), "PBES");
}

#[test]
fn a_hold_makes_log_ins_wait_too_once_it_is_shut() {
    let mut dialogue = trusting();
    assert_eq!(dialogue.hold(HoldOrder::Shut { ticket: 1 }), [(1, HoldEvent::Drained)]);
    let client = dialogue.client();
    dialogue.says(client, &build_startup(0, &[("user", "app")]));
    assert!(dialogue.servers.is_empty());
    dialogue.hold(HoldOrder::Release { ticket: 2 });
    assert_eq!(dialogue.servers.len(), 1);
    assert_eq!(dialogue.hold(HoldOrder::Begin { ticket: 3 }), [(3, HoldEvent::Drained)], "a log-in is no unit of work");
    assert_eq!(dialogue.hold(HoldOrder::Shut { ticket: 4 }), [], "and is under way on the server");
    dialogue.lets_in(0);
    assert_eq!(dialogue.relay.take_hold_events(), [(4, HoldEvent::Drained)]);
    dialogue.hold(HoldOrder::Release { ticket: 5 });
    dialogue.hold(HoldOrder::Begin { ticket: 6 });
    // While others are only coming to an end it is let in: whoever waits for it may have a transaction open elsewhere.
    let client = dialogue.client();
    dialogue.says(client, &build_startup(0, &[("user", "app")]));
    assert_eq!(dialogue.servers.len(), 2);
    assert_eq!(dialogue.hold(HoldOrder::Shut { ticket: 7 }), []);
    dialogue.lets_in(1);
    assert_eq!(dialogue.relay.take_hold_events(), [(7, HoldEvent::Drained)]);
    dialogue.gets(client);
    dialogue.says(client, &query("SELECT 1"));
    assert_eq!(dialogue.state_of(client), SessionState::Held);
}

#[test]
fn a_log_in_that_was_held_has_its_time_from_the_release_on() {
    let mut dialogue = trusting();
    dialogue.hold(HoldOrder::Shut { ticket: 1 });
    let client = dialogue.client();
    dialogue.says(client, &build_startup(0, &[("user", "app")]));
    dialogue.now.mono_us += 61_000_000;
    dialogue.relay.tick(dialogue.now);
    assert!(dialogue.gets(client).is_empty(), "late by no fault of its own");
    dialogue.hold(HoldOrder::Release { ticket: 2 });
    assert_eq!(dialogue.servers.len(), 1);
    dialogue.now.mono_us += 61_000_000;
    dialogue.relay.tick(dialogue.now);
    assert!(message(&frames(&dialogue.gets(client))[0]).contains("log-in not finished"), "the server is silent");
}

#[test]
fn a_statement_whose_client_is_gone_still_keeps_a_hold_from_draining() {
    let mut dialogue = trusting();
    let (client, server) = dialogue.ready_client();
    dialogue.says(client, &query("UPDATE accounts SET balance = 0"));
    dialogue.relay.client_closed(client);
    dialogue.perform();
    assert!(dialogue.closed_servers.is_empty(), "it still runs there");
    assert_eq!(dialogue.hold(HoldOrder::Begin { ticket: 1 }), []);
    assert!(dialogue.relay.sessions(dialogue.now).sessions[0].application.contains("client gone"));
    dialogue.answers(server, &done("UPDATE 9", b'I'));
    assert_eq!(dialogue.relay.take_hold_events(), [(1, HoldEvent::Drained)]);
    assert_eq!((dialogue.closed_servers.len(), dialogue.relay.sessions.len()), (1, 0));
}

#[test]
fn a_session_that_ends_in_any_way_is_no_longer_counted_as_busy() {
    type Way = (&'static str, fn(&mut Dialogue, ClientKey, usize));
    let ways: [Way; 9] = [
        ("client closes inside a transaction", |dialogue, client, server| {
            dialogue.answers(server, &done("BEGIN", b'T'));
            dialogue.relay.client_closed(client);
        }),
        ("client closes while a statement runs", |dialogue, client, server| {
            dialogue.relay.client_closed(client);
            dialogue.answers(server, &done("BEGIN", b'T'));
        }),
        ("server is lost", |dialogue, client, server| {
            let key = dialogue.servers[server];
            dialogue.relay.upstream_failed(key, &Failure::Lost("reset".to_owned()));
            dialogue.relay.client_closed(client);
        }),
        ("server is lost after its client", |dialogue, client, server| {
            dialogue.relay.client_closed(client);
            let key = dialogue.servers[server];
            dialogue.relay.upstream_failed(key, &Failure::Lost("reset".to_owned()));
        }),
        ("client breaks the protocol while a statement runs", |dialogue, client, server| {
            dialogue.says(client, b"\xff\xff\xff\xff\xff");
            assert_eq!((dialogue.gets(client), dialogue.relay.may_read_client(client)), (Vec::new(), false));
            dialogue.answers(server, &done("BEGIN", b'T'));
            assert_eq!(tags(&dialogue.gets(client)), "CZE", "first its answer, then why");
            dialogue.relay.client_closed(client);
        }),
        ("client closes before its COPY begins", |dialogue, client, server| {
            dialogue.answers(server, &done("BEGIN", b'T'));
            dialogue.says(client, &query("COPY t FROM STDIN"));
            dialogue.relay.client_closed(client);
            assert_eq!(dialogue.relay.sessions.len(), 1, "it may be something else");
            dialogue.answers(server, &frame(b'G', &[0, 0, 0]));
        }),
        ("client closes when its COPY has ended", |dialogue, client, server| {
            dialogue.answers(server, &done("BEGIN", b'I'));
            dialogue.says(client, &query("COPY t FROM STDIN"));
            dialogue.answers(server, &frame(b'G', &[0, 0, 0]));
            dialogue.says(client, &frame(b'c', b""));
            dialogue.relay.client_closed(client);
            assert_eq!(dialogue.relay.shared.hold.units, 1, "it is being committed");
            dialogue.answers(server, &done("COPY 0", b'I'));
        }),
        ("client closes inside a frame behind a statement that runs", |dialogue, client, server| {
            dialogue.says(client, &query(&"x".repeat(20_000))[..9000]);
            dialogue.relay.client_closed(client);
            assert_eq!(dialogue.relay.shared.hold.units, 1, "BEGIN runs");
            dialogue.answers(server, &done("BEGIN", b'T'));
        }),
        ("session ends well", |dialogue, client, server| {
            dialogue.answers(server, &done("COMMIT", b'I'));
            dialogue.says(client, &frame(b'X', b""));
            let key = dialogue.servers[server];
            dialogue.relay.upstream_failed(key, &Failure::Lost("closed, as it was asked to".to_owned()));
            assert_eq!(tags(&dialogue.gets(client)), "CZ", "no word more");
            dialogue.relay.client_closed(client);
        }),
    ];
    for (way, end) in ways {
        let mut dialogue = trusting();
        let (client, server) = dialogue.ready_client();
        dialogue.says(client, &query("BEGIN"));
        assert_eq!(dialogue.relay.shared.hold.units, 1, "{way}");
        end(&mut dialogue, client, server);
        dialogue.perform();
        assert_eq!(dialogue.relay.shared.hold.units, 0, "{way}");
        assert_eq!((dialogue.relay.sessions.len(), dialogue.relay.shared.servers.len()), (0, 0), "{way}");
        assert!(dialogue.relay.by_id.is_empty(), "{way}");
        assert!(dialogue.closed_servers.contains(&dialogue.servers[server]), "{way}");
    }
}
