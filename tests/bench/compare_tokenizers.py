"""Alternates our tokenizers with the `tokenizers` package on the same texts, each on one core.

  python3 tests/bench/compare_tokenizers.py --bench build/bin/tokenizer_bench [--rounds 5] [--text NAME=FILE]... FOLDER|FILE.gguf...

Needs `tokenizers` (tried: 0.23.3). A folder holds tokenizer.json; a GGUF file must be of the kind "smollm" and
needs `gguf`. Texts: English-like prose and CJK drawn from a seed by word frequency, and the C++ of this tree;
--text NAME=FILE takes files instead. A round encodes every text once with each; reported are the loads, medians in MB a
second of CPU time and the median of the rounds' ratios (ours : theirs) with least and most. Equal numbers of ids are asserted.
"""

import argparse
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[2]
BYTES = 1 << 20
CONSONANTS, VOWELS = "b c d f g h l m n p r s t th st tr pr ch sh".split(), "a e i o u ea ou io".split()
MARKS = [", "] * 8 + [". "] * 6 + ["; ", ": ", "? ", "! ", " (", ") ", "'s ", " \u2013 ", ".\n\n"]


def zipf(rng, items, count):
    return rng.choices(items, weights=[1 / (rank + 3) for rank in range(len(items))], k=count)


def prose(rng):
    """Real words of the tree's own texts at first, invented ones for the long tail."""
    words = []
    for path in sorted(ROOT.rglob("*.md")) + sorted(ROOT.glob("engine/*.h")):
        words += [word for word in path.read_text().split() if word.isalpha() and word.isascii()]
    known = list(dict.fromkeys(sorted(set(words), key=lambda word: (-words.count(word), word))))
    invented = ["".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 4))) + rng.choice(["", "n", "s", "ing", "ed"])
                for _ in range(20000)]
    out = []
    for word in zipf(rng, known + invented, BYTES // 6):
        out.append(word)
        out.append(rng.choice(MARKS) if rng.random() < 0.15 else " ")
        if rng.random() < 0.02:
            out.append(f"{rng.randint(0, 99999)} ")
    return "".join(out)


def code(_):
    return "".join(path.read_text() for folder in ["engine", "coordinator", "common"] for path in sorted((ROOT / folder).rglob("*.cc")))


def cjk(rng):
    """Words of one to three characters out of the 3000 most likely of two blocks, with kana between."""
    characters = [chr(0x4E00 + 7 * i % 0x5000) for i in range(3000)]
    words = ["".join(zipf(rng, characters, rng.randint(1, 3))) for _ in range(20000)]
    words += ["".join(chr(rng.randint(0x3041, 0x3093)) for _ in range(rng.randint(1, 4))) for _ in range(2000)]
    marks = ["\uff0c", "\u3002", "\u3001", "\uff1a", "\u300c", "\u300d", "\n", "2024"]
    out = []
    for word in zipf(rng, words, BYTES // 6):
        out.append(word)
        if rng.random() < 0.15:
            out.append(rng.choice(marks))
    return "".join(out)


def reference(path):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    if path.is_dir():
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    import gguf
    meta = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items() if key.startswith("tokenizer.ggml.")}
    assert meta["tokenizer.ggml.pre"] == "smollm", "only the kind smollm is rebuilt here"
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [(merge[: merge.index(" ", 1)], merge[merge.index(" ", 1) + 1 :]) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = meta["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def compare(bench, path, texts, files, rounds):
    start = time.process_time()
    theirs = reference(path)
    their_load = time.process_time() - start
    ours = subprocess.Popen([bench, str(path)] + [str(file) for file in files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(f"{path.name}: loaded in {float(ours.stdout.readline().split()[1]):.2f} s, theirs in {their_load:.2f} s", flush=True)
    for i, (name, text) in enumerate(texts.items()):
        size = len(text.encode()) / 1e6
        speeds = []
        for _ in range(rounds + 1):
            ours.stdin.write(f"{i}\n")
            ours.stdin.flush()
            count, seconds = ours.stdout.readline().split()
            start = time.process_time()
            encoded = theirs.encode(text, add_special_tokens=False)
            speeds.append((size / float(seconds), size / (time.process_time() - start)))
            assert len(encoded.ids) == int(count), (path, name, len(encoded.ids), count)
        ratios = [our / their for our, their in speeds[1:]]  # the first round warms caches
        print(f"  {name:6} {size:5.2f} MB  ours {statistics.median(our for our, _ in speeds[1:]):7.2f} MB/s  "
              f"theirs {statistics.median(their for _, their in speeds[1:]):6.2f} MB/s  "
              f"ratio {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    ours.stdin.close()
    ours.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default=str(ROOT / "build/bin/tokenizer_bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--text", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("tokenizers", nargs="+", type=Path)
    args = parser.parse_args()
    if args.text:
        texts = {name: Path(file).read_text() for name, file in (item.split("=", 1) for item in args.text)}
    else:
        texts = {make.__name__: make(random.Random(1)) for make in [prose, code, cjk]}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, text in texts.items():
            files.append(Path(folder) / name)
            files[-1].write_bytes(text.encode())
        for path in args.tokenizers:
            compare(args.bench, path, texts, files, args.rounds)


if __name__ == "__main__":
    main()
