#!/usr/bin/env python3
"""compare.py DIRECT THROUGH [...]: from result files, the tests that pass directly and fail through Crossfade, and files of which not the same tests ran."""

import collections
import sys


def load(path):
    failed, errors, files = collections.Counter(), {}, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            kind, *fields = line.rstrip("\n").split("\t")
            if kind == "failed":
                key = tuple(fields[:2])
                failed[key] += 1
                errors[key] = fields[2]
            elif kind == "file":
                files[fields[0]] = [int(number) for number in fields[1:]]
    return failed, errors, files


def compare(direct, through):
    direct_failed, _, direct_files = load(direct)
    failed, errors, files = load(through)
    worse = [key for key in failed if failed[key] > direct_failed[key]]
    print(f"{through}: {len(worse)} fail that pass in {direct}; {sum((direct_failed - failed).values())} pass that fail there")
    for file, name in worse:
        print(f"  {file}: {name}\n      {errors[file, name]}")
    for file, counts in files.items():
        ran, ran_directly = sum(counts[:2]), sum(direct_files.get(file, [0, 0])[:2])
        if ran != ran_directly:
            print(f"  {file}: {ran} tests ran, directly {ran_directly}")
    for file in direct_files.keys() - files.keys():
        print(f"  {file}: did not run")
    return len(worse)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(1 if sum(compare(sys.argv[1], through) for through in sys.argv[2:]) else 0)
