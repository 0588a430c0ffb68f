#!/bin/bash
# Runs all tests. On Linux the tests of the wgpu backend run a second time on SwiftShader, a
# software Vulkan driver that differs from Mesa's in all that kernels must not rely on: subgroups of
# 4, no f16; and the package and the page of web/ in headless Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

# Where Debian's chromium package puts SwiftShader; set SWIFTSHADER to use another copy.
swiftshader=${SWIFTSHADER:-/usr/lib/chromium/vk_swiftshader_icd.json}
# A layer of Mesa that prints a complaint where there is no desktop session.
export NODEVICE_SELECT=1

if [ "$(uname)" = Linux ] && ! [ -f "$swiftshader" ]; then
    echo "$swiftshader is missing: apt-get install chromium, or set SWIFTSHADER" >&2
    exit 1
fi

tools/fetch-test-model.sh
cargo test --no-fail-fast "$@"
if [ "$(uname)" = Linux ]; then
    echo "the wgpu backend on SwiftShader:"
    export VK_DRIVER_FILES="$swiftshader"
    cargo test --no-fail-fast "$@" --test kernels -- --skip translation::
    cargo test --no-fail-fast "$@" --test backends -- gpu::
    unset VK_DRIVER_FILES
    echo "the package and the page in Chromium:"
    web/build.sh
    npm test --silent --prefix web
fi
