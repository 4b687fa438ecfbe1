#!/usr/bin/env python3
"""Runs a test suite that was not written here against a server directly or through Crossfade: run.py SUITE [--mode MODE] [files...]."""

import argparse
import os
import sys

import rig
import suite_hiredis
import suite_ioredis
import suite_redis
import suite_redis_py

SUITES = {"redis": suite_redis, "redis-py": suite_redis_py, "hiredis": suite_hiredis, "ioredis": suite_ioredis}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--mode", choices=rig.MODES, default="auto")
    parser.add_argument("--limit", type=int, default=240, help="seconds that one file may take")
    parser.add_argument("--own-servers", action="store_true", help="redis only: the suite starts its own servers, with a Crossfade in front of each")
    parser.add_argument("files", nargs="*", help="only these files of the suite")
    args = parser.parse_intermixed_args()
    rig.TOOLS.mkdir(parents=True, exist_ok=True)
    suite = SUITES[args.suite]
    run = suite.run_own_servers if args.own_servers else suite.run
    outcome = run(args.mode, args.files, args.limit)
    outcome.write(bool(args.files))
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
