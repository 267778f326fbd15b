#!/usr/bin/env python3
"""bench.py [BUILD_DIR]: ds4 bench's walks, made-up states and pictures.

Claims are functions named claim_*; each may assert several things and counts
once. Uses the bundled model and nothing but the standard library.
"""
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
MODEL = str(ROOT / "models/ds4-tiny.gguf")
SVG = "{http://www.w3.org/2000/svg}"


def bench(*args, status=0):
    done = subprocess.run([str(BUILD / "ds4"), "bench", "--cpu", "-t", "1", *args], capture_output=True, timeout=120,
                          cwd=SCRATCH)
    assert done.returncode == status, (done.returncode, done.stderr[-500:])
    return done.stdout.decode() if status == 0 else done.stderr.decode()


def rows(csv):
    return [line.split(",") for line in csv.splitlines()[1:] if not line.startswith("#")]


def draw(*args):
    """The picture, as XML, and the table."""
    path = os.path.join(SCRATCH, "plot.svg")
    table = rows(bench(*args, "--plot", path))
    return xml.etree.ElementTree.parse(path).getroot(), table


def points(line):
    return [tuple(map(float, p.split(","))) for p in line.get("points").split()]


# ---- walks --------------------------------------------------------------------------------------


def claim_contexts_may_grow_by_a_factor():
    table = rows(bench("-m", MODEL, "--ctx-start", "64", "--ctx-max", "1000", "--step-mul", "3", "--gen-tokens", "2"))
    assert [row[:2] for row in table] == [["64", "64"], ["192", "128"], ["576", "384"]], table
    assert "contradict" in bench("-m", MODEL, "--step-mul", "2", "--step-incr", "5", status=2)


def claim_a_filled_context_reads_only_its_end():
    csv = bench("-m", MODEL, "--ctx-start", "100", "--ctx-max", "25600", "--step-mul", "16", "--fill", "200",
                "--gen-tokens", "2", "--sessions", "2")
    assert csv.splitlines()[1].startswith("# read: the last 200 tokens of each context"), csv
    assert [row[0] for row in rows(csv)] == ["100", "1600", "25600"] * 2
    for ctx, read, _, _, _, kv, _, sessions in rows(csv):
        assert int(read) in range(min(200, int(ctx)) * int(sessions), 328 * int(sessions)), (ctx, read)
    kv = [int(row[5]) for row in rows(csv)]
    assert kv[0] < kv[1] < kv[2], kv


def claim_a_filled_context_is_attended_to():
    """What reads the state does as much as with a state that was computed, op by op."""
    args = ["-m", MODEL, "--ctx-start", "4096", "--ctx-max", "4096", "--gen-tokens", "4", "--ops"]

    def decode(csv):
        text = csv[csv.index("# decode"):]
        return {found[1]: found[2].split() for found in re.finditer(r"^# (\w+) +(\d+ .*)$", text, re.M)}

    real, filled = decode(bench(*args)), decode(bench(*args, "--fill", "128"))
    for op in ("select", "attend"):
        assert real[op][0] == filled[op][0], (real[op], filled[op])           # calls
        assert real[op][-2] == filled[op][-2] != "0.0", (real[op], filled[op])  # millions of products


def synth_with_context(n):
    """A toy whose metadata tells a longer context."""
    path = os.path.join(SCRATCH, "long.gguf")
    subprocess.run([str(BUILD / "ds4"), "synth", "--shape", "mini", "--layers", "3", "--recipe", "f32", "-o", path],
                   capture_output=True, timeout=120, check=True)
    data = bytearray(pathlib.Path(path).read_bytes())
    key = b"deepseek4.context_length"
    at = data.index(key) + len(key)
    assert struct.unpack_from("<I", data, at) == (4,)  # a u32
    struct.pack_into("<I", data, at + 4, n)
    pathlib.Path(path).write_bytes(data)
    return path


def claim_the_end_of_a_million_tokens_equals_the_scalar_kernels():
    last = ["bench", "-m", synth_with_context(1 << 20), "-c", str(1 << 20), "--device", "check:cpu",
            "--ctx-start", "1048572", "--ctx-max", "1048572", "--fill", "16", "--prefill-chunk", "128"]
    for gen, status, says in [("4", 0, r"[1-9]\d+ buffers compared, 0 beyond tolerance"),
                              ("5", 2, r"--ctx 1048576 is less than --ctx-max 1048572 and --gen-tokens 5")]:
        done = subprocess.run([str(BUILD / "ds4"), *last, "--gen-tokens", gen], capture_output=True, timeout=300)
        words = done.stderr.decode()
        assert done.returncode == status and re.search(says, words), (done.returncode, words[-500:])


# ---- pictures -----------------------------------------------------------------------------------


def claim_a_picture_has_a_line_and_a_point_for_each_row():
    svg, table = draw("-m", MODEL, "--ctx-start", "64", "--ctx-max", "256", "--step-mul", "2", "--gen-tokens", "2")
    assert svg.tag == SVG + "svg" and svg.get("viewBox")
    lines = svg.findall(SVG + "polyline")
    assert [len(points(line)) for line in lines] == [3, 3]
    assert len(svg.findall(SVG + "circle")) == 6
    words = [text.text for text in svg.iter(SVG + "text")]
    assert "ds4-tiny" in words and "prefill, tokens/s" in words and "decode, tokens/s" in words, words
    assert all(words.count(tick) == 2 for tick in ("64", "128", "256")), words
    assert "prefers-color-scheme:dark" in svg.find(SVG + "style").text
    for line, column in zip(lines, (2, 4)):
        at = points(line)
        assert at[0][0] < at[1][0] < at[2][0] and abs(at[2][0] - 2 * at[1][0] + at[0][0]) < 0.2
        speeds = [float(row[column]) for row in table]
        higher = [a[1] < b[1] for a in at for b in at]
        assert higher == [a > b for a in speeds for b in speeds] or len(set(speeds)) < 3, (at, speeds)


def claim_sessions_are_lines_of_their_own():
    svg, table = draw("-m", MODEL, "--ctx-start", "64", "--ctx-max", "128", "--step-incr", "64", "--gen-tokens", "2",
                      "--sessions", "3")
    assert len(table) == 4
    lines = svg.findall(SVG + "polyline")
    assert [(line.get("class"), len(points(line))) for line in lines] == [("s0", 2), ("s1", 2)] * 2
    words = [text.text for text in svg.iter(SVG + "text")]
    assert "1 session" in words and "3 sessions" in words


def claim_one_context_is_a_picture_too():
    svg, _ = draw("-m", MODEL, "--ctx-start", "100", "--ctx-max", "100", "--gen-tokens", "2")
    assert [len(points(line)) for line in svg.findall(SVG + "polyline")] == [1, 1]
    for circle in svg.findall(SVG + "circle"):
        assert 0 < float(circle.get("cx")) < 720 and 0 < float(circle.get("cy")) < 560
    where = os.path.join(SCRATCH, "no/such/folder.svg")
    message = bench("-m", MODEL, "--ctx-start", "8", "--ctx-max", "8", "--gen-tokens", "1", "--plot", where, status=1)
    assert "no/such" in message


def claim_a_picture_that_cannot_be_is_said_at_once():
    model = pathlib.Path(SCRATCH, "own.gguf")
    model.write_bytes(pathlib.Path(MODEL).read_bytes())
    for option in "--plot", "--csv":
        for path, words in ("/nowhere/x", "/nowhere/x"), (model, "is read here"):
            run = subprocess.run([str(BUILD / "ds4"), "bench", "-m", str(model), "--cpu", option,
                                  str(path)], capture_output=True, timeout=120, check=False)
            lines = run.stderr.decode().splitlines()
            assert run.returncode == 1 and not run.stdout, run
            assert len(lines) == 1 and words in lines[0], lines
    assert model.read_bytes() == pathlib.Path(MODEL).read_bytes()


def claim_a_models_name_cannot_break_a_picture():
    model, name = os.path.join(SCRATCH, "odd.gguf"), b"synthetic f32, 4 layers, seed 0"
    subprocess.run([str(BUILD / "ds4"), "synth", "--shape", "toy", "--recipe", "f32", "--out", model], check=True,
                   capture_output=True)
    data = pathlib.Path(model).read_bytes()
    assert data.count(name) == 1
    odd = b"<a & \"b\"> \xff\x01 ]]> \xe2\x82\xac"
    pathlib.Path(model).write_bytes(data.replace(name, odd + b"." * (len(name) - len(odd))))
    svg, _ = draw("-m", model, "--ctx-start", "8", "--ctx-max", "8", "--gen-tokens", "1")
    words = [text.text for text in svg.iter(SVG + "text")]
    assert any(word.startswith("<a & \"b\"> \ufffd\ufffd ]]> \u20ac..") for word in words), words


def main():
    return run_claims(globals())



if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as SCRATCH:
        sys.exit(main())
