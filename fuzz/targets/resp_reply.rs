//! A server's replies: the feed ends a reply at the same byte whole and split, trees are read within limits, log-ins gather replies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::resp::frame::reply_len;
use wire::resp::login::Dialogue;
use wire::resp::resp2::to_resp2;
use wire::resp::value::{Extent, decode};
use wire::resp::{ReplyFeed, ReplyStep};

const BYTES_MAX: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let whole = ReplyFeed::default().feed(bytes);
    let mut feed = ReplyFeed::default();
    let mut split = ReplyStep::Partial;
    for (at, byte) in bytes.iter().enumerate() {
        split = match feed.feed(std::slice::from_ref(byte)) {
            ReplyStep::Complete { consumed, first } => {
                assert_eq!(consumed, 1);
                ReplyStep::Complete { consumed: at + 1, first }
            }
            other => other,
        };
        if split != ReplyStep::Partial {
            break;
        }
    }
    match (&whole, &split) {
        (ReplyStep::Invalid(_), ReplyStep::Invalid(_)) => {}
        (one, other) => assert_eq!(one, other),
    }
    if let ReplyStep::Complete { consumed, .. } = whole {
        let reply = &bytes[..consumed];
        assert_eq!(reply_len(bytes), Some(consumed));
        if let Some(reply) = to_resp2(reply) {
            assert_eq!(reply_len(&reply), Some(reply.len()), "a translated reply is one reply");
        }
        if let Ok(Some((value, used))) = decode(reply, BYTES_MAX) {
            assert_eq!(used, consumed);
            let _ = (value.brief(), value.error(), value.integer());
        }
    }
    let mut extent = Extent::default();
    for end in 0..=bytes.len() {
        match extent.find(&bytes[..end], BYTES_MAX) {
            Ok(None) => {}
            Ok(Some(length)) => {
                assert!(length <= end);
                break;
            }
            Err(_) => break,
        }
    }
    let mut dialogue = Dialogue::expecting(3);
    for chunk in bytes.chunks(7) {
        if dialogue.feed(chunk).is_err() {
            break;
        }
    }
});
