#!/usr/bin/env bash
# Guess: MLX aligns tensors in a safetensors file to their element size, as safetensors does.
# Seen: MLX writes them in the order of an unordered map, without padding.
#   One bf16 value of two bytes, such as Gemma 4's layer_scalar, then shifts what follows.
#   Packed u32 weights start at addresses that four does not divide.
#   A mapped file cannot be viewed as u32.
#   The safetensors library sorts by element size first, so its own files never show this.
# Versions: mlx-cpu 0.32.4 (Linux), safetensors 0.8.0, numpy 2.4.6.
# Output seen:
#   mlx: 18 of 24 u32 tensors are not aligned
#   safetensors, same tensors: 0 of 24 u32 tensors are not aligned
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check \
    mlx==0.32.4 mlx-cpu==0.32.4 safetensors==0.8.0 numpy==2.4.6
cd "$scratch"
venv/bin/python - <<'PYTHON'
import json
import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

mx.set_default_device(mx.cpu)
tensors = {}
for layer in range(24):
    tensors[f"model.layers.{layer}.layer_scalar"] = mx.ones(1, mx.bfloat16)
    tensors[f"model.layers.{layer}.mlp.down_proj.weight"] = mx.zeros((2, 8), mx.uint32)
mx.save_safetensors("mlx.safetensors", tensors, {"format": "mlx"})
# f16 has the size of bf16, which numpy lacks.
halves = {k: v.astype(mx.float16) if v.dtype == mx.bfloat16 else v for k, v in tensors.items()}
save_file({k: np.array(v) for k, v in halves.items()}, "own.safetensors")

def unaligned(path):
    data = open(path, "rb").read()
    start = 8 + int.from_bytes(data[:8], "little")
    words = [t for t in json.loads(data[8:start]).values() if t and t.get("dtype") == "U32"]
    offsets = [start + t["data_offsets"][0] for t in words]
    return sum(offset % 4 != 0 for offset in offsets), len(offsets)

mlx, own = unaligned("mlx.safetensors"), unaligned("own.safetensors")
print(f"mlx: {mlx[0]} of {mlx[1]} u32 tensors are not aligned")
print(f"safetensors, same tensors: {own[0]} of {own[1]} u32 tensors are not aligned")
assert mlx[0] > 0 and own[0] == 0
PYTHON
