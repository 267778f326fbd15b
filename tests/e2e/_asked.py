"""_asked.py: one question in the form of each API, and what was answered."""
import json
import random

from _serve import events

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
COMPLETIONS = "/v1/completions"
PATHS = [CHAT, MESSAGES, RESPONSES, COMPLETIONS]


def words(name, n):
    """A text that no other name gives, and that does not repeat itself."""
    pick = random.Random(name)
    return f"{name}: " + " ".join(f"{pick.randrange(100000)}é" for _ in range(n))


def plain(path):
    """Members that turn thinking off."""
    return {COMPLETIONS: {}, RESPONSES: {"reasoning": {"effort": "none"}}}.get(
        path, {"thinking": {"type": "disabled"}})


def body_of(path, text, stream=True, **more):
    if path == COMPLETIONS:
        return {"prompt": text, "stream": stream, "max_tokens": 4000, **more}
    if path == RESPONSES:
        return {"input": text, "stream": stream, "store": False, **more}
    return {"messages": [{"role": "user", "content": text}], "stream": stream, **more}


def tools(path):
    """Members that declare a tool named look, with a text q."""
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    if path == MESSAGES:
        return {"tools": [{"name": "look", "input_schema": schema}]}
    tool = {"name": "look", "parameters": schema}
    return {"tools": [{"type": "function", **tool} if path == RESPONSES else
                      {"type": "function", "function": tool}]}


def streamed_text(path, reply):
    """What a stream said, without thinking and calls."""
    text = ""
    for name, data in events(reply.body):
        if data == "[DONE]":
            continue
        event = json.loads(data)
        if path == MESSAGES and name == "content_block_delta":
            text += event["delta"].get("text", "")
        elif path == RESPONSES and name == "response.output_text.delta":
            text += event["delta"]
        elif path in (CHAT, COMPLETIONS) and event.get("choices"):
            choice = event["choices"][0]
            text += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return text


def whole_text(path, reply):
    """The same of a reply that is one object."""
    body = reply.json()
    if path == MESSAGES:
        return "".join(block.get("text", "") for block in body["content"])
    if path == RESPONSES:
        return "".join(part["text"] for item in body["output"] if item["type"] == "message"
                       for part in item["content"])
    choice = body["choices"][0]
    return choice["text"] if path == COMPLETIONS else choice["message"]["content"]
