#!/usr/bin/env bash
# The cost of policies when nothing is mirrored: redis-benchmark through one proxy with the default filters and through one with none,
# interleaved, in one run. Prints medians and ratios (1.00 = the same). REPETITIONS (5), REQUESTS (100000), CORES (1).
set -euo pipefail
cd "$(dirname "$0")/.."

REPETITIONS=${REPETITIONS:-5} REQUESTS=${REQUESTS:-100000} CORES=${CORES:-1}
BINARY=${CROSSFADE_BIN:-target/release/crossfade}
DIR=$(mktemp -d)
PIDS=()
stop() {
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$DIR"
}
trap stop EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

SERVER=$(free_port)
redis-server --bind 127.0.0.1 --port "$SERVER" --save '' --appendonly no --dir "$DIR" >"$DIR/server.log" 2>&1 &
PIDS+=($!)

# proxy NAME POLICIES: writes its port into NAME.port
proxy() {
    local port admin
    port=$(free_port) admin=$(free_port)
    printf '[admin]\nlisten = "127.0.0.1:%s"\n[data]\ndir = "%s/%s"\n[cores]\ncount = %s\n' "$admin" "$DIR" "$1" "$CORES" >"$DIR/$1.toml"
    printf '[endpoints.s]\nkind = "redis"\nurl = "redis://127.0.0.1:%s/0"\n' "$SERVER" >>"$DIR/$1.toml"
    printf '[interlays.i]\nkind = "redis"\nlisten = "127.0.0.1:%s"\nsource = "s"\n%s' "$port" "$2" >>"$DIR/$1.toml"
    "$BINARY" serve --config "$DIR/$1.toml" >"$DIR/$1.log" 2>&1 &
    PIDS+=($!)
    echo "$port" >"$DIR/$1.port"
    for _ in $(seq 200); do
        redis-cli -p "$port" ping >/dev/null 2>&1 && return
        sleep 0.05
    done
    echo "the proxy did not come up:" >&2
    tail -5 "$DIR/$1.log" >&2
    exit 1
}
proxy with ''
proxy without $'[interlays.i.policies]\nmirror = "none"\ncompare = "none"\nrollback = "none"\n'

# one NAME TEST PIPELINE: requests per second
one() {
    redis-benchmark -p "$(cat "$DIR/$1.port")" -t "$2" -P "$3" -n "$REQUESTS" -c 50 -d 64 -r 100000 --csv 2>/dev/null |
        tail -1 | cut -d, -f2 | tr -d '"'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

echo "redis-benchmark -c 50 -d 64 -n $REQUESTS, $CORES core, $REPETITIONS repetitions, $(nproc) CPUs"
printf '%-5s %4s %14s %14s %7s\n' test P with without ratio
for test in get set; do
    for pipeline in 1 16; do
        : >"$DIR/with.rps" && : >"$DIR/without.rps"
        for round in $(seq "$REPETITIONS"); do
            # The order changes each round.
            if [ $((round % 2)) = 0 ]; then order='with without'; else order='without with'; fi
            for name in $order; do one "$name" "$test" "$pipeline" >>"$DIR/$name.rps"; done
        done
        with=$(median <"$DIR/with.rps") without=$(median <"$DIR/without.rps")
        printf '%-5s %4s %14.0f %14.0f %7.3f\n' "$test" "$pipeline" "$with" "$without" "$(echo "$with $without" | awk '{ print $1 / $2 }')"
    done
done
