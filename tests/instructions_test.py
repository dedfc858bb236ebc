"""Counts the CPU's instructions for a step of a model of true widths and compares them with tests/data/instructions.json.

  python3 tests/instructions_test.py [--update]

No clock is read: callgrind counts, the same in every run. It hides AVX-512, so these are the AVX2 kernels and everything around
them. A count 2 % above the stored one fails; so does one 2 % below, for then the figure is to be stored anew, by --update.
Another compiler makes other code: the test says SKIP there.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests/data/instructions.json"
PROGRAM = ROOT / "build/bin/step_instructions"
TOLERANCE = 0.02
SKIPPED = 77  # as deploy/run-tests reads it


def compiler():
    cache = (ROOT / "build/CMakeCache.txt").read_text()
    command = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.M)[1]
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.split("\n", 1)[0]


def counts():
    """Instructions by name of step."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        names = subprocess.run(
            ["valgrind", "--quiet", "--tool=callgrind", "--toggle-collect=CountedStep", "--dump-after=CountedStep",
             f"--callgrind-out-file={out}", str(PROGRAM)], capture_output=True, text=True, check=True).stdout.splitlines()
        totals = [int(re.search(r"^(?:totals|summary): (\d+)", Path(f"{out}.{i + 1}").read_text(), re.M)[1])
                  for i in range(len(names))]
    return dict(zip(names, totals, strict=True))


def main():
    if shutil.which("valgrind") is None:
        print("SKIP: no valgrind on this machine")
        return SKIPPED
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if "--update" in sys.argv:
        STORED.write_text(json.dumps({"compiler": compiler(), "instructions": counts()}, indent=2) + "\n")
        return 0
    if stored["compiler"] != compiler():
        print(f"SKIP: figures are stored for {stored['compiler']}, this is {compiler()}")
        return SKIPPED
    failed = False
    for name, count in counts().items():
        expected = stored["instructions"].get(name, 0)
        off = count / expected - 1 if expected else 1
        wrong = abs(off) > TOLERANCE
        failed |= wrong
        print(f"{name:12} {count:12,} instructions, stored {expected:12,} ({100 * off:+.2f} %){' WRONG' if wrong else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
