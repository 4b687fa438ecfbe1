#!/usr/bin/env bash
# The functional tests of ioredis, a client for Node.js. ioredis.sh [--mode direct|auto|never|dual] [--limit SECONDS] [files, e.g. test/functional/pipeline.ts]
set -euo pipefail
exec python3 "$(dirname "$0")/run.py" ioredis "$@"
