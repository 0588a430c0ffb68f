#!/bin/sh
# Fetches MLX for Linux CPUs (mlx-cpu, 10 MB) from the Python package index into the cache
# directory. Prints the value of MLX_ROOT. Exits at once if it is there. A Mac installs the package
# `mlx` instead. Needs python3 with pip or venv.
set -eu

version=${1:-0.32.4}
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/mlx"
root="$cache/$version/mlx"

if [ -f "$root/include/mlx/version.h" ]; then
    echo "$root"
    exit 0
fi

mkdir -p "$cache"
# Beside the destination, so that the last step is a rename.
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
fi
echo "fetching mlx-cpu $version into $cache" >&2
"$python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --dest "$work" "mlx-cpu==$version" >&2
python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
mv "$work/unpacked" "$cache/$version"
echo "$root"
