#!/usr/bin/env bash
# Guess: a Gemma 3 config that transformers saved again means the same to mlx-lm as the original.
# Seen: transformers 5 moves rope_scaling and the two bases into rope_parameters, by kind of layer.
#   mlx-lm reads the old keys alone and takes defaults for the rest, without a warning.
#   Gemma 3 4B and larger thus lose the factor of 8 on their full layers, and logits change.
#   The weights are the same in both runs.
# Versions: transformers 5.24.0, mlx-lm 0.32.2 with mlx-cpu 0.32.4 (Linux).
# Output seen:
#   saved: {'full_attention': {'factor': 8.0, 'rope_theta': 1000000.0, 'rope_type': 'linear'}, ...}
#   saved, old keys: []
#   rope_scaling in mlx-lm: original {'factor': 8.0, 'rope_type': 'linear'}, saved None
#   largest difference of a logit: 1.6 of 13.1
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check \
    transformers==5.24.0 mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2
cd "$scratch"
TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PYTHON'
import json
from pathlib import Path
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.gemma3_text import Model, ModelArgs
from transformers import AutoConfig

mx.set_default_device(mx.cpu)
mx.random.seed(1)
original = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
    "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "sliding_window_pattern": 6,
    "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}
Path("model").mkdir()
Path("model/config.json").write_text(json.dumps(original))
AutoConfig.from_pretrained("model").save_pretrained("saved")
saved = json.loads(Path("saved/config.json").read_text())
old = [k for k in ("rope_scaling", "rope_theta", "rope_local_base_freq") if k in saved]
print("saved:", saved["rope_parameters"])
print("saved, old keys:", old)
models = [Model(ModelArgs.from_dict(c)) for c in (original, saved)]
weights = [
    (k, 3 * mx.random.normal(v.shape) * v.shape[-1] ** -0.5)
    for k, v in tree_flatten(models[0].parameters())
]
for model in models:
    model.load_weights(weights, strict=False)
before, after = (model.args.rope_scaling for model in models)
print(f"rope_scaling in mlx-lm: original {before}, saved {after}")
first, second = (model(mx.arange(40)[None]) for model in models)
difference, largest = mx.abs(first - second).max().item(), mx.abs(first).max().item()
print(f"largest difference of a logit: {difference:.1f} of {largest:.1f}")
assert not old and saved["rope_parameters"]["full_attention"]["factor"] == 8.0
assert before and after is None
assert difference > 0.1
PYTHON
