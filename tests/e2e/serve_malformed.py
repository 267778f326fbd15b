#!/usr/bin/env python3
"""serve_malformed.py BUILD_DIR [SEED]: more than a thousand requests that are broken, and a server
that says so, each time, in the API's own form, and is none the worse for it.

Every request of _malformed.py is refused with a 4xx (501 for embeddings; 505 for other versions of
HTTP); where the framing is broken the connection ends. Requests that are mangled by chance may be
good after all, but are never a 5xx. Then the same again and again: threads, descriptors and memory
stay what they were, and a good request to each API is answered.
"""
import json
import random
import re
import socket
import sys
import threading
import time

import _malformed
from _malformed import GOOD, PATHS
from _serve import Claims, Server, until

BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
MANGLED = 400
ROUNDS = 3              # memory is what it is at its least, in so many rounds
GROWTH = 4 << 20        # bytes, from such rounds to the next: what malloc keeps goes up and down
claim = Claims()


def in_form(request, reply):
    """An error in the shape of the API that the path belongs to."""
    assert reply.headers.get("content-type") == "application/json", reply
    told = reply.json()
    if re.match(r"(/v1)?/messages(/|$)", request.path):
        assert list(told) == ["type", "error", "request_id"] and told["type"] == "error", told
        assert list(told["error"]) == ["type", "message"], told
        assert told["request_id"] == reply.headers["request-id"], told
    else:
        assert list(told) == ["error"], told
        assert list(told["error"])[:4] == ["message", "type", "param", "code"], told
        param = told["error"]["param"] or ""
        assert not request.param or param.split(".")[0] == request.param, told
    message = told["error"]["message"]
    assert isinstance(message, str) and len(message) > 3, told


def ask(server, connection, request):
    """The connection to go on with, after the request was asked and its reply looked at."""
    connection.send(connection.post_bytes(request.method, request.path, request.body))
    reply = connection.read()
    assert reply.status in request.expect, reply
    in_form(request, reply)
    if reply.headers.get("connection") != "close":
        return connection
    connection.close()
    return server.connect()


def ask_raw(server, request):
    with server.connect() as connection:
        try:
            connection.send(request.raw)
            if request.shut:
                connection.socket.shutdown(socket.SHUT_WR)
            reply = connection.read()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            assert request.shut, "no reply"
            return
        assert reply.status in request.expect, reply
        in_form(request, reply)
        if reply.status != 403: # the framing of those is good
            assert reply.headers.get("connection") == "close", reply
            assert connection.is_closed(), "the connection stays"


def ask_all(server, requests):
    """Those that were not refused as they should be: {name: why}."""
    wrong, connection = {}, server.connect()
    for request in requests:
        try:
            if request.raw is None:
                connection = ask(server, connection, request)
            else:
                ask_raw(server, request)
        except (AssertionError, OSError, EOFError, ValueError, LookupError) as error:
            wrong[request.name] = f"{type(error).__name__}: {error}"[:500]
            connection.close()
            connection = server.connect()
    connection.close()
    return wrong


def ask_mangled(server, chance):
    connection = server.connect()
    statuses = {}
    for _ in range(MANGLED):
        request = _malformed.mangled(chance)
        connection.send(connection.post_bytes("POST", request.path, request.body))
        reply = connection.read()
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        if not 200 <= reply.status < 500:
            claim(f"mangled: {request.name}", False, request.body, reply)
        elif reply.status >= 400 and not reply.is_stream():
            claim.run(f"mangled: {request.name} {request.body}", in_form, request, reply)
    connection.close()
    return statuses


def good_requests(server):
    for api, path in PATHS.items():
        reply = server.post(path, GOOD[api])
        claim(f"{api}: a good request is answered", reply.status == 200, reply)


def rounds(server, requests, wrong):
    """All of it so many times: threads, and the least of open files and of memory after each."""
    files, memory = [], []
    for _ in range(ROUNDS):
        again = ask_all(server, requests)
        claim("it is no different again", set(again) == set(wrong), set(again) ^ set(wrong))
        ask_mangled(server, random.Random(SEED))
        files.append(server.files())
        memory.append(server.memory())
    return server.threads(), min(files), min(memory)


def large_bodies():
    """What a burst of them took is given back, soon after."""
    block = {"type": "text", "text": "word " * 20}
    body = json.dumps({"messages": [{"role": "user", "content": [block] * 100000}]}).encode()
    with Server(BUILD, {"rules": [{"say": "Ja."}]}, "--quiet", ctx=1024) as server:
        before = server.memory()
        threads = [threading.Thread(target=server.post, args=("/v1/messages", body))
                   for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: server.memory() - before < 40 << 20, "memory of large bodies is given back")


def main():
    start = time.monotonic()
    requests = [*_malformed.bodies(), *_malformed.paths(), *_malformed.framings()]
    with Server(BUILD, {"rules": [{"say": "Ja."}]}, "--quiet", ctx=1024) as server:
        good_requests(server)
        wrong = ask_all(server, requests)
        for request in requests:
            claim(request.name, request.name not in wrong, wrong.get(request.name))
        claim("these are at least a thousand", len({one.name for one in requests}) >= 1000)
        print(f"mangled with seed {SEED}: {ask_mangled(server, random.Random(SEED))}")
        before = rounds(server, requests, wrong)
        after = rounds(server, requests, wrong)
        claim("as many threads", after[0] == before[0], before, after)
        claim.run("as many open files", until, lambda: server.files() <= before[1],
                  f"{before[1]} open files")
        claim(f"memory grew by {after[2] - before[2]} bytes", after[2] <= before[2] + GROWTH)
        good_requests(server)
    claim.run("a burst of large bodies", large_bodies)
    print(f"{len(requests)} requests, {after[2] - before[2]} bytes more, "
          f"{time.monotonic() - start:.1f} s")
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
