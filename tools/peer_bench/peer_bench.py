#!/usr/bin/env python3
"""Measures gemma4-wgpu beside llama.cpp on one machine, with random weights of a published shape.

    peer_bench.py prepare FOLDER
    peer_bench.py run FOLDER PROGRAM --shape 31b --shape e4b [--results FILE.json]
    peer_bench.py table FILE.json...

`prepare` fetches and packs llama.cpp's source. `run` builds it, makes the model's file, measures
both programs in turns and prints a table. `table` prints the table of several runs. See README.md.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

import report
import source
from programs import Failed, LlamaCpp, Ours, Plan

sys.path.append(str(Path(__file__).resolve().parents[1] / "load_rate"))
from shapes import SHAPES

MEMORY_FOLDER = Path("/dev/shm")
DEEP_SHAPES, DEPTH = ("31b",), 32768


def depths(text):
    return tuple(int(part) for part in text.split(","))


def counts(text):
    """Numbers without 0, which means none."""
    return tuple(count for count in depths(text) if count != 0)


def model_file(folder, shape):
    """The file of a shape, which is made if it is missing."""
    # numpy is necessary here alone.
    import make_checkpoint

    path = folder / f"random-{shape}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        make_checkpoint.write(unfinished, SHAPES[shape], shape, "Q6_K")
        unfinished.rename(path)
    return path


def measure(programs, model, plan, rounds, results):
    """Adds the rates of both programs to `results`, and returns the reasons of failures."""
    kinds = [
        kind
        for kind, has_tests in (
            ("one_sequence", plan.prompts or plan.generated),
            ("several_sequences", plan.sequences),
        )
        if has_tests
    ]
    failures = {}
    for kind, _, program in itertools.product(kinds, range(rounds), programs):
        try:
            rates = getattr(program, kind)(model, plan)
        except Failed as reason:
            failures[str(reason)] = None
            continue
        for test, samples in rates.items():
            results[program.name].setdefault(test, []).extend(samples)
    return list(failures)


def plan_of(shape, options):
    depths = options.depths
    if depths is None:
        depths = (0, 4096, DEPTH) if shape in DEEP_SHAPES else (0, 4096)
    return Plan(options.prompts, options.generated, depths, options.parallel, options.repetitions)


def run(options):
    archive, cuda = options.folder / source.ARCHIVE, options.cuda_architecture
    on_gpu = not options.cpu
    binaries = source.build(archive, options.build, cuda if on_gpu else None)
    ours = Ours(options.program.resolve(), () if on_gpu else ("--backend", "cpu"))
    programs = [LlamaCpp(binaries, on_gpu), ours]
    backend = f"{report.cuda_version()}, flash attention" if on_gpu else "CPU"
    facts = {
        "machine": report.machine(on_gpu),
        "gemma4-wgpu": ours.version(),
        "llama.cpp": f"llama.cpp {source.version(options.build)}, {backend}",
    }
    results = {"facts": facts, "shapes": {}, "notes": []}
    for shape in options.shape or ["31b"]:
        model = model_file(options.models, shape)
        rates = results["shapes"].setdefault(shape, {program.name: {} for program in programs})
        plan = plan_of(shape, options)
        failures = measure(programs, model, plan, options.rounds, rates)
        results["notes"] += [f"{shape}: {failure}" for failure in failures]
        if options.remove_models:
            model.unlink()
        if options.results:
            options.results.write_text(json.dumps(results, indent=1))
    print(report.table(results), end="")
    return 1 if results["notes"] else 0


def print_table(options):
    all_results = [json.loads(path.read_text()) for path in options.files]
    print(report.table(report.merged(all_results)), end="")


def parser():
    main = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = main.add_subparsers(required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="fetch and pack llama.cpp's source")
    prepare.add_argument("folder", type=Path)
    prepare.set_defaults(act=lambda options: source.prepare(options.folder))

    measure = commands.add_parser("run", help="build llama.cpp and measure both programs")
    measure.set_defaults(act=run)
    measure.add_argument("folder", type=Path, help="the folder of `prepare`")
    measure.add_argument("program", type=Path, help="gemma4-wgpu")
    option = measure.add_argument
    option("--shape", action="append", choices=SHAPES, help="31b; may be repeated")
    option("--prompts", type=counts, default=(16, 32, 64, 512, 2048))
    option("--generated", type=counts, default=(128,))
    option("--depths", type=depths, help=f"0,4096, and for 31b {DEPTH} too")
    option("--parallel", type=counts, default=(1, 2, 4, 8, 16, 32), help="numbers of sequences")
    option("--repetitions", type=int, default=3, help="of each test in a round")
    option("--rounds", type=int, default=1, help="how often the programs take turns")
    option("--results", type=Path, help="write every repetition's rate to this JSON file")
    option("--cuda-architecture", default="native", help="90a is Hopper's")
    option("--cpu", action="store_true", help="both programs on the processor")
    temporary = Path(tempfile.gettempdir())
    option("--build", type=Path, default=temporary / "gemma4-wgpu-peer-bench")
    in_memory = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else temporary
    option("--models", type=Path, default=in_memory, help="the folder of the models' files")
    option("--remove-models", action="store_true", help="remove each file after its tests")

    tables = commands.add_parser("table", help="print the table of stored results")
    tables.add_argument("files", type=Path, nargs="+")
    tables.set_defaults(act=print_table)
    return main


if __name__ == "__main__":
    options = parser().parse_args()
    sys.exit(options.act(options))
