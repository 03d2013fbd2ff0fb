"""Holes in the C library's heap go back to the system. In a process of its own: ours has others."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

HOLES = """
import ctypes, json, psutil
from localllm.gateway import heap

heap.keep_one()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
pieces = [library.malloc(64 << 10) for _ in range(1024)]
for piece in pieces:
    ctypes.memset(piece, 1, 64 << 10)
for number, piece in enumerate(pieces):
    if number % 8:
        library.free(piece)
before = psutil.Process().memory_info().rss
heap.trim()
print(json.dumps([before, psutil.Process().memory_info().rss]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_holes_between_what_lives_on_are_given_back() -> None:
    run = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=120
    )
    before, after = json.loads(run.stdout)
    assert before - after > 32 << 20
