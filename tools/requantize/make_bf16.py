"""Writes a GGUF of Gemma 3 as full-precision checkpoints, for docs/performance.md.

    pip install numpy gguf safetensors ml_dtypes
    python make_bf16.py gemma-3-270m-q4_k_m.gguf HF_DIR FILE.gguf

HF_DIR gets bf16 safetensors and a config.json, without a tokenizer: evaluate token ids. FILE.gguf
gets the same weights in f32 with the original's metadata, as input of llama_quantize.py.
"""

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize
from safetensors.numpy import save_file

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def hf_name(name: str) -> str:
    if name.startswith("blk."):
        _, layer, tensor, _ = name.split(".")
        return f"model.layers.{layer}.{LAYER[tensor]}.weight"
    return {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }[name]


def config(reader: GGUFReader) -> dict:
    value = lambda key: reader.get_field(f"gemma3.{key}").contents()
    return {
        "model_type": "gemma3_text",
        "vocab_size": len(reader.get_field("tokenizer.ggml.tokens").data),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": value("attention.head_count"),
        "num_key_value_heads": value("attention.head_count_kv"),
        "head_dim": value("attention.key_length"),
        "query_pre_attn_scalar": value("attention.key_length"),
        "sliding_window": value("attention.sliding_window"),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": value("context_length"),
        "rope_theta": value("rope.freq_base"),
        "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": True,
    }


def main() -> None:
    source, directory, target = map(Path, sys.argv[1:])
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "gemma3")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type)
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32)
        if len(shape) == 2:
            values = values.astype(ml_dtypes.bfloat16)
        writer.add_tensor(
            tensor.name, values.astype(np.float32), raw_dtype=GGMLQuantizationType.F32
        )
        # Hugging Face stores norms less one.
        tensors[hf_name(tensor.name)] = values if len(shape) == 2 else values - 1
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config(reader), indent=1) + "\n")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
