"""_scenarios.py: the answers that serve_golden.py asks for: what the model is played to say, and
the request of each API that has it said.

A scenario's request carries a key, "[chat.text/0s]": its name, how the answer is cut into tokens,
and whether it is streamed. It is the first text of the prompt, so that no prompt begins as another
one did and is reused. The texts are short: fewer events than the server's queue joins texts from.
"""
import copy

DSML = "<｜DSML｜"
END = "</｜DSML｜"
MODEL = "deepseek-v4-flash"

THOUGHT = "Hm… \"é\"\n<b> 🦊"
TEXT = "Grüße: \"1 < 2\"\n</b> 🦊"
NEAR = "a < b, </ <｜DSM> <tool_calls> é<"
SUMMARY = {"reasoning": {"summary": "auto"}}
NO_THINKING = {"chat": {"thinking": {"type": "disabled"}},
               "messages": {"thinking": {"type": "disabled"}},
               "responses": {"reasoning": {"effort": "none"}}}


def call(name, **parameters):
    """A call as the model writes it: strings as they are, (text,) for what is JSON. One without
    parameters has an empty line in their place."""
    lines = [f"{DSML}invoke name=\"{name}\">\n"]
    for key, value in parameters.items():
        is_text = isinstance(value, str)
        lines.append(f"{DSML}parameter name=\"{key}\" string=\"{str(is_text).lower()}\">"
                     f"{value if is_text else value[0]}{END}parameter>\n")
    return "".join(lines if parameters else [*lines, "\n"]) + f"{END}invoke>\n"


def calls(*all_calls):
    return f"\n\n{DSML}tool_calls>\n" + "".join(all_calls) + f"{END}tool_calls>"


# ---- tools --------------------------------------------------------------------------------------

WEATHER = ("weather", {"type": "object", "properties": {
    "city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]})
CLOCK = ("clock", {"type": "object", "properties": {}})
GRAMMAR = 'start: "go " WORD\nWORD: /[a-zé]+/\n'
ANSWER = {"type": "object", "properties": {"town": {"type": "string"}, "n": {"type": "integer"}},
          "required": ["town", "n"], "additionalProperties": False}


def functions(api, *tools):
    """Functions as an API declares them."""
    form = {"chat": lambda name, schema: {"type": "function", "function": {
                "name": name, "parameters": schema}},
            "messages": lambda name, schema: {"name": name, "input_schema": schema},
            "responses": lambda name, schema: {"type": "function", "name": name,
                                               "parameters": schema}}[api]
    return {"tools": [form(*tool) for tool in tools or (WEATHER, CLOCK)]}


def custom(api, grammar=None):
    given = {"name": "patch"}
    if grammar:
        inner = {"syntax": "lark", "definition": grammar}
        given["format"] = {"type": "grammar", **({"grammar": inner} if api == "chat" else inner)}
    return {"tools": [{"type": "custom", **({"custom": given} if api == "chat" else given)}]}


# ---- second turns -------------------------------------------------------------------------------

def chat_continued(body, reply):
    said = reply["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "Regen"}
    return {"messages": [*body["messages"], said, result]}


def messages_continued(body, reply):
    result = {"type": "tool_result", "tool_use_id": reply["content"][-1]["id"], "content": "Regen"}
    return {"messages": [*body["messages"], {"role": "assistant", "content": reply["content"]},
                         {"role": "user", "content": [result]}]}


def responses_continued(_body, reply):
    result = {"type": "function_call_output", "call_id": reply["output"][-1]["call_id"],
              "output": "Regen"}
    return {"previous_response_id": reply["id"], "input": [result]}


CONTINUED = {"chat": chat_continued, "messages": messages_continued,
             "responses": responses_continued}


# ---- scenarios ----------------------------------------------------------------------------------

class Scenario:
    """One answer. limited: what ends it depends on how it is cut into tokens. follows: by API, what
    makes (request, reply) of an answer before into members of the request for this one. room:
    tokens that the context has left. stream: it is short enough to be streamed."""

    def __init__(self, name, say, more=None, *, headers=(), limited=False, follows=None,
                 room=0, stream=True):
        self.name, self.api = name, name.partition(".")[0]
        self.say, self.more, self.headers = say, more or {}, list(headers)
        self.limited, self.follows = limited, follows and follows[self.api]
        self.room, self.stream = room, stream

    def path(self):
        return {"chat": "/v1/chat/completions", "messages": "/v1/messages",
                "responses": "/v1/responses", "completions": "/v1/completions"}[self.api]

    def key(self, cut, stream):
        return f"[{self.name}/{cut}{'s' if stream else 'w'}]"

    def body(self, cut, stream, filler=""):
        """The request: of the API's plainest form, and what the scenario adds to it."""
        key = self.key(cut, stream) + filler
        body = {"model": MODEL, "stream": stream}
        if self.api == "chat":
            body["messages"] = [{"role": "system", "content": key},
                                {"role": "user", "content": "Go."}]
        elif self.api == "messages":
            body.update(max_tokens=500, system=key, messages=[{"role": "user", "content": "Go."}])
        elif self.api == "responses":
            body.update(instructions=key, input="Go.")
        else:
            body.update(prompt=f"{key}Go.", max_tokens=200)
        body.update(copy.deepcopy(self.more))
        return body

    def rules(self, cut):
        """What is said to it: `say` is the answer, or those of each turn in turn."""
        say = self.say if isinstance(self.say, list) else [self.say]
        return [{"when": [f"[{self.name}/{cut}{mode}]"], "say": one, "cut": cut,
                 "times": 1 if i + 1 < len(say) else 0}
                for mode in "sw" for i, one in enumerate(say)]


def of_chat_apis(name, say, *more, **options):
    """The same scenario of the three APIs that chat. more: members for all, or by API."""
    found = []
    for api in "chat", "messages", "responses":
        members = {}
        for one in more:
            members.update(one(api) if callable(one) else one.get(api, {}))
        found.append(Scenario(f"{api}.{name}", say, members, **options))
    return found


def limit(n):
    return lambda api: {"max_output_tokens" if api == "responses" else "max_tokens": n}


def stop(*strings):
    return {"chat": {"stop": list(strings)}, "messages": {"stop_sequences": list(strings)}}


CHOICES = {
    "choice_none": {"chat": {"tool_choice": "none"}, "messages": {"tool_choice": {"type": "none"}},
                    "responses": {"tool_choice": "none"}},
    "choice_required": {"chat": {"tool_choice": "required"},
                        "messages": {"tool_choice": {"type": "any"}},
                        "responses": {"tool_choice": "required"}},
    "choice_named": {"chat": {"tool_choice": {"type": "function", "function": {"name": "clock"}}},
                     "messages": {"tool_choice": {"type": "tool", "name": "clock"}},
                     "responses": {"tool_choice": {"type": "function", "name": "clock"}}},
    "parallel_off": {"chat": {"parallel_tool_calls": False},
                     "messages": {"tool_choice": {"type": "auto",
                                                  "disable_parallel_tool_use": True}},
                     "responses": {"parallel_tool_calls": False}},
}
SCHEMA = {
    "chat": {"response_format": {"type": "json_schema",
                                 "json_schema": {"name": "answer", "schema": ANSWER}}},
    "messages": {"output_config": {"format": {"type": "json_schema", "schema": ANSWER}}},
    "responses": {"text": {"format": {"type": "json_schema", "name": "answer", "schema": ANSWER}}},
}
ZURICH = call("weather", city="Zürich \"<\"\n</b>", days=("3",))
OSLO = call("weather", city="Oslo")
TIME = call("clock")
PATCH = call("patch", input="*** é\n</x> <")


def common():
    """What the three APIs that chat have in common."""
    thinks = f"{THOUGHT}</think>"
    return [
        *of_chat_apis("thinking_text", f"{thinks}{TEXT}"),
        *of_chat_apis("text", TEXT, NO_THINKING),
        *of_chat_apis("near_markup", NEAR, NO_THINKING, functions),
        *of_chat_apis("thinking_only", thinks),
        *of_chat_apis("one_call", f"Hm.</think>{calls(ZURICH)}", functions),
        *of_chat_apis("two_calls", f"Hm.</think>{calls(OSLO, TIME)}", functions),
        *of_chat_apis("no_arguments", calls(TIME), NO_THINKING, functions),
        *of_chat_apis("text_call", f"Hm.</think>Ich sehe nach …{calls(OSLO)}", functions),
        *of_chat_apis("length_thinking", f"{THOUGHT} {THOUGHT}</think>{TEXT}", limit(9),
                      limited=True),
        *of_chat_apis("length_text", f"{TEXT} {TEXT}", NO_THINKING, limit(9), limited=True),
        *of_chat_apis("length_character", "aé", NO_THINKING, limit(2), limited=True),
        *of_chat_apis("length_opening", f"Ja.{calls(OSLO)}", NO_THINKING, functions, limit(20),
                      limited=True),
        *of_chat_apis("length_call", f"Ja.{calls(ZURICH)}", NO_THINKING, functions, limit(50),
                      limited=True),
        *of_chat_apis("length_second", f"{calls(TIME, ZURICH)}", NO_THINKING, functions,
                      limit(60), limited=True),
        *of_chat_apis("context", f"{TEXT} {TEXT}", NO_THINKING, limited=True, room=9),
        *of_chat_apis("choice_none", f"{TEXT}", NO_THINKING, functions, CHOICES["choice_none"]),
        *of_chat_apis("choice_required", calls(OSLO), NO_THINKING, functions,
                      CHOICES["choice_required"]),
        *of_chat_apis("choice_named", calls(TIME), NO_THINKING, functions,
                      CHOICES["choice_named"]),
        *of_chat_apis("parallel_off", calls(OSLO, TIME), NO_THINKING, functions,
                      CHOICES["parallel_off"]),
        *of_chat_apis("continued", [f"Hm.</think>{calls(OSLO)}", "Ah.</think>Es regnet: é."],
                      functions, follows=CONTINUED),
        *of_chat_apis("json_schema", '{"town": "Zü\\"r<ich", "n": 3}', NO_THINKING, SCHEMA),
    ]


def of_messages():
    hidden = {"thinking": {"type": "adaptive", "display": "omitted"}}
    beta = [("anthropic-beta", "model-context-window-exceeded-2025-08-26")]
    off = NO_THINKING["messages"]
    return [
        Scenario("messages.hidden", f"{THOUGHT}</think>{TEXT}", hidden),
        Scenario("messages.hidden_only", f"{THOUGHT}</think>", hidden),
        Scenario("messages.stop", "Eins… zwei, drei", {**off, **stop("zwei", "nie")["messages"]}),
        Scenario("messages.context_beta", f"{TEXT} {TEXT}", off, headers=beta, limited=True,
                 room=9),
        Scenario("messages.edits", "Ja.", {**off, "context_management": {
            "edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}),
        Scenario("messages.prefill", "zwei.", {**off, "messages": [
            {"role": "user", "content": "Go."}, {"role": "assistant", "content": "Eins,"}]}),
        Scenario("messages.empty", "", off),
        Scenario("messages.budget", "Eins zwei drei.\nVier fünf sechs.</think>Ja.",
                 {"thinking": {"type": "enabled", "budget_tokens": 4}}, limited=True),
    ]


def of_chat():
    off = NO_THINKING["chat"]
    usage = {"stream_options": {"include_usage": True}}
    return [
        Scenario("chat.stop", "Eins… zwei, drei", {**off, **stop("zwei", "nie")["chat"]}),
        Scenario("chat.usage", f"{THOUGHT}</think>{TEXT}", usage),
        Scenario("chat.custom", f"Hm.</think>{calls(PATCH)}",
                 custom("chat")),
        Scenario("chat.custom_grammar", calls(call("patch", input="go né")),
                 {**off, **custom("chat", GRAMMAR)}),
        Scenario("chat.json_object", '{"é": [1, "<"]}',
                 {**off, "response_format": {"type": "json_object"}}),
        Scenario("chat.logprobs", "Ja, 1 é.", {**off, "logprobs": True, "top_logprobs": 2}),
        Scenario("chat.logprobs_thinking", "Hm.</think>Ja.", {"logprobs": True}),
        Scenario("chat.progress", "Ja.", {**off, "return_progress": True}),
        Scenario("chat.empty", "", off),
        Scenario("chat.grammar", "go né", {**off, "grammar": GRAMMAR}),
        Scenario("chat.regex", "aé-aé", {**off, "regex": "(aé-?)+"}),
        Scenario("chat.loop", "Ja ja. " * 400, off, stream=False),
    ]


def of_responses():
    off = NO_THINKING["responses"]
    encrypted = {"include": ["reasoning.encrypted_content"], "store": False}
    namespace = {"tools": [{"type": "namespace", "name": "geo", "description": "Places",
                            "tools": functions("responses", CLOCK)["tools"]}]}
    shell = call("local_shell", command=('["ls", "é"]',))
    search = {"tools": [{"type": "tool_search", "execution": "client", "description": "Finds.",
                         "parameters": {"type": "object",
                                        "properties": {"query": {"type": "string"}}}}]}
    asked = {"reasoning": {"summary": "auto"}}
    return [
        Scenario("responses.summary", f"{THOUGHT}</think>{TEXT}", asked),
        Scenario("responses.summary_call", f"{THOUGHT}</think>{calls(TIME)}",
                 {**asked, **functions("responses")}),
        Scenario("responses.encrypted", "Hm.</think>Ja.", encrypted),
        Scenario("responses.summary_encrypted", "Hm.</think>Ja.", {**asked, **encrypted}),
        Scenario("responses.raw_reasoning", f"{THOUGHT}</think>Ja.",
                 {"include_raw_reasoning": True}),
        Scenario("responses.summary_length", f"{THOUGHT} {THOUGHT}</think>Ja.",
                 {**asked, "max_output_tokens": 9}, limited=True),
        Scenario("responses.custom", f"Hm.</think>{calls(PATCH)}",
                 custom("responses")),
        Scenario("responses.custom_grammar", calls(call("patch", input="go né")),
                 {**off, **custom("responses", GRAMMAR)}),
        Scenario("responses.namespace", calls(call("geo__clock")), {**off, **namespace}),
        Scenario("responses.shell", calls(shell), {**off, "tools": [{"type": "local_shell"}]}),
        Scenario("responses.search", calls(call("tool_search", query="é")), {**off, **search}),
        Scenario("responses.empty", "", off),
    ]


def of_completions():
    usage = {"stream_options": {"include_usage": True}}
    return [
        Scenario("completions.text", f"{TEXT}<think>"),
        Scenario("completions.usage", TEXT, usage),
        Scenario("completions.echo", TEXT, {"echo": True}),
        Scenario("completions.stop", "Eins… zwei, drei", {"stop": "zwei"}),
        Scenario("completions.length", f"{TEXT} {TEXT}", {"max_tokens": 9}, limited=True),
        Scenario("completions.length_character", "aé", {"max_tokens": 2}, limited=True),
        Scenario("completions.logprobs", "Ja, 1 é.", {"logprobs": 2}),
        Scenario("completions.context", f"{TEXT} {TEXT}", limited=True, room=9),
        Scenario("completions.empty", ""),
    ]


def scenarios():
    return common() + of_messages() + of_chat() + of_responses() + of_completions()
