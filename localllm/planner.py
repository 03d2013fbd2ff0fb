"""Hardware + a model + wishes -> Plan.

Pure: it asks llama.cpp only through the MemoryOracle it is handed, and reads no file, clock,
environment or network. This first planner decides for one file that is already here; which
quantization to get, and at what speed, joins it behind the same door.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from localllm.errors import DoesNotFitError, UsageError
from localllm.hardware import Cpu, Hardware
from localllm.plan import DeviceMemory, MemoryOracle, Model, Plan, Reason, Source
from localllm.profiles import Policy
from localllm.units import format_bytes

#: llama.cpp pads the context to a multiple of this (GGML_PAD(n_ctx, 256) in llama-context.cpp).
CTX_STEP = 256
_ALL_LAYERS = -1
_CACHING = "old prompts kept on the host"

Use = Literal["chat", "serve"]


@dataclass(frozen=True)
class Wishes:
    """What a person asked for outright. None leaves it to the planner; what is set is kept."""

    n_ctx: int | None = None
    n_parallel: int | None = None
    n_gpu_layers: int | None = None
    n_threads: int | None = None
    n_threads_batch: int | None = None
    type_k: str | None = None
    type_v: str | None = None
    flash_attn: Literal["auto", "on", "off"] | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    rpc: tuple[str, ...] = ()


def choose(
    hardware: Hardware,
    model: Model,
    policy: Policy,
    wishes: Wishes,
    use: Use,
    oracle: MemoryOracle | None,
) -> Plan:
    """The plan for running this file on this machine.

    Order: 1. what needs no memory (threads, batch, waiting); 2. the wished context; 3. layers
    on the devices, by llama.cpp's own fit; 4. if it does not fit, a smaller context, down to
    the policy's least; 5. a refusal that says by how much.

    Args:
        hardware: the machine.
        model: the file.
        policy: the judgement numbers.
        wishes: explicit values, never changed.
        use: "chat" (one conversation) or "serve" (several slots).
        oracle: llama.cpp's word on memory; None where the library is missing, and then the plan
            says that nothing was asked.

    Raises:
        DoesNotFitError: it cannot run here as wished; the sentence says what is missing.
        UsageError: wishes that contradict each other.
    """
    reasons: list[Reason] = []

    def decide(field: str, value: Any, because: str, source: Source) -> Any:
        reasons.append(Reason(field, value, because, source))
        return value

    def wished(field: str, otherwise: Any, because: str, source: Source = "profile") -> Any:
        asked = getattr(wishes, field)
        if asked is not None:
            return decide(field, asked, "asked for", "flag")
        return decide(field, otherwise, because, source)

    n_threads, why, known = _threads(hardware.cpu, model, policy)
    plan = Plan(
        model=model,
        n_ctx=0,
        n_parallel=wished(
            "n_parallel",
            policy.n_parallel_serve if use == "serve" else 1,
            "several requests at once" if use == "serve" else "one conversation",
        ),
        n_threads=wished("n_threads", n_threads, why, known),
        n_threads_batch=wished(
            "n_threads_batch",
            wishes.n_threads or n_threads,
            "as for decoding",
            "flag" if wishes.n_threads else known,
        ),
        n_batch=wished("n_batch", policy.n_batch, "llama.cpp's default"),
        n_ubatch=wished("n_ubatch", policy.n_ubatch, "llama.cpp's default"),
        type_k=wished("type_k", policy.type_kv, "reference quality"),
        type_v=wished("type_v", policy.type_kv, "reference quality"),
        flash_attn=wished("flash_attn", "auto", "used wherever the device has it"),
        rpc=wishes.rpc,
        env=_environment(hardware, policy),
    )
    reasons.append(
        Reason(
            "env",
            dict(plan.env),
            "threads that wait give the processor up after a bounded spin",
            "profile",
        )
    )
    if plan.n_ubatch > plan.n_batch:
        raise UsageError(
            f"a micro-batch of {plan.n_ubatch} is larger than the batch of {plan.n_batch}"
        )
    decide("load_mode", plan.load_mode, "llama.cpp's default: read as needed", "assumed")
    if wishes.rpc:
        decide("rpc", list(wishes.rpc), "asked for", "flag")
    plan = replace(
        plan,
        cache_ram_bytes=policy.cache_ram_bytes_serve
        if use == "serve"
        else policy.cache_ram_bytes_chat,
    )
    context = _wished_context(model, policy, wishes, plan.n_parallel)
    reasons.append(context)
    plan = replace(plan, n_ctx=context.value)
    if oracle is None:
        return _unasked(plan, hardware, wishes, reasons)
    return _placed(plan, _Machine(hardware, policy, oracle), wishes, reasons)


@dataclass(frozen=True)
class _Machine:
    """What the search asks again and again."""

    hardware: Hardware
    policy: Policy
    oracle: MemoryOracle

    def ledger(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """The oracle's rows, with the host's overhead and what is free there."""
        return tuple(
            replace(
                row,
                overhead_bytes=self.policy.host_overhead_bytes,
                free_bytes=self.hardware.memory.free_bytes,
            )
            if row.device == "Host"
            else row
            for row in self.oracle.memory(plan)
        )

    def tightest(self, rows: tuple[DeviceMemory, ...]) -> tuple[DeviceMemory, int] | None:
        """The row with the least left beyond its reserve, and how much: negative is missing.

        None when nobody knows what is free anywhere.
        """
        left = [
            (row, budget - row.total_bytes)
            for row in rows
            if (budget := self.budget(row)) is not None
        ]
        return min(left, key=lambda each: each[1], default=None)

    def budget(self, row: DeviceMemory) -> int | None:
        """What a run may take on the row's device; None when nobody knows what is free."""
        if row.device != "Host":
            free = row.free_bytes
            return None if free is None else free - self.policy.device_reserve_bytes
        memory, policy = self.hardware.memory, self.policy
        budgets = []
        if memory.available_bytes is not None:
            budgets.append(memory.available_bytes - policy.host_reserve_bytes)
        if memory.limit_bytes is not None:
            used = memory.limit_used_bytes or 0
            budgets.append(memory.limit_bytes - used - policy.group_reserve_bytes)
        return min(budgets, default=None)


def _placed(plan: Plan, machine: _Machine, wishes: Wishes, reasons: list[Reason]) -> Plan:
    """Layers on devices, then the context made smaller as long as it must and may."""
    plan, placement = _with_layers(plan, machine, wishes)
    rows = machine.ledger(plan)
    tightest = machine.tightest(rows)
    if tightest is not None and tightest[1] < 0:
        best = _largest_context(plan, machine, wishes, tightest[1])
        if best is None or wishes.n_ctx is not None:
            raise _does_not_fit(plan, *tightest, machine, wishes, best)
        plan, placement, rows = best
        reasons.append(
            Reason(
                "n_ctx",
                plan.n_ctx,
                f"the largest that fits; the wished one lacks {format_bytes(-tightest[1])}"
                f" on {tightest[0].device}",
                "dry-run",
            )
        )
    reasons.append(placement)
    for field in ("tensor_split", "tensor_overrides"):
        if getattr(plan, field):
            reasons.append(Reason(field, list(getattr(plan, field)), "llama.cpp's fit", "dry-run"))
    host = next(row for row in rows if row.device == "Host")
    caching = Reason("cache_ram_bytes", plan.cache_ram_bytes, _CACHING, "profile")
    budget = machine.budget(host)
    if budget is not None and budget - host.total_bytes < plan.cache_ram_bytes:
        because = f"{_CACHING}, in what this run leaves free"
        caching = Reason("cache_ram_bytes", budget - host.total_bytes, because, "dry-run")
    reasons.append(caching)
    plan = replace(plan, cache_ram_bytes=caching.value)
    return replace(plan, memory=rows, reasons=_last_word(reasons))


def _with_layers(plan: Plan, machine: _Machine, wishes: Wishes) -> tuple[Plan, Reason]:
    """The plan with n_gpu_layers settled, and why."""
    all_layers = (plan.model.n_layers or 0) + 1
    if wishes.n_gpu_layers is not None:
        asked = wishes.n_gpu_layers
        n_layers = all_layers if asked == _ALL_LAYERS else asked
        return replace(plan, n_gpu_layers=n_layers), Reason(
            "n_gpu_layers", n_layers, "asked for", "flag"
        )
    if not machine.hardware.accelerators and not plan.rpc:
        return replace(plan, n_gpu_layers=0), Reason(
            "n_gpu_layers", 0, "no accelerator was found", "measured"
        )
    fitted = machine.oracle.fit(plan, machine.policy.device_reserve_bytes)
    n_layers = all_layers if fitted.n_gpu_layers == _ALL_LAYERS else fitted.n_gpu_layers
    placed = replace(
        plan,
        n_gpu_layers=n_layers,
        tensor_split=fitted.tensor_split,
        tensor_overrides=fitted.tensor_overrides,
    )
    if all(row.device == "Host" for row in machine.oracle.memory(placed)):
        return replace(plan, n_gpu_layers=0), Reason(
            "n_gpu_layers",
            0,
            "the engine sees no accelerator, though the machine has one (see localllm doctor)",
            "dry-run",
        )
    because = (
        "all layers and the output fit on the accelerator"
        if n_layers >= all_layers
        else f"{n_layers} of {all_layers} layers fit on the accelerator"
    )
    return placed, Reason("n_gpu_layers", n_layers, f"{because}, by llama.cpp's fit", "dry-run")


_Placed = tuple[Plan, Reason, tuple[DeviceMemory, ...]]


def _largest_context(
    plan: Plan, machine: _Machine, wishes: Wishes, left_at_plan: int
) -> _Placed | None:
    """The largest context below the plan's that fits; None when even the least does not.

    What a run takes is nearly a straight line in its context, so two points foretell the third:
    the crossing is guessed and its neighbour tried, and halving finishes what is not straight.
    """
    step = CTX_STEP * plan.n_parallel
    least = min(plan.n_ctx, machine.policy.n_ctx_least * plan.n_parallel)

    def attempt(n_steps: int) -> tuple[_Placed, int]:
        placed, placement = _with_layers(replace(plan, n_ctx=n_steps * step), machine, wishes)
        rows = machine.ledger(placed)
        tightest = machine.tightest(rows)
        return (placed, placement, rows), tightest[1] if tightest else 0

    low, high = -(-least // step), -(-plan.n_ctx // step)
    best, left_at_low = attempt(low)
    if left_at_low < 0:
        return None
    left_at_high = left_at_plan
    n_guesses = 0
    while high - low > 1:
        crossing = low + (high - low) * left_at_low // (left_at_low - left_at_high)
        middle = crossing if n_guesses < _MAX_GUESSES else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        n_guesses += 1
        found, left = attempt(middle)
        if left < 0:
            high, left_at_high = middle, left
        else:
            best, low, left_at_low = found, middle, left
    return best


#: After so many guesses the line is not straight (layers moved to or from a device).
_MAX_GUESSES = 4


def _does_not_fit(
    plan: Plan,
    row: DeviceMemory,
    left: int,
    machine: _Machine,
    wishes: Wishes,
    best: _Placed | None,
) -> DoesNotFitError:
    name = plan.model.name or plan.model.ref
    sentence = (
        f"{name} with a context of {plan.n_ctx} needs {format_bytes(row.total_bytes)} on"
        f" {row.device}, where {format_bytes(row.free_bytes)} are free: {format_bytes(-left)} are"
        " missing, the reserve included"
    )
    if best is not None:
        return DoesNotFitError(sentence, f"--ctx {best[0].n_ctx} would fit")
    if wishes.n_gpu_layers is not None:
        free_hand, _ = _with_layers(plan, machine, replace(wishes, n_gpu_layers=None))
        tightest = machine.tightest(machine.ledger(free_hand))
        if tightest is None or tightest[1] >= 0:
            n_layers = free_hand.n_gpu_layers
            return DoesNotFitError(
                sentence, f"without --ngl it would fit, with {n_layers} layers on the accelerator"
            )
    memory = machine.hardware.memory
    unlimited = replace(machine.hardware, memory=replace(memory, limit_bytes=None))
    budget = replace(machine, hardware=unlimited).budget(row)
    if row.device == "Host" and budget != machine.budget(row):
        limit = format_bytes(memory.limit_bytes)
        return DoesNotFitError(sentence, f"this container or cgroup may use {limit}; raise that")
    return DoesNotFitError(sentence, "a smaller quantization or a smaller model would fit")


def _unasked(plan: Plan, hardware: Hardware, wishes: Wishes, reasons: list[Reason]) -> Plan:
    """The plan where no tool can say what memory the run takes."""
    all_layers = (plan.model.n_layers or 0) + 1
    asked = wishes.n_gpu_layers
    if asked is not None:
        n_layers = all_layers if asked == _ALL_LAYERS else asked
        reason = Reason("n_gpu_layers", n_layers, "asked for", "flag")
    elif hardware.accelerators:
        n_layers = all_layers
        reason = Reason(
            "n_gpu_layers", n_layers, "all of them; nothing here can tell what fits", "assumed"
        )
    else:
        n_layers = 0
        reason = Reason("n_gpu_layers", 0, "no accelerator was found", "measured")
    free = hardware.memory.free_bytes
    # What is on an accelerator needs no main memory, and how much that is nobody here can say.
    if n_layers == 0 and free is not None and plan.model.size_bytes > free:
        raise DoesNotFitError(
            f"{plan.model.name or plan.model.ref} is {format_bytes(plan.model.size_bytes)} and"
            f" {format_bytes(free)} of memory are free",
            "a smaller quantization or a smaller model would fit",
        )
    reasons.append(reason)
    reasons.append(Reason("cache_ram_bytes", plan.cache_ram_bytes, _CACHING, "profile"))
    reasons.append(
        Reason("memory", None, "llama-cpp-python is not installed, so nothing was asked", "assumed")
    )
    return replace(plan, n_gpu_layers=n_layers, reasons=_last_word(reasons))


def _wished_context(model: Model, policy: Policy, wishes: Wishes, n_parallel: int) -> Reason:
    if wishes.n_ctx is not None:
        if wishes.n_ctx < n_parallel:
            raise UsageError(f"a context of {wishes.n_ctx} tokens is too small to run anything")
        trained = model.n_ctx_train
        beyond = trained is not None and wishes.n_ctx > trained * n_parallel
        because = f"asked for, beyond the {trained} it was trained for" if beyond else "asked for"
        return Reason("n_ctx", wishes.n_ctx, because, "flag")
    each = policy.n_ctx_wished
    because = "the policy's wish"
    if model.n_ctx_train is not None and model.n_ctx_train < each:
        each, because = model.n_ctx_train, "all that the model was trained for"
    if n_parallel > 1:
        because += f", for each of {n_parallel} slots"
    return Reason("n_ctx", each * n_parallel, because, "profile")


def _threads(cpu: Cpu, model: Model, policy: Policy) -> tuple[int, str, Source]:
    """Threads for decoding, why, and how that is known.

    Decoding waits for memory, and for the slowest thread at every layer: a second hardware
    thread of a core, or a slow core among fast ones, makes it slower, not faster. And threads meet
    some hundreds of times a token: a small model has not the work to pay for many of them.
    """
    n_cores, why, known = _cores(cpu)
    worthwhile = max(1, -(-model.size_bytes // policy.weight_bytes_per_thread))
    if model.size_bytes and worthwhile < n_cores:
        return (
            worthwhile,
            f"weights of {format_bytes(model.size_bytes)} keep no more busy",
            "profile",
        )
    return n_cores, why, known


def _cores(cpu: Cpu) -> tuple[int, str, Source]:
    usable = cpu.n_usable
    if cpu.n_logical is None and cpu.n_affinity is None and cpu.n_physical is None:
        return usable, "how many processors there are is not known", "assumed"
    cores = cpu.n_performance or cpu.n_physical
    if cores is not None and cores < usable:
        kind = "performance cores" if cpu.n_performance else "physical cores"
        return cores, f"the {kind}", "measured"
    unbounded = replace(cpu, quota=None).n_usable
    if cpu.quota is not None and usable < unbounded:
        return usable, f"the processor quota of {cpu.quota:g}", "measured"
    if cpu.n_affinity is not None and cpu.n_affinity < (cpu.n_logical or cpu.n_affinity):
        return usable, f"the {usable} processors this process may run on", "measured"
    return usable, "the cores of this machine", "measured"


def _environment(hardware: Hardware, policy: Policy) -> dict[str, str]:
    environment = {"GOMP_SPINCOUNT": str(policy.gomp_spincount)}
    if any(gpu.vendor == "nvidia" for gpu in hardware.accelerators):
        # CUDA numbers GPUs by speed, everything else by PCI bus.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return environment


def _last_word(reasons: list[Reason]) -> tuple[Reason, ...]:
    """One reason per field: the last one given, in the order of the first."""
    last = {reason.field: reason for reason in reasons}
    return tuple(last.values())
