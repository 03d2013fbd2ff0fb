"""What is given up when memory runs out, in which order, and that it ends."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from localllm.engine.dryrun import DryRun
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
from localllm.plan import DeviceMemory, Model, Plan, Reason
from localllm.planner.placement import Step, expert_overrides
from localllm.recovery import FIELDS, Concession, next_concession, replay
from localllm.units import GIB
from tests.grid import SHAPES, candidates, path_of

MODEL = Model("m", "/m.gguf", name="M", n_layers=32)
PLAN = Plan(
    MODEL,
    n_ctx=32768,
    n_parallel=4,
    n_gpu_layers=33,
    devices=("CUDA0",),
    n_threads=1,
    n_threads_batch=1,
    cache_ram_bytes=2 * GIB,
    n_ctx_checkpoints=32,
    memory=(DeviceMemory("CUDA0", 1, 1, 1),),
    reasons=(Reason("n_ubatch", 512, "llama.cpp's default", "profile"),),
)
HOST_PLAN = replace(PLAN, n_gpu_layers=0, devices=())
#: One more slot, layer or experts' layer on the host never takes more memory of the device.
_LOWER = ("cache_ram_bytes", "n_ctx_checkpoints", "n_ubatch", "n_ctx", "n_parallel", "n_gpu_layers")
_BITS = {"f32": 32.0, "bf16": 16.0, "f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}


def walk(plan: Plan, device: str | None) -> list[tuple[Plan, Concession]]:
    """All that is given up until nothing is left."""
    found: list[tuple[Plan, Concession]] = []
    while (step := next_concession(plan, device)) is not None:
        found.append(step)
        plan = step[0]
        assert len(found) < 200, "it does not end"
    return found


def sentences(plan: Plan, device: str | None) -> list[str]:
    return [concession.sentence for _, concession in walk(plan, device)]


def flagged(plan: Plan, *names: str) -> Plan:
    asked = tuple(Reason(name, getattr(plan, name), "asked for", "flag") for name in names)
    return replace(plan, reasons=(*plan.reasons, *asked))


SMALLER = [
    "micro-batch 512 -> 256",
    "micro-batch 256 -> 128",
    "micro-batch 128 -> 64",
    "context 32768 -> 16384",
    "context 16384 -> 8192",
    "slots 4 -> 2",
    "slots 2 -> 1",
    "KV cache f16 -> q8_0",
]


def test_on_a_device_whole_layers_leave_last() -> None:
    told = sentences(PLAN, "CUDA0")
    assert told[: len(SMALLER)] == SMALLER
    counts = [33, 25, 19, 15, 12, 9, 7, 6, 5, 4, 3, 2, 1]
    assert told[len(SMALLER) :] == [
        f"layers on the device {now} -> {left}"
        for now, left in zip(counts, [*counts[1:], 0], strict=True)
    ]
    last = walk(PLAN, "CUDA0")[-1][0]
    assert (last.n_gpu_layers, last.devices) == (0, ())


def test_where_nobody_knows_whose_memory_it_was_it_is_the_devices_and_then_the_hosts() -> None:
    caches = ["prompt cache 2.0 GiB -> none", "checkpoints 32 -> none"]
    assert sentences(PLAN, None) == [*sentences(PLAN, "CUDA0"), *caches]


@pytest.mark.parametrize(("plan", "device"), [(PLAN, "Host"), (HOST_PLAN, None)])
def test_on_the_host_caches_go_first_and_layers_stay_on_their_device(
    plan: Plan, device: str | None
) -> None:
    caches = ["prompt cache 2.0 GiB -> none", "checkpoints 32 -> none"]
    assert sentences(plan, device) == [*caches, *SMALLER]


def test_experts_leave_the_device_before_layers_do() -> None:
    overrides = expert_overrides(Step(33, 10), 32)
    told = walk(replace(PLAN, tensor_overrides=overrides), "CUDA0")[len(SMALLER) :]
    assert [concession.sentence for _, concession in told[:4]] == [
        "layers with experts on the host 10 -> 18",
        "layers with experts on the host 18 -> 26",
        "layers with experts on the host 26 -> 32",
        "layers on the device 33 -> 25",
    ]
    for (plan, _), n_moe in zip(told[:3], (18, 26, 32), strict=True):
        assert plan.tensor_overrides == expert_overrides(Step(33, n_moe), 32)
    assert told[3][0].tensor_overrides == expert_overrides(Step(25, 32), 32)
    assert told[-1][0].tensor_overrides == ()


def test_overrides_of_a_persons_own_are_left_as_they_are() -> None:
    own = replace(PLAN, tensor_overrides=(r"blk\.7\..*=CPU",))
    assert {plan.tensor_overrides for plan, _ in walk(own, "CUDA0")} == {own.tensor_overrides}


def test_a_host_that_is_given_layers_is_given_threads_for_them() -> None:
    bare = replace(PLAN, n_ubatch=64, n_ctx=2048, n_parallel=1, type_k="q8_0", type_v="q8_0")
    step = next_concession(bare, "CUDA0", n_cores=8)
    assert step is not None
    assert (step[0].n_gpu_layers, step[0].n_threads, step[0].n_threads_batch) == (25, 8, 8)
    assert replay(bare, [step[1]]) == step[0]
    again = replay(flagged(bare, "n_threads"), [step[1]])
    assert (again.n_gpu_layers, again.n_threads, again.n_threads_batch) == (25, 1, 8)
    step = next_concession(flagged(bare, "n_threads"), "CUDA0", n_cores=8)
    assert step is not None
    assert (step[0].n_threads, step[0].n_threads_batch) == (1, 8)


@pytest.mark.parametrize(
    ("asked", "device", "sentence"),
    [
        (("n_ubatch",), "CUDA0", "context 32768 -> 16384"),
        (("n_ubatch", "n_ctx"), "CUDA0", "KV cache f16 -> q8_0"),
        (("n_ubatch", "n_ctx", "type_k"), "CUDA0", "layers on the device 33 -> 25"),
        (("n_ubatch", "n_ctx", "type_k", "type_v", "n_gpu_layers"), "CUDA0", None),
        (("cache_ram_bytes",), "Host", "checkpoints 32 -> none"),
        (("cache_ram_bytes", "n_ctx_checkpoints"), "Host", "micro-batch 512 -> 256"),
    ],
    ids=str,
)
def test_what_a_person_asked_for_is_passed_over(
    asked: tuple[str, ...], device: str, sentence: str | None
) -> None:
    step = next_concession(flagged(PLAN, *asked), device)
    assert (None if step is None else step[1].sentence) == sentence


def test_slots_that_were_asked_for_stay_while_their_context_shrinks() -> None:
    last = walk(flagged(PLAN, "n_parallel"), "Host")[-1][0]
    assert (last.n_parallel, last.n_ctx) == (4, 4 * 2048)


def test_a_cache_that_is_refused_is_passed_over() -> None:
    bare = replace(PLAN, n_ubatch=64, n_ctx=2048, n_parallel=1)
    step = next_concession(bare, "CUDA0", refused=("type_k", "type_v"))
    assert step is not None
    assert step[1].changes == {"n_gpu_layers": 25}
    assert next_concession(replace(bare, flash_attn="off"), "CUDA0") == (
        replace(step[0], flash_attn="off"),
        step[1],
    )


def test_an_encoder_keeps_its_micro_batch() -> None:
    encoder = replace(HOST_PLAN, model=replace(MODEL, is_generative=False))
    assert {plan.n_ubatch for plan, _ in walk(encoder, "Host")} == {512}


def test_each_changed_value_says_why_and_the_old_ledger_is_gone() -> None:
    plan, concession = walk(PLAN, "CUDA0")[0]
    assert plan.memory == ()
    assert plan.reasons == (
        Reason("n_ubatch", 256, "memory ran out: micro-batch 512 -> 256", "measured"),
    )
    assert concession.changes == {"n_ubatch": 256}


def test_a_fresh_plan_is_given_what_was_given_up_before() -> None:
    steps = walk(PLAN, "CUDA0")
    assert replay(PLAN, [concession for _, concession in steps]) == steps[-1][0]
    assert replay(PLAN, []) == PLAN


def test_what_is_asked_for_now_counts_more_than_what_was_given_up() -> None:
    before = [concession for _, concession in walk(PLAN, "CUDA0")]
    plan = replay(flagged(PLAN, "n_ctx", "n_gpu_layers"), before)
    assert (plan.n_ctx, plan.n_parallel, plan.n_gpu_layers) == (32768, 4, 33)
    assert plan.devices == ("CUDA0",)
    assert (plan.n_ubatch, plan.type_k) == (64, "q8_0")


def test_nothing_that_was_given_up_makes_a_smaller_plan_larger() -> None:
    before = [concession for _, concession in walk(PLAN, "Host")]
    small = replace(PLAN, n_ubatch=32, n_ctx=1024, n_parallel=1)
    plan = replay(small, before)
    assert (plan.n_ubatch, plan.n_ctx, plan.n_parallel) == (32, 1024, 1)


def drawn(seed: int) -> tuple[Plan, str | None]:
    """Some plan, with some of its values asked for, and some place without memory."""
    draw = random.Random(seed)
    n_layers = draw.choice([None, 1, 2, 7, 32, 80])
    n_gpu_layers = draw.randint(0, (n_layers or 40) + 1)
    n_parallel = draw.choice([1, 2, 3, 4, 8])
    types = draw.choice([("f16", "f16"), ("bf16", "bf16"), ("q8_0", "q8_0"), ("f16", "q4_0")])
    plan = Plan(
        replace(MODEL, n_layers=n_layers, is_generative=draw.random() < 0.9),
        n_ctx=n_parallel * draw.choice([256, 2048, 2304, 8192, 131072]),
        n_parallel=n_parallel,
        n_gpu_layers=n_gpu_layers,
        tensor_overrides=expert_overrides(
            Step(n_gpu_layers, draw.randint(0, n_layers or 0)), n_layers or 0
        ),
        devices=draw.choice([None, ("CUDA0",), ("CUDA0", "CUDA1")]),
        type_k=types[0],
        type_v=types[1],
        flash_attn=draw.choice(["auto", "on", "off"]),
        n_ubatch=draw.choice([16, 64, 100, 512, 2048]),
        n_batch=2048,
        cache_ram_bytes=draw.choice([0, GIB]),
        n_ctx_checkpoints=draw.choice([0, 32]),
    )
    names = [name for name in FIELDS if draw.random() < 0.15]
    return flagged(plan, *names), draw.choice(["Host", "CUDA0", "RPC0", None])


@pytest.mark.parametrize("seed", range(300))
def test_every_walk_ends_and_only_ever_takes_less(seed: int) -> None:
    plan, device = drawn(seed)
    asked = {reason.field: reason.value for reason in plan.reasons if reason.source == "flag"}
    steps = walk(plan, device)
    before = plan
    for after, concession in steps:
        assert concession.changes
        assert concession.changes.keys() <= FIELDS.keys()
        for name, value in concession.changes.items():
            assert getattr(after, name) == value != getattr(before, name)
            assert type(value) is FIELDS[name]
        assert replace(before, **concession.changes, memory=(), reasons=()) == replace(
            after, reasons=()
        )
        assert all(getattr(after, name) <= getattr(before, name) for name in _LOWER)
        assert _BITS[after.type_k] <= _BITS[before.type_k]
        assert _BITS[after.type_v] <= _BITS[before.type_v]
        assert 0 < after.n_ubatch <= after.n_batch
        assert after.n_ctx // after.n_parallel >= min(2048, before.n_ctx // before.n_parallel)
        assert after.n_ctx % after.n_parallel == 0
        told = {reason.field: reason for reason in after.reasons}
        assert len(told) == len(after.reasons)
        assert all(told[name].source == "measured" for name in concession.changes)
        if device == "Host":
            assert after.n_gpu_layers == plan.n_gpu_layers
        before = after
    assert all(getattr(before, name) == value for name, value in asked.items())
    assert replay(plan, [concession for _, concession in steps]) == before


@pytest.mark.parametrize("shape", ["8b", "30b-a3b"])
@pytest.mark.parametrize("name", ["RPC0", "Host"])
def test_llama_cpp_takes_each_of_the_plans_and_says_that_it_takes_no_more(
    name: str, shape: str, tools: Tools
) -> None:
    model = next(each.model for each in candidates(shape) if each.label == "Q4_K_M")
    n_layers = model.n_layers or 0
    outlines = {path_of(shape, "Q4_K_M"): (SHAPES[shape].header("Q4_K_M"),)}
    with loopback_devices(tools, 1) as endpoints, DryRun(outlines) as oracle:
        plan = replace(PLAN, model=model, rpc=endpoints, devices=("RPC0",))
        plan = replace(plan, n_gpu_layers=n_layers // 2 if name == "Host" else n_layers + 1)
        if shape == "30b-a3b" and name != "Host":
            overrides = expert_overrides(Step(n_layers + 1, 10), n_layers)
            plan = replace(plan, tensor_overrides=overrides)
        taken = []
        for each in (plan, *(after for after, _ in walk(plan, name))):
            rows = {row.device: row.total_bytes for row in oracle.memory(each)}
            taken.append(rows.get(name, 0))
    assert taken == sorted(taken, reverse=True)
    assert taken[-1] < (taken[0] if name == "Host" else 1)
