//! A guest's verdict of every hook: whatever it answers, what it points at lies inside its buffer.
#![no_main]

use crossfade_filter_abi::host::{
    decode_configure, decode_pair, decode_record, decode_request, decode_window,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, i32, u16)| {
    let (raw, configured, length) = input;
    let length = usize::from(length);
    if let Ok(verdict) = decode_request(raw, length) {
        assert!(verdict.text_length <= length);
    }
    if let Ok(verdict) = decode_pair(raw, length) {
        assert!(verdict.text_length <= length);
    }
    if let Ok(verdict) = decode_window(raw, length) {
        assert!(verdict.text_length <= length);
    }
    if let Ok(verdict) = decode_record(raw, length) {
        assert!(verdict.text_length <= length);
    }
    if let Ok(Some(reason)) = decode_configure(configured, length) {
        assert!(reason <= length);
    }
});
