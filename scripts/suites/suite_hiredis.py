"""hiredis' test program, from Debian's source package, over TCP and over a Unix socket whose connections a few lines here carry to the port."""

import re
import socket
import subprocess
import threading

import rig
import sources


def prepare():
    folder = sources.debian("hiredis")
    if not (folder / "hiredis-test").exists():
        subprocess.run(["make", "-s", "hiredis-test"], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=300)
    return folder


def run(mode, _files, limit):
    folder = prepare()
    version = re.search(r"hiredis-([0-9.]+)", folder.name).group(1)
    outcome = rig.Outcome(f"hiredis-{version}", mode)
    with rig.Rig(mode) as servers:
        log = servers.place / "suite.log"
        unix = str(servers.place / "unix")
        carry(unix, servers.port)
        code = rig.run_limited(["./hiredis-test", "-h", "127.0.0.1", "-p", str(servers.port), "-s", unix], limit, log, cwd=folder)
        part = "library"
        for line in re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace")).splitlines():
            about = re.match(r"Testing against (\S+ ?\S*)", line)
            part = about.group(1) if about else part
            test = re.match(r"#\d+ (.*?):? *(PASSED|FAILED|SKIPPED)?$", line)
            if test:
                word = (test.group(2) or "passed").lower()
                outcome.add(part, test.group(1), word, line)
        if code not in (0, 1):
            outcome.add(part, "(the run)", "failed", f"ended with {code}")
        wrong = servers.verdict()
        if wrong:
            outcome.add(part, "(after the run)", "failed", wrong)
        servers.keep(outcome, "all")
    return outcome


def carry(path, port):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def pump(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept():
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
