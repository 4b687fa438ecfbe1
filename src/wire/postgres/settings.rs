//! What a statement does to its session, for the few statements that do: SET, RESET, set_config(), LISTEN, DEALLOCATE, DISCARD,
//! and those that end or roll back a transaction. Pure; any thread. Called only for a text whose [`super::facts`] say that it does
//! something.
//!
//! It reads statements, not expressions: of a set_config() whose arguments are not literals it is known that it was called, but not what
//! it set.

use super::facts::{self, Class, Keeps};
use super::lex::{Lexer, Token};
use super::set_config::config_call;
use base::model::limits;

/// One change to the session, taking effect when the statement's CommandComplete arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Set(Setting),
    /// A set_config() whose name is not a literal.
    SetUnknown,
    /// The setting of this name, in lower case as in [`Setting`].
    Reset(String),
    ResetAll,
    Listen(String),
    Unlisten(String),
    UnlistenAll,
    /// COMMIT, END and PREPARE TRANSACTION; the answer may still be ROLLBACK.
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    Deallocate(String),
    DeallocateAll,
    DiscardAll,
    /// These kinds of state are gone.
    Forget(Keeps),
    /// These kinds of state are there now.
    Keep(Keeps),
}

/// A setting made in the stream that outlives its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Lower case, as pg_settings has it where it does: "timezone" for SET TIME ZONE, "search_path" for SET SCHEMA.
    pub name: String,
    /// The statement that makes the setting again. `None` when the value was not a literal or is too long: `current_setting(name)` tells.
    pub statement: Option<String>,
}

/// Words, quoted identifiers and marks of one statement, one at a time.
struct Words<'a> {
    lexer: Lexer<'a>,
    next: Option<Token<'a>>,
}

impl<'a> Words<'a> {
    fn new(statement: &'a [u8]) -> Self {
        let mut lexer = Lexer::new(statement);
        let next = lexer.next();
        Self { lexer, next }
    }

    fn take(&mut self) -> Option<Token<'a>> {
        std::mem::replace(&mut self.next, self.lexer.next())
    }

    /// Takes the next token if it is this key word.
    fn took(&mut self, keyword: &str) -> bool {
        let is = matches!(self.next, Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword.as_bytes()));
        if is {
            self.take();
        }
        is
    }

    /// An identifier, folded as the server folds it; `None`: none is next.
    fn name(&mut self) -> Option<String> {
        let name = match self.next? {
            Token::Word(word) => text(word).to_ascii_lowercase(),
            Token::Quoted(word) => text(word).replace("\"\"", "\""),
            Token::Text { .. } | Token::Mark(_) | Token::End => return None,
        };
        self.take();
        Some(name)
    }

    /// The name of a setting, with its dots.
    fn setting_name(&mut self) -> Option<String> {
        let mut name = self.name()?;
        while self.next == Some(Token::Mark(b'.')) {
            self.take();
            name = format!("{name}.{}", self.name()?);
        }
        name.make_ascii_lowercase();
        Some(name)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What one statement (without its `;`) does to the session; nothing for most.
#[must_use]
pub fn effects(statement: &[u8]) -> Vec<Effect> {
    let mut words = Words::new(statement);
    let mut found = Vec::new();
    let Some(Token::Word(first)) = words.take() else { return of_facts(statement) };
    match &*text(first).to_ascii_lowercase() {
        "set" => set(statement, &mut words, &mut found),
        "reset" => found.extend(reset(&mut words)),
        "listen" => found.extend(words.name().map(Effect::Listen)),
        "unlisten" if words.next == Some(Token::Mark(b'*')) => found.push(Effect::UnlistenAll),
        "unlisten" => found.extend(words.name().map(Effect::Unlisten)),
        "commit" | "end" if !ends_prepared(&mut words) => found.push(Effect::Commit),
        "rollback" | "abort" if !ends_prepared(&mut words) => found.extend(rollback(&mut words)),
        "savepoint" => found.extend(words.name().map(Effect::Savepoint)),
        "release" => {
            words.took("savepoint");
            found.extend(words.name().map(Effect::Release));
        }
        "prepare" if words.took("transaction") => found.push(Effect::Commit),
        "deallocate" => {
            words.took("prepare");
            found.extend(if words.took("all") {
                Some(Effect::DeallocateAll)
            } else {
                words.name().map(Effect::Deallocate)
            });
        }
        "discard" => found.extend(discard(&mut words)),
        "close" if words.took("all") => found.push(Effect::Forget(Keeps::HELD_CURSOR)),
        _ => return of_facts(statement),
    }
    found
}

/// Reads what follows COMMIT or ROLLBACK, WORK and TRANSACTION included; true for COMMIT PREPARED and ROLLBACK PREPARED, which end a
/// transaction that is not this session's.
fn ends_prepared(words: &mut Words<'_>) -> bool {
    if words.took("prepared") {
        return true;
    }
    let _ = words.took("work") || words.took("transaction");
    false
}

fn rollback(words: &mut Words<'_>) -> Option<Effect> {
    if words.took("to") {
        words.took("savepoint");
        return words.name().map(Effect::RollbackTo);
    }
    Some(Effect::Rollback)
}

fn discard(words: &mut Words<'_>) -> Option<Effect> {
    Some(match words.name()?.as_str() {
        "all" => Effect::DiscardAll,
        "temp" | "temporary" => Effect::Forget(Keeps::TEMP_TABLE),
        "sequences" => Effect::Forget(Keeps::CURRVAL),
        _ => return None,
    })
}

fn reset(words: &mut Words<'_>) -> Option<Effect> {
    if words.took("all") {
        return Some(Effect::ResetAll);
    }
    if words.took("session") {
        return words.took("authorization").then(|| Effect::Reset("session_authorization".to_owned()));
    }
    if words.took("time") {
        return Some(Effect::Reset("timezone".to_owned()));
    }
    words.setting_name().map(Effect::Reset)
}

/// Reads what follows SET (the manual's pages SET, SET ROLE, SET SESSION AUTHORIZATION, SET TRANSACTION).
fn set(statement: &[u8], words: &mut Words<'_>, found: &mut Vec<Effect>) {
    if words.took("local") || words.took("transaction") || words.took("constraints") {
        return;
    }
    let made = |name: &str| Effect::Set(Setting { name: name.to_owned(), statement: repeatable(statement) });
    if words.took("session") {
        if words.took("characteristics") {
            while let Some(token) = words.take() {
                let Token::Word(word) = token else { continue };
                match &*text(word).to_ascii_lowercase() {
                    "isolation" => found.push(made("default_transaction_isolation")),
                    "only" | "write" => found.push(made("default_transaction_read_only")),
                    "deferrable" => found.push(made("default_transaction_deferrable")),
                    _ => {}
                }
            }
            return;
        }
        if words.took("authorization") {
            found.push(Effect::Reset("role".to_owned()));
            found.push(if words.took("default") {
                Effect::Reset("session_authorization".to_owned())
            } else {
                made("session_authorization")
            });
            return;
        }
    }
    let Some(name) = words.setting_name() else { return };
    let name = match name.as_str() {
        "time" if words.took("zone") => "timezone",
        "names" => "client_encoding",
        "schema" => "search_path",
        "xml" => "xmloption",
        name => name,
    };
    let _ = words.took("to") || (words.next == Some(Token::Mark(b'=')) && words.take().is_some());
    let default = words.took("default") || (name == "timezone" && words.took("local"));
    found.push(if default { Effect::Reset(name.to_owned()) } else { made(name) });
}

/// The statement itself, when it is UTF-8 and short enough to be kept.
fn repeatable(statement: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(statement).ok()?.trim();
    (text.len() <= limits::PG_SETTING_BYTES_MAX).then(|| text.to_owned())
}

/// What functions and options in the statement do.
fn of_facts(statement: &[u8]) -> Vec<Effect> {
    let facts = facts::facts(statement);
    let mut found = Vec::new();
    let settings = Keeps::SET_CONFIG | Keeps::CUSTOM_SETTING;
    if !facts.keeps.without(settings | Keeps::SET | Keeps::LISTEN).is_empty() {
        found.push(Effect::Keep(facts.keeps.without(settings | Keeps::SET | Keeps::LISTEN)));
    }
    if facts.class < Class::Session {
        return found;
    }
    let mut lexer = Lexer::new(statement);
    while let Some(token) = lexer.next() {
        let Token::Word(word) = token else { continue };
        if word.eq_ignore_ascii_case(b"set_config") && lexer.next_is(b'(') {
            let call = config_call(&mut lexer);
            if !call.local {
                found.push(of_call(call.name, call.value));
            }
        } else if word.eq_ignore_ascii_case(b"pg_advisory_unlock_all") && lexer.next_is(b'(') {
            found.push(Effect::Forget(Keeps::ADVISORY_LOCK));
        }
    }
    found
}

fn of_call(name: Option<&[u8]>, value: Option<&[u8]>) -> Effect {
    let Some(name) = name else { return Effect::SetUnknown };
    let name = text(name).to_ascii_lowercase();
    // A dollar-quoted text may contain a quote.
    let written = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| text.replace('\'', "''"));
    let value = value.filter(|value| value.len() <= limits::PG_SETTING_BYTES_MAX).and_then(written);
    let statement =
        value.map(|value| format!("SELECT pg_catalog.set_config('{}', '{value}', false)", name.replace('\'', "''")));
    Effect::Set(Setting { name, statement })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, statement: &str) -> Effect {
        Effect::Set(Setting { name: name.to_owned(), statement: Some(statement.to_owned()) })
    }

    fn named(name: &str) -> Effect {
        Effect::Set(Setting { name: name.to_owned(), statement: None })
    }

    #[track_caller]
    fn check(table: Vec<(&str, Vec<Effect>)>) {
        for (sql, expected) in table {
            assert_eq!(effects(sql.as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn set_and_reset() {
        use Effect::{Reset, ResetAll};
        let s = str::to_owned;
        let itself = |name: &str, sql: &str| vec![made(name, sql)];
        check(vec![
            ("set work_mem = '1MB'", itself("work_mem", "set work_mem = '1MB'")),
            (" SET SESSION Work_Mem TO 5 ", itself("work_mem", "SET SESSION Work_Mem TO 5")),
            ("set App.\"Tenant\" = 'x'", itself("app.tenant", "set App.\"Tenant\" = 'x'")),
            ("set work_mem to default", vec![Reset(s("work_mem"))]),
            ("set work_mem = default", vec![Reset(s("work_mem"))]),
            ("set local work_mem = 1", vec![]),
            ("set transaction read only", vec![]),
            ("set time zone 'UTC'", itself("timezone", "set time zone 'UTC'")),
            ("set time zone local", vec![Reset(s("timezone"))]),
            ("set names 'latin1'", itself("client_encoding", "set names 'latin1'")),
            ("set schema 'x'", itself("search_path", "set schema 'x'")),
            ("set role ann", itself("role", "set role ann")),
            ("set session authorization default", vec![Reset(s("role")), Reset(s("session_authorization"))]),
            (
                "set session characteristics as transaction isolation level serializable, read only",
                ["default_transaction_isolation", "default_transaction_read_only"]
                    .map(|name| {
                        made(name, "set session characteristics as transaction isolation level serializable, read only")
                    })
                    .to_vec(),
            ),
            ("reset a.b", vec![Reset(s("a.b"))]),
            ("reset all", vec![ResetAll]),
            ("reset time zone", vec![Reset(s("timezone"))]),
            ("reset session authorization", vec![Reset(s("session_authorization"))]),
        ]);
        let long = format!("set a.b = '{}'", "x".repeat(limits::PG_SETTING_BYTES_MAX));
        assert_eq!(effects(long.as_bytes()), [named("a.b")]);
    }

    #[test]
    fn channels_transactions_and_what_is_discarded() {
        use Effect::{
            Commit, Deallocate, DeallocateAll, DiscardAll, Forget, Keep, Listen, Release, Rollback, RollbackTo,
            Savepoint, Unlisten, UnlistenAll,
        };
        let s = str::to_owned;
        check(vec![
            ("listen Chan", vec![Listen(s("chan"))]),
            ("listen \"Cha\"\"n\"", vec![Listen(s("Cha\"n"))]),
            ("unlisten chan", vec![Unlisten(s("chan"))]),
            ("unlisten *", vec![UnlistenAll]),
            ("commit", vec![Commit]),
            ("END work", vec![Commit]),
            ("commit prepared 'x'", vec![]),
            ("rollback prepared 'x'", vec![]),
            ("prepare transaction 'x'", vec![Commit]),
            ("rollback", vec![Rollback]),
            ("abort transaction", vec![Rollback]),
            ("rollback work to savepoint A", vec![RollbackTo(s("a"))]),
            ("rollback to a", vec![RollbackTo(s("a"))]),
            ("savepoint a", vec![Savepoint(s("a"))]),
            ("release savepoint a", vec![Release(s("a"))]),
            ("deallocate prepare all", vec![DeallocateAll]),
            ("deallocate x", vec![Deallocate(s("x"))]),
            ("discard all", vec![DiscardAll]),
            ("discard temp", vec![Forget(Keeps::TEMP_TABLE)]),
            ("discard plans", vec![]),
            ("close all", vec![Forget(Keeps::HELD_CURSOR)]),
            ("close c", vec![]),
            ("prepare x as select 1", vec![Keep(Keeps::SQL_PREPARE)]),
            ("create temp table t ()", vec![Keep(Keeps::TEMP_TABLE)]),
        ]);
    }

    #[test]
    fn functions_that_change_the_session() {
        use Effect::{Forget, Keep, SetUnknown};
        check(vec![
            ("select 1", vec![]),
            ("begin", vec![]),
            (
                "select set_config('a.B', 'it', false)",
                vec![made("a.b", "SELECT pg_catalog.set_config('a.b', 'it', false)")],
            ),
            (
                "select pg_catalog.set_config('a.b', $$it's$$, false)",
                vec![made("a.b", "SELECT pg_catalog.set_config('a.b', 'it''s', false)")],
            ),
            ("select set_config('a.b', 'x', true)", vec![]),
            ("select set_config('a.b', $1, false)", vec![named("a.b")]),
            ("select set_config('a.b', 'x' || y, false)", vec![named("a.b")]),
            ("select set_config(a, b, false) from t", vec![SetUnknown]),
            (
                "select set_config('a.b', '1', false), set_config('a.c', '2', false)",
                ["b", "c"]
                    .iter()
                    .zip(1..)
                    .map(|(name, value)| {
                        let statement = format!("SELECT pg_catalog.set_config('a.{name}', '{value}', false)");
                        made(&format!("a.{name}"), &statement)
                    })
                    .collect(),
            ),
            ("select pg_advisory_unlock_all()", vec![Forget(Keeps::ADVISORY_LOCK)]),
            ("(select pg_advisory_lock(1))", vec![Keep(Keeps::ADVISORY_LOCK)]),
        ]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(
            bytes: Vec<u8>,
            sql in "(set|reset|session|discard|rollback|to|select|set_config|'a'|\"b\"|\\(|,|\\.| ){0,16}",
        ) {
            let _ = effects(&bytes);
            let _ = effects(sql.as_bytes());
        }
    }
}
