"""Alternates `neurogrid-coordinator bench` with llama.cpp's benchmarks on equal bytes and prints ratios.

  python3 tests/bench/compare.py [--gguf FILE | --synthetic SHAPE:TYPE] [--rounds 5]

Builds llama.cpp first (llama_cpp.py) unless --peers names a folder with llama-bench and llama-batched-bench. Both engines read
the same file, with the same number of threads; llama.cpp runs with flash attention off and on, and the better of the two counts.
A round is one run of each case by each engine, in turn; it waits up to a minute for other processes to be quiet. Printed are
medians and the median of the rounds' ratios with least and most, raw read bandwidth, and the share of the processors that other
processes took. Rounds in which that was above 4 % count only where no other is, and the last line says so: llama.cpp's threads
spin at barriers, so it loses far more than its share there.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import time
from pathlib import Path

import llama_cpp
import synthetic_gguf

ROOT = Path(__file__).resolve().parents[2]
QUIET_SHARE = 0.04


class Foreign:
    """The share of the machine's processors that neither was idle nor ran our children."""

    def __enter__(self):
        self.wall, self.busy, self.own = time.monotonic(), self.busy_s(), self.own_s()
        return self

    def __exit__(self, *_):
        other = self.busy_s() - self.busy - (self.own_s() - self.own)
        self.share = max(0.0, other / (os.cpu_count() * (time.monotonic() - self.wall)))

    @staticmethod
    def busy_s():
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def own_s():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


def prefill(options, depth):
    return f"prefill {options.prompt}" + (f" at {depth}" if depth else "")


def run(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ours(options):
    """tok/s by case, and raw read bandwidth of the same minutes."""
    out = run([str(ROOT / "build/bin/neurogrid-coordinator"), "bench", "--json", "--rounds", "1", "--model", str(options.gguf),
               "--batches", ",".join(map(str, (1, *options.batches))), "--prompt", str(options.prompt),
               "--prompt-depths", ",".join(map(str, options.prompt_depths)), "--depths", ",".join(map(str, options.depths)),
               "--decode", str(options.decode), "--threads", str(options.threads), "--quantization", options.quantization])
    speeds = {}
    for line in map(json.loads, out.splitlines()):
        if line["case"] == "prefill":
            speeds[prefill(options, line["depth"])] = line["tokens_per_s"]
        elif line["case"] == "decode":
            speeds[f"decode at {line['depth']}"] = line["tokens_per_s"]
        elif line["sequences"] > 1:
            speeds[f"batch of {line['sequences']}"] = line["tokens_per_s"]
        read = line["read_gb_per_s"]
    return speeds, read


def theirs(options, flash_attention):
    common = ["-m", str(options.gguf), "-t", str(options.threads), "-fa", flash_attention]
    speeds = {}
    for depth in sorted({*options.depths, *options.prompt_depths}):
        cases = ["-p", str(options.prompt if depth in options.prompt_depths else 0),
                 "-n", str(options.decode if depth in options.depths else 0), "-d", str(depth)]
        for line in json.loads(run([str(options.peers / "llama-bench"), *common, *cases, "-r", "1", "-o", "json"])):
            name = f"decode at {depth}" if line["n_gen"] else prefill(options, depth)
            speeds[name] = line["avg_ts"]
    if options.batches:
        cells = max(options.batches) * (16 + options.decode)
        out = run([str(options.peers / "llama-batched-bench"), *common, "-c", str(cells), "-npp", "16", "-ntg", str(options.decode),
                   "-npl", ",".join(map(str, options.batches)), "--output-format", "jsonl"])
        for line in (json.loads(line) for line in out.splitlines() if line.startswith("{")):
            speeds[f"batch of {line['pl']}"] = line["speed_tg"]
    return speeds


def wait_until_quiet():
    for _ in range(30):
        with Foreign() as foreign:
            time.sleep(2)
        if foreign.share < 2 * QUIET_SHARE:
            return


def one_round(options):
    wait_until_quiet()
    with Foreign() as foreign:
        own, read = ours(options)
        peers = [theirs(options, mode) for mode in ("off", "on")]
    best = {case: max(peer[case] for peer in peers) for case in peers[0]}
    return own, best, read, foreign.share


def print_context(options, rounds):
    """What the deepest single stream loses a token, for each 1,000 tokens before it."""
    least, most = min(options.depths), max(options.depths)
    if least == most:
        return
    costs = [statistics.median(1e6 / (most - least) * (1 / speeds[f"decode at {most}"] - 1 / speeds[f"decode at {least}"])
                               for speeds in side) for side in ([r[0] for r in rounds], [r[1] for r in rounds])]
    print("context: a token costs %.2f against %.2f ms more for each 1,000 before it" % tuple(costs))


def numbers(value):
    return [int(n) for n in value.split(",") if n]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder of llama.cpp's programs")
    parser.add_argument("--gguf", type=Path, help="the file that both read")
    parser.add_argument("--synthetic", default="lfm2.5-1.2b:bf16", help="without --gguf: a shape of synthetic_gguf.py and a type")
    parser.add_argument("--quantization", default="auto", help="how NeuroGrid holds the weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--depths", type=numbers, default=[0], help="tokens before those that one sequence decodes, a list")
    parser.add_argument("--prompt-depths", type=numbers, default=[0], help="tokens before a prompt, a list")
    parser.add_argument("--batches", type=numbers, default=[8, 32])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.gguf is None:
        shape, kind = options.synthetic.split(":")
        options.gguf = llama_cpp.CACHE / f"models/synthetic-{shape}-{kind}.gguf"
        if not options.gguf.exists():
            options.gguf.parent.mkdir(parents=True, exist_ok=True)
            synthetic_gguf.write(shape, kind, options.gguf)
    if options.peers is None:
        options.peers = llama_cpp.build(os.cpu_count())
    return options


def commit():
    """What is measured, as far as git knows: a mark says that files differ from it."""
    try:
        found = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def main():
    options = arguments()
    print(f"{options.gguf.name}, {options.quantization}, {options.threads} threads, commit {commit()}, against {llama_cpp.version()}")
    rounds = []
    for number in range(options.rounds):
        rounds.append(one_round(options))
        own, best, read, foreign = rounds[-1]
        cases = "; ".join(f"{case} {own[case]:.1f} against {best[case]:.1f}" for case in own if case in best)
        print(f"round {number + 1}: {cases} tok/s; raw read {read:.1f} GB/s; foreign {100 * foreign:.0f} %", flush=True)
    quiet = [r for r in rounds if r[3] <= QUIET_SHARE]
    note = f"{len(quiet)} of {len(rounds)} rounds were quiet and count" if quiet else "no round was quiet: trust none of these"
    rounds = quiet or rounds
    for case in rounds[0][0]:
        if case not in rounds[0][1]:
            continue
        ratios = [own[case] / best[case] for own, best, _, _ in rounds]
        print("%-20s %8.1f against %8.1f tok/s: %.2f (%.2f to %.2f)" % (
            case, statistics.median(r[0][case] for r in rounds), statistics.median(r[1][case] for r in rounds),
            statistics.median(ratios), min(ratios), max(ratios)))
    print_context(options, rounds)
    print(note)


if __name__ == "__main__":
    main()
