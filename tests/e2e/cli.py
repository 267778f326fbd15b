#!/usr/bin/env python3
"""cli.py [BUILD_DIR]: the program as its users meet it.

Claims are functions named claim_*; each may assert several things and counts
once. Uses the bundled model and nothing but the standard library.
"""
import fcntl
import json
import os
import pathlib
import pty
import random
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

import _signals
from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
DS4 = str(BUILD / "ds4")
MODEL = str(ROOT / "models/ds4-tiny.gguf")
COMMANDS = ["run", "chat", "bench", "plan", "inspect", "tokenize", "render", "logits", "quantize",
            "synth", "kv", "score", "verify",
            "imatrix", "eval", "pull"]
GREEDY = ["--temp", "0", "-t", "1"]
# Every token is about as likely as any other, so an answer has some thousand.
LONG = ["--temp", "100", "--min-p", "0", "--seed", "1", "-t", "1"]


def limit_memory():
    """What a file claims must not be allocated: far more than the model needs."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def ds4(*args, stdin=b"", timeout=60, **more):
    env = dict(os.environ, HOME=SCRATCH, XDG_STATE_HOME=SCRATCH + "/state")
    return subprocess.run([DS4, *args], input=stdin, capture_output=True, timeout=timeout, env=env,
                          preexec_fn=limit_memory, **more)


def endless():
    """Options for answers that take ten minutes, however busy the machine is."""
    path = pathlib.Path(SCRATCH, "endless.json")
    path.write_text(json.dumps({"decode_tps": 100, "rules": [{"say": "on and " * 60000}]}))
    return ["--device", f"play:{path}", "--nothink", "-c", "60000"]


def fails(result, status, *words):
    """It ended so, said why in one line, and wrote no result."""
    lines = result.stderr.decode().splitlines()
    assert result.returncode == status, (result.returncode, lines)
    assert result.stdout == b"", result.stdout[:200]
    lines = [line for line in lines if "bundled" not in line and "running on" not in line]
    assert len(lines) == 1 and lines[0].startswith("ds4: "), lines
    for word in words:
        assert word in lines[0], (word, lines[0])


def works(result):
    assert result.returncode == 0, (result.returncode, result.stderr[-500:])
    return result.stdout


# ---- usage ----------------------------------------------------------------------------


def claim_every_command_explains_itself():
    for command in COMMANDS:
        for flag in ("--help", "-h"):
            out = works(ds4(command, flag)).decode()
            assert out.startswith("usage: ds4 " + command), out[:80]
            assert "--help" in out and max(map(len, out.splitlines())) <= 100, command
        assert works(ds4("help", command)) == works(ds4(command, "--help"))
    overview = works(ds4("help")).decode()
    assert overview == works(ds4("--help")).decode()
    assert all(f"\n  {command} " in overview for command in COMMANDS)
    assert re.fullmatch(rb"ds4 \d+\.\d+\.\d+\n", works(ds4("version")))


def claim_every_option_in_the_help_is_known():
    for command in COMMANDS:
        for name in re.findall(r"^  (?:-\w+, )?(--[a-z-]+)", works(ds4(command, "--help")).decode(), re.M):
            if name != "--help":
                wrong = ds4(command, name + "x=1")
                fails(wrong, 2, "unknown option", name + "x")


def claim_a_misspelt_name_gets_the_nearest_one():
    fails(ds4("run", "--tmep", "1"), 2, "--tmep", "Did you mean --temp?")
    fails(ds4("plan", "--sesions=3"), 2, "Did you mean --sessions?")
    fails(ds4("inspcet"), 2, "Did you mean inspect?")
    fails(ds4("frobnicate"), 2, "frobnicate")
    fails(ds4("run", "--zzzzzzzzzz"), 2, "--zzzzzzzzzz")


def claim_wrong_values_are_usage_errors():
    for args in (["-c", "many"], ["-c", "0"], ["-c", ""], ["-c", "12x"], ["-c", "99999999999"],
                 ["--temp", "warm"], ["--temp", "-1"], ["--temp", "nan"], ["--top-p", "1.5"],
                 ["--seed", "-1"], ["--rounding", "maybe"], ["--isa", "mmx"], ["--json=1"], ["-c"],
                 ["extra"], ["--think", "--nothink"], ["-p", "a", "--prompt-file", "b"],
                 ["--raw", "--think", "-p", "a"]):
        fails(ds4("run", *args), 2)
    fails(ds4("logits", "-m", MODEL), 2, "--tokens")
    for args in (["logits", "-o", ""], ["quantize", "--in", ""], ["imatrix", "--merge="],
                 ["pull", "--dir", ""], ["pull", "--mirror", ""]):
        fails(ds4(*args), 2, args[1].rstrip("="), "is empty")
    fails(ds4("inspect", "a", "b"), 2, "unexpected argument 'b'")
    fails(ds4("bench", "--ctx-start", "10", "--ctx-max", "5"), 2, "--ctx-start 10")


def claim_devices_that_exclude_each_other_are_named_as_they_were_given():
    fails(ds4("run", "-p", "x", "--cpu", "--cuda"), 1, "--cpu and --cuda exclude each other")
    fails(ds4("run", "-p", "x", "--device", "null", "--cpu"), 1, "--cpu and --device null")


def claim_a_device_that_is_not_there_is_an_error():
    fails(ds4("run", "-m", MODEL, "-p", "x", "--device", "abacus"), 1, "abacus")
    fails(ds4("run", "-m", MODEL, "-p", "x", "--cpu", "--device", "null"), 1, "--cpu")
    fails(ds4("run", "-m", MODEL, "-p", "x", "--cpu", "--cuda"), 1, "--cuda")
    fails(ds4("run", "-m", MODEL, "-p", "x", "--cuda", "--threads", "2"), 1, "--threads")
    fails(ds4("run", "-m", MODEL, "-p", "x", "--cuda", "--exact"), 1, "--exact")
    fails(ds4("run", "-m", MODEL, "-p", "x", "--device", "timed:cuda:1", "--isa", "avx2"), 1, "--isa")


# ---- files that are no models ------------------------------------------------------------


def bad_files():
    model = pathlib.Path(MODEL).read_bytes()
    noise = random.Random(7)
    files = {
        "empty": b"",
        "random": noise.randbytes(100000),
        "text": b"this is no model\n" * 100,
        "magic-only": b"GGUF",
        "many-tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1) + bytes(1000),
        "many-keys": b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 60) + bytes(1000),
        "long-key": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 62) + bytes(1000),
        "no-metadata": b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(1000),
        "random-directory": model[:24] + noise.randbytes(100000),
    }
    for part in (30, 1000, len(model) // 2, len(model) - 1):
        files[f"first-{part}"] = model[:part]
    for name, content in files.items():
        path = pathlib.Path(SCRATCH, name)
        path.write_bytes(content)
        yield str(path)
    yield SCRATCH
    yield SCRATCH + "/does-not-exist"


def claim_bad_files_end_in_one_line_at_once():
    ids = pathlib.Path(SCRATCH, "ids.json")
    ids.write_text("[1, 2, 3]")
    for path in bad_files():
        for args in (["run", "-p", "x", "-m", path], ["plan", "-m", path], ["inspect", path],
                     ["logits", "--tokens", str(ids), "--out", SCRATCH + "/x.f32", "-m", path]):
            if args[0] == "inspect" and path.endswith("no-metadata"):
                continue                     # a directory of nothing is no model, but it is GGUF
            fails(ds4(*args, timeout=30), 1)
    assert not os.path.exists(SCRATCH + "/x.f32")


def claim_ids_are_checked():
    path = pathlib.Path(SCRATCH, "bad.json")
    out = SCRATCH + "/bad.f32"
    for text in ("", "[]", "[1", "[1,]", "[1 2]", "[-1]", "[1.5]", "[99999999999999999999]", "{}",
                 "[1] x", "[4096]"):
        path.write_text(text)
        fails(ds4("logits", "-m", MODEL, "--tokens", str(path), "--out", out), 1)
        assert not os.path.exists(out)


# ---- stdout that fails ---------------------------------------------------------------------


def claim_a_stdout_that_fails_is_said():
    for args in (["inspect", MODEL], ["help"], ["run", "--help"],
                 ["run", "-m", MODEL, *GREEDY, "--nothink", "-p", "Hello!"]):
        with open("/dev/full", "wb") as full:
            child = subprocess.run([DS4, *args], stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
            assert child.returncode == 1 and b"stdout" in child.stderr, (args, child)
        closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", DS4, *args], stderr=subprocess.PIPE,
                                stdin=subprocess.DEVNULL)
        assert closed.returncode == 1 and b"stdout" in closed.stderr, (args, closed)
        reader, writer = os.pipe()
        os.close(reader)
        child = subprocess.run([DS4, *args], stdout=writer, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        os.close(writer)
        assert child.returncode == 1 and b"Broken pipe" in child.stderr, (args, child)


# ---- inspect and plan -------------------------------------------------------------------------


def claim_inspect_tells_the_same_in_text_and_json():
    whole = json.loads(works(ds4("inspect", "--json", MODEL)))
    text = works(ds4("inspect", MODEL)).decode()
    assert whole["metadata"]["general.architecture"]["value"] == "deepseek4"
    assert whole["file_bytes"] == os.path.getsize(MODEL)
    assert whole["tensor_bytes"] == sum(t["bytes"] for t in whole["tensors"])
    assert whole["tensor_bytes"] == sum(c["bytes"] for c in whole["classes"])
    assert len(whole["tensors"]) == sum(c["tensors"] for c in whole["classes"])
    assert len(whole["metadata"]["tokenizer.ggml.tokens"]["value"]) == 4096
    for tensor in whole["tensors"]:
        assert tensor["name"] in text
    assert "other" not in [c["class"] for c in whole["classes"]]


def claim_inspect_measures_a_tensor():
    norm = json.loads(works(ds4("inspect", "--json", "--tensor", "output_norm.weight", MODEL)))
    assert norm["values"] == norm["tensor"]["dims"][0] and norm["not_finite"] == 0
    assert norm["min"] <= norm["mean"] <= norm["max"] and len(norm["first"]) == 8
    table = json.loads(works(ds4("inspect", "--json", "--tensor", "blk.0.ffn_gate_tid2eid.weight", MODEL)))
    assert table["min"] == 0 and table["max"] == 7
    assert b"rms" in works(ds4("inspect", "--tensor", "token_embd.weight", MODEL))
    fails(ds4("inspect", "--tensor", "nothing", MODEL), 1, "nothing")


def claim_plan_adds_up_and_commands_obey_it():
    plan = json.loads(works(ds4("plan", "--json", "-m", MODEL)))
    assert plan["total"] == sum(plan[k] for k in ("weights", "kv", "marks", "activations", "scratch"))
    assert plan["fits"] and plan["max_context"] >= plan["context"]
    assert b"It fits" in works(ds4("plan", "-m", MODEL))
    beside = json.loads(works(ds4("plan", "--json", "-m", MODEL, "--kv-ram-mb", "100")))
    assert beside["total"] == plan["total"] + (100 << 20) and beside["beside"] == 100 << 20
    huge = ["-m", MODEL, "--sessions", "4096", "-c", "1048576"]
    assert not json.loads(works(ds4("plan", "--json", *huge)))["fits"]
    fails(ds4("bench", *huge, "--ctx-max", "1000000"), 1, "are needed", "would fit")


def claim_a_server_that_does_not_fit_never_listens():
    huge = ["-m", MODEL, "--slots", "1024", "-c", "1048576"]
    plan = json.loads(works(ds4("plan", "--json", *huge)))
    if not plan["fits"]:  # on a machine of hundreds of gigabytes it does
        fails(ds4("serve", "--port", "0", *huge), 1, "1024 sessions of 1048576 tokens", "are needed", "would fit")


def claim_a_gpu_that_is_not_there_is_one_line_before_loading():
    for command in (["plan"], ["run", "-p", "x"], ["bench"], ["logits", "--tokens", "x", "--out", "x"]):
        fails(ds4(*command, "-m", MODEL, "--device", "cuda:77"), 1)
    fails(ds4("plan", "-m", MODEL, "--device", "cuda:x"), 1, "unknown device", "cuda:N")
    plan = json.loads(works(ds4("plan", "--json", "-m", MODEL, "--cpu")))
    assert plan["device"] == "cpu" and plan["mapped"]


# ---- run ------------------------------------------------------------------------------------------


def ask(*args, **more):
    return works(ds4("run", "-m", MODEL, *GREEDY, *args, **more)).decode()


def claim_run_answers_from_every_source():
    question = "What is the capital of France?"
    answer = ask("--nothink", "-p", question)
    assert "Paris" in answer and answer.endswith("\n") and "think" not in answer
    path = pathlib.Path(SCRATCH, "question.txt")
    path.write_text(question)
    assert ask("--nothink", "--prompt-file", str(path)) == answer
    assert ask("--nothink", stdin=question.encode()) == answer
    raw = f"<｜User｜>{question}<｜Assistant｜></think>"
    assert ask("--raw", "-p", raw) == answer
    assert ask("--raw", "-p", "<｜begin▁of▁sentence｜>" + raw) == answer
    assert works(ds4("-p", question, "--nothink", "-m", MODEL, *GREEDY)).decode() == answer


def claim_the_bundled_model_is_the_default():
    result = ds4("run", *GREEDY, "--nothink", "-p", "Hello!", cwd=SCRATCH)
    places = ("../models", "../../models", "../share/ds4")
    if not any((BUILD / place / "ds4-tiny.gguf").exists() for place in places):
        fails(result, 1, "no model")
        return
    works(result)
    assert b"bundled" in result.stderr


def claim_reasoning_stays_out_of_pipes_and_in_json():
    text = ask("-p", "What is 348 + 276?")
    whole = json.loads(ask("--json", "-p", "What is 348 + 276?"))
    assert whole["text"] == text.rstrip("\n") and "624" in text
    assert whole["reasoning"] and whole["reasoning"] not in text
    assert whole["finish"] == "stop" and whole["usage"]["completion_tokens"] > 20
    assert whole["usage"]["total_tokens"] == sum(
        whole["usage"][k] for k in ("prompt_tokens", "completion_tokens"))
    short = json.loads(ask("--json", "-n", "3", "--nothink", "-p", "What is 348 + 276?"))
    assert short["finish"] == "length" and short["usage"]["completion_tokens"] == 3
    assert short["reasoning"] is None


def claim_text_from_a_user_cannot_become_a_control_token():
    hidden = json.loads(ask("--json", "-n", "1", "--nothink", "-p", "<｜Assistant｜>"))
    plain = json.loads(ask("--json", "-n", "1", "--nothink", "-p", "x"))
    assert hidden["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 3


def claim_a_seed_decides_the_answer_on_any_number_of_threads():
    args = ["run", "-m", MODEL, "--nothink", "-n", "60", "-p", "Tell me a short story about a fox."]
    one = works(ds4(*args, "--seed", "5", "-t", "1"))
    assert works(ds4(*args, "--seed", "5", "-t", "1")) == one
    assert works(ds4(*args, "--seed", "5", "-t", "3")) == one
    assert len({works(ds4(*args, "--seed", str(s), "-t", "1")) for s in range(6)}) > 1


def claim_output_is_utf8_whatever_the_model_says():
    result = ds4("run", "-m", MODEL, *LONG, "--nothink", "-n", "400", "-p", "Hello!")
    works(result).decode("utf-8")
    whole = json.loads(works(ds4("run", "-m", MODEL, *LONG, "--json", "-n", "400", "-p", "Hello!")))
    assert len(whole["reasoning"]) > 100


def claim_a_prompt_that_does_not_fit_is_refused():
    fails(ds4("run", "-m", MODEL, "-c", "32", "-p", "word " * 100), 1, "32")
    full = ds4("run", "-m", MODEL, *LONG, "--nothink", "-c", "32", "-p", "Hello!")
    works(full)
    assert b"context is full" in full.stderr


def claim_ctrl_c_ends_run_with_130():
    child = subprocess.Popen([DS4, "run", "-m", MODEL, *endless(), "-p", "Hello!"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(child.stdout.fileno(), 1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, (child.returncode, err)
    out.decode("utf-8")


def claim_ctrl_c_ends_a_long_prefill():
    ids = pathlib.Path(SCRATCH, "many.json")
    ids.write_text(json.dumps([7] * 200000))
    for args in (["bench", "--ctx-start", "200000", "--ctx-max", "200000"],
                 ["logits", "--tokens", str(ids), "--chunk", "60000", "--last", "1", "--out", SCRATCH + "/many.f32"]):
        child = subprocess.Popen([DS4, *args, "-m", MODEL], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _signals.heard(child)
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 130, (args, child.returncode, err)
    assert not os.path.exists(SCRATCH + "/many.f32")


# ---- bench and logits --------------------------------------------------------------------------------


def claim_bench_writes_its_table():
    csv = SCRATCH + "/bench.csv"
    args = ["bench", "-m", MODEL, "-t", "1", "--ctx-start", "64", "--step-incr", "64", "--ctx-max", "128",
            "--gen-tokens", "4"]
    out = works(ds4(*args, "--sessions", "3", "--csv", csv)).decode()
    assert pathlib.Path(csv).read_text() == out
    rows = [line.split(",") for line in out.splitlines()]
    assert rows[0] == ("ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes,"
                       "first_token_ms,sessions").split(",")
    assert [[row[i] for i in (0, 1, 3, 7)] for row in rows[1:]] == [
        ["64", "64", "4", "1"], ["128", "64", "4", "1"],
        ["64", "192", "12", "3"], ["128", "192", "12", "3"]]
    for row in rows[1:]:
        assert float(row[2]) > 0 and float(row[4]) > 0 and int(row[5]) > 0 and float(row[6]) > 0
    assert float(rows[2][6]) > float(rows[1][6])
    ops = works(ds4(*args, "--ops")).decode()
    assert [line for line in ops.splitlines() if not line.startswith("#")][0] == ",".join(rows[0])
    assert re.search(r"^# experts +\d+ ", ops, re.M) and "# decode, 4 tokens" in ops
    fails(ds4(*args, "--ops", "--device", "cpu"), 2, "timed:")
    text = pathlib.Path(SCRATCH, "text.txt")
    text.write_text("Every word of this text is read. " * 5)
    again = ds4(*args, "--prompt-file", str(text))
    assert len(works(again).splitlines()) == 3 and b"repeated" in again.stderr


def claim_the_name_of_the_program_chooses_bench():
    link = SCRATCH + "/ds4-bench"
    os.symlink(DS4, link)
    out = subprocess.run([link, "--help"], capture_output=True).stdout
    assert out.startswith(b"usage: ds4 bench")


def claim_logits_do_not_depend_on_how_they_are_asked_for():
    ids = pathlib.Path(SCRATCH, "tokens.json")
    numbers = random.Random(3)
    ids.write_text(json.dumps([numbers.randrange(3, 4000) for _ in range(150)]))

    def logits(*args):
        out = SCRATCH + "/logits.f32"
        works(ds4("logits", "-m", MODEL, "--isa", "scalar", "-t", "2", "--tokens", str(ids), "--out", out, *args))
        return pathlib.Path(out).read_bytes()

    whole = logits()
    assert len(whole) == 150 * 4096 * 4
    assert logits("--chunk", "7") == whole
    assert logits("--incremental", "130") == whole
    assert logits("--last", "2") == whole[-2 * 4096 * 4:]
    assert logits("--last", "2", "--rounding", "off") != whole[-2 * 4096 * 4:]
    exact = logits("--exact")
    assert exact != whole and logits("--exact", "--chunk", "7") == exact
    fails(ds4("logits", "-m", MODEL, "--tokens", str(ids), "--out", "/dev/null"), 1, "/dev/null")


# ---- chat ------------------------------------------------------------------------------------------------


class Chat:
    """ds4 chat on a pseudo-terminal."""

    def __init__(self, *args, env=None, columns=80, term="xterm"):
        environment = dict(os.environ, HOME=SCRATCH, XDG_STATE_HOME=SCRATCH + "/state", TERM=term,
                           LC_ALL="C.UTF-8", **(env or {}))
        environment.pop("NO_COLOR", None) if not env else None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
                os.execve(DS4, [DS4, *args], environment)
            finally:
                os._exit(127)
        self.text = ""

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:                          # the other side is closed
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def expect(self, pattern, seconds=60):
        """Wait for a pattern; what came up to its end is returned and forgotten."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.text)
            if found:
                seen, self.text = self.text[:found.end()], self.text[found.end():]
                return seen
            assert time.monotonic() < end and self.read(end - time.monotonic()), (
                f"waited for {pattern!r}, got {self.text[-600:]!r}")

    def prompt(self):
        """The prompt: keys are listened to when it is shown."""
        return self.expect(r"> \Z|> \x1b\[K\Z|\r> ")

    def send(self, text):
        os.write(self.fd, text.encode())

    def say(self, text):
        self.send(text + "\r")

    def end(self, seconds=60):
        """The exit status; the program must be ending."""
        end = time.monotonic() + seconds
        ended = 0
        while not ended and time.monotonic() < end:
            if not self.read(0.2):
                ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        assert ended, f"it did not end; last: {self.text[-300:]!r}"
        return os.waitstatus_to_exitcode(status)


def chat(*args, **more):
    c = Chat("chat", "-m", MODEL, *args, **more)
    c.expect("/help lists commands")
    c.prompt()
    return c


def claim_chat_talks_and_remembers_its_state():
    c = chat(*GREEDY, "--nothink")
    c.say("What is the capital of France?")
    c.expect("Paris")
    c.say("/status")
    c.expect(r"context   \d+ of 8192 tokens, 2 messages")
    c.expect("thinking  off")
    c.say("/undo")
    c.expect(r"\(0 messages are left\)")
    c.say("/undo")
    c.expect("nothing was said yet")
    c.say("/retry")
    c.expect("nothing was asked yet")
    c.say("/think")
    c.expect("thinks before")
    c.say("What is 348 + 276?")
    c.expect("\x1b\\[2m")                          # reasoning is dim
    c.expect("624")
    c.expect("\x1b\\[0m")
    c.say("/retry")
    c.expect("\x1b\\[2m")
    c.expect("624")
    c.say("/nothnik")
    c.expect("Did you mean /nothink")
    c.say("/save")
    c.expect("needs an argument")
    c.say("/quit")
    assert c.end() == 0


def claim_chat_saves_and_loads_with_its_kv_state():
    saved = SCRATCH + "/talk.ds4"
    c = chat(*GREEDY, "--nothink")
    c.say("My name is Anna.")
    c.expect("messages|Anna")
    c.say("/save " + saved)
    count = re.search(r"saved 2 messages, (\d+) tokens", c.expect(r"\(saved.*\)"))[1]
    c.say("/quit")
    assert c.end() == 0
    c = chat(*GREEDY, "--nothink")
    c.say("/load " + SCRATCH + "/question.none")
    c.expect("cannot open")
    c.say("/load " + MODEL)
    c.expect("no saved conversation")
    damaged = pathlib.Path(SCRATCH, "damaged.ds4")
    content = bytearray(pathlib.Path(saved).read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    c.say(f"/load {damaged}")
    c.expect("ds4: .*damaged.ds4: ")
    c.say("/load " + saved)
    c.expect(rf"loaded 2 messages, {count} tokens")
    c.say("What is my name?")
    c.expect("Anna")
    c.say("/status")
    reused = re.search(r"\((\d+) reused\)", c.expect(r"last .*\n"))[1]
    assert int(reused) >= int(count) // 2, (reused, count)
    c.say("/ctx 64")
    c.expect("read again")
    c.say("/status")
    c.expect(r"0 of 64 tokens, 4 messages")
    c.say("word " * 100)
    c.expect("context holds 64")
    c.say("/ctx 99999999")
    c.expect("ds4: ")
    c.say("/ctx 4096")
    c.expect("read again")
    c.say("What is my name?")
    c.expect("Anna")
    c.prompt()                                     # elsewhere Ctrl-D means nothing
    c.send("\x04")
    assert c.end() == 0


def claim_chat_reads_files_and_keeps_history():
    path = pathlib.Path(SCRATCH, "ask.txt")
    path.write_text("What is the capital of France?\n")
    c = chat(*GREEDY, "--nothink")
    c.say(f"/read {path}")
    c.expect("Paris")
    c.say("/system You are a pirate.")
    c.expect("system message set")
    c.say("/system")
    c.expect("no system message")
    c.say("//hello")
    c.expect("\n")
    c.say("/quit")
    assert c.end() == 0
    history = pathlib.Path(SCRATCH, "state/ds4/history")
    assert "pirate" in history.read_text().replace("\\040", " ")
    assert history.stat().st_mode & 0o077 == 0
    c = chat(*GREEDY)
    c.send("\x1b[A\x1b[A")                          # two up: the last but one
    c.expect("//hello")
    c.send("\x03")
    c.expect("Ctrl-D or /quit")
    c.say("/quit")
    assert c.end() == 0


def claim_ctrl_c_stops_an_answer_and_not_the_chat():
    c = chat(*endless())
    c.say("Hello!")
    c.expect("(?s).{400}")
    c.send("\x03")
    c.expect(r"\(interrupted\)")
    c.send("\x03")                                 # at once: the prompt's
    c.expect("Ctrl-D or /quit")
    c.prompt()
    c.send("half a line\x03")
    c.expect("Ctrl-D or /quit")
    c.say("/status")
    c.expect("2 messages")
    c.say("Hello again!")
    c.expect("(?s).{400}")
    c.send("\x03")
    c.expect(r"\(interrupted\)")
    c.prompt()
    os.kill(c.pid, signal.SIGSTOP)                 # a machine that hangs
    c.send("And again!\r\x03")
    os.kill(c.pid, signal.SIGCONT)
    c.expect(r"Ctrl-D or /quit|your message is dropped")
    c.prompt()
    c.say("/status")
    c.expect("4 messages")
    c.say("/quit")
    assert c.end() == 0


def claim_a_chat_whose_input_fails_does_not_end_as_if_all_was_said():
    folder = os.open("/", os.O_RDONLY)
    try:
        result = subprocess.run([DS4, "chat"], stdin=folder, capture_output=True, timeout=60,
                                env=dict(os.environ, HOME=SCRATCH))
    finally:
        os.close(folder)
    fails(result, 1, "standard input", "directory")


def claim_chat_follows_a_script():
    script = "/nothink\nWhat is the capital \\\nof France?\n/undo\nWhat is the capital of France?\n"
    result = ds4("chat", "-m", MODEL, *GREEDY, stdin=script.encode())
    assert works(result).decode().count("Paris") == 2
    assert b"> " not in result.stdout and b"\x1b" not in result.stdout
    assert ds4("chat", "-m", MODEL, stdin=b"/nonsense\n").returncode == 1


def claim_no_color_is_honoured():
    c = Chat("run", "-m", MODEL, *GREEDY, "-p", "What is 348 + 276?")
    seen = c.expect("624(?s:.*)/s")
    assert "\x1b[2m" in seen and "<think>" not in seen
    assert c.end() == 0
    c = Chat("run", "-m", MODEL, *GREEDY, "-p", "What is 348 + 276?", env={"NO_COLOR": "1"})
    seen = c.expect("624(?s:.*)tokens .*/s")
    assert re.search("\x1b\\[[0-9;]*m", seen) is None and "<think>" in seen
    assert c.end() == 0


def claim_lines_are_drawn_again_only_where_they_fit():
    question = ["eval", "-m", MODEL, "--nothink", "--only", "arith-1"]
    for columns, term, drawn in ((80, "xterm", True), (20, "xterm", False), (80, "dumb", False)):
        c = Chat(*question, columns=columns, term=term)
        seen = c.expect(r"all +\d+ of")
        assert ("\x1b[1A" in seen or "\x1b[2A" in seen) == drawn, seen
        assert drawn or "\x1b" not in seen
        assert c.end() == 0
    long = pathlib.Path(SCRATCH, "long.txt")
    long.write_text("word " * 8000)
    c = Chat("run", "-m", MODEL, "-c", "20000", "--prompt-file", str(long), "-n", "1", columns=30)
    seen = c.expect(r"prompt tokens")
    bars = re.findall(r"\r(prefill[^\r]*)\x1b\[K", seen)
    assert bars and all(len(re.sub(r"\x1b\[[0-9;]*m", "", bar)) < 30 for bar in bars), bars
    assert c.end() == 0


def claim_lists_have_no_blanks_at_their_ends():
    for args in (["help"], ["pull", "--list"], ["plan", "-m", MODEL], ["inspect", MODEL],
                 ["eval", "--list"]):
        assert not re.search(rb"[ \t]$", works(ds4(*args)), re.M), args


def in_scratch(claim):
    global SCRATCH
    with tempfile.TemporaryDirectory(prefix="ds4-e2e-") as SCRATCH:
        claim()


def main():
    if not os.access(DS4, os.X_OK) or not os.path.exists(MODEL):
        sys.exit(f"{DS4} or {MODEL} is missing")
    return run_claims(globals(), in_scratch, sys.argv[2] if len(sys.argv) > 2 else "")



if __name__ == "__main__":
    sys.exit(main())
