//! The first packet and both ends of a log-in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::postgres::auth::{self, AuthRequest};
use wire::postgres::scram::{ScramClient, ScramServer, TlsEnds, mock_verifier};
use wire::postgres::startup::{Opening, opening};

fuzz_target!(|input: (&[u8], &[u8])| {
    let (first, second) = input;
    let (found, used) = opening(first);
    assert!(used <= first.len());
    if let Opening::Startup(startup) = found {
        let _ = (startup.user(), startup.database(), startup.application_name(), startup.replication());
        let _ = startup.unsupported_options();
    }
    if let Some(question) = AuthRequest::read(first) {
        let _ = question.name();
    }
    let _ = (auth::password(first), auth::sasl_initial(first));
    let mut server = ScramServer::new(mock_verifier("app", &[7; 32]), [1; 18], TlsEnds::Nowhere);
    if server.first(first).is_ok() {
        assert!(server.last(second).is_err(), "nobody knows the secret of a mock verifier");
    }
    let mut client = ScramClient::with_password(b"secret", [2; 18]);
    let _ = client.client_first();
    if client.client_final(first).is_ok() {
        let _ = client.check_server_final(second);
    }
});
