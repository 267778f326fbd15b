"""The packages that programs use: openai, @anthropic-ai/sdk, ai. The claims are in scripts/."""
import re
import shutil

import _install
from _trial import HERE


def program():
    """[node, folder with the packages]."""
    return _install.node() + [_install.folder_of("sdk") / "node_modules"]


def run_script(trial, program, file, name, limit_s=300):
    """Run one exported function of scripts/FILE."""
    node, packages = program
    for script in (HERE / "scripts").glob("*.mjs"):
        shutil.copy(script, trial.work)
    (trial.work / "node_modules").symlink_to(packages)
    trial.run([node, "claim.mjs", file, name], {"DS4_URL": trial.server.url}, limit_s)


def claims_of(file, sampling=False):
    """A claim for each function that scripts/FILE exports, on played answers or sampled ones."""
    text = (HERE / "scripts" / file).read_text("utf-8")
    for name in re.findall(r"^export async function (\w+)\(\)", text, re.M):
        def claim(trial, program, name=name):
            if sampling:
                trial.serve(ctx=8192, sessions=8)
            else:
                trial.serve("sdk", ctx=16384, decode_tps=1000)
            run_script(trial, program, file, name)
        claim.__name__ = name if sampling else f"{file.removesuffix('.mjs')}: {name}"
        yield claim


CLAIMS = [claim for file in ("openai.mjs", "anthropic.mjs", "ai.mjs") for claim in claims_of(file)]
