"""Threads that read memory in step, each its own buffer, and how fast they were together.

Knows ctypes, mmap and the clock. Why it is done so, and what the number means, is told in
bandwidth.py, which decides how much is read and keeps the result.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localllm.units import MIB

if TYPE_CHECKING:
    import mmap

_LEAST_PASSES, _MOST_PASSES = 3, 40
_FAULT_BYTES = 8 * MIB
#: A pass sweeps the buffers so often that it lasts this long: threads start one after another
#: (some 10 us each, the interpreter's lock), which must stay small beside it.
_PASS_SECONDS, _PASS_SECONDS_PER_THREAD = 0.002, 0.00025
#: A measurement is steady when half of its passes came within this of the best.
_STEADY = 0.9


@dataclass(frozen=True)
class Measurement:
    """Read bandwidth in bytes per second, and whether the passes agreed."""

    bytes_per_second: float
    steady: bool


def measure(total_bytes: int, least_bytes: int, n_threads: int, seconds: float) -> Measurement:
    """Reads that much memory over and over with that many threads, for about that long.

    Half of the time may go into faulting the pages in; where that does not get through all of
    them, what is there by then is read, `least_bytes` at any rate.

    Raises:
        OSError, ValueError: the memory could not be had.
        RuntimeError: a thread could not be started.
        AttributeError: this C library has no memchr.
    """
    began = time.perf_counter()
    readers = _Readers(total_bytes, least_bytes, n_threads, began + seconds / 2, began + seconds)
    return readers.run()


class _Readers:
    """Threads that read in step, each its own buffer."""

    def __init__(
        self, total_bytes: int, least_bytes: int, n_threads: int, fault_until: float, until: float
    ) -> None:
        import ctypes

        libc = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
        self._memchr, self._memset = libc.memchr, libc.memset
        for function in (self._memchr, self._memset):
            function.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
            function.restype = ctypes.c_void_p
        self._size = total_bytes // n_threads
        self._least = least_bytes // n_threads
        self._fault_until, self._until = fault_until, until
        self._pass_seconds = max(_PASS_SECONDS, _PASS_SECONDS_PER_THREAD * n_threads)
        self._sweeps = [1]  # of each pass; the last is the one to come or under way
        self._over = False
        # The action runs in one thread, after all have arrived and before any goes on.
        self._step = threading.Barrier(n_threads, action=self._decide, timeout=10)
        self._sizes = [0] * n_threads
        self._spans: list[list[tuple[float, float]]] = [[] for _ in range(n_threads)]
        self._failures: list[Exception] = []

    def run(self) -> Measurement:
        threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(len(self._spans))
        ]
        try:
            for thread in threads:
                thread.start()
        except RuntimeError:
            self._step.abort()  # or those that run would wait for the ones that do not
            raise
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        size = sum(self._sizes)
        return summarise(self._spans, [size * sweeps for sweeps in self._sweeps])

    def _decide(self) -> None:
        done = len(self._spans[0])
        late = time.perf_counter() > self._until
        self._over = done >= (_LEAST_PASSES if late else _MOST_PASSES)
        if done and not self._over:
            seconds = _duration([spans[-1] for spans in self._spans]) / self._sweeps[-1]
            self._sweeps.append(max(1, math.ceil(self._pass_seconds / seconds)))

    def _work(self, number: int) -> None:
        import mmap

        try:
            with mmap.mmap(-1, self._size) as block:
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    with suppress(OSError):  # a kernel without them
                        block.madvise(mmap.MADV_HUGEPAGE)
                self._read(number, block)
        except threading.BrokenBarrierError:
            return  # another thread failed, and said so
        except (OSError, ValueError) as exc:
            self._failures.append(exc)
            self._step.abort()

    def _read(self, number: int, block: mmap.mmap) -> None:
        import ctypes

        anchor = ctypes.c_char.from_buffer(block)
        try:
            address, size = ctypes.addressof(anchor), 0
            while size < self._size:
                if size >= self._least and time.perf_counter() > self._fault_until:
                    break
                part = min(_FAULT_BYTES, self._size - size)
                self._memset(address + size, 1, part)
                size += part
            self._sizes[number] = size
            while True:
                self._step.wait()
                if self._over:
                    break
                began = time.perf_counter()
                for _ in range(self._sweeps[-1]):
                    self._memchr(address, 0xFF, size)
                self._spans[number].append((began, time.perf_counter()))
        finally:
            del anchor  # a mapping cannot be closed while something points into it


def summarise(
    spans: Sequence[Sequence[tuple[float, float]]], pass_bytes: Sequence[int]
) -> Measurement:
    """The best pass out of each thread's (start, end) times, and whether half came near it."""
    passes = zip(*spans, strict=True)
    rates = [read / _duration(times) for read, times in zip(pass_bytes, passes, strict=True)]
    best = max(rates)
    near = sum(rate >= _STEADY * best for rate in rates)
    return Measurement(best, steady=2 * near >= len(rates))


def _duration(times: Sequence[tuple[float, float]]) -> float:
    seconds = max(end for _, end in times) - min(begin for begin, _ in times)
    return max(seconds, 1e-9)  # a clock too coarse to see it
