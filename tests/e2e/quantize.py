#!/usr/bin/env python3
"""quantize.py BUILD_DIR: ds4 quantize as a user calls it.

The published checkpoints' tensors are listed here by the specification's table (names, types,
dimensions), independently of the program's; their files are holes of the full size.
"""
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time

from _claims import run_claims

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
DATA = ROOT / "tests/data"
LAYERS, HASHED, EXPERTS, VOCAB = 43, 3, 256, 129280
SIZES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "I8": 1, "I64": 8}
CONFIG = {
    "model_type": "deepseek_v4", "vocab_size": VOCAB, "hidden_size": 4096, "moe_intermediate_size": 2048,
    "num_hidden_layers": LAYERS, "num_attention_heads": 64, "num_key_value_heads": 1, "head_dim": 512,
    "qk_rope_head_dim": 64, "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8,
    "n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 6,
    "scoring_func": "sqrtsoftplus", "norm_topk_prob": True, "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0, "sliding_window": 128, "index_n_heads": 64, "index_head_dim": 128,
    "index_topk": 512, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-06, "rms_norm_eps": 1e-06,
    "max_position_embeddings": 1048576, "bos_token_id": 0, "eos_token_id": 1,
    "tie_word_embeddings": False, "compress_rope_theta": 160000.0, "rope_theta": 10000.0,
    "num_hash_layers": HASHED, "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0],
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 65536},
}


def quantize(*args, timeout=120):
    return subprocess.run([str(BUILD / "ds4"), "quantize", *map(str, args)], capture_output=True,
                          timeout=timeout)


def works(run):
    assert run.returncode == 0, (run.returncode, run.stderr[-500:])
    return run.stdout


def fails(run, status, *words):
    """It ended so, and its last line says why; lines before it name the tensors."""
    lines = run.stderr.decode().splitlines()
    assert run.returncode == status and not run.stdout, (run.returncode, run.stdout[:100], lines)
    assert all(word in lines[-1] for word in words), lines
    return lines


# ---- the published checkpoints, by the specification's section 9.2 ----------------------------


def fp8(name, rows, cols):
    yield name + ".weight", "F8_E4M3", [rows, cols]
    yield name + ".scale", "F8_E8M0", [rows // 128, cols // 128]


def fp4(name, rows, cols):
    yield name + ".weight", "I8", [rows, cols // 2]
    yield name + ".scale", "F8_E8M0", [rows, cols // 32]


def hyper(prefix):
    for part in "attn", "ffn":
        yield f"{prefix}hc_{part}_fn", "F32", [24, 16384]
        yield f"{prefix}hc_{part}_base", "F32", [24]
        yield f"{prefix}hc_{part}_scale", "F32", [3]


def attention(p):
    yield from fp8(p + "wq_a", 1024, 4096)
    yield from fp8(p + "wq_b", 32768, 1024)
    yield from fp8(p + "wkv", 512, 4096)
    yield from fp8(p + "wo_a", 8192, 4096)
    yield from fp8(p + "wo_b", 4096, 8192)
    yield p + "q_norm.weight", "BF16", [1024]
    yield p + "kv_norm.weight", "BF16", [512]
    yield p + "attn_sink", "F32", [64]


def compressor(p, ratio, width, norm):
    yield p + "ape", "F32", [ratio, width]
    yield p + "wkv.weight", "BF16", [width, 4096]
    yield p + "wgate.weight", "BF16", [width, 4096]
    yield p + "norm.weight", "BF16", [norm]


def experts(p, hashed):
    yield p + "gate.weight", "BF16", [EXPERTS, 4096]
    if hashed:
        yield p + "gate.tid2eid", "I64", [VOCAB, 6]
    else:
        yield p + "gate.bias", "F32", [EXPERTS]
    for e in range(EXPERTS):
        yield from fp4(f"{p}experts.{e}.w1", 2048, 4096)
        yield from fp4(f"{p}experts.{e}.w2", 4096, 2048)
        yield from fp4(f"{p}experts.{e}.w3", 2048, 4096)
    yield from fp8(p + "shared_experts.w1", 2048, 4096)
    yield from fp8(p + "shared_experts.w2", 4096, 2048)
    yield from fp8(p + "shared_experts.w3", 2048, 4096)


def layer(p, ratio, hashed):
    yield from hyper(p)
    yield p + "attn_norm.weight", "BF16", [4096]
    yield p + "ffn_norm.weight", "BF16", [4096]
    yield from attention(p + "attn.")
    if ratio:
        yield from compressor(p + "attn.compressor.", ratio, 1024 if ratio == 4 else 512, 512)
    if ratio == 4:
        yield from fp8(p + "attn.indexer.wq_b", 8192, 1024)
        yield p + "attn.indexer.weights_proj.weight", "BF16", [64, 4096]
        yield from compressor(p + "attn.indexer.compressor.", 4, 256, 128)
    yield from experts(p + "ffn.", hashed)


def heads(p):
    yield p + "norm.weight", "BF16", [4096]
    yield p + "hc_head_fn", "F32", [4, 16384]
    yield p + "hc_head_base", "F32", [4]
    yield p + "hc_head_scale", "F32", [1]


def preview_draft():
    yield from layer("mtp.0.", 0, False)
    yield from heads("mtp.0.")
    yield from fp8("mtp.0.e_proj", 4096, 4096)
    yield from fp8("mtp.0.h_proj", 4096, 4096)
    yield "mtp.0.enorm.weight", "BF16", [4096]
    yield "mtp.0.hnorm.weight", "BF16", [4096]


def july_draft():
    for i in range(3):
        yield from layer(f"mtp.{i}.", 0, False)
    yield from fp8("mtp.0.main_proj", 4096, 12288)
    yield "mtp.0.main_norm.weight", "BF16", [4096]
    yield from heads("mtp.2.")
    yield "mtp.2.markov_head.markov_w1.weight", "BF16", [VOCAB, 256]
    yield "mtp.2.markov_head.markov_w2.weight", "BF16", [VOCAB, 256]
    yield "mtp.2.confidence_head.proj.weight", "BF16", [1, 4352]


def published(draft):
    yield "embed.weight", "BF16", [VOCAB, 4096]
    yield "head.weight", "BF16", [VOCAB, 4096]
    yield from heads("")
    for n, ratio in enumerate(CONFIG["compress_ratios"][:LAYERS]):
        yield from layer(f"layers.{n}.", ratio, n < HASHED)
    yield from draft()


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_shard(path, tensors):
    header, at = {}, 0
    for name, dtype, shape in tensors:
        n = count(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + at)
    return at


def write_checkpoint(folder, tensors, shards):
    """Returns the bytes of its tensors."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weight_map, total = {}, 0
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        mine = tensors[i * len(tensors) // shards:(i + 1) * len(tensors) // shards]
        total += write_shard(folder / name, mine)
        weight_map.update({t[0]: name for t in mine})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


def listed(path):
    return b"".join(l for l in path.read_bytes().splitlines(True) if not l.startswith(b"#"))


def claim_published_checkpoints_become_the_published_files(folder):
    lists = {"q2": "q2", "q2-q4": "q2q4_l37_42", "q4": "q4"}
    for draft, left_out in (preview_draft, None), (july_draft, None):
        tensors = list(published(draft))
        total = write_checkpoint(folder, tensors, 46)
        n_draft = sum(t[0].startswith("mtp.") for t in tensors)
        if draft is preview_draft:  # the specification's 145.30 GiB and 3.35 GiB of draft
            assert abs(total / 2**30 - 148.65) < 0.02, total
        for recipe, name in lists.items():
            run = quantize("--in", folder, "--recipe", recipe, "--dry-run")
            assert works(run) == listed(DATA / f"gguf_tensors_{name}.tsv"), recipe
            assert f"{n_draft} tensors of the draft head are left out" in run.stderr.decode()
        for shard in folder.glob("*.safetensors*"):
            shard.unlink()


# ---- shards that lie -------------------------------------------------------------------------


def claim_malformed_shards_give_one_clear_error(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shard = folder / "model.safetensors"

    def given(header, data=64, length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        shard.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text +
                          bytes(data))
        return quantize("--in", folder, "--recipe", "q2", "--dry-run")

    def tensor(dtype="F32", shape=(4,), at=(0, 16)):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}

    for run, words in (
            (given({"a": tensor(at=(0, 999))}, 64), ["a: data at 0..999, the file has 64"]),
            (given({"a": tensor(at=(0, 20))}), ["4 values of F32 in 20 bytes"]),
            (given({"a": tensor(), "b": tensor(at=(8, 24))}), ["a and b overlap at byte 8"]),
            (given({"a": tensor("F31")}), ["a has the unknown dtype F31"]),
            (given({"a": tensor()}, length=1 << 62), ["a header of 4611686018427387904 bytes"]),
            (given(b"{" + b" " * 100, length=100), ["not JSON"]),
            (given({"embed.weight": tensor("I64", (2,))}),
             ["embed.weight is I64, which holds no weights"])):
        lines = fails(run, 1, "ds4: ", *words)
        assert len(lines) == 1, lines
    shard.unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"embed.weight": "model-2.safetensors"}}))
    fails(quantize("--in", folder, "--recipe", "q2", "--dry-run"), 1, "model-2.safetensors")
    index.unlink()


# ---- at work ------------------------------------------------------------------------------------


def synth(path, recipe="f32"):
    subprocess.run([str(BUILD / "ds4"), "synth", "--shape", "toy", "--layers", "12", "--recipe",
                    recipe, "--out", str(path)], check=True, capture_output=True, timeout=60)


def claim_interrupted_and_killed_it_goes_on_to_the_same_file(folder):
    source, whole, out = folder / "in.gguf", folder / "whole.gguf", folder / "out.gguf"
    part = folder / "out.gguf.part"
    synth(source)
    works(quantize("--in", source, "--recipe", "q2", "--out", whole))
    for stop, status in (signal.SIGINT, 130), (signal.SIGKILL, -9):
        run = subprocess.Popen([str(BUILD / "ds4"), "quantize", "--in", str(source), "--recipe", "q2",
                                "--threads", "1", "--out", str(out)], stderr=subprocess.PIPE)
        while not (part.exists() and part.stat().st_size > 1 << 20) and run.poll() is None:
            time.sleep(0.002)
        run.send_signal(stop)
        said = run.communicate(timeout=60)[1].decode()
        if run.returncode == 0:
            continue  # it was faster
        assert run.returncode == status, (run.returncode, said)
        assert part.exists() and not out.exists()
        if stop == signal.SIGINT:
            assert "the same command goes on from there" in said, said
            fails(quantize("--in", source, "--recipe", "q4", "--out", out), 1, "--restart")
        works(quantize("--in", source, "--recipe", "q2", "-t", "2", "--out", out))
        assert out.read_bytes() == whole.read_bytes()
        assert not part.exists() and not (folder / "out.gguf.part.journal").exists()
        out.unlink()


def claim_compare_prints_a_line_a_tensor(folder):
    source = folder / "in.gguf"
    synth(source)
    table = works(quantize("--in", source, "--recipe", "q2", "--compare", "--tensor-type",
                           "output.weight=f16")).decode().splitlines()
    assert table[0].split("\t") == ["tensor", "from", "to", "values", "bytes", "rms", "weighted",
                                    "worst"]
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in table[1:]}
    assert len(rows) == len(table) - 1
    assert rows["output.weight"][:2] == ["F32", "F16"]
    up = rows["blk.3.ffn_up_exps.weight"]
    assert up[:2] == ["F32", "IQ2_XXS"] and 0.3 < float(up[4]) < 0.4 and up[5] == "-", up
    assert sorted(p.name for p in folder.iterdir()) == ["in.gguf"]
    out = folder / "out.gguf"
    again = works(quantize("--in", source, "--recipe", "q2", "--compare", "--out", out,
                           "--tensor-type", "output.weight=f16"))
    assert again.decode().splitlines() == table and out.exists()


def claim_usage_is_explained(folder):
    fails(quantize("--in", folder), 2, "needs --in PATH and --recipe")
    fails(quantize("--in", folder, "--recipe", "q2"), 2, "needs --out FILE, --compare or both")
    fails(quantize("--in", folder, "--recipe", "q2", "--dry-run", "--compare"), 2, "or else --dry-run")
    for option in ["--restart"], ["--name", "x"]:
        for kind in "--dry-run", "--compare":
            fails(quantize("--in", folder, "--recipe", "q2", kind, *option), 2, option[0], "no --out")
    fails(quantize("--in", folder, "--recipe", "q3", "--dry-run"), 1, "no recipe q3")
    fails(quantize("--in", folder, "--recipe", "q2", "--dry-run", "--tensor-type", "x"), 1,
          "x is not PATTERN=TYPE")
    fails(quantize("--in", folder / "gone", "--recipe", "q2", "--dry-run"), 1, "gone")


def in_scratch(claim):
    with tempfile.TemporaryDirectory() as scratch:
        claim(pathlib.Path(scratch))


def main():
    return run_claims(globals(), in_scratch)



if __name__ == "__main__":
    sys.exit(main())
