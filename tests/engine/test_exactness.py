"""The dry run against really loaded models of most architectures: the same bytes per device.

What is dry-run is a model's outline, as before a download; what is loaded is the model.
Four warm children answer: dry and loaded, on the CPU alone and with a loopback device each (which
takes one client at a time).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from localllm.engine.dryrun import DryRun
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
from localllm.errors import EngineError
from tests.architectures.blocks import Architecture
from tests.architectures.loaded import (
    SETUPS,
    Loaded,
    sizes_of,
    small_plan,
    wants_device,
    write_outline,
)
from tests.architectures.table import ARCHITECTURES

BY_ID = {architecture.id: architecture for architecture in ARCHITECTURES}
RUNS = [
    pytest.param(architecture, setup, id=f"{architecture.id}-{setup}")
    for architecture in ARCHITECTURES
    for setup in SETUPS
]


@dataclass(frozen=True)
class Pair:
    """Somebody to predict and somebody to load, and the device that each of them sees."""

    dry: DryRun
    loaded: Loaded
    dry_device: str | None = None
    loaded_device: str | None = None


@pytest.fixture(scope="module")
def pairs(tools: Tools) -> Iterator[dict[bool, Pair]]:
    """By whether there is a device."""
    with ExitStack() as stack:
        devices = stack.enter_context(loopback_devices(tools, 2))
        oracles = [(stack.enter_context(DryRun()), stack.enter_context(Loaded())) for _ in "ab"]
        yield {False: Pair(*oracles[0]), True: Pair(*oracles[1], *devices)}


@dataclass(frozen=True)
class Written:
    """A model's file, and its outline with a hole behind: all that there is before a download."""

    path: Path
    outline: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """Every architecture's, by id."""
    folder = tmp_path_factory.mktemp("architectures")
    written = {}
    for architecture in ARCHITECTURES:
        path = architecture.write(folder)
        written[architecture.id] = Written(path, write_outline(path))
    return written


@pytest.mark.parametrize(("architecture", "setup"), RUNS)
def test_what_is_predicted_is_what_a_loaded_model_takes(
    pairs: dict[bool, Pair], models: dict[str, Written], architecture: Architecture, setup: str
) -> None:
    pair, model = pairs[wants_device(setup)], models[architecture.id]
    dry_plan = small_plan(architecture, model.outline, setup, pair.dry_device)
    loaded_plan = small_plan(architecture, model.path, setup, pair.loaded_device)
    if setup in architecture.cannot:
        for oracle, plan in ((pair.dry, dry_plan), (pair.loaded, loaded_plan)):
            with pytest.raises(EngineError):
                oracle.memory(plan)
        return
    predicted = sizes_of(pair.dry, dry_plan)
    taken = sizes_of(pair.loaded, loaded_plan)
    assert predicted.keys() == taken.keys()
    for device, (model, context, compute) in taken.items():
        assert predicted[device][:2] == (model, context)
        assert predicted[device][2] == pytest.approx(compute, rel=0.01)


def test_layers_that_are_placed_on_a_device_are_there(
    pairs: dict[bool, Pair], models: dict[str, Written]
) -> None:
    llama, pair = BY_ID["llama"], pairs[True]
    model_bytes, context_bytes = [], []
    for setup in ("no layer", "some layers", "all layers"):
        plan = small_plan(llama, models["llama"].outline, setup, pair.dry_device)
        model, context, _ = sizes_of(pair.dry, plan)["RPC0"]
        model_bytes.append(model)
        context_bytes.append(context)
    assert 0 == model_bytes[0] < model_bytes[1] < model_bytes[2]
    assert context_bytes == [0, context_bytes[2] // 2, context_bytes[2]]


# What a dry run does not see. Where one of these fails, llama.cpp has changed for the better.


def test_known_difference_a_mapped_file_is_reported_as_one_span(tmp_path: Path) -> None:
    # From the first to the last tensor that stays on the host: with what nobody loads (layers
    # that predict further) or what went elsewhere in between; copies of repacked weights are
    # counted on top of the originals, and an embedding that is the output too only once.
    more = {}
    with DryRun() as dry, Loaded("mmap") as mapped:
        for name, kind in (("llama", "Q4_0"), ("glm4moe", "F16"), ("gemma4", "F16")):
            architecture = replace(BY_ID[name], kind=kind)
            plan = small_plan(architecture, architecture.write(tmp_path), "cpu", None)
            predicted, taken = sizes_of(dry, plan)["Host"], sizes_of(mapped, plan)["Host"]
            assert predicted[1:] == taken[1:]
            more[name] = taken[0] - predicted[0]
    sizes = {name: {t.name: t.n_bytes for t in BY_ID[name].tensors()} for name in more}
    repacked = [t.n_bytes for t in BY_ID["llama"].tensors() if t.kind == "Q4_0"]
    assert more["llama"] == sum(repacked) > 0
    assert more["gemma4"] == -sizes["gemma4"]["token_embd.weight"]
    assert more["glm4moe"] > sizes["glm4moe"]["blk.2.ffn_gate_exps.weight"]


def test_known_difference_between_two_devices_one_tensor_too_many_is_counted(
    tools: Tools, models: dict[str, Written]
) -> None:
    # Measuring forgets which device llama.cpp chose for a norm (ggml_backend_sched_reserve_size
    # resets the scheduler after the graph was built), so that its result crosses over as well;
    # four copies of it, because two devices with all layers work as a pipeline.
    plan = replace(
        small_plan(BY_ID["llama"], models["llama"].path, "all layers", None),
        tensor_split=(1.0, 2.0),
    )
    with ExitStack() as stack:
        devices = stack.enter_context(loopback_devices(tools, 4))
        dry, loaded = stack.enter_context(DryRun()), stack.enter_context(Loaded())
        predicted = sizes_of(dry, replace(plan, rpc=devices[:2]))
        taken = sizes_of(loaded, replace(plan, rpc=devices[2:]))
    surplus = BY_ID["llama"].sizes.embd * plan.n_ubatch * 4
    assert predicted["Host"] == taken["Host"]
    assert predicted["RPC0"] == taken["RPC0"]
    model, context, compute = taken["RPC1"]
    assert predicted["RPC1"] == (model, context, compute + 4 * surplus)


def test_known_difference_a_cache_of_no_bytes_cannot_be_allocated(
    pairs: dict[bool, Pair], tmp_path: Path
) -> None:
    # Deci's layers without attention, when a device (here the host) gets no others.
    architecture = replace(
        BY_ID["deci"],
        layers=BY_ID["deci"].layers[1::-1],
        keys={
            "attention.head_count": [4, 4],
            "attention.head_count_kv": [0, 2],
            "feed_forward_length": [256, 256],
        },
    )
    path, pair = architecture.write(tmp_path), pairs[True]
    plan = small_plan(architecture, path, "some layers", pair.dry_device)
    assert sizes_of(pair.dry, plan)["Host"][1] == 0
    with pytest.raises(EngineError, match="ran out of memory"):
        pair.loaded.memory(small_plan(architecture, path, "some layers", pair.loaded_device))


def test_the_table_has_every_kind_of_architecture() -> None:
    assert len({architecture.name for architecture in ARCHITECTURES}) >= 140
    assert len(BY_ID) == len(ARCHITECTURES)
    tensors = [" ".join(t.name for t in a.tensors()) for a in ARCHITECTURES]
    keys = [" ".join(a.metadata()) for a in ARCHITECTURES]
    counts = {
        "experts": sum("_exps" in text for text in tensors),
        "latent attention": sum("attn_kv_a_mqa" in text for text in tensors),
        "a state": sum(
            any(name in text for name in ("ssm_", "time_mix", "shortconv")) for text in tensors
        ),
        "further prediction": sum("nextn" in text for text in tensors),
        "a sliding window": sum("sliding_window" in text for text in keys),
    }
    assert min(counts.values()) >= 8, counts
