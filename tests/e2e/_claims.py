"""Runs a script's claims: its functions whose names begin with claim_, in their order.

One that fails, whatever it fell over, does not stop the others. The last line is the sum.
"""
import traceback


def run_claims(names, call=lambda claim: claim(), only=""):
    """names: the script's globals(). call: calls a claim, with what it needs around it. Returns the
    exit status."""
    passed = failed = 0
    for name, claim in list(names.items()):
        if not name.startswith("claim_") or only not in name:
            continue
        try:
            call(claim)
            passed += 1
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED: {name[6:]}\n{''.join(traceback.format_exc().splitlines(True)[-12:])}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
