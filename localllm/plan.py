"""The Plan: how one model is run on one machine, with a reason for every value.

The one vocabulary between deciding (localllm/planner.py) and doing (localllm/engine). Values
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Source = Literal["flag", "profile", "tuned", "dry-run", "measured", "assumed"]


@dataclass(frozen=True)
class Reason:
    """Why a field of the plan has its value.

    Attributes:
        field: the field's name in Plan.
        value: the value it justifies.
        because: a clause that a person can read.
        source: where the value comes from.
    """

    field: str
    value: Any
    because: str
    source: Source


@dataclass(frozen=True)
class Model:
    """The model that a plan is for, as its header tells.

    Attributes:
        ref: what the person typed.
        path: the file (the first shard of a set) on this disk.
        source: "file", "demo", "hf", ...
        revision: the commit or hash it is pinned to; None for a loose file.
        name: general.name of the header, or the file's stem.
        architecture: general.architecture.
        n_layers: repeating layers (block_count); the output layer is counted on top by ngl.
        n_ctx_train: the context it was trained for, tokens.
        quant: the quantization of the file.
        size_bytes: of all its shards together.
        has_chat_template: its tokenizer carries one.
        is_generative: it can write text (an embedding or an encoder model cannot).
        sha256: of the file, when known.
    """

    ref: str
    path: str
    source: str = "file"
    revision: str | None = None
    name: str = ""
    architecture: str | None = None
    n_layers: int | None = None
    n_ctx_train: int | None = None
    quant: str | None = None
    size_bytes: int = 0
    has_chat_template: bool = False
    is_generative: bool = True
    sha256: str | None = None


@dataclass(frozen=True)
class DeviceMemory:
    """One device's row of the ledger, bytes; named as llama.cpp names the device.

    `total_bytes` is what the run takes, `free_bytes` what there is for it.
    """

    device: str
    model_bytes: int
    context_bytes: int
    compute_bytes: int
    overhead_bytes: int = 0
    free_bytes: int | None = None
    source: Source = "dry-run"

    @property
    def total_bytes(self) -> int:
        """All of the run on this device."""
        return self.model_bytes + self.context_bytes + self.compute_bytes + self.overhead_bytes


@dataclass(frozen=True)
class Speed:
    """Tokens per second, where anything is known of them."""

    decode_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    source: Literal["estimated", "measured"] = "estimated"


@dataclass(frozen=True)
class Plan:
    """How one model is run on one machine. Field names are llama.cpp's.

    `n_gpu_layers` counts the output layer as one more than the repeating ones; `n_ctx` is shared
    by the `n_parallel` slots; `tensor_overrides` are llama.cpp's `pattern=buffer` strings; `env`
    is set for the child; `cache_ram_bytes` bounds the server's prompt cache on the host.
    """

    model: Model
    n_ctx: int
    n_parallel: int = 1
    n_gpu_layers: int = 0
    tensor_overrides: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] | None = None
    devices: tuple[str, ...] | None = None
    rpc: tuple[str, ...] = ()
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: Literal["auto", "on", "off"] = "auto"
    n_batch: int = 2048
    n_ubatch: int = 512
    n_threads: int = 1
    n_threads_batch: int = 1
    load_mode: Literal["mmap", "mlock", "none"] = "mmap"
    cache_ram_bytes: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    memory: tuple[DeviceMemory, ...] = ()
    speed: Speed = Speed()
    reasons: tuple[Reason, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """`plan --json` without its "hardware" and "argv", which others add (design: contracts)."""
        m = self.model
        return {
            "schema_version": 1,
            "model": {
                "ref": m.ref,
                "source": m.source,
                "revision": m.revision,
                "architecture": m.architecture,
                "n_layers": m.n_layers,
                "n_ctx_train": m.n_ctx_train,
            },
            "chosen": {
                "quant": m.quant,
                "files": [{"name": m.path, "size_bytes": m.size_bytes, "sha256": m.sha256}],
                "n_gpu_layers": self.n_gpu_layers,
                "tensor_overrides": list(self.tensor_overrides),
                "tensor_split": None if self.tensor_split is None else list(self.tensor_split),
                "n_ctx": self.n_ctx,
                "n_parallel": self.n_parallel,
                "type_k": self.type_k,
                "type_v": self.type_v,
                "flash_attn": self.flash_attn,
                "n_batch": self.n_batch,
                "n_ubatch": self.n_ubatch,
                "n_threads": self.n_threads,
                "n_threads_batch": self.n_threads_batch,
                "load_mode": self.load_mode,
                "cache_ram_bytes": self.cache_ram_bytes,
                "env": dict(self.env),
            },
            "memory": [{**asdict(row), "total_bytes": row.total_bytes} for row in self.memory],
            "speed": asdict(self.speed),
            "candidates": [
                {"quant": m.quant, "size_bytes": m.size_bytes, "fits": True, "why_not": None}
            ],
            "reasons": [asdict(reason) for reason in self.reasons],
        }


@dataclass(frozen=True)
class Fit:
    """llama.cpp's own choice of what goes where.

    `n_gpu_layers` is -1 where it would put everything on the devices.
    """

    n_ctx: int
    n_gpu_layers: int
    tensor_split: tuple[float, ...] | None = None
    tensor_overrides: tuple[str, ...] = ()


class MemoryOracle(Protocol):
    """Something that knows what a run takes; llama.cpp itself, or a fake in tests."""

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """What the plan's run takes, one row per device, all host buffers under "Host"."""
        ...

    def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
        """What llama.cpp would put where at the plan's context, leaving the reserve free."""
        ...
