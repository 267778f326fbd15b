#!/usr/bin/env python3
"""kv.py BUILD_DIR: ds4 kv as a user calls it, on folders that the store's own test program fills.

Chunk files are read here by docs/KVSTORE.md alone, so that the page and the program agree.
"""
import fcntl
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build").resolve()
MODEL = str(ROOT / "models/ds4-tiny.gguf")
FILLER = BUILD / "tests/unit/store-faults"


def kv(*args, folder=None):
    where = ["--kv-disk-dir", str(folder)] if folder else []
    return subprocess.run([str(BUILD / "ds4"), "kv", *args, *where], capture_output=True, timeout=60)


def works(run):
    assert run.returncode == 0 and not run.stderr, (run.returncode, run.stderr)
    return run.stdout.decode("utf-8", "replace")


def fails(run, status, *words):
    lines = run.stderr.decode().splitlines()
    assert run.returncode == status and not run.stdout, (run.returncode, run.stdout, lines)
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines


def fill(folder, vocab=1000):
    subprocess.run([str(FILLER), "fill", str(folder), str(vocab)], check=True, timeout=60)


def listed(folder):
    return json.loads(works(kv("ls", "--json", folder=folder)))


def children(chunks, parent):
    return [c for c in chunks if c["parent"] == parent]


# ---- the layout, from docs/KVSTORE.md -------------------------------------------------------


def parse(path):
    """The header's fields and the tokens of a chunk file."""
    data = path.read_bytes()
    magic, version, numerics, model, name, parent, first, n, rows, mark, created = \
        struct.unpack("<8sII32s20s20sIIQQq", data[:120])
    assert magic == b"DS4CHUNK" and version == 1, (magic, version)
    end = 152 + 4 * n + 8 + rows + 8 + mark + 8
    assert end == len(data), (end, len(data))
    tokens = data[152:152 + 4 * n]
    return {"numerics": numerics, "model": model, "name": name.hex(), "parent": parent.hex(),
            "first": first, "last": first + n, "tokens": tokens, "rows": rows, "mark": mark,
            "created": created}


def claim_the_files_are_as_documented(folder):
    chunks = {c["id"]: c for c in listed(folder)["chunks"]}
    files = sorted(folder.glob("*.kv"))
    assert len(files) == len(chunks) == 11, (len(files), len(chunks))
    for file in files:
        f = parse(file)
        c = chunks[file.stem]
        text = f["parent"].encode() + f["model"] + struct.pack("<I", f["numerics"]) + f["tokens"]
        assert hashlib.sha1(text).hexdigest() == f["name"] == file.stem
        assert (c["parent"] or 40 * "0") == f["parent"]
        assert (c["first"], c["last"], c["bytes"]) == (f["first"], f["last"], file.stat().st_size)
        assert (c["rows_bytes"], c["mark_bytes"]) == (f["rows"], f["mark"])
        assert c["model"] == f["model"].hex() and c["rounded"] == bool(f["numerics"] >> 31)
        assert file.stat().st_mode & 0o777 == 0o600


# ---- ls and show -------------------------------------------------------------------------------


def claim_ls_shows_a_tree_and_what_else_is_there(folder):
    (folder / "notes.txt").write_bytes(b"x" * 5000)
    (folder / ("ab" * 20 + ".kv.tmp-7")).write_bytes(b"half")
    text = works(kv("ls", folder=folder))
    lines = text.splitlines()
    assert lines[0].startswith("model 0101") and "11 chunks" in text, text
    assert "1 foreign, 5.0 kB" in text and "1 half-written" in text and "1 journal" in text, text
    assert "damaged" not in text
    rows = [line for line in lines[2:] if line and line.lstrip()[:12].isalnum() and "kB" in line][:11]
    depths = [len(row) - len(row.lstrip()) for row in rows]
    assert depths[:2] == [0, 0] and set(depths[2:]) == {2}, depths
    data = listed(folder)
    assert data["foreign"] == {"files": 1, "bytes": 5000} and data["damaged"] == []
    assert data["half_written"]["files"] == 1 and data["journals"]["files"] == 1
    first = children(data["chunks"], None)
    assert len(first) == 1 and len(children(data["chunks"], first[0]["id"])) == 1
    second = children(data["chunks"], first[0]["id"])[0]
    assert len(children(data["chunks"], second["id"])) == 3


def claim_show_has_the_facts_and_with_a_model_the_text(folder):
    chunk = listed(folder)["chunks"][0]
    plain = works(kv("show", chunk["id"][:8], folder=folder))
    assert chunk["id"] in plain and "0 to 2048" in plain and "begin" not in plain
    text = works(kv("show", chunk["id"], "-m", MODEL, folder=folder))
    assert text.startswith(plain) and len(text) > len(plain) + 2048
    data = json.loads(works(kv("show", chunk["id"], "--json", "-m", MODEL, folder=folder)))
    assert len(data["tokens"]) == 2048 and data["text"]
    ids = json.dumps(data["tokens"]).encode()
    again = subprocess.run([str(BUILD / "ds4"), "tokenize", "--decode", "-m", MODEL, "-"], input=ids,
                           capture_output=True, check=True).stdout.decode("utf-8", "replace")
    assert again == data["text"]


def claim_a_text_of_another_vocabulary_is_an_error(folder):
    other = folder / "other"
    fill(other, 129280)
    chunk = listed(other)["chunks"][0]
    fails(kv("show", chunk["id"], "-m", MODEL, folder=other), 1, "vocabulary")
    works(kv("show", chunk["id"], folder=other))


def claim_an_id_must_name_one_chunk(folder):
    ids = [c["id"] for c in listed(folder)["chunks"]]
    fails(kv("show", "zz", folder=folder), 1, "no chunk zz")
    common = next(a[:1] for a in ids if sum(b[0] == a[0] for b in ids) > 1)
    fails(kv("show", common, folder=folder), 1, "several")


# ---- rm ------------------------------------------------------------------------------------------


def claim_rm_takes_what_goes_on_from_a_chunk(folder):
    chunks = listed(folder)["chunks"]
    second = chunks[1]
    assert len(children(chunks, second["id"])) == 3
    branch = children(chunks, second["id"])[0]
    out = works(kv("rm", branch["id"], folder=folder))
    gone = 11 - len(listed(folder)["chunks"])
    assert gone >= 2 and f"removed {gone} chunks" in out and "went on from it" in out, out
    out = json.loads(works(kv("rm", chunks[0]["id"], "--json", folder=folder)))
    assert out["removed"] == 11 - gone
    assert listed(folder)["chunks"] == [] and not list(folder.glob("*.kv"))
    assert list(folder.glob("*.journal"))


def claim_rm_is_refused_while_a_server_has_the_folder(folder):
    chunk = listed(folder)["chunks"][0]
    with open(folder / "lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4242\n")
        lock.flush()
        fails(kv("rm", chunk["id"], folder=folder), 1, "4242", "DELETE /kv/")
        assert len(listed(folder)["chunks"]) == 11
        works(kv("verify", folder=folder))
    works(kv("rm", chunk["id"], folder=folder))


# ---- verify -----------------------------------------------------------------------------------------


def claim_verify_names_every_damaged_file(folder):
    assert "all are whole" in works(kv("verify", folder=folder))
    files = sorted(folder.glob("*.kv"))
    size = files[0].stat().st_size
    for file, at in zip(files, (3, 60, 130, 200, size // 2, file_end(files[5]))):
        data = bytearray(file.read_bytes())
        data[min(at, len(data) - 1)] ^= 1
        file.write_bytes(data)
    files[6].write_bytes(files[6].read_bytes()[:-1])
    files[7].rename(folder / ("00" * 20 + ".kv"))
    journal = folder / "test.journal"
    data = bytearray(journal.read_bytes())
    data[41] ^= 1
    journal.write_bytes(data)
    run = kv("verify", folder=folder)
    text = run.stdout.decode()
    assert run.returncode == 1 and not run.stderr, (run.returncode, run.stderr)
    for name in [f.name for f in files[:7]] + ["00" * 20 + ".kv", "test.journal"]:
        assert name in text, (name, text)
    assert "9 are damaged" in text, text
    run = kv("verify", "--json", folder=folder)
    assert run.returncode == 1 and len(json.loads(run.stdout)["damaged"]) == 9
    assert len(list(folder.glob("*.kv"))) == 11  # it only looks


def file_end(path):
    return path.stat().st_size - 1


# ---- usage --------------------------------------------------------------------------------------------


def claim_wrong_usage_is_said(folder):
    fails(kv(), 2)
    fails(kv("frob", folder=folder), 2, "frob")
    fails(kv("ls"), 2, "--kv-disk-dir")
    fails(kv("ls", "x", folder=folder), 2, "no ID")
    fails(kv("show", folder=folder), 2, "which chunk")
    fails(kv("rm", "", folder=folder), 2)
    fails(kv("ls", "-m", MODEL, folder=folder), 2, "show")
    fails(kv("ls", folder=folder / "missing"), 1, "missing")
    fails(kv("rm", "a", folder=folder / "missing"), 1, "missing")
    assert not (folder / "missing").exists()
    fails(kv("ls", folder=folder / "lock"), 1, "no folder")


def in_folder(claim):
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "kv"
        fill(folder)
        claim(folder)


def main():
    if not FILLER.exists():
        print(f"skipped: {FILLER} is not built")
        return 77
    return run_claims(globals(), in_folder)



if __name__ == "__main__":
    sys.exit(main())
