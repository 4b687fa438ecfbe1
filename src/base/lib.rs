//! The vocabulary of the product and small additions to the standard library, for every other crate. No I/O, no protocol.

pub mod model;
pub mod stdx;
