#!/usr/bin/env bash
# Guess: for models like Gemma 3 270M or 1B, Q2_K gives 2-bit matrices and Q3_K_M mostly 3-bit ones.
#   Both files are then smaller than Q4_0, in this order.
# Seen: no matrix has 2 bits, Q3_K_M has none of 3 bits and is larger than Q4_0.
#   K-quants need rows of 256 columns, which hidden sizes 640 and 1152 do not divide into.
#   Another type takes their place.
#   The file's general.file_type still says Q2_K and Q3_K_M.
# Versions: llama.cpp v0.5.0 from npm's @node-llama-cpp/linux-x64 3.22.1 (x86-64 Linux),
#   gguf 0.19.0.
# Output seen (hidden size 640, FFN 2048, two layers):
#   Q4_0   says  2, holds {'Q4_0': 14, 'Q8_0': 1}, 6310400 bytes
#   Q3_K_M says 12, holds {'Q4_0': 8, 'Q4_K': 4, 'Q5_1': 2, 'Q8_0': 1}, 6371840 bytes
#   Q2_K   says 10, holds {'Q3_K': 4, 'Q4_0': 8, 'Q5_0': 2, 'Q8_0': 1}, 5829120 bytes
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
from collections import Counter
import gguf
import numpy as np

HIDDEN, FFN, HEAD, HEADS = 640, 2048, 256, 4
random = np.random.default_rng(1)
writer = gguf.GGUFWriter("model.gguf", "gemma3")
writer.add_block_count(2)
writer.add_context_length(64)
writer.add_embedding_length(HIDDEN)
writer.add_feed_forward_length(FFN)
writer.add_head_count(HEADS)
writer.add_head_count_kv(1)
writer.add_key_length(HEAD)
writer.add_value_length(HEAD)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_freq_base(1e6)
writer.add_sliding_window(16)
writer.add_tokenizer_model("none")
writer.add_vocab_size(64)
shapes = {"token_embd": (64, HIDDEN), "output_norm": (HIDDEN,)}
for layer in range(2):
    for name, shape in {
        "attn_norm": (HIDDEN,), "post_attention_norm": (HIDDEN,),
        "ffn_norm": (HIDDEN,), "post_ffw_norm": (HIDDEN,),
        "attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,),
        "attn_q": (HEADS * HEAD, HIDDEN), "attn_k": (HEAD, HIDDEN), "attn_v": (HEAD, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD),
        "ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN),
    }.items():
        shapes[f"blk.{layer}.{name}"] = shape
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.normal(0, 0.03, shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

class Parameters(c.Structure):  # longer than llama.cpp's structure, with its first two fields
    _fields_ = [("threads", c.c_int32), ("file_type", c.c_int32), ("rest", c.c_uint8 * 248)]

folder = "package/bins/linux-x64/"
for name in ("libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so"):
    library = c.CDLL(folder + name, mode=c.RTLD_GLOBAL)
silent = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda *_: None)
library.llama_log_set(silent, None)
library.llama_model_quantize_default_params.restype = Parameters
library.llama_model_quantize.argtypes = [c.c_char_p, c.c_char_p, c.POINTER(Parameters)]
library.llama_model_quantize.restype = c.c_uint32
sizes, kinds = {}, {}
for name, number in (("Q4_0", 2), ("Q3_K_M", 12), ("Q2_K", 10)):
    parameters = library.llama_model_quantize_default_params()
    parameters.threads, parameters.file_type = 1, number
    assert library.llama_model_quantize(b"model.gguf", b"quantized.gguf", c.byref(parameters)) == 0
    reader = gguf.GGUFReader("quantized.gguf")
    matrices = [t for t in reader.tensors if len(t.shape) == 2]
    kinds[name] = Counter(t.tensor_type.name for t in matrices)
    sizes[name] = sum(int(t.n_bytes) for t in matrices)
    says = reader.fields["general.file_type"].contents()
    print(f"{name:6} says {says:2}, holds {dict(sorted(kinds[name].items()))}, {sizes[name]} bytes")
    assert says == number
assert "Q3_K" not in kinds["Q3_K_M"] and "Q2_K" not in kinds["Q2_K"]
assert sizes["Q3_K_M"] > sizes["Q4_0"]
PYTHON
