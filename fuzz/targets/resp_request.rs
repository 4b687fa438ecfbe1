//! A client's requests: the scanner finds the same frames whole and byte by byte; arguments, keys and inline words never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::resp::args::inline_to_array;
use wire::resp::command::lookup;
use wire::resp::frame::scan_request;
use wire::resp::{Args, RequestProgress, RequestScan};

/// The first frame, looked at after each further byte.
fn byte_by_byte(bytes: &[u8]) -> RequestScan {
    let mut progress = RequestProgress::default();
    for end in 1..=bytes.len() {
        let found = scan_request(&mut progress, &bytes[..end]);
        if !matches!(found, RequestScan::NeedMore { .. }) {
            return found;
        }
    }
    RequestScan::NeedMore { at_least: bytes.len() + 1 }
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while !rest.is_empty() {
        let found = scan_request(&mut RequestProgress::default(), rest);
        match (&found, byte_by_byte(rest)) {
            (RequestScan::NeedMore { .. }, RequestScan::NeedMore { .. }) => return,
            // Which of two faults is seen first may depend on how much has come.
            (one, other) if one.protocol_error().is_some() && other.protocol_error().is_some() => return,
            (one, other) => assert_eq!(*one, other),
        }
        let len = match found {
            RequestScan::Frame { len, inline: false } => {
                let frame = &rest[..len];
                let words: Vec<&[u8]> = Args::new(frame).collect();
                let command = lookup(words[0]);
                if let Some(keys) = command.keys_of(frame) {
                    for key in keys.0 {
                        assert!(words.contains(&key), "a key is one of the arguments");
                    }
                }
                let _ = command.arity_fits(words.len());
                len
            }
            RequestScan::Frame { len, inline: true } => {
                if let Ok(array) = inline_to_array(&rest[..len])
                    && !array.is_empty()
                {
                    let again = scan_request(&mut RequestProgress::default(), &array);
                    assert!(
                        matches!(again, RequestScan::Frame { .. } | RequestScan::Empty { .. }),
                        "an inline request becomes a request: {again:?}"
                    );
                }
                len
            }
            RequestScan::Empty { len } => len,
            RequestScan::NeedMore { .. } | RequestScan::Invalid(_) | RequestScan::NoArgument { .. } => return,
        };
        assert!(len > 0 && len <= rest.len());
        rest = &rest[len..];
    }
});
