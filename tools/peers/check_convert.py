#!/usr/bin/env python3
"""Opens the output of `gemma4-wgpu convert` in mlx-lm and llama.cpp, and compares logits.

    cache=$(tools/peers/setup.sh)
    "$cache/venv/bin/python" tools/peers/check_convert.py --cache "$cache" target/debug/gemma4-wgpu

mlx-lm gets the goldens of transformers in f32, the imported fixtures and the small models of
models.py in int4. llama.cpp gets the embedded model and those small models in int4 and int8.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import models

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools/llama_reference"))
# Longer than the sliding windows of all models.
TOKENS = [2, *(3 + (7 * i * i + 5 * i) % 27 for i in range(39))]

# The largest relative errors of logits. The reasons are the order of sums and Gemma 3's factor on
# embeddings in bf16 (mlx-lm). MLX has scales and zero points in bf16 too. llama.cpp has a table of
# GELU in f16.
EXACT, BF16_FACTOR, BF16_SCALES, GELU_TABLE = 2e-5, 5e-4, 0.015, 2e-3
# Experts are more products with rounded scales, and so are their weights.
BF16_EXPERTS = 0.03


def difference(found, expected):
    """The error's size beside that of the logits (root mean squares)."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


class Program:
    def __init__(self, path):
        self.path = Path(path).resolve()

    def call(self, *arguments):
        command = [self.path, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")

    def convert(self, target, model, output):
        self.call("convert", "--to", target, "--model", model, "--output", output)

    def logits(self, model, tokens, scratch):
        ids, logits = scratch / "ids.json", scratch / "logits.safetensors"
        ids.write_text(json.dumps(list(map(int, tokens))))
        options = ["--quiet", "--backend", "cpu", "--exact", "--quantize", "none"]
        self.call("eval", *options, "--model", model, "--token-ids", ids, "--logits-out", logits)
        return load_file(logits)["logits"]


def by_mlx_lm(folder, tokens):
    import mlx.core as mx
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    # Otherwise it computes in the type of scales and norms, bf16.
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([tokens]))[0])


def by_llama_cpp(library, path, tokens, scratch):
    """Opens the file as it is, and computes with its dequantized copy: activations stay f32."""
    import llama_cpp
    from make_reference import dequantized_copy

    llama_cpp.Model(library, str(path)).close()
    exact = scratch / f"{path.stem}-exact.gguf"
    dequantized_copy(path, exact)
    model = llama_cpp.Model(library, str(exact))
    context = llama_cpp.Context(model, 256, kv="f32")
    try:
        return np.array(list(context.decode(list(tokens))))
    finally:
        context.close()
        model.close()


class Report:
    def __init__(self):
        self.failures = 0

    def line(self, peer, model, error, limit):
        verdict = "ok" if error <= limit else "WRONG"
        self.failures += error > limit
        print(f"{peer:10} {model:32} error {error:.5f} of at most {limit}  {verdict}", flush=True)


def check_mlx(program, scratch, report):
    for golden in sorted((ROOT / "tests/goldens").iterdir()):
        output, expected = scratch / f"{golden.name}-mlx", load_file(golden / "golden.safetensors")
        program.convert("mlx", golden, output)
        tokens = expected["tokens"].tolist()
        limit = BF16_FACTOR if golden.name.startswith("gemma3") else EXACT
        report.line(
            "mlx-lm", golden.name, difference(by_mlx_lm(output, tokens), expected["logits"]), limit
        )
    for fixture in sorted(
        path for path in (ROOT / "tests/fixtures/import").iterdir() if path.is_dir()
    ):
        output, tokens = scratch / f"{fixture.name}-mlx", [token % 31 for token in TOKENS]
        program.convert("mlx", fixture, output)
        own = program.logits(fixture, tokens, scratch)
        report.line("mlx-lm", fixture.name, difference(by_mlx_lm(output, tokens), own), BF16_SCALES)


def check_small_models(program, cache, scratch, report):
    import llama_cpp

    library = llama_cpp.Library(cache / "llama_cpp/bins/linux-x64")
    demo = scratch / "demo.gguf"
    program.convert("gguf", ROOT / "assets/demo", demo)
    tokens = [token % 200 for token in TOKENS]
    own = program.logits(ROOT / "assets/demo", tokens, scratch)
    report.line(
        "llama.cpp",
        "demo",
        difference(by_llama_cpp(library, demo, tokens, scratch), own),
        GELU_TABLE,
    )
    for name in models.MODELS:
        source = scratch / name
        models.write(name, source)
        for bits in ["int4", "int8"]:
            packed, gguf = scratch / f"{name}-{bits}", scratch / f"{name}-{bits}.gguf"
            program.call("quantize", "--model", source, "--output", packed, "--quantize", bits)
            own = program.logits(packed, TOKENS, scratch)
            program.convert("gguf", packed, gguf)
            found = difference(by_llama_cpp(library, gguf, TOKENS, scratch), own)
            report.line("llama.cpp", f"{name}, {bits}", found, GELU_TABLE)
        output = scratch / f"{name}-mlx"
        program.convert("mlx", scratch / f"{name}-int4", output)
        own = program.logits(scratch / f"{name}-int4", TOKENS, scratch)
        limit = BF16_EXPERTS if "experts" in name else BF16_SCALES
        report.line("mlx-lm", f"{name}, int4", difference(by_mlx_lm(output, TOKENS), own), limit)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="what setup.sh printed")
    parser.add_argument("program")
    arguments = parser.parse_args()
    program, report = Program(arguments.program), Report()
    with tempfile.TemporaryDirectory() as scratch:
        check_mlx(program, Path(scratch), report)
        check_small_models(program, arguments.cache, Path(scratch), report)
    if report.failures:
        raise SystemExit(f"{report.failures} converted checkpoints give other logits")


if __name__ == "__main__":
    main()
