"""Stands between localllm and one llama-server, and outlives neither.

Run as a script, by path, with the standard library alone (`python -I -S guardian.py RUN_DIR
GRACE LOG_BYTES COMMAND…`). Its standard input is the lifeline: a pipe whose other end only the
parent holds. When the parent ends, however it ends (SIGKILL included), the pipe closes, and the
guardian ends the child and clears the run folder, socket and all. That works on every system; a
parent-death signal alone does not exist on macOS and Windows and would leave the socket behind.
On Linux the child also carries a parent-death signal, for the case that the guardian itself is
killed.

In the run folder it keeps `pids.json` (for the sweep of a later start) and `engine.log`, the
child's output, bounded: when the log is full it becomes `engine.log.1` and a new one begins.

Its exit status is the child's, 128 + N for a death by signal N.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Thousandths of all memory that the kernel's OOM killer counts on top of what the child uses.
OOM_SCORE = 500


def main(argv: list[str]) -> int:
    """Runs the command until it, the parent, or a SIGTERM ends it."""
    run_dir, grace, log_bytes, command = argv[0], float(argv[1]), int(argv[2]), argv[3:]
    for ignored in (signal.SIGINT, getattr(signal, "SIGHUP", None)):
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
        )
    except OSError as exc:
        _write(os.path.join(run_dir, "engine.log"), f"cannot start {command[0]}: {exc}\n")
        return 127
    _offer_to_oom_killer(child.pid)
    _write(os.path.join(run_dir, "pids.json"), json.dumps([os.getpid(), child.pid]))

    ending = threading.Event()
    orphaned = threading.Event()

    def end_child() -> None:
        ending.wait()
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()  # it has been seen to ignore SIGTERM

    def hold_lifeline() -> None:
        while os.read(0, 64):
            pass
        orphaned.set()
        ending.set()

    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    for task in (end_child, hold_lifeline):
        threading.Thread(target=task, daemon=True).start()
    assert child.stdout is not None
    drain = threading.Thread(target=_drain, args=(child.stdout, run_dir, log_bytes), daemon=True)
    drain.start()
    status = child.wait()
    drain.join(1)  # a grandchild may hold the pipe open; the log must not hold us
    if orphaned.is_set():
        shutil.rmtree(run_dir, ignore_errors=True)
    return 128 - status if status < 0 else status


def _die_with_parent() -> Callable[[], None]:
    """Prepared before the fork: after it, only the call itself is safe."""
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    guardian = os.getpid()

    def after_fork() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian:  # it died before the call took effect
            os._exit(1)

    return after_fork


def _offer_to_oom_killer(pid: int) -> None:
    """Where memory runs out, the child goes rather than who can start it again (proc(5))."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/oom_score_adj", "r+") as file:
        inherited = int(file.read())
        file.seek(0)
        file.write(str(min(1000, inherited + OOM_SCORE)))


def _drain(output: IO[bytes], run_dir: str, log_bytes: int) -> None:
    """Copies the child's output into a log of at most two times log_bytes."""
    path = os.path.join(run_dir, "engine.log")
    log = open(path, "ab", buffering=0)  # noqa: SIM115
    while piece := os.read(output.fileno(), 65536):
        # A full disk must not stop the child: its pipe still has to be drained.
        with contextlib.suppress(OSError):
            if log.tell() + len(piece) > log_bytes:
                log.close()
                os.replace(path, path + ".1")
                log = open(path, "ab", buffering=0)  # noqa: SIM115
            log.write(piece)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
