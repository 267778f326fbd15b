#!/usr/bin/env python3
"""pull.py [BUILD_DIR]: ds4 pull against servers that behave, and that do not.

Claims are functions named claim_*; each may assert several things and counts
once. The server runs here; nothing but the standard library, and libcurl in the
program: where that is not installed, all is skipped.
"""
import contextlib
import email.utils
import hashlib
import http.server
import os
import pathlib
import pty
import random
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time

from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
DS4 = str(BUILD / "ds4")
MODEL = ROOT / "models/ds4-tiny.gguf"
Q2 = "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2.gguf"
QUICK = ["--patience", "1", "--tries", "3"]


def made_up(seed, n=3_000_000):
    return b"GGUF" + random.Random(seed).randbytes(n - 4)


FILE = made_up(1)
SHA = hashlib.sha256(FILE).hexdigest()


# ---- a server whose manners are arguments ---------------------------------------------------------


class Server:
    """Serves `data` at every path; each attribute is one way to behave. `asked` has the headers of all requests."""

    def __init__(self, data=FILE, **manners):
        self.data, self.asked = data, []
        self.etag, self.modified, self.linked = '"one"', None, None
        self.ranges = True          # honours Range
        self.if_range = True        # honours If-Range
        self.first = None           # begins there, whatever is asked for
        self.cut = None             # sends at most so many bytes an answer, then closes
        self.cuts = 10 ** 9         # so often
        self.ends = None            # never sends a byte beyond
        self.hang = False           # does not close after a cut, but waits
        self.claim = None           # Content-Length instead of the true one
        self.chunked = False        # no Content-Length
        self.statuses = []          # of the first answers
        self.retry_after = None
        self.redirect = None        # path -> path or URL, once
        self.stall = 0              # seconds after half of it, once
        self.slow = 0               # seconds a 64 KiB
        self.__dict__.update(manners)

    def __enter__(self):
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None          # clients leave in the middle
        self.http.daemon_threads = True
        self.http.manners = self
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.hang = False
        self.http.shutdown()
        self.http.server_close()

    def ranges_asked(self):
        return [h.get("Range") for h in self.asked]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        s = self.server.manners
        s.asked.append(dict(self.headers, path=self.path))
        if s.redirect and self.path == s.redirect[0]:
            return self.head(302, {"Location": s.redirect[1], "Content-Length": 0,
                                   **({"X-Linked-Etag": f'"{s.linked}"'} if s.linked else {})})
        if s.statuses:
            status = s.statuses.pop(0)
            body = b"<html>an error</html>"
            self.head(status, {"Content-Length": len(body),
                               **({"Retry-After": s.retry_after} if s.retry_after else {})})
            return self.wfile.write(body)
        first = self.first_byte(s)
        if first >= len(s.data) and first:
            return self.head(416, {"Content-Range": f"bytes */{len(s.data)}", "Content-Length": 0})
        self.answer(s, first)

    def first_byte(self, s):
        if s.first is not None:
            return s.first
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted or not s.ranges:
            return 0
        known = self.headers.get("If-Range")
        if s.if_range and known and known not in (s.etag, s.modified):
            return 0
        return int(wanted[1])

    def head(self, status, fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, str(value))
        self.end_headers()

    def answer(self, s, first):
        body = s.data[first:]
        fields = {"Content-Length": len(body) if s.claim is None else s.claim}
        if s.chunked:
            fields = {"Transfer-Encoding": "chunked"}
        if s.etag:
            fields["ETag"] = s.etag
        if s.modified:
            fields["Last-Modified"] = s.modified
        if s.linked and not s.redirect:
            fields["X-Linked-ETag"] = f'"{s.linked}"'
        if first:
            fields["Content-Range"] = f"bytes {first}-{len(s.data) - 1}/{len(s.data)}"
        self.head(206 if first else 200, fields)
        cut = len(body)
        if s.cut is not None and s.cuts > 0:
            cut, s.cuts = min(cut, s.cut), s.cuts - 1
        if s.ends is not None:
            cut = max(0, s.ends - first)
        with contextlib.suppress(OSError):
            self.send(s, body[:cut])
            while s.hang and cut < len(body):
                time.sleep(0.02)
        if cut < len(body) or s.claim is not None:
            self.close_connection = True

    def send(self, s, body):
        for at in range(0, len(body), 65536):
            if s.stall and at > len(body) // 2:
                pause, s.stall = s.stall, 0
                time.sleep(pause)
            time.sleep(s.slow)
            piece = body[at:at + 65536]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if s.chunked else piece)
        if s.chunked:
            self.wfile.write(b"0\r\n\r\n")


# ---- the program ------------------------------------------------------------------------------------


def environment(**more):
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("XDG_")}
    return dict(env, HOME=SCRATCH, **more)


def ds4(*args, cwd=None, **more):
    return subprocess.run([DS4, *map(str, args)], capture_output=True, timeout=60, env=environment(), cwd=cwd or SCRATCH,
                          stdin=subprocess.DEVNULL, text=True, **more)


def pull(server, *args, file="/models/m.gguf", status=0):
    """What it said on stderr. 0: the file's path was all of stdout."""
    done = ds4("pull", "--url", server.url + file, *QUICK, *args)
    assert done.returncode == status, (done.returncode, done.stderr)
    assert done.stdout == (f"{folder()}/{file.split('/')[-1]}\n" if status == 0 else ""), done.stdout
    return done.stderr


def folder():
    return f"{SCRATCH}/.local/share/ds4"


def there():
    """The files in the folder, but the note of the last one."""
    try:
        return sorted(set(os.listdir(folder())) - {"last"})
    except FileNotFoundError:
        return []


def installed(data=FILE, name="m.gguf"):
    assert there() == [name], there()
    assert pathlib.Path(folder(), name).read_bytes() == data


def part(data, name="m.gguf", **note):
    """What an earlier run may have left."""
    os.makedirs(folder(), exist_ok=True)
    pathlib.Path(folder(), name + ".part").write_bytes(data)
    if note:
        pathlib.Path(folder(), name + ".part-info").write_text("".join(f"{k} {v}\n" for k, v in note.items()))


# ---- a file comes ---------------------------------------------------------------------------------


def claim_a_file_comes_whole_and_is_the_default_model():
    data = MODEL.read_bytes()
    with Server(data) as s:
        said = pull(s, "--sha256", hashlib.sha256(data).hexdigest().upper(), "--size", len(data))
        assert "SHA-256 as expected" in said, said
        installed(data)
        assert s.asked[0]["User-Agent"].startswith("ds4/") and s.ranges_asked() == [None]
        assert ds4("tokenize", "x").stderr == ""          # the last one pulled, without a word
        pathlib.Path(SCRATCH, "ds4flash.gguf").write_bytes(b"no model")
        assert "ds4flash.gguf" in ds4("tokenize", "x").stderr
        os.remove(SCRATCH + "/ds4flash.gguf")
        os.remove(folder() + "/m.gguf")
        assert "bundled" in ds4("tokenize", "x").stderr


def claim_what_nobody_vouches_for_is_installed_with_its_sum():
    with Server() as s:
        assert f"SHA-256 {SHA}, which nobody told before" in pull(s)
    installed()


def claim_a_server_may_tell_the_sum():
    with Server(linked=SHA) as s:
        assert "SHA-256 as the server tells it" in pull(s)
        installed()
        said = pull(s, "--sha256", "0" * 64, status=1)    # the file that is there
        assert SHA in said and "0" * 64 in said, said
        os.remove(folder() + "/m.gguf")
        said = pull(s, "--sha256", "0" * 64, status=1)    # and the one that the server names
        assert SHA in said and "0" * 64 in said and there() == [], said


def claim_redirects_are_followed_and_remembered():
    with Server(redirect=("/models/m.gguf", "/elsewhere/4711?signed=1"), linked=SHA, cut=2_000_000, cuts=1) as s:
        assert "as the server tells it" in pull(s)
        assert [h["path"] for h in s.asked] == ["/models/m.gguf", "/elsewhere/4711?signed=1"] * 2
        assert s.ranges_asked()[2:] == ["bytes=2000000-"] * 2
    installed()
    with Server(redirect=("/models/n.gguf", "/models/n.gguf")) as s:
        assert "redirect" in pull(s, file="/models/n.gguf", status=1)
    for elsewhere in ("file:///etc/passwd", "ftp://127.0.0.1:1/n.gguf", "gopher://127.0.0.1:1/n.gguf"):
        with Server(redirect=("/models/n.gguf", elsewhere)) as s:
            said = pull(s, file="/models/n.gguf", status=1)
            assert "protocol" in said.lower(), said
    assert there() == ["m.gguf"]


def claim_secrets_of_a_url_are_used_and_neither_shown_nor_kept():
    with Server(ends=1_000_000) as s:
        host = s.url.removeprefix("http://")
        for status, query in ((1, "?sign=s3cret1"), (0, "?sign=s3cret2")):
            done = ds4("pull", "--url", f"http://me:pa:ss@{host}/models/m.gguf{query}", "--patience", "1", "--tries", "1")
            said = done.stdout + done.stderr
            assert done.returncode == status and f"http://{host}/models/m.gguf to" in said, said
            assert not any(word in said for word in ("me:", "pa:ss", "s3cret")), said
            if status:
                note = pathlib.Path(folder(), "m.gguf.part-info").read_text()
                assert f"url http://{host}/models/m.gguf\n" in note and "s3cret" not in note, note
                s.ends = None
    assert all(h["Authorization"] == "Basic bWU6cGE6c3M=" for h in s.asked), s.asked
    assert s.asked[-1]["path"] == "/models/m.gguf?sign=s3cret2" and s.ranges_asked()[-1] == "bytes=1000000-"
    installed()


def claim_without_a_length_it_ends_where_the_server_ends():
    with Server(chunked=True) as s:
        pull(s, "--sha256", SHA)
        installed()
    with Server(chunked=True, data=FILE + b"more") as s:
        said = pull(s, "--size", len(FILE), file="/n.gguf", status=1)
        assert "more than the 3000000 bytes" in said, said
    with Server(chunked=True, data=FILE[:-5]) as s:
        said = pull(s, "--size", len(FILE), file="/n.gguf", status=1)
        assert "2999995 bytes, expected 3000000" in said, said
    assert "n.gguf" not in there()


# ---- it is cut off ----------------------------------------------------------------------------------


def claim_a_dropped_connection_goes_on_where_it_was():
    with Server(cut=700_000) as s:
        said = pull(s, "--sha256", SHA)
        assert s.ranges_asked() == [None] + [f"bytes={n}-" for n in (700000, 1400000, 2100000, 2800000)]
        assert all(h["If-Range"] == '"one"' for h in s.asked[1:])
        assert "trying again" in said
    installed()


def claim_a_later_run_goes_on_where_ctrl_c_ended():
    with Server(cut=1_000_000, hang=True, modified=email.utils.formatdate(0, usegmt=True)) as s:
        with started(s) as child:
            wait_for(1_000_000)
            child.send_signal(signal.SIGINT)
            out, said = child.communicate(timeout=60)
        assert child.returncode == 130 and out == "", (child.returncode, said)
        assert "1.0 MB of 3.0 MB are in" in said and "the same command goes on" in said, said
        assert there() == ["m.gguf.part", "m.gguf.part-info"]
        s.cut, s.hang = None, False
        pull(s, file="/m.gguf")
        assert s.ranges_asked() == [None, "bytes=1000000-"], s.ranges_asked()
        assert s.asked[1]["If-Range"] == '"one"'
    installed()


@contextlib.contextmanager
def started(s, *args):
    child = subprocess.Popen([DS4, "pull", "--url", s.url + "/m.gguf", *args], env=environment(), cwd=SCRATCH, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def wait_for(size):
    path, deadline = pathlib.Path(folder(), "m.gguf.part"), time.time() + 60
    while not (path.exists() and path.stat().st_size >= size):
        assert time.time() < deadline, there()
        time.sleep(0.01)


def claim_a_killed_run_is_gone_on_with():
    with Server(cut=1_000_000, hang=True) as s:
        with started(s) as child:
            wait_for(1_000_000)
            child.kill()
            child.communicate()
        s.cut, s.hang = None, False
        pull(s, file="/m.gguf")
        assert s.ranges_asked() == [None, "bytes=1000000-"]
    installed()
    with Server() as s:                     # all had come, and it was not renamed yet
        part(FILE, name="n.gguf", url=s.url + "/n.gguf", etag='"one"', bytes=len(FILE))
        pull(s, file="/n.gguf")
        assert s.asked == []
    assert there() == ["m.gguf", "n.gguf"]


def claim_a_file_that_always_ends_early_is_no_file():
    with Server(ends=2_000_000) as s:
        said = pull(s, status=1)
        assert "2.0 MB of 3.0 MB are in" in said, said
        assert s.ranges_asked() == [None] + ["bytes=2000000-"] * 3
        assert there() == ["m.gguf.part", "m.gguf.part-info"]
        s.ends = None
        pull(s)
    installed()


def claim_a_stalled_server_is_asked_again():
    with Server(stall=30) as s:
        began = time.time()
        pull(s, "--sha256", SHA)
        assert time.time() - began > 0.9
        assert len(s.asked) == 2 and s.ranges_asked()[1] is not None
    installed()


# ---- it is another file by now --------------------------------------------------------------------------


def claim_a_changed_file_is_begun_anew():
    other = made_up(2, 2_000_000)
    for if_range in (True, False):                      # a server that compares, and one that leaves it to us
        with Server(other, etag='"two"', if_range=if_range) as s:
            part(FILE[:900_000], url=s.url + "/models/m.gguf", etag='"one"', bytes=len(FILE))
            said = pull(s)
            assert "from its beginning" in said, said
            assert s.asked[0]["If-Range"] == '"one"' and s.ranges_asked()[-1] == (None if not if_range else "bytes=900000-")
        installed(other)
        os.remove(folder() + "/m.gguf")


def claim_the_same_length_and_another_etag_is_another_file():
    other = made_up(2)
    with Server(other, etag='"two"', if_range=False) as s:
        part(FILE[:900_000], url=s.url + "/models/m.gguf", etag='"one"', bytes=len(FILE))
        pull(s)
    installed(other)


def claim_a_server_without_ranges_sends_it_again():
    with Server(ranges=False, cut=2_000_000, cuts=1) as s:
        said = pull(s, "--sha256", SHA)
        assert "from its beginning" in said and s.ranges_asked() == [None, "bytes=2000000-"]
    installed()


def claim_without_a_validator_only_a_known_sum_lets_it_go_on():
    with Server(etag=None, cut=2_000_000, cuts=1) as s:
        pull(s)
        assert s.ranges_asked() == [None, None]
    installed()
    os.remove(folder() + "/m.gguf")
    with Server(etag=None, cut=2_000_000, cuts=1) as s:
        pull(s, "--sha256", SHA)
        assert s.ranges_asked() == [None, "bytes=2000000-"] and "If-Range" not in s.asked[1]
    installed()


def claim_another_mirror_goes_on_if_the_sum_is_known():
    with Server(etag='"of another server"') as s:
        part(FILE[:900_000], url="http://first.example/m.gguf", etag='"one"', sha256=SHA, bytes=len(FILE))
        pull(s, "--sha256", SHA)
        assert s.ranges_asked() == ["bytes=900000-"] and "If-Range" not in s.asked[0]
        installed()
        os.remove(folder() + "/m.gguf")
        part(FILE[:900_000], url="http://first.example/m.gguf", sha256=SHA, bytes=len(FILE))
        assert "as the server tells it" in pull(s)        # the first one did
        assert s.ranges_asked()[1] == "bytes=900000-"
        os.remove(folder() + "/m.gguf")
        part(FILE[:900_000], url="http://first.example/m.gguf", etag='"one"', bytes=len(FILE))
        pull(s)
        assert s.ranges_asked()[2] is None
    installed()


def claim_a_note_that_makes_no_sense_counts_as_none():
    for note in ({}, {"etag": '"one"'}, {"url": "x" * 5000}, {"url": "%U", "bytes": "7"}, {"url": "%U", "bytes": "-1"}):
        with Server() as s:
            part(FILE[:5000], **{k: v.replace("%U", s.url + "/models/m.gguf") for k, v in note.items()})
            pull(s, "--sha256", SHA)
            assert s.ranges_asked() == [None], (note, s.ranges_asked())
        installed()
        os.remove(folder() + "/m.gguf")


# ---- it lies ------------------------------------------------------------------------------------------


def claim_wrong_bytes_are_never_installed():
    wrong = FILE[:2_000_000] + b"!" + FILE[2_000_001:]
    for how in ({"linked": SHA}, {}):
        with Server(wrong, **how) as s:
            said = pull(s, *([] if how else ["--sha256", SHA]), status=1)
            assert SHA in said and hashlib.sha256(wrong).hexdigest() in said and "nothing was installed" in said, said
        assert there() == [], there()
    with Server(FILE, cut=0) as s:           # the part is from elsewhere, the rest is right
        part(wrong[:2_500_000], url=s.url + "/models/m.gguf", etag='"one"', sha256=SHA, bytes=len(FILE))
        s.cut = None
        assert SHA in pull(s, "--sha256", SHA, status=1)
    assert there() == []


def claim_a_wrong_size_is_seen_before_anything_is_read():
    for size in (len(FILE) - 1, len(FILE) + 1):
        with Server() as s:
            said = pull(s, "--size", size, status=1)
            assert f"{len(FILE)} bytes, expected {size}" in said and len(s.asked) == 1, said
        assert there() == []
    with Server(claim=1 << 60, hang=True, cut=10 ** 6) as s:
        said = pull(s, status=1)
        assert "the disk has" in said and len(s.asked) == 1, said
    assert there() == []


def claim_what_is_no_gguf_is_refused_at_its_beginning():
    with Server(b"<!DOCTYPE html>" + b" " * 5_000_000, cut=200_000, hang=True) as s:
        assert "no GGUF" in pull(s, status=1)
        assert len(s.asked) == 1
    with Server(b"") as s:
        assert "empty" in pull(s, status=1)
    with Server(b"GG") as s:
        assert "empty" in pull(s, status=1)
    assert there() == []


def claim_a_part_that_nobody_asked_for_is_refused():
    with Server(first=100) as s:
        assert "part of another file" in pull(s, status=1)
    assert there() == []


# ---- it fails -------------------------------------------------------------------------------------------


def claim_errors_that_stay_are_told_at_once_and_others_tried_again():
    for status in (404, 401, 403, 410):
        with Server(statuses=[status] * 9) as s:
            said = pull(s, status=1)
            assert f"status {status}" in said and len(s.asked) == 1, said
    with Server(statuses=[503, 429]) as s:
        pull(s)
        assert len(s.asked) == 3
    installed()
    with Server(statuses=[503] * 9) as s:
        said = pull(s, file="/n.gguf", status=1)
        assert "status 503" in said and len(s.asked) == 3, (said, len(s.asked))
    with Server(statuses=[503], retry_after=2) as s:
        began = time.time()
        pull(s, file="/n.gguf")
        assert time.time() - began > 1.8
    assert there() == ["m.gguf", "n.gguf"]


def claim_no_server_is_an_error_too():
    with Server() as s:
        url = s.url
    done = ds4("pull", "--url", url + "/m.gguf", "--tries", 2)
    assert done.returncode == 1 and "connect" in done.stderr and there() == [], done.stderr


def claim_a_disk_that_ends_keeps_what_came():
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    with Server() as s:
        done = ds4("pull", "--url", s.url + "/models/m.gguf", preexec_fn=limit)
        assert done.returncode == 1 and "cannot write" in done.stderr and len(s.asked) == 1, done.stderr
        assert pathlib.Path(folder(), "m.gguf.part").stat().st_size == 1_000_000
        pull(s)
        assert s.ranges_asked()[1] == "bytes=1000000-"
    installed()


def claim_two_pulls_of_one_file_do_not_meet():
    with Server(cut=1_000_000, hang=True) as s:
        with started(s) as child:
            wait_for(1_000_000)
            said = pull(s, file="/m.gguf", status=1)
            assert "another ds4" in said and child.poll() is None, said
            assert there() == ["m.gguf.part", "m.gguf.part-info"] and len(s.asked) == 1


# ---- usage ------------------------------------------------------------------------------------------------


def claim_names_are_looked_for_at_a_mirror():
    assert "Did you mean q2-q4?" in usage("q2-q5")
    assert "--list" in usage("llama")
    assert "ds4/mirror" in usage("q2")
    with Server() as s:
        os.makedirs(SCRATCH + "/.config/ds4")
        pathlib.Path(SCRATCH, ".config/ds4/mirror").write_text(s.url + "/a/b/\n")
        done = ds4("pull", "q2")
        assert done.returncode == 1 and "expected about 86714775900" in done.stderr, done.stderr
        assert s.asked[0]["path"] == "/a/b/" + Q2
        done = ds4("pull", "q2", "--mirror", s.url, "--size", len(FILE), "--dir", "here")
        assert done.returncode == 0 and done.stdout == f"here/{Q2}\n", done.stderr
        assert s.asked[1]["path"] == "/" + Q2
        assert pathlib.Path(folder(), "last").read_text() == os.path.realpath(f"{SCRATCH}/here/{Q2}") + "\n"


def usage(*args):
    done = ds4("pull", *args)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1, (args, done.stderr)
    return done.stderr


def claim_what_is_there_already_is_said_to_be_no_more_than_that():
    part(b"")
    pathlib.Path(folder(), "m.gguf.part").unlink()
    path = pathlib.Path(folder(), "m.gguf")
    path.write_bytes(FILE)
    with Server(data=made_up(7)) as s:
        for args, words in (((), "neither its size nor its SHA-256 was told"),
                            (("--size", len(FILE)), "its SHA-256 nobody told"),
                            (("--sha256", SHA), "it is there already")):
            assert pull(s, *args).strip().endswith(words), args
        assert "expected 7" in pull(s, "--size", 7, status=1) and not s.asked
        path.unlink()
        path.mkdir()
        assert "not a regular file" in pull(s, status=1)
    path.rmdir()


def claim_wrong_usage_is_told():
    assert "which model" in usage()
    assert "contradict" in usage("q2", "--url", "http://x/y.gguf")
    assert "contradict" in usage("--mirror", "http://x", "--url", "http://x/y.gguf")
    for url in ("ftp://x/y.gguf", "file:///y.gguf", "y.gguf", "http://x/a b", "http://x/y\n.gguf", "http://" + "x" * 1000):
        assert "no http or https URL" in usage("--url", url), url
    for url in ("http://x", "http://x/", "http://x/.", "http://x/..", "http://x/a/.hidden", "http://x/?y"):
        assert "names no file" in usage("--url", url), url
    for name in ("last", "m.gguf.part", "m.gguf.part-info"):
        assert f"{name} is no name for a model" in usage("--url", f"http://x/{name}"), name
    assert "from 1 to" in usage("--url", "http://x/y", "--size", "0")
    assert "64 hex digits" in usage("--url", "http://x/y", "--sha256", "12")
    assert "--dir only" in usage("--list", "q2")


def claim_the_list_says_what_is_here():
    os.makedirs(folder())
    pathlib.Path(folder(), Q2).write_bytes(b"GGUF")
    with open(folder() + "/" + Q2.replace(".gguf", "-imatrix.gguf.part"), "wb") as f:
        f.truncate(86714775900 // 2)
    lines = ds4("pull", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines[::2]] == ["q2", "q2-imatrix", "q2-q4", "q4", "q4-imatrix"], lines
    assert lines[0].endswith("here") and lines[2].endswith("50 %") and "86.7 GB" in lines[0], lines
    assert lines[1].strip() == Q2 and all(line.strip().endswith(".gguf") for line in lines[1::2])


def claim_a_terminal_sees_a_bar_with_rate_and_time_left():
    with Server(slow=0.15) as s:
        master, slave = pty.openpty()
        child = subprocess.Popen([DS4, "pull", "--url", s.url + "/m.gguf"], env=environment(), cwd=SCRATCH, stderr=slave,
                                 stdout=subprocess.DEVNULL)
        os.close(slave)
        seen = b""
        while select.select([master], [], [], 20)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:
                break
        assert child.wait() == 0
        os.close(master)
    assert re.search(rb"fetching .* \d+%  .*/s  \d+:\d\d left", seen), seen


def in_scratch(claim):
    global SCRATCH
    with tempfile.TemporaryDirectory(prefix="ds4-pull-") as SCRATCH:
        claim()


def main():
    global SCRATCH
    if not os.access(DS4, os.X_OK):
        sys.exit(f"{DS4} is missing")
    with tempfile.TemporaryDirectory(prefix="ds4-pull-") as SCRATCH, Server() as s:
        if "needs libcurl" in ds4("pull", "--url", s.url + "/m.gguf").stderr:
            print("skipped: libcurl is missing; ./bootstrap setup installs it")
            return 77
    return run_claims(globals(), in_scratch, sys.argv[2] if len(sys.argv) > 2 else "")



if __name__ == "__main__":
    sys.exit(main())
