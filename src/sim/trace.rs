//! For people who look at one seed: `CROSSFADE_TRACE=key` prints every change of a key, and what happened around it.

use std::sync::OnceLock;

/// The key whose changes are printed.
pub fn traced() -> Option<&'static str> {
    static KEY: OnceLock<Option<String>> = OnceLock::new();
    KEY.get_or_init(|| std::env::var("CROSSFADE_TRACE").ok()).as_deref()
}

pub fn trace(now_us: u64, what: impl FnOnce() -> String) {
    if traced().is_some() {
        println!("{now_us:>9} us  {}", what());
    }
}
