"""What runs really took and how fast they really were, and under what that is filed.

Pure values: a measurement, the key of the run it was made of, and the lookup among them. It does
not measure (localllm/engine/canary.py) and does not know the file (localllm/measurements.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from localllm.hardware import Accelerator, Hardware
from localllm.plan import Model, Plan
from localllm.recovery import Concession

#: A speed over fewer tokens is mostly start-up: caches, clocks and graphs still warm up.
ENOUGH_TOKENS = 32
#: An earlier speed weighs no more than this many tokens against a new one, so that a machine
#: that has become faster or slower is believed after a few replies.
_MOST_TOKENS_KEPT = 1024

#: What decides which buffers lie where; under the same of it another context changes little of
#: what llama.cpp takes beside its buffers.
_PLACEMENT = frozenset(
    ("n_gpu_layers", "tensor_overrides", "tensor_split", "devices", "rpc", "n_ubatch", "flash_attn")
)


@dataclass(frozen=True)
class ProcessMemory:
    """What one process holds of main memory, bytes.

    Attributes:
        anonymous_bytes: private memory that it has written to, what was swapped out included.
        shared_bytes: shared memory that it has touched.
        program_bytes: resident pages of files that it runs, its libraries included.
        mapped_bytes: resident pages of other files: weights of a mapped model. The system takes
            them back when it needs the room, and reads them again.
        untouched_bytes: of its large private allocations, what it has not written to yet.
        peak_bytes: the most that was resident at once, of all kinds.
    """

    anonymous_bytes: int
    shared_bytes: int = 0
    program_bytes: int = 0
    mapped_bytes: int = 0
    untouched_bytes: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Key:
    """What must be the same for a measurement to be of the same run.

    Attributes:
        devices: the processor's model, then each accelerator's name and driver.
        engine: its version and commit.
        model: name, architecture, quantization, size, and sha256 where it is known.
        shape: fields of the plan that decide memory and speed, as (name, JSON) pairs.
    """

    devices: tuple[str, ...]
    engine: str
    model: str
    shape: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, hardware: Hardware, engine: str, plan: Plan) -> Key:
        """The key of a plan's run on a machine with an engine."""
        return cls(
            devices=(
                hardware.cpu.model or hardware.cpu.architecture or "unknown processor",
                *(_accelerator_text(gpu) for gpu in hardware.accelerators),
            ),
            engine=engine,
            model=_model_text(plan.model),
            shape=_shape(plan),
        )

    @property
    def text(self) -> str:
        """A short digest, the same in every process and on every machine."""
        written = json.dumps([self.devices, self.engine, self.model, self.shape])
        return hashlib.sha256(written.encode()).hexdigest()[:20]

    def is_same_but_for_shape(self, other: Key) -> bool:
        """Whether the other run was of the same model, engine, devices and driver."""
        return (self.model, self.engine, self.devices) == (
            other.model,
            other.engine,
            other.devices,
        )

    @property
    def placement(self) -> frozenset[tuple[str, str]]:
        """The part of the shape that decides where what lies."""
        return frozenset(pair for pair in self.shape if pair[0] in _PLACEMENT)


@dataclass(frozen=True)
class Measurement:
    """What a run took and how fast it was; None and absent devices mean unknown.

    Attributes:
        extra_bytes: by device, as the plan's rows name it: what the run took beyond the model,
            context and compute bytes that were predicted. Negative where it took less.
        peak_bytes: by device, all that it took.
        decode_tokens_per_second, prompt_tokens_per_second: of one conversation.
        n_decoded, n_prompt: tokens behind these speeds.
        concessions: all that the plan, as it is first made, has to give up here to run at all.
        when: of the newest part, UTC, ISO 8601.
    """

    extra_bytes: Mapping[str, int] = field(default_factory=dict)
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    decode_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    n_decoded: int = 0
    n_prompt: int = 0
    concessions: tuple[Concession, ...] = ()
    when: str = ""

    def merged(self, newer: Measurement) -> Measurement:
        """Both as one.

        Memory is the most that was ever seen, device by device: a run must fit on its worst day.
        A speed is the tokens over the seconds of both, where the newer one is of at least
        ENOUGH_TOKENS tokens (it is left out otherwise) and the older counts as no more than some
        1000, so that the recent weighs most. Of the concessions the newer ones count, if there
        are any.
        """
        decode, n_decoded = _merged_speed(
            (self.decode_tokens_per_second, self.n_decoded),
            (newer.decode_tokens_per_second, newer.n_decoded),
        )
        prompt, n_prompt = _merged_speed(
            (self.prompt_tokens_per_second, self.n_prompt),
            (newer.prompt_tokens_per_second, newer.n_prompt),
        )
        return Measurement(
            extra_bytes=_most(self.extra_bytes, newer.extra_bytes),
            peak_bytes=_most(self.peak_bytes, newer.peak_bytes),
            decode_tokens_per_second=decode,
            prompt_tokens_per_second=prompt,
            n_decoded=n_decoded,
            n_prompt=n_prompt,
            concessions=newer.concessions or self.concessions,
            when=max(self.when, newer.when),
        )


@dataclass(frozen=True)
class Experience:
    """Everything that was measured; empty on a new machine."""

    measurements: Mapping[Key, Measurement] = field(default_factory=dict)

    def find(self, key: Key) -> Measurement | None:
        """What was measured of this very run, or None."""
        return self.measurements.get(key)

    def nearest(self, hardware: Hardware, engine: str, plan: Plan) -> Measurement | None:
        """What is known of a plan's run from runs of the same model on the same devices.

        Precedence, for each device by itself:
        1. the run itself (`find`), which alone tells speeds as well;
        2. runs with the same layers in the same places, the same micro-batch and the same flash
           attention, whatever their context, slots, cache types and threads;
        3. any other run of the model.
        Where several runs stand on one step, the most that any of them took counts. From steps 2
        and 3 only `extra_bytes` is told: peaks and speeds are of their own shape.

        Returns:
            None where no run of this model was measured with this engine on these devices.
        """
        key = Key.of(hardware, engine, plan)
        exact = self.find(key)
        alike = [
            (other, measurement)
            for other, measurement in self.measurements.items()
            if other != key and other.is_same_but_for_shape(key)
        ]
        if not alike:
            return exact
        same_places = [m for other, m in alike if other.placement == key.placement]
        extra = {
            **_most(*(m.extra_bytes for _, m in alike)),
            **_most(*(m.extra_bytes for m in same_places)),
        }
        if exact is not None:
            return replace(exact, extra_bytes={**extra, **exact.extra_bytes})
        return Measurement(extra_bytes=extra, when=max(m.when for _, m in alike))

    def learned(self, key: Key, measurement: Measurement) -> Experience:
        """This and one more measurement, merged with what was known; the newest key is last."""
        others = {other: known for other, known in self.measurements.items() if other != key}
        known = self.measurements.get(key, Measurement())
        return Experience({**others, key: known.merged(measurement)})


def _most(*known: Mapping[str, int]) -> dict[str, int]:
    """The largest number of each device."""
    found: dict[str, int] = {}
    for by_device in known:
        for device, n_bytes in by_device.items():
            found[device] = max(n_bytes, found.get(device, n_bytes))
    return found


def _merged_speed(
    old: tuple[float | None, int], new: tuple[float | None, int]
) -> tuple[float | None, int]:
    """(tokens per second, tokens behind it) of two such pairs."""
    (old_rate, n_old), (new_rate, n_new) = old, new
    if not new_rate or n_new < ENOUGH_TOKENS:
        return old
    n_new = min(n_new, _MOST_TOKENS_KEPT)
    if not old_rate:
        return new_rate, n_new
    n_tokens = n_old + n_new
    return n_tokens / (n_old / old_rate + n_new / new_rate), min(n_tokens, _MOST_TOKENS_KEPT)


def _accelerator_text(gpu: Accelerator) -> str:
    return f"{gpu.name or gpu.vendor} {gpu.driver or 'unknown driver'}"


def _model_text(model: Model) -> str:
    sha256 = model.files[0].sha256 if model.files else None
    parts = (
        model.name,
        model.architecture or "unknown architecture",
        model.quant or "unknown quantization",
        f"{model.size_bytes} bytes",
        *((f"sha256 {sha256}",) if sha256 else ()),
    )
    return " | ".join(parts)


def _shape(plan: Plan) -> tuple[tuple[str, str], ...]:
    fields: Iterable[tuple[str, object]] = (
        ("n_gpu_layers", plan.n_gpu_layers),
        ("tensor_overrides", plan.tensor_overrides),
        ("tensor_split", plan.tensor_split),
        ("devices", plan.devices),
        ("rpc", plan.rpc),
        ("n_ctx", plan.n_ctx),
        ("n_parallel", plan.n_parallel),
        ("type_k", plan.type_k),
        ("type_v", plan.type_v),
        ("flash_attn", plan.flash_attn),
        ("n_batch", plan.n_batch),
        ("n_ubatch", plan.n_ubatch),
        ("n_threads", plan.n_threads),
        ("n_threads_batch", plan.n_threads_batch),
        ("load_mode", plan.load_mode),
        ("mmproj", plan.mmproj),
        ("draft", None if plan.draft is None else _model_text(plan.draft)),
    )
    return tuple((name, json.dumps(value)) for name, value in fields)
