# Crossfade. `make` alone prints this list.
#   make demo [ARGS=--valkey]   two temporary servers, a live migration there and back, a report
#   make demo ARGS=--auto-rollback   the same; the target is slowed and the rollback policy rolls back automatically
#   make demo ARGS=postgres     a temporary PostgreSQL, paused and resumed under load, a report
#   make test                   all tests: unit, property and end-to-end tests against real servers; instructions counted
#   make soak                   100 000 seeds of the simulator; twenty random histories beside a replication feed with flips and kills, 30 seconds each; kills; a source of 10 million keys
#   make check                  format, lints and the repository's own rules
#   make bench [QUICK=1]        benchmarks against the servers themselves and against peers, and the targets met; loadtest/results
#   make bench-soak             ten minutes at the highest sustained rate: latencies and memory minute by minute
#   make bench-postgres         the PostgreSQL part of `make bench`
#   make fuzz                   a minute of coverage-guided fuzzing for each entry point of the codecs
#   make bench-ops              nanoseconds of single operations: codec, relay, lane, policy, bus; benches/README.md

.PHONY: help demo fuzz test soak check bench bench-postgres bench-soak bench-ops servers build filters
ARGS ?=

help:
	@sed -n 's/^#   //p' Makefile

servers:
	@scripts/install-test-servers.sh

build:
	cargo build --release --locked

demo: servers build
	target/release/crossfade demo $(ARGS)

filters:
	@scripts/test-filters.sh

# The end-to-end tests drive the release binary, as users do. No times are checked here; instructions are.
test: servers build filters
	cargo test --locked --workspace
	@scripts/bench-instructions.sh --check

# SIM_SEEDS is the number of the simulator's seeds; for the histories SEEDS, SECONDS_EACH and CROSSFADE_SEED (the first) may be set, for the large source KEYS and ELEMENTS; PARTS (histories,kills,large) says which. Servers sync every write: TMPDIR in memory makes that cheap.
soak: servers build
	SEEDS=$${SIM_SEEDS:-100000} cargo test --release --locked --package crossfade-sim tests::seeds -- --nocapture
	cargo run --release --locked --quiet --package crossfade-loadtest --bin soak

check:
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked -p crossfade-tidy

bench: build
	@scripts/install-test-servers.sh --bench
	scripts/bench.sh

bench-postgres: build
	@scripts/install-test-servers.sh --bench
	ONLY=13-postgres-select,20-postgres-tpcb scripts/bench.sh --name postgres

bench-soak: build
	@scripts/install-test-servers.sh --bench
	scripts/bench-soak.sh

# A minute of coverage-guided fuzzing for each entry point of the codecs.
fuzz:
	@scripts/fuzz.sh

bench-ops:
	cargo run --release --locked --quiet --package crossfade-benches --bin ops
