#!/usr/bin/env python3
"""Writes tests/goldens_gguf/: small random Gemma 4 models as GGUF, with llama.cpp's logits.

Metadata and tensors have the names and shapes of llama.cpp's own conversion of Gemma 4. Each case
has

- model.gguf, or the parts model-0000N-of-0000M.gguf
- golden.safetensors: `tokens` (i32, [n]) and `logits` (f32, [n, vocab]), which llama.cpp computes
  in f32 (weights and KV cache) on exactly the values in the file
- tokenization.json: token ids of a few texts
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import TokenType
from safetensors.numpy import save_file

import llama_cpp

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "tests/goldens_gguf"

HIDDEN, FFN, HEADS, WINDOW, EPS, SOFTCAP = 64, 96, 4, 8, 1e-6, 30.0
CONTEXT_LENGTH = 4096
# True: sliding. Full layers have their own head size and KV heads, no attn_v (K is V), and
# proportional RoPE.
SLIDING = [True, True, False, True, True, False]
HEAD_DIM = {True: 16, False: 32}
KV_HEADS = {True: 2, False: 1}
ROPE_BASE = {True: 10_000.0, False: 1_000_000.0}
PARTIAL_ROTARY = 0.25
# E2B's kind: elements of a layer's vector, and layers with shared keys and an MLP twice as wide.
PER_LAYER, SHARED = 32, 3
TOKENS = 48  # six windows


@dataclass
class Case:
    name: str
    matrix_types: list  # taken in turn
    seed: int
    tensors_per_file: int = 0
    effective: bool = False  # of E2B's kind


CASES = [
    Case("gemma4", [Type.F16], seed=1),
    Case(
        "gemma4_mixed_split",
        [Type.Q8_0, Type.BF16, Type.Q4_0, Type.Q5_1, Type.F32, Type.Q4_1, Type.Q5_0, Type.F16],
        seed=2,
        tensors_per_file=40,
    ),
    Case("gemma4_effective", [Type.Q8_0, Type.Q4_0, Type.Q5_1, Type.Q4_1], seed=3, effective=True),
]

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|think|>"]
VISIBLE = ["<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"]
CHARACTERS = ["\n", "▁", *"abcdefghijklmnopqrstuvwxyz", *"ABT", *".,!?'0123456789", "é", "日"]
# The lower in the list, the later it is applied; some compete, so that a wrong order shows.
MERGES = [
    ("t", "h"),
    ("h", "e"),
    ("th", "e"),
    ("▁", "the"),
    ("▁", "▁"),
    ("i", "n"),
    ("a", "n"),
    ("an", "d"),
    ("▁", "and"),
    ("in", "g"),
    ("e", "r"),
    ("▁", "a"),
    ("▁▁", "▁▁"),
    ("l", "l"),
    ("T", "he"),
    ("o", "n"),
    ("▁a", "n"),
    ("e", "ll"),
    ("h", "ell"),
    ("hell", "o"),
    ("▁", "hello"),
    ("e", "▁"),
    (".", "."),
    ("..", "."),
    ("\n", "\n"),
    ("\n\n", "\n"),
]
TEXTS = [
    "",
    " ",
    "hello",
    " hello",
    "the hello and the",
    "The  cat    sat\n\n\non the mat.",
    "then there",
    "other and another",
    "Zoë 日本 é 😀",
    "a\tb",
    "...?!",
    "\n\n a\n\n\n\n",
    "a\n\n\n\n\n.",
    "<|turn>user\nhello<turn|>\n",
    "<|channel>thought\n<channel|>",
    "<bos><0x41>",
]


def vocabulary():
    """Tokens with their types: control, visible, bytes, characters, merged pieces."""
    tokens = [(text, TokenType.CONTROL) for text in CONTROL] + [
        (text, TokenType.USER_DEFINED) for text in VISIBLE
    ]
    tokens += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    tokens += [(text, TokenType.NORMAL) for text in CHARACTERS]
    known = {text for text, _ in tokens}
    for left, right in MERGES:
        if left not in known or right not in known:
            raise ValueError(f"merge of {left!r} and {right!r}: unknown part")
        if left + right not in known:
            tokens.append((left + right, TokenType.NORMAL))
            known.add(left + right)
    return tokens


def is_shared(index, effective):
    return effective and index >= len(SLIDING) - SHARED


def ffn_size(index, effective):
    return FFN * (2 if is_shared(index, effective) else 1)


def draw_tensors(seed, vocab, effective):
    """Name to f32 values; matrices are [out, in]. Scores and logits spread by a few units."""
    random = np.random.default_rng(seed)

    def matrix(rows, columns):
        return random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)

    def norm(size, scale=1.0):
        return (scale * random.uniform(0.6, 1.4, size)).astype(np.float32)

    tensors = {"token_embd.weight": random.normal(0, 0.4, (vocab, HIDDEN)).astype(np.float32)}
    if effective:
        columns = PER_LAYER * len(SLIDING)
        tensors["per_layer_token_embd.weight"] = random.normal(
            0, PER_LAYER**-0.5, (vocab, columns)
        ).astype(np.float32)
        tensors["per_layer_model_proj.weight"] = matrix(columns, HIDDEN)
        tensors["per_layer_proj_norm.weight"] = norm(PER_LAYER)
    pairs = HEAD_DIM[False] // 2
    turning = int(HEAD_DIM[False] * PARTIAL_ROTARY / 2)
    tensors["rope_freqs.weight"] = np.array(
        [1.0] * turning + [1e30] * (pairs - turning), np.float32
    )
    for index, sliding in enumerate(SLIDING):
        head_dim, kv, ffn = HEAD_DIM[sliding], KV_HEADS[sliding], ffn_size(index, effective)
        # Files have keys of the layers that use others' too.
        layer = {
            "attn_norm": norm(HIDDEN),
            "attn_q": matrix(HEADS * head_dim, HIDDEN),
            "attn_k": matrix(kv * head_dim, HIDDEN),
        }
        if sliding or effective:
            layer["attn_v"] = matrix(kv * head_dim, HIDDEN)
        layer |= {
            "attn_output": matrix(HIDDEN, HEADS * head_dim),
            "attn_q_norm": norm(head_dim, 0.7),
            "attn_k_norm": norm(head_dim, 0.7),
            "post_attention_norm": norm(HIDDEN),
            "ffn_norm": norm(HIDDEN),
            "ffn_gate": matrix(ffn, HIDDEN),
            "ffn_up": matrix(ffn, HIDDEN),
            "ffn_down": matrix(HIDDEN, ffn),
            "post_ffw_norm": norm(HIDDEN),
            "layer_output_scale": random.uniform(0.5, 1.3, 1).astype(np.float32),
        }
        if effective:
            layer |= {
                "inp_gate": matrix(PER_LAYER, HIDDEN),
                "proj": matrix(HIDDEN, PER_LAYER),
                "post_norm": norm(HIDDEN, 0.5),
            }
        tensors |= {f"blk.{index}.{name}.weight": value for name, value in layer.items()}
    # Two activations a layer from ggml's f16 table: half the logits, half the difference.
    tensors["output_norm.weight"] = norm(HIDDEN, 0.75 if effective else 1.5)
    return tensors


def add_metadata(writer, tokens, name, effective):
    writer.add_name(name)
    writer.add_block_count(len(SLIDING))
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(HIDDEN)
    sizes = [ffn_size(index, effective) for index in range(len(SLIDING))]
    writer.add_feed_forward_length(sizes if effective else FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([KV_HEADS[sliding] for sliding in SLIDING])
    writer.add_rope_freq_base(ROPE_BASE[False])
    writer.add_rope_freq_base_swa(ROPE_BASE[True])
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_final_logit_softcapping(SOFTCAP)
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern(SLIDING)
    writer.add_shared_kv_layers(SHARED if effective else 0)
    writer.add_embedding_length_per_layer_input(PER_LAYER if effective else 0)
    for sliding, (key, value, rope) in {
        False: (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count),
        True: (
            writer.add_key_length_swa,
            writer.add_value_length_swa,
            writer.add_rope_dimension_count_swa,
        ),
    }.items():
        for add in (key, value, rope):
            add(HEAD_DIM[sliding])
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in MERGES])
    writer.add_bos_token_id(CONTROL.index("<bos>"))
    writer.add_eos_token_id(CONTROL.index("<eos>"))
    writer.add_unk_token_id(CONTROL.index("<unk>"))
    writer.add_pad_token_id(CONTROL.index("<pad>"))
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(True)


def write_model(path, tensors, types, tokens, case, tensors_per_file=0):
    writer = gguf.GGUFWriter(path, "gemma4", split_max_tensors=tensors_per_file)
    add_metadata(writer, tokens, case.name, case.effective)
    for tensor, value in tensors.items():
        kind = types[tensor]
        if kind in (Type.F32, Type.F16):
            writer.add_tensor(tensor, value.astype(np.float16 if kind == Type.F16 else np.float32))
        else:
            writer.add_tensor(tensor, gguf.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(value, kind):
    """`value` as a tensor of type `kind` holds it, in f32."""
    if kind == Type.F32:
        return value
    return gguf.dequantize(gguf.quantize(value, kind), kind).astype(np.float32)


def logits_of(library, path, ids, kv):
    model = llama_cpp.Model(library, path)
    context = llama_cpp.Context(model, 256, kv=kv, batch=len(ids))
    batched = np.array(list(context.decode(ids)))
    context.reset()
    single = np.array([row for token in ids for row in context.decode([token])])
    return model, batched, single


def make(case, library):
    folder = OUT / case.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.gguf"):
        old.unlink()
    tokens = vocabulary()
    tensors = draw_tensors(case.seed, len(tokens), case.effective)
    matrices = [name for name, value in tensors.items() if value.ndim == 2]
    types = dict.fromkeys(tensors, Type.F32)
    types |= {
        name: case.matrix_types[i % len(case.matrix_types)] for i, name in enumerate(matrices)
    }
    path = folder / "model.gguf"
    write_model(path, tensors, types, tokens, case, case.tensors_per_file)
    first = path if path.exists() else min(folder.glob("model-00001-of-*.gguf"))

    ids = [CONTROL.index("<bos>")]
    ids += np.random.default_rng(case.seed + 100).integers(0, len(tokens), TOKENS - 1).tolist()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "exact.gguf"
        exact = {name: rounded(value, types[name]) for name, value in tensors.items()}
        write_model(copy, exact, dict.fromkeys(tensors, Type.F32), tokens, case)
        _, golden, single = logits_of(library, copy, ids, "f32")
    model, as_stored, _ = logits_of(library, first, ids, "f16")
    print(
        f"{case.name}: logits within ±{np.abs(golden).max():.2f}; largest difference token by "
        "token "
        f"{np.abs(golden - single).max():.1e}, on the file as stored "
        f"{np.abs(golden - as_stored).max():.1e}"
    )
    save_file({"tokens": np.array(ids, np.int32), "logits": golden}, folder / "golden.safetensors")
    cases = [
        {"text": text}
        | {
            key: model.tokenize(text, add_special=False, parse_special=special)
            for key, special in (("plain", False), ("special", True))
        }
        for text in TEXTS
    ]
    lines = ",\n".join(" " + json.dumps(entry) for entry in cases)
    (folder / "tokenization.json").write_text(f"[\n{lines}\n]\n")
    print(
        f"  {sum(file.stat().st_size for file in folder.iterdir())} bytes in "
        f"{folder.relative_to(HERE.parents[1])}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--library", default=HERE / ".work/package/bins/linux-x64", help="folder of libllama"
    )
    parser.add_argument("--verbose", action="store_true", help="print llama.cpp's log")
    arguments = parser.parse_args()
    library = llama_cpp.Library(arguments.library, verbose=arguments.verbose)
    for case in CASES:
        make(case, library)


if __name__ == "__main__":
    main()
