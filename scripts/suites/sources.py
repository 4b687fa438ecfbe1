"""Where the suites come from: Debian's source packages, PyPI, or a clone from GitHub. Kept under .tools/suites/; nothing is installed."""

import os
import pathlib
import subprocess
import sys

import rig


def debian(package):
    """The unpacked source package. apt is given lists of its own, so that the machine's are not changed and no root is needed."""
    given = os.environ.get("SUITE_SOURCE")
    if given:
        return pathlib.Path(given)
    place = rig.TOOLS / "debian"
    found = [path for path in place.glob(f"{package}-[0-9]*") if path.is_dir()]
    if found:
        return found[0]
    rig.say(f"fetching the Debian source package {package}")
    for folder in ("parts", "lists/partial", "cache/archives/partial"):
        (place / "apt" / folder).mkdir(parents=True, exist_ok=True)
    parts = place / "apt" / "parts"
    for path in pathlib.Path("/etc/apt/sources.list.d").glob("*.sources"):
        lines = ["Types: deb-src" if line.startswith("Types:") else line for line in path.read_text().splitlines()]
        (parts / path.name).write_text("\n".join(lines) + "\n")
    old = [pathlib.Path("/etc/apt/sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*.list")]
    lines = [line for path in old if path.exists() for line in path.read_text().splitlines() if line.startswith("deb ")]
    (parts / "old.list").write_text("".join(line.replace("deb ", "deb-src ", 1) + "\n" for line in lines))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": parts,
        "Dir::State::lists": place / "apt" / "lists",
        "Dir::Cache": place / "apt" / "cache",
        "APT::Sandbox::User": "root" if os.getuid() == 0 else "",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    for command in (["apt-get", *options, "-q", "update"], ["apt-get", *options, "-q", "source", package]):
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"suites: {' '.join(map(str, command[-2:]))}: {done.stderr[-600:]}\nsuites: or set SUITE_SOURCE to an unpacked source of {package}")
    return next(path for path in place.glob(f"{package}-[0-9]*") if path.is_dir())


def python(package, version, marker):
    """The unpacked source distribution from PyPI; `marker` is a file that it must hold."""
    given = os.environ.get("SUITE_SOURCE")
    if given:
        return pathlib.Path(given)
    place = rig.TOOLS / "pypi"
    place.mkdir(parents=True, exist_ok=True)
    folder = place / f"{package}-{version}"
    if not (folder / marker).exists():
        rig.say(f"fetching {package} {version} from PyPI")
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--no-binary", ":all:", f"{package}=={version}", "-d", str(place)], check=True)
        subprocess.run(["tar", "xzf", str(place / f"{package}-{version}.tar.gz"), "-C", str(place)], check=True)
    if not (folder / marker).exists():
        sys.exit(f"suites: {folder} holds no {marker}: set SUITE_SOURCE to a checkout of {package} {version}")
    return folder


def github(repository, tag, needed):
    """A shallow clone, and what was cloned. Where GitHub cannot be reached, SUITE_SOURCE names a local clone, of which `needed` is taken."""
    given = os.environ.get("SUITE_SOURCE")
    name = repository.split("/")[1]
    commit = tag
    if given:
        newest = ["git", "-C", given, "rev-parse", "--short=10", "HEAD"]
        commit = subprocess.run(newest, capture_output=True, text=True, check=True).stdout.strip()
    folder = rig.TOOLS / "github" / f"{name}-{commit}"
    if folder.exists():
        return folder, commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    if given:
        folder.mkdir()
        archive = subprocess.Popen(["git", "-C", given, "archive", "HEAD", *needed], stdout=subprocess.PIPE)
        subprocess.run(["tar", "x", "-C", str(folder)], stdin=archive.stdout, check=True)
        return folder, commit
    rig.say(f"cloning {repository} {tag}")
    command = ["git", "clone", "-q", "--depth", "1", "--branch", tag, f"https://github.com/{repository}.git", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        sys.exit(f"suites: {repository} {tag} cannot be cloned: {done.stderr[-400:]}\nsuites: set SUITE_SOURCE to a local clone of it")
    return folder, commit
