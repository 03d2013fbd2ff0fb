"""What a person asked for outright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: llama.cpp pads the context to a multiple of this (GGML_PAD(n_ctx, 256) in llama-context.cpp).
CTX_STEP = 256
ALL_LAYERS = -1


@dataclass(frozen=True)
class Wishes:
    """Explicit values; None leaves one to the planner. What is set is kept, or refused.

    `quant` names a candidate by its label; `prefer` weighs quality or speed; the rest are fields
    of the Plan.
    """

    quant: str | None = None
    prefer: Literal["quality", "speed"] = "quality"
    n_ctx: int | None = None
    n_parallel: int | None = None
    n_gpu_layers: int | None = None
    n_threads: int | None = None
    n_threads_batch: int | None = None
    type_k: str | None = None
    type_v: str | None = None
    flash_attn: Literal["auto", "on", "off"] | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    rpc: tuple[str, ...] = ()
    mmproj: str | None = None
