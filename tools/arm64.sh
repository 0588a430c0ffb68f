#!/bin/bash
# Builds the CPU's unit tests for arm64 and runs them under qemu-user, on processors with and
# without dot products. Needs Debian's qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.
#
# The standard library is that of `rustup target add`. Where that cannot be fetched, Debian's
# rustc-web, cargo-web and rust-web-src compile it. The build is kept in $ARM64_CACHE, which is
# gemma4-wgpu/arm64 in the user's cache unless it is set.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
cache=${ARM64_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gemma4-wgpu/arm64}
for program in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v "$program" >/dev/null || {
        echo "no $program: apt-get install qemu-user gcc-aarch64-linux-gnu" \
            "libc6-dev-arm64-cross" >&2
        exit 1
    }
done

own=$(rustc --print sysroot)/lib/rustlib/$target/lib
if [ -d "$own" ] || timeout 120 rustup target add $target 2>/dev/null; then
    cargo=(cargo)
    std=()
elif [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ]; then
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc
    cargo=(/usr/bin/cargo)
    std=(-Zbuild-std=std,test)
else
    echo "no $target: rustup target add $target," >&2
    echo "or apt-get install rustc-web cargo-web rust-web-src" >&2
    exit 1
fi

# Optimizing all crates would take longer than the tests.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_DIR=$cache CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0
profile=(--config 'profile.dev.package."*".opt-level=0')
for name in half rayon rayon-core; do
    profile+=(--config "profile.dev.package.$name.opt-level=1")
done
test=$("${cargo[@]}" "${profile[@]}" test --no-run --lib --no-default-features \
    --target $target "${std[@]}" --message-format json | python3 -c '
import json, sys
made = [json.loads(line).get("executable") for line in sys.stdin if line.startswith("{")]
print(*[path for path in made if path])')

run() {
    local ran
    FASTEST_INSTRUCTIONS=$2 qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$1" "$test" cpu:: |
        tee "$cache/tests.txt"
    ran=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$cache/tests.txt")
    echo "arm64, $1 ($2): ${ran:-0} tests"
    [ "${ran:-0}" -gt 0 ]
}

run max "NEON with dot products"
run cortex-a72 NEON
