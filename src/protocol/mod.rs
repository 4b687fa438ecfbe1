//! (being built)

pub mod resp;
