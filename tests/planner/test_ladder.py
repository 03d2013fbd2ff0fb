"""What is conceded when memory is short, in which order, and where the weights then lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from localllm.errors import DoesNotFitError
from localllm.hardware import Accelerator
from localllm.plan import Device, DeviceMemory, Plan, Reason
from localllm.planner import CTX_STEP, Wishes
from localllm.units import GIB, KIB, MIB
from tests.planner.fakes import (
    CHAT,
    MODEL,
    POLICY,
    SERVE,
    Case,
    FakeModel,
    apple,
    case,
    chosen,
    dense,
    gpu,
    machine,
    reason,
    sparse,
)

#: What a card needs beside its buffers.
OVERHEAD = POLICY.device_overhead_bytes + POLICY.device_growth_bytes + POLICY.device_reserve_bytes


def host_bytes(model: FakeModel, n_ctx: int, type_k: str = "f16") -> int:
    """What a run on the host alone takes, llama-server itself included."""
    plan = Plan(model.candidate.model, n_ctx, type_k=type_k, type_v=type_k)
    (host,) = case(models=[model]).oracle.memory(plan)
    return host.total_bytes + POLICY.host_overhead_bytes


def with_room(n_bytes: int, *models: FakeModel, kind: str = "machine") -> Case:
    """A host of unknown speed where just so much fits."""
    if kind == "machine":
        hardware = machine(n_bytes + POLICY.host_reserve_bytes, bandwidth=None)
    else:
        limit = n_bytes + POLICY.group_reserve_bytes + 100 * MIB
        hardware = machine(64 * GIB, bandwidth=None, limit_bytes=limit, limit_used_bytes=100 * MIB)
    return Case(hardware, models or (MODEL,))


def cheapest(of: Case, n_slots: int = 1) -> tuple[int, str] | None:
    """Context and cache type by trying all of them, and weighing them as the policy says."""
    model = of.models[0]
    found = []
    for type_k in ("f16", "q8_0"):
        for each in range(CHAT.n_ctx_least, CHAT.n_ctx_wished + 1, CTX_STEP):
            n_ctx = each * n_slots
            plan = Plan(model.candidate.model, n_ctx, n_slots, type_k=type_k)
            if of.fits(plan):
                price = CHAT.price_context_halving * math.log2(CHAT.n_ctx_wished / each)
                price += POLICY.price_kv_q8_0 if type_k == "q8_0" else 0.0
                found.append((price, n_ctx, type_k))
    return min(found)[1:] if found else None


# -- the context and its cache -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
def test_a_run_that_just_fits_is_left_as_it_is(kind: str) -> None:
    plan = with_room(host_bytes(MODEL, 8192), kind=kind).plan()
    assert (plan.n_ctx, plan.type_k) == (8192, "f16")
    assert plan.cache_ram_bytes == 0


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
@pytest.mark.parametrize("window", [0, 4096, 6000], ids=["straight", "window", "odd window"])
@pytest.mark.parametrize("missing", [1, MIB, 100 * MIB, 333 * MIB, 500 * MIB, 700 * MIB, 900 * MIB])
def test_a_wished_context_and_its_cache_shrink_to_what_is_worth_most(
    missing: int, window: int, kind: str
) -> None:
    model = dense(window=window)
    of = with_room(host_bytes(model, 8192) - missing, model, kind=kind)
    best = cheapest(of)
    if best is None:
        with pytest.raises(DoesNotFitError):
            of.plan()
        return
    plan = of.plan()
    assert (plan.n_ctx, plan.type_k) == best
    assert of.fits(plan)
    why = reason(plan, "n_ctx")
    assert why.value == plan.n_ctx
    if plan.n_ctx < 8192:
        assert why.because == "the largest that fits beside the rest; 8192 were wished"
        assert why.source == "dry-run"


def test_a_little_context_is_given_before_the_cache_is_quantized() -> None:
    plan = with_room(host_bytes(MODEL, 7680)).plan()
    assert (plan.n_ctx, plan.type_k) == (7680, "f16")


def test_the_cache_is_quantized_before_much_context_is_given() -> None:
    plan = with_room(host_bytes(MODEL, 6144)).plan()
    assert (plan.n_ctx, plan.type_k, plan.type_v) == (8192, "q8_0", "q8_0")
    assert reason(plan, "type_k").because.startswith("half the memory")


def test_an_architecture_that_takes_no_quantized_cache_gives_context_instead() -> None:
    model = replace(MODEL, takes_q8_0=False)
    plan = with_room(host_bytes(model, 6144), model).plan()
    assert (plan.n_ctx, plan.type_k) == (6144, "f16")


def test_a_servers_context_shrinks_for_all_slots_alike() -> None:
    of = with_room(host_bytes(MODEL, 12_288))
    plan = of.plan(goal=SERVE)
    assert plan.n_parallel == 4
    assert plan.n_ctx % (4 * CTX_STEP) == 0
    assert (plan.n_ctx, plan.type_k) == cheapest(of, n_slots=4)


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
def test_below_the_least_context_nothing_fits(kind: str) -> None:
    least = host_bytes(MODEL, CHAT.n_ctx_least, "q8_0")
    plan = with_room(least, kind=kind).plan()
    assert (plan.n_ctx, plan.type_k) == (CHAT.n_ctx_least, "q8_0")
    with pytest.raises(DoesNotFitError, match=r"^M with a context of 2048 needs"):
        with_room(least - 1, kind=kind).plan()


@pytest.mark.parametrize("missing", [1, 333 * MIB, 700 * MIB])
def test_a_context_is_found_with_few_questions(missing: int) -> None:
    """A dry run of a large model takes a second."""
    of = with_room(host_bytes(MODEL, 8192) - missing)
    of.plan()
    assert len(of.oracle.asked) <= 16


# -- the quantization ----------------------------------------------------------------------------

FINE, COARSE = dense("Q6_K", 140 * MIB), dense("Q4_K_M", 60 * MIB)


def test_a_halved_context_is_given_before_a_coarser_quantization() -> None:
    """1.5 against 2.5 percent of perplexity; without a quantized cache to weigh beside them."""
    models = [replace(each, takes_q8_0=False) for each in (FINE, COARSE)]
    plan = with_room(host_bytes(FINE, 4096), *models).plan()
    assert (plan.model.quant, plan.n_ctx) == ("Q6_K", 4096)


def test_a_coarser_quantization_is_taken_before_a_quarter_of_the_context() -> None:
    models = [replace(each, takes_q8_0=False) for each in (FINE, COARSE)]
    plan = with_room(host_bytes(FINE, 2048), *models).plan()
    assert plan.model.quant == "Q4_K_M"
    assert plan.n_ctx > 4096
    fine, coarse = plan.verdicts
    assert fine.fits
    assert fine.n_ctx == 2048
    assert fine.why_not == "context 2,048"
    assert coarse.why_not is None


def test_what_does_not_fit_at_all_says_by_how_much() -> None:
    plan = with_room(host_bytes(COARSE, 8192), dense("F16", 400 * MIB), COARSE).plan()
    large, _ = plan.verdicts
    assert not large.fits
    assert large.n_ctx is None
    assert large.why_not is not None
    assert large.why_not.startswith("does not fit: ")
    assert large.why_not.endswith("GiB are missing on Host")


def test_a_coarser_quantization_is_taken_before_layers_leave_the_device() -> None:
    of = case(gpu("CUDA0", OVERHEAD + 1700 * MIB), models=[dense("Q8_0", 190 * MIB), FINE])
    plan = of.plan(Wishes(n_ctx=2048))
    assert plan.model.quant == "Q6_K"
    assert plan.n_gpu_layers == 9
    assert chosen(plan).where == "CUDA0"
    assert plan.verdicts[0].fits


def test_layers_leave_the_device_before_quality_is_ruined() -> None:
    models = [dense("Q4_K_M", 100 * MIB), dense("Q2_K", 60 * MIB)]
    plan = case(gpu("CUDA0", OVERHEAD + 800 * MIB), models=models).plan(Wishes(n_ctx=2048))
    assert plan.model.quant == "Q4_K_M"
    assert 0 < plan.n_gpu_layers < 9


# -- one device ----------------------------------------------------------------------------------


def test_all_layers_go_to_a_gpu_that_has_room() -> None:
    plan = case(gpu()).plan()
    assert plan.n_gpu_layers == 9
    assert plan.devices == ("CUDA0",)
    assert plan.tensor_split is None
    assert reason(plan, "n_gpu_layers") == Reason(
        "n_gpu_layers", 9, "all layers and the output are on CUDA0", "dry-run"
    )
    assert [row.device for row in plan.memory] == ["Host", "CUDA0"]


WHOLE = Wishes(n_ctx=8192, type_k="f16")


def test_some_layers_go_to_a_gpu_that_has_some_room() -> None:
    plan = case(gpu("CUDA0", OVERHEAD + GIB)).plan(WHOLE)
    assert 0 < plan.n_gpu_layers < 9
    assert reason(plan, "n_gpu_layers") == Reason(
        "n_gpu_layers",
        plan.n_gpu_layers,
        f"{plan.n_gpu_layers} of 9 layers fit on CUDA0",
        "dry-run",
    )


@pytest.mark.parametrize("room", range(400, 2400, 150))
@pytest.mark.parametrize("drawn_on", [False, True], ids=["idle", "with a desktop"])
def test_as_many_layers_as_the_reserve_leaves_room_for(room: int, drawn_on: bool) -> None:
    device, card = gpu("CUDA0", OVERHEAD + room * MIB)
    of = case((device, replace(card, display=drawn_on)))
    plan = of.plan(WHOLE)
    assert of.fits(plan)
    if 0 < plan.n_gpu_layers < 9:
        assert not of.fits(replace(plan, n_gpu_layers=plan.n_gpu_layers + 1))


def test_a_desktop_gets_memory_of_its_own() -> None:
    device, card = gpu("CUDA0", OVERHEAD + GIB)
    idle = case((device, card)).plan(WHOLE)
    drawn_on = case((device, replace(card, display=True))).plan(WHOLE)
    assert drawn_on.n_gpu_layers < idle.n_gpu_layers
    reserves = [plan.memory[1].reserve_bytes for plan in (idle, drawn_on)]
    assert reserves[1] - reserves[0] == POLICY.device_display_bytes


def test_a_gpu_that_the_engine_does_not_see_is_not_counted_on() -> None:
    _, card = gpu()
    hardware = machine(64 * GIB, gpu())
    plan = Case(replace(hardware, accelerators=(card,))).plan()
    assert plan.n_gpu_layers == 0
    assert [row.device for row in plan.memory] == ["Host"]
    why = reason(plan, "n_gpu_layers")
    assert why.source == "dry-run"
    assert "the engine sees no accelerator" in why.because


def test_a_gpu_slower_than_the_host_is_left_out_and_said() -> None:
    plan = case(gpu("CUDA0", 24 * GIB, 40e9)).plan()
    assert plan.n_gpu_layers == 0
    assert [row.device for row in plan.memory] == ["Host"]
    assert reason(plan, "n_gpu_layers").because == "no accelerator is faster than the host"
    assert reason(plan, "devices").because == (
        "left out: CUDA0 reads more slowly than main memory: it would only hold up"
    )


def test_an_offload_slower_than_none_is_not_chosen() -> None:
    """Faster memory, but so many small layers that starting their kernels takes longer."""
    many = dense("Q4_K_M", MIB, 100, token_bytes=1)
    of = case(gpu("CUDA0", 24 * GIB, 60e9), models=[many])
    plan = of.plan()
    assert plan.n_gpu_layers == 0
    assert reason(plan, "n_gpu_layers").because == (
        "the host alone serves better than with a device that holds so little"
    )
    assert case(gpu("CUDA0", 24 * GIB, 60e9)).plan().n_gpu_layers == 9


def test_a_device_of_unknown_size_is_not_taken_for_a_full_one() -> None:
    assert case(gpu("CUDA0", None)).plan().n_gpu_layers == 9


def test_a_device_over_rpc_counts_as_an_accelerator() -> None:
    of = Case(machine(), devices=(), models=(MODEL,))
    of.oracle.places = (Device("RPC0", "", 24 * GIB, 24 * GIB),)
    plan = of.plan(Wishes(rpc=("127.0.0.1:50052",)))
    assert (plan.n_gpu_layers, plan.devices) == (9, ("RPC0",))
    assert plan.rpc == ("127.0.0.1:50052",)
    assert plan.memory[1].overhead_bytes == 0  # the machine that it is in counts its own


# -- compute buffers that no forecast foretells ---------------------------------------------------


def with_compute(of: Case, compute_mib: Callable[[Plan, str], int]) -> Case:
    """The case, with other compute buffers."""
    inner = of.oracle.memory

    def memory(plan: Plan) -> tuple[DeviceMemory, ...]:
        return tuple(
            replace(row, compute_bytes=compute_mib(plan, row.device) * MIB)
            if row.model_bytes
            else row
            for row in inner(plan)
        )

    of.oracle.memory = memory  # type: ignore[method-assign]
    return of


def test_one_more_layer_is_tried_than_the_forecast_thinks_possible() -> None:
    """Three layers need a larger buffer than four, and only those were asked about."""

    def compute_mib(plan: Plan, device: str) -> int:
        return 200 if device == "Host" else 190 if plan.n_gpu_layers < 4 else 90

    of = with_compute(case(gpu("CUDA0", OVERHEAD + 620 * MIB)), compute_mib)
    assert of.plan(Wishes(n_ctx=2048, type_k="f16")).n_gpu_layers == 4


def test_what_is_learnt_when_nothing_seemed_possible_shows_better_ways() -> None:
    """Alone the host would need a buffer of a GiB, with the card none."""

    def compute_mib(plan: Plan, device: str) -> int:
        return 10 if plan.n_gpu_layers else 1024

    of = case(gpu("CUDA0", OVERHEAD + 2000 * MIB), free_bytes=300 * MIB + 512 * MIB)
    plan = with_compute(of, compute_mib).plan()
    assert (plan.n_gpu_layers, plan.n_ctx, plan.type_k) == (9, 8192, "f16")


# -- explicit layers -----------------------------------------------------------------------------


def test_explicit_layers_shrink_a_wished_context() -> None:
    of = case(gpu("CUDA0", OVERHEAD + 1500 * MIB))
    plan = of.plan(Wishes(n_gpu_layers=9, type_k="f16"))
    assert plan.n_gpu_layers == 9
    assert CHAT.n_ctx_least <= plan.n_ctx < CHAT.n_ctx_wished
    larger = replace(plan, n_ctx=plan.n_ctx + CTX_STEP)
    assert of.fits(plan)
    assert not of.fits(larger)


# -- experts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [900, 1400, 1900, 2600, 3300])
def test_experts_leave_the_device_before_any_layer_does(room: int) -> None:
    of = case(gpu("CUDA0", OVERHEAD + room * MIB), models=[sparse()])
    plan = of.plan(Wishes(n_ctx=2048, type_k="f16", n_ubatch=512))
    assert plan.n_gpu_layers == 9
    (override,) = plan.tensor_overrides
    assert override.endswith("=CPU")
    why = reason(plan, "tensor_overrides")
    n_layers = int(why.because.split()[2])
    assert why.because.endswith("layers stay on the host: least read for their size")
    assert of.fits(plan)
    fewer = [rf"blk\.({'|'.join(map(str, range(n_layers - 1)))})\.ffn_up_exps=CPU"]
    assert not of.fits(replace(plan, tensor_overrides=tuple(fewer if n_layers > 1 else ())))


def test_layers_leave_when_no_experts_are_left_to_go() -> None:
    of = case(gpu("CUDA0", OVERHEAD + 350 * MIB), models=[sparse()])
    plan = of.plan(Wishes(n_ctx=2048, type_k="f16", n_ubatch=512))
    assert 0 < plan.n_gpu_layers < 9
    assert plan.tensor_overrides == (r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU",)
    assert of.fits(plan)


def test_experts_that_fit_stay_on_the_device() -> None:
    plan = case(gpu(), models=[sparse()]).plan()
    assert (plan.n_gpu_layers, plan.tensor_overrides) == (9, ())


# -- several devices -----------------------------------------------------------------------------


def test_a_small_model_goes_on_the_fast_one_of_two_gpus_alone() -> None:
    cards = (
        gpu("CUDA0", 12 * GIB, 360e9, title="slow"),
        gpu("CUDA1", 24 * GIB, 1008e9, title="fast"),
    )
    plan = case(*cards).plan()
    assert plan.devices == ("CUDA1",)
    assert plan.tensor_split is None
    assert [row.device for row in plan.memory] == ["Host", "CUDA1"]
    assert reason(plan, "devices").because.startswith("the fastest that hold it")


@pytest.mark.parametrize("n_layers", [8, 40])
def test_two_equal_gpus_are_used_only_where_one_is_not_enough(n_layers: int) -> None:
    cards = (gpu("CUDA0", 8 * GIB), gpu("CUDA1", 8 * GIB))
    plan = case(*cards, models=[dense("Q4_K_M", 250 * MIB, n_layers)]).plan(Wishes(n_ctx=2048))
    assert plan.n_gpu_layers == n_layers + 1
    assert len(plan.devices or ()) == (1 if n_layers == 8 else 2)


def test_two_equal_gpus_share_evenly() -> None:
    cards = (gpu("CUDA0", 8 * GIB), gpu("CUDA1", 8 * GIB))
    plan = case(*cards, models=[dense("Q4_K_M", 250 * MIB, 40)]).plan(Wishes(n_ctx=2048))
    assert plan.tensor_split is not None
    assert sum(plan.tensor_split) == 41
    assert max(plan.tensor_split) - min(plan.tensor_split) <= 1
    assert reason(plan, "tensor_split").value == list(plan.tensor_split)


def test_the_faster_of_two_gpus_is_filled_first() -> None:
    cards = (
        gpu("CUDA0", 8 * GIB, 1008e9, title="fast"),
        gpu("CUDA1", 12 * GIB, 360e9, title="slow"),
    )
    of = case(*cards, models=[dense("Q4_K_M", 250 * MIB, 40)])
    plan = of.plan(Wishes(n_ctx=2048))
    assert plan.devices == ("CUDA1", "CUDA0")  # the fastest is last, and has the output
    assert plan.tensor_split is not None
    slow, fast = plan.tensor_split
    assert slow > 0
    assert not of.fits(replace(plan, tensor_split=(slow - 1, fast + 1)))


def test_a_slow_device_among_fast_ones_is_left_out() -> None:
    cards = (gpu("CUDA0", 8 * GIB, 20e9, title="old"), gpu("CUDA1", 8 * GIB, 900e9, title="new"))
    plan = case(*cards, models=[dense("Q4_K_M", 250 * MIB, 40)]).plan(Wishes(n_ctx=2048))
    assert plan.devices == ("CUDA1",)
    left_out = [why for why in plan.reasons if why.because.startswith("left out")]
    assert [why.value for why in left_out] == [["CUDA0"]]


# -- unified memory ------------------------------------------------------------------------------


def unified(free_bytes: int, limit_bytes: int | None, *models: FakeModel) -> Case:
    card: tuple[Device, Accelerator] = apple(free_bytes, limit_bytes)
    return case(card, models=models or (MODEL,), free_bytes=free_bytes, bandwidth=100e9)


@pytest.mark.parametrize("free_mib", range(1800, 4200, 200))
def test_host_and_accelerator_together_never_take_more_than_main_memory(free_mib: int) -> None:
    of = unified(free_mib * MIB, None)
    plan = of.plan()
    assert sum(row.total_bytes for row in plan.memory) <= (
        free_mib * MIB - POLICY.host_reserve_bytes
    )
    taken = sum(row.total_bytes for row in plan.memory) + plan.cache_ram_bytes
    assert taken <= free_mib * MIB - POLICY.host_reserve_bytes
    assert of.fits(plan)


@pytest.mark.parametrize("limit_mib", range(400, 3000, 200))
def test_metals_limit_is_kept(limit_mib: int) -> None:
    of = unified(16 * GIB, limit_mib * MIB)
    plan = of.plan(WHOLE)
    for row in plan.memory[1:]:
        assert row.device == "MTL0"
        assert row.total_bytes <= limit_mib * MIB - POLICY.device_reserve_bytes
    assert of.fits(plan)
    if limit_mib * MIB > 2400 * MIB:
        assert plan.n_gpu_layers == 9


def test_unified_memory_is_charged_less_than_a_cards_context() -> None:
    plan = unified(16 * GIB, None).plan()
    assert plan.memory[1].overhead_bytes == POLICY.unified_overhead_bytes


# -- speed ---------------------------------------------------------------------------------------


def test_a_plan_says_how_fast_it_will_be_and_how_far_that_may_be_off() -> None:
    slow = case(models=[dense("Q4_K_M", 400 * MIB)]).plan().speed
    fast = case(gpu(), models=[dense("Q4_K_M", 400 * MIB)]).plan().speed
    assert slow.decode_tokens_per_second is not None
    assert fast.decode_tokens_per_second is not None
    assert fast.decode_tokens_per_second > 5 * slow.decode_tokens_per_second
    assert (slow.source, slow.error) == ("estimated", POLICY.speed_error)


def test_no_speed_is_told_where_a_bandwidth_is_not_known() -> None:
    assert case(bandwidth=None).plan().speed.decode_tokens_per_second is None


def test_a_host_of_unknown_speed_is_not_taken_for_a_fast_one() -> None:
    """A slow card holds the model: nothing else is known to be faster."""
    large = dense("Q4_K_M", 900 * MIB, 20, token_bytes=KIB)
    plan = case(gpu("CUDA0", 24 * GIB, 90e9), models=[large], bandwidth=None).plan()
    assert plan.n_gpu_layers == 21
