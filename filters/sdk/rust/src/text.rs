//! Texts and sets of names of a fixed size: what a policy needs of strings without an allocator.

use core::fmt;

use crossfade_filter_abi::limits::TEXT_BYTES_MAX;

/// A short text, built by appending; what does not fit is cut. `write!` works too, for more code.
#[derive(Clone)]
pub struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Text {
    #[expect(clippy::new_without_default, reason = "a text begins with its first word")]
    pub const fn new() -> Self {
        Text { bytes: [0; TEXT_BYTES_MAX], length: 0 }
    }

    #[must_use]
    pub fn with(mut self, more: impl AsRef<[u8]>) -> Self {
        self.push(more.as_ref());
        self
    }

    #[must_use]
    pub fn number(mut self, value: u64) -> Self {
        let (mut digits, mut at, mut rest) = ([0; 20], 20, value);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
        self
    }

    fn push(&mut self, more: &[u8]) {
        let kept = more.len().min(TEXT_BYTES_MAX - self.length);
        self.bytes[self.length..self.length + kept].copy_from_slice(&more[..kept]);
        self.length += kept;
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::new().with(text)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push(more.as_bytes());
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(core::str::from_utf8(self.as_ref()).unwrap_or("?"), f)
    }
}

/// A set of names in `N` bytes, each of at most 255; compared without regard to ASCII case.
pub struct Names<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Names<N> {
    #[expect(clippy::new_without_default, reason = "an empty set is only ever a beginning")]
    pub const fn new() -> Self {
        Names { bytes: [0; N], length: 0 }
    }

    /// `false` when there is no room, or the name is longer than 255 bytes.
    #[must_use]
    pub fn insert(&mut self, name: impl Iterator<Item = u8>) -> bool {
        let mut end = self.length + 1;
        for byte in name {
            if end >= N || end - self.length > 255 {
                return false;
            }
            self.bytes[end] = byte;
            end += 1;
        }
        if end > N {
            return false;
        }
        self.bytes[self.length] = (end - self.length - 1) as u8;
        self.length = end;
        true
    }

    #[inline]
    pub fn contains(&self, name: &[u8]) -> bool {
        !self.is_empty() && self.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..self.length];
        core::iter::from_fn(move || {
            let (&length, behind) = rest.split_first()?;
            let (name, behind) = behind.split_at_checked(length as usize)?;
            rest = behind;
            Some(name)
        })
    }
}
