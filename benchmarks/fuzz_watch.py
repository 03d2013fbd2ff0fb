"""Work in a process of its own that is watched, bounded in memory, and may be lost.

For Linux.
"""

from __future__ import annotations

import multiprocessing as mp
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def watch(
    work: Callable[[Connection, Any, int], None],
    take: Callable[[Any], int],
    lose: Callable[[int, str], None],
    n: int,
    patience_seconds: float,
) -> None:
    """Runs the work in a process until all is done, past cases over which it hangs or dies.

    Args:
        work: does it from a given case on; tells in a shared number which case is under way, and
            sends results.
        take: is given each result, and tells how many cases it was for.
        lose: is given the case over which the process was lost, and how.
        n: how many cases there are.
        patience_seconds: how long one result may take.
    """
    fork = mp.get_context("fork")
    done = 0
    while done < n:
        at = fork.Value("q", done)
        ours, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=work, args=(theirs, at, done))
        child.start()
        theirs.close()
        how = ""
        while done < n and not how:
            if not ours.poll(patience_seconds):
                how = f"hung for {patience_seconds:.0f} s"
                break
            try:
                done += take(ours.recv())
            except EOFError:
                how = "died"
        if how:
            child.kill()
        child.join()
        ours.close()
        if how:
            lose(at.value, f"{how} (status {child.exitcode})")


def limit_memory(n_bytes: int) -> None:
    """Address space for this process and its children."""
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))


def vm_bytes(what: str, pid: int | str = "self") -> int:
    """VmSize, or VmHWM (the most memory that it held since this was reset), of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:  # VmHWM:     123456 kB
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak(pid: int) -> None:
    """Lets VmHWM begin anew (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
