"""Redis' own Tcl suite, in its external mode: each file against fresh servers. Tests tagged `slow` are left out, as in Redis' own runs of this mode."""

import os
import re
import shutil
import subprocess

import rig
import sources

HERE = rig.REPOSITORY / "scripts" / "suites"
# Files with tests that external mode leaves out; those of clusters and of the process itself are not among them.
OWN = """acl acl-v2 auth info introspection networking obuf-limits querybuf pendingquerybuf limits client-eviction maxmemory expire other multi scripting
functions pause type/stream-cgroups type/list pubsubshard wait memefficiency aofrw dump"""

MARK = re.compile(r"^\[(ok|err|skip|ignore|exception|TIMEOUT)\]: (.*)$")
OTHER = re.compile(r"^(\[\d+/\d+ done\]|\[ready\]|Testing |Cleanup: |Starting test server|\s*The End|Execution time|=== |Killing still)")


def prepare():
    folder = sources.debian("redis")
    for program in ("redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb", "redis-sentinel"):
        link = folder / "src" / program
        where = shutil.which(program)
        if where and not link.exists():
            link.symlink_to(where)
    # A place for through.tcl.
    helper = folder / "tests" / "test_helper.tcl"
    last, more = "source tests/support/util.tcl\n", "if {[info exists ::env(SUITE_TCL)]} { source $::env(SUITE_TCL) }\n"
    text = helper.read_text()
    if more not in text:
        helper.write_text(text.replace(last, last + more))
    return folder


def run(mode, files, limit):
    folder = prepare()
    version = re.search(r"redis-([0-9.]+)", folder.name).group(1)
    listed = subprocess.run(["./runtest", "--list-tests"], cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    outcome = rig.Outcome(f"redis-{version}", mode)
    for file in files or listed:
        with rig.Rig(mode) as servers:
            log = servers.place / "suite.log"
            command = ["./runtest", "--host", "127.0.0.1", "--port", str(servers.port), "--durable", "--tags", "-slow", "--single", file]
            command += ["--baseport", str(rig.free_port())]
            code = rig.run_limited(command, limit, log, cwd=folder)
            judge(outcome, file, log.read_text(errors="replace"), code, limit)
            servers.finish(outcome, file)
        rig.say(f"{file}: {outcome.counts.get(file) or 'nothing ran'}")
    return outcome


def run_own_servers(mode, files, limit):
    """The suite starts its own servers, so that also those tests run that external mode leaves out; in front of each server stands a Crossfade."""
    if mode == "dual":
        raise SystemExit("suites: the mode dual needs servers that the suite does not start itself")
    folder = prepare()
    version = re.search(r"redis-([0-9.]+)", folder.name).group(1)
    outcome = rig.Outcome(f"redis-{version}-own-servers", mode)
    environment = dict(os.environ)
    if mode != "direct":
        environment.update(SUITE_TCL=str(HERE / "through.tcl"), SUITE_SHARING=mode, CROSSFADE_BIN=rig.binary())
    for file in files or [f"unit/{name}" for name in OWN.split()]:
        with rig.Place(mode) as place:
            # Its temporary files are in its folder, and each run removes those of all others.
            tree = place.place / "tree"
            tree.mkdir()
            for entry in folder.iterdir():
                if entry.name == "tests":
                    shutil.copytree(entry, tree / "tests", symlinks=True)
                else:
                    (tree / entry.name).symlink_to(entry)
            log = place.place / "suite.log"
            command = ["./runtest", "--clients", "1", "--durable", "--tags", "-slow", "--single", file, "--baseport", str(rig.free_port())]
            code = rig.run_limited(command, limit, log, cwd=tree, env=environment)
            judge(outcome, file, log.read_text(errors="replace"), code, limit)
            place.keep(outcome, file)
        rig.say(f"{file}: {outcome.counts.get(file) or 'nothing ran'}")
    return outcome


def judge(outcome, file, text, code, limit):
    last = read(outcome, file, text)
    if code is None:
        outcome.add(file, f"(the test after: {last})", "failed", f"still running after {limit} s")
    elif code and "[err]" not in re.sub(r"\x1b\[[0-9;]*m", "", text):
        outcome.add(file, f"(the test after: {last})", "failed", f"the suite ended with {code}: {text[-200:]}")


def read(outcome, file, text):
    """Adds every test of the output; the name of the last one."""
    last, failing = "the beginning", None
    words = {"ok": "passed", "skip": "skipped", "ignore": "skipped"}

    def flush():
        nonlocal failing
        if failing:
            outcome.add(file, failing[0], "failed", error_of(failing[1:]))
            failing = None

    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        mark = MARK.match(line)
        if mark is None and not OTHER.match(line):
            if failing and line.strip() and not line.startswith("!!! WARNING"):
                failing.append(line)
            continue
        flush()
        if line.startswith("Execution time") or "The End" in line:
            break
        if mark is None:
            continue
        kind, rest = mark.groups()
        if kind in words:
            last = re.sub(r" \(\d+ ms\)$", "", rest) if kind == "ok" else rest
            outcome.add(file, last, words[kind])
        else:
            last = re.sub(r" in tests/\S+\.tcl$", "", rest)
            failing = [last]
    flush()
    return last


def error_of(lines):
    """The suite cuts the beginning off an error that is no assertion; the trace after it has it whole."""
    if not lines:
        return "no message"
    for line in lines[1:]:
        if line != lines[0] and line.endswith(lines[0]):
            return line
    return lines[0]
