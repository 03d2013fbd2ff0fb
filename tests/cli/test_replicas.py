"""serve --replicas: a plan for each GPU, and what its llama-server is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from localllm import measurements, paths
from localllm.cli import serve
from localllm.cli.found import FoundModels
from localllm.cli.passed_on import PassedOn
from localllm.cli.prepare import Narrowed, Prepared
from localllm.gateway.server import Planned
from localllm.gateway.settings import Settings
from localllm.hardware import Accelerator, Hardware
from localllm.hub.opened import Opened
from localllm.plan import Device, MemoryOracle
from localllm.planner import Wishes
from localllm.recovery import Concession
from localllm.units import GIB, MIB
from tests.planner.fakes import FakeModel, LayeredOracle, dense, gpu, machine, sparse

#: 29 GiB: more than one of the cards, less than two.
LARGE = dense(layer_bytes=600 * MIB, n_layers=48)
#: The same of experts, of which some then go to the host.
EXPERTS = sparse(dense_bytes=100 * MIB, expert_bytes=4 * GIB)


def card(index: int, **known: str) -> tuple[Device, Accelerator]:
    """24 GiB, as the engine and as the probe see it."""
    device, accelerator = gpu(f"CUDA{index}", title="NVIDIA GeForce RTX 3090")
    address = known.get("pci_bus_id")
    return replace(device, pci_bus_id=address), replace(
        accelerator, uuid=f"GPU-{index}", pci_bus_id=address
    )


CARDS = (card(0), card(1))
WITH_ADDRESSES = (card(0, pci_bus_id="0000:01:00.0"), card(1, pci_bus_id="0000:41:00.0"))


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> object:
    """A function of the cards and a model: the plans that serve makes for a replica on each."""

    def make(
        cards: tuple[tuple[Device, Accelerator], ...], model: FakeModel, n_replicas: int = 0
    ) -> list[Prepared]:
        hardware = machine(128 * GIB, *cards)
        oracle = LayeredOracle(
            {model.candidate.model.path: model}, tuple(device for device, _ in cards)
        )

        @contextlib.contextmanager
        def dry_run(_: object) -> Iterator[MemoryOracle]:
            yield oracle

        def probe(_: object) -> tuple[Hardware, tuple[()]]:
            return hardware, ()

        monkeypatch.setattr("localllm.engine.dryrun.dry_run", dry_run)
        monkeypatch.setattr("localllm.probe.probe", probe)
        found = FoundModels((Opened(model.candidate.model, model.candidate.weights, ()),))
        settings = Settings(replicas=n_replicas)
        return serve._prepare(found, Wishes(), "serve", settings, PassedOn())

    return make


@pytest.mark.parametrize("model", [LARGE, EXPERTS], ids=["layers", "experts"])
@pytest.mark.parametrize("cards", [CARDS, WITH_ADDRESSES], ids=["names", "addresses"])
def test_a_replica_on_each_gpu_is_planned_for_that_gpu_alone(prepared, cards, model) -> None:
    each = prepared(cards, model)
    assert [one.plan.devices for one in each] == [("CUDA0",), ("CUDA1",)]
    for one, (device, _) in zip(each, cards, strict=True):
        assert one.devices == (device,)
        assert one.plan.tensor_split is None
        assert {row.device for row in one.plan.memory} == {"Host", device.name}
        (row,) = (row for row in one.plan.memory if row.device == device.name)
        assert 8 * GIB < row.total_bytes < 24 * GIB


def test_two_replicas_of_one_gpu_share_it_and_one_replica_has_both(prepared) -> None:
    (first, second) = prepared(CARDS[:1], dense(), 2)
    assert first is second
    assert first.plan.devices == ("CUDA0",)
    (only,) = prepared(CARDS, LARGE, 1)
    assert only.plan.devices == ("CUDA0", "CUDA1")
    assert only.plan.tensor_split is not None


def children(each: list[Prepared]) -> tuple[Planned, ...]:
    return serve._children(each, PassedOn())


@pytest.mark.parametrize("model", [LARGE, EXPERTS], ids=["layers", "experts"])
def test_each_llama_server_sees_one_gpu_which_is_its_first(prepared, model) -> None:
    each = prepared(CARDS, model)
    first, second = children(each)
    assert first.plan == each[0].plan
    assert [of.environment for of in (first, second)] == [
        {"CUDA_VISIBLE_DEVICES": "GPU-0"},
        {"CUDA_VISIBLE_DEVICES": "GPU-1"},
    ]
    assert second.plan.devices == ("CUDA0",)
    assert {row.device for row in second.plan.memory} == {"Host", "CUDA0"}
    assert second.plan.n_gpu_layers == first.plan.n_gpu_layers


def test_what_is_kept_on_the_gpu_by_name_is_kept_on_the_one_that_is_seen(prepared) -> None:
    each = prepared(CARDS, LARGE)
    overrides = ("blk.1.=CUDA1", "a=b=CPU", "blk.2.=CUDA1_Host")
    plan = replace(each[1].plan, tensor_overrides=overrides)
    _, second = children([each[0], replace(each[1], plan=plan)])
    assert second.plan.tensor_overrides == ("blk.1.=CUDA0", "a=b=CPU", "blk.2.=CUDA1_Host")


def test_devices_that_cuda_does_not_number_keep_their_names(prepared) -> None:
    vulkan = [(replace(of, name=f"Vulkan{at}"), gpu) for at, (of, gpu) in enumerate(WITH_ADDRESSES)]
    first, second = children(prepared(tuple(vulkan), LARGE))
    assert (first.plan.devices, second.plan.devices) == (("Vulkan0",), ("Vulkan1",))


def test_what_a_replica_gave_up_is_remembered_for_its_own_gpu(prepared) -> None:
    each = prepared(CARDS, LARGE)
    _, second = children(each)
    assert second.conceded is not None
    second.conceded([Concession({"n_ubatch": 128}, "micro-batch 512 -> 128")])
    kept = measurements.load(paths.measurements_file())
    assert kept.find(each[0].learner.key) is None
    assert kept.find(each[1].learner.key) is not None
    again = prepared(CARDS, LARGE)
    assert [one.plan.n_ubatch for one in again] == [each[0].plan.n_ubatch, 128]


# The devices of some accelerators.


def slices(*numbers: int) -> tuple[Accelerator, ...]:
    """MIG slices of one board: CUDA shows a process the first of them."""
    return tuple(
        Accelerator(
            "nvidia", number, "NVIDIA A100 MIG 3g.20gb", f"MIG-{number}", "0000:07:00.0", mig=True
        )
        for number in numbers
    )


WHOLE = tuple(accelerator for _, accelerator in WITH_ADDRESSES)
FIRST, SECOND = (device for device, _ in WITH_ADDRESSES)
BEHIND = Device("RPC0", "10.0.0.2:50052")


@pytest.mark.parametrize(
    ("found", "whole", "own", "left"),
    [
        pytest.param((FIRST, SECOND), WHOLE, WHOLE[1:], (SECOND,), id="the second"),
        pytest.param((SECOND, FIRST), WHOLE, WHOLE[1:], (SECOND,), id="in another order"),
        pytest.param((FIRST,), WHOLE, WHOLE[1:], (), id="one that the engine does not reach"),
        pytest.param((FIRST, BEHIND), WHOLE, WHOLE[:1], (FIRST, BEHIND), id="another machine's"),
        pytest.param(
            (replace(FIRST, pci_bus_id="0000:07:00.0"),), slices(0, 1), slices(1),
            (replace(FIRST, pci_bus_id="0000:07:00.0"),), id="a slice that CUDA shows no other",
        ),
        pytest.param(
            (FIRST, SECOND), (*WHOLE, *slices(2)), slices(2), (FIRST,), id="a slice beside boards"
        ),
    ],
)  # fmt: skip
def test_devices_are_paired_on_the_whole_machine(found, whole, own, left) -> None:
    assert Narrowed(LayeredOracle({}, found), whole, own).devices() == left
