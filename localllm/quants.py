"""Quantizations: how ggml stores a tensor, what a file of each kind is called, how good it is.

Data with its sources; no files, no choices. Block sizes are ggml's own (`ggml_blck_size`,
`ggml_type_size` of llama.cpp 0c1e570); a test asks the engine that is installed for the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TensorType:
    """How ggml stores the elements of a tensor.

    Attributes:
        name: as in ggml_type, upper case.
        block_elements: elements to a block; a row's length is a multiple of it.
        block_bytes: bytes to a block.
    """

    name: str
    block_elements: int
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Storage per element, scales included."""
        return 8 * self.block_bytes / self.block_elements


#: ggml_type -> storage. Numbers that ggml has withdrawn are absent: a file that uses them
#: cannot be loaded by this engine.
TENSOR_TYPES: dict[int, TensorType] = {
    number: TensorType(name, elements, size)
    for number, name, elements, size in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    )
}

#: general.file_type (llama_ftype of llama.h) -> the quantization's name.
FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}


@dataclass(frozen=True)
class Quant:
    """A rung of the ladder: what a file of this quantization costs, in bits and in quality.

    Attributes:
        name: as llama.cpp or the hub spells it: "Q4_K_M", "UD-Q4_K_XL".
        bits_per_weight: of a whole 8B file, embeddings included; None where the recipe changes
            from model to model (Unsloth's UD- and _XL).
        ppl_increase: perplexity added on Llama-3-8B without an importance matrix; None where
            nobody has published it.
        ppl_increase_imatrix: the same with one.
        needs_imatrix: llama-quantize refuses to make it without an importance matrix.
        repacked_on: instruction sets for which llama.cpp rearranges its main tensor type at
            load time, which makes prompts much faster on a CPU: "avx2", "avx512", "neon".
        slow_on_cpu: decoding looks values up in a codebook, slow without a GPU.
        native_only: loses nothing on a model trained in it, and ruins any other.
        withdrawn: llama.cpp has dropped it; a file of it no longer loads.
        fork_only: only a fork of llama.cpp reads it.
    """

    name: str
    bits_per_weight: float | None = None
    ppl_increase: float | None = None
    ppl_increase_imatrix: float | None = None
    needs_imatrix: bool = False
    repacked_on: frozenset[str] = frozenset()
    slow_on_cpu: bool = False
    native_only: bool = False
    withdrawn: bool = False
    fork_only: bool = False

    @property
    def loadable(self) -> bool:
        """Whether this engine can load a file of it."""
        return not (self.withdrawn or self.fork_only)


# ggml-cpu/repack.cpp (ggml_repack_get_optimal_repack_type) of llama.cpp 0c1e570: the main type
# of a file -> where it is rearranged. RISC-V and SVE are left out.
_REPACKED = {
    "Q4_0": "avx2 neon",
    "Q4_K": "avx2 neon",
    "IQ4_NL": "avx2 neon",
    "MXFP4": "avx2 neon",
    "Q2_K": "avx512",
    "Q5_K": "neon",
    "Q6_K": "neon",
    "Q8_0": "neon",
    "Q1_0": "neon",
}

# src/llama-quant.cpp (tensor_requires_imatrix); IQ3_XS because its recipe holds IQ3_XXS tensors.
_NEEDS_IMATRIX = {
    "IQ3_XS", "IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
}  # fmt: skip

# Where the numbers come from:
#   bits per weight  tools/quantize/README.md of llama.cpp 0c1e570, a Llama-3.1-8B of each; of
#                    Q4_0 to Q5_1 the sizes in tools/perplexity/README.md over the 8.030 billion
#                    weights; of one-type files (F32 to Q8_0, TQ, Q1_0, Q2_0, MXFP4, NVFP4) the
#                    type's own; of bartowski's _L and Q3_K_XL computed from his recipe, which is
#                    the base with embeddings and output (525 million weights each) in Q8_0.
#   without imatrix  `llama-quantize --help` (tools/quantize/quantize.cpp).
#   with imatrix     tools/perplexity/README.md, "LLaMA 3 8b Scoreboard", rows "WT 10m".
# Both columns grow from top to bottom, and a test keeps it so: where a rung has one figure only,
# it stands where that column puts it. Rungs without any figure are argued beside them.
_RUNGS: tuple[tuple[str, float | None, float | None, float | None], ...] = (
    # BF16 is what models are published in, F32 holds it exactly: the reference. F16 against BF16:
    # tools/perplexity/README.md, "LLaMA 3 BF16 vs. FP16 comparison".
    ("F32", 32.0, 0.0, None),
    ("BF16", 16.0, 0.0, None),
    ("F16", 16.0, 0.0025, None),
    # _XL and _L are the rung below them with some tensors kept larger: just above it. Nobody
    # has published their perplexity on a common model. Unsloth publishes divergences per model
    # (unsloth.ai/docs, Dynamic 2.0): better than the plain file of the size, with exceptions
    # (the first UD-Q4_K_XL of Qwen3.5-35B-A3B, mostly MXFP4, which its makers replaced).
    ("Q8_K_XL", None, None, None),
    ("Q8_0_L", None, None, None),
    ("Q8_0", 8.5, 0.0026, None),
    ("Q6_K_XL", None, None, None),
    ("Q6_K_L", 6.8168, None, None),
    ("Q6_K", 6.5633, 0.0217, None),
    ("Q5_K_XL", None, None, None),
    ("Q5_K_L", 6.0266, None, None),
    ("Q5_K_M", 5.7036, 0.0569, None),
    ("Q5_K_S", 5.5704, 0.1049, None),
    ("Q5_1", 6.0438, 0.1062, None),
    ("Q5_0", 5.5731, 0.1316, None),
    ("Q4_K_XL", None, None, None),
    ("Q4_K_L", 5.2828, None, None),
    ("Q4_K_M", 4.8944, 0.1754, 0.1513),
    ("Q4_K_S", 4.6672, 0.2689, 0.1781),
    ("IQ4_NL", 4.6818, None, 0.2240),
    ("IQ4_XS", 4.4597, None, 0.2281),
    ("Q4_1", 5.1131, 0.4511, None),
    ("Q4_0", 4.6425, 0.4685, None),
    # NVFP4 made from a finished model multiplies perplexity by 1.037 to 1.050 (Qwen3-8B and
    # Qwen3.5-27B in ggml-org/llama.cpp #20247, Qwen3.6-35B-A3B in #25153), with the divergence
    # (0.106) of a Q3_K_M; MXFP4 by 1.31 on a dense Qwen3-4B, where Q4_K_M has 1.026
    # (mudler/LocalAI 1887385). Models trained in them (gpt-oss) lose nothing, and their
    # repositories hold little else to choose from.
    ("NVFP4", 4.5, None, None),
    ("MXFP4", 4.25, None, None),
    ("MXFP4_MOE", 4.25, None, None),
    ("Q3_K_XL", 4.7558, None, None),
    ("Q3_K_L", 4.2979, 0.5562, 0.4396),
    ("Q3_K_M", 3.9960, 0.6569, 0.5026),
    ("IQ3_M", 3.7628, None, 0.6667),
    ("IQ3_S", 3.6606, None, 0.7339),
    ("IQ3_XS", 3.4977, None, 0.9314),
    ("IQ3_XXS", 3.2548, None, 1.2268),
    # Of early 2024, then replaced by IQ3_XS: ln(PPL ratio) 0.0458 on Mistral-7B where Q3_K_S has
    # 0.0511, with 3.32 bits (gist.github.com/Artefact2/b5f810600771265fc1e39442288e8ec9).
    ("Q3_K_XS", 3.32, None, None),
    ("Q3_K_S", 3.6429, 1.6321, 1.3712),
    ("IQ2_M", 2.9294, None, 2.3692),
    ("Q2_K_XL", None, None, None),
    ("Q2_K_L", 3.6704, None, None),
    ("Q2_K", 3.1593, 3.5199, 2.4162),
    ("Q2_K_S", 2.9697, None, 3.0921),
    ("IQ2_S", 2.7403, None, 3.4191),
    ("IQ2_XS", 2.5882, None, 4.5298),
    ("IQ2_XXS", 2.3824, None, 7.8601),
    ("IQ1_M", 2.1460, None, 19.2621),
    ("IQ1_S", 2.0042, None, 54.4630),
    # For models trained in two or three values, where they lose nothing (TriLM-3.9B: 11.1517
    # for 11.1508, ggml-org/llama.cpp #11183; Bonsai: #21273, #24448) and which come in nothing
    # else. An ordinary model does not survive them (#8151): below all, larger above smaller.
    # Unsloth's UD-TQ1_0 is a mix of IQ1_S and more under that name, and its smallest file.
    ("Q2_0", 2.25, None, None),
    ("TQ2_0", 2.0625, None, None),
    ("TQ1_0", 1.6875, None, None),
    ("Q1_0", 1.125, None, None),
)

#: What models are trained in. All but the FP4 pair ruin a model that was not.
NATIVE = {"NVFP4", "MXFP4", "MXFP4_MOE", "Q2_0", "TQ2_0", "TQ1_0", "Q1_0"}
_PLAIN = {"F32", "BF16", "F16"}  # never dynamic

#: Q4_0 rearranged for one kind of processor, until the loader did it by itself
#: (ggml-org/llama.cpp #10446, December 2024).
WITHDRAWN = ("Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8")

#: Types of ikawrakow/ik_llama.cpp, which ubergarm and others publish next to the usual ones, and
#: PrismML's own 2-bit type. llama.cpp cannot load them.
FORK_ONLY = (
    "IQ1_BN", "IQ2_BN", "IQ1_KT", "IQ2_KT", "IQ3_KT", "IQ4_KT", "IQ2_KS", "IQ3_KS", "IQ4_KS",
    "IQ5_KS", "IQ4_KSS", "IQ2_KL", "IQ2_K", "IQ3_K", "IQ4_K", "IQ5_K", "IQ6_K", "Q6_0", "Q8_KV",
    "PQ2_0",
)  # fmt: skip

#: Other names of the same thing: llama-quantize's own, and how MXFP4 files are called.
ALIASES = {
    "Q3_K": "Q3_K_M",
    "Q4_K": "Q4_K_M",
    "Q5_K": "Q5_K_M",
    "Q8_K": "Q8_0",
    "MXFP4_MOE": "MXFP4",
}

#: A bare width, as in `Phi-3-mini-4k-instruct-q4.gguf`, says no recipe (that one is Q4_K_M).
#: Until its header is read it counts as the least that it may be.
BARE = {"Q2": "Q2_K", "Q3": "Q3_K_S", "Q4": "Q4_0", "Q5": "Q5_0", "Q6": "Q6_K", "Q8": "Q8_0"}


def _main_type(name: str) -> str:
    """The type of most of a file's tensors: "Q4_K" for "UD-Q4_K_XL"."""
    name = name.removeprefix("UD-").removesuffix("_MOE")
    if name.startswith("Q8_"):  # a Q8_K_XL too: ggml stores no Q8_K
        return "Q8_0"
    return "_".join(name.split("_")[:2]) if "_K_" in name else name


def _rung(name: str, bits: float | None, plain: float | None, imatrix: float | None) -> Quant:
    kind = _main_type(name)
    base = name.removeprefix("UD-")
    return Quant(
        name=name,
        bits_per_weight=bits,
        ppl_increase=plain,
        ppl_increase_imatrix=imatrix,
        needs_imatrix=base in _NEEDS_IMATRIX,
        repacked_on=frozenset(_REPACKED.get(kind, "").split()),
        # The feature matrix of Artefact2's page and bartowski's model cards call the IQ types
        # slow on CPUs. IQ4_NL is not: it is repacked like Q4_0.
        slow_on_cpu=kind.startswith("IQ") and kind not in _REPACKED,
        native_only=name in NATIVE and "FP4" not in name,
    )


def _build() -> tuple[Quant, ...]:
    rungs: list[Quant] = []
    for name, bits, plain, imatrix in _RUNGS:
        if name not in _PLAIN:
            rungs.append(_rung(f"UD-{name}", None, None, None))
        rungs.append(_rung(name, bits, plain, imatrix))
        if name == "Q4_0":  # the same numbers in another order
            rungs += [replace(rungs[-1], name=n, withdrawn=True) for n in WITHDRAWN]
    return tuple(rungs)


_LADDER = _build()
_BY_NAME = {rung.name.upper(): (place, rung) for place, rung in enumerate(reversed(_LADDER))}
_FORKS = {name: Quant(name, fork_only=True) for name in FORK_ONLY}


def ladder() -> tuple[Quant, ...]:
    """Every quantization that this engine has ever known, best first.

    UD- (Unsloth's dynamic recipes), _XL and _L stand just above what they are made from.
    """
    return _LADDER


def find_quant(name: str) -> Quant | None:
    """The rung of this name, in any case; None for what nobody makes.

    Aliases are their rung. A K-quant with an ending that llama.cpp does not know, such as
    Q4_K_P, is an uploader's own recipe and counts as what it is made from (Q4_K_M).
    """
    wanted = name.upper()
    dynamic, base = ("UD-", wanted[3:]) if wanted.startswith("UD-") else ("", wanted)
    own = re.sub(r"(_K)_[A-Z]{1,3}$", r"\1", base)
    for known in (base, ALIASES.get(base), ALIASES.get(own, own), BARE.get(wanted)):
        if known and dynamic + known in _BY_NAME:
            return _BY_NAME[dynamic + known][1]
    return _FORKS.get(wanted)


def quality_order(quant: str) -> int | None:
    """A place on the ladder, higher is better; None for what is not on it (a fork's types)."""
    rung = find_quant(quant)
    return None if rung is None or rung.fork_only else _BY_NAME[rung.name.upper()][0]


def nearest_below(quant: str, among: Iterable[str] | None = None) -> str | None:
    """The best quantization worse than this one that loads; None at the end of the ladder.

    Args:
        quant: where to step down from.
        among: the ones to choose from, such as a repository's; None for llama-quantize's own
            recipes, which are there for most models: no UD-, _XL or _L, and none of the types
            that a model must be trained in.
    """
    start = quality_order(quant)
    if start is None:
        return None
    if among is None:
        usual = set(FILE_TYPES.values()) - NATIVE
        among = (rung.name for rung in _LADDER if rung.name in usual)
    below = [
        (place, name)
        for name in among
        if (place := quality_order(name)) is not None
        and place < start
        and name.upper() not in WITHDRAWN
    ]
    return max(below)[1] if below else None
