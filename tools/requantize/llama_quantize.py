"""Quantizes a GGUF file with llama.cpp's own quantizer.

    python llama_quantize.py LIB_DIR IN.gguf OUT.gguf

LIB_DIR has the libllama of tools/llama_reference/setup.sh. OUT is the output of
`llama-quantize IN OUT Q4_0`: Q4_0, but Q6_K for the embedding, which is the lm_head too.
"""

import ctypes
import sys
from pathlib import Path

MOSTLY_Q4_0 = 2


class Params(ctypes.Structure):
    """llama_model_quantize_params; what follows the first two fields stays at its defaults."""

    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int32),
        ("rest", ctypes.c_char * 248),
    ]


def main() -> None:
    directory, source, target = sys.argv[1:]
    for pattern in ("libggml-base*.so*", "libggml.*so*", "libllama*.so*"):
        for path in sorted(Path(directory).glob(pattern)):
            library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library.llama_model_quantize_default_params.restype = Params
    params = library.llama_model_quantize_default_params()
    params.ftype = MOSTLY_Q4_0
    params.nthread = 2
    code = library.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    sys.exit(code)


if __name__ == "__main__":
    main()
