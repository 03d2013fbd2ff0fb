"""Lets llama.cpp say why it refuses a model: its log, in full and in order.

Run as a script in the environment's own Python (`python -m localllm.engine.refusal MODEL`).
llama-fit-params writes its log from another thread and loses the last lines when it gives up,
which are the ones that tell why. Nothing is allocated for weights (`no_alloc`).
"""

import ctypes
import sys


def main(path: str) -> None:
    """Loads the header as the engine would; llama.cpp's log goes to standard error."""
    import llama_cpp

    @llama_cpp.llama_log_callback
    def write(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()

    llama_cpp.llama_log_set(write, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.no_alloc = True
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    llama_cpp.llama_model_load_from_file(path.encode(), params)


if __name__ == "__main__":
    main(sys.argv[1])
