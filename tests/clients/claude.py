"""Claude Code, through /v1/messages."""
import json
import shlex
import time

import _install
from _trial import check


def program():
    return _install.native("claude", "@anthropic-ai/claude-code-*/claude")


def settings(server):
    """The printed ones, and what keeps a test offline."""
    words = shlex.split(server.settings("Claude Code:").replace("\\\n", " "))
    check(words[:3] == ["env", "-u", "ANTHROPIC_API_KEY"] and words[-1] == "claude", f"{words}")
    return {**dict(word.split("=", 1) for word in words[3:-1]), "DISABLE_AUTOUPDATER": 1,
            "DISABLE_TELEMETRY": 1, "DISABLE_ERROR_REPORTING": 1}


def ask(trial, program, prompt, *options, **settings_too):
    """Run `claude -p PROMPT`; returns its JSON."""
    env = {**settings(trial.server), **settings_too}
    run = trial.run(program + ["-p", prompt, "--output-format", "json", "--allowedTools",
                               "Bash,Read,Agent", *options], env)
    answer = json.loads(run.out)
    check(not answer["is_error"], f"claude says: {answer['result']}")
    return answer


def calls_a_tool_and_goes_on_with_its_result(trial, program):
    trial.serve("claude")
    answer = ask(trial, program, "TASK-TOOL")
    check(answer["result"] == "The tool said forty-two.", answer["result"])
    check(answer["num_turns"] == 2, f"{answer['num_turns']} turns")
    trial.server.check_reuse()


def goes_on_with_a_conversation(trial, program):
    trial.serve("claude")
    ask(trial, program, "TASK-TOOL")
    answer = ask(trial, program, "TASK-AGAIN", "--continue")
    check(answer["result"] == "As I said, forty-two.", answer["result"])
    trial.server.check_reuse()


def takes_two_calls_at_once(trial, program):
    trial.serve("claude")
    answer = ask(trial, program, "TASK-PAIR")
    check(answer["result"] == "Both tools answered.", answer["result"])


def reads_a_picture_as_a_note(trial, program):
    trial.serve("claude")
    trial.picture()
    answer = ask(trial, program, "TASK-IMAGE")
    check(answer["result"] == "I cannot see it.", answer["result"])


def sends_two_agents(trial, program):
    trial.serve("claude")
    answer = ask(trial, program, "TASK-AGENTS")
    check(answer["result"] == "Eleven and twelve.", answer["result"])


def searches_a_tool_and_calls_it(trial, program):
    trial.serve("claude")
    answer = ask(trial, program, "TASK-SEARCH")
    check(answer["result"] == "No timer is set.", answer["result"])


def gives_json_by_a_schema(trial, program):
    trial.serve("claude")
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}},
              "required": ["answer"], "additionalProperties": False}
    answer = ask(trial, program, "TASK-JSON", "--json-schema", json.dumps(schema))
    check(answer["structured_output"] == {"answer": 42}, json.dumps(answer)[:300])


def compacts_after_a_context_error(trial, program):
    """Believing in a million tokens, it is told by the server that 49152 are all."""
    trial.serve("claude", ctx=49152)
    answer = ask(trial, program, "TASK-FILL", CLAUDE_CODE_MAX_CONTEXT_TOKENS=1000000)
    check(answer["result"] == "Counted, with a summary between.", answer["result"])


def waits_through_a_silent_prefill(trial, program):
    """20 s of prefill, and a client that gives up after 10 s of silence."""
    trial.serve("claude", prefill_tps=850)
    start = time.monotonic()
    answer = ask(trial, program, "TASK-HELLO", CLAUDE_ENABLE_BYTE_WATCHDOG=1,
                 CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS=10000, CLAUDE_CODE_MAX_RETRIES=0)
    check(answer["result"] == "Hello.", answer["result"])
    trial.server.check_patience(time.monotonic() - start, 15)


def tries_again_when_the_server_is_full(trial, program):
    trial.serve("claude", sessions=1, decode_tps=200, options=["--max-queue", "1"])
    run = trial.turned_away(program + ["-p", "TASK-HELLO"], settings(trial.server))
    check(run.out.strip() == "Hello.", run.out)


def interrupted_in_prefill_leaves_the_server_free(trial, program):
    trial.serve("claude", prefill_tps=300)
    trial.interrupted("prefill", program + ["-p", "TASK-HELLO"], settings(trial.server))


def interrupted_in_its_answer_leaves_the_server_free(trial, program):
    trial.serve("claude", decode_tps=1)
    trial.interrupted("decode", program + ["-p", "TASK-HELLO"], settings(trial.server))


CLAIMS = [calls_a_tool_and_goes_on_with_its_result, goes_on_with_a_conversation,
          takes_two_calls_at_once, reads_a_picture_as_a_note, sends_two_agents,
          searches_a_tool_and_calls_it, gives_json_by_a_schema, compacts_after_a_context_error,
          waits_through_a_silent_prefill, tries_again_when_the_server_is_full,
          interrupted_in_prefill_leaves_the_server_free,
          interrupted_in_its_answer_leaves_the_server_free]
