//! SQL as far as it is understood: the lexer ends, statements are parts of the text, facts and settings never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::postgres::facts::facts;
use wire::postgres::lex::statements;
use wire::postgres::settings::effects;

fuzz_target!(|sql: &[u8]| {
    let all: Vec<&[u8]> = statements(sql).collect();
    assert!(all.iter().map(|statement| statement.len()).sum::<usize>() <= sql.len());
    for statement in all {
        let _ = facts(statement);
        let _ = effects(statement);
    }
    let _ = facts(sql);
});
