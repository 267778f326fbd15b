#!/usr/bin/env python3
"""judge.py BUILD_DIR: ds4 score and ds4 verify beside numbers computed here from ds4 logits."""
import json
import math
import os
import pathlib
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time

import _signals
from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DS4 = str(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve() / "ds4")
MODEL = ["-m", str(ROOT / "models/ds4-tiny.gguf"), "-t", "1", "--cpu"]
VOCAB, BOS = 4096, 0
TEXT = ("It is a truth universally acknowledged, that a single man in possession of a good fortune, "
        "must be in want of a wife. However little known the feelings or views of such a man may be "
        "on his first entering a neighbourhood, this truth is so well fixed in the minds of the "
        "surrounding families, that he is considered the rightful property of some one or other of "
        "their daughters. <think> 12 + 30 = 42.\n")


def ds4(command, *args, stdin=b"", model=True):
    return subprocess.run([DS4, command, *(MODEL if model else []), *map(str, args)], input=stdin,
                          capture_output=True, timeout=120, check=False)


def works(run):
    assert run.returncode == 0, (run.returncode, run.stderr[-500:])
    return run.stdout


def fails(run, status, *words):
    lines = run.stderr.decode().splitlines()
    assert run.returncode == status, (run.returncode, lines)
    assert len(lines) == 1 and lines[0].startswith("ds4: "), lines
    assert all(word in lines[0] for word in words), (words, lines[0])


def file(name, content):
    path = pathlib.Path(SCRATCH, name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tokenize(text):
    return json.loads(works(subprocess.run([DS4, "tokenize", *MODEL[:2], "-"], input=text.encode(),
                                           capture_output=True, timeout=60, check=False)))


def logprobs(ids):
    """Of every row: a list of log probabilities."""
    out = pathlib.Path(SCRATCH, "logits")
    works(ds4("logits", "--tokens", "-", "--out", out, stdin=json.dumps(ids).encode()))
    data = out.read_bytes()
    rows = []
    for at in range(0, len(data), 4 * VOCAB):
        row = struct.unpack(f"<{VOCAB}f", data[at:at + 4 * VOCAB])
        most = max(row)
        norm = most + math.log(math.fsum(math.exp(x - most) for x in row))
        rows.append([x - norm for x in row])
    return rows


def near(a, b, tolerance=1e-5):
    assert abs(a - b) <= tolerance, (a, b)


# ---- score --------------------------------------------------------------------------------


def claim_score_is_the_mean_of_logits():
    ids = tokenize(TEXT)
    rows = logprobs([BOS] + ids)
    nll = [-rows[i][t] for i, t in enumerate(ids)]
    path = file("text", TEXT)
    got = json.loads(works(ds4("score", "--json", path)))
    assert got["model"] == "ds4-tiny" and got["texts"][0]["name"] == str(path)
    total = got["total"]
    assert total["tokens"] == len(ids) and total["bytes"] == len(TEXT)
    near(total["nll"], sum(nll) / len(nll))
    near(math.log(total["perplexity"]), total["nll"])
    near(total["bits_per_byte"], sum(nll) / math.log(2) / len(TEXT))
    near(total["top1"], sum(max(r) == r[t] for r, t in zip(rows, ids)) / len(ids))
    assert json.loads(works(ds4("score", "--json", stdin=TEXT.encode())))["total"] == total
    assert json.loads(works(ds4("score", "--json", "--prefill-chunk", 7, path)))["total"] == total


def claim_score_prints_each_token():
    ids = tokenize(TEXT)
    rows = logprobs([BOS] + ids)
    lines = works(ds4("score", "--tsv", file("text", TEXT))).decode().splitlines()
    assert lines[0] == "text\tposition\tid\tnll\trank\ttoken" and len(lines) == 1 + len(ids)
    for i, line in enumerate(lines[1:]):
        _, position, token, nll, rank, text = line.split("\t")
        assert (int(position), int(token)) == (i, ids[i])
        near(float(nll), -rows[i][ids[i]])
        assert int(rank) == sum(x > rows[i][ids[i]] for x in rows[i])
        json.loads(text)
    assert "".join(json.loads(line.split("\t")[5]) for line in lines[1:]) == TEXT


def claim_windows_count_every_token_once_with_context():
    ids = tokenize(TEXT)
    context, overlap = 40, 10
    nll, start = {}, 0
    while len(nll) < len(ids):
        part = ids[start:start + context]
        rows = logprobs([BOS] + part)
        for i, t in enumerate(part):
            nll.setdefault(start + i, -rows[i][t])
        start += len(part) - overlap
    path = file("text", TEXT)
    args = ["score", "-c", context, "--overlap", overlap, path]
    lines = works(ds4(*args, "--tsv")).decode().splitlines()[1:]
    assert [int(line.split("\t")[1]) for line in lines] == list(range(len(ids)))
    for line in lines:
        near(float(line.split("\t")[3]), nll[int(line.split("\t")[1])])
    fails(ds4("score", "-c", 40, "--overlap", 40, path), 1, "--overlap 40", "40")


def claim_several_texts_add_up():
    a, b = file("a", TEXT[:100]), file("b", TEXT[100:])
    got = json.loads(works(ds4("score", "--json", a, b)))
    parts = got["texts"]
    assert len(parts) == 2 and got["total"]["tokens"] == sum(p["tokens"] for p in parts)
    near(got["total"]["nll"], sum(p["nll"] * p["tokens"] for p in parts) / got["total"]["tokens"])
    assert len(works(ds4("score", a, b)).splitlines()) == 4


def claim_a_manifest_scores_continuations():
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    prompt = works(subprocess.run(
        [DS4, "render", "--ids", "--api", "native", *MODEL[:2]], capture_output=True, timeout=60,
        input=json.dumps({"messages": question, "thinking_mode": "chat"}).encode(), check=False))
    prompt, answer = json.loads(prompt), tokenize("5 is the sum.")
    rows = logprobs(prompt + answer)[len(prompt) - 1:]
    cases = [{"id": "sum", "messages": question, "continuation": "5 is the sum."},
             {"prompt_ids": prompt, "tokens": [{"token": t} for t in answer]}]
    path = file("cases", "\n".join(map(json.dumps, cases)))
    got = json.loads(works(ds4("score", "--json", "--manifest", path)))
    assert [c["id"] for c in got["cases"]] == ["sum", "2"]
    best = [max(r) == r[t] for r, t in zip(rows, answer)]
    for c in got["cases"]:
        assert c["tokens"] == len(answer) and c["first"] == best[0]
        assert c["greedy"] == (best + [False]).index(False)
        near(c["nll"], -sum(r[t] for r, t in zip(rows, answer)) / len(answer))
    assert got["total"]["cases"] == 2


def claim_names_cannot_break_a_table():
    case = {"id": "a\tb\n\x1b[31m", "prompt": "x", "continuation": "y"}
    path = file("names", json.dumps(case))
    for command, option in ("score", "--manifest"), ("verify", "--vectors"):
        lines = works(ds4(command, option, path)).split(b"\n")
        assert lines[1].endswith(b"  a?b??[31m"), lines
    tsv = works(ds4("score", "--tsv", "--manifest", path)).split(b"\n")
    assert tsv[1].startswith(b"a?b??[31m\t0\t"), tsv


# ---- verify -------------------------------------------------------------------------------


def claim_a_model_agrees_with_itself():
    vectors = pathlib.Path(SCRATCH, "own")
    score = json.loads(works(ds4("score", "--json", "--vectors", vectors, file("text", TEXT))))
    got = json.loads(works(ds4("verify", "--json", "--vectors", vectors, "--max-kl", 1e-6,
                               "--min-top1", 1, "--max-delta", 1e-4)))["total"]
    assert got["top1"] == 1 and got["kl"] < 1e-7 and got["delta"] < 1e-5
    near(got["nll"], score["total"]["nll"])
    near(got["ref_nll"], score["total"]["nll"])


def claim_kl_is_over_the_named_tokens_and_the_rest():
    ids = tokenize(TEXT)[:30]
    rows = logprobs([BOS] + ids)
    steps, kl, same = [], 0, 0
    for i, t in enumerate(ids):
        named = {t: math.log(0.5), (t + 1) % VOCAB: math.log(0.2)}
        steps.append({"token": t, "logprob": named[t], "top": [[k, v] for k, v in named.items()]})
        kl += sum(math.exp(q) * (q - rows[i][k]) for k, q in named.items())
        kl += 0.3 * math.log(0.3 / (1 - sum(math.exp(rows[i][k]) for k in named)))
        same += max(rows[i]) == rows[i][t]
    path = file("made", json.dumps({"prompt_ids": [BOS], "tokens": steps}))
    got = json.loads(works(ds4("verify", "--json", "--vectors", path)))["total"]
    near(got["kl"], kl / len(ids), 1e-4)
    near(got["top1"], same / len(ids))
    near(got["ref_nll"], math.log(2))
    near(got["delta"], max(abs(v - rows[i][k]) for i, s in enumerate(steps) for k, v in s["top"]),
         1e-4)


def claim_limits_decide_the_status():
    vectors = pathlib.Path(SCRATCH, "own")
    works(ds4("score", "--vectors", vectors, file("text", TEXT)))
    args = ["verify", "--vectors", vectors, "--rounding", "off"]
    works(ds4(*args))
    for limit, name in ((("--max-kl", 1e-6), "KL is"), (("--min-top1", 1), "top1 is"),
                        (("--max-delta", 1e-3), "delta is")):
        run = ds4(*args, *limit)
        fails(run, 1, name, limit[0])
        assert run.stdout.count(b"\n") == 3
    silent = file("silent", json.dumps({"prompt_ids": [0], "continuation": "x"}))
    assert works(ds4("verify", "--vectors", silent)).split(b"\n")[1].split()[5] == b"-"
    assert json.loads(works(ds4("verify", "--json", "--vectors", silent)))["total"]["delta"] is None
    for limit in ("--max-kl", "--max-delta"):   # nothing measured is nothing that passes
        fails(ds4("verify", "--vectors", silent, limit, 4), 1, limit, "no probabilities")


def claim_official_vectors_are_compared():
    pathlib.Path(SCRATCH, "prompts").mkdir(exist_ok=True)
    file("prompts/sum.txt", "What is 2 + 3?")
    own = json.loads(works(ds4("run", "--json", "--nothink", "--temp", 0, "-p", "What is 2 + 3?")))
    first = tokenize(own["text"])[0]
    token = works(subprocess.run([DS4, "tokenize", *MODEL[:2], "--decode", f"[{first}]"],
                                 capture_output=True, timeout=60, check=False)).rstrip(b"\n").hex()
    lines = f"case sum 4096 1 tests/test-vectors/prompts/sum.txt\nstep 0 {token} 2\n" \
            f"top {token} 0\ntop 21 -9999\nend\n"
    path = file("official.vec", lines)
    got = json.loads(works(ds4("verify", "--json", "--vectors", path, "--max-delta", 4,
                               "--min-top1", 1)))
    assert got["cases"][0]["id"] == "sum" and got["total"]["top1"] == 1
    assert got["total"]["kl"] is None and got["total"]["ref_nll"] is None
    fails(ds4("verify", "--vectors", path, "--max-kl", 1), 1, "no probabilities")
    fails(ds4("verify", "--vectors", file("lost.vec", lines.replace("sum.txt", "lost.txt"))), 1,
          "lost.txt", "not there")


def claim_vectors_of_others_are_refused():
    steps = [{"token": 17}]
    lines = json.dumps({"ds4_vectors": 1, "model": "deepseek-v4-flash"}) + "\n" + \
        json.dumps({"prompt_ids": [BOS], "tokens": steps})
    path = file("others", lines)
    fails(ds4("verify", "--vectors", path), 1, "deepseek-v4-flash", "ds4-tiny", "--any-model")
    works(ds4("verify", "--any-model", "--vectors", path))
    for case, why in (({"prompt_ids": [BOS], "tokens": [{"token": 4096}]}, "token 4096"),
                      ({"prompt_ids": [9999], "tokens": steps}, "token 9999"),
                      ({"prompt": "x", "tokens": [{"token": "ff00ff00"}]}, "ff00ff00"),
                      ({"prompt_ids": [BOS] * 99, "tokens": steps}, "--ctx")):
        fails(ds4("verify", "-c", 64, "--vectors", file("bad", json.dumps(case))), 1, why)


# ---- imatrix ------------------------------------------------------------------------------


def matrices(path):
    """An importance file as {name: (sums, counts)}, read by its GGUF header here."""
    data = pathlib.Path(path).read_bytes()
    version, tensors, keys, at = *struct.unpack_from("<IQQ", data, 4), 24
    assert data[:4] == b"GGUF" and version == 3

    def text():
        nonlocal at
        n, = struct.unpack_from("<Q", data, at)
        at += 8 + n
        return data[at - n:at].decode()

    def value(kind):
        nonlocal at
        if kind == 8:
            return text()
        if kind == 9:
            inner, n = struct.unpack_from("<IQ", data, at)
            at += 12
            return [value(inner) for _ in range(n)]
        size = {4: "I", 5: "i", 10: "Q"}[kind]
        got, = struct.unpack_from("<" + size, data, at)
        at += struct.calcsize(size)
        return got

    facts, found = {}, {}
    for _ in range(keys):
        name = text()
        kind, = struct.unpack_from("<I", data, at)
        at += 4
        facts[name] = value(kind)
    places = []
    for _ in range(tensors):
        name = text()
        n, = struct.unpack_from("<I", data, at)
        dims = struct.unpack_from(f"<{n}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n)
        assert kind == 0
        at += 16 + 8 * n
        places.append((name, math.prod(dims), offset))
    base = (at + 31) // 32 * 32
    for name, n, offset in places:
        found[name] = struct.unpack_from(f"<{n}f", data, base + offset)
    return facts, found


def claim_importance_counts_every_routed_row():
    ids, out = tokenize(TEXT), pathlib.Path(SCRATCH, "i.gguf")
    works(ds4("imatrix", "-o", out, "--chunk", 40, file("text", TEXT)))
    facts, found = matrices(out)
    chunks = -(-len(ids) // 40)
    assert facts["general.type"] == "imatrix" and facts["imatrix.chunk_count"] == chunks
    assert facts["imatrix.chunk_size"] == 40 and len(found) == 2 * 3 * 8
    for layer in range(8):
        counts = [found[f"blk.{layer}.ffn_{m}_exps.weight.counts"] for m in ("gate", "up", "down")]
        assert counts[0] == counts[1] == counts[2]
        assert sum(counts[0]) == 2 * (len(ids) + chunks)  # two experts a row, a mark a chunk
        for m in ("gate", "up", "down"):
            sums = found[f"blk.{layer}.ffn_{m}_exps.weight.in_sum2"]
            assert len(sums) == 8 * 256 and min(sums) >= 0
            for e, n in enumerate(counts[0]):
                assert (sum(sums[256 * e:256 * e + 256]) > 0) == (n > 0)
        assert found[f"blk.{layer}.ffn_gate_exps.weight.in_sum2"] == \
            found[f"blk.{layer}.ffn_up_exps.weight.in_sum2"]


def claim_parts_of_a_collection_add_up():
    a, b = file("a", TEXT[:200]), file("b", TEXT[200:])
    one, two, both, sum_, old = (pathlib.Path(SCRATCH, n) for n in
                                 ("1.gguf", "2.gguf", "12.gguf", "sum.gguf", "old.dat"))
    works(ds4("imatrix", "-o", one, a))
    works(ds4("imatrix", "-o", two, b))
    works(ds4("imatrix", "-o", both, a, b))
    works(ds4("imatrix", "-o", sum_, "--merge", one, "--merge", two, model=False))
    works(ds4("imatrix", "-o", old, "--merge", both, model=False))
    whole, added = matrices(both), matrices(sum_)
    assert whole[0]["imatrix.chunk_count"] == added[0]["imatrix.chunk_count"] == 2
    for name, values in whole[1].items():
        for x, y in zip(values, added[1][name]):
            near(x, y, 1e-5 * max(abs(x), 1e-3))
    assert struct.unpack_from("<I", old.read_bytes())[0] == 24
    assert b"blk.7.ffn_down_exps.weight" in old.read_bytes()


def claim_a_collection_goes_on_where_it_stopped():
    text, whole, part = file("long", TEXT * 60), pathlib.Path(SCRATCH, "whole.gguf"), \
        pathlib.Path(SCRATCH, "part.gguf")
    works(ds4("imatrix", "-o", whole, "--chunk", 64, "--chunks", 60, text))
    child = subprocess.Popen([DS4, "imatrix", *MODEL, "-o", part, "--chunk", "64", "--chunks", "60",
                              "--save-every", "2", text], stderr=subprocess.PIPE)
    while not part.exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    err = child.communicate(timeout=60)[1]
    assert child.returncode in (0, 130), err
    stopped = matrices(part)[0]["imatrix.chunk_count"]
    assert (child.returncode == 130) == (stopped < 60) and b"60 chunks are in" in err
    works(ds4("imatrix", "-o", part, "--chunk", 64, "--chunks", 60, "--resume", text))
    a, b = matrices(whole), matrices(part)
    assert a[0] == b[0]
    for name, values in a[1].items():
        for x, y in zip(values, b[1][name]):
            near(x, y, 1e-5 * max(abs(x), 1e-3))
    fails(ds4("imatrix", "-o", part, "--chunk", 32, "--resume", text), 1, "other texts", "--merge")
    for change in (lambda: None, lambda: text.write_bytes(text.read_bytes().replace(b"truth", b"story"))):
        works(ds4("imatrix", "-o", part, "--chunk", 64, "--chunks", 2, text))
        change()
        run = ds4("imatrix", "-o", part, "--chunk", 64, "--chunks", 4, "--resume", text)
    fails(run, 1, "other texts, by another model")   # the last time it had changed
    works(ds4("imatrix", "-o", part, "--chunk", 64, "--chunks", 2, text))
    fails(ds4("imatrix", "-o", part, "--chunk", 64, "--rounding", "off", "--resume", text), 1,
          "another model")


def claim_an_importance_serves_quantize():
    out, small = pathlib.Path(SCRATCH, "i2.gguf"), pathlib.Path(SCRATCH, "q2.gguf")
    works(ds4("imatrix", "-o", out, file("text", TEXT * 20)))
    works(ds4("quantize", "--in", MODEL[1], "--recipe", "q2", "--imatrix", out, "--out", small,
              model=False))
    assert small.stat().st_size > 1e6


def claim_the_examination_is_no_text_to_collect_from():
    out = pathlib.Path(SCRATCH, "never.gguf")
    text = file("exam", TEXT + "Start a timer for 12 minutes.\n")
    fails(ds4("imatrix", "-o", out, file("a", TEXT), text), 1, str(text), "tool-5")
    listed = works(subprocess.run([DS4, "eval", "--list", "--set", "7", "--only", "string-4"],
                                  capture_output=True, timeout=60, check=False))
    other = file("other", TEXT + listed.decode().split("\t")[2])
    fails(ds4("imatrix", "-o", out, other), 1, str(other), "string-4")
    assert not out.exists()
    fails(ds4("imatrix", text), 2, "--out")
    fails(ds4("imatrix", "-o", out), 2, "--merge")
    fails(ds4("imatrix", "-o", "x.dat", "--resume", text), 2, "--resume", "x.dat")
    fails(subprocess.run([DS4, "imatrix", "-o", out, "--cuda", text], capture_output=True,
                         timeout=60, check=False), 2, "CPU", "cuda")


def claim_mistakes_are_one_line():
    fails(ds4("verify"), 2, "--vectors")
    fails(ds4("verify", "--vectors", file("bad", "{\n")), 1, "bad, line 1")
    fails(ds4("verify", "--vectors", "/nowhere"), 1, "/nowhere")
    fails(ds4("score", "/nowhere"), 1, "/nowhere")
    fails(ds4("score", file("empty", "")), 1, "no text")
    fails(ds4("score", "--manifest", "x", "y"), 2, "--manifest")
    fails(ds4("score", "--tsv", "--json"), 2, "--tsv")
    fails(ds4("score", "--top", 5, "x"), 2, "--top", "--vectors")
    fails(ds4("score", "--manifest", "x", "--overlap", 5), 2, "--overlap", "--manifest")
    fails(ds4("imatrix", "-o", "x", "--merge", "y"), 2, "--merge opens no model")
    fails(ds4("imatrix", "-o", "x", "-c", 512, "y"), 2, "--ctx 513", "512")
    for option in (["--chunk", 64], ["--chunks", 1], ["--save-every", 1], ["--resume"], ["--special"]):
        fails(ds4("imatrix", "-o", "x", "--merge", "y", *option, model=False), 2, "--merge")


def claim_what_cannot_be_written_is_said_before_the_work():
    text = file("long", TEXT * 400)
    for args in (["imatrix", "-o"], ["score", "--vectors"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        fails(ds4(*args, "/nowhere/x", text), 1, "/nowhere/x")
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    fails(ds4("logits", "--tokens", file("ids", "[1]"), "--out", "/nowhere/x"), 1, "/nowhere/x")
    fails(ds4("eval", "--state", "/nowhere/x"), 1, "/nowhere/x")   # one line: no model was opened
    out = pathlib.Path(SCRATCH, "tried.gguf")
    fails(ds4("imatrix", "-o", out, "/nowhere"), 1, "/nowhere")
    assert not list(pathlib.Path(SCRATCH).glob("tried*"))


def claim_nothing_is_written_over_what_is_read():
    text, ids, model = file("read", TEXT), file("ids", "[1, 2]"), pathlib.Path(SCRATCH, "own.gguf")
    model.write_bytes(pathlib.Path(MODEL[1]).read_bytes())
    link = pathlib.Path(SCRATCH, "link")
    link.symlink_to(text)
    kept = [(p, p.read_bytes()) for p in (text, ids, model)]
    for out, args in ((text, ["imatrix", text]), (link, ["imatrix", file("a", TEXT), text]),
                      (model, ["imatrix", text]), (text, ["score", text]), (model, ["score", text]),
                      (text, ["score", "--manifest", text]), (ids, ["logits", "--tokens", ids]),
                      (model, ["logits", "--tokens", ids])):
        option = "--vectors" if args[0] == "score" else "--out"
        run = ds4(*args, option, out, "-m", model, "--cpu", model=False)
        fails(run, 1, str(out), "is read here")
    assert all(p.read_bytes() == data for p, data in kept)


def claim_ctrl_c_ends_score_with_130():
    path = file("long", TEXT * 400)
    child = subprocess.Popen([DS4, "score", *MODEL, "-c", "4096", path], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    _signals.heard(child)
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and out == b"" and b"interrupted" in err, (out, err)


def main():
    return run_claims(globals())



if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory() as SCRATCH:
        sys.exit(main())
