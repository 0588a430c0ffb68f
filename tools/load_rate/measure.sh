#!/bin/bash
# Times a plain read and the loading of a checkpoint's file, outside and inside the page cache.
#
#     measure.sh PROGRAM FILE [OPTION OF BENCH ...]
#
# Both are rates of bytes of a file. Loading ends when the device has all weights, checked, and
# generation's kernels. An untimed load comes first, to fill the pipeline cache.
set -euo pipefail
program=$1 file=$2
shift 2

forget() {
    sync "$file"
    python3 - "$file" <<'PYTHON'
import os, sys
os.posix_fadvise(os.open(sys.argv[1], os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
PYTHON
}
# Prints seconds and GB/s.
plain_read() {
    python3 - "$file" <<'PYTHON'
import os, sys, time
buffer = bytearray(16 << 20)
size = os.path.getsize(sys.argv[1])
start = time.perf_counter()
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.readinto(buffer):
        pass
seconds = time.perf_counter() - start
print(f"{seconds:.2f} {size / seconds / 1e9:.3f}")
PYTHON
}
fail() {
    echo "$1" >&2
    exit 1
}
# Prints seconds and GB/s, and the program's account of the load to standard error.
load() {
    local output line
    output=$(RUST_LOG=gemma4_wgpu=info "$program" bench --model "$file" -p 0 -n 1 -r 1 "$@" 2>&1) ||
        fail "$output"
    line=$(grep -oE 'loaded [0-9]+ bytes in [0-9.]+ s' <<<"$output") ||
        fail "no load rate in: $output"
    grep -oE '[0-9]+ bytes (copied|read and laid out) in .*' <<<"$output" |
        sed 's/^/    /' >&2 || true
    awk '{ printf "%.2f %.3f\n", $5, $2 / $5 / 1e9 }' <<<"$line"
}
compare() {
    awk -v name="$1" '{
        printf "%s: plain read %s s, %s GB/s; ", name, $1, $2
        printf "loaded in %s s, %s GB/s: %.0f%%\n", $3, $4, 100 * $4 / $2
    }' <<<"$2 $3"
}

load "$@" > /dev/null
forget
read=$(plain_read)
forget
compare cold "$read" "$(load "$@")"
read=$(plain_read)
compare warm "$read" "$(load "$@")"
