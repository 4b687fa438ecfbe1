#!/bin/sh
# Builds the shipped policies and the examples into filters/dist, and the guests that break the rules into filters/build.
#
#   filters/build.sh            install what is missing (Debian packages, one npm package), build, write dist/ and SHA256SUMS
#   filters/build.sh --check    build into filters/build only, compare with dist/, run every recorded case and every broken guest
#   filters/build.sh --no-install ...   use what is there; what cannot be built is skipped, loudly
#
# Ends with 0 when everything was done, with 3 when all that could be done passed and something was skipped, with 1 otherwise.
#
# Building Crossfade needs none of this: dist/ is in the repository. Override a tool by RUSTC_WASM, CLANG, ASC, WAT2WASM.
set -eu
cd "$(dirname "$0")"

CHECK= INSTALL=1
for argument in "$@"; do
    case $argument in
    --check) CHECK=1 ;;
    --no-install) INSTALL= ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done

OUT=build/dist
CONFORMANCE=build/conformance
SKIPPED=
PATH=$HOME/.cargo/bin:$PATH
ASSEMBLYSCRIPT=0.28.20

say() { printf 'filters: %s\n' "$*"; }
skip() {
    printf 'filters: SKIPPED %s: %s\n' "$1" "$2" >&2
    SKIPPED="$SKIPPED $1"
}

# install PACKAGE ...: says what it does; no failure, the tool is looked for again afterwards.
UPDATED=
install() {
    [ -n "$INSTALL" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    say "installing Debian packages: $*"
    if [ -z "$UPDATED" ]; then apt-get update -qq >/dev/null 2>&1 || true; UPDATED=1; fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || true
}

# ---- Rust ----
RUST_BUILT_WITH=
build_rust() {
    # dist/ is always made by Debian's compiler, so that everyone's bytes are the same.
    [ -d /usr/lib/rustlib/src/rust/library ] || [ -n "${RUSTC_WASM:-}" ] || install rustc-web rust-web-src
    RUST_BUILT_WITH=$(./wasm-cargo.sh --which) || { skip rust "see above"; return 0; }
    say "Rust with $RUST_BUILT_WITH"
    ./wasm-cargo.sh build --quiet --locked --target-dir target-wasm -p mirror-reads -p compare-semantic -p tenant-prefix
    for name in mirror_reads compare_semantic tenant_prefix; do
        cp "target-wasm/wasm32-unknown-unknown/release/$name.wasm" "$OUT/"
    done
}

# ---- C: any clang with a wasm-ld; dist/ is made by 19 ----
C_BUILT_WITH=
find_clang() {
    for CLANG in "${CLANG:-clang-19}" clang-19 clang clang-16 clang-14; do
        command -v "$CLANG" >/dev/null && command -v "$(echo "$CLANG" | sed 's/.*clang/wasm-ld/')" >/dev/null && return 0
    done
    return 1
}
build_c() {
    command -v clang-19 >/dev/null && command -v wasm-ld-19 >/dev/null || install clang-19 lld-19
    find_clang || { skip c "no clang with its wasm-ld"; return 0; }
    C_BUILT_WITH=$("$CLANG" --version | head -1)
    say "C with $C_BUILT_WITH"
    for source in examples/deny-dangerous/deny_dangerous.c examples/redact-keys/redact_keys.c; do
        "$CLANG" --target=wasm32-unknown-unknown -std=c11 -Oz -mbulk-memory -Wall -Wextra -Wno-unused-parameter \
            -Wno-unused-function -nostdlib -ffreestanding -Wl,--no-entry -Wl,--strip-all -Wl,-zstack-size=16384 \
            -Wl,--stack-first -I sdk/c -o "$OUT/$(basename "$source" .c).wasm" "$source"
    done
}

# ---- AssemblyScript ----
AS_BUILT_WITH=
build_assemblyscript() {
    : "${ASC:=.tools/node_modules/.bin/asc}"
    if ! command -v "$ASC" >/dev/null && [ -n "$INSTALL" ] && command -v npm >/dev/null; then
        say "installing the npm package assemblyscript@$ASSEMBLYSCRIPT into filters/.tools"
        mkdir -p .tools
        (cd .tools && npm install --silent --no-audit --no-fund --no-save "assemblyscript@$ASSEMBLYSCRIPT" >/dev/null 2>&1) || true
    fi
    command -v "$ASC" >/dev/null || { skip assemblyscript "no asc"; return 0; }
    AS_BUILT_WITH="AssemblyScript $("$ASC" --version | sed 's/[^0-9]*//')"
    say "$AS_BUILT_WITH"
    for source in policies/rollback-threshold/rollback_threshold.ts examples/sample-percent/sample_percent.ts; do
        "$ASC" "$source" -O3 --runtime stub --use abort= -o "$OUT/$(basename "$source" .ts).wasm"
    done
}

# ---- WAT: the guests that break the rules ----
build_conformance() {
    : "${WAT2WASM:=wat2wasm}"
    command -v "$WAT2WASM" >/dev/null || install wabt
    command -v "$WAT2WASM" >/dev/null || { skip conformance "no wat2wasm"; return 0; }
    say "broken guests with $WAT2WASM $("$WAT2WASM" --version)"
    conformance/large.sh >build/too_large.wat
    for source in conformance/*.wat build/too_large.wat; do
        "$WAT2WASM" --no-check --enable-all -o "$CONFORMANCE/$(basename "$source" .wat).wasm" "$source"
    done
}

build_all() {
    rm -rf build && mkdir -p "$OUT" "$CONFORMANCE"
    build_rust
    build_c
    build_assemblyscript
    for cases in policies/*/cases.jsonl examples/*/cases.jsonl; do
        name=$(basename "$(dirname "$cases")" | tr - _)
        [ ! -f "$OUT/$name.wasm" ] || cp "$cases" "$OUT/$name.cases.jsonl"
    done
    build_conformance
    printf '%s\n' "$RUST_BUILT_WITH" "$C_BUILT_WITH" "$AS_BUILT_WITH" >"$OUT/BUILT_WITH"
}

sums() { (cd "$1" && sha256sum ./*.wasm ./*.jsonl | sed 's| \./| |'); }

build_all
if [ -n "$SKIPPED" ] && [ -z "$CHECK" ]; then
    say "dist/ is left as it was: not everything could be built ($SKIPPED )" >&2
    exit 1
fi
if [ -z "$CHECK" ]; then
    sums "$OUT" >"$OUT/SHA256SUMS"
    rm -rf dist && cp -r "$OUT" dist
fi
FAILED=
if [ -n "$CHECK" ]; then
    (cd dist && sha256sum --quiet -c SHA256SUMS) || FAILED="$FAILED dist/SHA256SUMS"
    for module in dist/*.wasm; do
        built=$OUT/$(basename "$module")
        if [ ! -f "$built" ]; then continue; fi
        cmp -s "dist/$(basename "$module" .wasm).cases.jsonl" "$OUT/$(basename "$module" .wasm).cases.jsonl" || FAILED="$FAILED cases-of-$(basename "$module")"
        if cmp -s "$module" "$built"; then continue; fi
        if cmp -s dist/BUILT_WITH "$OUT/BUILT_WITH"; then
            FAILED="$FAILED $(basename "$module")"
            say "DIFFERS $(basename "$module"): the same compilers make other bytes than dist/ has; run filters/build.sh and commit" >&2
        else
            say "NOT COMPARED $(basename "$module"): made by other compilers than dist/BUILT_WITH says; its cases are run instead" >&2
        fi
    done
    say "recorded cases of what was built, then of dist/"
    node test/run.mjs cases "$OUT" || FAILED="$FAILED cases"
fi
if command -v node >/dev/null; then
    node test/run.mjs cases dist || FAILED="$FAILED cases-of-dist"
    say "broken guests"
    [ -z "$(ls "$CONFORMANCE")" ] || node test/run.mjs conformance "$CONFORMANCE" || FAILED="$FAILED conformance"
else
    skip tests "no node"
fi
wc -c dist/*.wasm
[ -z "$FAILED" ] || { say "failed:$FAILED; skipped:${SKIPPED:- nothing}" >&2; exit 1; }
[ -z "$SKIPPED" ] || { say "SKIPPED:$SKIPPED; the rest passed" >&2; exit 3; }
say "done"
