"""ioredis' functional tests (mocha), from a clone of its repository: its npm package holds no tests. All files in one run, as its own script does it."""

import json
import os
import subprocess

import rig
import sources

TAG = "v6.0.0"
NEEDS = "mocha@11 chai@4 chai-as-promised@7 sinon@13 ts-node@10 typescript@5 server-destroy@1 uuid@9 @types/node@20".split()
HERE = rig.REPOSITORY / "scripts" / "suites"


def prepare():
    folder, commit = sources.github("redis/ioredis", TAG, ["lib", "test", "package.json", "package-lock.json", "tsconfig.json"])
    if not (folder.parent / "node_modules" / "ts-node").exists() or not (folder / "node_modules").exists():
        rig.say("installing ioredis' dependencies and mocha beside it")
        npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([*npm, "--omit=dev"], cwd=folder, check=True, timeout=300)
        subprocess.run([*npm, "--prefix", str(folder.parent), *NEEDS], cwd=folder.parent, check=True, timeout=300)
    return folder, commit


def run(mode, files, limit):
    folder, commit = prepare()
    outcome = rig.Outcome(f"ioredis-{TAG[1:]}", mode)
    outcome.remarks.append(f"source: {commit}")
    with rig.Rig(mode) as servers:
        report = servers.place / "report.json"
        log = servers.place / "suite.log"
        command = ["node", str(folder.parent / "node_modules/mocha/bin/mocha.js"), "--exit", "--no-experimental-strip-types"]
        command += ["--require", str(HERE / "redirect-6379.js"), "--reporter", "json", "--reporter-option", f"output={report}"]
        command += ["test/helpers/*.ts", *(files or ["test/functional/**/*.ts"])]
        environment = {**os.environ, "SUITE_PORT": str(servers.port), "TS_NODE_TRANSPILE_ONLY": "true", "NODE_ENV": "test"}
        code = rig.run_limited(command, max(limit, 420), log, cwd=folder, env=environment)
        if report.exists():
            read(outcome, folder, report)
        if code is None or not report.exists():
            outcome.add("all", "(the run)", "failed", f"ended with {code}: {log.read_text(errors='replace')[-200:]}")
        wrong = servers.verdict()
        if wrong:
            outcome.add("all", "(after the run)", "failed", wrong)
        servers.keep(outcome, "all")
    return outcome


def read(outcome, folder, report):
    told = json.loads(report.read_text())
    kinds = [(told["passes"], "passed"), (told["failures"], "failed"), (told["pending"], "skipped")]
    for tests, kind in kinds:
        for test in tests:
            file = (test.get("file") or "?").replace(f"{folder}/", "")
            error = test.get("err") or {}
            outcome.add(file, test["fullTitle"], kind, str(error.get("message") or error or ""))
