//! Transcripts of cancel requests, lost servers and drains. Tests only.

use super::*;

#[test]
fn a_cancel_reaches_the_backend_only_with_the_right_key_and_while_something_runs() {
    let mut dialogue = trusting();
    let (client, server) = dialogue.ready_client();
    let (id, secret) = dialogue.relay.sessions.get(client).map(|one| (one.id, one.secret.clone())).unwrap();
    let mut right = Vec::new();
    encode::cancel_request(&mut right, id, &secret);
    let ask = |dialogue: &mut Dialogue, bytes: &[u8]| {
        let asker = dialogue.client();
        dialogue.says(asker, bytes);
        asker
    };
    let asker = ask(&mut dialogue, &right);
    assert!(dialogue.relay.client_written(asker) && dialogue.servers.len() == 1, "nothing runs");
    dialogue.says(client, &query("SELECT pg_sleep(60)"));
    dialogue.hears(server);
    let mut wrong = Vec::new();
    encode::cancel_request(&mut wrong, id, &[0; 4]);
    let asker = ask(&mut dialogue, &wrong);
    assert!(dialogue.relay.client_written(asker) && dialogue.servers.len() == 1, "the wrong key");
    let asker = ask(&mut dialogue, &right);
    let mut real = Vec::new();
    encode::cancel_request(&mut real, REAL_BACKEND.0, REAL_BACKEND.1);
    assert_eq!(dialogue.hears(1), real);
    assert!(!dialogue.relay.client_written(asker), "it waits until the server has heard");
    let key = dialogue.servers[1];
    dialogue.relay.upstream_failed(key, &Failure::Lost("closed, as it does".to_owned()));
    assert!(dialogue.relay.client_written(asker));
    // Of a session of core 0, which sits elsewhere.
    let mut elsewhere = Vec::new();
    encode::cancel_request(&mut elsewhere, 6, &[0; 4]);
    ask(&mut dialogue, &elsewhere);
    assert_eq!(dialogue.handed.iter().map(|(to, one)| (to.0, one.session)).collect::<Vec<_>>(), [(0, 6)]);
}

#[test]
fn a_client_whose_server_is_lost_is_told_what_is_known() {
    let mut dialogue = trusting();
    let (idle, idle_server) = dialogue.ready_client();
    let (running, running_server) = dialogue.ready_client();
    let (ended, ended_server) = dialogue.ready_client();
    dialogue.says(running, &query("COMMIT"));
    let mut fatal = Vec::new();
    encode::error_response(&mut fatal, "FATAL", "57P01", "terminating connection", More::NONE);
    dialogue.answers(ended_server, &fatal);
    for nth in [idle_server, running_server, ended_server] {
        let key = dialogue.servers[nth];
        dialogue.relay.upstream_failed(key, &Failure::Lost("reset".to_owned()));
    }
    let told = |dialogue: &mut Dialogue, client| {
        frames(&dialogue.gets(client)).iter().map(message).collect::<Vec<_>>().join("; ")
    };
    assert!(told(&mut dialogue, idle).contains("08006"));
    assert!(told(&mut dialogue, running).contains("08007"), "its outcome is unknown");
    let last = told(&mut dialogue, ended);
    assert!(last.contains("57P01") && !last.contains("0800"), "{last}");
    let client = dialogue.client();
    dialogue.says(client, &build_startup(0, &[("user", "app")]));
    let key = dialogue.servers[3];
    dialogue.relay.upstream_failed(key, &Failure::Unreachable("refused".to_owned()));
    assert!(told(&mut dialogue, client).contains("57P03"));
}

#[test]
fn a_drain_tells_the_idle_at_once_and_the_busy_when_they_are_done() {
    let mut dialogue = trusting();
    let (idle, _) = dialogue.ready_client();
    let (busy, server) = dialogue.ready_client();
    dialogue.says(busy, &query("SELECT 1"));
    dialogue.relay.drain();
    assert!(message(&frames(&dialogue.gets(idle))[0]).contains("57P01"));
    assert!(dialogue.gets(busy).is_empty());
    dialogue.answers(server, &done("SELECT 1", b'I'));
    assert_eq!(tags(&dialogue.gets(busy)), "CZE");
    assert!(dialogue.relay.client_opened(Arrival { peer: None, now: dialogue.now }).is_err());
    dialogue.relay.client_closed(idle);
    dialogue.relay.client_closed(busy);
    assert!(dialogue.relay.is_drained());
}
