//! What every other crate may name: the vocabulary of the product and what the standard library lacks. No I/O, no protocol.

pub mod model;
pub mod stdx;
