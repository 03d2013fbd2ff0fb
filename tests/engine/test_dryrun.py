"""llama.cpp's word on memory, asked for real; a loopback RPC device stands for a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.engine.dryrun import DryRun, _question, parse_fitted
from localllm.engine.locate import Tools
from localllm.errors import EngineError, IntegrityError
from localllm.gguf import MemorySource, parse_header
from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.hub.localfile import open_model, read_header
from localllm.outline import outline
from localllm.paths import shipped_profiles_dir
from localllm.plan import Fit, Model, Plan
from localllm.planner import Wishes, choose
from localllm.profiles import load_policy
from localllm.units import GIB, MIB
from tests.architectures.loaded import loopback_device
from tests.ggufs import I32, U16, Llama, header_bytes, write_gguf


@pytest.fixture(scope="module")
def medium_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that layers, context and buffers are whole MiB."""
    shape = Llama(n_layers=8, n_embd=512, n_ff=2048, n_head=8, n_head_kv=4, kind="Q8_0")
    return shape.write(tmp_path_factory.mktemp("models") / "medium.gguf")


@pytest.fixture
def oracle(tools: Tools) -> Iterator[DryRun]:
    with DryRun(tools) as dry_run:
        yield dry_run


@pytest.fixture
def rpc_device(tools: Tools) -> Iterator[str]:
    with loopback_device(tools) as endpoint:
        yield endpoint


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
    oracle: DryRun, medium_path: Path
) -> None:
    plan = Plan(Model("m", str(medium_path)), n_ctx=2048)
    (small,) = oracle.memory(plan)
    (large,) = oracle.memory(replace(plan, n_ctx=8192))
    assert small.model_bytes == large.model_bytes
    # 8 layers x (K + V) x 256 wide x 2 bytes x tokens
    assert small.context_bytes == 8 * 2 * 256 * 2 * 2048
    assert large.context_bytes == 4 * small.context_bytes


def test_every_weight_is_counted_repacked_ones_too(oracle: DryRun, medium_path: Path) -> None:
    (host,) = oracle.memory(Plan(Model("m", str(medium_path)), n_ctx=512))
    weights = sum(tensor.n_bytes for tensor in read_header(medium_path).tensors)
    assert weights <= host.model_bytes < weights + MIB


def test_a_smaller_kv_type_takes_less(oracle: DryRun, medium_path: Path) -> None:
    plan = Plan(Model("m", str(medium_path)), n_ctx=8192)
    (f16,) = oracle.memory(plan)
    (q8,) = oracle.memory(replace(plan, type_k="q8_0", type_v="q8_0"))
    assert q8.context_bytes * 64 == f16.context_bytes * 34  # 34 bytes for 32 values


@pytest.mark.parametrize("n_gpu_layers", [0, 3, 9])
def test_the_dry_run_is_what_a_loaded_model_reports(
    oracle: DryRun, medium_path: Path, rpc_device: str, n_gpu_layers: int
) -> None:
    plan = Plan(
        Model("m", str(medium_path)),
        n_ctx=4096,
        n_parallel=2,
        n_gpu_layers=n_gpu_layers,
        rpc=(rpc_device,),
    )
    predicted = {row.device: row for row in oracle.memory(plan)}
    oracle.__exit__()  # the device takes one client at a time
    # The same child, with weights and buffers really loaded.
    loaded = f"""
import json
from localllm.engine.dryrun_child import DryRunner, llama_cpp
real = llama_cpp.llama_model_load_from_file
def load(path, params):
    params.no_alloc, params.load_mode = False, llama_cpp.LLAMA_LOAD_MODE_MMAP
    return real(path, params)
llama_cpp.llama_model_load_from_file = load
print(json.dumps(DryRunner().answer({_question(plan, plan.model.path)!r})["rows"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout)
    assert {row[0] for row in rows} == predicted.keys()
    for device, model, context, compute in rows:
        row = predicted[device]
        assert (row.context_bytes, row.compute_bytes) == (context, compute)
        assert row.model_bytes == pytest.approx(model, abs=0)


@pytest.mark.parametrize("n_gpu_layers", [0, 5])
def test_an_outline_answers_as_the_whole_file_does(
    oracle: DryRun, tools: Tools, medium_path: Path, rpc_device: str, n_gpu_layers: int
) -> None:
    plan = Plan(
        Model("m", str(medium_path)), n_ctx=4096, n_gpu_layers=n_gpu_layers, rpc=(rpc_device,)
    )
    whole = oracle.memory(plan)
    oracle.__exit__()  # the device takes one client at a time
    opened = open_model(medium_path, "m", "file")
    assert len(opened.outlines[0].data) < 8192
    elsewhere = replace(plan, model=replace(plan.model, path="/not/here.gguf"))
    with DryRun(tools, {"/not/here.gguf": opened.outlines}) as outlined:
        assert outlined.memory(elsewhere) == whole


def test_a_split_model_is_answered_from_the_outlines_of_its_parts(
    tools: Tools, tmp_path: Path
) -> None:
    shape = Llama(n_layers=4, n_embd=256, n_ff=512)
    whole = shape.write(tmp_path / "whole.gguf")
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    tensors, keys = shape.tensors(), shape.metadata()
    count = {"split.count": U16(2), "split.tensors.count": I32(len(tensors))}
    write_gguf(first, {**keys, **count, "split.no": U16(0)}, tensors[:10])
    write_gguf(second, {**count, "split.no": U16(1)}, tensors[10:])
    opened = open_model(first, "m", "file")
    with DryRun(tools, {str(first): opened.outlines}) as oracle:
        split = oracle.memory(Plan(Model("m", str(first)), n_ctx=1024))
        assert split == oracle.memory(Plan(Model("m", str(whole)), n_ctx=1024))


def test_where_an_outline_will_not_do_the_file_is_asked(
    tools: Tools, medium_path: Path, tmp_path: Path
) -> None:
    useless = MemorySource(header_bytes({"general.architecture": "alien"}, []))
    plan = Plan(Model("m", str(medium_path)), n_ctx=1024)
    with DryRun(tools, {str(medium_path): [useless]}) as oracle, DryRun(tools) as plain:
        assert oracle.memory(plan) == plain.memory(plan)
    with DryRun(tools, {str(medium_path): [useless]}) as oracle, DryRun(tools) as plain:
        assert oracle.fit(plan, 0) == plain.fit(plan, 0)


def test_holes_take_no_room_and_go_away(tools: Tools, home: Path) -> None:
    # 70B at Q4_K: 40 GB of hole, on any disk.
    shape = Llama(
        n_layers=80,
        n_embd=8192,
        n_ff=28672,
        n_head=64,
        n_head_kv=8,
        kind="Q4_K",
        file_type="Q4_K_M",
    )
    header = header_bytes(shape.metadata(), shape.tensors())
    n_bytes = len(header) + sum(-(-t.n_bytes // 32) * 32 for t in shape.tensors())
    source = MemorySource(header, "70B", n_bytes)
    with DryRun(tools, {"70b": [outline(source, parse_header(source))]}) as oracle:
        (host,) = oracle.memory(Plan(Model("70b", "70b"), n_ctx=8192))
        (hole,) = (home / "run").glob("engine-*/0/model.gguf")
        assert hole.stat().st_size > 35 * GIB
        assert hole.stat().st_blocks * 512 < MIB
    assert host.model_bytes > 35 * GIB
    assert list((home / "run").glob("engine-*")) == []


def test_a_child_that_is_killed_is_an_error_and_the_next_question_is_answered(
    oracle: DryRun, medium_path: Path
) -> None:
    plan = Plan(Model("m", str(medium_path)), n_ctx=512)
    before = oracle.memory(plan)
    assert oracle._child is not None
    oracle._child.kill()
    with pytest.raises(EngineError, match="SIGKILL"):
        oracle.memory(plan)
    assert oracle.memory(plan) == before


def test_a_model_that_llama_cpp_refuses_is_an_engine_error(oracle: DryRun, tmp_path: Path) -> None:
    path = tmp_path / "alien.gguf"
    path.write_bytes(header_bytes({"general.architecture": "alien"}, []))
    with pytest.raises(EngineError, match="architecture 'alien'"):
        oracle.memory(Plan(Model("alien", str(path)), n_ctx=512))


def test_a_file_cut_short_is_an_integrity_error(
    oracle: DryRun, tmp_path: Path, tiny_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_path.read_bytes()[:-4096])
    with pytest.raises(IntegrityError, match=r"cut\.gguf is cut short"):
        oracle.memory(Plan(Model("cut", str(path)), n_ctx=512))


def test_layers_go_to_a_device_that_has_room(
    oracle: DryRun, medium_path: Path, rpc_device: str
) -> None:
    plan = _choose(medium_path, oracle, Wishes(rpc=(rpc_device,), n_ctx=2048))
    assert plan.n_gpu_layers == 9
    by_device = {row.device: row for row in plan.memory}
    assert by_device["RPC0"].model_bytes > by_device["Host"].model_bytes
    assert (by_device["RPC0"].free_bytes or 0) > 0


def test_the_library_alone_finds_the_most_layers_that_fit(
    oracle: DryRun, medium_path: Path, rpc_device: str
) -> None:
    library_only = DryRun(None)
    plan = Plan(Model("m", str(medium_path), n_layers=8), n_ctx=2048, rpc=(rpc_device,))
    with library_only:
        by_layers = [
            next(
                (r for r in library_only.memory(replace(plan, n_gpu_layers=n)) if r.free_bytes),
                None,
            )
            for n in range(10)
        ]
        assert library_only.fit(plan, 0).n_gpu_layers == 9
        # A reserve that leaves room for what five layers take, and not six.
        five = by_layers[5]
        assert five is not None
        assert five.free_bytes is not None
        reserve = five.free_bytes - five.total_bytes
        assert library_only.fit(plan, reserve).n_gpu_layers == 5


def test_an_explicit_number_of_layers_is_kept(
    oracle: DryRun, medium_path: Path, rpc_device: str
) -> None:
    plan = _choose(medium_path, oracle, Wishes(rpc=(rpc_device,), n_gpu_layers=3, n_ctx=2048))
    assert plan.n_gpu_layers == 3
    reason = next(r for r in plan.reasons if r.field == "n_gpu_layers")
    assert reason.source == "flag"


def test_an_engine_without_gpu_support_plans_for_the_cpu_and_says_so(
    oracle: DryRun, medium_path: Path
) -> None:
    gpu = Accelerator("nvidia", 0, "NVIDIA GeForce RTX 4090", total_bytes=24 * GIB)
    plan = _choose(medium_path, oracle, Wishes(n_ctx=2048), gpu)
    assert plan.n_gpu_layers == 0
    reason = next(r for r in plan.reasons if r.field == "n_gpu_layers")
    assert "sees no accelerator" in reason.because


def _choose(path: Path, oracle: DryRun, wishes: Wishes, *gpus: Accelerator) -> Plan:
    machine = Hardware(
        System("Linux"),
        Cpu(n_physical=2, n_logical=2),
        Memory(total_bytes=16 * GIB, available_bytes=8 * GIB),
        gpus,
    )
    policy = load_policy(shipped_profiles_dir())
    model = Model("m", str(path), n_layers=8, n_ctx_train=8192)
    return choose(machine, model, policy, wishes, "chat", oracle)
