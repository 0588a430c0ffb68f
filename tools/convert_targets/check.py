#!/usr/bin/env python3
"""Converts checkpoints of the tests with `gemma4-wgpu convert`, opens what it wrote in mlx-lm and llama.cpp, and compares
their logits with those of gemma4-wgpu's CPU backend on the same files. run.sh gets the programs and starts this."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/llama_reference"))
import llama_cpp  # noqa: E402
from make_reference import dequantized_copy  # noqa: E402

IDS = [2, 7, 3, 30, 11, 9, 25, 4, 12, 1]
GOLDENS = ROOT / "tests/goldens"
IMPORTS = ROOT / "tests/fixtures/import"
# Checkpoint, and whether llama.cpp can hold it: not two numbers of tokens, all layers full, an attention scale
# that it has no key for, or offsets of int8.
CHECKPOINTS = [
    (GOLDENS / "gemma3-linear-rope", False),
    (GOLDENS / "gemma3-published", True),
    (GOLDENS / "gemma4-31b-heads", True),
    (GOLDENS / "gemma4-dense-gqa", True),
    (GOLDENS / "gemma4-double-wide", False),
    (GOLDENS / "gemma4-k-eq-v", True),
    (GOLDENS / "gemma4-per-layer", True),
    (GOLDENS / "gemma4-published", True),
    (GOLDENS / "gemma4-short-window", True),
    (GOLDENS / "gemma4-softcap-untied", True),
    (IMPORTS / "compressed_tensors", False),
    (IMPORTS / "torchao", False),
    (ROOT / "assets/demo", True),
]
# Largest error of a logit as a share of the largest logit. llama.cpp's GELU comes from a table of f16; what it rounds
# activations to beside weights of fewer bits is kept out by a copy of the file in f32.
MLX_TOLERANCE = 1e-3
LLAMA_TOLERANCE = 5e-3


def of_program(program, model, ids_file, out):
    command = [program, "eval", "--quiet", "--backend", "cpu", "--quantize", "none", "--cache-type", "f32"]
    subprocess.run([*command, "-m", model, "--token-ids", ids_file, "--logits-out", out], check=True, capture_output=True)
    (logits,) = load_file(out).values()
    return logits.reshape(len(IDS), -1).astype(np.float32)


def convert(program, model, form, output):
    command = [program, "convert", "--quiet", "--model", model, "--to", form, "--output", output]
    subprocess.run(command, check=True, capture_output=True)
    return output


def of_mlx_lm(directory):
    model, _ = load_model(directory)
    model.set_dtype(mx.float32)
    return np.array(model(mx.array([IDS]))[0].astype(mx.float32))


def of_llama_cpp(library, path):
    # The file itself must open and run too.
    for logits in logits_of_llama_cpp(library, path):
        assert np.isfinite(logits).all()
    exact = path.with_suffix(".f32.gguf")
    dequantized_copy(path, exact)
    return logits_of_llama_cpp(library, exact)


def logits_of_llama_cpp(library, path):
    model = llama_cpp.Model(library, path)
    context = llama_cpp.Context(model, 256, kv="f32", batch=256)
    return np.stack(list(context.decode(IDS)))


def compare(what, found, expected, tolerance):
    """Whether the logits agree; prints one line."""
    if found.shape != expected.shape:
        print(f"FAILED {what}: logits {found.shape}, not {expected.shape}")
        return False
    largest, error = float(np.abs(expected).max()), float(np.abs(found - expected).max())
    # Logits that are closer together than the tolerance may change places.
    best = np.take_along_axis(expected, found.argmax(-1)[:, None], -1)[:, 0]
    same = bool((expected.max(-1) - best <= 2 * tolerance * largest).all())
    right = error <= tolerance * largest and same
    print(f"{'ok' if right else 'FAILED':6} {what}: error {error:.2e} of {largest:.2e}")
    return right


def check(program, library, model, in_llama, scratch):
    ids = scratch / "ids.json"
    ids.write_text(json.dumps(IDS))
    directory = convert(program, model, "mlx", scratch / f"{model.name}-mlx")
    expected = of_program(program, directory, ids, scratch / "mlx.safetensors")
    right = [compare(f"mlx-lm {model.name}", of_mlx_lm(directory), expected, MLX_TOLERANCE)]
    if in_llama:
        path = convert(program, model, "gguf", scratch / f"{model.name}.gguf")
        expected = of_program(program, path, ids, scratch / "gguf.safetensors")
        found = of_llama_cpp(library, path)
        right.append(compare(f"llama.cpp {model.name}", found, expected, LLAMA_TOLERANCE))
    return all(right)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--library", required=True, help="folder of libllama")
    arguments = parser.parse_args()
    library = llama_cpp.Library(arguments.library)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number, (model, in_llama) in enumerate(CHECKPOINTS):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                failed += not check(Path(arguments.program).resolve(), library, model, in_llama, folder)
            except (AssertionError, RuntimeError, ValueError, TypeError, KeyError, subprocess.CalledProcessError) as error:
                detail = getattr(error, "stderr", b"") or b""
                print(f"FAILED {model.name}: {error} {detail.decode().strip()}")
                failed += 1
    if failed:
        sys.exit(f"{failed} of {len(CHECKPOINTS)} checkpoints failed")


if __name__ == "__main__":
    main()
