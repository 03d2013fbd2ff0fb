"""Which weights lie where: the steps off the devices, the split among them, the sums."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from localllm.plan import Plan
from localllm.planner.placement import (
    Layers,
    Load,
    Placement,
    Step,
    device_sets,
    expert_overrides,
    groups_of,
    loads,
    share_out,
    steps,
)
from localllm.planner.places import survey
from localllm.units import GIB, MIB
from localllm.weights import LayerWeights, Weights
from tests.planner.fakes import POLICY, case, dense, gpu, machine, sparse

DENSE, SPARSE = dense().weights, sparse().weights


def test_a_dense_model_leaves_layer_by_layer() -> None:
    assert steps(DENSE) == tuple(Step(n) for n in range(9, 0, -1))


def test_experts_leave_first_one_layer_after_the_other() -> None:
    assert steps(SPARSE) == (
        *(Step(9, n) for n in range(9)),
        *(Step(n, 8) for n in range(8, 0, -1)),
    )


def test_a_layer_without_experts_is_no_step_of_its_own() -> None:
    mixed = replace(SPARSE, layers=(LayerWeights(40 * MIB), *SPARSE.layers[1:]))
    assert [step.n_cpu_moe for step in steps(mixed) if step.n_gpu_layers == 9] == [0, *range(2, 9)]


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (Step(9), []),
        (Step(9, 3), [0, 1, 2]),
        (Step(9, 8), list(range(8))),
        (Step(6, 8), list(range(8))),
        (Step(6, 3), []),  # those three are on the host as whole layers
        (Step(6, 5), [3, 4]),
        (Step(0, 8), []),
    ],
)
def test_the_overrides_name_the_experts_that_stay_behind(step: Step, kept: list[int]) -> None:
    overrides = expert_overrides(step, 8)
    assert len(overrides) <= 1
    matched = [
        layer
        for layer in range(8)
        for override in overrides
        if re.search(override.removesuffix("=CPU"), f"blk.{layer}.ffn_gate_exps.weight")
    ]
    assert matched == kept


@pytest.mark.parametrize("name", ["ffn_up_exps", "ffn_down_chexps", "ffn_gate_up_exps"])
def test_the_overrides_match_every_kind_of_routed_expert(name: str) -> None:
    (override,) = expert_overrides(Step(12, 11), 11)
    assert re.search(override.removesuffix("=CPU"), f"blk.10.{name}.weight")
    (some,) = expert_overrides(Step(12, 1), 11)
    assert not re.search(some.removesuffix("=CPU"), f"blk.10.{name}.weight")


@pytest.mark.parametrize("name", ["ffn_up", "ffn_gate_inp", "ffn_up_shexp", "attn_q"])
def test_the_overrides_leave_everything_else_alone(name: str) -> None:
    (override,) = expert_overrides(Step(9, 8), 8)
    assert not re.search(override.removesuffix("=CPU"), f"blk.3.{name}.weight")


@pytest.mark.parametrize("weights", [DENSE, SPARSE, replace(DENSE, output_bytes=0, tied_bytes=MIB)])
def test_the_sums_are_what_the_oracle_places(weights: Weights) -> None:
    """The arithmetic that orders the search, against the oracle that decides it."""
    model = replace(dense(), weights=weights)
    of = case(gpu("CUDA0"), gpu("CUDA1"), models=[model])
    for step in (*steps(weights), Step(0)):
        share = step.n_gpu_layers // 3
        placement = Placement(("CUDA0", "CUDA1"), step, (share, step.n_gpu_layers - share))
        if not step.n_gpu_layers:
            placement = Placement((), step)
        plan = placement.applied(Plan(model.candidate.model, 2048), 8)
        rows = {row.device: row.model_bytes for row in of.oracle.memory(plan)}
        summed = loads(Layers(weights), placement)
        assert {name: load.model_bytes for name, load in summed.items()} == {
            name: rows[name] for name in summed
        }, step


def test_a_token_reads_all_of_the_dense_weights_and_a_share_of_the_experts() -> None:
    total = sum(loads(Layers(SPARSE), Placement((), Step(0))).values(), start=Load())
    assert total.model_bytes == sparse().size_bytes
    dense_bytes = 8 * 40 * MIB + 40 * MIB
    assert total.read_bytes == pytest.approx(dense_bytes + 8 * 400 * MIB / 16)
    assert total.n_layers == 8


def shares_of(room: list[float], groups: list[int], n_layers: int = 9) -> tuple[int, ...] | None:
    """For eight layers of 100 MiB, an output of as much, and no context."""
    return share_out(Layers(DENSE), Step(n_layers), [n * MIB for n in room], groups, 0.0)


@pytest.mark.parametrize(
    ("room", "groups", "shares"),
    [
        pytest.param([900, 900], [0, 1], (0, 9), id="the fastest holds all"),
        pytest.param([500, 500], [0, 1], (4, 5), id="the fastest takes what it can"),
        pytest.param([900, 300], [0, 1], (6, 3), id="a small fast one"),
        pytest.param([900, 900], [0, 0], (5, 4), id="two alike share evenly"),
        pytest.param([400, 500], [0, 0], (4, 5), id="as evenly as there is room"),
        pytest.param([900, 900, 900], [0, 0, 0], (3, 3, 3), id="three alike"),
        pytest.param([900, 900, 200], [0, 0, 2], (4, 3, 2), id="two alike behind a fast one"),
        pytest.param([499, 399], [0, 1], None, id="a layer too much"),
        pytest.param([-10, 900], [0, 1], (0, 9), id="one that is full already"),
    ],
)
def test_layers_are_shared_out(
    room: list[float], groups: list[int], shares: tuple[int, ...] | None
) -> None:
    assert shares_of(room, groups) == shares


def test_fewer_layers_are_shared_out_from_the_end() -> None:
    assert shares_of([300, 300], [0, 1], 5) == (2, 3)
    assert shares_of([100, 300], [0, 1], 5) is None


def test_one_of_each_kind_is_tried_alone_and_then_the_fastest_together() -> None:
    cards = [
        gpu("CUDA0", 8 * GIB, 300e9, title="slow"),
        gpu("CUDA1", 24 * GIB, 900e9, title="fast"),
        gpu("CUDA2", 24 * GIB, 900e9, title="fast"),
    ]
    made = survey(machine(64 * GIB, *cards), [device for device, _ in cards], POLICY)
    sets = [(*(place.name for place in places), may) for places, may in device_sets(made)]
    assert sets == [
        ("CUDA1", False),
        ("CUDA0", False),
        ("CUDA1", "CUDA2", True),
        ("CUDA0", "CUDA1", "CUDA2", True),
    ]
    assert groups_of(made.devices) == (0, 1, 1)


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (Placement((), Step(0)), "the host"),
        (Placement(("CUDA0",), Step(9), (9,)), "CUDA0"),
        (Placement(("CUDA0", "CUDA1"), Step(9), (4, 5)), "CUDA0 + CUDA1"),
        (Placement(("CUDA0",), Step(4), (4,)), "4 of 9 layers on CUDA0"),
        (Placement(("CUDA0",), Step(9, 3), (9,)), "CUDA0, experts of 3 layers on the host"),
    ],
)
def test_a_placement_in_a_few_words(placement: Placement, words: str) -> None:
    assert placement.where(SPARSE) == words


def test_a_split_is_told_to_llama_cpp_only_where_there_is_one() -> None:
    plan = Plan(dense().candidate.model, 2048)
    alone = Placement(("CUDA0",), Step(9), (9,)).applied(plan, 8)
    assert (alone.n_gpu_layers, alone.devices, alone.tensor_split) == (9, ("CUDA0",), None)
    both = Placement(("CUDA0", "CUDA1"), Step(9), (4, 5)).applied(plan, 8)
    assert both.tensor_split == (4.0, 5.0)
