"""What a model that is really loaded takes: the other half of a test of the dry run.

`Loaded` answers the same questions as `localllm.engine.dryrun.DryRun`, from a child that is the
dry run's own, except that it allocates everything and reads the weights.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from localllm.engine.dryrun import DryRun
from localllm.engine.locate import Tools
from localllm.engine.loopback import loopback_devices
from localllm.hub.localfile import open_model
from localllm.plan import Model, Plan
from tests.architectures.blocks import Architecture

_ROOT = Path(__file__).parent.parent.parent

#: How models are run: changes to `small_plan`. Layers are a share of all of them, the output too.
SETUPS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "two slots": {"n_parallel": 2},
    "q8_0 cache": {"type_k": "q8_0", "type_v": "q8_0"},
    "no flash attention": {"flash_attn": "off"},
    "no layer": {"layers": 0.0},
    "some layers": {"layers": 0.5},
    "all layers": {"layers": 1.0},
    "all layers, two slots": {"layers": 1.0, "n_parallel": 2},
}


def small_plan(architecture: Architecture, path: Path, setup: str, rpc: str | None) -> Plan:
    """One of SETUPS for a small model, with the device at an endpoint or on the CPU alone."""
    changes = dict(SETUPS[setup])
    share = changes.pop("layers", None)
    if share is not None:
        # All of them by a number that no model has: some run their layers several times over.
        n_layers = 99 if share == 1.0 else math.ceil(share * (architecture.n_layers + 1))
        changes["n_gpu_layers"] = n_layers
        changes["rpc"] = (rpc,)
    model = Model(architecture.id, str(path))
    return Plan(model, n_ctx=1024, n_batch=512, n_ubatch=256, **changes)


def write_outline(path: Path) -> Path:
    """The model's outline with a hole of the weights' size, beside the model."""
    (outline,) = open_model(path, path.name, "file").outlines
    written = path.with_suffix(".outline.gguf")
    with written.open("wb") as file:
        file.write(outline.data)
        file.truncate(outline.size_bytes)
    return written


def wants_device(setup: str) -> bool:
    """Whether a setup places layers on a device."""
    return "layers" in SETUPS[setup]


def sizes_of(oracle: DryRun, plan: Plan) -> dict[str, tuple[int, int, int]]:
    """Bytes of model, context and compute, by device."""
    return {
        row.device: (row.model_bytes, row.context_bytes, row.compute_bytes)
        for row in oracle.memory(plan)
    }


class Loaded(DryRun):
    """The memory of really loaded models; a context manager, for its child.

    Args:
        load_mode: "none" reads the weights into buffers, "mmap" maps the file.
    """

    def __init__(self, load_mode: str = "none") -> None:
        super().__init__()
        self._load_mode = load_mode

    def _start_child(self, stderr: IO[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.architectures.loaded", self._load_mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
            cwd=_ROOT,
        )


@contextlib.contextmanager
def loopback_device(tools: Tools) -> Iterator[str]:
    """The endpoint of a device of its own, served on loopback; it takes one client at a time."""
    with loopback_devices(tools, 1) as (endpoint,):
        yield endpoint


def main() -> None:
    """Answers questions about models that it really loads."""
    from localllm.engine import dryrun_child

    dryrun_child._LAST_PLANNED_FOR_ONE_SLOT = ()  # what this one takes needs no correction
    llama_cpp = dryrun_child.llama_cpp
    load_mode = getattr(llama_cpp, f"LLAMA_LOAD_MODE_{sys.argv[1].upper()}")
    load = llama_cpp.llama_model_load_from_file

    def really_load(path: bytes, params: Any) -> Any:
        params.no_alloc, params.load_mode = False, load_mode
        return load(path, params)

    llama_cpp.llama_model_load_from_file = really_load
    dryrun_child.main()


if __name__ == "__main__":
    main()
