"""What llama.cpp wrote before it died -> what a person should read. Pure."""

from __future__ import annotations

import re

from localllm.errors import EngineError, IntegrityError, LocalllmError

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
        re.compile(
            r"cudaMalloc failed: out of memory|ErrorOutOfDeviceMemory|unable to allocate \w+ buffer"
            r"|failed to allocate (?:compute|buffer|.*KV)|std::bad_alloc|hipErrorOutOfMemory"
        ),
        EngineError,
        "the engine ran out of memory while loading {path}",
        "a smaller context helps: --ctx 2048; so does a smaller quantization",
    ),
    (
        re.compile(r"tensor '(?P<what>[^']*)' data is not within the file bounds"),
        IntegrityError,
        "{path} is cut short: the data of the tensor {what!r} is missing",
        "the download did not finish: get the file again",
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
        re.compile(r"error: invalid argument: (?P<what>\S+)"),
        EngineError,
        "this llama-server does not know the argument {what}",
        "localllm doctor tells whether it is of another version than localllm expects",
    ),
)


_DETAIL_CHARS = 20_000


def explain_load_failure(log: str, path: str, status: int) -> LocalllmError:
    """The error for an engine that ended while it was loading, from its log and exit status.

    Args:
        log: what it printed.
        path: the model's.
        status: its exit status; negative, or above 128, for a death by signal.
    """
    error = _explained(log, path, status)
    error.detail = log[-_DETAIL_CHARS:]
    return error


def _explained(log: str, path: str, status: int) -> LocalllmError:
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


def signal_name(number: int) -> str:
    """SIGSEGV for 11, and so on."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
