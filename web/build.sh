#!/bin/bash
# Builds web/dist: `package` for npm and `page`. Needs Rust, Node and npm; the rest it fetches or
# names.
set -euo pipefail
cd "$(dirname "$0")"

target=wasm32-unknown-unknown
# Most bytes of the program without the model that is part of it.
most=4300000
out=$(realpath -m "${CARGO_TARGET_DIR:-../target}")
export CARGO_TARGET_DIR=$out
wasm=$out/$target/web/gemma4_wgpu_web.wasm
# Every browser has vectors of 128 bits since 2023. The CPU backend computes with them.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-Ctarget-feature=+simd128"

compile() {
    local build=(build --quiet --profile web --package gemma4-wgpu-web --target $target)
    local own
    own=$(rustc --print sysroot)/lib/rustlib
    if [ -d "$own/$target/lib" ]; then
        cargo "${build[@]}"
    elif [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ] &&
        command -v wasm-ld >/dev/null; then
        # Debian's rustc-web, cargo-web, rust-web-src and lld: the standard library is compiled too.
        RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
            /usr/bin/cargo "${build[@]}" -Zbuild-std=std,panic_abort
    elif [ -d "$own/src/rust/library" ]; then
        RUSTC_BOOTSTRAP=1 cargo "${build[@]}" -Zbuild-std=std,panic_abort
    else
        echo "no $target: rustup target add $target," >&2
        echo "or apt-get install rustc-web cargo-web rust-web-src lld" >&2
        exit 1
    fi
}

# Prints the path of the wasm-bindgen that fits Cargo.lock.
bindgen() {
    local version
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' ../Cargo.lock)
    for found in "$(command -v wasm-bindgen || true)" "$out/tools/bin/wasm-bindgen"; do
        if [ -x "$found" ] && [ "$("$found" --version)" = "wasm-bindgen $version" ]; then
            echo "$found"
            return
        fi
    done
    echo "installing wasm-bindgen-cli $version into $out/tools" >&2
    cargo install --quiet --root "$out/tools" --version "$version" wasm-bindgen-cli >&2
    echo "$out/tools/bin/wasm-bindgen"
}

if ! [ -d node_modules ] || [ package-lock.json -nt node_modules ]; then
    npm ci --no-audit --no-fund --silent
    touch node_modules
fi

compile
made=js/wasm/gemma4_wgpu_web_bg.wasm
if ! [ "$made" -nt "$wasm" ]; then
    rm -rf js/wasm
    "$(bindgen)" --target web --out-dir js/wasm "$wasm"
    # What compilers of Rust 1.95 and later assume of every browser that has WebGPU.
    node_modules/.bin/wasm-opt -Oz --merge-similar-functions --strip-debug --strip-producers \
        --enable-bulk-memory --enable-mutable-globals --enable-sign-ext --enable-simd \
        --enable-nontrapping-float-to-int --enable-reference-types --enable-multivalue \
        "$made" -o "$made.small"
    mv "$made.small" "$made"
fi

model=$(cat ../assets/demo/*.json ../assets/demo/*.jinja ../assets/demo/*.safetensors | wc -c)
bytes=$(($(wc -c <"$made") - model))
echo "wasm: $bytes bytes without the demo model"
if [ "$bytes" -gt "$most" ]; then
    echo "$made: more than $most bytes without the demo model" >&2
    exit 1
fi

rm -rf dist
node_modules/.bin/tsc -p tsconfig.package.json
mkdir -p dist/package/wasm
cp js/wasm/*.js js/wasm/*.d.ts js/wasm/*.wasm dist/package/wasm/
node_modules/.bin/tsc --noEmit -p tsconfig.json
node_modules/.bin/vite build --logLevel warn
