#!/usr/bin/env python3
"""serve_soak.py BUILD_DIR [--turns N] [--seconds S] [--agents N] [--watched] [--judge DIR]: many agents, long.

Agents share a few slots, three beginnings, memory for four chunks and a small folder. In each
turn one goes on with its conversation, edits it somewhere in the middle, is left and asked again,
is left for good, sends helpers that begin with what it has, asks for a title beside its request,
or begins anew. Every answer that comes to its end is computed again by a fresh engine
(_agents.py). And: nothing fails but what was left, most of the prompts is reused, at the end
nothing runs, and memory, threads and files are what they were after the first quarter.

Without arguments 60 turns of 8 agents. The long one: --turns 2000 --seconds 600 --agents 16.
--watched is for a build that a sanitizer watches: nothing is claimed about memory; --judge: the
build folder whose program computes answers again, which else takes most of the time there.
"""
import argparse
import pathlib
import random
import socket
import sys
import tempfile
import threading
import time

from _agents import Judge, Model, ask, complete, completion, letters, title
from _asked import CHAT, COMPLETIONS
from _serve import Claims, Connection, Server, until

CTX, SLOTS = 8192, 4
BEGINNINGS = [1500, 2300, 4300]     # tokens
MOST = 6000                         # of a conversation, then it begins anew
WAYS = {"turn": 8, "edit": 2, "retry": 2, "leave": 2, "helpers": 2, "title": 2, "anew": 1}
claim = Claims()


class Work:
    """What all agents share."""

    def __init__(self, server, model, judge, turns, seconds):
        self.server, self.model, self.judge = server, model, judge
        self.left, self.end = turns, time.monotonic() + seconds
        self.lock = threading.Lock()
        self.done, self.sent, self.read, self.errors = dict.fromkeys(WAYS, 0), 0, 0, []
        self.turns, self.watched = turns, []

    def next(self):
        """False: there are no more turns."""
        with self.lock:
            if self.left == 0 or self.errors or time.monotonic() > self.end:
                return False
            self.left -= 1
            if self.left % max(self.turns // 20, 1) == 0:
                s = self.server
                self.watched.append((self.turns - self.left, s.memory(), s.threads(), s.files()))
            return True

    def count(self, way):
        with self.lock:
            self.done[way] += 1

    def take(self, answer, what):
        with self.lock:
            self.sent += answer.prompt
            self.read += answer.prompt - answer.cached
        self.judge.take(answer, what)


class Agent:
    def __init__(self, work, name):
        self.work, self.name, self.pick = work, name, random.Random(name)
        self.model, self.port = work.model, work.server.port
        self.headers = [("x-session-id", name)]
        self.said = 0
        self.anew()

    def text(self, least, most):
        self.said += 1
        return letters(f"{self.name} {self.said}", self.pick.randrange(least, most))

    def anew(self):
        n = self.pick.choice(BEGINNINGS)
        self.begins = 1 + n
        self.ids = [self.model.begin] + self.model.ids(letters(f"beginning {n}", n))

    def ask(self, ids, what, headers=None):
        answer = complete(self.port, ids, self.pick.randrange(2, 25), headers or self.headers)
        self.work.take(answer, f"{self.name}, {what}")
        return ids + self.model.ids(answer.text)

    def longer(self):
        return self.ids + self.model.ids(self.text(10, 400))

    # -- the ways of a turn

    def turn(self):
        self.ids = self.ask(self.longer(), "turn")

    def edit(self):
        self.ids = self.ids[:self.pick.randrange(self.begins, len(self.ids) + 1)]
        self.ids = self.ask(self.longer(), "edit")

    def begin(self, ids, tokens):
        """A stream that is left somewhere: before it began, or with a part of it there."""
        with Connection(self.port) as connection:
            body = completion(ids, tokens, stream=True)
            connection.send(connection.post_bytes("POST", COMPLETIONS, body, self.headers))
            chunks = self.pick.choice([0, 0, 1, 3])
            if chunks:
                connection.read(on_chunk=lambda reply: len(reply.chunks) >= chunks)
            else:
                time.sleep(self.pick.choice([0, 0.002, 0.02, 0.1]))
            if self.pick.random() < 0.5:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" * 2)

    def retry(self):
        ids, tokens = self.longer(), self.pick.randrange(2, 25)
        self.begin(ids, tokens)
        answer = ask(self.port, COMPLETIONS, completion(ids, tokens), ids, self.headers)
        self.work.take(answer, f"{self.name}, asked again")
        self.ids = ids + self.model.ids(answer.text)

    def leave(self):
        self.begin(self.longer(), 400)

    def beside(self, *jobs):
        """All at one time."""
        threads = [threading.Thread(target=self.guarded, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guarded(self, job):
        try:
            job()
        except Exception as error:      # any: a thread has nobody else to tell
            self.work.errors.append(f"{self.name}: {type(error).__name__}: {error}")

    def helpers(self):
        begin = list(self.ids)
        texts = [self.model.ids(self.text(10, 300)) for _ in range(4)]

        def helper(i):
            headers = [("x-session-id", f"{self.name}-{i}"), ("x-parent-session-id", self.name)]
            ids = self.ask(begin + texts[i], f"helper {i}", headers)
            self.ask(ids + texts[2 + i], f"helper {i} again", headers)
        self.beside(lambda: helper(0), lambda: helper(1))
        self.turn()

    def title(self):
        body = title(self.text(10, 300), self.pick.randrange(2, 10))
        ids = self.model.rendered(body)

        def aside():
            answer = ask(self.port, CHAT, body, ids, self.headers)
            self.work.take(answer, f"{self.name}, title")
        self.beside(self.turn, aside)

    # -- all of it

    def run(self):
        while self.work.next():
            way, = self.pick.choices(list(WAYS), WAYS.values())
            self.guarded(self.anew if len(self.ids) > MOST else getattr(self, way))
            self.work.count(way)


def check_flat(work):
    """What the first quarter used is what the last one uses."""
    turns = [row[0] for row in work.watched]
    early = [row for row in work.watched if turns[-1] / 4 <= row[0] <= turns[-1] / 2]
    late = [row for row in work.watched if row[0] > turns[-1] * 3 / 4]
    if not early or not late:
        return claim("it was watched", False, work.watched)
    most, last = (max(row[1] for row in rows) for rows in (early, late))
    print(f"memory: {most / 2**20:.1f} MiB in the second quarter, {last / 2**20:.1f} in the last")
    return claim("memory is flat", last < 1.1 * most + 4 * 2**20, work.watched)


def settle(server):
    until(lambda: server.busy() == 0, "nothing runs")
    until(lambda: server.metric("ds4x_requests_active") == 0, "no request is active")


def tell(work, server, seconds):
    print(f"{sum(work.done.values())} turns in {seconds:.0f} s: {work.done}; {work.judge.judged} "
          f"answers computed again; {work.read} of {work.sent} prompt tokens read")
    counts = {name: server.status()["kv"].get(name) for name in sorted(server.status()["kv"])}
    print(f"store: {counts}", flush=True)


def soak(options, folder):
    model = Model(options.judge or options.build, folder)
    judge = Judge(model)
    kept = ["--kv-disk-dir", f"{folder}/kv", "--kv-disk-space-mb", "64", "--kv-ram-mb", "1"]
    with Server(options.build, None, "-m", model.file, *kept, "--quiet", "--retry-grace", "1",
                ctx=CTX, sessions=SLOTS) as server:
        work = Work(server, model, judge, options.turns, options.seconds)
        agents = [Agent(work, f"agent{i}") for i in range(options.agents)]
        threads = [threading.Thread(target=agent.run) for agent in agents]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - start
        settle(server)
        claim("no request failed", not work.errors, *work.errors[:5])
        wrong = judge.end()
        claim(f"{judge.judged} answers are those of a fresh engine", not wrong and judge.judged > 0,
              *wrong[:5])
        claim("most of what was sent was there", work.read < work.sent / 2, work.read, work.sent)
        for name in ("kv_bad_files_total", "kv_failed_reads_total", "kv_failed_writes_total"):
            claim(f"{name} is 0", server.metric(f"ds4x_{name}") == 0)
        claim("no answer failed", server.metric("ds4x_requests_total", status="500") == 0)
        tell(work, server, seconds)
        if not options.watched:
            check_flat(work)
        threads, files = work.watched[-1][2:]
        until(lambda: server.threads() <= threads and server.files() <= files + 4,
              "threads and files are as before")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--watched", action="store_true")
    parser.add_argument("--judge")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ds4-soak-") as folder:
        claim.run("the soak", soak, options, pathlib.Path(folder))
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
