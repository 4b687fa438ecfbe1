#!/bin/sh
# Runs cargo for wasm32-unknown-unknown with whatever can build for it here: `wasm-cargo.sh build --target-dir DIR ...`.
#
# Debian's compiler (packages rustc-web and rust-web-src) driven by rustup's cargo and linker, because with it dist/ is the
# same bytes for everyone; else rustup's own target, if it is installed. `wasm-cargo.sh --which` only says which.
set -eu
PATH=$HOME/.cargo/bin:$PATH
: "${RUSTC_WASM:=/usr/bin/rustc}"
# Rust's standard stack of 1 MiB would alone be more memory than a policy may have.
FLAGS="-Clink-arg=-zstack-size=16384 -Clink-arg=--stack-first"

if [ -x "$RUSTC_WASM" ] && [ -d "$("$RUSTC_WASM" --print sysroot)/lib/rustlib/src/rust/library" ]; then
    [ "${1:-}" != --which ] || { "$RUSTC_WASM" --version; exit; }
    LINKER=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
    [ -x "$LINKER" ] || { echo "wasm-cargo: rustup's toolchain has no rust-lld at $LINKER" >&2; exit 1; }
    RUSTC=$RUSTC_WASM RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$LINKER \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$FLAGS -Zlocation-detail=none" \
        exec cargo "$@" --release --target wasm32-unknown-unknown -Zbuild-std=core
elif [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/wasm32-unknown-unknown" ]; then
    [ "${1:-}" != --which ] || { echo "$(rustc --version), rustup's target"; exit; }
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS=$FLAGS exec cargo "$@" --release --target wasm32-unknown-unknown
else
    echo "wasm-cargo: needs Debian's rustc-web and rust-web-src beside rustup, or: rustup target add wasm32-unknown-unknown" >&2
    exit 1
fi
