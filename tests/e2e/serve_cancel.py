#!/usr/bin/env python3
"""serve_cancel.py BUILD_DIR: answers that nobody wants any more.

1. A connection that ends (closed, reset, or only by its client's half) while its request waits,
   is read, is thought about, answered, or makes a call: in each API, streaming and not. The slot
   is free within 300 ms, no more tokens come, the cancellation is counted in its phase, and the
   next request is answered.
2. Requests that are canceled by their id, and responses by theirs.
3. Many requests whose clients leave at any time: nothing of them stays.
4. An answer beside clients that send long prompts and leave at once keeps its speed, nearly.
"""
import itertools
import json
import random
import socket
import statistics
import struct
import sys
import time

from _asked import (CHAT, COMPLETIONS, MESSAGES, PATHS, RESPONSES, body_of, plain, streamed_text,
                    tools, words)
from _serve import Claims, Server, events, promised, until

BUILD = sys.argv[1]
FREE_S = 0.3
PHASES = {"queue": "queued", "prefill": "prefill", "think": "decode", "text": "decode",
          "tool": "decode"}          # states of /status, and their names in the metrics
PLAY = {                            # each phase lasts for longer than a machine stops
    "decode_tps": 40, "prefill_tps": 400,
    "rules": [
        {"last": ["Quick."], "say": "Yes."},
        {"last": ["Consider."], "say": words("thought", 150) + "</think>So."},
        {"last": ["Look."], "say": "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"look\">\n"
         "<｜DSML｜parameter name=\"q\" string=\"true\">" + words("argument", 150) +
         "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>"},
        {"say": words("text", 150)},
    ],
}
claim = Claims()
took_ms = []


# ---- ways to leave ---------------------------------------------------------------------------

def close(connection):
    connection.close()


def reset(connection):
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_close(connection):
    """The client still reads, and sees the end."""
    connection.socket.shutdown(socket.SHUT_WR)


WAYS = [close, reset, half_close]


def read_to_end(connection):
    try:
        while connection.socket.recv(65536):
            pass
    except ConnectionResetError:
        pass
    connection.close()


# ---- one that leaves -------------------------------------------------------------------------

class Monitor:
    """What the server says of itself, over a connection that stays."""

    def __init__(self, server):
        self.server, self.connection = server, server.connect()

    def status(self):
        return self.connection.ask("GET", "/status").json()

    def state(self):
        """Of the only slot."""
        return self.status()["slots"][0]["state"]

    def waiting(self):
        return len(self.status()["queue"])

    def tokens(self):
        return self.server.metric("ds4x_decode_tokens_total")


def request_for(path, phase, stream):
    if phase == "quick":
        return body_of(path, "Quick.", stream, **plain(path))
    if phase == "prefill":
        return body_of(path, words(f"long {random.random()}", 400), stream, **plain(path))
    if phase == "think":
        return body_of(path, "Consider.", stream)
    if phase == "tool":
        return body_of(path, "Look.", stream, **plain(path), **tools(path))
    return body_of(path, "Tell.", stream, **plain(path))


def ask(server, path, body):
    connection = server.connect()
    connection.send(connection.post_bytes("POST", path, body))
    return connection


def reach(monitor, phase):
    """Wait until the request is in that phase."""
    if phase == "queue":
        until(lambda: monitor.waiting() == 1, "the request waits")
    else:
        until(lambda: monitor.state() == phase, f"the request is in {phase}")


def is_free(monitor, phase):
    return monitor.waiting() == 0 if phase == "queue" else monitor.state() == "idle"


def settle(monitor):
    """What a try before this one has left."""
    until(lambda: is_free(monitor, "queue") and is_free(monitor, "slot"), "the slot is free")


def is_answered(server):
    reply = server.post(CHAT, body_of(CHAT, "Quick.", **plain(CHAT)))
    return streamed_text(CHAT, reply) == "Yes."


def leave_in(server, monitor, phase, path, stream, way):
    settle(monitor)
    count = {"phase": PHASES[phase], "reason": "client"}
    before = server.metric("ds4x_cancelled_total", **count)
    holder = ask(server, CHAT, request_for(CHAT, "text", True)) if phase == "queue" else None
    if holder:
        reach(monitor, "text")
    connection = ask(server, path, request_for(path, phase, stream))
    reach(monitor, phase)
    with promised(FREE_S, f"its place is free after {phase}"):
        left = time.monotonic()
        way(connection)
        until(lambda: is_free(monitor, phase), "it is free", 10)
        took_ms.append((time.monotonic() - left) * 1000)
    assert server.metric("ds4x_cancelled_total", **count) == before + 1, "not counted"
    if way is half_close:
        read_to_end(connection)
    if holder:
        holder.close()
        settle(monitor)
    tokens = monitor.tokens()
    time.sleep(0.06)
    assert monitor.tokens() == tokens, "tokens come after the end"
    assert is_answered(server), "the next request is not answered"


def claim_leaving(server):
    monitor = Monitor(server)
    for path, phase in itertools.product(PATHS, PHASES):
        if path == COMPLETIONS and phase in ("think", "tool"):
            continue
        for way, stream in [(way, True) for way in WAYS] + [(close, False)]:
            claim.run(f"{path} {'streams' if stream else 'waits'}, {way.__name__} in {phase}",
                      leave_in, server, monitor, phase, path, stream, way)
    monitor.connection.close()
    if took_ms:
        print(f"{len(took_ms)} places were free after p50 {statistics.median(took_ms):.0f} ms, "
              f"max {max(took_ms):.0f} ms", flush=True)


def claim_leaving_slow():
    """On a machine that is slower than that at a single step."""
    play = dict(PLAY, decode_tps=2, prefill_tps=20)
    with Server(BUILD, play, "--quiet", ctx=8192, sessions=1) as server:
        monitor = Monitor(server)
        for phase, way in [("prefill", close), ("text", reset), ("prefill", half_close)]:
            claim.run(f"{way.__name__} in {phase} of a slow machine", leave_in, server, monitor,
                      phase, CHAT, True, way)
        monitor.connection.close()
    print(f"on a slow machine: {', '.join(f'{ms:.0f}' for ms in took_ms[-3:])} ms", flush=True)


# ---- by id -----------------------------------------------------------------------------------

def last_event(path, reply):
    """The form in which a stream says that it failed."""
    name, data = events(reply.body)[-1]
    event = json.loads(data)
    if path == MESSAGES:
        return name == "error" and event["error"]["type"] == "invalid_request_error"
    if path == RESPONSES:
        return name == "response.failed" and event["response"]["status"] == "failed"
    return name is None and event["error"]["code"] == "canceled"


def cancel_running(server, monitor, path, phase, stream):
    settle(monitor)
    before = server.metric("ds4x_cancelled_total", reason="api")
    connection = ask(server, path, request_for(path, phase, stream))
    reach(monitor, phase)
    request = monitor.status()["slots"][0]["request"]
    with promised(FREE_S, "the slot is free"):
        reply = server.ask("DELETE", f"/v1/requests/{request}")
        assert reply.status == 200 and reply.json() == {"id": request, "canceled": True}, reply
        until(lambda: monitor.state() == "idle", "it is free", 10)
    ended = connection.read()
    assert ended.headers["request-id"] == request, "another request was canceled"
    if stream:
        assert ended.status == 200 and ended.ended == "chunks" and last_event(path, ended), ended
    else:
        assert ended.status == 400 and "canceled" in ended.json()["error"]["message"], ended
    assert server.metric("ds4x_cancelled_total", reason="api") == before + 1
    assert server.ask("DELETE", f"/v1/requests/{request}").status == 404, "twice"
    assert connection.ask("GET", "/health").status == 200, "the connection is of no more use"
    connection.close()


def cancel_waiting(server, monitor):
    holder = ask(server, CHAT, request_for(CHAT, "text", True))
    reach(monitor, "text")
    connection = ask(server, MESSAGES, request_for(MESSAGES, "text", False))
    reach(monitor, "queue")
    request = monitor.status()["queue"][0]["request"]
    assert server.ask("DELETE", f"/v1/requests/{request}").status == 200
    assert monitor.waiting() == 0, "it still waits"
    assert connection.read().status == 400
    assert monitor.state() == "text", "the one that runs was canceled too"
    holder.close()
    connection.close()
    settle(monitor)


def claim_response_cancel(server, monitor):
    """The id is in the stream's first event, while the rest still comes."""
    connection = ask(server, RESPONSES, request_for(RESPONSES, "text", True))
    reach(monitor, "text")
    first = connection.read(on_chunk=lambda reply: True)
    response = json.loads(events(first.body)[0][1])["response"]["id"]
    reply = server.post(f"/v1/responses/{response}/cancel", {})
    assert reply.status == 200 and reply.json()["status"] == "cancelled", reply
    assert reply.json()["id"] == response, reply
    until(lambda: monitor.state() == "idle", "the slot is free before the answer's end", 10)
    assert server.post(f"/v1/responses/{response}/cancel", {}).status == 404, "twice"
    connection.close()
    assert is_answered(server)


def claim_cancel_by_id(server):
    monitor = Monitor(server)
    for path, phase, stream in [(CHAT, "think", True), (CHAT, "prefill", False),
                                (MESSAGES, "tool", True), (MESSAGES, "text", False),
                                (RESPONSES, "text", True), (RESPONSES, "think", False),
                                (COMPLETIONS, "text", True), (COMPLETIONS, "prefill", False)]:
        claim.run(f"a request of {path} is canceled by its id in {phase}", cancel_running, server,
                  monitor, path, phase, stream)
    claim.run("a request that waits is canceled by its id", cancel_waiting, server, monitor)
    claim.run("a response is canceled by its id", claim_response_cancel, server, monitor)
    for method, path in (("DELETE", "/v1/requests/req_0"), ("POST", "/v1/responses/resp_0/cancel")):
        claim(f"{method} {path} is not found", server.ask(method, path).status == 404)
    monitor.connection.close()


# ---- at any time -----------------------------------------------------------------------------

def claim_storm():
    """Requests that are left between their first byte and their end."""
    pick = random.Random(5)
    play = dict(PLAY, decode_tps=2000, prefill_tps=200000)
    with Server(BUILD, play, "--quiet", "--max-queue", "8", sessions=3) as server:
        server.post(CHAT, body_of(CHAT, "Quick."))
        files, threads = server.files(), server.threads()
        for i in range(300):
            path = pick.choice(PATHS)
            phase = pick.choice(["quick", "prefill", "text"] if path == COMPLETIONS else
                                ["quick", "prefill", "think", "text", "tool"])
            connection = ask(server, path, request_for(path, phase, pick.random() < 0.7))
            time.sleep(pick.choice([0, 0.0005, 0.002, 0.01, 0.03]))
            pick.choice(WAYS)(connection)
            connection.close()
        until(lambda: server.busy() == 0, "all slots are free")
        until(lambda: server.metric("ds4x_requests_active") == 0, "no request is active")
        until(lambda: server.files() <= files, "all connections are closed")
        claim("threads are as many as before", server.threads() == threads)
        claim("no answer failed", server.metric("ds4x_requests_total", status="500") == 0)
        claim("after a storm requests are answered", is_answered(server))
        print(f"storm: {server.metric('ds4x_cancelled_total'):.0f} of 300 were canceled")


def claim_speed_beside_leavers():
    """Their steps are canceled, over and over: the answer's tokens are in them."""
    play = dict(PLAY, decode_tps=50, prefill_tps=400)
    rounds, active = 60, "ds4x_requests_active"
    with Server(BUILD, play, "--quiet", ctx=8192, sessions=4) as server:
        answer = ask(server, CHAT, request_for(CHAT, "text", True))
        until(lambda: server.metric("ds4x_decode_tokens_total") > 0, "it is answered")
        before, start = server.metric("ds4x_decode_tokens_total"), time.monotonic()
        for _ in range(rounds):
            leavers = [ask(server, CHAT, request_for(CHAT, "prefill", True)) for _ in range(3)]
            time.sleep(0.04)
            for connection in leavers:
                connection.close()
            until(lambda: server.metric(active) <= 1, "those who left are gone")
        tokens = server.metric("ds4x_decode_tokens_total") - before
        print(f"beside clients that leave: {tokens / (time.monotonic() - start):.1f} of 50 tokens "
              f"a second, {tokens:.0f} in {rounds} rounds")
        claim("an answer goes on beside clients that leave", tokens >= rounds / 2, tokens)
        answer.close()


def main():
    with Server(BUILD, PLAY, "--quiet", ctx=8192, sessions=1) as server:
        claim.run("clients that leave", claim_leaving, server)
        claim.run("requests that are canceled", claim_cancel_by_id, server)
    claim.run("clients that leave a slow machine", claim_leaving_slow)
    claim.run("clients that leave at any time", claim_storm)
    claim.run("an answer beside clients that leave", claim_speed_beside_leavers)
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
