"""The places of a machine: whose devices they are, what fits in them, how fast they read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localllm.hardware import Accelerator, Cpu
from localllm.plan import Device, DeviceMemory
from localllm.planner.places import Machine, match_accelerator, survey
from localllm.units import GIB, MIB
from tests.planner.fakes import POLICY, apple, gpu, machine

NVIDIA = [
    Accelerator("nvidia", 0, "NVIDIA GeForce RTX 3060", pci_bus_id="0000:01:00.0"),
    Accelerator("nvidia", 1, "NVIDIA GeForce RTX 4090", pci_bus_id="0000:65:00.0"),
]
AMD = Accelerator("amd", 0, "AMD Radeon RX 7900 XTX", pci_bus_id="0000:03:00.0")


@pytest.mark.parametrize(
    ("device", "found"),
    [
        pytest.param(Device("CUDA0", "x", pci_bus_id="0000:65:00.0"), NVIDIA[1],
                     id="its address before its number"),
        pytest.param(Device("CUDA0", "x", pci_bus_id="0000:01:00.0"), NVIDIA[0], id="its address"),
        pytest.param(Device("Vulkan2", "x", pci_bus_id="0000:03:00.0"), AMD,
                     id="its address whatever the backend"),
        pytest.param(Device("CUDA1"), NVIDIA[1], id="its number"),
        pytest.param(Device("ROCm0"), AMD, id="its vendor's number"),
        pytest.param(Device("Vulkan0", "NVIDIA GeForce RTX 4090"), NVIDIA[1], id="its name"),
        pytest.param(Device("Vulkan0", "AMD Radeon RX 7900 XTX (RADV NAVI31)"), AMD,
                     id="its name within another"),
        pytest.param(Device("CUDA7"), None, id="a number that nobody has"),
        pytest.param(Device("Vulkan0", "llvmpipe"), None, id="no hardware of ours"),
        pytest.param(Device("RPC0", "NVIDIA GeForce RTX 4090"), None, id="another machine's"),
    ],
)  # fmt: skip
def test_a_device_is_matched_to_its_hardware(device: Device, found: Accelerator | None) -> None:
    assert match_accelerator(device, [*NVIDIA, AMD]) == found


def test_the_only_accelerator_is_meant_by_the_only_device() -> None:
    assert match_accelerator(Device("Vulkan0", "?"), [AMD]) == AMD


def budgets(made: Machine) -> dict[str, int]:
    return dict(made.budgets)


def test_a_run_may_take_what_is_free_but_the_reserve() -> None:
    made = survey(machine(10 * GIB, gpu("CUDA0", 8 * GIB)), [gpu("CUDA0", 8 * GIB)[0]], POLICY)
    assert budgets(made) == {
        "main memory": 10 * GIB - POLICY.host_reserve_bytes,
        "CUDA0": 8 * GIB - POLICY.device_reserve_bytes,
    }
    assert made.host.reserve_bytes == POLICY.host_reserve_bytes


@pytest.mark.parametrize(
    ("available", "limit", "used", "left"),
    [
        (10 * GIB, None, None, 10 * GIB - POLICY.host_reserve_bytes),
        (10 * GIB, 4 * GIB, GIB, 3 * GIB - POLICY.group_reserve_bytes),
        (10 * GIB, 4 * GIB, None, 4 * GIB - POLICY.group_reserve_bytes),
        (2 * GIB, 64 * GIB, GIB, 2 * GIB - POLICY.host_reserve_bytes),
        (None, 4 * GIB, 0, 4 * GIB - POLICY.group_reserve_bytes),
    ],
)
def test_the_narrower_of_machine_and_group_bounds_the_host(
    available: int | None, limit: int | None, used: int | None, left: int
) -> None:
    hardware = machine(available, limit_bytes=limit, limit_used_bytes=used)
    assert budgets(survey(hardware, [], POLICY)) == {"main memory": left}


def test_what_nobody_knows_bounds_nothing() -> None:
    hardware = machine(None, gpu("CUDA0", None))
    assert budgets(survey(hardware, [gpu("CUDA0", None)[0]], POLICY)) == {}


def test_the_driver_knows_better_than_the_engine_what_is_free() -> None:
    """The engine's own context has taken some of it already."""
    device, card = gpu("CUDA0", 8 * GIB)
    awake = replace(device, free_bytes=8 * GIB - 500 * MIB)
    made = survey(machine(64 * GIB, (awake, card)), [awake], POLICY)
    assert made.place("CUDA0").free_bytes == 8 * GIB


def test_devices_are_ordered_the_fastest_last() -> None:
    cards = [gpu("CUDA0", bandwidth=900e9), gpu("CUDA1", bandwidth=300e9), gpu("CUDA2")]
    made = survey(machine(64 * GIB, *cards), [device for device, _ in cards], POLICY)
    assert [place.name for place in made.devices] == ["CUDA1", "CUDA0", "CUDA2"]


def test_a_device_slower_than_the_host_is_known_as_such() -> None:
    cards = [gpu("CUDA0", bandwidth=40e9), gpu("CUDA1", bandwidth=None), gpu("CUDA2")]
    made = survey(machine(64 * GIB, *cards), [device for device, _ in cards], POLICY)
    assert [place.name for place in made.slower] == ["CUDA0"]  # unknown is not slow
    assert [place.name for place in made.devices] == ["CUDA1", "CUDA0", "CUDA2"]
    assert not survey(machine(), [], POLICY).devices


def test_two_cards_alike_are_of_one_kind() -> None:
    cards = [gpu("CUDA0", 8 * GIB), gpu("CUDA1", 8 * GIB), gpu("CUDA2", 6 * GIB)]
    made = survey(machine(64 * GIB, *cards), [device for device, _ in cards], POLICY)
    first, second, third = made.devices
    assert first.kind == second.kind != third.kind


def test_a_unified_accelerator_takes_from_main_memory_and_has_a_limit_of_its_own() -> None:
    card = apple(12 * GIB, 10 * GIB)
    made = survey(machine(12 * GIB, card), [card[0]], POLICY)
    assert made.place("MTL0").pool == made.host.pool
    assert made.budgets["MTL0"] == 10 * GIB - POLICY.device_reserve_bytes
    rows = made.ledger([DeviceMemory("Host", 2 * GIB, 0, 0), DeviceMemory("MTL0", 6 * GIB, 0, 0)])
    tightest = made.tightest(rows)
    assert tightest is not None
    together = 8 * GIB + POLICY.host_overhead_bytes + POLICY.unified_overhead_bytes
    assert tightest.left_bytes == 12 * GIB - POLICY.host_reserve_bytes - together
    narrow = survey(machine(12 * GIB, apple(0, 6 * GIB)), [card[0]], POLICY)
    tightest = narrow.tightest(narrow.ledger(rows))
    assert tightest is not None
    assert tightest.left_bytes == -POLICY.device_reserve_bytes - POLICY.unified_overhead_bytes


def test_the_tightest_pool_is_the_one_with_the_least_left() -> None:
    card = gpu("CUDA0", 8 * GIB)
    made = survey(machine(64 * GIB, card), [card[0]], POLICY)
    rows = made.ledger([DeviceMemory("Host", GIB, 0, 0), DeviceMemory("CUDA0", 8 * GIB, 0, 0)])
    tightest = made.tightest(rows)
    assert tightest is not None
    assert tightest.row.device == "CUDA0"
    overhead = POLICY.device_overhead_bytes + POLICY.device_growth_bytes
    assert tightest.left_bytes == -POLICY.device_reserve_bytes - overhead


def test_a_device_that_holds_nothing_costs_nothing() -> None:
    card = gpu("CUDA0")
    made = survey(machine(64 * GIB, card), [card[0]], POLICY)
    rows = made.ledger([DeviceMemory("Host", GIB, 0, 0), DeviceMemory("CUDA0", 0, 0, 0)])
    assert [row.device for row in rows] == ["Host"]


@pytest.mark.parametrize(
    ("cpu", "bandwidth", "source", "reached"),
    [
        pytest.param(
            Cpu(n_physical=8, n_logical=8, features=("avx2",)), 40e9, "measured",
            40e9 * POLICY.host_bandwidth_share, id="measured",
        ),
        pytest.param(
            Cpu(n_physical=8, n_logical=8, features=("avx2",)), 40e9, "data-sheet",
            40e9 * POLICY.host_sheet_share, id="a data sheet's",
        ),
        pytest.param(
            Cpu(n_physical=1, n_logical=2, features=("avx2",)), 400e9, "measured",
            POLICY.thread_bytes_per_second, id="one core cannot read it all",
        ),
        pytest.param(
            Cpu(n_physical=2, n_logical=4, features=("avx",)), 400e9, "measured",
            2 * POLICY.thread_bytes_per_second_plain, id="without AVX2",
        ),
        pytest.param(
            Cpu(n_physical=2, n_logical=2, architecture="aarch64", features=("neon",)), 400e9,
            "measured", 2 * POLICY.thread_bytes_per_second, id="with NEON",
        ),
        pytest.param(Cpu(n_physical=2), None, None, None, id="unknown"),
    ],
)  # fmt: skip
def test_the_host_reads_as_fast_as_memory_and_cores_allow(
    cpu: Cpu, bandwidth: float | None, source: str | None, reached: float | None
) -> None:
    hardware = machine(cpu=cpu, bandwidth=bandwidth)
    memory = replace(hardware.memory, bandwidth_source=source)  # type: ignore[arg-type]
    made = survey(replace(hardware, memory=memory), [], POLICY)
    assert made.host.bytes_per_second == (None if reached is None else pytest.approx(reached))
