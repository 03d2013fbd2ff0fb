"""The first prompt of a really loaded model: what it takes, and that it never does harm."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from localllm import paths
from localllm.completion import Message, Sampling, Usage
from localllm.engine.canary import EXTRA_ARGV, Outcome, measure, worthwhile
from localllm.engine.client import HttpChatModel
from localllm.engine.dryrun import DryRun
from localllm.engine.locate import Tools
from localllm.engine.server import LlamaServer
from localllm.errors import EngineError
from localllm.hardware import Cpu, Hardware, Memory, System
from localllm.measured import Key, ProcessMemory
from localllm.measurements import load, record
from localllm.plan import Device, DeviceMemory, Model, Plan, Speed
from localllm.probe.process import process_memory
from tests.conftest import PATIENCE_SECONDS
from tests.ggufs import Llama

MIB, GIB = 1 << 20, 1 << 30

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def predicted(plan: Plan) -> Plan:
    """The plan with the memory that llama.cpp says it will take."""
    with DryRun() as oracle:
        return replace(plan, memory=oracle.memory(plan))


def sing(tools: Tools, plan: Plan, extra_argv: tuple[str, ...] = EXTRA_ARGV) -> Outcome:
    with LlamaServer(tools, plan, extra_argv=extra_argv) as server:
        return measure(server, plan, limit_seconds=PATIENCE_SECONDS, host_used=process_memory)


def host_extra(outcome: Outcome) -> int:
    assert outcome.measurement is not None, outcome.notes
    assert "Host" in outcome.measurement.extra_bytes, outcome.notes
    return outcome.measurement.extra_bytes["Host"]


@pytest.fixture(scope="module")
def repacked_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 MiB of weights, of a kind that llama.cpp copies into another order on most processors."""
    shape = Llama(n_layers=8, n_embd=512, n_ff=2048, n_head=8, n_head_kv=4, kind="Q4_0")
    return shape.write(tmp_path_factory.mktemp("models") / "repacked.gguf")


#: What the engine takes beside its buffers: 20 MiB with a model of nothing, of which 15 are pages
#: of its own program (see engine/canary.py); another build, allocator or kernel may differ some.
LEAST, MOST = 8 * MIB, 64 * MIB


@needs_proc
def test_the_demo_takes_what_was_predicted_and_the_engines_own(
    tools: Tools, demo_path: Path
) -> None:
    plan = predicted(Plan(Model("demo", str(demo_path)), n_ctx=1024))
    outcome = sing(tools, plan)
    assert LEAST < host_extra(outcome) < MOST
    assert outcome.notes == ()
    measured = outcome.measurement
    assert measured is not None
    (row,) = plan.memory
    assert measured.peak_bytes["Host"] == row.total_bytes + host_extra(outcome)
    assert measured.n_prompt == plan.n_ubatch
    assert measured.prompt_tokens_per_second
    assert (measured.n_decoded, measured.decode_tokens_per_second) == (1, None)
    assert measured.when.endswith("Z")


@needs_proc
def test_mapped_weights_and_their_copies_count_once(tools: Tools, repacked_path: Path) -> None:
    plan = Plan(Model("repacked", str(repacked_path)), n_ctx=2048)
    extra = {
        mode: host_extra(sing(tools, predicted(replace(plan, load_mode=mode))))
        for mode in ("mmap", "none")
    }
    assert LEAST < extra["none"] < MOST
    assert extra["mmap"] == pytest.approx(extra["none"], abs=4 * MIB)


@needs_proc
def test_what_a_short_prompt_does_not_reach_counts_as_taken(
    tools: Tools, repacked_path: Path
) -> None:
    # Without flash attention the scores of a whole context are held: 8 heads x 512 tokens x 4 B.
    short = Plan(Model("repacked", str(repacked_path)), n_ctx=1024, flash_attn="off")
    plans = [predicted(plan) for plan in (short, replace(short, n_ctx=16384))]
    compute = [plan.memory[0].compute_bytes for plan in plans]
    assert compute[1] - compute[0] > 200 * MIB
    extra = [host_extra(sing(tools, plan)) for plan in plans]
    assert extra[1] == pytest.approx(extra[0], abs=8 * MIB)


@needs_proc
def test_the_second_plan_knows(tools: Tools, demo_path: Path) -> None:
    machine = Hardware(System("Linux"), Cpu("a processor"), Memory())
    plan = predicted(Plan(Model("demo", str(demo_path)), n_ctx=1024))
    key = Key.of(machine, "engine 1", plan)
    outcome = sing(tools, plan)
    assert outcome.measurement is not None
    assert record(paths.measurements_file(), key, outcome.measurement) is None
    known = load(paths.measurements_file())
    found = known.find(Key.of(machine, "engine 1", plan))
    assert found is not None
    assert found.extra_bytes == outcome.measurement.extra_bytes
    assert found.prompt_tokens_per_second == outcome.measurement.prompt_tokens_per_second
    near = known.nearest(machine, "engine 1", replace(plan, n_ctx=2048))
    assert near is not None
    assert near.extra_bytes == found.extra_bytes


@pytest.mark.parametrize(
    ("shape", "n_prompt"),
    [
        pytest.param({"n_ctx": 1024, "n_ubatch": 64}, 64, id="a-micro-batch"),
        pytest.param({"n_ctx": 1024, "n_batch": 32}, 32, id="a-batch-below-it"),
        pytest.param({"n_ctx": 512, "n_parallel": 2}, 255, id="no-more-than-a-slot-holds"),
        pytest.param({"n_ctx": 1024, "n_ubatch": 64, "n_ctx_checkpoints": 2}, 68, id="checkpoints"),
    ],
)
def test_the_prompt_fills_a_micro_batch(
    tools: Tools, tiny_path: Path, shape: dict[str, int], n_prompt: int
) -> None:
    plan = Plan(Model("tiny", str(tiny_path)), **shape)  # type: ignore[arg-type]
    outcome = sing(tools, plan)
    assert outcome.measurement is not None, outcome.notes
    assert outcome.measurement.n_prompt == n_prompt


def answers(server: LlamaServer, n_tokens: int = 3) -> bool:
    """Whether the server still does what it is for."""
    model = HttpChatModel(server.require_endpoint(), "any", None, server.explain_death)
    *_, usage = model.stream([Message("user", "hello")], Sampling(max_tokens=n_tokens))
    return isinstance(usage, Usage) and usage.n_tokens == n_tokens


def test_a_slow_prompt_is_cut_off_and_the_engine_serves_on(tools: Tools, tmp_path: Path) -> None:
    # 35 billion operations on one thread: many times the limit.
    shape = Llama(n_layers=2, n_embd=256, n_head=4, n_head_kv=4, n_ctx_train=4608)
    path = shape.write(tmp_path / "slow.gguf")
    plan = Plan(Model("slow", str(path)), n_ctx=4608, n_batch=4096, n_ubatch=4096, flash_attn="off")
    with LlamaServer(tools, plan) as server:
        outcome = measure(server, plan, limit_seconds=0.1, host_used=process_memory)
        assert outcome == Outcome(None, ("The first prompt took longer than 0.1 s.",))
        assert answers(server)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_engine_that_hangs_is_given_up(tools: Tools, tiny_plan: Plan) -> None:
    def stop_it(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    with LlamaServer(tools, tiny_plan) as server:
        outcome = measure(server, tiny_plan, limit_seconds=0.1, host_used=stop_it)
        assert outcome.measurement is None
        assert server.pid is not None
        os.kill(server.pid, signal.SIGCONT)
        assert answers(server)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_engine_that_dies_of_it_is_an_engine_error(tools: Tools, tiny_plan: Plan) -> None:
    def kill_it(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    with (
        LlamaServer(tools, tiny_plan) as server,
        pytest.raises(EngineError, match="died of SIGKILL while running"),
    ):
        measure(server, tiny_plan, limit_seconds=PATIENCE_SECONDS, host_used=kill_it)


def test_a_prompt_that_is_refused_is_a_note(tools: Tools, tiny_plan: Plan) -> None:
    with LlamaServer(tools, tiny_plan) as server:
        endpoint = server.require_endpoint()
        server.endpoint = replace(endpoint, api_key="another")
        outcome = measure(
            server, tiny_plan, limit_seconds=PATIENCE_SECONDS, host_used=lambda _: None
        )
    assert outcome.measurement is None
    assert "did not take" in outcome.notes[0]


def test_a_server_that_was_not_started_is_a_note(tools: Tools, tiny_plan: Plan) -> None:
    server = LlamaServer(tools, tiny_plan)
    outcome = measure(server, tiny_plan, limit_seconds=1, host_used=process_memory)
    assert outcome == Outcome(None, ("The engine's process is not known.",))


@pytest.mark.parametrize(
    ("extra_argv", "load_mode", "held", "note"),
    [
        pytest.param(EXTRA_ARGV, "none", None, "main memory is not told", id="not-linux"),
        pytest.param((), "mmap", ProcessMemory(GIB), "mapped weights", id="silent-log"),
        pytest.param(EXTRA_ARGV, "none", ProcessMemory(1), "does not count", id="pinned"),
    ],
)
def test_memory_that_is_not_told_is_a_note_and_the_speed_is_still_measured(
    tools: Tools,
    tiny_plan: Plan,
    extra_argv: tuple[str, ...],
    load_mode: str,
    held: ProcessMemory | None,
    note: str,
) -> None:
    plan = predicted(replace(tiny_plan, load_mode=load_mode))  # type: ignore[arg-type]
    with LlamaServer(tools, plan, extra_argv=extra_argv) as server:
        outcome = measure(server, plan, limit_seconds=PATIENCE_SECONDS, host_used=lambda _: held)
    assert [note in told for told in outcome.notes] == [True]
    assert outcome.measurement is not None
    assert outcome.measurement.extra_bytes == {}
    assert outcome.measurement.prompt_tokens_per_second


def test_what_gpus_hold_is_compared_with_their_rows(tools: Tools, tiny_plan: Plan) -> None:
    rows = (
        DeviceMemory("CUDA0", 5 * GIB, 1 * GIB, 300 * MIB),
        DeviceMemory("CUDA1", 5 * GIB, 1 * GIB, 300 * MIB),
        DeviceMemory("CUDA2", 5 * GIB, 1 * GIB, 300 * MIB),
        DeviceMemory("RPC0", 1, 1, 1),
    )
    devices = (
        Device("CUDA0", pci_bus_id="0000:65:00.0"),
        Device("CUDA1", pci_bus_id="0000:9A:00.0"),
        Device("CUDA2", pci_bus_id="0000:bb:00.0"),
        Device("RPC0"),
    )
    asked = []

    def gpu_used(pid: int) -> dict[str, int]:
        asked.append(pid)
        # The last is somebody else's: it holds less than our weights.
        return {"0000:65:00.0": 7 * GIB, "0000:9a:00.0": 6 * GIB, "0000:bb:00.0": 3 * GIB}

    plan = replace(tiny_plan, memory=rows)
    with LlamaServer(tools, plan) as server:
        outcome = measure(
            server,
            plan,
            limit_seconds=PATIENCE_SECONDS,
            host_used=process_memory,
            gpu_used=gpu_used,
            devices=devices,
        )
        assert asked == [server.pid]
    assert outcome.measurement is not None
    assert outcome.measurement.extra_bytes == {"CUDA0": 724 * MIB, "CUDA1": -300 * MIB}
    assert outcome.measurement.peak_bytes == {"CUDA0": 7 * GIB, "CUDA1": 6 * GIB}
    assert [note.split()[-4] for note in outcome.notes] == ["CUDA2", "RPC0"]


BIG = Model("big", "/big.gguf", size_bytes=40 * GIB)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        pytest.param(Plan(BIG, 4096, speed=Speed(None, 100.0)), True, id="fast-enough"),
        pytest.param(Plan(BIG, 4096, speed=Speed(None, 50.0)), False, id="too-slow"),
        pytest.param(
            Plan(BIG, 4096, speed=Speed(None, 100.0, error=0.6)), False, id="maybe-too-slow"
        ),
        pytest.param(
            Plan(BIG, 4096, n_ubatch=32, speed=Speed(None, 10.0)), True, id="a-short-prompt"
        ),
        pytest.param(Plan(BIG, 4096, speed=Speed(None, 0.0)), False, id="no-speed-at-all"),
        pytest.param(Plan(BIG, 4096), False, id="big-and-unknown"),
        pytest.param(Plan(BIG, 4096, n_gpu_layers=1), True, id="on-a-device"),
        pytest.param(Plan(replace(BIG, size_bytes=GIB - 1), 4096), True, id="small"),
        pytest.param(
            Plan(replace(BIG, is_generative=False), 4096, n_gpu_layers=1), False, id="cannot-write"
        ),
    ],
)
def test_a_canary_is_sent_only_where_it_should_end_in_time(plan: Plan, expected: bool) -> None:
    assert worthwhile(plan, limit_seconds=6.0) is expected
