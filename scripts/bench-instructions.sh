#!/usr/bin/env bash
# Instructions of each operation of benches/ops.rs, counted by valgrind: the same on a busy machine as on an idle one, so that an operation
# that became much more expensive is noticed without measuring time.
#   (no argument)      prints a table beside benches/instructions.json
#   --update           rewrites benches/instructions.json; when to do so: benches/README.md
#   --check            fails when an operation takes over a quarter more instructions than written there
#   JOBS=2             operations counted at one time; default: one for each processor
# An operation is run for N and for 3N rounds; the difference is that of 2N rounds, so that one-time work does not count.
# Without valgrind nothing can be counted: the script prints SKIPPED and succeeds.
set -euo pipefail
cd "$(dirname "$0")/.."

mode="${1:-}"
case "$mode" in
'' | --update | --check) ;;
*)
    echo "bench-instructions: unknown argument $mode: use --update or --check" >&2
    exit 2
    ;;
esac

skip() {
    echo "*** bench-instructions: SKIPPED: $*" >&2
    exit 0
}
command -v valgrind >/dev/null || skip "no valgrind: nobody looked whether an operation became dearer (Debian: apt-get install valgrind)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
valgrind --tool=callgrind --callgrind-out-file="$work/true" true >"$work/true.log" 2>&1 ||
    skip "valgrind does not run here: $(tail -1 "$work/true.log")"

cargo build --release --locked --quiet --package crossfade-benches
binary="${CARGO_TARGET_DIR:-target}/release/ops"
"$binary" --list >"$work/operations"

# NAME ROUNDS: writes the number of instructions into the file counts/NAME.ROUNDS.
count() {
    local counts="$work/counts/${1//\//.}.$2"
    if ! valgrind --tool=callgrind --callgrind-out-file="$counts.out" "$binary" --run "$1" --rounds "$2" >"$counts.log" 2>&1; then
        echo "bench-instructions: $1 failed under valgrind:" >&2
        tail -15 "$counts.log" >&2
        return 1
    fi
    sed -n 's/^totals: //p' "$counts.out" >"$counts"
    rm "$counts.out"
}
export -f count
export work binary
mkdir "$work/counts"

# Enough rounds that differences between runs (the policies' clock thread, seeds of hash tables) are below a hundredth.
rounds=10
export rounds
awk -v rounds=$rounds '$3 == "counted" { print $1, rounds; print $1, 3 * rounds }' "$work/operations" |
    xargs -P "${JOBS:-$(nproc)}" -n 2 bash -c 'count "$@"' count

RUSTC="$(rustc -vV)" python3 - "$work" "$mode" <<'END'
import json, os, sys

work, mode = sys.argv[1:]
FILE, ALLOWED = "benches/instructions.json", 1.25
rustc = dict(line.split(": ", 1) for line in os.environ["RUSTC"].splitlines() if ": " in line)
here = {"rustc": rustc["release"], "target": rustc["host"]}


def counted(name, rounds):
    with open(f"{work}/counts/{name.replace('/', '.')}.{rounds}") as file:
        return int(file.read())


rounds = int(os.environ["rounds"])
now, left_out = {}, {}
for line in open(f"{work}/operations"):
    name, per_round, why = line.strip().split(maxsplit=2)
    if why == "counted":
        more = counted(name, 3 * rounds) - counted(name, rounds)
        now[name] = round(more / (2 * rounds * int(per_round)), 1)
    else:
        left_out[name] = why

written = here | {"instructions": {}}
if os.path.exists(FILE):
    with open(FILE) as file:
        written = json.load(file)
before = written["instructions"]

print(f"{'operation':<28} {'instructions':>13} {'baseline':>10} {'ratio':>7}")
for name, instructions in now.items():
    old = before.get(name)
    beside = f"{old:>10.1f} {instructions / old:>7.2f}" if old else f"{'-':>10} {'-':>7}"
    print(f"{name:<28} {instructions:>13.1f} {beside}")
for name, why in left_out.items():
    print(f"{name:<28} not counted: {why}")

if mode == "--update":
    with open(FILE, "w") as file:
        json.dump(here | {"instructions": now, "left_out": left_out}, file, indent=2)
        file.write("\n")
    print(f"written: {FILE}")
elif mode == "--check":
    anew = "if that is as it should be (benches/README.md says when), scripts/bench-instructions.sh --update and commit " + FILE
    if written["target"] != here["target"]:
        print(f"*** bench-instructions: SKIPPED: the baseline is of {written['target']}, this is {here['target']}", file=sys.stderr)
        sys.exit(0)
    wrong = []
    for name, instructions in now.items():
        old = before.get(name)
        if old is None:
            wrong.append(f"{name} has no baseline")
        elif instructions > old * ALLOWED:
            wrong.append(f"{name} takes {instructions:.1f} instructions, {instructions / old:.2f} times the {old:.1f} of the baseline")
        elif instructions * ALLOWED < old:
            print(f"bench-instructions: {name} has become cheaper: a new baseline would keep it so")
    wrong += [f"{name} has a baseline and is not counted any more" for name in before if name not in now]
    if wrong:
        for one in wrong:
            print(f"*** bench-instructions: {one}", file=sys.stderr)
        if written["rustc"] != here["rustc"]:
            print(f"bench-instructions: the baseline is of rustc {written['rustc']}, this is {here['rustc']}", file=sys.stderr)
        print(f"bench-instructions: find out what was added (the commits since {FILE} was last changed); {anew}", file=sys.stderr)
        sys.exit(1)
    print("bench-instructions: no operation takes over a quarter more than its baseline")
END
