#!/usr/bin/env bash
# pgbench -S -c 16 -j 2, simple and prepared: direct, through Crossfade and through PgBouncer in session mode, interleaved.
# Prints median transactions per second, ratios to direct, and what a transaction costs each proxy in CPU time (/proc/PID/stat).
# Proxy, server and load share this machine: read the ratios and the microseconds, not the absolute numbers.
#   REPETITIONS=3   SECONDS_EACH=5   CLIENTS=16   CORES=1   PG_BENCH_WITHOUT="crossfade" leaves a contestant out
set -euo pipefail
cd "$(dirname "$0")/.."
binary="${CROSSFADE_BIN:-${CARGO_TARGET_DIR:-target}/release/crossfade}"
repetitions="${REPETITIONS:-3}"
seconds="${SECONDS_EACH:-5}"
clients="${CLIENTS:-16}"
cores="${CORES:-1}"
without=" ${PG_BENCH_WITHOUT:-} "
programs=/usr/lib/postgresql/15/bin
pids=()
work="$(mktemp -d)"
chmod 755 "$work"

cleanup() {
    local pid
    # SIGINT is PostgreSQL's and PgBouncer's fast shutdown; Crossfade takes it as SIGTERM.
    for pid in "${pids[@]}"; do kill -INT "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

# Servers refuse root. setpriv and not runuser, so that the pid is the server's own.
as_user=()
if [ "$(id -u)" -eq 0 ]; then as_user=(setpriv --reuid postgres --regid postgres --clear-groups --); fi

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

export PGHOST=127.0.0.1 PGUSER=bench PGPASSWORD=bench-secret PGDATABASE=bench PGSSLMODE=disable PGPASSFILE=/dev/null PGCONNECT_TIMEOUT=10

wait_for() {
    local tries
    for tries in $(seq 1 500); do
        if "$programs/psql" -X -p "$1" -Atc 'SELECT 1' "${3:-bench}" >/dev/null 2>"$work/refused"; then return; fi
        sleep 0.02
    done
    echo "bench-postgres: $2 does not answer: $(cat "$work/refused")" >&2
    tail -5 "$work/$2.log" >&2 || true
    exit 1
}

direct="$(free_port)"
mkdir "$work/pg"
echo bench-secret >"$work/pg/password"
if [ "$(id -u)" -eq 0 ]; then chown -R postgres "$work/pg"; fi
(cd / && "${as_user[@]}" "$programs/initdb" -D "$work/pg/data" -A scram-sha-256 -U bench --pwfile="$work/pg/password" --no-sync >"$work/initdb.log")
(cd / && exec "${as_user[@]}" "$programs/postgres" -D "$work/pg/data" -p "$direct" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=100 -c fsync=off -c shared_buffers=256MB >"$work/postgres.log" 2>&1) &
pids+=($!)
wait_for "$direct" postgres postgres
"$programs/psql" -X -q -p "$direct" -c 'CREATE DATABASE bench' postgres
"$programs/pgbench" -p "$direct" -i -q -s 10 >"$work/init.log" 2>&1
verifier="$("$programs/psql" -X -p "$direct" -Atc "SELECT rolpassword FROM pg_authid WHERE rolname = 'bench'")"

contestants=(direct)
declare -A port pid
port[direct]="$direct"

start_crossfade() {
    local listen admin
    listen="$(free_port)"
    admin="$(free_port)"
    echo "\"bench\" \"$verifier\"" >"$work/users.txt"
    cat >"$work/crossfade.toml" <<TOML
[admin]
listen = "127.0.0.1:$admin"
[cores]
count = $cores
[data]
dir = "$work/data"
[endpoints.server]
kind = "postgres"
url = "postgres://bench:bench-secret@127.0.0.1:$direct/bench?sslmode=disable"
[interlays.bench]
kind = "postgres"
listen = "127.0.0.1:$listen"
source = "server"
[interlays.bench.auth]
mode = "scram"
auth_file = "$work/users.txt"
TOML
    "$binary" serve --config "$work/crossfade.toml" >"$work/crossfade.log" 2>&1 &
    pid[crossfade]=$!
    pids+=($!)
    port[crossfade]="$listen"
    wait_for "$listen" crossfade
    contestants+=(crossfade)
}

start_pgbouncer() {
    local listen bouncer
    bouncer="$(command -v pgbouncer || echo /usr/sbin/pgbouncer)"
    if ! [ -x "$bouncer" ]; then
        echo "*** bench-postgres: no pgbouncer, left out: scripts/install-test-servers.sh --bench" >&2
        return
    fi
    listen="$(free_port)"
    mkdir "$work/pgbouncer"
    # Of the same kind: verifiers only, SCRAM on both sides, one client to one server connection.
    echo "\"bench\" \"$verifier\"" >"$work/pgbouncer/users.txt"
    cat >"$work/pgbouncer/pgbouncer.ini" <<INI
[databases]
bench = host=127.0.0.1 port=$direct dbname=bench
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $listen
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $work/pgbouncer/users.txt
pool_mode = session
default_pool_size = 60
max_client_conn = 200
log_connections = 0
log_disconnections = 0
INI
    if [ "$(id -u)" -eq 0 ]; then chown -R postgres "$work/pgbouncer"; fi
    (cd / && exec "${as_user[@]}" "$bouncer" -q "$work/pgbouncer/pgbouncer.ini" >"$work/pgbouncer.log" 2>&1) &
    pid[pgbouncer]=$!
    pids+=($!)
    port[pgbouncer]="$listen"
    wait_for "$listen" pgbouncer
    contestants+=(pgbouncer)
}

if [[ "$without" != *" crossfade "* ]]; then start_crossfade; fi
if [[ "$without" != *" pgbouncer "* ]]; then start_pgbouncer; fi

# User and system time of a process so far, in clock ticks. The name may hold spaces, so count after the last parenthesis.
ticks() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}
hertz="$(getconf CLK_TCK)"

# mode, contestant -> a line "tps microseconds-per-transaction" in $work/<contestant>.<mode>
measure() {
    local mode="$1" who="$2" before=0 after=0 tps count
    if [ -n "${pid[$who]:-}" ]; then before="$(ticks "${pid[$who]}")"; fi
    if ! "$programs/pgbench" -p "${port[$who]}" -n -S -M "$mode" -c "$clients" -j 2 -T "$seconds" >"$work/run" 2>"$work/run.err" ||
        ! grep -q 'number of failed transactions: 0 ' "$work/run"; then
        echo "bench-postgres: $who -M $mode failed:" >&2
        cat "$work/run" "$work/run.err" >&2
        exit 1
    fi
    if [ -n "${pid[$who]:-}" ]; then after="$(ticks "${pid[$who]}")"; fi
    tps="$(awk '/^tps = / { print $3 }' "$work/run")"
    count="$(awk '/^number of transactions actually processed/ { split($NF, a, "/"); print a[1] }' "$work/run")"
    awk -v tps="$tps" -v ticks="$((after - before))" -v count="$count" -v hertz="$hertz" \
        'BEGIN { printf "%.0f %.2f\n", tps, ticks * 1000000 / hertz / count }' >>"$work/$who.$mode"
}

for _ in $(seq 1 "$repetitions"); do
    for mode in simple prepared; do
        for who in "${contestants[@]}"; do measure "$mode" "$who"; done
    done
done

# file, column
median() { cut -d' ' -f"$2" "$1" | sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

echo "pgbench -S -c $clients -j 2 -T $seconds, repetitions: $repetitions, proxy cores: $cores, machine cores: $(nproc), $("$programs/postgres" --version)"
printf '%-10s %-10s %10s %8s %14s\n' mode contestant tps ratio "proxy CPU us"
for mode in simple prepared; do
    base="$(median "$work/direct.$mode" 1)"
    for who in "${contestants[@]}"; do
        tps="$(median "$work/$who.$mode" 1)"
        cpu="$(median "$work/$who.$mode" 2)"
        if [ "$who" = direct ]; then cpu="-"; fi
        printf '%-10s %-10s %10.0f %8.2f %14s\n' "$mode" "$who" "$tps" "$(awk -v a="$base" -v b="$tps" 'BEGIN { print b / a }')" "$cpu"
    done
done
