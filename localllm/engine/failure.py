"""What llama.cpp wrote before it died -> what a person should read. Pure.

Whether the kernel killed it for its memory is not in the log: that, the caller knows.
"""

from __future__ import annotations

import re

from localllm.errors import EngineError, IntegrityError, LocalllmError, OutOfMemoryError

#: Pattern, kind of error, sentence, hint; the first that matches is told.
_FAILURES: tuple[tuple[re.Pattern[str], type[LocalllmError], str, str | None], ...] = (
    (
        re.compile(r"unknown model architecture: '(?P<what>[^']*)'"),
        EngineError,
        "this engine does not know the architecture {what!r} of {path}",
        "a newer engine may: localllm engine status",
    ),
    (
        re.compile(r"unknown pre-tokenizer type: '(?P<what>[^']*)'"),
        EngineError,
        "this engine does not know the tokenizer {what!r} of {path}",
        "a newer engine may: localllm engine status",
    ),
    (
        re.compile(r"tensor '(?P<what>[^']*)' data is not within the file bounds"),
        IntegrityError,
        "{path} is cut short: the data of the tensor {what!r} is missing",
        "the download did not finish: get the file again",
    ),
    (
        re.compile(r"llama_model_loader: failed to load model from"),
        IntegrityError,
        "{path} is no sound GGUF: llama.cpp cannot read its header",
        "the download did not finish, or the file was changed: get it again",
    ),
    (
        re.compile(r"error loading model: (?P<what>.+)"),
        EngineError,
        "llama.cpp cannot load {path}: {what}",
        "the file may be damaged, or made for another llama.cpp",
    ),
    (
        re.compile(r"what\(\):\s*(?P<what>.+)"),
        EngineError,
        "llama.cpp gave up on {path}: {what}",
        None,
    ),
    (
        re.compile(r"error while loading shared libraries: (?P<what>[^:]+)"),
        EngineError,
        "the engine cannot start: the library {what} is missing",
        "localllm doctor",
    ),
    (
        re.compile(r"(?:Failed to connect to|RPC handshake failed for) (?P<what>\S+)"),
        EngineError,
        "no RPC server answers at {what}",
        "is ggml-rpc-server of the same llama.cpp running there, and no other program its client?",
    ),
    (
        re.compile(r"error while handling argument (?P<what>\"[^\"]*\": .+)"),
        EngineError,
        "llama-server does not take the argument {what}",
        None,
    ),
    (
        re.compile(r"error: invalid argument: (?P<what>\S+)"),
        EngineError,
        "this llama-server does not know the argument {what}",
        "localllm doctor tells whether it is of another version than localllm expects",
    ),
)

#: The words for it, as of llama.cpp 0c1e570 and as people reported them:
#: CUDA and ROCm, loading (ggml-org/llama.cpp #26297, ollama/ollama #3418)
#:   ggml_backend_cuda_buffer_type_alloc_buffer: allocating 826.00 MiB on device 0: cudaMalloc
#:       failed: out of memory
#:   ggml_gallocr_reserve_n: failed to allocate ROCm0 buffer of size 866125824
#: CUDA and ROCm, running (#13085): the pool grows, or cuBLAS wants its workspace
#:   CUDA error: out of memory
#:     current device: 1, in function alloc at ggml-cuda.cu:549
#: Vulkan (#15256)
#:   ggml_vulkan: Device memory allocation of size 118497280 failed.
#:   ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory
#: Metal (#9701)
#:   error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)
#: the host (#8101)
#:   ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 137438953504
#:   terminate called after throwing an instance of 'std::bad_alloc'
_OUT_OF_MEMORY = re.compile(
    r"cudaMalloc failed: out of memory|error: out of memory"
    r"|the resource allocation failed|CUBLAS_STATUS_ALLOC_FAILED"
    r"|ErrorOutOf(?:Device|Host)?Memory|OUT_OF_(?:DEVICE|HOST)_MEMORY"
    r"|Device memory allocation of size \d+ failed|can't allocate \d+ Bytes of memory"
    r"|(?:failed|unable) to allocate (?:\S+ )?buffers?\b|failed to allocate compute"
    r"|failed to reserve memory|insufficient memory \(|std::bad_alloc|Cannot allocate memory"
)

#: What llama.cpp got over. It tried again with less: whatever failed before this line is over.
_RETRY = "retrying without pipeline parallelism"
#: It did without pinned or locked memory, or without the saved state of a prompt.
_DONE_WITHOUT = re.compile(
    r"^.*(?:pinned memory|mlock|async uploads|prompt cache state).*$", re.MULTILINE
)

#: Whose memory it was. Buffers are named for their device ("CUDA0", "MTL0_Mapped",
#: "RPC0[127.0.0.1:50052]"), or for the host ("CPU", "CPU_REPACK", "CUDA_Host").
_OWNERS = re.compile(
    r"to allocate (?P<device>[A-Za-z]+\d+)\S* buffer"
    r"|(?P<backend>CUDA|ROCm|MUSA) error: [^\n]*\n[^\n]*current device: (?P<number>\d+)"
    r"|(?P<metal>kIOGPUCommandBuffer\w*OutOfMemory)"
    r"|(?P<host>to allocate (?:CPU\w*|\w+_Host) buffer|cpu_buffer_type|std::bad_alloc"
    r"|ErrorOutOfHostMemory|OUT_OF_HOST_MEMORY|insufficient memory \(|Cannot allocate memory)"
)

_DETAIL_CHARS = 20_000
#: The same on every Unix; Windows, where Python has no name for it, has no such death.
_SIGKILL = 9


def explain_load_failure(
    log: str, path: str, status: int, *, killed_for_memory: bool = False
) -> LocalllmError:
    """The error for an engine that ended while it was loading, from its log and exit status.

    Args:
        log: what it printed.
        path: the model's.
        status: its exit status; negative, or above 128, for a death by signal.
        killed_for_memory: where it died of SIGKILL, that was the kernel's, for want of memory.

    Returns:
        An OutOfMemoryError where its memory did not suffice; an error of another kind otherwise.
    """
    error = _explained(log, path, status, killed_for_memory)
    error.detail = log[-_DETAIL_CHARS:]
    return error


def _explained(log: str, path: str, status: int, killed_for_memory: bool) -> LocalllmError:
    if killed_for_memory and status in (-_SIGKILL, 128 + _SIGKILL):
        return _out_of_memory("Host", path)
    fatal = _DONE_WITHOUT.sub("", log.rpartition(_RETRY)[2])
    if _OUT_OF_MEMORY.search(fatal):
        return _out_of_memory(_owner(fatal), path)
    for pattern, kind, sentence, hint in _FAILURES:
        match = pattern.search(log)
        if match is not None:
            what = match.groupdict().get("what", "")
            return kind(sentence.format(path=path, what=what.strip()), hint)
    number = -status if status < 0 else status - 128
    if status < 0 or status > 128:
        return EngineError(
            f"the engine died of {signal_name(number)} while loading {path}",
            "localllm doctor"
            if signal_name(number) == "SIGILL"
            else "if the system ran out of memory, a smaller context helps: --ctx 2048",
        )
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "no word")
    return EngineError(f"the engine ended with status {status} while loading {path}: {last}")


def _out_of_memory(device: str | None, path: str) -> OutOfMemoryError:
    where = {None: "", "Host": " on the host"}.get(device, f" on {device}")
    return OutOfMemoryError(
        f"the engine ran out of memory{where} while loading {path}",
        "a smaller context helps: --ctx 2048; so does a smaller quantization",
        device,
    )


def _owner(log: str) -> str | None:
    """The device whose memory did not suffice, as llama.cpp names it; None where it does not."""
    found = _OWNERS.search(log)
    if found is None:
        return None
    if found["host"]:
        return "Host"
    if found["metal"]:
        return "MTL0"
    return found["device"] or f"{found['backend']}{found['number']}"


def signal_name(number: int) -> str:
    """SIGSEGV for 11, and so on."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
