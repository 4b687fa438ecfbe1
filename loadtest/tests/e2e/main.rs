//! End-to-end tests: the real binary between real servers and real clients. One binary, one module per subject.

mod bad_input;
mod clients;
mod faults;
mod history;
mod migration;
mod values;
