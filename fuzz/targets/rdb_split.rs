//! Snapshots: any bytes are split without a panic, the same whole and in chunks, and no piece is longer than allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::rdb::splitter::{Fault, Item, Sizes, Splitter};

/// Items and the fault, if any, as text; the pieces of a large value are put together.
fn split(bytes: &[u8], chunk: usize, sizes: Sizes) -> (Vec<String>, Option<Fault>, bool) {
    let mut splitter = Splitter::new(sizes);
    let mut items = Vec::new();
    let mut large = Vec::new();
    for mut rest in bytes.chunks(chunk) {
        loop {
            match splitter.next(&mut rest) {
                Ok(Some(Item::RecordBytes(piece))) => {
                    assert!(!piece.is_empty() && piece.len() <= sizes.whole_bytes_max);
                    large.extend_from_slice(piece);
                }
                Ok(Some(Item::RecordEnd)) => items.push(format!("{:?}", std::mem::take(&mut large))),
                Ok(Some(item)) => {
                    if let Item::Record { body, .. } = &item {
                        assert!(body.len() <= sizes.whole_bytes_max);
                    }
                    items.push(format!("{item:?}"));
                }
                Ok(None) => break,
                Err(error) => return (items, Some(error.fault), false),
            }
        }
        assert!(rest.is_empty() || splitter.is_ended());
    }
    (items, None, splitter.is_ended())
}

fuzz_target!(|input: (u8, u8, bool, &[u8])| {
    let (chunk, whole, is_valkey, rest) = input;
    let sizes = Sizes { key_bytes_max: 1 << 10, whole_bytes_max: usize::from(whole) + 1 };
    let magic: &[u8] = if is_valkey { b"VALKEY080" } else { b"REDIS0012" };
    let bytes = [magic, rest].concat();
    assert_eq!(split(&bytes, bytes.len(), sizes), split(&bytes, usize::from(chunk) + 1, sizes));
    let _ = split(rest, usize::from(chunk) + 1, sizes);
});
