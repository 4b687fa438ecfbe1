//! End-to-end tests: the real binary between real servers and real clients. One binary, one module per subject.

mod bad_input;
mod clients;
mod faults;
mod feed_conflicts;
mod feed_faults;
mod feed_history;
mod feed_inputs;
mod history;
mod lane_resume;
mod migration;
mod openapi;
mod pg_analyze;
mod pg_auth;
mod pg_bad_input;
mod pg_bench;
mod pg_clients;
mod pg_harness;
mod pg_pause;
mod pg_psql;
mod pg_rust_client;
mod policies;
mod transcripts;
mod values;
