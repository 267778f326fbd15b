#!/usr/bin/env python3
"""exam.py BUILD_DIR: ds4 eval with answers that are played (docs/TESTING.md, "Answers from a file")."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DS4 = str(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve() / "ds4")
MODEL = str(ROOT / "models/ds4-tiny.gguf")
SUITES = {"arithmetic": 12, "strings": 12, "tools": 12, "instructions": 10, "recall": 15}


def call(name, **arguments):
    lines = [f'<｜DSML｜parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">'
             f'{v if isinstance(v, str) else json.dumps(v)}</｜DSML｜parameter>'
             for k, v in arguments.items()]
    return f'<｜DSML｜invoke name="{name}">\n' + "".join(x + "\n" for x in lines) + "</｜DSML｜invoke>\n"


def calls(*each):
    return "\n\n<｜DSML｜tool_calls>\n" + "".join(each) + "</｜DSML｜tool_calls>"


# Of set 1: what is asked, what is said, and whether that is right.
PLAYED = [
    ("arith-1", "What is 2 + 9?", "2 + 9 = 11.", True),
    ("arith-5", "5078 + 4815", "It is 9,893", True),
    ("arith-6", "22 * 40", "880, or was it 881?", False),
    ("string-4", "silver backwards", "\"Revlis\"", True),
    ("string-5", "kettle in capital", "Kettle", False),
    ("tool-1", "weather in Oslo", calls(call("get_weather", location="Oslo")), True),
    ("tool-2", "Nairobi", calls(call("get_weather", location="Oslo")), False),
    ("tool-3", "broken door", calls(call("create_ticket", title="broken door", priority=2,
                                         urgent=False)), True),
    ("tool-4", "wet floor", calls(call("create_ticket", title="wet floor", priority="1")), False),
    ("tool-9", "Lima", calls(call("get_weather", location="Cairo"),
                             call("get_weather", location="Lima")), True),
    ("tool-11", "just say hello", "Hello!", True),
    ("tool-12", "capital of France", calls(call("get_weather", location="Paris")), False),
    ("instruct-1", "single word ready", "ready", True),
    ("instruct-9", "Madrid", '{"city": "Madrid", "country": "Spain"}', True),
    ("instruct-4", "List four", "- a\n- b\n- c", False),
]
RULES = [{"last": [last], "say": say} for _, last, say, _ in PLAYED] + \
    [{"last": ["golden"], "say": "It is 5."}, {"say": "No."}]


def played(rules=None, **speeds):
    path = pathlib.Path(SCRATCH, "play.json")
    path.write_text(json.dumps({"rules": RULES if rules is None else rules, **speeds}), "utf-8")
    return ["--device", f"play:{path}"]


def ds4(*args, device=(), **more):
    return subprocess.run([DS4, "eval", "-m", MODEL, *map(str, args), *device], capture_output=True,
                          timeout=120, check=False, **more)


def works(run):
    assert run.returncode == 0, (run.returncode, run.stderr[-500:])
    return run.stdout.decode()


def fails(run, status, *words):
    lines = run.stderr.decode().splitlines()
    assert run.returncode == status and len(lines) == 1, (run.returncode, lines)
    assert all(word in lines[0] for word in words), lines


def claim_right_and_wrong_answers_are_told_apart():
    got = json.loads(works(ds4("--nothink", "--json", device=played())))
    assert got["model"] == "ds4-tiny" and got["set"] == 1 and got["think"] == "off"
    questions = {q["id"]: q for q in got["questions"]}
    assert len(questions) == sum(SUITES.values()) == got["all"]["of"]
    for name, _, _, right in PLAYED:
        assert questions[name]["right"] == right, questions[name]
        assert (questions[name]["why"] == "") == right
    assert questions["tool-9"]["calls"][0]["arguments"] == '{"location": "Cairo"}'
    for suite, n in SUITES.items():
        assert got["suites"][suite]["of"] == n
        right = sum(q["right"] for q in got["questions"] if q["suite"] == suite)
        assert got["suites"][suite]["right"] == right
    assert got["all"]["right"] == sum(q["right"] for q in got["questions"])
    # "No." keeps a form or two by chance, and is right nowhere else.
    assert got["suites"]["recall"]["right"] == 0 and got["suites"]["arithmetic"]["right"] == 2


def claim_reasoning_is_not_graded():
    rules = [{"last": ["2 + 9"], "say": "2 and 9, that is 12.</think>11"},
             {"last": ["40 + 20"], "say": "60, I think"}, {"say": "?</think>No."}]
    got = json.loads(works(ds4("--json", "--only", "arith", "-n", 40, device=played(rules))))
    q = {q["id"]: q for q in got["questions"]}
    assert got["think"] == "on" and q["arith-1"]["right"] and not q["arith-2"]["right"]
    rules[1]["say"] = "sixty " * 100
    got = json.loads(works(ds4("--json", "--only", "arith-2", "-n", 40, device=played(rules))))
    assert got["questions"][0]["why"] == "no answer within 40 tokens"


def claim_facts_are_found_at_their_size_and_depth():
    args = ["--only", "recall", "--nothink", "--json"]
    first = json.loads(works(ds4(*args, device=played())))["questions"]
    assert [(q["size"], q["depth"]) for q in first] == \
        [(s, d) for s in (1024, 2048, 4096) for d in (5, 25, 50, 75, 95)]
    for q in first:
        assert q["size"] - 100 < q["prompt_tokens"] <= q["size"], q
    rules = [{"when": [re.fullmatch(r"5, not (\d+)", q["why"])[1]],
              "say": re.fullmatch(r"5, not (\d+)", q["why"])[1]} for q in first]
    got = json.loads(works(ds4(*args, device=played(rules + RULES))))
    assert got["suites"]["recall"] == {"right": 15, "of": 15, "asked": 15}
    listed = works(ds4("--list", "--only", "recall", "-c", 140000)).splitlines()
    assert len(listed) == 8 * 5 and listed[-1].startswith("recall-128K-95\trecall\tWhat is the")


def claim_the_report_is_the_json_in_words():
    got = json.loads(works(ds4("--nothink", "--json", device=played())))
    text = works(ds4("--nothink", device=played()))
    lines = re.findall(r"^(right|wrong)  (\S+) ", text, re.M)
    assert lines == [("right" if q["right"] else "wrong", q["id"]) for q in got["questions"]]
    for suite, sums in [*got["suites"].items(), ("all", got["all"])]:
        assert re.search(rf"^{suite} +{sums['right']} of +{sums['of']} ", text, re.M), suite
    assert re.search(r"recall +4K  5%:wrong  25%:wrong", text)
    for args, words in (([], "up to 4K tokens of 128K"), (["-n", 8000], "up to 0K tokens"),
                        (["--only", "arith"], None)):
        said = ds4("--nothink", *args, device=played()).stderr.decode()
        assert words in said if words else "recall" not in said, said


def claim_questions_are_chosen_by_name():
    listed = works(ds4("--list")).splitlines()
    assert len(listed) == sum(SUITES.values())
    assert [x.split("\t")[0] for x in works(ds4("--list", "--only", "tools", "--only", "arith-1")
                                            ).splitlines()] == \
        ["arith-1"] + [f"tool-{i}" for i in range(1, 13)]
    other = works(ds4("--list", "--set", 2)).splitlines()
    assert [x.split("\t")[0] for x in other] == [x.split("\t")[0] for x in listed]
    assert other[0] != listed[0]
    fails(ds4("--list", "--only", "tolls"), 1, "tolls", "--list")
    fails(ds4("--think", "--nothink"), 2, "--think")


def claim_an_examination_goes_on_where_it_stopped():
    whole = json.loads(works(ds4("--nothink", "--json", device=played())))
    state = pathlib.Path(SCRATCH, "state.jsonl")
    args = [DS4, "eval", "-m", MODEL, "--nothink", "--state", str(state)]
    child = subprocess.Popen([*args, *played(decode_tps=60, prefill_tps=20000)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not state.exists() or state.read_bytes().count(b"\n") < 8:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    done = state.read_bytes().count(b"\n") - 1
    assert 7 <= done < 61
    before = state.read_bytes()
    out = works(ds4("--nothink", "--state", state, device=played()))
    assert len(re.findall("^(?:right|wrong) ", out, re.M)) == 61 - done
    assert state.read_bytes().startswith(before)
    got = json.loads(works(ds4("--nothink", "--json", "--state", state, device=played([]))))
    assert got["suites"] == whole["suites"] and got["all"]["of"] == 61
    for option, words in ((["--temp", 1], "temperature 0, and this run 1"),
                          (["--exact"], "exact false, and this run true"),
                          (["--rounding", "off"], "rounding true, and this run false"),
                          (["--set", 2], "set 1, and this run 2"),
                          (["-n", 9], "most_tokens 2048, and this run 9")):
        fails(ds4("--nothink", *option, "--state", state, device=played()), 1, words)
    fails(ds4("--nothink", "--state", state, device=["--cpu"]), 1,
          'device "play", and this run "cpu"')
    state.write_bytes(before[:-9])
    number = before[:-9].count(b"\n") + 1
    fails(ds4("--nothink", "--state", state, device=played()), 1, f"state.jsonl, line {number}: the answer: not JSON")
    lines = before.split(b"\n")
    for line, words in ((lines[1], "line 3: arith-1 is answered twice"), (b"[]", "line 3: an answer has"),
                        (b'{"id":"arith-2","tokens":3,"seconds":1}', "line 3: an answer has an id, right")):
        state.write_bytes(b"\n".join([*lines[:2], line, b""]))
        fails(ds4("--nothink", "--state", state, device=played()), 1, words)
    state.write_bytes(b"a letter\n")
    fails(ds4("--nothink", "--state", state, device=played()), 1, "is no state of ds4 eval")


def claim_a_terminal_shows_it_as_it_goes():
    leader, follower = pty.openpty()
    child = subprocess.Popen([DS4, "eval", "-m", MODEL, "--nothink", "--only", "arith", "--only",
                              "tools", *played(decode_tps=100)], stdout=subprocess.PIPE,
                             stderr=follower, env=dict(os.environ, TERM="xterm"))
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            shown += os.read(leader, 65536)
        except OSError:
            break
    out = child.communicate(timeout=60)[0].decode()
    os.close(leader)
    assert child.returncode == 0
    view = shown.decode()
    assert "✓" in view and "✗" in view and "▸" in view and "\033[32m" in view
    assert "tools " in view and "recall" not in view and "of 24 questions" in view
    assert view.endswith("\033[J")
    assert len(re.findall("^(?:right|wrong) ", out, re.M)) == 24 and "\033" not in out


def claim_ds4_eval_is_a_name_of_it():
    link = pathlib.Path(SCRATCH, "ds4-eval")
    link.symlink_to(DS4)
    run = subprocess.run([str(link), "--list"], capture_output=True, timeout=60, check=False)
    assert run.returncode == 0 and run.stdout.startswith(b"arith-1\t")


def main():
    return run_claims(globals())



if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory() as SCRATCH:
        sys.exit(main())
