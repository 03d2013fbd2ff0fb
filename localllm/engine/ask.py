"""What the installed engine is: EngineReport, by asking in child processes.

Asking never harms the parent: an engine that dies of an illegal instruction or a missing
library is an answer too.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from localllm.engine.failure import signal_name
from localllm.engine.locate import SERVER, find_library, find_tools, library_version
from localllm.engine_report import EngineDevice, EngineReport

#: A CUDA driver that wakes a sleeping GPU takes seconds; a healthy CPU engine answers in 0.1.
_TIMEOUT_SECONDS = 30

# version: 0.5.0-dev (build 1, commit 0c1e570)
# version: 7824 (4f1cd2a9)                      (llama.cpp's own releases)
_VERSION = re.compile(
    r"version: (?:\S+ \(build (?P<build>\d+), commit (?P<commit>\w+)\)"
    r"|(?P<old_build>\d+) \((?P<old_commit>\w+)\))"
)
_MISSING_LIBRARY = re.compile(r"(?P<name>\S+\.(?:so[.\d]*|dylib|dll)): cannot open shared object")

#: What ggml registers beside "CPU" -> the backend's name in `install.sh --backend`.
_BACKENDS = {"CUDA": "cuda", "ROCm": "rocm", "HIP": "rocm", "Vulkan": "vulkan", "MTL": "metal",
             "Metal": "metal"}  # fmt: skip


def ask_engine() -> EngineReport:
    """What is installed, and what it says it is; never raises for a broken engine."""
    tools = find_tools()
    library = find_library()
    report = EngineReport(
        library=str(library) if library else None,
        version=library_version(),
        tools_folder=str(tools.folder) if tools else None,
        tools=tools.names if tools else (),
    )
    # Both at once: each mostly waits for the loader.
    inquiry = _start_inquiry(library) if library else None
    version = _start([str(tools.path(SERVER)), "--version"]) if tools and SERVER in tools.names \
        else None  # fmt: skip
    if inquiry is not None:
        report = _with_answer(report, *_finish(inquiry))
    elif library is None:
        report = replace(report, error="llama-cpp-python is not installed")
    if version is not None:
        report = _with_version(report, *_finish(version))
    return report


def _start_inquiry(library: Path) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("inquiry.py")
    return _start([sys.executable, "-I", "-S", str(script), str(library)])


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _finish(child: subprocess.Popen[bytes]) -> tuple[int | None, str, str]:
    """Exit status (None: it had to be ended), standard output, standard error."""
    try:
        out, err = child.communicate(timeout=_TIMEOUT_SECONDS)
        status: int | None = child.returncode
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        status = None
    return status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def _with_answer(report: EngineReport, status: int | None, out: str, err: str) -> EngineReport:
    """The report with what inquiry.py printed, or with how it ended."""
    stderr = "\n".join(err.splitlines()[-20:])
    if status == 0:
        answer: dict[str, Any] = json.loads(out)
        return replace(
            report,
            commit=answer["commit"],
            supports_gpu_offload=answer["supports_gpu_offload"],
            system_info=answer["system_info"],
            backend=parse_backend(answer["backends"]),
            devices=tuple(EngineDevice(**device) for device in answer["devices"]),
            stderr=stderr,
        )
    if status is None:
        return replace(report, error=f"it gave no answer in {_TIMEOUT_SECONDS} s", stderr=stderr)
    if status < 0:
        name = signal_name(-status)
        return replace(report, error=f"it died of {name}", signal=name, stderr=stderr)
    missing = _MISSING_LIBRARY.search(err)
    if missing is not None:
        return replace(report, error=f"the library {missing['name']} is missing", stderr=stderr)
    last = next((line for line in reversed(err.splitlines()) if line.strip()), f"status {status}")
    return replace(report, error=last.strip(), stderr=stderr)


def _with_version(report: EngineReport, status: int | None, out: str, err: str) -> EngineReport:
    """The report with what `llama-server --version` printed."""
    commit, build = parse_version(out + err)
    if commit is not None:
        return replace(report, tools_commit=commit, build_number=build)
    how = "no answer" if status is None else signal_name(-status) if status < 0 else err.strip()
    return replace(report, tools_error=how.splitlines()[-1] if how else f"status {status}")


def parse_backend(registered: list[str]) -> str:
    """The accelerator backend among the registered ones, "cpu" when there is none."""
    return next((_BACKENDS[name] for name in registered if name in _BACKENDS), "cpu")


def parse_version(text: str) -> tuple[str | None, int | None]:
    """Commit and build number of `llama-server --version`.

    A build number of 0 or 1 means that it was built outside a git checkout: unknown.
    """
    match = _VERSION.search(text)
    if match is None:
        return None, None
    build = int(match["build"] or match["old_build"])
    return match["commit"] or match["old_commit"], build if build > 1 else None
