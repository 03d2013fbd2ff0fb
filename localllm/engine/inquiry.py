"""Asks the installed libllama what it is, and prints the answer as one JSON document.

Run as a script, by path, with ctypes alone (`python -I -S inquiry.py LIB_DIR`), because asking
may kill: an instruction that the processor lacks, a CUDA library that is missing.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

#: ggml_backend_dev_type (ggml-backend.h)
_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}


def main(folder: Path) -> None:
    """Prints what the libraries in the folder say of themselves."""
    llama = _load(folder)
    llama.llama_backend_init()
    commit = _text(llama, "ggml_commit")
    devices = []
    for index in range(_call(llama, "ggml_backend_dev_count", ctypes.c_size_t)):
        device = _call(llama, "ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t(index))
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        llama.ggml_backend_dev_memory.restype = None
        llama.ggml_backend_dev_memory(
            ctypes.c_void_p(device), ctypes.byref(free), ctypes.byref(total)
        )
        kind = _call(llama, "ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p(device))
        devices.append(
            {
                "name": _text(llama, "ggml_backend_dev_name", ctypes.c_void_p(device)),
                "description": _text(
                    llama, "ggml_backend_dev_description", ctypes.c_void_p(device)
                ),
                "kind": _KINDS.get(kind, str(kind)),
                "free_bytes": free.value,
                "total_bytes": total.value,
            }
        )
    registered = _call(llama, "ggml_backend_reg_count", ctypes.c_size_t)
    backends = []
    for index in range(registered):
        backend = _call(llama, "ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t(index))
        backends.append(_text(llama, "ggml_backend_reg_name", ctypes.c_void_p(backend)))
    sys.stdout.write(
        json.dumps(
            {
                "commit": commit.removesuffix("-dirty"),
                "supports_gpu_offload": _call(llama, "llama_supports_gpu_offload", ctypes.c_bool),
                "system_info": _text(llama, "llama_print_system_info").strip(),
                "backends": backends,
                "devices": devices,
            }
        )
    )


def _load(folder: Path) -> ctypes.CDLL:
    """libllama; ggml's functions are found through it, since it depends on them.

    Opening libggml by its own name could load a second copy: a wheel holds the name without and
    the one with a version as two files.
    """
    name = {"win32": "llama.dll", "darwin": "libllama.dylib"}.get(sys.platform, "libllama.so")
    return ctypes.CDLL(str(folder / name))


def _call(library: ctypes.CDLL, function: str, restype: Any, *arguments: Any) -> Any:
    entry = getattr(library, function)
    entry.restype = restype
    return entry(*arguments)


def _text(library: ctypes.CDLL, function: str, *arguments: Any) -> str:
    raw = _call(library, function, ctypes.c_char_p, *arguments)
    return raw.decode("utf-8", "replace") if raw else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
