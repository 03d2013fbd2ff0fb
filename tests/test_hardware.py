"""The share of a machine that one of several replicas has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.units import GIB

CARDS = tuple(
    Accelerator(
        "nvidia", number, uuid=f"GPU-{number}", total_bytes=24 * GIB, free_bytes=20 * GIB,
        bandwidth=900e9,
    )
    for number in range(2)
)  # fmt: skip
MACHINE = Hardware(
    System("Linux"),
    Cpu("EPYC", n_physical=8, n_logical=16, n_affinity=12, quota=6.0),
    Memory(
        total_bytes=64 * GIB,
        available_bytes=60 * GIB,
        limit_bytes=33 * GIB,
        limit_used_bytes=GIB,
        bandwidth=100e9,
        bandwidth_source="measured",
    ),
    CARDS,
)


@pytest.mark.parametrize("per_gpu", [True, False])
def test_the_only_replica_has_everything(per_gpu: bool) -> None:
    one = replace(MACHINE, accelerators=CARDS[:1])
    assert one.shared(1, 0, per_gpu=per_gpu) == one


@pytest.mark.parametrize("n", [2, 3, 7])
def test_all_shares_together_are_not_more_than_the_machine(n: int) -> None:
    shares = [MACHINE.shared(n, index, per_gpu=False) for index in range(n)]
    assert n * (shares[0].memory.free_bytes or 0) <= 32 * GIB
    assert shares[0].memory.free_bytes == pytest.approx(32 * GIB / n, abs=n)
    assert all(share == shares[0] for share in shares)
    assert sum(share.accelerators[1].free_bytes or 0 for share in shares) <= 20 * GIB
    assert shares[0].memory.bandwidth == pytest.approx(100e9 / n)
    assert shares[0].accelerators[0].bandwidth == pytest.approx(900e9 / n)


def test_a_replica_of_a_gpu_has_that_one_to_itself() -> None:
    for index in range(2):
        share = MACHINE.shared(2, index, per_gpu=True)
        assert share.accelerators == (CARDS[index],)
        assert share.memory.available_bytes == 30 * GIB


def test_processors_are_divided_and_never_less_than_one() -> None:
    half = MACHINE.shared(2, 0, per_gpu=False).cpu
    assert (half.n_physical, half.n_logical, half.n_affinity, half.quota) == (4, 8, 6, 3.0)
    assert half.n_usable == 3
    many = MACHINE.shared(100, 0, per_gpu=False).cpu
    assert (many.n_physical, many.n_logical, many.n_affinity, many.n_usable) == (1, 1, 1, 1)


def test_what_the_machine_is_stays() -> None:
    share = MACHINE.shared(4, 1, per_gpu=False)
    assert share.memory.total_bytes == 64 * GIB
    assert [gpu.total_bytes for gpu in share.accelerators] == [24 * GIB, 24 * GIB]
    assert (share.cpu.model, share.system) == ("EPYC", MACHINE.system)


def test_what_is_not_known_is_not_known_of_a_share() -> None:
    unknown = Hardware(System("Linux"), Cpu(), Memory(), (Accelerator("apple", 0, unified=True),))
    assert unknown.shared(3, 2, per_gpu=False) == unknown


def test_the_bound_of_a_gpu_that_shares_main_memory_is_shared_too() -> None:
    mac = replace(
        MACHINE, accelerators=(Accelerator("apple", 0, unified=True, limit_bytes=48 * GIB),)
    )
    assert mac.shared(2, 0, per_gpu=False).accelerators[0].limit_bytes == 24 * GIB
