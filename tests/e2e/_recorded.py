"""_recorded.py: what real clients sent (tests/data/client_requests), and how one request goes on
with another: what the client was told in between, in the forms of the three APIs."""
import copy
import json
import re

from _serve import ROOT, events, until

RECORDED = ROOT / "tests/data/client_requests"
DROPPED_HEADERS = {"host", "content-length", "connection", "accept-encoding", "authorization",
                   "x-api-key", "transfer-encoding"}
AGENT_HEADERS = ("x-claude-code-agent-id", "thread-id")
THINKING = "<｜Assistant｜><think>"
DSML = "｜DSML｜"


class Recorded:
    """One file: what was sent, and where."""

    def __init__(self, path):
        record = json.loads(path.read_bytes())
        self.name = f"{path.parent.name}/{path.name}"
        self.method, self.url, self.body = record["method"], record["url"], record.get("body")
        self.headers = [(n, v) for n, v in record["rawHeaders"] if n.lower() not in DROPPED_HEADERS]
        self.path = self.url.split("?")[0]
        self.agent = [v for n, v in self.headers if n.lower() in AGENT_HEADERS]

    def is_answer(self):
        return self.method == "POST" and self.path in APIS

    def format(self):
        """The schema that its answer must have, None: any."""
        body = self.body if isinstance(self.body, dict) else {}
        found = (body.get("text") or {}).get("format") or body.get("response_format") or \
            (body.get("output_config") or {}).get("format") or {}
        return (found.get("json_schema") or found).get("schema")

    def send(self, server, body=None):
        return server.ask(self.method, self.url, self.body if body is None else body, self.headers)


def recorded(folder):
    return [Recorded(path) for path in sorted((RECORDED / folder).glob("*.json"))]


# ---- the three APIs ---------------------------------------------------------------------------------

def markup(calls):
    """A block of calls, [(name, arguments or text of a custom input)], spelled oddly."""
    lines = [f"<{DSML}tool_calls>"]
    for name, arguments in calls:
        lines.append(f'<{DSML}invoke name="{name}">')
        if isinstance(arguments, str):
            arguments = {"input": arguments}
        for key, value in reversed(arguments.items()):
            text = isinstance(value, str)
            said = value if text else json.dumps(value, ensure_ascii=False, separators=(",", ": "))
            lines.append(f'<{DSML}parameter name="{key}" string="{str(text).lower()}">{said}'
                         f"</{DSML}parameter>")
        if not arguments:
            lines.append("")
        lines.append(f"</{DSML}invoke>")
    return "\n".join(lines + [f"</{DSML}tool_calls>"])


class Said:
    """What the client was told between two of its requests."""

    def __init__(self, thought="", text="", calls=()):
        self.thought, self.text, self.calls = thought, text, list(calls)

    def script(self):
        answer = self.text
        if self.calls:
            answer += ("\n" if answer else "") + "\n\n" + markup(self.calls)
        rules = [{"last": [THINKING], "say": f" {self.thought} </think>{answer}"}, {"say": answer}]
        return {"rules": rules}


class Messages:
    """/v1/messages: what of a conversation is said by whom, and what came back."""

    @staticmethod
    def turns(body):
        return body["messages"]

    @staticmethod
    def is_whole(reply):
        return events(reply.body)[-1][0] == "message_stop"

    @staticmethod
    def said(added):
        if not added or added[0]["role"] != "assistant" or any(
                m["role"] == "assistant" for m in added[1:]):
            return None
        said = Said()
        content = added[0]["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "thinking":
                said.thought += block["thinking"]
            elif block["type"] == "text":
                said.text += block["text"]
            elif block["type"] == "tool_use":
                said.calls.append((block["name"], block["input"]))
        return said

    @staticmethod
    def told(reply):
        """(ids of calls, signature, prompt tokens, sampled tokens)"""
        ids, signature, usage = [], "", {}
        for _, data in events(reply.body):
            event = json.loads(data)
            if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
                ids.append(event["content_block"]["id"])
            elif event["type"] == "content_block_delta":
                signature += event["delta"].get("signature", "")
            elif event["type"] == "message_delta":
                usage = event["usage"]
        prompt = sum(usage[k] for k in ("input_tokens", "cache_creation_input_tokens",
                                        "cache_read_input_tokens"))
        return ids, signature, prompt, usage["output_tokens"]

    @staticmethod
    def echo(added, signature, first):
        hidden = (first.get("thinking") or {}).get("display") == "omitted"
        for block in added[0]["content"] if isinstance(added[0]["content"], list) else []:
            if block["type"] == "thinking":
                block["signature"] = signature
                block["thinking"] = "" if hidden else block["thinking"]

    @staticmethod
    def ids(added):
        content = added[0]["content"]
        return [b["id"] for b in content if isinstance(b, dict) and b["type"] == "tool_use"]


class Chat:
    @staticmethod
    def turns(body):
        return body["messages"]

    @staticmethod
    def is_whole(reply):
        return events(reply.body)[-1][1] == "[DONE]"

    @staticmethod
    def said(added):
        if not added or added[0]["role"] != "assistant" or any(
                m["role"] == "assistant" for m in added[1:]):
            return None
        m = added[0]
        text = m.get("content") or ""
        if isinstance(text, list):
            text = "\n\n".join(p["text"] for p in text)
        calls = [(c["function"]["name"], json.loads(c["function"]["arguments"]))
                 for c in m.get("tool_calls") or []]
        return Said(m.get("reasoning_content") or "", text, calls)

    @staticmethod
    def told(reply):
        ids, usage = [], None
        for _, data in events(reply.body)[:-1]:
            chunk = json.loads(data)
            for choice in chunk["choices"]:
                ids += [c["id"] for c in choice["delta"].get("tool_calls", []) if "id" in c]
            usage = chunk.get("usage") or usage
        return ids, "", usage["prompt_tokens"], usage["completion_tokens"]

    @staticmethod
    def echo(added, signature, first):
        pass

    @staticmethod
    def ids(added):
        return [c["id"] for c in added[0].get("tool_calls") or []]


class Responses:
    SAID = {"reasoning", "function_call", "custom_tool_call"}

    @staticmethod
    def turns(body):
        return body["input"] if isinstance(body["input"], list) else []

    @staticmethod
    def is_whole(reply):
        return events(reply.body)[-1][0] == "response.completed"

    @classmethod
    def _is_said(cls, item):
        return item.get("type") in cls.SAID or item.get("role") == "assistant"

    @classmethod
    def said(cls, added):
        n = 0
        while n < len(added) and cls._is_said(added[n]):
            n += 1
        if not n or any(cls._is_said(item) for item in added[n:]):
            return None
        said = Said()
        for item in added[:n]:
            if item["type"] == "reasoning":
                said.thought += "".join(p["text"] for p in item.get("summary", []))
            elif item["type"] == "message":
                said.text += "".join(p["text"] for p in item["content"])
            else:
                name = "__".join(filter(None, [item.get("namespace"), item["name"]]))
                custom = item["type"] == "custom_tool_call"
                said.calls.append((name, item["input"] if custom else json.loads(item["arguments"])))
        return said

    @staticmethod
    def told(reply):
        response = json.loads(events(reply.body)[-1][1])["response"]
        ids = [i["call_id"] for i in response["output"] if i["type"].endswith("_call")]
        sealed = [i.get("encrypted_content", "") for i in response["output"]
                  if i["type"] == "reasoning"]
        usage = response["usage"]
        return ids, "".join(sealed), usage["input_tokens"], usage["output_tokens"]

    @staticmethod
    def echo(added, signature, first):
        for item in added:
            if item.get("type") == "reasoning" and signature:
                item["encrypted_content"] = signature

    @classmethod
    def ids(cls, added):
        return [i["call_id"] for i in added if i.get("type", "").endswith("_call")]

    @staticmethod
    def drop_text(added):
        added[:] = [i for i in added if i.get("role") != "assistant"]


APIS = {"/v1/messages": Messages, "/v1/chat/completions": Chat, "/v1/responses": Responses}


# ---- one request after the other -------------------------------------------------------------------

def without_marks(value):
    """What a client moves about from request to request is no part of the conversation."""
    if isinstance(value, dict):
        kept = {k: without_marks(v) for k, v in value.items() if k != "cache_control"}
        if kept.get("type") == "text" and "text" in kept and len(kept) == 2:
            return kept["text"]
        return kept
    if isinstance(value, list):
        parts = [without_marks(v) for v in value]
        return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts
    return value


def added_turns(api, first, second):
    """What second has after first's conversation; None: it does not go on with it."""
    a, b = api.turns(first.body), api.turns(second.body)
    if not a or len(b) <= len(a) or without_marks(a) != without_marks(b[:len(a)]):
        return None
    return b[len(a):]


def goes_on(first, second):
    """(turns that were added, what of them was said): second is the next request of first's
    conversation. None: it is not."""
    api = APIS.get(second.path)
    if not api or first.path != second.path or first.agent != second.agent:
        return None
    added = added_turns(api, first, second)
    said = api.said(added) if added else None
    # An answer that was begun is no turn to the client, where it is gone on with.
    begun = api.turns(first.body)[-1:] if said else []
    return (added, said) if said and not any(t.get("role") == "assistant" for t in begun) else None


def told_again(second, links):
    """second's body with what its client was told: links are of all answers in it that were given
    by a server, (turns before it, turns up to and with it, first body, ids and signature that it
    was told)."""
    api, body = APIS[second.path], copy.deepcopy(second.body)
    turns, old, new = api.turns(body), [], []
    for begin, end, first, ids, signature in links:
        tail = turns[begin:end]
        api.echo(tail, signature, first)
        old += api.ids(tail)
        new += ids
    return with_new_ids(body, old, new)


def with_new_ids(body, old, new):
    text = json.dumps(body)
    for a, b in zip(old, new):
        text = text.replace(a, b)
    return json.loads(text)


def reused(server, reply):
    """How many tokens of its prompt were there; the log says it at its own time."""
    line = rf"{reply.headers['request-id']} cache: (\d+) of "
    return int(until(lambda: re.search(line, server.log()), "the log tells what was reused")[1])
