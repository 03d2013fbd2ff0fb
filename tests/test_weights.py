"""Where a model's bytes lie, read off its tensor table."""

from __future__ import annotations

import pytest

from localllm.gguf import Header, MemorySource, parse_header
from localllm.weights import LayerWeights, Weights, read_weights
from tests.ggufs import Llama, TensorSpec, header_bytes
from tests.shapes import SHAPES

LLAMA = Llama()


def header_of(tensors: list[TensorSpec], **keys: int) -> Header:
    named = {f"llama.{key}": number for key, number in keys.items()}
    data = header_bytes({**LLAMA.metadata(), **named}, tensors)
    size = len(data) + sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
    return parse_header(MemorySource(data, "m.gguf", size))


def test_layers_embeddings_and_output_are_told_apart() -> None:
    weights = read_weights([header_of(LLAMA.tensors())])
    per_layer = sum(t.n_bytes for t in LLAMA.tensors() if t.name.startswith("blk.0."))
    elements = per_layer // 4
    assert weights.layers == (LayerWeights(per_layer, 0, elements, 0),) * 2
    assert weights.input_bytes == 64 * 320 * 4
    assert weights.output_bytes == 64 * 320 * 4 + 64 * 4  # and its norm
    assert weights.tied_bytes == 0
    assert weights.output_elements == 64 * 320
    assert not weights.has_experts
    assert weights.share_used == 1.0


def test_every_byte_is_somewhere() -> None:
    for shape in SHAPES.values():
        header = parse_header(shape.header(shape.quants[0]))
        weights = read_weights([header])
        layers = sum(layer.dense_bytes + layer.expert_bytes for layer in weights.layers)
        total = layers + weights.input_bytes + weights.output_bytes
        assert total == sum(tensor.n_bytes for tensor in header.tensors), shape.id


def test_an_embedding_without_an_output_matrix_stands_in_for_it() -> None:
    tensors = [tensor for tensor in LLAMA.tensors() if tensor.name != "output.weight"]
    weights = read_weights([header_of(tensors)])
    assert weights.tied_bytes == weights.input_bytes == 64 * 320 * 4
    assert weights.output_elements == 64 * 320
    assert weights.output_bytes == 64 * 4


@pytest.mark.parametrize(
    ("name", "is_expert"),
    [
        ("blk.0.ffn_up_exps.weight", True),
        ("blk.0.ffn_down_exps.weight", True),
        ("blk.0.ffn_gate_up_exps.weight", True),
        ("blk.0.ffn_down_chexps.weight", True),
        ("blk.0.ffn_up_exps.bias", True),
        ("blk.0.ffn_up_shexp.weight", False),
        ("blk.0.ffn_gate_inp.weight", False),
        ("blk.0.ffn_norm_exps.weight", False),
        ("blk.0.attn_q.weight", False),
    ],
)
def test_routed_experts_are_those_that_llama_cpp_can_keep_on_the_host(
    name: str, is_expert: bool
) -> None:
    weights = read_weights([header_of([TensorSpec(name, (64, 32))])])
    (layer,) = weights.layers
    assert (layer.expert_bytes, layer.dense_bytes) == ((8192, 0) if is_expert else (0, 8192))
    assert layer.expert_elements + layer.dense_elements == 2048


@pytest.mark.parametrize("name", ["token_embd.weight", "per_layer_token_embd.weight"])
def test_what_only_the_input_needs_stays_on_the_host(name: str) -> None:
    weights = read_weights([header_of([TensorSpec(name, (64, 32))])])
    assert weights.input_bytes == 8192
    assert weights.output_bytes == 0


def test_a_layer_without_tensors_of_its_own_is_still_one() -> None:
    weights = read_weights([header_of([TensorSpec("blk.2.attn_q.weight", (64, 32))])])
    assert weights.n_layers == 3
    assert weights.layers[:2] == (LayerWeights(), LayerWeights())


def test_the_share_of_experts_that_a_token_takes() -> None:
    tensors = [TensorSpec("blk.0.ffn_up_exps.weight", (64, 32, 8))]
    used = read_weights([header_of(tensors, expert_count=8, expert_used_count=2)])
    assert (used.n_expert, used.n_expert_used, used.share_used) == (8, 2, 0.25)
    assert used.has_experts
    assert read_weights([header_of(tensors)]).share_used == 1.0  # it does not say
    assert Weights((), n_expert=2, n_expert_used=5).share_used == 1.0
