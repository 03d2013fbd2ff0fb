"""Which type llama-quantize gives to each tensor of a model, restated for the usual K-quants.

It knows tensors by name and shape, and the few facts of a model that the rules ask for; files
and weights it does not know. The rules are those of src/llama-quant.cpp of llama.cpp 0c1e570
(tensor_allows_quantization, llama_tensor_get_type_impl, tensor_type_fallback), without Falcon's
exceptions, the IQ types and importance matrices, which change none of these mixtures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from localllm.quants import TENSOR_TYPES
from tests.ggufs import TensorSpec

#: The recipe of today, and that of Mixtral's first month: see `tensor_types`.
NOW, DECEMBER_2023 = "now", "2023-12"

#: What most tensors of a file are (llama_ftype_get_default_type).
BASE_TYPES = {
    "Q2_K": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
    "Q8_0": "Q8_0",
    "MXFP4": "MXFP4",
    "F16": "F16",
}
#: What a tensor gets whose rows are no multiple of 256: blocks of 32.
_FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_BLOCKS = {kind.name: kind.block_elements for kind in TENSOR_TYPES.values()}
_LAYER = re.compile(r"blk\.(\d+)\.")
_VALUE_NAMES = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
#: attn_output of a model without experts, where it is not the base type.
_OUTPUT_TYPES = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}


@dataclass(frozen=True)
class Facts:
    """What the rules ask of a model besides its tensors.

    Attributes:
        n_layers: repeating layers.
        n_gqa: heads of queries to a head of keys.
        n_experts: 0 for a dense model.
    """

    n_layers: int
    n_gqa: int
    n_experts: int = 0

    @property
    def is_70b(self) -> bool:
        """As llama.cpp tells LLM_TYPE_70B: 80 layers whose heads share their values."""
        return self.n_layers == 80 and self.n_gqa > 1 and self.n_experts != 8


def quantized(
    facts: Facts, tensors: Sequence[TensorSpec], quant: str, recipe: str = NOW
) -> list[TensorSpec]:
    """The tensors with the types, and in the order, that llama-quantize gives them.

    Args:
        facts: of the model.
        tensors: all of them; their kinds are not looked at.
        quant: one of BASE_TYPES. MXFP4 is llama-quantize's MXFP4_MOE.
        recipe: NOW, or DECEMBER_2023: until January 2024 the rules for ffn_down did not match
            the names of experts, so that files "_M" were as "_S" (ggml-org/llama.cpp #4872),
            and attn_output of eight experts was that of a dense model (#4906).
    """
    ordered = sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name))
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    values = [tensor.name for tensor in ordered if tensor.name.endswith(_VALUE_NAMES)]
    chooser = _Chooser(facts, quant, recipe, tied, tuple(values))
    return [replace(tensor, kind=chooser.kind(tensor)) for tensor in ordered]


@dataclass(frozen=True)
class _Chooser:
    facts: Facts
    quant: str
    recipe: str
    tied: bool
    values: tuple[str, ...]

    def kind(self, tensor: TensorSpec) -> str:
        if not _allows_quantization(tensor):
            return "F32"  # as converters write it, and llama-quantize leaves it
        if self.quant == "F16":
            return "F16"
        return _fitting(self._wanted(tensor), tensor.shape[0])

    def _wanted(self, tensor: TensorSpec) -> str:
        name, base = tensor.name, BASE_TYPES[self.quant]
        if name == "output.weight" or (self.tied and name == "token_embd.weight"):
            return self._output(tensor.shape[0])
        if self.quant == "MXFP4":
            return "MXFP4" if len(tensor.shape) > 2 else "Q8_0"
        if name.endswith(_VALUE_NAMES):
            return self._value(self.values.index(name), len(self.values))
        if name.endswith("attn_k.weight") and self.facts.n_experts == 8:
            return "Q8_0"
        if name.endswith("attn_output.weight"):
            return self._attention_output()
        if "ffn_down" in name and not (self.recipe == DECEMBER_2023 and "_exps" in name):
            return self._down(_layer(name), self.facts.n_layers)
        return base

    def _output(self, n_columns: int) -> str:
        base = BASE_TYPES[self.quant]
        return "Q8_0" if base in ("Q8_0", "MXFP4") or n_columns % _BLOCKS[base] else "Q6_K"

    def _value(self, number: int, n_values: int) -> str:
        if self.facts.n_experts == 8:
            return "Q8_0"
        kind = BASE_TYPES[self.quant]
        if self.quant == "Q2_K":
            kind = "Q4_K" if self.facts.n_gqa >= 4 else "Q3_K"
        elif self.quant == "Q3_K_M":
            kind = "Q5_K" if number < 2 else "Q4_K"
        elif self.quant == "Q3_K_L" or (self.quant == "Q4_K_S" and number < 4):
            kind = "Q5_K"
        elif self.quant in ("Q4_K_M", "Q5_K_M") and _gets_more_bits(number, n_values):
            kind = "Q6_K"
        return "Q5_K" if self.facts.is_70b and kind in ("Q3_K", "Q4_K") else kind

    def _attention_output(self) -> str:
        base = BASE_TYPES[self.quant]
        if self.facts.n_experts == 8 and self.recipe == NOW:
            small = base in ("Q2_K", "Q3_K", "Q4_K") and self.quant != "Q3_K_L"
            return "Q5_K" if small else base
        return _OUTPUT_TYPES.get(self.quant, base)

    def _down(self, layer: int, n_layers: int) -> str:
        if self.quant == "Q2_K":
            return "Q3_K"
        if self.quant == "Q3_K_M":
            return "Q5_K" if layer < n_layers // 16 else "Q4_K"
        if self.quant == "Q3_K_L" or (self.quant == "Q4_K_S" and layer < n_layers // 8):
            return "Q5_K"
        if self.quant in ("Q4_K_M", "Q5_K_M") and _gets_more_bits(layer, n_layers):
            return "Q6_K"
        return BASE_TYPES[self.quant]


def _allows_quantization(tensor: TensorSpec) -> bool:
    """Whether a tensor is one of the large matrices that are not kept in F32."""
    kept = ("_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d")
    return (
        len(tensor.shape) > 1
        and tensor.name.endswith("weight")
        and not any(part in tensor.name for part in kept)
    )


def _gets_more_bits(number: int, n: int) -> bool:
    """The first and the last eighth, and every third between them (use_more_bits)."""
    return number < n // 8 or number >= 7 * n // 8 or (number - n // 8) % 3 == 2


def _fitting(kind: str, n_columns: int) -> str:
    """The type, or a coarser one of smaller blocks where rows are no multiple of its own."""
    if n_columns % _BLOCKS[kind]:
        kind = _FALLBACKS.get(kind, kind)
    return "F16" if n_columns % _BLOCKS[kind] else kind


def _layer(name: str) -> int:
    match = _LAYER.match(name)
    return int(match[1]) if match else -1
