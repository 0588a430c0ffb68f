"""Compares gemma4-wgpu's CPU backend and llama.cpp's, in alternating runs.

    .work/venv/bin/python bench_cpu.py PATH/gemma-3-270m-q4_k_m.gguf PATH/gemma4-wgpu \\
        [--rounds 3] [--threads N] [--exact]

Prints the median rates of a prompt of 128 tokens and of 32 generated tokens, and the ratios.
gemma4-wgpu generates greedily; llama.cpp gets the tokens and computes the logits of each.
llama.cpp takes its build for this processor, repacks weights and uses flash attention.
Each round of each program warms up first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT, GENERATED = 128, 32
FOLDER = Path(__file__).parent / ".work/package/bins/linux-x64"
TESTS = {"pp": f"pp{PROMPT}", "tg": f"tg{GENERATED}"}


def llama_round(model, threads):
    """One round in a process of its own, as a line of JSON."""
    from llama_cpp import Context, Library, Model

    library = Library(FOLDER, cpu=None)
    context = Context(
        Model(library, model, repack=True), 512, threads=threads, flash_attention="enabled"
    )
    rates = {}
    for _ in range(2):  # the first one warms up
        context.reset()
        start = time.perf_counter()
        list(context.decode([2] + [5] * (PROMPT - 1), every=False))
        rates["pp"] = PROMPT / (time.perf_counter() - start)
        context.reset()
        list(context.decode([2], every=False))
        start = time.perf_counter()
        for _ in range(GENERATED):
            list(context.decode([5], every=False))
        rates["tg"] = GENERATED / (time.perf_counter() - start)
    print(json.dumps(rates))


def ours(options):
    command = [options.program, "bench", "--model", options.model, "--backend", "cpu", "--json"]
    command += ["-p", PROMPT, "-n", GENERATED, "-r", "1"]
    if options.limit:
        command += ["--threads", options.threads]
    if options.exact:
        command += ["--exact"]
    output = run([str(part) for part in command])
    tests = {test["test"]: test["median"] for test in json.loads(output)["results"]}
    return {short: tests[name] for short, name in TESTS.items()}


def theirs(options):
    command = [sys.executable, __file__, "--llama-round", options.model]
    output = run([*command, "--threads", str(options.threads)])
    return json.loads(output.splitlines()[-1])


def run(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("program", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--llama-round", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.limit = options.threads is not None
    options.threads = options.threads or os.cpu_count()
    if options.llama_round:
        return llama_round(options.model, options.threads)
    peers = {"gemma4-wgpu, cpu": ours, "llama.cpp, cpu": theirs}
    rounds = {name: [] for name in peers}
    for _ in range(options.rounds):
        for name, measure in peers.items():
            rounds[name].append(measure(options))
            print(name, rounds[name][-1], file=sys.stderr)
    median = {
        name: {test: statistics.median(r[test] for r in of) for test in TESTS}
        for name, of in rounds.items()
    }
    median["ratio"] = {test: of / median["llama.cpp, cpu"][test] for test, of in
                       median["gemma4-wgpu, cpu"].items()}
    for name, rates in median.items():
        print(f"{name:18}" + "".join(f"{TESTS[t]:>8} {rate:8.2f}" for t, rate in rates.items()))


if __name__ == "__main__":
    main()
