"""From what a person typed to a Plan: the composition that plan, chat and serve share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm import demo, paths
from localllm.cli.simulation import Simulation
from localllm.engine.locate import find_tools
from localllm.errors import NotFoundError, UsageError
from localllm.hardware import Hardware
from localllm.hub import localfile
from localllm.hub.localfile import Opened
from localllm.naming import parse_ref
from localllm.plan import Plan
from localllm.planner import Use, Wishes, choose
from localllm.profiles import load_policy

#: What llama.cpp's --cache-type-k takes, but for those that only this project's tests would use.
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True)
class Prepared:
    """A machine and what was decided for it."""

    hardware: Hardware
    plan: Plan


def wishes(
    *,
    n_ctx: int | None = None,
    n_gpu_layers: int | None = None,
    n_threads: int | None = None,
    kv: str | None = None,
    n_parallel: int | None = None,
) -> Wishes:
    """Flags -> Wishes.

    Raises:
        UsageError: a KV type that llama.cpp does not know.
    """
    if kv is not None and kv not in KV_TYPES:
        raise UsageError(f"{kv!r} is not a KV cache type", f"one of {', '.join(KV_TYPES)}")
    return Wishes(
        n_ctx=n_ctx,
        n_gpu_layers=n_gpu_layers,
        n_threads=n_threads,
        type_k=kv,
        type_v=kv,
        n_parallel=n_parallel,
    )


def prepare(ref: str, asked: Wishes, use: Use, simulation: Simulation | None = None) -> Prepared:
    """The model that the reference names, and the plan for it on this machine.

    Args:
        ref: what the person typed.
        asked: explicit values.
        use: what the plan is for.
        simulation: the machine to plan for instead of this one.

    Raises:
        NotFoundError, AccessError, GgufError, UsageError: the model is not to be had.
        DoesNotFitError: it cannot run here as asked.
        EngineError: llama.cpp refuses it.
    """
    from localllm.engine.dryrun import dry_run
    from localllm.probe import probe

    opened = find_model(ref)
    model = opened.model
    simulation = simulation or Simulation()
    probed = None
    if simulation.preset is None:
        probed, _ = probe(paths.models_dir(), measure_bandwidth=False)
    hardware = simulation.hardware(probed)
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    with dry_run(find_tools(), {model.path: opened.outlines}) as oracle:
        plan = choose(hardware, model, policy, asked, use, simulation.oracle(oracle))
    return Prepared(hardware, simulation.told(plan))


def document(prepared: Prepared) -> dict[str, Any]:
    """`plan --json`."""
    from localllm.engine.argv import server_argv

    plan = prepared.plan.to_json()
    plan["hardware"] = prepared.hardware.to_json()
    plan["argv"] = server_argv(prepared.plan)
    return plan


def find_model(ref: str) -> Opened:
    """Reads the header of what the reference names.

    Raises:
        NotFoundError: no such file, a missing shard, or a name that is not on this disk.
        GgufError, AccessError, UsageError: see `localfile.open_model`.
    """
    parsed = parse_ref(ref)
    if parsed.kind == "demo":
        return localfile.open_model(demo.model_path(), ref, "demo")
    if parsed.kind == "file":
        return localfile.open_model(_expanded(ref), ref, "file")
    if Path(ref).is_file():
        raise NotFoundError(f"there is no model called {ref!r}", f"for the file, write ./{ref}")
    if parsed.kind == "alias":
        from localllm.catalogue import load_catalogue

        entry = load_catalogue(paths.shipped_profiles_dir(), paths.config_dir()).find(ref)
        raise NotFoundError(
            f"{ref!r} is {entry.repo} on the hub, which is not on this disk, and this version of"
            " localllm cannot download yet",
            f"download a .gguf file from {entry.source} and name the path,"
            " or try: localllm chat demo",
        )
    raise NotFoundError(
        f"{ref!r} is not on this disk, and this version of localllm cannot download yet",
        "download its .gguf file and name the path, or try: localllm chat demo",
    )


def _expanded(ref: str) -> Path:
    try:
        return Path(ref).expanduser()
    except RuntimeError:  # ~nobody-knows/x
        raise NotFoundError(f"{ref!r} begins with an unknown user's home", "write it out") from None
