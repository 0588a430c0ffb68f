#!/bin/sh
# Makes a Python environment with mlx-lm on the CPU and what reads GGUF (about 400 MB) in the cache
# directory, and prints its python. Exits at once if it is there. Needs python3 with venv.
set -eu

packages="mlx-lm==0.32.2 mlx-cpu==0.32.4 transformers==5.24.0 gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0"
name=$(printf %s "$packages" | cksum | cut -d ' ' -f 1)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/mlx-lm"
python="$cache/$name/bin/python"

if [ -f "$cache/$name/complete" ]; then
    echo "$python"
    exit 0
fi

mkdir -p "$cache"
# Scripts of an environment name its path: it is made in place, and marked at the end.
rm -rf "${cache:?}/$name"
python3 -m venv "$cache/$name"
echo "fetching mlx-lm into $cache" >&2
# shellcheck disable=SC2086 # a list of words
"$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: $packages >&2
touch "$cache/$name/complete"
echo "$python"
