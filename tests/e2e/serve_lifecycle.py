#!/usr/bin/env python3
"""serve_lifecycle.py BUILD_DIR: the server from its start to its end, and who may use it.

What is wrong with its options is said in one line before anything is loaded; while the model is
loaded requests are told to come again; signals end it politely, then at once; keys, origins,
limits, traces and the pages about itself do what their options say.
"""
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

from _asked import (CHAT, COMPLETIONS, MESSAGES, PATHS, body_of, plain, streamed_text, whole_text,
                    words)
from _serve import (Claims, Connection, Late, MODEL, ROOT, Server, TIMEOUT_S, events, promised, until)

BUILD = pathlib.Path(sys.argv[1]).resolve()
DS4 = str(BUILD / "ds4")
SLOWLY = {"decode_tps": 40, "rules": [{"last": ["Quick."], "say": "Yes."},
                                      {"last": ["Short."], "say": words("short", 15)},
                                      {"say": words("long", 400)}]}
AT_ONCE = {"rules": [{"say": "Yes, é."}]}
claim = Claims()


def ask(server, path, text, stream=True, **more):
    connection = server.connect()
    connection.send(connection.post_bytes("POST", path, body_of(path, text, stream, **plain(path),
                                                                **more)))
    return connection


def begin(server, path, text, stream=True):
    """A request that is being answered."""
    connection = ask(server, path, text, stream)
    until(lambda: any(slot["state"] == "text" for slot in server.status()["slots"]), "it runs")
    return connection


def answers(server):
    reply = server.post(CHAT, body_of(CHAT, "Quick.", **plain(CHAT)))
    return reply.status == 200 and streamed_text(CHAT, reply) != ""


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return True
    return False


# ---- how it starts ---------------------------------------------------------------------------

def fails(status, words_of, *options):
    """It ends so, and says why in one line, before a model was loaded."""
    made = subprocess.run([DS4, "serve", "-m", MODEL, "-c", "1024", *options], timeout=60,
                          capture_output=True, check=False, cwd=ROOT)
    lines = made.stderr.decode().splitlines()
    assert made.returncode == status, (made.returncode, lines)
    assert made.stdout == b"", made.stdout
    assert len(lines) == 1 and lines[0].startswith("ds4: "), lines
    for word in words_of:
        assert word in lines[0], (word, lines[0])


def claim_wrong_options():
    for words_of, options in [
            (["--port"], ["--port", "65536"]), (["--port"], ["--port", "web"]),
            (["--heartbeat"], ["--heartbeat", "0"]), (["--max-queue"], ["--max-queue", "0"]),
            (["--sessions"], ["--sessions", "0"]), (["unix:"], ["--listen", "/tmp/x"]),
            (["--listen"], ["--listen", "unix:/tmp/x", "--port", "1"]),
            (["--thinking-default"], ["--thinking-default", "deeply"]),
            (["--loop-guard"], ["--loop-guard", "perhaps"]), (["--prot", "--port"], ["--prot=1"]),
            (["extra"], ["extra"])]:
        claim.run(f"{options} is a wrong use", fails, 2, words_of, *options)


def claim_what_is_not_there(folder):
    missing = str(folder / "missing")
    claim.run("a model that is not there", fails, 1, [missing], "-m", missing)
    claim.run("a file of keys that is not there", fails, 1, [missing], "--api-key-file", missing)
    empty = folder / "empty"
    empty.write_text("# no key\n\n")
    claim.run("a file without keys", fails, 1, [str(empty)], "--api-key-file", str(empty))
    claim.run("a folder of traces that is a file", fails, 1, [str(empty)], "--trace", str(empty))
    claim.run("an address that others can reach needs a key", fails, 1, ["API key"], "--host",
              "0.0.0.0", "--port", "0")
    claim.run("an address that is none", fails, 1, ["no.such.host.invalid"], "--host",
              "no.such.host.invalid")
    with Server(BUILD, AT_ONCE) as server:
        claim.run("a port that is taken", fails, 1, [str(server.port)], "--port", str(server.port))


def claim_open_to_others():
    for options in (["--insecure-no-auth"], ["--api-key", "k"]):
        child = subprocess.Popen([DS4, "serve", "-m", MODEL, "--device", "null", "--port", "0",
                                  "--host", "0.0.0.0", *options], stderr=subprocess.PIPE, cwd=ROOT)
        port = int(re.search(rb"0\.0\.0\.0:(\d+)", child.stderr.readline())[1])
        with Connection(port) as connection:
            claim(f"it listens for others with {options[0]}", until(
                lambda c=connection: c.ask("GET", "/health").status == 200, "it is ready"))
        child.send_signal(signal.SIGTERM)
        claim("and ends", child.wait(60) == 0)
        child.stderr.close()


def start_loading(folder, rules):
    """A server whose script takes a while to be read, as a large model does."""
    file = folder / "play.json"
    file.write_text(json.dumps({"rules": rules}))
    child = subprocess.Popen([DS4, "serve", "-m", MODEL, "-c", "1024", "--device", f"play:{file}",
                              "--port", "0"], stderr=subprocess.PIPE, cwd=ROOT)
    port = int(re.search(rb"127\.0\.0\.1:(\d+)", child.stderr.readline())[1])
    return child, port


LOADING = [{"last": ["never"], "say": words("large", 1_000_000)}, {"say": "Yes."}]


def ask_while_loading(connection):
    health = connection.ask("GET", "/health")
    assert health.status == 503 and health.json()["status"] == "loading" and \
        0 <= health.json()["progress"] <= 1, health
    for path in PATHS:
        reply = connection.ask("POST", path, body_of(path, "hello"))
        assert reply.status in (503, 529) and reply.headers["retry-after"] == "5" and \
            "loaded" in reply.json()["error"]["message"], reply
    for path in ("/v1/models", "/props", "/v1/codex/models"):
        assert connection.ask("GET", path).status == 503, path
    state = connection.ask("GET", "/status").json()["state"]
    assert state == "loading", state
    assert connection.ask("GET", "/").status == 200, "its page is not there"


def load(folder):
    """Requests are told to come again while it loads; then they are answered."""
    child, port = start_loading(folder, LOADING)
    try:
        with Connection(port) as connection:
            try:
                ask_while_loading(connection)
            except AssertionError as error:
                if connection.ask("GET", "/health").status == 200:
                    raise Late(f"it was loaded before all was asked, and {error}") from None
                raise
            until(lambda: connection.ask("GET", "/health").status == 200, "it is loaded")
            reply = connection.ask("POST", CHAT, body_of(CHAT, "hello", False, **plain(CHAT)))
            assert reply.status == 200 and whole_text(CHAT, reply) == "Yes.", reply
    finally:
        child.send_signal(signal.SIGTERM)
        status = child.wait(60)
        child.stderr.close()
    assert status == 0, status


def claim_signals_while_loading(folder):
    child, port = start_loading(folder, LOADING)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    until(lambda: refused(port), "it listens no more")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    status = child.wait(60)
    claim("three signals end it while it loads", status in (0, 130), status)
    print(f"three signals while loading: {time.monotonic() - start:.2f} s")
    child.stderr.close()


def claim_load_fails(folder):
    """What is found only when the model is opened ends the server."""
    child, _ = start_loading(folder, [{"say": 1}])
    rest = child.stderr.read().decode()
    claim("a device that does not open ends it", child.wait(60) == 1)
    claim("and the reason is said", "say must be a text" in rest.splitlines()[-1], rest)
    child.stderr.close()


# ---- how it ends -----------------------------------------------------------------------------

def end_in_peace():
    with Server(BUILD, SLOWLY, "--drain-timeout", "30") as server:
        idle = server.connect()
        idle.ask("GET", "/health")
        running = begin(server, CHAT, "Short.")
        waits = ask(server, MESSAGES, "Short.", False)
        server.child.send_signal(signal.SIGTERM)
        until(lambda: refused(server.port), "new connections are refused")
        assert idle.is_closed(), "an idle connection stays"
        reply = running.read()
        assert reply.ended == "chunks" and streamed_text(CHAT, reply) == words("short", 15), reply
        assert running.is_closed(), "a connection goes on"
        reply = waits.read()
        assert reply.status == 200 and whole_text(MESSAGES, reply) == words("short", 15), reply
        assert server.child.wait(TIMEOUT_S) == 0, "exit status"


def cut_stream(path):
    """The answer is cut so that the client tries again: the connection breaks."""
    with Server(BUILD, SLOWLY, "--drain-timeout", "1") as server:
        running = begin(server, path, "Long.")
        waits = begin(server, path, "Long.", False)
        start = time.monotonic()
        with promised(3, "it is cut"):
            server.child.send_signal(signal.SIGTERM)
            reply = running.read()
        assert reply.ended == "reset", reply
        assert reply.body and "[DONE]" not in reply.body.decode(), reply
        assert time.monotonic() - start > 0.8, "it is cut too early"
        reply = waits.read()
        assert reply.status in (503, 529) and "shutting down" in reply.json()["error"]["message"]
        assert server.child.wait(TIMEOUT_S) == 0, "exit status"


def end_at_once():
    with Server(BUILD, SLOWLY, "--drain-timeout", "60") as server:
        running = begin(server, CHAT, "Long.")
        server.child.send_signal(signal.SIGINT)
        until(lambda: refused(server.port), "new connections are refused")
        assert server.child.poll() is None, "one signal ended it"
        with promised(2, "it ends"):
            server.child.send_signal(signal.SIGINT)
            assert server.child.wait(TIMEOUT_S) == 0, "exit status"
        assert running.read().ended == "reset"


def claim_ends():
    claim.run("SIGTERM lets answers end", end_in_peace)
    for path in PATHS:
        claim.run(f"--drain-timeout cuts an answer of {path}", cut_stream, path)
    claim.run("a second SIGINT ends it at once", end_at_once)


# ---- a Unix socket ---------------------------------------------------------------------------

class UnixConnection(Connection):
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.port, self.pending, self.start = 1, b"", time.monotonic()


def start_unix(path):
    child = subprocess.Popen([DS4, "serve", "-m", MODEL, "-c", "1024", "--device", "null",
                              "--listen", f"unix:{path}", "--quiet"], stderr=subprocess.PIPE,
                             cwd=ROOT)
    line = child.stderr.readline().decode()
    assert f"unix:{path}" in line, line
    return child


def claim_unix_socket(folder):
    path = folder / "socket"
    child = start_unix(path)
    claim("the socket is its owner's", stat.S_IMODE(path.stat().st_mode) == 0o600)
    with UnixConnection(path) as connection:
        until(lambda: connection.ask("GET", "/health").status == 200, "it is ready")
        claim("requests are answered", connection.ask("POST", COMPLETIONS, {
            "prompt": "a", "max_tokens": 1}).status == 200)
    claim.run("a socket in use", fails, 1, [str(path)], "--listen", f"unix:{path}")
    child.send_signal(signal.SIGTERM)
    claim("it ends", child.wait(60) == 0)
    claim("the socket is removed", not path.exists())
    child.stderr.close()
    child = start_unix(path)
    child.kill()
    child.wait()
    child.stderr.close()
    child = start_unix(path)
    claim("what a killed server left is replaced", path.is_socket())
    child.send_signal(signal.SIGTERM)
    child.wait(60)
    child.stderr.close()
    path.write_text("a file")
    claim.run("a file that is no socket", fails, 1, [str(path)], "--listen", f"unix:{path}")
    claim("it is left alone", path.read_text() == "a file")


# ---- who may use it --------------------------------------------------------------------------

def key_of(kind, key):
    return [("Authorization", f"Bearer {key}")] if kind == "bearer" else [("x-api-key", key)]


def claim_keys(folder):
    file = folder / "keys"
    file.write_text("# ours\n  first-key  # of the first\n\nsecond-key\r\nthe#key#x #c\n")
    with Server(BUILD, AT_ONCE, "--api-key", "given-key", "--api-key-file", str(file)) as server:
        for key in ("given-key", "first-key", "second-key", "the#key#x"):
            for kind in ("bearer", "x-api-key"):
                claim(f"{key} as {kind} is right",
                      server.get("/v1/models", key_of(kind, key)).status == 200)
        for headers in ([], key_of("bearer", "first-ke"), key_of("x-api-key", "first-key "
                        "# of the first"), key_of("bearer", ""), key_of("bearer", "the"),
                        [("Authorization", "first-key")]):
            claim(f"{headers} is wrong", server.get("/v1/models", headers).status == 401)
        for method, path in [("GET", "/"), ("GET", "/status"), ("GET", "/metrics"),
                             ("GET", "/props"), ("GET", "/nowhere"), ("DELETE", "/v1/requests/x"),
                             ("HEAD", "/api/hello"), *(("POST", path) for path in PATHS)]:
            claim(f"{method} {path} needs a key", server.ask(method, path).status == 401)
        claim("/health needs none", server.get("/health").status == 200)
        error = server.post(MESSAGES, {}).json()
        claim("Anthropic's error", error["type"] == "error" and error["error"] == {
            "type": "authentication_error", "message": "invalid x-api-key"} and
              error["request_id"].startswith("req_"), error)
        error = server.post(CHAT, {}).json()
        claim("OpenAI's error", error == {"error": {
            "message": "Incorrect API key provided", "type": "invalid_request_error",
            "param": None, "code": "invalid_api_key"}}, error)
        claim("that others can read them is said",
              until(lambda: "better chmod 600" in server.log(), "it is said"))
        refusals(server)
        reload_keys(server, file)


def refusals(server):
    """Who guesses keys is seen, and cannot fill the log."""
    def count():
        text = server.get("/metrics", key_of("bearer", "given-key")).body.decode()
        return sum(int(n) for n in re.findall(r'requests_total{api="other".*"401"} (\d+)', text))
    until(lambda: "refused: 401 invalid_api_key to 127.0.0.1:" in server.log(), "it is logged")
    before, start = count(), time.monotonic()
    lines = server.log().count("refused: 401")
    for _ in range(50):
        server.get("/v1/models", key_of("bearer", "guess"))
    seconds = time.monotonic() - start
    claim("refusals are counted", count() == before + 50)
    claim("and told at most once a second",
          server.log().count("refused: 401") - lines <= seconds + 3, server.log(), seconds)


def reload_keys(server, file):
    def works(key):
        return server.get("/v1/models", key_of("bearer", key)).status == 200
    file.write_text("third-key\n")
    server.child.send_signal(signal.SIGHUP)
    until(lambda: works("third-key"), "the new key is known")
    claim("a key that was taken out is wrong", not works("first-key"))
    claim("a key of the options stays", works("given-key"))
    file.write_text("# nothing\n")
    server.child.send_signal(signal.SIGHUP)
    until(lambda: "stay as they were" in server.log(), "the file is refused")
    claim("keys stay where the file holds none", works("third-key"))
    file.unlink()
    server.child.send_signal(signal.SIGHUP)
    until(lambda: server.log().count("stay as they were") == 2, "the file is missed")
    claim("keys stay where the file is gone", works("third-key"))


def claim_origins():
    page = [("Origin", "http://page.example")]
    asks = page + [("Access-Control-Request-Method", "POST"),
                   ("Access-Control-Request-Headers", "authorization, x-thing")]
    with Server(BUILD, AT_ONCE, "--cors", "http://page.example", "--api-key", "k") as server:
        reply = server.ask("OPTIONS", CHAT, headers=asks)
        want = {"access-control-allow-origin": "http://page.example", "vary": "Origin",
                "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
                "access-control-allow-headers": "authorization, x-thing",
                "access-control-max-age": "600"}
        claim("a preflight is answered without a key", reply.status == 204 and
              {k: reply.headers.get(k) for k in want} == want, reply.headers)
        reply = server.get("/health", page)
        claim("replies name the origin",
              reply.headers.get("access-control-allow-origin") == "http://page.example")
        reply = server.get("/health", [("Origin", "http://other.example")])
        claim("no other origin is allowed", "access-control-allow-origin" not in reply.headers)
    with Server(BUILD, AT_ONCE) as server:
        reply = server.ask("OPTIONS", CHAT, headers=asks)
        claim("without the option no origin is allowed", reply.status == 204 and
              not any(name.startswith("access-control") for name in reply.headers), reply.headers)
        claim("a name that is bent to us is refused",
              server.get("/health", [("Host", "evil.example")]).status == 403)


# ---- queues ----------------------------------------------------------------------------------

def claim_queue():
    with Server(BUILD, SLOWLY, "--max-queue", "1", sessions=1) as server:
        running, waits = begin(server, CHAT, "Long."), ask(server, CHAT, "Long.")
        until(lambda: len(server.status()["queue"]) == 1, "one waits")
        for path in PATHS:
            reply = server.post(path, body_of(path, "Quick."))
            error = reply.json()["error"]
            right = (reply.status == 529 and error["type"] == "overloaded_error"
                     if path == MESSAGES else
                     reply.status == 429 and error["type"] == "rate_limit_exceeded" and
                     error["code"] == "queue_full")
            claim(f"a full queue is told to {path}", right, reply)
        claim("counts need no place in it", server.post(
            "/v1/messages/count_tokens", body_of(MESSAGES, "Quick.")).status == 200)
        claim("the queue is counted", server.metric("ds4x_queue_length") == 1)
        running.close()
        waits.close()
        until(lambda: server.busy() == 0, "both are gone")
        claim("then there is room again", answers(server))
        claim("and the queue is empty", server.metric("ds4x_queue_length") == 0)


def wait_longest(server, path):
    start = time.monotonic()
    with promised(2, "it is told"):
        reply = server.post(path, body_of(path, "Quick.", False))
    assert time.monotonic() - start > 0.8, "it waited for less than a second"
    assert reply.status in (503, 529) and "waited" in reply.json()["error"]["message"], reply


def wait_in_stream(server):
    """A stream of which nothing was told is told to come again, and meanwhile of life."""
    waits = ask(server, MESSAGES, "Quick.")
    server.hear(0.8)
    reply = waits.read()
    name, data = events(reply.body)[-1]
    assert name == "error" and json.loads(data)["error"]["type"] == "overloaded_error", reply
    assert reply.body.count(b"event: ping") >= 3, reply


def claim_longest_wait():
    with Server(BUILD, SLOWLY, "--max-queue-wait", "1", "--heartbeat", "0.05",
                sessions=1) as server:
        running = begin(server, CHAT, "Long.")
        for path in PATHS:
            claim.run(f"{path} waits no longer than a second", wait_longest, server, path)
        claim.run("a stream is told of life while it waits", wait_in_stream, server)
        claim("nothing waits", server.status()["queue"] == [])
        running.close()


# ---- about itself ----------------------------------------------------------------------------

SAMPLE = re.compile(r'(ds4x_\w+)(\{(?:[a-z_]+="[^"\\]*",?)*\})? (-?[\d.e+-]+)')


def check_metrics(text):
    """The text format 0.0.4: a type before its samples, histograms that add up."""
    types, values = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split(" ")[2:]
            assert name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
            continue
        if line.startswith("# HELP "):
            continue
        found = SAMPLE.fullmatch(line)
        assert found, f"no sample: {line}"
        name, labels, value = found[1], found[2] or "", float(found[3])
        family = re.sub("_(bucket|sum|count)$", "", name) if name not in types else name
        assert family in types, f"no type: {line}"
        assert (name, labels) not in values, f"twice: {line}"
        values[name, labels] = value
    for (name, labels), value in values.items():
        if name.endswith("_bucket") and 'le="+Inf"' in labels:
            rest = re.sub(r',?le="\+Inf"', "", labels).replace("{}", "")
            assert values[name[:-7] + "_count", rest] == value, (name, labels)
    return types, values


def claim_metrics(server):
    types, values = check_metrics(server.get("/metrics").body.decode())
    claim("families are as the specification names them", {
        "ds4x_requests_total", "ds4x_requests_active", "ds4x_queue_length", "ds4x_queue_seconds",
        "ds4x_prefill_tokens_total", "ds4x_prefill_cached_tokens_total", "ds4x_prefill_seconds",
        "ds4x_ttft_seconds", "ds4x_decode_tokens_total", "ds4x_tpot_seconds",
        "ds4x_request_seconds", "ds4x_slots", "ds4x_kv_bytes", "ds4x_kv_disk_written_bytes_total",
        "ds4x_kv_evictions_total", "ds4x_cache_miss_total", "ds4x_cancelled_total",
        "ds4x_tool_calls_total", "ds4x_heartbeats_total", "ds4x_slow_clients_total",
        "ds4x_build_info"} <= set(types), sorted(types))
    claim("an answered request is counted", values[
        "ds4x_requests_total", '{api="chat",client="other",status="200"}'] >= 1)
    claim("slots are counted", sum(value for (name, _), value in values.items()
                                   if name == "ds4x_slots") == 2)


def claim_status(server):
    running = begin(server, CHAT, "Long.")
    status = server.status()
    claim("/status has its members", {"build", "model", "ctx", "uptime", "slots", "queue"} <=
          set(status), status)
    slot = next(slot for slot in status["slots"] if slot["state"] == "text")
    claim("a slot has its members", {"id", "state", "session", "agent", "client", "prompt_tokens",
                                     "cached", "processed", "generated", "tok_s", "age_s"} <=
          set(slot) and slot["prompt_tokens"] == slot["processed"], slot)
    running.close()


def claim_pages(server):
    page = server.get("/")
    claim("/ is a page", page.status == 200 and page.headers["content-type"].startswith("text/html")
          and page.body.lstrip().lower().startswith(b"<!doctype html"), page)
    for path in ("/", "/api/hello", "/health", "/v1/models"):
        with server.connect() as connection:
            head = connection.ask("HEAD", path)
            claim(f"HEAD {path} is its head", head.status == 200 and head.body == b"" and
                  connection.ask("GET", "/health").status == 200, head)
    wrong = server.ask("DELETE", "/health")
    claim("a wrong method is told the right ones", wrong.status == 405 and
          wrong.headers["allow"] == "GET, HEAD, OPTIONS", wrong)


def claim_connection_goes_on(server):
    """After streams, whole answers, errors: one connection for all of them."""
    with server.connect() as connection:
        for path in PATHS:
            for stream in (True, False):
                reply = connection.ask("POST", path, body_of(path, "Quick.", stream, **plain(path)))
                text = streamed_text(path, reply) if stream else whole_text(path, reply)
                claim(f"{path} on a connection that was used", text == "Yes." and
                      "connection" not in reply.headers, reply)
            claim("an error does not end it", connection.ask("POST", path, b"{").status == 400)


def are_told(server):
    ids = {re.match(r"[\d-]+ [\d:]+ (req_\w+) (accept|cache|end)", line) for line in server.lines}
    ids = {(found[1], found[2]) for found in ids if found}
    return sum(kind == "end" for _, kind in ids) >= 9 and \
        {i for i, kind in ids if kind == "cache"} <= {i for i, kind in ids if kind == "end"}


def claim_itself():
    with Server(BUILD, SLOWLY) as server:
        claim.run("connections", claim_connection_goes_on, server)
        claim.run("metrics", claim_metrics, server)
        claim.run("status", claim_status, server)
        claim.run("pages", claim_pages, server)
        claim.run("each answer has its three lines", until, lambda: are_told(server), "all are told")


def claim_traces(folder):
    traces = folder / "traces"
    with Server(BUILD, AT_ONCE, "--trace", str(traces), "--quiet") as server:
        ids = []
        for path in PATHS:
            for stream in (True, False):
                reply = server.post(path, body_of(path, "A question?", stream, **plain(path)))
                ids.append((reply.headers["request-id"], path, stream))
        claim("the folder is its owner's", stat.S_IMODE(traces.stat().st_mode) == 0o700)
        for request, path, stream in ids:
            file = traces / f"{request}.txt"
            until(lambda: file.exists() and re.search(r"\n==== \w+\n$", file.read_text("utf-8")),
                  "the trace is whole")
            text = file.read_text("utf-8")
            claim(f"a trace of {path} has request, prompt and reply",
                  text.count("A question?") >= 2 and "<｜begin▁of▁sentence｜>" in text and
                  ("é" in text.partition("==== reply")[2]), text[:3000])
            claim("it is its owner's", stat.S_IMODE(file.stat().st_mode) == 0o600)
        claim("there is one file a request", len(os.listdir(traces)) == len(ids))
        claim("--quiet says nothing of requests", "req_" not in server.log(), server.log())
        server.child.send_signal(signal.SIGTERM)
        server.child.wait(TIMEOUT_S)
        claim("but that it ends", until(lambda: "ending: " in server.log(), "it is said"))


def main():
    with tempfile.TemporaryDirectory(prefix="ds4-life-") as name:
        folder = pathlib.Path(name)
        claim_wrong_options()
        claim.run("what is not there", claim_what_is_not_there, folder)
        claim.run("an open address", claim_open_to_others)
        claim.run("requests while it loads are told to come again", load, folder)
        claim.run("signals while loading", claim_signals_while_loading, folder)
        claim.run("a device that does not open", claim_load_fails, folder)
        claim_ends()
        claim.run("a Unix socket", claim_unix_socket, folder)
        claim.run("keys", claim_keys, folder)
        claim.run("origins", claim_origins)
        claim.run("a full queue", claim_queue)
        claim.run("the longest wait", claim_longest_wait)
        claim.run("what it says of itself", claim_itself)
        claim.run("traces", claim_traces, folder)
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
