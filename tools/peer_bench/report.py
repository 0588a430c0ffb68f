"""The results as a Markdown table, with the machine and the versions."""

import os
import platform
import shutil
import statistics
import subprocess


def output_of(*command):
    """The output of a program, or None if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, " + (
        f"{os.cpu_count()} threads"
    )


def machine(on_gpu):
    """The device, its driver and the processor in words."""
    query = "--query-gpu=name,driver_version", "--format=csv,noheader"
    gpus = output_of("nvidia-smi", *query) if on_gpu else None
    if not gpus:
        return processor()
    name, driver = (part.strip() for part in gpus.splitlines()[0].rsplit(",", 1))
    return f"{name}, driver {driver}; {processor()}"


def cuda_version():
    text = output_of("nvcc", "--version") or ""
    release = text.partition("release ")[2].partition(",")[0]
    return f"CUDA {release}" if release else "CUDA"


def rate(value):
    """A rate with at least three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def row(shape, test, ours, theirs):
    medians = [statistics.median(samples) if samples else None for samples in (theirs, ours)]
    cells = ["–" if median is None else rate(median) for median in medians]
    ratio = "–" if None in medians else f"{medians[1] / medians[0]:.2f}"
    return f"| {shape} | {test} | {cells[0]} | {cells[1]} | {ratio} |"


def table(results):
    """The machine, and a row for each shape and test. `results` are those of `run`."""
    facts, lines = results["facts"], []
    counts = {
        len(samples)
        for programs in results["shapes"].values()
        for rates in programs.values()
        for samples in rates.values()
    }
    lines.append(f"{facts['machine']}.")
    lines.append(f"{facts['gemma4-wgpu']}; {facts['llama.cpp']}; Q4_0, random weights.")
    lines.append(f"Tokens a second, medians of {' or '.join(map(str, sorted(counts)))}.")
    lines += ["", "| shape | test | llama.cpp | gemma4-wgpu | ratio |", "|---|---|---:|---:|---:|"]
    for shape, programs in results["shapes"].items():
        theirs, ours = programs["llama.cpp"], programs["gemma4-wgpu"]
        # In the order of llama.cpp's tests; ours may be missing.
        for test in dict.fromkeys([*theirs, *ours]):
            lines.append(row(shape, test, ours.get(test), theirs.get(test)))
    lines += [f"\n{note}" for note in results["notes"]]
    return "\n".join(lines) + "\n"


def merged(all_results):
    """The results of several runs on one machine as one."""
    first, *others = all_results
    for other in others:
        if other["facts"] != first["facts"]:
            raise SystemExit("the results are of different machines or versions")
        for shape, programs in other["shapes"].items():
            known = first["shapes"].setdefault(shape, {})
            for program, rates in programs.items():
                known.setdefault(program, {}).update(rates)
        first["notes"] += [note for note in other["notes"] if note not in first["notes"]]
    return first
