"""The Pi agent, through each of the three APIs."""
import time

import _install
from _trial import MODEL, check


CHOICE = ["--provider", "ds4", "--model", MODEL]


def program():
    return _install.script("pi", "@earendil-works/pi-coding-agent/dist/bundle/cli.js")


def configure(trial, api=None, context=None, settings=None):
    """The printed models.json; the arguments replace parts of it. Returns the environment."""
    models = trial.server.settings("Pi, in")
    provider = models["providers"]["ds4"]
    provider["api"] = api or provider["api"]
    if api == "anthropic-messages":
        provider["baseUrl"] = provider["baseUrl"].removesuffix("/v1")
    if context:
        provider["models"][0]["contextWindow"] = context
    trial.write(".pi/agent/models.json", models)
    trial.write(".pi/agent/settings.json", settings or {})
    return {"PI_OFFLINE": 1, "PI_SKIP_VERSION_CHECK": 1, "PI_TELEMETRY": 0}


def says(trial, program, env, answer, *words, **options):
    """Run `pi -p WORDS`; its answer must be this."""
    run = trial.run(program + [*CHOICE, "-p", *words], env, **options)
    check(run.out.strip() == answer, f"it says: {run.out.strip()}")
    return run


def calls_a_tool(trial, program, api):
    trial.serve("pi")
    says(trial, program, configure(trial, api), "The tool said forty-two.", "TASK-TOOL")
    trial.server.check_reuse()


def calls_a_tool_through_chat(trial, program):
    calls_a_tool(trial, program, "openai-completions")


def calls_a_tool_through_responses(trial, program):
    calls_a_tool(trial, program, "openai-responses")


def calls_a_tool_through_messages(trial, program):
    calls_a_tool(trial, program, "anthropic-messages")


def goes_on_with_a_conversation(trial, program):
    trial.serve("pi")
    env = configure(trial)
    says(trial, program, env, "The tool said forty-two.", "TASK-TOOL")
    says(trial, program, env, "As I said, forty-two.", "--continue", "TASK-AGAIN")
    trial.server.check_reuse()


def takes_two_calls_at_once(trial, program):
    trial.serve("pi")
    says(trial, program, configure(trial), "Both tools answered.", "TASK-PAIR")


def reads_a_picture_as_a_note(trial, program):
    trial.serve("pi")
    trial.picture()
    says(trial, program, configure(trial), "I cannot see it.", "TASK-IMAGE")


def compacts_after_a_context_error(trial, program):
    """Believing in a million tokens, it is told by the server that 16384 are all."""
    trial.serve("pi", ctx=16384)
    env = configure(trial, context=1000000, settings={"compaction": {"keepRecentTokens": 1000}})
    says(trial, program, env, "Counted, with a summary between.", "TASK-FILL")


def waits_through_a_silent_prefill(trial, program):
    """15 s of prefill, and a client that gives up after 7 s of silence."""
    trial.serve("pi", prefill_tps=110)
    start = time.monotonic()
    env = configure(trial, settings={"httpIdleTimeoutMs": 7000, "retry": {"enabled": False}})
    says(trial, program, env, "Hello.", "TASK-HELLO")
    trial.server.check_patience(time.monotonic() - start, 12)


def tries_again_when_the_server_is_full(trial, program):
    trial.serve("pi", sessions=1, decode_tps=200, options=["--max-queue", "1"])
    run = trial.turned_away(program + [*CHOICE, "-p", "TASK-HELLO"], configure(trial))
    check(run.out.strip() == "Hello.", run.out)


def interrupted_in_prefill_leaves_the_server_free(trial, program):
    trial.serve("pi", prefill_tps=60)
    env = configure(trial)
    trial.interrupted("prefill", program + [*CHOICE, "-p", "TASK-HELLO"], env)


CLAIMS = [calls_a_tool_through_chat, calls_a_tool_through_responses,
          calls_a_tool_through_messages, goes_on_with_a_conversation, takes_two_calls_at_once,
          reads_a_picture_as_a_note, compacts_after_a_context_error,
          waits_through_a_silent_prefill, tries_again_when_the_server_is_full,
          interrupted_in_prefill_leaves_the_server_free]
