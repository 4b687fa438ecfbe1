#!/usr/bin/env bash
# Ten minutes at the knee: finds the highest rate at which Crossfade keeps p99 under 1 ms (open loop, from the intended send time), then
# holds that rate with the same proxy process, and prints for each minute what clients saw and what memory the proxy held.
#   MINUTES=10         how long
#   SHARE=1.0          of the knee's rate
#   CROSSFADE_BIN=...  a binary other than target/release/crossfade
# Results: loadtest/results/soak.txt. Fails on an error, on a request without an answer, or on memory that grows by more than a tenth
# after the first minute.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}"
binary="${CROSSFADE_BIN:-$target/release/crossfade}"
if ! [ -x "$binary" ]; then
    echo "bench-soak: $binary does not exist: run cargo build --release" >&2
    exit 1
fi
cargo build --release --locked --quiet --package crossfade-loadtest --bin loadgen
loadgen="$target/release/loadgen"

work="$(mktemp -d)"
pids=()
cleanup() {
    if [ ${#pids[@]} -gt 0 ]; then
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
server="$(free_port)" proxy="$(free_port)" admin="$(free_port)"
redis-server --port "$server" --save '' --appendonly no --dir "$work" >/dev/null &
pids+=($!)
cat >"$work/crossfade.toml" <<END
[admin]
listen = "127.0.0.1:$admin"
[data]
dir = "$work/data"
[cores]
count = 1
[endpoints.old]
kind = "redis"
url = "redis://127.0.0.1:$server/0"
[interlays.bench]
kind = "redis"
listen = "127.0.0.1:$proxy"
source = "old"
END
"$binary" serve --config "$work/crossfade.toml" >"$work/log" 2>&1 &
pids+=($!)
crossfade=$!
for _ in $(seq 1 200); do
    if redis-cli -p "$proxy" ping 2>/dev/null | grep -q PONG; then break; fi
    sleep 0.05
done

resident() { awk '/^RssAnon:/ { print $2 }' "/proc/$crossfade/status"; }
load=(--port "$proxy" --connections 50 --value-bytes 64 --keys 100000 --read-share 0.8)

out="loadtest/results/soak.txt"
{
    echo "$("$binary" --version), Redis $(redis-server --version | sed 's/.*v=\([0-9.]*\).*/\1/'), kernel $(uname -r), $(nproc) processors, 1 proxy core; $(date -u +%F)"
    "$loadgen" "${load[@]}" --fill --find-knee --rate 5000 --duration 3 >"$work/knee.json"
    knee="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["knee_per_s"] or 0)' "$work/knee.json")"
    rate="$(python3 -c 'import sys; print(round(float(sys.argv[1]) * float(sys.argv[2])))' "$knee" "${SHARE:-1.0}")"
    echo "knee (p99 under 1 ms, 50 connections, 80 % GET, 64 bytes, Poisson): ${knee%.*} requests/s; held: $rate"
    echo "minute  answered/s   p50 us   p99 us   p99.9 us   max us  errors  unanswered  proxy KiB"
    for minute in $(seq 1 "${MINUTES:-10}"); do
        "$loadgen" "${load[@]}" --rate "$rate" --duration 60 --warmup 0.5 --seed "$minute" >"$work/minute.json"
        python3 - "$work/minute.json" "$minute" "$(resident)" <<'END'
import json, sys
path, minute, resident = sys.argv[1:]
seen = json.load(open(path))
latency = seen["latency_us"] if "latency_us" in seen else seen
print(f"{minute:>6} {seen['reached_per_s']:>11.0f} {latency['p50']:>8.0f} {latency['p99']:>8.0f} {latency['p999']:>10.0f} {latency['max']:>8.0f}"
      f" {seen['errors']:>7} {seen['unanswered']:>11} {resident:>10}", flush=True)
END
    done
} | tee "$out"
python3 - "$out" <<'END'
import sys
rows = [line.split() for line in open(sys.argv[1]) if line.split() and line.split()[0].isdigit() and len(line.split()) == 9]
bad = [row[0] for row in rows if int(row[6]) or int(row[7])]
first, last = int(rows[0][8]), int(rows[-1][8])
p99 = sorted(float(row[3]) for row in rows)
print(f"p99 of the minutes: {p99[0]:.0f} to {p99[-1]:.0f} us; memory: {first} KiB after the first minute, {last} KiB after the last")
if bad:
    sys.exit(f"bench-soak: errors or requests without an answer in minute {', '.join(bad)}")
if last > first * 1.1:
    sys.exit(f"bench-soak: memory grew from {first} to {last} KiB")
END
