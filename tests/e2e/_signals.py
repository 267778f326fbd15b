"""_signals.py: programs that are interrupted."""
import pathlib
import re
import signal
import time


def heard(child, number=signal.SIGINT):
    """Wait until a program has a handler for the signal, which before that ends it at once."""
    while child.poll() is None:
        try:
            text = pathlib.Path(f"/proc/{child.pid}/status").read_text()
        except OSError:             # no Linux: it is told nowhere
            time.sleep(2)
            return
        if int(re.search(r"^SigCgt:\s+([0-9a-f]+)", text, re.M)[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.01)
