"""From what a person typed to a Plan: the composition that plan, chat and serve share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm import demo, gguf, paths
from localllm.engine.locate import find_tools
from localllm.errors import GgufError, LocalllmError, NotFoundError, UsageError
from localllm.hardware import Hardware
from localllm.naming import parse_ref
from localllm.plan import Model, Plan
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


def prepare(ref: str, asked: Wishes, use: Use) -> Prepared:
    """The model that the reference names, and the plan for it on this machine.

    Raises:
        NotFoundError, AccessError, GgufError, UsageError: the model is not to be had.
        DoesNotFitError: it cannot run here as asked.
        EngineError: llama.cpp refuses it.
    """
    from localllm.engine.dryrun import dry_run
    from localllm.probe import probe

    model = find_model(ref)
    hardware, _ = probe(paths.models_dir(), measure_bandwidth=False)
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    with dry_run(find_tools()) as oracle:
        return Prepared(hardware, choose(hardware, model, policy, asked, use, oracle))


def document(prepared: Prepared) -> dict[str, Any]:
    """`plan --json`."""
    from localllm.engine.argv import server_argv

    plan = prepared.plan.to_json()
    plan["hardware"] = prepared.hardware.to_json()
    plan["argv"] = server_argv(prepared.plan)
    return plan


def find_model(ref: str) -> Model:
    """Reads the header of what the reference names.

    Raises:
        NotFoundError: no such file, a missing shard, or a name that is not on this disk.
        GgufError, AccessError, UsageError: see `gguf.read_header`.
    """
    parsed = parse_ref(ref)
    if parsed.kind == "demo":
        return _model_at(demo.model_path(), ref, "demo")
    if parsed.kind == "file":
        return _model_at(Path(ref).expanduser(), ref, "file")
    if Path(ref).is_file():
        raise NotFoundError(f"there is no model called {ref!r}", f"for the file, write ./{ref}")
    raise NotFoundError(
        f"{ref!r} is not on this disk, and this version of localllm cannot download yet",
        "download its .gguf file and name the path, or try: localllm chat demo",
    )


def _model_at(path: Path, ref: str, source: str) -> Model:
    if path.name.lower().endswith(".llamafile"):
        raise UsageError(
            f"{path} is a llamafile, which this version cannot open yet",
            "unzip the .gguf inside it and name that",
        )
    shards = gguf.shard_paths(path)
    headers = []
    for shard in shards:
        if len(shards) > 1 and path.exists() and not shard.exists():
            raise NotFoundError(
                f"{path} is one of {len(shards)} parts, and {shard.name} is missing",
                "put all parts into one folder",
            )
        headers.append(gguf.read_header(shard))
    header = headers[0]
    if header.split_count != len(shards):
        raise GgufError(
            f"{path} says that it is one of {header.split_count} parts, and its name does not",
            "rename the parts to …-00001-of-0000N.gguf, as they were published",
        )
    if header.architecture is None:
        raise GgufError(
            f"{path} names no architecture, so no engine can run it", "is it a LoRA or a fragment?"
        )
    if header.architecture == "clip":
        raise LocalllmError(
            f"{path} is a projector for images (mmproj), not a model",
            "name the model that it belongs to",
        )
    return Model(
        ref=ref,
        path=str(path.absolute() if len(shards) == 1 else shards[0].absolute()),
        source=source,
        name=header.text("general.name") or path.stem,
        architecture=header.architecture,
        n_layers=header.n_layers,
        n_ctx_train=header.n_ctx_train,
        quant=header.quant,
        size_bytes=sum(part.file_bytes for part in headers),
        has_chat_template=header.has_chat_template,
        is_generative=header.is_generative,
    )
