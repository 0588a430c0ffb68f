"""The models of tests/goldens: each case is a layer structure or a form of config.json."""

from dataclasses import dataclass, field

import torch

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass
class Case:
    """One model: `config` goes to the text config of its family as it stands."""

    name: str
    family: str  # "gemma4", "gemma4_unified" or "gemma3"
    dtype: torch.dtype  # of the stored weights
    tokens: int  # length of the prompt
    config: dict
    shard_bytes: int | None = None  # several safetensors files with an index
    published: bool = False  # the nested config and the tensor names of the published checkpoints
    extra: dict = field(default_factory=dict)  # keys that only the published config has


def rope(full: dict) -> dict:
    return {SLIDING: {"rope_type": "default", "rope_theta": 10_000.0}, FULL: full}


def gemma4(**overrides) -> dict:
    config = {
        "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 256,
        "rope_parameters": rope(
            {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}
        ),
    }
    return config | overrides


def gemma3(**overrides) -> dict:
    return {"max_position_embeddings": 256} | overrides


CASES = [
    # Every layer alike but for its mask and RoPE; two queries to a KV head; sharded.
    Case(
        "gemma4-dense-gqa",
        "gemma4",
        torch.bfloat16,
        24,
        shard_bytes=40_000,
        config=gemma4(
            vocab_size=96,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=8,
            sliding_window=16,
            layer_types=[SLIDING, SLIDING, SLIDING, FULL],
            rope_parameters=rope({"rope_type": "default", "rope_theta": 1e6}),
        ),
    ),
    # Full layers without v_proj, with another head_dim and fewer KV heads, and proportional RoPE.
    Case(
        "gemma4-k-eq-v",
        "gemma4",
        torch.float16,
        32,
        config=gemma4(
            vocab_size=80,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=8,
            layer_types=[SLIDING, FULL, SLIDING, FULL],
            final_logit_softcapping=30.0,
        ),
    ),
    # The prompt is eight windows long.
    Case(
        "gemma4-short-window",
        "gemma4",
        torch.float32,
        40,
        config=gemma4(
            vocab_size=64,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=12,
            global_head_dim=12,
            sliding_window=5,
            layer_types=[SLIDING, SLIDING, FULL],
        ),
    ),
    # No size is a multiple of 4, and one query head more than a power of two.
    Case(
        "gemma4-odd-sizes",
        "gemma4",
        torch.bfloat16,
        37,
        config=gemma4(
            vocab_size=67,
            hidden_size=36,
            intermediate_size=50,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=6,
            global_head_dim=10,
            sliding_window=7,
            rms_norm_eps=1e-5,
            layer_types=[SLIDING, FULL, FULL],
        ),
    ),
    # The head sizes of the 31B model on a very narrow one.
    Case(
        "gemma4-31b-heads",
        "gemma4",
        torch.bfloat16,
        28,
        config=gemma4(
            vocab_size=72,
            hidden_size=10,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=256,
            global_head_dim=512,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=9,
            layer_types=[SLIDING, FULL],
            final_logit_softcapping=30.0,
        ),
    ),
    # A cap that bends the logits hard, and an lm_head of its own.
    Case(
        "gemma4-softcap-untied",
        "gemma4",
        torch.bfloat16,
        26,
        config=gemma4(
            vocab_size=90,
            hidden_size=40,
            intermediate_size=72,
            num_hidden_layers=2,
            num_attention_heads=5,
            num_key_value_heads=5,
            head_dim=16,
            global_head_dim=32,
            sliding_window=11,
            layer_types=[SLIDING, FULL],
            final_logit_softcapping=4.0,
            tie_word_embeddings=False,
        ),
    ),
    # The shape in which Google publishes Gemma 4: everything under text_config, vision tensors
    # beside.
    Case(
        "gemma4-published",
        "gemma4",
        torch.bfloat16,
        30,
        published=True,
        config=gemma4(
            vocab_size=88,
            hidden_size=32,
            intermediate_size=56,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=6,
            layer_types=[SLIDING] * 5 + [FULL],
            final_logit_softcapping=30.0,
            eos_token_id=[1, 50],
            use_bidirectional_attention="vision",
            max_position_embeddings=262_144,
        ),
    ),
    # Gemma 3, the full layers with linear RoPE scaling, a query scale that is not head_dim^-0.5.
    Case(
        "gemma3-linear-rope",
        "gemma3",
        torch.bfloat16,
        33,
        config=gemma3(
            vocab_size=70,
            hidden_size=36,
            intermediate_size=52,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=10,
            query_pre_attn_scalar=16,
            sliding_window=6,
            layer_types=[SLIDING, SLIDING, FULL, SLIDING],
            rope_parameters=rope({"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}),
        ),
    ),
    # Gemma 3 as published: nested, rope_theta beside rope_local_base_freq, a window pattern instead
    # of layer_types.
    Case(
        "gemma3-published",
        "gemma3",
        torch.bfloat16,
        29,
        published=True,
        config=gemma3(
            vocab_size=75,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=7,
            layer_types=[SLIDING] * 5 + [FULL],
            rope_parameters=rope({"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}),
        ),
        extra={
            "sliding_window_pattern": 6,
            "rope_theta": 1e6,
            "rope_local_base_freq": 10_000.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
    ),
    # E4B's kind: per-layer embeddings, and shared keys and values in the last layers. The prompt is
    # several windows long.
    Case(
        "gemma4-per-layer",
        "gemma4",
        torch.bfloat16,
        34,
        published=True,
        config=gemma4(
            vocab_size=85,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=7,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=16,
            sliding_window=6,
            layer_types=[SLIDING, SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL],
            final_logit_softcapping=30.0,
            hidden_size_per_layer_input=16,
            vocab_size_per_layer_input=85,
            num_kv_shared_layers=3,
            eos_token_id=[1, 50],
        ),
    ),
    # E2B's kind: also an MLP twice as wide in the layers that share keys. The full one of the last
    # two layers with keys is first. One KV head, no size a multiple of 4, more vectors than tokens.
    Case(
        "gemma4-double-wide",
        "gemma4",
        torch.float16,
        31,
        config=gemma4(
            vocab_size=70,
            hidden_size=30,
            intermediate_size=38,
            num_hidden_layers=5,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=10,
            global_head_dim=18,
            sliding_window=7,
            layer_types=[SLIDING, FULL, SLIDING, SLIDING, FULL],
            final_logit_softcapping=30.0,
            hidden_size_per_layer_input=9,
            vocab_size_per_layer_input=75,
            num_kv_shared_layers=2,
            use_double_wide_mlp=True,
        ),
    ),
    # 26B-A4B's kind as published: 2 of 8 experts beside a dense MLP, and K=V in full layers. The
    # prompt is six windows long.
    Case(
        "gemma4-experts",
        "gemma4",
        torch.bfloat16,
        36,
        published=True,
        config=gemma4(
            vocab_size=80,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=6,
            layer_types=[SLIDING, SLIDING, SLIDING, FULL],
            final_logit_softcapping=30.0,
            eos_token_id=[1, 50],
            use_bidirectional_attention="vision",
            enable_moe_block=True,
            num_experts=8,
            top_k_experts=2,
            moe_intermediate_size=16,
        ),
    ),
    # 4 of 16 experts, and no size is a multiple of 4.
    Case(
        "gemma4-many-experts",
        "gemma4",
        torch.float16,
        33,
        config=gemma4(
            vocab_size=70,
            hidden_size=30,
            intermediate_size=26,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=10,
            global_head_dim=18,
            attention_k_eq_v=True,
            sliding_window=7,
            layer_types=[SLIDING, FULL, FULL],
            final_logit_softcapping=30.0,
            enable_moe_block=True,
            num_experts=16,
            top_k_experts=4,
            moe_intermediate_size=14,
        ),
    ),
    # 12B as published: a unified model, whose full layers have one KV head and K=V.
    Case(
        "gemma4-unified",
        "gemma4_unified",
        torch.bfloat16,
        30,
        published=True,
        config=gemma4(
            vocab_size=84,
            hidden_size=32,
            intermediate_size=72,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=6,
            layer_types=[SLIDING] * 5 + [FULL],
            final_logit_softcapping=30.0,
            eos_token_id=[1, 50],
            use_bidirectional_attention="vision",
        ),
    ),
    # The same text model alone.
    Case(
        "gemma4-unified-flat",
        "gemma4_unified",
        torch.bfloat16,
        25,
        config=gemma4(
            vocab_size=66,
            hidden_size=40,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=5,
            layer_types=[SLIDING, SLIDING, FULL],
            final_logit_softcapping=30.0,
        ),
    ),
]
