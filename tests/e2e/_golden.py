"""_golden.py: replies of the server in a form that can be compared.

normal(): what differs from run to run (ids, times, handles, logprobs) replaced, so that what was
equal stays equal: the first id of a kind that is seen becomes msg_1, and so on.
merged(): a stream's events with neighbouring pieces of one text joined, and without what depends
on how the text was cut into tokens: two streams of one answer are equal in it.
"""
import json
import re

from _serve import events

IDS = re.compile(r"\b(req_[0-9a-f]{24}|(?:(?:msg|resp|rs|fc|ctc|tsc|lsh|call|toolu)_|"
                 r"(?:chatcmpl|cmpl)-)[0-9a-f]{32})\b")
HANDLES = re.compile(r'(?<="signature":")[\w-]{44}(?=")|(?<="encrypted_content":")[\w-]{44}(?=")')
CREATED = re.compile(r'(?<="created":)\d{10}\b|(?<="created_at":)\d{10}\b')
TIMES = re.compile(r'("(?:(?:prompt|predicted)_(?:ms|per_second)|time_ms)":)[\d.e+-]+')
NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
LOGPROB = re.compile(rf'("logprob":){NUMBER}')
COLUMNS = re.compile(r'("(?:token_logprobs|top_logprobs)":\[)([^\[\]]*)(?=\])')


def normal(text):
    """The text of a reply without what is new each time."""
    seen = {}

    def number(kind, value):
        of_kind = seen.setdefault(kind, {})
        return of_kind.setdefault(value, len(of_kind) + 1)

    def id_name(found):
        prefix = re.match("[a-z]+[_-]", found[0])[0]
        return f"{prefix}{number(prefix, found[0])}"

    text = IDS.sub(id_name, text)
    text = HANDLES.sub(lambda found: f"handle_{number('handle', found[0])}", text)
    text = CREATED.sub(lambda found: str(number("created", found[0])), text)
    text = TIMES.sub(r"\g<1>0", text)
    text = LOGPROB.sub(r"\g<1>0", text)
    return COLUMNS.sub(lambda found: found[1] + re.sub(rf"(^|,|:){NUMBER}", r"\g<1>0", found[2]),
                       text)


def page(reply):
    """A golden file's text: what a client sees of a reply."""
    shown = ["content-type", "allow", "retry-after", "www-authenticate"]
    head = [f"HTTP/1.1 {reply.status} {reply.reason}"]
    head += [f"{name}: {reply.headers[name]}" for name in shown if name in reply.headers]
    body = reply.body.decode("utf-8")
    return "\n".join(head) + "\n\n" + normal(body) + ("" if body.endswith("\n") else "\n")


def body_of(text):
    """The body in a golden file's text."""
    return text.partition("\n\n")[2]


# ---- merging --------------------------------------------------------------------------------

OF_ANSWER = {"output_tokens", "output_tokens_details", "completion_tokens", "total_tokens",
             "completion_tokens_details"}


def strip(value, all_counts=False):
    """value without counts of the answer's tokens (or all), timings and logprobs, anywhere."""
    if isinstance(value, list):
        return [strip(one, all_counts) for one in value]
    if not isinstance(value, dict):
        return value
    out = {key: strip(one, all_counts) for key, one in value.items()
           if key not in ("timings", "sequence_number") and not (key == "logprobs" and one)}
    if isinstance(out.get("usage"), dict):
        out["usage"] = {key: count for key, count in out["usage"].items()
                        if key not in OF_ANSWER and not all_counts}
    return out


def _piece(name, data):
    """What a delta belongs to, and where its text is: (key, [path]); None: it is no delta."""
    kind = data.get("type")
    if kind == "content_block_delta":
        delta = data["delta"]
        member = {"text_delta": "text", "thinking_delta": "thinking",
                  "input_json_delta": "partial_json"}.get(delta["type"])
        return member and ((kind, data["index"], member), ["delta", member])
    if kind and kind.endswith(".delta"):
        return (kind, data["item_id"]), ["delta"]
    choice = (data.get("choices") or [{}])[0]
    if choice.get("finish_reason"):
        return None
    if data.get("object") == "text_completion" and choice.get("text"):
        return (name,), ["choices", 0, "text"]
    delta = choice.get("delta", {})
    for member in "content", "reasoning_content":
        if list(delta) == [member]:
            return (member,), ["choices", 0, "delta", member]
    if list(delta) == ["tool_calls"] and "id" not in delta["tool_calls"][0]:
        call = delta["tool_calls"][0]
        kind = "custom" if "custom" in call else "function"
        return ((kind, call["index"]), ["choices", 0, "delta", "tool_calls", 0, kind,
                                        "input" if kind == "custom" else "arguments"])
    return None


def _at(data, path):
    for step in path:
        data = data[step]
    return data


def merged(body, all_counts=False):
    """The events of a stream's normal text, [(name, data)]: see above. all_counts: tokens of the
    prompt depend on how an answer before it was cut."""
    out, last = [], None
    for name, text in events(body.encode()):
        if text == "[DONE]":
            out.append((name, text))
            last = None
            continue
        data = strip(json.loads(text), all_counts)
        piece = _piece(name, data)
        key = piece and (name, *piece[0])
        if key and key == last:
            *way, end = piece[1]
            _at(out[-1][1], way)[end] += _at(data, piece[1])
        else:
            out.append((name, data))
        last = key
    return out
