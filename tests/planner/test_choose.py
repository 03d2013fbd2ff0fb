"""What is decided for a model on a machine: defaults, wishes, and what every plan promises."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from localllm.errors import NotFoundError, UsageError
from localllm.hardware import Cpu
from localllm.plan import Plan, Reason, Source
from localllm.planner import Wishes, choose
from localllm.profiles import Goal
from localllm.units import GIB, MIB
from localllm.weights import LayerWeights, Weights
from tests.planner.fakes import (
    CHAT,
    CPU,
    MODEL,
    POLICY,
    SERVE,
    Case,
    FakeModel,
    case,
    chosen,
    dense,
    gpu,
    machine,
    reason,
    sparse,
)

UNASKED_BECAUSE = "llama-cpp-python is not installed, so nothing was asked"


def unasked(of: Case, wishes: Wishes | None = None, goal: Goal = CHAT) -> Plan:
    """The plan where there is nobody to ask."""
    return choose(of.hardware, of.candidates, POLICY, wishes or Wishes(), goal, None)


# -- what is decided where there is room ---------------------------------------------------------


def test_a_chat_with_room_gets_what_the_policy_wishes() -> None:
    plan = case().plan()
    assert plan.n_ctx == CHAT.n_ctx_wished
    assert plan.n_parallel == 1
    assert plan.n_gpu_layers == 0
    assert (plan.n_batch, plan.n_ubatch) == (POLICY.n_batch, POLICY.n_ubatch)
    assert (plan.type_k, plan.type_v) == ("f16", "f16")
    assert plan.flash_attn == "auto"
    assert plan.load_mode == "mmap"
    assert plan.cache_ram_bytes == CHAT.cache_ram_bytes
    assert set(plan.env) == {"GOMP_SPINCOUNT", "GLIBC_TUNABLES"}
    assert plan.devices is None


@pytest.mark.parametrize(
    ("name", "because", "source"),
    [
        ("n_ctx", "the policy's wish", "profile"),
        ("n_parallel", "one conversation", "profile"),
        ("n_gpu_layers", "no accelerator was found", "measured"),
        ("n_threads", "the physical cores", "measured"),
        ("n_threads_batch", "as for decoding", "measured"),
        ("n_batch", "llama.cpp's default", "profile"),
        ("n_ubatch", "llama.cpp's default", "profile"),
        ("type_k", "reference quality", "profile"),
        ("type_v", "reference quality", "profile"),
        ("flash_attn", "used wherever the device has it", "profile"),
        ("cache_ram_bytes", "old prompts kept on the host", "profile"),
        ("n_ctx_checkpoints", "any prompt can be gone back in", "dry-run"),
    ],
)
def test_a_default_says_why(name: str, because: str, source: Source) -> None:
    plan = case().plan()
    assert reason(plan, name) == Reason(name, getattr(plan, name), because, source)


def test_a_server_gets_a_context_for_each_slot() -> None:
    plan = case().plan(goal=SERVE)
    assert plan.n_parallel == SERVE.n_parallel
    assert plan.n_ctx == SERVE.n_ctx_wished * SERVE.n_parallel
    assert reason(plan, "n_ctx").because == "the policy's wish, for each of 4 slots"
    assert reason(plan, "n_parallel").because == "several requests at once"
    assert plan.cache_ram_bytes == SERVE.cache_ram_bytes


def test_no_more_context_than_the_model_was_trained_for() -> None:
    short = case(models=[replace(MODEL, n_ctx_train=4096)])
    plan = short.plan()
    assert plan.n_ctx == 4096
    assert reason(plan, "n_ctx").because == "all that the model was trained for"
    assert short.plan(goal=SERVE).n_ctx == 4 * 4096


def test_a_model_trained_for_less_than_the_goals_least_still_runs() -> None:
    assert case(models=[replace(MODEL, n_ctx_train=1024)]).plan().n_ctx == 1024


def test_a_model_that_does_not_say_its_context_gets_the_policys() -> None:
    assert case(models=[replace(MODEL, n_ctx_train=None)]).plan().n_ctx == CHAT.n_ctx_wished


def test_unknown_memory_is_not_taken_for_none_at_all() -> None:
    plan = case(free_bytes=None).plan()
    assert plan.n_ctx == CHAT.n_ctx_wished
    assert plan.memory[0].free_bytes is None
    assert plan.cache_ram_bytes == CHAT.cache_ram_bytes


# -- what is wished ------------------------------------------------------------------------------

WISHES: dict[str, Any] = {
    "quant": "Q4_K_M",
    "prefer": "speed",
    "n_ctx": 1000,
    "n_parallel": 3,
    "n_gpu_layers": 2,
    "n_threads": 7,
    "n_threads_batch": 5,
    "type_k": "q8_0",
    "type_v": "q4_0",
    "flash_attn": "on",
    "n_batch": 1024,
    "n_ubatch": 128,
    "rpc": ("127.0.0.1:50052",),
    "mmproj": "/mmproj.gguf",
}
#: Wishes that are no fields of a plan.
NOT_PLANNED = {"quant", "prefer"}


def test_every_wish_is_tried_here() -> None:
    assert list(WISHES) == [wish.name for wish in fields(Wishes)]


@pytest.mark.parametrize("goal", [CHAT, SERVE], ids=["chat", "serve"])
@pytest.mark.parametrize("plan_of", [Case.plan, unasked], ids=["asked", "no oracle"])
@pytest.mark.parametrize("name", [name for name in WISHES if name not in NOT_PLANNED])
def test_what_a_person_asks_for_is_kept_and_said(
    name: str, plan_of: Callable[..., Plan], goal: Goal
) -> None:
    plan = plan_of(case(gpu()), Wishes(**{name: WISHES[name]}), goal)
    assert getattr(plan, name) == WISHES[name]
    why = reason(plan, name)
    assert why.source == "flag"
    assert why.because.startswith("asked for")


def test_all_wishes_together_are_kept() -> None:
    plan = case(gpu()).plan(Wishes(**WISHES))
    planned = {name: value for name, value in WISHES.items() if name not in NOT_PLANNED}
    assert {name: getattr(plan, name) for name in planned} == planned


@pytest.mark.parametrize("plan_of", [Case.plan, unasked], ids=["asked", "no oracle"])
@pytest.mark.parametrize("name", ["type_k", "type_v"])
def test_one_cache_type_alone_holds_for_keys_and_values(
    name: str, plan_of: Callable[..., Plan]
) -> None:
    asked: dict[str, Any] = {name: "q8_0"}
    plan = plan_of(case(), Wishes(**asked))
    assert (plan.type_k, plan.type_v) == ("q8_0", "q8_0")


def test_threads_that_are_asked_for_hold_for_prompts_too() -> None:
    plan = case().plan(Wishes(n_threads=3))
    assert plan.n_threads_batch == 3
    assert reason(plan, "n_threads_batch") == Reason(
        "n_threads_batch", 3, "as for decoding", "flag"
    )


def test_a_context_beyond_the_training_is_kept_and_said() -> None:
    plan = case().plan(Wishes(n_ctx=65536))
    assert plan.n_ctx == 65536
    assert reason(plan, "n_ctx").because == "asked for, beyond the 32768 it was trained for"


@pytest.mark.parametrize("plan_of", [Case.plan, unasked], ids=["asked", "no oracle"])
def test_minus_one_layer_means_all_and_the_output(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(case(gpu()), Wishes(n_gpu_layers=-1))
    assert plan.n_gpu_layers == 9
    assert reason(plan, "n_gpu_layers") == Reason("n_gpu_layers", 9, "asked for", "flag")


def test_no_layers_asked_for_wakes_no_device() -> None:
    of = case(gpu())

    def devices(rpc: tuple[str, ...] = ()) -> Any:
        raise AssertionError("nobody asked for a device")

    of.oracle.devices = devices  # type: ignore[method-assign]
    plan = of.plan(Wishes(n_gpu_layers=0))
    assert (plan.n_gpu_layers, [row.device for row in plan.memory]) == (0, ["Host"])


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        pytest.param(
            Wishes(n_batch=256, n_ubatch=512),
            "a micro-batch of 512 is larger than the batch of 256",
            id="both asked for",
        ),
        pytest.param(Wishes(n_ubatch=4096), "the batch of 2048", id="micro-batch alone"),
        pytest.param(
            Wishes(n_ctx=3, n_parallel=4), "a context of 3 tokens is too small", id="no token each"
        ),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(wishes: Wishes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        case().plan(wishes)


# -- quantizations -------------------------------------------------------------------------------

QUANTS = tuple(
    dense(label, int(100 * MIB * share))
    for label, share in [("Q2_K", 0.6), ("Q4_K_M", 1.0), ("Q6_K", 1.35), ("Q8_0", 1.75)]
)


@pytest.mark.parametrize("label", ["Q4_K_M", "q4_k_m"])
def test_a_quantization_that_is_asked_for_is_kept(label: str) -> None:
    plan = case(models=QUANTS).plan(Wishes(quant=label))
    assert plan.model.quant == "Q4_K_M"
    assert [verdict.quant for verdict in plan.verdicts] == ["Q4_K_M"]
    assert reason(plan, "quant") == Reason("quant", label, "asked for", "flag")


def test_a_quantization_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="there is no 'Q5_K_M' here") as caught:
        case(models=QUANTS).plan(Wishes(quant="Q5_K_M"))
    assert caught.value.hint == "there are Q2_K, Q4_K_M, Q6_K, Q8_0"


def test_the_finest_quantization_is_taken_where_there_is_room_and_speed() -> None:
    plan = case(gpu(), models=QUANTS).plan()
    assert plan.model.quant == "Q8_0"
    assert reason(plan, "quant").because == "of 4 it concedes least: nothing"


def test_what_nobody_would_notice_is_not_worth_a_larger_file() -> None:
    models = [dense("F16", 300 * MIB), dense("Q8_0", 160 * MIB)]
    plan = case(gpu(), models=models).plan()
    assert plan.model.quant == "Q8_0"
    assert [verdict.why_not for verdict in plan.verdicts] == ["as good, but larger", None]


def test_speed_first_takes_a_smaller_quantization() -> None:
    models = [dense("Q6_K", 180 * MIB, 32), dense("Q4_K_M", 135 * MIB, 32)]
    of = case(gpu("CUDA0", 12 * GIB, 360e9), models=models)
    assert of.plan().model.quant == "Q6_K"
    assert of.plan(Wishes(prefer="speed")).model.quant == "Q4_K_M"


def test_a_candidate_that_cannot_be_run_is_told_and_not_asked_about() -> None:
    of = case(models=QUANTS[1:3])
    other, good = of.candidates
    candidates = [replace(other, unusable="a part of it is missing"), good]
    plan = choose(of.hardware, candidates, POLICY, Wishes(), CHAT, of.oracle)
    assert plan.model.quant == "Q6_K"
    assert plan.verdicts[0].why_not == "a part of it is missing"
    assert not plan.verdicts[0].fits
    assert {asked.model.path for asked in of.oracle.asked} == {good.model.path}


@pytest.mark.parametrize("free_gib", [1.6, 2, 2.5, 4, 64])
@pytest.mark.parametrize("cards", [(), (gpu("CUDA0", 3 * GIB),)], ids=["host", "gpu"])
def test_one_quantization_is_chosen_and_each_other_has_a_reason(
    cards: tuple[Any, ...], free_gib: float
) -> None:
    plan = case(*cards, models=QUANTS, free_bytes=int(free_gib * GIB)).plan()
    assert [verdict.quant for verdict in plan.verdicts] == [model.label for model in QUANTS]
    best = chosen(plan)
    assert best.fits
    assert (best.quant, best.n_ctx, best.type_k) == (plan.model.quant, plan.n_ctx, plan.type_k)
    for verdict in plan.verdicts:
        assert (verdict.why_not is None) == (verdict is best)
        assert verdict.fits == (verdict.price is not None)
        if not verdict.fits:
            assert verdict.why_not is not None
            assert "are missing on" in verdict.why_not
        elif verdict is not best:
            assert (verdict.price or 0.0) >= (best.price or 0.0) - POLICY.price_unnoticed


# -- caches on the host --------------------------------------------------------------------------


@pytest.mark.parametrize("goal", [CHAT, SERVE], ids=["chat", "serve"])
@pytest.mark.parametrize("kind", ["machine", "cgroup"])
@pytest.mark.parametrize("spare", [0, 1, 10 * MIB, 200 * MIB, 1 * GIB, 3 * GIB])
def test_the_prompt_cache_never_takes_more_than_is_left(spare: int, kind: str, goal: Goal) -> None:
    wishes = Wishes(n_ctx=8192, type_k="f16", n_parallel=1, n_ubatch=512)
    (host,) = case().oracle.memory(Plan(MODEL.candidate.model, 8192))
    wanted = host.total_bytes + POLICY.host_overhead_bytes + spare
    if kind == "machine":
        hardware = machine(wanted + POLICY.host_reserve_bytes)
    else:
        limit = wanted + POLICY.group_reserve_bytes + 100 * MIB
        hardware = machine(64 * GIB, limit_bytes=limit, limit_used_bytes=100 * MIB)
    plan = Case(hardware).plan(wishes, goal)
    assert 0 <= plan.cache_ram_bytes <= spare
    assert plan.cache_ram_bytes <= goal.cache_ram_bytes
    why = reason(plan, "cache_ram_bytes")
    assert why.value == plan.cache_ram_bytes
    assert ("leaves free" in why.because) == (plan.cache_ram_bytes < goal.cache_ram_bytes)


def test_a_model_with_states_keeps_some_to_go_back_to_and_shifts_nothing() -> None:
    plan = case(models=[dense(state_bytes=2 * MIB)]).plan()
    assert plan.n_ctx_checkpoints == POLICY.n_ctx_checkpoints
    assert "16.0 MiB" in reason(plan, "n_ctx_checkpoints").because
    assert plan.cache_reuse == 0
    assert reason(plan, "cache_reuse").because == "windows and states cannot be shifted"


@pytest.mark.parametrize("wishes", [Wishes(), Wishes(n_ctx=8192), Wishes(n_ctx=1000)], ids=str)
@pytest.mark.parametrize(
    ("model", "has_states"),
    [(dense(state_bytes=MIB), True), (MODEL, False)],
    ids=["states", "none"],
)
def test_states_are_seen_whatever_context_is_asked_for(
    model: FakeModel, has_states: bool, wishes: Wishes
) -> None:
    plan = case(models=[model]).plan(wishes)
    assert (plan.n_ctx_checkpoints > 0) == has_states
    assert (plan.cache_reuse == 0) == has_states


def test_a_model_with_windows_shifts_nothing() -> None:
    plan = case(models=[dense(window=1024)]).plan()
    assert plan.n_ctx_checkpoints > 0
    assert plan.cache_reuse == 0


def test_a_model_without_states_shifts_old_prompts_and_keeps_none() -> None:
    plan = case().plan()
    assert plan.n_ctx_checkpoints == 0
    assert plan.cache_reuse == POLICY.cache_reuse


@pytest.mark.parametrize("spare", [0, 40 * MIB, 160 * MIB, 300 * MIB, 2 * GIB, 8 * GIB])
def test_states_and_old_prompts_together_never_take_more_than_is_left(spare: int) -> None:
    state_bytes = 2 * MIB
    model = dense(state_bytes=state_bytes)
    (host,) = case(models=[model]).oracle.memory(Plan(model.candidate.model, 8192, n_parallel=2))
    wanted = host.total_bytes + POLICY.host_overhead_bytes + spare
    of = case(models=[model], free_bytes=wanted + POLICY.host_reserve_bytes)
    plan = of.plan(Wishes(n_ctx=8192, type_k="f16", n_parallel=2))
    states = plan.n_ctx_checkpoints * 8 * state_bytes * plan.n_parallel
    assert states <= POLICY.checkpoints_share * spare
    assert states + plan.cache_ram_bytes <= spare


# -- larger batches ------------------------------------------------------------------------------


def expert_case(free_bytes: int = 64 * GIB, card_bytes: int = 3 * GIB) -> Case:
    """Experts of 3.1 GiB for a card that has no room for them."""
    return case(gpu("CUDA0", card_bytes), models=[sparse()], free_bytes=free_bytes)


def test_experts_on_the_host_are_read_by_larger_micro_batches() -> None:
    plan = expert_case().plan(Wishes(n_ctx=4096))
    assert plan.tensor_overrides
    assert plan.n_ubatch == POLICY.n_ubatch_experts
    assert plan.n_batch >= plan.n_ubatch
    why = reason(plan, "n_ubatch")
    assert why.because == "experts on the host are read once for each micro-batch"


def test_larger_micro_batches_are_taken_only_where_they_fit() -> None:
    wishes = Wishes(n_ctx=4096)
    roomy = expert_case().plan(wishes)
    host = roomy.memory[0].total_bytes + POLICY.host_reserve_bytes
    assert expert_case(host).plan(wishes).n_ubatch == POLICY.n_ubatch_experts
    tight = expert_case(host - 1)
    plan = tight.plan(wishes)
    assert plan.n_ubatch == POLICY.n_ubatch
    assert tight.fits(plan)
    assert plan.tensor_overrides == roomy.tensor_overrides


def test_a_micro_batch_that_is_asked_for_stays() -> None:
    plan = expert_case().plan(Wishes(n_ctx=4096, n_ubatch=256))
    assert plan.tensor_overrides
    assert plan.n_ubatch == 256


def test_a_dense_model_keeps_the_usual_micro_batch() -> None:
    assert case(gpu("CUDA0", 2 * GIB)).plan().n_ubatch == POLICY.n_ubatch


# -- batches that end soon -----------------------------------------------------------------------

SOON = "so that a request whose client left ends soon"


@pytest.mark.parametrize(
    ("n_cores", "n_batch"),
    # 4.5 billion operations a token: 31, 124, 497 and 15,900 tokens a second (Policy.thread_flops).
    [(1, 64), (4, 64), (16, 256), (512, 2048)],
)
def test_a_server_computes_about_a_second_of_a_prompt_at_a_time(n_cores: int, n_batch: int) -> None:
    layer = LayerWeights(100 * MIB, 0, 250_000_000)
    model = replace(MODEL, weights=Weights((layer,) * 8, 50 * MIB, 100 * MIB, 0, 250_000_000))
    plan = case(
        cpu=replace(CPU, n_physical=n_cores, n_logical=n_cores, n_affinity=n_cores), models=[model]
    ).plan(goal=SERVE)
    why = reason(plan, "n_batch")
    assert (plan.n_batch, why.value) == (n_batch, n_batch)
    if n_batch < POLICY.n_batch:
        assert why.because == f"a batch takes about 1 s, {SOON}"
    assert plan.n_ubatch == reason(plan, "n_ubatch").value == min(n_batch, POLICY.n_ubatch)


def test_a_smaller_micro_batch_takes_less_memory_and_the_ledger_says_so() -> None:
    of = case(cpu=replace(CPU, n_physical=1, n_affinity=1))
    plan = of.plan(goal=SERVE)
    assert plan.n_ubatch < POLICY.n_ubatch
    assert [row.compute_bytes for row in plan.memory] == [
        row.compute_bytes for row in of.oracle.memory(plan)
    ]


@pytest.mark.parametrize(
    ("wishes", "batches"),
    [
        (Wishes(n_batch=1024), (1024, 512)),
        (Wishes(n_batch=128), (128, 128)),
        (Wishes(n_ubatch=256), (256, 256)),
        (Wishes(n_ubatch=16), (64, 16)),
        (Wishes(n_batch=4096, n_ubatch=4096), (4096, 4096)),
    ],
    ids=str,
)
def test_a_batch_that_is_asked_for_stays_however_long_it_takes(
    wishes: Wishes, batches: tuple[int, int]
) -> None:
    plan = case(cpu=replace(CPU, n_physical=1, n_affinity=1)).plan(wishes, SERVE)
    assert (plan.n_batch, plan.n_ubatch) == batches
    for name in ("n_batch", "n_ubatch"):
        if getattr(wishes, name) is not None:
            assert reason(plan, name).source == "flag"


def test_a_batch_is_one_micro_batch_where_nobody_knows_how_fast_prompts_are_read() -> None:
    plan = case(gpu(bandwidth=None)).plan(goal=SERVE)
    assert (plan.n_batch, plan.n_ubatch) == (POLICY.n_ubatch, POLICY.n_ubatch)
    assert reason(plan, "n_batch").because == f"one micro-batch, {SOON}"


@pytest.mark.parametrize(
    "of", [case(gpu("CUDA0", 2 * GIB)), expert_case()], ids=["layers", "experts"]
)
def test_micro_batches_stay_large_where_weights_are_brought_over_for_each(of: Case) -> None:
    of.hardware = replace(of.hardware, cpu=replace(CPU, n_physical=1, n_affinity=1))
    plan = of.plan(Wishes(n_ctx=8192), SERVE)
    assert plan.n_ubatch >= POLICY.n_ubatch
    assert plan.n_batch == plan.n_ubatch


def test_a_conversation_reads_prompts_in_whole_batches() -> None:
    plan = case(cpu=replace(CPU, n_physical=1, n_affinity=1)).plan()
    assert (plan.n_batch, plan.n_ubatch) == (POLICY.n_batch, POLICY.n_ubatch)


def test_an_encoder_has_room_for_a_whole_text() -> None:
    found = MODEL.candidate
    encoder = replace(found, model=replace(found.model, is_generative=False))
    of = case(cpu=replace(CPU, n_physical=1, n_affinity=1))
    plan = choose(of.hardware, [encoder], POLICY, Wishes(), SERVE, of.oracle)
    assert (plan.n_batch, plan.n_ubatch) == (POLICY.n_batch, POLICY.n_ubatch)


def test_without_an_oracle_a_servers_batch_is_one_micro_batch() -> None:
    of = case()
    plan = choose(of.hardware, of.candidates, POLICY, Wishes(), SERVE, None)
    assert (plan.n_batch, plan.n_ubatch) == (POLICY.n_ubatch, POLICY.n_ubatch)
    assert reason(plan, "n_batch").value == plan.n_batch


# -- without an oracle ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cards", "n_layers", "because", "source"),
    [
        pytest.param((), 0, "no accelerator was found", "measured", id="no GPU"),
        pytest.param((gpu(),), 9, "all of them; nothing here can tell what fits", "assumed",
                     id="a GPU"),
    ],
)  # fmt: skip
def test_without_an_oracle_the_plan_says_that_memory_was_not_asked_for(
    cards: tuple[Any, ...], n_layers: int, because: str, source: Source
) -> None:
    plan = unasked(case(*cards))
    assert plan.memory == ()
    assert reason(plan, "memory") == Reason("memory", None, UNASKED_BECAUSE, "assumed")
    assert plan.n_gpu_layers == n_layers
    assert reason(plan, "n_gpu_layers") == Reason("n_gpu_layers", n_layers, because, source)


def test_without_an_oracle_the_best_quantization_that_may_fit_is_taken() -> None:
    sizes = {model.label: model.size_bytes for model in QUANTS}
    of = case(models=QUANTS, free_bytes=sizes["Q6_K"])
    assert unasked(of).model.quant == "Q6_K"
    assert unasked(case(models=QUANTS)).model.quant == "Q8_0"


# -- every plan ----------------------------------------------------------------------------------

PLANS: dict[str, Callable[[], Plan]] = {
    "cpu": lambda: case().plan(),
    "serve": lambda: case().plan(goal=SERVE),
    "shrunk": lambda: case(free_bytes=int(2.2 * GIB)).plan(),
    "gpu": lambda: case(gpu("CUDA0", 2 * GIB)).plan(),
    "two gpus": lambda: case(
        gpu("CUDA0", 8 * GIB), gpu("CUDA1", 8 * GIB), models=[dense("Q4_K_M", 300 * MIB, 40)]
    ).plan(),
    "experts": lambda: expert_case().plan(),
    "a slow gpu": lambda: case(gpu("CUDA0", 8 * GIB, 20e9)).plan(),
    "several quantizations": lambda: case(gpu("CUDA0", 3 * GIB), models=QUANTS).plan(),
    "wishes": lambda: case(gpu()).plan(Wishes(**WISHES)),
    "measured": lambda: case(gpu()).plan(extra_bytes={"Host": MIB, "CUDA0": MIB}),
    "no oracle": lambda: unasked(case()),
}

#: What is the model's own, and not decided; and what is only set where it is asked for.
GIVEN = {"model", "speed", "reasons", "verdicts", "memory"}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_every_value_has_one_reason_and_a_known_source(make: Callable[[], Plan]) -> None:
    plan = make()
    decided = [why for why in plan.reasons if not why.because.startswith("left out")]
    reasons = {why.field: why for why in decided}
    assert len(reasons) == len(decided)
    assert {why.source for why in plan.reasons} <= set(typing.get_args(Source))
    assert all(why.because for why in plan.reasons)
    for item in fields(Plan):
        value = getattr(plan, item.name)
        alone = item.name == "devices" and len(value or ()) < 2
        if item.name in GIVEN or value in (None, (), 0) or alone:
            continue
        shown = list(value) if isinstance(value, tuple) else value
        assert reasons[item.name].value == shown, item.name


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_every_byte_of_the_ledger_has_a_line_and_every_line_a_source(
    make: Callable[[], Plan],
) -> None:
    plan = make()
    assert sum(row.device == "Host" for row in plan.memory) == (1 if plan.memory else 0)
    for row in plan.memory:
        assert sum(line.n_bytes for line in row.lines) == row.total_bytes
        assert {line.source for line in row.lines} <= {"dry-run", "measured", "assumed"}
        assert all(line.because for line in row.lines)
        assert row.overhead_bytes > 0
        assert row.free_bytes is not None
        assert row.total_bytes <= row.free_bytes - row.reserve_bytes


def test_what_was_measured_replaces_what_is_assumed() -> None:
    extra = {"Host": 77 * MIB, "CUDA0": 555 * MIB}
    of = case(gpu())
    host, device = of.plan(extra_bytes=extra).memory
    assert (host.overhead_bytes, device.overhead_bytes) == (77 * MIB, 555 * MIB)
    for row in (host, device):
        sources = {line.what: line.source for line in row.lines}
        assert sources["engine"] == "measured"
        assert "assumed" not in sources.values()
    host, device = of.plan(extra_bytes={"CUDA0": 555 * MIB}).memory
    assert host.overhead_bytes == POLICY.host_overhead_bytes
    assert {line.source for line in host.lines} == {"dry-run", "assumed"}
    assert device.overhead_bytes == 555 * MIB


def test_more_than_was_assumed_leaves_room_for_less() -> None:
    of = case(gpu("CUDA0", 3 * GIB))
    usual = of.plan()
    hungry = of.plan(extra_bytes={"CUDA0": 2 * GIB})
    assert chosen(hungry).price > chosen(usual).price  # type: ignore[operator]
    assert hungry.memory[-1].total_bytes <= 3 * GIB - POLICY.device_reserve_bytes


#: design.md, 3; "hardware" and "argv" are added by the command.
CONTRACT: dict[str, Any] = {
    "schema_version": None,
    "model": {"ref", "source", "revision", "architecture", "n_layers", "n_ctx_train"},
    "chosen": {
        "quant", "files", "n_gpu_layers", "tensor_overrides", "tensor_split", "n_ctx",
        "n_parallel", "type_k", "type_v", "flash_attn", "n_batch", "n_ubatch", "n_threads",
        "n_threads_batch", "load_mode", "env",
    },
    "memory": [
        "device", "model_bytes", "context_bytes", "compute_bytes", "overhead_bytes",
        "total_bytes", "free_bytes", "source",
    ],
    "speed": {"decode_tokens_per_second", "prompt_tokens_per_second", "source"},
    "candidates": ["quant", "size_bytes", "fits", "why_not"],
    "reasons": ["field", "value", "because"],
}  # fmt: skip


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_the_document_has_the_keys_of_the_contract(make: Callable[[], Plan]) -> None:
    document = make().to_json()
    assert document.keys() == CONTRACT.keys()
    assert document["schema_version"] == 1
    for name, keys in CONTRACT.items():
        if keys is None:
            continue
        rows = document[name] if isinstance(keys, list) else [document[name]]
        for row in rows:
            assert set(row) >= set(keys), name
    for row in document["chosen"]["files"]:
        assert set(row) == {"name", "size_bytes", "sha256"}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_the_document_is_json_and_says_what_the_plan_says(make: Callable[[], Plan]) -> None:
    plan = make()
    document = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    chosen = document["chosen"]
    for name in ("n_ctx", "n_parallel", "n_gpu_layers", "n_threads", "type_k", "load_mode"):
        assert chosen[name] == getattr(plan, name)
    assert chosen["env"] == dict(plan.env)
    assert chosen["quant"] == plan.model.quant
    assert [row["total_bytes"] for row in document["memory"]] == [
        row.total_bytes for row in plan.memory
    ]
    assert {why["field"]: why["value"] for why in document["reasons"]}["n_ctx"] == plan.n_ctx
    assert [row["quant"] for row in document["candidates"]] == [
        verdict.quant for verdict in plan.verdicts
    ]


def test_the_same_question_has_the_same_answer() -> None:
    of = case(gpu("CUDA0", 3 * GIB), gpu("CUDA1", 4 * GIB, 300e9), models=QUANTS)
    assert of.plan() == of.plan()


def test_the_processor_of_nobody_gets_one_thread() -> None:
    plan = case(cpu=Cpu()).plan()
    assert (plan.n_threads, reason(plan, "n_threads").source) == (1, "assumed")
    assert case(cpu=CPU).plan().n_threads == 4
