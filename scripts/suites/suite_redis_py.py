"""redis-py's own tests (pytest) from its source distribution, against one server; with the wire protocol that redis-py uses by default (RESP3)."""

import os
import subprocess
import sys
import xml.etree.ElementTree

import rig
import sources

VERSION = "8.1.0"
NEEDS = "pytest pytest-asyncio pytest-timeout numpy ujson pybreaker aiohttp xxhash redis-entraid==1.2.1 cryptography".split()
NEEDS += ["click", "packaging", "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"]
# What needs a cluster, sentinels, modules, TLS certificates or a cloud.
WITHOUT = "not onlycluster and not redismod and not ssl and not replica and not cp_integration and not multidb_integration and not experimental"
LEFT_OUT = ["tests/test_scenario", "tests/test_asyncio/test_scenario", "tests/test_multidb", "tests/test_asyncio/test_multidb"]
TEST_SECONDS = 30


def prepare():
    folder = sources.python("redis", VERSION, "tests/conftest.py")
    python = rig.TOOLS / "redis-py" / "bin" / "python"
    if not (python.parent / "pytest").exists():
        rig.say("installing pytest and what the tests need into .tools/suites/redis-py")
        subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install", *NEEDS], check=True)
    return folder, python


def run(mode, files, limit):
    folder, python = prepare()
    outcome = rig.Outcome(f"redis-py-{VERSION}", mode)
    if not files:
        every = sorted(str(path.relative_to(folder)) for path in (folder / "tests").rglob("test_*.py"))
        files = [file for file in every if not file.startswith(tuple(LEFT_OUT)) and uses_server(folder / file)]
    for file in files:
        with rig.Rig(mode) as servers:
            report = servers.place / "report.xml"
            log = servers.place / "suite.log"
            url = f"redis://127.0.0.1:{servers.port}/0"
            command = [str(python), "-m", "pytest", file, "-q", "--redis-url", url, f"--timeout={TEST_SECONDS}", "-m", WITHOUT]
            command += [f"--junitxml={report}", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
            environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
            code = rig.run_limited(command, limit, log, cwd=folder, env=environment)
            if code is None:
                outcome.add(file, "(the whole file)", "failed", f"still running after {limit} s")
            elif report.exists():
                read(outcome, file, report)
            elif code != 5:
                outcome.add(file, "(the whole file)", "failed", f"pytest ended with {code}: {log.read_text(errors='replace')[-150:]}")
            servers.finish(outcome, file)
        rig.say(f"{file}: {outcome.counts.get(file) or 'nothing ran'}")
    return outcome


def uses_server(path):
    """Files without the fixtures that connect test the library alone."""
    text = path.read_text()
    return "fake_server" not in text and any(word in text for word in ("(r)", "(r,", ", r)", ", r,", "self, r", "_get_client", "redis_url", "create_redis"))


def read(outcome, file, report):
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '').split('.')[-1]}.{case.get('name')}"
        wrong = next((child for child in case if child.tag in ("failure", "error")), None)
        if wrong is not None:
            outcome.add(file, name, "failed", wrong.get("message") or wrong.text or "")
        else:
            outcome.add(file, name, "skipped" if case.find("skipped") is not None else "passed")
