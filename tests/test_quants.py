"""How tensors are stored, and the ladder, by the word of the engine that is installed."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys

import pytest

from localllm import demo
from localllm.engine.locate import QUANTIZE, find_library, require_tools
from localllm.quants import (
    ALIASES,
    BARE,
    FILE_TYPES,
    FORK_ONLY,
    NATIVE,
    TENSOR_TYPES,
    WITHDRAWN,
    Quant,
    TensorType,
    find_quant,
    ladder,
    nearest_below,
    quality_order,
)

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


@pytest.fixture(scope="module")
def quantize_help() -> str:
    command = [str(require_tools(QUANTIZE).path(QUANTIZE)), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return said.stdout + said.stderr


def test_file_types_have_the_names_that_the_engine_gives_them(quantize_help: str) -> None:
    listed = {int(number): name for number, name in _FILE_TYPE.findall(quantize_help)}
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


# The ladder.

RUNGS = {rung.name: rung for rung in ladder()}

#:   15  or  Q4_K_M  :  4.58G, +0.1754 ppl @ Llama-3-8B
_PPL = re.compile(r"or  (\w+) *: .*?([+-][\d.]+) ppl @ Llama-3-8B")

# tools/perplexity/README.md of llama.cpp 0c1e570, LLaMA 3 8b Scoreboard, the rows "WT 10m".
SCOREBOARD = {
    "Q4_K_M": 0.151303,
    "Q4_K_S": 0.178064,
    "IQ4_NL": 0.223959,
    "IQ4_XS": 0.228071,
    "Q3_K_L": 0.439590,
    "Q3_K_M": 0.502622,
    "IQ3_M": 0.666694,
    "IQ3_S": 0.733867,
    "IQ3_XS": 0.931409,
    "IQ3_XXS": 1.226803,
    "Q3_K_S": 1.371244,
    "IQ2_M": 2.369166,
    "Q2_K": 2.416191,
    "Q2_K_S": 3.092145,
    "IQ2_S": 3.419148,
    "IQ2_XS": 4.529791,
    "IQ2_XXS": 7.860148,
    "IQ1_M": 19.262089,
    "IQ1_S": 54.462959,
}


def test_losses_without_an_imatrix_are_those_that_the_engine_prints(quantize_help: str) -> None:
    printed = {name: float(loss) for name, loss in _PPL.findall(quantize_help)}
    assert len(printed) > 12
    # What it prints for Q2_K_S was measured with an imatrix (of 1k tokens): it takes none without.
    assert printed.pop("Q2_K_S") == 3.1836
    ours = {r.name: r.ppl_increase for r in ladder() if r.ppl_increase is not None and r.loadable}
    assert ours == printed | {"F32": 0, "BF16": 0, "F16": 0.0025}


def test_losses_with_an_imatrix_are_those_of_the_scoreboard() -> None:
    ours = {r.name: r.ppl_increase_imatrix for r in ladder() if r.ppl_increase_imatrix is not None}
    assert ours == {name: pytest.approx(loss, abs=5.1e-5) for name, loss in SCOREBOARD.items()}


@pytest.mark.parametrize("column", ["ppl_increase", "ppl_increase_imatrix"])
def test_published_losses_grow_from_the_top_of_the_ladder_to_its_end(column: str) -> None:
    losses = [loss for rung in ladder() if (loss := getattr(rung, column)) is not None]
    assert losses == sorted(losses)
    assert len(losses) >= 15


def test_an_imatrix_never_makes_it_worse() -> None:
    both = [r for r in ladder() if None not in (r.ppl_increase, r.ppl_increase_imatrix)]
    assert len(both) == 6
    assert all(r.ppl_increase_imatrix < r.ppl_increase for r in both)  # type: ignore[operator]


def test_every_file_type_of_the_engine_is_on_the_ladder() -> None:
    assert set(FILE_TYPES.values()) - RUNGS.keys() == set()


def test_no_two_rungs_have_a_name_in_common() -> None:
    assert len(RUNGS) == len(ladder())
    assert not set(RUNGS) & set(FORK_ONLY)


# Conversion makes the others, not llama-quantize.
@pytest.mark.parametrize("name", sorted(set(FILE_TYPES.values()) - {"F32", "F16", "BF16", "NVFP4"}))
def test_an_imatrix_is_needed_where_the_engine_says_so(name: str) -> None:
    command = [
        str(require_tools(QUANTIZE).path(QUANTIZE)),
        *("--dry-run", "--allow-requantize", str(demo.model_path()), name, "1"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    said = done.stdout + done.stderr  # the vocabulary in it is cut in the middle of letters
    assert b"quant size" in said
    assert (b"will require an imatrix" in said) == RUNGS[name].needs_imatrix


@pytest.mark.parametrize(
    "name",
    ["F32", "BF16", "F16", "Q8_0", "Q6_K", "NVFP4", "MXFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0"],
)
def test_a_file_of_one_type_has_the_bits_of_the_type(name: str) -> None:
    (stored,) = (t for t in TENSOR_TYPES.values() if t.name == name)
    assert RUNGS[name].bits_per_weight == pytest.approx(stored.bits_per_weight, abs=0.001)


@pytest.mark.parametrize("rung", [r for r in ladder() if r.bits_per_weight], ids=lambda r: r.name)
def test_a_mix_is_never_smaller_than_the_type_it_is_named_after(rung: Quant) -> None:
    named = [
        kind.bits_per_weight
        for kind in TENSOR_TYPES.values()
        if rung.name == kind.name or rung.name.startswith(kind.name + "_")
    ]
    assert rung.bits_per_weight is not None
    # Some tensors of a Q3_K_XS are Q2_K.
    slack = 0.2 if rung.name == "Q3_K_XS" else 0.001
    assert rung.bits_per_weight >= min(named, default=0) - slack


def test_bits_of_mixes_are_those_that_llama_cpp_publishes() -> None:
    # tools/quantize/README.md of llama.cpp 0c1e570, Llama-3.1-8B
    table = {
        "IQ1_S": 2.0042, "IQ1_M": 2.1460, "IQ2_XXS": 2.3824, "IQ2_XS": 2.5882, "IQ2_S": 2.7403,
        "IQ2_M": 2.9294, "IQ3_XXS": 3.2548, "IQ3_XS": 3.4977, "IQ3_S": 3.6606, "IQ3_M": 3.7628,
        "IQ4_XS": 4.4597, "IQ4_NL": 4.6818, "Q2_K_S": 2.9697, "Q2_K": 3.1593, "Q3_K_S": 3.6429,
        "Q3_K_M": 3.9960, "Q3_K_L": 4.2979, "Q4_K_S": 4.6672, "Q4_K_M": 4.8944, "Q5_K_S": 5.5704,
        "Q5_K_M": 5.7036, "Q6_K": 6.5633,
    }  # fmt: skip
    assert {name: RUNGS[name].bits_per_weight for name in table} == table


@pytest.mark.parametrize(
    ("name", "size_gib"), [("Q4_0", 4.34), ("Q4_1", 4.78), ("Q5_0", 5.21), ("Q5_1", 5.65)]
)
def test_bits_of_the_oldest_types_are_their_published_sizes(name: str, size_gib: float) -> None:
    """The scoreboard's sizes; Llama-3-8B has 8,030,261,248 weights."""
    bits = size_gib * 2**33 / 8_030_261_248
    assert RUNGS[name].bits_per_weight == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "base", "embedding", "output"),
    [
        ("Q6_K_L", "Q6_K", "Q6_K", "Q6_K"),
        ("Q5_K_L", "Q5_K_M", "Q5_K", "Q6_K"),
        ("Q4_K_L", "Q4_K_M", "Q4_K", "Q6_K"),
        ("Q3_K_XL", "Q3_K_L", "Q3_K", "Q6_K"),
        ("Q2_K_L", "Q2_K", "Q2_K", "Q6_K"),
    ],
)
def test_bits_of_an_l_are_its_base_with_q8_0_at_both_ends(
    name: str, base: str, embedding: str, output: str
) -> None:
    bits = {kind.name: kind.bits_per_weight for kind in TENSOR_TYPES.values()}
    share = 128_256 * 4096 / 8_030_261_248
    more = share * (2 * bits["Q8_0"] - bits[embedding] - bits[output])
    before, after = RUNGS[base].bits_per_weight, RUNGS[name].bits_per_weight
    assert before is not None
    assert after == pytest.approx(before + more, abs=1e-4)


ABOVE = {
    # better: worse
    "UD-Q4_K_XL": "Q4_K_XL",
    "Q4_K_XL": "Q4_K_M",
    "Q4_K_L": "Q4_K_M",
    "UD-Q2_K_XL": "Q2_K",
    "UD-Q8_K_XL": "Q8_0",
    "Q8_0_L": "Q8_0",
    "Q6_K_L": "Q6_K",
    "Q3_K_XL": "Q3_K_L",
    "F16": "UD-Q8_K_XL",
    "BF16": "F16",
    "F32": "BF16",
    "Q5_K_S": "UD-Q4_K_XL",
    "Q4_K_S": "IQ4_XS",
    "Q4_0": "Q3_K_L",
    "IQ3_M": "Q3_K_S",
    "IQ2_M": "Q2_K",
    "IQ1_S": "UD-TQ1_0",
    "UD-TQ1_0": "TQ1_0",
    "Q3_K_M": "Q3_K_XS",
    "MXFP4": "Q3_K_L",
}


@pytest.mark.parametrize(("better", "worse"), ABOVE.items(), ids=ABOVE)
def test_one_stands_above_the_other(better: str, worse: str) -> None:
    high, low = quality_order(better), quality_order(worse)
    assert high is not None
    assert low is not None
    assert high > low


@pytest.mark.parametrize(
    "name", [name for name in RUNGS if name.startswith("UD-")], ids=lambda name: name
)
def test_a_dynamic_recipe_stands_one_above_its_base(name: str) -> None:
    base = quality_order(name[3:])
    assert base is not None
    assert quality_order(name) == base + 1
    assert RUNGS[name].bits_per_weight is None
    assert RUNGS[name].needs_imatrix == RUNGS[name[3:]].needs_imatrix


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("q4_k_m", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("q5_k", "Q5_K_M"),
        ("Q3_K", "Q3_K_M"),
        ("ud-q4_k", "UD-Q4_K_M"),
        ("UD-iq1_s", "UD-IQ1_S"),
        ("Q4_K_P", "Q4_K_M"),
        ("Q6_K_P", "Q6_K"),
        ("Q8_K_P", "Q8_0"),
        ("UD-Q6_K_S", "UD-Q6_K"),
        ("Q4", "Q4_0"),
        ("Q8", "Q8_0"),
        ("mxfp4_moe", "MXFP4_MOE"),
        ("iq4_kss", "IQ4_KSS"),
    ],
)
def test_a_quantization_is_found_by_its_other_names(text: str, name: str) -> None:
    found = find_quant(text)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "text",
    ["", "Q", "Q9_K", "Q4_K_LARGE", "UD-", "UD-Q4", "UD-F16", "XQ4_0", "Q4_0_16_16", "Q4_K_",
     "IQ4_0", "UD-UD-Q4_0"],
)  # fmt: skip
def test_what_nobody_makes_is_not_found(text: str) -> None:
    assert find_quant(text) is None
    assert quality_order(text) is None
    assert nearest_below(text) is None


@pytest.mark.parametrize("name", sorted({*ALIASES.values(), *BARE.values(), *WITHDRAWN, *NATIVE}))
def test_names_in_the_tables_are_rungs(name: str) -> None:
    assert name in RUNGS


@pytest.mark.parametrize("name", [*WITHDRAWN, *FORK_ONLY])
def test_what_the_engine_cannot_load_says_so(name: str) -> None:
    found = find_quant(name)
    assert found is not None
    assert not found.loadable
    assert found.withdrawn == (name in WITHDRAWN)
    assert name not in FILE_TYPES.values()


def test_every_other_rung_can_be_loaded() -> None:
    assert {rung.name for rung in ladder() if not rung.loadable} == set(WITHDRAWN)


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("Q4_0", {"avx2", "neon"}),
        ("Q4_K_M", {"avx2", "neon"}),
        ("UD-Q4_K_XL", {"avx2", "neon"}),
        ("IQ4_NL", {"avx2", "neon"}),
        ("MXFP4_MOE", {"avx2", "neon"}),
        ("Q2_K_S", {"avx512"}),
        ("Q5_K_S", {"neon"}),
        ("Q6_K_L", {"neon"}),
        ("Q8_0", {"neon"}),
        ("UD-Q8_K_XL", {"neon"}),
        ("Q3_K_M", set()),
        ("IQ4_XS", set()),
        ("Q4_1", set()),
        ("F16", set()),
    ],
)
def test_what_is_repacked_where(name: str, where: set[str]) -> None:
    assert RUNGS[name].repacked_on == where


@pytest.mark.parametrize(
    ("name", "slow"),
    [("IQ1_S", True), ("IQ2_M", True), ("IQ3_XXS", True), ("IQ4_XS", True), ("UD-IQ3_S", True),
     ("IQ4_NL", False), ("UD-IQ4_NL", False), ("Q2_K", False), ("TQ2_0", False),
     ("MXFP4", False)],
)  # fmt: skip
def test_codebooks_are_slow_on_a_processor(name: str, slow: bool) -> None:
    assert RUNGS[name].slow_on_cpu is slow


def test_types_to_be_trained_in_are_marked_and_others_not() -> None:
    assert {r.name for r in ladder() if r.native_only} == {"Q2_0", "TQ2_0", "TQ1_0", "Q1_0"}


def test_stepping_down_without_a_repository_passes_the_usual_recipes() -> None:
    step: str | None = "F32"
    passed = []
    while step is not None:
        passed.append(step)
        step = nearest_below(step)
    assert passed == [
        "F32", "BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M",
        "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_M", "IQ3_M", "IQ3_S",
        "IQ3_XS", "IQ3_XXS", "Q3_K_S", "IQ2_M", "Q2_K", "Q2_K_S", "IQ2_S", "IQ2_XS", "IQ2_XXS",
        "IQ1_M", "IQ1_S",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("quant", "among", "below"),
    [
        ("Q4_K_M", ["Q8_0", "Q4_K_M", "IQ4_XS", "Q2_K"], "IQ4_XS"),
        ("UD-Q4_K_XL", ["UD-Q4_K_XL", "Q4_K_M", "UD-Q3_K_XL"], "Q4_K_M"),
        ("Q4_0", ["Q4_0_4_4", "Q4_0_8_8", "Q2_K"], "Q2_K"),
        ("Q4_K_P", ["Q4_K_M", "Q4_K_S"], "Q4_K_S"),
        ("Q5_K_M", ["q4_k_m", "q2_k"], "q4_k_m"),
        ("Q2_K", ["Q8_0", "Q4_K_M"], None),
        ("Q6_K", [], None),
        ("Q6_K", ["IQ4_KSS", "nothing"], None),
    ],
)
def test_stepping_down_within_a_repository(quant: str, among: list[str], below: str | None) -> None:
    assert nearest_below(quant, among) == below
