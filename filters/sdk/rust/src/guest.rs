//! The exchange buffer, the place for what a verdict says, and what each export does. Called by `export_policy!` only,
//! except for [`Local`].
//!
//! This is the one file of the SDK with `unsafe` beside the imports: a guest has one thread and its calls never nest, which
//! the ABI promises, and [`Local`] checks the nesting all the same.

use core::cell::{Cell, UnsafeCell};

use crossfade_filter_abi::{PairView, RecordView, RequestView, WindowView, limits};

use crate::{Config, Policy};

pub const BUFFER_BYTES: usize = limits::BUFFER_BYTES_RECOMMENDED;

/// A value that lives as long as the instance: for tables too large for the stack (16 KiB). Borrowed within a closure.
pub struct Local<T> {
    value: UnsafeCell<T>,
    borrowed: Cell<bool>,
}

// SAFETY: a policy runs in a WebAssembly instance without threads. On other targets it is for unit tests, where `with`
// is not to be called for one static from two threads at a time; the policies here use one static in one test each.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    pub const fn new(value: T) -> Self {
        Local { value: UnsafeCell::new(value), borrowed: Cell::new(false) }
    }

    /// Panics when called for the same value within itself.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        assert!(!self.borrowed.replace(true), "borrowed within itself");
        // SAFETY: the flag just set lets no second borrow begin before this one ends.
        let result = work(unsafe { &mut *self.value.get() });
        self.borrowed.set(false);
        result
    }
}

static BUFFER: Local<[u8; BUFFER_BYTES]> = Local::new([0; BUFFER_BYTES]);
/// What a verdict says is written here, because the view still lies in the buffer.
static SAID: Local<[u8; BUFFER_BYTES]> = Local::new([0; BUFFER_BYTES]);

pub fn buffer() -> *const u8 {
    BUFFER.value.get().cast()
}

/// Keeps what a verdict says, cut at `limit`; answers its length.
pub(crate) fn say(text: &[u8], limit: usize) -> u32 {
    let length = text.len().min(limit).min(BUFFER_BYTES);
    SAID.with(|said| said[..length].copy_from_slice(&text[..length]));
    length as u32
}

#[inline]
fn hand_over(length: usize) {
    if length > 0 {
        copy_said(length);
    }
}

#[cold]
fn copy_said(length: usize) {
    BUFFER.with(|buffer| SAID.with(|said| buffer[..length].copy_from_slice(&said[..length])));
}

pub fn configure<P: Policy>(slot: &Local<Option<P>>, length: usize) -> usize {
    let made = BUFFER.with(|buffer| P::configure(&Config::new(&buffer[..length])));
    match made {
        Ok(policy) => {
            slot.with(|place| *place = Some(policy));
            0
        }
        Err(reason) => {
            let length = say(reason.as_ref(), limits::TEXT_BYTES_MAX).max(1);
            hand_over(length as usize);
            length as usize
        }
    }
}

/// Reads the view, asks the policy, and leaves what it says where the host looks for it.
macro_rules! hook {
    ($name:ident, $view:ident) => {
        #[inline]
        pub fn $name<P: Policy>(slot: &Local<Option<P>>, length: usize) -> u64 {
            let verdict = slot.with(|policy| {
                BUFFER.with(|buffer| match (policy, buffer.get(..length).and_then($view::read)) {
                    (Some(policy), Some(view)) => policy.$name(&view).0,
                    _ => panic!("a host that keeps to the ABI configures first and gives whole views"),
                })
            });
            hand_over(verdict.text_length() as usize);
            verdict.0
        }
    };
}

hook!(on_request, RequestView);
hook!(on_pair, PairView);
hook!(on_window, WindowView);
hook!(on_record, RecordView);
