"""Models whose weights were lost: whole files, and nothing in them that was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from localllm.hub.localfile import read_header

ZERO = bytes(4)
#: float32, little-endian.
NAN = b"\0\0\xc0\x7f"
INFINITE = b"\0\0\x80\x7f"


def spoil(path: Path, number: bytes, where: Callable[[str], bool] = lambda name: True) -> Path:
    """Writes one number over all weights of the tensors of these names, which are of F32."""
    header = read_header(path)
    with path.open("r+b") as file:
        for tensor in header.tensors:
            if where(tensor.name):
                file.seek(header.data_offset + tensor.offset)
                file.write(number * (tensor.n_bytes // len(number)))
    return path
