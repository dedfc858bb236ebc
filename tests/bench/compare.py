"""Alternates `neurogrid-coordinator bench` with llama.cpp's llama-bench on equal bytes and prints ratios.

  python3 tests/bench/compare.py --llama-bench PATH [--gguf FILE] [--rounds 5]

Without --gguf a synthetic Llama-1B (bf16, hidden 2048, ffn 8192, 16 layers, 32 heads, 8 kv heads,
vocabulary 65536, tied; 2.2 GB) is written once into the cache folder for llama-bench; NeuroGrid draws
weights of the same shape by itself. With --gguf both read that file. A round is one run of each;
reported are medians and the median of the rounds' ratios with least and most.
"""

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 8192, 16, 32, 8, 64, 65536
F32, BF16 = 0, 30


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def write_gguf(path):
    keys = [("general.architecture", 8, text("llama")), ("tokenizer.ggml.model", 8, text("no_vocab")),
            ("llama.rope.freq_base", 6, struct.pack("<f", 1e6)),
            ("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5))]
    for name, value in [("block_count", LAYERS), ("context_length", 128000), ("embedding_length", HIDDEN),
                        ("feed_forward_length", FFN), ("attention.head_count", HEADS),
                        ("attention.head_count_kv", KV_HEADS), ("vocab_size", VOCAB), ("rope.dimension_count", HEAD_DIM)]:
        keys.append(("llama." + name, 4, struct.pack("<I", value)))
    tensors = [("token_embd.weight", [HIDDEN, VOCAB], BF16), ("output_norm.weight", [HIDDEN], F32)]
    for layer in range(LAYERS):
        for name, dims, kind in [("attn_norm", [HIDDEN], F32), ("ffn_norm", [HIDDEN], F32),
                                 ("attn_q", [HIDDEN, HEADS * HEAD_DIM], BF16), ("attn_k", [HIDDEN, KV_HEADS * HEAD_DIM], BF16),
                                 ("attn_v", [HIDDEN, KV_HEADS * HEAD_DIM], BF16), ("attn_output", [HEADS * HEAD_DIM, HIDDEN], BF16),
                                 ("ffn_gate", [HIDDEN, FFN], BF16), ("ffn_up", [HIDDEN, FFN], BF16), ("ffn_down", [FFN, HIDDEN], BF16)]:
            tensors.append((f"blk.{layer}.{name}.weight", dims, kind))
    sizes = [(4 if kind == F32 else 2) * dims[0] * (dims[1] if len(dims) > 1 else 1) for _, dims, kind in tensors]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    header += b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in keys)
    offset = 0
    for (name, dims, kind), size in zip(tensors, sizes):
        header += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)
        offset += (size + 31) // 32 * 32
    random.seed(1)
    block = b"".join(struct.pack("<f", random.gauss(0, 0.02))[2:] for _ in range(1 << 20))
    with open(path.with_suffix(".part"), "wb") as out:
        out.write(header + b"\0" * (-len(header) % 32))
        for (_, dims, kind), size in zip(tensors, sizes):
            if kind == F32:
                data = struct.pack("<f", 1.0) * (size // 4)
            else:
                turn = random.randrange(0, 1 << 20) * 2  # no two tensors alike
                data = ((block[turn:] + block[:turn]) * (size // len(block) + 1))[:size]
            out.write(data + b"\0" * (-size % 32))
    path.with_suffix(".part").rename(path)


def ours(arguments, options):
    out = subprocess.run([str(ROOT / "build/bin/neurogrid-coordinator"), "bench", "--json", "--rounds", "1", "--batches", "1",
                          "--prompt", "512", "--decode", str(options.decode), "--threads", str(options.threads),
                          "--quantization", options.quantization, *arguments],
                         capture_output=True, text=True, check=True).stdout
    cases = {line["case"]: line for line in map(json.loads, out.splitlines())}
    return cases["prefill"]["tokens_per_s"], cases["decode"]["tokens_per_s"], cases["decode"]["share_of_raw_read"]


def theirs(gguf, options):
    out = subprocess.run([options.llama_bench, "-m", str(gguf), "-t", str(options.threads), "-p", "512", "-n",
                          str(options.decode), "-r", "1", "-o", "json"], capture_output=True, text=True, check=True).stdout
    runs = json.loads(out)
    return (next(r["avg_ts"] for r in runs if r["n_prompt"]), next(r["avg_ts"] for r in runs if r["n_gen"]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--quantization", default="auto", help="how NeuroGrid holds the weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    gguf, arguments = options.gguf, ["--model", str(options.gguf)]
    if gguf is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        gguf, arguments = cache / "neurogrid/models/synthetic-llama-1b.gguf", ["--synthetic", "llama-1b"]
        if not gguf.exists():
            gguf.parent.mkdir(parents=True, exist_ok=True)
            write_gguf(gguf)
    rows = []
    for number in range(options.rounds):
        rows.append((*ours(arguments, options), *theirs(gguf, options)))
        print("round %d: prefill %.1f against %.1f, decode %.2f (%.0f %% of raw read) against %.2f tok/s"
              % (number + 1, rows[-1][0], rows[-1][3], rows[-1][1], 100 * rows[-1][2], rows[-1][4]), flush=True)
    for name, a, b in (("prefill 512", 0, 3), ("decode", 1, 4)):
        ratios = [row[a] / row[b] for row in rows]
        print("%s: %.1f against %.1f tok/s, ratio %.2f (%.2f to %.2f)" % (
            name, statistics.median(r[a] for r in rows), statistics.median(r[b] for r in rows),
            statistics.median(ratios), min(ratios), max(ratios)))


if __name__ == "__main__":
    main()
