#!/bin/bash
# Does what filters/README.md says, literally: each block after "Save as `NAME`:" becomes that file, each sh block is run, in
# order, each language in a place of its own. Needs the compilers that filters/build.sh installs; a language without its compiler
# is skipped, loudly. KEEP=DIR keeps the module of each language as DIR/LANGUAGE/large_values.wasm.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROOT=$PWD
TOP=$(mktemp -d)
trap 'rm -rf "$TOP"' EXIT
PASSED=0 FAILED=0 SKIPPED=0
KEEP=${KEEP:+$(realpath -m "$KEEP")}

# What stands in the way of a language; nothing when it can be built.
missing() {
    case $1 in
    Rust) filters/wasm-cargo.sh --which >/dev/null 2>&1 || echo "no Rust compiler for WebAssembly" ;;
    C) command -v clang-19 >/dev/null && command -v wasm-ld-19 >/dev/null || echo "no clang-19 with lld-19" ;;
    AssemblyScript) command -v npm >/dev/null || echo "no npm" ;;
    esac
}

# One script for each language: the common steps, then its own.
awk -v top="$TOP" '
    /^### In / { language = $3; count[language] = 0; names[++languages] = language; system("cp " top "/common " top "/" language); close(top "/" language) }
    /^### Load/ { language = "none" }
    { target = top "/" (language == "" ? "common" : language) }
    /Save as `[^`]*`:$/ { match($0, /`[^`]*`/); file = substr($0, RSTART + 1, RLENGTH - 2) }
    /^```./ && !inside { inside = 1; kind = substr($0, 4); if (kind != "sh") printf "cat >\"%s\" <<'"'"'README_BLOCK'"'"'\n", file >> target; next }
    /^```$/ && inside { inside = 0; if (kind != "sh") print "README_BLOCK" >> target; close(target); next }
    inside { print >> target }
    END { for (i = 1; i <= languages; i++) print names[i] > (top "/languages") }
' filters/README.md

while read -r language; do
    why=$(missing "$language")
    if [ -n "$why" ]; then
        echo "README, $language: SKIPPED: $why" >&2
        SKIPPED=$((SKIPPED + 1))
        continue
    fi
    mkdir "$TOP/work-$language"
    # What build.sh has already installed is not installed once more.
    if [ "$language" = AssemblyScript ] && [ -d filters/.tools/node_modules ]; then
        mkdir "$TOP/work-$language/tools" && ln -s "$ROOT/filters/.tools/node_modules" "$TOP/work-$language/tools/node_modules"
    fi
    echo "README, $language:"
    if (cd "$ROOT" && WORK=$TOP/work-$language bash -euo pipefail "$TOP/$language") 2>&1 | sed 's/^/  /'; then
        PASSED=$((PASSED + 1))
        if [ -n "$KEEP" ]; then
            mkdir -p "$KEEP/$language"
            cp "$TOP/work-$language"/large_values.{wasm,cases.jsonl} "$KEEP/$language/"
        fi
    else
        FAILED=$((FAILED + 1))
        echo "README, $language: FAILED"
    fi
done <"$TOP/languages"
[ "$((PASSED + SKIPPED))" -gt 0 ] || FAILED=$((FAILED + 1))
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ "$FAILED" = 0 ]
