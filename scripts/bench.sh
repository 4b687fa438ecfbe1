#!/usr/bin/env bash
# Crossfade against the server itself and against its peers, side by side on loopback; reports for every target whether it is met.
# What is measured: loadtest/scenarios/*.toml. Results: loadtest/results/{quick,full}.{json,svg,txt}.
#   QUICK=1            one short run, within two minutes: shows that everything works, not how fast it is
#   REPETITIONS=5      how often everything is repeated, each time in a different order
#   ONLY=01-redis-p1,11-idle   some scenarios; `scripts/bench.sh --list` names them
#   CROSSFADE_BIN=...  a binary other than target/release/crossfade
# Server, proxy and load share this machine: read ratios and CPU time per request, not absolute rates.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}"
export CROSSFADE_BIN="${CROSSFADE_BIN:-$target/release/crossfade}"
if ! [ -x "$CROSSFADE_BIN" ]; then
    echo "bench: $CROSSFADE_BIN does not exist: run cargo build --release" >&2
    exit 1
fi
cargo build --release --locked --quiet --package crossfade-loadtest --bin bench --bin loadgen

# For the scenario of telemetry. The binary for all others is rebuilt afterwards from what is already compiled.
if [ "${QUICK:-}" != 1 ] && [ "$CROSSFADE_BIN" = "$target/release/crossfade" ]; then
    cargo build --release --locked --quiet --features without-telemetry
    cp "$CROSSFADE_BIN" "$target/crossfade-no-telemetry"
    cargo build --release --locked --quiet
    CROSSFADE_NO_TELEMETRY_BIN="$(realpath "$target/crossfade-no-telemetry")"
    export CROSSFADE_NO_TELEMETRY_BIN
fi

# A copy: a build during the run must not change what is measured. Everything temporary is below this folder.
TMPDIR="$(mktemp -d)"
export TMPDIR
# PostgreSQL and its poolers run as another user.
chmod 755 "$TMPDIR"
# Processes started by bench end with it and may write until then.
trap 'rm -rf "$TMPDIR" 2>/dev/null || { sleep 1; rm -rf "$TMPDIR"; }' EXIT
cp "$CROSSFADE_BIN" "$TMPDIR/crossfade"
export CROSSFADE_BIN="$TMPDIR/crossfade"
ulimit -n "$(ulimit -Hn)"

# The builds have raised the load average; wait until it has fallen.
if [ "${QUICK:-}" != 1 ]; then
    for _ in $(seq 1 120); do
        if awk '{ exit !($1 < 0.5) }' /proc/loadavg; then break; fi
        sleep 2
    done
fi

options=()
if [ "${QUICK:-}" = 1 ]; then options+=(--quick); fi
if [ -n "${REPETITIONS:-}" ]; then options+=(--repetitions "$REPETITIONS"); fi
if [ -n "${ONLY:-}" ]; then options+=(--only "$ONLY"); fi
# In the background, because a shell that waits for a foreground program handles signals only after it has ended.
"$target/release/bench" "${options[@]}" "$@" &
bench=$!
trap 'kill "$bench" 2>/dev/null || true' INT TERM
wait "$bench"
