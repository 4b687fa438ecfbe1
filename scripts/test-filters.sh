#!/usr/bin/env bash
# The filters' own tests: everything in filters/dist is rebuilt and compared, every recorded case is run, the layout of
# views is checked in Rust, and the guide of filters/README.md is followed once in each language. What the guide makes is kept in
# target/filter-guide for the end-to-end tests. For a compiler that cannot be installed, SKIPPED is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf target/filter-guide
filters/build.sh --check || [ $? = 3 ]
cargo test --quiet --locked --manifest-path filters/Cargo.toml -p crossfade-filter-abi --features host
KEEP=target/filter-guide filters/test/readme.sh
