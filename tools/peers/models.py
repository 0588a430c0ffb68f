"""Small random checkpoints with Gemma's structure and a vocabulary that llama.cpp reads."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CONTROL = {
    "gemma3": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    "gemma4": ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"],
}
LETTERS = ["\n", "▁", *"abcdefghijklmnopqrstuvwxyz.,"]
MERGES = [("t", "h"), ("th", "e"), ("▁", "a"), ("i", "n"), ("a", "n")]
HIDDEN, HEAD, WIDTH, PER_LAYER = 64, 32, 96, 32


def tokenizer(family):
    words = [*CONTROL[family], *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS]
    words += [left + right for left, right in MERGES]
    words += [f"<unused{number}>" for number in range(-len(words) % 32)]
    added = [
        {
            "id": index,
            "content": word,
            "special": True,
            "normalized": False,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
        }
        for index, word in enumerate(CONTROL[family])
    ]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    split = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "dropout": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "ignore_merges": False,
        "vocab": {word: index for index, word in enumerate(words)},
        "merges": [list(pair) for pair in MERGES],
    }
    decoder = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return len(words), {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": space,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def gemma3(vocabulary):
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": HEAD,
        "query_pre_attn_scalar": HEAD,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
        "max_position_embeddings": 4096,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "tie_word_embeddings": True,
    }


def gemma4(vocabulary, **changes):
    """As transformers 5.24 writes it: what differs by layer stands in `per_layer_config`."""
    layers = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    full = {"head_dim": 2 * HEAD, "num_key_value_heads": 1}
    config = {
        "architectures": ["Gemma4ForCausalLM"],
        "model_type": "gemma4_text",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": len(layers),
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": HEAD,
        "layer_types": layers,
        "per_layer_config": {
            str(i): full for i, kind in enumerate(layers) if kind == "full_attention"
        },
        "attention_k_eq_v": True,
        "sliding_window": 16,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": 1e6,
                "partial_rotary_factor": 0.25,
            },
        },
        "final_logit_softcapping": 30.0,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "max_position_embeddings": 4096,
        "bos_token_id": 2,
        "eos_token_id": [1, 5],
        "tie_word_embeddings": True,
    }
    return config | changes


def effective(vocabulary):
    """Of E2B's kind."""
    full = {"2": {"head_dim": 2 * HEAD}, "5": {"head_dim": 2 * HEAD}}
    return gemma4(
        vocabulary,
        attention_k_eq_v=False,
        per_layer_config=full,
        hidden_size_per_layer_input=PER_LAYER,
        vocab_size_per_layer_input=vocabulary,
        num_kv_shared_layers=3,
        use_double_wide_mlp=True,
    )


def experts(vocabulary):
    """Of 26B-A4B's kind."""
    return gemma4(
        vocabulary, enable_moe_block=True, num_experts=8, top_k_experts=2, moe_intermediate_size=32
    )


def expert_tensors(config, random, norm):
    """A layer's experts and their router, without `.weight` where transformers has none."""
    count, width = config["num_experts"], config["moe_intermediate_size"]
    stack = lambda rows, cols: random.normal(0, cols**-0.5, (count, rows, cols))
    return {
        # Rounding must not close the gap between the last chosen and the first refused expert.
        "router.proj.weight": random.normal(0, 12.0, (count, HIDDEN)),
        "router.scale": random.uniform(0.5, 1.5, HIDDEN),
        "router.per_expert_scale": random.uniform(0.5, 1.5, count),
        "experts.gate_up_proj": stack(2 * width, HIDDEN),
        "experts.down_proj": stack(HIDDEN, width),
        "pre_feedforward_layernorm_2.weight": norm(HIDDEN),
        "post_feedforward_layernorm_1.weight": norm(HIDDEN),
        "post_feedforward_layernorm_2.weight": norm(HIDDEN),
    }


def tensors(config, seed):
    random, family = np.random.default_rng(seed), config["model_type"][:6]
    count, vocabulary = config["num_hidden_layers"], config["vocab_size"]
    shift = 1.0 if family == "gemma3" else 0.0
    matrix = lambda rows, cols: random.normal(0, cols**-0.5, (rows, cols)).astype(np.float32)
    norm = lambda size: (random.uniform(0.5, 1.5, size) - shift).astype(np.float32)
    found = {"embed_tokens.weight": random.normal(0, 0.5, (vocabulary, HIDDEN)).astype(np.float32)}
    found["norm.weight"] = norm(HIDDEN)
    per_layer = config.get("hidden_size_per_layer_input", 0)
    if per_layer:
        found["embed_tokens_per_layer.weight"] = random.normal(
            0, 0.5, (vocabulary, count * per_layer)
        )
        found["per_layer_model_projection.weight"] = matrix(count * per_layer, HIDDEN)
        found["per_layer_projection_norm.weight"] = norm(per_layer)
    own = count - config.get("num_kv_shared_layers", 0)
    for index, kind in enumerate(config["layer_types"]):
        layer = config | config.get("per_layer_config", {}).get(str(index), {})
        heads, kv, size = (
            layer["num_attention_heads"],
            layer["num_key_value_heads"],
            layer["head_dim"],
        )
        width = WIDTH * (2 if index >= own and config.get("use_double_wide_mlp") else 1)
        parts = {
            "self_attn.q_proj": matrix(heads * size, HIDDEN),
            "self_attn.o_proj": matrix(HIDDEN, heads * size),
            "self_attn.q_norm": norm(size),
            "mlp.gate_proj": matrix(width, HIDDEN),
            "mlp.up_proj": matrix(width, HIDDEN),
            "mlp.down_proj": matrix(HIDDEN, width),
        }
        for name in ["input", "post_attention", "pre_feedforward", "post_feedforward"]:
            parts[f"{name}_layernorm"] = norm(HIDDEN)
        if index < own:
            parts |= {"self_attn.k_proj": matrix(kv * size, HIDDEN), "self_attn.k_norm": norm(size)}
            if not (config.get("attention_k_eq_v") and kind == "full_attention"):
                parts["self_attn.v_proj"] = matrix(kv * size, HIDDEN)
        if per_layer:
            parts |= {
                "per_layer_input_gate": matrix(per_layer, HIDDEN),
                "per_layer_projection": matrix(HIDDEN, per_layer),
                "post_per_layer_input_norm": norm(HIDDEN),
            }
        found |= {f"layers.{index}.{name}.weight": value for name, value in parts.items()}
        if config.get("enable_moe_block"):
            own_names = expert_tensors(config, random, norm)
            found |= {f"layers.{index}.{name}": value for name, value in own_names.items()}
        if family == "gemma4":
            found[f"layers.{index}.layer_scalar"] = random.uniform(0.7, 1.1, 1)
    found = {f"model.{name}": value.astype(np.float32) for name, value in found.items()}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = matrix(vocabulary, HIDDEN)
    return found


MODELS = {
    "gemma3": ("gemma3", gemma3),
    "gemma4": ("gemma4", gemma4),
    "gemma4-untied": ("gemma4", lambda vocabulary: gemma4(vocabulary, tie_word_embeddings=False)),
    "gemma4-effective": ("gemma4", effective),
    "gemma4-small-experts": ("gemma4", experts),
    "gemma4-small-unified": (
        "gemma4",
        lambda vocabulary: gemma4(vocabulary, model_type="gemma4_unified_text"),
    ),
}


def write(name, folder):
    """Writes the model `name` into `folder`."""
    family, config_of = MODELS[name]
    vocabulary, tokenizer_json = tokenizer(family)
    config = config_of(vocabulary)
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json))
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    save_file(tensors(config, seed=7), folder / "model.safetensors", metadata={"format": "pt"})
