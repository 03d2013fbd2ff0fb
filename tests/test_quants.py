"""How tensors are stored, by the word of the engine that is installed."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys

import pytest

from localllm.engine.locate import QUANTIZE, find_library, require_tools
from localllm.quants import FILE_TYPES, TENSOR_TYPES, TensorType

# Asks ggml itself, in a child: a number beyond the last type is read from beyond its table. How
# many types there are is what gguf.cpp says of a file with an impossible one (on stderr):
#   gguf_init_from_reader: tensor 't' has invalid ggml type 1000000. should be in [0, 43)
_ASK = """
import ctypes, json, sys

class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]

ggml = ctypes.CDLL(sys.argv[1])
ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
ggml.ggml_type_name.restype = ctypes.c_char_p
ggml.ggml_blck_size.restype = ctypes.c_int64
ggml.ggml_type_size.restype = ctypes.c_size_t
if len(sys.argv) > 3:
    rows = [
        [n, ggml.ggml_type_name(n).decode(), ggml.ggml_blck_size(n), ggml.ggml_type_size(n)]
        for n in range(int(sys.argv[3]))
    ]
    print(json.dumps(rows))
else:
    assert ggml.gguf_init_from_file(sys.argv[2].encode(), Params(True, None)) is None
"""


def _ask(*argv: str) -> subprocess.CompletedProcess[str]:
    folder = find_library()
    assert folder is not None
    (ggml,) = (
        path
        for path in folder.glob("*ggml-base.*")
        if path.suffix in (".so", ".dylib", ".dll") and path.stem.endswith("ggml-base")
    )
    command = [sys.executable, "-c", _ASK, str(ggml), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.fixture(scope="module")
def engine_types(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TensorType]:
    """ggml's own table, without the numbers that it has withdrawn (they store nothing)."""
    impossible = tmp_path_factory.mktemp("quants") / "impossible.gguf"
    impossible.write_bytes(
        b"GGUF"
        + struct.pack("<IQQ", 3, 1, 0)
        + struct.pack("<Q1sIQIQ", 1, b"t", 1, 32, 1_000_000, 0)
        + bytes(64)
    )
    said = re.search(r"should be in \[0, (\d+)\)", _ask(str(impossible)).stderr)
    assert said is not None
    rows = json.loads(_ask(str(impossible), said[1]).stdout)
    return {n: TensorType(name.upper(), block, size) for n, name, block, size in rows if size}


def test_every_type_that_the_engine_stores_is_known(engine_types: dict[int, TensorType]) -> None:
    assert engine_types.keys() - TENSOR_TYPES.keys() == set()


def test_no_type_is_known_that_the_engine_cannot_store(
    engine_types: dict[int, TensorType],
) -> None:
    assert TENSOR_TYPES.keys() - engine_types.keys() == set()


@pytest.mark.parametrize("number", TENSOR_TYPES, ids=[t.name for t in TENSOR_TYPES.values()])
def test_a_type_is_stored_as_the_engine_stores_it(
    number: int, engine_types: dict[int, TensorType]
) -> None:
    assert TENSOR_TYPES[number] == engine_types[number]


# llama-quantize --help:
#   15  or  Q4_K_M  :  4.58G, +0.1754 ppl @ Llama-3-8B
#   15  or  Q4_K    : alias for Q4_K_M
_FILE_TYPE = re.compile(r"^ +(\d+)  or  (\w+) *:(?! alias)", re.MULTILINE)


def test_file_types_have_the_names_that_the_engine_gives_them() -> None:
    command = [str(require_tools(QUANTIZE).path(QUANTIZE)), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    listed = {int(number): name for number, name in _FILE_TYPE.findall(said.stdout + said.stderr)}
    assert len(listed) > 20
    # NVFP4 is not in the list: files of it come from conversion, not from llama-quantize.
    assert listed | {39: "NVFP4"} == FILE_TYPES


@pytest.mark.parametrize(
    ("name", "bits"),
    [("F32", 32), ("F16", 16), ("Q8_0", 8.5), ("Q6_K", 6.5625), ("Q4_K", 4.5), ("Q4_0", 4.5)],
)
def test_bits_per_weight_count_the_scales(name: str, bits: float) -> None:
    (kind,) = (kind for kind in TENSOR_TYPES.values() if kind.name == name)
    assert kind.bits_per_weight == bits


def test_a_name_stands_for_one_type_only() -> None:
    assert len({kind.name for kind in TENSOR_TYPES.values()}) == len(TENSOR_TYPES)
    assert len(set(FILE_TYPES.values())) == len(FILE_TYPES)
