"""What 8 bits change in a model's answers: NeuroGrid's modes beside llama.cpp's Q8_0, each against its own bf16, on one text.

  python3 tests/bench/accuracy.py MODEL.gguf TEXT [PRECISION ...]

llama.cpp is built in the cache first. Both take windows of 512 tokens of which the second half counts. Prints llama.cpp's line, then
those of build/bin/accuracy_bench, whose exit status it returns.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp

PROGRAM = Path(__file__).resolve().parents[2] / "build/bin/accuracy_bench"


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout}")
    return done.stdout


def llama_q8_0(model, text):
    """Statistics of the model's weights in Q8_0 against the same in bf16."""
    programs = llama_cpp.build(os.cpu_count(), ("llama-quantize", "llama-perplexity"))
    with tempfile.TemporaryDirectory() as folder:
        bf16, q8_0, base = (Path(folder) / name for name in ("bf16.gguf", "q8_0.gguf", "base"))
        run(programs / "llama-quantize", "--allow-requantize", model, bf16, "BF16")
        run(programs / "llama-quantize", bf16, q8_0, "Q8_0")
        options = ("-f", text, "-c", "512", "-t", str(os.cpu_count()), "--kl-divergence-base", base)
        run(programs / "llama-perplexity", "-m", bf16, *options)
        report = run(programs / "llama-perplexity", "-m", q8_0, *options, "--kl-divergence")

    def value(name):
        return float(re.search(rf"^{name}\s*:\s*([-0-9.]+)", report, re.M)[1])

    return {"precision": "q8_0 of llama.cpp", "mean_kl": value(r"Mean\s+KLD"), "median_kl": value(r"Median\s+KLD"),
            "kl_99": value(r"99\.0%\s+KLD"), "same_top_percent": value("Same top p")}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model, text, *precisions = sys.argv[1:]
    print(json.dumps(llama_q8_0(model, text)), flush=True)
    return subprocess.run([PROGRAM, model, text, *(precisions or ["int8", "int8-a8"])]).returncode


if __name__ == "__main__":
    sys.exit(main())
