"""GGUF headers: what a sound one says, and that no other one costs more than a sentence."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from localllm import gguf
from localllm.errors import GgufError
from localllm.gguf import (
    Array,
    Header,
    MemorySource,
    parse_header,
    shard_paths,
)
from localllm.outline import outline
from localllm.quants import TENSOR_TYPES
from localllm.units import GIB, KIB, MIB
from tests.ggufs import (
    FILE_TYPE_NUMBERS,
    TYPE_NUMBERS,
    Llama,
    TensorSpec,
    byte_vocabulary,
    header_bytes,
    string,
)

SMALL = Llama(n_layers=1, n_vocab=260)
#: A tensor of 32 x 2 floats, the smallest thing that has a shape.
TENSOR = TensorSpec("t", (32, 2))


class CountingSource:
    """A file of which every read is written down; behind the header it is a hole of zeros."""

    name = "counted"

    def __init__(self, header: bytes, size_bytes: int) -> None:
        self.header = header
        self.size_bytes = size_bytes
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, n_bytes: int) -> bytes:
        n_bytes = min(n_bytes, self.size_bytes - offset)
        self.reads.append((offset, n_bytes))
        piece = self.header[offset : offset + n_bytes]
        return piece + bytes(n_bytes - len(piece))


# -- headers, byte by byte -----------------------------------------------------------------------


def preamble(
    n_tensors: int = 0, n_keys: int = 0, version: int = 3, magic: bytes = b"GGUF"
) -> bytes:
    return magic + struct.pack("<IQQ", version, n_tensors, n_keys)


def key(name: str | bytes, kind: int, raw: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + raw


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + raw


def tensor(
    name: str = "t", shape: Iterable[int] = (32, 2), kind: int = 0, offset: int = 0
) -> bytes:
    shape = tuple(shape)
    return (
        string(name)
        + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", kind, offset)
    )


def with_keys(*keys: bytes) -> bytes:
    return preamble(0, len(keys)) + b"".join(keys)


def with_tensors(*rows: bytes, room: int = 4096) -> bytes:
    return preamble(len(rows)) + b"".join(rows) + bytes(room)


def parse(raw: bytes, file_bytes: int | None = None) -> Header:
    return parse_header(MemorySource(raw, "it", file_bytes))


def small_file() -> bytes:
    raw = header_bytes(SMALL.metadata(), SMALL.tensors())
    return raw + bytes(sum(-(-spec.n_bytes // 32) * 32 for spec in SMALL.tensors()))


# -- sound ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        pytest.param(0, b"\xff", 255, id="uint8"),
        pytest.param(1, b"\xff", -1, id="int8"),
        pytest.param(2, b"\xff\xff", 65535, id="uint16"),
        pytest.param(3, b"\xfe\xff", -2, id="int16"),
        pytest.param(4, b"\xff" * 4, 2**32 - 1, id="uint32"),
        pytest.param(5, b"\xfd" + b"\xff" * 3, -3, id="int32"),
        pytest.param(6, struct.pack("<f", 0.5), 0.5, id="float32"),
        pytest.param(7, b"\0", False, id="false"),
        pytest.param(7, b"\1", True, id="true"),
        pytest.param(8, string("héllo 你好"), "héllo 你好", id="string"),
        pytest.param(8, string(""), "", id="empty string"),
        pytest.param(8, string(b"a\xffb"), "a\ufffdb", id="a string that is not UTF-8"),
        pytest.param(10, b"\xff" * 8, 2**64 - 1, id="uint64"),
        pytest.param(11, b"\xfc" + b"\xff" * 7, -4, id="int64"),
        pytest.param(12, struct.pack("<d", 1e-5), 1e-5, id="float64"),
    ],
)
def test_reads_a_value_of_every_type(kind: int, raw: bytes, expected: object) -> None:
    found = parse(with_keys(key("k", kind, raw))).metadata["k"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        pytest.param(0, b"\1\2\3", (1, 2, 3), id="uint8"),
        pytest.param(5, struct.pack("<3i", 1, -1, 0), (1, -1, 0), id="int32"),
        pytest.param(6, struct.pack("<3f", 1, 0.5, 0), (1.0, 0.5, 0.0), id="float32"),
        pytest.param(7, b"\1\0\1", (True, False, True), id="bool"),
        pytest.param(8, string("a") + string("") + string("好"), ("a", "", "好"), id="string"),
        pytest.param(10, struct.pack("<3Q", 1, 2, 2**63), (1, 2, 2**63), id="uint64"),
    ],
)
def test_keeps_a_short_array(kind: int, raw: bytes, expected: tuple[object, ...]) -> None:
    found = parse(with_keys(key("k", 9, array(kind, 3, raw)))).metadata["k"]
    assert found == Array(3, expected)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(with_keys(key("k" * 1024, 4, bytes(4))), id="key of 1 KiB"),
        pytest.param(with_keys(key("k", 8, string(bytes(4 * MIB)))), id="string of 4 MiB"),
        pytest.param(
            with_keys(key("k", 9, array(0, 4_000_000, bytes(4_000_000)))), id="4M elements"
        ),
        pytest.param(with_keys(*(key(str(n), 0, b"\0") for n in range(4096))), id="4096 keys"),
        pytest.param(with_tensors(tensor(name="n" * 128)), id="tensor name of 128 bytes"),
        pytest.param(with_tensors(tensor("blk.1023.t")), id="layer 1023"),
    ],
)
def test_what_just_keeps_to_the_bounds_is_sound(raw: bytes) -> None:
    header = parse(raw)
    assert len(header.metadata) + len(header.tensors) > 0


def test_an_empty_array_is_kept() -> None:
    assert parse(with_keys(key("k", 9, array(4, 0)))).metadata["k"] == Array(0, ())


@pytest.mark.parametrize("count", [1024, 1025], ids=["kept", "walked over"])
@pytest.mark.parametrize(
    ("kind", "element"), [(4, struct.pack("<I", 7)), (8, string("w"))], ids=["numbers", "strings"]
)
def test_an_array_of_more_than_1024_elements_leaves_its_length_only(
    count: int, kind: int, element: bytes
) -> None:
    raw = with_keys(key("k", 9, array(kind, count, element * count)), key("after", 4, b"\1\0\0\0"))
    header = parse(raw)
    found = header.metadata["k"]
    assert isinstance(found, Array)
    assert found.n_elements == count
    assert (found.values is None) == (count > 1024)
    assert header.integer("after") == 1


def test_a_very_long_string_is_walked_over() -> None:
    raw = with_keys(key("long", 8, string("x" * (MIB + 1))), key("after", 4, b"\1\0\0\0"))
    header = parse(raw)
    assert header.text("long") == ""
    assert header.integer("after") == 1


def test_the_longest_kept_string_is_whole() -> None:
    assert parse(with_keys(key("k", 8, string("x" * MIB)))).text("k") == "x" * MIB


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [1, 2, 32, 64, 4096, MIB])
def test_tensor_data_begins_at_the_alignment(version: int, alignment: int) -> None:
    specs = [TensorSpec("a", (33, 1)), TensorSpec("b", (32, 3), "Q4_0"), TensorSpec("c", (5,))]
    keys = {"general.alignment": alignment}
    raw = header_bytes(keys, specs, version=version, alignment=alignment)
    header = parse(raw, file_bytes=len(raw) + 8 * MIB)
    assert (header.version, header.alignment) == (version, alignment)
    assert header.data_offset == len(raw)
    assert [t.offset % alignment for t in header.tensors] == [0, 0, 0]
    assert [t.offset > 0 for t in header.tensors] == [False, True, True]


def test_the_table_of_tensors_is_read_in_order() -> None:
    header = parse(small_file())
    assert [
        (found.name, found.shape, found.type.name, found.n_bytes) for found in header.tensors
    ] == [(spec.name, spec.shape, spec.kind, spec.n_bytes) for spec in SMALL.tensors()]
    assert header.tensors[0].n_elements == 64 * 260


@pytest.mark.parametrize("number", TENSOR_TYPES, ids=[t.name for t in TENSOR_TYPES.values()])
def test_a_tensor_of_every_type_takes_its_blocks(number: int) -> None:
    kind = TENSOR_TYPES[number]
    (found,) = parse(with_tensors(tensor(shape=(512, 3), kind=number), room=16 * KIB)).tensors
    assert found.type is kind
    assert found.n_bytes == 512 * 3 // kind.block_elements * kind.block_bytes


@pytest.mark.parametrize("n_dimensions", [1, 2, 3, 4])
def test_a_tensor_has_one_to_four_dimensions(n_dimensions: int) -> None:
    shape = (32, 2, 3, 1)[:n_dimensions]
    (found,) = parse(with_tensors(tensor(shape=shape))).tensors
    assert found.shape == shape


def test_the_header_of_a_model_tells_what_a_plan_needs() -> None:
    header = parse(small_file())
    assert header.architecture == "llama"
    assert header.n_layers == 1
    assert header.n_ctx_train == 2048
    assert header.quant == "F32"
    assert header.has_chat_template
    assert header.is_generative
    assert header.split_count == 1
    assert header.file_bytes == len(small_file())
    assert header.integer("llama.vocab_size") == 260
    assert header.text("general.name") == "random llama"


def test_a_key_of_another_type_is_not_taken_for_the_wanted_one() -> None:
    header = parse(header_bytes({"n": 1, "b": True, "f": 1.5, "s": "x", "a": [1, 2]}, []))
    assert [header.integer(k) for k in ("n", "b", "f", "s", "a", "absent")] == [1] + [None] * 5
    assert [header.text(k) for k in ("s", "n", "a", "absent")] == ["x", None, None, None]


def test_a_header_without_keys_is_sound_and_knows_nothing() -> None:
    header = parse(preamble())
    assert header.architecture is None
    assert (header.n_layers, header.n_ctx_train, header.quant) == (None, None, None)
    assert not header.has_chat_template
    assert not header.is_generative


def test_metadata_cannot_be_changed_behind_the_readers_back() -> None:
    metadata: Any = parse(small_file()).metadata
    with pytest.raises(TypeError):
        metadata["general.architecture"] = "mine"


@pytest.mark.parametrize(
    ("kind", "raw"), [(4, bytes(4)), (5, b"\xff" * 4), (6, bytes(4))], ids=["none", "less", "float"]
)
def test_a_context_of_no_tokens_is_not_known(kind: int, raw: bytes) -> None:
    arch = key("general.architecture", 8, string("llama"))
    assert parse(with_keys(arch, key("llama.context_length", kind, raw))).n_ctx_train is None


@pytest.mark.parametrize(
    ("file_type", "quant"), [(FILE_TYPE_NUMBERS["Q4_K_M"], "Q4_K_M"), (999, None)]
)
def test_the_quantization_is_what_the_file_says(file_type: int, quant: str | None) -> None:
    assert parse(header_bytes({"general.file_type": file_type}, [])).quant == quant


@pytest.mark.parametrize(
    ("changes", "generative"),
    [
        pytest.param({}, True, id="a chat model"),
        pytest.param({"tokenizer.chat_template": None}, True, id="a base model"),
        pytest.param({"llama.attention.causal": True}, True, id="causal and says so"),
        pytest.param({"llama.attention.causal": False}, False, id="an encoder"),
        pytest.param({"llama.pooling_type": 1}, False, id="an embedding model"),
        pytest.param({"general.architecture": "clip"}, False, id="a projector"),
        pytest.param({"general.type": "mmproj"}, False, id="a projector by its type"),
        pytest.param({"general.type": "adapter"}, False, id="a LoRA"),
        pytest.param({"general.type": "model"}, True, id="a model by its type"),
        pytest.param({"tokenizer.ggml.model": None}, False, id="no tokenizer"),
        pytest.param({"general.architecture": None}, False, id="no architecture"),
    ],
)
def test_tells_what_can_write_text(changes: dict[str, Any], generative: bool) -> None:
    keys = {k: v for k, v in (SMALL.metadata() | changes).items() if v is not None}
    header = parse(header_bytes(keys, []))
    assert header.is_generative is generative
    assert header.has_chat_template == ("tokenizer.chat_template" in keys)


def test_the_files_of_a_split_set_name_one_another(tmp_path: Path) -> None:
    names = [f"model-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for name in names:
        assert shard_paths(tmp_path / name) == tuple(tmp_path / n for n in names)


@pytest.mark.parametrize(
    "name",
    ["model.gguf", "model-00001-of-00003.gguf.part", "model-1-of-3.gguf", "-00001-of-00002.gguf"],
)
def test_a_file_of_another_name_is_whole(name: str, tmp_path: Path) -> None:
    assert shard_paths(tmp_path / name) == (tmp_path / name,)


def test_a_shard_says_how_many_there_are() -> None:
    raw = with_keys(key("split.no", 2, b"\1\0"), key("split.count", 2, b"\3\0"))
    assert parse(raw).split_count == 3


# -- refusals ------------------------------------------------------------------------------------

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"GGU", r"it begins with b'GGU', not with b'GGUF'", id="three bytes"),
        pytest.param(b"Once upon a time", r"it begins with b'Once'", id="text"),
        pytest.param(b"versions of this", r"it begins with b'vers'", id="text like a pointer"),
        pytest.param(bytes(4096), r"it begins with b'\x00\x00\x00\x00'", id="zeros"),
        pytest.param(b"\x7fELF" + bytes(60), r"it begins with b'\x7fELF'", id="a program"),
        pytest.param(b"PK\x03\x04" + bytes(60), "it is a zip archive", id="zip"),
        pytest.param(LFS_POINTER, "it is a Git LFS pointer", id="LFS pointer"),
        pytest.param(b"<!DOCTYPE html><html>", "it is a web page", id="HTML"),
        pytest.param(b"\xef\xbb\xbf\r\n <html>", "it is a web page", id="HTML after blanks"),
        pytest.param(b"lmgg" + bytes(60), "a format before GGUF", id="GGML"),
        pytest.param(b"fmgg" + bytes(60), "a format before GGUF", id="GGMF"),
        pytest.param(b"tjgg" + bytes(60), "a format before GGUF", id="GGJT"),
        pytest.param(b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "it is big-endian", id="big-endian"),
        pytest.param(b"GGUF" + struct.pack(">IQQ", 2, 0, 0), "it is big-endian", id="big-endian 2"),
        pytest.param(preamble(version=0), "its GGUF version 0 is not known", id="version 0"),
        pytest.param(preamble(version=1), "it is of GGUF version 1", id="version 1"),
        pytest.param(preamble(version=9), "its GGUF version 9 is not known", id="version 9"),
        pytest.param(
            preamble(n_tensors=100_001), "it claims 100001 tensors", id="too many tensors"
        ),
        pytest.param(
            preamble(n_tensors=2**64 - 1), f"it claims {2**64 - 1} tensors", id="all the tensors"
        ),
        pytest.param(preamble(n_keys=4097), "it claims 4097 metadata keys", id="too many keys"),
        pytest.param(preamble(n_keys=2**63), f"it claims {2**63} metadata keys", id="all the keys"),
        pytest.param(
            with_keys(key("k" * 1025, 4, bytes(4))),
            "a metadata key is 1025 bytes long (at most 1024",
            id="key too long",
        ),
        pytest.param(
            preamble(0, 1) + struct.pack("<Q", 2**64 - 1),
            f"a metadata key is {2**64 - 1} bytes long",
            id="key of all bytes",
        ),
        pytest.param(
            with_keys(string("k") + struct.pack("<IQ", 8, 4 * MIB + 1)),
            "the value of 'k' is 4194305 bytes long (at most 4194304",
            id="string too long",
        ),
        pytest.param(
            with_keys(string("k") + struct.pack("<IQ", 8, 3 * MIB)),
            "the value of 'k' reaches past the end of the file",
            id="long string beyond the file",
        ),
        pytest.param(
            with_keys(string("k") + struct.pack("<IQ", 8, 100)),
            "its header reaches past the end of the file",
            id="string beyond the file",
        ),
        pytest.param(
            with_keys(key("k", 9, array(4, 4_000_001))),
            "the array 'k' claims 4000001 elements (at most 4000000",
            id="array too long",
        ),
        pytest.param(
            with_keys(key("k", 9, array(4, 3_000_000))),
            "the array 'k' reaches past the end of the file",
            id="array beyond the file",
        ),
        pytest.param(
            with_keys(key("k", 9, array(8, 3000))),
            "its header reaches past the end of the file",
            id="strings beyond the file",
        ),
        pytest.param(
            with_keys(key("k", 9, array(8, 2000, string("w") * 10 + struct.pack("<Q", 2**40)))),
            f"a string of {2**40} bytes in the array 'k'",
            id="a string too long among many",
        ),
        pytest.param(
            with_keys(key("a", 9, array(8, 3)) + bytes(24), key("b", 9, array(8, 1_999_998))),
            "its arrays hold more than 2000000 strings",
            id="too many strings in all",
        ),
        pytest.param(
            with_keys(key("k", 9, array(9, 1, array(4, 1, bytes(4))))),
            "the array 'k' nests arrays",
            id="nested array",
        ),
        pytest.param(
            with_keys(key("k", 13, bytes(8))), "'k' has the unknown type 13", id="unknown type"
        ),
        pytest.param(
            with_keys(key("k", 9, array(13, 1, bytes(8)))),
            "the array 'k' has elements of the unknown type 13",
            id="unknown element type",
        ),
        pytest.param(
            with_keys(key("k", 4, bytes(4)), key("k", 4, bytes(4))),
            "the metadata key 'k' occurs twice",
            id="duplicate key",
        ),
        pytest.param(with_keys(key("k", 7, b"\2")), "'k' holds neither true nor false", id="bool"),
        pytest.param(
            with_keys(key("k", 9, array(7, 2, b"\1\2"))),
            "'k' holds neither true nor false",
            id="bool in an array",
        ),
        *(
            pytest.param(
                with_keys(key("general.alignment", kind, raw)),
                "is not a power of two up to 1048576",
                id=f"alignment {name}",
            )
            for name, kind, raw in (
                ("0", 4, bytes(4)),
                ("3", 4, struct.pack("<I", 3)),
                ("2 MiB", 4, struct.pack("<I", 2 * MIB)),
                ("2^63", 10, struct.pack("<Q", 2**63)),
                ("-32", 5, struct.pack("<i", -32)),
                ("text", 8, string("32")),
                ("float", 6, struct.pack("<f", 32)),
                ("true", 7, b"\1"),
                ("array", 9, array(4, 1, struct.pack("<I", 32))),
            )
        ),
        pytest.param(
            with_tensors(tensor(), tensor(offset=256)), "the tensor 't' occurs twice", id="twin"
        ),
        pytest.param(
            with_tensors(tensor(name="n" * 129)),
            "a tensor's name is 129 bytes long",
            id="name too long",
        ),
        pytest.param(
            with_tensors(tensor(shape=())), "the tensor 't' has 0 dimensions", id="no dimension"
        ),
        pytest.param(
            with_tensors(tensor(shape=(1,) * 5)), "has 5 dimensions (1 to 4", id="five dimensions"
        ),
        pytest.param(
            with_tensors(string("t") + struct.pack("<I", 2**32 - 1)),
            f"has {2**32 - 1} dimensions",
            id="all the dimensions",
        ),
        pytest.param(
            with_tensors(tensor(kind=4)),
            "is of type 4, which this engine does not know",
            id="withdrawn tensor type",
        ),
        pytest.param(
            with_tensors(tensor(kind=2**31)), f"is of type {2**31}", id="unknown tensor type"
        ),
        pytest.param(
            with_tensors(tensor(shape=(0,))), "has the impossible shape [0]", id="zero shape"
        ),
        pytest.param(
            with_tensors(tensor(shape=(32, 0))), "the impossible shape [32, 0]", id="zero rows"
        ),
        pytest.param(
            with_tensors(tensor(shape=(2**32, 2**32))), "the impossible shape", id="2^64 elements"
        ),
        pytest.param(
            with_tensors(tensor(shape=(2**63, 2, 2**63, 2))), "the impossible shape", id="2^128"
        ),
        pytest.param(
            with_tensors(tensor(shape=(2**61,))), "it is cut short: the tensor 't'", id="2^61"
        ),
        pytest.param(
            with_tensors(tensor(shape=(33, 32), kind=TYPE_NUMBERS["Q8_0"])),
            "has rows of 33, no multiple of the 32 that Q8_0 needs",
            id="half a block",
        ),
        pytest.param(
            with_tensors(tensor(shape=(128, 2), kind=TYPE_NUMBERS["Q4_K"])),
            "has rows of 128, no multiple of the 256 that Q4_K needs",
            id="blocks over two rows",
        ),
        pytest.param(
            with_tensors(tensor(offset=32)), "'t' lies at 32 where 0 is due", id="a hole before"
        ),
        pytest.param(
            with_tensors(tensor(), tensor("u", offset=128)),
            "'u' lies at 128 where 256 is due",
            id="overlapping",
        ),
        pytest.param(
            with_tensors(tensor(), tensor("u", offset=0)), "'u' lies at 0", id="one on the other"
        ),
        pytest.param(
            with_tensors(tensor("u", offset=2**64 - 32)), f"'u' lies at {2**64 - 32}", id="far out"
        ),
        pytest.param(
            with_tensors(tensor(shape=(4, 1)), tensor("u", offset=16)),
            "'u' lies at 16 where 32 is due",
            id="not aligned",
        ),
        pytest.param(
            with_tensors(tensor(), room=64), "it is cut short: the tensor 't' ends", id="cut data"
        ),
        pytest.param(
            with_tensors(tensor("blk.1024.t")),
            "the tensor 'blk.1024.t' is of a layer beyond the 1024 accepted",
            id="a layer too far",
        ),
        pytest.param(
            with_tensors(tensor(f"blk.{2**64}.t")),
            f"the tensor 'blk.{2**64}.t' is of a layer beyond",
            id="a layer beyond all",
        ),
        *(
            pytest.param(
                with_keys(
                    key("general.architecture", 8, string("llama")), key("llama.block_count", k, v)
                ),
                f"it claims {n} layers (at most 1024 are accepted)",
                id=f"{n} layers",
            )
            for n, k, v in (
                (1025, 4, struct.pack("<I", 1025)),
                (2**64 - 1, 10, b"\xff" * 8),
                (-1, 5, b"\xff" * 4),
            )
        ),
    ],
)
def test_refuses_what_is_not_sound(raw: bytes, sentence: str) -> None:
    with pytest.raises(GgufError) as caught:
        parse(raw)
    message = caught.value.message
    assert message.startswith("it is not a sound GGUF file: ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize("size_bytes", [2**50 + 1, 2**63, 2**64])
def test_a_file_longer_than_files_can_be_is_refused(size_bytes: int) -> None:
    assert parse(small_file(), file_bytes=2**50).file_bytes == 2**50
    with pytest.raises(GgufError, match=f"it is said to be {size_bytes} bytes long"):
        parse(small_file(), file_bytes=size_bytes)


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        pytest.param(b"", "download it again", id="empty"),
        pytest.param(LFS_POINTER, "git lfs pull", id="LFS pointer"),
        pytest.param(b"<html>", "needs a login", id="HTML"),
        pytest.param(b"lmgg", "a GGUF conversion", id="GGML"),
        pytest.param(b"Once", "name a .gguf file", id="text"),
        pytest.param(with_tensors(tensor(kind=99)), "newer engine", id="a type of tomorrow"),
        pytest.param(with_tensors(tensor(), room=0), "did not finish", id="cut data"),
        pytest.param(preamble(n_keys=1), "did not finish", id="cut header"),
    ],
)
def test_a_refusal_says_what_to_do(raw: bytes, hint: str) -> None:
    with pytest.raises(GgufError) as caught:
        parse(raw)
    assert hint in (caught.value.hint or "")


def test_a_name_in_a_refusal_cannot_reach_the_terminal() -> None:
    raw = with_keys(key("\x1b[2J", 4, bytes(4)), key("\x1b[2J", 4, bytes(4)))
    with pytest.raises(GgufError) as caught:
        parse(raw)
    assert "'\\x1b[2J' occurs twice" in caught.value.message


def test_a_file_that_ends_anywhere_in_its_header_or_data_is_refused() -> None:
    keys = {"general.architecture": "llama", "a": [1, 2], "s": ["x", "y"], "b": True}
    specs = [TENSOR, TensorSpec("u", (32, 4), "Q8_0")]
    whole = header_bytes(keys, specs) + bytes(256 + 136)
    assert len(parse(whole).tensors) == 2
    for n_bytes in range(len(whole)):
        with pytest.raises(GgufError):
            parse(whole[:n_bytes])


def test_a_header_that_ends_before_the_file_does_is_refused() -> None:
    whole = header_bytes({"general.architecture": "llama"}, [TENSOR])
    for n_bytes in range(8, len(whole) - 32):
        with pytest.raises(GgufError, match=r"ends in the middle of its header|begins with"):
            parse(whole[:n_bytes], file_bytes=len(whole) + 256)


def test_a_header_is_refused_where_it_passes_64_mib() -> None:
    n_arrays = 5  # of 16 MB each
    header = preamble(0, n_arrays) + key("0", 9, array(5, 4_000_000))

    class Endless(CountingSource):
        def read(self, offset: int, n_bytes: int) -> bytes:
            self.reads.append((offset, n_bytes))
            step = len(header) - 24 + 16_000_000
            number, at = divmod(max(0, offset - 24), step)
            row = key(str(number), 9, array(5, 4_000_000))
            return header if offset == 0 else row[at:] + bytes(64)

    source = Endless(header, 10 * GIB)
    with pytest.raises(GgufError, match=r"the array '\d' reaches past the 64.0 MiB accepted"):
        parse_header(source)
    assert len(source.reads) <= 2 * n_arrays


# -- what reading costs --------------------------------------------------------------------------


def large_vocabulary(n_vocab: int) -> bytes:
    vocabulary = byte_vocabulary(n_vocab)
    return header_bytes({**SMALL.metadata(), **vocabulary}, [TENSOR])


def test_a_large_vocabulary_is_walked_over_quickly_and_not_kept() -> None:
    raw = large_vocabulary(200_000)
    started = time.perf_counter()
    header = parse(raw, file_bytes=len(raw) + 256)
    seconds = time.perf_counter() - started
    assert header.metadata["tokenizer.ggml.tokens"] == Array(200_000, None)
    assert header.metadata["tokenizer.ggml.token_type"] == Array(200_000, None)
    assert seconds < 1  # 0.05 on a quiet machine

    source = CountingSource(raw, len(raw) + 256)
    tracemalloc.start()
    try:
        parse_header(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize("n_vocab", [260, 20_000, 200_000], ids=["small", "medium", "large"])
def test_reads_the_header_once_and_at_most_one_piece_beyond(n_vocab: int) -> None:
    raw = large_vocabulary(n_vocab)
    source = CountingSource(raw, len(raw) + 20 * GIB)
    header = parse(raw, file_bytes=len(raw) + 20 * GIB)
    assert dict(parse_header(source).metadata) == dict(header.metadata)
    assert all(offset < header.data_offset for offset, _ in source.reads)
    assert sum(n_bytes for _, n_bytes in source.reads) <= len(raw) + 32 * KIB
    assert len(source.reads) <= 2 + len(raw) // (32 * KIB)


def test_a_small_header_costs_one_read() -> None:
    raw = header_bytes(SMALL.metadata(), [TENSOR])
    source = CountingSource(raw, len(raw) + 20 * GIB)
    parse_header(source)
    assert source.reads == [(0, 32 * KIB)]


def test_numbers_are_jumped_over_unread() -> None:
    raw = with_keys(key("k", 9, array(10, 2_000_000, bytes(16_000_000))), key("z", 4, bytes(4)))
    source = CountingSource(raw, len(raw))
    assert parse_header(source).integer("z") == 0
    assert sum(n_bytes for _, n_bytes in source.reads) < 128 * KIB


# Within every single bound; they took seconds, and some hundred MB when made as long as they may
# be, before there were bounds on what is kept and walked over in all.


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            with_keys(*(key(f"{n}", 9, array(0, 1024, bytes(1024))) for n in range(4096))),
            id="numbers",
        ),
        pytest.param(
            with_keys(*(key(f"{n}", 9, array(8, 1024, string("ab") * 1024)) for n in range(1900))),
            id="words",
        ),
        pytest.param(with_keys(key("k", 9, array(8, 2_000_000, bytes(16_000_000)))), id="no words"),
    ],
)
def test_the_most_that_the_bounds_allow_is_read_within_a_second(raw: bytes) -> None:
    started = time.process_time()
    parse(raw)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            with_keys(*(key(f"{n}", 9, array(8, 1024, string("ab") * 1024)) for n in range(400))),
            id="words",  # took 28 MB
        ),
        pytest.param(
            with_keys(*(key(f"{n}", 8, string("\U0001f600" + "x" * 999_996)) for n in range(20))),
            id="a rare wide letter",  # took 80 MB
        ),
    ],
)
def test_what_is_kept_of_a_header_has_a_bound(raw: bytes) -> None:
    source = MemorySource(raw)
    tracemalloc.start()
    try:
        header = parse_header(source)
        held = tracemalloc.get_traced_memory()[0]
        outline(source, header)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # KEPT_ELEMENTS texts of 64 bytes; KEPT_TEXT_BYTES at four bytes a letter
    assert held < 36 * MIB if len(raw) > 10 * MIB else held < 6 * MIB
    assert peak < held + 2 * len(raw) + 2 * MIB


def test_arrays_beyond_what_is_kept_leave_their_length_only() -> None:
    n_kept = gguf.KEPT_ELEMENTS // 1024
    header = parse(with_keys(*(key(f"{n}", 9, array(0, 1024, bytes(1024))) for n in range(80))))
    held = [isinstance(v, Array) and v.values is not None for v in header.metadata.values()]
    assert held == [True] * n_kept + [False] * (80 - n_kept)
    assert {v.n_elements for v in header.metadata.values() if isinstance(v, Array)} == {1024}


def test_texts_beyond_what_is_kept_are_held_as_empty() -> None:
    header = parse(with_keys(*(key(f"{n}", 8, string("x" * MIB)) for n in range(10))))
    assert [len(header.text(f"{n}") or "") for n in range(10)] == [MIB] * 8 + [0, 0]


# -- outlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([], id="nothing"),
        pytest.param([key("tokenizer.ggml.model", 4, bytes(4))], id="a tokenizer that is a number"),
        pytest.param(
            [
                key("general.alignment", 4, struct.pack("<I", MIB)),
                key("tokenizer.ggml.tokens", 9, array(8, 5000, string("w") * 5000)),
            ],
            id="a file that ends before its data would begin",
        ),
    ],
)
def test_an_outline_is_a_sound_header_itself(keys: list[bytes]) -> None:
    source = MemorySource(with_keys(*keys))
    outlined = outline(source, parse_header(source))
    assert outlined.size_bytes >= len(outlined.data)
    assert parse_header(outlined).text("tokenizer.ggml.model") == "no_vocab"


def test_a_vocabulary_larger_than_a_header_can_list_is_refused() -> None:
    def outlined(n_vocab: int) -> MemorySource:
        keys = {"general.architecture": "llama", "llama.vocab_size": n_vocab}
        source = MemorySource(header_bytes(keys, []), "it")
        return outline(source, parse_header(source))

    assert parse_header(outlined(4_000_000)).integer("llama.vocab_size") == 4_000_000
    with pytest.raises(GgufError, match="it states a vocabulary of 4000001 tokens"):
        outlined(4_000_001)


# -- mutations -----------------------------------------------------------------------------------

_EXTREMES = (0, 1, 0x7F, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def flip(raw: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def truncate(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw)) :]


def overwrite(raw: bytearray, rng: random.Random) -> None:
    size = rng.choice((4, 8))
    at = rng.randrange(max(1, len(raw) - size))
    extreme = rng.choice(_EXTREMES) & (256**size - 1)
    raw[at : at + size] = extreme.to_bytes(size, "little")


def splice(raw: bytearray, rng: random.Random) -> None:
    """Takes some bytes out and puts others, of another length, there."""
    start = rng.randrange(len(raw))
    source = rng.randrange(len(raw))
    raw[start : start + rng.randrange(64)] = raw[source : source + rng.randrange(64)]


MUTATIONS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bit flips": flip,
    "truncations": truncate,
    "extremes": overwrite,
    "spliced lengths": splice,
}
MUTATED = {
    "a model": header_bytes({**SMALL.metadata(), **byte_vocabulary(1100)}, SMALL.tensors()),
    "every type": with_keys(
        *(key(f"k{n}", n, b"\1" + bytes(size - 1)) for n, (_, size) in gguf._SCALARS.items()),
        *(key(f"a{n}", 9, array(n, 2, bytes(2 * size))) for n, (_, size) in gguf._SCALARS.items()),
        key("strings", 9, array(8, 1100, string("w") * 1100)),
        key("numbers", 9, array(4, 1100, bytes(4400))),
        key("general.alignment", 4, struct.pack("<I", 64)),
    ),
}
N_MUTATIONS = 3000


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
@pytest.mark.parametrize("header", MUTATED.values(), ids=MUTATED)
def test_a_damaged_header_is_read_or_refused_at_once_and_in_little_memory(
    header: bytes, mutate: Callable[[bytearray, random.Random], None]
) -> None:
    rng = random.Random(f"{len(header)} {mutate.__name__}")
    n_refused, slowest, largest = 0, 0.0, 0
    for _ in range(N_MUTATIONS // (len(MUTATIONS) * len(MUTATED))):
        raw = bytearray(header)
        mutate(raw, rng)
        source = MemorySource(bytes(raw), "mutant", len(header) + 4 * MIB)
        tracemalloc.start()
        started = time.process_time()
        try:
            parse_header(source)
        except GgufError:
            n_refused += 1
        finally:
            slowest = max(slowest, time.process_time() - started)
            largest = max(largest, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert n_refused > 0
    assert slowest < 1
    assert largest < 4 * MIB
