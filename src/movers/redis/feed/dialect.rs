//! What a command of the authority's replication stream becomes on the shadow. Pure: no I/O, no clock.
//!
//! The stream holds effects (Redis `propagateNow`), so nearly every command is sent as it is. The exceptions: deadlines are stored later by
//! the grace; conditions that held at the authority are left out, because they may not hold against a later deadline; values in DUMP form get
//! the shadow's version; what a newer server writes is written in an older one's words.

use std::borrow::Cow;

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
        let lower = lower_case(name, command);
        let Ok(known_as) = std::str::from_utf8(&lower) else { return Translated::Lost("its name is no text") };
        if is_reserved(command, frame, &args) {
            return Translated::Dropped;
        }
        let mut words = Words { dialect: self, frame, args: &args, database, now_ms, batch };
        match lower.as_ref() {
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
            _ if self.knows(known_as) => words.as_it_is(Expect::Anything),
            _ => Translated::Lost("the shadow has no such command"),
        }
    }
}

/// Whether what a command makes of its keys depends on what they held, and its reply does not tell.
#[must_use]
pub fn needs_presence(name: &[u8]) -> bool {
    let overwrites: [&[u8]; 14] = [
        b"SET",
        b"SETEX",
        b"PSETEX",
        b"MSET",
        b"MSETEX",
        b"DEL",
        b"UNLINK",
        b"RESTORE",
        b"PEXPIREAT",
        b"EXPIREAT",
        b"PEXPIRE",
        b"EXPIRE",
        b"PERSIST",
        b"GETDEL",
    ];
    !overwrites.iter().any(|word| name.eq_ignore_ascii_case(word))
}

fn lower_case<'a>(name: &[u8], command: &'a command::Command) -> Cow<'a, [u8]> {
    let is_listed = name.eq_ignore_ascii_case(command.name.as_bytes());
    if is_listed { Cow::Borrowed(command.name.as_bytes()) } else { Cow::Owned(name.to_ascii_lowercase()) }
}

/// Crossfade's own keys: its position, and what its checks write.
fn is_reserved(command: &command::Command, frame: &[u8], args: &[&[u8]]) -> bool {
    let is = |key: &&[u8]| key.starts_with(crate::RESERVED_PREFIX);
    if !args.iter().any(is) {
        return false;
    }
    match command.keys_of(frame) {
        Some(keys) if !keys.0.is_empty() => keys.0.iter().all(is),
        _ => args.get(1).is_some_and(is),
    }
}

/// Arguments of a command, one behind the other.
type Arguments<'a> = &'a [&'a [u8]];

struct Words<'a, 'b> {
    dialect: &'a Dialect,
    /// The command as it came, and its words.
    frame: &'a [u8],
    args: Arguments<'a>,
    database: u32,
    now_ms: i64,
    batch: &'b mut Batch,
}

impl<'a> Words<'a, '_> {
    fn push(&mut self, words: &[&[u8]], expect: Expect) {
        self.batch.push(self.database, words, expect);
    }

    fn as_it_is(&mut self, expect: Expect) -> Translated {
        self.batch.push_frame(self.database, self.frame, expect);
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
        if options.is_empty() {
            return self.as_it_is(Expect::Anything);
        }
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
        let Some(payload) = with_version(payload, self.dialect.rdb_version) else {
            return Translated::Lost("its RESTORE has a payload that is damaged");
        };
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
        let Some((_, fields)) = self.around_fields() else { return self.as_it_is(Expect::Anything) };
        let mut words: Vec<&[u8]> = vec![b"HPEXPIREAT", key, &deadline, b"FIELDS"];
        words.extend(fields);
        self.push(&words, Expect::FieldsChanged);
        Translated::Sent
    }

    /// HSETEX key [FNX|FXX] [PXAT time|KEEPTTL] FIELDS n field value...
    fn set_fields(&mut self) -> Translated {
        let [_, key, ..] = self.args else { return self.as_it_is(Expect::Anything) };
        let Some((options, [count, pairs @ ..])) = self.around_fields() else { return self.as_it_is(Expect::Anything) };
        let lifetime = self.lifetime(options);
        if self.dialect.knows("hsetex") {
            let mut words: Vec<&[u8]> = vec![b"HSETEX", key];
            words.extend(lifetime.iter().map(Vec::as_slice));
            words.extend([b"FIELDS".as_slice(), count]);
            words.extend(pairs);
            self.push(&words, Expect::Anything);
            return Translated::Sent;
        }
        let mut words: Vec<&[u8]> = vec![b"HSET", key];
        words.extend(pairs);
        self.push(&words, Expect::Anything);
        let expires = lifetime.len() > 1;
        if expires { Translated::Lost("the shadow has no deadlines of hash fields") } else { Translated::Sent }
    }

    /// MSETEX n key value... [NX|XX] [PXAT time|KEEPTTL]: in single SETs, which every server has.
    fn set_many(&mut self) -> Translated {
        let count = self.args.get(1).and_then(|text| number(text)).and_then(|count| usize::try_from(count).ok());
        let behind = count.and_then(|count| self.args.get(2..)?.split_at_checked(count.checked_mul(2)?));
        let Some((pairs, options)) = behind else { return self.as_it_is(Expect::Anything) };
        let lifetime = self.lifetime(options);
        for pair in pairs.chunks_exact(2) {
            let mut words: Vec<&[u8]> = vec![b"SET", pair[0], pair[1]];
            words.extend(lifetime.iter().map(Vec::as_slice));
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

    /// What stands in front of FIELDS and behind it; not the key at 1, which may have that name.
    fn around_fields(&self) -> Option<(Arguments<'a>, Arguments<'a>)> {
        let rest = self.args.get(2..)?;
        let at = rest.iter().position(|arg| arg.eq_ignore_ascii_case(b"FIELDS"))?;
        Some((&rest[..at], &rest[at + 1..]))
    }

    /// The words that say how long the shadow keeps what is set: none, KEEPTTL, or PXAT and a time.
    fn lifetime(&self, options: &[&[u8]]) -> Vec<Vec<u8>> {
        let at = |word: &[u8]| options.iter().position(|option| option.eq_ignore_ascii_case(word));
        let after = |word: &[u8]| options.get(at(word)? + 1).copied();
        let deadline = after(b"PXAT").map(|text| self.later(text, 1, false));
        match deadline.or_else(|| after(b"EXAT").map(|text| self.later(text, 1000, false))) {
            Some(deadline) => vec![b"PXAT".to_vec(), deadline],
            None if at(b"KEEPTTL").is_some() => vec![b"KEEPTTL".to_vec()],
            None => Vec::new(),
        }
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

/// A payload of DUMP or FUNCTION DUMP as another version of server takes it; `None`: it is damaged.
fn with_version(payload: &[u8], version: u16) -> Option<Vec<u8>> {
    let mut payload = payload.to_vec();
    dump::set_version(&mut payload, version).ok()?;
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::resp::encode::request;

    /// What a shadow with these commands is sent, between MULTI and the position.
    fn sent(commands: &str, line: &str) -> (Vec<String>, Translated) {
        let mut commands: Vec<String> = commands.split(' ').map(str::to_owned).collect();
        commands.sort_unstable();
        let dialect = Dialect { rdb_version: 10, commands, grace_ms: 1000 };
        let mut batch = Batch::default();
        let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let translated = dialect.translate(&frame, 0, 500_000, &mut batch);
        (batch.lines(), translated)
    }

    #[test]
    fn conditions_are_left_out_and_deadlines_are_later() {
        for (line, becomes) in [
            ("SET k v NX PXAT 7000", "SET k v PXAT 8000"),
            ("SET k v EX 3", "SET k v PXAT 504000"),
            ("SET k v IFEQ old KEEPTTL", "SET k v KEEPTTL"),
            ("PEXPIREAT k 7000 GT", "PEXPIREAT k 8000"),
            ("EXPIRE k 2", "PEXPIREAT k 503000"),
            ("SETEX k 2 v", "SET k v PXAT 503000"),
            ("HPEXPIREAT FIELDS 7000 NX FIELDS 1 f", "HPEXPIREAT FIELDS 8000 FIELDS 1 f"),
            ("HSETEX FIELDS FXX PXAT 7000 FIELDS 1 KEEPTTL v", "HSETEX FIELDS PXAT 8000 FIELDS 1 KEEPTTL v"),
            ("DEL a b", "DEL a b"),
        ] {
            assert_eq!(sent("del hsetex hpexpireat", line), (vec![becomes.to_owned()], Translated::Sent), "{line}");
        }
        let both = vec!["SET FIELDS 1 PXAT 8000".to_owned(), "SET PXAT 2 PXAT 8000".to_owned()];
        assert_eq!(sent("set", "MSETEX 2 FIELDS 1 PXAT 2 XX PXAT 7000"), (both, Translated::Sent));
    }

    #[test]
    fn what_an_older_shadow_lacks_is_written_in_its_words_and_what_it_cannot_hold_is_lost() {
        let (lines, translated) = sent("hset", "HSETEX h PXAT 7000 FIELDS 1 f v");
        assert_eq!(lines, ["HSET h f v"]);
        assert!(matches!(translated, Translated::Lost(why) if why.contains("hash fields")));
        assert_eq!(sent("hset", "HSETEX h FIELDS 1 f v"), (vec!["HSET h f v".to_owned()], Translated::Sent));
        for line in ["HPEXPIREAT h 7000 FIELDS 1 f", "NEWER k v"] {
            let (lines, translated) = sent("hset", line);
            assert!(lines.is_empty() && matches!(translated, Translated::Lost(_)), "{line}");
        }
    }

    #[test]
    fn messages_and_own_keys_are_dropped_and_nonsense_is_left_to_the_shadow() {
        for line in ["PUBLISH c m", "SPUBLISH c m", "SET __crossfade:smoke:a 1", "DEL __crossfade:a __crossfade:b"] {
            assert_eq!(sent("set del publish", line), (Vec::new(), Translated::Dropped), "{line}");
        }
        for line in ["HSETEX FIELDS", "HSETEX k FIELDS", "MSETEX 9 a b", "SET k", "PEXPIREAT k", "MSETEX x a b"] {
            assert_eq!(sent("hsetex", line), (vec![line.to_owned()], Translated::Sent), "{line}");
        }
    }
}
