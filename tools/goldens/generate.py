#!/usr/bin/env python3
"""Makes the golden logits in tests/goldens with transformers in float32.

    python tools/goldens/generate.py --out tests/goldens [--tar goldens.tar.gz] [--only CASE ...]

Needs torch, transformers >= 5.17 and safetensors; runs on the CPU in seconds, without a network.
cases.py has the small random models. Each case directory has config.json and the weights of a
checkpoint, and golden.safetensors with `tokens` (i32, [n]) and `logits` (f32, [n, vocab]).
The logits are float32 arithmetic with eager attention on exactly the weights in the file.
Weights are rounded to the file's type before the model runs.
"""

import argparse
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import safetensors  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from cases import CASES, FULL, SLIDING, Case  # noqa: E402
from router import first_apart  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4TextConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedTextConfig,
)

MAX_CASE_BYTES, MAX_TOTAL_BYTES = 200_000, 2_000_000
TEXT_CONFIGS = {
    "gemma3": Gemma3TextConfig,
    "gemma4": Gemma4TextConfig,
    "gemma4_unified": Gemma4UnifiedTextConfig,
}
# Of the published 12B, with small ids.
GENERATION_CONFIG = """{
  "bos_token_id": 2,
  "eos_token_id": [1, 50],
  "pad_token_id": 0,
  "suppress_tokens": [62, 61]
}
"""


def text_config(case: Case):
    kwargs = json.loads(json.dumps(case.config))  # a config may change what it is given
    return TEXT_CONFIGS[case.family](**kwargs)


def draw(name: str, shape: torch.Size, case: Case, generator: torch.Generator) -> torch.Tensor:
    """Values that give spread-out attention (scores of about ±2) and logits of about ±3."""
    normal = torch.randn(shape, generator=generator, dtype=torch.float32)
    hidden = case.config["hidden_size"]
    if name.endswith("layer_scalar"):
        return 0.5 + 0.7 * torch.rand(shape, generator=generator, dtype=torch.float32)
    if name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return normal * hidden**-0.5
    if name.endswith("embed_tokens_per_layer.weight"):
        return normal * case.config["hidden_size_per_layer_input"] ** -0.5
    if name.endswith(("router.scale", "router.per_expert_scale")):
        return 0.5 + torch.rand(shape, generator=generator, dtype=torch.float32)
    if name.endswith("router.proj.weight"):
        return normal * 2.0  # its input has the length of about 1
    if len(shape) >= 2:
        return normal * shape[-1] ** -0.5
    name = name.replace("norm_1.weight", "norm.weight").replace("norm_2.weight", "norm.weight")
    if not name.endswith("norm.weight"):
        raise ValueError(f"no rule for {name} {tuple(shape)}")
    # What the norm multiplies by; Gemma 3 stores it less one.
    weight = 1.0 + 0.3 * normal
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        # q·k of normed q and k of d values spreads by sqrt(d)·weight², then the attention scale.
        scale = 1.0 if case.family != "gemma3" else case.config["query_pre_attn_scalar"] ** -0.5
        weight = weight * (2.0 / (shape[0] ** 0.5 * scale)) ** 0.5
    elif name == "model.norm.weight":
        weight = weight * 3.0
    return weight - 1.0 if case.family == "gemma3" else weight


@torch.no_grad()
def build(case: Case, seed: int):
    """The model in float32, its weights already rounded to the type in which they are stored."""
    model = AutoModelForCausalLM.from_config(
        text_config(case),
        attn_implementation="eager",
        experts_implementation="eager",  # the grouped one refuses rows of odd lengths
        dtype=torch.float32,
    )
    model.eval()
    if model.config._attn_implementation != "eager":
        raise RuntimeError(f"{case.name}: attention is {model.config._attn_implementation}")
    model.tie_weights()
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    if tied != case.config.get("tie_word_embeddings", True):
        raise RuntimeError(f"{case.name}: lm_head tied: {tied}")
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(model.named_parameters())  # a tied lm_head counts once
    tensors |= {
        name: tensor for name, tensor in model.named_buffers() if name.endswith("layer_scalar")
    }
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.dtype != torch.float32:
            raise RuntimeError(f"{case.name}: {name} is {tensor.dtype}")
        tensor.copy_(draw(name, tensor.shape, case, generator).to(case.dtype).to(torch.float32))
    tokens = torch.randint(3, case.config["vocab_size"], (case.tokens,), generator=generator)
    tokens[0] = 2  # bos
    tokens[-1] = tokens[1]  # the same token at two positions must not give the same logits
    return model, tokens


@torch.no_grad()
def run(model, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens[None, :], use_cache=False).logits[0]  # [n, vocab]
    return logits.to(torch.float32).contiguous()


def published_config(case: Case, dtype: str) -> dict:
    """config.json as the published checkpoints have it."""
    text = dict(case.config)
    common = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "dtype": dtype,
        "eos_token_id": 1,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-6,
        "use_cache": True,
    }
    if case.family == "gemma4_unified":
        common |= {"model_type": "gemma4_unified_text", "tie_word_embeddings": True}
        return {
            "architectures": ["Gemma4UnifiedForConditionalGeneration"],
            "audio_config": {"audio_embed_dim": 8, "model_type": "gemma4_unified_audio"},
            "dtype": dtype,
            "eos_token_id": case.config["eos_token_id"],
            "image_token_id": 60,
            "model_type": "gemma4_unified",
            "text_config": common | text,
            "tie_word_embeddings": True,
            "vision_config": {"mm_embed_dim": 8, "model_type": "gemma4_unified_vision"},
        }
    if case.family == "gemma4":
        common |= {
            "enable_moe_block": False,
            "model_type": "gemma4_text",
            "moe_intermediate_size": None,
            "num_experts": None,
            "num_kv_shared_layers": 0,
            "tie_word_embeddings": True,
            "top_k_experts": None,
            "use_double_wide_mlp": False,
            "vocab_size_per_layer_input": case.config["vocab_size"],
        }
        return {
            "architectures": ["Gemma4ForConditionalGeneration"],
            "audio_config": None,
            "dtype": dtype,
            "eos_token_id": case.config["eos_token_id"],
            "image_token_id": 60,
            "model_type": "gemma4",
            "text_config": common | text,
            "tie_word_embeddings": True,
            "vision_config": {
                "hidden_size": 8,
                "model_type": "gemma4_vision",
                "num_hidden_layers": 1,
            },
        }
    # The checkpoints are older than these two keys.
    del text["layer_types"], text["rope_parameters"]
    common |= {
        "attn_logit_softcapping": None,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": None,
        "model_type": "gemma3_text",
    }
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 60,
        "eoi_token_index": 61,
        "eos_token_id": [1, 50],
        "image_token_index": 62,
        "mm_tokens_per_image": 4,
        "model_type": "gemma3",
        "text_config": common | text | case.extra,
        "torch_dtype": dtype,
        "vision_config": {
            "hidden_size": 8,
            "model_type": "siglip_vision_model",
            "num_hidden_layers": 1,
        },
    }


def save_published(case: Case, model, directory: Path):
    """Writes the case as Google does: nested config, prefixed names, some vision tensors."""
    dtype = str(case.dtype).removeprefix("torch.")
    directory.mkdir(parents=True, exist_ok=True)
    config = published_config(case, dtype)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    vision = torch.arange(64, dtype=torch.float32).reshape(8, 8).to(case.dtype)
    if case.family == "gemma4_unified":
        (directory / "generation_config.json").write_text(GENERATION_CONFIG)
        tensors = {
            "model.vision_embedder.patch_dense.weight": vision,
            "model.embed_vision.embedding_projection.weight": vision.clone(),
            "model.embed_audio.embedding_projection.weight": vision.clone(),
        }
        prefix = "model.language_model."
    elif case.family == "gemma4":
        tensors = {
            "model.vision_tower.patch_embedder.input_proj.weight": vision,
            "model.embed_vision.embedding_projection.weight": vision.clone(),
        }
        prefix = "model.language_model."
    else:
        tensors = {
            "vision_tower.vision_model.embeddings.position_embedding.weight": vision,
            "multi_modal_projector.mm_input_projection_weight": vision.clone(),
        }
        prefix = "language_model.model."
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        tensors[prefix + name.removeprefix("model.")] = tensor.to(case.dtype).contiguous()
    tensors |= {prefix + name: tensor.to(case.dtype) for name, tensor in unused(model).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    check_published(case, config, model)


def unused(model) -> dict:
    """Tensors of published checkpoints that transformers ignores: k and v of sharing layers."""
    tensors = {}
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        if not getattr(attention, "is_kv_shared_layer", False):
            continue
        rows = model.config.per_layer_config[index].num_key_value_heads * attention.head_dim
        for name, shape in [
            ("k_proj", (rows, model.config.hidden_size)),
            ("v_proj", (rows, model.config.hidden_size)),
            ("k_norm", (attention.head_dim,)),
        ]:
            ramp = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)
            tensors[f"layers.{index}.self_attn.{name}.weight"] = ramp
    return tensors


def check_published(case: Case, config: dict, model):
    """Fails unless transformers reads the published config as the one that was run."""
    if case.family != "gemma3":
        outer = Gemma4Config if case.family == "gemma4" else Gemma4UnifiedConfig
        text = outer(**json.loads(json.dumps(config))).text_config
        attributes = ["head_dim", "num_key_value_heads", "num_attention_heads"]
        for index in range(case.config["num_hidden_layers"]):
            for name in attributes:
                ours = getattr(model.config.per_layer_config[index], name)
                theirs = getattr(text.per_layer_config[index], name)
                if ours != theirs:
                    raise RuntimeError(
                        f"{case.name}: layer {index} {name} is {theirs} in the published config"
                    )
    else:
        text = Gemma3TextConfig(**json.loads(json.dumps(config["text_config"])))
    for name in [
        "layer_types",
        "rope_parameters",
        "sliding_window",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "final_logit_softcapping",
        "rms_norm_eps",
        "num_hidden_layers",
        "tie_word_embeddings",
        "num_experts",
        "top_k_experts",
        "moe_intermediate_size",
    ]:
        if getattr(text, name, None) != getattr(model.config, name, None):
            raise RuntimeError(
                f"{case.name}: {name} is {getattr(text, name)} in the published config"
            )


def save_flat(case: Case, model, directory: Path):
    """Writes the case with save_pretrained, in the type of its weights."""
    limit = {} if case.shard_bytes is None else {"max_shard_size": case.shard_bytes}
    model.to(case.dtype).save_pretrained(directory, **limit)
    files = sorted(path.name for path in directory.glob("*.safetensors"))
    if (len(files) > 1) != (case.shard_bytes is not None):
        raise RuntimeError(f"{case.name}: wrote {files}")


def reload_difference(
    case: Case, directory: Path, tokens: torch.Tensor, logits: torch.Tensor
) -> float:
    """Largest difference of the logits after a round trip through the files."""
    if case.published:
        model = build(case, 0)[0]  # other weights, to be replaced
        prefix = "model.language_model." if case.family != "gemma3" else "language_model.model."
        stored = load_file(directory / "model.safetensors")
        state = {
            "model." + name.removeprefix(prefix): tensor.to(torch.float32)
            for name, tensor in stored.items()
            if name.startswith(prefix)
        }
        for name in unused(model):
            del state["model." + name]
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state, strict=True)
    else:
        model = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            attn_implementation="eager",
            experts_implementation="eager",
        )
        model.eval()
    return (run(model, tokens) - logits).abs().max().item()


def generate(case: Case, index: int, out: Path) -> dict:
    """Writes one case and returns its line of the summary."""
    directory = out / case.name
    if directory.exists():
        shutil.rmtree(directory)
    model, tokens, gap = first_apart(lambda seed: build(case, seed), run, 20_260_000 + index)
    logits = run(model, tokens)
    if not torch.isfinite(logits).all():
        raise RuntimeError(f"{case.name}: logits are not finite")
    other = tokens.clone()
    other[1] = 3 + (other[1] - 2) % (case.config["vocab_size"] - 3)
    early_token_effect = (run(model, other)[-1] - logits[-1]).abs().max().item()
    if early_token_effect < 1e-3:
        raise RuntimeError(
            f"{case.name}: the last logits hardly depend on the prompt ({early_token_effect})"
        )

    (save_published if case.published else save_flat)(case, model, directory)
    save_file(
        {"tokens": tokens.to(torch.int32).contiguous(), "logits": logits},
        directory / "golden.safetensors",
    )

    difference = reload_difference(case, directory, tokens, logits)
    if difference > 1e-5:
        raise RuntimeError(
            f"{case.name}: after a round trip through the files logits differ by {difference}"
        )
    top = logits.topk(2, dim=-1).values
    size = sum(path.stat().st_size for path in directory.iterdir())
    if size > MAX_CASE_BYTES:
        raise RuntimeError(f"{case.name}: {size} bytes")
    return {
        "case": case.name,
        "bytes": size,
        "files": sorted(path.name for path in directory.iterdir()),
        "stored": str(case.dtype).removeprefix("torch."),
        "tokens": case.tokens,
        "window": case.config["sliding_window"],
        "logits_std": round(logits.std().item(), 4),
        "logits_max_abs": round(logits.abs().max().item(), 4),
        "distinct_argmax": logits.argmax(dim=-1).unique().numel(),
        "argmax_is_input": (logits.argmax(dim=-1) == tokens).sum().item(),
        "smallest_top2_gap": round((top[:, 0] - top[:, 1]).min().item(), 6),
        "early_token_effect": round(early_token_effect, 4),
        "reload_difference": difference,
        "smallest_router_gap": gap and round(gap, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="directory that gets one directory per case"
    )
    parser.add_argument("--tar", type=Path, help="also pack everything into this .tar.gz")
    parser.add_argument("--only", nargs="*", help="names of the cases to make")
    args = parser.parse_args()
    unknown = set(args.only or []) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")

    torch.set_num_threads(1)
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "python": sys.version.split()[0],
    }
    print(json.dumps(versions))
    args.out.mkdir(parents=True, exist_ok=True)
    summary = []
    for index, case in enumerate(CASES):
        if args.only and case.name not in args.only:
            continue
        summary.append(generate(case, index, args.out))
        print(json.dumps(summary[-1]), flush=True)
    total = sum(line["bytes"] for line in summary)
    print(f"{len(summary)} cases, {total} bytes")
    if total > MAX_TOTAL_BYTES:
        raise RuntimeError(f"{total} bytes in all are too many to commit")
    text = json.dumps({"versions": versions, "cases": summary}, indent=2) + "\n"
    (args.out / "summary.json").write_text(text)
    if args.tar:
        with tarfile.open(args.tar, "w:gz") as archive:
            archive.add(args.out / "summary.json", "summary.json")
            for line in summary:
                archive.add(args.out / line["case"], line["case"])
        print(f"packed into {args.tar}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
