#!/usr/bin/env bash
# Redis' own test suite. redis.sh [--own-servers] [--mode direct|auto|never|dual] [--limit SECONDS] [files, e.g. unit/multi]
set -euo pipefail
exec python3 "$(dirname "$0")/run.py" redis "$@"
