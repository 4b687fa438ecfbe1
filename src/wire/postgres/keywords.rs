//! The first word of a statement: what it tells of the statement, and in which form the rest is to be read. Pure; any thread.

use super::keeps::Keeps;

/// What a statement does, the strongest last: of several in one text the strongest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Read,
    /// Begins, ends or shapes a transaction.
    Transaction,
    /// Changes only the session.
    Session,
    /// Changes data or schema, or takes locks.
    Write,
    /// Cannot be known: DO, CALL, EXECUTE, or no statement we know.
    Opaque,
}

/// How a statement is looked at after its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Only its functions matter.
    Plain,
    Select,
    With,
    Explain,
    Set,
    Copy,
    Create,
    Declare,
    Prepare,
    Alter,
}

/// What the first word of a statement tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyword {
    /// In lower case, or "other".
    pub name: &'static str,
    pub class: Class,
    pub form: Form,
    /// It changes the schema, whatever follows.
    pub ddl: bool,
    pub keeps: Keeps,
}

impl Keyword {
    /// A statement that begins with no word we know.
    pub const UNKNOWN: Self = Self::new("other", Class::Opaque, Form::Plain);

    const fn new(name: &'static str, class: Class, form: Form) -> Self {
        Self { name, class, form, ddl: false, keeps: Keeps::NONE }
    }
}

/// Looks up a statement's first word, in any case; `None`: it is no word we know.
pub(super) fn keyword(word: &[u8]) -> Option<Keyword> {
    use Class::{Opaque, Read, Session, Transaction, Write};
    let mut lower = [0u8; 12];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let plain = |name, class| Keyword::new(name, class, Form::Plain);
    let formed = Keyword::new;
    let ddl = |name| Keyword { ddl: true, ..Keyword::new(name, Write, Form::Plain) };
    Some(match &*lower {
        b"select" => formed("select", Read, Form::Select),
        b"insert" => plain("insert", Write),
        b"update" => plain("update", Write),
        b"delete" => plain("delete", Write),
        b"with" => formed("with", Read, Form::With),
        b"begin" => plain("begin", Transaction),
        b"commit" => plain("commit", Transaction),
        b"set" => formed("set", Session, Form::Set),
        b"merge" => plain("merge", Write),
        b"values" => plain("values", Read),
        b"table" => plain("table", Read),
        b"show" => plain("show", Read),
        b"explain" => formed("explain", Read, Form::Explain),
        b"fetch" => plain("fetch", Read),
        b"move" => plain("move", Read),
        b"close" => plain("close", Session),
        b"declare" => formed("declare", Read, Form::Declare),
        b"copy" => formed("copy", Write, Form::Copy),
        b"start" => plain("start", Transaction),
        b"end" => plain("end", Transaction),
        b"rollback" => plain("rollback", Transaction),
        b"abort" => plain("abort", Transaction),
        b"savepoint" => plain("savepoint", Transaction),
        b"release" => plain("release", Transaction),
        b"reset" => plain("reset", Session),
        b"discard" => plain("discard", Session),
        b"deallocate" => plain("deallocate", Session),
        b"listen" => Keyword { keeps: Keeps::LISTEN, ..plain("listen", Session) },
        b"unlisten" => plain("unlisten", Session),
        b"load" => plain("load", Session),
        b"prepare" => formed("prepare", Session, Form::Prepare),
        b"notify" => plain("notify", Write),
        b"lock" => plain("lock", Write),
        b"truncate" => plain("truncate", Write),
        b"vacuum" => plain("vacuum", Write),
        b"analyze" | b"analyse" => plain("analyze", Write),
        b"cluster" => plain("cluster", Write),
        b"reindex" => plain("reindex", Write),
        b"checkpoint" => plain("checkpoint", Write),
        b"refresh" => plain("refresh", Write),
        b"execute" => plain("execute", Opaque),
        b"call" => plain("call", Opaque),
        b"do" => plain("do", Opaque),
        b"create" => formed("create", Write, Form::Create),
        b"alter" => formed("alter", Write, Form::Alter),
        b"drop" => ddl("drop"),
        b"comment" => ddl("comment"),
        b"grant" => ddl("grant"),
        b"revoke" => ddl("revoke"),
        b"security" => ddl("security"),
        b"reassign" => ddl("reassign"),
        b"import" => ddl("import"),
        _ => return None,
    })
}
