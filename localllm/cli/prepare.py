"""From what a person typed to a Plan: the composition that plan, chat and serve share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localllm import paths
from localllm.cli.found import FoundModels
from localllm.cli.learning import Learner, Teacher
from localllm.cli.simulation import Simulation, StandIns
from localllm.engine.locate import RPC_SERVER, require_tools
from localllm.errors import NotFoundError, UsageError
from localllm.hardware import Accelerator, Hardware
from localllm.plan import Device, DeviceMemory, MemoryOracle, Plan
from localllm.planner import Wishes, choose
from localllm.planner.places import match_accelerator
from localllm.profiles import Policy, load_policy

#: What llama.cpp's --cache-type-k takes, but for those that only this project's tests would use.
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True)
class Prepared:
    """A machine, what was decided for it and by which policy; its devices as the engine's.

    `planned` is the plan before what earlier runs of it had to give up, where they had.
    """

    hardware: Hardware
    plan: Plan
    policy: Policy
    planned: Plan
    devices: tuple[Device, ...] = ()

    @property
    def learner(self) -> Learner:
        """What watches the run."""
        return Learner(self.hardware, self.plan, self.policy, self.planned, self.devices)


@dataclass(frozen=True)
class Narrowed:
    """The memory oracle of a run that has some of the machine's accelerators to itself.

    Attributes:
        inner: the oracle of the whole machine.
        whole: the machine's accelerators, by which devices are told apart.
        own: those of the run.
    """

    inner: MemoryOracle
    whole: tuple[Accelerator, ...]
    own: tuple[Accelerator, ...]

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        """The devices of its own, under the names that they have on the whole machine.

        Those behind RPC are everybody's.
        """
        found = self.inner.devices(rpc)
        paired = [(device, match_accelerator(device, self.whole)) for device in found]
        own = [device for device, gpu in paired if gpu in self.own]
        if not own and any(gpu.mig for gpu in self.own):
            # CUDA shows a process a single MIG slice, which stands for the one that it is given.
            own = [device for device, gpu in paired if gpu and gpu.vendor == "nvidia"][:1]
        return (*own, *(device for device in found if device.name.startswith("RPC")))

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """As the whole machine's: a plan names its devices."""
        return self.inner.memory(plan)


def wishes(
    *,
    quant: str | None = None,
    prefer: str | None = None,
    n_ctx: int | None = None,
    n_gpu_layers: int | None = None,
    n_threads: int | None = None,
    kv: str | None = None,
    n_parallel: int | None = None,
    mmproj: Path | None = None,
) -> Wishes:
    """Flags -> Wishes.

    Raises:
        UsageError: a KV type that llama.cpp does not know, or a preference that we do not.
        NotFoundError: there is no such projector.
    """
    if mmproj is not None and not mmproj.is_file():
        raise NotFoundError(f"there is no file {mmproj}", "check the path of --mmproj")
    if kv is not None and kv not in KV_TYPES:
        raise UsageError(f"{kv!r} is not a KV cache type", f"one of {', '.join(KV_TYPES)}")
    if prefer not in (None, "quality", "speed"):
        raise UsageError(f"{prefer!r} is nothing to prefer", "--prefer quality, or speed")
    return Wishes(
        quant=quant,
        prefer="speed" if prefer == "speed" else "quality",
        n_ctx=n_ctx,
        n_gpu_layers=n_gpu_layers,
        n_threads=n_threads,
        type_k=kv,
        type_v=kv,
        n_parallel=n_parallel,
        mmproj=None if mmproj is None else str(mmproj.absolute()),
    )


def prepare(
    found: FoundModels,
    asked: Wishes,
    goal: str,
    simulation: Simulation | None = None,
    share: Callable[[Hardware], Hardware] = lambda hardware: hardware,
) -> Prepared:
    """The best of what was found, and the plan for it on this machine.

    Args:
        found: the models to choose among.
        asked: explicit values.
        goal: what the plan is for, one of the policy's goals.
        simulation: the machine to plan for instead of this one.
        share: what of the machine is for this run.

    Raises:
        UsageError: no such goal; values that contradict one another.
        NotFoundError: no such quantization.
        DoesNotFitError: it cannot run here as asked.
        EngineError: llama.cpp refuses it.
    """
    from localllm.engine.dryrun import dry_run

    if found.is_narrowed:
        asked = replace(asked, quant=None)
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    aim = policy.goal(goal)
    simulation = simulation or Simulation()
    whole = machine(simulation)
    hardware = share(whole)
    outlines = {opened.model.path: opened.outlines for opened in found.models}
    outlines.update(found.beside)
    with contextlib.ExitStack() as stack:
        asks_llama_cpp = stack.enter_context(dry_run(outlines))
        oracle = stood_in(stack, asks_llama_cpp, whole, simulation)
        if oracle is not None and len(hardware.accelerators) < len(whole.accelerators):
            oracle = Narrowed(oracle, whole.accelerators, hardware.accelerators)
        # What was measured here says nothing of a machine that is written down.
        teacher = Teacher.here(hardware) if simulation.preset is None else None
        candidates = found.candidates
        extra = teacher.extra_bytes(candidates) if teacher is not None else None
        planned = plan = choose(hardware, candidates, policy, asked, aim, oracle, extra)
        if teacher is not None:
            plan = teacher.told(teacher.relented(plan))
        devices = oracle.devices() if oracle is not None and hardware.accelerators else ()
    return Prepared(hardware, found.told(simulation.told(plan)), policy, planned, devices)


def machine(simulation: Simulation) -> Hardware:
    """The machine to plan for: this one, or what stands in its place."""
    probed = None
    if simulation.preset is None:
        from localllm.probe import probe

        probed, _ = probe(paths.models_dir())
    return simulation.hardware(probed)


def stood_in(
    stack: contextlib.ExitStack,
    oracle: MemoryOracle | None,
    hardware: Hardware,
    simulation: Simulation,
) -> MemoryOracle | None:
    """The oracle, with devices on loopback in place of accelerators that are not here."""
    if oracle is None or simulation.preset is None:
        return oracle
    endpoints: tuple[str, ...] = ()
    if simulation.accelerators:
        from localllm.engine.loopback import loopback_devices

        n_devices = len(simulation.accelerators)
        endpoints = stack.enter_context(loopback_devices(require_tools(RPC_SERVER), n_devices))
    return StandIns(oracle, hardware, endpoints)


def document(prepared: Prepared) -> dict[str, Any]:
    """`plan --json`."""
    from localllm.engine.argv import server_argv

    plan = prepared.plan.to_json()
    plan["hardware"] = prepared.hardware.to_json()
    plan["argv"] = server_argv(prepared.plan)
    return plan
