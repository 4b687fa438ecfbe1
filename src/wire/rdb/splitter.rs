//! Splits an RDB stream into its items, however it arrives. Lives wherever the bytes arrive; pure, no I/O.
//!
//! Values are not decoded: of each only its end is found, and its bytes are what DUMP gives without the footer. A value up to
//! [`Sizes::whole_bytes_max`] is one [`Item::Record`], a longer one comes in pieces. So memory is bounded by one whole value, one key and one
//! operand, whatever the stream says. Rules: `rdbLoadRio` and `rdbLoadObject` (Redis and Valkey `rdb.c`).

use std::borrow::Cow;
use std::fmt;

use super::crc64::Crc64;
use super::grammar::{self, Part, Walk};
use super::lengths::Reader;
use super::{Corrupt, Dialect, Version, dump};
use base::model::limits;

/// What stands between values (`RDB_OPCODE_...`). A byte from the first on is no value type in any version.
const OPCODE_MIN: u8 = 242;
/// Valkey: slots that are being imported from another node of the cluster.
const SLOT_IMPORT: u8 = 243;
const SLOT_INFO: u8 = 244;
const MODULE_AUX: u8 = 247;
const IDLE: u8 = 248;
const FREQ: u8 = 249;
const AUX: u8 = 250;
const RESIZE_DB: u8 = 251;
const EXPIRE_MS: u8 = 252;
const EXPIRE_SECONDS: u8 = 253;
const SELECT_DB: u8 = 254;
const END: u8 = 255;

/// `REDIS` and four digits, or `VALKEY` and three.
const MAGIC: &[Part] = &[Part::Bytes(9)];
/// The checksum of all before, little endian.
const TRAILER: &[Part] = &[Part::Bytes(8)];
const KEY: &[Part] = &[Part::String];

/// What the caller is ready to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Longest key; a longer one is an error. Servers accept keys up to `proto-max-bulk-len` (512 MB).
    pub key_bytes_max: usize,
    /// Longest body that is one item; a longer one comes in pieces of at most this length. At least 1.
    pub whole_bytes_max: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { key_bytes_max: limits::RDB_KEY_BYTES_MAX, whole_bytes_max: limits::RDB_WHOLE_BYTES_MAX }
    }
}

/// What precedes the body of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead<'a> {
    pub key: &'a [u8],
    /// How the body is encoded (`RDB_TYPE_...`); the meaning of 22 and above depends on the dialect.
    pub type_byte: u8,
    /// When the key expires, Unix milliseconds; the seconds of old snapshots are converted.
    pub expire_at_ms: Option<i64>,
    /// How long the key was idle, seconds (policy LRU).
    pub idle_s: Option<u64>,
    /// How often it was used, on Redis' logarithmic scale (policy LFU).
    pub freq: Option<u8>,
}

/// Whether the stream said what its bytes must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    Matches,
    /// The server writes none (`rdbchecksum no`).
    Disabled,
}

/// One item of a snapshot, in the order of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    Header(Version),
    /// A fact about the snapshot: `redis-ver`, `ctime`, `repl-id`, `repl-offset`, ... Unknown ones can be ignored.
    Aux {
        key: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
    },
    /// The database of the records that follow.
    SelectDb(u64),
    /// How many keys this database has, and how many of them expire: hints.
    ResizeDb {
        keys: u64,
        expires: u64,
    },
    /// The same for one slot of a cluster.
    SlotInfo {
        slot: u64,
        keys: u64,
        expires: u64,
    },
    /// Valkey was importing slots; the name of the import. Its ranges are skipped.
    SlotImport {
        job: Cow<'a, [u8]>,
    },
    /// A library: [`dump::build`] with [`dump::FUNCTION`] and this body is what FUNCTION RESTORE takes.
    Function {
        body: &'a [u8],
    },
    /// Data of a module outside the keys, which was skipped, and the name of its type.
    ModuleAux {
        name: String,
    },
    /// A value: `body` is what DUMP gives between type byte and footer.
    Record {
        head: RecordHead<'a>,
        body: &'a [u8],
    },
    /// A value of more than [`Sizes::whole_bytes_max`] bytes, whose length is not known yet, ...
    RecordBegin(RecordHead<'a>),
    /// ... its next bytes, never none, ...
    RecordBytes(&'a [u8]),
    /// ... and its end.
    RecordEnd,
    /// The end of the snapshot. Bytes after it were not looked at.
    End(Checksum),
}

/// Why a stream cannot be split further. It is final: the same bytes give the same error. Other ways to copy the keys remain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitError {
    pub fault: Fault,
    /// `None` before the header was read.
    pub version: Option<Version>,
    /// Where in the stream the record or operand begins that is wrong.
    pub at: u64,
    /// The key at which it happened: the one being read, else the last before.
    pub key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    NotRdb,
    UnknownVersion,
    UnknownType(u8),
    UnknownOpcode(u8),
    KeyTooLong {
        max: usize,
    },
    /// The operand of this opcode.
    OperandTooLong {
        opcode: u8,
        max: usize,
    },
    Corrupt(Corrupt),
    Checksum {
        stored: u64,
        computed: u64,
    },
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::NotRdb => write!(f, "the stream is no RDB: it begins neither with REDIS nor with VALKEY")?,
            Fault::UnknownVersion => write!(f, "this build does not read this version")?,
            Fault::UnknownType(kind) => write!(f, "this build does not know value type {kind}")?,
            Fault::UnknownOpcode(opcode) => write!(f, "this build does not know opcode {opcode}")?,
            Fault::KeyTooLong { max } => write!(f, "a key is longer than {max} bytes")?,
            Fault::OperandTooLong { opcode, max } => {
                write!(f, "what follows opcode {opcode} is longer than {max} bytes")?
            }
            Fault::Corrupt(why) => write!(f, "{why}")?,
            Fault::Checksum { stored, computed } => {
                write!(f, "the checksum of the snapshot is {stored:016x}, its bytes give {computed:016x}")?;
            }
        }
        write!(f, "; in what begins at byte {}", self.at)?;
        if let Some(version) = self.version {
            write!(f, " of {version}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", key {}", crate::resp::value::brief_bytes(&self.key))?;
        }
        Ok(())
    }
}

impl std::error::Error for SplitError {}

#[derive(Debug, Clone, Copy)]
enum State {
    Magic,
    /// Before the byte that says what follows.
    Opcode,
    Operands(u8),
    /// In the data of a module; its operands, which name it, are gathered.
    ModuleAux,
    Key {
        type_byte: u8,
    },
    Value {
        type_byte: u8,
    },
    /// In a value that comes in pieces.
    Large,
    LargeEnd,
    Trailer {
        computed: u64,
    },
    Ended,
}

/// What is known of the next record.
#[derive(Debug, Clone, Copy, Default)]
struct Meta {
    expire_at_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
}

/// The bytes of a part that is whole.
#[derive(Debug, Clone, Copy)]
enum Bytes<'a> {
    /// Where they arrived.
    Input(&'a [u8]),
    /// Put together from several pieces in [`Splitter::gathered`].
    Gathered,
}

enum Gather<'a> {
    Whole(Bytes<'a>),
    NeedMore,
    /// As many bytes as allowed are gathered, and the part goes on.
    Full,
}

/// An item before it borrows from the splitter.
enum Found<'a> {
    Header(Version),
    Operands(u8, Bytes<'a>),
    ModuleAux,
    Record(u8, Bytes<'a>),
    RecordBegin(u8),
    Piece(Bytes<'a>),
    RecordEnd,
    End(Checksum),
}

enum Step<'a> {
    GoOn,
    NeedMore,
    Found(Found<'a>),
}

/// Splits one stream.
#[derive(Debug, Clone)]
pub struct Splitter {
    sizes: Sizes,
    version: Option<Version>,
    state: State,
    walk: Walk,
    /// The beginning of the part that is being read, when it arrived in pieces.
    gathered: Vec<u8>,
    /// The caller has been given `gathered` and has not come back since.
    is_given: bool,
    key: Vec<u8>,
    meta: Meta,
    crc: Crc64,
    consumed: u64,
    /// Where the record or operand begins that is being read.
    begins_at: u64,
    failed: Option<SplitError>,
}

impl Splitter {
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes: Sizes { whole_bytes_max: sizes.whole_bytes_max.max(1), ..sizes },
            version: None,
            state: State::Magic,
            walk: Walk::new(MAGIC),
            gathered: Vec::new(),
            is_given: false,
            key: Vec::new(),
            meta: Meta::default(),
            crc: Crc64::default(),
            consumed: 0,
            begins_at: 0,
            failed: None,
        }
    }

    /// The next item, or `None` when it needs more bytes than there are. `input` continues the stream and is shortened by what was used: after
    /// `None` by all of it, except after the end.
    ///
    /// # Errors
    /// [`SplitError`]; each further call gives it again.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Item<'a>>, SplitError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if std::mem::take(&mut self.is_given) {
            self.gathered.clear();
        }
        let found = loop {
            match self.step(input) {
                Ok(Step::GoOn) => {}
                Ok(Step::NeedMore) => return Ok(None),
                Ok(Step::Found(found)) => break found,
                Err(fault) => return Err(self.fail(fault)),
            }
        };
        // Operands that cannot be decoded are the only item that fails after it was found whole.
        if let Found::Operands(opcode, bytes) = found
            && let Err(why) = operands(opcode, self.bytes(bytes))
        {
            return Err(self.fail(Fault::Corrupt(why)));
        }
        Ok(Some(self.item(found)))
    }

    /// Whether the end of the snapshot was reached. A stream that stops before is truncated.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes used so far.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    fn fail(&mut self, fault: Fault) -> SplitError {
        let error = SplitError { fault, version: self.version, at: self.begins_at, key: self.key.clone() };
        self.failed = Some(error.clone());
        error
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        match self.state {
            State::Magic => self.magic(input),
            State::Opcode => self.opcode(input),
            State::Operands(opcode) => self.operands_step(opcode, input),
            State::ModuleAux => {
                let (_, is_whole) = self.walk_on(input, usize::MAX)?;
                if !is_whole {
                    return Ok(Step::NeedMore);
                }
                self.state = State::Opcode;
                Ok(Step::Found(Found::ModuleAux))
            }
            State::Key { type_byte } => self.key_step(type_byte, input),
            State::Value { type_byte } => match self.gather(input, self.sizes.whole_bytes_max)? {
                Gather::Whole(body) => {
                    self.state = State::Opcode;
                    Ok(Step::Found(Found::Record(type_byte, body)))
                }
                Gather::NeedMore => Ok(Step::NeedMore),
                Gather::Full => {
                    self.state = State::Large;
                    Ok(Step::Found(Found::RecordBegin(type_byte)))
                }
            },
            State::Large => self.large(input),
            State::LargeEnd => {
                self.state = State::Opcode;
                Ok(Step::Found(Found::RecordEnd))
            }
            State::Trailer { computed } => self.trailer(computed, input),
            State::Ended => Ok(Step::NeedMore),
        }
    }

    fn magic<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        let bytes = match self.gather(input, usize::MAX)? {
            Gather::Whole(bytes) => bytes,
            Gather::NeedMore | Gather::Full => return Ok(Step::NeedMore),
        };
        let magic = self.bytes(bytes);
        let (dialect, digits) = match (magic.strip_prefix(b"REDIS"), magic.strip_prefix(b"VALKEY")) {
            (Some(digits), _) => (Dialect::Redis, digits),
            (None, Some(digits)) => (Dialect::Valkey, digits),
            (None, None) => return Err(Fault::NotRdb),
        };
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::NotRdb);
        }
        let number = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        let version = Version { dialect, number };
        self.version = Some(version);
        self.gathered.clear();
        self.state = State::Opcode;
        if version.is_read() { Ok(Step::Found(Found::Header(version))) } else { Err(Fault::UnknownVersion) }
    }

    fn opcode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        let Some(&byte) = input.first() else { return Ok(Step::NeedMore) };
        self.begins_at = self.consumed;
        let parts: &[Part] = match byte {
            END => &[],
            SELECT_DB | IDLE => &[Part::Number],
            EXPIRE_SECONDS => &[Part::Bytes(4)],
            EXPIRE_MS => &[Part::Bytes(8)],
            RESIZE_DB => &[Part::Number, Part::Number],
            AUX => &[Part::String, Part::String],
            FREQ => &[Part::Bytes(1)],
            // The module's type, then when the data was written, as a part of a module's value.
            MODULE_AUX => &[Part::Number, Part::Number, Part::Number],
            dump::FUNCTION => &[Part::String],
            SLOT_INFO => &[Part::Number, Part::Number, Part::Number],
            SLOT_IMPORT if self.dialect() == Dialect::Valkey => {
                &[Part::String, Part::Repeat(&[Part::Number, Part::Number])]
            }
            OPCODE_MIN.. => return Err(Fault::UnknownOpcode(byte)),
            _ => KEY,
        };
        self.consume(&input[..1]);
        *input = &input[1..];
        self.state = match byte {
            END => {
                self.walk = Walk::new(TRAILER);
                State::Trailer { computed: self.crc.value() }
            }
            _ => {
                self.walk = Walk::new(parts);
                if byte < OPCODE_MIN { State::Key { type_byte: byte } } else { State::Operands(byte) }
            }
        };
        Ok(Step::GoOn)
    }

    fn operands_step<'a>(&mut self, opcode: u8, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        let max = limits::RDB_OPERAND_BYTES_MAX;
        let bytes = match self.gather(input, max)? {
            Gather::Whole(bytes) => bytes,
            Gather::NeedMore => return Ok(Step::NeedMore),
            Gather::Full => return Err(Fault::OperandTooLong { opcode, max }),
        };
        self.state = State::Opcode;
        if opcode == MODULE_AUX {
            if let Bytes::Input(bytes) = bytes {
                self.gathered.extend_from_slice(bytes);
            }
            self.state = State::ModuleAux;
            self.walk = Walk::new(&[Part::Module]);
            return Ok(Step::GoOn);
        }
        let mut reader = Reader::new(self.bytes(bytes));
        match opcode {
            EXPIRE_MS => self.meta.expire_at_ms = Some(reader.time_ms().map_err(Fault::Corrupt)?),
            EXPIRE_SECONDS => {
                let seconds = i32::from_le_bytes(reader.array().map_err(Fault::Corrupt)?);
                self.meta.expire_at_ms = Some(i64::from(seconds) * 1000);
            }
            IDLE => self.meta.idle_s = Some(reader.number().map_err(Fault::Corrupt)?),
            FREQ => self.meta.freq = Some(u8::from_le_bytes(reader.array().map_err(Fault::Corrupt)?)),
            _ => return Ok(Step::Found(Found::Operands(opcode, bytes))),
        }
        self.gathered.clear();
        Ok(Step::GoOn)
    }

    fn key_step<'a>(&mut self, type_byte: u8, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        let parts = grammar::value(self.dialect(), type_byte);
        let max = self.sizes.key_bytes_max;
        // What follows an unknown type need not be a key: then the type is still the error.
        let unknown = |fault: Fault| if parts.is_none() { Fault::UnknownType(type_byte) } else { fault };
        // One length may precede the key, three an LZF one.
        let bytes = match self.gather(input, max.saturating_add(32)).map_err(unknown)? {
            Gather::Whole(bytes) => bytes,
            Gather::NeedMore => return Ok(Step::NeedMore),
            Gather::Full => return Err(unknown(Fault::KeyTooLong { max })),
        };
        let key = Reader::new(self.bytes(bytes)).string().map_err(|why| unknown(Fault::Corrupt(why)))?.into_owned();
        self.gathered.clear();
        self.key = key;
        let parts = parts.ok_or(Fault::UnknownType(type_byte))?;
        if self.key.len() > max {
            return Err(Fault::KeyTooLong { max });
        }
        self.walk = Walk::new(parts);
        self.state = State::Value { type_byte };
        Ok(Step::GoOn)
    }

    fn large<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        if !self.gathered.is_empty() {
            return Ok(Step::Found(Found::Piece(Bytes::Gathered)));
        }
        if input.is_empty() {
            return Ok(Step::NeedMore);
        }
        let (piece, is_whole) = self.walk_on(input, self.sizes.whole_bytes_max)?;
        if is_whole {
            self.state = State::LargeEnd;
        }
        Ok(Step::Found(Found::Piece(Bytes::Input(piece))))
    }

    fn trailer<'a>(&mut self, computed: u64, input: &mut &'a [u8]) -> Result<Step<'a>, Fault> {
        let bytes = match self.gather(input, usize::MAX)? {
            Gather::Whole(bytes) => bytes,
            Gather::NeedMore | Gather::Full => return Ok(Step::NeedMore),
        };
        let stored = u64::from_le_bytes(Reader::new(self.bytes(bytes)).array().map_err(Fault::Corrupt)?);
        self.state = State::Ended;
        match stored {
            0 => Ok(Step::Found(Found::End(Checksum::Disabled))),
            _ if stored == computed => Ok(Step::Found(Found::End(Checksum::Matches))),
            _ => Err(Fault::Checksum { stored, computed }),
        }
    }

    /// Walks to the end of the part, and keeps its bytes if that has not arrived; at most `bytes_max` of them.
    fn gather<'a>(&mut self, input: &mut &'a [u8], bytes_max: usize) -> Result<Gather<'a>, Fault> {
        let (piece, is_whole) = self.walk_on(input, bytes_max - self.gathered.len())?;
        if is_whole && self.gathered.is_empty() {
            return Ok(Gather::Whole(Bytes::Input(piece)));
        }
        self.gathered.extend_from_slice(piece);
        Ok(match is_whole {
            true => Gather::Whole(Bytes::Gathered),
            false if self.gathered.len() < bytes_max => Gather::NeedMore,
            false => Gather::Full,
        })
    }

    /// Walks over at most `bytes_max` bytes and takes what belongs to the part; true when it ends with them.
    fn walk_on<'a>(&mut self, input: &mut &'a [u8], bytes_max: usize) -> Result<(&'a [u8], bool), Fault> {
        let window = &input[..input.len().min(bytes_max)];
        let (count, is_whole) = self.walk.advance(window).map_err(Fault::Corrupt)?;
        self.consume(&window[..count]);
        *input = &input[count..];
        Ok((&window[..count], is_whole))
    }

    fn consume(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.consumed += bytes.len() as u64;
    }

    fn dialect(&self) -> Dialect {
        self.version.map_or(Dialect::Redis, |version| version.dialect)
    }

    fn bytes<'b>(&'b self, bytes: Bytes<'b>) -> &'b [u8] {
        match bytes {
            Bytes::Input(bytes) => bytes,
            Bytes::Gathered => &self.gathered,
        }
    }

    fn item<'a>(&'a mut self, found: Found<'a>) -> Item<'a> {
        self.is_given = !matches!(found, Found::RecordBegin(_));
        let meta = match found {
            Found::Record(..) | Found::RecordBegin(_) => std::mem::take(&mut self.meta),
            _ => Meta::default(),
        };
        let head = |type_byte| RecordHead {
            key: &self.key,
            type_byte,
            expire_at_ms: meta.expire_at_ms,
            idle_s: meta.idle_s,
            freq: meta.freq,
        };
        match found {
            Found::Header(version) => Item::Header(version),
            Found::Operands(opcode, bytes) => {
                operands(opcode, self.bytes(bytes)).expect("the caller has decoded the same bytes")
            }
            Found::ModuleAux => Item::ModuleAux { name: module_name(&self.gathered) },
            Found::Record(type_byte, body) => Item::Record { head: head(type_byte), body: self.bytes(body) },
            Found::RecordBegin(type_byte) => Item::RecordBegin(head(type_byte)),
            Found::Piece(bytes) => Item::RecordBytes(self.bytes(bytes)),
            Found::RecordEnd => Item::RecordEnd,
            Found::End(checksum) => Item::End(checksum),
        }
    }
}

/// The item of an opcode and its operands.
fn operands(opcode: u8, bytes: &[u8]) -> Result<Item<'_>, Corrupt> {
    let mut reader = Reader::new(bytes);
    Ok(match opcode {
        AUX => Item::Aux { key: reader.string()?, value: reader.string()? },
        SELECT_DB => Item::SelectDb(reader.number()?),
        RESIZE_DB => Item::ResizeDb { keys: reader.number()?, expires: reader.number()? },
        SLOT_INFO => Item::SlotInfo { slot: reader.number()?, keys: reader.number()?, expires: reader.number()? },
        SLOT_IMPORT => Item::SlotImport { job: reader.string()? },
        _ => Item::Function { body: bytes },
    })
}

/// The name of a module's type, from operands that begin with its id: nine characters of 6 bits above the 10 bits of its version
/// (`moduleTypeNameByID`, `module.c`).
fn module_name(operands: &[u8]) -> String {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let id = Reader::new(operands).number().unwrap_or(0);
    (1..=9).rev().map(|place| char::from(CHARACTERS[(id >> (4 + 6 * place) & 63) as usize])).collect()
}
