"""Codex, through /v1/responses."""
import time

import _install
from _trial import check

# Codex' sandbox needs what a test machine may not allow.
FREE = ["--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check"]


def program():
    return _install.native("codex", "@openai/codex-*/vendor/*/bin/codex",
                           "@openai/codex-*/vendor/*/codex/codex")


def configure(trial, *provider, catalogue=True):
    """The printed config.toml, and what keeps a test offline; `provider` are more lines of the
    provider's table. Returns the environment."""
    lines = trial.server.settings("Codex, in").splitlines()
    where = next(i for i, line in enumerate(lines) if line.startswith("model_catalog_url"))
    lines[where:where + (not catalogue)] = provider
    home = trial.cache_folder("codex")
    (home / "config.toml").write_text("\n".join([
        "check_for_update_on_startup = false", *lines, "[analytics]", "enabled = false", ""]))
    return {"CODEX_HOME": home, "DS4_API_KEY": "local"}


def says(trial, program, env, answer, *words, **options):
    """Run `codex exec WORDS`; its last message, all of stdout, must be the answer."""
    run = trial.run(program + ["exec", *FREE, *words], env, **options)
    check(run.out.strip() == answer, f"it says: {run.out.strip()}")
    return run


def calls_a_tool_and_goes_on_with_its_result(trial, program):
    trial.serve("codex")
    run = says(trial, program, configure(trial), "The tool said forty-two.", "TASK-TOOL")
    check("metadata" not in run.err, "the catalogue was not taken: " + run.err)
    trial.server.check_reuse()


def goes_on_with_a_conversation(trial, program):
    trial.serve("codex")
    env = configure(trial)
    says(trial, program, env, "The tool said forty-two.", "TASK-TOOL")
    says(trial, program, env, "As I said, forty-two.", "resume", "--last", "TASK-AGAIN")
    trial.server.check_reuse()


def takes_two_calls_at_once(trial, program):
    trial.serve("codex")
    says(trial, program, configure(trial), "Both tools answered.", "TASK-PAIR")


def writes_a_file_by_a_patch(trial, program):
    """A custom tool, whose input is no JSON but a grammar's text."""
    trial.serve("codex")
    says(trial, program, configure(trial), "The file is written.", "TASK-PATCH")
    check((trial.work / "patched.txt").read_text() == "hello from a patch\n", "another text")


def keeps_a_picture_from_a_model_of_text(trial, program):
    """The catalogue says that the model reads text only."""
    trial.serve("codex")
    says(trial, program, configure(trial), "I was told that I cannot see it.",
         "TASK-IMAGE", "-i", trial.picture())


def sends_a_picture_without_the_catalogue(trial, program):
    trial.serve("codex")
    says(trial, program, configure(trial, catalogue=False), "I cannot see it.",
         "TASK-IMAGE", "-i", trial.picture())


def sends_two_agents(trial, program):
    trial.serve("codex")
    says(trial, program, configure(trial), "Eleven and twelve.", "TASK-AGENTS")


def gives_json_by_a_schema(trial, program):
    trial.serve("codex")
    schema = trial.write("schema.json", {
        "type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
        "additionalProperties": False})
    says(trial, program, configure(trial), '{"answer": 42}', "TASK-JSON",
         "--output-schema", schema)


def compacts_before_the_context_is_full(trial, program):
    """It knows the context from the server's catalogue."""
    trial.serve("codex", ctx=40960)
    says(trial, program, configure(trial), "Counted, with a summary between.", "TASK-FILL")


def waits_through_a_silent_prefill(trial, program):
    """15 s of prefill, and a client that gives up after 7 s without an event."""
    trial.serve("codex", prefill_tps=480)
    start = time.monotonic()
    says(trial, program, configure(trial, "stream_idle_timeout_ms = 7000", "stream_max_retries = 0"),
         "Hello.", "TASK-HELLO")
    trial.server.check_patience(time.monotonic() - start, 12)


def tries_again_when_the_server_is_full(trial, program):
    trial.serve("codex", sessions=1, decode_tps=200, options=["--max-queue", "1"])
    run = trial.turned_away(program + ["exec", *FREE, "TASK-HELLO"], configure(trial))
    check(run.out.strip() == "Hello.", run.out)


def interrupted_in_prefill_leaves_the_server_free(trial, program):
    trial.serve("codex", prefill_tps=300)
    env = configure(trial)
    trial.interrupted("prefill", program + ["exec", *FREE, "TASK-HELLO"], env)


def interrupted_in_its_answer_leaves_the_server_free(trial, program):
    trial.serve("codex", decode_tps=1)
    env = configure(trial)
    trial.interrupted("decode", program + ["exec", *FREE, "TASK-HELLO"], env)


CLAIMS = [calls_a_tool_and_goes_on_with_its_result, goes_on_with_a_conversation,
          takes_two_calls_at_once, writes_a_file_by_a_patch,
          keeps_a_picture_from_a_model_of_text, sends_a_picture_without_the_catalogue,
          sends_two_agents, gives_json_by_a_schema, compacts_before_the_context_is_full,
          waits_through_a_silent_prefill, tries_again_when_the_server_is_full,
          interrupted_in_prefill_leaves_the_server_free,
          interrupted_in_its_answer_leaves_the_server_free]
