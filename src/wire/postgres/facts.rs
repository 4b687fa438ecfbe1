//! What a statement's text says about itself: its class, what session state it leaves behind, whether it is DDL. Pure, allocates
//! nothing; any thread. 50 to 150 ns for a statement of up to 70 bytes, then some 3 ns a byte.
//!
//! A text does not tell everything: a SELECT that calls a function of the application counts as a read, a trigger's SET is not seen.
//! What must be exact is asked of the server.

pub use super::keeps::Keeps;
pub use super::keywords::Class;
use super::keywords::{Form, Keyword, keyword};
use super::lex::{Lexer, Token, is, is_one_of};
use super::set_config::{ConfigCall, config_call};

/// What is known of a text of one or more statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The strongest class of its statements.
    pub class: Class,
    /// The first statement's first key word in lower case, or "other".
    pub name: &'static str,
    /// What its statements leave in the session.
    pub keeps: Keeps,
    /// Changes the schema, which logical replication does not copy.
    pub ddl: bool,
    /// Statements that are not empty; each is answered by one CommandComplete.
    pub statements: u32,
}

/// What a text says about itself. It may be cut anywhere; then the facts are those of its beginning.
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
        let Keyword { name, class, form, ddl, keeps } = first.unwrap_or(Keyword::UNKNOWN);
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
        // The names of the functions that matter begin with one of these letters and have at least six.
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
            // ALTER SYSTEM and ALTER DATABASE … SET do not change the schema, but replication does not copy them either.
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
            // Without ANALYZE the inner statement is not run.
            match keyword(word).filter(|_| self.analyze) {
                Some(inner) => {
                    (self.class, self.form, self.ddl) = (inner.class, inner.form, inner.ddl);
                    self.keeps |= inner.keeps;
                }
                None => (self.class, self.form, self.ddl) = (Class::Read, Form::Plain, false),
            }
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

    /// Notes a call of a function that is known to do more than return a result.
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

#[cfg(test)]
mod tests {
    use Class::{Opaque, Read, Session, Transaction, Write};

    use super::*;

    #[track_caller]
    fn check(sql: &str, class: Class, name: &str, keeps: &[&str], ddl: bool) {
        let facts = facts(sql.as_bytes());
        let names: Vec<_> = facts.keeps.names().collect();
        assert_eq!((facts.class, facts.name, &names[..], facts.ddl), (class, name, keeps, ddl), "{sql}");
    }

    /// A text and its class, name, kinds of state and whether it is DDL.
    type Expected = (&'static str, Class, &'static str, &'static [&'static str], bool);

    const STATEMENTS: &[Expected] = &[
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

    #[test]
    fn statements_by_class() {
        for (sql, class, name, keeps, ddl) in STATEMENTS {
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
