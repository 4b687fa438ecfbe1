#!/usr/bin/env bash
# The tests of redis-py, the Python client. redis-py.sh [--mode direct|auto|never|dual] [--limit SECONDS] [files, e.g. tests/test_pubsub.py]
set -euo pipefail
exec python3 "$(dirname "$0")/run.py" redis-py "$@"
