//! What a client is told before its connection ends: an ErrorResponse with severity FATAL. A value; lives on one core.

use wire::postgres::Violation;
use wire::postgres::encode::{self, More};

/// Why a connection ends, in PostgreSQL's terms.
#[derive(Debug)]
pub struct Refusal {
    sqlstate: &'static str,
    message: String,
    hint: Option<&'static str>,
}

impl Refusal {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), hint: None }
    }

    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// The ErrorResponse that says it.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let more = self.hint.map_or(More::NONE, More::hint);
        encode::error_response(&mut frame, "FATAL", self.sqlstate, &self.message, more);
        frame
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::new(violation.sqlstate, violation.message)
    }
}
