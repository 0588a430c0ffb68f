#!/bin/sh
# Fetches the clients of check_clients.py into the cache directory and prints its path. Exits at
# once if they are there. Needs python3 with venv, and npm.
set -eu
cd "$(dirname "$0")"

# Other requirements, another folder.
key=$(cat requirements.txt package.json setup.sh | sha256sum | cut -c 1-16)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/clients/$key"

if [ -f "$cache/complete" ]; then
    echo "$cache"
    exit 0
fi

echo "fetching API clients into $cache" >&2
rm -rf "$cache"
mkdir -p "$cache"
cp requirements.txt package.json "$cache"
cd "$cache"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt >&2
npm install --silent --no-audit --no-fund >&2
touch complete
echo "$cache"
