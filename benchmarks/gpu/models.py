"""GGUF files of real shapes with random weights, as fast as a disk takes them.

Shapes and types come from tests/shapes. Weights are drawn directly in quantized form, one pattern
for each type that repeats. They have the spread of real ones, so that no activation overflows a
half-precision number; what such a model says is noise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from localllm.quants import TENSOR_TYPES
from tests.ggufs import TYPE_NUMBERS, TensorSpec, byte_vocabulary, header_bytes
from tests.shapes import SHAPES

#: Of the weights of real models, about.
_SPREAD = 0.02
#: Small enough to stay in a processor's cache, large enough for few calls.
_PATTERN_BYTES = 4 << 20
_ALIGNMENT_BYTES = 32


@dataclass(frozen=True)
class _Layout:
    """Where a block keeps its half-precision scales (ggml-common.h), and what they scale.

    Attributes:
        scale_at: byte offset of `d`.
        units: the spread of the weights of random bytes with d = 1.
        least_at: offset of `dmin` or `m`, which is taken off (or added); None where there is none.
        least: it as a multiple of d, so that the mean of the weights is 0.
    """

    scale_at: int
    units: float
    least_at: int | None = None
    least: float = 0.0


# d x scale x q - dmin x min of independent uniform numbers: q of 2 to 5 bits, scale and min of 4
# bits (Q2_K) or 6. Their standard deviations, by arithmetic.
_LAYOUTS = {
    "Q4_0": _Layout(0, 4.6),
    "Q5_0": _Layout(0, 9.2),
    "Q5_1": _Layout(0, 9.2, 2, -15.5),
    "Q8_0": _Layout(0, 73.9),
    "Q2_K": _Layout(80, 13.9, 82, 1.5),
    "Q3_K": _Layout(108, 43.3),
    "Q4_K": _Layout(0, 258.0, 2, 7.5),
    "Q5_K": _Layout(0, 527.0, 2, 15.5),
    "Q6_K": _Layout(208, 1366.0),
}


def model_path(folder: Path, shape: str, quant: str) -> Path:
    """Where `write` puts it."""
    return folder / f"{SHAPES[shape].title}-random-{quant}.gguf"


def write(folder: Path, shape: str, quant: str) -> Path:
    """The model's file, written if it is not there.

    Args:
        folder: where to.
        shape: an id of tests/shapes: "8b".
        quant: of those that the shape has: "Q4_K_M".

    Raises:
        KeyError: there is no such shape, or it has a type whose layout is not known here.
    """
    path = model_path(folder, shape, quant)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    tensors = SHAPES[shape].tensors(quant)
    # llama-server asserts that there is a vocabulary; this one is real, and made of bytes.
    vocabulary = byte_vocabulary(SHAPES[shape].model.sizes.vocab)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            out.write(header_bytes(SHAPES[shape].metadata(quant) | vocabulary, tensors))
            patterns: dict[str, memoryview] = {}
            for tensor in tensors:
                key = _key(tensor)
                if key not in patterns:
                    patterns[key] = memoryview(_pattern(tensor))
                _repeat(out, patterns[key], tensor.n_bytes)
                out.write(bytes(-tensor.n_bytes % _ALIGNMENT_BYTES))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _key(tensor: TensorSpec) -> str:
    """Tensors of one key have the same kind of values."""
    if tensor.name.endswith(".bias"):
        return "zeros"
    return "ones" if len(tensor.shape) == 1 else tensor.kind


def _pattern(tensor: TensorSpec) -> bytes:
    """Some megabytes of a tensor: biases are 0, norms 1, all else random."""
    key = _key(tensor)
    if key in ("zeros", "ones"):
        return bytes(np.full(_PATTERN_BYTES // 4, key == "ones", dtype="<f4"))
    rng = np.random.default_rng(1)
    if key in ("F32", "F16"):
        weights = rng.standard_normal(_PATTERN_BYTES // 4, dtype=np.float32) * _SPREAD
        return bytes(weights.astype("<f4" if key == "F32" else "<f2"))
    layout = _LAYOUTS[key]
    block_bytes = TENSOR_TYPES[TYPE_NUMBERS[key]].block_bytes
    n_blocks = _PATTERN_BYTES // block_bytes
    blocks = np.frombuffer(rng.bytes(n_blocks * block_bytes), dtype=np.uint8)
    blocks = blocks.reshape(n_blocks, block_bytes).copy()
    scale = _SPREAD / layout.units
    for at, number in ((layout.scale_at, scale), (layout.least_at, scale * layout.least)):
        if at is not None:
            blocks[:, at : at + 2] = np.frombuffer(np.float16(number).tobytes(), dtype=np.uint8)
    return bytes(blocks)


def _repeat(out: BinaryIO, pattern: memoryview, n_bytes: int) -> None:
    """Writes the pattern again and again, n_bytes in all."""
    while n_bytes:
        n_bytes -= out.write(pattern[: min(n_bytes, len(pattern))])
