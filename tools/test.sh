#!/bin/bash
# Runs the tests: tools/test.sh [--long] [options of cargo test].
#
# Kernels are tested so that each pair of a variant, a format and a size meets. With --long all
# combinations are tested, which takes several times as long.
#
# On Linux the tests of the wgpu backend run a second time on SwiftShader. This software Vulkan
# driver has subgroups of 4 and no f16, unlike Mesa's. Then the package and the page of web/ are
# tested in headless Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --long ]; then
    shift
    export GEMMA4_WGPU_LONG_TESTS=1
fi
# Where Debian's chromium package puts SwiftShader; set SWIFTSHADER to use another copy.
swiftshader=${SWIFTSHADER:-/usr/lib/chromium/vk_swiftshader_icd.json}
# A layer of Mesa that prints a complaint where there is no desktop session.
export NODEVICE_SELECT=1

if [ "$(uname)" = Linux ] && ! [ -f "$swiftshader" ]; then
    echo "$swiftshader is missing: apt-get install chromium, or set SWIFTSHADER" >&2
    exit 1
fi

on_swiftshader() {
    VK_DRIVER_FILES="$swiftshader" cargo test --no-fail-fast "$@"
}

tools/fetch-test-model.sh
cargo test --no-fail-fast "$@"
if [ "$(uname)" = Linux ]; then
    echo "the wgpu backend on SwiftShader:"
    on_swiftshader "$@" --test kernels -- --skip translation::
    on_swiftshader "$@" --test backends -- gpu::
    echo "the package and the page in Chromium:"
    web/build.sh
    npm test --silent --prefix web
fi
