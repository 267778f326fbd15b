#!/usr/bin/env python3
"""serve_faults.py BUILD_DIR [--kills N] [--judge DIR]: a KV folder in bad hands, and a server that is killed.

Conversations with a synthetic model, every answer computed again by a fresh engine (_agents.py).

1. kill -9, again and again, amid answers and in the middle of the end: every file that was there
   is there and whole, a conversation goes on from the longest beginning that the folder has, and
   of what it had only the newest chunk may be missing. (N is 6; 200 take some minutes.)
2. Files that were damaged, cut, emptied, exchanged, of another version, or are removed under the
   running server: removed, told, counted by reason; what is before them is used.
3. A disk that is full, files that may not be long, a folder that cannot be written.

--judge: the build folder whose program computes answers again. How names are made and where sections are is from docs/KVSTORE.md.
"""
import argparse
import contextlib
import hashlib
import os
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

from _agents import Judge, Model, complete, letters
from _serve import Claims, Server, until

CTX, CHUNK, UNIT = 8192, 2048, 128
MOST = 6000             # of a conversation, then another begins
claim = Claims()


# ---- the folder -----------------------------------------------------------------------------

def parts(path):
    """Places of a chunk file's sections, and its header's fields."""
    data = path.read_bytes()
    version, numerics, model, name, parent, first, n, rows, mark = struct.unpack(
        "<II32s20s20sIIQQ", data[8:112])
    assert len(data) == 176 + 4 * n + rows + mark, path
    at = {"header": 90, "use": 130, "tokens": 152, "rows": 160 + 4 * n, "mark": 168 + 4 * n + rows}
    return {"at": at, "model": model, "numerics": numerics, "name": name.hex(), "first": first,
            "n": n}


class Folder:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.seed = b""             # what is in every name

    def files(self):
        return {p.stem for p in self.path.glob("*.kv")}

    def whole(self, names):
        """Those of them that are chunks of full length: no longer one takes their place."""
        sizes = {name: (self.path / f"{name}.kv").stat().st_size for name in names}
        return {name for name, size in sizes.items() if size == max(sizes.values())}

    def _name(self, parent, ids):
        return hashlib.sha1(parent.encode() + self.seed +
                            struct.pack(f"<{len(ids)}i", *ids)).hexdigest()

    def chain(self, ids):
        """The longest beginning of ids that lies there: [(tokens, name)]."""
        names, parent, found = self.files(), "0" * 40, []
        if not names:
            return found
        if not self.seed:
            one = parts(self.path / f"{min(names)}.kv")
            self.seed = one["model"] + struct.pack("<I", one["numerics"])
        for at in range(0, len(ids), CHUNK):
            piece = ids[at:at + CHUNK]
            for n in range(len(piece) // UNIT * UNIT, 0, -UNIT):
                name = self._name(parent, piece[:n])
                if name in names:
                    found.append((at + n, name))
                    parent = name
                    break
            if not found or found[-1][0] != at + CHUNK:
                break
        return found

    def length(self, ids):
        chain = self.chain(ids)
        return chain[-1][0] if chain else 0


class Talk:
    """One conversation, whose beginning no other has."""

    def __init__(self, model, judge, name):
        self.model, self.judge, self.name = model, judge, name
        self.pick = random.Random(name)
        self.said = self.lost = self.begun = 0
        self.ids = []

    def text(self, n):
        self.said += 1
        return self.model.ids(letters(f"{self.name} {self.said}", n))

    def next(self, least=20, most=900):
        """The ids of the next prompt."""
        if not self.ids or len(self.ids) > MOST:
            self.begun += 1
            self.ids = [self.model.begin] + self.text(1500)
        return self.ids + self.text(self.pick.randrange(least, most))

    def ask(self, server, ids, tokens=8):
        answer = complete(server.port, ids, tokens)
        self.judge.take(answer, self.name)
        self.ids = ids + self.model.ids(answer.text)
        return answer


def serve(build, model, folder, *options, child=None, sessions=2):
    return Server(build, None, "-m", model.file, "--kv-disk-dir", str(folder.path),
                  "--kv-ram-mb", "1", *options, ctx=CTX, sessions=sessions, child=child)


# ---- killed ---------------------------------------------------------------------------------

class Round:
    """One life of a server: talks go on until it is killed."""

    def __init__(self, build, model, folder, talks, pick):
        self.folder, self.talks, self.pick = folder, talks, pick
        self.server = serve(build, model, folder)
        self.stop, self.errors = False, []

    def first(self, talk):
        """What lies in the folder is used."""
        had, ids = talk.ids, talk.next()
        there = self.folder.length(ids[:-1])
        answer = talk.ask(self.server, ids)
        claim(f"{talk.name} goes on from the {there} tokens that are kept", answer.cached >= there,
              answer.cached, answer.prompt)
        if had and had == ids[:len(had)]:
            talk.lost = max(talk.lost, len(had) - answer.cached)

    def talk_on(self, talk):
        while not self.stop:
            try:
                talk.ask(self.server, talk.next(), talk.pick.randrange(2, 30))
            except (OSError, EOFError):
                return              # it was killed
            except AssertionError as error:
                if "closed" not in str(error) and "reset" not in str(error) and \
                        "503" not in str(error):
                    self.errors.append(f"{talk.name}: {error}")
                return

    def live(self, at_the_end):
        for talk in self.talks:
            self.first(talk)
        threads = [threading.Thread(target=self.talk_on, args=(t,)) for t in self.talks]
        for thread in threads:
            thread.start()
        time.sleep(self.pick.uniform(0.02, 0.5))
        if at_the_end:
            self.server.child.terminate()
            time.sleep(self.pick.uniform(0, 0.15))
        there = self.folder.files()
        with contextlib.suppress(FileNotFoundError):    # a tail that a longer one replaced
            there = self.folder.whole(there)
        self.server.kill()
        self.stop = True
        for thread in threads:
            thread.join()
        return there


def check_folder(build, folder, there):
    gone = there - folder.files()
    lost = [name for name in gone if len(name) == 40]
    claim("whole chunks that were there are there", not lost, lost)
    done = subprocess.run([str(pathlib.Path(build) / "ds4"), "kv", "verify", "--kv-disk-dir",
                           str(folder.path)], capture_output=True, text=True, timeout=200)
    claim("and every byte is right", done.returncode == 0, done)


def test_kills(build, model, judge, path, kills):
    pick, folder = random.Random(kills), Folder(path)
    talks = [Talk(model, judge, f"talk {i}") for i in range(3)]
    for i in range(kills):
        life = Round(build, model, folder, talks, pick)
        try:
            there = life.live(at_the_end=i % 3 == 2)
        finally:
            life.server.kill()
        claim(f"round {i}: nobody else failed", not life.errors, *life.errors)
        check_folder(build, folder, there)
        for talk in talks:
            had, kept = len(talk.ids), folder.length(talk.ids)
            claim(f"round {i}: of {had} tokens {kept} are kept", kept >= (had // CHUNK - 1) * CHUNK)
    with serve(build, model, folder) as server:
        for talk in talks:
            talk.ask(server, talk.next())
        claim("no file was bad", server.metric("ds4x_kv_bad_files_total") == 0,
              told(server.log()))
        claim("nothing is left half-written", not list(folder.path.glob("*.tmp-*")))
    print(f"{kills} kills: at most {max(t.lost for t in talks)} tokens were read again")


# ---- damaged --------------------------------------------------------------------------------

def flip(section):
    def damage(path):
        data, at = bytearray(path.read_bytes()), parts(path)["at"][section]
        data[at + 3] ^= 0x10
        path.write_bytes(data)
    return damage


def put(path, at, data):
    path.write_bytes(path.read_bytes()[:at] + data + path.read_bytes()[at + len(data):])


def cut(share):
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def exchange(path):
    """The bytes of another file."""
    other = next(p for p in path.parent.glob("*.kv") if p != path)
    shutil.copyfile(other, path)


# what, which file (0: the first, -1: the last), what is done, the reason that is counted
DAMAGE = [
    ("header flipped", -1, flip("header"), "header"),
    ("tokens flipped", -1, flip("tokens"), "checksum"),
    ("rows flipped", 0, flip("rows"), "checksum"),
    ("rows of the tail flipped", -1, flip("rows"), "checksum"),
    ("mark flipped", -1, flip("mark"), "checksum"),
    ("cut in the rows", -1, cut(0.5), "size"),
    ("emptied", 0, cut(0), "size"),
    ("longer", -1, lambda p: p.write_bytes(p.read_bytes() + b"x"), "size"),
    ("of another version", -1, lambda p: put(p, 8, b"\2\0\0\0"), "version"),
    ("no chunk at all", -1, lambda p: put(p, 0, b"GGUF"), "header"),
    ("another's bytes", -1, exchange, "name"),
    ("use flipped", -1, flip("use"), None),
    ("untouched", -1, lambda p: None, None),
]


def told(log):
    """What the store said. Lines come at their own time: all are there when the server has ended."""
    return [line for line in log.splitlines() if "KV store: " in line]


def use_damaged(build, model, talk, folder, what, which, damage, reason):
    """A server of its own finds one damaged file: told and counted, and what is before it used."""
    chain = folder.chain(talk.ids)
    file = folder.path / f"{chain[which][1]}.kv"
    kept = chain[-1][0] if reason is None else chain[-2][0] if which else 0
    damage(file)
    with serve(build, model, folder) as server:
        answer = talk.ask(server, talk.next(130, 140))
        claim(f"{what}: {kept} tokens are used", answer.cached == kept, answer.cached)
        bad = server.metric("ds4x_kv_bad_files_total")
        claim(f"{what}: it is counted", bad == (reason is not None) and (
            not reason or server.metric("ds4x_kv_bad_files_total", reason=reason) == 1), bad)
    log = told(server.log())
    claim(f"{what}: the log names the file", (reason is None) == (not log) and
          all(file.name in line and "removed" in line for line in log), log)


def use_removed(build, model, talk, folder):
    """Somebody removes a file under the server."""
    chain = folder.chain(talk.ids)
    with serve(build, model, folder) as server:
        os.remove(folder.path / f"{chain[-1][1]}.kv")
        answer = talk.ask(server, talk.next(300, 310))
        claim("removed: what is before it is used", answer.cached == chain[-2][0], answer.cached)
    log = told(server.log())
    claim("removed: it is told", len(log) == 1 and "was removed by somebody" in log[0] and
          chain[-1][1] in log[0], log)


def use_foreign(build, model, talk, folder):
    """Files of others, and halves of our own."""
    notes, half = folder.path / "notes.txt", folder.path / f"{'0' * 40}.kv.tmp-1"
    notes.write_text("mine")
    half.write_bytes(b"half")
    with serve(build, model, folder) as server:
        ids = talk.next()
        kept = folder.length(ids[:-1])
        claim("foreign files: what is ours is used", talk.ask(server, ids).cached == kept > 0)
    log = told(server.log())
    claim("foreign files: both are told", len(log) == 2 and "1 half-written files" in log[0] and
          "1 files in" in log[1], log)
    claim("foreign files: they are left alone", notes.exists() and not half.exists())


def test_damage(build, model, judge, path):
    folder = Folder(path)
    talks = [Talk(model, judge, name) for name in ("damaged", "another")]
    with serve(build, model, folder) as server:
        for talk in talks:
            talk.ask(server, talk.next(800, 810))
    for what, which, damage, reason in DAMAGE:
        use_damaged(build, model, talks[0], folder, what, which, damage, reason)
        kept = folder.length(talks[0].ids)
        claim(f"{what}: afterwards it is whole again", len(talks[0].ids) - kept <= UNIT, kept)
    use_removed(build, model, talks[0], folder)
    use_foreign(build, model, talks[1], folder)


# ---- no room, no right ------------------------------------------------------------------------

@contextlib.contextmanager
def mounted(path, *words):
    """Something is mounted there; yields False where this is not allowed."""
    done = subprocess.run(["mount", *words, str(path)], capture_output=True) \
        if os.geteuid() == 0 and shutil.which("mount") else None
    try:
        yield done is not None and done.returncode == 0
    finally:
        if done is not None and done.returncode == 0:
            subprocess.run(["umount", str(path)], check=True)


def talk_unwritten(build, model, judge, folder, name, child=None):
    """Conversations with a folder that takes nothing; the log."""
    with serve(build, model, folder, child=child) as server:
        talks = [Talk(model, judge, f"{name}, {i}") for i in range(5)]
        for _ in range(2):
            for talk in talks:
                talk.ask(server, talk.next())
        until(lambda: server.metric("ds4x_kv_failed_writes_total") > 0, "it is counted")
        until(lambda: "a chunk was not written" in server.log(), "the log says so")
        claim(f"{name}: no answer failed",
              server.metric("ds4x_requests_total", status="500") == 0)
        claim(f"{name}: it is healthy", server.get("/health").status == 200)
        log = server.lines
    lines = [line for line in log if "KV store" in line]
    claim(f"{name}: it does not flood the log", len(lines) < 20, *lines)
    return "\n".join(lines)


def test_full(build, model, judge, path):
    path.mkdir(0o700)
    with mounted(path, "-t", "tmpfs", "-o", "size=300k", "none") as full:
        if not full:
            print("skipped: a full disk: a small tmpfs cannot be mounted here")
            return
        log = talk_unwritten(build, model, judge, Folder(path), "a full disk")
        claim("that the disk is full is said", "the disk is full" in log, log)
        claim("nothing is left half-written", not list(path.glob("*.tmp-*")), list(path.iterdir()))


def test_short_files(build, model, judge, path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    talk_unwritten(build, model, judge, Folder(path), "short files", {"preexec_fn": limit})
    claim("no part of a file is left", not list(path.glob("*.tmp-*")), list(path.iterdir()))


def test_read_only(build, model, judge, path):
    folder = Folder(path)
    talk = Talk(model, judge, "read only")
    with serve(build, model, folder) as server:
        talk.ask(server, talk.next(800, 810))
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
    os.chmod(path, 0o500)
    with mounted(path, "--bind", str(path)) as there:
        if there:
            there = subprocess.run(["mount", "-o", "remount,ro,bind", str(path)]).returncode == 0
        if os.geteuid() == 0 and not there:
            print("skipped: a folder that cannot be written: root can write everywhere here")
            os.chmod(path, 0o700)
            return
        with serve(build, model, folder) as server:
            ids = talk.next()
            kept = folder.length(ids)
            answer = talk.ask(server, ids)
            claim("read only: what is there is used", answer.cached == kept > CHUNK, answer.cached)
            until(lambda: "cannot be written" in server.log(), "it is told")
    os.chmod(path, 0o700)
    claim("read only: nothing has changed",
          before == {p.name: p.stat().st_mtime_ns for p in path.iterdir()})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--judge")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ds4-faults-") as place:
        model = Model(options.judge or options.build, place)
        judge = Judge(model)
        for test, *more in ((test_kills, options.kills), (test_damage,), (test_full,),
                            (test_short_files,), (test_read_only,)):
            path = pathlib.Path(place) / test.__name__
            claim.run(test.__name__, test, options.build, model, judge, path, *more)
        wrong = judge.end()
        claim(f"{judge.judged} answers are those of a fresh engine", not wrong, *wrong[:5])
    return claim.end()


if __name__ == "__main__":
    sys.exit(main())
