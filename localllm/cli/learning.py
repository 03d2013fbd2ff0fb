"""What runs teach plans: measured memory and speed, from the file to the plan and back again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from localllm import measurements, paths
from localllm.chat import Totals
from localllm.cli import render
from localllm.engine.locate import library_version
from localllm.engine.server import LlamaServer
from localllm.hardware import Hardware
from localllm.measured import ENOUGH_TOKENS, Experience, Key, Measurement
from localllm.plan import Candidate, Device, Plan, Reason, Speed
from localllm.profiles import Policy
from localllm.recovery import Concession, replay


def engine_name() -> str:
    """What measurements are filed under: another engine takes other memory."""
    return f"llama-cpp-python {library_version() or 'unknown'}"


@dataclass(frozen=True)
class Teacher:
    """What was measured on this machine, for the models of one plan.

    Attributes:
        experience: everything that was measured.
        hardware: this machine.
    """

    experience: Experience
    hardware: Hardware

    @classmethod
    def here(cls, hardware: Hardware) -> Teacher:
        """With what is kept of earlier runs."""
        return cls(measurements.load(paths.measurements_file()), hardware)

    def extra_bytes(self, candidates: Sequence[Candidate]) -> Mapping[str, int]:
        """By device, the most that any of these models took beyond its dry run."""
        most: dict[str, int] = {}
        for candidate in candidates:
            plan = Plan(candidate.model, n_ctx=0)
            known = self.experience.nearest(self.hardware, engine_name(), plan)
            for device, n_bytes in (known.extra_bytes if known else {}).items():
                most[device] = max(n_bytes, most.get(device, n_bytes))
        return most

    def relented(self, plan: Plan) -> Plan:
        """The plan as it ran at last, where memory did not suffice for it as it is made."""
        known = self.experience.find(Key.of(self.hardware, engine_name(), plan))
        return plan if known is None else replay(plan, known.concessions)

    def told(self, plan: Plan) -> Plan:
        """The plan with measured speeds in place of estimated ones, where this run was measured."""
        known = self.experience.find(Key.of(self.hardware, engine_name(), plan))
        if known is None or known.decode_tokens_per_second is None:
            return plan
        decode = round(known.decode_tokens_per_second, 2)
        prompt = known.prompt_tokens_per_second
        speed = Speed(
            decode_tokens_per_second=decode,
            prompt_tokens_per_second=plan.speed.prompt_tokens_per_second
            if prompt is None
            else round(prompt, 2),
            source="measured",
        )
        because = f"over {known.n_decoded} tokens of earlier runs like this"
        reason = Reason("speed", decode, because, "measured")
        return replace(plan, speed=speed, reasons=(*plan.reasons, reason))


@dataclass
class Learner:
    """Watches one run, and keeps what it showed.

    Attributes:
        hardware: the machine.
        plan: what runs.
        policy: how long a canary may take.
        planned: the plan before what earlier runs of it had to give up.
        devices: as the engine numbers them.
    """

    hardware: Hardware
    plan: Plan
    policy: Policy
    planned: Plan
    devices: Sequence[Device] = ()

    @property
    def key(self) -> Key:
        """What the run is filed under."""
        return Key.of(self.hardware, engine_name(), self.plan)

    def wants_canary(self) -> bool:
        """Whether this run was never measured, and measuring it is soon done."""
        from localllm.engine import canary

        if not self.plan.memory:
            return False
        known = measurements.load(paths.measurements_file()).find(self.key)
        return (known is None or not known.extra_bytes) and canary.worthwhile(
            self.plan, self.policy.canary_seconds
        )

    def watch(self, server: LlamaServer) -> None:
        """The canary: one full micro-batch, and what the run then holds.

        Raises:
            EngineError: the engine died of it.
        """
        from localllm.engine import canary
        from localllm.probe import nvidia, process

        outcome = canary.measure(
            server,
            self.plan,
            limit_seconds=self.policy.canary_seconds,
            host_used=process.process_memory,
            gpu_used=nvidia.process_memory,
            devices=self.devices,
        )
        if outcome.measurement is not None:
            self._record(outcome.measurement)

    def keep_speed(self, totals: Totals) -> None:
        """How fast a conversation was, where enough of it was decoded to tell."""
        if totals.n_decoded < ENOUGH_TOKENS or not totals.decode_seconds:
            return
        measurement = Measurement(
            decode_tokens_per_second=totals.n_decoded / totals.decode_seconds,
            n_decoded=totals.n_decoded,
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        self._record(measurement)

    def conceded(self, concessions: Sequence[Concession]) -> None:
        """Remembers what was given up in this run, beside what it began without."""
        key = Key.of(self.hardware, engine_name(), self.planned)
        known = measurements.load(paths.measurements_file()).find(key)
        before = () if known is None else known.concessions
        self._record(Measurement(concessions=(*before, *concessions)), key)

    def _record(self, measurement: Measurement, key: Key | None = None) -> None:
        finding = measurements.record(paths.measurements_file(), key or self.key, measurement)
        if finding is not None:
            render.say(finding.message)
