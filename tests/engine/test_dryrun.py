"""llama.cpp's word on memory, asked for real; a loopback RPC device stands for a GPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import IO, Any

import pytest

from localllm.engine import dryrun
from localllm.engine.bounds import memory_limit
from localllm.engine.dryrun import DryRun, _question
from localllm.engine.endpoint import free_port
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
from localllm.errors import EngineError, IntegrityError
from localllm.gguf import MemorySource, parse_header
from localllm.hub.localfile import open_model, read_header
from localllm.outline import outline
from localllm.plan import Model, Plan
from localllm.units import GIB, MIB
from tests.architectures.loaded import loopback_device
from tests.architectures.table import ARCHITECTURES
from tests.ggufs import I32, U16, Llama, header_bytes, write_gguf


@pytest.fixture(scope="module")
def medium_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that layers, context and buffers are whole MiB."""
    shape = Llama(n_layers=8, n_embd=512, n_ff=2048, n_head=8, n_head_kv=4, kind="Q8_0")
    return shape.write(tmp_path_factory.mktemp("models") / "medium.gguf")


@pytest.fixture
def oracle() -> Iterator[DryRun]:
    with DryRun() as dry_run:
        yield dry_run


@pytest.fixture
def rpc_device(tools: Tools) -> Iterator[str]:
    with loopback_device(tools) as endpoint:
        yield endpoint


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
    question = _question(plan, {plan.model.path: plan.model.path})
    # The same child, with weights and buffers really loaded.
    loaded = f"""
import json
from localllm.engine.dryrun_child import DryRunner, llama_cpp
real = llama_cpp.llama_model_load_from_file
def load(path, params):
    params.no_alloc, params.load_mode = False, llama_cpp.LLAMA_LOAD_MODE_MMAP
    return real(path, params)
llama_cpp.llama_model_load_from_file = load
print(json.dumps(DryRunner().answer({question!r})["rows"]))
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
    oracle: DryRun, medium_path: Path, rpc_device: str, n_gpu_layers: int
) -> None:
    plan = Plan(
        Model("m", str(medium_path)), n_ctx=4096, n_gpu_layers=n_gpu_layers, rpc=(rpc_device,)
    )
    whole = oracle.memory(plan)
    oracle.__exit__()  # the device takes one client at a time
    opened = open_model(medium_path, "m", "file")
    assert len(opened.outlines[0].data) < 8192
    elsewhere = replace(plan, model=replace(plan.model, path="/not/here.gguf"))
    with DryRun({"/not/here.gguf": opened.outlines}) as outlined:
        assert outlined.memory(elsewhere) == whole


def test_a_split_model_is_answered_from_the_outlines_of_its_parts(tmp_path: Path) -> None:
    shape = Llama(n_layers=4, n_embd=256, n_ff=512)
    whole = shape.write(tmp_path / "whole.gguf")
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    tensors, keys = shape.tensors(), shape.metadata()
    count = {"split.count": U16(2), "split.tensors.count": I32(len(tensors))}
    write_gguf(first, {**keys, **count, "split.no": U16(0)}, tensors[:10])
    write_gguf(second, {**count, "split.no": U16(1)}, tensors[10:])
    opened = open_model(first, "m", "file")
    with DryRun({str(first): opened.outlines}) as oracle:
        split = oracle.memory(Plan(Model("m", str(first)), n_ctx=1024))
        assert split == oracle.memory(Plan(Model("m", str(whole)), n_ctx=1024))


def test_where_an_outline_will_not_do_the_file_is_asked(medium_path: Path) -> None:
    useless = MemorySource(header_bytes({"general.architecture": "alien"}, []))
    plan = Plan(Model("m", str(medium_path)), n_ctx=1024)
    with DryRun({str(medium_path): [useless]}) as oracle, DryRun() as plain:
        assert oracle.memory(plan) == plain.memory(plan)


def test_holes_take_no_room_and_go_away(home: Path) -> None:
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
    with DryRun({"70b": [outline(source, parse_header(source))]}) as oracle:
        (host,) = oracle.memory(Plan(Model("70b", "70b"), n_ctx=8192))
        (hole,) = (home / "run").glob("engine-*/0/model.gguf")
        assert hole.stat().st_size > 35 * GIB
        assert hole.stat().st_blocks * 512 < MIB
    assert host.model_bytes > 35 * GIB
    assert list((home / "run").glob("engine-*")) == []


def _ends(child: Popen[str], _patch: pytest.MonkeyPatch) -> None:
    child.kill()


def _aborts(child: Popen[str], _patch: pytest.MonkeyPatch) -> None:
    child.send_signal(signal.SIGABRT)


def _hangs(child: Popen[str], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dryrun, "_TIMEOUT_SECONDS", 0.1)
    child.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        pytest.param(_ends, "died of SIGKILL", id="killed"),
        pytest.param(_aborts, "died of SIGABRT", id="aborted"),
        pytest.param(_hangs, "gave no answer about .*medium.gguf", id="hanging"),
    ],
)
def test_a_child_that_fails_is_an_error_and_the_next_question_is_answered(
    oracle: DryRun,
    medium_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[Popen[str], pytest.MonkeyPatch], None],
    told: str,
) -> None:
    plan = Plan(Model("m", str(medium_path)), n_ctx=512)
    before = oracle.memory(plan)
    child = oracle._child
    assert child is not None
    with monkeypatch.context() as patch:
        fails(child, patch)
        with pytest.raises(EngineError, match=told):
            oracle.memory(plan)
    assert child.returncode is not None
    assert oracle.memory(plan) == before


def test_an_abort_of_llama_cpp_is_told_in_words(oracle: DryRun) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=f"no RPC server answers at {endpoint}$"):
        oracle.devices((endpoint,))
    assert oracle.devices() == ()


def test_half_an_answer_is_none(medium_path: Path) -> None:
    class HalfAnswer(DryRun):
        def _start_child(self, stderr: IO[str], environment: dict[str, str]) -> Popen[str]:
            half = """print('{"rows": [["Host", 1, 1, 1', end="")"""
            return subprocess.Popen(
                [sys.executable, "-c", f"input(); {half}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    with HalfAnswer() as oracle, pytest.raises(EngineError, match="ended with status 0"):
        oracle.memory(Plan(Model("m", str(medium_path)), n_ctx=512))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"devices": ("CUDA7",)}, "this engine has no device CUDA7"),
        ({"tensor_overrides": ("blk=CUDA7",)}, "this engine has no buffer type CUDA7"),
    ],
    ids=["device", "buffer type"],
)
def test_a_device_that_is_not_there_is_named(
    oracle: DryRun, medium_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(EngineError, match=told):
        oracle.memory(Plan(Model("m", str(medium_path)), n_ctx=512, **changes))


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


def test_the_host_is_no_device_and_one_behind_an_endpoint_is(
    oracle: DryRun, rpc_device: str
) -> None:
    assert oracle.devices() == ()
    (device,) = oracle.devices((rpc_device,))
    assert (device.name, device.description, device.pci_bus_id) == ("RPC0", rpc_device, None)
    assert 0 < (device.free_bytes or 0) <= (device.total_bytes or 0)


def test_devices_are_numbered_as_the_question_has_them(tools: Tools, medium_path: Path) -> None:
    # An endpoint that an earlier question named is no device of a later one that does not.
    plan = Plan(Model("m", str(medium_path)), n_ctx=512, n_gpu_layers=9)
    with loopback_devices(tools, 2) as (one, other), DryRun() as oracle:
        on_one = oracle.memory(replace(plan, rpc=(one,)))
        assert [row.device for row in on_one] == ["Host", "RPC0"]
        both = oracle.devices((one, other))
        assert [d.description for d in both] == [one, other]
        (alone,) = oracle.devices((other,))
        assert (alone.name, alone.description) == ("RPC0", other)
        assert oracle.memory(replace(plan, rpc=(other,))) == on_one
        assert [row.device for row in oracle.memory(plan)] == ["Host"]


def test_a_plan_can_do_with_some_of_the_devices(tools: Tools, medium_path: Path) -> None:
    plan = Plan(Model("m", str(medium_path)), n_ctx=512, n_gpu_layers=9)
    with loopback_devices(tools, 2) as rpc, DryRun() as oracle:
        (_, both_0, both_1) = oracle.memory(replace(plan, rpc=rpc))
        _, only = oracle.memory(replace(plan, rpc=rpc, devices=("RPC1",)))
    assert only.device == "RPC1"
    assert only.model_bytes == both_0.model_bytes + both_1.model_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="bounded on Linux alone")
def test_a_header_that_asks_for_a_state_beyond_all_memory_ends_no_process_but_the_child(
    oracle: DryRun, tmp_path: Path
) -> None:
    """A dry run allocates recurrent states in earnest."""
    (mamba,) = (each for each in ARCHITECTURES if each.id == "mamba")
    limit = memory_limit()
    assert limit is not None
    state = 1 << 10
    while state * mamba.sizes.inner * 4 * mamba.n_layers <= limit:
        state *= 2
    if state > 1 << 23:  # where llama.cpp's own sums begin to overflow
        pytest.skip("this machine has memory for any state that llama.cpp can count")
    greedy = replace(mamba, sizes=replace(mamba.sizes, state=state), kind="F16")
    tensors = greedy.tensors()
    data = header_bytes(greedy.metadata(), tensors)
    n_bytes = sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
    path = tmp_path / "greedy.gguf"
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(len(data) + n_bytes)
    with pytest.raises(EngineError, match="memory"):
        oracle.memory(Plan(Model("greedy", str(path)), n_ctx=256, n_ubatch=64, n_batch=64))
