"""The inner loops of the CPU's products move no registers, use no stack and load nothing twice.

Reads the release build's AVX-512 kernels with objdump: a compiler that runs out of registers, or
believes that it does, costs up to half the speed, and no test of values sees it. Prints one line for
each fault; exits 1 when there is any. Usage: disassembly_test.py [BUILD]
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Templates over the number of rows, with the instruction that each multiplies with: four of them a row
# and step, which share four loads of weights.
KERNELS = {
    r"SumTile<.*Bf16Steps, (\d)>": "vdpbf16ps",
    r"SumIntTile<.*Int16Steps, (\d)>": "vpdpwssd",
    r"SumIntTile<.*Int8Steps, (\d)>": "vpdpbusd",
}
ROWS = {1, 2, 3, 4, 5, 6}
VECTORS = 4

SYMBOL = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
JUMP = re.compile(r"^([0-9a-f]+) <")
MOVE = re.compile(r"^%([xyz]mm)\d+,%\1\d+$")


def functions(text):
    """Pairs of a function's name and its instructions: (address, name, operands)."""
    name, body = None, []
    for line in text.splitlines():
        if symbol := SYMBOL.match(line):
            if name:
                yield name, body
            name, body = symbol[1], []
        elif found := INSTRUCTION.match(line):
            body.append((int(found[1], 16), found[2], found[3]))
    if name:
        yield name, body


def innermost_loops(body):
    """Instructions between the target of a jump backwards and the jump, where no other such pair lies
    inside."""
    spans = []
    for address, name, operands in body:
        target = JUMP.match(operands) if name.startswith("j") else None
        if target and body[0][0] <= int(target[1], 16) <= address:
            spans.append((int(target[1], 16), address))
    for first, last in spans:
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in spans):
            yield [entry for entry in body if first <= entry[0] <= last]


def faults_of(loop, dots, rows):
    if dots % (rows * VECTORS) != 0:
        yield f"{dots} products are no whole number of steps of {rows} rows"
    loads_max = dots // VECTORS + dots // rows
    loads = 0
    for address, name, operands in loop:
        if name.startswith("vmov") and MOVE.match(operands):
            yield f"moves a register: {address:x}: {name} {operands}"
        if "(%rsp" in operands or "(%rbp" in operands:
            yield f"uses the stack: {address:x}: {name} {operands}"
        loads += "(" in operands and not name.startswith(("lea", "j", "nop"))
    if loads > loads_max:
        yield f"{loads} loads for {dots} products of {rows} rows, at most {loads_max} are wanted"


def check(disassembly):
    """The number of loops seen, and the faults in them."""
    bodies = list(functions(disassembly))
    seen, faults = 0, []
    for pattern, instruction in KERNELS.items():
        found = set()
        for name, body in bodies:
            kernel = re.search(pattern, name)
            if not kernel:
                continue
            for loop in innermost_loops(body):
                dots = sum(entry[1] == instruction for entry in loop)
                if dots > 0:
                    found.add(int(kernel[1]))
                    faults += [f"{kernel[0]}: {fault}" for fault in faults_of(loop, dots, int(kernel[1]))]
        if found != ROWS:
            faults.append(f"{pattern}: loops of {sorted(found)} rows found, not of {sorted(ROWS)}")
        seen += len(found)
    return seen, faults


def main():
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"
    path = build / "engine/cpu/CMakeFiles/ng_cpu.dir/kernels_avx512.cc.o"
    disassembly = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True
    ).stdout
    seen, faults = check(disassembly)
    for fault in faults:
        print(fault)
    print(f"disassembly: {seen} inner loops" + ("" if faults else ", no fault"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
