"""llama.cpp's word on memory, asked for real; a loopback RPC device stands for a GPU."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.engine.fit import (
    FitParams,
    parse_devices,
    parse_fitted,
    parse_memory,
    with_all_weights,
)
from localllm.engine.locate import RPC_SERVER, Tools
from localllm.errors import EngineError, IntegrityError
from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.paths import shipped_profiles_dir
from localllm.plan import Fit, Model, Plan
from localllm.planner import Wishes, choose
from localllm.profiles import load_policy
from localllm.units import GIB, MIB
from tests.conftest import wait_until
from tests.ggufs import Llama

# llama-fit-params --fit-print on, of a 0.7B model with 10 layers on an RPC device.
TABLE = "RPC0 197 144 298 \nHost 83 240 40 \n"

# llama-fit-params --rpc 127.0.0.1:50991 --list-devices
DEVICES = "Available devices:\n  RPC0: 127.0.0.1:50991 (24105 MiB, 23001 MiB free)\n"


@pytest.fixture(scope="module")
def medium_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that layers, context and buffers are whole MiB."""
    shape = Llama(n_layers=8, n_embd=512, n_ff=2048, n_head=8, n_head_kv=4, kind="Q8_0")
    return shape.write(tmp_path_factory.mktemp("models") / "medium.gguf")


@pytest.fixture
def rpc_device(tools: Tools) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [str(tools.path(RPC_SERVER)), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def listening() -> bool:
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listening, "the RPC device")
        yield f"127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


def test_reads_the_memory_table_host_first() -> None:
    host, device = parse_memory(TABLE)
    assert (host.device, host.model_bytes, host.context_bytes) == ("Host", 83 * MIB, 240 * MIB)
    assert (device.device, device.compute_bytes) == ("RPC0", 298 * MIB)


def test_weights_that_are_on_no_device_count_for_the_host() -> None:
    host, device = with_all_weights(parse_memory(TABLE), 407 * MIB)
    assert (host.model_bytes, device.model_bytes) == (210 * MIB, 197 * MIB)


def test_weights_that_are_on_both_sides_are_not_taken_from_the_host() -> None:
    host, _ = with_all_weights(parse_memory(TABLE), 200 * MIB)
    assert host.model_bytes == 83 * MIB


def test_reads_what_is_free_on_a_device() -> None:
    assert parse_devices(DEVICES) == {"RPC0": 23001 * MIB}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("-c 8192 -ngl -1", Fit(8192, -1), id="everything"),
        pytest.param("-c 4096 -ngl 21 -ts 11,10", Fit(4096, 21, (11.0, 10.0)), id="two devices"),
        pytest.param(
            '-c 4096 -ngl 49 -ot "blk\\.3\\.ffn_(up|gate|down).*=CPU,blk\\.4\\.ffn=CPU"',
            Fit(4096, 49, None, ("blk\\.3\\.ffn_(up|gate|down).*=CPU", "blk\\.4\\.ffn=CPU")),
            id="overrides",
        ),
    ],
)
def test_reads_the_arguments_that_llama_cpp_prints(line: str, expected: Fit) -> None:
    assert parse_fitted(f"some log line\n{line}\n") == expected


def test_the_context_grows_with_n_ctx_and_the_model_does_not(
    tools: Tools, medium_path: Path
) -> None:
    oracle = FitParams(tools)
    plan = Plan(Model("m", str(medium_path)), n_ctx=2048)
    (small,) = oracle.memory(plan)
    (large,) = oracle.memory(replace(plan, n_ctx=8192))
    assert small.model_bytes == large.model_bytes
    # 8 layers x (K + V) x 256 wide x 2 bytes x tokens
    assert small.context_bytes == 8 * 2 * 256 * 2 * 2048
    assert large.context_bytes == 4 * small.context_bytes


def test_a_smaller_kv_type_takes_less(tools: Tools, medium_path: Path) -> None:
    plan = Plan(Model("m", str(medium_path)), n_ctx=8192)
    (f16,) = FitParams(tools).memory(plan)
    (q8,) = FitParams(tools).memory(replace(plan, type_k="q8_0", type_v="q8_0"))
    assert q8.context_bytes < f16.context_bytes


def test_a_model_that_llama_cpp_refuses_is_an_engine_error(tools: Tools, tmp_path: Path) -> None:
    from tests.ggufs import header_bytes

    path = tmp_path / "alien.gguf"
    path.write_bytes(header_bytes({"general.architecture": "alien"}, []))
    with pytest.raises(EngineError, match="architecture 'alien'"):
        FitParams(tools).memory(Plan(Model("alien", str(path)), n_ctx=512))


def test_a_file_cut_short_is_an_integrity_error(
    tools: Tools, tmp_path: Path, tiny_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_path.read_bytes()[:-4096])
    with pytest.raises((EngineError, IntegrityError), match=r"cut\.gguf"):
        FitParams(tools).memory(Plan(Model("cut", str(path)), n_ctx=512))


def test_layers_go_to_a_device_that_has_room(
    tools: Tools, medium_path: Path, rpc_device: str
) -> None:
    plan = _choose(medium_path, tools, Wishes(rpc=(rpc_device,), n_ctx=2048))
    assert plan.n_gpu_layers == 9
    by_device = {row.device: row for row in plan.memory}
    assert by_device["RPC0"].model_bytes > by_device["Host"].model_bytes


def test_an_explicit_number_of_layers_is_kept(
    tools: Tools, medium_path: Path, rpc_device: str
) -> None:
    plan = _choose(medium_path, tools, Wishes(rpc=(rpc_device,), n_gpu_layers=3, n_ctx=2048))
    assert plan.n_gpu_layers == 3
    reason = next(r for r in plan.reasons if r.field == "n_gpu_layers")
    assert reason.source == "flag"


def test_an_engine_without_gpu_support_plans_for_the_cpu_and_says_so(
    tools: Tools, medium_path: Path
) -> None:
    gpu = Accelerator("nvidia", 0, "NVIDIA GeForce RTX 4090", total_bytes=24 * GIB)
    plan = _choose(medium_path, tools, Wishes(n_ctx=2048), gpu)
    assert plan.n_gpu_layers == 0
    reason = next(r for r in plan.reasons if r.field == "n_gpu_layers")
    assert "sees no accelerator" in reason.because


def _choose(path: Path, tools: Tools, wishes: Wishes, *gpus: Accelerator) -> Plan:
    machine = Hardware(
        System("Linux"),
        Cpu(n_physical=2, n_logical=2),
        Memory(total_bytes=16 * GIB, available_bytes=8 * GIB),
        gpus,
    )
    policy = load_policy(shipped_profiles_dir())
    model = Model("m", str(path), n_layers=8, n_ctx_train=8192)
    return choose(machine, model, policy, wishes, "chat", FitParams(tools))
