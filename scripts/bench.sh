#!/usr/bin/env bash
# redis-benchmark -c 50 -d 64 -t get,set at P=1 and P=16, direct and through Crossfade, interleaved, three repetitions.
# Prints the median requests per second of each and the ratio. Proxy, server and load share this machine: read the ratios, not
# the absolute numbers.
set -euo pipefail
cd "$(dirname "$0")/.."
binary="${CROSSFADE_BIN:-target/release/crossfade}"
repetitions="${REPETITIONS:-3}"
# Cores of the proxy. One is the fair default where server and load generator share a small machine with it, as every peer of this
# kind is measured with one thread; CORES=2 shows what a second pinned core costs there.
cores="${CORES:-1}"
work="$(mktemp -d)"
pids=()

cleanup() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_for() {
    local tries
    for tries in $(seq 1 500); do
        if redis-cli -p "$1" ping 2>/dev/null | grep -q PONG; then return; fi
        sleep 0.02
    done
    echo "bench: nothing answers on port $1" >&2
    exit 1
}

direct="$(free_port)"
through="$(free_port)"
admin="$(free_port)"
redis-server --port "$direct" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >"$work/redis.log" &
pids+=($!)
cat >"$work/crossfade.toml" <<TOML
[admin]
listen = "127.0.0.1:$admin"
[cores]
count = $cores
[data]
dir = "$work/data"
[endpoints.server]
kind = "redis"
url = "redis://127.0.0.1:$direct/0"
[interlays.bench]
kind = "redis"
listen = "127.0.0.1:$through"
source = "server"
TOML
wait_for "$direct"
"$binary" serve --config "$work/crossfade.toml" >"$work/crossfade.log" 2>&1 &
pids+=($!)
wait_for "$through"

# pipeline depth, port, repetition -> one line per test in $work/<name>.<port>.<pipeline>
measure() {
    redis-benchmark -h 127.0.0.1 -p "$2" -c 50 -d 64 -n "$3" -P "$1" -t get,set -r 100000 --csv |
        tr -d '"' | awk -F, -v dir="$work" -v port="$2" -v pipeline="$1" \
        '$1 == "GET" || $1 == "SET" { print $2 >> (dir "/" $1 "." port "." pipeline) }'
}

for _ in $(seq 1 "$repetitions"); do
    for pipeline in 1 16; do
        requests=$((pipeline == 1 ? 300000 : 2000000))
        measure "$pipeline" "$direct" "$requests"
        measure "$pipeline" "$through" "$requests"
    done
done

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

echo "proxy cores: $cores, machine cores: $(nproc), repetitions: $repetitions, $(redis-server --version | cut -d' ' -f1-3)"
printf '%-6s %4s %14s %14s %8s\n' test P direct/s through/s ratio
for test in GET SET; do
    for pipeline in 1 16; do
        a="$(median "$work/$test.$direct.$pipeline")"
        b="$(median "$work/$test.$through.$pipeline")"
        printf '%-6s %4s %14.0f %14.0f %8.2f\n' "$test" "$pipeline" "$a" "$b" "$(awk -v a="$a" -v b="$b" 'BEGIN { print b / a }')"
    done
done
