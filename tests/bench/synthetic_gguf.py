"""Writes a GGUF file of a model's true shape with random weights, for speed alone: in seconds, and the same each time.

  python3 tests/bench/synthetic_gguf.py SHAPE TYPE FILE     SHAPE: lfm2.5-1.2b | llama-1b; TYPE: bf16, or a block type, q8_0 to q2_k

Every matrix is a turn of one block of random numbers, so no two are alike and none is zero.
"""

import random
import struct
import sys
from pathlib import Path

VOCAB, HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, TAPS = 65536, 2048, 8192, 16, 32, 8, 64, 3
KV_WIDTH = KV_HEADS * HEAD_DIM
LFM2_ATTENTION = (2, 5, 8, 10, 12, 14)
F32 = 0
# id, elements and bytes of a block
TYPES = {"bf16": (30, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24), "q8_0": (8, 32, 34),
         "iq4_nl": (20, 32, 18), "q2_k": (10, 256, 84), "q3_k": (11, 256, 110), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176),
         "q6_k": (14, 256, 210)}
# Of block types: where the scale and the minimum stand in a block; what weights of scale 1 usually are above or below their middle;
# the minimum, in scales, that puts this middle near zero.
NUMBERS = {"q4_0": (0, None, 5, 0), "q4_1": (0, 2, 5, -7.5), "q5_0": (0, None, 9, 0), "q5_1": (0, 2, 9, -15.5), "q8_0": (0, None, 74, 0),
           "iq4_nl": (0, None, 74, 0), "q2_k": (80, 82, 8, 1.5), "q3_k": (108, None, 42, 0), "q4_k": (0, 2, 165, 7.5),
           "q5_k": (0, 2, 330, 15.5), "q6_k": (208, None, 1365, 0)}
SHAPES = ("lfm2.5-1.2b", "llama-1b")


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def number(value):
    return 4, struct.pack("<I", value)


def keys_of(shape):
    a = "lfm2" if shape == "lfm2.5-1.2b" else "llama"
    keys = {"general.architecture": (8, text(a)), "tokenizer.ggml.model": (8, text("no_vocab")),
            "general.quantization_version": number(2), a + ".rope.freq_base": (6, struct.pack("<f", 1e6)),
            a + ".attention.layer_norm_rms_epsilon": (6, struct.pack("<f", 1e-5))}
    for name, value in {"block_count": LAYERS, "context_length": 128000, "embedding_length": HIDDEN,
                        "feed_forward_length": FFN, "attention.head_count": HEADS, "vocab_size": VOCAB}.items():
        keys[f"{a}.{name}"] = number(value)
    if a == "lfm2":
        heads = [KV_HEADS if layer in LFM2_ATTENTION else 0 for layer in range(LAYERS)]
        keys["lfm2.attention.head_count_kv"] = (9, struct.pack(f"<IQ{LAYERS}I", 4, LAYERS, *heads))
        keys["lfm2.shortconv.l_cache"] = number(TAPS)
    else:
        keys["llama.attention.head_count_kv"] = number(KV_HEADS)
        keys["llama.rope.dimension_count"] = number(HEAD_DIM)
    return keys


def tensors_of(shape):
    """Names and dimensions, innermost first."""
    lfm2 = shape == "lfm2.5-1.2b"
    yield "token_embd", [HIDDEN, VOCAB]
    yield ("token_embd_norm" if lfm2 else "output_norm"), [HIDDEN]
    for layer in range(LAYERS):
        tensors = {"attn_norm": [HIDDEN], "ffn_norm": [HIDDEN], "ffn_gate": [HIDDEN, FFN], "ffn_up": [HIDDEN, FFN],
                   "ffn_down": [FFN, HIDDEN]}
        if lfm2 and layer not in LFM2_ATTENTION:
            tensors |= {"shortconv.conv": [TAPS, HIDDEN], "shortconv.in_proj": [HIDDEN, 3 * HIDDEN],
                        "shortconv.out_proj": [HIDDEN, HIDDEN]}
        else:
            tensors |= {"attn_q": [HIDDEN, HEADS * HEAD_DIM], "attn_k": [HIDDEN, KV_WIDTH],
                        "attn_v": [HIDDEN, KV_WIDTH], "attn_output": [HEADS * HEAD_DIM, HIDDEN]}
            if lfm2:
                tensors |= {"attn_q_norm": [HEAD_DIM], "attn_k_norm": [HEAD_DIM]}
        for name, dims in tensors.items():
            yield f"blk.{layer}.{name}", dims


def random_block(kind):
    """A whole number of blocks of small random weights."""
    if kind == "bf16":
        return b"".join(struct.pack("<f", random.gauss(0, 0.02))[2:] for _ in range(1 << 20))
    scale_at, minimum_at, levels, minimum = NUMBERS[kind]
    numbers = {scale_at: 0.02 / levels} | ({minimum_at: 0.02 / levels * minimum} if minimum_at else {})
    blocks = bytearray(random.randbytes(TYPES[kind][2] << 14))
    for block in range(0, len(blocks), TYPES[kind][2]):
        for at, value in numbers.items():
            struct.pack_into("<e", blocks, block + at, value)
    return bytes(blocks)


def write(shape, kind, path):
    random.seed(1)
    block = random_block(kind)
    type_id, block_elements, block_bytes = TYPES[kind]
    plan, offset, infos = [], 0, b""
    for name, dims in tensors_of(shape):
        is_matrix = len(dims) == 2 and dims[0] != TAPS
        count = dims[0] * (dims[1] if len(dims) == 2 else 1)
        size = count // block_elements * block_bytes if is_matrix else 4 * count
        infos += text(name + ".weight") + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_id if is_matrix else F32, offset)
        plan.append((is_matrix, 0.3 if dims[0] == TAPS else 1.0, size))
        offset += (size + 31) // 32 * 32
    keys = keys_of(shape)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(plan), len(keys))
    header += b"".join(text(name) + struct.pack("<I", kind_id) + value for name, (kind_id, value) in keys.items()) + infos
    part = Path(str(path) + ".part")
    with open(part, "wb") as out:
        out.write(header + b"\0" * (-len(header) % 32))
        for is_matrix, value, size in plan:
            if is_matrix:
                turn = random.randrange(len(block) // block_bytes) * block_bytes
                data = ((block[turn:] + block[:turn]) * (size // len(block) + 1))[:size]
            else:
                data = struct.pack("<f", value) * (size // 4)
            out.write(data + b"\0" * (-size % 32))
    part.rename(path)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SHAPES or sys.argv[2] not in TYPES:
        sys.exit(__doc__)
    write(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
