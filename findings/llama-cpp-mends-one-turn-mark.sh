#!/usr/bin/env bash
# Guess: llama.cpp treats both marks of a turn alike when a GGUF types both as ordinary tokens.
# Seen: <turn|> becomes a control token again ("its type will be overridden"), <|turn> does not.
#   It mends only tokens that can end an answer.
#   The closing marks of a prompt are thus one id each, its opening marks are spelled in letters.
#   The prompt runs, and the model sees turns that never open.
# Versions: llama.cpp v0.5.0 from npm's @node-llama-cpp/linux-x64 3.22.1 (x86-64 Linux),
#   gguf 0.19.0.
# Output seen:
#   typed control: <|turn> becomes 1 token, <turn|> 1
#   typed normal: <|turn> becomes 7 tokens, <turn|> 1
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
npm pack --silent @node-llama-cpp/linux-x64@3.22.1 >/dev/null
tar -xzf ./*.tgz
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import ctypes as c
import gguf
from gguf import TokenType

MARKS = ["<|turn>", "<turn|>"]

def write(path, kind):
    tokens = [(t, TokenType.CONTROL) for t in ("<pad>", "<eos>", "<bos>", "<unk>")]
    tokens += [(m, kind) for m in MARKS]
    tokens += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    tokens += [(letter, TokenType.NORMAL) for letter in "\nabcdefghijklmnopqrstuvwxyz<|>"]
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types([kind for _, kind in tokens])
    # A list may not be empty; its product is left out of the vocabulary.
    writer.add_token_merges(["< |"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

class Parameters(c.Structure):  # longer than llama.cpp's structure; byte 72 is vocab_only
    _fields_ = [("bytes", c.c_uint8 * 256)]

folder = "package/bins/linux-x64/"
for name in ("libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so"):
    library = c.CDLL(folder + name, mode=c.RTLD_GLOBAL)
lines = []
log = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda _, text, __: lines.append(text))
library.llama_log_set(log, None)
library.llama_model_default_params.restype = Parameters
library.llama_model_load_from_file.argtypes = [c.c_char_p, Parameters]
library.llama_model_load_from_file.restype = c.c_void_p
library.llama_model_get_vocab.argtypes = [c.c_void_p]
library.llama_model_get_vocab.restype = c.c_void_p
library.llama_tokenize.argtypes = [
    c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool
]
found = {}
for name, kind in (("control", TokenType.CONTROL), ("normal", TokenType.NORMAL)):
    write(f"{name}.gguf", kind)
    parameters = library.llama_model_default_params()
    parameters.bytes[72] = 1
    model = library.llama_model_load_from_file(f"{name}.gguf".encode(), parameters)
    vocab = library.llama_model_get_vocab(model)
    ids = (c.c_int32 * 64)()
    found[name] = opening, closing = [
        library.llama_tokenize(vocab, m.encode(), len(m), ids, 64, False, True) for m in MARKS
    ]
    tokens = "token" if opening == 1 else "tokens"
    print(f"typed {name}: <|turn> becomes {opening} {tokens}, <turn|> {closing}")
assert found == {"control": [1, 1], "normal": [7, 1]}, found
assert any(b"<turn|>" in line and b"overridden" in line for line in lines)
assert not any(b"<|turn>" in line and b"overridden" in line for line in lines)
PYTHON
