//! What a command of the authority's replication stream becomes on the shadow. Pure: no I/O, no clock.
//!
//! The stream holds effects (Redis `propagateNow`), so nearly every command is sent as it is. The exceptions: deadlines are stored later by
//! the grace; conditions that held at the authority are left out, because they may not hold against a later deadline; values in DUMP form get
//! the shadow's version; what a newer server writes is written in an older one's words.

use super::batch::{Batch, Expect};
use wire::rdb::dump;
use wire::resp::args::Args;
use wire::resp::command;

/// What the shadow is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The version of its DUMP payloads.
    pub rdb_version: u16,
    /// Its commands, lower case, sorted.
    pub commands: Vec<String>,
    /// How much later than at the authority deadlines are stored, milliseconds: the shadow must not expire a key first.
    pub grace_ms: i64,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translated {
    /// It is in the batch.
    Sent,
    /// It is nothing for the shadow: a message, or Crossfade's own key.
    Dropped,
    /// The shadow cannot hold what it says: its keys differ from now on.
    Lost(&'static str),
}

impl Dialect {
    fn knows(&self, name: &str) -> bool {
        self.commands.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// Adds a command, acting on `database`, to a batch. `now_ms`: for the deadlines that servers before 7.0 send as a distance.
    pub fn translate(&self, frame: &[u8], database: u32, now_ms: i64, batch: &mut Batch) -> Translated {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        let Some(name) = args.first() else { return Translated::Dropped };
        let command = command::lookup(name);
        let lower = name.to_ascii_lowercase();
        if is_reserved(command, frame, &args) {
            return Translated::Dropped;
        }
        let mut words = Words { dialect: self, args: &args, database, now_ms, batch };
        match lower.as_slice() {
            b"publish" | b"spublish" => Translated::Dropped,
            b"set" => words.set(),
            b"setex" => words.set_for(1000),
            b"psetex" => words.set_for(1),
            b"expireat" => words.deadline(1000, false),
            b"pexpireat" => words.deadline(1, false),
            b"expire" => words.deadline(1000, true),
            b"pexpire" => words.deadline(1, true),
            b"persist" => words.as_it_is(Expect::Changed),
            b"restore" => words.restore(),
            b"hexpireat" => words.field_deadlines(1000, false),
            b"hpexpireat" => words.field_deadlines(1, false),
            b"hexpire" => words.field_deadlines(1000, true),
            b"hpexpire" => words.field_deadlines(1, true),
            b"hsetex" => words.set_fields(),
            b"msetex" => words.set_many(),
            b"function" => words.function(),
            b"swapdb" => words.as_it_is(Expect::Anything),
            _ if command.name.is_empty() || self.knows(&String::from_utf8_lossy(&lower)) => {
                words.as_it_is(Expect::Anything)
            }
            _ => Translated::Lost("the shadow has no such command"),
        }
    }
}

/// Crossfade's own keys: its position, and what its checks write.
fn is_reserved(command: &command::Command, frame: &[u8], args: &[&[u8]]) -> bool {
    let is = |key: &&[u8]| key.starts_with(crate::RESERVED_PREFIX);
    match command.keys_of(frame) {
        Some(keys) if !keys.0.is_empty() => keys.0.iter().all(is),
        _ => args.get(1).is_some_and(is),
    }
}

struct Words<'a, 'b> {
    dialect: &'a Dialect,
    args: &'a [&'a [u8]],
    database: u32,
    now_ms: i64,
    batch: &'b mut Batch,
}

impl<'a> Words<'a, '_> {
    fn push(&mut self, words: &[&[u8]], expect: Expect) {
        self.batch.push(self.database, words, expect);
    }

    fn as_it_is(&mut self, expect: Expect) -> Translated {
        let args = self.args;
        self.push(args, expect);
        Translated::Sent
    }

    /// The deadline that the shadow gets; the text of the authority's where it is no number, so that the shadow says what is wrong.
    fn later(&self, text: &[u8], unit_ms: i64, relative: bool) -> Vec<u8> {
        let Some(number) = number(text) else { return text.to_vec() };
        let begin = if relative { self.now_ms } else { 0 };
        let deadline = number.saturating_mul(unit_ms).saturating_add(begin).saturating_add(self.dialect.grace_ms);
        deadline.to_string().into_bytes()
    }

    /// SET: what was a condition at the authority has held.
    fn set(&mut self) -> Translated {
        let [_, key, value, options @ ..] = self.args else { return self.as_it_is(Expect::Anything) };
        let mut words: Vec<Vec<u8>> = vec![b"SET".to_vec(), key.to_vec(), value.to_vec()];
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            let is = |word: &[u8]| option.eq_ignore_ascii_case(word);
            let timed = [(b"PXAT".as_slice(), 1, false), (b"EXAT", 1000, false), (b"PX", 1, true), (b"EX", 1000, true)];
            if let Some((_, unit_ms, relative)) = timed.into_iter().find(|(word, ..)| is(word)) {
                let text = rest.next().copied().unwrap_or_default();
                words.push(b"PXAT".to_vec());
                words.push(self.later(text, unit_ms, relative));
            } else if is(b"KEEPTTL") {
                words.push(b"KEEPTTL".to_vec());
            } else if is(b"IFEQ") {
                rest.next();
            } else if !(is(b"NX") || is(b"XX") || is(b"GET")) {
                return self.as_it_is(Expect::Anything);
            }
        }
        self.push_owned(&words, Expect::Anything)
    }

    /// SETEX key time value.
    fn set_for(&mut self, unit_ms: i64) -> Translated {
        let [_, key, time, value] = self.args else { return self.as_it_is(Expect::Anything) };
        let deadline = self.later(time, unit_ms, true);
        self.push(&[b"SET", key, value, b"PXAT", &deadline], Expect::Anything);
        Translated::Sent
    }

    /// PEXPIREAT key time [condition].
    fn deadline(&mut self, unit_ms: i64, relative: bool) -> Translated {
        let [_, key, time, ..] = self.args else { return self.as_it_is(Expect::Anything) };
        let deadline = self.later(time, unit_ms, relative);
        self.push(&[b"PEXPIREAT", key, &deadline], Expect::Changed);
        Translated::Sent
    }

    /// RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME s] [FREQ f].
    fn restore(&mut self) -> Translated {
        let [_, key, time, payload, options @ ..] = self.args else { return self.as_it_is(Expect::Anything) };
        let mut payload = payload.to_vec();
        if dump::set_version(&mut payload, self.dialect.rdb_version).is_err() {
            return Translated::Lost("its RESTORE has a payload that is damaged");
        }
        let absolute = options.iter().any(|option| option.eq_ignore_ascii_case(b"ABSTTL"));
        let deadline = if *time == b"0" { b"0".to_vec() } else { self.later(time, 1, !absolute) };
        self.push(&[b"RESTORE", key, &deadline, &payload, b"REPLACE", b"ABSTTL"], Expect::Anything);
        Translated::Sent
    }

    /// HPEXPIREAT key time [condition] FIELDS n field...
    fn field_deadlines(&mut self, unit_ms: i64, relative: bool) -> Translated {
        if !self.dialect.knows("hpexpireat") {
            return Translated::Lost("the shadow has no deadlines of hash fields");
        }
        let [_, key, time, ..] = self.args else { return self.as_it_is(Expect::Anything) };
        let deadline = self.later(time, unit_ms, relative);
        let Some(fields) = self.behind(b"FIELDS") else { return self.as_it_is(Expect::Anything) };
        let mut words: Vec<&[u8]> = vec![b"HPEXPIREAT", key, &deadline, b"FIELDS"];
        words.extend(fields);
        self.push(&words, Expect::FieldsChanged);
        Translated::Sent
    }

    /// HSETEX key [FNX|FXX] [PXAT time|KEEPTTL] FIELDS n field value...
    fn set_fields(&mut self) -> Translated {
        let [_, key, ..] = self.args else { return self.as_it_is(Expect::Anything) };
        let Some([_, pairs @ ..]) = self.behind(b"FIELDS") else { return self.as_it_is(Expect::Anything) };
        let time = self.after_word(b"PXAT").map(|text| self.later(text, 1, false));
        let time = time.or_else(|| self.after_word(b"EXAT").map(|text| self.later(text, 1000, false)));
        let keeps = self.args.iter().any(|arg| arg.eq_ignore_ascii_case(b"KEEPTTL"));
        let count = (pairs.len() / 2).to_string();
        if self.dialect.knows("hsetex") {
            let mut words: Vec<&[u8]> = vec![b"HSETEX", key];
            match &time {
                Some(time) => words.extend([b"PXAT".as_slice(), time]),
                None if keeps => words.push(b"KEEPTTL"),
                None => {}
            }
            words.extend([b"FIELDS".as_slice(), count.as_bytes()]);
            words.extend(pairs);
            self.push(&words, Expect::Anything);
            return Translated::Sent;
        }
        let mut words: Vec<&[u8]> = vec![b"HSET", key];
        words.extend(pairs);
        self.push(&words, Expect::Anything);
        if time.is_some() { Translated::Lost("the shadow has no deadlines of hash fields") } else { Translated::Sent }
    }

    /// MSETEX n key value... [NX|XX] [PXAT time|KEEPTTL]: in single SETs, which every server has.
    fn set_many(&mut self) -> Translated {
        let count = self.args.get(1).and_then(|text| number(text)).and_then(|count| usize::try_from(count).ok());
        let pairs = count.and_then(|count| self.args.get(2..count.checked_mul(2)?.checked_add(2)?));
        let Some(pairs) = pairs else { return self.as_it_is(Expect::Anything) };
        let time = self.after_word(b"PXAT").map(|text| self.later(text, 1, false));
        let time = time.or_else(|| self.after_word(b"EXAT").map(|text| self.later(text, 1000, false)));
        let keeps = self.args[2 + pairs.len()..].iter().any(|arg| arg.eq_ignore_ascii_case(b"KEEPTTL"));
        for pair in pairs.chunks_exact(2) {
            let mut words: Vec<&[u8]> = vec![b"SET", pair[0], pair[1]];
            match &time {
                Some(time) => words.extend([b"PXAT".as_slice(), time]),
                None if keeps => words.push(b"KEEPTTL"),
                None => {}
            }
            self.push(&words, Expect::Anything);
        }
        Translated::Sent
    }

    /// FUNCTION RESTORE has a payload with a version; the other subcommands have text.
    fn function(&mut self) -> Translated {
        let [_, subcommand, payload, options @ ..] = self.args else { return self.as_it_is(Expect::Anything) };
        if !subcommand.eq_ignore_ascii_case(b"RESTORE") {
            return self.as_it_is(Expect::Anything);
        }
        let Some(payload) = with_version(payload, self.dialect.rdb_version) else {
            return Translated::Lost("its FUNCTION RESTORE has a payload that is damaged");
        };
        let mut words: Vec<&[u8]> = vec![b"FUNCTION", b"RESTORE", &payload];
        words.extend(options);
        self.push(&words, Expect::Anything);
        Translated::Sent
    }

    fn behind(&self, word: &[u8]) -> Option<&'a [&'a [u8]]> {
        let at = self.args.iter().position(|arg| arg.eq_ignore_ascii_case(word))?;
        self.args.get(at + 1..)
    }

    /// Only in front of the data, where a word cannot be a field's name.
    fn after_word(&self, word: &[u8]) -> Option<&'a [u8]> {
        let options = match self.args.iter().position(|arg| arg.eq_ignore_ascii_case(b"FIELDS")) {
            Some(fields) => &self.args[2..fields],
            // MSETEX has its options behind the data.
            None => {
                let count = usize::try_from(number(self.args.get(1)?)?).ok()?;
                self.args.get(count.checked_mul(2)?.checked_add(2)?..)?
            }
        };
        let at = options.iter().position(|arg| arg.eq_ignore_ascii_case(word))?;
        options.get(at + 1).copied()
    }

    fn push_owned(&mut self, words: &[Vec<u8>], expect: Expect) -> Translated {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.push(&words, expect);
        Translated::Sent
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// FUNCTION DUMP gives a payload without a type byte of its own: the footer is the same.
fn with_version(payload: &[u8], version: u16) -> Option<Vec<u8>> {
    let mut payload = payload.to_vec();
    dump::set_version(&mut payload, version).ok()?;
    Some(payload)
}
