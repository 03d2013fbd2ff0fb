"""Machines, models and an oracle whose every byte can be foretold, to plan with.

The oracle places weights and context layer by layer, as llama.cpp's llama-model.cpp does. The
judge says once more what fits, in words of its own.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from localllm.errors import EngineError
from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.paths import shipped_profiles_dir
from localllm.plan import Candidate, Device, DeviceMemory, Model, Plan, Reason, Verdict
from localllm.planner import Wishes, choose
from localllm.profiles import Goal, Policy, load_policy
from localllm.units import GIB, KIB, MIB
from localllm.weights import LayerWeights, Weights

POLICY = load_policy(shipped_profiles_dir())
CHAT, SERVE, LONG = (POLICY.goal(name) for name in ("chat", "serve", "long-context"))
CPU = Cpu(architecture="x86_64", features=("avx2",), n_physical=4, n_logical=8, n_affinity=8)
#: Bytes for an element of the context, against f16's: blocks of 32 with a scale (ggml-common.h).
_CACHE_BYTES = {"f32": 2.0, "f16": 1.0, "bf16": 1.0, "q8_0": 34 / 64, "q4_0": 18 / 64}


@dataclass(frozen=True)
class Cache:
    """What one layer keeps of a context: so much for a token, up to a window; and a state."""

    token_bytes: int = 16 * KIB
    window: int = 0
    state_bytes: int = 0

    def n_bytes(self, plan: Plan) -> int:
        """In a context of the plan's."""
        cells = _padded(plan.n_ctx)
        if self.window:
            cells = min(cells, _padded(self.window * plan.n_parallel + plan.n_ubatch))
        each = int(self.token_bytes * _CACHE_BYTES[plan.type_k])
        return self.state_bytes * plan.n_parallel + cells * each


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // 256) * 256


@dataclass(frozen=True)
class FakeModel:
    """One quantization of a model.

    Attributes:
        label: "Q4_K_M".
        weights: where its bytes lie.
        caches: of each layer.
        compute_bytes: about so much for each place that has work.
        takes_q8_0: its architecture can keep the cache in q8_0.
        n_ctx_train: tokens.
        architecture: general.architecture.
    """

    label: str
    weights: Weights
    caches: tuple[Cache, ...]
    compute_bytes: int = 64 * MIB
    takes_q8_0: bool = True
    n_ctx_train: int | None = 32768
    architecture: str = "llama"

    @property
    def size_bytes(self) -> int:
        """All of its weights."""
        weights = self.weights
        layers = sum(layer.dense_bytes + layer.expert_bytes for layer in weights.layers)
        return layers + weights.input_bytes + weights.output_bytes

    @property
    def candidate(self) -> Candidate:
        """It, to choose among."""
        model = Model(
            ref="m",
            path=f"/m-{self.label}.gguf",
            name="M",
            architecture=self.architecture,
            n_layers=self.weights.n_layers,
            n_ctx_train=self.n_ctx_train,
            quant=self.label,
            size_bytes=self.size_bytes,
        )
        return Candidate(self.label, model, self.weights)


def dense(
    label: str = "Q4_K_M",
    layer_bytes: int = 100 * MIB,
    n_layers: int = 8,
    *,
    token_bytes: int = 16 * KIB,
    window: int = 0,
    state_bytes: int = 0,
) -> FakeModel:
    """Layers all alike, and an output layer as large as one of them."""
    layer = LayerWeights(layer_bytes, 0, layer_bytes * 2)
    return FakeModel(
        label,
        Weights((layer,) * n_layers, layer_bytes // 2, layer_bytes, 0, layer_bytes * 2),
        (Cache(token_bytes, window, state_bytes),) * n_layers,
    )


def sparse(
    label: str = "Q4_K_M",
    dense_bytes: int = 40 * MIB,
    expert_bytes: int = 400 * MIB,
    n_layers: int = 8,
) -> FakeModel:
    """Sixteen experts in each layer, of which a token takes one."""
    layer = LayerWeights(dense_bytes, expert_bytes, dense_bytes * 2, expert_bytes * 2)
    weights = Weights(
        (layer,) * n_layers, dense_bytes, dense_bytes, 0, dense_bytes * 2, n_expert=16,
        n_expert_used=1,
    )  # fmt: skip
    return FakeModel(label, weights, (Cache(),) * n_layers)


#: 950 MiB of weights, and 128 KiB of context for a token.
MODEL = dense()


@dataclass
class LayeredOracle:
    """llama.cpp as far as memory goes.

    Attributes:
        models: by path.
        places: the devices.
        noise: by how much compute buffers differ from one placement to another, as a share.
        seed: of the noise.
        asked: the plans that it was asked about.
    """

    models: Mapping[str, FakeModel]
    places: tuple[Device, ...] = ()
    noise: float = 0.0
    seed: int = 0
    asked: list[Plan] = field(default_factory=list)

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        return self.places

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        self.asked.append(plan)
        model = self.models[plan.model.path]
        if plan.type_k == "q8_0" and not model.takes_q8_0:
            raise EngineError("this architecture keeps no quantized cache")
        names = [place.name for place in self.places]
        used = names if plan.devices is None else [*plan.devices]
        where = _places(plan, model.weights.n_layers, used)
        weights = dict.fromkeys(["Host", *names], 0)
        context, kept_back = dict(weights), re.compile("|".join(_patterns(plan)) or "(?!)")
        weights["Host"] += model.weights.input_bytes
        rows = zip(model.weights.layers, model.caches, where[:-1], strict=True)
        for at, (layer, cache, place) in enumerate(rows):
            is_kept_back = kept_back.search(f"blk.{at}.ffn_up_exps.weight")
            weights[place] += layer.dense_bytes
            weights["Host" if is_kept_back else place] += layer.expert_bytes
            context[place] += cache.n_bytes(plan)
        weights[where[-1]] += model.weights.output_bytes
        if where[-1] != "Host":
            weights[where[-1]] += model.weights.tied_bytes
        return tuple(
            DeviceMemory(
                name,
                weights[name],
                context[name],
                self._compute_bytes(model, plan, name, where) if name in ("Host", *where) else 0,
            )
            for name in weights
        )

    def _compute_bytes(self, model: FakeModel, plan: Plan, name: str, where: Sequence[str]) -> int:
        """Depends on the kind of placement most of all, and on each placement a little."""
        is_split = "Host" in where
        kind = (self.seed, name, sorted({*where} - {"Host"}), is_split, bool(plan.tensor_overrides))
        exact = (*kind, plan.type_k, where, plan.tensor_overrides)
        factor = 1 + self.noise * _drawn(kind) + self.noise / 20 * _drawn(exact)
        mask = 2 * plan.n_ubatch * _padded(plan.n_ctx)
        return int(model.compute_bytes * factor * plan.n_ubatch / 512) + mask


def _drawn(seed: object) -> float:
    """A number of -1 to 1, the same for the same seed."""
    return random.Random(repr(seed)).uniform(-1, 1)


def _patterns(plan: Plan) -> list[str]:
    return [override.rpartition("=")[0] for override in plan.tensor_overrides]


def _places(plan: Plan, n_layers: int, names: Sequence[str]) -> list[str]:
    """Where each layer is, the output last: get_layer_buft_list of llama-model.cpp."""
    n_away = min(plan.n_gpu_layers, n_layers + 1) if names else 0
    first = n_layers + 1 - n_away
    split = plan.tensor_split or (1.0,) * len(names)
    ends = [end / sum(split) for end in accumulate(split)]
    return [
        "Host" if at < first else names[bisect_right(ends, (at - first) / n_away)]
        for at in range(n_layers + 1)
    ]


# -- machines ------------------------------------------------------------------------------------


def gpu(
    name: str = "CUDA0",
    free_bytes: int | None = 24 * GIB,
    bandwidth: float | None = 900e9,
    *,
    title: str = "GPU",
) -> tuple[Device, Accelerator]:
    """A graphics card: as the engine sees it, and as the probe does."""
    size = None if free_bytes is None else free_bytes + GIB
    index = int(name.removeprefix("CUDA"))
    accelerator = Accelerator(
        "nvidia", index, title, total_bytes=size, free_bytes=free_bytes, bandwidth=bandwidth
    )
    return Device(name, title, free_bytes, size), accelerator


def apple(
    free_bytes: int, limit_bytes: int | None = None, bandwidth: float = 400e9
) -> tuple[Device, Accelerator]:
    """A Mac's own, which shares main memory."""
    accelerator = Accelerator(
        "apple", 0, "M", unified=True, limit_bytes=limit_bytes, bandwidth=bandwidth
    )
    return Device("MTL0", "M", free_bytes, free_bytes), accelerator


def machine(
    free_bytes: int | None = 64 * GIB,
    *cards: tuple[Device, Accelerator],
    cpu: Cpu = CPU,
    bandwidth: float | None = 60e9,
    limit_bytes: int | None = None,
    limit_used_bytes: int | None = None,
) -> Hardware:
    """A machine with so much main memory free."""
    memory = Memory(
        total_bytes=256 * GIB,
        available_bytes=free_bytes,
        limit_bytes=limit_bytes,
        limit_used_bytes=limit_used_bytes,
        bandwidth=bandwidth,
        bandwidth_source="measured" if bandwidth else None,
    )
    return Hardware(System("Linux"), cpu, memory, tuple(found for _, found in cards))


@dataclass(frozen=True)
class Judge:
    """What fits on a machine: the same question as the planner's, in other words.

    Attributes:
        hardware: the machine; its accelerators are the devices, in the same order.
        devices: as the engine sees them.
        policy: what is to be left, and what the engine takes beside its buffers.
    """

    hardware: Hardware
    devices: tuple[Device, ...] = ()
    policy: Policy = POLICY

    def main_bytes(self) -> float:
        """What runs may take of main memory."""
        memory, left = self.hardware.memory, math.inf
        if memory.available_bytes is not None:
            left = memory.available_bytes - self.policy.host_reserve_bytes
        if memory.limit_bytes is not None:
            used = memory.limit_used_bytes or 0
            left = min(left, memory.limit_bytes - used - self.policy.group_reserve_bytes)
        return left

    def left(self, rows: Sequence[DeviceMemory]) -> dict[str, float]:
        """Bytes left of each bound by llama.cpp's rows; below 0 they are missing."""
        policy = self.policy
        taken = {row.device: row.model_bytes + row.context_bytes + row.compute_bytes
                 for row in rows}  # fmt: skip
        left = {"Host": self.main_bytes() - taken["Host"] - policy.host_overhead_bytes}
        for device, card in zip(self.devices, self.hardware.accelerators, strict=True):
            if not taken.get(device.name):
                continue
            reserve = policy.device_reserve_bytes
            if card.display:
                reserve += policy.device_display_bytes
            if card.unified:
                wanted = taken[device.name] + policy.unified_overhead_bytes
                left["Host"] -= wanted
                bound = card.limit_bytes
            else:
                wanted = taken[device.name]
                wanted += policy.device_overhead_bytes + policy.device_growth_bytes
                bound = device.free_bytes
            left[device.name] = math.inf if bound is None else bound - reserve - wanted
        return left

    def fits(self, rows: Sequence[DeviceMemory]) -> bool:
        """Whether nothing is missing anywhere."""
        return min(self.left(rows).values()) >= 0


@dataclass
class Case:
    """A machine and a model, ready to be planned for."""

    hardware: Hardware
    models: tuple[FakeModel, ...] = (MODEL,)
    devices: tuple[Device, ...] = ()
    policy: Policy = POLICY
    noise: float = 0.0
    seed: int = 0
    oracle: LayeredOracle = field(init=False)
    judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        models = {model.candidate.model.path: model for model in self.models}
        self.oracle = LayeredOracle(models, self.devices, self.noise, self.seed)
        self.judge = Judge(self.hardware, self.devices, self.policy)

    @property
    def candidates(self) -> list[Candidate]:
        """What there is to choose among."""
        return [model.candidate for model in self.models]

    def plan(
        self,
        wishes: Wishes | None = None,
        goal: Goal = CHAT,
        extra_bytes: Mapping[str, int] | None = None,
    ) -> Plan:
        """What the planner chooses."""
        return choose(
            self.hardware, self.candidates, self.policy, wishes or Wishes(), goal, self.oracle,
            extra_bytes,
        )  # fmt: skip

    def fits(self, plan: Plan) -> bool:
        """Whether it fits, by the judge."""
        return self.judge.fits(self.oracle.memory(plan))


def case(
    *cards: tuple[Device, Accelerator],
    models: Sequence[FakeModel] = (MODEL,),
    free_bytes: int | None = 64 * GIB,
    bandwidth: float | None = 60e9,
    cpu: Cpu = CPU,
) -> Case:
    """A case in a line."""
    hardware = machine(free_bytes, *cards, cpu=cpu, bandwidth=bandwidth)
    return Case(hardware, tuple(models), tuple(device for device, _ in cards))


def reason(plan: Plan, name: str) -> Reason:
    """The one reason for a field."""
    (found,) = (reason for reason in plan.reasons if reason.field == name)
    return found


def chosen(plan: Plan) -> Verdict:
    """The verdict on the candidate that was chosen."""
    (found,) = (verdict for verdict in plan.verdicts if verdict.why_not is None)
    return found


def with_goal(goal: Goal, **changes: float) -> Goal:
    """The goal with other numbers."""
    return replace(goal, **changes)  # type: ignore[arg-type]
