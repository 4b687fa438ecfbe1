//! RESP2 and RESP3.

pub mod value;
