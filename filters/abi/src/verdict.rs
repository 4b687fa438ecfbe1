//! Verdicts: one u64. Bits 0-7 action, 8-11 memo scope, 12-19 key-prefix length, 20-31 zero, 32-63 length of the text
//! (or replacement) that lies at the start of the exchange buffer.

/// Each hook's actions have their own range of numbers, so an answer to the wrong question is caught, and 0 is never an answer.
macro_rules! actions {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $code:literal $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($variant = $code,)+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            #[inline]
            pub const fn from_code(code: u8) -> Option<$name> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }

            #[inline]
            pub const fn code(self) -> u8 { self as u8 }

            /// The word for it in recorded cases.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            pub const fn packed(self) -> Packed { Packed(self as u64) }
        }
    };
}

actions!(RequestAction {
    Forward = 0x10 "forward",
    Mirror = 0x11 "mirror",
    MirrorCompare = 0x12 "mirror_compare",
    Refuse = 0x13 "refuse",
});

actions!(PairAction {
    Builtin = 0x20 "builtin",
    Equal = 0x21 "equal",
    Equivalent = 0x22 "equivalent",
    Divergent = 0x23 "divergent",
    Ignore = 0x24 "ignore",
});

actions!(WindowAction {
    Continue = 0x30 "continue",
    Warn = 0x31 "warn",
    Hold = 0x32 "hold",
    RollBack = 0x33 "roll_back",
});

actions!(RecordAction {
    Keep = 0x40 "keep",
    Replace = 0x41 "replace",
    Drop = 0x42 "drop",
});

/// How far an answer to a request may be reused, until the module, its configuration, the phase or the plan changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memo {
    /// For this command only.
    None,
    /// For every command of the same name and class in the same database.
    Command,
    /// As `Command`, where every key begins with the same bytes as this command's first key, this many of them (1 to 255).
    KeyPrefix(u8),
}

/// A verdict as it crosses the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed(pub u64);

impl Packed {
    #[must_use]
    pub const fn with_memo(self, memo: Memo) -> Packed {
        let rest = self.0 & !(0xf_ff << 8);
        Packed(match memo {
            Memo::None => rest,
            Memo::Command => rest | 1 << 8,
            Memo::KeyPrefix(length) => rest | 2 << 8 | (length as u64) << 12,
        })
    }

    /// `length` bytes at the start of the exchange buffer belong to this verdict.
    #[must_use]
    pub const fn with_text(self, length: u32) -> Packed {
        Packed(self.0 & 0xffff_ffff | (length as u64) << 32)
    }

    #[inline]
    pub const fn action(self) -> u8 {
        self.0 as u8
    }

    #[inline]
    pub const fn memo_scope(self) -> u8 {
        (self.0 >> 8) as u8 & 0xf
    }

    #[inline]
    pub const fn memo_prefix(self) -> u8 {
        (self.0 >> 12) as u8
    }

    #[inline]
    pub const fn reserved(self) -> u16 {
        (self.0 >> 20) as u16 & 0xfff
    }

    #[inline]
    pub const fn text_length(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
