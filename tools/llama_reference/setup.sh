#!/usr/bin/env bash
# Gets llama.cpp (prebuilt, x86-64 Linux, from npm) and the Python packages into tools/llama_reference/.work.
set -euo pipefail
cd "$(dirname "$0")"
version=$(sed -n 's/^PACKAGE_VERSION = "\(.*\)"/\1/p' llama_cpp.py)
mkdir -p .work/package
cd .work
archive=$(npm pack --silent "@node-llama-cpp/linux-x64@$version")
tar -xzf "$archive" -C package --strip-components=1
rm "$archive"
python3 -m venv venv
venv/bin/pip install --quiet -r ../requirements.txt
