"""Writes a small random Gemma 4 with 65,536 positions, the embedded model's tokenizer, and a
template that renders tools in Gemma's form: make_model.py DIR."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
HIDDEN, INTERMEDIATE, HEADS, HEAD_DIM, LAYERS, VOCAB = 64, 128, 2, 32, 3, 4096
POSITIONS = 65536


def config():
    """The sizes. Every third layer has full attention."""
    kinds = ["full_attention" if at % 3 == 2 else "sliding_attention" for at in range(LAYERS)]
    full = {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"}
    return {
        "architectures": ["Gemma4ForCausalLM"],
        "attention_bias": False,
        "attention_k_eq_v": False,
        "bos_token_id": 2,
        "dtype": "float32",
        "enable_moe_block": False,
        "eos_token_id": [1, 5, 13],
        "final_logit_softcapping": 30.0,
        "global_head_dim": HEAD_DIM,
        "head_dim": HEAD_DIM,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": HIDDEN,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": INTERMEDIATE,
        "layer_types": kinds,
        "max_position_embeddings": POSITIONS,
        "model_type": "gemma4_text",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
        "sliding_window": 256,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
    }


def tensors():
    """Random weights. Matrices keep the magnitude of their input; norms are ones."""
    random = np.random.default_rng(7)

    def matrix(rows, columns):
        return (random.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    def ones(size):
        return np.ones(size, np.float32)

    made = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN), "model.norm.weight": ones(HIDDEN)}
    for layer in range(LAYERS):
        of_layer = {"layer_scalar": ones(1)}
        for norm in (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ):
            of_layer[f"{norm}.weight"] = ones(HIDDEN)
        of_layer |= {
            "mlp.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            "mlp.up_proj.weight": matrix(INTERMEDIATE, HIDDEN),
            "mlp.down_proj.weight": matrix(HIDDEN, INTERMEDIATE),
            "self_attn.q_proj.weight": matrix(HEADS * HEAD_DIM, HIDDEN),
            "self_attn.k_proj.weight": matrix(HEAD_DIM, HIDDEN),
            "self_attn.v_proj.weight": matrix(HEAD_DIM, HIDDEN),
            "self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD_DIM),
            "self_attn.q_norm.weight": ones(HEAD_DIM),
            "self_attn.k_norm.weight": ones(HEAD_DIM),
        }
        made |= {f"model.layers.{layer}.{name}": values for name, values in of_layer.items()}
    return made


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(), indent=2))
    save_file(tensors(), folder / "model.safetensors")
    demo = ROOT / "assets" / "demo"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(demo / name, folder / name)
    template = ROOT / "src" / "text" / "templates" / "gemma4.jinja"
    shutil.copy(template, folder / "chat_template.jinja")


if __name__ == "__main__":
    main()
