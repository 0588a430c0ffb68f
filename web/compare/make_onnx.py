"""Writes a model of the demo model's sizes for transformers.js.

    python make_onnx.py model

It is a Gemma 3 with the operators of onnxruntime's model builder for WebGPU: MatMulNBits with int4
in blocks of 32, GroupQueryAttention with rotation and cache, SimplifiedLayerNormalization. The
embedding and caches are f32. Weights are random, because only speed is compared.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DEMO = Path(__file__).parents[2] / "assets/demo"
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, DIM, VOCAB = 320, 1280, 6, 2, 1, 256, 4096
POSITIONS, WINDOW, BLOCK, EPS = 2048, 256, 32, 1e-6
# Sliding layers and the full one, as in the demo model, whose full layer has heads of 512 dims.
SLIDING = [True] * 5 + [False]


class Graph:
    """Nodes and weights under construction."""

    def __init__(self):
        self.nodes, self.weights, self.random = [], [], np.random.default_rng(7)

    def constant(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind, inputs, name, domain="", outputs=None, **attributes):
        outputs = outputs or [name]
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0]

    def matmul(self, x, name, rows, cols):
        """x · Wᵀ for an int4 matrix [rows, cols]."""
        quants = self.random.integers(0, 256, (rows, cols // BLOCK, BLOCK // 2), dtype=np.uint8)
        scales = np.full((rows * cols // BLOCK,), 0.25 / np.sqrt(cols), np.float32)
        inputs = [
            x,
            self.constant(f"{name}.quants", quants),
            self.constant(f"{name}.scales", scales),
        ]
        sizes = dict(K=cols, N=rows, bits=4, block_size=BLOCK, accuracy_level=4)
        return self.node("MatMulNBits", inputs, name, "com.microsoft", **sizes)

    def norm(self, x, name, size):
        weight = self.constant(f"{name}.weight", np.ones(size, np.float32))
        return self.node("SimplifiedLayerNormalization", [x, weight], name, axis=-1, epsilon=EPS)

    def head_norm(self, x, name, heads):
        split = self.constant(f"{name}.split", np.array([0, 0, heads, DIM], np.int64))
        joined = self.constant(f"{name}.joined", np.array([0, 0, heads * DIM], np.int64))
        split = self.node("Reshape", [x, split], f"{name}.heads")
        return self.node("Reshape", [self.norm(split, name, DIM), joined], f"{name}.flat")


def rotations(graph, name, base):
    angles = np.outer(np.arange(POSITIONS), base ** (-np.arange(0, DIM, 2) / DIM))
    return [
        graph.constant(f"{name}.{f.__name__}", f(angles).astype(np.float32))
        for f in (np.cos, np.sin)
    ]


def attention(graph, x, at, index, lengths, turns):
    q = graph.head_norm(graph.matmul(x, f"{at}.q_proj", HEADS * DIM, HIDDEN), f"{at}.q_norm", HEADS)
    k = graph.head_norm(
        graph.matmul(x, f"{at}.k_proj", KV_HEADS * DIM, HIDDEN), f"{at}.k_norm", KV_HEADS
    )
    v = graph.matmul(x, f"{at}.v_proj", KV_HEADS * DIM, HIDDEN)
    past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
    present = [f"present.{index}.{part}" for part in ("key", "value")]
    sizes = dict(
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        scale=1 / np.sqrt(DIM),
        do_rotary=1,
        rotary_interleaved=0,
    )
    window = dict(local_window_size=WINDOW if SLIDING[index] else -1)
    inputs, name = [q, k, v, *past, *lengths, *turns[SLIDING[index]]], f"{at}.attention"
    graph.node(
        "GroupQueryAttention",
        inputs,
        name,
        "com.microsoft",
        outputs=[name, *present],
        **sizes,
        **window,
    )
    return graph.matmul(name, f"{at}.o_proj", HIDDEN, HEADS * DIM)


def gelu(graph, x, at):
    return graph.node("Gelu", [x], f"{at}.gelu", approximate="tanh")


def layer(graph, x, index, lengths, turns):
    at = f"layers.{index}"
    branch = attention(graph, graph.norm(x, f"{at}.input_norm", HIDDEN), at, index, lengths, turns)
    x = graph.node(
        "Add", [x, graph.norm(branch, f"{at}.post_attention_norm", HIDDEN)], f"{at}.after_attention"
    )
    normed = graph.norm(x, f"{at}.pre_feedforward_norm", HIDDEN)
    gate = gelu(graph, graph.matmul(normed, f"{at}.gate_proj", FFN, HIDDEN), at)
    hidden = graph.node(
        "Mul", [gate, graph.matmul(normed, f"{at}.up_proj", FFN, HIDDEN)], f"{at}.hidden"
    )
    branch = graph.matmul(hidden, f"{at}.down_proj", HIDDEN, FFN)
    return graph.node(
        "Add", [x, graph.norm(branch, f"{at}.post_feedforward_norm", HIDDEN)], f"{at}.output"
    )


def model():
    graph = Graph()
    table = graph.random.normal(0, 1 / np.sqrt(HIDDEN), (VOCAB, HIDDEN)).astype(np.float32)
    embedded = graph.node("Gather", [graph.constant("embedding", table), "input_ids"], "embedded")
    x = graph.node(
        "Mul", [embedded, graph.constant("embedding_scale", np.float32(np.sqrt(HIDDEN)))], "scaled"
    )
    one = graph.constant("one", np.array([1], np.int64))
    seen = graph.node("ReduceSum", ["attention_mask", one], "seen", keepdims=0)
    last = graph.node("Sub", [seen, one], "last")
    shape = graph.node("Shape", ["attention_mask"], "mask_shape")
    total = graph.node("Gather", [shape, graph.constant("second", np.int64(1))], "total")
    lengths = [
        graph.node("Cast", [length], f"{length}.int32", to=TensorProto.INT32)
        for length in (last, total)
    ]
    turns = {
        True: rotations(graph, "sliding", 10_000.0),
        False: rotations(graph, "full", 1_000_000.0),
    }
    for index in range(LAYERS):
        x = layer(graph, x, index, lengths, turns)
    head = graph.matmul(graph.norm(x, "norm", HIDDEN), "lm_head", VOCAB, HIDDEN)
    graph.nodes.append(helper.make_node("Identity", [head], ["logits"]))

    tensor = helper.make_tensor_value_info

    def cache(prefix, length):
        names = [f"{prefix}.{index}.{part}" for index in range(LAYERS) for part in ("key", "value")]
        # transformers.js knows dimensions by these names.
        return [
            tensor(name, TensorProto.FLOAT, ["batch_size", KV_HEADS, length, DIM]) for name in names
        ]

    inputs = [tensor("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])]
    inputs += [tensor("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])]
    inputs += cache("past_key_values", "past_sequence_length")
    outputs = [tensor("logits", TensorProto.FLOAT, ["batch_size", "sequence_length", VOCAB])]
    outputs += cache("present", "total_sequence_length")
    made = helper.make_graph(graph.nodes, "gemma3", inputs, outputs, graph.weights)
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=versions, ir_version=10)


def main(directory):
    (directory / "onnx").mkdir(parents=True, exist_ok=True)
    onnx.save(model(), directory / "onnx/model_q4.onnx")
    config = dict(
        architectures=["Gemma3ForCausalLM"],
        model_type="gemma3_text",
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=DIM,
        vocab_size=VOCAB,
        max_position_embeddings=POSITIONS,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
