"""A bounded parser of GGUF headers: a byte source -> Header, before llama.cpp sees the file.

It trusts nothing: every count, length, type and offset is checked against a bound or against
the file's size before it is used, so a hostile header costs a sentence and not memory, time or
the process. It reads little more than it needs, from a source that may be a file, memory or HTTP
ranges (readahead.py), and walks over vocabularies unkept. Versions 2 and 3, little-endian.

Layout (ggml/docs/gguf.md): magic, version u32, tensor count u64, key count u64; the keys, each
name, type u32, value; the tensor table, each name, dimension count u32, dimensions u64, type
u32, offset u64; padding to `general.alignment`; the tensors' data.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeAlias

from localllm.errors import GgufError
from localllm.quants import FILE_TYPES, TENSOR_TYPES, TensorType
from localllm.units import KIB, MIB, format_bytes

# The bounds. Real headers stay far below: the largest known ones have some 50 keys, 2,000
# tensors and a vocabulary of 260k strings; llama.cpp itself has overflowed on less
# (CVE-2026-33298, CVE-2026-27940).
MAX_KEYS = 4096
MAX_TENSORS = 100_000
MAX_KEY_BYTES = 1024
MAX_TENSOR_NAME_BYTES = 128  # GGML_MAX_NAME is 64; other programs on ggml build with 128
MAX_STRING_BYTES = 4 * MIB
MAX_ARRAY_ELEMENTS = 4_000_000
#: Strings in all arrays together: they are walked over one by one, 0.1 s a million. A vocabulary
#: of 260k tokens brings 520k merges.
MAX_ARRAY_STRINGS = 2_000_000
MAX_HEADER_BYTES = 64 * MIB
#: Of the whole file, of which a hub can claim any size: a pebibyte, where the largest models take
#: terabytes. Nobody can make a file, nor a hole, of 2^63 bytes.
MAX_FILE_BYTES = 1 << 50
MAX_ALIGNMENT = MIB
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
#: Whoever plans goes through the layers one by one. The deepest known models have 126; llama.cpp
#: takes 512 (LLAMA_MAX_LAYERS).
MAX_LAYERS = 1024
#: Arrays up to this many elements are kept (per-layer head counts, rope sections); longer ones
#: are vocabularies, of which a plan needs only the length.
KEPT_ARRAY_ELEMENTS = 1024
#: Strings up to this size are kept; a longer one is walked over.
KEPT_STRING_BYTES = MIB
#: What is kept of one header in all; the rest is walked over. A number that was one byte takes 40
#: here, and a text in which one letter is rare takes four bytes for each: headers within the
#: bounds above took 410 MB and 2.9 s. Real ones have some hundred elements and 100 KB of text.
KEPT_ELEMENTS = 65_536
KEPT_TEXT_BYTES = 8 * MIB

#: What is read at a time. Larger pieces are no faster from a disk (a header of 6 MB takes 24 ms
#: with 32, 64, 128 and 512 KiB), and over a network what is read beyond a header costs.
_READ_BYTES = 32 * KIB

_MAGIC = b"GGUF"
_BOOL, _STRING, _ARRAY = 7, 8, 9
#: gguf_type -> (struct format, bytes) of the scalar types.
_SCALARS = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    _BOOL: ("?", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}

_LAYER = re.compile(r"blk\.(\d+)\.")
_SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf")


class ByteSource(Protocol):
    """Bytes that can be read from the middle: a file, memory, HTTP ranges.

    A header is read in order and in small pieces. Where each read is a journey of its own, reading
    ahead is the source's business (readahead.py).
    """

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    @property
    def size_bytes(self) -> int:
        """How long the whole of it is."""
        ...

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Up to n_bytes from the offset on; fewer only at the end."""
        ...


@dataclass(frozen=True)
class MemorySource:
    """A header held in memory, of a file that may be longer than what is held.

    Attributes:
        data: its first bytes.
        name: what a person calls it.
        file_bytes: the size of the whole file; None means that data is all of it.
    """

    data: bytes
    name: str = "header"
    file_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """How long the whole file is."""
        return len(self.data) if self.file_bytes is None else self.file_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """A slice."""
        return self.data[offset : offset + n_bytes]


Scalar: TypeAlias = int | float | bool | str


@dataclass(frozen=True)
class Array:
    """An array in the metadata.

    Attributes:
        n_elements: its length.
        values: the elements, or None when there are more than KEPT_ARRAY_ELEMENTS, or than may
            still be kept of this header.
    """

    n_elements: int
    values: tuple[Scalar, ...] | None


Value: TypeAlias = Scalar | Array


@dataclass(frozen=True)
class Tensor:
    """One row of the tensor table.

    Attributes:
        name: such as "blk.0.attn_q.weight".
        shape: elements per dimension, ggml's order (the row length first).
        type: how its elements are stored.
        offset: from the start of the data section.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def n_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """How many bytes it takes in the file."""
        return self.n_elements // self.type.block_elements * self.type.block_bytes


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        version: 2 or 3.
        metadata: the keys; see Value. A very long string is held as "", and so is what is beyond
            KEPT_TEXT_BYTES.
        tensors: the table, in file order.
        alignment: of tensor data.
        data_offset: where tensor data starts; the header is everything before it.
        file_bytes: size of the whole file.
        key_spans: where each key's record lies in the file, as (start, end).
        table_span: where the tensor table lies.
    """

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    file_bytes: int
    key_spans: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    table_span: tuple[int, int] = (0, 0)

    def integer(self, key: str) -> int | None:
        """The key's value where it is a whole number, else None."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        """The key's value where it is text, else None."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    @property
    def architecture(self) -> str | None:
        """general.architecture, which prefixes the hyperparameters' keys."""
        return self.text("general.architecture")

    @property
    def n_layers(self) -> int | None:
        """Repeating layers (block_count)."""
        return self.integer(f"{self.architecture}.block_count")

    @property
    def n_ctx_train(self) -> int | None:
        """The context the model was trained for, in tokens; None for none and less."""
        n_ctx = self.integer(f"{self.architecture}.context_length")
        return n_ctx if n_ctx is not None and n_ctx > 0 else None

    @property
    def quant(self) -> str | None:
        """The quantization by general.file_type; None when the file does not say."""
        file_type = self.integer("general.file_type")
        return None if file_type is None else FILE_TYPES.get(file_type)

    @property
    def has_chat_template(self) -> bool:
        """Its tokenizer brings a chat template."""
        return "tokenizer.chat_template" in self.metadata

    @property
    def is_generative(self) -> bool:
        """It can write text: causal attention and a tokenizer, so no encoder, no projector."""
        arch = self.architecture
        return (
            arch is not None
            and arch != "clip"
            and self.metadata.get("general.type", "model") == "model"
            and self.metadata.get(f"{arch}.attention.causal") is not False
            and f"{arch}.pooling_type" not in self.metadata
            and "tokenizer.ggml.model" in self.metadata
        )

    @property
    def split_count(self) -> int:
        """How many files this model is split into; 1 when it is whole."""
        return self.integer("split.count") or 1


def parse_header(source: ByteSource) -> Header:
    """Reads and checks the header of one GGUF file.

    Raises:
        GgufError: it is not a sound GGUF; the sentence says what is wrong and where.
    """
    return _Parser(source).parse()


def shard_paths(path: Path) -> tuple[Path, ...]:
    """All files of the split set that this file belongs to, in order; itself when it is whole.

    llama.cpp finds the others by name (`…-00001-of-00003.gguf`, llama_split_path), so names are
    what decides.
    """
    match = _SHARD_NAME.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    return tuple(
        path.with_name(f"{match['stem']}-{no:05d}-of-{count:05d}.gguf")
        for no in range(1, count + 1)
    )


class _Parser:
    """One pass over one header; holds the read-ahead buffer and the position."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._size = source.size_bytes
        self._buffer = b""
        self._base = 0  # file offset of the buffer's first byte
        self._at = 0  # file offset of the next byte to parse
        self._n_strings = 0  # in arrays so far
        self._n_kept = 0  # elements of arrays so far
        self._n_kept_bytes = 0  # of texts so far

    def parse(self) -> Header:
        version, n_tensors, n_keys = self._preamble()
        metadata: dict[str, Value] = {}
        key_spans: dict[str, tuple[int, int]] = {}
        for _ in range(n_keys):
            start = self._at
            key = self._text(MAX_KEY_BYTES, "a metadata key")
            if key in metadata:
                raise self._bad(f"the metadata key {key!r} occurs twice")
            metadata[key] = self._value(key)
            key_spans[key] = start, self._at
        alignment = self._alignment(metadata)
        table_start = self._at
        tensors = tuple(self._tensors(n_tensors))
        table_end = self._at
        data_offset = -(-table_end // alignment) * alignment
        self._check_extents(tensors, alignment, data_offset)
        self._check_layers(metadata, tensors)
        return Header(
            version=version,
            metadata=MappingProxyType(metadata),
            tensors=tensors,
            alignment=alignment,
            data_offset=data_offset,
            file_bytes=self._size,
            key_spans=MappingProxyType(key_spans),
            table_span=(table_start, table_end),
        )

    def _preamble(self) -> tuple[int, int, int]:
        if self._size == 0:
            raise self._bad("it is empty", hint="download it again")
        if self._size > MAX_FILE_BYTES:
            raise self._bad(f"it is said to be {self._size} bytes long")
        self._buffer = self._source.read(0, _READ_BYTES)
        if self._buffer[:4] != _MAGIC:
            raise self._bad(*_what_it_is_instead(self._buffer))
        self._at = 4
        (version,) = struct.unpack("<I", self._take(4))
        if version in (0x02000000, 0x03000000):
            raise self._bad(
                "it is big-endian, which this engine cannot run",
                hint="get the little-endian file of this model",
            )
        if version == 1:
            raise self._bad(
                "it is of GGUF version 1, which llama.cpp dropped in 2023",
                hint="get a newer conversion of this model",
            )
        if version not in (2, 3):
            raise self._bad(f"its GGUF version {version} is not known (2 and 3 are)")
        n_tensors, n_keys = struct.unpack("<QQ", self._take(16))
        if n_tensors > MAX_TENSORS:
            raise self._bad(f"it claims {n_tensors} tensors (at most {MAX_TENSORS} are accepted)")
        if n_keys > MAX_KEYS:
            raise self._bad(f"it claims {n_keys} metadata keys (at most {MAX_KEYS} are accepted)")
        return version, n_tensors, n_keys

    def _value(self, key: str) -> Value:
        kind = self._u32()
        if kind == _ARRAY:
            return self._array(key)
        return self._scalar(kind, key)

    def _scalar(self, kind: int, key: str) -> Scalar:
        if kind == _STRING:
            return self._value_text(key)
        if kind not in _SCALARS:
            raise self._bad(f"the metadata key {key!r} has the unknown type {kind}")
        return self._numbers(kind, 1, key)[0]

    def _numbers(self, kind: int, count: int, key: str) -> tuple[Scalar, ...]:
        layout, size = _SCALARS[kind]
        raw = self._take(count * size)
        if kind == _BOOL and raw.strip(b"\0\1"):
            raise self._bad(f"the metadata key {key!r} holds neither true nor false")
        return struct.unpack(f"<{count}{layout}", raw)

    def _array(self, key: str) -> Array:
        kind, count = self._u32(), self._u64()
        if count > MAX_ARRAY_ELEMENTS:
            raise self._bad(
                f"the array {key!r} claims {count} elements"
                f" (at most {MAX_ARRAY_ELEMENTS} are accepted)"
            )
        if kind == _ARRAY:
            raise self._bad(f"the array {key!r} nests arrays, which no model needs")
        if kind != _STRING and kind not in _SCALARS:
            raise self._bad(f"the array {key!r} has elements of the unknown type {kind}")
        if kind == _STRING:
            self._n_strings += count
            if self._n_strings > MAX_ARRAY_STRINGS:
                raise self._bad(f"its arrays hold more than {MAX_ARRAY_STRINGS} strings")
        if count <= min(KEPT_ARRAY_ELEMENTS, KEPT_ELEMENTS - self._n_kept):
            self._n_kept += count
            if kind == _STRING:
                return Array(count, tuple(self._value_text(key) for _ in range(count)))
            return Array(count, self._numbers(kind, count, key))
        if kind == _STRING:
            self._skip_strings(count, key)
        else:
            self._skip(count * _SCALARS[kind][1], f"the array {key!r}")
        return Array(count, None)

    def _skip_strings(self, count: int, key: str) -> None:
        """Walks over a vocabulary. The inner loop is the hot one: 150k strings a header."""
        unpack = struct.Struct("<Q").unpack_from
        while count:
            self._need(8)
            buffer, at, end = self._buffer, self._at - self._base, len(self._buffer) - 8
            while count and at <= end:
                (length,) = unpack(buffer, at)
                if length > MAX_STRING_BYTES:
                    raise self._bad(f"a string of {length} bytes in the array {key!r}")
                at += 8 + length
                count -= 1
            self._skip(self._base + at - self._at, f"the array {key!r}")

    def _alignment(self, metadata: dict[str, Value]) -> int:
        value = metadata.get("general.alignment", 32)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not 0 < value <= MAX_ALIGNMENT
            or value & (value - 1)
        ):
            raise self._bad(f"its alignment {value!r} is not a power of two up to {MAX_ALIGNMENT}")
        return value

    def _tensors(self, n_tensors: int) -> Iterator[Tensor]:
        names: set[str] = set()
        for _ in range(n_tensors):
            name = self._text(MAX_TENSOR_NAME_BYTES, "a tensor's name")
            if name in names:
                raise self._bad(f"the tensor {name!r} occurs twice")
            names.add(name)
            n_dimensions = self._u32()
            if not 1 <= n_dimensions <= MAX_DIMENSIONS:
                raise self._bad(f"the tensor {name!r} has {n_dimensions} dimensions (1 to 4 exist)")
            shape = struct.unpack(f"<{n_dimensions}Q", self._take(8 * n_dimensions))
            number, offset = self._u32(), self._u64()
            kind = TENSOR_TYPES.get(number)
            if kind is None:
                raise self._bad(
                    f"the tensor {name!r} is of type {number}, which this engine does not know",
                    hint="a newer engine may: localllm engine status",
                )
            if 0 in shape or math.prod(shape) >= 1 << 62:
                raise self._bad(f"the tensor {name!r} has the impossible shape {list(shape)}")
            if shape[0] % kind.block_elements:
                raise self._bad(
                    f"the tensor {name!r} has rows of {shape[0]}, no multiple of the"
                    f" {kind.block_elements} that {kind.name} needs"
                )
            yield Tensor(name, shape, kind, offset)

    def _check_extents(self, tensors: tuple[Tensor, ...], alignment: int, data_offset: int) -> None:
        """Every tensor lies inside the file, aligned, and behind the one before it.

        llama.cpp wants them in order and without holes (gguf.cpp: "tensor has offset ...,
        expected ..."), so that the last one's end is the file's end, but for padding.
        """
        expected = 0
        for tensor in tensors:
            if tensor.offset != expected:
                raise self._bad(
                    f"the tensor {tensor.name!r} lies at {tensor.offset} where {expected} is due"
                )
            end = data_offset + tensor.offset + tensor.n_bytes
            if end > self._size:
                raise self._bad(
                    f"it is cut short: the tensor {tensor.name!r} ends at {format_bytes(end)}"
                    f" ({end}) and the file at {format_bytes(self._size)} ({self._size})",
                    hint="the download did not finish: get the file again",
                )
            expected = -(-(tensor.offset + tensor.n_bytes) // alignment) * alignment

    def _check_layers(self, metadata: dict[str, Value], tensors: tuple[Tensor, ...]) -> None:
        count = metadata.get(f"{metadata.get('general.architecture')}.block_count", 0)
        if isinstance(count, int) and not 0 <= count <= MAX_LAYERS:
            raise self._bad(f"it claims {count} layers (at most {MAX_LAYERS} are accepted)")
        for tensor in tensors:
            layer = _LAYER.match(tensor.name)
            if layer is not None and int(layer[1]) >= MAX_LAYERS:
                raise self._bad(
                    f"the tensor {tensor.name!r} is of a layer beyond the {MAX_LAYERS} accepted"
                )

    # -- bytes -------------------------------------------------------------------------------

    def _u32(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _u64(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def _text(self, bound: int, what: str) -> str:
        return _decoded(self._take(self._length(bound, what)))

    def _value_text(self, key: str) -> str:
        """A text, or "" where it is more than is kept."""
        what = f"the value of {key!r}"
        length = self._length(MAX_STRING_BYTES, what)
        if length > min(KEPT_STRING_BYTES, KEPT_TEXT_BYTES - self._n_kept_bytes):
            self._skip(length, what)
            return ""
        self._n_kept_bytes += length
        return _decoded(self._take(length))

    def _length(self, bound: int, what: str) -> int:
        length = self._u64()
        if length > bound:
            raise self._bad(f"{what} is {length} bytes long (at most {bound} are accepted)")
        return length

    def _take(self, n_bytes: int) -> bytes:
        self._need(n_bytes)
        start = self._at - self._base
        self._at += n_bytes
        return self._buffer[start : start + n_bytes]

    def _skip(self, n_bytes: int, what: str) -> None:
        self._check_within(self._at + n_bytes, what)
        self._at += n_bytes

    def _need(self, n_bytes: int) -> None:
        """Makes the next n_bytes stand in the buffer."""
        end = self._at + n_bytes
        if end <= self._base + len(self._buffer):
            return
        self._check_within(end, "its header")
        kept = self._buffer[self._at - self._base :] if self._at >= self._base else b""
        start = self._at + len(kept)
        more = self._source.read(start, max(end - start, _READ_BYTES))
        self._buffer, self._base = kept + more, self._at
        if len(self._buffer) < n_bytes:
            raise self._bad(
                "it ends in the middle of its header",
                hint="the download did not finish: get the file again",
            )

    def _check_within(self, end: int, what: str) -> None:
        if end > MAX_HEADER_BYTES:
            raise self._bad(f"{what} reaches past the {format_bytes(MAX_HEADER_BYTES)} accepted")
        if end > self._size:
            raise self._bad(
                f"{what} reaches past the end of the file",
                hint="the download did not finish: get the file again",
            )

    def _bad(self, wrong: str, hint: str | None = None) -> GgufError:
        return GgufError(f"{self._source.name} is not a sound GGUF file: {wrong}", hint)


def _decoded(raw: bytes) -> str:
    # Names and texts are UTF-8 by the specification; damaged ones must not stop a person from
    # seeing what the file is.
    return raw.decode("utf-8", "replace")


def _what_it_is_instead(start: bytes) -> tuple[str, str]:
    """What the first bytes give away, and what to do about it."""
    magic = start[:4]
    if magic == b"PK\x03\x04":
        return "it is a zip archive", "a .llamafile or a PyTorch file is not a GGUF"
    if magic in (b"lmgg", b"fmgg", b"tjgg"):
        return (
            "it is of a format before GGUF (GGML, 2023)",
            "get a GGUF conversion of this model",
        )
    if start.startswith(b"version https://git-lfs."):
        return (
            "it is a Git LFS pointer, not the model itself",
            "git lfs pull, or download the file from the hub",
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "it is a web page", "the download link needs a login, or has moved"
    return f"it begins with {magic!r}, not with {_MAGIC!r}", "name a .gguf file"
