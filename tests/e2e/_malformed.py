"""_malformed.py: requests that no server should answer, made from good ones.

bodies() and framings() give all of them, the same in each run; mangled() makes more by chance, of
which some may be good after all.
"""
import copy
import json

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses",
         "completions": "/v1/completions"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

# A request of each API with most of what it may have.
GOOD = {
    "chat": {
        "model": "deepseek-v4-flash", "max_tokens": 4, "temperature": 0.5, "stop": ["zz"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Go."}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function",
                 "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}],
        "tools": [{"type": "function", "function": {
            "name": "weather", "description": "Looks.", "parameters": SCHEMA}}],
        "thinking": {"type": "disabled"}},
    "messages": {
        "model": "deepseek-v4-flash", "max_tokens": 4, "temperature": 0.5,
        "system": [{"type": "text", "text": "Be brief."}], "stop_sequences": ["zz"],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Go."}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "toolu_1", "name": "weather",
                 "input": {"city": "Oslo"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain."}]}],
        "tools": [{"name": "weather", "description": "Looks.", "input_schema": SCHEMA}],
        "thinking": {"type": "disabled"}},
    "responses": {
        "model": "deepseek-v4-flash", "max_output_tokens": 4, "temperature": 0.5,
        "instructions": "Be brief.", "store": False,
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}]},
            {"type": "function_call", "call_id": "call_1", "name": "weather",
             "arguments": "{\"city\": \"Oslo\"}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "Rain."}],
        "tools": [{"type": "function", "name": "weather", "description": "Looks.",
                   "parameters": SCHEMA}],
        "reasoning": {"effort": "none"}},
    "completions": {"model": "deepseek-v4-flash", "prompt": "Go.", "max_tokens": 4,
                    "temperature": 0.5, "stop": ["zz"]},
}


class Request:
    """One that must be refused with a status of `expect`. param: the member of the body that is
    wrong; raw: all bytes of the request, else body is sent; shut: nobody waits for a reply."""

    def __init__(self, name, path, body=b"", method="POST", *, expect=(400,), param=None, raw=None,
                 shut=False):
        self.name, self.path, self.body, self.method = name, path, body, method
        self.expect, self.param, self.raw, self.shut = expect, param, raw, shut


def changed(api, way, value):
    """The good body with something else in a place: way is a list of names and indices."""
    body = copy.deepcopy(GOOD[api])
    node = body
    for step in way[:-1]:
        if isinstance(step, str) and step not in node:
            node[step] = {}
        node = node[step]
    node[way[-1]] = value
    return body


def altered(api, name, way, value):
    return Request(f"{api}: {name}", PATHS[api], changed(api, way, value), param=way[0])


def formed(api, name, way, value):
    """The same without tools: an answer of an impossible form might be a call instead."""
    request = altered(api, name, way, value)
    request.body.pop("tools", None)
    return request


def place(way):
    return ".".join(map(str, way))


# ---- wrong types ----------------------------------------------------------------------------

JUNK = {"text": "x", "real": 1.5, "true": True, "object": {"a": 1}, "list": [1], "false": False,
        "negative": -7}
BOOL, NUMBER, WHOLE = {"true", "false"}, {"real"}, set()
TEXT = {"text"}
NONE_FITS = set()

# Members that are acted on, and which of the junk is no junk to them.
SAMPLING = {"temperature": NUMBER, "top_p": NONE_FITS, "top_k": NONE_FITS, "min_p": NONE_FITS}
OPENAI = {"seed": {"real", "negative"}, "presence_penalty": NUMBER, "frequency_penalty": NUMBER,
          "logit_bias": NONE_FITS, "n": NONE_FITS, "stop": TEXT, "max_tokens": WHOLE}
MEMBERS = {
    "chat": {**SAMPLING, **OPENAI, "model": TEXT, "stream": BOOL, "messages": NONE_FITS,
             "tools": NONE_FITS, "functions": {"list"}, "tool_choice": NONE_FITS,
             "parallel_tool_calls": BOOL, "max_completion_tokens": WHOLE, "logprobs": BOOL,
             "top_logprobs": NONE_FITS, "response_format": NONE_FITS, "reasoning_effort": NONE_FITS,
             "thinking": NONE_FITS, "think": BOOL, "chat_template_kwargs": {"object"},
             "stream_options": {"object"}, "return_progress": BOOL, "grammar": NONE_FITS,
             "regex": TEXT},
    "messages": {**SAMPLING, "model": TEXT, "stream": BOOL, "messages": NONE_FITS, "system": TEXT,
                 "max_tokens": WHOLE, "stop_sequences": TEXT, "tools": NONE_FITS,
                 "tool_choice": NONE_FITS, "thinking": NONE_FITS, "output_config": {"object"},
                 "output_format": NONE_FITS},
    "responses": {"temperature": NUMBER, "top_p": NONE_FITS, "model": TEXT, "stream": BOOL,
                  "input": TEXT, "instructions": TEXT, "tools": NONE_FITS, "tool_choice": NONE_FITS,
                  "parallel_tool_calls": BOOL, "max_output_tokens": WHOLE, "store": BOOL,
                  "reasoning": {"object"}, "text": {"object"}, "include": NONE_FITS,
                  "truncation": NONE_FITS, "previous_response_id": NONE_FITS,
                  "conversation": NONE_FITS, "background": {"false"}},
    "completions": {**SAMPLING, **OPENAI, "model": TEXT, "stream": BOOL, "prompt": {"text", "list"},
                    "best_of": NONE_FITS, "logprobs": NONE_FITS, "echo": BOOL, "suffix": NONE_FITS,
                    "stream_options": {"object"}},
}

# The same for what is inside; each way begins in the good body, or is made.
INSIDE = {
    "chat": [
        (["messages", 0], set()), (["messages", 1, "role"], set()),
        (["messages", 1, "content"], TEXT), (["messages", 1, "content", 0], TEXT),
        (["messages", 1, "content", 0, "type"], TEXT),
        (["messages", 1, "content", 0, "text"], TEXT),
        (["messages", 2, "tool_calls"], set()), (["messages", 2, "tool_calls", 0], set()),
        (["messages", 2, "tool_calls", 0, "function"], set()),
        (["messages", 2, "tool_calls", 0, "function", "name"], TEXT),
        (["messages", 2, "tool_calls", 0, "function", "arguments"], {"text", "object"}),
        (["messages", 2, "reasoning_content"], TEXT), (["messages", 3, "tool_call_id"], TEXT),
        (["tools", 0], set()), (["tools", 0, "type"], set()), (["tools", 0, "function"], set()),
        (["tools", 0, "function", "name"], TEXT), (["tools", 0, "function", "description"], TEXT),
        (["tools", 0, "function", "parameters"], {"object"}),
        (["tools", 0, "function", "strict"], BOOL), (["stream_options", "include_usage"], BOOL),
        (["thinking", "type"], set()), (["chat_template_kwargs", "thinking"], BOOL),
        (["logit_bias", "5"], {"real", "negative"})],
    "messages": [
        (["messages", 0], set()), (["messages", 0, "role"], set()),
        (["messages", 0, "content"], TEXT), (["messages", 0, "content", 0], TEXT),
        (["messages", 0, "content", 0, "type"], TEXT),
        (["messages", 0, "content", 0, "text"], TEXT),
        (["messages", 1, "content", 0, "id"], TEXT), (["messages", 1, "content", 0, "name"], TEXT),
        (["messages", 1, "content", 0, "input"], {"object"}),
        (["messages", 2, "content", 0, "tool_use_id"], TEXT),
        (["messages", 2, "content", 0, "content"], TEXT), (["system", 0], TEXT),
        (["system", 0, "text"], TEXT), (["tools", 0], set()), (["tools", 0, "name"], TEXT),
        (["tools", 0, "description"], TEXT), (["tools", 0, "input_schema"], {"object"}),
        (["tool_choice", "type"], set()), (["thinking", "type"], set()),
        (["thinking", "budget_tokens"], set()), (["output_config", "effort"], set()),
        (["output_config", "format"], set())],
    "responses": [
        (["input", 0], set()), (["input", 0, "role"], set()), (["input", 0, "content"], TEXT),
        (["input", 0, "content", 0], TEXT), (["input", 0, "content", 0, "type"], TEXT),
        (["input", 0, "content", 0, "text"], TEXT), (["input", 1, "call_id"], set()),
        (["input", 1, "name"], TEXT), (["input", 1, "arguments"], {"text", "object"}),
        (["input", 2, "call_id"], set()), (["input", 2, "output"], TEXT), (["tools", 0], set()),
        (["tools", 0, "type"], TEXT), (["tools", 0, "name"], TEXT),
        (["tools", 0, "description"], TEXT), (["tools", 0, "parameters"], {"object"}),
        (["reasoning", "effort"], set()), (["reasoning", "summary"], set()),
        (["text", "format"], set()), (["text", "format", "type"], set())],
    "completions": [(["logit_bias", "5"], {"real", "negative"}), (["stop", 0], TEXT),
                    (["stream_options", "include_usage"], BOOL)],
}


def wrong_types():
    places = [(api, [name], fits) for api in PATHS for name, fits in MEMBERS[api].items()]
    places += [(api, way, fits) for api in PATHS for way, fits in INSIDE[api]]
    return [altered(api, f"{place(way)} is {kind}", way, junk) for api, way, fits in places
            for kind, junk in JUNK.items() if kind not in fits]


# ---- broken text ------------------------------------------------------------------------------

def truncated():
    found = []
    for api, good in GOOD.items():
        text = json.dumps(good).encode()
        for i in range(24):
            at = len(text) * i // 24
            found.append(Request(f"{api}: cut at byte {at}", PATHS[api], text[:at]))
    return found


def broken_text():
    texts = {
        "no object": b'"x"', "a list": b"[]", "a number": b"5", "null": b"null", "NaN": b"NaN",
        "two documents": b"{} {}", "rest": b'{"model": "m"} x', "comma": b'{"a": 1,}',
        "comment": b"/* a */ {}", "single quotes": b"{'a': 1}", "bare name": b"{a: 1}",
        "bad escape": b'{"model": "\\x41"}', "bad unicode": b'{"model": "\\u12g4"}',
        "line break in text": b'{"model": "a\nb", "messages": 5}', "zero byte": b"{\x00}",
        "infinity": b'{"temperature": Infinity}', "minus": b'{"temperature": -}',
        "two points": b'{"temperature": 1.2.3}', "leading plus": b'{"temperature": +1}',
        "lists in lists": b"[" * 129 + b"]" * 129, "endless lists": b"[" * 100000,
        "endless objects": b'{"a":' * 100000, "deep": b'{"a":' * 129 + b"1" + b"}" * 129,
        "form": b"model=x&messages=y", "xml": b"<messages/>", "gzip": b"\x1f\x8b\x08\x00\x00\x00",
        "byte order mark": b"\xff\xfe{\x00}\x00", "invalid bytes": b"\xc3\x28\xa0\xa1",
        "colons": b'{"a"::1}', "unclosed text": b'{"a": "b}', "true in capitals": b'{"a": True}'}
    return [Request(f"{api}: {name}", path, text) for api, path in PATHS.items()
            for name, text in texts.items()]


# ---- values that cannot be --------------------------------------------------------------------

def numbers():
    """Of the right type, and out of all bounds. max_tokens may be as large as it likes."""
    bounds = {"temperature": [-0.1, 2.1, "1e999", "-1e999", "1e400"], "top_p": [-0.1, 1.1, "1e999"],
              "max_tokens": [0, -2, 0.5, "-1e30", "1e-7"],
              "n": [0, 2, -1, "99999999999999999999", "1e30"], "top_k": [-2, "1e30", 1.5],
              "min_p": [-1, 2, "1e999"], "presence_penalty": [-3, 3], "frequency_penalty": [-3, 3],
              "top_logprobs": [21, -1, "1e10"], "logprobs": [6, -1, "1e10"], "best_of": [0, 2]}
    names = {"chat": ["temperature", "top_p", "max_tokens", "n", "top_k", "min_p",
                      "presence_penalty", "frequency_penalty", "top_logprobs"],
             "messages": ["temperature", "top_p", "max_tokens", "top_k"],
             "responses": ["temperature", "top_p", "top_logprobs"],
             "completions": ["temperature", "top_p", "max_tokens", "n", "top_k", "min_p",
                             "presence_penalty", "frequency_penalty", "logprobs", "best_of"]}
    found = []
    for api in PATHS:
        for name in names[api]:
            for value in bounds[name]:
                more = {"logprobs": True} if name == "top_logprobs" and api == "chat" else {}
                text = json.dumps({**GOOD[api], **more, name: "@"}).replace('"@"', str(value))
                found.append(Request(f"{api}: {name} is {value}", PATHS[api], text.encode()))
    return found


def roles_and_parts():
    found = []
    strange = ["king", "", "User", "user\u0000", "\u0000", "assistant ", "us\ud83der"]
    for api, way in (("chat", ["messages", 1, "role"]), ("messages", ["messages", 0, "role"]),
                     ("responses", ["input", 0, "role"])):
        found += [altered(api, f"role {ascii(role)}", way, role) for role in strange]
        found.append(altered(api, "no messages", way[:1], []))
    invalid = json.dumps(GOOD["chat"]).encode().replace(b'"user"', b'"us\xffer"')
    found.append(Request("chat: invalid bytes in a role", PATHS["chat"], invalid))
    parts = [{}, {"text": "a"}, {"type": None}, {"type": "text", "text": 5},
             {"type": "text", "text": ["a"]}, {"type": ["text"]}, 5, None, True, ["a"]]
    for api, way in (("chat", ["messages", 1, "content"]), ("messages", ["messages", 0, "content"]),
                     ("responses", ["input", 0, "content"])):
        found += [altered(api, f"part {part}", way, [part]) for part in parts]
    nested = "Go."
    for _ in range(8):
        nested = [{"type": "search_result", "content": nested}]
    found.append(altered("messages", "content in content", ["messages", 0, "content"], nested))
    return found


def tools():
    """Tools, calls of them, and choices of them."""
    where = {"chat": (["tools", 0, "function", "name"], ["tools", 0, "function", "parameters"]),
             "messages": (["tools", 0, "name"], ["tools", 0, "input_schema"]),
             "responses": (["tools", 0, "name"], ["tools", 0, "parameters"])}
    names = ["", " ", "a b", "a\"b", "<a>", "a\n", "\u0000", "x" * 300]
    found = []
    for api, (name_way, _) in where.items():
        found += [altered(api, f"tool {ascii(name)[:20]}", name_way, name) for name in names]
        found.append(altered(api, "twice the same tool", ["tools"], 2 * GOOD[api]["tools"]))
        found.append(altered(api, "too many tools", ["tools"], 2049 * GOOD[api]["tools"]))
    choices = {
        "chat": ["nobody", {"type": "function", "function": {"name": "nobody"}}, {},
                 {"type": "function"}, {"type": "allowed_tools"},
                 {"type": "allowed_tools", "allowed_tools": {"tools": []}},
                 {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                     {"type": "function", "function": {"name": "nobody"}}]}}],
        "messages": ["auto", {"type": "nobody"}, {"type": "tool"}, {},
                     {"type": "tool", "name": "nobody"}],
        "responses": ["nobody", {"type": "function", "name": "nobody"}, {}, {"type": "function"},
                      {"type": "web_search"}, {"type": "allowed_tools", "tools": []},
                      {"type": "allowed_tools", "mode": "auto", "tools": [
                          {"type": "function", "name": "nobody"}]}]}
    for api, values in choices.items():
        found += [altered(api, f"tool_choice {value}", ["tool_choice"], value) for value in values]
        body = changed(api, ["tool_choice"], {"type": "any"} if api == "messages" else "required")
        del body["tools"]
        found.append(Request(f"{api}: a call of no tools", PATHS[api], body))
    return found + custom_tools()


BROKEN_LARK = ["", "start", "start: a", "start: \"a", "start: ( \"a\"", "a: \"b\"",
               "start: \"a\"\nstart: \"b\"", "start: A\nA: /[/", "start: A\nA: /(/", "start: |*",
               "%import nothing.X\nstart: X", "start: \"a\"~9999999999", "start: start \"a\"",
               "start: b\nb: start", "start: \"\\", "start: A\nA: A"]
BROKEN_REGEX = ["(", ")", "[", "[b-a]", "a{2,1}", "*a", "a**", "\\", "(?=a)", "(?<!a)b", "\\1",
                "a{99999999999}", "(a{1000}){1000}", "(((((a{20}){20}){20}){20}){20}){20}",
                "[[:nothing:]]", "\\p{Nothing}", "(?P<a", "\\u12", "(?#"]


def custom_tools():
    found = []
    for api in "chat", "responses":
        for syntax, texts in ("lark", BROKEN_LARK), ("regex", BROKEN_REGEX):
            for text in texts:
                inner = {"syntax": syntax, "definition": text}
                given = {"name": "patch", "format": {"type": "grammar", **(
                    {"grammar": inner} if api == "chat" else inner)}}
                tool = {"type": "custom", **({"custom": given} if api == "chat" else given)}
                found.append(altered(api, f"tool of {syntax} {text[:30]!r}", ["tools"], [tool]))
        for form in {"type": "nothing"}, {"type": "grammar"}, {}, \
                {"type": "grammar", "syntax": "abnf", "definition": "a"}:
            given = {"name": "patch", "format": form}
            tool = {"type": "custom", **({"custom": given} if api == "chat" else given)}
            found.append(altered(api, f"tool of form {form}", ["tools"], [tool]))
    for text in BROKEN_REGEX:
        found.append(formed("chat", f"regex {text[:30]!r}", ["regex"], text))
        found.append(formed("completions", f"regex {text[:30]!r}", ["regex"], text))
    for text in BROKEN_LARK[1:]:
        found.append(formed("chat", f"lark {text[:30]!r}", ["grammar"], text))
    return found


BROKEN_SCHEMAS = [
    {"type": "nothing"}, {"type": 5}, {"type": []}, {"$ref": "#/nowhere"}, {"$ref": "http://a/b"},
    {"$ref": "#"}, {"not": {"type": "null"}}, {"if": {}, "then": {}}, {"enum": []}, {"enum": 5},
    {"const": 1, "type": "string"}, {"anyOf": []}, {"anyOf": 5}, {"oneOf": [5]}, {"allOf": 5},
    {"type": "string", "pattern": "("}, {"type": "string", "pattern": 5},
    {"type": "string", "minLength": 5, "maxLength": 2}, {"type": "string", "minLength": -1},
    {"type": "integer", "minimum": 5, "maximum": 2},
    {"type": "integer", "minimum": "a"}, {"type": "array", "items": 5},
    {"type": "array", "minItems": 5, "maxItems": 2}, {"type": "array", "minItems": -1},
    {"type": "object", "properties": 5}, {"type": "object", "properties": {"a": 5}},
    {"type": "object", "required": 5}, {"type": "object", "required": [5]},
    {"type": "object", "additionalProperties": 5}, {"$defs": 5, "$ref": "#/$defs/a"},
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"type": "array", "uniqueItems": True}, {"type": "array", "contains": {}},
    {"type": "object", "dependentRequired": {"a": ["b"]}}]


def schemas():
    ways = {"chat": ["response_format"], "messages": ["output_config", "format"],
            "responses": ["text", "format"]}
    found = []
    for api, way in ways.items():
        for schema in [5, "x", None, [], *BROKEN_SCHEMAS]:
            value = {"type": "json_schema", **(
                {"json_schema": {"name": "a", "schema": schema}} if api == "chat"
                else {"name": "a", "schema": schema})}
            found.append(formed(api, f"schema {schema}", way, value))
        found += [altered(api, f"form {value}", way, value)
                  for value in ({"type": "xml"}, {}, {"type": "json_schema"}, {"type": None})]
    return found


def of_one_api():
    """What only one API has."""
    chat, messages, responses, completions = PATHS
    bias = {str(i): 1 for i in range(301)}
    found = [altered(chat, f"logit_bias {str(value)[:30]}", ["logit_bias"], value)
             for value in ({"a": 1}, {"-1": 1}, {"": 1}, {"1.5": 1}, {"5": 101}, {"5": -101},
                           {"99999999999999": 1}, bias)]
    found += [altered(chat, f"{len(value)} stops", ["stop"], value) for value in (["a"] * 17, [1])]
    found += [altered(chat, "top_logprobs alone", ["top_logprobs"], 2),
              altered(chat, "unknown tool type", ["tools", 0, "type"], "web_search"),
              altered(chat, "nameless call", ["messages", 2, "tool_calls", 0, "function"], {}),
              altered(messages, "result of nothing", ["messages", 2, "content", 0],
                      {"type": "tool_result", "content": "a"}),
              altered(messages, "call without id", ["messages", 1, "content", 0],
                      {"type": "tool_use", "name": "weather", "input": {}}),
              altered(messages, "no content", ["messages", 0], {"role": "user"}),
              altered(messages, "unknown thinking", ["thinking"], {"type": "deep"}),
              altered(messages, "unknown effort", ["output_config"], {"effort": "huge"}),
              altered(messages, "reference to nothing", ["messages", 2, "content", 0, "content"],
                      [{"type": "tool_reference"}])]
    found += [altered(responses, f"{name} {value!r}"[:60], [name], value) for name, value in (
        ("conversation", "conv_1"), ("prompt", {"id": "p"}), ("background", True),
        ("truncation", "middle"), ("include", [5]), ("include", ["message.output_text.logprobs"]),
        ("previous_response_id", "resp_nobody"), ("input", []), ("input", None),
        ("input", [{"id": "msg_nobody"}]), ("input", [{"type": "item_reference", "id": "x"}]),
        ("input", [{"type": "compaction_trigger"}]), ("reasoning", {"effort": "huge"}),
        ("reasoning", {"summary": "long"}), ("tools", [{"name": "a"}]),
        ("tools", [{"type": "namespace"}]),
        ("tools", [{"type": "namespace", "name": "a", "tools": [
            {"type": "namespace", "name": "b", "tools": []}]}]),
        ("input", [{"type": "function_call_output", "call_id": "call_nobody", "output": "a"}]),
        ("input", [{"type": "function_call", "call_id": "call_1"}]),
        ("input", [{"type": "local_shell_call", "call_id": "a"}]))]
    found += [altered(completions, f"{name} {value!r}"[:60], [name], value) for name, value in (
        ("prompt", ["a", "b"]), ("prompt", []), ("prompt", [1.5]), ("prompt", [-1]),
        ("prompt", [1, "a"]), ("prompt", [99999999]), ("prompt", {"a": 1}), ("prompt", None),
        ("prompt", [[1], [2]]), ("suffix", "end"), ("stop", ["a"] * 17), ("logit_bias", bias))]
    found.append(Request("completions: echo of tokens", PATHS[completions],
                         {"prompt": [1, 2], "echo": True}))
    for path, good in (("/tokenize", {"content": "a"}), ("/detokenize", {"tokens": [1]})):
        name, = good
        found += [Request(f"{path}: {value!r}", path, {name: value})
                  for value in (None, 5, {"a": 1}, [99999999], [-1], ["a"], True)]
        found += [Request(f"{path}: {text!r}", path, text) for text in (b"", b"[]", b"{", b"5")]
    counts = {"/v1/messages/count_tokens": messages, "/v1/chat/completions/input_tokens": chat,
              "/v1/responses/input_tokens": responses}
    for path, api in counts.items():
        found += [Request(f"{path}: {text!r}", path, text) for text in (b"", b"{", b"[]", b"{}")]
        found.append(Request(f"{path}: tools", path, changed(api, ["tools"], 5)))
    return found


def bodies():
    return [*truncated(), *broken_text(), *wrong_types(), *numbers(), *roles_and_parts(), *tools(),
            *schemas(), *of_one_api()]


# ---- paths, methods, framing ------------------------------------------------------------------

def paths():
    found = []
    for path in PATHS.values():
        found += [Request(f"{method} {path}", path, method=method, expect=(405,))
                  for method in ("GET", "PUT", "DELETE", "PATCH", "FOO", "get", "POSTS")]
    for path in ("/v1/nowhere", "/v2/messages", "/v1/chat", "/v1/messages/a/b", "/v1//messages",
                 "/v1/chat/completions/x", "/V1/messages", "/v1/../v1/messages", "/%76%31/messages",
                 "/v1/messages;a=b", "/v1/responses/a/cancel", "/v1/requests/nobody", "/.env",
                 "/etc/passwd", "/v1/v1/messages", "/messages/count", "/x" * 2000):
        method = "DELETE" if "requests" in path else "POST"
        found.append(Request(f"{method} {path[:40]}", path, b"{}", method, expect=(404,)))
    found += [Request(f"GET {path}", path, method="GET", expect=(404,))
              for path in ("/v1/responses/nobody", "/x", "/v1/codex")]
    found.append(Request("POST /v1/embeddings", "/v1/embeddings", {"input": "a"}, expect=(501,)))
    found += [Request(f"POST {path}", path, b"{}", expect=(405,))
              for path in ("/health", "/metrics", "/status", "/v1/models", "/v1/models/a", "/props",
                           "/api/version", "/")]
    return found


def framings():
    """Bytes that are no request of HTTP/1.1, or not one that is taken: 400 and the end."""
    body = json.dumps(GOOD["chat"]).encode()
    length = f"Content-Length: {len(body)}"
    chunked = "Transfer-Encoding: chunked"
    found = []

    def add(name, *lines, body=b"", expect=(400,), first=None, shut=False):
        first = first or "POST /v1/chat/completions HTTP/1.1"
        raw = "\r\n".join([first, *lines, "", ""]).encode("latin-1") + body
        found.append(Request(f"framing: {name}", "/v1/chat/completions", raw=raw, expect=expect,
                             shut=shut))

    host = "Host: 127.0.0.1"
    for value in ("abc", "-1", "+5", "5, 5", "5,6", "0x10", "1e3", " ", "5 5", "1.0", "\u00b2",
                  "5;", "99999999999999999999"):
        add(f"length {value!r}", host, f"Content-Length: {value}", body=body)
    add("two lengths", host, length, length, body=body)
    add("two other lengths", host, length, "Content-Length: 1", body=body)
    add("length and chunks", host, length, chunked, body=body)
    add("too large", host, "Content-Length: 999999999999", expect=(413,))
    for coding in ("gzip", "chunked, chunked", "identity", "gzip, chunked", "chunked;a=b", "x"):
        add(f"coding {coding!r}", host, f"Transfer-Encoding: {coding}", body=b"0\r\n\r\n")
    add("two codings", host, chunked, chunked, body=b"0\r\n\r\n")
    for size in (b"xyz", b"-1", b"", b" 5", b"0x5", b"5 5", b"fffffffffffffffff", b"+5", b"g",
                 b"5\n", b"\r", b"5;" + b"a" * 300):
        add(f"chunk size {size[:12]!r}", host, chunked, body=size + b"\r\nhello\r\n0\r\n\r\n")
    add("huge chunk", host, chunked, body=b"fffffffff\r\nhello\r\n0\r\n\r\n", expect=(413,))
    add("longer chunk", host, chunked, body=b"3\r\nhello\r\n0\r\n\r\n")
    add("chunk without an end", host, chunked, body=b"5\r\nhello0\r\n\r\n")
    add("bad trailer", host, chunked, body=b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n")
    add("no host", length, body=body)
    add("two hosts", host, host, length, body=body)
    for name in ("evil.example", "", "127.0.0.1:abc", "a b", "[::1", "127.0.0.1@evil.example",
                 "127.0.0.1.evil.example"):
        add(f"host {name!r}", f"Host: {name}", length, body=body, expect=(400, 403, 421))
    for line in ("no colon", ": no name", "na me: x", "name : x", "na\x00me: x", "name: a\x00b",
                 "name: a\x0bb", "name: a\rb", "na\u00e9me: x", " folded: x", "\tfolded: x",
                 "(x): y", "name: a\x7fb"):
        add(f"field {line!r}", host, line, length, body=body)
    add("101 fields", host, *[f"x-{i}: a" for i in range(101)], expect=(431,))
    add("long field", host, "x-long: " + "a" * 70000, expect=(431,))
    add("many long fields", host, *[f"x-{i}: " + "a" * 2000 for i in range(40)], expect=(431,))
    add("long name", host, "a" * 70000 + ": a", expect=(431,))
    add("long line", host, first="GET /" + "a" * 9000 + " HTTP/1.1", expect=(414,))
    for expectation in ("200-ok", "nothing"):
        add(f"expects {expectation}", host, f"Expect: {expectation}", expect=(417,))
    for first in ("POST", "POST /", "POST / HTTP/1.1 x", "POST  / HTTP/1.1", " POST / HTTP/1.1",
                  "POST / http/1.1", "POST / HTTP/1", "POST /\tHTTP/1.1", "P\u00d6ST / HTTP/1.1",
                  "POST http://127.0.0.1/ HTTP/1.1", "POST * HTTP/1.1", "POST x HTTP/1.1",
                  "POST /a#b HTTP/1.1", "POST /\u00e9 HTTP/1.1", "CONNECT a:80 HTTP/1.1",
                  "\x16\x03\x01", "POST /\x00 HTTP/1.1", "A" * 40 + " / HTTP/1.1",
                  "HTTP/1.1 200 OK"):
        add(f"first line {first[:30]!r}", host, first=first)
    # The one class of status for which 5xx is right: another version of HTTP (RFC 9110, 15.6.6).
    for version in ("1.0", "2.0", "0.9", "3.0"):
        add(f"HTTP/{version}", host, first=f"GET / HTTP/{version}", expect=(505,))
    found.append(Request("framing: LF only", "/", raw=b"GET / HTTP/1.1\nHost: 127.0.0.1\n\n"))
    found.append(Request("framing: blank lines", "/", raw=b"\r\n" * 40))
    found.append(Request("framing: TLS", "/", raw=bytes.fromhex("16030100c8010000c40303")))
    found.append(Request("framing: HTTP/2", "/", raw=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                         expect=(400, 505)))
    # Half a request, and nothing more: there is nobody to tell.
    add("half a head", host, "x: ", shut=True, expect=())
    found[-1].raw = found[-1].raw[:-6]
    add("half a body", host, length, body=body[:50], shut=True, expect=())
    add("half a chunk", host, chunked, body=b"50\r\nhello", shut=True, expect=())
    return found


# ---- by chance ----------------------------------------------------------------------------------

def _nodes(value, way=()):
    """The ways to everything in a body."""
    found = [list(way)] if way else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()
    for key, one in pairs:
        found += _nodes(one, (*way, key))
    return found


def mangled(chance):
    """A good body of which something was changed: it may be good still."""
    api = chance.choice(list(PATHS))
    if chance.random() < 0.4:
        text = bytearray(json.dumps(GOOD[api]).encode())
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            text[at:at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        return Request(f"{api}: bytes changed", PATHS[api], bytes(text))
    values = [*JUNK.values(), None, "", [], {}, 0, "\ud83d", "\u0000", "x" * 5000, 1e308,
              [[[[]]]], {"type": "text"}, {"role": "user", "content": "a"}, 10 ** 30]
    body = GOOD[api]
    for _ in range(chance.randint(1, 3)):
        way = chance.choice(_nodes(body))
        body = copy.deepcopy(body)
        node = body
        for step in way[:-1]:
            node = node[step]
        if chance.random() < 0.2:
            del node[way[-1]]
        else:
            node[way[-1]] = chance.choice(values)
    return Request(f"{api}: values changed", PATHS[api], json.dumps(body).encode())
