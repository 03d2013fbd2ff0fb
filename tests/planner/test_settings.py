"""What needs no search: threads, how they wait, states to go back to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localllm.hardware import Accelerator, Cpu, System
from localllm.planner import Wishes
from localllm.planner.settings import checkpoints, environment, has_states, threads
from localllm.units import GIB, MIB
from tests.planner.fakes import POLICY, case, dense, gpu, machine, reason


@pytest.mark.parametrize(
    ("cpu", "n_threads", "because"),
    [
        pytest.param(Cpu(n_physical=4, n_logical=4, n_affinity=4), 4, "the cores of this machine",
                     id="no hyper-threads"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16), 8, "the physical cores",
                     id="hyper-threads"),
        pytest.param(Cpu(n_physical=14, n_logical=20, n_affinity=20, n_performance=6), 6,
                     "the performance cores", id="slow cores beside fast ones"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=3), 3,
                     "the 3 processors this process may run on", id="affinity"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=12), 8, "the physical cores",
                     id="affinity beyond the cores"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16, quota=2.5), 2,
                     "the processor quota of 2.5", id="quota"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16, quota=0.5), 1,
                     "the processor quota of 0.5", id="less than one processor"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=4, quota=3.0), 3,
                     "the processor quota of 3", id="quota below the affinity"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=2, quota=3.0), 2,
                     "the 2 processors this process may run on", id="affinity below the quota"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16, quota=12.0), 8,
                     "the physical cores", id="quota beyond the cores"),
        pytest.param(Cpu(n_physical=14, n_logical=20, n_affinity=20, n_performance=6, quota=4.0),
                     4, "the processor quota of 4", id="quota below the performance cores"),
        pytest.param(Cpu(n_logical=4), 4, "the cores of this machine", id="only processors known"),
        pytest.param(Cpu(n_affinity=4), 4, "the cores of this machine", id="only affinity known"),
        pytest.param(Cpu(n_physical=6), 6, "the cores of this machine", id="only cores known"),
        pytest.param(Cpu(), 1, "how many processors there are is not known", id="nothing known"),
    ],
)  # fmt: skip
def test_threads_are_what_this_process_can_keep_busy(
    cpu: Cpu, n_threads: int, because: str
) -> None:
    plan = case(cpu=cpu).plan()
    assert (plan.n_threads, plan.n_threads_batch) == (n_threads, n_threads)
    why = reason(plan, "n_threads")
    assert why.because == because
    assert why.source == ("assumed" if cpu == Cpu() else "measured")


@pytest.mark.parametrize(
    ("read_bytes", "n_threads"),
    [
        pytest.param(6_000_000, 1, id="a few MB"),
        pytest.param(16 << 20, 1, id="all that one thread is worth"),
        pytest.param((16 << 20) + 1, 2, id="a byte more"),
        pytest.param(100_000_000, 6, id="100 MB"),
        pytest.param(4_000_000_000, 8, id="4 GB"),
    ],
)
def test_a_small_model_gets_no_more_threads_than_it_keeps_busy(
    read_bytes: int, n_threads: int
) -> None:
    found, because, _ = threads(Cpu(n_physical=8, n_logical=8), read_bytes, POLICY)
    assert found == n_threads
    assert ("keep no more busy" in because) == (n_threads < 8)


def test_a_host_that_reads_nothing_needs_one_thread() -> None:
    plan = case(gpu()).plan()
    assert plan.n_threads == 1
    assert reason(plan, "n_threads").because == "the devices do all the work"


def test_threads_are_those_for_what_the_host_reads_and_not_for_the_whole_model() -> None:
    cpu = Cpu(n_physical=64, n_logical=64)
    of = case(gpu(), cpu=cpu)
    assert of.plan(Wishes(n_gpu_layers=9)).n_threads == 1
    some = of.plan(Wishes(n_gpu_layers=7)).n_threads
    assert some == 2 * 100 * MIB // POLICY.weight_bytes_per_thread + 1
    assert of.plan(Wishes(n_gpu_layers=0)).n_threads == 9 * 100 * MIB // (16 * MIB) + 1


@pytest.mark.parametrize(
    ("n_cores", "spins"),
    [
        pytest.param(2, 2 * POLICY.gomp_spincount_per_core, id="few meet soon"),
        pytest.param(64, POLICY.gomp_spincount, id="many are bounded"),
    ],
)
def test_threads_spin_as_long_as_the_last_of_them_may_take(n_cores: int, spins: int) -> None:
    cpu = Cpu(n_physical=n_cores, n_logical=n_cores)
    assert environment(machine(cpu=cpu), POLICY)["GOMP_SPINCOUNT"] == str(spins)


def test_memory_in_huge_pages_is_asked_for_where_there_may_be_any() -> None:
    mac = replace(machine(), system=System("Darwin"))
    assert "GLIBC_TUNABLES" in environment(machine(), POLICY)
    assert "GLIBC_TUNABLES" not in environment(mac, POLICY)


def test_cuda_is_told_to_number_gpus_like_everything_else() -> None:
    assert environment(machine(GIB, gpu()), POLICY)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    amd = replace(machine(GIB), accelerators=(Accelerator("amd", 0),))
    assert "CUDA_DEVICE_ORDER" not in environment(amd, POLICY)


@pytest.mark.parametrize(
    ("left", "n_parallel", "n_states"),
    [
        pytest.param(64 * GIB, 1, POLICY.n_ctx_checkpoints, id="room for all"),
        pytest.param(40 * MIB, 1, 1, id="room for one"),
        pytest.param(39 * MIB, 1, 0, id="room for none"),
        pytest.param(160 * MIB, 4, 4, id="for each of four slots"),
        pytest.param(-5, 1, 0, id="nothing left"),
        pytest.param(None, 1, POLICY.n_ctx_checkpoints, id="nobody knows"),
    ],
)
def test_states_take_a_share_of_what_is_left(
    left: int | None, n_parallel: int, n_states: int
) -> None:
    assert checkpoints(10 * MIB, n_parallel, left, POLICY).value == n_states


def test_the_rounding_of_a_context_is_no_state() -> None:
    assert not has_states(255 * 1024, 1)
    assert not has_states(1023 * 1024, 4)
    assert has_states(MIB, 4)
    plan = case(models=[dense(token_bytes=64)]).plan()
    assert plan.n_ctx_checkpoints == 0
