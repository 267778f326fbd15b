#!/usr/bin/env python3
"""text.py BUILD_DIR [PAIRS]: ds4 tokenize, ds4 render and ds4 parse as a user calls them, with the bundled model.

PAIRS is a folder with the model publisher's own pairs, official_test_input_N.json and
official_test_output_N.txt, which are not ours to distribute.
"""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DS4 = str(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve() / "ds4")
MODEL = ["-m", str(ROOT / "models/ds4-tiny.gguf")]
passed = failed = 0


def ds4(command, *args, stdin=b""):
    return subprocess.run([DS4, command, *MODEL, *args], input=stdin, capture_output=True,
                          timeout=60, check=False)


def claim(name, holds, run=None):
    global passed, failed
    if holds:
        passed += 1
        return
    failed += 1
    print(f"FAILED: {name}", *([] if run is None else [run.returncode, run.stdout[:300], run.stderr]))


def fails_in_one_line(run, status):
    return run.returncode == status and not run.stdout and run.stderr.count(b"\n") == 1


def test_tokenize():
    text = "Hello, world!\n\n  12345 <think> caffè 中文 \U0001f98a".encode()
    plain = ds4("tokenize", "-", stdin=text)
    special = ds4("tokenize", "--special", "-", stdin=text)
    claim("ids are a JSON array", all(isinstance(i, int) for i in json.loads(plain.stdout)), plain)
    claim("--special finds control tokens",
          len(json.loads(special.stdout)) < len(json.loads(plain.stdout)), special)
    for run in plain, special:
        back = ds4("tokenize", "--decode", "-", stdin=run.stdout)
        claim("--decode gives the text back", back.stdout == text and back.returncode == 0, back)
    stray = bytes(range(256))
    ids = ds4("tokenize", "-", stdin=stray).stdout
    claim("any bytes come back", ds4("tokenize", "--decode", "-", stdin=ids).stdout == stray)
    claim("an argument is text", ds4("tokenize", "Hello").stdout == ds4("tokenize", "-", stdin=b"Hello").stdout)
    claim("no text, no ids", json.loads(ds4("tokenize", "").stdout) == [])
    readme = str(ROOT / "LICENSE")
    claim("--file reads a file", ds4("tokenize", "--file", readme).stdout ==
          ds4("tokenize", "-", stdin=pathlib.Path(readme).read_bytes()).stdout)


def test_wrong_use():
    for args in [], ["a", "--file", "b"], ["--special", "--decode", "[1]"], ["--nonsense", "a"]:
        run = ds4("tokenize", *args)
        claim(f"tokenize {args} is wrong usage", run.returncode == 2 and run.stderr, run)
    for ids in "[4096]", "[-1]", "[1.5]", '["a"]', "{}", "[1", "":
        run = ds4("tokenize", "--decode", ids)
        claim(f"tokenize --decode {ids} fails in one line", fails_in_one_line(run, 1), run)
    run = ds4("tokenize", "--file", "/nonexistent")
    claim("a missing file is named", fails_in_one_line(run, 1) and b"/nonexistent" in run.stderr, run)
    run = subprocess.run([DS4, "tokenize", "-m", str(ROOT / "LICENSE"), "a"], capture_output=True,
                         check=False)
    claim("a file that is no model is named", fails_in_one_line(run, 1) and b"LICENSE" in run.stderr, run)
    claim("render takes no unknown API", ds4("render", "--api", "telegraph").returncode == 2)
    for request in b"", b"{", b"[]", b"{}", b'{"messages":[{"role":"judge"}]}', b"\xff\x00":
        run = ds4("render", stdin=request)
        claim(f"render of {request} fails in one line", fails_in_one_line(run, 1), run)


def test_chat():
    request = json.dumps({"think": False, "messages": [{"role": "user", "content": "Hello!"}]}).encode()
    text, ids = ds4("render", stdin=request), ds4("render", "--ids", stdin=request)
    claim("a chat request is rendered", text.stdout.decode() ==
          "<｜begin▁of▁sentence｜><｜User｜>Hello!<｜Assistant｜></think>", text)
    claim("--ids are the text's", json.loads(ids.stdout) ==
          json.loads(ds4("tokenize", "--special", "-", stdin=text.stdout).stdout), ids)


def test_native():
    for path in sorted((ROOT / "tests/data/encoding").glob("enc_*.json")):
        case = json.loads(path.read_bytes())
        for release in case["releases"]:
            run = ds4("render", "--api", "native", "--release", release, stdin=path.read_bytes())
            if "error" in case:
                claim(f"{path.name} {release}: is an error", fails_in_one_line(run, 1), run)
            else:
                claim(f"{path.name} {release}", run.returncode == 0 and
                      run.stdout.decode() == case["expected"], run)


def test_official(folder):
    for number, mode in (1, "thinking"), (2, "thinking"), (3, "thinking"), (4, "chat"):
        case = json.loads((folder / f"official_test_input_{number}.json").read_bytes())
        messages = case if isinstance(case, list) else case["messages"]
        if isinstance(case, dict) and case.get("tools"):
            messages[0]["tools"] = case["tools"]
        run = ds4("render", "--api", "native",
                  stdin=json.dumps({"messages": messages, "thinking_mode": mode}).encode())
        want = (folder / f"official_test_output_{number}.txt").read_bytes()
        claim(f"official pair {number}", run.stdout == want, run)


def parse(*args, stdin):
    return subprocess.run([DS4, "parse", *args], input=stdin, capture_output=True, timeout=60,
                          check=False)


def test_parse():
    for path in sorted((ROOT / "tests/data/encoding").glob("parse_*.json")):
        case = json.loads(path.read_bytes())
        text, mode = case["text"].encode(), ["--mode", case["thinking_mode"]]
        strict = parse("--strict", *mode, stdin=text)
        if "error" in case:
            claim(f"{path.name} --strict is an error", fails_in_one_line(strict, 1), strict)
            run = parse(*mode, stdin=text)
            claim(f"{path.name} is told somehow", run.returncode == 0 and json.loads(run.stdout), run)
            continue
        want = {"reasoning_content": case["result"]["reasoning_content"],
                "content": case["result"]["content"],
                "tool_calls": [call["function"] for call in case["result"]["tool_calls"]]}
        claim(f"{path.name} --strict", strict.returncode == 0 and json.loads(strict.stdout) == want,
              strict)
        for cut in "1", "7", "100000":
            run = parse(*mode, "--cut", cut, stdin=text)
            claim(f"{path.name} --cut {cut}", run.returncode == 0 and json.loads(run.stdout) == want,
                  run)
    run = parse("--mode", "thinking", "--events", "--cut", "2", stdin="hm</think>é".encode())
    events = [json.loads(line) for line in run.stdout.splitlines()]
    claim("--events tells it in pieces", events == [{"event": "reasoning", "text": "hm"},
                                                    {"event": "text", "text": "é"}], run)
    claim("nothing is an empty answer", json.loads(parse(stdin=b"").stdout) ==
          {"reasoning_content": "", "content": "", "tool_calls": []})
    for args in ["--strict", "--events"], ["--strict", "--cut", "3"], ["--cut", "0"], ["--mode", "x"]:
        run = parse(*args, stdin=b"x")
        claim(f"parse {args} is wrong usage", run.returncode == 2 and run.stderr, run)


test_tokenize()
test_wrong_use()
test_chat()
test_native()
test_parse()
if len(sys.argv) > 2:
    test_official(pathlib.Path(sys.argv[2]))
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
