"""One way to run one candidate, with its speed and its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from localllm.plan import Candidate, Plan
from localllm.planner.placement import Layers, Load, Placement, loads
from localllm.planner.places import HOST, Machine
from localllm.planner.price import Concession, Merits, concessions, quality_loss
from localllm.planner.speed import decode_seconds, prompt_seconds
from localllm.profiles import Goal, Policy


@dataclass(frozen=True)
class Option:
    """One way to run a candidate, as the forecast sees it.

    Attributes:
        plan: everything decided, not yet confirmed.
        placement: where its weights lie.
        loads: bytes by place.
        concessions: what it gives up; `price` is their sum.
        decode_seconds, prompt_seconds: for a token; None where that cannot be estimated.
    """

    plan: Plan
    placement: Placement
    loads: Mapping[str, Load]
    concessions: tuple[Concession, ...]
    decode_seconds: float | None = None
    prompt_seconds: float | None = None

    @property
    def price(self) -> float:
        """The sum of all concessions."""
        return sum(each.price for each in self.concessions)

    @property
    def order(self) -> tuple[float, int, int]:
        """The better first: by price; then fewer devices, and more on them."""
        return (self.price, len(self.placement.devices), -self.placement.step.n_gpu_layers)


@dataclass
class Pricing:
    """What any option costs on one machine for one goal.

    Attributes:
        machine, policy, goal: what it is weighed by.
        speed_first: speed counts several times.
        template: a plan with all that needs no memory decided.
        n_ctx_wished, n_ctx_least: of all slots together.
        context_bytes: candidate, KV cache type and context -> bytes of the whole context.
    """

    machine: Machine
    policy: Policy
    goal: Goal
    speed_first: bool
    template: Plan
    n_ctx_wished: int
    n_ctx_least: int
    context_bytes: Callable[[Candidate, str, int], float]
    _layers: dict[str, Layers] = field(default_factory=dict)

    def layers(self, candidate: Candidate) -> Layers:
        """The candidate's sums over layers, made once."""
        if candidate.label not in self._layers:
            self._layers[candidate.label] = Layers(candidate.weights)
        return self._layers[candidate.label]

    def option(
        self, candidate: Candidate, placement: Placement, type_k: str, type_v: str, n_ctx: int
    ) -> Option:
        """That placement with that context and cache."""
        layers = self.layers(candidate)
        plan = replace(
            self.template, model=candidate.model, n_ctx=n_ctx, type_k=type_k, type_v=type_v
        )
        plan = placement.applied(plan, layers.n_layers)
        spread = loads(layers, placement)
        seconds = decode_seconds(self.machine, spread, self._read(candidate, type_k, spread))
        # Beside a host of unknown speed no speed is weighed, or the host would look free of cost.
        weighed = None if self.machine.host.bytes_per_second is None else seconds
        model = candidate.model
        merits = Merits(
            quality_loss=quality_loss(model.quant, model.architecture) or 0.0,
            type_k=type_k,
            n_ctx=max(1, n_ctx // plan.n_parallel),
            n_ctx_wished=self.n_ctx_wished // plan.n_parallel,
            rung=self._rung(placement, layers.n_layers),
            slow_device=self._slow_device(placement),
            tokens_per_second=None if weighed is None else 1 / weighed,
        )
        return Option(
            plan=plan,
            placement=placement,
            loads=spread,
            concessions=concessions(merits, self.goal, self.policy, speed_first=self.speed_first),
            decode_seconds=seconds,
            prompt_seconds=prompt_seconds(self.machine, spread),
        )

    def _read(
        self, candidate: Candidate, type_k: str, spread: Mapping[str, Load]
    ) -> dict[str, float]:
        """Bytes of the KV cache that a token reads, with half of the least context filled.

        The same for all contexts: room that is not filled costs no time.
        """
        n_layers = max(1, self.layers(candidate).n_layers)
        half = max(1, self.n_ctx_least // 2 // self.template.n_parallel)
        each = self.context_bytes(candidate, type_k, half) / n_layers
        n_away = sum(load.n_layers for name, load in spread.items() if name != HOST)
        return {
            name: each * (n_layers - n_away if name == HOST else load.n_layers)
            for name, load in spread.items()
        }

    def _rung(self, placement: Placement, n_layers: int) -> int:
        """The rung of the ladder that the placement stands on; 0 where nothing left a device."""
        if not placement.devices:
            return 6 if len(self.machine.devices) > len(self.machine.slower) else 0
        if placement.step.n_gpu_layers <= n_layers or self._slow_device(placement):
            return 5
        return 4 if placement.step.n_cpu_moe else 0

    def _slow_device(self, placement: Placement) -> str:
        slow = {place.name for place in self.machine.slower}
        return next((name for name in placement.devices if name in slow), "")
