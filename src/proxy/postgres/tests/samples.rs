//! Transcripts in which statements are counted and sampled. Tests only.

use super::*;

#[test]
fn statements_are_counted_by_what_they_are_and_sampled() {
    let mut dialogue = trusting();
    let (client, server) = dialogue.ready_client();
    dialogue.says(client, &query("LISTEN jobs"));
    dialogue.now.mono_us += 250;
    dialogue.answers(server, &done("LISTEN", b'I'));
    let mut batch = Vec::new();
    encode::query_with_parameter(&mut batch, "INSERT INTO t VALUES ($1)", b"x");
    for _ in 0..3 {
        dialogue.says(client, &batch);
        dialogue.answers(server, &[frame(b'1', b""), frame(b'2', b""), done("INSERT 0 1", b'I')].concat());
    }
    let counters = dialogue.relay.counters();
    assert_eq!((counters.commands, counters.commands_write), (4, 3));
    assert!(counters.commands_by_name.contains(&("insert", 3)));
    assert_eq!(counters.sessions_by_state, [("listen", 1)]);
    let samples = dialogue.relay.take_statements();
    assert_eq!(samples.len(), 4);
    assert_eq!((&*samples[0].text, samples[0].latency_us), ("LISTEN jobs", 250));
    assert_eq!(&*samples[3].text, "INSERT INTO t VALUES ($1)");
    let registry = &dialogue.relay.sessions.get(client).unwrap().ready().unwrap().statements.registry;
    assert_eq!(registry.channels(), ["jobs"]);
}

#[test]
fn every_statement_of_a_pipeline_is_sampled_with_its_own_end() {
    let mut dialogue = trusting();
    let (client, server) = dialogue.ready_client();
    let all = ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"];
    dialogue.says(client, &all.map(query).concat());
    for (at, status) in [b'T', b'T', b'I'].into_iter().enumerate() {
        dialogue.now.mono_us += 100;
        dialogue.answers(server, &done(all[at], status));
    }
    let samples = dialogue.relay.take_statements();
    let seen: Vec<_> = samples.iter().map(|sample| (&*sample.text, sample.latency_us)).collect();
    assert_eq!(seen, [(all[0], 100), (all[1], 200), (all[2], 300)]);
}

#[test]
fn samples_weigh_what_passed_however_much_it_was() {
    let mut dialogue = trusting();
    let (client, server) = dialogue.ready_client();
    for (statements, most) in [(10, 10), (10_000, base::model::limits::STATEMENT_SAMPLES_MAX), (3, 3)] {
        for _ in 0..statements {
            dialogue.says(client, &query("SELECT 1"));
            dialogue.answers(server, &done("SELECT 1", b'I'));
            dialogue.gets(client);
            dialogue.hears(server);
        }
        // The density of the burst is given up step by step.
        let samples = (0..12).map(|_| dialogue.relay.take_statements()).find(|samples| !samples.is_empty());
        let samples = samples.unwrap_or_default();
        let weight: u64 = samples.iter().map(|sample| u64::from(sample.weight)).sum();
        assert!(samples.len() <= most && (statements == 3 || weight == statements), "{weight} of {statements}");
    }
}
