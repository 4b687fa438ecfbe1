//! What a policy may ask of the host: five imports. On other targets than wasm they answer as a host that has nothing.

use crossfade_filter_abi::{Status, layout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
}

/// Which frame to read beyond what the view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Frame {
    Request = layout::FRAME_REQUEST,
    SourceReply = layout::FRAME_SOURCE_REPLY,
    TargetReply = layout::FRAME_TARGET_REPLY,
    RecordValue = layout::FRAME_RECORD_VALUE,
}

#[cfg(target_arch = "wasm32")]
mod import {
    #[link(wasm_import_module = "crossfade")]
    unsafe extern "C" {
        pub fn log(level: i32, ptr: *const u8, len: usize) -> i32;
        pub fn counter_add(id: *const u8, id_len: usize, delta: i64) -> i32;
        pub fn frame_read(which: u32, offset: u32, ptr: *mut u8, len: usize) -> i32;
        pub safe fn now_ms() -> i64;
        pub safe fn random() -> i64;
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod import {
    use crossfade_filter_abi::Status;

    pub unsafe fn log(_: i32, _: *const u8, _: usize) -> i32 {
        Status::Unavailable.code()
    }
    pub unsafe fn counter_add(_: *const u8, _: usize, _: i64) -> i32 {
        Status::Unavailable.code()
    }
    pub unsafe fn frame_read(_: u32, _: u32, _: *mut u8, _: usize) -> i32 {
        Status::Unavailable.code()
    }
    pub fn now_ms() -> i64 {
        0
    }
    pub fn random() -> i64 {
        0
    }
}

fn status(code: i32) -> Result<u32, Status> {
    match code {
        0.. => Ok(code as u32),
        -2 => Err(Status::BadPointer),
        -3 => Err(Status::Limit),
        -4 => Err(Status::Unavailable),
        _ => Err(Status::BadArgument),
    }
}

/// A line in the proxy's log, under this policy's name.
pub fn log(level: Level, text: impl AsRef<[u8]>) -> Result<(), Status> {
    let text = text.as_ref();
    // SAFETY: the host reads exactly these bytes, during the call.
    status(unsafe { import::log(level as i32, text.as_ptr(), text.len()) }).map(|_| ())
}

/// Adds to a counter of this policy; `id` is 1 to 64 of `[a-z0-9_]`.
pub fn counter_add(id: &str, delta: i64) -> Result<(), Status> {
    // SAFETY: the host reads exactly these bytes, during the call.
    status(unsafe { import::counter_add(id.as_ptr(), id.len(), delta) }).map(|_| ())
}

/// Fills `into` from `offset` of a frame; answers how many bytes there were, 0 at its end.
pub fn frame_read(which: Frame, offset: u32, into: &mut [u8]) -> Result<usize, Status> {
    // SAFETY: the host writes at most these bytes, during the call.
    status(unsafe { import::frame_read(which as u32, offset, into.as_mut_ptr(), into.len()) }).map(|read| read as usize)
}

/// Milliseconds since 1970, the same within one call of a hook.
pub fn now_ms() -> u64 {
    import::now_ms() as u64
}

/// 64 random bits, not for secrets.
pub fn random() -> u64 {
    import::random() as u64
}
