"""_refusals.py: requests that are refused before anything of an answer is sent, by the server that
refuses them. serve_golden.py asks for each and compares what comes with its golden file."""
from _scenarios import MODEL, functions

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
RESPONSES, COMPLETIONS = "/v1/responses", "/v1/completions"
PATHS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES, "completions": COMPLETIONS}
USER = [{"role": "user", "content": "Go."}]
PLAIN = {"chat": {"messages": USER}, "messages": {"messages": USER, "max_tokens": 9},
         "responses": {"input": "Go."}, "completions": {"prompt": "Go."}}
KEY = "a-key-of-the-tests"


class Refusal:
    """name: of the golden file; headers: pairs. Streaming is asked for, so that it would show."""

    def __init__(self, name, path, body=b"", method="POST", headers=()):
        self.name, self.path, self.method = f"refused.{name}", path, method
        self.headers = list(headers)
        self.body = {"model": MODEL, "stream": True, **body} if isinstance(body, dict) else body


def each(name, more=None, **options):
    """The same for every API; more: what its body has besides, by API or for all."""
    more = more or {}
    return [Refusal(f"{api}.{name}", path,
                    {**PLAIN[api], **(more.get(api, {}) if set(more) & set(PATHS) else more)},
                    **options) for api, path in PATHS.items()]


def usual():
    """What a server with no options but a small context refuses."""
    long = "a " * 5000
    image = {"type": "json_schema"}
    return [
        *[Refusal(f"{api}.broken_json", path, b'{"model": m}') for api, path in PATHS.items()],
        *[Refusal(f"{api}.empty_body", path, b"") for api, path in PATHS.items()],
        *[Refusal(f"{api}.nothing_asked", path, {}) for api, path in PATHS.items()],
        *each("wrong_type", {"temperature": "hot"}),
        *each("too_long", {"chat": {"messages": [{"role": "user", "content": long}]},
                           "messages": {"messages": [{"role": "user", "content": long}]},
                           "responses": {"input": long}, "completions": {"prompt": long}}),
        *[Refusal(f"{api}.method", path, method="GET") for api, path in PATHS.items()],
        Refusal("chat.two_answers", CHAT, {**PLAIN["chat"], "n": 2}),
        Refusal("chat.role", CHAT, {"messages": [{"role": "king", "content": "Go."}]}),
        Refusal("chat.format", CHAT, {**PLAIN["chat"], "response_format": {"type": "xml"}}),
        Refusal("chat.schema", CHAT, {**PLAIN["chat"], "response_format": {
            **image, "json_schema": {"name": "a", "schema": {"not": {"type": "null"}}}}}),
        Refusal("chat.no_such_tool", CHAT, {**PLAIN["chat"], **functions("chat"), "tool_choice": {
            "type": "function", "function": {"name": "nobody"}}}),
        Refusal("messages.no_such_tool", MESSAGES, {
            **PLAIN["messages"], **functions("messages"),
            "tool_choice": {"type": "tool", "name": "nobody"}}),
        Refusal("responses.conversation", RESPONSES, {**PLAIN["responses"],
                                                      "conversation": "conv_1"}),
        Refusal("responses.previous", RESPONSES, {**PLAIN["responses"],
                                                  "previous_response_id": "resp_nobody"}),
        Refusal("responses.call_id", RESPONSES, {"input": [
            {"type": "function_call_output", "call_id": "call_nobody", "output": "x"}]}),
        Refusal("responses.unknown", f"{RESPONSES}/resp_nobody", method="GET"),
        Refusal("completions.suffix", COMPLETIONS, {**PLAIN["completions"], "suffix": "end"}),
        Refusal("completions.echo_logprobs", COMPLETIONS,
                {**PLAIN["completions"], "echo": True, "logprobs": 1}),
        Refusal("path", "/v1/nowhere"),
        Refusal("messages.path", "/v1/messages/nowhere"),
        Refusal("embeddings", "/v1/embeddings", {"input": "Go."}),
    ]


def strict():
    """What a server with a key, --strict-model, --strict-media and small bodies refuses."""
    mine = [("Authorization", f"Bearer {KEY}")]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    return [
        *each("no_key"),
        *each("wrong_key", headers=[("x-api-key", "another")]),
        *each("no_such_model", {"model": "gemini-3"}, headers=mine),
        Refusal("status.no_key", "/status", method="GET"),
        Refusal("model", "/v1/models/nobody", method="GET", headers=mine),
        Refusal("chat.image", CHAT, {"messages": [{"role": "user", "content": [picture]}]},
                headers=mine),
        Refusal("messages.image", MESSAGES, {"messages": [{"role": "user", "content": [
            {"type": "image", "source": source}]}]}, headers=mine),
        Refusal("responses.image", RESPONSES, {"input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]}, headers=mine),
        # Only said to come: the server does not wait for it.
        *[Refusal(f"{api}.too_large", path, headers=[*mine, ("Content-Length", str(2 << 20))])
          for api, path in PATHS.items()],
    ]
