"""Expert balance, held-out text loss, what the indexer keeps, and file sizes, for the final checkpoint."""
import json, lzma, sys, math, torch, numpy as np
sys.path.insert(0, "."); import net, official, tok, quant
torch.set_grad_enabled(False); torch.set_num_threads(1)
m = net.Model(); sd = official.read("./model.safetensors"); m.load_state_dict(official.to_net(sd)); t = tok.load("."); out = {}
ev = json.loads(lzma.open("eval.json.xz").read())
# 1. expert load over held-out text and chats
load = [torch.zeros(8) for _ in range(8)]; nll = cnt = nbytes = 0
for x in ev["text"][:10]:
    ids = torch.tensor([[0] + x])[:, :512]; P = -ids.shape[1] % 128; h, _ = m(torch.nn.functional.pad(ids, (0, P), value=2), torch.float32, True, count=True); L = ids.shape[1]
    z = m.lm_head(h[:L - 1]); nll += torch.nn.functional.cross_entropy(z, ids[0, 1:], reduction="sum").item(); cnt += L - 1; nbytes += len(t.decode(ids[0, 1:].tolist()).encode())
    for i, l in enumerate(m.model.layers): load[i] += l.mlp.load
out["text"] = {"tokens": cnt, "nll_per_token": round(nll / cnt, 4), "perplexity_per_token": round(math.exp(nll / cnt), 2), "bits_per_byte": round(nll / math.log(2) / nbytes, 3)}; print(out["text"], flush=True)
out["expert_load_text"] = [[round(v, 3) for v in (x / x.sum()).tolist()] for x in load]
load = [torch.zeros(8) for _ in range(8)]
for k in ("chat", "tool", "memory", "result"):
    for it in [i for i in ev["items"] if i["kind"] == k][:3]:
        x = it["prompt"] + it["target"]; x = x + [2] * (-len(x) % 128); m(torch.tensor([x]), torch.float32, True, count=True)
        for i, l in enumerate(m.model.layers): load[i] += l.mlp.load
out["expert_load_chats"] = [[round(v, 3) for v in (x / x.sum()).tolist()] for x in load]
print("max/mean load", [round(max(x) * 8, 2) for x in out["expert_load_text"]], [round(max(x) * 8, 2) for x in out["expert_load_chats"]], flush=True)
# 2. the indexer: share of the attention mass on compressed rows that its 64 rows keep, against the 64 latest and 64 random rows
kept = {}
orig = net.Attention.forward
def forward(s, n, st):
    o = orig(s, n, st)
    if s.r == 4:
        c = s.c; B, T, _ = n.shape; rp = st["rope"][1]; qr = net.rms_(s.q_a_proj(n), s.q_a_norm.weight); pos = torch.arange(1023, T, 256)
        q = net.rot(net.rms_(s.q_b_proj(qr[:, pos]).view(len(pos), c.H, c.hd)), rp[0][pos][:, None], rp[1][pos][:, None]); rows = s.compressor.rows(n, rp)[0]
        sc = s.compressor.indexer.scores(n[:, pos], qr[:, pos], s.compressor.indexer.rows(n, rp), rp, pos)[0]
        for k, p in enumerate(pos.tolist()):
            v = (p + 1) // 4; a = torch.softmax(q[k] @ rows[:v].t() * c.hd ** -0.5, -1); top = sc[k, :v].topk(64).indices
            rnd = torch.randperm(v)[:64]; best = a.mean(0).topk(64).indices
            kept.setdefault(s.l, []).append([a[:, top].sum(-1).mean().item(), a[:, -64:].sum(-1).mean().item(), a[:, rnd].sum(-1).mean().item(), a[:, best].sum(-1).mean().item()])
    return o
net.Attention.forward = forward
for i, l in enumerate(m.model.layers): l.self_attn.l = i
for it in [i for i in ev["items"] if i["kind"] == "recall-13000"][:1]:
    x = (it["prompt"] + [2] * 128)[:len(it["prompt"]) // 128 * 128]; m(torch.tensor([x]), torch.float32, True)
out["indexer_kept_mass"] = {"layer %d" % l: dict(zip(("indexer top 64", "latest 64", "random 64", "best possible 64"), [round(v, 3) for v in np.mean(x, 0).tolist()])) for l, x in kept.items()}; print(out["indexer_kept_mass"], flush=True)
# 3. sizes
ex = sum(v.numel() for k, v in sd.items() if ".experts." in k and "shared" not in k); w1 = ex * 2 // 3; w2 = ex // 3; emb = 4096 * 256; fn = sum(v.numel() for k, v in sd.items() if "hc_" in k and k.endswith("fn")); tid = sum(v.numel() for k, v in sd.items() if "tid2eid" in k)
rest = sum(v.numel() for k, v in sd.items()) - ex - 2 * emb - fn - tid; q8 = lambda n: n * 34 / 32
out["parameters"] = {"total": sum(v.numel() for k, v in sd.items()) - tid, "routed experts": ex, "embedding + head": 2 * emb, "hyper-connections": fn, "rest": rest}
out["file_MB"] = {"IQ2_XXS/Q2_K experts, F16 embedding, Q8_0 rest": round((w1 * 66 / 256 + w2 * 84 / 256 + emb * 2 + q8(emb) + fn * 2 + q8(rest) + tid * 4) / 1e6, 2), "Q4_K experts, F16 embedding, Q8_0 rest": round((ex * 144 / 256 + emb * 2 + q8(emb) + fn * 2 + q8(rest) + tid * 4) / 1e6, 2), "all Q8_0": round((q8(ex + 2 * emb + rest) + fn * 2 + tid * 4) / 1e6, 2), "bf16": round(sum(v.numel() for v in sd.values()) * 2 / 1e6, 2)}
grid = quant.load_grid("../../tests/data/iq2xxs_grid.txt"); n2 = official.to_net(sd); e = [[], []]
for k, v in n2.items():
    if k.endswith("gate_up_proj") and v.ndim == 3: e[0].append(((quant.iq2_xxs(v, grid) - v).norm() / v.norm()).item())
    if k.endswith("experts.down_proj"): e[1].append(((quant.q2_k(v) - v).norm() / v.norm()).item())
out["second_rounding_rel_change"] = {"IQ2_XXS gate/up": round(max(e[0]), 5), "Q2_K down": round(max(e[1]), 5)}
json.dump(out, open("build/data/analysis.json", "w"), indent=1); print({k: out[k] for k in ("parameters", "file_MB", "second_rounding_rel_change")})
