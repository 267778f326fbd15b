#!/usr/bin/env python3
"""passport.py BUILD_DIR: tools/passport judges recipes beside F32, files beside vectors, and goes on
from what it has measured."""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
MODEL = ROOT / "models/ds4-tiny.gguf"


def passport(*args):
    return subprocess.run([sys.executable, str(ROOT / "tools/passport"), "--build", str(BUILD),
                           "--work", str(SCRATCH / "work"), "--threads", "1",
                           "--cases", str(SCRATCH / "cases"), *map(str, args)],
                          capture_output=True, timeout=300, check=False)


def rows(run):
    assert run.returncode == 0, run.stderr[-800:]
    lines = run.stdout.decode().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def claim_recipes_are_judged_beside_f32():
    args = ["--in", MODEL, "--recipes", "f32,q8,q2+imatrix", "--backends", "cpu,cpu-exact",
            "--imatrix-texts", SCRATCH / "text", "--eval", "-n 60 --only arith"]
    head, rule, *body = rows(passport(*args))
    assert head[:7] == ["recipe", "backend", "MB", "NLL", "more than the reference", "KL", "top-1 %"]
    assert set(rule) == {"---"} and len(body) == 6 and all(len(r) == len(head) for r in body)
    assert [r[:2] for r in body] == [[r, b] for r in ("f32", "q8", "q2+imatrix")
                                     for b in ("cpu", "cpu-exact")]
    assert body[1][4:7] == ["+0.0000 ± 0.0000", "0.00000", "100.00"]
    assert body[0][7].endswith("/12") and "(-" in body[2][7] and body[0][8] == body[0][7]
    sizes = [float(r[2]) for r in body]
    assert sizes[0] > sizes[2] > sizes[4]
    assert float(body[4][5]) > 0 and float(body[4][6]) > 90
    start = time.monotonic()
    again = passport(*args)
    assert rows(again) == [head, rule, *body] and again.stderr == b"", again.stderr
    assert time.monotonic() - start < 20


def claim_what_was_measured_of_another_input_is_not_believed():
    source = SCRATCH / "source.gguf"
    args = ["--in", source, "--recipes", "q8", "--eval", "none"]
    found = []
    for recipe in ("mxfp4", "q4"):
        subprocess.run([str(BUILD / "ds4"), "quantize", "--in", str(MODEL), "--recipe", recipe, "--out",
                        str(source)], check=True, capture_output=True)
        found.append(rows(passport(*args))[2])
        assert rows(passport(*args))[2] == found[-1]
    assert found[0][3] != found[1][3], found
    cases = SCRATCH / "cases"
    kept = cases.read_bytes()
    cases.write_bytes(b"\n".join(kept.splitlines()[:7]) + b"\n")
    fewer = rows(passport(*args))[2]
    cases.write_bytes(kept)
    assert fewer[3] != found[1][3], fewer


def claim_files_are_judged_beside_vectors():
    step = {"token": 17, "logprob": -0.7, "top": [[17, -0.7], [18, -1.2]]}
    vectors = SCRATCH / "vectors"
    vectors.write_text(json.dumps({"prompt_ids": [0], "tokens": [step, {"token": 18}]}), "utf-8")
    run = passport("--model", MODEL, "--vectors", vectors, "--eval", "none")
    *_, row = rows(run)
    assert row[0] == "ds4-tiny.gguf" and len(row) == 7 and float(row[5]) > 0
    out = SCRATCH / "table.md"
    assert passport("--model", MODEL, "--vectors", vectors, "--eval", "none", "--out", out
                    ).stdout == b""
    assert out.read_text("utf-8") == run.stdout.decode()


def claim_mistakes_are_said():
    for args, word in (([], "--in"), (["--model", MODEL], "--vectors"),
                       (["--in", MODEL, "--recipes", "q9"], "quantize"),
                       (["--in", MODEL, "--recipes", "q2+more"], "q2+more")):
        run = passport(*args)
        assert run.returncode == 1 and word in run.stderr.decode().splitlines()[-1], run.stderr
    assert passport("--in", MODEL, "--backends", "tpu").returncode == 2


def main():
    (SCRATCH / "text").write_text("It rained, and the harbor was quiet. " * 40, "utf-8")
    lines = (ROOT / "tests/data/tiny/heldout.jsonl").read_text("utf-8").splitlines()
    (SCRATCH / "cases").write_text("\n".join(lines[:20]) + "\n", "utf-8")
    return run_claims(globals())



if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        SCRATCH = pathlib.Path(folder)
        sys.exit(main())
