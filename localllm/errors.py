"""The errors a person can meet, each with one sentence, a hint and an exit code.

    LocalllmError        1   a failure with no better name
    ├── UsageError       2   what was asked for cannot be meant
    ├── NotFoundError    3   the named thing is not there
    ├── AccessError      4   it is there and may not be had: permissions, keys, a gated model
    ├── NetworkError     5   a peer did not answer, or not as it should
    ├── IntegrityError   6   bytes that are not what they claim to be
    │   └── GgufError        a file that is not a sound GGUF
    ├── DoesNotFitError  7   this machine has not the memory for it
    │   └── ContextFullError   a conversation longer than its context
    ├── DiskError        8   no room, or a disk that fails
    └── EngineError      9   llama.cpp is missing, broken or died
        ├── EngineMissingError   no engine was found at all
        └── OutOfMemoryError     it asked for more memory than there was

Interruption by the user is KeyboardInterrupt and leaves with 130. Every other exception that
reaches the top is a bug in localllm.
"""

from __future__ import annotations

INTERRUPTED_EXIT_CODE = 130


class LocalllmError(Exception):
    """A failure told in one sentence.

    Attributes:
        message: one sentence with the values in it, for a person.
        hint: what to do about it, or None when there is nothing to add.
        exit_code: the status the process leaves with.
        detail: more lines for whoever asked with --debug, such as the engine's log.
    """

    exit_code = 1
    detail = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LocalllmError):
    """What was asked for cannot be meant."""

    exit_code = 2


class NotFoundError(LocalllmError):
    """The named thing is not there."""

    exit_code = 3


class AccessError(LocalllmError):
    """The thing is there but may not be had."""

    exit_code = 4


class NetworkError(LocalllmError):
    """A peer did not answer, or not as it should."""

    exit_code = 5


class IntegrityError(LocalllmError):
    """Bytes that are not what they claim to be."""

    exit_code = 6


class GgufError(IntegrityError):
    """A file that is not a sound GGUF."""


class DoesNotFitError(LocalllmError):
    """This machine has not the memory for it."""

    exit_code = 7


class DiskError(LocalllmError):
    """No room on the disk, or a disk that fails."""

    exit_code = 8


class ContextFullError(DoesNotFitError):
    """The conversation is longer than the context it was given."""


class EngineError(LocalllmError):
    """llama.cpp is broken or died."""

    exit_code = 9


class EngineMissingError(EngineError):
    """No llama.cpp was found."""


class OutOfMemoryError(EngineError):
    """llama.cpp asked for more memory than there was, or was killed for what it held.

    Attributes:
        device: whose memory, as llama.cpp names it ("CUDA0"), "Host" for main memory; None where
            nobody said.
    """

    def __init__(self, message: str, hint: str | None = None, device: str | None = None) -> None:
        super().__init__(message, hint)
        self.device = device
