"""Damaged GGUF headers without end: what they are made from, and the ways of damaging them.

Some know nothing of GGUF and change bytes; some know where its counts, lengths, types and offsets
lie and put boundary values there; some write a whole sound header that says something absurd. A
case is a function of a seed and a number alone, so that any can be made again.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from localllm.gguf import Header, MemorySource, parse_header
from localllm.quants import TENSOR_TYPES
from localllm.units import GIB, MIB
from tests.architectures.table import ARCHITECTURES
from tests.ggufs import TYPE_NUMBERS, U16, Llama, TensorSpec, byte_vocabulary, header_bytes, string

_EDGES = (0, 1, 2, 3, 7, 8, 9, 13, 31, 32, 33, 127, 128, 255, 256, 1023, 4096, 65_535, 1_000_003,
          2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**61, 2**62, 2**63 - 1, 2**63,
          2**64 - 32, 2**64 - 2, 2**64 - 1)  # fmt: skip
_TEXTS = ("", "llama", "clip", "no_vocab", "\0", "%s%n", "../../etc/passwd", "\x1b[2J", "x" * 300,
          "\N{GRINNING FACE}" * 40, b"\xff\xfe\x80", b"\xed\xa0\x80")  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A number of the container: a length, count, type, dimension or offset."""

    at: int
    size: int


@dataclass(frozen=True, eq=False)
class Base:
    """A sound header to be damaged.

    Attributes:
        name: which one.
        metadata: what it says.
        tensors: its table.
    """

    name: str
    metadata: Mapping[str, Any]
    tensors: Sequence[TensorSpec]

    @cached_property
    def raw(self) -> bytes:
        """The header's bytes."""
        return header_bytes(self.metadata, self.tensors)

    @cached_property
    def n_data(self) -> int:
        """The size of what belongs behind it, bytes."""
        return sum(-(-spec.n_bytes // 32) * 32 for spec in self.tensors)

    @cached_property
    def header(self) -> Header:
        """It, parsed."""
        return parse_header(MemorySource(self.raw, self.name, len(self.raw) + self.n_data))

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Where each tensor's row of the table begins."""
        at, starts = self.header.table_span[0], []
        for tensor in self.header.tensors:
            starts.append(at)
            at += 8 + len(tensor.name.encode()) + 4 + 8 * len(tensor.shape) + 4 + 8
        return tuple(starts)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Every number of the container, those inside of vocabularies left out."""
        found = [Field(4, 4), Field(8, 8), Field(16, 8)]
        for key, (start, end) in self.header.key_spans.items():
            kind = start + 8 + len(key.encode())
            found += [Field(start, 8), Field(kind, 4)]
            (number,) = struct.unpack_from("<I", self.raw, kind)
            if number == 8:
                found.append(Field(kind + 4, 8))
            elif number == 9:
                found += [Field(kind + 4, 4), Field(kind + 8, 8)]
            else:
                found.append(Field(kind + 4, end - kind - 4))
        for tensor, start in zip(self.header.tensors, self.rows, strict=True):
            at = start + 8 + len(tensor.name.encode())
            n_dimensions = len(tensor.shape)
            found += [Field(start, 8), Field(at, 4)]
            found += [Field(at + 4 + 8 * number, 8) for number in range(n_dimensions)]
            at += 4 + 8 * n_dimensions
            found += [Field(at, 4), Field(at + 4, 8)]
        return tuple(found)


@dataclass(frozen=True)
class Case:
    """One damaged header.

    Attributes:
        base: what it was made from.
        mutation: how.
        source: the header and the size that its file is said to have.
    """

    base: str
    mutation: str
    source: MemorySource


class Mutator:
    """Makes the cases of one seed."""

    n_bases: int

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bases = _bases()
        self.n_bases = len(self._bases)
        for base in self._bases:  # now, so that no case is charged for it
            _ = base.raw, base.fields, base.rows

    def case(self, number: int) -> Case:
        """The case of this number."""
        rng = random.Random(f"{self._seed} {number}")
        base = rng.choice(self._bases)
        (mutate,) = rng.choices(list(_MUTATIONS), list(_MUTATIONS.values()))
        if mutate is splice_headers:
            raw = splice_headers(base, rng, rng.choice(self._bases))
        else:
            raw = mutate(base, rng)
        if rng.random() < 0.05:
            raw = _flipped(raw, rng)
        kind = mutate.__name__.replace("_", " ")
        return Case(base.name, kind, MemorySource(raw, "mutant", _file_bytes(raw, base, rng)))


def _bases() -> list[Base]:
    small = Llama()
    models = {
        "llama, 32k tokens": Llama(n_vocab=32_000, kind="Q4_0"),
        "llama, 152k tokens": Llama(n_vocab=151_936, kind="Q8_0"),
        "llama, 80 layers": Llama(
            n_layers=80,
            n_embd=8192,
            n_ff=28_672,
            n_head=64,
            n_head_kv=8,
            kind="Q4_K",
            file_type="Q4_K_M",
        ),
    }
    split = {"split.no": U16(0), "split.count": U16(1), "split.tensors.count": 21}
    every_type = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "flag": True,
        "number": 0.5,
        "flags": [True, False],
        "numbers": [0.5, 1.5],
        "words": ["a", "b"] * 600,
    }
    return [
        Base("every type", every_type, [TensorSpec("t", (32, 2))]),
        Base("nothing", {}, []),
        Base("split", {**small.metadata(), **split}, small.tensors()),
        *(Base(name, model.metadata(), model.tensors()) for name, model in models.items()),
        *(Base(arch.id, arch.metadata(), arch.tensors()) for arch in ARCHITECTURES),
    ]


def _file_bytes(raw: bytes, base: Base, rng: random.Random) -> int:
    """Mostly as it was; at times cut, a little larger, or whatever a hub might claim."""
    whole = len(raw) + base.n_data
    kind = rng.random()
    if kind < 0.5:
        return whole
    if kind < 0.55:
        return rng.randrange(whole + 1)
    if kind < 0.75:
        return whole + rng.choice((1, 31, MIB, GIB))
    if kind < 0.97:
        return whole + rng.choice((2**40, 2**43))
    return whole + rng.choice((2**45, 2**50, 2**62, 2**63, 2**64, 2**70))


# -- bytes ---------------------------------------------------------------------------------------


def flip_bits(base: Base, rng: random.Random) -> bytes:
    return _flipped(base.raw, rng)


def change_bytes(base: Base, rng: random.Random) -> bytes:
    raw = bytearray(base.raw)
    for _ in range(rng.randint(1, 8)):
        raw[_somewhere(raw, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(raw)


def truncate(base: Base, rng: random.Random) -> bytes:
    return base.raw[: rng.randrange(len(base.raw))]


def insert(base: Base, rng: random.Random) -> bytes:
    at = _somewhere(base.raw, rng)
    return base.raw[:at] + rng.randbytes(rng.randint(1, 64)) + base.raw[at:]


def remove(base: Base, rng: random.Random) -> bytes:
    at = _somewhere(base.raw, rng)
    return base.raw[:at] + base.raw[at + rng.randint(1, 64) :]


def repeat(base: Base, rng: random.Random) -> bytes:
    at = _somewhere(base.raw, rng)
    piece = base.raw[at : at + rng.randint(1, 512)]
    return base.raw[:at] + piece * rng.choice((2, 3, 50)) + base.raw[at + len(piece) :]


def _flipped(given: bytes, rng: random.Random) -> bytes:
    raw = bytearray(given)
    for _ in range(rng.randint(1, 8) if raw else 0):
        raw[_somewhere(raw, rng)] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _somewhere(raw: bytes | bytearray, rng: random.Random) -> int:
    """Any place, but every other time near the beginning, where the small numbers lie."""
    return rng.randrange(min(len(raw), 2048) if rng.random() < 0.5 else len(raw))


# -- the container -------------------------------------------------------------------------------


def set_fields(base: Base, rng: random.Random) -> bytes:
    """Boundary values for lengths, counts, types, dimensions and offsets."""
    raw = bytearray(base.raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _put(raw, rng.choice(base.fields), rng)
    return bytes(raw)


def claim_counts(base: Base, rng: random.Random) -> bytes:
    """Many more (or fewer) keys or tensors than there are."""
    raw = bytearray(base.raw)
    _put(raw, rng.choice((Field(8, 8), Field(16, 8))), rng)
    return bytes(raw)


def nest_arrays(base: Base, rng: random.Random) -> bytes:
    inner = struct.pack("<IQ", rng.choice((4, 8, 9)), rng.choice((1, 2, 2**31)))
    nested = struct.pack("<IQ", 9, rng.choice((1, 2, 2**32))) * rng.randint(1, 2000) + inner
    return _with_record(base, string("nested") + struct.pack("<I", 9) + nested)


def spoil_keys(base: Base, rng: random.Random) -> bytes:
    """Keys that are no UTF-8, and keys that two records have."""
    spans = [span for span in base.header.key_spans.values() if span[1] - span[0] < MIB // 4]
    if not spans:
        return _with_record(base, string(b"\xff" * 40) + struct.pack("<II", 4, 1))
    start, end = rng.choice(spans)
    record = bytearray(base.raw[start:end])
    if rng.random() < 0.5:
        (length,) = struct.unpack_from("<Q", record)
        record[8 : 8 + length] = rng.randbytes(length)
    return _with_record(base, bytes(record))


def set_alignment(base: Base, rng: random.Random) -> bytes:
    kind, layout = rng.choice(((4, "I"), (4, "I"), (10, "Q"), (5, "i"), (6, "f"), (7, "?")))
    number = rng.choice((0, 1, 2, 3, 8, 16, 31, 64, 4096, 2**20, 2**21, 2**31 - 1))
    item = bool(number) if layout == "?" else number
    record = string("general.alignment") + struct.pack(f"<I{layout}", kind, item)
    return _with_record(base, record)


def move_tensors(base: Base, rng: random.Random) -> bytes:
    """Tensors that overlap, leave holes, or end beyond 2^63 and 2^64."""
    raw = bytearray(base.raw)
    if not base.rows:
        return set_fields(base, rng)
    for _ in range(rng.randint(1, 3)):
        number = rng.randrange(len(base.rows))
        tensor, start = base.header.tensors[number], base.rows[number]
        at = start + 8 + len(tensor.name.encode()) + 4 + 8 * len(tensor.shape) + 4
        _put(raw, Field(at, 8), rng)
    return bytes(raw)


def splice_headers(base: Base, rng: random.Random, other: Base | None = None) -> bytes:
    """The keys of one with the table of another, or two halves at any seam."""
    other = other or base
    if rng.random() < 0.5:
        return base.raw[: _somewhere(base.raw, rng)] + other.raw[_somewhere(other.raw, rng) :]
    start, end = other.header.table_span
    seam = base.header.table_span[0]
    n_keys = struct.unpack_from("<Q", base.raw, 16)[0]
    preamble = b"GGUF" + struct.pack("<IQQ", 3, len(other.tensors), n_keys)
    raw = preamble + base.raw[24:seam] + other.raw[start:end]
    return raw + b"\0" * (-len(raw) % 32)


def _put(raw: bytearray, field: Field, rng: random.Random) -> None:
    """Another number into the field: a boundary, or near to what stands there."""
    now = int.from_bytes(raw[field.at : field.at + field.size], "little")
    number = rng.choice(_EDGES) if rng.random() < 0.7 else now + rng.choice((-32, -1, 1, 32))
    number &= 256**field.size - 1
    raw[field.at : field.at + field.size] = number.to_bytes(field.size, "little")


def _with_record(base: Base, record: bytes) -> bytes:
    """The header with one more key, at its end, and the count right."""
    seam, end = base.header.table_span
    n_tensors, n_keys = struct.unpack_from("<QQ", base.raw, 8)
    raw = (
        b"GGUF"
        + struct.pack("<IQQ", 3, n_tensors, n_keys + 1)
        + base.raw[24:seam]
        + record
        + base.raw[seam:end]
    )
    return raw + b"\0" * (-len(raw) % 32)


# -- what it says --------------------------------------------------------------------------------


def say_otherwise(base: Base, rng: random.Random) -> bytes:
    """A sound container whose hyperparameters are absurd, missing or of another type."""
    metadata = _light(base, rng)
    keys = [key for key in metadata if not key.startswith("tokenizer.ggml.t")] or list(metadata)
    for _ in range(rng.choice((1, 1, 2, 4)) if keys else 0):
        key = rng.choice(keys)
        if rng.random() < 0.1:
            metadata.pop(key, None)
            continue
        metadata[key] = _absurd(metadata.get(key, 0), rng)
    return header_bytes(metadata, base.tensors)


def reshape_tensors(base: Base, rng: random.Random) -> bytes:
    """A sound container whose tensors are missing, renamed, of other types or shapes."""
    tensors = list(base.tensors)
    for _ in range(rng.choice((1, 1, 2, 4)) if tensors else 0):
        number = rng.randrange(len(tensors))
        tensor, kind = tensors[number], rng.random()
        if kind < 0.2:
            del tensors[number]
            if not tensors:
                break
        elif kind < 0.4:
            name = rng.choice(
                (f"{tensor.name}_", "blk.1000.attn_q.weight", f"blk.{2**40}.t", "x" * 100, "\0")
            )
            tensors[number] = replace(tensor, name=name)
        elif kind < 0.6:
            tensors[number] = replace(tensor, kind=rng.choice(list(TYPE_NUMBERS)))
        else:
            shape = list(tensor.shape)
            at = rng.randrange(len(shape))
            shape[at] = rng.choice((1, shape[at] * 2, shape[at] * 1024, 2**20, 2**31, 2**40))
            tensors[number] = replace(tensor, shape=tuple(shape))
    return _table(_light(base, rng), tensors)


def _light(base: Base, rng: random.Random) -> dict[str, Any]:
    """Its metadata, mostly with a small vocabulary: encoding a large one again is slow."""
    metadata = dict(base.metadata)
    if len(base.raw) > MIB // 4 and rng.random() < 0.8:
        metadata |= byte_vocabulary(320)
    return metadata


def _absurd(item: Any, rng: random.Random) -> Any:
    if rng.random() < 0.15:  # another type
        return rng.choice((True, -1.0, 7, "seven", [1, 2, 3], ["a"]))
    if isinstance(item, bool):
        return not item
    if isinstance(item, int):
        near = (item + 1, item * 2, item * 1000, max(0, item - 1))
        return rng.choice((*_EDGES, *near)) & 0xFFFFFFFF
    if isinstance(item, float):
        return rng.choice((0.0, -1.0, 1e38, float("inf"), float("nan"), 1e-45))
    if isinstance(item, (str, bytes)):
        return rng.choice(_TEXTS)
    if isinstance(item, list) and item and type(item[0]) is int:
        return [rng.choice((0, 1, -1, 2**31 - 1, item[0])) for _ in item][: rng.randint(1, 2000)]
    return item[: rng.randint(1, len(item))] if item else item


def _table(metadata: Mapping[str, Any], tensors: Sequence[TensorSpec]) -> bytes:
    """As header_bytes, for shapes whose bytes do not fit an offset either."""
    keys = header_bytes(metadata, ())
    end = parse_header(MemorySource(keys)).table_span[0]
    rows, offset = [], 0
    for tensor in tensors:
        kind = TENSOR_TYPES[TYPE_NUMBERS[tensor.kind]]
        rows.append(
            string(tensor.name)
            + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            + struct.pack("<IQ", TYPE_NUMBERS[tensor.kind], offset % 2**64)
        )
        n_bytes = math.prod(tensor.shape) // kind.block_elements * kind.block_bytes
        offset += -(-n_bytes // 32) * 32
    preamble = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    raw = preamble + keys[24:end] + b"".join(rows)
    return raw + b"\0" * (-len(raw) % 32)


#: How often each is chosen.
_MUTATIONS: dict[Callable[[Base, random.Random], bytes], int] = {
    flip_bits: 8,
    change_bytes: 8,
    truncate: 4,
    insert: 4,
    remove: 4,
    repeat: 4,
    set_fields: 20,
    claim_counts: 4,
    nest_arrays: 2,
    spoil_keys: 4,
    set_alignment: 4,
    move_tensors: 4,
    splice_headers: 6,
    say_otherwise: 16,
    reshape_tensors: 8,
}
