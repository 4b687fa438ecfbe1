//! Transcripts of log-ins: what a client and a server send until the session is ready, or is not let in. Tests only.

use super::*;

#[test]
fn a_session_is_logged_in_with_a_key_of_its_own_and_then_bytes_pass_as_they_are() {
    let mut dialogue = trusting();
    let client = dialogue.client();
    let startup = build_startup(0, &[("user", "app"), ("options", "-c x.y=1")]);
    dialogue.says(client, &startup);
    assert_eq!(dialogue.hears(0), startup, "the server gets the client's own packet");
    dialogue.lets_in(0);
    let greeting = frames(&dialogue.gets(client));
    let key = &greeting.iter().find(|(tag, _)| *tag == 'K').expect("a key").1;
    assert_ne!(key[..4], REAL_BACKEND.0.to_be_bytes(), "the backend's own id stays here");
    assert_eq!(u32::from_be_bytes(key[..4].try_into().unwrap()) % 2, 1, "it names core 1 of 2");
    assert_eq!(key.len(), 8);
    let select = query("SELECT 1");
    dialogue.says(client, &select);
    assert_eq!(dialogue.hears(0), select);
    let mut answer = frame(b'D', &[0; 600]);
    answer.extend_from_slice(&done("SELECT 1", b'I'));
    for byte in &answer {
        dialogue.answers(0, &[*byte]);
    }
    assert_eq!(dialogue.gets(client), answer);
}

#[test]
fn protocol_3_2_is_spoken_with_the_client_and_3_0_with_the_server() {
    let mut dialogue = trusting();
    let client = dialogue.client();
    dialogue.says(client, &build_startup(9999, &[("user", "app"), ("_pq_.x", "1")]));
    let negotiated = frames(&dialogue.gets(client));
    assert_eq!(negotiated.len(), 1);
    assert_eq!(negotiated[0].0, 'v');
    assert!(message(&negotiated[0]).contains("_pq_.x"), "{negotiated:?}");
    let startup = dialogue.hears(0);
    assert_eq!(startup[4..8], [0, 3, 0, 0]);
    assert!(!startup.windows(4).any(|part| part == b"_pq_"));
    dialogue.lets_in(0);
    let greeting = frames(&dialogue.gets(client));
    assert_eq!(greeting.iter().find(|(tag, _)| *tag == 'K').expect("a key").1.len(), 4 + 32);
}

/// A client proves itself by SCRAM; the server holds the same verifier and no password is known in between.
#[test]
fn a_proof_for_crossfade_logs_in_to_the_server() {
    let verifier = verifier_from_password(b"pencil", &SALT, 4096);
    let mut dialogue = Dialogue::new(AuthMode::Scram, &[("app", StoredSecret::Scram(verifier.clone()))]);
    let client = dialogue.client();
    dialogue.says(client, &build_startup(0, &[("user", "app")]));
    assert_eq!(tags(&dialogue.gets(client)), "R");
    let mut scram = ScramClient::with_password(b"pencil", [1; 18]);
    let mut out = Vec::new();
    encode::sasl_initial_response(&mut out, "SCRAM-SHA-256", &scram.client_first());
    dialogue.says(client, &out);
    let first = frames(&dialogue.gets(client));
    let mut out = Vec::new();
    encode::sasl_response(&mut out, &scram.client_final(&first[0].1[4..]).unwrap());
    dialogue.says(client, &out);
    let last = frames(&dialogue.gets(client));
    scram.check_server_final(&last[0].1[4..]).expect("Crossfade knows the verifier");
    assert_eq!(last.len(), 1, "whether it is let in is the server's word");
    // And now the server.
    dialogue.hears(0);
    let mut server = ScramServer::new(verifier, [2; 18], TlsEnds::Nowhere);
    let mut out = Vec::new();
    encode::authentication_sasl(&mut out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    dialogue.answers(0, &out);
    let initial = dialogue.hears(0);
    let (_, data) = wire::postgres::auth::sasl_initial(&initial[HEAD_BYTES..]).unwrap();
    let mut out = Vec::new();
    encode::authentication_sasl_continue(&mut out, &server.first(data.unwrap()).unwrap());
    dialogue.answers(0, &out);
    let proof = dialogue.hears(0);
    let (signature, _) = server.last(&proof[HEAD_BYTES..]).expect("the key is as good as the password");
    let mut out = Vec::new();
    encode::authentication_sasl_final(&mut out, &signature);
    dialogue.answers(0, &out);
    dialogue.lets_in(0);
    assert_eq!(tags(&dialogue.gets(client)), "RSKZ");
}

#[test]
fn a_server_that_does_not_prove_itself_is_not_believed() {
    let password = StoredSecret::Plain(base::model::Secret::new(b"pencil"));
    let mut dialogue = Dialogue::new(AuthMode::Trust, &[("app", password)]);
    let client = dialogue.client();
    dialogue.says(client, &build_startup(0, &[("user", "app")]));
    dialogue.hears(0);
    let mut out = Vec::new();
    encode::authentication_sasl(&mut out, &["SCRAM-SHA-256"]);
    dialogue.answers(0, &out);
    dialogue.lets_in(0);
    let told = frames(&dialogue.gets(client));
    assert!(message(&told[0]).contains("without proving"), "{told:?}");
    assert_eq!(dialogue.closed_servers.len(), 1);
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let verifier = verifier_from_password(b"pencil", &SALT, 4096);
    let mut dialogue = Dialogue::new(AuthMode::Scram, &[("app", StoredSecret::Scram(verifier))]);
    let mut heard = Vec::new();
    for user in ["app", "nobody"] {
        let client = dialogue.client();
        dialogue.says(client, &build_startup(0, &[("user", user)]));
        let mut scram = ScramClient::with_password(b"wrong", [1; 18]);
        let asked = tags(&dialogue.gets(client));
        let mut out = Vec::new();
        encode::sasl_initial_response(&mut out, "SCRAM-SHA-256", &scram.client_first());
        dialogue.says(client, &out);
        let first = frames(&dialogue.gets(client));
        let mut out = Vec::new();
        encode::sasl_response(&mut out, &scram.client_final(&first[0].1[4..]).unwrap());
        dialogue.says(client, &out);
        let told = frames(&dialogue.gets(client));
        assert!(dialogue.relay.client_written(client), "closed once that is sent");
        heard.push((asked, message(&told[0]).replace(user, "U")));
    }
    assert_eq!(heard[0], heard[1]);
    assert!(heard[0].1.contains("28P01") && heard[0].1.contains("password authentication failed for user \"U\""));
    assert!(dialogue.servers.is_empty(), "the server hears nothing of it");
}

#[test]
fn a_client_that_does_not_log_in_in_time_is_refused() {
    let mut dialogue = trusting();
    let (ready, _) = dialogue.ready_client();
    let silent = dialogue.client();
    dialogue.says(silent, &[0, 0]);
    dialogue.now.mono_us += 61_000_000;
    dialogue.relay.tick(dialogue.now);
    assert!(message(&frames(&dialogue.gets(silent))[0]).contains("log-in not finished"));
    assert!(dialogue.relay.may_read_client(ready));
}
