#!/usr/bin/env bash
# The test program of hiredis, the C client. hiredis.sh [--mode direct|auto|never|dual] [--limit SECONDS]
set -euo pipefail
exec python3 "$(dirname "$0")/run.py" hiredis "$@"
