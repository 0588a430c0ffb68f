"""The two programs: their command lines, and the rates in their outputs.

Rates are lists of tokens a second, one for each repetition, by the name of a test. The names are
those of `gemma4-wgpu bench`: pp512, tg128, `pp512 @ d4096`, `tg64 x 8`. Tests of several sequences
have one of `tg64 x 1` beside them.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Tokens of each sequence before and during the tests of several sequences.
BATCH_PROMPT, BATCH_GENERATED = 16, 64


@dataclass(frozen=True)
class Plan:
    """The tests. Those of several sequences have no depth."""

    prompts: tuple
    generated: tuple
    depths: tuple
    sequences: tuple
    repetitions: int


class Failed(Exception):
    """A program failed; the message has its last line."""


def call(command):
    command = [str(part) for part in command]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise Failed(f"{Path(command[0]).name}: {reason}")
    return done.stdout


def joined(numbers):
    return ",".join(map(str, numbers)) or "0"


class Ours:
    name = "gemma4-wgpu"

    def __init__(self, program, options=()):
        self.command = [program, "bench", "--quiet", "--json", *options]
        self.program = program

    def version(self):
        return call([self.program, "--version"]).strip()

    def one_sequence(self, model, plan):
        tests = ["-p", joined(plan.prompts), "-n", joined(plan.generated)]
        tests += ["-d", joined(plan.depths), "-r", plan.repetitions]
        return our_rates(call([*self.command, "--model", model, *tests]))

    def several_sequences(self, model, plan):
        # Generation starts with one token after the depth.
        tests = ["-p", 0, "-n", BATCH_GENERATED, "-d", BATCH_PROMPT - 1, "-r", plan.repetitions]
        tests += ["--parallel", joined(plan.sequences)]
        rates = our_rates(call([*self.command, "--model", model, *tests]))
        return {batch_name(name): samples for name, samples in rates.items()}


def our_rates(output):
    return {row["test"]: row["samples"] for row in json.loads(output)["results"]}


def batch_name(name):
    """The name without the depth, and with the number of sequences even if it is 1."""
    name = name.replace(f" @ d{BATCH_PROMPT - 1}", "")
    return name if " x " in name else f"{name} x 1"


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, folder, on_gpu):
        self.folder = folder
        self.common = ["-ngl", 99 if on_gpu else 0]

    def one_sequence(self, model, plan):
        tests = ["-p", joined(plan.prompts), "-n", joined(plan.generated)]
        tests += ["-d", joined(plan.depths), "-r", plan.repetitions, "-fa", 1, "-o", "json"]
        output = call([self.folder / "llama-bench", "-m", model, *self.common, *tests])
        return llama_bench_rates(output)

    def several_sequences(self, model, plan):
        # Each number once after another, as often as there are repetitions.
        sequences = plan.sequences * plan.repetitions
        context = max(plan.sequences) * (BATCH_PROMPT + BATCH_GENERATED)
        tests = ["-npp", BATCH_PROMPT, "-ntg", BATCH_GENERATED, "-npl", joined(sequences)]
        tests += ["-c", max(context, 2048), "-fa", "on", "--output-format", "jsonl"]
        output = call([self.folder / "llama-batched-bench", "-m", model, *self.common, *tests])
        return batched_bench_rates(output)


def llama_bench_rates(output):
    rates = {}
    for row in json.loads(output):
        prompt, generated = row["n_prompt"], row["n_gen"]
        work = f"pp{prompt}" if prompt else f"tg{generated}"
        depth = f" @ d{row['n_depth']}" if row["n_depth"] else ""
        rates[work + depth] = row["samples_ts"]
    return rates


def batched_bench_rates(output):
    rates = {}
    for line in output.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            name = f"tg{row['tg']} x {row['pl']}"
            rates.setdefault(name, []).append(row["speed_tg"])
    return rates
