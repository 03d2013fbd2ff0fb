"""The shapes that plans are tried on are those of real files: to the byte where one is known."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from localllm.engine.dryrun import DryRun
from localllm.engine.locate import QUANTIZE, Tools
from localllm.gguf import parse_header
from localllm.hub.localfile import read_header
from localllm.plan import Model, Plan
from localllm.quants import quality_order
from localllm.units import GIB, MIB
from tests.architectures.blocks import ATTENTION, Sizes
from tests.architectures.dense import dense
from tests.architectures.experts import WIDE_EXPERTS
from tests.ggufs import write_gguf
from tests.shapes import SHAPES, Shape
from tests.shapes.recipe import DECEMBER_2023

_every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
_EVERY_FILE = [(shape, quant) for shape in SHAPES.values() for quant in shape.quants]
_every_file = pytest.mark.parametrize(
    ("shape", "quant"), _EVERY_FILE, ids=[f"{shape.id} {quant}" for shape, quant in _EVERY_FILE]
)

# [   1/ 292] output.weight                        - [  4096, 128256,      1,      1],
# type =    f16, size =  1002.00 MiB ->   410.98 MiB (q6_K)             (all on one line)
_QUANTIZED = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[.*\], type = +(?P<old>\w+), size = .*?"
    r"(?:\((?P<new>\w+)\))?$",
    re.MULTILINE,
)


def _weights_bytes(shape: Shape, quant: str) -> int:
    return sum(tensor.n_bytes for tensor in shape.tensors(quant))


def _n_parameters(shape: Shape) -> int:
    return sum(tensor.n_elements for tensor in parse_header(shape.header("F16")).tensors)


def _run_quantize(tools: Tools, *argv: str) -> str:
    """What llama-quantize printed."""
    done = subprocess.run(
        [str(tools.path(QUANTIZE)), *argv], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout + done.stderr


def _quantize_name(quant: str) -> str:
    return "MXFP4_MOE" if quant == "MXFP4" else quant


# -- the rules are llama-quantize's ----------------------------------------------------------


@_every_shape
def test_every_tensor_has_the_type_that_llama_quantize_would_give_it(
    tools: Tools, tmp_path: Path, shape: Shape
) -> None:
    """Asked of the real tool at full size: its --dry-run reads names and shapes, not weights."""
    source = shape.header("F16")
    whole = tmp_path / "whole.gguf"
    with whole.open("wb") as file:
        file.write(source.data)
        file.truncate(source.size_bytes)
    for quant in (quant for quant in shape.quants if quant != "F16"):
        log = _run_quantize(tools, "--dry-run", str(whole), _quantize_name(quant), "1")
        told = {
            match["name"]: (match["new"] or match["old"]).upper()
            for match in _QUANTIZED.finditer(log)
        }
        assert told == {tensor.name: tensor.kind for tensor in shape.tensors(quant)}, quant


_SMALL = (
    Shape("dense", "dense", dense("llama", n_layers=9, sizes=Sizes(embd=256, ff=512, head=64))),
    # Rows of 288 are no multiple of 256: other types, with blocks of 32.
    Shape("narrow", "narrow", dense("llama", n_layers=9, sizes=Sizes(embd=288, ff=512, head=72))),
    Shape(
        "experts",
        "experts",
        dense(
            "llama",
            ATTENTION,
            "ffn_norm embd",
            WIDE_EXPERTS,
            n_layers=4,
            sizes=Sizes(embd=256, ff=256, head=64, experts=8),
        ),
    ),
)


@pytest.mark.parametrize("quant", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"])
@pytest.mark.parametrize("shape", _SMALL, ids=[shape.id for shape in _SMALL])
def test_a_model_that_is_really_quantized_is_the_predicted_file(
    tools: Tools, tmp_path: Path, shape: Shape, quant: str
) -> None:
    whole, small = tmp_path / "whole.gguf", tmp_path / "small.gguf"
    write_gguf(whole, shape.model.metadata(), shape.tensors("F16"))
    _run_quantize(tools, str(whole), str(small), quant, "1")
    made = read_header(small)
    predicted = shape.tensors(quant)
    assert [(t.name, t.type.name) for t in made.tensors] == [(t.name, t.kind) for t in predicted]
    assert made.file_bytes - made.data_offset == sum(tensor.n_bytes for tensor in predicted)


# -- the headers are sound ---------------------------------------------------------------------


@_every_file
def test_a_header_is_accepted_and_states_what_it_is(shape: Shape, quant: str) -> None:
    source = shape.header(quant)
    header = parse_header(source)
    assert header.architecture == shape.architecture
    assert header.quant == _quantize_name(quant)
    assert header.n_layers == shape.model.n_layers
    assert header.integer(f"{shape.architecture}.vocab_size") == shape.model.sizes.vocab
    assert "tokenizer.ggml.tokens" not in header.metadata
    assert len(source.data) == header.data_offset < 100_000
    assert source.size_bytes == shape.size_bytes(quant)
    assert source.size_bytes == header.data_offset + sum(t.n_bytes for t in header.tensors)


@_every_shape
def test_llama_cpp_can_dry_run_every_shape(shape: Shape) -> None:
    quant = "Q4_K_M" if "Q4_K_M" in shape.quants else shape.quants[0]
    with DryRun(outlines={shape.id: [shape.header(quant)]}) as oracle:
        (host,) = oracle.memory(Plan(Model(shape.id, shape.id), n_ctx=4096))
    # Tied embeddings are not counted twice, and nothing is left out.
    assert host.model_bytes == pytest.approx(_weights_bytes(shape, quant), rel=1e-5)
    assert host.context_bytes > 0


@_every_shape
def test_quantizations_are_known_and_listed_worst_first(shape: Shape) -> None:
    places = [quality_order(quant) for quant in shape.quants]
    assert None not in places
    assert places == sorted(places, key=lambda place: place or 0)


def test_a_worse_quantization_of_narrow_rows_can_be_the_larger_file() -> None:
    # Rows of 896 are no multiple of 256: most of both files is Q4_0, and attn_v is Q5_0 in the
    # Q2_K.
    narrow, wide = SHAPES["0.5b"], SHAPES["8b"]
    assert narrow.size_bytes("Q2_K") > narrow.size_bytes("Q3_K_S")
    assert wide.size_bytes("Q2_K") < wide.size_bytes("Q3_K_S")


def test_a_header_is_made_once() -> None:
    assert SHAPES["8b"].header("Q4_K_M") is SHAPES["8b"].header("Q4_K_M")


# -- the sizes are published ones --------------------------------------------------------------

#: llama-bench's column "params", from tables on github.com that list these models.
_BILLIONS = {
    "1b": 1.24, "4b": 4.02, "8b": 8.03, "12b-swa": 11.77, "30b-a3b": 30.53, "32b": 32.76,
    "8x7b": 46.70, "70b": 70.55, "80b-a3b": 79.67, "120b-moe": 116.83,
}  # fmt: skip


@pytest.mark.parametrize(("id_", "billions"), _BILLIONS.items(), ids=list(_BILLIONS))
def test_a_shape_has_as_many_parameters_as_llama_bench_counts(id_: str, billions: float) -> None:
    assert round(_n_parameters(SHAPES[id_]) / 1e9, 2) == billions


def test_a_known_file_is_met_to_the_byte() -> None:
    # llama-bench -o json on Qwen3-4B-Instruct-2507-Q4_K_M.gguf: model_size, model_n_params.
    assert _weights_bytes(SHAPES["4b"], "Q4_K_M") == 2_491_323_904
    assert _n_parameters(SHAPES["4b"]) == 4_022_468_096


#: llama.cpp's tools/quantize/README.md, "meta-llama/Llama-3.1-8B", bits/weight.
_BITS_PER_WEIGHT = {
    "Q2_K": 3.1593, "Q3_K_S": 3.6429, "Q3_K_M": 3.9960, "Q3_K_L": 4.2979, "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944, "Q5_K_S": 5.5704, "Q5_K_M": 5.7036, "Q6_K": 6.5633, "Q8_0": 8.5008,
    "F16": 16.0005,
}  # fmt: skip


@pytest.mark.parametrize(("quant", "bits"), _BITS_PER_WEIGHT.items(), ids=list(_BITS_PER_WEIGHT))
def test_llama_8b_has_the_bits_per_weight_that_llama_cpp_publishes(quant: str, bits: float) -> None:
    shape = SHAPES["8b"]
    assert round(8 * _weights_bytes(shape, quant) / _n_parameters(shape), 4) == bits


#: llama-bench's column "size", which counts tensors and no header: 120B from llama.cpp's
#: benches/mac-m2-ultra, the others, all Q4_K_M, from tables on github.com that list them.
_GIB = {
    "1b": 762.81 * MIB / GIB, "4b": 2.32, "8b": 4.58, "12b-swa": 6.79, "30b-a3b": 17.28,
    "32b": 18.48, "8x7b": 26.49, "70b": 39.59, "120b-moe": 59.02,
}  # fmt: skip


@pytest.mark.parametrize(("id_", "gib"), _GIB.items(), ids=list(_GIB))
def test_weights_take_what_llama_bench_says(id_: str, gib: float) -> None:
    shape = SHAPES[id_]
    quant = "Q4_K_M" if "Q4_K_M" in shape.quants else shape.quants[0]
    assert _weights_bytes(shape, quant) / GIB == pytest.approx(gib, abs=0.005)


#: Sizes of whole files, 10^9 bytes: bartowski's tables of Llama-3.1-8B, of Llama-3.1-70B and its
#: Nemotron, of Qwen2.5-32B, Qwen3-30B-A3B and gemma-3-12b; his Qwen2.5-0.5B to the byte;
#: Qwen3-Coder-Next, of Qwen3-Next's shape, as steampunque gives it.
_PUBLISHED_GB = {
    "8b": {"Q2_K": 3.18, "Q3_K_M": 4.02, "Q4_K_M": 4.92, "Q5_K_M": 5.73, "Q6_K": 6.60,
           "Q8_0": 8.54, "F16": 16.07},
    "70b": {"Q2_K": 26.38, "Q3_K_S": 30.91, "Q3_K_M": 34.27, "Q3_K_L": 37.14, "Q4_K_S": 40.35,
            "Q4_K_M": 42.52, "Q5_K_S": 48.66, "Q5_K_M": 49.95, "Q6_K": 57.89, "Q8_0": 74.98},
    "0.5b": {"Q4_K_M": 0.397808192},
    "12b-swa": {"Q5_K_S": 8.23},
    "32b": {"Q4_K_M": 19.85},
    "30b-a3b": {"Q8_0": 32.48},
    "80b-a3b": {"Q4_K_M": 48.5},
}  # fmt: skip
_PUBLISHED = [(i, quant, gb) for i, table in _PUBLISHED_GB.items() for quant, gb in table.items()]


@pytest.mark.parametrize(
    ("id_", "quant", "published_gb"), _PUBLISHED, ids=[f"{i} {quant}" for i, quant, _ in _PUBLISHED]
)
def test_a_file_is_as_large_as_the_published_one(id_: str, quant: str, published_gb: float) -> None:
    missing_bytes = published_gb * 1e9 - SHAPES[id_].size_bytes(quant)
    # A vocabulary takes up to 16 MB, and tables are rounded to 10 MB (the last one to 100).
    assert -5e6 <= missing_bytes <= 21e6


#: TheBloke's table of Mixtral-8x7B-v0.1-GGUF, December 2023, 10^9 bytes.
_MIXTRAL_GB = {
    "Q2_K": 15.64, "Q3_K_M": 20.36, "Q4_K_M": 26.44, "Q5_K_M": 32.23, "Q6_K": 38.38, "Q8_0": 49.62,
}  # fmt: skip


@pytest.mark.parametrize(("quant", "published_gb"), _MIXTRAL_GB.items(), ids=list(_MIXTRAL_GB))
def test_mixtral_of_december_2023_is_met_with_the_recipe_of_that_month(
    quant: str, published_gb: float
) -> None:
    """Today's recipe gives other sizes, since experts are no longer forgotten.

    Mixtral's experts were called ffn_down.3.weight then, and the rule looked for
    "ffn_down.weight": Q4_K_M was Q4_K_S (ggml-org/llama.cpp #4872, January 2024, which put it
    right and counts 14.57 and 15.99 GiB for Q2_K before and after).
    """
    size_gb = SHAPES["8x7b"].size_bytes(quant, DECEMBER_2023) / 1e9
    assert size_gb == pytest.approx(published_gb, rel=0.0005)


def test_mixtral_has_grown_as_the_changes_to_its_recipe_say() -> None:
    mixtral = SHAPES["8x7b"]
    # #4872, "Q2_K (Master)", "Q3_K_M (Master)"
    assert mixtral.size_bytes("Q2_K", DECEMBER_2023) / GIB == pytest.approx(14.57, abs=0.01)
    assert mixtral.size_bytes("Q3_K_M", DECEMBER_2023) / GIB == pytest.approx(18.96, abs=0.01)
    # #4906: "This makes the new Q3_K_S be exactly the same as the old Q3_K_L."
    assert mixtral.size_bytes("Q3_K_S") == mixtral.size_bytes("Q3_K_L", DECEMBER_2023)
    # Nothing to choose from, nothing to forget.
    for quant in ("Q6_K", "Q8_0"):
        assert mixtral.size_bytes(quant) == mixtral.size_bytes(quant, DECEMBER_2023)
