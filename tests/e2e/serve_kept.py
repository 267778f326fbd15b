#!/usr/bin/env python3
"""serve_kept.py BUILD_DIR [--watched]: what outlives a conversation's slot, and the server.

With the bundled model and a directory: prompts, sampled answers, handles and responses are there
after a restart; the store is listed, pruned and filled over HTTP; a second server on the
directory is refused; options that mean nothing are errors; the end keeps to its times; a model
that was closed for want of work comes back. --watched: a script in the model's place, so that a
sanitizer's run takes no longer.
"""
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile

from _asked import CHAT, COMPLETIONS, MESSAGES, RESPONSES, body_of, plain, words
from _serve import MODEL, Claims, Server, promised, until

BUILD = pathlib.Path(sys.argv[1]).resolve()
CTX, CHUNK, UNIT = 16384, 2048, 128
SYSTEM = words("system", 600)       # some 4,900 tokens
claim = Claims()


WATCHED = "--watched" in sys.argv
SCRIPT = {"rules": [{"last": ["<｜Assistant｜><think>"], "say": "So I add them up.</think>It is 7."},
                    {"say": "Yes, I do."}]}
SLOWLY = {"decode_tps": 20, "prefill_tps": 3000, "rules": [{"say": words("long", 900)}]}


def server(folder, *options, play=None):
    return Server(BUILD, play or (SCRIPT if WATCHED else None), "--kv-disk-dir", str(folder),
                  *options, ctx=CTX)


def chat(text, **more):
    return {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
            "max_tokens": 16, "temperature": 0, **plain(CHAT), **more}


def usage_of(reply):
    """(prompt tokens, those of them that were reused)"""
    assert reply.status == 200, reply
    usage = reply.json()["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def chunks(server):
    return server.get("/kv").json()["data"]


# ---- over a restart ----------------------------------------------------------------------------

def test_restart(folder):
    with server(folder) as first:
        n, cached = usage_of(first.post(CHAT, chat("Hello.")))
        claim("nothing is there at first", cached == 0, cached)
        told = first.post(CHAT, chat("Hello.")).json()["choices"][0]["message"]["content"]
    with server(folder) as second:
        reply = second.post(CHAT, chat("Hello."))
        _, cached = usage_of(reply)
        claim("after a restart only the last tokens of a prompt are read", n - cached <= UNIT,
              cached, n, second.log()[-600:])
        claim("and the answer is the same",
              reply.json()["choices"][0]["message"]["content"] == told, reply, told)
        n, cached = usage_of(second.post(CHAT, chat("Something else.")))
        claim("another question finds what it shares", n - cached < UNIT + CHUNK, cached, n)
        claim("that is a hit of the disk", second.metric(
            "ds4x_prefill_cached_tokens_total", source="disk") > 0)
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in pathlib.Path(folder).rglob("*")
                 if p.is_file()}
        claim("others cannot read the files", set(modes.values()) == {0o600}, modes)
        claim("nor the folder", stat.S_IMODE(os.stat(folder).st_mode) == 0o700)


def test_handles(folder):
    """The client hides the thinking, and sends the signature: only what was kept has the rest."""
    look = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
    asked = [{"role": "user", "content": "What is 3 plus 4?"}]
    body = {"messages": asked, "max_tokens": 200, "temperature": 0, "tools": [look],
            "thinking": {"type": "enabled"}}

    def count(s, signature):
        for block in blocks:
            if block["type"] == "thinking":
                block["signature"] = signature
        more = [{"role": "assistant", "content": blocks},
                {"role": "user", "content": "And 2 plus 2?"}]
        reply = s.post("/v1/messages/count_tokens", dict(body, messages=asked + more))
        assert reply.status == 200, reply
        return reply.json()["input_tokens"]
    with server(folder) as first:
        blocks = first.post(MESSAGES, body).json()["content"]
        signature = blocks[0]["signature"]
        blocks[0]["thinking"] = ""
        before = count(first, signature)
    with server(folder) as second:
        claim("a handle of before the restart stands for the hidden thinking",
              count(second, signature) == before, before)
        until(lambda: "kept from before: 1 answers" in second.log(), "the log says what came back")
        blocks[1]["text"] += "!"
        claim("but not for an edited answer", count(second, signature) < before - 5)


def test_responses(folder):
    def ask(server, text, **more):
        reply = server.post(RESPONSES, {"input": text, "max_output_tokens": 30, "temperature": 0,
                                        "reasoning": {"effort": "none"}, **more})
        assert reply.status == 200, reply
        return reply.json()
    with server(folder) as first:
        one = ask(first, "My name is Ada.")
        gone = ask(first, "Forget this.")
        claim("a response is deleted",
              first.ask("DELETE", f"{RESPONSES}/{gone['id']}").status == 200)
    with server(folder) as second:
        claim("a response can be got after a restart",
              second.get(f"{RESPONSES}/{one['id']}").json()["output"] == one["output"])
        claim("a deleted one cannot", second.get(f"{RESPONSES}/{gone['id']}").status == 404)
        two = ask(second, "What is my name?", previous_response_id=one["id"])
        claim("and gone on from", two["usage"]["input_tokens"] >
              one["usage"]["input_tokens"] + one["usage"]["output_tokens"], two, one)


# ---- /kv -----------------------------------------------------------------------------------------

def test_pages(folder):
    with server(folder) as s:
        n, _ = usage_of(s.post(CHAT, chat("Hello.")))
        until(lambda: sum(c["tokens"] for c in chunks(s)) >= n // UNIT * UNIT,
              "all chunks are listed")
        listed = {c["id"]: c for c in chunks(s)}
        first = next(c for c in listed.values() if c["first"] == 0 and c["tokens"] == CHUNK)
        second = [c for c in listed.values() if c["parent"] == first["id"]]
        claim("chunks have parents, tokens and bytes",
              first["parent"] is None and second and all(
                  c["first"] == CHUNK and c["bytes"] > 0 and c["last_use"] >= c["created"]
                  for c in second), listed)
        reply = s.ask("DELETE", f"/kv/{first['id']}")
        claim("a chunk goes with all that go on from it",
              reply.status == 200 and reply.json()["chunks"] == len(listed), reply, listed)
        claim("and is not listed any more", not chunks(s), chunks(s))
        claim("one that is not there is 404", s.ask("DELETE", "/kv/" + "0" * 40).status == 404)
        claim("a wrong method is 405", s.post("/kv", {}).status == 405)
        claim("/status has its counters", s.status()["kv"]["dir"] == str(folder), s.status())
    with Server(BUILD, None, "--kv-ram-mb", "0") as s:
        claim("without a store there is no /kv", s.get("/kv").status == 404)
        claim("nor in /status", s.status()["kv"] is None)
    with server(folder, "--api-key", "k") as s:
        claim("/kv needs the key", s.get("/kv").status == 401 and
              s.get("/kv", [("authorization", "Bearer k")]).status == 200)


def with_system(path, text):
    if path == MESSAGES:
        return {"system": SYSTEM, **body_of(path, text, False, **plain(path)), "max_tokens": 8}
    if path == RESPONSES:
        return {"instructions": SYSTEM, **body_of(path, text, False, **plain(path)),
                "max_output_tokens": 8}
    if path == COMPLETIONS:
        return {"prompt": SYSTEM + text, "stream": False, "max_tokens": 8}
    return dict(chat(text), stream=True)


def test_prefetch():
    for name, path in (("messages", MESSAGES), ("responses", RESPONSES), ("chat", CHAT),
                       ("completions", COMPLETIONS)):
        with tempfile.TemporaryDirectory() as folder:
            with server(folder) as s:
                reply = s.post(f"/kv/prefetch?api={name}", with_system(path, "Warm up."))
                n = reply.json()["prompt_tokens"]
                claim(f"{name}: a prompt is read ahead", reply.status == 200 and
                      reply.json()["object"] == "kv.prefetch" and n > 2 * CHUNK, reply)
                claim(f"{name}: nothing is said",
                      s.metric("ds4x_decode_tokens_total") == 0)
            with server(folder) as s:
                again = s.post(f"/kv/prefetch?api={name}", with_system(path, "Warm up.")).json()
                claim(f"{name}: it is there after a restart", n - again["cached_tokens"] <= UNIT,
                      again)
    with Server(BUILD, None) as s:
        for query in ("", "?api=", "?api=mail", "?ap=chat", "?api=chat2"):
            reply = s.post("/kv/prefetch" + query, chat("x"))
            claim(f"'{query}' names no API", reply.status == 400 and
                  reply.json()["error"]["param"] == "api", reply)
        reply = s.post("/kv/prefetch?api=messages", {"messages": 5})
        claim("a wrong body is told as that API tells it",
              reply.status == 400 and reply.json()["type"] == "error", reply)


# ---- the directory, and the options ------------------------------------------------------------------

def run(*options, timeout=120):
    return subprocess.run([str(BUILD / "ds4"), "serve", "-m", MODEL, "--port", "0", "-c", "1024",
                           *options], capture_output=True, text=True, timeout=timeout)


def test_second_server(folder):
    with server(folder) as first:
        second = run("--kv-disk-dir", str(folder))
        claim("a second server on the directory is refused, with the pid of the first",
              second.returncode == 1 and str(first.pid) in second.stderr, second)
        claim("before it loads anything",
              not any(word in second.stderr for word in ("listening", "loading", "ready")), second)


def test_options(folder):
    for options, what in (
            (["--kv-disk-space-mb", "100"], "--kv-disk-dir"),
            (["--kv-disk-dir", str(folder), "--kv-disk-space-mb", "0"], "--kv-disk-space-mb"),
            (["--kv-disk-dir", ""], "--kv-disk-dir"),
            (["--idle-unload", "0"], "--idle-unload"),
            (["--drain-timeout", "20", "--shutdown-timeout", "10"], "--shutdown-timeout")):
        child = run(*options)
        claim(f"{options} is an error", child.returncode == 2 and what in child.stderr, child)
    child = run("--kv-disk-dir", "/proc/nowhere")
    claim("a directory that cannot be is an error", child.returncode == 1 and
          "/proc/nowhere" in child.stderr, child)
    with Server(BUILD, None) as s:
        until(lambda: "only with --kv-disk-dir" in s.log(), "that the disk is off is said")


# ---- the end ----------------------------------------------------------------------------------------

def begin(s):
    connection = s.connect()
    connection.send(connection.post_bytes("POST", CHAT, dict(chat("Go on."), stream=True,
                                                             max_tokens=4000)))
    until(lambda: any(slot["state"] == "text" for slot in s.status()["slots"]), "it runs")
    return connection


def end_in_time(folder):
    """An answer is cut after a second, and saved in the seconds that are left."""
    with server(folder, "--drain-timeout", "1", "--shutdown-timeout", "8", play=SLOWLY) as s:
        connection = begin(s)
        with promised(9, "it ends"):
            assert s.end() == 0, "exit status"
        connection.close()
    with server(folder) as s:
        n, cached = usage_of(s.post(CHAT, chat("Go on.")))
        assert n - cached <= UNIT, f"what ran at the end was not saved: {cached} of {n}"


def end_at_once(folder):
    with server(folder, "--drain-timeout", "60", play=SLOWLY) as s:
        connection = begin(s)
        s.child.send_signal(signal.SIGTERM)
        until(lambda: "ending: " in s.log(), "it heard the first signal")
        with promised(2, "it ends"):
            assert s.end() == 0, "exit status"
        connection.close()


def test_end(folder):
    claim.run("it ends in time, and saves", end_in_time, folder)
    claim.run("a second signal ends it at once", end_at_once, folder)


def test_unload(folder):
    with server(folder, "--idle-unload", "1") as s:
        n, _ = usage_of(s.post(CHAT, chat("Sleep well.")))
        until(lambda: s.get("/health").json().get("model") == "unloaded", "it is unloaded")
        claim("/status says so", s.status()["state"] == "unloaded", s.status())
        again, cached = usage_of(s.post(CHAT, chat("Sleep well.")))
        claim("the next request finds its state", again == n and n - cached <= UNIT, cached, n,
              s.log()[-800:])
        claim("and the model is there, unless it has slept again",
              "model" not in s.get("/health").json() or s.metric("ds4x_unloads_total") == 2)


def main():
    for test in (test_restart, test_handles, test_responses, test_pages, test_second_server,
                 test_options, test_end, test_unload):
        with tempfile.TemporaryDirectory(prefix="ds4-kept-") as folder:
            claim.run(test.__name__, test, pathlib.Path(folder) / "kv")
    claim.run("test_prefetch", test_prefetch)
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
