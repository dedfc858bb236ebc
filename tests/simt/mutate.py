"""Breaks kernel sources in many places, one at a time, and tells which breaks no test notices.

    python3 tests/simt/mutate.py kernels/matmul_slices.cu --tests '[#matmul_test],[#matmul_norm_test]'

A barrier or wait is left out, one group of copies less is waited for, a shuffle reads another lane,
a subscript, a bound or a stride is off by one, / and % are exchanged. All breaks of a file are
compiled at once and chosen by the environment, so each costs one run of kernels_test. Needs a
release build of kernels_test. Lines that survive are printed; some change nothing that could be
seen (a bound whose rows are zeros), the others want a better test.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
SIMPLE = r"[A-Za-z_][\w.]*|\d+"
DECLARATION = re.compile(r"(?:\b(?:const )?(?:float|double|bool|int|\w+_t|uint4|float[24]|bf16|[A-Z]\w*(?:<[^<>]*>)?) \w+|\))$")
CONSTANT = re.compile(r"constexpr|static_assert|template <|^\s*#|enum |using |alignas|operator\[\]")


def blank(text):
    """Comments and strings as spaces, so that offsets stay."""
    return re.sub(r"//[^\n]*|\"(?:[^\"\\\n]|\\.)*\"", lambda m: " " * len(m.group()), text)


def end_of(code, at):
    """Of the bracket at `at`: where its partner is."""
    closes = {"(": ")", "[": "]"}[code[at]]
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] == code[at]) - (code[i] == closes)
        if depth == 0:
            return i
    return at


def sites(text):
    """(kind, first, last, before, after): what to insert in front of and behind [first, last)."""
    code = blank(text)
    for m in re.finditer(r"(__syncthreads|__syncwarp|WaitForPredecessor)\(\);", code):
        yield m.group(1), m.start(), m.end() - 1, "@ ? void() : ", ""
    for m in re.finditer(r"WaitForCopies<([^>]*)>\(\);", code):
        yield "copies", m.start(), m.end() - 1, f"@ ? WaitForCopies<({m.group(1)}) + 1>() : ", ""
    for m in re.finditer(r"__shfl\w*_sync\(", code):
        end = end_of(code, m.end() - 1)
        yield "lane", end, end, " + @", ""
    for m in re.finditer(r"(?<=[\w)\]])\[(?!\]|[&=\[])", code):
        if not DECLARATION.search(code[: m.start()].rsplit("\n", 1)[-1]):
            yield "subscript", m.start() + 1, end_of(code, m.start()), "(", ") + @"
    for m in re.finditer(r" (?:[<>]=?) (?=\S)", code):
        yield "bound - 1", m.end(), m.end(), "-@ + ", ""
        yield "bound + 1", m.end(), m.end(), "@ + ", ""
    for m in re.finditer(rf" \* ((?:{SIMPLE})\b)(?![(<:\[.])", code):
        yield "stride", m.start(1), m.end(1), "(@ + ", ")"
    for m in re.finditer(rf"(?:[(,=+?:\[-] ?|return )\b(({SIMPLE}) ([/%]) ((?:{SIMPLE})\b))(?![(<:\[.])", code):
        other = {"/": "%", "%": "/"}[m.group(3)]
        yield "/ or %", m.start(1), m.end(1), f"(@ ? {m.group(2)} {other} {m.group(4)} : ", ")"


def mutated(text, chosen):
    """The text with all breaks {number: site} in it."""
    edits = []
    for number, (_, first, last, before, after) in chosen.items():
        edits.append((first, 1, first - last, before.replace("@", f"NG_BROKEN({number})")))
        edits.append((last, 0 if last > first else 1, last - first, after.replace("@", f"NG_BROKEN({number})")))
    out, at = [], 0
    for place, _, _, insert in sorted(edits, key=lambda e: e[:3]):
        out += [text[at:place], insert]
        at = place
    return "".join(out) + text[at:]


class Source:
    """A file and its breaks, numbered from `first` on."""

    def __init__(self, file, first, kinds):
        self.file = file
        self.text = (ROOT / file).read_text()
        self.lines = self.text.split("\n")
        found = [s for s in sites(self.text) if re.search(kinds, s[0]) and not CONSTANT.search(self.lines[self.line(s)])]
        self.chosen = dict(enumerate(found, first))

    def line(self, site):
        return self.text.count("\n", 0, site[1])

    def write(self):
        path = WORK / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(mutated(self.text, self.chosen))

    def drop_what_fails(self, errors):
        """Breaks in lines that do not compile, as where a constant is wanted."""
        bad = {int(n) - 1 for n in re.findall(re.escape(str(WORK / self.file)) + r":(\d+):\d+: error", errors)}
        shown = {int(n) for n in re.findall(r"NG_BROKEN\((\d+)\)", errors)}
        self.chosen = {n: s for n, s in self.chosen.items() if n not in shown and self.line(s) not in bad}

    def told(self, number):
        site = self.chosen[number]
        return f"{self.file}:{self.line(site) + 1}: {site[0]}: {self.lines[self.line(site)].strip()}"


def units_of(file, commands):
    """Emulated sources that contain `file`."""
    def includes(path, seen):
        if path in seen or not (ROOT / path).exists():
            return seen
        seen.add(path)
        for name in re.findall(r'#include "(kernels/[^"]+)"', (ROOT / path).read_text()):
            includes(name, seen)
        return seen
    return {name for name in commands if file in includes(name, set())}


def compile_unit(name, command, syntax_only):
    overlaid = WORK / name
    source = overlaid if overlaid.exists() else ROOT / name
    words = [w for w in shlex.split(command) if not w.startswith("-W") and w not in ("-c", "-O3")]
    output = words.index("-o")
    target = WORK / (Path(name).stem + ".o")
    words[output : output + 2] = [] if syntax_only else ["-o", str(target)]
    words = [str(source) if w == str(ROOT / name) else w for w in words]
    words[1:1] = ["-I" + str(WORK), "-include", str(WORK / "broken.h"), "-Werror=vla", "-O1"]
    words.append("-fsyntax-only" if syntax_only else "-c")
    done = subprocess.run(words, cwd=ROOT / "build", capture_output=True, text=True)
    return done, target


def build(sources, units, commands):
    """Compiles all breaks that can be compiled; returns the objects."""
    WORK.mkdir(parents=True)
    (WORK / "broken.h").write_text("#pragma once\n#include <cstdlib>\n"
                                   'inline const int ng_broken = std::atoi(std::getenv("NG_BROKEN"));\n'
                                   "#define NG_BROKEN(n) (ng_broken == (n))\n")
    for source in sources:
        source.write()
    for unit in units:
        while (done := compile_unit(unit, commands[unit], True)[0]).returncode != 0:
            before = sum(len(source.chosen) for source in sources)
            for source in sources:
                source.drop_what_fails(done.stderr)
                source.write()
            if before == sum(len(source.chosen) for source in sources):
                sys.exit(done.stderr[:3000])
    objects = []
    for unit in units:
        done, target = compile_unit(unit, commands[unit], False)
        if done.returncode != 0:
            sys.exit(done.stderr[:3000])
        objects.append(str(target))
    return objects


def link(objects):
    listed = subprocess.run(["ninja", "-C", "build", "-t", "commands", "kernels_test"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    command = [line for line in listed.split("\n") if "-o bin/kernels_test" in line][-1]
    command = command.replace(": && ", "").replace(" && :", "")
    program = WORK / "kernels_test"
    # The library's own objects of these names are not taken: nothing asks for them any more.
    command = command.replace("-o bin/kernels_test", " ".join(objects) + f" -o {program}")
    subprocess.run(command, shell=True, cwd=ROOT / "build", check=True)
    return program


def survives(program, tests, number, seconds):
    environment = dict(os.environ, NG_BROKEN=str(number))
    try:
        return subprocess.run([program, "-a", "-#", tests], cwd=ROOT, env=environment, timeout=seconds,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="kernels/NAME.cu or .cuh")
    parser.add_argument("--tests", default="*", help="what kernels_test is asked to run; [#matmul_test] is a file")
    parser.add_argument("--kinds", default="", help="only breaks whose kind matches this pattern")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="build, and print all breaks instead of running them")
    args = parser.parse_args()
    commands = {str(Path(c["file"]).relative_to(ROOT)): c["command"]
                for c in json.loads((ROOT / "build" / "compile_commands.json").read_text())
                if "/kernels/" in c["file"] and c["file"].endswith(".cu") and "NG_SIMT" in c["command"]}
    shutil.rmtree(WORK, ignore_errors=True)
    sources = []
    for file in args.files:
        sources.append(Source(file, 1 + 1000 * len(sources), args.kinds))
    units = sorted(set().union(*(units_of(file, commands) for file in args.files)))
    program = link(build(sources, units, commands))
    breaks = {n: source.told(n) for source in sources for n in source.chosen}
    if args.list:
        print("\n".join(f"{n} {told}" for n, told in breaks.items()))
        return
    started = time.monotonic()
    if not survives(program, args.tests, 0, 3600):
        sys.exit("the tests fail without any break")
    seconds = 10 * (time.monotonic() - started) + 10
    with ThreadPoolExecutor(args.jobs) as pool:
        alive = list(pool.map(lambda n: survives(program, args.tests, n, seconds), breaks))
    print("\n".join(told for told, lives in zip(breaks.values(), alive) if lives))
    print(f"{len(breaks)} breaks, {sum(alive)} survive")


if __name__ == "__main__":
    main()
