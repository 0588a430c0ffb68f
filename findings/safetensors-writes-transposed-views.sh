#!/usr/bin/env bash
# Guess: save_file of a transposed numpy view writes the view's values, or refuses the view.
# Seen: the shape is the view's, the bytes are the original's in their old order.
#   There is no error and no warning.
#   A converter that transposes a matrix by .T and saves it writes a scrambled matrix.
#   The same library refuses non-contiguous tensors of torch with a clear message.
# Versions: safetensors 0.8.0, numpy 2.4.6.
# Output seen:
#   saved:  [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#   loaded: [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$scratch"
venv/bin/python -W error - <<'PYTHON'
import numpy as np
from safetensors.numpy import load_file, save_file

view = np.arange(6, dtype=np.float32).reshape(2, 3).T
save_file({"weight": view}, "model.safetensors")
loaded = load_file("model.safetensors")["weight"]
print("saved: ", view.tolist())
print("loaded:", loaded.tolist())
assert loaded.shape == view.shape and not np.array_equal(loaded, view)
assert np.array_equal(loaded.ravel(), np.arange(6))
PYTHON
