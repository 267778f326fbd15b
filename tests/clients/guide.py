"""docs/CLIENTS.md says what the server prints."""
from _trial import ROOT, TITLES, check


def program():
    return []


def it_has_the_printed_settings(trial, _):
    server = trial.serve("sdk", ctx=131072)
    guide = (ROOT / "docs/CLIENTS.md").read_text("utf-8")
    for title in TITLES:
        printed = server.lines_below(title).replace(server.url, "http://127.0.0.1:8080")
        check(f"\n{printed}\n```" in guide, f"the block of {title} is another than\n{printed}")


CLAIMS = [it_has_the_printed_settings]
