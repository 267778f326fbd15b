#!/usr/bin/env python3
"""serve_reuse.py BUILD_DIR [--model] [--table]: how much of the recorded clients' prompts is read.

Conversations of the recorded clients go through a server with a directory, one request after the
other, and again through a new server with this directory. Of each prompt the model may read what
no earlier one had, and 2,047 tokens at most of what one had: the longest beginning that it shares
with an earlier prompt, or with a prompt and its answer, is measured by the texts of the prompts
themselves. Requests for a title never cost the conversation that they run beside its state, though
the store have no room for it, and parallel sub-agents find their common beginning.

The answers are from a script, so that the client can send them back; with --model they are the
bundled model's, and its KV states real. --table: the table of docs/PERFORMANCE.md.
"""
import json
import os
import pathlib
import re
import sys
import tempfile
import threading

from _recorded import APIS, THINKING, Said, goes_on, recorded, told_again
from _serve import Claims, Server, until

BUILD = sys.argv[1]
MODEL, TABLE = "--model" in sys.argv, "--table" in sys.argv
CTX, CHUNK, UNIT = 65536, 2048, 128
SLACK = 2       # a text that is cut where a token is not
claim = Claims()

# Folders whose requests are one conversation after the other, or some.
SCENARIOS = [
    ("Claude Code, two turns", ["claude-2.1.330-turn1par", "claude-2.1.330-turn2par"]),
    ("Claude Code, tools found later", ["claude-toolsearch"]),
    ("Claude Code, /compact", ["claude-2.1.330-turn1par", "claude-compact-cmd"]),
    ("Claude Code, sub-agents", ["claude-subagents"]),
    ("Codex, two turns", ["codex-0.169.0", "codex-turn2par"]),
    ("Codex, compaction", ["codex-compaction"]),
    ("opencode, title and main", ["opencode-1.18.33", "opencode-turn2par"]),
    ("Pi, chat", ["pi-0.87.1-openai-completions", "pi-0.87.1-openai-completions-turn2par"]),
    ("Pi, Messages", ["pi-0.87.1-anthropic-messages", "pi-0.87.1-anthropic-messages-turn2par"]),
    ("Pi, Responses", ["pi-0.87.1-openai-responses", "pi-0.87.1-openai-responses-turn2par"]),
]


class Asked:
    """A request that was sent, and what is known of it."""

    def __init__(self, request, parent):
        self.request, self.parent = request, parent     # parent: the one that it goes on with
        self.body, self.text, self.links = None, "", []
        self.prompt = self.sampled = self.cached = self.shared = 0
        self.told = ([], "")

    def name(self):
        return self.request.name

    def read(self):
        return self.prompt - self.cached


def is_main(request):
    return request.is_answer() and not request.path.endswith("count_tokens")


def asked_of(folders):
    """The requests in their order, each with the latest one that it goes on with."""
    found = []
    for request in [r for folder in folders for r in recorded(folder) if is_main(r)]:
        parents = [a for a in found if goes_on(a.request, request)]
        found.append(Asked(request, parents[-1] if parents else None))
    return found


# ---- what the model says ---------------------------------------------------------------------------

def said_after(asked, one):
    """What a later request shows as the answer to this one."""
    for other in asked:
        if other.parent is one:
            added, said = goes_on(one.request, other.request)
            return said
    return Said(text="Done.")


def line_of(said, thinks):
    """One rule for one request: they come in their order."""
    rules = said.script()["rules"]
    return {"times": 1, "say": rules[0]["say"] if thinks else rules[1]["say"]}


def which_think(asked):
    """Whether each prompt ends with <think>: found out by asking."""
    rules = [{"last": [THINKING], "say": "thinks.</think>yes"}, {"say": "no"}]
    with tempfile.TemporaryDirectory() as folder, \
            Server(BUILD, {"rules": rules}, "--trace", folder, ctx=CTX) as server:
        return [prompt_of(folder, a.request.send(server)).endswith("<think>") for a in asked]


def script_of(asked):
    thinks = which_think(asked)
    rules = [line_of(said_after(asked, a), t) for a, t in zip(asked, thinks)]
    return {"rules": rules + [{"last": [THINKING], "say": "So.</think>Done."}, {"say": "Done."}]}


# ---- asking -----------------------------------------------------------------------------------------

def prompt_of(folder, reply):
    """The text of the prompt, from the trace."""
    assert reply.status == 200, reply
    path = pathlib.Path(folder) / f"{reply.headers['request-id']}.txt"
    until(lambda: path.exists() and b"\n==== reply\n" in path.read_bytes(), "there is a trace")
    text = path.read_bytes()
    return text.partition(b"\n==== prompt\n")[2].partition(b"\n==== reply\n")[0].decode()


def length_of(server, text):
    reply = server.post("/tokenize", {"content": text, "parse_special": True})
    return len(reply.json()["tokens"])


def found_by(server, reply):
    """(tokens reused, tokens of the prompt), from the log."""
    line = rf"{reply.headers['request-id']} cache: (\d+) of (\d+)"
    found = until(lambda: re.search(line, server.log()), "the log tells what was reused")
    return int(found[1]), int(found[2])


def body_for(one):
    """As its client sends it after what it was told. With the model's own answers, which its
    client was not told, as it was recorded."""
    parent, api = one.parent, APIS[one.request.path]
    one.links = []
    if parent:
        ids, signature = parent.told
        added, said = goes_on(parent.request, one.request)
        begin, end = len(api.turns(parent.request.body)), len(api.turns(one.request.body))
        one.links = parent.links + [(begin, end, parent.request.body, ids, signature)]
        if MODEL or len(ids) != len(said.calls):
            one.links = []
    body = told_again(one.request, one.links)
    body["stream"] = True
    if one.request.path == "/v1/chat/completions":
        body["stream_options"] = {"include_usage": True}
    if MODEL:
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if name in body:
                body[name] = 24
        body.setdefault("max_output_tokens" if "input" in body else "max_tokens", 24)
    return body


def send(server, traces, one):
    api = APIS[one.request.path]
    one.body = body_for(one)
    reply = one.request.send(server, one.body)
    one.text = prompt_of(traces, reply)
    ids, signature, one.prompt, one.sampled = api.told(reply)
    one.told = ids, signature
    one.cached, prompt = found_by(server, reply)
    assert prompt == one.prompt, f"{one.name()}: {prompt} and {one.prompt}"


def most_shared(server, one, earlier):
    """Tokens at the prompt's beginning that an earlier prompt, or one with its answer, had."""
    best = 0
    for other in earlier:
        text = os.path.commonprefix([one.text, other.text])
        n = length_of(server, text)
        if other is one.parent and text == other.text and not MODEL:
            n = other.prompt + other.sampled - 1
        best = max(best, n)
    return best


def check(one, where):
    fresh = one.prompt - one.shared
    claim(f"{one.name()}, {where}: of {one.prompt} tokens {fresh} are new, {one.read()} were read",
          one.read() <= fresh + CHUNK - 1 + SLACK)


# ---- the conversations --------------------------------------------------------------------------------

def restarted(folder, traces, asked):
    """The same requests, to a new server that has the directory."""
    rules = [{"last": [THINKING], "say": "So.</think>Done."}, {"say": "Done."}]
    cached = []
    with Server(BUILD, None if MODEL else {"rules": rules}, "--kv-disk-dir", folder, "--trace",
                traces, ctx=CTX) as server:
        for one in asked:
            found, prompt = found_by(server, one.request.send(server, one.body))
            claim(f"{one.name()}: the prompt is the same after a restart", prompt == one.prompt,
                  prompt, one.prompt)
            cached.append(found)
    return cached


def run_scenario(folders):
    asked = asked_of(folders)
    with tempfile.TemporaryDirectory() as kv, tempfile.TemporaryDirectory() as traces:
        with Server(BUILD, None if MODEL else script_of(asked), "--kv-disk-dir", kv, "--trace",
                    traces, ctx=CTX) as server:
            for i, one in enumerate(asked):
                send(server, traces, one)
                one.shared = most_shared(server, one, asked[:i])
                check(one, "as it came")
        ends = [a for a in asked if not any(b.parent is a for b in asked)]
        cached = restarted(kv, traces, ends)
    for one, found in zip(ends, cached):
        claim(f"{one.name()}: after a restart {one.prompt - found} of {one.prompt} tokens were read",
              one.prompt - found <= CHUNK)
    return asked, sum(a.prompt for a in ends), sum(a.prompt - c for a, c in zip(ends, cached))


def test_scenarios():
    if TABLE:
        print("| conversation | requests | prompt tokens | new in them | read | again after a "
              "restart: prompt tokens | read |\n|---|---|---|---|---|---|---|")
    for title, folders in SCENARIOS:
        try:
            asked, ends, again = run_scenario(folders)
        except (AssertionError, OSError, EOFError, LookupError, ValueError) as error:
            claim(title, False, f"{type(error).__name__}: {error}")
            continue
        if TABLE:
            print(f"| {title} | {len(asked)} | {sum(a.prompt for a in asked):,} | "
                  f"{sum(a.prompt - a.shared for a in asked):,} | "
                  f"{sum(a.read() for a in asked):,} | {ends:,} | {again:,} |", flush=True)


# ---- many at one time -----------------------------------------------------------------------------------

SLOWLY = {"prefill_tps": 20000, "decode_tps": 200,
          "rules": [{"last": [THINKING], "say": "So.</think>Done."}, {"say": "Done."}]}


def together(server, requests):
    """All at one time; the replies in their order."""
    replies = [None] * len(requests)

    def ask(i):
        replies[i] = requests[i].send(server)
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def test_title():
    """A request for a title in flight with the main one, in as few slots as there can be, and
    beside another client's conversation."""
    title, main, more = [a.request for a in asked_of(["opencode-1.18.33"])]
    other = asked_of(["claude-2.1.330"])[0].request
    for sessions in (2, 3):
        with Server(BUILD, SLOWLY, ctx=CTX, sessions=sessions) as server:
            if sessions > 2:
                n_other = found_by(server, other.send(server))[1]
            replies = together(server, [main, title])
            n_main = found_by(server, replies[0])[1]
            moved = [server.metric("ds4x_prefill_cached_tokens_total", source=tier)
                     for tier in ("ram", "disk")]
            cached, _ = found_by(server, more.send(server))
            claim(f"{sessions} slots: the main conversation is still there", cached >= n_main - UNIT,
                  cached, n_main, server.log()[-1500:])
            if sessions > 2:
                cached, _ = found_by(server, other.send(server))
                claim("and so is another client's", cached >= n_other - UNIT, cached, n_other)
            claim("nothing had to come back for it", moved == [
                server.metric("ds4x_prefill_cached_tokens_total", source=tier)
                for tier in ("ram", "disk")], moved)


def test_title_without_room():
    """One slot, and memory for less than the conversation in it: a title can wait, not that."""
    main = asked_of(["claude-2.1.330"])[0].request
    title = {"messages": [{"role": "system", "content": "You write the title of a thread."},
                          {"role": "user", "content": "Hello."}], "stream": True}
    with Server(BUILD, SLOWLY, "--kv-ram-mb", "0", ctx=CTX, sessions=1) as server:
        n_main = found_by(server, main.send(server))[1]
        claim("the conversation is longer than the store", n_main > 4 * CHUNK, n_main)
        reply = server.post("/v1/chat/completions", title)
        claim("a title is told to come later", reply.status == 503 and
              reply.headers.get("retry-after") == "30" and b"--kv-disk-dir" in reply.body, reply)
        cached, _ = found_by(server, main.send(server))
        claim("the conversation is still there", cached >= n_main - UNIT, cached, n_main)


def test_agents():
    """22 requests of nested sub-agents, as many at one time as their client sent. Those that come
    when their like has been read find its beginning."""
    requests = [a.request for a in asked_of(["claude-subagents"])]
    waves = [requests[:1], requests[1:3], requests[3:7], requests[7:15], requests[15:19],
             requests[19:21], requests[21:]]
    sent = read = 0
    with Server(BUILD, SLOWLY, ctx=CTX, sessions=4) as server:
        for i, wave in enumerate(waves):
            for reply in together(server, wave):
                cached, prompt = found_by(server, reply)
                sent, read = sent + prompt, read + prompt - cached
                if i in (2, 4, 5):
                    claim(f"wave {i}: an agent finds what its like had", cached >= prompt // 2,
                          cached, prompt)
    claim("less than half is read", read < sent / 2, read, sent)
    print(f"sub-agents, up to 8 at one time: {read} of {sent} tokens read")


def main():
    test_scenarios()
    if not MODEL:
        claim.run("a title beside a conversation", test_title)
        claim.run("a title without room for the conversation", test_title_without_room)
        claim.run("agents at one time", test_agents)
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
