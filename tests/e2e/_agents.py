"""_agents.py: simulated agents whose every answer is computed again by a fresh engine.

A synthetic model (random weights, a token a byte, fast) answers greedily with small letters. An
agent holds its conversation as token ids, asks /v1/completions, and gets the tokens of its answer
and their log probabilities. A Judge feeds the same ids to `ds4 logits`, a process of its own for
each answer: no session, no store, no server. Each token must be the likeliest of the letters
there, and have the probability that the server gave: one wrong row of a KV state shows.
"""
import array
import concurrent.futures
import json
import math
import pathlib
import random
import subprocess
import tempfile
import threading

from _asked import CHAT, COMPLETIONS, plain
from _serve import Connection

LETTERS = "abcdefghijklmnopqrstuvwxyz "
FORM = "[a-z ]{1000}"       # longer than any answer: so none ends by itself
CLOSE = 2e-5                # logits are F32, and six decimals are told
SECONDS = 200               # of one answer of `ds4 logits`


class Model:
    """A file, and its tokens."""

    def __init__(self, build, folder):
        self.program = str(pathlib.Path(build).resolve() / "ds4")
        self.file = str(pathlib.Path(folder) / "agents.gguf")
        self._run(["synth", "--shape", "mini", "--recipe", "f32", "--out", self.file])
        self.letters = {c: self._ids(c)[0] for c in LETTERS}
        self.begin, = self._ids("<｜begin▁of▁sentence｜>", "--special")

    def _run(self, words, **more):
        done = subprocess.run([self.program, *words], capture_output=True, timeout=SECONDS, **more)
        assert done.returncode == 0, f"{words}: {done.stderr.decode()[-2000:]}"
        return done.stdout

    def _ids(self, text, *more):
        return json.loads(self._run(["tokenize", "-m", self.file, *more, "--", text]))

    def ids(self, text):
        return [self.letters[c] for c in text]

    def rendered(self, body):
        """The ids of a chat's prompt."""
        return json.loads(self._run(["render", "-m", self.file, "--ids"],
                                    input=json.dumps(body).encode()))

    def logits(self, ids, last):
        """Rows of logits behind the last ids."""
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "logits"
            self._run(["logits", "-m", self.file, "--cpu", "-t", "1", "--tokens", "-", "--last",
                       str(last), "--prefill-chunk", "512", "--out", str(out)], input=json.dumps(ids).encode())
            rows = array.array("f", out.read_bytes())
        width = len(rows) // last
        return [rows[i * width:(i + 1) * width] for i in range(last)]


class Answer:
    """What was told: text, one letter a token, with log probabilities; tokens of the prompt, and
    those of them that were reused."""

    def __init__(self, reply, ids):
        assert reply.status == 200, reply
        body = reply.json()
        choice = body["choices"][0]
        if "message" in choice:
            self.text = choice["message"]["content"]
            self.logprobs = [t["logprob"] for t in choice["logprobs"]["content"]]
        else:
            self.text, self.logprobs = choice["text"], choice["logprobs"]["token_logprobs"]
        self.ids = ids
        self.prompt = body["usage"]["prompt_tokens"]
        self.cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert self.prompt == len(ids), f"{self.prompt} tokens of a prompt of {len(ids)}"
        assert len(self.text) == len(self.logprobs) > 0, body


class Judge:
    """Computes answers again, beside the agents. wrong: one line for each that differs."""

    def __init__(self, model, threads=2):
        self.model, self.wrong, self.judged = model, [], 0
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        self.waiting = []
        self.room = threading.Semaphore(32)

    def take(self, answer, what):
        self.room.acquire()
        self.waiting.append(self.pool.submit(self._judge, answer, what))

    def _judge(self, answer, what):
        try:
            fault = self._fault(answer)
            if fault:
                self.wrong.append(f"{what}: {fault}, {answer.cached} of {answer.prompt} tokens of "
                                  f"the prompt were reused")
            self.judged += 1
        finally:
            self.room.release()

    def _fault(self, answer):
        told = self.model.ids(answer.text)
        rows = self.model.logits(answer.ids + told[:-1], len(told))
        for i, (row, token) in enumerate(zip(rows, told)):
            best = max(self.model.letters.values(), key=lambda t, r=row: (r[t], -t))
            if token != best:
                return f"token {i} of {answer.text!r} is {token}, should be {best}"
            most = max(row)
            logprob = row[token] - most - math.log(sum(math.exp(x - most) for x in row))
            if abs(logprob - answer.logprobs[i]) > CLOSE:
                return f"token {i} has {answer.logprobs[i]}, should have {logprob:.6f}"
        return None

    def end(self):
        """Wait for all of them."""
        for future in self.waiting:
            future.result()
        self.pool.shutdown()
        return self.wrong


def letters(name, n):
    """A text of words that no other name gives."""
    pick = random.Random(name)
    text = ""
    while len(text) < n:
        text += "".join(pick.choices(LETTERS[:26], k=pick.randrange(2, 10))) + " "
    return text[:n]


def completion(ids, tokens, **more):
    return {"prompt": ids, "max_tokens": tokens, "temperature": 0, "logprobs": 0, "regex": FORM,
            **more}


def title(text, tokens):
    """A side request: of a chat, since only there is a system message."""
    return {"messages": [{"role": "system", "content": "Make a title."},
                         {"role": "user", "content": text}], "max_tokens": tokens,
            "temperature": 0, "logprobs": True, "regex": FORM, **plain(CHAT)}


def ask(port, path, body, ids, headers=(), timeout=SECONDS):
    with Connection(port, timeout) as connection:
        return Answer(connection.ask("POST", path, body, headers), ids)


def complete(port, ids, tokens, headers=()):
    return ask(port, COMPLETIONS, completion(ids, tokens), ids, headers)
