"""What is decided for a model on a machine, with an oracle whose every byte can be foretold."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from localllm.errors import DoesNotFitError, UsageError
from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.paths import shipped_profiles_dir
from localllm.plan import DeviceMemory, Fit, Model, Plan, Reason, Source
from localllm.planner import CTX_STEP, Use, Wishes, choose
from localllm.profiles import load_policy
from localllm.units import GIB, KIB, MIB, format_bytes

POLICY = load_policy(shipped_profiles_dir())
MODEL = Model(
    "m", "/m.gguf", name="M", n_layers=8, n_ctx_train=32768, quant="Q4_K_M", size_bytes=900 * MIB
)
CPU = Cpu(n_physical=4, n_logical=8, n_affinity=8)
GPU = Accelerator("nvidia", 0, "GPU", total_bytes=24 * GIB)


@dataclass
class LinearOracle:
    """Weights and context spread evenly over the layers; compute buffers never change.

    Attributes:
        devices: free bytes by name; layers go to them in even shares.
        layer_bytes: of a repeating layer, and of the output layer too.
        token_bytes: of the context, per token and repeating layer.
        window: tokens from which the context grows no more; 0 for never.
        asked: the plans that `fit` was asked about.
    """

    devices: dict[str, int] = field(default_factory=dict)
    layer_bytes: int = 100 * MIB
    token_bytes: int = 16 * KIB
    compute_bytes: int = 64 * MIB
    window: int = 0
    asked: list[Plan] = field(default_factory=list)

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        n_layers = plan.model.n_layers or 0
        n_away = min(plan.n_gpu_layers, n_layers + 1) if self.devices else 0
        n_cached_away = max(0, n_away - 1)  # the output layer goes first, and caches nothing
        cells = -(-plan.n_ctx // 256) * 256
        cells = min(cells, self.window) if self.window else cells
        layer_context = cells * self.token_bytes
        share = max(1, len(self.devices))
        return (
            DeviceMemory(
                "Host",
                (n_layers + 1 - n_away) * self.layer_bytes,
                (n_layers - n_cached_away) * layer_context,
                self.compute_bytes,
            ),
            *(
                DeviceMemory(
                    name,
                    n_away * self.layer_bytes // share,
                    n_cached_away * layer_context // share,
                    self.compute_bytes if n_away else 0,
                    free_bytes=free,
                )
                for name, free in self.devices.items()
            ),
        )

    def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
        self.asked.append(plan)
        everything = (plan.model.n_layers or 0) + 1
        split = (1.0, 1.0) if len(self.devices) == 2 else None
        for n_layers in range(everything, -1, -1):
            rows = self.memory(replace(plan, n_gpu_layers=n_layers))[1:]
            if all(row.total_bytes <= (row.free_bytes or 0) - reserve_bytes for row in rows):
                whole = n_layers == everything
                return Fit(plan.n_ctx, -1 if whole else n_layers, split)
        return Fit(plan.n_ctx, 0)


def machine(
    free_bytes: int | None = 64 * GIB,
    *gpus: Accelerator,
    cpu: Cpu = CPU,
    limit_bytes: int | None = None,
    limit_used_bytes: int | None = None,
) -> Hardware:
    memory = Memory(
        total_bytes=128 * GIB,
        available_bytes=free_bytes,
        limit_bytes=limit_bytes,
        limit_used_bytes=limit_used_bytes,
    )
    return Hardware(System("Linux"), cpu, memory, gpus)


def plan_for(
    hardware: Hardware,
    wishes: Wishes | None = None,
    *,
    use: Use = "chat",
    oracle: LinearOracle | None = None,
    model: Model = MODEL,
) -> Plan:
    return choose(hardware, model, POLICY, wishes or Wishes(), use, oracle or LinearOracle())


def reason(plan: Plan, name: str) -> Reason:
    (found,) = (reason for reason in plan.reasons if reason.field == name)
    return found


def host_bytes(n_ctx: int, oracle: LinearOracle | None = None) -> int:
    """What a run on the host alone takes at that context, its overhead included."""
    (row, *_) = (oracle or LinearOracle()).memory(Plan(MODEL, n_ctx))
    return row.total_bytes + POLICY.host_overhead_bytes


def fits(hardware: Hardware, plan: Plan, oracle: LinearOracle) -> bool:
    """The same question again, asked of the plan as a whole and in other words."""
    host, *devices = oracle.memory(plan)
    wanted = host.total_bytes + POLICY.host_overhead_bytes
    memory = hardware.memory
    bounds = [
        (row.total_bytes, (row.free_bytes or 0) - POLICY.device_reserve_bytes) for row in devices
    ]
    if memory.available_bytes is not None:
        bounds.append((wanted, memory.available_bytes - POLICY.host_reserve_bytes))
    if memory.limit_bytes is not None:
        left = memory.limit_bytes - (memory.limit_used_bytes or 0)
        bounds.append((wanted, left - POLICY.group_reserve_bytes))
    return all(taken <= room for taken, room in bounds)


# -- what is decided where there is room ---------------------------------------------------------


def test_a_chat_with_room_gets_what_the_policy_wishes() -> None:
    plan = plan_for(machine())
    assert plan.n_ctx == POLICY.n_ctx_wished
    assert plan.n_parallel == 1
    assert plan.n_gpu_layers == 0
    assert (plan.n_batch, plan.n_ubatch) == (POLICY.n_batch, POLICY.n_ubatch)
    assert (plan.type_k, plan.type_v) == (POLICY.type_kv, POLICY.type_kv)
    assert plan.flash_attn == "auto"
    assert plan.load_mode == "mmap"
    assert plan.cache_ram_bytes == POLICY.cache_ram_bytes_chat
    assert plan.env == {"GOMP_SPINCOUNT": str(POLICY.gomp_spincount)}


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
    ],
)
def test_a_default_says_why(name: str, because: str, source: Source) -> None:
    plan = plan_for(machine())
    assert reason(plan, name) == Reason(name, getattr(plan, name), because, source)


def test_a_server_gets_a_context_for_each_slot() -> None:
    plan = plan_for(machine(), use="serve")
    assert plan.n_parallel == POLICY.n_parallel_serve
    assert plan.n_ctx == POLICY.n_ctx_wished * POLICY.n_parallel_serve
    assert reason(plan, "n_ctx").because == "the policy's wish, for each of 4 slots"
    assert plan.cache_ram_bytes == POLICY.cache_ram_bytes_serve


def test_no_more_context_than_the_model_was_trained_for() -> None:
    short = replace(MODEL, n_ctx_train=4096)
    plan = plan_for(machine(), model=short)
    assert plan.n_ctx == 4096
    assert reason(plan, "n_ctx").because == "all that the model was trained for"
    assert plan_for(machine(), use="serve", model=short).n_ctx == 4 * 4096


def test_a_model_that_does_not_say_its_context_gets_the_policys() -> None:
    plan = plan_for(machine(), model=replace(MODEL, n_ctx_train=None))
    assert plan.n_ctx == POLICY.n_ctx_wished


def test_cuda_is_told_to_number_gpus_like_everything_else() -> None:
    oracle = LinearOracle({"CUDA0": 24 * GIB})
    assert plan_for(machine(64 * GIB, GPU), oracle=oracle).env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    amd = replace(GPU, vendor="amd")
    assert "CUDA_DEVICE_ORDER" not in plan_for(machine(64 * GIB, amd), oracle=oracle).env


@pytest.mark.parametrize(
    ("cpu", "n_threads", "because"),
    [
        pytest.param(Cpu(n_physical=4, n_logical=4, n_affinity=4), 4, "the cores of this machine",
                     id="no hyper-threads"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16), 8, "the physical cores",
                     id="hyper-threads"),
        pytest.param(Cpu(n_physical=14, n_logical=20, n_affinity=20, n_performance=6), 6,
                     "the performance cores", id="slow cores beside fast ones"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=3), 3,
                     "the 3 processors this process may run on", id="affinity"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=12), 8, "the physical cores",
                     id="affinity beyond the cores"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16, quota=2.5), 2,
                     "the processor quota of 2.5", id="quota"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16, quota=0.5), 1,
                     "the processor quota of 0.5", id="less than one processor"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=4, quota=3.0), 3,
                     "the processor quota of 3", id="quota below the affinity"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=2, quota=3.0), 2,
                     "the 2 processors this process may run on", id="affinity below the quota"),
        pytest.param(Cpu(n_physical=8, n_logical=16, n_affinity=16, quota=12.0), 8,
                     "the physical cores", id="quota beyond the cores"),
        pytest.param(Cpu(n_physical=14, n_logical=20, n_affinity=20, n_performance=6, quota=4.0),
                     4, "the processor quota of 4", id="quota below the performance cores"),
        pytest.param(Cpu(n_logical=4), 4, "the cores of this machine", id="only processors known"),
        pytest.param(Cpu(n_affinity=4), 4, "the cores of this machine", id="only affinity known"),
        pytest.param(Cpu(n_physical=6), 6, "the cores of this machine", id="only cores known"),
        pytest.param(Cpu(), 1, "how many processors there are is not known", id="nothing known"),
    ],
)  # fmt: skip
def test_threads_are_what_this_process_can_keep_busy(
    cpu: Cpu, n_threads: int, because: str
) -> None:
    plan = plan_for(machine(cpu=cpu))
    assert (plan.n_threads, plan.n_threads_batch) == (n_threads, n_threads)
    why = reason(plan, "n_threads")
    assert why.because == because
    assert why.source == ("assumed" if cpu == Cpu() else "measured")


# -- what is wished ------------------------------------------------------------------------------

WISHES: dict[str, Any] = {
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
}


def test_every_wish_is_tried_here() -> None:
    assert list(WISHES) == [wish.name for wish in fields(Wishes)]


@pytest.mark.parametrize("use", ["chat", "serve"])
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "no oracle"])
@pytest.mark.parametrize("name", WISHES)
def test_what_a_person_asks_for_is_kept_and_said(name: str, asked: bool, use: Use) -> None:
    oracle = LinearOracle({"CUDA0": 24 * GIB}) if asked else None
    wishes = Wishes(**{name: WISHES[name]})
    plan = choose(machine(64 * GIB, GPU), MODEL, POLICY, wishes, use, oracle)
    assert getattr(plan, name) == WISHES[name]
    why = reason(plan, name)
    assert why.source == "flag"
    assert why.because.startswith("asked for")


def test_all_wishes_together_are_kept() -> None:
    plan = plan_for(machine(), Wishes(**WISHES), oracle=LinearOracle({"RPC0": 24 * GIB}))
    assert {name: getattr(plan, name) for name in WISHES} == WISHES


def test_threads_that_are_asked_for_hold_for_prompts_too() -> None:
    plan = plan_for(machine(), Wishes(n_threads=3))
    assert plan.n_threads_batch == 3
    assert reason(plan, "n_threads_batch") == Reason(
        "n_threads_batch", 3, "as for decoding", "flag"
    )


def test_a_context_beyond_the_training_is_kept_and_said() -> None:
    plan = plan_for(machine(), Wishes(n_ctx=65536), oracle=LinearOracle(token_bytes=1))
    assert plan.n_ctx == 65536
    assert reason(plan, "n_ctx").because == "asked for, beyond the 32768 it was trained for"


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "no oracle"])
def test_minus_one_layer_means_all_and_the_output(asked: bool) -> None:
    oracle = LinearOracle({"CUDA0": 24 * GIB}) if asked else None
    plan = choose(machine(64 * GIB, GPU), MODEL, POLICY, Wishes(n_gpu_layers=-1), "chat", oracle)
    assert plan.n_gpu_layers == 9
    assert reason(plan, "n_gpu_layers") == Reason("n_gpu_layers", 9, "asked for", "flag")


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        pytest.param(
            Wishes(n_batch=256, n_ubatch=512),
            "a micro-batch of 512 is larger than the batch of 256",
            id="both asked for",
        ),
        pytest.param(Wishes(n_batch=256), "a micro-batch of 512", id="batch alone"),
        pytest.param(Wishes(n_ubatch=4096), "the batch of 2048", id="micro-batch alone"),
        pytest.param(
            Wishes(n_ctx=3, n_parallel=4), "a context of 3 tokens is too small", id="no token each"
        ),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(wishes: Wishes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan_for(machine(), wishes)


# -- what is decided where room is short ---------------------------------------------------------


def brute_force(hardware: Hardware, plan: Plan, oracle: LinearOracle, wished: int) -> int | None:
    """The largest context that fits, by trying every multiple of the step down to the least."""
    step = CTX_STEP * plan.n_parallel
    for n_ctx in range(-(-wished // step) * step - step, POLICY.n_ctx_least - 1, -step):
        placed = replace(plan, n_ctx=n_ctx, n_gpu_layers=0)
        if hardware.accelerators:
            n_layers = oracle.fit(placed, POLICY.device_reserve_bytes).n_gpu_layers
            placed = replace(placed, n_gpu_layers=9 if n_layers == -1 else n_layers)
        if fits(hardware, placed, oracle):
            return n_ctx
    return None


def shortage(missing: int, kind: str, oracle: LinearOracle | None = None) -> Hardware:
    """A machine that lacks so much for a chat with the policy's context."""
    wanted = host_bytes(POLICY.n_ctx_wished, oracle) - missing
    if kind == "machine":
        return machine(wanted + POLICY.host_reserve_bytes)
    used = 100 * MIB
    limit = wanted + POLICY.group_reserve_bytes + used
    return machine(64 * GIB, limit_bytes=limit, limit_used_bytes=used)


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
def test_a_run_that_just_fits_is_left_as_it_is(kind: str) -> None:
    plan = plan_for(shortage(0, kind))
    assert plan.n_ctx == POLICY.n_ctx_wished
    assert plan.cache_ram_bytes == 0


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
@pytest.mark.parametrize("window", [0, 4096, 6000], ids=["straight", "window", "odd window"])
@pytest.mark.parametrize("missing", [1, MIB, 100 * MIB, 333 * MIB, 500 * MIB, 700 * MIB])
def test_a_wished_context_shrinks_to_the_largest_that_fits(
    missing: int, window: int, kind: str
) -> None:
    oracle = LinearOracle(window=window)
    hardware = shortage(missing, kind, oracle)
    best = brute_force(hardware, Plan(MODEL, 0), oracle, POLICY.n_ctx_wished)
    if best is None:
        with pytest.raises(DoesNotFitError):
            plan_for(hardware, oracle=oracle)
        return
    plan = plan_for(hardware, oracle=oracle)
    assert plan.n_ctx == best
    assert fits(hardware, plan, oracle)
    why = reason(plan, "n_ctx")
    assert why.value == plan.n_ctx
    assert why.because == (
        f"the largest that fits; the wished one lacks {format_bytes(missing)} on Host"
    )
    assert why.source == "dry-run"


@pytest.mark.parametrize("free", range(2, 27, 2))
def test_on_a_gpu_and_little_memory_the_context_is_the_largest_of_all(free: int) -> None:
    """Layers move to the GPU as the context shrinks: what is needed is no straight line."""
    hardware = machine(1 * GIB, GPU)
    oracle = LinearOracle({"CUDA0": free * 100 * MIB})
    wished = POLICY.n_ctx_wished
    probe = Plan(MODEL, wished)
    layers = oracle.fit(probe, POLICY.device_reserve_bytes).n_gpu_layers
    probe = replace(probe, n_gpu_layers=9 if layers == -1 else layers)
    best = wished if fits(hardware, probe, oracle) else brute_force(
        hardware, probe, oracle, wished
    )  # fmt: skip
    if best is None:
        with pytest.raises(DoesNotFitError):
            plan_for(hardware, oracle=oracle)
        return
    plan = plan_for(hardware, oracle=oracle)
    assert plan.n_ctx == best
    assert fits(hardware, plan, oracle)


def test_a_servers_context_shrinks_for_all_slots_alike() -> None:
    oracle = LinearOracle()
    hardware = machine(host_bytes(20_000) + POLICY.host_reserve_bytes)
    plan = plan_for(hardware, use="serve", oracle=oracle)
    assert plan.n_parallel == 4
    assert plan.n_ctx % (4 * CTX_STEP) == 0
    assert plan.n_ctx == brute_force(hardware, plan, oracle, 4 * POLICY.n_ctx_wished)


def test_a_context_is_found_with_few_questions() -> None:
    """A dry run of a large model takes a second."""
    oracle, n_asked = LinearOracle(), 0

    class Counting(LinearOracle):
        def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
            nonlocal n_asked
            n_asked += 1
            return oracle.memory(plan)

    plan_for(shortage(333 * MIB, "machine"), oracle=Counting())
    assert 3 <= n_asked <= 6


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
def test_below_the_least_context_nothing_fits(kind: str) -> None:
    missing = host_bytes(POLICY.n_ctx_wished) - host_bytes(POLICY.n_ctx_least) + 1
    assert plan_for(shortage(missing - 1, kind)).n_ctx == POLICY.n_ctx_least
    with pytest.raises(DoesNotFitError, match=f"^M with a context of {POLICY.n_ctx_wished} needs"):
        plan_for(shortage(missing, kind))


@pytest.mark.parametrize("kind", ["machine", "cgroup"])
@pytest.mark.parametrize("missing", [1, 100 * MIB, 500 * MIB])
def test_an_explicit_context_is_never_changed_and_the_hint_is_true(missing: int, kind: str) -> None:
    hardware = shortage(missing, kind)
    with pytest.raises(DoesNotFitError) as caught:
        plan_for(hardware, Wishes(n_ctx=POLICY.n_ctx_wished))
    wanted = format_bytes(host_bytes(POLICY.n_ctx_wished))
    assert caught.value.message == (
        f"M with a context of {POLICY.n_ctx_wished} needs {wanted} on Host, where"
        f" {format_bytes(hardware.memory.free_bytes)} are free: {format_bytes(missing)} are"
        " missing, the reserve included"
    )
    option, number, *rest = (caught.value.hint or "").split()
    assert (option, rest) == ("--ctx", ["would", "fit"])
    assert plan_for(hardware, Wishes(n_ctx=int(number))).n_ctx == int(number)
    with pytest.raises(DoesNotFitError):  # and it is the largest that does
        plan_for(hardware, Wishes(n_ctx=int(number) + CTX_STEP))


def test_the_hint_for_several_slots_is_true_as_well() -> None:
    hardware = machine(host_bytes(12_000) + POLICY.host_reserve_bytes)
    wishes = Wishes(n_ctx=32768, n_parallel=4)
    with pytest.raises(DoesNotFitError) as caught:
        plan_for(hardware, wishes, use="serve")
    n_ctx = int((caught.value.hint or "").split()[1])
    assert plan_for(hardware, replace(wishes, n_ctx=n_ctx), use="serve").n_ctx == n_ctx


@pytest.mark.parametrize(
    ("hardware", "hint"),
    [
        pytest.param(machine(600 * MIB), "a smaller quantization or a smaller model would fit",
                     id="a small machine"),
        pytest.param(machine(64 * GIB, limit_bytes=600 * MIB),
                     "this container or cgroup may use 600 MiB; raise that", id="a container"),
        pytest.param(machine(None, limit_bytes=600 * MIB),
                     "this container or cgroup may use 600 MiB; raise that",
                     id="a container on an unknown machine"),
        pytest.param(machine(600 * MIB, limit_bytes=64 * GIB),
                     "a smaller quantization or a smaller model would fit",
                     id="a wide container on a small machine"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_help(hardware: Hardware, hint: str) -> None:
    with pytest.raises(DoesNotFitError, match="on Host") as caught:
        plan_for(hardware)
    assert caught.value.hint == hint
    assert caught.value.exit_code == 7


def test_unknown_memory_is_not_taken_for_none_at_all() -> None:
    plan = plan_for(machine(None))
    assert plan.n_ctx == POLICY.n_ctx_wished
    assert plan.memory[0].free_bytes is None
    assert plan.cache_ram_bytes == POLICY.cache_ram_bytes_chat


@pytest.mark.parametrize("use", ["chat", "serve"])
@pytest.mark.parametrize("kind", ["machine", "cgroup"])
@pytest.mark.parametrize("spare", [0, 1, 10 * MIB, 200 * MIB, 1 * GIB, 3 * GIB])
def test_the_prompt_cache_never_takes_more_than_is_left(spare: int, kind: str, use: Use) -> None:
    hardware = shortage(-spare, kind)
    plan = plan_for(hardware, Wishes(n_ctx=POLICY.n_ctx_wished), use=use)
    assert 0 <= plan.cache_ram_bytes <= spare
    bound = POLICY.cache_ram_bytes_chat if use == "chat" else POLICY.cache_ram_bytes_serve
    assert plan.cache_ram_bytes <= bound
    why = reason(plan, "cache_ram_bytes")
    assert why.value == plan.cache_ram_bytes
    assert ("leaves free" in why.because) == (plan.cache_ram_bytes < bound)


# -- accelerators --------------------------------------------------------------------------------


def test_all_layers_go_to_a_gpu_that_has_room() -> None:
    plan = plan_for(machine(64 * GIB, GPU), oracle=LinearOracle({"CUDA0": 24 * GIB}))
    assert plan.n_gpu_layers == 9
    assert reason(plan, "n_gpu_layers").because == (
        "all layers and the output fit on the accelerator, by llama.cpp's fit"
    )
    assert [row.device for row in plan.memory] == ["Host", "CUDA0"]


def test_some_layers_go_to_a_gpu_that_has_some_room() -> None:
    plan = plan_for(machine(64 * GIB, GPU), oracle=LinearOracle({"CUDA0": 2 * GIB}))
    assert plan.n_gpu_layers == 4
    why = reason(plan, "n_gpu_layers")
    assert why == Reason(
        "n_gpu_layers", 4, "4 of 9 layers fit on the accelerator, by llama.cpp's fit", "dry-run"
    )


def test_the_reserve_of_a_gpu_is_left_free() -> None:
    oracle = LinearOracle({"CUDA0": 2 * GIB})
    plan = plan_for(machine(64 * GIB, GPU), oracle=oracle)
    row = plan.memory[1]
    assert row.total_bytes <= 2 * GIB - POLICY.device_reserve_bytes
    one_more = oracle.memory(replace(plan, n_gpu_layers=plan.n_gpu_layers + 1))[1]
    assert one_more.total_bytes > 2 * GIB - POLICY.device_reserve_bytes


def test_the_split_between_two_gpus_is_kept_and_said() -> None:
    oracle = LinearOracle({"CUDA0": 24 * GIB, "CUDA1": 24 * GIB})
    plan = plan_for(machine(64 * GIB, GPU, replace(GPU, index=1)), oracle=oracle)
    assert plan.tensor_split == (1.0, 1.0)
    assert reason(plan, "tensor_split") == Reason(
        "tensor_split", [1.0, 1.0], "llama.cpp's fit", "dry-run"
    )


def test_overrides_of_llama_cpps_fit_are_kept_and_said() -> None:
    class Overriding(LinearOracle):
        def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
            return Fit(plan.n_ctx, -1, None, ("blk.1.ffn=CPU",))

    plan = plan_for(machine(64 * GIB, GPU), oracle=Overriding({"CUDA0": 24 * GIB}))
    assert plan.tensor_overrides == ("blk.1.ffn=CPU",)
    assert reason(plan, "tensor_overrides").value == ["blk.1.ffn=CPU"]


def test_a_gpu_that_the_engine_does_not_see_is_not_counted_on() -> None:
    plan = plan_for(machine(64 * GIB, GPU), oracle=LinearOracle({}))
    assert plan.n_gpu_layers == 0
    assert [row.device for row in plan.memory] == ["Host"]
    why = reason(plan, "n_gpu_layers")
    assert why.source == "dry-run"
    assert "the engine sees no accelerator" in why.because


def test_a_machine_without_a_gpu_asks_for_no_fit() -> None:
    oracle = LinearOracle({"CUDA0": 24 * GIB})
    assert plan_for(machine(), oracle=oracle).n_gpu_layers == 0
    assert oracle.asked == []


def test_a_device_over_rpc_counts_as_an_accelerator() -> None:
    oracle = LinearOracle({"RPC0": 24 * GIB})
    plan = plan_for(machine(), Wishes(rpc=("127.0.0.1:50052",)), oracle=oracle)
    assert plan.n_gpu_layers == 9
    assert oracle.asked[0].rpc == ("127.0.0.1:50052",)


def test_a_device_of_unknown_size_is_not_taken_for_a_full_one() -> None:
    class Unknown(LinearOracle):
        def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
            host, device = super().memory(plan)
            return host, replace(device, free_bytes=None)

        def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
            return Fit(plan.n_ctx, -1)

    plan = plan_for(machine(64 * GIB, GPU), oracle=Unknown({"CUDA0": 0}))
    assert plan.n_gpu_layers == 9


def test_explicit_layers_that_do_not_fit_are_refused_with_what_would() -> None:
    hardware, oracle = machine(64 * GIB, GPU), LinearOracle({"CUDA0": 2560 * MIB})
    with pytest.raises(DoesNotFitError, match=r"on CUDA0, where 2\.5 GiB are free") as caught:
        plan_for(hardware, Wishes(n_gpu_layers=-1, n_ctx=8192), oracle=oracle)
    n_ctx = int((caught.value.hint or "").removeprefix("--ctx ").split()[0])
    plan = plan_for(hardware, Wishes(n_gpu_layers=-1, n_ctx=n_ctx), oracle=oracle)
    assert (plan.n_gpu_layers, plan.n_ctx) == (9, n_ctx)


def test_explicit_layers_that_fit_with_no_context_are_refused_with_what_would() -> None:
    hardware, oracle = machine(64 * GIB, GPU), LinearOracle({"CUDA0": 1200 * MIB})
    with pytest.raises(DoesNotFitError, match="on CUDA0") as caught:
        plan_for(hardware, Wishes(n_gpu_layers=-1), oracle=oracle)
    assert caught.value.hint == "without --ngl it would fit, with 1 layers on the accelerator"
    assert plan_for(hardware, oracle=oracle).n_gpu_layers == 1


def test_explicit_layers_shrink_a_wished_context() -> None:
    hardware, oracle = machine(64 * GIB, GPU), LinearOracle({"CUDA0": 2560 * MIB})
    plan = plan_for(hardware, Wishes(n_gpu_layers=9), oracle=oracle)
    assert plan.n_gpu_layers == 9
    assert POLICY.n_ctx_least <= plan.n_ctx < POLICY.n_ctx_wished
    assert "on CUDA0" in reason(plan, "n_ctx").because


# -- without an oracle ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "n_layers", "because", "source"),
    [
        pytest.param((), 0, "no accelerator was found", "measured", id="no GPU"),
        pytest.param((GPU,), 9, "all of them; nothing here can tell what fits", "assumed",
                     id="a GPU"),
    ],
)  # fmt: skip
def test_without_an_oracle_the_plan_says_that_memory_was_not_asked_for(
    gpus: tuple[Accelerator, ...], n_layers: int, because: str, source: Source
) -> None:
    plan = choose(machine(64 * GIB, *gpus), MODEL, POLICY, Wishes(), "chat", None)
    assert plan.memory == ()
    assert reason(plan, "memory") == Reason(
        "memory", None, "llama-cpp-python is not installed, so nothing was asked", "assumed"
    )
    assert plan.n_gpu_layers == n_layers
    assert reason(plan, "n_gpu_layers") == Reason("n_gpu_layers", n_layers, because, source)


def test_without_an_oracle_a_file_larger_than_memory_is_refused() -> None:
    with pytest.raises(DoesNotFitError, match=r"^M is 900 MiB and 800 MiB of memory are free$"):
        choose(machine(800 * MIB), MODEL, POLICY, Wishes(), "chat", None)
    with pytest.raises(DoesNotFitError, match="800 MiB"):
        choose(machine(800 * MIB, GPU), MODEL, POLICY, Wishes(n_gpu_layers=0), "chat", None)


def test_without_an_oracle_a_file_larger_than_memory_may_be_on_the_gpu() -> None:
    plan = choose(machine(800 * MIB, GPU), MODEL, POLICY, Wishes(), "chat", None)
    assert plan.n_gpu_layers == 9


# -- every plan ----------------------------------------------------------------------------------

PLANS = {
    "cpu": lambda: plan_for(machine()),
    "serve": lambda: plan_for(machine(), use="serve"),
    "shrunk": lambda: plan_for(shortage(100 * MIB, "cgroup")),
    "gpu": lambda: plan_for(machine(64 * GIB, GPU), oracle=LinearOracle({"CUDA0": 2 * GIB})),
    "two gpus": lambda: plan_for(
        machine(64 * GIB, GPU), oracle=LinearOracle({"CUDA0": 24 * GIB, "CUDA1": 24 * GIB})
    ),
    "wishes": lambda: plan_for(
        machine(), Wishes(**WISHES), oracle=LinearOracle({"RPC0": 24 * GIB})
    ),
    "no oracle": lambda: choose(machine(), MODEL, POLICY, Wishes(), "chat", None),
}

#: What is the model's own, and not decided.
GIVEN = {"model", "speed", "reasons"}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_every_value_has_one_reason_and_a_known_source(make: Any) -> None:
    plan: Plan = make()
    reasons = {why.field: why for why in plan.reasons}
    assert len(reasons) == len(plan.reasons)
    assert {why.source for why in plan.reasons} <= set(typing.get_args(Source))
    assert all(why.because for why in plan.reasons)
    for item in fields(Plan):
        decided = getattr(plan, item.name)
        if item.name in GIVEN or decided in (None, ()) or item.name == "memory":
            continue
        shown = list(decided) if isinstance(decided, tuple) else decided
        assert reasons[item.name].value == shown, item.name


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_the_ledger_has_the_host_once_with_its_overhead(make: Any) -> None:
    plan: Plan = make()
    hosts = [row for row in plan.memory if row.device == "Host"]
    if not plan.memory:
        assert reason(plan, "memory").source == "assumed"
        return
    (host,) = hosts
    assert host.overhead_bytes == POLICY.host_overhead_bytes
    assert all(row.overhead_bytes == 0 for row in plan.memory if row is not host)
    assert all(row.free_bytes is not None for row in plan.memory)


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
#: What we say beyond the contract.
ADDED = {"chosen": {"cache_ram_bytes"}, "reasons": {"source"}}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_the_document_has_the_keys_of_the_contract(make: Any) -> None:
    document = make().to_json()
    assert document.keys() == CONTRACT.keys()
    assert document["schema_version"] == 1
    for name, keys in CONTRACT.items():
        if keys is None:
            continue
        rows = document[name] if isinstance(keys, list) else [document[name]]
        for row in rows:
            assert set(row) == set(keys) | ADDED.get(name, set()), name
    for row in document["chosen"]["files"]:
        assert set(row) == {"name", "size_bytes", "sha256"}


@pytest.mark.parametrize("make", PLANS.values(), ids=PLANS)
def test_the_document_is_json_and_says_what_the_plan_says(make: Any) -> None:
    plan: Plan = make()
    document = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    chosen = document["chosen"]
    for name in ("n_ctx", "n_parallel", "n_gpu_layers", "n_threads", "type_k", "load_mode"):
        assert chosen[name] == getattr(plan, name)
    assert chosen["env"] == dict(plan.env)
    assert chosen["quant"] == "Q4_K_M"
    assert [row["total_bytes"] for row in document["memory"]] == [
        row.total_bytes for row in plan.memory
    ]
    assert {why["field"]: why["value"] for why in document["reasons"]}["n_ctx"] == plan.n_ctx


@pytest.mark.parametrize(
    ("size_bytes", "n_threads"),
    [
        pytest.param(6_000_000, 1, id="a few MB"),
        pytest.param(16 << 20, 1, id="all that one thread is worth"),
        pytest.param((16 << 20) + 1, 2, id="a byte more"),
        pytest.param(100_000_000, 6, id="100 MB"),
        pytest.param(4_000_000_000, 8, id="4 GB"),
        pytest.param(0, 8, id="unknown"),
    ],
)
def test_a_small_model_gets_no_more_threads_than_it_keeps_busy(
    size_bytes: int, n_threads: int
) -> None:
    machine = Hardware(
        System("Linux"), Cpu(n_physical=8, n_logical=8), Memory(available_bytes=64 << 30)
    )
    model = Model("m", "/m.gguf", size_bytes=size_bytes, n_layers=2, n_ctx_train=2048)
    policy = load_policy(shipped_profiles_dir())
    plan = choose(machine, model, policy, Wishes(), "chat", None)
    assert plan.n_threads == n_threads
    assert plan.n_threads_batch == n_threads
