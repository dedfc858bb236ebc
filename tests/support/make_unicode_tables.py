"""Writes engine/text/unicode_forms_data.cc, unicode_compatibility_data.cc and unicode_sets_data.cc, and what the reference
makes of every code point and of random strings to tests/data/golden/tokenizers/normal_forms.json.xz.

  pip install unicodedataplus==16.0.0.post1 tokenizers==0.23.3; python3 tests/support/make_unicode_tables.py

The reference's normalisers use Unicode 9.0: normal forms never change once a code point is assigned, so 16.0 data of the
code points whose age is at most 9.0 are that version's. Its sets for StripAccents, Punctuation and Lowercase are of several
versions; they are asked of the reference itself, code point by code point. Each list is checked against it.
"""

import json
import lzma
import random
from pathlib import Path

import unicodedataplus as ucd
from tokenizers import normalizers, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT / "engine/text"
CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)


def old(code):
    age = ucd.age(chr(code))
    return age not in ("Unassigned", "NA") and float(age) <= 9.0


def literal(name, numbers, comment):
    lines, line = [], " "
    for number in numbers:
        if len(line) + len(f" {number},") > 100:
            lines.append(line)
            line = " "
        line += f" {number},"
    lines.append(line)
    return f"// {comment}\nconst int32_t {name}Numbers[] = {{\n" + "\n".join(lines) + f"\n}};\nconst absl::Span<const int32_t> {name} = {name}Numbers;\n"


def write(name, about, lists):
    body = "\n".join(literal(*item) for item in lists)
    (TEXT / name).write_text(f'// {about}\n// Written by tests/support/make_unicode_tables.py.\n#include "engine/text/unicode_forms_data.h"\n\n'
                             f"namespace neurogrid {{\n\n// clang-format off\n{body}// clang-format on\n\n}}  // namespace neurogrid\n")


def deltas(rows):
    """Each row's code point as the distance from the last one's."""
    out, last = [], 0
    for code, *rest in rows:
        out += [code - last] + rest
        last = code
    return out


def runs(rows):
    """(code, value) to (first, count, value of the first): values that stay (step 0) or count up (step 1)."""
    def join(step):
        out = []
        for code, value in rows:
            if out and code == out[-1][0] + out[-1][1] and value == out[-1][2] + step * out[-1][1]:
                out[-1][1] += 1
            else:
                out.append([code, 1, value])
        return out
    return join


def toggles(members):
    out, last, inside = [], 0, False
    for code in range(0x110001):
        if (code in members) != inside:
            out.append(code - last)
            last, inside = code, not inside
    return out


def case_ranges(pairs):
    """(code, lower) to [first, last, step, delta] with step 1 or 2."""
    out = []
    for code, lower in pairs:
        delta = lower - code
        if out and out[-1][3] == delta and (code - out[-1][1] == out[-1][2] or (out[-1][0] == out[-1][1] and code - out[-1][1] in (1, 2))):
            out[-1][2] = code - out[-1][1]
            out[-1][1] = code
        else:
            out.append([code, code, 1, delta])
    return out


def ranges(members):
    out = []
    for code in sorted(members):
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def write_answers(marks, points, lowered):
    """Syllables of Hangul are left to the random strings."""
    forms = [normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD()]
    rows = [(chr(code), *(form.normalize_str(chr(code)) for form in forms)) for code in CODES if code not in HANGUL]
    changed = [row for row in rows if any(form != row[0] for form in row[1:])]
    rng = random.Random(1)
    combining = [chr(code) for code in CODES if ucd.combining(chr(code))]
    jamo = [chr(code) for code in range(0x1100, 0x1200)] + [chr(code) for code in HANGUL[::28]]
    parts = [c for row in changed for c in row[2]]
    strings = []
    for kind in range(800):
        alphabet = ["ae\u0301\u0323\u0327\u030a ", combining[:200], combining, jamo, parts, [row[0] for row in changed]][kind % 6]
        text = "".join(rng.choice(alphabet) if rng.random() < 0.8 else rng.choice("aeiou\u4e00 ") for _ in range(rng.randint(2, 12)))
        strings.append((text, *(form.normalize_str(text) for form in forms)))
    answers = {"columns": ["text", "NFC", "NFD", "NFKC", "NFKD"], "code_points": changed, "strings": strings,
               "StripAccents drops": ranges(marks), "Punctuation cuts": ranges(points),
               "Lowercase": [[chr(code), "".join(map(chr, to))] for code, to in lowered]}
    packed = lzma.compress(json.dumps(answers, ensure_ascii=False, separators=(",", ":")).encode(), preset=9 | lzma.PRESET_EXTREME)
    (ROOT / "tests/data/golden/tokenizers/normal_forms.json.xz").write_bytes(packed)


def main():
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    pairs, singles, excluded, many, one = [], [], [], [], []
    for code in CODES:
        c = chr(code)
        expected = [ucd.normalize(form, c) if old(code) else c for form in ("NFD", "NFKD")]
        assert [nfd.normalize_str(c), nfkd.normalize_str(c)] == expected, hex(code)
        if not old(code) or code in HANGUL:
            continue
        raw = ucd.decomposition(c)
        if raw and raw[0] != "<":
            to = [int(part, 16) for part in raw.split()]
            if len(to) == 1:
                singles.append((code, to[0]))
            else:
                pairs.append((code, *to))
                if ucd.normalize("NFC", c) != c:
                    excluded.append((code,))
        if expected[0] != expected[1]:
            to = [ord(x) for x in expected[1]]
            if len(to) == 1:
                one.append((code, to[0]))
            else:
                many.append((code, len(to), *to))
    classes = [(code, ucd.combining(chr(code))) for code in CODES if old(code) and ucd.combining(chr(code))]
    write("unicode_forms_data.cc", "Canonical decompositions and combining classes of Unicode 9.0.", [
        ("kCanonicalPairs", deltas(pairs), "code point (distance from the last), the two it decomposes to"),
        ("kCanonicalSingles", deltas(runs(singles)(1)), "first code point (distance), count, what the first one decomposes to; the next to the next"),
        ("kNotComposed", deltas(excluded), "code points (distances) of kCanonicalPairs that composition never makes"),
        ("kCombiningClasses", deltas(runs(classes)(0)), "first code point (distance), count, class"),
    ])
    write("unicode_compatibility_data.cc", "Compatibility decompositions of Unicode 9.0, where they differ from the canonical ones; in full.", [
        ("kCompatibilitySingles", deltas(runs(one)(1)), "as kCanonicalSingles"),
        ("kCompatibilityLists", deltas(many), "code point (distance), count, what it decomposes to"),
    ])
    accents = normalizers.StripAccents()
    marks = {code for code in CODES if accents.normalize_str(chr(code)) == ""}
    punctuation = pre_tokenizers.Punctuation("isolated")
    points = {code for code in CODES if len(punctuation.pre_tokenize_str("a" + chr(code))) == 2}
    lowercase = normalizers.Lowercase()
    lowered = [(code, [ord(x) for x in lowercase.normalize_str(chr(code))]) for code in CODES if lowercase.normalize_str(chr(code)) != chr(code)]
    assert [row for row in lowered if len(row[1]) > 1] == [(0x130, [0x69, 0x307])]
    ranges = case_ranges([(code, to[0]) for code, to in lowered if len(to) == 1])
    write("unicode_sets_data.cc", "What StripAccents drops, Punctuation cuts and Lowercase changes, as the reference does.", [
        ("kAccentToggles", toggles(marks), "distances between the places where membership changes, from outside at 0"),
        ("kPunctuationToggles", toggles(points), "the same"),
        ("kLowerCase", [number for row in ranges for number in row], "first, last, step, distance to the lower-case letter; U+0130 apart"),
    ])
    write_answers(marks, points, lowered)


main()
