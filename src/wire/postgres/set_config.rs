//! Calls of set_config() in a statement's text. Pure; any thread. Reads literals, not expressions.

use super::lex::{Lexer, Token, is, is_one_of};
use base::model::limits;

/// The arguments of a set_config() as far as they are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConfigCall<'a> {
    /// The name, when it is a literal that means what is written; `None` for every other expression.
    pub name: Option<&'a [u8]>,
    /// The value, likewise.
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
