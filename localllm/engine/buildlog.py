"""What a build's output says: how far it is, how long it will be, why it failed.

Standard library only. It reads text; it starts nothing. The lines are those of `pip wheel -v`
with scikit-build-core and ninja underneath.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TextIO

# NINJA_STATUS is set to its default by build.py; pip -v indents by two blanks:
#   [115/274] /usr/bin/g++ -DGGML_BUILD ... -c .../ggml-quants.c
_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\] ")

_PHASES = (
    (re.compile(r"^\s*Downloading \S*llama_cpp_python"), "fetching llama.cpp"),
    (re.compile(r"^\s*Installing build dependencies: started"), "fetching the build tools"),
    (re.compile(r"^\s*\*\*\* Configuring CMake"), "configuring llama.cpp"),
    (re.compile(r"UI: running npm ci"), "building llama.cpp and its web UI (npm)"),
    (re.compile(r"UI: (npm build succeeded|npm \S+.* failed)"), "building llama.cpp"),
    (re.compile(r"^\s*\*\*\* Installing project into wheel"), "packing the engine"),
)

#: The words of a compiler, CMake, ninja, npm or pip that has something to complain of.
_COMPLAINT = re.compile(
    r"\berror\b( [A-Z]+\d+)?:|^\s*(FAILED|ERROR|fatal):|CMake Error|undefined reference|ld returned"
    r"|No space left|Killed|internal compiler error|npm (ERR!|error)|ModuleNotFoundError"
    r"|Could not find|unsupported GNU version|Permission denied"
)
#: True of every failed build and of no use to anybody.
_ECHO = re.compile(
    r"Failed building wheel|Failed to build|subprocess-exited|exit code: |did not run successfully"
)

_NETWORK = (
    r"Failed to establish a new connection|Temporary failure in name resolution|"
    r"Max retries exceeded|Network is unreachable|Read timed out|SSLError"
)
_EXPLANATIONS = (
    (r"No space left on device", "the disk is full: make room, or set TMPDIR to a larger disk"),
    (
        r"fatal error: Killed|Killed signal|out of memory",
        "memory ran out: set CMAKE_BUILD_PARALLEL_LEVEL=1 and run this again",
    ),
    (
        r"unsupported GNU version",
        "this nvcc does not take this gcc: install an older g++ and set CUDAHOSTCXX to it",
    ),
    (
        r"CUDA::cublas",
        "the CUDA toolkit here lacks cuBLAS: install all of the toolkit (cuda-toolkit)",
    ),
    (
        r"[Uu]nsupported gpu architecture",
        "the CUDA toolkit does not know this GPU: install another version of the toolkit",
    ),
    (
        _NETWORK,
        "the package index cannot be reached: check the network (or a proxy), "
        "or use --wheelhouse DIR",
    ),
    (
        r"Could not find a version that satisfies|No matching distribution",
        "the package index (or wheelhouse) lacks a package: see install.sh -h on --wheelhouse",
    ),
)


def parse_step(line: str) -> tuple[int, int] | None:
    """Reads ninja's "[115/274] ..." as (115, 274), None for any other line."""
    found = _STEP.match(line)
    if not found:
        return None
    done, total = int(found[1]), int(found[2])
    return (done, total) if 0 < done <= total else None


def clock(seconds: float) -> str:
    """151 -> "2 min 31 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Progress:
    """The state of one build, fed with its lines, told as one line.

    Args:
        started: when it began, on the clock that `line` is asked by, in seconds.
        phase: what is going on until the output says something else.
    """

    def __init__(self, started: float, phase: str = "preparing the engine") -> None:
        self._started = started
        self._phase = phase
        self._step: tuple[int, int] | None = None
        self._first: tuple[float, int] | None = None

    def feed(self, line: str, now: float) -> None:
        """Takes one line of output."""
        if step := parse_step(line):
            # CMake's own small test builds count to 2 or so; the largest total is the build's.
            if self._step is None or step[1] > self._step[1]:
                self._first = (now, step[0])
                self._phase = "building llama.cpp"
            if self._step is None or step[1] >= self._step[1]:
                self._step = step
            return
        for pattern, phase in _PHASES:
            if pattern.search(line):
                self._phase = phase
                return

    def line(self, now: float) -> str:
        """ "building llama.cpp  42 %  115/274  2 min 31 s, about 3 min 30 s left"."""  # noqa: D210
        words = [self._phase]
        if self._step:
            done, total = self._step
            words += [f"{100 * done // total} %", f"{done}/{total}"]
        words.append(clock(now - self._started) + self._rest(now))
        return "  ".join(words)

    def _rest(self, now: float) -> str:
        if not self._step or not self._first:
            return ""
        done, total = self._step
        began, first = self._first
        seconds = now - began
        # A guess from less than ten steps and ten seconds is worth nothing.
        if done - first < 10 or seconds < 10 or done == total:
            return ""
        rest = seconds / (done - first) * (total - done)
        return f", about {clock(10 * max(1, round(rest / 10)))} left"


def complaints(text: str, limit: int = 8) -> list[str]:
    """The lines of a failed build that say why, the first ones; its last lines when none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wanted: list[str] = []
    follow = 0  # CMake says where first, and what in the lines after it
    for line in lines:
        if parse_step(line) or _ECHO.search(line) or line in wanted:
            continue
        if _COMPLAINT.search(line):
            wanted.append(line)
            follow = 2 if line.startswith("CMake Error") else 0
        elif follow:
            wanted.append(line)
            follow -= 1
    return [line[:200] for line in (wanted[:limit] or lines[-limit:])]


def explain(text: str) -> str | None:
    """The remedy for a well-known failure, None for the others."""
    for pattern, remedy in _EXPLANATIONS:
        if re.search(pattern, text):
            return remedy
    return None


def is_network_failure(text: str) -> bool:
    """The package index could not be reached."""
    return re.search(_NETWORK, text) is not None


class ProgressLine:
    """Shows progress on a stream: one rewritten line on a terminal, a line now and then elsewhere.

    Args:
        stream: where to.
        say: prints a whole line, for a stream that is not a terminal.
        every_seconds: how often, there.
    """

    def __init__(
        self, stream: TextIO, say: Callable[[str], None], every_seconds: float = 15
    ) -> None:
        self._stream = stream
        self._say = say
        self._every = every_seconds
        self._last = float("-inf")
        self._shown = False
        self._live = stream.isatty()

    def __call__(self, text: str) -> None:
        """Shows the line."""
        if self._live:
            import shutil

            # A wrapped line cannot be rewritten.
            width = max(20, shutil.get_terminal_size().columns) - 1
            self._stream.write("\r" + f"localllm: {text}"[:width].ljust(width))
            self._stream.flush()
            self._shown = True
        elif time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._say(text)

    def clear(self) -> None:
        """Takes the line away, before something else is printed."""
        if self._shown:
            import shutil

            width = max(20, shutil.get_terminal_size().columns) - 1
            self._stream.write("\r" + " " * width + "\r")
            self._stream.flush()
            self._shown = False
