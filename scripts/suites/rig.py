"""Servers and a Crossfade for one run of a foreign test suite. Everything that is started here is stopped here, by its pid, also after a failure."""

import atexit
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / ".tools" / "suites"
RESULTS = pathlib.Path(os.environ.get("SUITE_RESULTS", REPOSITORY / "scripts" / "suites" / "results"))
MODES = ("direct", "auto", "never", "dual")
STEP_SECONDS = 60
SERVER_ARGS = ["--save", "", "--appendonly", "no", "--enable-protected-configs", "yes", "--enable-debug-command", "yes", "--enable-module-command", "yes"]

_started = []


def say(text):
    print(f"suites: {text}", file=sys.stderr, flush=True)


def stop_all():
    for process in reversed(_started):
        stop(process)


def stop(process):
    """SIGTERM to it and to what it started, SIGKILL to what is left. It leads a session of its own, so nobody else is in its group."""
    if process.poll() is None:
        signal_group(process, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            pass
    # A server that runs a script does not end at SIGTERM, and outlives the suite that started it.
    signal_group(process, signal.SIGKILL)
    process.wait()
    if process in _started:
        _started.remove(process)


def signal_group(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


atexit.register(stop_all)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: sys.exit(128 + number))


def start(command, log, **more):
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more)
    _started.append(process)
    return process


def run_limited(command, seconds, log, **more):
    """Its exit code, or None when the time was over."""
    process = start(command, log, **more)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        stop(process)


def free_port():
    """Below the ports that the system gives to clients and those that suites use for servers of their own (ioredis: 17379 and above)."""
    while True:
        port = 11000 + int.from_bytes(os.urandom(2), "big") % 6000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def ask(port, *words, patience=10):
    """One command and its reply; an error is a string that begins with "-", another line one that begins with its type."""
    return ask_all(port, [words], patience)[0]


def ask_all(port, commands, patience=10):
    with socket.create_connection(("127.0.0.1", port), patience) as connection:
        file = connection.makefile("rwb")
        replies = []
        for words in commands:
            parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            file.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            file.flush()
            replies.append(reply(file))
        return replies


def reply(file):
    line = file.readline()
    if not line:
        raise ConnectionError("the connection ended")
    line = line.rstrip(b"\r\n")
    size = int(line[1:]) if line[:1] in b"$*" else None
    if line[:1] == b"$" and size >= 0:
        return file.read(size + 2)[:-2]
    if line[:1] == b"*" and size >= 0:
        return [reply(file) for _ in range(size)]
    return None if size is not None else line.decode()


def contents(port):
    """Every key's digest by database and name, without the keys that Crossfade keeps for itself."""
    found = {}
    told = ask(port, "INFO", "keyspace")
    if not isinstance(told, bytes):
        raise RuntimeError(f"the server says {told}")
    databases = [int(number) for number in re.findall(r"^db(\d+):", told.decode(), re.MULTILINE)]
    for database in databases:
        _, keys = ask_all(port, [("SELECT", database), ("KEYS", "*")])
        keys = [key for key in keys if not key.startswith(b"__crossfade:")]
        for at in range(0, len(keys), 1000):
            batch = keys[at : at + 1000]
            _, digests = ask_all(port, [("SELECT", database), ("DEBUG", "DIGEST-VALUE", *batch)], patience=60)
            found.update({(database, key): digest for key, digest in zip(batch, digests)})
    return found


def until(what, seconds, done):
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            answer = done()
            if answer:
                return answer
        except (OSError, RuntimeError) as error:
            last = error
        time.sleep(0.05)
    raise RuntimeError(f"waited {seconds} s for {what}: {last or 'not so'}")


def binary():
    path = os.environ.get("CROSSFADE_BIN", str(REPOSITORY / "target/release/crossfade"))
    if not os.access(path, os.X_OK):
        sys.exit(f"suites: {path} is missing: cargo build --release, or set CROSSFADE_BIN")
    return path


class Place:
    """A temporary folder, gone at the end unless SUITE_KEEP is set."""

    log = None

    def __init__(self, mode):
        self.mode = mode
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="crossfade-suite-"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if os.environ.get("SUITE_KEEP"):
            say(f"kept {self.place}")
        else:
            shutil.rmtree(self.place, ignore_errors=True)

    def keep(self, outcome, file):
        """The output of a file of the suite and Crossfade's log of that time stay in .tools/suites/logs."""
        folder = TOOLS / "logs" / f"{outcome.suite}.{self.mode}"
        folder.mkdir(parents=True, exist_ok=True)
        name = file.replace("/", "-")
        shutil.copy(self.place / "suite.log", folder / f"{name}.log")
        if self.log:
            shutil.copy(self.log, folder / f"{name}.crossfade.log")


class Rig(Place):
    """`port` is where the suite goes: the server itself, or Crossfade in front of it."""

    def __init__(self, mode, server_args=()):
        super().__init__(mode)
        self.processes = []
        self.admin = None
        try:
            self.source = self._server("source", server_args)
            self.port = self.source
            if mode != "direct":
                self.target = self._server("target", server_args) if mode == "dual" else None
                self.port = self._crossfade()
            if mode == "dual":
                self._keep_in_step()
        except BaseException:
            self.close()
            raise

    def close(self):
        for process in reversed(self.processes):
            stop(process)
        super().close()

    def _server(self, name, more):
        port = free_port()
        home = self.place / name
        home.mkdir()
        program = os.environ.get("SUITE_SERVER", "redis-server")
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), *SERVER_ARGS, *more]
        process = start(command, home / "log")
        self.processes.append(process)
        until(f"{program} (log: {home}/log)", 15, lambda: ask(port, "PING") == "+PONG")
        return port

    def _crossfade(self):
        port, admin = free_port(), free_port()
        self.binary = binary()
        lines = [f'[admin]\nlisten = "127.0.0.1:{admin}"', f'[data]\ndir = "{self.place}/data"']
        lines.append(f'[endpoints.old]\nkind = "redis"\nurl = "redis://127.0.0.1:{self.source}/0"')
        if self.target:
            lines.append(f'[endpoints.new]\nkind = "redis"\nurl = "redis://127.0.0.1:{self.target}/0"')
        lines.append(f'[interlays.suite]\nkind = "redis"\nlisten = "127.0.0.1:{port}"\nsource = "old"')
        if self.target:
            lines.append('target = "new"')
        lines.append(f'sharing = "{"never" if self.mode == "never" else "auto"}"')
        config = self.place / "crossfade.toml"
        config.write_text("\n".join(lines) + "\n")
        self.log = self.place / "crossfade.log"
        process = start([self.binary, "serve", "--config", str(config)], self.log, cwd=self.place)
        self.crossfade = process
        self.processes.append(process)
        self.admin = f"http://127.0.0.1:{admin}"

        def up():
            if process.poll() is not None:
                raise SystemExit(f"crossfade ended at once: {self.log.read_text()[-2000:]}")
            return ask(port, "PING") == "+PONG"

        until("crossfade", 15, up)
        return port

    def cli(self, *args):
        command = [self.binary, "--admin", self.admin, "--output", "json", *args]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"crossfade {' '.join(args)}: {done.stdout} {done.stderr}")
        return done.stdout

    def show(self):
        return json.loads(self.cli("migration", "show", "m"))

    def _keep_in_step(self):
        """A migration in the phase `compare`: from then on the replication feed keeps the target in step."""
        gates = ("--analyze-min-commands", "0", "--analyze-min-seconds", "0")
        self.cli("migration", "create", "--id", "m", "--interlay", "suite", "--feed", "replication", *gates)
        for phase in ("analyze", "compare"):
            until(f"phase {phase}", STEP_SECONDS, lambda phase=phase: self.cli("migration", "advance", "m", "--to", phase) or True)
        ask(self.port, "SET", "suite:probe", "in step")
        until("a target in step", STEP_SECONDS, lambda: ask(self.target, "GET", "suite:probe") == b"in step")
        ask(self.port, "DEL", "suite:probe")

    def finish(self, outcome, file):
        """After the last test of a file."""
        wrong = self.verdict()
        if wrong:
            outcome.add(file, "(after the file)", "failed", wrong)
        self.keep(outcome, file)

    def verdict(self):
        """For a run with two servers: None when both hold the same at the end, else what is wrong."""
        if self.mode == "direct":
            return None
        if self.crossfade.poll() is not None:
            return f"crossfade ended with {self.crossfade.returncode}: {self.log.read_text()[-300:]}"
        panics = re.findall(r"panicked at [^\n]*", self.log.read_text(errors="replace"))
        if panics:
            return f"{len(panics)} panics: {panics[0]}"
        if self.mode != "dual":
            return None

        def same():
            source, target = contents(self.source), contents(self.target)
            wrong = [key for key in source.keys() | target.keys() if source.get(key) != target.get(key)]
            if wrong:
                shown = ", ".join(f"db{key[0]} {key[1]!r:.40}" for key in sorted(wrong)[:3])
                raise RuntimeError(f"{len(wrong)} of {len(source)} keys differ on the target, which has {len(target)}: {shown}")
            return True

        try:
            until("equal contents", 15, same)
        except RuntimeError as error:
            return str(error)
        return None


def plain(text):
    """One line without colours, control characters and this folder's path, at most 200 characters."""
    text = text.replace(f"{REPOSITORY}/", "")
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:200]


class Outcome:
    """Counts by file and the failed tests, written as a result file."""

    def __init__(self, suite, mode):
        self.suite, self.mode = suite, mode
        self.counts, self.failed, self.every, self.remarks = {}, [], [], []

    def add(self, file, name, outcome, error=""):
        count = self.counts.setdefault(file, {"passed": 0, "failed": 0, "skipped": 0})
        count[outcome] += 1
        self.every.append((outcome, file, plain(name)))
        if outcome == "failed":
            self.failed.append((file, plain(name), plain(error)))

    def total(self, outcome):
        return sum(count[outcome] for count in self.counts.values())

    def summary(self):
        return f"passed {self.total('passed')}, failed {self.total('failed')}, skipped {self.total('skipped')}"

    def write(self, partial):
        """A run of some files only does not replace the committed result."""
        folder = TOOLS / "results" if partial else RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.suite}.{self.mode}.txt"
        lines = [f"# {self.suite}, mode {self.mode}: {self.summary()}"]
        lines += [f"# {remark}" for remark in self.remarks]
        lines += [f"failed\t{file}\t{name}\t{error}" for file, name, error in self.failed]
        lines += [f"file\t{file}\t{count['passed']}\t{count['failed']}\t{count['skipped']}" for file, count in self.counts.items()]
        path.write_text("\n".join(lines) + "\n")
        full = TOOLS / "results"
        full.mkdir(parents=True, exist_ok=True)
        (full / f"{self.suite}.{self.mode}.every.txt").write_text("".join(f"{a}\t{b}\t{c}\n" for a, b, c in self.every))
        say(f"{self.suite}, mode {self.mode}: {self.summary()}; {path}")
