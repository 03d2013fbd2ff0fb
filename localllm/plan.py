"""The Plan: how one model is run on one machine, with a reason for every value.

The one vocabulary between deciding (localllm/planner.py) and doing (localllm/engine). Values
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from localllm.variants import RepoFile
from localllm.weights import Weights

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
        path: the file (the first shard of a set) on this disk, or where it would be.
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
        files: all its shards, as the repository lists them; empty for a loose file.
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
    files: tuple[RepoFile, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One of the models to choose among: a quantization of what was asked for.

    Attributes:
        label: what to call it, unique among the candidates: "Q4_K_M".
        model: what its header tells.
        weights: where its bytes lie.
        unusable: why it cannot be run, a clause; None where nothing speaks against it.
    """

    label: str
    model: Model
    weights: Weights
    unusable: str | None = None


@dataclass(frozen=True)
class Device:
    """A place for layers as the engine sees it.

    Attributes:
        name: as llama.cpp names it and --device takes it: "CUDA0", "Vulkan1", "MTL0", "RPC0".
        description: the engine's word for the hardware: "NVIDIA GeForce RTX 4090".
        free_bytes, total_bytes: of its memory, with the engine already awake on it.
        pci_bus_id: "0000:65:00.0"; None where the backend does not say.
    """

    name: str
    description: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    pci_bus_id: str | None = None


@dataclass(frozen=True)
class LedgerLine:
    """One entry of a device's ledger, and how it is known."""

    what: str
    n_bytes: int
    source: Source
    because: str = ""


@dataclass(frozen=True)
class DeviceMemory:
    """One device's row of the ledger, bytes; named as llama.cpp names the device.

    Attributes:
        model_bytes, context_bytes, compute_bytes: what llama.cpp says it will allocate.
        overhead_bytes: what the engine takes beside that, growth under load included.
        free_bytes: what there is before the run; None where nobody knows.
        reserve_bytes: of that, what the run must leave to others.
        lines: the same and their sources, one by one.
    """

    device: str
    model_bytes: int
    context_bytes: int
    compute_bytes: int
    overhead_bytes: int = 0
    free_bytes: int | None = None
    reserve_bytes: int = 0
    source: Source = "dry-run"
    lines: tuple[LedgerLine, ...] = ()

    @property
    def total_bytes(self) -> int:
        """All of the run on this device."""
        return self.model_bytes + self.context_bytes + self.compute_bytes + self.overhead_bytes


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one conversation, where anything is known of them.

    `error` is the share by which an estimate may be off either way: 0.4 means 60 to 140 %.
    """

    decode_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    source: Literal["estimated", "measured"] = "estimated"
    error: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate quantization: how it would best run, or why it cannot.

    Attributes:
        quant: its label, unique among the candidates.
        size_bytes: of all its files.
        fits: it can run as wished.
        why_not: why it was not chosen, a clause; None for the chosen one.
        where: a few words: "all on CUDA0", "experts of 12 layers on the host".
        n_ctx, type_k, n_gpu_layers: of its best plan; None where nothing fits.
        decode_tokens_per_second: of that plan; None where nothing is known.
        quality_loss: perplexity added, as a share: 0.028 is 2.8 %; None where nobody has
            published it.
        price: the sum of what its best plan concedes; the least is chosen.
    """

    quant: str
    size_bytes: int
    fits: bool
    why_not: str | None = None
    where: str = ""
    n_ctx: int | None = None
    type_k: str | None = None
    n_gpu_layers: int | None = None
    decode_tokens_per_second: float | None = None
    quality_loss: float | None = None
    price: float | None = None


@dataclass(frozen=True)
class Plan:
    """How one model is run on one machine. Field names are llama.cpp's.

    `n_gpu_layers` counts the output layer as one more than the repeating ones; `n_ctx` is shared
    by the `n_parallel` slots; `tensor_overrides` are llama.cpp's `pattern=buffer` strings, of
    which the first that matches counts; `devices` are those to use, in that order (None leaves it
    to llama.cpp); `mmproj` is a projector's file and `draft` the model that guesses ahead; `env` is
    set for the child; `cache_ram_bytes` bounds the server's prompt cache on the host,
    `n_ctx_checkpoints` the states that a slot keeps to go back to, `cache_reuse` is the shortest
    piece of an old prompt, in tokens, worth shifting into a new one (0 is off).
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
    mmproj: str | None = None
    draft: Model | None = None
    cache_ram_bytes: int = 0
    cache_reuse: int = 0
    n_ctx_checkpoints: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    memory: tuple[DeviceMemory, ...] = ()
    speed: Speed = Speed()
    reasons: tuple[Reason, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

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
                "files": [
                    {"name": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256}
                    for file in m.files or (RepoFile(m.path, m.size_bytes),)
                ],
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
                "mmproj": self.mmproj,
                "devices": None if self.devices is None else list(self.devices),
                "cache_ram_bytes": self.cache_ram_bytes,
                "cache_reuse": self.cache_reuse,
                "n_ctx_checkpoints": self.n_ctx_checkpoints,
                "env": dict(self.env),
            },
            "memory": [{**asdict(row), "total_bytes": row.total_bytes} for row in self.memory],
            "speed": asdict(self.speed),
            "candidates": [asdict(verdict) for verdict in self.verdicts],
            "reasons": [asdict(reason) for reason in self.reasons],
        }


class MemoryOracle(Protocol):
    """Something that knows what a run takes; llama.cpp itself, or a fake in tests."""

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        """The places for layers beside the host, those behind the RPC endpoints included."""
        ...

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        """What the plan's run takes, one row per device, all host buffers under "Host"."""
        ...
