//! PostgreSQL frames of both directions and the bodies that are looked into.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::postgres::frame::{
    self, HEAD_BYTES, Head, backend_key_data, client_head, command_tag, cstr, data_row, error_field, error_fields,
    negotiate_protocol_version, parameter_status, query_text, server_head,
};
use wire::postgres::tracker::Tracker;

fuzz_target!(|bytes: &[u8]| {
    let mut tracker = Tracker::new();
    for head in [client_head as fn(&[u8]) -> Head, server_head] {
        let mut rest = bytes;
        while let Head::Frame { tag, body_len } = head(rest) {
            for end in 0..HEAD_BYTES.min(rest.len()) {
                assert!(matches!(head(&rest[..end]), Head::NeedMore), "part of a head is not judged");
            }
            let Some(body) = rest.get(HEAD_BYTES..).and_then(|body| body.get(..body_len)) else { break };
            look_into(body);
            tracker.client_frame(tag);
            let _ = tracker.server_frame(tag, body.first().copied().unwrap_or_default());
            let _ = (tracker.state(), tracker.is_idle(), tracker.outstanding());
            rest = &rest[HEAD_BYTES + body_len..];
        }
    }
    look_into(bytes);
});

fn look_into(body: &[u8]) {
    let _ = (cstr(body), query_text(body), backend_key_data(body), parameter_status(body), command_tag(body));
    let _ = negotiate_protocol_version(body);
    let _ = (error_fields(body).count(), error_field(body, b'C'), data_row(body).count(), frame::be32(body));
    let _ = (frame::Parse::read(body).is_some(), frame::Bind::read(body).is_some());
    let _ = (frame::Close::read(body).is_some(), frame::Describe::read(body).is_some(), frame::Execute::read(body).is_some());
}
