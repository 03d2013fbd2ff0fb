"""Where the engine wheel is made: room checked, pip and CMake run and watched, nothing left over.

Standard library only. It knows processes, folders and pip's command line; which flags to give is
recipe.py's to know. The Windows branches are unproven.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from localllm.engine import wheelcache
from localllm.engine.buildlog import Progress, clock, complaints, explain, is_network_failure
from localllm.engine.recipe import BuildError, Recipe, Say
from localllm.engine.toolchain import Machine, how_to_install

DISTRIBUTION = "llama_cpp_python"
#: Would reach into the build from the outside, or make pip install elsewhere.
UNWANTED_VARIABLES = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "CMAKE_ARGS", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_QUIET"}
)
#: A CPU build takes 1.2 GB at its peak (du: sources, objects, npm's packages, the wheel). CUDA's
#: and HIP's objects come on top; their share is an estimate.
_BUILD_BYTES = {"cuda": 4 << 30, "rocm": 4 << 30}
_BUILD_BYTES_DEFAULT = 2 << 30
#: Two jobs of gcc 12 took 0.6 GB together; 1 GB for one leaves room for other compilers, and
#: nvcc's template instances are taken for twice that (an estimate).
_JOB_BYTES = {"cuda": 2 << 30, "rocm": 2 << 30}
_JOB_BYTES_DEFAULT = 1 << 30


def preflight(wanted: Recipe, machine: Machine, cache: Path, say: Say) -> None:
    """What would fail after minutes fails now, with the command that mends it.

    Raises:
        BuildError: no compiler, or no room.
    """
    if machine.compiler is None and machine.system != "Windows":
        raise BuildError(
            "there is no C and C++ compiler here to build llama.cpp with",
            how_to_install("compiler", machine),
        )
    if machine.libc == "musl":
        say("musl C library: built from source like everywhere; --prebuilt would not run here")
    job_bytes = _JOB_BYTES.get(wanted.backend, _JOB_BYTES_DEFAULT)
    free = machine.free_memory_bytes
    if free is not None and free < job_bytes:
        say(f"only {free / 1e9:.1f} GB of memory are free: the build may be killed for memory")
    need = _BUILD_BYTES.get(wanted.backend, _BUILD_BYTES_DEFAULT)
    room = {folder: _free_bytes(folder) for folder in (_temporary_folder(need, cache), cache)}
    for folder, free_bytes in room.items():
        # The cache itself takes one wheel, 30 MB on the CPU and some hundreds with CUDA.
        needed = need if folder != cache or len(room) == 1 else 500 << 20
        if free_bytes < needed:
            raise BuildError(
                f"the build needs {needed / 1e9:.1f} GB in {folder}, "
                f"and {free_bytes / 1e9:.1f} GB are free",
                "make room, or set TMPDIR (for the build) and LOCALLLM_HOME (for the cache) "
                "to folders on a larger disk",
                8,
            )


def _temporary_folder(need_bytes: int, cache: Path) -> Path:
    """Where to build: 1. the system's temporary folder, 2. /var/tmp, 3. the cache.

    The first with room: /tmp is often a small file system in memory. A TMPDIR is obeyed.
    """
    first = Path(tempfile.gettempdir())
    if os.environ.get("TMPDIR"):
        return first
    for folder in (first, Path("/var/tmp"), cache):  # noqa: S108
        if _free_bytes(folder) >= need_bytes and os.access(_existing(folder), os.W_OK):
            return folder
    return first


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def jobs(backend: str, machine: Machine) -> int:
    """Compilers at a time: as many as processors, fewer where memory would not do."""
    bound = machine.n_cores
    if machine.free_memory_bytes is not None:
        job_bytes = _JOB_BYTES.get(backend, _JOB_BYTES_DEFAULT)
        bound = min(bound, machine.free_memory_bytes // job_bytes)
    return max(1, bound)


def wheel_argv(
    python: Path, version: str, cache: Path, out: Path, wheelhouse: Path | None
) -> list[str]:
    """The `pip wheel` command of a build."""
    argv = [str(python), "-m", "pip", "wheel", "-v", "--no-deps", "--wheel-dir", str(out)]
    # Whatever other index is configured, a wheel of somebody else's flags will not do; and pip's
    # own wheel cache ignores CMAKE_ARGS, so it gets a folder that starts without wheels.
    argv += ["--no-binary", "llama-cpp-python", "--cache-dir", str(cache / "pip")]
    if wheelhouse:
        argv += ["--no-index", "--find-links", str(wheelhouse)]
    return [*argv, f"llama-cpp-python=={version}"]


def _build_environment(wanted: Recipe, machine: Machine, temporary: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in UNWANTED_VARIABLES}
    env["CMAKE_ARGS"] = shlex.join(wanted.cmake_args)
    env.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(jobs(wanted.backend, machine)))
    env["NINJA_STATUS"] = "[%f/%t] "  # progress.py reads it
    env["PYTHONUNBUFFERED"] = "1"
    env["TMPDIR"] = env["TEMP"] = env["TMP"] = str(temporary)
    if machine.compiler:
        env["CC"], env["CXX"] = machine.compiler.cc, machine.compiler.cxx
    if wanted.backend == "cuda" and machine.nvcc:
        env.setdefault("CUDACXX", machine.nvcc.path)
    if wanted.backend == "rocm" and machine.hipcc and machine.system == "Linux":
        # As llama.cpp's docs/build.md does with hipconfig, which lies beside hipcc.
        root = Path(machine.hipcc.path).resolve().parents[1]
        for clang in (root / "lib/llvm/bin/clang", root / "llvm/bin/clang"):
            if clang.exists():
                env.setdefault("HIPCXX", str(clang))
        env.setdefault("HIP_PATH", str(root))
    return env


def build(
    wanted: Recipe,
    machine: Machine,
    python: Path,
    cache: Path,
    wheelhouse: Path | None,
    say: Say,
    show: Say,
) -> wheelcache.Entry:
    """Makes the wheel and caches it. Only for the holder of the recipe's lock.

    Args:
        wanted: what to make.
        machine: what is here to make it with.
        python: an interpreter with pip.
        cache: the cache folder; the log goes under it, too.
        wheelhouse: a folder of packages that stands for the network, or None.
        say: prints one line.
        show: shows a passing line.

    Raises:
        BuildError: it failed; what the compiler said has been told by then.
    """
    need = _BUILD_BYTES.get(wanted.backend, _BUILD_BYTES_DEFAULT)
    base = _temporary_folder(need, cache)
    base.mkdir(parents=True, exist_ok=True)
    prefix = f"localllm-engine-{wanted.key}-"
    for left in base.glob(prefix + "*"):  # of a build that was killed; we hold its lock
        shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(cache / "pip" / "wheels", ignore_errors=True)
    log = cache / "logs" / f"{wanted.key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    try:
        argv = wheel_argv(python, wanted.version, cache, temporary / "out", wheelhouse)
        start = time.monotonic()
        environ = _build_environment(wanted, machine, temporary)
        code = watch(argv, environ, temporary, log, show, Progress(start))
        text = log.read_text(encoding="utf-8", errors="replace")
        wheels = list((temporary / "out").glob(f"{DISTRIBUTION}-{wanted.version}-*.whl"))
        if code != 0 or len(wheels) != 1:
            for line in complaints(text):
                say(f"  {line}")
            offline = is_network_failure(text) and "Building wheel for" not in text
            raise BuildError(
                f"llama.cpp could not be built (pip left with {code}); the whole log is {log}",
                explain(text),
                5 if offline else 9,
            )
        ui = wanted.ui and "UI: npm build succeeded" in text
        failed = re.search(r"UI: (npm [a-z ]+) failed", text)
        note = None if ui or not wanted.ui else f"{failed[1] if failed else 'npm'} failed"
        say(f"built in {clock(time.monotonic() - start)}")
        if note:
            say(f"the web UI is left out: {note} (see {log}; to try again: --rebuild)")
        entry = wheelcache.store(cache, wanted, wheels[0], ui=ui, ui_note=note)
        shutil.rmtree(cache / "pip", ignore_errors=True)  # kept after a failure, for the retry
        return entry
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def watch(
    argv: list[str], env: dict[str, str], folder: Path, log: Path, show: Say, progress: Progress
) -> int:
    """Runs a command with its output in a log, reads along, and leaves no process behind.

    Returns:
        Its exit status.

    Raises:
        BuildError: it could not be started.
    """
    rest = ""
    with log.open("wb") as sink, log.open(encoding="utf-8", errors="replace") as source:
        try:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # one signal for compilers, ninja, npm and all
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as exc:
            raise BuildError(f"cannot run {argv[0]}: {exc.strerror or exc}") from exc
        try:
            while True:
                code = child.poll()
                *lines, rest = (rest + source.read()).split("\n")
                now = time.monotonic()
                for line in lines:
                    progress.feed(line, now)
                if code is not None:
                    return code
                show(progress.line(now))
                time.sleep(0.2)
        finally:
            _end(child)


def _die_with_parent() -> None:
    """In the child, before exec: pip ends with us even after SIGKILL, its own children with it.

    They write into pip's pipe, and end by SIGPIPE when nobody reads it any more.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, <linux/prctl.h>


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], check=False)
    else:
        # ninja puts each compiler into a process group of its own, and ends them itself when it is
        # asked to: give it the time before what is left is killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                child.poll()  # reaps pip, or its group would never be empty
                os.killpg(child.pid, 0)
                time.sleep(0.05)
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
