"""Makes reference.json: what transformers answers on Gemma 3 270M in Q4_K_M, dequantised to float32.

Run by hand with torch, transformers, gguf and tokenizers installed:
    make_reference.py gemma-3-270m-q4_k_m.gguf tokenizer.json > reference.json
The first file is what deploy/fetch-gemma3-270m prints the path of, the second the published tokenizer of Gemma 3.
"""

import hashlib
import json
import sys

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

STORY = (
    "The library opened in 1921 in a former bakery. For the first ten years it was looked after by Miss Harriet Cole, who had taught at the "
    "school and who brought four hundred of her own books with her. She lent them on trust, without cards or fines, and wrote the names of "
    "borrowers in a green notebook that is still kept behind the counter. In 1934 the river flooded the ground floor and nearly half of the "
    "collection was lost. The people of the village dried what could be saved on washing lines in the church hall. A second room was added in "
    "1952, and the children's corner, with its small round tables and its painted whale, followed in 1968. Today the library holds about nine "
    "thousand books, three computers and a collection of maps of the valley. It is open on Tuesday, Thursday and Saturday. "
)
# name, text, tokens to continue with; the last one is longer than the window of 512.
PROMPTS = [
    ("sentence", "The capital of France is", 32),
    ("story", "Once upon a time, in a small village by the sea, there lived", 32),
    ("code", 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n', 32),
    ("numbers", "1, 2, 3, 4, 5, 6, 7,", 32),
    ("accents", "Le café était très agréable, and the naïve visitor said: “", 32),
    ("long", STORY * 4 + "Question: In which year did the river flood the library?\nAnswer:", 12),
]
NAMES = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def load(path):
    reader = gguf.GGUFReader(path)
    key = lambda name: reader.fields["gemma3." + name].contents()
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    config = Gemma3TextConfig(
        vocab_size=int(embedding.shape[1]), hidden_size=key("embedding_length"), intermediate_size=key("feed_forward_length"),
        num_hidden_layers=key("block_count"), num_attention_heads=key("attention.head_count"),
        num_key_value_heads=key("attention.head_count_kv"), head_dim=key("attention.key_length"),
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"), max_position_embeddings=key("context_length"),
        sliding_window=key("attention.sliding_window"), query_pre_attn_scalar=key("attention.key_length"),
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": key("rope.freq_base")},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    )
    state = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(size) for size in reversed(tensor.shape)])
        if "norm" in tensor.name:
            values = values - np.float32(1)  # the file holds 1 + w
        part = tensor.name.split(".")
        name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}.get(part[0]) or f"model.layers.{part[1]}.{NAMES[part[2]]}"
        state[name + ".weight"] = torch.from_numpy(np.ascontiguousarray(values))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = Gemma3ForCausalLM._from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.load_state_dict(state, strict=True)
    model.tie_weights()
    return model.eval()


def forward(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def continued(model, ids, count):
    """Greedy tokens: found one by one with a cache, then checked by one forward over all of them without."""
    found, cache, step = [], None, ids
    with torch.no_grad():
        for _ in range(count):
            out = model(input_ids=torch.tensor([step]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, step = out.past_key_values, [int(out.logits[0, -1].argmax())]
            found += step
    rows = forward(model, ids + found[:-1])
    assert rows[len(ids) - 1 :].argmax(1).tolist() == found
    return found, rows


def main():
    path, tokenizer_path = sys.argv[1:]
    torch.set_num_threads(2)
    tokenizer, model = tokenizers.Tokenizer.from_file(tokenizer_path), load(path)
    prompts = []
    for name, text, count in PROMPTS:
        ids = [2] + tokenizer.encode(text, add_special_tokens=False).ids
        tokens, rows = continued(model, ids, count)
        logits, after = rows[: len(ids)], torch.topk(rows[len(ids) - 1 :], 2).values
        nll = torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:]), reduction="none")
        top = torch.topk(logits[-1], 5)
        margins = [round(float(two[0] - two[1]), 6) for two in after]
        prompts.append({"name": name, "text": text, "ids": ids, "nll": [round(float(x), 6) for x in nll], "top5_ids": top.indices.tolist(),
                        "top5_logits": [round(float(x), 6) for x in top.values], "greedy": tokens, "greedy_margin": margins,
                        "greedy_text": tokenizer.decode(tokens)})
        print(name, len(ids), repr(prompts[-1]["greedy_text"]), min(margins), file=sys.stderr, flush=True)
    with open(path, "rb") as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
    versions = {m.__name__: m.__version__ for m in (torch, transformers, tokenizers, np)}
    json.dump({"model": "gemma-3-270m-q4_k_m.gguf", "sha256": sha256, "versions": versions, "prompts": prompts}, sys.stdout, ensure_ascii=False)


main()
