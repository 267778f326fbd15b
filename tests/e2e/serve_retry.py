#!/usr/bin/env python3
"""serve_retry.py BUILD_DIR: clients that give up and ask for the same again.

An answer whose client is gone goes on for --retry-grace seconds: who sends the same body again
gets all of it, from its first byte, streamed or whole, and nothing is computed twice. But only
where nobody minds: not for another body, another session, when others wait, when it had hardly
begun, when it is switched off, or when the server is to end. A prompt is read on for longer, while
nobody else asks for anything.
"""
import sys

from _asked import (CHAT, COMPLETIONS, MESSAGES, RESPONSES, body_of, plain, streamed_text, whole_text,
                    words)
from _serve import Claims, Server, events, presumed, promised, until

BUILD = sys.argv[1]
GRACE_S = 2
LONG = words("text", 20)      # about three seconds
PLAY = {"decode_tps": 50, "prefill_tps": 2000,
        "rules": [{"last": ["Quick."], "say": "Yes."}, {"last": ["Huge."], "say": words("huge", 2500)},
                  {"say": LONG}]}
AGAIN_S = 2.6                 # after its begin LONG is still told
READ_TPS, READ_S = 1500, 12    # the prompt of begin_reading() is read for longer than that
claim = Claims()


def runs(server):
    return [slot for slot in server.status()["slots"] if slot["state"] != "idle"]


def settle(server):
    until(lambda: not runs(server), "nothing runs")


def send(server, path, body, headers=()):
    connection = server.connect()
    connection.send(connection.post_bytes("POST", path, body, headers))
    return connection


def begin(server, path, stream, headers=(), text="Go on.", work_s=GRACE_S / 2 + 0.3):
    """A request that has been worked on for so long, and a body to send again."""
    body = body_of(path, text, stream, **plain(path))
    connection = send(server, path, body, headers)
    until(lambda: any(slot["state"] == "text" for slot in runs(server)), "it runs")
    server.hear(work_s)
    return connection, body


def prompts(server):
    return server.metric("ds4x_ttft_seconds_count")


def text_of(path, stream, reply):
    return streamed_text(path, reply) if stream else whole_text(path, reply)


def is_kept(server):
    assert runs(server), "the answer was given up"


def check_again(server, path, stream):
    settle(server)
    before = prompts(server)
    with promised(AGAIN_S, "the client comes again"):
        connection, body = begin(server, path, stream)
        connection.close()
        server.hear(0.5)
        is_kept(server)
        again = send(server, path, body)
        is_kept(server)
    reply = again.read()
    assert reply.status == 200 and reply.ended == ("chunks" if stream else "length"), reply
    assert text_of(path, stream, reply) == LONG, "it is not all of the answer"
    assert prompts(server) == before + 1, "it was computed twice"
    settle(server)


def check_twice(server):
    """The client comes again two times, the last time when the answer is complete."""
    settle(server)
    before = prompts(server)
    with promised(AGAIN_S, "the client comes again"):
        connection, body = begin(server, MESSAGES, True)
        connection.close()
        server.hear(0.3)
        second = send(server, MESSAGES, body)
        second.read(on_chunk=lambda reply: b"delta" in reply.body)
        second.close()
        is_kept(server)
    with promised(GRACE_S, "the answer is complete before the grace is over"):
        settle(server)
    reply = server.post(MESSAGES, body)
    assert streamed_text(MESSAGES, reply) == LONG, "it is not all of the answer"
    assert events(reply.body)[-1][0] == "message_stop"
    assert prompts(server) == before + 1, "it was computed twice"


def check_grace_ends(server):
    settle(server)
    before = server.metric("ds4x_cancelled_total", reason="client")
    with presumed(GRACE_S, "the answer is kept"):
        connection, _ = begin(server, CHAT, True, text="Huge.")
        connection.close()
        server.hear(0.5)
        is_kept(server)
    until(lambda: not runs(server), "it is given up before its end")
    until(lambda: server.metric("ds4x_cancelled_total", reason="client") == before + 1,
          "that is counted")


def check_other_body(server):
    settle(server)
    headers = [("x-claude-code-session-id", "11111111-2222-3333-4444-555555555555")]
    connection, _ = begin(server, MESSAGES, True, headers, "Huge.")
    with promised(GRACE_S - 0.5, "it is given up before the grace is over"):
        connection.close()
        server.hear(0.3)
        is_kept(server)
        reply = server.post(MESSAGES, body_of(MESSAGES, "Quick.", **plain(MESSAGES)), headers)
        settle(server)
    assert streamed_text(MESSAGES, reply) == "Yes."


def check_other_session(server):
    """The same words of another session get an answer of their own."""
    settle(server)
    before = prompts(server)
    first = [("x-claude-code-session-id", "11111111-2222-3333-4444-555555555555")]
    other = [("x-claude-code-session-id", "11111111-2222-3333-4444-666666666666")]
    with promised(AGAIN_S, "another session asks"):
        connection, body = begin(server, MESSAGES, True, first)
        connection.close()
        server.hear(0.3)
        is_kept(server)
        asks = send(server, MESSAGES, body, other)
        is_kept(server)
    assert streamed_text(MESSAGES, asks.read()) == LONG
    assert prompts(server) == before + 2


def begin_reading(server):
    """A prompt whose client leaves while it is read, which takes a quarter of a minute."""
    body = body_of(CHAT, words(f"long {prompts(server)}", 3000), True, **plain(CHAT))
    connection = send(server, CHAT, body)
    until(lambda: any(slot["state"] == "prefill" for slot in runs(server)), "it is read")
    server.hear(GRACE_S / 2 + 0.3)
    connection.close()
    server.hear(GRACE_S + 1)
    slot, = runs(server)
    assert slot["state"] == "prefill" and slot["processed"] < slot["prompt_tokens"], slot
    return body


def check_reading(server):
    """Long after the grace it is still read, since nobody else asks; and answered once."""
    settle(server)
    before = prompts(server)
    with presumed(READ_S, "its client leaves while it is read"):
        again = send(server, CHAT, begin_reading(server))
    assert streamed_text(CHAT, again.read()) == LONG, "it is not all of the answer"
    assert prompts(server) == before + 1, "it was computed twice"


def check_reading_yields(server):
    """Who asks then has the engine for himself, though another slot is free."""
    settle(server)
    with promised(READ_S, "it is given up before it is read"):
        begin_reading(server)
        reply = server.post(MESSAGES, body_of(MESSAGES, "Quick.", **plain(MESSAGES)))
        settle(server)
    assert streamed_text(MESSAGES, reply) == "Yes."


def check_early(server):
    """It had hardly begun: less is lost than by keeping the slot."""
    settle(server)
    with promised(GRACE_S / 2, "it is given up"):
        connection, _ = begin(server, CHAT, True, text="Huge.", work_s=0)
        connection.close()
        settle(server)


def check_too_much():
    """More than 1 MiB was said: nobody keeps that."""
    with Server(BUILD, {**PLAY, "decode_tps": 0}, "--retry-grace", str(GRACE_S),
                ctx=65536) as server:
        connection = server.connect()
        body = {"messages": [{"role": "user", "content": "Huge."}], "stream": True,
                **plain(CHAT)}
        connection.send(connection.post_bytes("POST", CHAT, body))
        said = [0]

        def enough(reply):
            said[0] = len(reply.body)
            return said[0] > (3 << 19)
        reply = connection.read(on_chunk=enough)
        assert said[0] > 1 << 20, f"the stream was not long enough: {said[0]}, {reply.ended}"
        with promised(GRACE_S - 0.2, "it is given up before the grace is over"):
            connection.close()
            settle(server)


def check_waiting():
    """With one slot, who waits gets it at once."""
    with Server(BUILD, PLAY, "--retry-grace", str(GRACE_S), sessions=1) as server:
        connection, _ = begin(server, CHAT, True, text="Huge.")
        with promised(GRACE_S - 0.5, "who waits gets the slot before the grace is over"):
            connection.close()
            server.hear(0.3)
            is_kept(server)
            reply = server.post(CHAT, body_of(CHAT, "Quick.", **plain(CHAT)))
        assert streamed_text(CHAT, reply) == "Yes."


def check_off():
    with Server(BUILD, PLAY, "--retry-grace", "0") as server:
        connection, _ = begin(server, CHAT, True, text="Huge.", work_s=1)
        connection.close()
        until(lambda: not runs(server), "the slot is free before the answer's end", 30)


def check_end():
    """The end does not wait for who may never come, though answers have a minute."""
    grace_s = 6
    with Server(BUILD, PLAY, "--retry-grace", str(grace_s), "--drain-timeout", "60") as server:
        connection, _ = begin(server, CHAT, True, text="Huge.", work_s=grace_s / 2 + 0.3)
        with promised(grace_s - 1, "it ends before the grace is over"):
            connection.close()
            server.hear(0.2)
            is_kept(server)
            server.end()


def main():
    with Server(BUILD, PLAY, "--retry-grace", str(GRACE_S)) as server:
        for path, stream in ((CHAT, True), (CHAT, False), (MESSAGES, True), (RESPONSES, True),
                             (COMPLETIONS, False)):
            claim.run(f"{path}, {'stream' if stream else 'whole'}: the same answer again",
                      check_again, server, path, stream)
        claim.run("it may come again more than once", check_twice, server)
        claim.run("without anybody it ends after the grace", check_grace_ends, server)
        claim.run("another body of its session ends it", check_other_body, server)
        claim.run("another session has no part in it", check_other_session, server)
        claim.run("what had hardly begun is given up at once", check_early, server)
    with Server(BUILD, {**PLAY, "prefill_tps": READ_TPS}, "--retry-grace", str(GRACE_S),
                ctx=65536) as server:
        claim.run("a prompt is read on while nobody else asks", check_reading, server)
        claim.run("and given up when somebody does", check_reading_yields, server)
    claim.run("who waits for the slot gets it", check_waiting)
    claim.run("more than 1 MiB is not kept", check_too_much)
    claim.run("without a grace it is given up at once", check_off)
    claim.run("the end does not wait for it", check_end)
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
