"""Breaks kernel sources in many places, one at a time, and tells which breaks no test notices.

    python3 tests/simt/mutate.py kernels/matmul_slices.cu --kinds 'sync|Wait|copies|lane'

A barrier or wait is left out, one group of copies less is waited for, a shuffle reads another lane,
a subscript, a bound or a stride is off by one, / and % are exchanged. All breaks of all files are
compiled into one kernels_test and chosen by the environment. A first run of each test case tells
which breaks it reaches; a break then meets the cases that reach it, the shortest first, until one
fails. Cases run as sm_75 for what is not reached as sm_80. Lines that survive, or that no case reaches, are printed; some
change nothing that could be seen (a bound whose rows are zeros), the others want a better test.

Needs a release build of kernels_test. --kit puts the program and its breaks into a folder that can
be carried to a machine with more cores; --from runs such a folder.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
# The most dangerous first.
KINDS = ("__sync", "WaitForPredecessor", "copies", "lane", "stride", "subscript", "/ or %", "bound")
BROKEN = """#pragma once
#include <fcntl.h>
#include <unistd.h>
#include <csignal>
#include <cstdlib>
struct NgBreaks {
  int broken = std::atoi(std::getenv("NG_BROKEN"));
  char reached[@] = {};
  NgBreaks();
  ~NgBreaks() { Write(); }
  void Write() const {
    const char* path = std::getenv("NG_REACHED");
    const int file = path != nullptr ? open(path, O_WRONLY | O_CREAT, 0600) : -1;
    if (file >= 0 && write(file, reached, sizeof(reached)) < 0) _exit(4);
  }
};
inline NgBreaks ng_breaks;
inline NgBreaks::NgBreaks() {
  std::signal(SIGUSR1, [](int) {
    ng_breaks.Write();
    _exit(3);
  });
}
#define NG_BROKEN(n) (ng_breaks.reached[n] = 1, ng_breaks.broken == (n))
"""
SIMPLE = r"[A-Za-z_][\w.]*|\d+"
DECLARATION = re.compile(r"(?:\b(?:const )?(?:float|double|bool|int|\w+_t|uint4|float[24]|bf16|[A-Z]\w*(?:<[^<>]*>)?) \w+|\))$")
CONSTANT_STATEMENT = re.compile(r"\s*(?:static |inline )*(?:constexpr|static_assert|template <)")
CONSTANT_FUNCTION = re.compile(r"\bconstexpr [^;{}=]*\)(?: const)? {")
CONSTANT = re.compile(r"\"[+=]?[rfln]\"\(|constexpr|static_assert|template <|^\s*#|enum |using |alignas|operator\[\]")


def blank(text):
    """Comments and strings as spaces, so that offsets stay."""
    return re.sub(r"//[^\n]*|\"(?:[^\"\\\n]|\\.)*\"", lambda m: " " * len(m.group()), text)


def end_of(code, at):
    """Of the bracket at `at`: where its partner is."""
    closes = {"(": ")", "[": "]", "{": "}"}[code[at]]
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
        yield "lane", end, end, " * !@" if "xor" in m.group() else " + @", ""
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
        code = blank(self.text)
        constant = [range(m.end() - 1, end_of(code, m.end() - 1)) for m in CONSTANT_FUNCTION.finditer(code)]
        found = [s for s in sites(self.text) if re.search(kinds, s[0]) and not CONSTANT.search(self.lines[self.line(s)])
                 and not CONSTANT_STATEMENT.match(re.split("[;{}]", code[: s[1]])[-1])
                 and not any(s[1] in body for body in constant)]
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
    words[1:1] = ["-I" + str(WORK), "-include", str(WORK / "broken.h"), "-Werror=vla", "-O2"]
    words.append("-fsyntax-only" if syntax_only else "-c")
    return subprocess.run(words, cwd=ROOT / "build", capture_output=True, text=True), target


def build(sources, commands, jobs):
    """Compiles all breaks that can be compiled; returns the objects."""
    breaks_max = 1 + max(max(source.chosen, default=0) for source in sources)
    WORK.mkdir(parents=True)
    (WORK / "broken.h").write_text(BROKEN.replace("@", str(breaks_max)))
    for source in sources:
        source.write()
    units = sorted(set().union(*(units_of(source.file, commands) for source in sources)))
    wrong = units
    with ThreadPoolExecutor(jobs) as pool:
        while wrong:
            tried = [done.stderr if done.returncode else "" for done, _ in
                     pool.map(lambda unit: compile_unit(unit, commands[unit], True), wrong)]
            before = sum(len(source.chosen) for source in sources)
            for source in sources:
                source.drop_what_fails("".join(tried))
                source.write()
            wrong = [unit for unit, errors in zip(wrong, tried) if errors]
            if wrong and before == sum(len(source.chosen) for source in sources):
                sys.exit("".join(tried)[:3000])
        compiled = list(pool.map(lambda unit: compile_unit(unit, commands[unit], False), units))
    errors = "".join(done.stderr for done, _ in compiled if done.returncode)
    if errors:
        sys.exit(errors[:3000])
    return [str(target) for _, target in compiled]


def link(objects):
    listed = subprocess.run(["ninja", "-C", "build", "-t", "commands", "kernels_test"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    command = [line for line in listed.split("\n") if "-o bin/kernels_test" in line][-1]
    command = command.replace(": && ", "").replace(" && :", "")
    # The library's own objects of these names are not taken: nothing asks for them any more.
    command = command.replace("-o bin/kernels_test", " ".join(objects) + f" -s -o {WORK / 'kernels_test'}")
    subprocess.run(command, shell=True, cwd=ROOT / "build", check=True)


def make(files, kinds, jobs):
    """kernels_test with all breaks, and breaks.json: {number: what it is}, in WORK."""
    commands = {str(Path(c["file"]).relative_to(ROOT)): c["command"]
                for c in json.loads((ROOT / "build" / "compile_commands.json").read_text())
                if "/kernels/" in c["file"] and c["file"].endswith(".cu") and "NG_SIMT" in c["command"]}
    shutil.rmtree(WORK, ignore_errors=True)
    sources = []
    for file in files:
        if units_of(file, commands):  # what is not emulated is not compiled
            sources.append(Source(file, 1 + sum(len(source.chosen) for source in sources), kinds))
    link(build(sources, commands, jobs))
    breaks = {n: source.told(n) for source in sources for n in source.chosen}
    (WORK / "breaks.json").write_text(json.dumps(breaks, indent=0))


class Case:
    """A test case on one architecture: what it reaches and how long it takes, `seconds_max` at most."""

    def __init__(self, folder, name, architecture, seconds_max):
        self.name, self.architecture = f"{name} (sm_{architecture})", architecture
        self.command = [folder / "kernels_test", re.sub(r"([\[\],\\])", r"\\\1", name), "-a", "--allow-running-no-tests",
                        "--architecture", str(architecture)]
        self.ended, self.seconds, self.reached = self.run(0, seconds_max)
        # A broken one that takes longer hangs, if the whole one ends in time.
        self.seconds_max = seconds_max if self.ended is None else 5 * self.seconds + 3

    def run(self, number, seconds_max):
        """(exit code, None where it took too long, seconds, breaks reached)"""
        started = time.monotonic()
        with tempfile.NamedTemporaryFile() as reached:
            environment = dict(os.environ, NG_BROKEN=str(number), NG_REACHED=reached.name)
            with subprocess.Popen(self.command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL) as process:
                try:
                    code = process.wait(seconds_max)
                except subprocess.TimeoutExpired:
                    code = None
                    process.send_signal(signal.SIGUSR1)  # it still says what it reached
            marks = reached.read()
        return code, time.monotonic() - started, {n for n, mark in enumerate(marks) if mark}


def judge(number, cases, until):
    """What becomes of a break: the case that fails, "survives", "survives cut cases", "not reached" or "not run"."""
    fate = "not reached"
    for case in cases:
        if number in case.reached:
            left = until - time.monotonic()
            code = case.run(number, min(case.seconds_max, left))[0] if left > 0 else None
            if code is None and time.monotonic() > until:
                return "not run"
            if code != case.ended:
                return case.name
            fate = "survives cut cases" if case.ended is None or "cut" in fate else "survives"
    return fate


def run_kit(folder, jobs, seconds, case_seconds, tests, kinds, part):
    """Prints what becomes of each break; the most dangerous kinds go first."""
    until = time.monotonic() + seconds
    breaks = {int(n): told for n, told in json.loads((folder / "breaks.json").read_text()).items()}
    listed = subprocess.run([folder / "kernels_test", tests, "-#", "--list-tests", "--verbosity", "quiet"], env=dict(os.environ, NG_BROKEN="0"),
                            capture_output=True, text=True, check=True).stdout
    names = [line for line in listed.split("\n") if line]
    with ThreadPoolExecutor(jobs) as pool:
        cases = sorted(pool.map(lambda at: Case(folder, *at, case_seconds), [(name, a) for a in (80, 75) for name in names]),
                       key=lambda case: case.seconds)
        if failing := [case.name for case in cases if case.ended not in (0, None)]:
            sys.exit(f"these fail without any break: {failing}")
        reached = set().union(*(case.reached for case in cases if case.architecture == 80))
        for case in cases:
            if case.architecture == 75:
                case.reached -= reached
        numbers = sorted((n for n in breaks if re.search(kinds, breaks[n].split(": ")[1])), key=lambda n: (KINDS.index(next(k for k in KINDS if f": {k}" in breaks[n])), n))
        numbers = numbers[part[0] - 1 :: part[1]]
        fates = []
        for number, fate in zip(numbers, pool.map(lambda n: judge(n, cases, until), numbers)):
            fates.append(fate)
            print(f"{fate}: {breaks[number]}", flush=True)
    for fate in ("survives", "survives cut cases", "not reached", "not run"):
        print(f"{fates.count(fate)} {fate}")
    print(f"{len(fates)} breaks")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="kernels/NAME.cu or .cuh")
    parser.add_argument("--tests", default="*", help="what kernels_test is asked to run; [#matmul_test] is a file")
    parser.add_argument("--kinds", default="", help="only breaks whose kind matches this pattern")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kit", type=Path, help="put program and breaks there instead of running them")
    parser.add_argument("--from", dest="folder", type=Path, help="run such a kit")
    parser.add_argument("--seconds", type=int, default=100000, help="nothing runs longer")
    parser.add_argument("--case-seconds", type=float, default=100000, help="longer cases are cut")
    parser.add_argument("--part", default="1/1", help="2/3: the second third of the breaks")
    args = parser.parse_args()
    if args.files:
        make(args.files, args.kinds, args.jobs)
    if args.kit:
        args.kit.mkdir(parents=True)
        for name in ("kernels_test", "breaks.json"):
            shutil.copy(WORK / name, args.kit / name)
        return
    run_kit((args.folder or WORK).resolve(), args.jobs, args.seconds, args.case_seconds, args.tests, args.kinds, [int(n) for n in args.part.split("/")])


if __name__ == "__main__":
    main()
