"""The checks before a model is trusted: what passes, what does not, and what is said of it."""

from __future__ import annotations

import hashlib
import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from localllm.digests import Claim
from localllm.gguf import MemorySource, parse_header
from localllm.quants import FILE_TYPES
from localllm.store.checks import (
    Check,
    chat_template_sha256,
    check_integrity,
    check_quantization,
    check_structure,
    header_sha256,
)
from tests.ggufs import CHAT_TEMPLATE, I32, U16, Llama, TensorSpec, header_bytes, write_gguf
from tests.shapes import SHAPES, Shape
from tests.store.things import stored

MODEL = Llama()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return MODEL.write(tmp_path / "model-F32.gguf")


# -- integrity ------------------------------------------------------------------------------------


def test_a_file_as_it_was_recorded_passes(path: Path) -> None:
    seen: list[int] = []
    check = check_integrity(stored(path, path.name), seen.append)
    assert check.passed
    assert "huggingface.co" in check.message
    assert seen[-1] == path.stat().st_size


def test_what_nobody_but_we_said_is_told(path: Path) -> None:
    check = check_integrity(stored(path, path.name, proofs=()))
    assert check.passed
    assert "nobody else" in check.message


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [(_flip, "sha256"), (_cut, "bytes"), (_lengthen, "bytes"), (_remove, "cannot be read")],
)
def test_a_file_that_changed_does_not(change: Any, told: str, path: Path) -> None:
    file = stored(path, path.name)
    change(path)
    check = check_integrity(file)
    assert not check.passed
    assert told in check.message
    assert str(path) in check.message


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"digests": {"sha256": "0" * 64}}, id="recorded"),
        pytest.param({"proofs": (Claim("sha256", "0" * 64, "x"),)}, id="claimed"),
        pytest.param({"proofs": (Claim("md5", "0" * 32, "x"),)}, id="claimed by md5"),
        pytest.param({"proofs": (Claim("git-sha1", "0" * 40, "x"),)}, id="claimed by git"),
    ],
)
def test_every_digest_must_hold(changes: dict[str, Any], path: Path) -> None:
    check = check_integrity(stored(path, path.name, **changes))
    assert not check.passed
    assert "0" * 32 in check.message


# -- structure ------------------------------------------------------------------------------------


def write_parts(folder: Path, n_parts: int = 3, **wrong: Any) -> list[Path]:
    """A split set, as llama-gguf-split writes it; `wrong` replaces what it says of itself."""
    tensors = MODEL.tensors()
    size = -(-len(tensors) // n_parts)
    paths = []
    for no in range(n_parts):
        keys = {} if no else MODEL.metadata()
        keys["split.no"] = U16(wrong.get("numbers", range(n_parts))[no])
        keys["split.count"] = U16(wrong.get("count", n_parts))
        keys["split.tensors.count"] = I32(wrong.get("tensors", len(tensors)))
        part = tensors[no * size : (no + 1) * size] + (wrong.get("more", []) if no else [])
        path = folder / f"model-F32-{no + 1:05d}-of-{n_parts:05d}.gguf"
        paths.append(write_gguf(path, keys, part))
    return paths


def test_a_sound_file_passes(path: Path) -> None:
    check = check_structure([path])
    assert check == Check("structure", True, check.message)
    assert f"{len(MODEL.tensors())} tensors" in check.message
    assert "behind" not in check.message


def test_a_sound_set_passes(tmp_path: Path) -> None:
    check = check_structure(write_parts(tmp_path))
    assert check.passed
    assert f"{len(MODEL.tensors())} tensors lie inside 3 files" in check.message


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"numbers": [0, 2, 1]}, "numbered 2"),
        ({"numbers": [1, 2, 3]}, "numbered 1"),
        ({"count": 4}, "one of 4 parts, and 3"),
        ({"tensors": 99}, "states 99 tensors"),
        ({"more": [TensorSpec("output.weight", (64, 320))]}, "in two parts|occurs twice"),
    ],
    ids=["swapped", "from one", "more parts", "more tensors", "a tensor twice"],
)
def test_a_set_that_does_not_belong_together_does_not_pass(
    wrong: dict[str, Any], told: str, tmp_path: Path
) -> None:
    n_tensors = len(MODEL.tensors()) + 2 * len(wrong.get("more", []))
    check = check_structure(write_parts(tmp_path, **{"tensors": n_tensors, **wrong}))
    assert not check.passed
    assert any(each in check.message for each in told.split("|"))


def test_a_part_alone_or_out_of_order_does_not_pass(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    assert "one of 3 parts, and 1" in check_structure(paths[:1]).message
    assert not check_structure(paths[::-1]).passed
    paths[1].unlink()
    assert not check_structure(paths).passed


@pytest.mark.parametrize("n_bytes", [1, 40, 1000, 100_000])
def test_a_file_that_is_cut_short_does_not_pass(n_bytes: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])
    check = check_structure([path])
    assert not check.passed
    assert str(path) in check.message


def test_bytes_that_belong_to_no_tensor_are_told(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(5000))
    check = check_structure([path])
    assert check.passed
    assert "4.9 KiB behind them" in check.message


def test_no_damage_to_a_header_is_more_than_a_check_that_fails(path: Path) -> None:
    """Seeded: changed bytes, wherever they stand."""
    chance = random.Random(20261120)
    whole, n_failed = path.read_bytes(), 0
    n_header = parse_header(MemorySource(whole)).data_offset
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(64 if chance.random() < 0.3 else n_header)
            raw[at] = chance.randrange(256)
        path.write_bytes(raw)
        for check in (check_structure([path]), check_quantization([path], path.name)):
            n_failed += not check.passed
            assert check.message
    assert n_failed > 50


# -- quantization ---------------------------------------------------------------------------------


@dataclass
class Hollow:
    """Writes headers with a hole of the right size behind them."""

    folder: Path

    def __call__(self, source: MemorySource, name: str = "model.gguf") -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            file.write(source.data)
            file.truncate(source.size_bytes)
        return path


@pytest.fixture
def hollow(tmp_path: Path) -> Hollow:
    return Hollow(tmp_path)


CASES = [(shape, quant) for shape in SHAPES.values() for quant in shape.quants]


@pytest.mark.parametrize(
    ("shape", "quant"), [pytest.param(s, q, id=f"{s.id} {q}") for s, q in CASES]
)
def test_a_real_shape_passes_as_what_it_is_and_as_nothing_else(
    shape: Shape, quant: str, hollow: Hollow
) -> None:
    path = hollow(shape.header(quant))
    assert check_structure([path]).passed
    for other in ("Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "IQ2_XS"):
        check = check_quantization([path], f"sub/model-{other}.gguf")
        assert check.passed == (other == quant), check.message


#: Other rows take types that are not the quantization's own, and nearer to each other.
FULL_ROWS = [shape for shape in SHAPES.values() if shape.model.sizes.embd % 256 == 0]


@pytest.mark.parametrize("shape", FULL_ROWS, ids=lambda shape: shape.id)
@pytest.mark.parametrize(
    ("name", "quant"),
    [("Q4_K_M", "Q2_K"), ("Q2_K", "Q4_K_M"), ("Q8_0", "Q4_K_M"), ("Q4_K_M", "Q8_0"),
     ("Q5_K_M", "Q3_K_M"), ("UD-Q4_K_XL", "Q2_K"), ("Q4_K_M", "Q6_K"), ("IQ4_XS", "Q2_K")],
)  # fmt: skip
def test_a_header_that_lies_is_found_out_by_the_tensors(
    shape: Shape, name: str, quant: str, hollow: Hollow
) -> None:
    tensors = shape.tensors(quant)
    lie = name if name in FILE_TYPES.values() else "Q4_K_M"
    number = next(number for number, each in FILE_TYPES.items() if each == lie)
    data = header_bytes({**shape.metadata(quant), "general.file_type": number}, tensors)
    n_bytes = sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
    path = hollow(MemorySource(data, "x", len(data) + n_bytes))
    check = check_quantization([path], f"{name}.gguf")
    assert not check.passed, check.message
    assert f"called {name}" in check.message


FFN, ATTENTION = ("ffn_gate", "ffn_up", "ffn_down"), ("attn_q", "attn_k", "attn_v", "attn_output")


def mixed(file_type: str, others: str, n_columns: int = 512, **kinds: str) -> MemorySource:
    """A header whose matrices are of these types, by name; the rest are of `others`."""
    tensors = [TensorSpec("token_embd.weight", (n_columns, 1000), "Q8_0")]
    for layer in range(4):
        for name in ATTENTION:
            shape = (n_columns, n_columns)
            tensors.append(TensorSpec(f"blk.{layer}.{name}.weight", shape, kinds.get(name, others)))
        tensors.append(TensorSpec(f"blk.{layer}.attn_norm.weight", (n_columns,)))
        tensors.append(TensorSpec(f"blk.{layer}.ffn_gate_inp.weight", (n_columns, 8)))
        for name in FFN:
            shape = (n_columns, 4 * n_columns)
            for key in (name, f"{name}_exps"):
                if key == name or key in kinds:
                    dimensions = shape if key == name else (*shape, 8)
                    tensors.append(
                        TensorSpec(f"blk.{layer}.{key}.weight", dimensions, kinds.get(key, others))
                    )
    number = next(number for number, each in FILE_TYPES.items() if each == file_type)
    keys = {"general.architecture": "llama", "general.file_type": number}
    data = header_bytes(keys, tensors)
    return MemorySource(data, "x", len(data) + sum(-(-t.n_bytes // 32) * 32 for t in tensors))


MXFP4_EXPERTS = {f"{name}_exps": "MXFP4" for name in FFN}
LOW_EXPERTS = {f"{name}_exps": "IQ2_XXS" for name in FFN}
XS = {"ffn_gate": "IQ3_XXS", "ffn_up": "IQ3_XXS", "attn_q": "IQ3_XXS", "attn_k": "IQ3_XXS"}
XXS = {"attn_q": "IQ2_S", "attn_k": "IQ2_S", "attn_v": "Q4_K", "attn_output": "IQ3_S"}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("x-F16.gguf", mixed("F16", "F16"), id="F16 with norms in F32"),
        pytest.param("x-BF16.gguf", mixed("BF16", "BF16", attn_q="F32"), id="BF16 and F32"),
        pytest.param("x-Q2_K.gguf", mixed("Q2_K", "Q2_K", attn_q="F32"), id="a rest in F32"),
        pytest.param("x-f32.gguf", mixed("F32", "F32"), id="F32"),
        pytest.param("x-fp16.gguf", mixed("F16", "F16"), id="another spelling"),
        pytest.param("x-Q4_K.gguf", mixed("Q4_K_M", "Q4_K"), id="an alias"),
        pytest.param("x-Q4.gguf", mixed("Q4_K_M", "Q4_K"), id="a bare width"),
        pytest.param("x-Q4_K_P.gguf", mixed("Q4_K_M", "Q4_K"), id="an uploader's own"),
        pytest.param("x-IQ2_M.gguf", mixed("IQ2_M", "IQ2_S", attn_v="Q4_K"), id="IQ2_M"),
        pytest.param("x-IQ2_S.gguf", mixed("IQ2_S", "IQ2_XS"), id="IQ2_S"),
        pytest.param("x-IQ3_XS.gguf", mixed("IQ3_XS", "IQ3_S", **XS), id="IQ3_XS"),
        pytest.param("x-IQ3_XXS.gguf", mixed("IQ3_XXS", "IQ3_XXS", **XXS), id="IQ3_XXS"),
        pytest.param("x-Q4_0.gguf", mixed("Q4_0", "Q4_0", attn_v="Q4_1"), id="with an imatrix"),
        pytest.param("x-UD-Q2_K_XL.gguf", mixed("Q2_K", "Q3_K", **LOW_EXPERTS), id="UD-Q2_K_XL"),
        pytest.param("x-UD-Q4_K_XL.gguf", mixed("Q8_0", "Q5_K"), id="UD-, whatever the header"),
        pytest.param("x-UD-Q8_K_XL.gguf", mixed("Q8_0", "Q8_0", ffn_down="F16"), id="UD-Q8_K_XL"),
        pytest.param("x-Q6_K_L.gguf", mixed("Q6_K", "Q6_K"), id="_L"),
        pytest.param("x-MXFP4_MOE.gguf", mixed("MXFP4_MOE", "Q8_0", **MXFP4_EXPERTS), id="MXFP4"),
        pytest.param("x-mxfp4.gguf", mixed("F16", "BF16", **MXFP4_EXPERTS), id="its makers' MXFP4"),
        pytest.param("x-Q4_K_M.gguf", mixed("Q4_K_M", "Q4_K", **MXFP4_EXPERTS), id="gpt-oss"),
        pytest.param("x-F16.gguf", mixed("F16", "F16", **MXFP4_EXPERTS), id="gpt-oss in F16"),
        pytest.param("x-Q4_K_M.gguf", mixed("Q4_K_M", "Q5_0", 480), id="rows of 480"),
        pytest.param("x-IQ3_S.gguf", mixed("IQ3_S", "IQ4_NL", 480), id="rows of 480 in IQ"),
        pytest.param("x.gguf", mixed("Q4_K_M", "Q4_K"), id="a name that says nothing"),
        pytest.param("x-IQ4_KS.gguf", mixed("Q4_K_M", "Q8_0"), id="a fork's name"),
    ],
)  # fmt: skip
def test_an_honest_mix_passes(name: str, source: MemorySource, hollow: Hollow) -> None:
    check = check_quantization([hollow(source)], name)
    assert check.passed, check.message


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        ("x-Q4_K_M.gguf", mixed("Q4_K_S", "Q4_K"), "header that it is Q4_K_S"),
        ("x-Q4_K_M.gguf", mixed("Q4_K_M", "Q2_K"), "100% Q2_K"),
        ("x-F16.gguf", mixed("F16", "F32"), "100% F32"),
        ("x-F16.gguf", mixed("F16", "BF16"), "100% BF16"),
        ("x-BF16.gguf", mixed("F16", "F16"), "header that it is F16"),
        ("x-MXFP4_MOE.gguf", mixed("MXFP4_MOE", "Q8_0"), "100% Q8_0"),
        ("x-UD-Q4_K_XL.gguf", mixed("Q4_K_M", "Q2_K"), "100% Q2_K"),
        ("x.gguf", mixed("Q8_0", "Q2_K"), "called Q8_0"),
        ("x-Q2_K_XL.gguf", mixed("Q2_K", "Q8_0"), "100% Q8_0"),
    ],
)  # fmt: skip
def test_a_wrong_name_does_not(name: str, source: MemorySource, told: str, hollow: Hollow) -> None:
    check = check_quantization([hollow(source)], name)
    assert not check.passed
    assert told in check.message


def test_all_parts_of_a_set_count(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    assert check_quantization(paths, paths[0].name).passed
    keys = {"split.no": U16(2), "split.count": U16(3)}
    n = 4096  # so that the weights of this part outweigh the others'
    large = [TensorSpec("blk.9.ffn_up.weight", (n, n), "Q2_K")]
    data = header_bytes(keys, large)
    paths[2].write_bytes(data)
    with paths[2].open("r+b") as file:
        file.truncate(len(data) + large[0].n_bytes)
    assert not check_quantization(paths, paths[0].name).passed


def test_a_file_that_is_none_fails_the_check(tmp_path: Path) -> None:
    path = tmp_path / "x-Q4_K_M.gguf"
    assert not check_quantization([path], path.name).passed
    path.write_bytes(b"<html>")
    assert "web page" in check_quantization([path], path.name).message


# -- digests of what a header says ----------------------------------------------------------------


def test_the_header_is_all_before_the_data(path: Path) -> None:
    raw = path.read_bytes()
    n_bytes = len(header_bytes(MODEL.metadata(), MODEL.tensors()))
    assert header_sha256(path) == hashlib.sha256(raw[:n_bytes]).hexdigest()
    before = header_sha256(path)
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert header_sha256(path) == before


def test_the_chat_template_has_a_digest_of_its_own(path: Path) -> None:
    header = parse_header(MemorySource(path.read_bytes()))
    assert chat_template_sha256(header) == hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest()
    bare = replace(MODEL, chat_template=None)
    assert chat_template_sha256(
        parse_header(MemorySource(header_bytes(bare.metadata(), [])))
    ) is None  # fmt: skip


def test_a_template_that_is_no_text_is_none() -> None:
    keys = {"general.architecture": "llama", "tokenizer.chat_template": 7}
    assert chat_template_sha256(parse_header(MemorySource(header_bytes(keys, [])))) is None


def test_a_version_of_gguf_that_nobody_reads_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 9, 0, 0))
    assert "version 9" in check_structure([path]).message
