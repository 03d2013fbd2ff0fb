"""A child that is gone when we are, however we end: our side of guardian.py, and the run folders.

The child hangs on a guardian process, and the guardian on a pipe to us. Run folders of processes
that are gone (a power cut, a guardian killed together with its parent) are swept by later starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from localllm import paths
from localllm.units import MIB

#: From SIGTERM to SIGKILL. A slot in a long llama_decode answers only between micro-batches.
GRACE_SECONDS = 5.0
_LOG_BYTES = 1 * MIB


def make_run_dir() -> Path:
    """A private folder of this process, which a later start clears if this one cannot."""
    runtime = paths.private_folder(paths.runtime_dir())
    run_dir = runtime / f"engine-{os.getpid()}-{secrets.token_hex(4)}"
    run_dir.mkdir(mode=0o700)
    return run_dir


class Guarded:
    """One started child.

    Args:
        command: what to run.
        run_dir: its folder (make_run_dir), which goes with it.
        environment: all of the child's.
    """

    def __init__(
        self, command: Sequence[str], run_dir: Path, environment: Mapping[str, str]
    ) -> None:
        self._run_dir = run_dir
        guardian = Path(__file__).with_name("guardian.py")
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(guardian), str(run_dir),
             str(GRACE_SECONDS), str(_LOG_BYTES), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for us, not for the engine
        )  # fmt: skip

    @property
    def pid(self) -> int | None:
        """The child's own process id, once it is known."""
        pids = _read_pids(self._run_dir)
        return pids[1] if pids else None

    def poll(self) -> int | None:
        """The child's exit status, 128 + N after signal N; None while it runs."""
        return self._guardian.poll()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The exit status, waited for; None where it still runs then."""
        try:
            return self._guardian.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def log(self) -> str:
        """The last of what the child printed, at most 2 MiB."""
        text = ""
        for name in ("engine.log.1", "engine.log"):
            try:
                text += (self._run_dir / name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
        return text

    def kill(self) -> None:
        """SIGKILL for the child, which a stopped one obeys, too; the guardian tells its end."""
        import psutil

        with contextlib.suppress(psutil.Error):
            if self.pid is not None and self.poll() is None:
                psutil.Process(self.pid).kill()

    def cpu_seconds(self) -> float | None:
        """Processor time that the child has used; None where that cannot be told."""
        import psutil

        try:
            times = psutil.Process(self.pid).cpu_times() if self.pid is not None else None
        except psutil.Error:
            return None
        return None if times is None else float(times.user + times.system)

    def let_go(self) -> None:
        """Begins the end (SIGTERM, after GRACE_SECONDS SIGKILL); returns at once."""
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()  # the lifeline: the guardian does the rest

    def stop(self) -> None:
        """Ends the child and clears the run folder."""
        self.let_go()
        if self.wait(GRACE_SECONDS + 5) is None:
            self._guardian.kill()  # the child follows by its parent-death signal
            self._guardian.wait()
        shutil.rmtree(self._run_dir, ignore_errors=True)


def sweep() -> None:
    """Ends engines and clears run folders whose owners are gone.

    A folder is named after the process that made it; it goes when that process is no more. A
    recorded process is ended only if it still is one that was started from this folder, because
    process ids are used again.
    """
    try:
        folders = list(paths.runtime_dir().glob("engine-*-*"))
    except OSError:
        return
    for folder in folders:
        owner = folder.name.split("-")[1]
        if not owner.isdigit() or _alive(int(owner)):
            continue
        for pid in _read_pids(folder):
            _end_if_from(pid, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_if_from(pid: int, folder: Path) -> None:
    import psutil

    try:
        process = psutil.Process(pid)
        if any(str(folder) in argument for argument in process.cmdline()):
            process.kill()
    except psutil.Error:
        return


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def _read_pids(folder: Path) -> list[int]:
    try:
        pids = json.loads((folder / "pids.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [pid for pid in pids if isinstance(pid, int)] if isinstance(pids, list) else []
