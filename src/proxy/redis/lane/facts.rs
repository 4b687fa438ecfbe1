//! A Redis command in the words of policies, which know no protocol: class, keys, what kind of reply is to come.

use super::caller::Caller;
use policy::{RequestFacts, abi};
use wire::resp::Args;
use wire::resp::command::{self, Class, Command, CompareRule, KeySpec};

/// One request, as far as it is needed to ask a policy.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub command: &'static Command,
    pub frame: &'a [u8],
    pub from: Caller,
    pub database: u32,
    pub in_transaction: bool,
}

impl<'a> Asked<'a> {
    /// The command's number in memos. Commands the table does not know share a row there, so nothing is remembered of them.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        (self.command.class != Class::Unknown).then(|| command::position(self.command) as u32)
    }

    #[must_use]
    pub fn keys(&self) -> Keys<'a> {
        Keys::Unread(self.command, self.frame)
    }
}

/// The keys of one request, looked for when first asked for: most commands are answered without.
#[derive(Debug, Clone)]
pub enum Keys<'a> {
    Unread(&'static Command, &'a [u8]),
    One(Option<&'a [u8]>),
    Many(std::vec::IntoIter<&'a [u8]>),
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Self::Unread(command, frame) = *self {
            *self = match command.keys {
                KeySpec::None => Self::One(None),
                KeySpec::Range(1, 1, 1) => Self::One(Args::new(frame).nth(1)),
                _ => Self::Many(command.keys_of(frame).unwrap_or_default().0.into_iter()),
            };
        }
        match self {
            Self::Unread(..) => None,
            Self::One(key) => key.take(),
            Self::Many(keys) => keys.next(),
        }
    }
}

/// Calls `ask` with the facts of this request.
pub fn with_facts<'a, T>(asked: &Asked<'a>, ask: impl FnOnce(RequestFacts<'_, Keys<'a>>) -> T) -> T {
    let Asked { command, frame, from, database, in_transaction } = *asked;
    let mut name = [0; abi::limits::COMMAND_BYTES_MAX];
    let given = match command.class {
        Class::Unknown => Args::new(frame).next().unwrap_or_default(),
        _ => command.name.as_bytes(),
    };
    let given = &given[..given.len().min(name.len())];
    let name = &mut name[..given.len()];
    name.copy_from_slice(given);
    name.make_ascii_uppercase();
    let digits;
    let database_text = if database == 0 {
        b"0".as_slice()
    } else {
        digits = database.to_string();
        digits.as_bytes()
    };
    let transaction = if in_transaction { abi::flags::REQUEST_IN_TRANSACTION } else { 0 };
    ask(RequestFacts {
        number: asked.number(),
        protocol: abi::Protocol::Redis,
        class: class(command),
        flags: flags(command.compare) | transaction,
        client: from.number(),
        database_number: database,
        database: database_text,
        command: name,
        keys: asked.keys(),
        frame,
    })
}

fn class(command: &Command) -> abi::Class {
    match command.class {
        Class::Read => abi::Class::Read,
        Class::Write | Class::Library | Class::ServerChange => abi::Class::Write,
        Class::Session(
            command::Session::Multi
            | command::Session::Exec
            | command::Session::Discard
            | command::Session::Watch
            | command::Session::Unwatch,
        ) => abi::Class::Transaction,
        Class::Server | Class::Session(_) | Class::Connection(_) => abi::Class::Session,
        Class::Unknown => abi::Class::Opaque,
    }
}

fn flags(rule: CompareRule) -> u32 {
    use abi::flags;
    match rule {
        CompareRule::Never => flags::REQUEST_NONDETERMINISTIC,
        CompareRule::Exact => 0,
        CompareRule::Scores => flags::REQUEST_FLOATS,
        CompareRule::Unordered => flags::REQUEST_UNORDERED,
        CompareRule::UnorderedPairs => flags::REQUEST_UNORDERED | flags::REQUEST_FIELD_PAIRS,
        // A deadline is compared with the same tolerance as what remains until then.
        CompareRule::RemainingMs | CompareRule::DeadlineMs => flags::REQUEST_TTL_MILLIS,
        CompareRule::RemainingSeconds | CompareRule::DeadlineSeconds => flags::REQUEST_TTL_SECONDS,
    }
}

/// Shape of a reply, by its first byte (RESP2 and RESP3).
#[must_use]
pub fn reply_kind(reply: &[u8]) -> abi::ReplyKind {
    match reply.first() {
        Some(b'+') => abi::ReplyKind::Ok,
        Some(b'-' | b'!') => abi::ReplyKind::Error,
        Some(b'$' | b'*') if reply.get(1) == Some(&b'-') => abi::ReplyKind::Nothing,
        Some(b'_') => abi::ReplyKind::Nothing,
        Some(b'$' | b'=') => abi::ReplyKind::Value,
        Some(b':' | b'(') => abi::ReplyKind::Integer,
        Some(b',') => abi::ReplyKind::Float,
        Some(b'#') => abi::ReplyKind::Boolean,
        Some(b'*') => abi::ReplyKind::List,
        Some(b'~') => abi::ReplyKind::Set,
        Some(b'%') => abi::ReplyKind::Map,
        Some(_) => abi::ReplyKind::Other,
        None => abi::ReplyKind::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::CoreId;
    use wire::resp::encode::request;

    fn of(line: &str) -> (Option<u32>, abi::Class, u32, String, Vec<String>) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let frame = request(&words);
        let from = Caller { core: CoreId(1), client: 2 };
        let asked =
            Asked { command: command::lookup(words[0]), frame: &frame, from, database: 3, in_transaction: true };
        with_facts(&asked, |facts| {
            assert_eq!((facts.database, facts.frame), (b"3".as_slice(), frame.as_slice()));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (facts.number, facts.class, facts.flags, text(facts.command), facts.keys.map(text).collect())
        })
    }

    #[test]
    fn commands_are_told_by_what_they_do_and_what_they_answer() {
        use abi::{Class, flags};
        let transaction = flags::REQUEST_IN_TRANSACTION;
        let (number, class, bits, name, keys) = of("get a");
        assert!(number.is_some());
        assert_eq!((class, bits, name.as_str(), keys), (Class::Read, transaction, "GET", vec!["a".to_owned()]));
        let (_, class, bits, _, keys) = of("SUNION a b");
        assert_eq!((class, bits), (Class::Read, transaction | flags::REQUEST_UNORDERED));
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(of("PTTL a").2, transaction | flags::REQUEST_TTL_MILLIS);
        assert_eq!(of("FLUSHALL").1, Class::Write);
        let (number, class, _, name, keys) = of("json.set a");
        assert_eq!((number, class, name.as_str(), keys.len()), (None, Class::Opaque, "JSON.SET", 0));
    }

    #[test]
    fn replies_have_a_kind() {
        use abi::ReplyKind;
        let kinds = [("+OK\r\n", ReplyKind::Ok), ("$-1\r\n", ReplyKind::Nothing), ("$1\r\na\r\n", ReplyKind::Value)];
        for (reply, kind) in kinds {
            assert_eq!(reply_kind(reply.as_bytes()), kind, "{reply:?}");
        }
        assert_eq!(reply_kind(b"*-1\r\n"), ReplyKind::Nothing);
        assert_eq!(reply_kind(b"*0\r\n"), ReplyKind::List);
        assert_eq!(reply_kind(b""), ReplyKind::Missing);
    }
}
