#!/bin/bash
# What `gemma4-wgpu convert` writes, opened by the programs that it is for: mlx-lm and llama.cpp (x86-64 Linux).
# Fetches both. PROGRAM is the program under test; `cargo build` makes the usual one.
set -euo pipefail
cd "$(dirname "$0")/../.."

program=${PROGRAM:-target/debug/gemma4-wgpu}
python=$(tools/fetch-mlx-lm.sh)
library=$(tools/convert_targets/fetch-llama-cpp.sh)
"$python" tools/convert_targets/check.py --program "$program" --library "$library"
