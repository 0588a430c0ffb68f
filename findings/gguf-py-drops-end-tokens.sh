#!/usr/bin/env bash
# Guess: gguf-py's SpecialVocab carries the end tokens of config.json into a GGUF file.
# Seen: "eos_token_id": 1 is taken. Gemma's list [1, 106] gives no end token at all.
#   There is no warning, and the beginning token of the same file is kept.
#   A reader of such a GGUF ends an answer only if it knows <turn|> by its spelling.
# Versions: gguf 0.19.0.
# Output seen:
#   1: {'bos': 2, 'eos': 1}
#   [1, 106]: {'bos': 2}
#   warnings: none
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0
cd "$scratch"
venv/bin/python - 2>log <<'PYTHON'
import json, logging
from pathlib import Path
import gguf

logging.basicConfig(level=logging.WARNING)
found = []
for eos in (1, [1, 106]):
    folder = Path(f"model{len(found)}")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": eos}))
    found.append(gguf.SpecialVocab(folder, n_vocab=262144).special_token_ids)
    print(f"{eos}: {found[-1]}")
assert found == [{"bos": 2, "eos": 1}, {"bos": 2}]
PYTHON
test ! -s log && echo "warnings: none"
