#!/usr/bin/env bash
# Guess: transformers can show and write the keys of Gemma 4's published config.json.
# Seen: global_head_dim is missing in the object, in to_dict() and in the saved file.
#   The same is true of num_global_key_value_heads; per_layer_config takes their place.
#   mlx-lm knows only the published keys, and takes its defaults from the saved file silently.
#   A full layer with heads of 64 thus becomes one with heads of 512.
#   llama.cpp's converter uses the same call, and stops with KeyError: 'global_head_dim'.
# Versions: transformers 5.24.0, mlx-lm 0.32.2 with mlx-cpu 0.32.4 (Linux).
# Output seen:
#   attribute global_head_dim: False
#   saved keys: ['head_dim', 'num_key_value_heads', 'per_layer_config']
#   per_layer_config: {'5': {'head_dim': 64, 'num_key_value_heads': 1}}
#   mlx-lm, published config: heads of 64, key and value heads 1
#   mlx-lm, saved config: heads of 512, key and value heads None
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
from mlx_lm.models.gemma4_text import ModelArgs
from transformers import AutoConfig

published = {
    "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text",
    "hidden_size": 128, "num_hidden_layers": 6,
    "num_attention_heads": 4, "head_dim": 32, "global_head_dim": 64, "num_key_value_heads": 2,
    "num_global_key_value_heads": 1, "attention_k_eq_v": True, "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
}
Path("model").mkdir()
Path("model/config.json").write_text(json.dumps(published))
config = AutoConfig.from_pretrained("model")
config.save_pretrained("saved")
saved = json.loads(Path("saved/config.json").read_text())
print("attribute global_head_dim:", hasattr(config, "global_head_dim"))
parts = ("head_dim", "key_value", "per_layer_config")
print("saved keys:", sorted(k for k in saved if any(part in k for part in parts)))
print("per_layer_config:", saved["per_layer_config"])
before, after = ModelArgs.from_dict(published), ModelArgs.from_dict(saved)
for name, args in (("published", before), ("saved", after)):
    heads = f"heads of {args.global_head_dim}"
    print(f"mlx-lm, {name} config: {heads}, key and value heads {args.num_global_key_value_heads}")
assert not hasattr(config, "global_head_dim") and "global_head_dim" not in config.to_dict()
assert "global_head_dim" not in saved and "num_global_key_value_heads" not in saved
assert saved["per_layer_config"] == {"5": {"head_dim": 64, "num_key_value_heads": 1}}
assert (before.global_head_dim, after.global_head_dim) == (64, 512)
PYTHON
