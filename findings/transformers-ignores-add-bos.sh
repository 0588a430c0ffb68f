#!/usr/bin/env bash
# Guess: "add_bos_token" in tokenizer_config.json decides whether a text starts with <bos>.
# Seen: it has no effect; only the post_processor of tokenizer.json puts <bos> in front.
#   The loaded tokenizer's attribute add_bos_token is False in all six cases, also with <bos>.
#   A Gemma model that lacks <bos> predicts badly, so a reader cannot trust this key.
# Versions: transformers 5.24.0, tokenizers 0.23.3.
# Output seen:
#   post_processor False, add_bos_token None: attribute False, ids [4, 5]
#   post_processor False, add_bos_token True: attribute False, ids [4, 5]
#   post_processor False, add_bos_token False: attribute False, ids [4, 5]
#   post_processor True, add_bos_token None: attribute False, ids [2, 4, 5]
#   post_processor True, add_bos_token True: attribute False, ids [2, 4, 5]
#   post_processor True, add_bos_token False: attribute False, ids [2, 4, 5]
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q --disable-pip-version-check \
    transformers==5.24.0 tokenizers==0.23.3
cd "$scratch"
TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'PYTHON'
import json
from pathlib import Path
from tokenizers import AddedToken, Tokenizer, models, processors
from transformers import AutoTokenizer

words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "a": 4, "b": 5}
for processor in (False, True):
    for add_bos in (None, True, False):
        tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
        tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in list(words)[:4]])
        if processor:
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<bos> $A", special_tokens=[("<bos>", 2)]
            )
        folder = Path(f"{processor}-{add_bos}")
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>"}
        config |= {"eos_token": "<eos>", "unk_token": "<unk>"}
        config |= {} if add_bos is None else {"add_bos_token": add_bos}
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<pad>"}))
        loaded = AutoTokenizer.from_pretrained(folder)
        ids = loaded("ab").input_ids
        case = f"post_processor {processor}, add_bos_token {add_bos}"
        print(f"{case}: attribute {loaded.add_bos_token}, ids {ids}")
        assert ids == ([2, 4, 5] if processor else [4, 5])
        assert loaded.add_bos_token is False
PYTHON
