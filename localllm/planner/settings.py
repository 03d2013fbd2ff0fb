"""What needs no search: threads, how they wait, batches, what the host keeps of old prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from localllm.errors import UsageError
from localllm.hardware import Cpu, Hardware
from localllm.plan import Model, Plan, Reason, Source
from localllm.planner.wishes import Wishes
from localllm.profiles import Goal, Policy
from localllm.units import format_bytes


def threads(cpu: Cpu, read_bytes: float, policy: Policy) -> tuple[int, str, Source]:
    """Threads for decoding, why, and how that is known.

    Decoding waits for memory, and for the slowest thread at every layer: a second hardware
    thread of a core, or a slow core among fast ones, makes it slower, not faster. And threads meet
    some hundreds of times a token: a small model has not the work to pay for many of them.

    Args:
        cpu: the processor.
        read_bytes: weights that the host reads for each token.
        policy: how many bytes keep a thread busy.
    """
    n_cores, why, known = _cores(cpu)
    worthwhile = max(1, -(-int(read_bytes) // policy.weight_bytes_per_thread))
    if worthwhile < n_cores:
        if not read_bytes:
            return 1, "the devices do all the work", "profile"
        because = f"weights of {format_bytes(read_bytes)} on the host keep no more busy"
        return worthwhile, because, "profile"
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


def environment(hardware: Hardware, policy: Policy) -> Mapping[str, str]:
    """What is set for the child."""
    spins = min(policy.gomp_spincount, policy.gomp_spincount_per_core * hardware.cpu.n_usable)
    variables = {"GOMP_SPINCOUNT": str(spins)}
    if hardware.system.os == "Linux":
        # What ggml allocates lies in huge pages where the kernel gives them to who asks for them.
        variables["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    if any(gpu.vendor == "nvidia" for gpu in hardware.accelerators):
        # CUDA numbers GPUs by speed, everything else by PCI bus.
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return variables


def batches(
    plan: Plan,
    prompt_seconds: float | None,
    wishes: Wishes,
    goal: Goal,
    policy: Policy,
    *,
    for_experts: bool = False,
) -> tuple[Reason, Reason]:
    """The batch and the micro-batch.

    Precedence: 1. what was asked for; 2. no more than `goal.batch_seconds` allow; 3. larger ones
    for experts on the host; 4. llama.cpp's defaults. A micro-batch is never above its batch.

    Args:
        plan: the rest of it.
        prompt_seconds: for each token of a prompt; None where nobody can tell: a batch is then
            one micro-batch.
        wishes: explicit values.
        goal: how long a batch may take.
        policy: the defaults, and the bounds.
        for_experts: their weights are on the host, and read once for each micro-batch.
    """
    batch = Reason("n_batch", policy.n_batch, "llama.cpp's default", "profile")
    ubatch = Reason("n_ubatch", policy.n_ubatch, "llama.cpp's default", "profile")
    if for_experts and policy.n_ubatch_experts > policy.n_ubatch:
        because = "experts on the host are read once for each micro-batch"
        ubatch = Reason("n_ubatch", policy.n_ubatch_experts, because, "dry-run")
        if ubatch.value > batch.value:
            batch = replace(ubatch, field="n_batch")
    if wishes.n_ubatch is not None:
        ubatch = Reason("n_ubatch", wishes.n_ubatch, "asked for", "flag")
    # An encoder must have a whole text in one batch.
    if goal.batch_seconds and plan.model.is_generative:
        if not prompt_seconds:
            n_tokens, because = ubatch.value, "one micro-batch"
        else:
            n_tokens = max(1, policy.n_batch_least, int(goal.batch_seconds / prompt_seconds))
            n_tokens = 1 << n_tokens.bit_length() - 1
            because = f"a batch takes about {goal.batch_seconds:g} s"
        if wishes.n_ubatch is not None:
            n_tokens = max(n_tokens, wishes.n_ubatch)
        if n_tokens < batch.value:
            because += ", so that a request whose client left ends soon"
            batch = Reason("n_batch", n_tokens, because, "assumed")
    if wishes.n_batch is not None:
        batch = Reason("n_batch", wishes.n_batch, "asked for", "flag")
    if ubatch.value > batch.value:
        ubatch = Reason("n_ubatch", batch.value, "all of a batch", "profile")
    return batch, ubatch


def checkpoints(
    fixed_bytes: int, n_parallel: int, left_bytes: int | None, policy: Policy
) -> Reason:
    """States that a slot keeps to go back to, where its architecture has states or windows.

    Args:
        fixed_bytes: of the context, what is there whatever its length.
        n_parallel: slots, which share it.
        left_bytes: on the host after this run; None where nobody knows.
        policy: the most of them, and the share of what is left.
    """
    each = fixed_bytes // n_parallel
    if not has_states(fixed_bytes, n_parallel):
        return Reason("n_ctx_checkpoints", 0, "any prompt can be gone back in", "dry-run")
    size = format_bytes(each)
    if left_bytes is None:
        because = f"states of {size}; what is free is not known"
        return Reason("n_ctx_checkpoints", policy.n_ctx_checkpoints, because, "assumed")
    room = max(0, int(left_bytes * policy.checkpoints_share)) // n_parallel
    n_states = min(policy.n_ctx_checkpoints, room // each)
    because = f"states of {size} to go back to: it has windows or recurrent layers"
    return Reason("n_ctx_checkpoints", n_states, because, "dry-run")


def has_states(fixed_bytes: int, n_parallel: int) -> bool:
    """Whether a context has windows or states, which can be neither gone back in nor shifted.

    Those are some MB; below 256 KiB it is the rounding of cells to 256 tokens.
    """
    return fixed_bytes // n_parallel >= 256 * 1024


def template(model: Model, hardware: Hardware, policy: Policy, wishes: Wishes, goal: Goal) -> Plan:
    """The plan without what memory and speed decide."""
    n_batch = policy.n_batch if wishes.n_batch is None else wishes.n_batch
    plan = Plan(
        model=model,
        n_ctx=0,
        n_parallel=goal.n_parallel if wishes.n_parallel is None else wishes.n_parallel,
        n_batch=n_batch,
        n_ubatch=min(policy.n_ubatch, n_batch) if wishes.n_ubatch is None else wishes.n_ubatch,
        flash_attn=wishes.flash_attn or "auto",
        rpc=wishes.rpc,
        mmproj=wishes.mmproj,
        env=environment(hardware, policy),
    )
    if plan.n_ubatch > plan.n_batch:
        raise UsageError(
            f"a micro-batch of {plan.n_ubatch} is larger than the batch of {plan.n_batch}"
        )
    return plan


def contexts(model: Model, goal: Goal, wishes: Wishes, n_parallel: int) -> tuple[int, int]:
    """The wished and the least context, of all slots together."""
    if wishes.n_ctx is not None:
        if wishes.n_ctx < n_parallel:
            raise UsageError(f"a context of {wishes.n_ctx} tokens is too small to run anything")
        return wishes.n_ctx, wishes.n_ctx
    each = min(goal.n_ctx_wished, model.n_ctx_train or goal.n_ctx_wished)
    return each * n_parallel, min(goal.n_ctx_least, each) * n_parallel
