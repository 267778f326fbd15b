#!/usr/bin/env python3
"""serve_load.py BUILD_DIR [--short]: many clients at once, bad ones among them, and many in a row.

1. Streams of all APIs, alone: the gaps between what arrives are what the engine's pace makes them.
2. The same again beside idle connections, a client that reads a byte a second, one that never
   reads, and parallel counts of tokens: every answer is whole and its own, and the gaps are the
   same. The two that do not read are given up, and only they.
3. Requests after each other: no error, and no more memory, threads or files than at the start.

--short is for builds that are watched by a sanitizer, which are slow and remember what was
freed: fewer of everything, and no claims about speed and memory; what is left for them is that
the server ends with status 0 and says nothing. Numbers are printed in any case.
"""
import selectors
import socket
import statistics
import sys
import time

from _asked import PATHS, body_of, plain, streamed_text, whole_text, words
from _serve import Claims, Connection, Late, Server, until

BUILD = sys.argv[1]
SHORT = "--short" in sys.argv[2:]
STREAMS, IDLE, COUNTS, REQUESTS = (12, 40, 8, 400) if SHORT else (64, 200, 23, 10_000)
WORDS = 12 if SHORT else 36         # of an answer
PACE = 25                           # tokens a second
SLOW_S = 2                          # --slow-timeout
claim = Claims()


# ---- many replies at once --------------------------------------------------------------------

class Recorded(Connection):
    """A reply that has come already, to be read and checked."""

    def __init__(self, data):
        self.pending, self.start = data, 0.0

    def _more(self):
        return False


class Client:
    """A connection whose reply is collected as it comes, with the times."""

    def __init__(self, server, path, body, small=False):
        self.path, self.data, self.times, self.over = path, b"", [], False
        self.socket = socket.socket()
        if small:                   # so that little fits on the way
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        self.socket.connect(("127.0.0.1", server.port))
        connection = Connection.__new__(Connection)
        connection.port = server.port
        self.socket.sendall(connection.post_bytes("POST", path, body))
        self.socket.setblocking(False)

    def read(self):
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        self.data += piece
        self.times.append(time.monotonic())
        self.over = not piece or self._is_whole()

    def _is_whole(self):
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return False
        if b"chunked" in head:
            return body.endswith(b"0\r\n\r\n")
        return len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])

    def reply(self):
        return Recorded(self.data).read()

    def gaps(self, first, last):
        inside = [t for t in self.times if first <= t <= last]
        return [b - a for a, b in zip(inside, inside[1:])]


def watch(clients, holds, also=lambda: None, limit_s=300):
    """Read what comes until holds() is true; `also` is done again and again meanwhile."""
    end = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for client in clients:
            if not client.over:
                selector.register(client.socket, selectors.EVENT_READ, client)
        while not holds():
            assert time.monotonic() < end, "the answers do not end"
            for key, _ in selector.select(0.05):
                key.data.read()
                if key.data.over:
                    selector.unregister(key.fileobj)
            also()


def all_over(clients):
    return lambda: all(client.over for client in clients)


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


# ---- streams, alone and in bad company -------------------------------------------------------

def script():
    rules = [{"last": [f"stream {i}."], "say": "</think>" * (i % 2) + words(f"s{i}", WORDS)}
             for i in range(STREAMS)]
    for i, rule in enumerate(rules):
        if i % 2:                   # it thinks; completions have no thinking to end
            rule["say"] = words(f"t{i}", 8) + rule["say"]
    rules.append({"last": ["endless"], "say": words("endless", 500)})
    return {"decode_tps": PACE, "prefill_tps": 20000, "rules": rules}


def start_streams(server):
    clients = []
    for i in range(STREAMS):
        path = PATHS[i // 2 % len(PATHS)]
        thinks = i % 2 and path != "/v1/completions"
        clients.append(Client(server, path, body_of(path, f"stream {i}.",
                                                    **({} if thinks else plain(path)))))
    return clients


def check_streams(name, clients):
    for i, client in enumerate(clients):
        reply = client.reply()
        want = words(f"s{i}", WORDS)
        if client.path == "/v1/completions" and i % 2:
            want = words(f"t{i}", 8) + "</think>" + want
        got = streamed_text(client.path, reply)
        claim(f"{name}: stream {i} of {client.path} is whole and its own",
              reply.status == 200 and reply.ended == "chunks" and got == want, reply, got)
        client.socket.close()


def report_gaps(name, clients, began):
    """Gaps while all streams run, in milliseconds: their p50, p99 and maximum."""
    clients = [client for client in clients if len(client.times) > 3]
    first, last = max(c.times[3] for c in clients), min(c.times[-1] for c in clients)
    gaps = [gap * 1000 for client in clients for gap in client.gaps(first, last)]
    if len(gaps) < 2:
        print(f"{name}: too few gaps to count")
        return None
    p50, p99, most = statistics.median(gaps), percentile(gaps, 99), max(gaps)
    took = max(c.times[-1] for c in clients) - began
    print(f"{name}: {len(clients)} streams in {took:.1f} s; {len(gaps)} gaps: p50 {p50:.1f} ms, "
          f"p99 {p99:.1f} ms, max {most:.1f} ms", flush=True)
    return p50, p99, most


def run_alone(server):
    began = time.monotonic()
    clients = start_streams(server)
    watch(clients, all_over(clients))
    gaps = report_gaps("alone", clients, began)
    check_streams("alone", clients)
    return gaps


def open_idle(server):
    idle = [server.connect() for _ in range(IDLE)]
    claim("idle connections are answered",
          all(connection.ask("GET", "/health").status == 200 for connection in idle))
    return idle


def start_slow(server):
    """One that never reads, one that reads a byte a second. What they ask for is large: it does
    not fit into what the systems keep on the way."""
    body = body_of("/v1/chat/completions", "endless", logprobs=True, top_logprobs=20,
                   thinking={"type": "disabled"})
    return [Client(server, "/v1/chat/completions", body, small=True) for _ in range(2)]


def start_counts(server, n):
    text = words("count", 2000)
    return [Client(server, "/v1/messages/count_tokens",
                   {"messages": [{"role": "user", "content": text}]}) for _ in range(n)]


def check_counts(counts):
    numbers = {client.reply().body for client in counts}
    claim("parallel counts of tokens agree",
          len(numbers) == 1 and all(c.reply().status == 200 for c in counts), numbers)
    for client in counts:
        client.socket.close()
    took = [c.times[-1] - c.began for c in counts]
    print(f"{len(counts)} parallel counts of {len(words('count', 2000))} bytes: "
          f"the last after {max(took):.2f} s")


class EachSecond:
    """Takes a byte of a client's reply each second, and looks how many were given up."""

    def __init__(self, server, client):
        self.server, self.client, self.began = server, client, time.monotonic()
        self.next, self.given_up_s = self.began + 1, None

    def __call__(self):
        if time.monotonic() < self.next:
            return
        self.next += 1
        try:
            self.client.data += self.client.socket.recv(1)
        except (BlockingIOError, ConnectionResetError):
            pass
        if self.given_up_s is None and self.server.metric("ds4x_slow_clients_total"):
            self.given_up_s = time.monotonic() - self.began


def run_in_company(server):
    idle = open_idle(server)
    slow = start_slow(server)
    began = time.monotonic()
    clients = start_streams(server)
    also = EachSecond(server, slow[1])
    watch(clients, lambda: all(len(c.times) > 3 or c.over for c in clients), also)
    counts = start_counts(server, COUNTS)
    for client in counts:
        client.began = time.monotonic()
    watch(clients + counts, all_over(clients + counts), also)
    company = report_gaps(f"beside {IDLE} idle and 2 slow connections", clients, began)
    check_streams("in company", clients)
    check_counts(counts)
    watch([], lambda: also.given_up_s, also)
    print(f"a client that does not read was given up after {also.given_up_s:.0f} s")
    claim("idle connections are still answered",
          all(connection.ask("GET", "/health").status == 200 for connection in idle))
    for connection in idle + [client.socket for client in slow]:
        connection.close()
    claim("nothing runs any more", until(lambda: not server.busy(), "all slots are free"))
    # A byte a second may count as progress: then that client leaves as one that is gone.
    gave_up = [server.metric("ds4x_cancelled_total", phase="decode", reason=reason)
               for reason in ("slow_client", "client")]
    claim("slow clients are given up, and no other", gave_up in ([2, 0], [1, 1]), gave_up)
    return company


def check_pace(alone, company):
    """Nobody waits for a client that does not read, and few gaps grow in its company."""
    if not SHORT and alone and company and (company[1] > alone[1] + 150 or
                                            company[2] >= SLOW_S * 1000):
        raise Late(f"gaps in ms (p50, p99, max): alone {alone}, in company {company}")


def cpu_s(server):
    with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def claim_streams():
    options = ["--slow-timeout", str(SLOW_S), "--max-queue", str(STREAMS + 2), "--quiet",
               "--max-connections", str(STREAMS + IDLE + COUNTS + 20)]
    with Server(BUILD, script(), *options, ctx=4096, sessions=STREAMS + 2) as server:
        alone = run_alone(server)
        before, files, threads = server.memory(), server.files(), server.threads()
        print(f"CPU of the server: {cpu_s(server):.1f} s, resident {before >> 20} MiB")
        company = run_in_company(server)
        until(lambda: server.files() <= files + 1, "all connections are closed")
        grown = (server.memory() - before) / 2**20
        print(f"CPU of the server: {cpu_s(server):.1f} s, resident {grown:+.1f} MiB")
        claim("threads are as many as before", server.threads() == threads)
        if not SHORT:
            claim("company costs no memory that stays", grown < 32, grown)
        check_pace(alone, company)


# ---- one after the other ---------------------------------------------------------------------

def ask_and_check(connection, i):
    """The i-th request: kinds take turns. Returns whether it went as it should."""
    path, stream = PATHS[i % len(PATHS)], i // 4 % 2 == 0
    kind = i % 10
    if kind == 7:
        reply = connection.ask("POST", "/v1/messages/count_tokens", body_of("/v1/messages", "hi"))
        return reply.status == 200 and reply.json()["input_tokens"] > 0
    if kind == 8:
        reply = connection.ask("POST", path, b'{"messages": [')
        return reply.status == 400 and reply.json()["error"]["message"]
    if kind == 9:
        reply = connection.ask("GET", "/v1/models")
        return reply.status == 200 and reply.json()["data"]
    text = f"number {i}."
    reply = connection.ask("POST", path, body_of(path, text, stream, **plain(path)))
    got = streamed_text(path, reply) if stream else whole_text(path, reply)
    return reply.status == 200 and got == "Yes, é."


def run_in_sequence(server):
    wrong, samples, connection = [], [], None
    began = time.monotonic()
    for i in range(REQUESTS):
        if i % 100 == 0:
            if connection:
                connection.close()
            connection = server.connect()
        if i % (REQUESTS // 5) == 0:
            samples.append(server.memory() / 2**20)
        if not ask_and_check(connection, i):
            wrong.append(i)
    connection.close()
    samples.append(server.memory() / 2**20)
    took = time.monotonic() - began
    print(f"{REQUESTS} requests in sequence: {took:.1f} s, {took / REQUESTS * 1000:.2f} ms each; "
          "MiB resident: " + ", ".join(f"{s:.1f}" for s in samples), flush=True)
    claim("all requests in sequence are answered right", not wrong, wrong[:20])
    return samples


def claim_sequence():
    with Server(BUILD, {"rules": [{"say": "Yes, é."}]}, "--quiet") as server:
        server.get("/health")
        files, threads = server.files(), server.threads()
        samples = run_in_sequence(server)
        until(lambda: server.files() <= files, "all connections are closed")
        claim("threads are as many as before", server.threads() == threads)
        until(lambda: server.metric("ds4x_requests_active") == 0, "no request counts as running")
        # Answers are kept, to be replayed when their conversations go on: about 1 KiB each.
        if not SHORT:
            kept = REQUESTS * 0.8 / 1024
            claim("memory is flat", samples[-1] - samples[1] < kept + 4, samples)


def main():
    claim.run("streams", claim_streams)
    claim.run("sequence", claim_sequence)
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
