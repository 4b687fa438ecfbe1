//! Verdicts, one function each. A text is cut at its limit and may be anything that is bytes: `"..."`, a [`Text`](crate::Text), a key.

use crossfade_filter_abi::{Memo, Packed, PairAction, RecordAction, RequestAction, WindowAction, limits};

use crate::guest::{BUFFER_BYTES, say};

/// Made by [`forward`], [`mirror`], [`mirror_compare`] or [`refuse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVerdict(pub(crate) Packed);

/// Made by [`builtin`], [`equal`], [`equivalent`], [`divergent`] or [`ignore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairVerdict(pub(crate) Packed);

/// Made by [`carry_on`], [`warn`], [`hold`] or [`roll_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowVerdict(pub(crate) Packed);

/// Made by [`keep`], [`replace`] or [`drop_record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordVerdict(pub(crate) Packed);

impl RequestVerdict {
    /// Holds for every command of this name: it depends on nothing but protocol, class, phase, authority, database, command.
    #[must_use]
    pub fn for_command(self) -> Self {
        RequestVerdict(self.0.with_memo(Memo::Command))
    }

    /// Holds for commands of this name all of whose keys begin with the first `length` bytes (1 to 255) of the first key.
    #[must_use]
    pub fn for_prefix(self, length: usize) -> Self {
        match u8::try_from(length) {
            Ok(length @ 1..) => RequestVerdict(self.0.with_memo(Memo::KeyPrefix(length))),
            _ => self,
        }
    }
}

fn said(action: Packed, text: &[u8], limit: usize) -> Packed {
    let text = if text.is_empty() { b"no reason given" } else { text };
    action.with_text(say(text, limit))
}

pub fn forward() -> RequestVerdict {
    RequestVerdict(RequestAction::Forward.packed())
}

pub fn mirror() -> RequestVerdict {
    RequestVerdict(RequestAction::Mirror.packed())
}

pub fn mirror_compare() -> RequestVerdict {
    RequestVerdict(RequestAction::MirrorCompare.packed())
}

/// The client gets this text as an error of its protocol.
pub fn refuse(text: impl AsRef<[u8]>) -> RequestVerdict {
    RequestVerdict(said(RequestAction::Refuse.packed(), text.as_ref(), limits::TEXT_BYTES_MAX))
}

/// Leaves it to the built-in comparison.
pub fn builtin() -> PairVerdict {
    PairVerdict(PairAction::Builtin.packed())
}

pub fn equal() -> PairVerdict {
    PairVerdict(PairAction::Equal.packed())
}

pub fn equivalent() -> PairVerdict {
    PairVerdict(PairAction::Equivalent.packed())
}

/// `class` is counted by: a few different words, not a sentence.
pub fn divergent(class: impl AsRef<[u8]>) -> PairVerdict {
    PairVerdict(said(PairAction::Divergent.packed(), class.as_ref(), limits::CLASS_BYTES_MAX))
}

pub fn ignore() -> PairVerdict {
    PairVerdict(PairAction::Ignore.packed())
}

pub fn carry_on() -> WindowVerdict {
    WindowVerdict(WindowAction::Continue.packed())
}

pub fn warn(text: impl AsRef<[u8]>) -> WindowVerdict {
    WindowVerdict(said(WindowAction::Warn.packed(), text.as_ref(), limits::TEXT_BYTES_MAX))
}

/// No step forward in this window.
pub fn hold(text: impl AsRef<[u8]>) -> WindowVerdict {
    WindowVerdict(said(WindowAction::Hold.packed(), text.as_ref(), limits::TEXT_BYTES_MAX))
}

pub fn roll_back(text: impl AsRef<[u8]>) -> WindowVerdict {
    WindowVerdict(said(WindowAction::RollBack.packed(), text.as_ref(), limits::TEXT_BYTES_MAX))
}

pub fn keep() -> RecordVerdict {
    RecordVerdict(RecordAction::Keep.packed())
}

/// The new value, in the record's encoding. One longer than the buffer (64 KiB) panics, so that it is never cut.
pub fn replace(value: impl AsRef<[u8]>) -> RecordVerdict {
    let value = value.as_ref();
    assert!(value.len() <= BUFFER_BYTES, "a replacement fits into the exchange buffer");
    RecordVerdict(RecordAction::Replace.packed().with_text(say(value, BUFFER_BYTES)))
}

pub fn drop_record() -> RecordVerdict {
    RecordVerdict(RecordAction::Drop.packed())
}
