"""What the benchmarks share: where results go, a model of their own, medians and ratios."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.ggufs import Llama

RESULTS = Path(__file__).parent / "results"

#: The shape of a 0.6B chat model: 24 layers, a real vocabulary of 152k, Q4_K with a Q6_K output.
HALF_BILLION = Llama(
    n_layers=24,
    n_embd=1024,
    n_ff=2816,
    n_head=16,
    n_head_kv=8,
    n_vocab=151_936,
    n_ctx_train=32_768,
    kind="Q4_K",
    output_kind="Q6_K",
    file_type="Q4_K_M",
)


def half_billion_model() -> Path:
    """A random-weight GGUF of that shape, made once and kept in the temporary folder."""
    path = Path(tempfile.gettempdir()) / "localllm-bench-0.6b-q4_k_m.gguf"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        HALF_BILLION.write(part)
        part.replace(path)
    return path


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of neighbours: what drifts with the machine cancels out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def store(name: str, result: dict[str, Any]) -> None:
    """Prints where the result went; one file a benchmark, the newest run."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "benchmark": name,
        "when": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        **result,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"stored in benchmarks/results/{path.name}")
