//! What a statement's text says about itself: its class, what session state it leaves behind, whether it is DDL. Pure, allocates
//! nothing; 50 to 150 ns for a statement of up to 70 bytes, then some 3 ns a byte.
//!
//! Text tells only so much: a SELECT that calls a function of the application counts as a read, a trigger's SET is not seen. What must
//! be exact is asked of the server when a session is moved (design: introspection at drain time).

use super::lex::{Lexer, Token};
use base::model::limits;

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

/// Kinds of state a statement leaves in its session; a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Keeps(u16);

impl Keeps {
    pub const NONE: Self = Self(0);
    /// SET for the session, of a name without a dot.
    pub const SET: Self = Self(1);
    pub const LISTEN: Self = Self(1 << 1);
    pub const TEMP_TABLE: Self = Self(1 << 2);
    /// Held by the session, not by the transaction.
    pub const ADVISORY_LOCK: Self = Self(1 << 3);
    /// DECLARE … WITH HOLD.
    pub const HELD_CURSOR: Self = Self(1 << 4);
    /// PREPARE as SQL.
    pub const SQL_PREPARE: Self = Self(1 << 5);
    /// An open descriptor, until the transaction ends.
    pub const LARGE_OBJECT: Self = Self(1 << 6);
    /// set_config() that is not local.
    pub const SET_CONFIG: Self = Self(1 << 7);
    /// nextval() or setval(): what currval() and lastval() answer.
    pub const CURRVAL: Self = Self(1 << 8);
    /// SET or set_config() of a name with a dot, which pg_settings does not show.
    pub const CUSTOM_SETTING: Self = Self(1 << 9);
    /// A named statement of the protocol; never in [`Facts`].
    pub const PREPARED: Self = Self(1 << 10);

    /// Names in the order they are shown. SET and SET_CONFIG are one thing to an operator.
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self(1 | 1 << 7), "set"),
        (Self::CUSTOM_SETTING, "custom setting"),
        (Self::LISTEN, "listen"),
        (Self::TEMP_TABLE, "temp table"),
        (Self::ADVISORY_LOCK, "advisory lock"),
        (Self::HELD_CURSOR, "held cursor"),
        (Self::SQL_PREPARE, "sql prepare"),
        (Self::LARGE_OBJECT, "large object"),
        (Self::CURRVAL, "currval"),
        (Self::PREPARED, "prepared"),
    ];

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// For people and for `SessionInfo::keeps`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(own, _)| self.0 & own.0 != 0).map(|(_, name)| *name)
    }
}

impl std::ops::BitOr for Keeps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Keeps {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What is known of a text of one or more statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub class: Class,
    /// The first statement's first key word in lower case, or "other".
    pub name: &'static str,
    pub keeps: Keeps,
    /// Changes the schema, which logical replication does not carry.
    pub ddl: bool,
    /// Statements that are not empty; each is answered by one CommandComplete.
    pub statements: u32,
}

/// How a statement is looked at after its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
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

type Row = (&'static str, Class, Form, bool, Keeps);

/// First words: class, form, DDL, what it keeps.
fn keyword(word: &[u8]) -> Option<Row> {
    use Class::{Opaque, Read, Session, Transaction, Write};
    let mut lower = [0u8; 12];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let plain = |name, class| (name, class, Form::Plain, false, Keeps::NONE);
    let formed = |name, class, form| (name, class, form, false, Keeps::NONE);
    let ddl = |name| (name, Write, Form::Plain, true, Keeps::NONE);
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
        b"listen" => ("listen", Session, Form::Plain, false, Keeps::LISTEN),
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

/// The facts of a text, which may be cut anywhere.
#[must_use]
pub fn facts(sql: &[u8]) -> Facts {
    let mut all = Facts { class: Class::Read, name: "other", keeps: Keeps::NONE, ddl: false, statements: 0 };
    let mut lexer = Lexer::new(sql);
    while let Some(token) = lexer.next() {
        let first = match token {
            Token::End | Token::Mark(b'(') => continue,
            Token::Word(word) => keyword(word),
            Token::Quoted(_) | Token::Text { .. } | Token::Mark(_) => None,
        };
        let (name, class, form, ddl, keeps) =
            first.unwrap_or(("other", Class::Opaque, Form::Plain, false, Keeps::NONE));
        let mut one = Statement { class, form, ddl, keeps, words: 0, previous: b"", analyze: false };
        one.read(&mut lexer);
        all.name = if all.statements == 0 { name } else { all.name };
        all.statements += 1;
        all.class = all.class.max(one.class);
        all.keeps |= one.keeps;
        all.ddl |= one.ddl;
    }
    all
}

/// One statement being read, after its first word.
struct Statement<'a> {
    class: Class,
    form: Form,
    ddl: bool,
    keeps: Keeps,
    /// Words seen after the first one, at any depth.
    words: u32,
    previous: &'a [u8],
    /// EXPLAIN ANALYZE.
    analyze: bool,
}

#[inline]
fn is(word: &[u8], other: &str) -> bool {
    word.len() == other.len() && word.eq_ignore_ascii_case(other.as_bytes())
}

fn is_one_of(word: &[u8], others: &[&str]) -> bool {
    others.iter().any(|other| is(word, other))
}

impl<'a> Statement<'a> {
    fn read(&mut self, lexer: &mut Lexer<'a>) {
        let mut depth = 0u32;
        while let Some(token) = lexer.next() {
            match token {
                Token::End => break,
                Token::Mark(b'(') => depth += 1,
                Token::Mark(b')') => depth = depth.saturating_sub(1),
                Token::Word(word) => self.word(word, depth, lexer),
                Token::Quoted(word) => self.form_word(word, depth, lexer),
                Token::Text { .. } | Token::Mark(_) => {}
            }
        }
    }

    #[inline]
    fn word(&mut self, word: &'a [u8], depth: u32, lexer: &mut Lexer<'a>) {
        // The functions that matter begin with one of these letters and have at least six.
        if word.len() >= 6 && matches!(word[0] | 0x20, b'n' | b's' | b'p' | b'l') && lexer.next_is(b'(') {
            self.call(word, lexer);
        }
        if self.form != Form::Plain {
            self.form_word(word, depth, lexer);
        }
    }

    /// What the form makes of its next word.
    fn form_word(&mut self, word: &'a [u8], depth: u32, lexer: &mut Lexer<'a>) {
        match self.form {
            Form::Plain => return,
            Form::Select | Form::With => self.select_word(word, depth),
            Form::Explain => self.explain_word(word, depth),
            Form::Set => self.set_word(word, lexer),
            Form::Copy if depth == 0 && is(word, "to") => self.class = Class::Read,
            Form::Create => self.create_word(word, lexer),
            Form::Declare if is(self.previous, "with") && is(word, "hold") => {
                self.class = Class::Session;
                self.keeps |= Keeps::HELD_CURSOR;
            }
            Form::Prepare if self.words == 0 && is(word, "transaction") => self.class = Class::Transaction,
            Form::Prepare if self.words == 0 => self.keeps |= Keeps::SQL_PREPARE,
            // ALTER SYSTEM and ALTER DATABASE … SET are no schema, but nothing replication carries either.
            Form::Alter => self.ddl = true,
            Form::Copy | Form::Declare | Form::Prepare => {}
        }
        self.words += 1;
        self.previous = word;
    }

    fn select_word(&mut self, word: &[u8], depth: u32) {
        match word.len() {
            4 if is(self.previous, "into") && is(word, "temp") => self.keep_temp_table(),
            9 if is(self.previous, "into") && is(word, "temporary") => self.keep_temp_table(),
            4 if depth == 0 && is(word, "into") && self.form == Form::Select => {
                (self.class, self.ddl) = (self.class.max(Class::Write), true);
            }
            // FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE, FOR KEY SHARE.
            2 | 3 | 5 | 6 if is(self.previous, "for") && is_one_of(word, &["update", "no", "share", "key"]) => {
                self.class = self.class.max(Class::Write);
            }
            6 | 5 if self.form == Form::With && is_one_of(word, &["insert", "update", "delete", "merge"]) => {
                self.class = self.class.max(Class::Write);
            }
            _ => {}
        }
    }

    fn keep_temp_table(&mut self) {
        self.keeps |= Keeps::TEMP_TABLE;
        self.ddl = false;
    }

    fn explain_word(&mut self, word: &[u8], depth: u32) {
        if is_one_of(word, &["analyze", "analyse"]) {
            self.analyze = true;
        } else if depth == 0 && !is_one_of(word, &["verbose"]) {
            let inner = keyword(word).filter(|_| self.analyze);
            let (_, class, form, ddl, keeps) = inner.unwrap_or(("", Class::Read, Form::Plain, false, Keeps::NONE));
            (self.class, self.form, self.ddl) = (class, form, ddl);
            self.keeps |= keeps;
        }
    }

    /// SET [SESSION | LOCAL] name …; the first words decide.
    fn set_word(&mut self, word: &[u8], lexer: &mut Lexer<'a>) {
        let after_session = self.words == 1 && is(self.previous, "session");
        if self.words > 0 && !after_session {
            return;
        }
        let transaction = is_one_of(word, &["local", "transaction", "constraints"]);
        if self.words == 0 && transaction {
            self.class = Class::Transaction;
        } else if !(self.words == 0 && is(word, "session")) {
            self.keeps |= if lexer.next_is(b'.') || word.contains(&b'.') { Keeps::CUSTOM_SETTING } else { Keeps::SET };
        }
    }

    fn create_word(&mut self, word: &[u8], lexer: &mut Lexer<'a>) {
        if self.words == 0 {
            self.ddl = true;
        }
        let early = self.words < 4;
        if early && is_one_of(word, &["temp", "temporary"])
            || self.words < 6 && is(word, "pg_temp") && lexer.next_is(b'.')
        {
            self.keep_temp_table();
        } else if is(word, "drop") && is(self.previous, "commit") {
            // ON COMMIT DROP: gone with the transaction.
            self.keeps = self.keeps.without(Keeps::TEMP_TABLE);
        }
    }

    /// A function known to change more than its result.
    fn call(&mut self, name: &[u8], lexer: &Lexer<'a>) {
        let mut lower = [0u8; 32];
        let Some(lower) = lower.get_mut(..name.len()) else { return };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let (class, keeps) = match &*lower {
            b"nextval" | b"setval" => (Class::Write, Keeps::CURRVAL),
            b"set_config" => match config_call(&mut lexer.clone()) {
                ConfigCall { local: true, .. } => (Class::Transaction, Keeps::NONE),
                ConfigCall { name: Some(name), .. } if name.contains(&b'.') => (Class::Session, Keeps::CUSTOM_SETTING),
                ConfigCall { .. } => (Class::Session, Keeps::SET_CONFIG),
            },
            b"pg_advisory_lock"
            | b"pg_advisory_lock_shared"
            | b"pg_try_advisory_lock"
            | b"pg_try_advisory_lock_shared" => (Class::Session, Keeps::ADVISORY_LOCK),
            lower if lower.starts_with(b"pg_advisory_unlock") => (Class::Session, Keeps::NONE),
            lower if lower.starts_with(b"pg_advisory_xact") || lower.starts_with(b"pg_try_advisory_xact") => {
                (Class::Write, Keeps::NONE)
            }
            b"lo_open" => (Class::Write, Keeps::LARGE_OBJECT),
            b"pg_notify" | b"lowrite" => (Class::Write, Keeps::NONE),
            lower if lower.starts_with(b"lo_") && !matches!(lower, b"lo_get" | b"lo_export") => {
                (Class::Write, Keeps::NONE)
            }
            _ => return,
        };
        self.class = self.class.max(class);
        self.keeps |= keeps;
    }
}

/// The arguments of a set_config() as far as they are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConfigCall<'a> {
    /// Literals without anything to replace; `None` for every other expression.
    pub name: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The third argument is plainly true.
    pub local: bool,
}

/// Reads the arguments, from the opening parenthesis on.
#[must_use]
pub fn config_call<'a>(lexer: &mut Lexer<'a>) -> ConfigCall<'a> {
    let mut call = ConfigCall::default();
    let (mut depth, mut argument, mut tokens) = (0u32, 0u32, 0u32);
    for token in lexer.by_ref().take(limits::PG_CONFIG_CALL_TOKENS_MAX) {
        match token {
            Token::Mark(b'(') => depth += 1,
            Token::Mark(b')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            Token::Mark(b',') if depth == 1 => (argument, tokens) = (argument + 1, 0),
            Token::End => break,
            Token::Word(word) if argument == 2 && tokens == 0 => {
                call.local = is(word, "true");
                tokens += 1;
            }
            Token::Text { inside, plain } if tokens == 0 && depth == 1 => {
                tokens += 1;
                match argument {
                    0 if plain => call.name = Some(inside),
                    1 if plain => call.value = Some(inside),
                    2 => call.local = is_one_of(inside, &["t", "true", "on", "yes", "1"]),
                    _ => {}
                }
            }
            // A cast of the literal changes nothing ('a'::text); anything else makes it an expression.
            Token::Mark(b':') => tokens += 1,
            Token::Word(word) if is_one_of(word, &["text", "boolean", "bool", "varchar"]) => tokens += 1,
            Token::Word(_) | Token::Quoted(_) | Token::Text { .. } | Token::Mark(_) => {
                tokens += 1;
                match argument {
                    0 => call.name = None,
                    1 => call.value = None,
                    _ => call.local = false,
                }
            }
        }
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, class: Class, name: &str, keeps: &[&str], ddl: bool) {
        let facts = facts(sql.as_bytes());
        let names: Vec<_> = facts.keeps.names().collect();
        assert_eq!((facts.class, facts.name, &names[..], facts.ddl), (class, name, keeps, ddl), "{sql}");
    }

    #[test]
    fn statements_by_class() {
        use Class::{Opaque, Read, Session, Transaction, Write};
        let table: &[(&str, Class, &str, &[&str], bool)] = &[
            ("select 1", Read, "select", &[], false),
            ("  -- x\n /* /* */ */ (( SELECT 1))", Read, "select", &[], false),
            ("select * from t for update", Write, "select", &[], false),
            ("select * from t for no key update skip locked", Write, "select", &[], false),
            ("select * from t for share", Write, "select", &[], false),
            ("select substring(a for 3) from t", Read, "select", &[], false),
            ("select ' for update; drop table t'", Read, "select", &[], false),
            ("select a into b from t", Write, "select", &[], true),
            ("select a into temp b from t", Write, "select", &["temp table"], false),
            ("select nextval('s')", Write, "select", &["currval"], false),
            ("select pg_advisory_lock(1)", Session, "select", &["advisory lock"], false),
            ("select pg_catalog.pg_try_advisory_lock(1)", Session, "select", &["advisory lock"], false),
            ("select pg_advisory_xact_lock(1)", Write, "select", &[], false),
            ("select pg_advisory_unlock(1)", Session, "select", &[], false),
            ("select set_config('a.b', 'v', false)", Session, "select", &["custom setting"], false),
            ("select set_config('work_mem', $1, false)", Session, "select", &["set"], false),
            ("select set_config('a.b', 'v', true)", Transaction, "select", &[], false),
            ("select set_config($1, $2, $3)", Session, "select", &["set"], false),
            ("select lo_open(1, 2)", Write, "select", &["large object"], false),
            ("select lo_unlink (1)", Write, "select", &[], false),
            ("select pg_notify('a', 'b')", Write, "select", &[], false),
            ("select nextval from t", Read, "select", &[], false),
            ("insert into t values (1)", Write, "insert", &[], false),
            ("insert into t values (nextval('s'))", Write, "insert", &["currval"], false),
            ("with a as (select 1) select * from a", Read, "with", &[], false),
            ("with a as (delete from t returning *) select * from a", Write, "with", &[], false),
            ("with a as (select 1) update t set x = 1", Write, "with", &[], false),
            ("explain delete from t", Read, "explain", &[], false),
            ("explain analyze delete from t", Write, "explain", &[], false),
            ("explain (analyze, buffers) select 1", Read, "explain", &[], false),
            ("EXPLAIN ANALYZE VERBOSE insert into t select 1", Write, "explain", &[], false),
            ("values (1)", Read, "values", &[], false),
            ("copy t from stdin", Write, "copy", &[], false),
            ("copy t (a, b) to stdout", Read, "copy", &[], false),
            ("copy (select 1) to stdout", Read, "copy", &[], false),
            ("set work_mem = '1MB'", Session, "set", &["set"], false),
            ("set session work_mem to '1MB'", Session, "set", &["set"], false),
            ("set app.tenant = '1'", Session, "set", &["custom setting"], false),
            ("set local app.tenant = '1'", Transaction, "set", &[], false),
            ("set transaction read only", Transaction, "set", &[], false),
            ("set constraints all deferred", Transaction, "set", &[], false),
            ("set session characteristics as transaction read only", Session, "set", &["set"], false),
            ("set time zone 'UTC'", Session, "set", &["set"], false),
            ("reset all", Session, "reset", &[], false),
            ("discard all", Session, "discard", &[], false),
            ("listen a", Session, "listen", &["listen"], false),
            ("notify a", Write, "notify", &[], false),
            ("prepare p as select 1", Session, "prepare", &["sql prepare"], false),
            ("prepare transaction 'x'", Transaction, "prepare", &[], false),
            ("execute p", Opaque, "execute", &[], false),
            ("do $$ begin perform 1; end $$", Opaque, "do", &[], false),
            ("declare c cursor for select 1", Read, "declare", &[], false),
            ("declare c cursor with hold for select 1", Session, "declare", &["held cursor"], false),
            ("create table t (a int)", Write, "create", &[], true),
            ("create temp table t (a int)", Write, "create", &["temp table"], false),
            ("create temporary table t (a int) on commit drop", Write, "create", &[], false),
            ("create table pg_temp.t (a int)", Write, "create", &["temp table"], false),
            ("create or replace temp view v as select 1", Write, "create", &["temp table"], false),
            (
                "create function f() returns int begin atomic select 1; select nextval('x'); end",
                Write,
                "create",
                &["currval"],
                true,
            ),
            ("alter table t add b int", Write, "alter", &[], true),
            ("truncate t", Write, "truncate", &[], false),
            ("begin isolation level serializable", Transaction, "begin", &[], false),
            ("rollback to savepoint a", Transaction, "rollback", &[], false),
            ("show work_mem", Read, "show", &[], false),
            ("frobnicate", Opaque, "other", &[], false),
            ("extraordinarily_long_first_word", Opaque, "other", &[], false),
            ("", Read, "other", &[], false),
            (" ; -- nothing", Read, "other", &[], false),
            ("begin; insert into t values (1); commit", Write, "begin", &[], false),
            ("set a.b = 1; listen x; select 1", Session, "set", &["custom setting", "listen"], false),
            ("select 1; drop table t", Write, "select", &[], true),
        ];
        for (sql, class, name, keeps, ddl) in table {
            check(sql, *class, name, keeps, *ddl);
            check(&sql.to_uppercase(), *class, name, keeps, *ddl);
        }
    }

    #[test]
    fn statements_are_counted_as_the_server_counts_them() {
        for (sql, count) in [("", 0), (";;", 0), ("select 1", 1), ("select 1;", 1), ("begin; select ';'; end", 3)] {
            assert_eq!(facts(sql.as_bytes()).statements, count, "{sql}");
        }
    }

    #[test]
    fn every_kind_of_state_has_a_name() {
        let all = Keeps(0x7ff);
        assert_eq!(all.names().count(), 10);
        assert_eq!(Keeps::SET_CONFIG.names().collect::<Vec<_>>(), ["set"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(bytes: Vec<u8>, sql in "(select|set|create|with|explain|prepare|set_config\\(|'|;|[a-z. ()]){0,20}") {
            let _ = facts(&bytes);
            for end in 0..=sql.len() {
                let _ = facts(&sql.as_bytes()[..end]);
            }
        }
    }
}
