"""A model's shape as GGUF headers: real names, shapes, types and file sizes, and no weights.

It knows how a description from tests/architectures becomes a header of a quantization; which
models there are is in models.py, and which type each tensor gets in recipe.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from localllm.gguf import MemorySource
from tests.architectures.blocks import Architecture
from tests.ggufs import FILE_TYPE_NUMBERS, TensorSpec, header_bytes
from tests.shapes.recipe import BASE_TYPES, NOW, Facts, quantized

#: What repositories usually hold of a model, worst first.
USUAL_QUANTS = tuple(name for name in BASE_TYPES if name not in ("MXFP4", "F16"))
_ALIGNMENT_BYTES = 32
#: Keys that `Architecture` writes for every mixture of experts, and these models do not have.
_NOT_STATED = ("expert_gating_func", "expert_weights_norm", "leading_dense_block_count")


@dataclass(frozen=True, eq=False)
class Shape:
    """A model's dimensions, and the quantizations that repositories hold of it.

    Attributes:
        id: a short name, such as "8b".
        title: the model's own name.
        model: its tensors and metadata.
        quants: worst first.
    """

    id: str
    title: str
    model: Architecture
    quants: tuple[str, ...] = USUAL_QUANTS

    @property
    def architecture(self) -> str:
        """As general.architecture spells it."""
        return self.model.name

    @property
    def facts(self) -> Facts:
        """What the recipe asks of it."""
        sizes = self.model.sizes
        has_experts = any("_exps" in layer for layer in self.model.layers)
        n_experts = sizes.experts if has_experts else 0
        return Facts(self.model.n_layers, sizes.heads // sizes.kv_heads, n_experts)

    def header(self, quant: str, recipe: str = NOW) -> MemorySource:
        """The header of its file of this quantization, which states the whole file's size."""
        return _header(self, quant, recipe)

    def size_bytes(self, quant: str, recipe: str = NOW) -> int:
        """The whole file's size but for the vocabulary, which takes 1 to 16 MB."""
        return _header(self, quant, recipe).size_bytes

    def tensors(self, quant: str, recipe: str = NOW) -> list[TensorSpec]:
        """The tensor table, typed by the recipe and in the order of a quantized file."""
        return quantized(self.facts, self.model.tensors(), quant, recipe)

    def metadata(self, quant: str) -> dict[str, Any]:
        """Everything that the header says besides, without a vocabulary."""
        # A small vocabulary costs nothing to make, and none of it stays.
        small = replace(self.model, sizes=replace(self.model.sizes, vocab=320)).metadata()
        unsaid = {f"{self.architecture}.{key}" for key in _NOT_STATED}
        return {
            **{
                key: item
                for key, item in small.items()
                if not key.startswith("tokenizer.") and key not in unsaid
            },
            "general.name": self.title,
            "general.file_type": FILE_TYPE_NUMBERS["MXFP4_MOE" if quant == "MXFP4" else quant],
            f"{self.architecture}.vocab_size": self.model.sizes.vocab,
            "tokenizer.ggml.model": "no_vocab",
        }


@cache
def _header(shape: Shape, quant: str, recipe: str) -> MemorySource:
    tensors = shape.tensors(quant, recipe)
    data = header_bytes(shape.metadata(quant), tensors)
    n_bytes = sum(-(-tensor.n_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for tensor in tensors)
    return MemorySource(data, f"{shape.title}-{quant}.gguf", len(data) + n_bytes)
