"""opencode, through /v1/chat/completions, or /v1/messages with the other package."""
import json
import time

import _install
from _trial import MODEL, check


def program():
    return _install.native("opencode", "opencode-*/bin/opencode")


def configure(trial, npm=None, context=None, **options):
    """The printed opencode.json, and what keeps a test offline and unasked; the arguments
    replace parts of it. Returns the environment."""
    config = trial.server.settings("opencode, in")
    provider = config["provider"]["ds4"]
    provider["npm"] = npm or provider["npm"]
    provider["options"].update(options)
    if context:
        provider["models"][MODEL]["limit"]["context"] = context
    trial.write(".config/opencode/opencode.json", {
        **config, "enabled_providers": ["ds4"], "autoupdate": False,
        "permission": {"bash": "allow"}})
    names = ["OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_DISABLE_MODELS_FETCH",
             "OPENCODE_DISABLE_LSP_DOWNLOAD", "OPENCODE_DISABLE_DEFAULT_PLUGINS"]
    return dict.fromkeys(names, 1)


def says(trial, program, env, answer, *words, **options):
    """Run `opencode run WORDS`; its texts, all of them, must be these."""
    run = trial.run(program + ["run", "--format", "json", *words], env, **options)
    events = [json.loads(line) for line in run.out.splitlines() if line.startswith("{")]
    texts = [event["part"]["text"] for event in events if event["type"] == "text"]
    check(texts and texts[-1].strip() == answer, f"it says: {texts}")
    return run


def calls_a_tool_and_goes_on_with_its_result(trial, program):
    trial.serve("opencode")
    says(trial, program, configure(trial), "The tool said forty-two.", "TASK-TOOL")
    trial.server.check_reuse()


def goes_on_with_a_conversation(trial, program):
    trial.serve("opencode")
    env = configure(trial)
    says(trial, program, env, "The tool said forty-two.", "TASK-TOOL")
    says(trial, program, env, "As I said, forty-two.", "--continue", "TASK-AGAIN")
    trial.server.check_reuse()


def takes_two_calls_at_once(trial, program):
    trial.serve("opencode")
    says(trial, program, configure(trial), "Both tools answered.", "TASK-PAIR")


def calls_a_tool_through_messages(trial, program):
    """The other package drops earlier thinking."""
    trial.serve("opencode")
    says(trial, program, configure(trial, "@ai-sdk/anthropic"), "Both tools answered.", "TASK-PAIR")


def reads_a_picture_as_a_note(trial, program):
    trial.serve("opencode")
    trial.picture()
    says(trial, program, configure(trial), "I cannot see it.", "TASK-IMAGE")


def sends_two_agents(trial, program):
    trial.serve("opencode")
    says(trial, program, configure(trial), "Eleven and twelve.", "TASK-AGENTS")


def compacts_after_a_context_error(trial, program):
    """Believing in a million tokens, it is told by the server that 32768 are all."""
    trial.serve("opencode", ctx=32768)
    says(trial, program, configure(trial, context=1000000), "Counted, with a summary between.",
         "TASK-FILL", status=1)     # it remembers the error


def waits_through_a_silent_prefill(trial, program):
    """15 s of prefill, and a client that gives up after 7 s without an event."""
    trial.serve("opencode", prefill_tps=700)
    start = time.monotonic()
    says(trial, program, configure(trial, chunkTimeout=7000), "Hello.", "TASK-HELLO")
    trial.server.check_patience(time.monotonic() - start, 12)


def tries_again_when_the_server_is_full(trial, program):
    trial.serve("opencode", sessions=1, decode_tps=200, options=["--max-queue", "1"])
    run = trial.turned_away(program + ["run", "TASK-HELLO"], configure(trial))
    check("Hello." in run.out, run.out)


def works_with_a_small_context(trial, program):
    """The printed limits leave it room: it does not compact after every answer."""
    trial.serve("opencode", ctx=16384)
    says(trial, program, configure(trial), "The tool said forty-two.", "TASK-TOOL")


def interrupted_in_prefill_leaves_the_server_free(trial, program):
    trial.serve("opencode", prefill_tps=300)
    env = configure(trial)
    trial.interrupted("prefill", program + ["run", "TASK-HELLO"], env)


CLAIMS = [calls_a_tool_and_goes_on_with_its_result, goes_on_with_a_conversation,
          takes_two_calls_at_once, calls_a_tool_through_messages, reads_a_picture_as_a_note,
          sends_two_agents, compacts_after_a_context_error, waits_through_a_silent_prefill,
          tries_again_when_the_server_is_full, works_with_a_small_context,
          interrupted_in_prefill_leaves_the_server_free]
