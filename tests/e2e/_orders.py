"""_orders.py: the order of events in each API's streams, and what a client makes of them.

Each stream_*() takes the events of one whole answer, holds them to the order that the API has,
and returns what a client then knows; whole_*() returns the same of a reply that is one object.
What is wrong is an AssertionError. usage is what the API sent, unchanged.
"""
import json
import re


class Told:
    """What was told: texts, calls [(id, name, input text)], how it ended, and the usage."""

    def __init__(self):
        self.reasoning, self.text, self.calls, self.finish, self.usage = "", "", [], None, None

    def same(self):
        """To be compared: ids are new in each answer, timings too."""
        return [self.reasoning, self.text, [list(call[1:]) for call in self.calls], self.finish]


def drop_cut_call(told, ending):
    """A call that the end of the tokens cut off is none for whoever reads a stream."""
    try:
        if told.finish[0] == ending and told.calls:
            json.loads(told.calls[-1][2])
    except ValueError:
        told.calls.pop()


def _only(data, *members):
    assert list(data) == list(members), f"members {list(data)}, not {list(members)}"


class Events:
    """Events that are taken one by one."""

    def __init__(self, pairs):
        self.left = list(pairs)

    def peek(self):
        return self.left[0][1]

    def next(self, name):
        assert self.left, f"it ends where {name} should come"
        got, data = self.left.pop(0)
        assert got == name, f"{got} where {name} should come: {data}"
        return data

    def end(self):
        assert not self.left, f"events after the end: {self.left[:2]}"


def parsed(pairs):
    return [(name, data if data == "[DONE]" else json.loads(data)) for name, data in pairs]


# ---- Anthropic's messages -------------------------------------------------------------------

MESSAGES_USAGE = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
                  "output_tokens", "output_tokens_details"]


class _Messages:
    def __init__(self, pairs):
        self.told = Told()
        self.events = Events((name, data) for name, data in pairs if name != "ping")
        assert [name for name, _ in pairs[:2]] == ["message_start", "ping"], pairs[:2]
        for name, data in pairs:
            assert data["type"] == name, (name, data)
            assert name != "ping" or data == {"type": "ping"}, data

    def start(self):
        message = self.events.next("message_start")["message"]
        _only(message, "id", "type", "role", "model", "content", "stop_reason", "stop_sequence",
              "usage")
        assert (message["type"], message["role"]) == ("message", "assistant")
        assert message["content"] == [] and message["stop_reason"] is None
        assert message["stop_sequence"] is None
        assert all(not value or key == "output_tokens_details" and not any(value.values())
                   for key, value in message["usage"].items()), message["usage"]

    def deltas(self, index, kind, member):
        """The joined text of the block's deltas of a kind."""
        text = ""
        while self.events.peek().get("delta", {}).get("type") == kind:
            data = self.events.next("content_block_delta")
            assert data["index"] == index, data
            _only(data["delta"], "type", member)
            assert data["delta"][member], "an empty delta"
            text += data["delta"][member]
        return text

    def block(self, index):
        data = self.events.next("content_block_start")
        assert data["index"] == index, data
        block, told = data["content_block"], self.told
        kind = block["type"]
        if kind == "thinking":
            assert block == {"type": "thinking", "thinking": "", "signature": ""}, block
            told.reasoning += self.deltas(index, "thinking_delta", "thinking")
            assert self.deltas(index, "signature_delta", "signature"), "no signature"
        elif kind == "text":
            assert block == {"type": "text", "text": ""}, block
            told.text += self.deltas(index, "text_delta", "text")
        else:
            _only(block, "type", "id", "name", "input")
            assert kind == "tool_use" and block["input"] == {}, block
            given = self.deltas(index, "input_json_delta", "partial_json")
            told.calls.append([block["id"], block["name"], given])
        assert self.events.next("content_block_stop")["index"] == index
        return kind

    def blocks(self):
        kinds = []
        while self.events.peek()["type"] == "content_block_start":
            kinds.append(self.block(len(kinds)))
        order = {"thinking": 0, "text": 1, "tool_use": 2}
        assert kinds == sorted(kinds, key=order.get) and kinds.count("text") <= 1, kinds
        assert kinds.count("thinking") <= 1 and kinds not in ([], ["thinking"]), kinds

    def end(self):
        data = self.events.next("message_delta")
        assert list(data["delta"])[:2] == ["stop_reason", "stop_sequence"], data
        assert list(data["usage"]) == MESSAGES_USAGE, data["usage"]
        self.told.finish = (data["delta"]["stop_reason"], data["delta"]["stop_sequence"])
        self.told.usage = data["usage"]
        assert self.events.next("message_stop") == {"type": "message_stop"}
        self.events.end()
        drop_cut_call(self.told, "max_tokens")
        for told in self.told.calls:
            told[2] = json.loads(told[2])
        return self.told


def stream_messages(pairs, _body):
    stream = _Messages(parsed(pairs))
    stream.start()
    stream.blocks()
    return stream.end()


def whole_messages(reply):
    told = Told()
    _only({key: 0 for key in reply if key != "context_management"}, "id", "type", "role", "model",
          "content", "stop_reason", "stop_sequence", "usage")
    for block in reply["content"]:
        if block["type"] == "thinking":
            _only(block, "type", "thinking", "signature")
            assert block["signature"], "no signature"
            told.reasoning += block["thinking"]
        elif block["type"] == "text":
            _only(block, "type", "text")
            told.text += block["text"]
        else:
            _only(block, "type", "id", "name", "input")
            told.calls.append((block["id"], block["name"], block["input"]))
    assert list(reply["usage"]) == MESSAGES_USAGE, reply["usage"]
    told.finish = (reply["stop_reason"], reply["stop_sequence"])
    told.usage = reply["usage"]
    return told


# ---- OpenAI's chat ----------------------------------------------------------------------------

def _same_head(pairs, kind):
    heads = {(data["id"], data["object"], data["created"], data["model"]) for _, data in pairs[:-1]}
    assert len(heads) == 1 and heads.pop()[1] == kind, heads
    assert all(name is None for name, _ in pairs), "an event line"
    assert pairs[-1][1] == "[DONE]", pairs[-1]


def _split_end(pairs, body):
    """Chunks of the answer, its last one, and the usage."""
    chunks = [data for _, data in pairs[:-1]]
    usage = None
    if body.get("stream_options", {}).get("include_usage"):
        last = chunks.pop()
        assert last["choices"] == [], last
        usage = last["usage"]
    assert all("usage" not in chunk and len(chunk["choices"]) == 1 for chunk in chunks)
    assert all(chunk["choices"][0]["index"] == 0 for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    return choices, usage


def _take_call(told, call):
    """A delta of tool_calls: a new call, or more of the last one's input."""
    assert call["index"] in (len(told.calls) - 1, len(told.calls)), call
    if "id" in call:
        kind = call["type"]
        _only(call, "index", "id", "type", kind)
        member = "input" if kind == "custom" else "arguments"
        _only(call[kind], "name", member)
        assert call["index"] == len(told.calls) and call[kind][member] == "", call
        told.calls.append([call["id"], call[kind]["name"], "", kind])
        return
    kind = told.calls[-1][3]
    member = "input" if kind == "custom" else "arguments"
    _only(call, "index", kind)
    _only(call[kind], member)
    assert call["index"] == len(told.calls) - 1, call
    told.calls[-1][2] += call[kind][member]


def stream_chat(pairs, body):
    told, pairs = Told(), parsed(pairs)
    _same_head(pairs, "chat.completion.chunk")
    choices, told.usage = _split_end(pairs, body)
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}, choices[0]
    stage = 0
    for choice in choices[1:-1]:
        delta = choice["delta"]
        if not delta:
            continue
        (member, value), = delta.items()
        order = ["reasoning_content", "content", "tool_calls"].index(member)
        assert order >= stage, f"{member} came late"
        stage = order
        if member == "tool_calls":
            _take_call(told, *value)
            continue
        assert value, "an empty delta"
        if member == "content":
            told.text += value
        else:
            told.reasoning += value
    assert choices[-1]["delta"] == {}, choices[-1]
    told.finish = (choices[-1]["finish_reason"], choices[-1].get("stop_reason"))
    assert told.finish[0] in ("stop", "length", "tool_calls"), told.finish
    drop_cut_call(told, "length")
    return _calls_read(told)


def _calls_read(told):
    """Arguments of functions are JSON; of custom tools they are text."""
    told.calls = [(id_, name, json.loads(text) if kind == "function" else text, kind)
                  for id_, name, text, kind in told.calls]
    return told


def whole_chat(reply):
    told = Told()
    assert reply["object"] == "chat.completion" and len(reply["choices"]) == 1, reply
    choice = reply["choices"][0]
    message = choice["message"]
    told.reasoning = message.get("reasoning_content", "")
    told.text = message["content"] or ""
    assert message["content"] is not None or message["tool_calls"], message
    assert message["content"] != "" or not message.get("tool_calls"), "should be null"
    for call in message.get("tool_calls", []):
        kind = call["type"]
        _only(call, "id", "type", kind)
        told.calls.append((call["id"], call[kind]["name"],
                           call[kind]["input" if kind == "custom" else "arguments"], kind))
    told.finish = (choice["finish_reason"], choice.get("stop_reason"))
    told.usage = reply["usage"]
    return _calls_read(told)


# ---- OpenAI's completions ---------------------------------------------------------------------

def stream_completions(pairs, body):
    told, pairs = Told(), parsed(pairs)
    _same_head(pairs, "text_completion")
    choices, told.usage = _split_end(pairs, body)
    told.text = "".join(choice["text"] for choice in choices)
    assert choices[-1]["text"] == "", choices[-1]
    told.finish = (choices[-1]["finish_reason"], choices[-1].get("stop_reason"))
    assert told.finish[0] in ("stop", "length"), told.finish
    return told


def whole_completions(reply):
    told = Told()
    assert reply["object"] == "text_completion" and len(reply["choices"]) == 1, reply
    choice = reply["choices"][0]
    told.text = choice["text"]
    told.finish = (choice["finish_reason"], choice.get("stop_reason"))
    told.usage = reply["usage"]
    return told


# ---- OpenAI's responses -----------------------------------------------------------------------

PARTS = {"message": ("output_text", "content_part", "content_index"),
         "reasoning": ("reasoning_summary_text", "reasoning_summary_part", "summary_index"),
         "raw": ("reasoning_text", "content_part", "content_index")}
INPUTS = {"function_call": ("function_call_arguments", "arguments"),
          "custom_tool_call": ("custom_tool_call_input", "input")}


class _Responses:
    def __init__(self, pairs):
        assert [data["sequence_number"] for _, data in pairs] == list(range(len(pairs)))
        assert all(data["type"] == name for name, data in pairs)
        self.pairs = pairs
        # Beats of the heart may come anywhere after the first two events.
        beats = [i for i, (name, _) in enumerate(pairs) if name == "response.in_progress" and i > 1]
        self.events = Events(pair for i, pair in enumerate(pairs) if i not in beats)
        self.items = []

    def start(self):
        created = self.events.next("response.created")["response"]
        status = created["status"]
        assert status in ("queued", "in_progress") and created["output"] == [], created
        going = self.events.next(f"response.{status}")["response"]
        assert created == going, "the response changed before anything came"
        assert status != "queued" or self.pairs[2][0] == "response.in_progress", self.pairs[2]
        assert created["object"] == "response" and created["usage"] is None, created

    def text(self, item, names):
        """A part and its pieces, to its end; what it holds."""
        text, part, index = names
        where = {"item_id": item["id"], "output_index": len(self.items), index: 0}

        def event(name):
            data = self.events.next(f"response.{name}")
            assert {key: data[key] for key in where} == where, (data, where)
            return data
        assert event(f"{part}.added")["part"]["text"] == ""
        joined = ""
        while self.events.peek()["type"] == f"response.{text}.delta":
            delta = event(f"{text}.delta")["delta"]
            assert delta, "an empty delta"
            joined += delta
        assert event(f"{text}.done")["text"] == joined
        assert event(f"{part}.done")["part"]["text"] == joined
        return joined

    def input(self, item, kind):
        name, member = INPUTS[kind]
        where = {"item_id": item["id"], "output_index": len(self.items)}
        joined = ""
        while self.events.peek()["type"] == f"response.{name}.delta":
            data = self.events.next(f"response.{name}.delta")
            assert {key: data[key] for key in where} == where, (data, where)
            assert data["delta"], "an empty delta"
            joined += data["delta"]
        if self.events.left[0][0] not in (f"response.{name}.done",):
            return None  # cut off
        data = self.events.next(f"response.{name}.done")
        assert data[member] == joined, data
        return joined

    def item(self):
        data = self.events.next("response.output_item.added")
        item = data["item"]
        kind = item["type"]
        assert data["output_index"] == len(self.items), data
        assert item.get("status") in (None, "in_progress"), item
        if kind in INPUTS:
            assert item[INPUTS[kind][1]] == "", item
            if self.input(item, kind) is None:
                return self.items.append(None)
        elif kind in ("message", "reasoning"):
            assert item["content" if kind == "message" else "summary"] == [], item
            names = PARTS["raw" if "content" in item and kind == "reasoning" else kind]
            if self.events.peek()["type"].startswith(f"response.{names[1]}.added"):
                self.text(item, names)
        done = self.events.next("response.output_item.done")
        assert done["output_index"] == len(self.items), done
        assert done["item"]["id"] == item["id"] and done["item"]["type"] == kind
        return self.items.append(done["item"])

    def end(self):
        while self.events.peek()["type"] == "response.output_item.added":
            self.item()
        name, data = self.events.left.pop(0)
        response = data["response"]
        assert name == "response." + response["status"], (name, response["status"])
        assert response["output"] == [item for item in self.items if item], "other items"
        self.events.end()
        return response


def stream_responses(pairs, _body):
    stream = _Responses(parsed(pairs))
    stream.start()
    response = stream.end()
    order = {"reasoning": 0, "message": 1}
    kinds = [item["type"] for item in response["output"]]
    assert kinds == sorted(kinds, key=lambda kind: order.get(kind, 2)), kinds
    return whole_responses(response)


def whole_responses(reply):
    told = Told()
    for item in reply["output"]:
        kind = item["type"]
        if kind == "message":
            told.text += "".join(part["text"] for part in item["content"])
        elif kind == "reasoning":
            parts = item["summary"] + item.get("content", [])
            told.reasoning += "".join(part["text"] for part in parts)
        elif kind in INPUTS:
            given = item[INPUTS[kind][1]]
            told.calls.append((item["call_id"], (item.get("namespace"), item["name"]),
                               json.loads(given) if kind == "function_call" else given, kind))
        else:
            told.calls.append((item["call_id"], kind, item.get("action", item.get("arguments"))))
    told.finish = (reply["status"], reply["incomplete_details"])
    told.usage = reply["usage"]
    return told


# ---- beats of the heart -----------------------------------------------------------------------

def _is_beat(api, i, name, data):
    if api == "messages":
        return name == "ping" and i > 1
    if api == "responses":
        return name == "response.in_progress" and i > 1
    if i == 0 or "prompt_progress" in data or len(data.get("choices", [])) != 1:
        return False
    choice = data["choices"][0]
    empty = choice.get("delta") == {} if api == "chat" else choice["text"] == ""
    return empty and choice["finish_reason"] is None


def without_beats(api, pairs, first_piece=False):
    """(how many beats there were, the stream's text with the first of them only). first_piece: and
    with the first piece of a text only, for answers that are ended at any time."""
    shown, beats, pieces, number = [], 0, 0, 0
    for i, (name, text) in enumerate(pairs):
        data = {} if text == "[DONE]" else json.loads(text)
        beat = _is_beat(api, i, name, data)
        beats += beat
        piece = bool(re.search(PIECES[api], text))
        pieces += piece
        if (beat and (beats > 1 or first_piece)) or (piece and first_piece and pieces > 1):
            continue
        text = re.sub(r'"sequence_number":\d+', f'"sequence_number":{number}', text)
        number += 1
        shown.append((f"event: {name}\n" if name else "") + f"data: {text}\n\n")
    return beats, "".join(shown)


PIECES = {"chat": r'"delta":\{"content":', "messages": '"text_delta"',
          "responses": r"output_text\.delta", "completions": '"text":"[^"]'}
STREAM = {"messages": stream_messages, "chat": stream_chat, "completions": stream_completions,
          "responses": stream_responses}
WHOLE = {"messages": whole_messages, "chat": whole_chat, "completions": whole_completions,
         "responses": whole_responses}
