"""Writes a found plan down: a reason for each value, a verdict on each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from localllm.hardware import Hardware
from localllm.plan import Candidate, DeviceMemory, Plan, Reason, Source, Speed, Verdict
from localllm.planner import settings
from localllm.planner.places import HOST, Machine
from localllm.planner.price import quality_loss
from localllm.planner.search import Found, Outcome, Search
from localllm.planner.wishes import ALL_LAYERS, Wishes
from localllm.profiles import Goal, Policy
from localllm.units import format_bytes

CACHING = "old prompts kept on the host"


@dataclass(frozen=True)
class Writer:
    """Writes the plan that was found down, with a reason for each of its values."""

    hardware: Hardware
    policy: Policy
    wishes: Wishes
    goal: Goal
    search: Search
    outcomes: Sequence[Outcome]
    best: Found

    def plan(self) -> Plan:
        """The finished plan."""
        option = self.best.option
        plan, rows, batches = self._with_batches(option.plan, self.best.rows)
        reasons = [
            *self._model(),
            *self._machine(),
            *self._context(plan),
            *self._placement(plan),
        ]
        values: dict[str, Any] = {}
        for reason in (*self._threads(), *self._caches(plan, rows)):
            values[reason.field] = reason.value
            reasons.append(reason)
        reasons += [*batches, *rest(plan, self.wishes)]
        if not self.search.machine.devices:
            plan = replace(plan, devices=None)  # there is nothing to say
        return replace(
            plan,
            **values,
            memory=rows,
            speed=self._speed(),
            reasons=tuple(reasons),
            verdicts=tuple(self._verdict(outcome) for outcome in self.outcomes),
        )

    def _model(self) -> list[Reason]:
        if len(self.outcomes) == 1:
            if self.wishes.quant is None:
                return []
            return [Reason("quant", self.wishes.quant, "asked for", "flag")]
        price = f"of {len(self.outcomes)} it concedes least: {_told(self.best)}"
        label = next(o.candidate.label for o in self.outcomes if o.found is self.best)
        return [Reason("quant", label, price, "dry-run")]

    def _machine(self) -> list[Reason]:
        reasons = []
        for place in self.search.machine.slower:
            if place.name in (self.best.option.plan.devices or ()):
                continue
            because = f"{place.name} reads more slowly than main memory: it would only hold up"
            reasons.append(Reason("devices", [place.name], f"left out: {because}", "profile"))
        return reasons

    def _context(self, plan: Plan) -> list[Reason]:
        wished = self.search.n_ctx_wished
        n_ctx = context(plan, self.wishes, self.goal)
        if self.wishes.n_ctx is None and plan.n_ctx < wished:
            because = f"the largest that fits beside the rest; {wished} were wished"
            n_ctx = Reason("n_ctx", plan.n_ctx, because, "dry-run")
        return [slots(plan, self.wishes), n_ctx, *cache_types(plan, self.wishes)]

    def _placement(self, plan: Plan) -> list[Reason]:
        layers = self._layers_reason(plan)
        reasons = [layers]
        if plan.devices and len(self.search.machine.devices) > 1:
            because = "the fastest that hold it; more would only pass tokens on"
            reasons.append(Reason("devices", list(plan.devices), because, "dry-run"))
        if plan.tensor_split is not None:
            because = "layers for each device, the faster filled first"
            reasons.append(Reason("tensor_split", list(plan.tensor_split), because, "dry-run"))
        if plan.tensor_overrides:
            n_moe = self.best.option.placement.step.n_cpu_moe
            because = f"experts of {n_moe} layers stay on the host: least read for their size"
            overrides = list(plan.tensor_overrides)
            reasons.append(Reason("tensor_overrides", overrides, because, "dry-run"))
        return reasons

    def _layers_reason(self, plan: Plan) -> Reason:
        n_layers = plan.n_gpu_layers
        if self.wishes.n_gpu_layers is not None:
            fewer = ALL_LAYERS != self.wishes.n_gpu_layers > n_layers
            because = "asked for; it has no more" if fewer else "asked for"
            return Reason("n_gpu_layers", n_layers, because, "flag")
        everything = self.best.option.placement.step.n_gpu_layers > (plan.model.n_layers or 0)
        if plan.devices and n_layers:
            names = " and ".join(plan.devices)
            if everything:
                because = f"all layers and the output are on {names}"
            else:
                total = (plan.model.n_layers or 0) + 1
                because = f"{n_layers} of {total} layers fit on {names}"
            return Reason("n_gpu_layers", n_layers, because, "dry-run")
        if len(self.search.machine.devices) > len(self.search.machine.slower):
            because = "the host alone serves better than with a device that holds so little"
            return Reason("n_gpu_layers", 0, because, "dry-run")
        if self.search.machine.devices:
            return Reason("n_gpu_layers", 0, "no accelerator is faster than the host", "profile")
        if self.hardware.accelerators:
            because = (
                "the engine sees no accelerator, though the machine has one (see localllm doctor)"
            )
            return Reason("n_gpu_layers", 0, because, "dry-run")
        return Reason("n_gpu_layers", 0, "no accelerator was found", "measured")

    def _threads(self) -> list[Reason]:
        read_bytes = self.best.option.loads[HOST].read_bytes
        return thread_counts(self.hardware, read_bytes, self.wishes, self.policy)

    def _caches(self, plan: Plan, rows: Sequence[DeviceMemory]) -> list[Reason]:
        """What the host keeps of old prompts, in what the run leaves free."""
        left = _left_on_host(self.search.machine, rows)
        forecast = self.search.forecast(self._candidate())
        fixed = forecast.contexts[plan.type_k].fixed_bytes
        states = settings.checkpoints(fixed, plan.n_parallel, left, self.policy)
        wanted = self.goal.cache_ram_bytes
        if left is not None:
            left -= states.value * fixed
        if left is not None and left < wanted:
            because = f"{CACHING}, in what this run leaves free"
            cache = Reason("cache_ram_bytes", max(0, left), because, "dry-run")
        else:
            cache = Reason("cache_ram_bytes", wanted, CACHING, "profile")
        shifts = not settings.has_states(fixed, plan.n_parallel)
        reuse = Reason(
            "cache_reuse",
            self.policy.cache_reuse if shifts else 0,
            "pieces of an old prompt from so many tokens on are shifted into a new one"
            if shifts
            else "windows and states cannot be shifted",
            "profile" if shifts else "dry-run",
        )
        return [cache, states, reuse]

    def _candidate(self) -> Candidate:
        return next(o.candidate for o in self.outcomes if o.found is self.best)

    def _with_batches(
        self, plan: Plan, rows: tuple[DeviceMemory, ...]
    ) -> tuple[Plan, tuple[DeviceMemory, ...], Sequence[Reason]]:
        """The batches, and why; larger ones for experts on the host only where they fit."""
        explicit = self.wishes.n_ubatch is not None or self.wishes.n_batch is not None
        has_experts = bool(plan.tensor_overrides) and not explicit
        option = self.best.option
        # Beside a device, what the host has is brought over for each micro-batch, however few its
        # tokens: the estimate, which takes the host to compute it, says nothing of that.
        brought_over = bool(option.placement.devices) and option.loads[HOST].flops > 0
        prompt_seconds = None if brought_over else option.prompt_seconds
        for for_experts in (True, False) if has_experts else (False,):
            reasons = settings.batches(
                plan,
                prompt_seconds,
                self.wishes,
                self.goal,
                self.policy,
                for_experts=for_experts,
            )
            batched = replace(plan, **{reason.field: reason.value for reason in reasons})
            asked = rows if batched == plan else self.search.ask(batched)
            tightest = self.search.machine.tightest(asked)
            if tightest is None or tightest.left_bytes >= 0:
                break
        return batched, asked, reasons

    def _speed(self) -> Speed:
        option = self.best.option
        return Speed(
            decode_tokens_per_second=_per_second(option.decode_seconds),
            prompt_tokens_per_second=_per_second(option.prompt_seconds),
            source="estimated",
            error=self.policy.speed_error,
        )

    def _verdict(self, outcome: Outcome) -> Verdict:
        candidate = outcome.candidate
        model = candidate.model
        loss = quality_loss(model.quant, model.architecture)
        verdict = Verdict(candidate.label, model.size_bytes, False, quality_loss=loss)
        if outcome.refused is not None:
            return replace(verdict, why_not=outcome.refused.message)
        if outcome.found is None:
            assert outcome.nearest is not None
            _, shortfall = outcome.nearest
            missing = format_bytes(-shortfall.left_bytes)
            because = f"{missing} are missing on {shortfall.row.device}"
            return replace(verdict, why_not=f"does not fit: {because}", n_ctx=None)
        option = outcome.found.option
        return replace(
            verdict,
            fits=True,
            why_not=None if outcome.found is self.best else _why_not(outcome.found, self.best),
            where=option.placement.where(candidate.weights),
            n_ctx=option.plan.n_ctx,
            type_k=option.plan.type_k,
            n_gpu_layers=option.plan.n_gpu_layers,
            decode_tokens_per_second=_per_second(option.decode_seconds),
            price=round(option.price, 3),
        )


def slots(plan: Plan, wishes: Wishes) -> Reason:
    """Why so many slots."""
    if wishes.n_parallel is not None:
        return Reason("n_parallel", plan.n_parallel, "asked for", "flag")
    several = plan.n_parallel > 1
    because = "several requests at once" if several else "one conversation"
    return Reason("n_parallel", plan.n_parallel, because, "profile")


def context(plan: Plan, wishes: Wishes, goal: Goal) -> Reason:
    """Why the context is the one asked for or wished."""
    trained = plan.model.n_ctx_train
    if wishes.n_ctx is not None:
        beyond = trained is not None and wishes.n_ctx > trained * plan.n_parallel
        because = f"asked for, beyond the {trained} it was trained for" if beyond else "asked for"
        return Reason("n_ctx", plan.n_ctx, because, "flag")
    short = trained is not None and trained < goal.n_ctx_wished
    because = "all that the model was trained for" if short else "the policy's wish"
    if plan.n_parallel > 1:
        because += f", for each of {plan.n_parallel} slots"
    return Reason("n_ctx", plan.n_ctx, because, "profile")


def cache_types(plan: Plan, wishes: Wishes) -> list[Reason]:
    """Why the KV cache is kept in what it is."""
    reasons = []
    for field in ("type_k", "type_v"):
        value = getattr(plan, field)
        if wishes.type_k is not None or wishes.type_v is not None:
            reasons.append(Reason(field, value, "asked for", "flag"))
        elif value == "f16":
            reasons.append(Reason(field, value, "reference quality", "profile"))
        else:
            because = "half the memory for a hardly measurable loss: it buys more than it costs"
            reasons.append(Reason(field, value, because, "dry-run"))
    return reasons


def thread_counts(
    hardware: Hardware, read_bytes: float, wishes: Wishes, policy: Policy
) -> list[Reason]:
    """For decoding and for prompts.

    Args:
        hardware: the machine.
        read_bytes: weights that the host reads for each token.
        wishes: explicit values.
        policy: the judgement numbers.
    """
    n_threads, why, known = settings.threads(hardware.cpu, read_bytes, policy)
    if wishes.n_threads is not None:
        n_threads, why, known = wishes.n_threads, "asked for", "flag"
    batch = Reason("n_threads_batch", n_threads, "as for decoding", known)
    if wishes.n_threads_batch is not None:
        batch = Reason("n_threads_batch", wishes.n_threads_batch, "asked for", "flag")
    return [Reason("n_threads", n_threads, why, known), batch]


def rest(plan: Plan, wishes: Wishes) -> list[Reason]:
    """Why the values have theirs that no search decides."""
    asked = wishes.flash_attn is not None
    source: Source = "flag" if asked else "profile"
    because = "asked for" if asked else "used wherever the device has it"
    reasons = [Reason("flash_attn", plan.flash_attn, because, source)]
    because = "llama.cpp's default: read as needed, and shared with the system's cache"
    reasons.append(Reason("load_mode", plan.load_mode, because, "assumed"))
    if plan.mmproj is not None:
        reasons.append(Reason("mmproj", plan.mmproj, "asked for", "flag"))
    if plan.rpc:
        reasons.append(Reason("rpc", list(plan.rpc), "asked for", "flag"))
    because = "threads that wait give the processor up after a bounded spin"
    reasons.append(Reason("env", dict(plan.env), because, "profile"))
    return reasons


def _told(found: Found) -> str:
    """Its concessions in words, the dearest first."""
    ranked = sorted(found.option.concessions, key=lambda each: -each.price)
    told = [each.because for each in ranked if each.price >= _WORTH_TELLING]
    return ", ".join(told) if told else "nothing"


#: A concession below this, in percent of perplexity, is not worth a word.
_WORTH_TELLING = 0.05


def _why_not(found: Found, best: Found) -> str:
    """What it concedes more than the chosen one, the dearest difference first."""

    def by_rung(each: Found) -> dict[tuple[int, bool], tuple[float, str]]:
        return {
            (c.rung, c.because.endswith("tok/s")): (c.price, c.because)
            for c in each.option.concessions
        }

    own, others = by_rung(found), by_rung(best)
    more = [
        (price - others.get(kind, (0.0, ""))[0], because) for kind, (price, because) in own.items()
    ]
    worst = [(d, because) for d, because in sorted(more, reverse=True) if d >= _WORTH_TELLING]
    return ", ".join(because for _, because in worst[:2]) or "as good, but larger"


def _per_second(seconds: float | None) -> float | None:
    return None if not seconds else round(1 / seconds, 2)


def _left_on_host(machine: Machine, rows: Sequence[DeviceMemory]) -> int | None:
    """What the run leaves of main memory, the reserve kept."""
    budget = machine.budgets.get(machine.host.pool)
    if budget is None:
        return None
    taken = sum(
        row.total_bytes
        for row in rows
        if machine.knows(row.device) and machine.place(row.device).pool == machine.host.pool
    )
    return budget - taken
