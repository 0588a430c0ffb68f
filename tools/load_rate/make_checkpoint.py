#!/usr/bin/env python3
"""Writes a GGUF file of a published shape with random weights, to measure rates.

    make_checkpoint.py OUT.gguf [LAYERS] [--shape 31b] [--embedding Q8_0]

The file is Q4_0, by default 31B's of 18 GB. Google's own files of Q4_0 have the embedding in Q6_K.
Needs numpy. The vocabulary is invented, so the output of the model is noise.
"""

import argparse
import struct
from dataclasses import replace

import numpy as np

from shapes import SHAPES

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
# Number, values and bytes of a block, and the place of its f16 scale.
TYPES = {
    "F32": (0, 1, 4, None),
    "Q4_0": (2, 32, 18, 0),
    "Q8_0": (8, 32, 34, 0),
    "Q6_K": (14, 256, 210, 208),
}
# The root mean square of a block's values beside its scale.
SPREAD = {"Q4_0": 4.6, "Q8_0": 74, "Q6_K": 1370}
ALIGNMENT = 32


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    if kind == STRING:
        return text(value)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def entry(key, kind, value):
    if isinstance(value, list):
        body = struct.pack("<IIQ", ARRAY, kind, len(value))
        return text(key) + body + b"".join(scalar(kind, item) for item in value)
    return text(key) + struct.pack("<I", kind) + scalar(kind, value)


def model_metadata(shape):
    full = [shape.is_full(layer) for layer in range(shape.layers)]
    model = {
        "block_count": (U32, shape.layers),
        "context_length": (U32, shape.context),
        "embedding_length": (U32, shape.hidden),
        "feed_forward_length": (I32, [shape.ffn_of(layer) for layer in range(shape.layers)])
        if shape.double_wide
        else (U32, shape.ffn),
        "attention.head_count": (U32, shape.heads),
        "attention.head_count_kv": (I32, [shape.kv_heads[kind] for kind in full]),
        "rope.freq_base": (F32, 1e6),
        "rope.freq_base_swa": (F32, 1e4),
        "attention.layer_norm_rms_epsilon": (F32, 1e-6),
        "final_logit_softcapping": (F32, 30.0),
        "attention.sliding_window": (U32, shape.window),
        "attention.sliding_window_pattern": (BOOL, [not kind for kind in full]),
        "attention.shared_kv_layers": (U32, shape.shared),
        "embedding_length_per_layer_input": (U32, shape.per_layer),
    }
    for suffix, head_dim in zip(("_swa", ""), shape.head_dims):
        for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            model[name + suffix] = (U32, head_dim)
    if shape.experts:
        model["expert_count"] = (U32, shape.experts)
        model["expert_used_count"] = (U32, shape.used_experts)
        model["expert_feed_forward_length"] = (U32, shape.expert_ffn)
    return model


def metadata(shape, name):
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + ["t", "0"]
    tokens += [f"t{index}" for index in range(shape.vocabulary - len(tokens))]
    normal = shape.vocabulary - len(special) - 256
    tokenizer = {
        "model": (STRING, "gemma4"),
        "tokens": (STRING, tokens),
        "scores": (F32, [-1000.0] * shape.vocabulary),
        "token_type": (I32, [3] * len(special) + [6] * 256 + [1] * normal),
        "merges": (STRING, ["t 0"]),
        "bos_token_id": (U32, 2),
        "eos_token_id": (U32, 1),
        "unknown_token_id": (U32, 3),
        "padding_token_id": (U32, 0),
    }
    entries = [
        entry("general.architecture", STRING, "gemma4"),
        entry("general.name", STRING, f"random {name.upper()}"),
        # The type of most matrices is Q4_0.
        entry("general.file_type", U32, 2),
        entry("general.quantization_version", U32, 2),
    ]
    entries += [entry(f"gemma4.{key}", *value) for key, value in model_metadata(shape).items()]
    entries += [entry(f"tokenizer.ggml.{key}", *value) for key, value in tokenizer.items()]
    return entries


def layer_matrices(shape, layer):
    """Shapes of a layer's matrices, the columns first as GGUF has them."""
    full, hidden, ffn = shape.is_full(layer), shape.hidden, shape.ffn_of(layer)
    q, kv = (heads * shape.head_dims[full] for heads in (shape.heads, shape.kv_heads[full]))
    matrices = {"attn_q": (hidden, q), "attn_output": (q, hidden)}
    if not shape.shares(layer):
        matrices["attn_k"] = (hidden, kv)
        if not (full and shape.k_eq_v):
            matrices["attn_v"] = (hidden, kv)
    matrices |= {"ffn_gate": (hidden, ffn), "ffn_up": (hidden, ffn), "ffn_down": (ffn, hidden)}
    if shape.experts:
        matrices["ffn_gate_up_exps"] = (hidden, 2 * shape.expert_ffn, shape.experts)
        matrices["ffn_down_exps"] = (shape.expert_ffn, hidden, shape.experts)
    if shape.per_layer:
        matrices["inp_gate"] = (hidden, shape.per_layer)
        matrices["proj"] = (shape.per_layer, hidden)
    return matrices


def layer_vectors(shape, layer):
    """Sizes of a layer's tensors in f32, all of them vectors but the router."""
    hidden, head_dim = (shape.hidden,), (shape.head_dims[shape.is_full(layer)],)
    norms = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]
    if shape.experts:
        norms += ["pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"]
    if shape.per_layer:
        norms.append("post_norm")
    vectors = {f"{name}.weight": hidden for name in norms}
    vectors["attn_q_norm.weight"] = head_dim
    if not shape.shares(layer):
        vectors["attn_k_norm.weight"] = head_dim
    vectors["layer_output_scale.weight"] = (1,)
    if shape.experts:
        vectors["ffn_gate_inp.weight"] = (shape.hidden, shape.experts)
        vectors["ffn_gate_inp.scale"] = hidden
        vectors["ffn_down_exps.scale"] = (shape.experts,)
    return vectors


def tensors(shape, embedding):
    """Name, type and shape, the columns first as GGUF has them."""
    yield "token_embd.weight", embedding, (shape.hidden, shape.vocabulary)
    yield "rope_freqs.weight", "F32", (shape.head_dims[True] // 2,)
    yield "output_norm.weight", "F32", (shape.hidden,)
    if shape.per_layer:
        columns = shape.per_layer * shape.layers
        yield "per_layer_token_embd.weight", embedding, (columns, shape.vocabulary)
        yield "per_layer_model_proj.weight", "Q4_0", (shape.hidden, columns)
        yield "per_layer_proj_norm.weight", "F32", (shape.per_layer,)
    for layer in range(shape.layers):
        for name, size in layer_matrices(shape, layer).items():
            yield f"blk.{layer}.{name}.weight", "Q4_0", size
        for name, size in layer_vectors(shape, layer).items():
            yield f"blk.{layer}.{name}", "F32", size


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def blocks(kind, count, shape, random):
    """Random blocks with one scale, by which a product keeps the size of its input."""
    _, _, size, place = TYPES[kind]
    scale = np.float16(1 / (SPREAD[kind] * shape.hidden**0.5))
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    data[:, place : place + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    return data.tobytes()


def values(name, size, random):
    """The values of a tensor in f32."""
    if name == "rope_freqs.weight":
        return np.array([1.0] * (size[0] // 4) + [1e30] * (size[0] - size[0] // 4))
    if name.endswith("ffn_gate_inp.weight"):
        # Unequal routers, so that tokens choose different experts.
        return random.normal(0, 4 * size[0] ** -0.5, size)
    return np.ones(size)


def write(path, shape, name, embedding="Q8_0"):
    random = np.random.default_rng(1)
    all_tensors = list(tensors(shape, embedding))
    # Drawn once and repeated: what a weight is does not matter.
    kinds = {kind for _, kind, _ in all_tensors} - {"F32"}
    drawn = {kind: blocks(kind, 1 << 20, shape, random) for kind in sorted(kinds)}
    entries, described, offset, sizes = metadata(shape, name), b"", 0, []
    for tensor, kind, size in all_tensors:
        number, count, block_bytes, _ = TYPES[kind]
        sizes.append(int(np.prod(size)) // count * block_bytes)
        described += text(tensor) + struct.pack(f"<I{len(size)}Q", len(size), *size)
        described += struct.pack("<IQ", number, offset)
        offset += padded(sizes[-1])
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(entries)))
        file.write(b"".join(entries) + described)
        file.write(bytes(padded(file.tell()) - file.tell()))
        for (tensor, kind, shape_of), size in zip(all_tensors, sizes):
            if kind == "F32":
                data = values(tensor, shape_of, random).astype(np.float32).tobytes()
            else:
                data = drawn[kind]
            left = size
            while left > 0:
                left -= file.write(data[:left])
            file.write(bytes(padded(size) - size))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out")
    parser.add_argument("layers", nargs="?", type=int)
    parser.add_argument("--shape", choices=SHAPES, default="31b")
    parser.add_argument("--embedding", choices=SPREAD, default="Q8_0")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    if options.layers is not None:
        shape = replace(shape, layers=options.layers)
        if options.layers < shape.shared + shape.period:
            parser.error(f"{options.shape} needs {shape.shared + shape.period} layers or more")
    write(options.out, shape, options.shape, options.embedding)


if __name__ == "__main__":
    main()
