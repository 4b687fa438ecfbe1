//! Write a Crossfade policy in Rust.
//!
//! Implement [`Policy`] for a type, name the hooks it has in [`export_policy!`], build as a `cdylib` for
//! `wasm32-unknown-unknown`. A hook reads its view and returns a verdict made by one of the functions of this crate
//! ([`forward`], [`divergent`], [`hold`], [`replace`] ...). There is no allocator, and none is needed. On other targets the crate
//! builds too, without exports, so that a policy can have ordinary unit tests.

#![no_std]
#![expect(
    clippy::result_large_err,
    reason = "without an allocator an error carries its text; it is returned once, when loading"
)]

#[cfg(not(target_arch = "wasm32"))]
extern crate std;

mod config;
pub mod guest;
pub mod host;
mod text;
mod verdict;

pub use config::{Config, JsonText, parse_number};
pub use crossfade_filter_abi::{
    Authority, Class, Encoding, Items, PairView, Phase, Protocol, Purpose, RecordType, RecordView, Reply, ReplyKind,
    RequestView, Side, Status, WindowView, flags, limits,
};
pub use guest::Local;
pub use text::{Names, Text};
pub use verdict::{
    PairVerdict, RecordVerdict, RequestVerdict, WindowVerdict, builtin, carry_on, divergent, drop_record, equal,
    equivalent, forward, hold, ignore, keep, mirror, mirror_compare, refuse, replace, roll_back, warn,
};

/// A policy: made once from its configuration, then asked. Only hooks named in [`export_policy!`] are ever called.
pub trait Policy: Sized + 'static {
    /// The configuration table of this policy. An error is shown to the operator, and the module is not loaded.
    fn configure(config: &Config<'_>) -> Result<Self, Text>;

    fn on_request(&mut self, _request: &RequestView<'_>) -> RequestVerdict {
        forward()
    }

    fn on_pair(&mut self, _pair: &PairView<'_>) -> PairVerdict {
        builtin()
    }

    fn on_window(&mut self, _window: &WindowView<'_>) -> WindowVerdict {
        carry_on()
    }

    fn on_record(&mut self, _record: &RecordView<'_>) -> RecordVerdict {
        keep()
    }
}

/// Exports a policy and the hooks it has: `export_policy!(MyPolicy: on_request, on_pair);`
#[macro_export]
macro_rules! export_policy {
    ($policy:ty: $($hook:ident),+ $(,)?) => {
        // Elsewhere nothing is exported; this names what would be, so that it is checked and not called unused.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            let _: fn(&$crate::Config<'_>) -> Result<$policy, $crate::Text> = <$policy as $crate::Policy>::configure;
            $(let _ = <$policy as $crate::Policy>::$hook;)+
        };

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static POLICY: $crate::guest::Local<Option<$policy>> = $crate::guest::Local::new(None);

            #[unsafe(no_mangle)]
            extern "C" fn cf_abi_v1() {}

            #[unsafe(no_mangle)]
            extern "C" fn cf_buffer() -> *const u8 {
                $crate::guest::buffer()
            }

            #[unsafe(no_mangle)]
            extern "C" fn cf_buffer_len() -> usize {
                $crate::guest::BUFFER_BYTES
            }

            #[unsafe(no_mangle)]
            extern "C" fn cf_configure(length: usize) -> usize {
                $crate::guest::configure(&POLICY, length)
            }

            $($crate::export_policy!(@hook POLICY $hook);)+
        };
    };
    (@hook $slot:ident on_request) => {
        #[unsafe(no_mangle)]
        extern "C" fn cf_on_request(length: usize) -> u64 {
            $crate::guest::on_request(&$slot, length)
        }
    };
    (@hook $slot:ident on_pair) => {
        #[unsafe(no_mangle)]
        extern "C" fn cf_on_pair(length: usize) -> u64 {
            $crate::guest::on_pair(&$slot, length)
        }
    };
    (@hook $slot:ident on_window) => {
        #[unsafe(no_mangle)]
        extern "C" fn cf_on_window(length: usize) -> u64 {
            $crate::guest::on_window(&$slot, length)
        }
    };
    (@hook $slot:ident on_record) => {
        #[unsafe(no_mangle)]
        extern "C" fn cf_on_record(length: usize) -> u64 {
            $crate::guest::on_record(&$slot, length)
        }
    };
}

/// A policy that panics traps: the host counts a fault and makes a new instance.
#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
