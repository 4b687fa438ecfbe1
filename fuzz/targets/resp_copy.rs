//! DUMP payloads and typed copies: any bytes are looked at without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::resp::copy::{data_type, is_portable, lower_version, typed_reads, typed_writes};
use wire::resp::effect::Effects;
use wire::resp::frame::reply_len;

fuzz_target!(|input: (&[u8], &[u8], i64)| {
    let (payload, reply, deadline) = input;
    let Some(kind) = data_type(payload) else { return };
    let _ = is_portable(payload);
    let mut lowered = payload.to_vec();
    lower_version(&mut lowered);
    assert_eq!(lowered.len(), payload.len());
    let mut twice = lowered.clone();
    lower_version(&mut twice);
    assert_eq!(lowered, twice, "lowering a lowered payload changes nothing");
    let _ = typed_reads(kind, b"key");
    if let Some(length) = reply_len(reply) {
        let _ = typed_writes(kind, b"key", &reply[..length], deadline, &mut Effects::default());
    }
});
