#!/bin/sh
# Fetches llama.cpp's shared library (prebuilt, x86-64 Linux, from npm) into the cache directory, and prints its
# folder. Exits at once if it is there.
set -eu
cd "$(dirname "$0")/../llama_reference"

version=$(sed -n 's/^PACKAGE_VERSION = "\(.*\)"/\1/p' llama_cpp.py)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/llama.cpp"
folder="$cache/$version/bins/linux-x64"

if [ -d "$folder" ]; then
    echo "$folder"
    exit 0
fi

mkdir -p "$cache"
# Beside the destination, so that the last step is a rename.
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
echo "fetching llama.cpp ($version) into $cache" >&2
(cd "$work" && npm pack --silent "@node-llama-cpp/linux-x64@$version" >archive.name)
mkdir "$work/package"
tar -xzf "$work/$(cat "$work/archive.name")" --strip-components=1 -C "$work/package"
mv "$work/package" "$cache/$version"
echo "$folder"
