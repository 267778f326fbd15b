#!/usr/bin/env python3
"""serve_recorded.py BUILD_DIR: what real clients sent (tests/data/client_requests), sent to a
real server.

Every recorded request gets 200, or the error that docs/SERVER.md has for it. And where a request
goes on with a conversation, it finds all of it: the model is made to say what the client was told
in between, in a form that no renderer would choose (odd spaces, parameters in another order); the
client's next request, with the ids and signatures that it was given now, must then reuse every
token of the first prompt and of what was sampled.
"""
import copy
import json
import sys

from _recorded import (APIS, RECORDED, THINKING, Chat, goes_on, recorded, reused, with_new_ids)
from _serve import Claims, Server

CTX = 262144
MARK = 128      # a state goes back to a multiple of this

claims = Claims()


# ---- every request by itself --------------------------------------------------------------------

# What is not there, and the answer to it.
OTHERS = {("POST", "/api/pull"): 404, ("GET", "/v1/codex-catalog"): 404}


def example(schema):
    """A value of a simple schema."""
    values = {"string": "s", "integer": 1, "number": 1, "boolean": True}
    if schema.get("type") == "object":
        return {name: example(part) for name, part in schema.get("properties", {}).items()}
    return values[schema["type"]]


def script(answer, **more):
    return {"rules": [{"last": [THINKING], "say": "So.</think>" + answer}, {"say": answer}], **more}


def test_every_request():
    groups = {}
    for folder in sorted(p.name for p in RECORDED.iterdir() if p.is_dir()):
        for r in recorded(folder):
            schema = r.format()
            answer = json.dumps(example(schema)) if schema else "Done."
            groups.setdefault(answer, []).append(r)
    for answer, requests in groups.items():
        with Server(sys.argv[1], script(answer), ctx=CTX) as server:
            for r in requests:
                reply = r.send(server)
                want = OTHERS.get((r.method, r.path), 200)
                claims(f"{r.name}: {r.method} {r.url} is {want}", reply.status == want, reply)
                if want == 200 and r.is_answer() and reply.is_stream():
                    claims(f"{r.name}: the stream ends as it should", reply.ended == "chunks" and
                           APIS[r.path].is_whole(reply), reply.body[-300:])
    print(f"{sum(map(len, groups.values()))} requests")


# ---- one request after the other -------------------------------------------------------------------

def pairs_of(requests):
    """(first, second): second goes on with the latest request that it can go on with."""
    for k, second in enumerate(requests):
        found = [first for first in requests[:k] if goes_on(first, second)]
        if found:
            yield found[-1], second


def all_pairs():
    """Runs with errors and breaks are many, and go on in few ways: one of a kind counts."""
    seen = set()
    for folder in sorted(p.name for p in RECORDED.iterdir() if p.is_dir()):
        earlier = recorded(folder.replace("turn2par", "turn1par")) if "turn2par" in folder else []
        for first, second in pairs_of(earlier + recorded(folder)):
            kind, _, client = folder.partition("-")
            shown = second.name
            if kind in ("err", "mid", "cancel"):
                shown = client.split("-")[-1], second.path, len(goes_on(first, second)[0])
            if shown not in seen:
                seen.add(shown)
                yield first, second


def check_pair(first, second):
    api = APIS[first.path]
    added, said = goes_on(first, second)
    start, body = dict(first.body, stream=True), copy.deepcopy(second.body)
    if api is Chat:
        start["stream_options"] = {"include_usage": True}
    tail = api.turns(body)[len(api.turns(first.body)):]
    if first.format() and said.calls:
        # An answer that must have a form has it, or is nothing but calls.
        said.text = ""
        api.drop_text(tail)
    with Server(sys.argv[1], said.script(), ctx=CTX) as server:
        reply = first.send(server, start)
        assert reply.status == 200, reply
        ids, signature, prompt, sampled = api.told(reply)
        assert len(ids) == len(said.calls), f"{len(said.calls)} calls were said, {len(ids)} told"
        api.echo(tail, signature, first.body)
        api.turns(body)[len(api.turns(first.body)):] = tail
        reply = second.send(server, with_new_ids(body, api.ids(tail), ids))
        assert reply.status == 200, reply
        found = reused(server, reply)
        # The last token of an answer that ends with a block was sampled, but not fed. Where the
        # prompt is all that is there, its last token is read again, from a mark on.
        least = prompt + sampled - (1 if len(added) > 1 else MARK)
        assert found >= least, \
            f"{found} tokens reused of {prompt} + {sampled}\n{server.log()[-1500:]}"


def test_pairs():
    checked = 0
    for first, second in all_pairs():
        checked += claims.run(f"{second.name} goes on with {first.name}", check_pair, first, second)
    claims("pairs of requests were checked", checked >= 40, checked)
    print(f"{checked} pairs of requests")


def main():
    test_every_request()
    test_pairs()
    return claims.end()


if __name__ == "__main__":
    sys.exit(main())
