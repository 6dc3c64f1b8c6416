#!/usr/bin/env python3
"""Training with PyTorch and PEFT, measured as node/internal/train/gpuspeed_test.go measures ours.

    gpu_peft.py --models 1B,3B,8B --out results.jsonl

Same shapes with random weights, same rank, targets, batch, sequence length and precision; bf16 LoRA, and NF4 QLoRA where bitsandbytes
is installed. Gradient checkpointing only where it does not fit without. Needs torch, transformers and peft on a machine with a GPU.
"""
import argparse, gc, json, sys, time

SHAPES = {  # hidden, intermediate, layers, heads, key and value heads, vocabulary, tied
    "tiny": (128, 256, 2, 4, 2, 1000, False),
    "1B": (2048, 8192, 16, 32, 8, 128256, True),
    "3B": (3072, 8192, 28, 24, 8, 128256, True),
    "8B": (4096, 14336, 32, 32, 8, 128256, False),
}
RANK = 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def hardware_flops(shape, tokens, recompute):
    """Twice the parameters of linear layers for each pass, and causal attention; what is computed again counts."""
    hidden, inter, layers, heads, kv, vocab, _ = shape
    hd = hidden // heads
    block = layers * (2 * hidden * hidden + 2 * hidden * kv * hd + 3 * hidden * inter)
    again = recompute / layers
    attention = 2 * tokens * hidden * layers
    return tokens * (2 * block * (2 + again) + 4 * hidden * vocab + attention * (3.5 + again))


def build(torch, shape, precision, checkpointing):
    from transformers import LlamaConfig, LlamaForCausalLM
    from peft import LoraConfig, get_peft_model

    hidden, inter, layers, heads, kv, vocab, tied = shape
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inter, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        vocab_size=vocab, tie_word_embeddings=tied, rope_theta=500000.0, max_position_embeddings=8192, attn_implementation="sdpa", use_cache=False,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cpu" if precision == "nf4" else "cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if precision == "nf4":
        import bitsandbytes as bnb

        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in TARGETS:
                new = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
                new.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, new)
        model = model.cuda()
        model.is_loaded_in_4bit = True
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM"))
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return model


def measure(torch, name, precision, tokens, checkpointing):
    shape = SHAPES[name]
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = build(torch, shape, precision, checkpointing)
    model.train()
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    ids = torch.tensor([[(i * 7919 + i * i) % shape[5] for i in range(tokens)]], device="cuda")

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        torch.cuda.synchronize()

    for _ in range(3):
        step()
    steps, began = 0, time.perf_counter()
    while steps < 5 or time.perf_counter() - began < 5:
        step()
        steps += 1
    per_step = (time.perf_counter() - began) / steps
    again = shape[2] if checkpointing else 0
    return {
        "step_ms": 1e3 * per_step, "tokens_per_s": tokens / per_step, "peak_bytes": torch.cuda.max_memory_reserved(),
        "recompute": again, "tflops": hardware_flops(shape, tokens, again) / per_step / 1e12,
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="1B,3B,8B")
    p.add_argument("--tokens", default="2048,4096")
    p.add_argument("--out", default="")
    a = p.parse_args()
    try:
        import torch, transformers, peft
    except ImportError as e:
        sys.exit(f"gpu_peft: {e}: install torch, transformers and peft for the comparison")
    if not torch.cuda.is_available():
        sys.exit("gpu_peft: PyTorch sees no GPU")
    precisions = ["bf16"]
    try:
        import bitsandbytes

        precisions.append("nf4")
        bnb = bitsandbytes.__version__
    except ImportError:
        bnb = ""
        print("gpu_peft: bitsandbytes is not installed, QLoRA is not measured", file=sys.stderr)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__, "bitsandbytes": bnb}
    for name in a.models.split(","):
        for precision in precisions:
            for tokens in map(int, a.tokens.split(",")):
                line = {"engine": "peft", "device": torch.cuda.get_device_name(), "model": name, "precision": precision, "tokens": tokens, "rank": RANK, "versions": versions}
                for checkpointing in (False, True):
                    try:
                        line.update(measure(torch, name, precision, tokens, checkpointing))
                        line.pop("error", None)
                        break
                    except torch.cuda.OutOfMemoryError as e:
                        line["error"] = str(e).splitlines()[0]
                    except Exception as e:  # the other measurements go on
                        line["error"] = f"{type(e).__name__}: {e}"
                        break
                text = json.dumps(line)
                print(text, flush=True)
                if a.out:
                    with open(a.out, "a") as f:
                        f.write(text + "\n")


main()
