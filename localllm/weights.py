"""Where a model's bytes lie, layer by layer: what placing them and reading them per token costs.

Read off the tensor table of a header. What llama.cpp allocates for them is its own word
(engine/dryrun.py); these sums only order the search for a placement and tell speeds apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from localllm.gguf import Header, Tensor

_LAYER = re.compile(r"blk\.(\d+)\.")
# llm_tensor_infos of llama.cpp's llama-arch.cpp: LLM_TENSOR_LAYER_INPUT stays on the host.
_INPUT = re.compile(r"(token_embd|position_embd|token_types|per_layer_token_embd)\b")
#: As --n-cpu-moe of llama.cpp's common/arg.cpp matches them.
_ROUTED = re.compile(r"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps\b")


@dataclass(frozen=True)
class LayerWeights:
    """One repeating layer.

    Attributes:
        dense_bytes: what every token reads.
        expert_bytes: all routed experts together; a token reads a few of them.
        dense_elements, expert_elements: the numbers in them, two operations each per token.
    """

    dense_bytes: int = 0
    expert_bytes: int = 0
    dense_elements: int = 0
    expert_elements: int = 0


@dataclass(frozen=True)
class Weights:
    """A model's weights by place.

    Attributes:
        layers: the repeating ones, in order.
        input_bytes: embeddings: always on the host, and a token reads a row or two of them.
        output_bytes: the output layer's own tensors.
        tied_bytes: of the embedding that stands in for a missing output matrix: read by every
            token, and copied when the output is on a device; 0 where the output has its own.
        output_elements: of the output matrix, whichever it is.
        n_expert, n_expert_used: routed experts of a layer, and those that a token takes.
    """

    layers: tuple[LayerWeights, ...]
    input_bytes: int = 0
    output_bytes: int = 0
    tied_bytes: int = 0
    output_elements: int = 0
    n_expert: int = 0
    n_expert_used: int = 0

    @property
    def n_layers(self) -> int:
        """Repeating layers."""
        return len(self.layers)

    @property
    def has_experts(self) -> bool:
        """Whether a part of the weights is read by some tokens only."""
        return any(layer.expert_bytes for layer in self.layers)

    @property
    def share_used(self) -> float:
        """The share of its experts that a token takes."""
        if self.n_expert > 0 and self.n_expert_used > 0:
            return min(1.0, self.n_expert_used / self.n_expert)
        return 1.0


def read_weights(headers: Sequence[Header]) -> Weights:
    """The weights of a model, from the headers of all its files (outlines do).

    Args:
        headers: one per file, the first of them with the model's own keys.
    """
    layers: dict[int, list[int]] = {}
    sums = {"input": 0, "output": 0}
    embedding = output = None
    for header in headers:
        for tensor in header.tensors:
            match = _LAYER.match(tensor.name)
            if match is not None:
                sizes = layers.setdefault(int(match[1]), [0, 0, 0, 0])
                at = 1 if _ROUTED.search(tensor.name) else 0
                sizes[at] += tensor.n_bytes
                sizes[at + 2] += tensor.n_elements
                continue
            sums["input" if _INPUT.match(tensor.name) else "output"] += tensor.n_bytes
            if tensor.name == "token_embd.weight":
                embedding = tensor
            elif tensor.name == "output.weight":
                output = tensor
    head: Tensor | None = output or embedding
    first = headers[0]
    n_layers = max(layers, default=-1) + 1
    return Weights(
        layers=tuple(LayerWeights(*layers.get(i, (0, 0, 0, 0))) for i in range(n_layers)),
        input_bytes=sums["input"],
        output_bytes=sums["output"],
        tied_bytes=embedding.n_bytes if output is None and embedding is not None else 0,
        output_elements=head.n_elements if head is not None else 0,
        n_expert=first.integer(f"{first.architecture}.expert_count") or 0,
        n_expert_used=first.integer(f"{first.architecture}.expert_used_count") or 0,
    )
