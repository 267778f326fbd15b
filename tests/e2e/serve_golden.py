#!/usr/bin/env python3
"""serve_golden.py BUILD_DIR [--update] [--only WORD]: what the server sends, byte for byte.

Every answer of _scenarios.py is asked for, streamed and whole, and compared with its golden file
in tests/golden/sse; held to the API's order of events; and asked for again with the text cut into
tokens after every 1, 2, 3, 5 and 7 bytes, which may change where a stream's pieces end and
nothing else. Then what comes instead of answers: errors, and beats of the heart.

--update writes the golden files anew, for a person to read: they are claims about the
specification, not records of what the server did.
"""
import itertools
import json
import pathlib
import re
import signal
import sys
import time

import _refusals
from _golden import body_of, merged, page, strip
from _orders import STREAM, WHOLE, without_beats
from _refusals import KEY, PATHS, PLAIN
from _scenarios import MODEL, NO_THINKING, functions, scenarios
from _serve import Claims, Server, events, promised, until

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden/sse"
CUTS = [1, 2, 3, 5, 7]
MOST_EVENTS = 64        # above it the server may join texts, depending on the machine's mood
CONTEXT = 4096
ARGS = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
BUILD = ARGS[0] if ARGS else "build"
UPDATE = "--update" in sys.argv
ONLY = ARGS[1] if "--only" in sys.argv else ""
claim = Claims()
numbers = itertools.count(1000)
used = set()


def golden(name, text):
    """Claims that the text is the golden file's; with --update it becomes so."""
    file = GOLDEN / f"{name}.txt"
    used.add(file.name)
    if UPDATE:
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    want = file.read_text("utf-8") if file.exists() else "(missing)\n"
    if claim(f"{name} is as {file.name}", want == text):
        return
    for i, (a, b) in enumerate(zip(want.split("\n"), text.split("\n"))):
        if a != b:
            print(f"  line {i + 1}: wanted {a}\n          came {b}")
            break


# ---- answers --------------------------------------------------------------------------------

def ask(connection, scenario, cut, stream):
    """(request, reply) of a scenario, with what must be asked before it."""
    filler = ""
    if scenario.room:
        filler = fill(connection, scenario, cut, stream)
    body = scenario.body(cut, stream, filler)
    if scenario.follows:
        first = connection.ask("POST", scenario.path(), {**body, "stream": False})
        body.update(scenario.follows(body, first.json()))
    return body, connection.ask("POST", scenario.path(), body, scenario.headers)


def fill(connection, scenario, cut, stream):
    """A text that makes the prompt leave `room` tokens of the context."""
    def count(filler):
        body = scenario.body(cut, stream, filler)
        if scenario.api == "completions":
            reply = connection.ask("POST", "/tokenize", {"content": body["prompt"],
                                                         "add_special": True})
            return len(reply.json()["tokens"])
        path = {"chat": "/v1/chat/completions/input_tokens",
                "messages": "/v1/messages/count_tokens",
                "responses": "/v1/responses/input_tokens"}[scenario.api]
        return connection.ask("POST", path, body).json()["input_tokens"]
    missing = CONTEXT - scenario.room - count(" a")
    filler = " a" * (missing + 1)
    assert count(filler) == CONTEXT - scenario.room, (count(filler), missing)
    return filler


def no_half_characters(reply):
    """Each event is text by itself, and has no character that stands for a broken one. (In
    logprobs tokens are shown, and those may be half of a character.)"""
    for _, chunk in reply.chunks:
        for _, data in events(chunk):
            text = data if data == "[DONE]" else strip(json.loads(data))
            text = json.dumps(text, ensure_ascii=False)
            assert "\ufffd" not in text and text.encode("utf-8"), data


def without_key(scenario, text):
    """What an answer gives back of its request is the same for all keys."""
    return re.sub(rf"\[{re.escape(scenario.name)}/\d[sw]\]", "[key]", text)


def same(scenario, told):
    shown = told.same()
    return [shown[0], without_key(scenario, shown[1]), *shown[2:]]


def check_counts(api, told):
    """A usage adds up."""
    usage = told.usage
    if usage is None:
        return
    if api == "messages":
        thought = usage["output_tokens_details"]["thinking_tokens"]
        assert 0 <= thought <= usage["output_tokens"], usage
        return
    first, second = (("input", "output") if api == "responses" else ("prompt", "completion"))
    cached = usage[f"{first}_tokens_details"]["cached_tokens"]
    thought = usage[f"{second}_tokens_details"]["reasoning_tokens"]
    assert 0 <= cached < usage[f"{first}_tokens"], usage
    assert 0 <= thought <= usage[f"{second}_tokens"], usage
    assert usage["total_tokens"] == usage[f"{first}_tokens"] + usage[f"{second}_tokens"], usage


def in_order(scenario, body, reply):
    told = STREAM[scenario.api](events(reply.body), body)
    no_half_characters(reply)
    check_counts(scenario.api, told)
    return told


def check_uncut(connection, scenario):
    """The golden ones. Returns what was told, and the stream's text; None: it is not streamed."""
    name = scenario.name
    _, reply = ask(connection, scenario, 0, False)
    golden(f"{name}.whole", page(reply))
    whole = WHOLE[scenario.api](reply.json())
    check_counts(scenario.api, whole)
    if not scenario.stream:
        return None
    body, stream = ask(connection, scenario, 0, True)
    golden(name, page(stream))
    told = in_order(scenario, body, stream)
    claim(f"{name}: few enough events ({len(stream.chunks)}) to be sure of them",
          len(stream.chunks) < MOST_EVENTS)
    if scenario.name.startswith("messages.hidden"):
        assert not told.reasoning and not whole.reasoning, "hidden thinking was shown"
    one, other = same(scenario, told), same(scenario, whole)
    claim(f"{name}: streamed and whole it is the same", one == other, one, other)
    return told, page(stream)


def check_cut(connection, scenario, cut, told, text):
    body, stream = ask(connection, scenario, cut, True)
    now = in_order(scenario, body, stream)
    _, reply = ask(connection, scenario, cut, False)
    whole = WHOLE[scenario.api](reply.json())
    check_counts(scenario.api, whole)
    one, other = same(scenario, whole), same(scenario, now)
    assert one == other, (one, other)
    if not scenario.limited:
        got, want = (merged(without_key(scenario, body_of(one)), bool(scenario.follows))
                     for one in (page(stream), text))
        assert got == want, first_difference(got, want)
    else:
        assert now.finish == told.finish, now.finish
        for mine, other in (now.text, told.text), (now.reasoning, told.reasoning):
            assert mine.startswith(other) or other.startswith(mine), (mine, other)


def first_difference(got, want):
    for a, b in zip(got, want):
        if a != b:
            return f"\n  came   {a}\n  wanted {b}"
    return f"{len(got)} events, not {len(want)}"


def test_answers():
    all_of_them = [one for one in scenarios() if ONLY in one.name]
    rules = [rule for one in all_of_them for cut in [0, *CUTS]
             for rule in one.rules(cut)]
    with Server(BUILD, {"rules": rules}, "--heartbeat", "600", ctx=CONTEXT) as server:
        with server.connect() as connection:
            for scenario in all_of_them:
                found = []
                claim.run(f"{scenario.name} is in order", lambda one=scenario, to=found:
                          to.append(check_uncut(connection, one)))
                for cut in CUTS if found and found[0] else []:
                    claim.run(f"{scenario.name} cut after every {cut} bytes", check_cut,
                              connection, scenario, cut, *found[0])


# ---- refusals -------------------------------------------------------------------------------

def check_refusal(connection, refusal):
    reply = connection.ask(refusal.method, refusal.path, refusal.body, refusal.headers)
    golden(refusal.name, page(reply))
    told = reply.json()
    if "/messages" in refusal.path:
        assert told["request_id"] == reply.headers["request-id"], told
        assert (told["type"], list(told["error"])) == ("error", ["type", "message"]), told
    else:
        assert list(told) == ["error"], told
        assert list(told["error"])[:4] == ["message", "type", "param", "code"], told
    assert reply.status >= 400 and reply.ended == "length", reply


def test_refusals():
    servers = [(_refusals.usual(), []),
               (_refusals.strict(), ["--api-key", KEY, "--strict-model", "--strict-media",
                                     "--max-body-mb", "1"])]
    for refusals, options in servers:
        refusals = [one for one in refusals if ONLY in one.name]
        if not refusals:
            continue
        with Server(BUILD, {"rules": []}, *options, ctx=CONTEXT) as server:
            for refusal in refusals:
                with server.connect() as connection:
                    claim.run(f"{refusal.name} is refused", check_refusal, connection, refusal)


# ---- small replies ----------------------------------------------------------------------------

def test_counts():
    """Tokens are counted as an answer would count them."""
    counts = {"chat": "/v1/chat/completions/input_tokens", "messages": "/v1/messages/count_tokens",
              "responses": "/v1/responses/input_tokens"}
    with Server(BUILD, {"rules": [{"say": "Ja."}]}, ctx=CONTEXT) as server:
        for api, path in counts.items():
            body = {**PLAIN[api], **functions(api)}
            counted = server.post(path, body)
            golden(f"count.{api}", page(counted))
            usage = WHOLE[api](server.post(PATHS[api], body).json()).usage
            prompt = (usage["prompt_tokens"] if api == "chat" else
                      sum(usage[key] for key in usage if key.endswith("input_tokens")))
            claim(f"{path} counts as an answer does", counted.json()["input_tokens"] == prompt)


def test_kept_response():
    """A response is kept, given again as it was, and forgotten when that is asked for."""
    with Server(BUILD, {"rules": [{"say": "Hm.</think>Ja."}]}) as server:
        first = server.post("/v1/responses", {"input": "Go."})
        path = f"/v1/responses/{first.json()['id']}"
        claim("a kept response is what was sent", server.get(path).body == first.body)
        golden("responses.deleted", page(server.ask("DELETE", path)))
        claim("it is gone then", server.get(path).status == 404)
        other = server.post("/v1/responses", {"input": "Go.", "store": False}).json()["id"]
        claim("store:false keeps nothing", server.get(f"/v1/responses/{other}").status == 404)


# ---- silence, and ends that nobody asked for ---------------------------------------------------

SLOW = {"prefill_tps": 300, "decode_tps": 40, "rules": [
    {"when": ["hidden"], "say": "a b c d e f g h i j k l m n o p q r s t</think>Ja."},
    {"when": ["endless"], "say": "Ja, nein. " * 120}, {"say": "Ja."}]}


def slow_body(api, word, **more):
    """A streaming request whose prompt takes about a second to read: none begins like another."""
    text = f"{next(numbers)} {word} " + "a " * 280
    plain = {"chat": {"messages": [{"role": "user", "content": text}]},
             "messages": {"messages": [{"role": "user", "content": text}], "max_tokens": 999},
             "responses": {"input": text}, "completions": {"prompt": text, "max_tokens": 999}}[api]
    return {"model": MODEL, "stream": True, **plain, **NO_THINKING.get(api, {}), **more}


def check_beats(server, api, name, body, least):
    """At least so many beats of the heart before the answer; the golden file has one of them."""
    with server.connect() as connection:
        connection.send(connection.post_bytes("POST", PATHS[api], body))
        server.hear(0.8)
        reply = connection.read()
    STREAM[api](events(reply.body), body)
    beats, shown = without_beats(api, events(reply.body))
    assert beats >= least, f"{beats} beats, not {least}"
    reply.body = shown.encode()
    golden(f"{api}.{name}", page(reply))


def begin(server, api, word, until_event):
    """A stream of which something has come: (connection, reply so far)."""
    connection = server.connect()
    connection.send(connection.post_bytes("POST", PATHS[api], slow_body(api, word)))
    return connection, connection.read(on_chunk=lambda reply: until_event in reply.body)


FIRST_TEXT = {"chat": b'"content":"J', "messages": b'"text_delta"', "completions": b'"text":"J',
              "responses": b"output_text.delta"}
ACCEPTED = {"chat": b'"role"', "messages": b"ping", "completions": b"text_completion",
            "responses": b"in_progress"}


IN_S = {"prompt": 0.7, "answer": 8}     # what is begun is in its prompt, or answer


def check_canceled(server, api):
    """Told to be canceled while the prompt is read, and while it answers."""
    for when, marks in ("prompt", ACCEPTED), ("answer", FIRST_TEXT):
        with promised(IN_S[when], f"it is canceled in the {when}"):
            connection, reply = begin(server, api, "endless", marks[api])
            server.ask("DELETE", f"/v1/requests/{reply.headers['request-id']}")
        connection.read_chunks(reply)
        assert reply.ended == "chunks", reply
        _, reply.body = without_beats(api, events(reply.body), first_piece=True)
        reply.body = reply.body.encode()
        golden(f"{api}.canceled_in_{when}", page(reply))
        connection.close()


def test_slow():
    with Server(BUILD, SLOW, "--heartbeat", "0.2", ctx=CONTEXT, sessions=4) as server:
        for api in PATHS:
            claim.run(f"{api}: beats while the prompt is read", check_beats, server, api,
                      "beats", slow_body(api, "plain"), 2)
        body = slow_body("messages", "hidden", thinking={"type": "adaptive", "display": "omitted"})
        claim.run("messages: beats in hidden thinking", check_beats, server, "messages",
                  "beats_hidden", body, 4)
        body = slow_body("chat", "plain", return_progress=True)
        claim.run("chat: progress of a long prompt", check_progress, server, body)
        for api in PATHS:
            claim.run(f"{api}: canceled", check_canceled, server, api)


def check_progress(server, body):
    """It grows, to all of the prompt."""
    pairs = events(server.post(PATHS["chat"], body).body)
    steps = [data["prompt_progress"] for data in map(json.loads, (one for _, one in pairs[:-1]))
             if "prompt_progress" in data]
    done = [step["processed"] for step in steps]
    assert len(steps) > 1 and done == sorted(set(done)) and done[-1] == steps[-1]["total"], steps
    assert all(step["cache"] == 0 for step in steps), steps
    times = [step["time_ms"] for step in steps]
    assert times == sorted(times) and times[-1] >= 500, times


def shut_down(when, marks):
    with Server(BUILD, SLOW, "--drain-timeout", "0", sessions=4) as server:
        with promised(IN_S[when], f"it ends in the {when}"):
            begun = {api: begin(server, api, "endless", marks[api]) for api in PATHS}
            server.child.send_signal(signal.SIGTERM)
            until(lambda: "ending: " in server.log(), "it is told")
        claim(f"ended in the {when}: exit status", server.end() == 0)
        for api, (connection, reply) in begun.items():
            connection.read_chunks(reply)
            connection.close()
            told = (api, when) == ("messages", "prompt")
            claim(f"{api}: ended in the {when}", reply.ended == ("chunks" if told else "reset"),
                  reply)
            if told:
                golden("messages.overloaded", page(reply))


def test_shutdown():
    """A server that ends gives up its streams: the connection breaks, which makes clients try
    again. Claude takes an error for the end, but for one before anything was shown."""
    for when, marks in ("prompt", ACCEPTED), ("answer", FIRST_TEXT):
        claim.run(f"the server ends in the {when}", shut_down, when, marks)


def fill_queue(api):
    with Server(BUILD, SLOW, "--heartbeat", "0.2", "--max-queue", "1", sessions=1) as server:
        with promised(IN_S["answer"], "three requests are sent"):
            first, _ = begin(server, api, "endless", ACCEPTED[api])
            until(lambda: server.busy() == 1 and not server.status()["queue"], "it runs")
            second, reply = begin(server, api, "plain", ACCEPTED[api])
            until(lambda: len(server.status()["queue"]) == 1, "one waits")
            third = server.post(PATHS[api], slow_body(api, "plain"))
            server.hear(0.5)
        golden(f"refused.{api}.queue_full", page(third))
        first.close()
        second.read_chunks(reply)
        second.close()
        claim.run(f"{api}: who waits is told so, and answered", check_waiting, api, reply)


def test_queue():
    """With one session and one place in the queue, a third request is refused; the second lives."""
    for api in PATHS:
        claim.run(f"{api}: the queue is full", fill_queue, api)


def check_waiting(api, reply):
    STREAM[api](events(reply.body), {})
    beats, shown = without_beats(api, events(reply.body))
    assert beats >= 2, f"{beats} beats"
    reply.body = shown.encode()
    golden(f"{api}.queued", page(reply))


def main():
    start = time.monotonic()
    tests = [test_answers, test_refusals, test_counts, test_kept_response, test_slow,
             test_shutdown, test_queue]
    for test in tests if not ONLY else tests[:2]:
        test()
    if not ONLY:
        for file in sorted(GOLDEN.glob("*.txt")):
            claim(f"{file.name} is asked for", file.name in used)
    print(f"{time.monotonic() - start:.1f} s")
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
