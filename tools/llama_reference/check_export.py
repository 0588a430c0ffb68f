#!/usr/bin/env python3
"""Compares an exported GGUF in llama.cpp and in gemma4-wgpu with its source checkpoint.

    gemma4-wgpu convert --to gguf --model DIR --output FILE.gguf
    .work/venv/bin/python check_export.py --program PATH/gemma4-wgpu DIR FILE.gguf TEXT

Prints the perplexity of a text and greedy tokens, on the file and on its dequantized copy, which
the package gguf makes.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import llama_cpp
from make_reference import HERE, dequantized_copy, negative_log_likelihoods, perplexity_figures

PROMPT, NEW = "What is love?", 32


def greedy_tokens(context, prompt):
    context.reset()
    tokens = []
    *_, logits = context.decode(prompt, every=False)
    for _ in range(NEW):
        tokens.append(int(logits.argmax()))
        *_, logits = context.decode(tokens[-1:])
    return tokens


def by_llama_cpp(library, path, count, text):
    model = llama_cpp.Model(library, path)
    tokens = model.tokenize(text)[:count]
    context = llama_cpp.Context(model, max(count, 256), kv="f32", batch=256)
    figures = perplexity_figures(negative_log_likelihoods(context, tokens), len(tokens))
    return tokens, figures["perplexity"], greedy_tokens(context, model.tokenize(PROMPT))


def by_program(program, model, ids):
    common = ["--quiet", "--backend", "cpu", "--exact", "--model", model]
    read = lambda *command: (
        subprocess.run([program, *command], check=True, capture_output=True, text=True).stdout
    )
    perplexity = read("eval", *common, "--token-ids", ids).split()[-1]
    run = read(
        "run", *common, "--raw-prompt", "--json", "--temperature", "0", "-n", str(NEW), PROMPT
    )
    return float(perplexity), json.loads(run)["tokens"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", default=HERE.parents[1] / "target/debug/gemma4-wgpu")
    parser.add_argument(
        "--library", default=HERE / ".work/package/bins/linux-x64", help="folder of libllama"
    )
    parser.add_argument("--tokens", type=int, default=1000, help="of the text")
    parser.add_argument("checkpoint")
    parser.add_argument("gguf")
    parser.add_argument("text", type=Path)
    arguments = parser.parse_args()
    library = llama_cpp.Library(arguments.library)
    with tempfile.TemporaryDirectory() as scratch:
        exact, ids = Path(scratch) / "exact.gguf", Path(scratch) / "ids.json"
        dequantized_copy(arguments.gguf, exact)
        text = arguments.text.read_text()
        tokens, perplexity, reference = by_llama_cpp(library, exact, arguments.tokens, text)
        ids.write_text(json.dumps(tokens))
        stored = by_llama_cpp(library, arguments.gguf, arguments.tokens, text)[1:]
        found = {
            "llama.cpp, dequantized": (perplexity, reference),
            "llama.cpp, as stored": stored,
            "gemma4-wgpu, checkpoint": by_program(arguments.program, arguments.checkpoint, ids),
            "gemma4-wgpu, exported": by_program(arguments.program, arguments.gguf, ids),
        }
    print(f"{len(tokens)} tokens")
    for name, (perplexity, greedy) in found.items():
        same = next((i for i, pair in enumerate(zip(greedy, reference)) if pair[0] != pair[1]), NEW)
        print(f"{name:24}  perplexity {perplexity:9.4f}  {same} of {NEW} greedy tokens")


if __name__ == "__main__":
    main()
