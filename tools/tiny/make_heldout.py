#!/usr/bin/env python3
"""make_heldout.py DIR [--rest]: cases and texts for the bundled model's passport.

Without --rest: tests/data/tiny/heldout.jsonl, which tools/passport measures on: conversations and
texts that the model was not trained on, from DIR/heldout_items.json.xz, as cases of token ids
(docs/ACCURACY.md). The first ones of each kind, none longer than LONGEST. With --rest: most of the
other conversations as text, for ds4 imatrix --special, so that the importance is not of what is
measured."""
import json
import lzma
import pathlib
import sys

CASES = {"chat": 14, "arith": 8, "memory": 6, "tool": 14, "result": 4, "notool": 3, "recall-800": 5,
         "recall-3400": 2}   # with thinking, and as many without
TEXTS, TEXT_TOKENS, LONGEST = 6, 300, 1300


def case(name, prompt, target):
    return json.dumps({"id": name, "prompt_ids": prompt, "tokens": [{"token": t} for t in target]},
                      separators=(",", ":"))


def chosen(data):
    """(kind, think, number, item) of the conversations that are measured on."""
    for kind, most in CASES.items():
        for think in (False, True):
            items = [i for i in data["items"] if i["kind"] == kind and i["think"] == think and
                     len(i["prompt"]) + len(i["target"]) <= LONGEST]
            for n, item in enumerate(items[:most]):
                yield kind, think, n, item


def print_cases(data):
    print('{"ds4_vectors":1,"model":"ds4-tiny"}')
    for kind, think, n, item in chosen(data):
        name = f"{kind}{'-think' if think else ''}-{n}"
        print(case(name, item["prompt"], item["target"]))
    for n, text in enumerate(data["text"][:TEXTS]):
        print(case(f"text-{n}", [0], text[:TEXT_TOKENS]))


def byte_of_letter():
    """The letters that stand for bytes in the vocabulary, as GPT-2 chose them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in plain}
    others = [b for b in range(256) if b not in plain]
    return letters | {chr(256 + n): b for n, b in enumerate(others)}


def print_rest(data, folder):
    letters = byte_of_letter()
    words = pathlib.Path(folder, "vocab.txt").read_text("utf-8").split("\n")
    taken = [item for _, _, _, item in chosen(data)]
    for item in data["items"]:
        if item in taken or len(item["prompt"]) > LONGEST:
            continue
        # Without the mark of the beginning, which ds4 imatrix puts before each chunk.
        text = b"".join(words[t].encode() if words[t].startswith("<\uff5c") or t < 3 or t >= 4083
                        else bytes(letters[c] for c in words[t])
                        for t in item["prompt"][1:] + item["target"])
        sys.stdout.buffer.write(text)


def main():
    folder = sys.argv[1]
    data = json.loads(lzma.decompress(pathlib.Path(folder, "heldout_items.json.xz").read_bytes()))
    if sys.argv[2:] == ["--rest"]:
        print_rest(data, folder)
    else:
        print_cases(data)


if __name__ == "__main__":
    main()
