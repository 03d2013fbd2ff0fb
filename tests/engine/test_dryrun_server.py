"""The dry run against llama-server itself: what its log says that it allocated.

test_exactness.py has the bytes of many architectures from the library; here are the choices that
only llama-server makes, with the models beside the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.engine.dryrun import DryRun
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
from localllm.engine.server import LlamaServer
from localllm.errors import EngineError
from localllm.gguf import MemorySource
from localllm.hub.localfile import open_model
from localllm.plan import Model, Plan
from localllm.units import MIB
from tests.architectures.table import ARCHITECTURES
from tests.conftest import wait_until
from tests.ggufs import Llama, Projector, TensorSpec, header_bytes, write_gguf

# 0.00.058.291 I load_tensors: RPC0[127.0.0.1:53747] model buffer size =     1.28 MiB
# 0.00.060.650 I llama_kv_cache:        CPU KV buffer size =     1.00 MiB
# 0.00.008.140 I llama_memory_recurrent:        CPU RS buffer size =     0.07 MiB
# 0.00.067.968 I sched_reserve: RPC0[127.0.0.1:53747] compute buffer size =     4.51 MiB
# The "output buffer", 4 bytes a slot and word of the vocabulary, is not in llama.cpp's breakdown.
_BUFFER = re.compile(r" (\S+) (model|KV|RS|compute) buffer size = +([\d.]+) MiB")
_KINDS = {"model": "model", "KV": "context", "RS": "context", "compute": "compute"}
_ROUNDING_MIB = 0.005
HOST_CONTEXT = ("Host", "context")

#: With a vocabulary that makes the buffers of outputs large enough to be seen.
MODEL = Llama(n_layers=4, n_embd=256, n_ff=512, n_vocab=20_480, kind="Q8_0")
DRAFT = Llama(n_layers=2, n_embd=128, n_ff=256, n_vocab=20_480, kind="Q8_0")
PROJECTOR = Projector(
    n_embd_text=256, n_embd=256, n_ff=512, image_size=224, patch_size=14, kind="F16"
)

Sizes = dict[tuple[str, str], float]


def taken(tools: Tools, plan: Plan) -> tuple[Sizes, int]:
    """MiB by (device, kind) that a llama-server with this plan reports, and of how many lines."""
    server = LlamaServer(tools, replace(plan, load_mode="none"), extra_argv=["--verbosity", "4"])
    with server:
        wait_until(lambda: "all slots are idle" in server.log(), "the log's last line")
        lines = _BUFFER.findall(server.log())
    total: Counter[tuple[str, str]] = Counter()
    for where, what, mib in lines:
        endpoint = where.partition("[")[2].rstrip("]")
        device = f"RPC{plan.rpc.index(endpoint)}" if endpoint else "Host"
        total[device, _KINDS[what]] += float(mib)  # type: ignore[assignment]
    return dict(total), len(lines)


def predicted(plan: Plan, **outlines: list[MemorySource]) -> Sizes:
    """The same from a dry run."""
    with DryRun(outlines) as oracle:
        return {
            (row.device, kind): size / MIB
            for row in oracle.memory(plan)
            for kind, size in (
                ("model", row.model_bytes),
                ("context", row.context_bytes),
                ("compute", row.compute_bytes),
            )
            if size
        }


def check(tools: Tools, plan: Plan) -> Sizes:
    """Compares the two, and returns the prediction."""
    before = predicted(plan)
    after, n_lines = taken(tools, plan)
    for key in before.keys() | after.keys():
        tolerance = _ROUNDING_MIB * n_lines
        assert after.get(key, 0.0) == pytest.approx(before.get(key, 0.0), abs=tolerance), key
    return before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model_path(folder: Path) -> str:
    return str(MODEL.write(folder / "model.gguf"))


@pytest.fixture(scope="module")
def draft_path(folder: Path) -> str:
    return str(DRAFT.write(folder / "draft.gguf"))


@pytest.fixture(scope="module")
def mmproj_path(folder: Path) -> str:
    return str(PROJECTOR.write(folder / "mmproj.gguf"))


@pytest.fixture
def rpc(tools: Tools) -> Iterator[tuple[str, ...]]:
    with loopback_devices(tools, 2) as endpoints:
        yield endpoints


PLACEMENTS = [
    pytest.param({}, id="host"),
    pytest.param({"n_gpu_layers": 3}, id="devices left to llama.cpp"),
    pytest.param({"devices": ("RPC0", "RPC1"), "n_gpu_layers": 0}, id="no layers"),
    pytest.param({"devices": (), "n_gpu_layers": 3}, id="no device"),
    pytest.param({"devices": ("RPC1",), "n_gpu_layers": 3}, id="some layers on the second"),
    pytest.param(
        {"devices": ("RPC1", "RPC0"), "n_gpu_layers": 5, "tensor_split": (3.0, 1.0),
         "tensor_overrides": (r"blk\.1\.ffn_.*=CPU",)},
        id="split and overridden",
    ),
]  # fmt: skip


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_layers_lie_where_the_plan_has_them(
    tools: Tools, model_path: str, rpc: tuple[str, ...], placement: dict[str, object]
) -> None:
    rpc = rpc if placement else ()  # what is known of is used
    plan = Plan(Model("m", model_path), n_ctx=1024, n_parallel=2, rpc=rpc)
    check(tools, replace(plan, **placement))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gemma3", "gpt-oss", "mamba"])
def test_windows_and_states_take_what_llama_server_gives_them(
    tools: Tools, folder: Path, name: str
) -> None:
    architecture = next(a for a in ARCHITECTURES if a.id == name)
    path = str(architecture.write(folder))
    short = check(tools, Plan(Model(name, path), n_ctx=2048))
    long = check(tools, Plan(Model(name, path), n_ctx=8192))
    assert long["Host", "context"] < 4 * short["Host", "context"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_draft_model_is_counted_where_it_goes(
    tools: Tools,
    model_path: str,
    draft_path: str,
    rpc: tuple[str, ...],
    placement: dict[str, object],
) -> None:
    rpc = rpc if placement else ()  # what is known of is used
    alone = Plan(Model("m", model_path), n_ctx=1024, n_parallel=2, type_k="q8_0", rpc=rpc)
    alone = replace(alone, **placement)  # type: ignore[arg-type]
    plan = replace(alone, draft=Model("d", draft_path))
    with_draft, without = check(tools, plan), predicted(alone)
    # 2 layers x (K + V) x 64 wide x 2 bytes x tokens
    assert _contexts(with_draft) - _contexts(without) == 2 * 2 * 64 * 2 * 1024
    on_host = with_draft.get(HOST_CONTEXT, 0.0) - without.get(HOST_CONTEXT, 0.0)
    assert (on_host == 0) == bool(plan.n_gpu_layers and plan.devices != ())


def _contexts(sizes: Sizes) -> float:
    return sum(size * MIB for (_, kind), size in sizes.items() if kind == "context")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_projector_is_counted_where_it_goes(
    tools: Tools,
    model_path: str,
    mmproj_path: str,
    rpc: tuple[str, ...],
    placement: dict[str, object],
) -> None:
    rpc = rpc if placement else ()  # what is known of is used
    alone = Plan(Model("m", model_path), n_ctx=1024, rpc=rpc, **placement)  # type: ignore[arg-type]
    plan = replace(alone, mmproj=mmproj_path)
    # Its weights are in no line of the log.
    without, after = predicted(alone), taken(tools, plan)[0]
    before = predicted(plan)
    n_bytes = sum(tensor.n_bytes for tensor in PROJECTOR.tensors())
    places = ("RPC0",) if plan.devices is None else plan.devices
    where = places[0] if plan.n_gpu_layers and places else "Host"
    for key in before.keys() | after.keys():
        weights = n_bytes / MIB if key == (where, "model") else 0.0
        assert before[key] == pytest.approx(after.get(key, 0.0) + weights, abs=0.03), key
    assert before[where, "model"] * MIB == without[where, "model"] * MIB + n_bytes
    assert before[where, "compute"] > without[where, "compute"] + 1


def test_a_projector_goes_to_a_device_that_has_come_since(
    model_path: str, mmproj_path: str, rpc: tuple[str, ...]
) -> None:
    plan = Plan(Model("m", model_path), n_ctx=512, n_gpu_layers=5, mmproj=mmproj_path)
    with DryRun() as oracle:
        (host,) = oracle.memory(plan)
        rows = {row.device: row for row in oracle.memory(replace(plan, rpc=rpc[:1]))}
    assert rows["RPC0"].model_bytes > host.model_bytes / 2 > rows["Host"].model_bytes


def test_companions_are_answered_from_their_outlines(
    model_path: str, draft_path: str, mmproj_path: str
) -> None:
    plan = Plan(Model("m", model_path), n_ctx=1024, draft=Model("d", draft_path),
                mmproj=mmproj_path)  # fmt: skip
    elsewhere = replace(plan, model=Model("m", "m"), draft=Model("d", "d"), mmproj="p")
    header = header_bytes(PROJECTOR.metadata(), PROJECTOR.tensors())
    outlines = {
        "m": list(open_model(Path(model_path), "m", "file").outlines),
        "d": list(open_model(Path(draft_path), "d", "file").outlines),
        "p": [MemorySource(header, "p", Path(mmproj_path).stat().st_size)],
    }
    assert predicted(elsewhere, **outlines) == predicted(plan)


def test_a_companion_that_will_not_do_is_named(
    model_path: str, mmproj_path: str, folder: Path
) -> None:
    plan = Plan(Model("m", model_path), n_ctx=512)
    broken = folder / "broken.gguf"
    broken.write_bytes(header_bytes({"general.architecture": "alien"}, []))
    with DryRun() as oracle:
        with pytest.raises(EngineError, match=r"'alien' of .*broken\.gguf"):
            oracle.memory(replace(plan, draft=Model("d", str(broken))))
        with pytest.raises(EngineError, match=r"cannot make a projector of .*broken\.gguf"):
            oracle.memory(replace(plan, mmproj=str(broken)))
        with pytest.raises(EngineError, match=r"cannot make a projector of .*model\.gguf"):
            oracle.memory(replace(plan, mmproj=model_path))
        with pytest.raises(EngineError, match=r"mmproj\.gguf"):
            oracle.memory(replace(plan, draft=Model("d", mmproj_path)))


def test_a_part_of_a_model_is_no_draft(folder: Path, model_path: str) -> None:
    # EAGLE-3: one layer that reads what the layers of another model put out.
    shape = Llama(n_layers=1, n_embd=256, n_ff=512)
    keys = {key.replace("llama.", "eagle3."): item for key, item in shape.metadata().items()}
    keys |= {"general.architecture": "eagle3", "eagle3.target_layers": [0, 1, 2]}
    keys["eagle3.target_hidden_size"] = 256
    wide = [
        replace(t, shape=(512, t.shape[1])) if re.search(r"attn_[qkv]\.", t.name) else t
        for t in shape.tensors()
    ]
    more = [TensorSpec("fc.weight", (768, 256)), TensorSpec("blk.0.attn_norm_2.weight", (256,))]
    path = write_gguf(folder / "head.gguf", keys, [*wide, *more])
    with (
        DryRun() as oracle,
        pytest.raises(EngineError, match=r"head.gguf is no draft model of its"),
    ):
        oracle.memory(Plan(Model("m", model_path), n_ctx=512, draft=Model("d", str(path))))


def test_without_libmtmd_a_projector_is_not_guessed_at(
    model_path: str, mmproj_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localllm.engine.dryrun.find_projector_library", lambda: None)
    with DryRun() as oracle, pytest.raises(EngineError, match="has no libmtmd"):
        oracle.memory(Plan(Model("m", model_path), n_ctx=512, mmproj=mmproj_path))


@pytest.mark.parametrize("split", [(1.0,), (1.0, 1.0, 1.0)])
def test_a_split_has_a_share_for_every_device(
    model_path: str, rpc: tuple[str, ...], split: tuple[float, ...]
) -> None:
    plan = Plan(Model("m", model_path), n_ctx=512, n_gpu_layers=5, rpc=rpc, tensor_split=split)
    with DryRun() as oracle, pytest.raises(EngineError, match=rf"{len(split)} shares .* 2 devices"):
        oracle.memory(plan)
