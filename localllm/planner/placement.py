"""Which weights lie where, and how many bytes that is per place: pure arithmetic over a header.

What it says of bytes orders the search; llama.cpp's own answer decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from localllm.plan import Plan
from localllm.planner.places import HOST, Machine, Place
from localllm.weights import LayerWeights, Weights

#: The matching of routed experts is --n-cpu-moe's own (common.h, LLM_FFN_EXPS_REGEX).
_EXPERTS = r"ffn_(up|down|gate|gate_up)_(ch|)exps"


@dataclass(frozen=True)
class Step:
    """How far a model has left the devices; steps are ordered from all on them to nothing.

    Attributes:
        n_gpu_layers: layers on devices, from the last one back; the output layer is one of them.
        n_cpu_moe: the first so many layers keep their routed experts on the host.
    """

    n_gpu_layers: int
    n_cpu_moe: int = 0


@dataclass(frozen=True)
class Placement:
    """A step, and how its layers are shared among devices.

    Attributes:
        devices: names, in llama.cpp's order; empty for the host alone.
        step: what lies on them.
        shares: layers for each of the devices, the output layer being the last; their sum is
            n_gpu_layers.
    """

    devices: tuple[str, ...]
    step: Step
    shares: tuple[int, ...] = ()

    def applied(self, plan: Plan, n_layers: int) -> Plan:
        """The plan with this placement."""
        several = len(self.devices) > 1
        return replace(
            plan,
            n_gpu_layers=self.step.n_gpu_layers,
            devices=self.devices,
            tensor_split=tuple(float(share) for share in self.shares) if several else None,
            tensor_overrides=expert_overrides(self.step, n_layers),
        )

    def where(self, weights: Weights) -> str:
        """A few words for a person."""
        everything = weights.n_layers + 1
        if not self.devices or not self.step.n_gpu_layers:
            return "the host"
        names = " + ".join(self.devices)
        if self.step.n_gpu_layers < everything:
            return f"{self.step.n_gpu_layers} of {everything} layers on {names}"
        if self.step.n_cpu_moe:
            return f"{names}, experts of {self.step.n_cpu_moe} layers on the host"
        return names


def expert_overrides(step: Step, n_layers: int) -> tuple[str, ...]:
    """--override-tensor for the step: experts of the layers that are on devices all the same."""
    first = max(0, n_layers + 1 - step.n_gpu_layers)
    if step.n_cpu_moe <= first or not step.n_gpu_layers:
        return ()
    if step.n_cpu_moe >= n_layers:
        return (rf"\.{_EXPERTS}=CPU",)
    numbers = "|".join(str(layer) for layer in range(first, step.n_cpu_moe))
    return (rf"blk\.({numbers})\.{_EXPERTS}=CPU",)


def steps(weights: Weights) -> tuple[Step, ...]:
    """From everything on the devices to the last layer: experts leave first, then whole layers.

    Experts are most of a model's bytes and the least read of them, so they cost the least speed
    for each byte that they free.
    """
    n_layers = weights.n_layers
    everything = n_layers + 1
    found = [Step(everything)]
    n_moe = 0
    if weights.has_experts:
        n_moe = n_layers
        found += [Step(everything, n) for n in range(1, n_layers + 1) if _has(weights, n - 1)]
    found += [Step(n, n_moe) for n in range(n_layers, 0, -1)]
    return tuple(found)


def _has(weights: Weights, layer: int) -> bool:
    return weights.layers[layer].expert_bytes > 0


@dataclass(frozen=True)
class Load:
    """What one place holds and reads.

    Attributes:
        model_bytes: weights there.
        read_bytes: of those, what a token reads.
        flops: operations that a token needs of them.
        n_layers: repeating layers there: their share of the context, and of the fixed costs.
    """

    model_bytes: int = 0
    read_bytes: float = 0.0
    flops: float = 0.0
    n_layers: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.model_bytes + other.model_bytes,
            self.read_bytes + other.read_bytes,
            self.flops + other.flops,
            self.n_layers + other.n_layers,
        )


class Layers:
    """The model's loads at any step, from sums made once."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.n_layers = weights.n_layers
        share = weights.share_used
        self._dense = _Sums([_dense(layer) for layer in weights.layers])
        self._experts = _Sums([_experts(layer, share) for layer in weights.layers])
        head = weights.output_bytes + weights.tied_bytes
        self._output = Load(head, head, 2.0 * weights.output_elements)

    def host(self, step: Step) -> Load:
        """What lies on the host; everything for a step without layers on devices."""
        w = self.weights
        total = Load(w.input_bytes)
        first = min(self.first(step), self.n_layers)
        if not step.n_gpu_layers:
            # A tied embedding is not copied where the output stays beside it.
            own = Load(w.output_bytes, self._output.read_bytes, self._output.flops)
            return total + own + self._dense.between(0, first) + self._experts.between(0, first)
        experts = max(first, min(step.n_cpu_moe, self.n_layers))
        return total + self._dense.between(0, first) + self._experts.between(0, experts)

    def first(self, step: Step) -> int:
        """The first repeating layer that is on a device (llama-model.cpp, i_gpu_start)."""
        return max(0, self.n_layers + 1 - step.n_gpu_layers)

    def span(self, step: Step, start: int, end: int) -> Load:
        """What lies on the device of layers start to end; layer n_layers is the output."""
        load = self._dense.between(min(start, self.n_layers), min(end, self.n_layers))
        experts = max(start, min(step.n_cpu_moe, end))
        load += self._experts.between(min(experts, self.n_layers), min(end, self.n_layers))
        return load + self._output if start <= self.n_layers < end else load


class _Sums:
    """Sums of loads over any run of layers, in constant time."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self._upto = list(accumulate(loads, initial=Load()))

    def between(self, start: int, end: int) -> Load:
        a, b = self._upto[start], self._upto[max(start, end)]
        return Load(
            b.model_bytes - a.model_bytes,
            b.read_bytes - a.read_bytes,
            b.flops - a.flops,
            b.n_layers - a.n_layers,
        )


def _dense(layer: LayerWeights) -> Load:
    return Load(layer.dense_bytes, layer.dense_bytes, 2.0 * layer.dense_elements, 1)


def _experts(layer: LayerWeights, share: float) -> Load:
    read = share * layer.expert_bytes
    return Load(layer.expert_bytes, read, 2.0 * share * layer.expert_elements)


def loads(layers: Layers, placement: Placement) -> Mapping[str, Load]:
    """What each place holds, by name."""
    step = placement.step if placement.devices else Step(0)
    found = {HOST: layers.host(step)}
    start = layers.first(step)
    for name, share in zip(placement.devices, placement.shares, strict=True):
        found[name] = layers.span(step, start, start + share)
        start += share
    return found


def share_out(
    layers: Layers, step: Step, room: Sequence[float], groups: Sequence[int], layer_bytes: float
) -> tuple[int, ...] | None:
    """Layers for each device, none beyond its room; None when that cannot be.

    The fastest device (the last) takes all that it can hold, then the one before it: a token's time
    is the sum over the devices, so that is the fastest split there is. Devices of one group are
    alike, and share what their group takes evenly, which leaves as much headroom on each.

    Args:
        layers: the model.
        step: what lies on devices at all.
        room: bytes on each device, what the run takes there anyway already taken off.
        groups: a number for each device; neighbours with the same number are alike.
        layer_bytes: of the context, per repeating layer.
    """
    end = layers.n_layers + 1
    first = layers.first(step)
    shares = [0] * len(room)

    def size(start: int, stop: int) -> float:
        load = layers.span(step, start, stop)
        return load.model_bytes + load.n_layers * layer_bytes

    def least_start(stop: int, bytes_free: float) -> int:
        """The smallest start so that start..stop fits, by halving."""
        low, high = first, stop
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if size(middle, stop) <= bytes_free else (middle + 1, high)
        return low

    def filled(members: Sequence[int], stop: int) -> dict[int, int]:
        """Where each member starts when the last of them is filled up first."""
        starts = {}
        for member in reversed(members):
            stop = starts[member] = least_start(stop, room[member])
        return starts

    def evened(members: Sequence[int], stop: int, reach: int) -> dict[int, int] | None:
        """The same with shares of nearly one size, or None where whole layers do not allow it."""
        starts = {}
        for n_left, member in zip(range(len(members), 0, -1), reversed(members), strict=True):
            even = size(reach, stop) / n_left
            start = least_start(stop, min(room[member], even))
            if start > reach:  # an even share cuts a layer in two
                above, below = size(start - 1, stop), size(start, stop)
                if above <= room[member] and above - even < even - below:
                    start -= 1
            if n_left == 1:
                start = reach
                if size(start, stop) > room[member]:
                    return None
            stop = starts[member] = start
        return starts

    at = len(room)
    while at > 0 and end > first:
        start_of_group = at
        while start_of_group > 0 and groups[start_of_group - 1] == groups[at - 1]:
            start_of_group -= 1
        members = range(start_of_group, at)
        starts = filled(members, end)
        even = evened(members, end, starts[start_of_group]) if len(members) > 1 else None
        for member in reversed(members):
            start = (even or starts)[member]
            shares[member] = end - start
            end = start
        at = start_of_group
    return tuple(shares) if end <= first else None


def device_sets(machine: Machine) -> Iterator[tuple[tuple[Place, ...], bool]]:
    """The sets of devices worth trying, the fewest first and the fastest before others.

    Each device alone, one of each kind; then the fastest two, three and so on to all of them.

    Yields:
        A set, and whether it may be left step by step for the host. From a part of a kind it
        should not: with another device alike at hand, a layer is better there than on the host.
    """
    fastest_first = sorted(machine.devices, key=lambda place: -(place.bytes_per_second or 0.0))
    kinds = [place.kind for place in fastest_first]
    for at, place in enumerate(fastest_first):
        if place.kind not in kinds[:at]:
            yield (place,), at == 0 and kinds.count(place.kind) == 1
    for n in range(2, len(fastest_first) + 1):
        chosen = tuple(place for place in machine.devices if place in fastest_first[:n])
        yield chosen, n == len(kinds) or kinds[n] not in kinds[:n]


def groups_of(places: Sequence[Place]) -> tuple[int, ...]:
    """A number for each place; neighbours of one kind share it."""
    numbers: list[int] = []
    for at, place in enumerate(places):
        same = at > 0 and places[at - 1].kind == place.kind
        numbers.append(numbers[-1] if same else at)
    return tuple(numbers)
