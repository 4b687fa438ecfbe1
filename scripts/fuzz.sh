#!/usr/bin/env bash
# Every codec entry point under coverage-guided fuzzing: `make fuzz` gives each target of fuzz/ a minute. Findings are kept in
# fuzz/artifacts; the corpus in fuzz/corpus makes the next run begin where this one ended. Neither is committed.
#   SECONDS_EACH=60   time for each target
#   TARGETS="a b"     only these
set -euo pipefail
cd "$(dirname "$0")/.."

tools="$PWD/.tools/fuzz"
if ! [ -x "$tools/bin/cargo-fuzz" ]; then
    echo "fuzz: installing cargo-fuzz below .tools"
    cargo install --quiet --locked --root "$tools" cargo-fuzz
fi
export PATH="$tools/bin:$PATH"
# The fuzzer's coverage flags are not stable: this makes the installed toolchain accept them.
export RUSTC_BOOTSTRAP=1

targets="${TARGETS:-$(sed -n 's/^name = "\(.*_.*\)"$/\1/p' fuzz/Cargo.toml)}"
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
failed=0
for target in $targets; do
    echo "fuzz: $target for ${SECONDS_EACH:-60} s"
    if cargo fuzz run --fuzz-dir fuzz --sanitizer none "$target" -- -max_total_time="${SECONDS_EACH:-60}" -max_len=4096 -timeout=5 -print_final_stats=1 \
        >"$logs/$target.log" 2>&1; then
        sed -n 's/^stat::number_of_executed_units: */fuzz: executions: /p' "$logs/$target.log"
    else
        failed=1
        echo "*** fuzz: $target failed:" >&2
        grep -E -A6 'panicked|ERROR|error(\[|:)|Test unit written' "$logs/$target.log" | head -40 >&2 || tail -20 "$logs/$target.log" >&2
    fi
done
exit $failed
