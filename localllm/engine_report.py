"""What an installed engine says of itself: the nouns that engine/ask.py fills in.

Values only, as in hardware.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EngineDevice:
    """A device that the engine itself sees.

    Attributes:
        name: llama.cpp's name for it: "CPU", "CUDA0", "MTL0", "RPC[127.0.0.1:50052]".
        description: the model name.
        kind: "cpu", "gpu", "igpu" or "accel" (ggml_backend_dev_type).
        free_bytes, total_bytes: as the engine reports them.
    """

    name: str
    description: str | None = None
    kind: str = "cpu"
    free_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class EngineReport:
    """What the installed engine says it is, asked in a child process.

    Attributes:
        library: path of libllama that was asked; None when llama-cpp-python is not installed.
        version: llama-cpp-python's version.
        commit: llama.cpp's commit as the library reports it (ggml_commit).
        tools_folder: where llama-server and its siblings were found; None when nowhere.
        tools: names of the tools found there.
        tools_commit: llama.cpp's commit as the tools' own ggml reports it.
        backend: what it was built for: "cpu", "cuda", "rocm", "vulkan", "metal".
        supports_gpu_offload: llama_supports_gpu_offload(); None when it could not be asked.
        system_info: llama_print_system_info(), the instruction sets that were compiled in.
        devices: what ggml sees.
        build_number: llama.cpp's build number when known ("b7824" -> 7824).
        error: why the child gave no answer, one sentence; None when it did.
        signal: the signal that killed the child, "SIGILL", or None.
        tools_error: why `llama-server --version` gave no answer; None when it did.
        stderr: the last lines the child wrote, for reports.
    """

    library: str | None = None
    version: str | None = None
    commit: str | None = None
    tools_folder: str | None = None
    tools: tuple[str, ...] = ()
    tools_commit: str | None = None
    backend: str | None = None
    supports_gpu_offload: bool | None = None
    system_info: str | None = None
    devices: tuple[EngineDevice, ...] = ()
    build_number: int | None = None
    error: str | None = None
    signal: str | None = None
    tools_error: str | None = None
    stderr: str = ""

    def to_json(self) -> dict[str, Any]:
        """The document form, field names as here."""
        return asdict(self)
