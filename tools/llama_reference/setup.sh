#!/usr/bin/env bash
# Gets llama.cpp (prebuilt, x86-64 Linux, from npm; without and with its Vulkan backend) and the
# Python packages into tools/llama_reference/.work.
set -euo pipefail
cd "$(dirname "$0")"
version=$(sed -n 's/^PACKAGE_VERSION = "\(.*\)"/\1/p' llama_cpp.py)
mkdir -p .work
cd .work
for build in linux-x64 linux-x64-vulkan; do
    archive=$(npm pack --silent "@node-llama-cpp/$build@$version")
    tar -xzf "$archive" --strip-components=1 --one-top-level=package
    rm "$archive"
done
python3 -m venv venv
venv/bin/pip install --quiet -r ../requirements.txt
