"""One test's world: a server, a home and a work folder of its own, and the client's runs.

Everything lies in one temporary folder and everything started is its own process group, so
that leaving a Trial ends and removes all of it. Nothing but loopback can be reached: the
proxy that clients are told of does not exist.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zlib

import _install

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = pathlib.Path(__file__).resolve().parent
MODEL = "deepseek-v4-flash"
START_S = 30
TITLES = ["Claude Code:", "opencode, in", "Codex, in", "Pi, in"]      # of printed settings
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    """What did not hold."""


def check(holds, what):
    if not holds:
        raise Failed(what)


def until(what, holds, limit_s):
    """Wait for holds() to be true; returns its value. Fails after limit_s seconds."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.02)
    raise Failed(f"not within {limit_s} s: {what}")


def end_group(child):
    """End a process and all that it started."""
    for sign in signal.SIGTERM, signal.SIGKILL:
        try:
            os.killpg(child.pid, sign)
            child.wait(5)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    child.wait()


class Server:
    """ds4 serve. With a play (a file of play/, played instead of running the model), or, with
    none, the bundled model sampling for real."""

    def __init__(self, build, folder, play=None, ctx=131072, sessions=4, options=(), **speeds):
        device = []
        if play is not None:
            text = (HERE / "play" / f"{play}.json").read_text("utf-8")
            text = text.replace("@WORK@", str(folder / "work"))
            text = text.replace("@ENDLESS@", " ".join(str(n) for n in range(4000)))
            script = json.loads(text)
            script.update(speeds)
            file = folder / "play.json"
            file.write_text(json.dumps(script), "utf-8")
            device = ["--device", f"play:{file}"]
        self.log = folder / "server.log"
        command = [str(build / "ds4"), "serve", "-m", str(ROOT / "models/ds4-tiny.gguf"), *device,
                   "--port", "0", "-c", str(ctx), "--sessions", str(sessions), *options]
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, start_new_session=True)
        try:
            self.url = until("the server's address", self._address, START_S)
            until("the server is ready", self._ready, START_S)
        except Failed:
            self.close()
            raise

    def _check_running(self):
        check(self.child.poll() is None,
              f"ds4 serve ended with status {self.child.returncode}: {self.text()[-500:]}")

    def _address(self):
        self._check_running()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.text())
        return found and found[0]

    def _ready(self):
        self._check_running()
        try:
            return self.get("/health").get("status") == "ok"
        except OSError:
            return False

    def text(self):
        return self.log.read_text("utf-8", "replace")

    def read(self, path):
        with _direct.open(self.url + path, timeout=10) as reply:
            return reply.read().decode("utf-8")

    def get(self, path):
        return json.loads(self.read(path))

    def settings(self, title):
        """What it printed at its start for a client: text, or an object if it is JSON."""
        text = self.lines_below(title)
        return json.loads(text) if text.startswith("{") else text

    def lines_below(self, title):
        """The lines between that one and the next such title, or the end."""
        def whole():
            text = re.sub(r"^\d{4}-\d\d-\d\d .*\n", "", self.text(), flags=re.M)     # its log
            parts = re.split(rf"^({'|'.join(TITLES)}).*$", text.rstrip(), flags=re.M)
            written = parts[-2:-1] == TITLES[-1:] and parts[-1].endswith("} } }")
            return written and dict(zip(parts[1::2], parts[2::2]))[title].strip()
        return until(f"settings for {title} are printed", whole, 5)

    def metric(self, name, labels=""):
        """The sum of a metric over those of its rows that have the labels."""
        rows = re.findall(rf"^{name}(?:\{{[^}}]*{labels}[^}}]*\}})? (\S+)$",
                          self.read("/metrics"), re.M)
        return sum(float(value) for value in rows)

    def check_reuse(self):
        """Later requests computed only what was new in them: by far most was reused."""
        cached, computed = (self.metric(f"ds4x_prefill_{word}_total")
                            for word in ("cached_tokens", "tokens"))
        check(cached > 0.8 * computed, f"{computed:.0f} tokens computed, {cached:.0f} reused")

    def check_patience(self, took_s, least_s):
        """A client waited for its only try, and long enough to prove something."""
        check(took_s > least_s, f"it took {took_s:.1f} s only")
        check(self.metric("ds4x_cancelled_total") == 0, "the client gave up and tried again")

    def busy(self):
        """How many requests run or wait."""
        status = self.get("/status")
        return sum(slot["state"] != "idle" for slot in status["slots"]) + len(status["queue"])

    @contextlib.contextmanager
    def occupied(self, requests):
        """Long answers keep the server busy until the block is left."""
        body = json.dumps({"model": MODEL, "stream": True,
                           "messages": [{"role": "user", "content": "TASK-ENDLESS"}]})
        with contextlib.ExitStack() as stack:
            for n in range(requests):
                connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
                stack.callback(connection.close)
                connection.request("POST", "/v1/chat/completions", body)
                until("the server is busy", lambda n=n: self.busy() == n + 1, 5)
            yield

    def close(self):
        end_group(self.child)


class Run:
    """A client's process, its output in files."""

    def __init__(self, command, cwd, env, name):
        self.command, self.name = command, name
        self.files = [cwd.parent / f"{name}.{stream}" for stream in ("out", "err")]
        self.started = time.monotonic()
        with open(self.files[0], "wb") as out, open(self.files[1], "wb") as err:
            self.child = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                                          stdout=out, stderr=err, start_new_session=True)

    @property
    def out(self):
        return self.files[0].read_text("utf-8", "replace")

    @property
    def err(self):
        return self.files[1].read_text("utf-8", "replace")

    def running(self):
        return self.child.poll() is None

    def wait(self, limit_s):
        try:
            return self.child.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {limit_s} s") from None

    def interrupt(self):
        """Ctrl-C, as a terminal sends it: to the whole group."""
        os.killpg(self.child.pid, signal.SIGINT)

    def close(self):
        end_group(self.child)


class Trial:
    running = set()

    def __init__(self, build):
        self.build = build
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="ds4-client-"))
        self.home, self.work = self.root / "home", self.root / "work"
        for folder in self.home, self.work, self.root / "tmp":
            folder.mkdir()
        self.extra, self.runs, self.server, self.closed = [], [], None, False

    def __enter__(self):
        self.running.add(self)
        return self

    def __exit__(self, *_):
        self.close()
        self.running.discard(self)

    def close(self):
        self.closed = True
        for run in self.runs:
            run.close()
        if self.server:
            self.server.close()
        for folder in [self.root, *self.extra]:
            shutil.rmtree(folder, ignore_errors=True)

    def serve(self, play=None, **options):
        check(not self.closed, "the tests are stopped")
        self.server = Server(self.build, self.root, play, **options)
        return self.server

    def cache_folder(self, name):
        """A folder that is not below /tmp, which Codex asks of its home."""
        _install.CACHE.mkdir(parents=True, exist_ok=True)
        self.extra.append(pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_install.CACHE)))
        return self.extra[-1]

    def write(self, path, content):
        """A file below the home: text, or an object as JSON."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return file

    def picture(self):
        """A PNG of 8 x 8 red dots in the work folder."""
        def chunk(kind, data):
            return (struct.pack(">I", len(data)) + kind + data +
                    struct.pack(">I", zlib.crc32(kind + data)))
        rows = (b"\0" + b"\xff\0\0" * 8) * 8
        file = self.work / "picture.png"
        file.write_bytes(b"\x89PNG\r\n\x1a\n" +
                         chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) +
                         chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
        return file

    def environment(self, more):
        nowhere = "http://127.0.0.1:9"
        env = {"HOME": self.home, "TMPDIR": self.root / "tmp", "TERM": "dumb", "LANG": "C.UTF-8",
               "SHELL": "/bin/sh", "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
               "XDG_CONFIG_HOME": self.home / ".config", "XDG_DATA_HOME": self.home / ".local/share",
               "XDG_STATE_HOME": self.home / ".local/state", "XDG_CACHE_HOME": self.home / ".cache",
               "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "http_proxy": nowhere,
               "https_proxy": nowhere, "NO_PROXY": "127.0.0.1,localhost,::1",
               "no_proxy": "127.0.0.1,localhost,::1"}
        env.update(more)
        return {key: str(value) for key, value in env.items()}

    def start(self, command, env):
        check(not self.closed, "the tests are stopped")
        name = f"run{len(self.runs) + 1}"
        run = Run([str(word) for word in command], self.work, self.environment(env), name)
        self.runs.append(run)
        return run

    def run(self, command, env, limit_s=150, status=0):
        """Run a client to its end, which must have the status; returns the Run."""
        run = self.start(command, env)
        got = run.wait(limit_s)
        check(got == status, f"{run.name}: exit status {got}, expected {status}")
        return run

    def interrupted(self, phase, command, env):
        """Start a client, send it Ctrl-C when the server is in that phase of its request, and
        see that the server stops working for it and the client ends."""
        run = self.start(command, env)
        until(f"the server is in {phase}",
              lambda: self.server.metric("ds4x_slots", f'state="{phase}"'), 60)
        run.interrupt()
        until("the server is free again", lambda: not self.server.busy(), 2)
        gone = self.server.metric("ds4x_cancelled_total", f'phase="{phase}",reason="client"')
        check(gone >= 1, f"no request was given up in {phase}")
        run.wait(20)

    def turned_away(self, command, env):
        """Start a client while the server, which answers one and lets one wait, is busy; free it
        when it has turned the client away. Returns the Run of the client, which tries again."""
        with self.server.occupied(2):
            run = self.start(command, env)
            until("the client is turned away", lambda: sum(
                self.server.metric("ds4x_requests_total", f'status="{status}"')
                for status in (429, 529)), 60)
        check(run.wait(60) == 0, f"exit status {run.child.returncode}")
        return run

    def report(self):
        """The ends of everything that was said, for a test that failed."""
        parts = []
        for run in self.runs:
            parts += [f"$ {' '.join(run.command)[:600]}", _tail(run.out, "out"), _tail(run.err, "err")]
        if self.server:
            parts.append(_tail(self.server.text(), "server"))
        return "\n".join(part for part in parts if part)


def _tail(text, name, lines=25):
    rows = text.rstrip().splitlines()
    cut = [f"{name}: ..."] if len(rows) > lines else []
    return "\n".join(cut + [f"{name}: {row[:400]}" for row in rows[-lines:]])
