"""_serve.py: ds4 serve under test, and an HTTP client that believes nothing.

    with Server(BUILD, {"rules": [{"say": "Hello.</think>Hi!"}]}, "--heartbeat", "0.2") as server:
        reply = server.post("/v1/messages", {"messages": [...], "stream": True})
        for name, data in events(reply.body): ...

A Server plays its script (see docs/TESTING.md, "Answers from a file") or, with None, runs the
bundled model; leaving the block ends it, and claims that it ends by itself with status 0 and
prints nothing but its log. A Connection speaks HTTP/1.1 over a bare socket, and every reply is
checked: its status line, its header fields, that it has one framing and keeps to it, that a
chunk of a stream is whole events. What is wrong is an AssertionError.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = str(ROOT / "models/ds4-tiny.gguf")
TIMEOUT_S = 60          # of anything that should come: generous, machines may be busy
TRIES = 5               # of what is late
REQUEST_ID = re.compile(r"req_[0-9a-f]{24}")


def until(holds, what, limit_s=TIMEOUT_S):
    """Wait for holds() to be true; returns its value."""
    end = time.monotonic() + limit_s
    while True:
        value = holds()
        if value:
            return value
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.01)


# ---- times ----------------------------------------------------------------------------------

class Late(AssertionError):
    """Something took too long: by a fault, or since the machine is busy or was stopped. A fault
    is there each time, so Claims.run() tries what is late again, some times."""


@contextlib.contextmanager
def promised(seconds, what):
    """The block takes no longer."""
    start = time.monotonic()
    with presumed(seconds, what):
        yield
    took = time.monotonic() - start
    if took > seconds:
        raise Late(f"{what}: {took:.2f} s, promised are {seconds}")


@contextlib.contextmanager
def presumed(seconds, what):
    """What fails in the block proves something only where the block took no longer."""
    start = time.monotonic()
    try:
        yield
    except AssertionError as error:
        took = time.monotonic() - start
        if took > seconds:
            raise Late(f"{what}: {took:.2f} s instead of {seconds}, and {error}") from None
        raise


# ---- a reply --------------------------------------------------------------------------------

class Reply:
    """What came: status, reason, headers (a dict of lower-case names), body. Of a stream also
    its chunks, [(seconds since the request was sent, bytes)]. ended: "length", "chunks",
    "nothing" (no body by rule), or "reset" and "closed": the connection broke in the middle."""

    def __init__(self, status, reason, fields):
        self.status, self.reason, self.fields = status, reason, fields
        self.headers = dict(fields)
        self.body, self.chunks, self.ended = b"", [], ""

    def json(self):
        return json.loads(self.body.decode("utf-8"))

    def is_stream(self):
        return self.headers.get("transfer-encoding") == "chunked"

    def __repr__(self):
        return f"<{self.status} {self.headers.get('content-type')} {self.ended} {self.body[:600]}>"


def events(body):
    """The events of a stream's bytes, [(name or None, data)]; their byte form is the strict one
    of the specification: one `data:` line each, perhaps an `event:` line before it."""
    assert body == b"" or body.endswith(b"\n\n"), f"half an event: {body[-200:]}"
    text = body.decode("utf-8")
    assert "\r" not in text, "a carriage return in a stream"
    found = []
    for part in text.split("\n\n")[:-1]:
        lines = part.split("\n")
        name = lines.pop(0)[7:] if lines[0].startswith("event: ") else None
        assert len(lines) == 1 and lines[0].startswith("data: "), f"no event: {part}"
        found.append((name, lines[0][6:]))
    return found


# ---- a connection ---------------------------------------------------------------------------

class Connection:
    """One TCP connection: requests after each other, and their replies."""

    def __init__(self, port, timeout=TIMEOUT_S, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port, self.pending, self.start = port, b"", time.monotonic()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- bytes

    def send(self, raw):
        self.start = time.monotonic()
        self.socket.sendall(raw)

    def _more(self):
        """False: the other side has closed."""
        piece = self.socket.recv(65536)
        self.pending += piece
        return bool(piece)

    def _need(self, n):
        while len(self.pending) < n:
            if not self._more():
                raise EOFError
        taken, self.pending = self.pending[:n], self.pending[n:]
        return taken

    def _line(self):
        while b"\r\n" not in self.pending:
            assert len(self.pending) < 1 << 16, "an endless line"
            if not self._more():
                raise EOFError
        line, _, self.pending = self.pending.partition(b"\r\n")
        return line

    # -- requests

    def post_bytes(self, method, path, body=b"", headers=()):
        """The bytes of a request; headers are pairs, body is bytes or what JSON is made of."""
        if not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
        given = {name.lower() for name, _ in headers}
        lines = [f"{method} {path} HTTP/1.1"]
        if "host" not in given:
            lines.append(f"Host: 127.0.0.1:{self.port}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method == "POST":
            if "content-type" not in given:
                lines.append("Content-Type: application/json")
            if not given & {"content-length", "transfer-encoding"}:
                lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines + ["", ""]).encode("latin-1") + bytes(body)

    def ask(self, method, path, body=b"", headers=()):
        self.send(self.post_bytes(method, path, body, headers))
        return self.read(method == "HEAD")

    # -- replies

    def read(self, head_only=False, on_chunk=None):
        """The next reply, to its end. on_chunk(reply) is called after each chunk of a stream;
        where it returns True no more is read."""
        reply = self.read_head()
        if head_only or reply.status == 204:
            reply.ended = "nothing"
        elif reply.is_stream():
            self.read_chunks(reply, on_chunk)
        else:
            reply.body = self._need(int(reply.headers["content-length"]))
            reply.ended = "length"
        return reply

    def read_head(self):
        """Status and header fields: all of them are checked. EOFError: there is no reply."""
        line = self._line().decode("latin-1")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) ([A-Z][A-Za-z -]*)", line)
        assert found, f"no status line: {line}"
        fields = []
        while line := self._line().decode("latin-1"):
            name, colon, value = line.partition(": ")
            assert colon and re.fullmatch("[a-z0-9-]+", name), f"no header field: {line}"
            assert re.fullmatch(r"[ -~]*", value), f"a value that is none: {line}"
            fields.append((name, value))
        reply = Reply(int(found[1]), found[2], fields)
        self._check_head(reply)
        return reply

    @staticmethod
    def _check_head(reply):
        assert len(reply.headers) == len(reply.fields), f"a field came twice: {reply.fields}"
        headers = reply.headers
        assert REQUEST_ID.fullmatch(headers.get("request-id", "")), f"no request id: {headers}"
        assert headers.get("x-request-id"), f"no x-request-id: {headers}"
        assert "content-encoding" not in headers, "a compressed reply"
        if reply.is_stream():
            assert "content-length" not in headers, "two framings"
            assert headers.get("cache-control") == "no-cache", headers
            assert headers.get("content-type", "").startswith("text/event-stream"), headers
        elif reply.status != 204:
            assert re.fullmatch(r"\d+", headers.get("content-length", "")), f"no length: {headers}"
            assert "transfer-encoding" not in headers, headers
        if reply.status in (429, 503, 529):
            assert 1 <= int(headers.get("retry-after", 0)) <= 30, f"no retry-after: {headers}"

    def read_chunks(self, reply, on_chunk=None):
        """Go on with a stream, to its end."""
        try:
            while size := self._chunk_size():
                data = self._need(size)
                assert self._line() == b"", "a chunk is longer than its size"
                assert data.endswith(b"\n\n"), f"a chunk with half an event: {data[-100:]}"
                reply.chunks.append((time.monotonic() - self.start, data))
                reply.body += data
                if on_chunk and on_chunk(reply):
                    return
            assert self._line() == b"", "trailers"
            reply.ended = "chunks"
        except ConnectionResetError:
            reply.ended = "reset"
        except EOFError:
            reply.ended = "closed"

    def _chunk_size(self):
        line = self._line()
        assert re.fullmatch(rb"[0-9a-f]+", line), f"no chunk size: {line}"
        return int(line, 16)

    def is_closed(self):
        """The other side sends no more: it has closed, or does so soon."""
        try:
            return not self.pending and not self._more()
        except ConnectionResetError:
            return True


# ---- the server -----------------------------------------------------------------------------

class Server:
    """ds4 serve on a port of its own. play: a script, or None for the bundled model. options go
    to the command, child to Popen; the context is small, so that many sessions cost little."""

    def __init__(self, build, play=None, *options, ctx=4096, sessions=2, child=None):
        self.folder = tempfile.TemporaryDirectory(prefix="ds4-serve-")
        device = []
        if play is not None:
            file = pathlib.Path(self.folder.name) / "play.json"
            file.write_text(json.dumps(play), "utf-8")
            device = ["--device", f"play:{file}"]
        command = [str(pathlib.Path(build).resolve() / "ds4"), "serve", "-m", MODEL, *device,
                   "--port", "0", "-c", str(ctx), "--sessions", str(sessions), *options]
        self.child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      start_new_session=True, **(child or {}))
        self.lines = []
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        try:
            self.port = int(until(self._where, "the server listens")[1])
            until(self._is_ready, "the server is ready")
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self):
        return self.child.pid

    def _read_log(self):
        for line in self.child.stderr:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def log(self):
        """All that was said on stderr so far."""
        return "\n".join(self.lines)

    def last_words(self):
        """Its end; of a sanitizer's report the beginning."""
        log = self.log()
        found = re.search("ERROR: .*Sanitizer|WARNING: .*Sanitizer|: runtime error: ", log)
        return log[found.start():][:6000] if found else log[-3000:]

    def _alive(self):
        status = self.child.poll()
        assert status is None, f"the server has ended with status {status}:\n{self.last_words()}"

    def _where(self):
        self._alive()
        return re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log())

    def _is_ready(self):
        self._alive()
        with self.connect() as connection:
            return connection.ask("GET", "/health").status == 200

    # -- requests, each on a connection of its own

    def connect(self, timeout=TIMEOUT_S):
        return Connection(self.port, timeout)

    def ask(self, method, path, body=b"", headers=()):
        with self.connect() as connection:
            return connection.ask(method, path, body, headers)

    def get(self, path, headers=()):
        return self.ask("GET", path, headers=headers)

    def post(self, path, body, headers=()):
        return self.ask("POST", path, body, headers)

    def status(self):
        return self.get("/status").json()

    def hear(self, seconds):
        """Let time pass in which the server runs: it answers all the while."""
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            self.get("/health")
            took = time.monotonic() - start
            if took > max(seconds / 4, 0.2):
                raise Late(f"the server was not heard for {took:.2f} s")
            time.sleep(0.01)

    def busy(self):
        """How many requests run or wait."""
        status = self.status()
        return sum(slot["state"] != "idle" for slot in status["slots"]) + len(status["queue"])

    def metric(self, name, **labels):
        """The sum of a metric over all rows that have these labels."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            row = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if row and all(f'{key}="{value}"' in (row[1] or "") for key, value in labels.items()):
                total += float(row[2])
        return total

    # -- the process, as Linux shows it

    def _proc(self, name):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1])

    def threads(self):
        return self._proc("Threads")

    def memory(self):
        """Resident bytes."""
        return self._proc("VmRSS") * 1024

    def files(self):
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # -- the end

    def end(self, sign=signal.SIGTERM, limit_s=TIMEOUT_S):
        """Tell it to end; returns its exit status."""
        if self.child.poll() is None:
            self.child.send_signal(sign)
        try:
            return self.child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it does not end:\n{self.last_words()}") from None

    def kill(self):
        """Whatever it does: for servers that are not asked any more."""
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self._release()

    def _release(self):
        self.reader.join(TIMEOUT_S)
        self.child.stdout.close()
        self.child.stderr.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill()
            return
        status = self.end()
        said = self.child.stdout.read()
        self._release()
        assert status == 0, f"it ended with status {status}:\n{self.last_words()}"
        assert said == b"", f"it wrote to stdout: {said[:200]}"


# ---- claims ---------------------------------------------------------------------------------

class Claims:
    """Counts what holds, says what does not, and ends a script as docs/TESTING.md has it."""

    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, name, holds, *show):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {name}", *show, flush=True)
        return bool(holds)

    def run(self, name, function, *args):
        """A claim that holds when the function returns; one that is Late each time does not."""
        for left in reversed(range(TRIES)):
            try:
                function(*args)
            except Late as error:
                print(f"late: {name}: {error}", flush=True)
                if not left:
                    return self(name, False, f"late {TRIES} times, at last: {error}")
            except (AssertionError, OSError, EOFError, LookupError, ValueError, TypeError,
                    subprocess.SubprocessError) as error:
                return self(name, False, f"{type(error).__name__}: {error}")
            else:
                return self(name, True)

    def end(self):
        """The exit status."""
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0
