"""Compares gemma4-wgpu and llama.cpp's Vulkan backend on one adapter, in alternating runs.

    .work/venv/bin/python bench_vulkan.py PATH/gemma-3-270m-q4_k_m.gguf PATH/gemma4-wgpu \\
        [--rounds 3]

Prints the median rates of a prompt of 128 tokens and of 16 generated tokens, and the ratios.
gemma4-wgpu generates greedily; llama.cpp gets the tokens and computes the logits of each.
gemma4-wgpu's CPU backend runs too. Each round of each program warms up first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMPT, GENERATED = 128, 16
FOLDER = Path(__file__).parent / ".work/package/bins/linux-x64-vulkan"


def llama_round(model):
    """One round in a process of its own, as a line of JSON."""
    from llama_cpp import Context, Library, Model

    library = Library(FOLDER, vulkan=True)
    context = Context(
        Model(library, model, gpu_layers=99), 512, threads=os.cpu_count(), flash_attention="enabled"
    )
    rates = {}
    for _ in range(2):  # the first compiles
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


def ours(program, model, backend):
    command = [
        program,
        "bench",
        "--model",
        model,
        "--backend",
        backend,
        "-p",
        PROMPT,
        "-n",
        GENERATED,
        "-r",
        "1",
        "--json",
    ]
    output = subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True
    ).stdout
    tests = {test["test"]: test["median"] for test in json.loads(output)["results"]}
    return {"pp": tests[f"pp{PROMPT}"], "tg": tests[f"tg{GENERATED}"]}


def theirs(model):
    # Named devices are taken whatever they are; by itself llama.cpp leaves software adapters out.
    environment = {"GGML_VK_VISIBLE_DEVICES": "0", **os.environ}
    command = [sys.executable, __file__, "--llama-round", model]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    return json.loads(output.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("program", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-round", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.llama_round:
        return llama_round(options.model)
    peers = {
        "gemma4-wgpu, wgpu": lambda: ours(options.program, options.model, "wgpu"),
        "llama.cpp, Vulkan": lambda: theirs(options.model),
        "gemma4-wgpu, cpu": lambda: ours(options.program, options.model, "cpu"),
    }
    rounds = {name: [] for name in peers}
    for _ in range(options.rounds):
        for name, run in peers.items():
            rounds[name].append(run())
            print(name, rounds[name][-1], file=sys.stderr)
    median = {
        name: {test: statistics.median(r[test] for r in of) for test in ("pp", "tg")}
        for name, of in rounds.items()
    }
    for name, rates in median.items():
        print(f"{name:20} pp{PROMPT} {rates['pp']:8.2f}   tg{GENERATED} {rates['tg']:8.2f}")
    wgpu, llama, _ = median.values()
    print(
        f"ratio to llama.cpp   pp{PROMPT} {wgpu['pp'] / llama['pp']:8.2f}   tg{GENERATED} "
        f"{wgpu['tg'] / llama['tg']:8.2f}"
    )


if __name__ == "__main__":
    main()
