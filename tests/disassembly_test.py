"""The inner loops of the CPU's products and of attention move no registers, use no stack and load nothing twice.

Reads the release build's kernels of each instruction set with objdump: a compiler that runs out of
registers, or believes that it does, costs up to half the speed, and no test of values sees it. Prints
one line for each fault; exits 1 when there is any. Usage: disassembly_test.py [BUILD]
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

KERNELS = {
    "bf16": r"SumTile<.*Bf16Steps, (\d)>",
    "int8": r"SumIntTile<.*Int16Steps, (\d)>",
    "int8-a8": r"(?:SumIntTile<.*Int8Steps, |SumA8Tile<)(\d)>",
    "blocks": r"AddGroups<.*Octet<8, true>, (\d)>",
}  # templates over the number of rows


PANEL_COLUMNS = 4  # whose lines one pass asks for, whatever it multiplies


class Loop(NamedTuple):
    """What a step does for each column of sixteen outputs."""

    product: str  # the instruction
    products: int = 1  # a row
    loads: int = 1  # of weights, which all rows share
    moves: int = 0  # that the compiler is forgiven in all
    broadcasts: int = 1  # a row
    tiles: dict | None = None  # where they are not the unit's
    asks: bool = False  # one row asks for weights ahead: GCC drops calls of what only asks


class Unit(NamedTuple):
    tiles: dict  # columns of a step by rows
    loops: dict


# Where bf16 is split into floats, weights are read once for each half of a pair. A register holds half
# a column in AVX2.
SPLIT = Loop("vfmadd231ps", products=2, loads=2, moves=2)
HALVES = Loop("vfmadd231ps", products=4, loads=4)
TILES_OF_AVX2 = {1: 4, 2: 1, 3: 1, 4: 1}
TILES_OF_BLOCKS_IN_AVX2 = {1: 2, 2: 1, 3: 1, 4: 1}
TILES_OF_A8 = {1: 4, 2: 4, 3: 4, 4: 4, 5: 2}  # in AVX-512
TILES_OF_BLOCKS = {1: 4, 2: 2, 3: 2, 4: 2}  # in AVX-512
BLOCKS_BY_BYTES = Loop("vpdpbusd", products=2, moves=2, broadcasts=2, tiles=TILES_OF_BLOCKS, asks=True)
BLOCKS_BY_WORDS = Loop("vpmaddwd", products=2, loads=2, moves=2, broadcasts=2, tiles=TILES_OF_BLOCKS, asks=True)
UNITS = {
    "avx2": Unit(
        TILES_OF_AVX2,
        {
            "bf16": HALVES,
            "int8": Loop("vpmaddwd", 2, 2),
            "int8-a8": Loop("vpmaddwd", 4, 3, 4),
            "blocks": Loop("vpmaddwd", 4, 4, broadcasts=2, tiles=TILES_OF_BLOCKS_IN_AVX2, asks=True),
        },
    ),
    "avxvnni": Unit(
        TILES_OF_AVX2,
        {
            "bf16": HALVES,
            "int8": Loop("vpdpwssd", 2, 2),
            "int8-a8": Loop("vpdpbusd", 2, 2),
            "blocks": Loop("vpdpwssd", 4, 4, broadcasts=2, tiles=TILES_OF_BLOCKS_IN_AVX2, asks=True),
        },
    ),
    "avx512": Unit(
        dict.fromkeys(range(1, 6), 4),
        {
            "bf16": SPLIT,
            "int8": Loop("vpmaddwd"),
            "int8-a8": Loop("vpmaddwd", 2, 2, 4, tiles=TILES_OF_A8),
            "blocks": BLOCKS_BY_WORDS,
        },
    ),
    "avx512_vnni": Unit(
        dict.fromkeys(range(1, 6), 4),
        {
            "bf16": SPLIT,
            "int8": Loop("vpdpwssd"),
            "int8-a8": Loop("vpdpbusd", tiles=TILES_OF_A8),
            "blocks": BLOCKS_BY_BYTES,
        },
    ),
    "avx512_bf16": Unit(
        dict.fromkeys(range(1, 7), 4),
        {
            "bf16": Loop("vdpbf16ps"),
            "int8": Loop("vpdpwssd"),
            "int8-a8": Loop("vpdpbusd", tiles=TILES_OF_A8 | {6: 2}),
            "blocks": BLOCKS_BY_BYTES,
        },
    ),
}



class Dense(NamedTuple):
    """Of a function with several loops, the one with the most products for its length: no vector lies on the stack there."""

    functions: str
    product: str
    units: tuple
    moves: bool = True  # are forgiven: of codes on their way to bytes
    asks: bool = False  # for what comes next, with any number of rows


DENSE = {
    "scores of attention": Dense(r"ScoreTiles<.*Bf16Steps, (\d), 4, ", "vdpbf16ps", ("avx512_bf16",), moves=False),
    "values of attention": Dense(r"WeighColumns<.*Bf16Steps, (\d), 4, false>", "vdpbf16ps", ("avx512_bf16",), moves=False),
    "blocks beside 8 bits": Dense(
        r"AddByte(?:Unit|Groups)<.*Octet<8, true>, \d, \d, (\d)>", "vpdpbusd", ("avxvnni", "avx512_vnni", "avx512_bf16"), asks=True),
    "blocks of 4 to 6 bits beside 8": Dense(
        r"AddByteUnit<.*Octet<[456], true>, \d, \d, (\d)>", "vpdpbusd", ("avx512_vnni", "avx512_bf16"), asks=True),
    "blocks of 4 or 5 bits beside 8, by pairs": Dense(
        r"AddByteUnit<.*Octet<[458], true>, [45], 8, (\d)>", "vpmaddubsw", ("avx2", "avx512"), asks=True),
    "blocks of 8 bits beside 8, by words": Dense(r"AddByteGroups<.*Octet<8, true>, 8, 8, (\d)>", "vpmaddwd", ("avx2", "avx512"), asks=True),
    "blocks of 4 and 8 bits": Dense(r"AddGroups<.*Octet<[48], .*>, (\d)>", "vpdpbusd", ("avx512_vnni", "avx512_bf16")),
}

SYMBOL = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{vex\} )?(\S+)\s*(.*)$")
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


def faults_of(loop, expected, rows, columns):
    products = sum(name == expected.product for _, name, _ in loop)
    a_step = rows * columns * expected.products
    if products % a_step != 0:
        yield f"{products} products are no whole number of steps of {rows} rows"
    loads_max = products // a_step * (columns * expected.loads + rows * expected.broadcasts)
    loads, fetches, moves = 0, 0, []
    for address, name, operands in loop:
        if name.startswith("vmov") and MOVE.match(operands):
            moves.append(f"moves a register: {address:x}: {name} {operands}")
        if "(%rsp" in operands or "(%rbp" in operands:
            yield f"uses the stack: {address:x}: {name} {operands}"
        fetches += name.startswith("prefetch")
        loads += "(" in operands and not name.startswith(("lea", "j", "nop", "prefetch"))
    if len(moves) > expected.moves:
        yield from moves
    if fetches > products // a_step * PANEL_COLUMNS:
        yield f"{fetches} prefetches for {products // a_step} steps"
    if loads > loads_max:
        yield f"{loads} loads for {products} products of {rows} rows, at most {loads_max} are wanted"


def check(disassembly, unit):
    """The number of loops seen, and the faults in them."""
    bodies = list(functions(disassembly))
    seen, faults = 0, []
    for kernel, pattern in KERNELS.items():
        expected = unit.loops[kernel]
        tiles = expected.tiles or unit.tiles
        found = set()
        asks = False
        for name, body in bodies:
            match = re.search(pattern, name)
            if not match:
                continue
            rows = int(match[1])
            asks |= rows == 1 and any(name.startswith("prefetch") for _, name, _ in body)
            for loop in innermost_loops(body):
                if any(name == expected.product for _, name, _ in loop):
                    found.add(rows)
                    found_faults = faults_of(loop, expected, rows, tiles[rows])
                    faults += [f"{kernel} of {rows} rows: {fault}" for fault in found_faults]
        if found != set(tiles):
            faults.append(f"{kernel}: loops of {sorted(found)} rows found, not of 1 to {max(tiles)}")
        if expected.asks and not asks:
            faults.append(f"{kernel} of 1 rows: asks for no weights ahead")
        seen += len(found)
    return seen, faults


def densest_loop(body, product):
    """None where no loop multiplies."""
    counted = [(sum(name == product for _, name, _ in loop), loop) for loop in innermost_loops(body)]
    return max(counted, key=lambda pair: pair[0] / len(pair[1]), default=(0, None))[1]


def check_dense(disassembly, unit):
    seen, faults = 0, []
    bodies = list(functions(disassembly))
    for kernel, dense in DENSE.items():
        if unit not in dense.units:
            continue
        found = 0
        for name, body in bodies:
            match = re.search(dense.functions, name)
            loop = densest_loop(body, dense.product) if match else None
            if not loop:
                continue
            found += 1
            if dense.asks and not any(name.startswith("prefetch") for _, name, _ in body):
                faults.append(f"{kernel}, {match[1]} rows: asks for nothing ahead")
            for address, name, operands in loop:
                moves = not dense.moves and name.startswith("vmov") and MOVE.match(operands)
                stack = name.startswith("v") and ("(%rsp" in operands or "(%rbp" in operands)
                if moves or stack:
                    faults.append(f"{kernel}, {match[1]} rows: {address:x}: {name} {operands}")
        if found == 0:
            faults.append(f"{kernel}: no loop found")
        seen += found
    return seen, faults


def main():
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"
    seen, faults = 0, []
    for name, unit in UNITS.items():
        path = build / f"engine/cpu/CMakeFiles/ng_cpu.dir/kernels_{name}.cc.o"
        disassembly = subprocess.run(
            ["objdump", "-d", "-C", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True
        ).stdout
        for loops, found in (check(disassembly, unit), check_dense(disassembly, name)):
            seen += loops
            faults += [f"{name}: {fault}" for fault in found]
    for fault in faults:
        print(fault)
    print(f"disassembly: {seen} inner loops" + ("" if faults else ", no fault"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
