#!/bin/bash
# Times a plain read of a checkpoint's file and the loading of it, with the file out of and in the page cache.
# measure.sh PROGRAM FILE
set -euo pipefail
program=$1 file=$2
bytes=$(stat --format %s "$file")

forget() {
    sync "$file"
    python3 -c 'import os, sys; os.posix_fadvise(os.open(sys.argv[1], os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)' "$file"
}
plain_read() {
    python3 - "$file" "$bytes" "$1" <<'PYTHON'
import sys, time
path, size, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
buffer = bytearray(16 << 20)
start = time.perf_counter()
with open(path, "rb", buffering=0) as file:
    while file.readinto(buffer):
        pass
seconds = time.perf_counter() - start
print(f"plain read, {name}: {seconds:.2f} s, {size / seconds / 1e9:.2f} GB/s")
PYTHON
}
load() {
    local output
    output=$(RUST_LOG=gemma4_wgpu=info "$program" bench --model "$file" -p 0 -n 1 -r 1 2>&1) || { echo "$output" >&2; exit 1; }
    grep -o 'loaded .*' <<<"$output" | sed "s/^/$1: /" || { echo "no load rate in: $output" >&2; exit 1; }
}
forget
plain_read cold
forget
load cold
plain_read warm
load warm
