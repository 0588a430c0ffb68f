#!/usr/bin/env python3
"""Writes tests/fixtures/gemma3_270m/*.json: llama.cpp's figures for a real Gemma 3 270M.

Usage: make_reference.py MODEL.gguf [--timing]
"""

import argparse
import hashlib
import json
import math
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

import llama_cpp
from prompts import GREEDY_PROMPTS, TOKENIZATION_TEXTS

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parents[1] / "tests/fixtures/gemma3_270m"
NEW_TOKENS = 64
TOP = 20
SMALLEST_GAP = 0.1
SHORT_PREFIX = 256
# Every position's logits are in memory at once: 64 x 262144 x 4 bytes.
BATCH = 64


def dequantized_copy(source, target):
    """Writes `source` with every tensor as f32 and the same metadata."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def top(logits, count):
    """The `count` largest logits as [[id, logit], ...], largest first, then the lower id."""
    largest = np.argpartition(-logits, count)[:count]
    order = sorted(largest.tolist(), key=lambda i: (-logits[i], i))
    return [[i, round(float(logits[i]), 5)] for i in order]


def log_sum_exp(logits):
    wide = logits.astype(np.float64)
    return float(wide.max() + np.log(np.exp(wide - wide.max()).sum()))


def greedy(context, prompt):
    """Greedy decoding by single tokens: the tokens, the prompt's last logits, each top 2."""
    context.reset()
    *_, logits = context.decode(prompt, every=False)
    first, tokens, pairs = logits, [], []
    for _ in range(NEW_TOKENS):
        pairs.append(top(logits, 2))
        tokens.append(pairs[-1][0][0])
        (logits,) = context.decode([tokens[-1]])
    return tokens, first, pairs


def smallest_gap(pairs):
    return round(min(first[1] - second[1] for first, second in pairs), 5)


def greedy_entry(name, text, plain, exact):
    """One prompt through `plain` (the file) and `exact` (its f32 copy), which must agree."""
    prompt = plain.model.tokenize(text)
    tokens, plain_first, plain_pairs = greedy(plain, prompt)
    exact_tokens, exact_first, exact_pairs = greedy(exact, prompt)
    if tokens != exact_tokens:
        raise SystemExit(
            f"prompt {name!r}: the quantized file and its f32 copy disagree; choose another prompt"
        )
    if min(smallest_gap(plain_pairs), smallest_gap(exact_pairs)) < SMALLEST_GAP:
        raise SystemExit(f"prompt {name!r}: two logits nearly tie; choose another prompt")
    check_batched(name, plain, prompt, tokens)
    answer = plain.model.detokenize(tokens).decode(errors="replace")
    run = {"name": name, "text": text, "prompt_tokens": prompt, "tokens": tokens, "answer": answer}
    firsts = {}
    for kind, first, pairs in (
        ("quantized", plain_first, plain_pairs),
        ("dequantized", exact_first, exact_pairs),
    ):
        run[kind] = {"min_gap": smallest_gap(pairs), "top2": pairs}
        firsts[kind] = {"log_sum_exp": round(log_sum_exp(first), 5), "top": top(first, TOP)}
    return run, {"name": name, "prompt_tokens": prompt} | firsts


def check_batched(name, context, prompt, tokens):
    """The same ids in one batch must predict the same next tokens as single tokens do."""
    context.reset()
    logits = list(context.decode(prompt + tokens[:-1]))[len(prompt) - 1 :]
    if [int(row.argmax()) for row in logits] != tokens:
        raise SystemExit(
            f"prompt {name!r}: batched and single decoding disagree; choose another prompt"
        )


def negative_log_likelihoods(context, tokens):
    """-ln p(tokens[i] | tokens[..i]) for i = 1, 2, ..."""
    context.reset()
    return [
        log_sum_exp(logits) - float(logits[target])
        for logits, target in zip(context.decode(tokens), tokens[1:])
    ]


def perplexity_figures(losses, tokens):
    mean = sum(losses[: tokens - 1]) / (tokens - 1)
    return {
        "tokens": tokens,
        "predicted": tokens - 1,
        "mean_nll": round(mean, 6),
        "perplexity": round(math.exp(mean), 5),
    }


def perplexity_entry(contexts, tokens, short_file_tokens):
    entry = {}
    for kind, context in contexts.items():
        losses = negative_log_likelihoods(context, tokens)
        entry[kind] = {
            "whole": perplexity_figures(losses, len(tokens)),
            "first_2000": perplexity_figures(losses, 2000),
            f"first_{SHORT_PREFIX}": perplexity_figures(losses, SHORT_PREFIX),
            "text_short": perplexity_figures(losses, short_file_tokens),
            "nll": [round(x, 5) for x in losses],
        }
    return entry


def timing(library_folder, path, threads=2, prompt=512, new=64):
    """Tokens per second with the fastest CPU build, repacked weights and flash attention."""
    library = llama_cpp.Library(library_folder, cpu=None)
    model = llama_cpp.Model(library, path, repack=True)
    context = llama_cpp.Context(model, prompt + new, threads, flash_attention="enabled")
    tokens = model.tokenize((FIXTURES / "text.txt").read_text())[:prompt]
    best = [math.inf, math.inf]
    for _ in range(3):
        context.reset()
        start = time.perf_counter()
        *_, logits = context.decode(tokens, every=False)
        middle = time.perf_counter()
        for _ in range(new):
            (logits,) = context.decode([int(logits.argmax())])
        end = time.perf_counter()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
    print(
        f"{threads} threads: prefill of {prompt}: {prompt / best[0]:.1f} tok/s, decode of {new}: "
        f"{new / best[1]:.1f} tok/s"
    )
    print(library.system_info())


def formatted(value, indent=""):
    """JSON with a line for each entry that holds no object."""
    inner = indent + " "
    if isinstance(value, dict):
        lines = [
            f"{inner}{json.dumps(key)}: {formatted(item, inner)}" for key, item in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(inner + formatted(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value)


def save(name, document):
    path = FIXTURES / name
    path.write_text(formatted(document) + "\n")
    print(f"{path.relative_to(HERE.parents[1])}: {path.stat().st_size} bytes")


def made_with(library, path):
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {
        "model": Path(path).name,
        "model_sha256": digest,
        "llama_cpp": f"{llama_cpp.LLAMA_CPP_RELEASE} "
        f"({llama_cpp.PACKAGE} {llama_cpp.PACKAGE_VERSION})",
        "settings": f"CPU build {library.cpu}, no repacking, 1 thread, flash attention off, "
        "full-size sliding cache",
        "quantized": "the file as it is; KV cache f16; llama.cpp rounds activations to 8 bits in "
        "products with quantized weights",
        "dequantized": "the same weights written out as f32; KV cache f32; no rounding of "
        "activations",
    }


def write_greedy(contexts, header):
    pairs = [greedy_entry(name, text, *contexts.values()) for name, text in GREEDY_PROMPTS.items()]
    note = (
        f"{NEW_TOKENS} greedy tokens (largest logit, no penalties) after each raw prompt with BOS. "
        "top2: for every "
        "generated token the two largest logits [[id, logit], [id, logit]] at the position that "
        "predicts it. "
        "min_gap: the smallest difference of the two."
    )
    save("greedy.json", {"note": note} | header | {"prompts": [run for run, _ in pairs]})
    note = (
        f"Logits at the last position of each prompt of greedy.json: the {TOP} largest, and ln sum "
        "exp over the vocabulary."
    )
    save("logits.json", {"note": note} | header | {"prompts": [last for _, last in pairs]})


def write_perplexity(contexts, header):
    model = contexts["quantized"].model
    tokens = model.tokenize((FIXTURES / "text.txt").read_text())
    short = model.tokenize((FIXTURES / "text_short.txt").read_text())
    if tokens[: len(short)] != short:
        raise SystemExit("text_short.txt is no prefix of text.txt in tokens")
    note = (
        "text.txt with BOS in one context. nll[i] = -ln p(tokens[i + 1] | tokens[0..=i]) from the "
        "full softmax; mean_nll "
        "is over all tokens but BOS (predicted = tokens - 1); perplexity = exp(mean_nll). first_N: "
        "the first N tokens, "
        "BOS among them. text_short: text_short.txt, whose tokens are a prefix of these."
    )
    figures = perplexity_entry(contexts, tokens, len(short))
    save("perplexity.json", {"note": note} | header | {"tokens": tokens} | figures)


def write_tokenization(model, header):
    note = (
        "Token ids of awkward texts, without BOS: plain with control-token text taken literally "
        "(parse_special = false), special with it recognized (parse_special = true)."
    )
    cases = [
        {
            "text": text,
            "plain": model.tokenize(text, add_special=False, parse_special=False),
            "special": model.tokenize(text, add_special=False, parse_special=True),
        }
        for text in TOKENIZATION_TEXTS
    ]
    kept = ("model", "model_sha256", "llama_cpp")
    save(
        "tokenization.json", {"note": note} | {key: header[key] for key in kept} | {"cases": cases}
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument(
        "--library", default=HERE / ".work/package/bins/linux-x64", help="folder of libllama"
    )
    parser.add_argument("--timing", action="store_true", help="measure speed instead")
    arguments = parser.parse_args()
    if arguments.timing:
        return timing(arguments.library, arguments.model)
    library = llama_cpp.Library(arguments.library)
    header = made_with(library, arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "dequantized.gguf"
        dequantized_copy(arguments.model, copy)
        contexts = {
            "quantized": llama_cpp.Context(
                llama_cpp.Model(library, arguments.model), 2304, batch=BATCH
            ),
            "dequantized": llama_cpp.Context(
                llama_cpp.Model(library, copy), 2304, kv="f32", batch=BATCH
            ),
        }
        write_tokenization(contexts["quantized"].model, header)
        write_greedy(contexts, header)
        write_perplexity(contexts, header)


if __name__ == "__main__":
    main()
