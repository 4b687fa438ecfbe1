//! Properties: bytes cut anywhere, and bytes that nobody would send. Tests only.

use super::*;

proptest::proptest! {
    #[test]
    fn the_same_bytes_pass_wherever_they_are_cut(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let mut dialogue = trusting();
        let (client, server) = dialogue.ready_client();
        let mut sent = query("SELECT 'a long enough text to be cut somewhere'");
        encode::query_with_parameter(&mut sent, "SELECT $1", &[b'x'; 300]);
        sent.extend_from_slice(&frame(b'F', &[0; 20]));
        let (mut heard, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let next = (at + cut).min(sent.len());
            dialogue.says(client, &sent[at..next]);
            heard.extend(dialogue.hears(server));
            at = next;
            if at == sent.len() { break; }
        }
        proptest::prop_assert_eq!(heard, sent);
    }

    #[test]
    fn no_bytes_of_client_or_server_make_the_relay_panic(
        chunks: Vec<(bool, Vec<u8>)>, opening: bool, cuts: Vec<u8>,
    ) {
        let mut dialogue = trusting();
        let client = if opening { dialogue.client() } else { dialogue.ready_client().0 };
        for (from_client, chunk) in &chunks {
            if *from_client || dialogue.servers.is_empty() {
                dialogue.says(client, chunk);
            } else if let Some(&key) = dialogue.servers.first()
                && dialogue.relay.upstream_input(key, chunk, dialogue.now).is_err()
            {
                dialogue.relay.upstream_failed(key, &Failure::Lost("nonsense".to_owned()));
            }
            dialogue.perform();
        }
        if cuts.len() % 2 == 0 { dialogue.hold(HoldOrder::Begin { ticket: 1 }); }
        dialogue.relay.client_closed(client);
        dialogue.perform();
        dialogue.hold(HoldOrder::Release { ticket: 2 });
        proptest::prop_assert!(dialogue.relay.shared.hold.units <= 1);
    }
}
