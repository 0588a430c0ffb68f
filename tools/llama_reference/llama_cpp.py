"""A small ctypes binding to the llama.cpp library of npm's `@node-llama-cpp/linux-x64`.

The structures below mirror `include/llama.h` of llama.cpp release v0.5.0, the release of package
3.22.1. A structure that does not fit would read garbage, so `Library` checks the library's version
and the default parameters first.
"""

import ctypes as c
from pathlib import Path

import numpy as np

PACKAGE = "@node-llama-cpp/linux-x64"
VULKAN_PACKAGE = "@node-llama-cpp/linux-x64-vulkan"
PACKAGE_VERSION = "3.22.1"
LLAMA_CPP_RELEASE = "v0.5.0"

GGML_TYPE_F32, GGML_TYPE_F16 = 0, 1
FLASH_ATTENTION = {"disabled": 0, "enabled": 1}
LOAD_MODE_MMAP = 1


class ModelParams(c.Structure):
    _fields_ = [
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int),
        ("load_mode", c.c_int),
        ("lazy_mode", c.c_int),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", c.c_void_p),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("check_tensors", c.c_bool),
        ("use_extra_bufts", c.c_bool),
        ("no_host", c.c_bool),
        ("no_alloc", c.c_bool),
        ("load_mtp", c.c_bool),
    ]


class ContextParams(c.Structure):
    _fields_ = [
        ("n_ctx", c.c_uint32),
        ("n_batch", c.c_uint32),
        ("n_ubatch", c.c_uint32),
        ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32),
        ("n_outputs_max_per_seq", c.c_uint32),
        ("n_threads", c.c_int32),
        ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int),
        ("rope_scaling_type", c.c_int),
        ("pooling_type", c.c_int),
        ("attention_type", c.c_int),
        ("flash_attn_type", c.c_int),
        ("rope_freq_base", c.c_float),
        ("rope_freq_scale", c.c_float),
        ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float),
        ("yarn_beta_fast", c.c_float),
        ("yarn_beta_slow", c.c_float),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", c.c_void_p),
        ("cb_eval_user_data", c.c_void_p),
        ("type_k", c.c_int),
        ("type_v", c.c_int),
        ("abort_callback", c.c_void_p),
        ("abort_callback_data", c.c_void_p),
        ("embeddings", c.c_bool),
        ("offload_kqv", c.c_bool),
        ("no_perf", c.c_bool),
        ("op_offload", c.c_bool),
        ("swa_full", c.c_bool),
        ("kv_unified", c.c_bool),
        ("samplers", c.c_void_p),
        ("n_samplers", c.c_size_t),
        ("ctx_other", c.c_void_p),
    ]


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.POINTER(c.c_float)),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    ]


LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


class Library:
    """llama.cpp with one CPU backend.

    `cpu` names the build (`haswell`: AVX2, without AVX-512); None is the fastest of this processor.
    With `vulkan`, `folder` is that of the Vulkan package, whose backend is loaded too.
    """

    def __init__(self, folder, cpu="haswell", verbose=False, vulkan=False):
        folder, release = (
            Path(folder),
            f"vulkan.{LLAMA_CPP_RELEASE}" if vulkan else LLAMA_CPP_RELEASE,
        )
        c.CDLL(str(folder / "libggml-base.so"), mode=c.RTLD_GLOBAL)
        ggml = c.CDLL(str(folder / f"libggml.{release}.so"), mode=c.RTLD_GLOBAL)
        self.api = c.CDLL(str(folder / f"libllama.{release}.so"))
        self.cpu = cpu or "best for this processor"
        self._declare()
        self._log = LogCallback(
            lambda _level, text, _data: print(text.decode(), end="") if verbose else None
        )
        self.api.llama_log_set(self._log, None)
        if cpu is None:
            ggml.ggml_backend_load_all_from_path.argtypes = [c.c_char_p]
            ggml.ggml_backend_load_all_from_path(str(folder).encode())
        else:
            ggml.ggml_backend_load.restype = c.c_void_p
            ggml.ggml_backend_load.argtypes = [c.c_char_p]
            for backend in ["vulkan"] * vulkan + [f"cpu-{cpu}"]:
                if not ggml.ggml_backend_load(str(folder / f"libggml-{backend}.so").encode()):
                    raise RuntimeError(f"the backend {backend!r} did not load")
        self.version = self.api.llama_version().decode()
        self._check_layout()

    def _declare(self):
        pointer, text, integer = c.c_void_p, c.c_char_p, c.c_int32
        ids = c.POINTER(c.c_int32)
        signatures = {
            "llama_version": (text, []),
            "llama_log_set": (None, [LogCallback, pointer]),
            "llama_print_system_info": (text, []),
            "llama_model_default_params": (ModelParams, []),
            "llama_context_default_params": (ContextParams, []),
            "llama_model_load_from_file": (pointer, [text, ModelParams]),
            "llama_model_free": (None, [pointer]),
            "llama_model_get_vocab": (pointer, [pointer]),
            "llama_vocab_n_tokens": (integer, [pointer]),
            "llama_init_from_model": (pointer, [pointer, ContextParams]),
            "llama_free": (None, [pointer]),
            "llama_get_memory": (pointer, [pointer]),
            "llama_memory_clear": (None, [pointer, c.c_bool]),
            "llama_batch_init": (Batch, [integer, integer, integer]),
            "llama_batch_free": (None, [Batch]),
            "llama_decode": (integer, [pointer, Batch]),
            "llama_get_logits_ith": (c.POINTER(c.c_float), [pointer, integer]),
            "llama_tokenize": (integer, [pointer, text, integer, ids, integer, c.c_bool, c.c_bool]),
            "llama_detokenize": (
                integer,
                [pointer, ids, integer, text, integer, c.c_bool, c.c_bool],
            ),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(self.api, name)
            function.restype, function.argtypes = result, arguments

    def _check_layout(self):
        model, context = (
            self.api.llama_model_default_params(),
            self.api.llama_context_default_params(),
        )
        found = (
            (
                model.n_gpu_layers,
                model.load_mode,
                model.lazy_mode,
                model.vocab_only,
                model.use_extra_bufts,
            ),
            (
                context.n_ctx,
                context.n_batch,
                context.n_ubatch,
                context.n_seq_max,
                context.flash_attn_type,
            ),
            (
                context.yarn_beta_slow,
                context.type_k,
                context.type_v,
                context.embeddings,
                context.swa_full,
            ),
        )
        expected = ((-1, -1, 1, False, True), (512, 2048, 512, 1, -1), (-1.0, 1, 1, False, True))
        if found != expected:
            raise RuntimeError(f"llama.cpp {self.version} has another structure layout: {found}")

    def system_info(self):
        return self.api.llama_print_system_info().decode().strip()


class Model:
    """A GGUF file. `repack` permits llama.cpp's weight repacking; `gpu_layers` go to the GPU."""

    def __init__(self, library, path, repack=False, gpu_layers=0):
        self.library, self.api = library, library.api
        params = self.api.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = LOAD_MODE_MMAP
        params.use_extra_bufts = repack
        self.handle = self.api.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab = self.api.llama_model_get_vocab(self.handle)
        self.n_vocab = self.api.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text, add_special=True, parse_special=False):
        """Token ids of `text`; `add_special` adds the BOS token."""
        data = text.encode()
        ids = (c.c_int32 * (len(data) + 8))()
        count = self.api.llama_tokenize(
            self.vocab, data, len(data), ids, len(ids), add_special, parse_special
        )
        if count < 0:
            raise RuntimeError(f"cannot tokenize {text!r}")
        return list(ids[:count])

    def detokenize(self, tokens):
        """The bytes of `tokens`, with special tokens written out."""
        ids = (c.c_int32 * len(tokens))(*tokens)
        out = c.create_string_buffer(64 * len(tokens) + 64)
        count = self.api.llama_detokenize(self.vocab, ids, len(ids), out, len(out), False, True)
        if count < 0:
            raise RuntimeError("cannot detokenize")
        return out.raw[:count]

    def close(self):
        self.api.llama_model_free(self.handle)


class Context:
    """One sequence with its KV cache."""

    def __init__(self, model, n_ctx, threads=1, kv="f16", flash_attention="disabled", batch=512):
        self.model, self.api, self.position, self.batch_size = model, model.api, 0, batch
        params = self.api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, batch, batch
        params.n_outputs_max = params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION[flash_attention]
        params.type_k = params.type_v = {"f16": GGML_TYPE_F16, "f32": GGML_TYPE_F32}[kv]
        self.handle = self.api.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise RuntimeError("llama.cpp cannot make a context")
        self.batch = self.api.llama_batch_init(batch, 0, 1)

    def reset(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.handle), True)
        self.position = 0

    def decode(self, tokens, every=True):
        """Appends `tokens`; yields the f32 logits `[vocab]` of each, or of the last one only."""
        for start in range(0, len(tokens), self.batch_size):
            chunk = tokens[start : start + self.batch_size]
            wanted = [every or start + i + 1 == len(tokens) for i in range(len(chunk))]
            self._fill(chunk, wanted)
            if self.api.llama_decode(self.handle, self.batch):
                raise RuntimeError("llama_decode failed")
            self.position += len(chunk)
            for i, want in enumerate(wanted):
                if want:
                    logits = self.api.llama_get_logits_ith(self.handle, i)
                    yield np.ctypeslib.as_array(logits, (self.model.n_vocab,)).copy()

    def _fill(self, chunk, wanted):
        self.batch.n_tokens = len(chunk)
        for i, (token, want) in enumerate(zip(chunk, wanted)):
            self.batch.token[i] = token
            self.batch.pos[i] = self.position + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = want

    def close(self):
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.handle)
