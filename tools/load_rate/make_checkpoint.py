#!/usr/bin/env python3
"""Writes a GGUF file of Gemma 4 31B's shape with random weights, to measure load rates.

    make_checkpoint.py OUT.gguf [LAYERS]

The file is Q4_0 with a Q8_0 embedding, 18 GB by default. Needs numpy. The vocabulary is invented,
so the output of the model is noise.
"""

import struct
import sys

import numpy as np

HIDDEN, FFN, HEADS, WINDOW, VOCAB = 5376, 21504, 32, 1024, 262144
HEAD_DIM, KV_HEADS = {True: 256, False: 512}, {True: 16, False: 4}  # True: sliding
U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
TYPES = {
    "F32": (0, 1, 4),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
}  # number, values and bytes of a block
ALIGNMENT = 32


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    return (
        text(value)
        if kind == STRING
        else struct.pack({U32: "<I", F32: "<f", BOOL: "<?", 5: "<i"}[kind], value)
    )


def entry(key, kind, value):
    if isinstance(value, list):
        body = struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(
            scalar(kind, item) for item in value
        )
        return text(key) + body
    return text(key) + struct.pack("<I", kind) + scalar(kind, value)


def metadata(sliding):
    model = {
        "block_count": (U32, len(sliding)),
        "context_length": (U32, 262144),
        "embedding_length": (U32, HIDDEN),
        "feed_forward_length": (U32, FFN),
        "attention.head_count": (U32, HEADS),
        "attention.head_count_kv": (5, [KV_HEADS[kind] for kind in sliding]),
        "rope.freq_base": (F32, 1e6),
        "rope.freq_base_swa": (F32, 1e4),
        "attention.layer_norm_rms_epsilon": (F32, 1e-6),
        "final_logit_softcapping": (F32, 30.0),
        "attention.sliding_window": (U32, WINDOW),
        "attention.sliding_window_pattern": (BOOL, sliding),
        "attention.shared_kv_layers": (U32, 0),
        "embedding_length_per_layer_input": (U32, 0),
        "attention.key_length": (U32, HEAD_DIM[False]),
        "attention.value_length": (U32, HEAD_DIM[False]),
        "rope.dimension_count": (U32, HEAD_DIM[False]),
        "attention.key_length_swa": (U32, HEAD_DIM[True]),
        "attention.value_length_swa": (U32, HEAD_DIM[True]),
        "rope.dimension_count_swa": (U32, HEAD_DIM[True]),
    }
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + ["t", "0"]
    tokens += [f"t{index}" for index in range(VOCAB - len(tokens))]
    kinds = [3] * len(special) + [6] * 256 + [1] * (VOCAB - len(special) - 256)
    tokenizer = {
        "model": (STRING, "gemma4"),
        "tokens": (STRING, tokens),
        "scores": (F32, [-1000.0] * VOCAB),
        "token_type": (5, kinds),
        "merges": (STRING, ["t 0"]),
        "bos_token_id": (U32, 2),
        "eos_token_id": (U32, 1),
        "unknown_token_id": (U32, 3),
        "padding_token_id": (U32, 0),
    }
    entries = [
        entry("general.architecture", STRING, "gemma4"),
        entry("general.name", STRING, "random 31B"),
    ]
    entries += [entry(f"gemma4.{key}", *value) for key, value in model.items()]
    entries += [entry(f"tokenizer.ggml.{key}", *value) for key, value in tokenizer.items()]
    return entries


def tensors(sliding):
    """Name, type and shape, the columns first as GGUF has them."""
    yield "token_embd.weight", "Q8_0", (HIDDEN, VOCAB)
    yield "rope_freqs.weight", "F32", (HEAD_DIM[False] // 2,)
    yield "output_norm.weight", "F32", (HIDDEN,)
    for index, kind in enumerate(sliding):
        q, kv = HEADS * HEAD_DIM[kind], KV_HEADS[kind] * HEAD_DIM[kind]
        matrices = {"attn_q": (HIDDEN, q), "attn_k": (HIDDEN, kv), "attn_output": (q, HIDDEN)}
        matrices |= {"ffn_gate": (HIDDEN, FFN), "ffn_up": (HIDDEN, FFN), "ffn_down": (FFN, HIDDEN)}
        if kind:
            matrices["attn_v"] = (HIDDEN, kv)
        for name, shape in matrices.items():
            yield f"blk.{index}.{name}.weight", "Q4_0", shape
        for name in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]:
            yield f"blk.{index}.{name}.weight", "F32", (HIDDEN,)
        for name in ["attn_q_norm", "attn_k_norm"]:
            yield f"blk.{index}.{name}.weight", "F32", (HEAD_DIM[kind],)
        yield f"blk.{index}.layer_output_scale.weight", "F32", (1,)


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def blocks(kind, count, random):
    """Random blocks: an f16 scale, then quants."""
    size = TYPES[kind][2]
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    data[:, :2] = np.frombuffer(np.float16(0.003).tobytes(), np.uint8)
    return data.tobytes()


def main(path, layers):
    sliding = [index % 6 != 5 for index in range(layers)]
    random = np.random.default_rng(1)
    # Drawn once and repeated: what a weight is does not matter.
    drawn = {kind: blocks(kind, 1 << 20, random) for kind in ["Q4_0", "Q8_0"]}
    entries, described, offset = metadata(sliding), b"", 0
    all_tensors = list(tensors(sliding))
    sizes = []
    for name, kind, shape in all_tensors:
        number, values, size = TYPES[kind]
        sizes.append(int(np.prod(shape)) // values * size)
        described += (
            text(name)
            + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            + struct.pack("<IQ", number, offset)
        )
        offset += padded(sizes[-1])
    with open(path, "wb") as file:
        file.write(
            b"GGUF"
            + struct.pack("<IQQ", 3, len(all_tensors), len(entries))
            + b"".join(entries)
            + described
        )
        file.write(bytes(padded(file.tell()) - file.tell()))
        for (name, kind, shape), size in zip(all_tensors, sizes):
            if name == "rope_freqs.weight":
                data = np.array([1.0] * 64 + [1e30] * (shape[0] - 64), np.float32).tobytes()
            elif kind == "F32":
                data = np.ones(shape, np.float32).tobytes()
            else:
                data = drawn[kind]
            left = size
            while left > 0:
                left -= file.write(data[:left])
            file.write(bytes(padded(size) - size))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
