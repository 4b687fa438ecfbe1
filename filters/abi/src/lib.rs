//! The ABI between Crossfade (the host) and a policy filter (the guest): codes, offsets, limits, readers and builders.
//!
//! `filters/ABI.md` is the document; this crate is the same in Rust and its tests compare the two. It is `no_std`, never
//! allocates, has no `unsafe` and no dependency. A guest uses the readers ([`RequestView`] and the rest) and [`Packed`];
//! the host turns on the feature `host` and uses the builders ([`host::Request`] ...) and [`host::decode_request`] ....
//! Nothing here runs a module: that is the host's.

#![no_std]
#![forbid(unsafe_code)]

mod codes;
#[cfg(feature = "host")]
pub mod host;
pub mod layout;
pub mod limits;
mod verdict;
mod view;

pub use codes::{Authority, Class, Encoding, Hook, Phase, Protocol, Purpose, RecordType, ReplyKind, Status, flags};
pub use verdict::{Memo, Packed, PairAction, RecordAction, RequestAction, WindowAction};
pub use view::{Items, Keys, PairView, RecordView, Reply, RequestView, Side, WindowView};

/// Version of the views this crate builds; a reader accepts this one and any later one (fields are only ever appended).
pub const VIEW_VERSION: u16 = 1;

/// Names of exports and imports, as they stand in a module.
pub mod names {
    /// A module is a policy of this ABI when it exports a function or global of this name.
    pub const MARKER: &str = "cf_abi_v1";
    /// What every marker of any version begins with: tells "another version" from "not a policy".
    pub const MARKER_STEM: &str = "cf_abi_v";
    pub const MEMORY: &str = "memory";
    pub const BUFFER: &str = "cf_buffer";
    pub const BUFFER_LEN: &str = "cf_buffer_len";
    pub const CONFIGURE: &str = "cf_configure";
    pub const ON_REQUEST: &str = "cf_on_request";
    pub const ON_PAIR: &str = "cf_on_pair";
    pub const ON_WINDOW: &str = "cf_on_window";
    pub const ON_RECORD: &str = "cf_on_record";
    /// The only module a guest may import from, and the only names in it.
    pub const IMPORT_MODULE: &str = "crossfade";
    pub const IMPORTS: [&str; 5] = ["log", "counter_add", "frame_read", "now_ms", "random"];
}
