"""Which models are proposed for a machine: what an expert would nod at, on any machine."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from localllm.catalogue import Catalogue, CatalogueEntry, Task, load_catalogue
from localllm.hardware import Accelerator, Hardware, Memory
from localllm.paths import shipped_profiles_dir
from localllm.plan import Device, Plan, Speed, Verdict
from localllm.planner import Wishes, choose
from localllm.presets import load_preset, preset_files
from localllm.profiles import Goal
from localllm.recommendation import Suggestion, rank, shortlist
from localllm.units import GIB, MIB
from tests.planner.fakes import CHAT, LONG, POLICY, SERVE, FakeModel, LayeredOracle, dense

CATALOGUE = load_catalogue(shipped_profiles_dir())
PRESETS = list(preset_files(shipped_profiles_dir()))
#: What llama.cpp's backends call the devices of each vendor.
_BACKENDS = {"nvidia": "CUDA", "amd": "ROCm", "apple": "MTL", "intel": "SYCL"}


def preset(name: str) -> Hardware:
    return load_preset(name, shipped_profiles_dir()).hardware


def devices_of(hardware: Hardware) -> tuple[Device, ...]:
    """The machine's accelerators, as an engine for them sees them."""
    return tuple(
        Device(
            f"{_BACKENDS[gpu.vendor]}{gpu.index}",
            gpu.name or "",
            hardware.memory.free_bytes if gpu.unified else gpu.free_bytes,
        )
        for gpu in hardware.accelerators
    )


@functools.cache
def proposed(
    hardware: Hardware | str, goal: str = "chat", task: Task | None = None
) -> tuple[Suggestion, ...]:
    if isinstance(hardware, str):
        hardware = preset(hardware)
    return shortlist(CATALOGUE, hardware, devices_of(hardware), POLICY, POLICY.goal(goal), task)


def aliases(suggestions: Sequence[Suggestion]) -> list[str]:
    return [each.entry.alias for each in suggestions]


def entry(alias: str, **changes: object) -> CatalogueEntry:
    """A model for a conversation, 4B of April 2025 unless told."""
    base = replace(CATALOGUE.find("qwen3:4b"), alias=alias, repo=f"org/{alias}", quants=())
    return replace(base, **changes)  # type: ignore[arg-type]


def of(*entries: CatalogueEntry) -> Catalogue:
    return Catalogue({each.alias: each for each in entries}, {})


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_usable_goes_before_what_is_not(name: str) -> None:
    """Never one first that would run at 1 token a second."""
    found = proposed(name)
    assert found[0].tokens_per_second >= CHAT.speed_least
    assert found[0].because == "the best that is usable here"
    assert [each.is_usable for each in found] == sorted(
        (each.is_usable for each in found), reverse=True
    )
    prices = [each.price for each in found if each.is_usable]
    assert prices == sorted(prices)
    slow = [each.tokens_per_second for each in found if not each.is_usable]
    assert slow == sorted(slow, reverse=True)


@pytest.mark.parametrize("goal", [SERVE, LONG], ids=lambda goal: goal.name)
@pytest.mark.parametrize("name", ["laptop-2011-8gb", "laptop-rtx4060-8gb", "mac-book-m3max-64gb"])
def test_every_goal_has_its_own_first(name: str, goal: Goal) -> None:
    first = proposed(name, goal.name)[0]
    assert first.usable_tokens_per_second == goal.speed_least
    assert first.is_usable
    assert first.n_ctx >= min(goal.n_ctx_least, first.entry.n_ctx_train) * goal.n_parallel


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "board-raspberry-pi-5-8gb", {"granite4:tiny-h", "gemma4:e2b"}, id="Raspberry Pi 5"
        ),
        pytest.param("laptop-2011-8gb", {"granite4:tiny-h", "gemma4:e2b"}, id="old laptop, 8 GB"),
        pytest.param("cloud-2vcpu-4gb", {"gemma4:e2b", "qwen3.5:4b"}, id="two cores, 4 GB"),
        pytest.param(
            "laptop-office-16gb", {"gpt-oss:20b", "qwen3.5:9b", "gemma4:e4b"}, id="laptop, 16 GB"
        ),
        pytest.param("mac-air-m2-16gb", {"qwen3.5:9b", "ministral3:14b"}, id="MacBook Air, 16 GB"),
        pytest.param(
            "desktop-rtx3060-12gb",
            {"ministral3:14b", "qwen3.6:35b-a3b", "qwen3.5:9b"},
            id="12 GB card",
        ),
        pytest.param("desktop-rtx4090-24gb", {"qwen3.8:27b", "gemma4:31b"}, id="24 GB card"),
        pytest.param("mac-book-m3max-64gb", {"qwen3.8:27b", "qwen3.6:27b"}, id="Mac, 64 GB"),
        pytest.param(
            "workstation-2x-xeon-128gb", {"gpt-oss:120b", "qwen3.6:35b-a3b"}, id="much slow memory"
        ),
        pytest.param("server-8x-h100", {"qwen3.8:27b", "gemma4:31b"}, id="eight H100"),
    ],
)
def test_an_expert_would_nod(name: str, expected: set[str]) -> None:
    """Each of these would be a good answer; the first is one of them, and all are near the top."""
    found = aliases(proposed(name))
    assert found[0] in expected
    assert expected <= set(found[:6])


def test_a_card_that_holds_a_model_leaves_nothing_of_it_to_the_host() -> None:
    first = proposed("desktop-rtx4090-24gb")[0]
    assert (first.where, first.figures) == ("CUDA0", "estimated")
    assert first.size_bytes < 24 * GIB
    assert first.n_ctx == CHAT.n_ctx_wished


def test_what_does_not_fit_is_not_in_the_list() -> None:
    hardware = preset("board-raspberry-pi-5-8gb")
    found = proposed(hardware)
    assert "llama3.3:70b" not in aliases(found)
    assert all(each.size_bytes < (hardware.memory.free_bytes or 0) for each in found)


def test_nothing_fits_a_machine_without_memory() -> None:
    hardware = preset("laptop-2011-8gb")
    hardware = replace(hardware, memory=replace(hardware.memory, available_bytes=600 * MIB))
    assert proposed(hardware) == ()


def test_where_nobody_knows_what_is_free_nothing_is_held_back() -> None:
    card = preset("laptop-rtx3050-4gb")
    found = shortlist(CATALOGUE, replace(card, memory=Memory()), devices_of(card), POLICY, CHAT)
    assert "llama3.3:70b" in aliases(found)


def test_a_bigger_machine_is_never_told_a_worse_model() -> None:
    """Memory and bandwidth grow step by step, on a host alone and on cards."""
    base = preset("laptop-2011-8gb")
    cpu = preset("server-2x-epyc-512gb").cpu
    machines = [
        replace(
            base,
            cpu=cpu,
            memory=Memory(size, size, bandwidth=size * 3.0, bandwidth_source="measured"),
        )
        for size in (n * GIB for n in (4, 8, 16, 24, 32, 64, 128))
    ]
    worth = [found[0].price for found in map(proposed, machines)]
    assert worth == sorted(worth, reverse=True)
    models = [found[0].model_price for found in map(proposed, machines)]
    assert models == sorted(models, reverse=True)
    cards = [
        proposed(name)[0].model_price
        for name in (
            "laptop-rtx3050-4gb", "laptop-rtx4060-8gb", "desktop-rtx3060-12gb",
            "desktop-rtx4070tisuper-16gb", "desktop-rtx4090-24gb", "desktop-rtx5090-32gb",
            "server-a100-80gb", "server-h100-80gb", "server-h200-141gb", "server-8x-h100",
        )
    ]  # fmt: skip
    assert cards[0] > cards[-1]
    assert cards[3:] == [0.0] * len(cards[3:]), "from 16 GB on it is the best that there is"


def test_on_a_processor_few_active_weights_beat_a_dense_model_of_the_size() -> None:
    sparse = entry("sparse:30b", n_params=30 * 10**9, n_params_active=3 * 10**9)
    whole = entry("whole:30b", n_params=30 * 10**9, n_params_active=30 * 10**9)
    on_host = replace(preset("workstation-2x-xeon-128gb"), accelerators=())
    found = shortlist(of(sparse, whole), on_host, (), POLICY, CHAT)
    assert aliases(found) == ["sparse:30b", "whole:30b"]
    assert found[0].tokens_per_second > 3 * found[1].tokens_per_second
    hopper = preset("server-h100-80gb")
    found = shortlist(of(sparse, whole), hopper, devices_of(hopper), POLICY, CHAT)
    assert aliases(found) == ["whole:30b", "sparse:30b"], "where both are fast, the dense is better"
    assert found[1].because == "counts as 9.5B, whole:30b as 30B"


def test_of_two_models_alike_the_newer_is_better_and_a_year_counts_for_twice_the_weights() -> None:
    old = entry("old:4b", released="2024-06")
    new = entry("new:4b", released="2025-06")
    double = entry("double:8b", released="2024-06", n_params=2 * old.n_params)
    double = replace(double, n_params_active=double.n_params)
    hopper = preset("server-h100-80gb")
    found = shortlist(of(old, new, double), hopper, devices_of(hopper), POLICY, CHAT)
    price = {each.entry.alias: each.model_price for each in found}
    assert price["new:4b"] == pytest.approx(price["double:8b"])
    assert price["old:4b"] == pytest.approx(POLICY.price_model_halving)
    assert aliases(found)[-1] == "old:4b"
    found = shortlist(of(old, new), hopper, devices_of(hopper), POLICY, CHAT)
    assert found[1].because == "older than new:4b"


def test_more_than_a_comfortable_speed_never_outweighs_a_better_model() -> None:
    hopper = preset("server-h100-80gb")
    small = entry("small:4b")
    large = entry("large:8b", n_params=8 * 10**9, n_params_active=8 * 10**9)
    found = shortlist(of(small, large), hopper, devices_of(hopper), POLICY, CHAT)
    assert aliases(found) == ["large:8b", "small:4b"]
    assert found[1].tokens_per_second > found[0].tokens_per_second > CHAT.speed_comfortable
    assert [each.slow_price for each in found] == [0.0, 0.0]


def test_below_a_comfortable_speed_twice_the_weights_are_not_worth_half_the_speed() -> None:
    small, large = (
        entry(f"dense:{n}b", n_params=n * 10**9, n_params_active=n * 10**9) for n in (4, 8)
    )
    laptop = preset("laptop-2011-8gb")
    laptop = replace(laptop, memory=replace(laptop.memory, bandwidth=55e9))
    found = shortlist(of(small, large), laptop, (), POLICY, CHAT)
    assert all(each.tokens_per_second < CHAT.speed_comfortable for each in found)
    assert aliases(found)[0] == "dense:4b"


def test_where_all_is_slow_the_fastest_is_first_and_says_so() -> None:
    crawling = replace(preset("workstation-2x-xeon-128gb"), accelerators=())
    crawling = replace(crawling, memory=replace(crawling.memory, bandwidth=0.1e9))
    found = shortlist(CATALOGUE, crawling, (), POLICY, CHAT)
    assert not any(each.is_usable for each in found)
    assert found[0].tokens_per_second == max(each.tokens_per_second for each in found)
    speed = f"{found[0].tokens_per_second:.3g}"
    assert found[0].because == f"{speed} tokens/s, below the usable 3"


def test_an_unknown_bandwidth_is_taken_for_a_slow_one() -> None:
    """Without one, a model that is far too large would look as good as any."""
    known = preset("workstation-2x-xeon-128gb")
    unknown = replace(known, memory=replace(known.memory, bandwidth=None, bandwidth_source=None))
    first = proposed(unknown)[0]
    assert first.is_usable
    same = next(each for each in proposed(known) if each.entry == first.entry)
    assert first.tokens_per_second < same.tokens_per_second
    card = preset("desktop-rx7900xtx-24gb")
    gpus = tuple(replace(gpu, bandwidth=None) for gpu in card.accelerators)
    first = proposed(replace(card, accelerators=gpus))[0]
    same = next(each for each in proposed(card) if each.entry == first.entry)
    assert (first.where, first.is_usable) == ("ROCm0", True)
    assert first.tokens_per_second < same.tokens_per_second


def test_a_unified_accelerator_of_unknown_bandwidth_is_used_all_the_same() -> None:
    """Metal does not tell it; that of main memory was measured."""
    mac = preset("mac-book-m3max-64gb")
    gpus = tuple(replace(gpu, bandwidth=None) for gpu in mac.accelerators)
    first = proposed(replace(mac, accelerators=gpus))[0]
    assert (first.where, first.is_usable) == ("MTL0", True)


def test_a_device_that_nobody_recognises_is_still_used() -> None:
    card = preset("desktop-rtx4090-24gb")
    stranger = (Device("Vulkan0", "something else", 24 * GIB),)
    two = (Accelerator("amd", 0, "A"), Accelerator("amd", 1, "B"))
    found = shortlist(CATALOGUE, replace(card, accelerators=two), stranger, POLICY, CHAT)
    assert found[0].where == "Vulkan0"
    assert found[0].is_usable


def test_accelerators_that_the_engine_does_not_see_are_no_help() -> None:
    found = shortlist(CATALOGUE, preset("desktop-rtx4090-24gb"), (), POLICY, CHAT)
    assert {each.where for each in found} == {"the host"}


@pytest.mark.parametrize("goal", ["chat", "serve", "long-context"])
def test_a_conversation_is_never_held_with_an_embedding_model(goal: str) -> None:
    for each in proposed("server-h100-80gb", goal):
        assert "chat" in each.entry.tasks
        assert not {"embed", "rerank"} & set(each.entry.tasks)


@pytest.mark.parametrize("task", ["code", "vision", "embed", "rerank", "reasoning"])
def test_a_task_leaves_only_what_was_made_for_it(task: Task) -> None:
    found = proposed("server-h100-80gb", task=task)
    made = {each.alias for each in CATALOGUE.entries.values() if task in each.tasks}
    assert set(aliases(found)) == made
    assert found[0].model_price == 0.0, "the best of those is what the others are measured by"


def test_only_quantizations_that_the_repository_holds_are_proposed() -> None:
    for name in ("laptop-2011-8gb", "desktop-rtx3060-12gb", "server-8x-h100"):
        for each in proposed(name):
            assert not each.entry.quants or each.quant in each.entry.quants
    found = {each.entry.alias: each for each in proposed("server-8x-h100")}
    assert found["gpt-oss:20b"].quant == "MXFP4"
    assert found["gpt-oss:20b"].plan_price < found["smollm2:1.7b"].plan_price, "it loses nothing"


def test_a_quantization_gets_coarser_only_where_it_must() -> None:
    only = of(entry("m:8b", n_params=8 * 10**9, n_params_active=8 * 10**9))
    bits = []
    for n_bytes in (6 * GIB, 8 * GIB, 10 * GIB, 16 * GIB):
        card = preset("desktop-rtx4090-24gb")
        gpu = replace(card.accelerators[0], total_bytes=n_bytes, free_bytes=n_bytes)
        machine = replace(card, accelerators=(gpu,))
        found = shortlist(only, machine, devices_of(machine), POLICY, CHAT)
        bits.append(found[0].size_bytes)
    assert bits == sorted(bits)
    assert bits[0] < bits[-1]


def test_a_gated_model_stays_in_the_list_and_says_that_it_is() -> None:
    hopper = preset("server-h100-80gb")
    found = shortlist(of(entry("m:4b", gated=True)), hopper, devices_of(hopper), POLICY, CHAT)
    assert [each.entry.gated for each in found] == [True]


def test_an_empty_catalogue_proposes_nothing() -> None:
    assert shortlist(Catalogue({}, {}), preset("laptop-2011-8gb"), (), POLICY, CHAT) == ()


def test_the_order_does_not_depend_on_the_catalogues() -> None:
    backwards = Catalogue(dict(reversed(CATALOGUE.entries.items())), CATALOGUE.defaults)
    laptop = preset("laptop-2011-8gb")
    assert shortlist(backwards, laptop, (), POLICY, CHAT) == proposed(laptop)


def test_every_suggestion_says_why_it_stands_there_in_one_clause() -> None:
    for name in ("board-raspberry-pi-5-8gb", "desktop-rtx3060-12gb", "server-8x-h100"):
        found = proposed(name)
        assert [each.because for each in found].count("the best that is usable here") == 1
        for each in found:
            assert each.because
            assert not each.because.endswith(".")
            if not each.is_usable:
                assert each.because.endswith("below the usable 3")


# What exact plans change


def exact_plan(
    quant: str = "Q5_K_M", speed: float | None = 30.0, price: float | None = 3.0
) -> Plan:
    """A plan as the planner writes it, of two candidates."""
    other = Verdict("Q8_0", 9 * GIB, False, "does not fit: 1 GiB are missing on CUDA0")
    chosen = Verdict(quant, 7 * GIB, True, None, "CUDA0", 4096, price=price)
    model = dense().candidate.model
    return Plan(model, n_ctx=4096, speed=Speed(speed), verdicts=(other, chosen))


def test_an_exact_plans_figures_replace_the_estimates() -> None:
    estimated = proposed("desktop-rtx3060-12gb")
    alias = estimated[2].entry.alias
    found = rank(estimated, {alias: exact_plan()}, POLICY, CHAT)
    exact = next(each for each in found if each.entry.alias == alias)
    assert (exact.quant, exact.size_bytes, exact.n_ctx) == ("Q5_K_M", 7 * GIB, 4096)
    assert (exact.where, exact.tokens_per_second, exact.plan_price) == ("CUDA0", 30.0, 3.0)
    assert exact.model_price == estimated[2].model_price
    assert [each.figures for each in found].count("exact") == 1


def test_the_order_is_made_again_when_exact_plans_are_known() -> None:
    estimated = proposed("desktop-rtx3060-12gb")
    first, second = estimated[:2]
    slow = exact_plan(speed=1.2, price=3.0)
    found = rank(estimated, {first.entry.alias: slow}, POLICY, CHAT)
    assert aliases(found)[0] == second.entry.alias
    assert found[0].because == "the best that is usable here"
    behind = next(each for each in found if each.entry.alias == first.entry.alias)
    assert behind.because == "1.2 tokens/s, below the usable 3"
    assert not any(each.is_usable for each in itertools.islice(found, found.index(behind), None))
    better = rank(estimated, {second.entry.alias: exact_plan(price=0.0)}, POLICY, CHAT)
    assert aliases(better)[0] == second.entry.alias


def test_a_plan_that_came_to_nothing_takes_its_model_off_the_list() -> None:
    estimated = proposed("desktop-rtx3060-12gb")
    gone = estimated[0].entry.alias
    found = rank(estimated, {gone: None}, POLICY, CHAT)
    assert gone not in aliases(found)
    assert len(found) == len(estimated) - 1
    assert found[0].because == "the best that is usable here"


def test_without_exact_plans_nothing_changes() -> None:
    estimated = proposed("laptop-office-16gb")
    assert rank(estimated, {}, POLICY, CHAT) == estimated
    assert rank([], {"qwen3:8b": exact_plan()}, POLICY, CHAT) == ()


def test_a_plan_for_which_nothing_was_asked_leaves_the_estimates() -> None:
    estimated = proposed("laptop-office-16gb")
    unasked = replace(exact_plan(), verdicts=())
    assert rank(estimated, {estimated[0].entry.alias: unasked}, POLICY, CHAT) == estimated


def test_a_plan_without_a_speed_keeps_the_estimated_one() -> None:
    estimated = proposed("laptop-office-16gb")
    exact = {estimated[0].entry.alias: exact_plan(speed=None)}
    first = rank(estimated, exact, POLICY, CHAT)[0]
    assert (first.quant, first.figures) == ("Q5_K_M", "exact")
    assert first.tokens_per_second == estimated[0].tokens_per_second
    assert first.price == estimated[0].price


def test_a_plan_of_the_planner_is_understood() -> None:
    """The real planner's verdicts, over an oracle whose bytes can be foretold."""
    card = preset("desktop-rtx3060-12gb")
    small = CATALOGUE.find("qwen3:4b")
    sizes = {"Q8_0": 180 * MIB, "Q4_K_M": 100 * MIB}
    models: list[FakeModel] = [dense(label, size, 30) for label, size in sizes.items()]
    candidates = [model.candidate for model in models]
    oracle = LayeredOracle(
        {each.model.path: model for each, model in zip(candidates, models, strict=True)},
        devices_of(card),
    )
    plan = choose(card, candidates, POLICY, Wishes(), CHAT, oracle)
    estimated = shortlist(of(small), card, devices_of(card), POLICY, CHAT)
    (exact,) = rank(estimated, {small.alias: plan}, POLICY, CHAT)
    assert exact.figures == "exact"
    assert (exact.quant, exact.where, exact.n_ctx) == ("Q8_0", "CUDA0", plan.n_ctx)
    assert exact.tokens_per_second == plan.speed.decode_tokens_per_second
    assert exact.size_bytes == plan.model.size_bytes


# The guess itself


@pytest.mark.parametrize(
    ("alias", "machine", "quant", "where"),
    [
        ("llama3.1:8b", "desktop-rtx3060-12gb", "Q6_K", "CUDA0"),
        ("llama3.1:8b", "laptop-office-16gb", "Q5_K_M", "SYCL0"),
        ("llama3.1:70b", "desktop-2x-rtx3090", "Q4_K_M", "CUDA0 + CUDA1"),
        ("llama3.2:1b", "laptop-2011-8gb", "Q5_K_M", "the host"),
    ],
)
def test_what_is_guessed_is_what_the_golden_plans_have(
    alias: str, machine: str, quant: str, where: str
) -> None:
    """tests/data/plans, made with llama.cpp's own answers about the real shapes."""
    found = {each.entry.alias: each for each in proposed(machine)}
    assert (found[alias].quant, found[alias].where) == (quant, where)
