"""What does not fit is refused with what is missing, and with a hint that is true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localllm.errors import DoesNotFitError, EngineError, LocalllmError
from localllm.hardware import Hardware
from localllm.plan import DeviceMemory, Plan
from localllm.planner import CTX_STEP, Wishes, choose
from localllm.units import GIB, MIB, format_bytes
from tests.planner.fakes import CHAT, MODEL, POLICY, SERVE, Case, case, dense, gpu, machine
from tests.planner.test_ladder import OVERHEAD, host_bytes, with_room


def refused(of: Case, wishes: Wishes | None = None, **more: object) -> DoesNotFitError:
    with pytest.raises(DoesNotFitError) as caught:
        of.plan(wishes, **more)  # type: ignore[arg-type]
    assert caught.value.exit_code == 7
    return caught.value


def option(hint: str | None, name: str) -> int:
    """The number in "--name 123 would fit"."""
    words = (hint or "").split()
    assert words[0] == name, hint
    assert words[2:] == ["would", "fit"], hint
    return int(words[1])


F16 = Wishes(n_ctx=8192, type_k="f16", type_v="f16")


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
@pytest.mark.parametrize("missing", [1, 100 * MIB, 500 * MIB])
def test_an_explicit_context_is_never_changed_and_the_hint_is_true(missing: int, kind: str) -> None:
    of = with_room(host_bytes(MODEL, 8192) - missing, kind=kind)
    error = refused(of, F16)
    assert error.message == (
        f"M with a context of 8192 needs {format_bytes(host_bytes(MODEL, 8192))} on Host, where"
        f" {format_bytes(of.hardware.memory.free_bytes)} are free: {format_bytes(missing)} are"
        " missing, the reserve included"
    )
    n_ctx = option(error.hint, "--ctx")
    assert of.plan(replace(F16, n_ctx=n_ctx)).n_ctx == n_ctx
    refused(of, replace(F16, n_ctx=n_ctx + CTX_STEP))  # and it is the largest that does


def test_an_explicit_context_gets_a_quantized_cache_before_it_is_refused() -> None:
    of = with_room(host_bytes(MODEL, 8192, "q8_0"))
    assert of.plan(Wishes(n_ctx=8192)).type_k == "q8_0"


def test_the_hint_for_several_slots_is_true_as_well() -> None:
    of = with_room(host_bytes(MODEL, 12_288))
    wishes = Wishes(n_ctx=65536, n_parallel=4)
    n_ctx = option(refused(of, wishes, goal=SERVE).hint, "--ctx")
    assert of.plan(replace(wishes, n_ctx=n_ctx), SERVE).n_ctx == n_ctx


def test_fewer_slots_are_the_hint_where_they_help() -> None:
    of = with_room(host_bytes(MODEL, 3072, "q8_0"))
    error = refused(of, Wishes(n_parallel=4))
    assert error.hint == "--parallel 1 would fit"
    assert of.plan(Wishes(n_parallel=1)).n_parallel == 1


def test_a_quantized_cache_is_the_hint_where_it_helps() -> None:
    of = with_room(host_bytes(MODEL, CHAT.n_ctx_least, "q8_0"))
    error = refused(of, Wishes(type_k="f16", type_v="f16"))
    assert error.hint == "--kv q8_0 would fit"
    assert of.plan(Wishes(type_k="q8_0", type_v="q8_0")).n_ctx == CHAT.n_ctx_least


def test_another_quantization_is_the_hint_where_one_fits() -> None:
    of = with_room(host_bytes(MODEL, 8192), dense("Q8_0", 400 * MIB), MODEL)
    error = refused(of, Wishes(quant="Q8_0"))
    assert error.hint == "--quant Q4_K_M would fit"
    assert of.plan(Wishes(quant="Q4_K_M")).model.quant == "Q4_K_M"


@pytest.mark.parametrize(
    ("hardware", "hint"),
    [
        pytest.param(machine(600 * MIB), "a smaller quantization", id="a small machine"),
        pytest.param(machine(64 * GIB, limit_bytes=600 * MIB),
                     "this container or cgroup may use 600 MiB; raise that", id="a container"),
        pytest.param(machine(None, limit_bytes=600 * MIB),
                     "this container or cgroup may use 600 MiB; raise that",
                     id="a container on an unknown machine"),
        pytest.param(machine(600 * MIB, limit_bytes=64 * GIB), "a smaller quantization",
                     id="a wide container on a small machine"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_help(hardware: Hardware, hint: str) -> None:
    error = refused(Case(hardware))
    assert "on Host" in error.message
    assert (error.hint or "").startswith(hint)


def test_a_smaller_quantization_is_named_with_its_size() -> None:
    hint = refused(with_room(300 * MIB)).hint
    assert hint == "a smaller quantization (Q4_K_S is some 906 MiB) or a smaller model"


def test_of_several_the_one_that_misses_by_least_is_named() -> None:
    models = [dense("Q8_0", 180 * MIB), MODEL]
    error = refused(with_room(host_bytes(MODEL, 2048, "q8_0") - MIB, *models))
    assert error.message.startswith("M (Q4_K_M) with a context of 2048 needs")
    assert "1.0 MiB are missing" in error.message


def test_explicit_layers_that_do_not_fit_are_refused_with_what_would() -> None:
    of = case(gpu("CUDA0", OVERHEAD + 1800 * MIB))
    error = refused(of, replace(F16, n_gpu_layers=-1))
    assert "on CUDA0, where" in error.message
    n_ctx = option(error.hint, "--ctx")
    plan = of.plan(replace(F16, n_gpu_layers=-1, n_ctx=n_ctx))
    assert (plan.n_gpu_layers, plan.n_ctx) == (9, n_ctx)


def test_explicit_layers_that_fit_with_no_context_are_refused_with_what_would() -> None:
    of = case(gpu("CUDA0", OVERHEAD + 400 * MIB))
    error = refused(of, Wishes(n_gpu_layers=-1))
    assert "on CUDA0" in error.message
    n_layers = of.plan().n_gpu_layers
    assert error.hint == f"without --ngl it would fit, with {n_layers} layers on the accelerator"


def test_a_model_that_the_engine_refuses_is_told_in_the_engines_words() -> None:
    of = case()

    def memory(plan: Plan) -> tuple[DeviceMemory, ...]:
        raise EngineError("unknown model architecture: 'alien'")

    of.oracle.memory = memory  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="alien"):
        of.plan()


def test_one_model_that_the_engine_refuses_does_not_hinder_the_others() -> None:
    of = case(models=[dense("Q8_0"), dense("Q4_K_M")])
    inner = of.oracle.memory

    def memory(plan: Plan) -> tuple[DeviceMemory, ...]:
        if plan.model.quant == "Q8_0":
            raise EngineError("this file is broken")
        return inner(plan)

    of.oracle.memory = memory  # type: ignore[method-assign]
    plan = of.plan()
    assert plan.model.quant == "Q4_K_M"
    assert plan.verdicts[0].why_not == "this file is broken"
    assert not plan.verdicts[0].fits


def test_a_candidate_that_cannot_be_run_is_refused_with_its_reason() -> None:
    of = case()
    broken = [replace(each, unusable="a part of it is missing") for each in of.candidates]
    with pytest.raises(LocalllmError, match="a part of it is missing"):
        choose(of.hardware, broken, POLICY, Wishes(), CHAT, of.oracle)


def test_without_an_oracle_a_file_larger_than_memory_is_refused() -> None:
    of = case(free_bytes=800 * MIB)
    for wishes in (Wishes(), Wishes(n_gpu_layers=0)):
        with pytest.raises(DoesNotFitError, match=r"^M is 950 MiB and 800 MiB of memory are free$"):
            choose(of.hardware, of.candidates, POLICY, wishes, CHAT, None)


def test_without_an_oracle_a_file_larger_than_memory_may_be_on_the_gpu() -> None:
    of = case(gpu(), free_bytes=800 * MIB)
    assert choose(of.hardware, of.candidates, POLICY, Wishes(), CHAT, None).n_gpu_layers == 9
