#!/bin/sh
# Checks the spelling of all files with `typos` from the Python package index, which goes into the
# cache directory. _typos.toml has the accepted words. Needs python3 with venv.
set -eu
cd "$(dirname "$0")/.."

version=1.52.0
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/typos"

if ! [ -f "$cache/$version/complete" ]; then
    echo "fetching typos $version into $cache" >&2
    rm -rf "${cache:?}/$version"
    mkdir -p "$cache"
    python3 -m venv "$cache/$version"
    "$cache/$version/bin/python" -m pip install --quiet --disable-pip-version-check \
        --only-binary :all: "typos==$version" >&2
    touch "$cache/$version/complete"
fi
"$cache/$version/bin/typos" "$@"
