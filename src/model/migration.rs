//! The record of a migration (being built)
