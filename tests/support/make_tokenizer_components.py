"""Writes tests/data/golden/tokenizers/components.jsonl.xz: one small tokenizer for each part that a tokenizer.json may name.

  pip install tokenizers==0.23.3; python3 tests/support/make_tokenizer_components.py

First line {texts, models: {name: model of a tokenizer.json}}; then a line a variant: {name, model: name, file: the rest of
the tokenizer.json, ids: [a text], decoded: [a text]}. The vocabularies hold every character of the texts and every pair of
neighbours, so that a cut at another place gives other ids.
"""

import json
import lzma
from pathlib import Path

from tokenizers import Tokenizer, normalizers

OUT = Path(__file__).resolve().parents[1] / "data/golden/tokenizers/components.jsonl.xz"

TEXTS = [
    "", " ", "a", "Hello, World!", "  two  spaces\tand tab\n", "don't stop-me (now)...", "x1 22 333 4444 5\u0665\u00bd\u2167",
    "\u00c5ngstr\u00f6m A\u030a e\u0301\u0323 \u1e9b\u0323 \ufb01 \u2460 \uff21\uff22", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \u65e5\u672c\u8a9e",
    "\u0130STANBUL \u03a3\u0391\u03a3 \u00df \u01c5", "snake_case camelCase HTTPServer2", "line one\nline two\r\n\r\nline three", "\u00a0\u3000nbsp\u3000\u00a0",
    "a\u200db \u0939\u093f\u0928\u094d\u0926\u0940 \u0b9f", "$5+3=8 <b>^`|~ \u20ac9 \u00ab\u00bb \u2014 \u3002", "aaaa bbbb xxaxx", "\u2581a \u2581\u2581b", "caf\u00e9 nai\u0308ve", "\U0001f600\U0001f468\u200d\U0001f469 ok",
    "deadBEEF 0xff zz", "   ", "tail   ", "\n\n", "the end.", "\u00b2\u24b6\u0300_x", "(a)[b]{c}",
]
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTE_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
FUSED = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(behavior, invert=False, **pattern):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def byte_characters():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in own else next(rest)) for byte in range(256)}


def pairs_of(texts):
    return list(dict.fromkeys(text[i : i + 2] for text in texts for i in range(len(text) - 1)))


def bpe(texts, extra, **flags):
    """Pairs of neighbours in the order of the texts, then pairs of pairs."""
    characters = sorted(set("".join(texts)))
    pairs = pairs_of(texts)
    fours = list(dict.fromkeys(text[i : i + 4] for text in texts for i in range(0, len(text) - 3, 3)))
    tokens = list(dict.fromkeys([*extra, *characters, *pairs, *fours]))
    merges = [[pair[0], pair[1]] for pair in pairs] + [[four[:2], four[2:]] for four in fours]
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges} | flags


def normalizer_variants():
    plain = {name: {"type": name} for name in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]}
    strip = lambda left, right: {"type": "Strip", "strip_left": left, "strip_right": right}
    variants = plain | {
        "strip both": strip(True, True), "strip left": strip(True, False), "strip right": strip(False, True),
        "prepend": {"type": "Prepend", "prepend": "\u2581"}, "replace string": replace("ab", String="a"), "replace regex": replace("_", Regex=r"\s+"),
        "replace word": replace("w", Regex=r"\w+"), "replace empty": replace("-", Regex="x*"), "replace nothing": replace("", Regex=r"[\p{P}\p{S}]"),
        "replace not word": replace("", Regex=r"\W"), "replace group": replace("+", Regex=r"(a)\1"), "replace line": replace("|", Regex="^"), "replace end": replace("|", Regex="$"),
        "nested": sequence("normalizers", sequence("normalizers", plain["NFD"], plain["StripAccents"]), plain["Lowercase"], replace("\u2581", String=" "), plain["NFC"]),
    }
    return {"normalizer " + name: {"normalizer": value, "decoder": FUSED} for name, value in variants.items()}


def pre_tokenizer_variants():
    variants = {}
    behaviors = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    for behavior in behaviors:
        variants |= {
            f"split string {behavior}": split(behavior, String="a"), f"split regex {behavior}": split(behavior, Regex=r"[\s,]"),
            f"split inverted {behavior}": split(behavior, True, Regex=r"\w+"), f"split empty {behavior}": split(behavior, Regex=r"(?=[A-Z])|\d"),
            f"split known {behavior}": split(behavior, Regex=QWEN2), f"split known inverted {behavior}": split(behavior, True, Regex=QWEN2),
            f"punctuation {behavior}": {"type": "Punctuation", "behavior": behavior},
        }
    patterns = {"hex": r"\h+", "not hex": r"\H", "any": "(?m)a.|.", "classes": r"[[:space:][:punct:]]", "words": r"\b\w", "digits": r"\d{1,2}(?=\d*\b)", "option": "(?i:HELLO|b)|(?mi)END.",
                "not space": r"\S+\s", "lines": "^.|.$", "named": "(?<first>l)i", "possessive": r"[^\r\n\p{L}\p{N}]?+\p{L}+| ?[^\s\p{L}\p{N}]++", "quoted": r"\.|\(|\)|\[|\]", "brackets": r"[\[\]]"}
    variants |= {"split pattern " + name: split("Isolated", Regex=pattern) for name, pattern in patterns.items()}
    variants |= {f"metaspace {scheme} {cut}": metaspace(scheme, cut) for scheme in ["always", "first", "never"] for cut in [True, False]}
    variants |= {
        "whitespace": {"type": "Whitespace"}, "whitespace split": {"type": "WhitespaceSplit"}, "digits": {"type": "Digits", "individual_digits": False},
        "digits alone": {"type": "Digits", "individual_digits": True},
        "all steps": sequence("pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": True}, metaspace("first", False)),
    }
    return {"pre_tokenizer " + name: {"pre_tokenizer": value, "decoder": FUSED} for name, value in variants.items()}


def byte_level_variants():
    digits, punctuation = {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Contiguous"}
    variants = {
        "plain": byte_level(), "prefix": byte_level(True), "whole": byte_level(False, False), "digits before": sequence("pretokenizers", digits, byte_level()),
        "digits after": sequence("pretokenizers", byte_level(), digits), "split after": sequence("pretokenizers", punctuation, byte_level(False, False), split("Isolated", Regex="[0-9][0-9]")),
        "punctuation after": sequence("pretokenizers", byte_level(True, False), punctuation), "twice": sequence("pretokenizers", byte_level(), byte_level(False, False)),
        "metaspace after": sequence("pretokenizers", byte_level(), metaspace("always", True)),
    }
    return {"byte level " + name: {"pre_tokenizer": value, "decoder": BYTE_DECODER} for name, value in variants.items()}


def decoder_variants():
    strip = lambda content, start, stop: {"type": "Strip", "content": content, "start": start, "stop": stop}
    space, fallback, fuse = replace(" ", String="\u2581"), {"type": "ByteFallback"}, {"type": "Fuse"}
    variants = {
        "strip text": sequence("decoders", space, fallback, fuse, strip(" ", 1, 0)), "strip left": sequence("decoders", strip("a", 1, 0), space), "strip right": sequence("decoders", strip("a", 0, 1), space),
        "strip no": sequence("decoders", strip("\u00e9", 0, 2)), "replace regex": sequence("decoders", replace("#", Regex="[aeiou]"), space), "replace twice": sequence("decoders", replace("b", String="a"), replace("c", String="b")),
        "fuse": fuse, "fallback": fallback,
    }
    return {"decoder " + name: {"decoder": value} for name, value in variants.items()}


def main():
    seen = [text for form in [None, normalizers.NFKD(), normalizers.Lowercase()] for text in ([form.normalize_str(text) for text in TEXTS] if form else TEXTS)]
    characters = byte_characters()
    mapped = ["".join(characters[byte] for byte in text.encode()) for text in seen]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    models = {"text": bpe(seen[: len(TEXTS)], ["<unk>", *fallback], unk_token="<unk>", byte_fallback=True, fuse_unk=True), "bytes": bpe(mapped[: len(TEXTS)], characters.values())}
    rows = []
    groups = [("text", normalizer_variants()), ("text", pre_tokenizer_variants()), ("bytes", byte_level_variants()), ("text", decoder_variants())]
    for model, variants in groups:
        for name, parts in variants.items():
            file = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None} | parts
            tokenizer = Tokenizer.from_str(json.dumps(file | {"model": models[model]}))
            ids = [tokenizer.encode(text).ids for text in TEXTS]
            rows.append({"name": name, "model": model, "file": file, "ids": ids, "decoded": [tokenizer.decode(one) for one in ids]})
    lines = [{"texts": TEXTS, "models": models}, *rows]
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    OUT.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(len(rows), "variants,", OUT.stat().st_size, "bytes")


main()
