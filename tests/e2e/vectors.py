#!/usr/bin/env python3
"""vectors.py BUILD_DIR: tools/collect_vectors asks ds4 serve, and ds4 verify finds the same model;
and an endpoint that fails in every way."""
import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading

from _claims import run_claims
from _serve import MODEL, ROOT, Server

BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
PROMPTS = ["What is 12 + 30?", "Hello!", "Who are you?", "Tell me a joke.", "Caffè, \U0001f98a?",
           "What is the capital of Japan?"]


def prompts_file():
    path = pathlib.Path(SCRATCH, "prompts.jsonl")
    lines = [json.dumps({"id": f"q{i}", "prompt": p}) for i, p in enumerate(PROMPTS)]
    lines[1] = json.dumps({"id": "q1", "messages": [
        {"role": "system", "content": "Answer briefly."}, {"role": "user", "content": PROMPTS[1]}]})
    path.write_text("# what to ask\n" + "\n".join(lines) + "\n", "utf-8")
    return path


def collect(url, out, *args, checkpoint="ds4-tiny"):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/collect_vectors"), "--url", url, "--model", "m",
         "--checkpoint", checkpoint, "--prompts", prompts_file(), "--out", out, "--patience", "0",
         *args], capture_output=True, timeout=120, check=False)


def verify(path, *args):
    return subprocess.run([str(BUILD / "ds4"), "verify", "-m", MODEL, "--cpu", "--json",
                           "--vectors", path, *args], capture_output=True, timeout=120, check=False)


def fails(run, *words):
    lines = run.stderr.decode().splitlines()
    assert run.returncode == 1 and all(w in lines[-1] for w in words), (run.returncode, lines)


def claim_what_our_server_says_is_what_verify_finds():
    out, again = (pathlib.Path(SCRATCH, n) for n in ("own.jsonl", "again.jsonl"))
    with Server(BUILD, None, "--cpu") as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        run = collect(url, out, "--seed", "7")
        assert run.returncode == 0 and b"6 are new" in run.stdout, run.stderr
        # In two runs, of which the first was killed while it wrote.
        assert collect(url, again, "--seed", "7", "--limit", "2").returncode == 0
        with open(again, "ab") as f:
            f.write(b'{"id":"q2","messages":[{"ro')
        run = collect(url, again, "--seed", "7")
        assert run.returncode == 0 and b"2 cases were there, 4 are new" in run.stdout, run.stderr
        fails(collect(url, again, checkpoint="other"), "model", "ds4-tiny", "other")
    own, two = out.read_bytes().splitlines(), again.read_bytes().splitlines()
    assert own[1:] == two[1:] and len(own) == 7
    header, cases = json.loads(own[0]), [json.loads(line) for line in own[1:]]
    assert header["ds4_vectors"] == 1 and header["model"] == "ds4-tiny" and header["top"] == 20
    assert [c["id"] for c in cases] == [f"q{i}" for i in range(6)]
    assert all(len(s["top"]) >= 20 for c in cases for s in c["tokens"])
    run = verify(out, "--min-top1", "1", "--max-kl", "1e-5", "--max-delta", "0.01")
    assert run.returncode == 0, run.stderr
    got = json.loads(run.stdout)["total"]
    assert got["tokens"] == sum(len(c["tokens"]) for c in cases) > 30
    assert abs(got["nll"] - got["ref_nll"]) < 1e-4


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Fails as often as it is told to, then answers."""
    failures, answer, seen = [], {}, []

    def do_POST(self):  # pylint: disable=invalid-name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((body, self.headers.get("Authorization")))
        failure = self.failures.pop(0) if self.failures else None
        if failure == "drop":
            self.close_connection = True
            return
        data = b"{" if failure == "cut" else json.dumps(self.answer).encode()
        self.send_response(failure if isinstance(failure, int) else 200)
        if failure in (302, 307):
            self.send_header("Location", "/v1/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):  # pylint: disable=invalid-name
        self.seen.append((None, self.headers.get("Authorization")))
        self.send_error(404)

    def log_message(self, *args):
        pass


def answer(*steps):
    content = [{"token": t, "bytes": list(t.encode()), "logprob": lp,
                "top_logprobs": [{"token": k, "bytes": None, "logprob": v} for k, v in top]}
               for t, lp, top in steps]
    return {"choices": [{"logprobs": {"content": content}}]}


GOOD = answer(("A", -0.5, [("A", -0.5), ("B", -1.5), ("C", -9999)]))


def with_endpoint(work, failures=(), reply=None):
    Endpoint.failures, Endpoint.answer = list(failures), GOOD if reply is None else reply
    Endpoint.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        return work(f"http://127.0.0.1:{server.server_address[1]}/v1/")
    finally:
        server.shutdown()
        server.server_close()


def claim_an_endpoint_that_stumbles_is_asked_again():
    out, key = pathlib.Path(SCRATCH, "stumbles"), pathlib.Path(SCRATCH, "key")
    key.write_text("secret\n", "ascii")
    run = with_endpoint(lambda url: collect(url, out, "--key-file", key, "--limit", "1"),
                        [503, 429, "drop", "cut"])
    assert run.returncode == 0 and run.stderr.count(b"again in") == 4, run.stderr
    body, authorization = Endpoint.seen[-1]
    assert len(Endpoint.seen) == 5 and authorization == "Bearer secret"
    assert body["temperature"] == 1 and body["top_logprobs"] == 20 and body["logprobs"] is True
    assert body["thinking"] == {"type": "disabled"}
    case = json.loads(out.read_bytes().splitlines()[1])
    assert case["tokens"] == [{"token": "41", "logprob": -0.5, "top": [["41", -0.5], ["42", -1.5]]}]


def claim_an_endpoint_that_is_of_no_use_is_said():
    out = pathlib.Path(SCRATCH, "useless")
    cases = [([400], None, ("400",)), ([], {"choices": []}, ("no logprobs",)),
             ([], answer(), ("empty",)),
             ([], answer(("A", 0, [("A", 0), ("B", -9999)])), ("no probabilities",)),
             ([], {"choices": [{"logprobs": {"content": [{"token": "A", "bytes": [300], "logprob": -1}]}}]},
              ("no logprobs",)), ([], [1], ("no logprobs",)),
             (["drop"] * 8, None, ("chat/completions",))]
    for failures, reply, words in cases:
        fails(with_endpoint(lambda url: collect(url, out), failures, reply), *words)
        assert len(out.read_bytes().splitlines()) == 1
    fails(collect("http://127.0.0.1:1/v1", out), "refused")


def claim_what_was_collected_otherwise_is_not_added_to():
    out, key, other = (pathlib.Path(SCRATCH, n) for n in ("others", "key", "changed.jsonl"))
    with_endpoint(lambda url: collect(url, out, "--limit", "1"))
    before = out.read_bytes()
    name = json.loads(before.splitlines()[1])["id"]
    other.write_text(json.dumps({"id": name, "prompt": "Something else?"}) + "\n", "utf-8")
    fails(collect("http://127.0.0.1:1/v1", out, "--prompts", other), name, "another prompt")
    fails(collect("http://127.0.0.1:1/v1", out, "--tokens", "5"), "tokens", "not 5")
    key.write_text("\n", "ascii")
    fails(collect("http://127.0.0.1:1/v1", out, "--key-file", key), "holds no key")
    assert out.read_bytes() == before


def claim_the_key_follows_no_redirect():
    out, key = pathlib.Path(SCRATCH, "redirected"), pathlib.Path(SCRATCH, "key")
    key.write_text("secret\n", "ascii")
    for status in (302, 307):
        fails(with_endpoint(lambda url: collect(url, out, "--key-file", key), [status]), str(status))
        assert len(Endpoint.seen) == 1


def claim_another_file_is_not_written_to():
    out = pathlib.Path(SCRATCH, "other")
    header = '{"ds4_vectors":1,"model":"ds4-tiny","temperature":1,"top":20}\n'
    for text, word in (("half a line of somebody's notes", "no vectors"), ("notes\n", "no case"),
                       ("7\n", "no case"), (header + '{"prompt":"x"}\n', "no case"), (header + "[]\n", "no case")):
        out.write_text(text, "utf-8")
        fails(collect("http://127.0.0.1:1/v1", out), "other", word)
        assert out.read_text("utf-8") == text


def main():
    return run_claims(globals())



if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as SCRATCH:
        sys.exit(main())
