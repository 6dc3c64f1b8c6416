#!/usr/bin/env python3
"""How far PyTorch's training in bfloat16 is from training in float32, on a tiny model.

    bf16_torch.py GOLDEN/models/llama2-mha > node/internal/train/testdata/bf16_torch.json

Needs torch and numpy only. The model's weights are rounded to bfloat16 first. It is then trained twice from its adapter_init on the
batches of golden.safetensors: in float32, and as people do it in bfloat16: frozen weights of that type, the rest under autocast.
"""
import json, struct, sys

import numpy as np
import torch
import torch.nn.functional as F

dir = sys.argv[1]
torch.set_num_threads(1)


def read(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header, body = json.loads(f.read(n)), f.read()
    types = {"F32": np.float32, "I64": np.int64}
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = torch.from_numpy(np.frombuffer(body[a:b], types[t["dtype"]]).reshape(t["shape"]).copy())
    return out


cfg = json.load(open(dir + "/config.json"))
lora = json.load(open(dir + "/adapter_init/adapter_config.json"))
adam = json.load(open(dir + "/golden.json"))["adamw"]
scale = lora["lora_alpha"] / lora["r"]
heads = cfg["num_attention_heads"]
rope = cfg.get("rope_theta") or cfg.get("rope_parameters", {}).get("rope_theta", 10000.0)
assert cfg["model_type"] == "llama" and cfg.get("num_key_value_heads", heads) == heads
golden = read(dir + "/golden.safetensors")
weights = {k: v.bfloat16() for k, v in read(dir + "/model.safetensors").items()}


def norm(x, w):
    h = x.float()
    return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + cfg["rms_norm_eps"])).type_as(x) * w


def rotate(x, cos, sin):
    h = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., h:], x[..., :h]), -1) * sin


def forward(w, ab, ids, labels):
    def linear(name, x):
        a, b = (ab["base_model.model.%s.lora_%s.weight" % (name, c)] for c in "AB")
        return F.linear(x, w[name + ".weight"]) + F.linear(F.linear(x, a), b) * scale

    x = F.embedding(ids, w["model.embed_tokens.weight"])
    B, T, C = x.shape
    hd = C // heads
    f = torch.outer(torch.arange(T).float(), 1.0 / rope ** (torch.arange(0, hd, 2).float() / hd))
    f = torch.cat((f, f), -1)
    cos, sin, mask = f.cos(), f.sin(), torch.full((T, T), float("-inf")).triu(1)
    for i in range(cfg["num_hidden_layers"]):
        p = "model.layers.%d." % i
        h = norm(x, w[p + "input_layernorm.weight"])
        q, k, v = (linear(p + "self_attn.%s_proj" % c, h).view(B, T, heads, hd).transpose(1, 2) for c in "qkv")
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        s = torch.matmul(q, k.transpose(2, 3) * hd ** -0.5) + mask
        y = torch.matmul(F.softmax(s, -1).to(v.dtype), v).transpose(1, 2).reshape(B, T, C)
        x = x + linear(p + "self_attn.o_proj", y)
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        x = x + linear(p + "mlp.down_proj", F.silu(linear(p + "mlp.gate_proj", h)) * linear(p + "mlp.up_proj", h))
    logits = F.linear(norm(x, w["model.norm.weight"]), w["lm_head.weight"]).float()
    labels = F.pad(labels[:, 1:], (0, 1), value=-100)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def train(dtype):
    w = {k: v.to(dtype) for k, v in weights.items()}
    ab = {k: v.clone().requires_grad_() for k, v in read(dir + "/adapter_init/adapter_model.safetensors").items()}
    opt = torch.optim.AdamW(list(ab.values()), lr=adam["lr"], betas=(adam["beta1"], adam["beta2"]), eps=adam["eps"], weight_decay=adam["weight_decay"])
    losses, first = [], None
    for t in range(20):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
            loss = forward(w, ab, golden["train.input_ids"][t % 4], golden["train.labels"][t % 4])
        loss.backward()
        if first is None:
            first = torch.cat([ab[k].grad.flatten() for k in sorted(ab)])
        opt.step()
        losses.append(loss.item())
    return losses, first, torch.cat([ab[k].detach().flatten() for k in sorted(ab)])


start = read(dir + "/adapter_init/adapter_model.safetensors")
start = torch.cat([start[k].flatten() for k in sorted(start)])
exact, half = train(torch.float32), train(torch.bfloat16)
size = lambda x: x.norm().item()
print(json.dumps({
    "torch": torch.__version__,
    "loss_f32": exact[0],
    "loss_bf16": half[0],
    # relative: of the first step's gradient, and of how far the adapter moved in all steps
    "gradient_error": size(half[1] - exact[1]) / size(exact[1]),
    "adapter_error": size(half[2] - exact[2]) / size(exact[2] - start),
}, indent=1))
