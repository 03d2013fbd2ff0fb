"""Plans that were looked at and found good, kept in tests/data/plans: one file for each.

    python -m tests.planner.golden

writes them anew, after a change of the planner, of the policy or of the engine that is meant to
change them; what became of each is then to be read in the difference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.errors import DoesNotFitError
from localllm.planner import Wishes, choose
from tests.grid import Grid, candidates, open_grid, policy, presets

FOLDER = Path(__file__).parents[1] / "data" / "plans"


@dataclass(frozen=True)
class Cell:
    """A model on a machine for a goal."""

    shape: str
    preset: str
    goal: str

    @property
    def path(self) -> Path:
        """Where its plan is kept."""
        return FOLDER / f"{self.shape}-{self.preset}-{self.goal}.json"

    def __str__(self) -> str:
        return self.path.stem


#: Every preset once, every shape, and all goals; the last five do not fit.
CELLS = (
    Cell("0.5b", "board-raspberry-pi-5-8gb", "chat"),
    Cell("0.5b", "desktop-rx7900xtx-24gb", "serve"),
    Cell("1b", "cloud-2vcpu-4gb", "long-context"),
    Cell("1b", "laptop-2011-8gb", "chat"),
    Cell("4b", "laptop-rtx3050-4gb", "chat"),
    Cell("4b", "cloud-graviton3-16gb", "serve"),
    Cell("8b", "desktop-rtx3060-12gb", "chat"),
    Cell("8b", "laptop-office-16gb", "chat"),
    Cell("8b", "desktop-arc-a770-16gb", "long-context"),
    Cell("8b", "board-jetson-orin-64gb", "serve"),
    Cell("12b-swa", "mac-air-m2-16gb", "long-context"),
    Cell("12b-swa", "laptop-rtx4060-8gb", "chat"),
    Cell("12b-swa", "mac-mini-m4pro-24gb", "serve"),
    Cell("32b", "desktop-rtx3090-24gb", "chat"),
    Cell("32b", "desktop-rtx4070tisuper-16gb", "long-context"),
    Cell("30b-a3b", "desktop-rtx4090-rtx3060", "long-context"),
    Cell("30b-a3b", "board-dgx-spark-128gb", "serve"),
    Cell("8x7b", "workstation-2x-xeon-128gb", "serve"),
    Cell("80b-a3b", "mac-book-m3max-64gb", "chat"),
    Cell("80b-a3b", "server-h200-141gb", "serve"),
    Cell("120b-moe", "desktop-rtx4090-24gb", "chat"),
    Cell("120b-moe", "mini-strix-halo-128gb", "long-context"),
    Cell("120b-moe", "server-a100-80gb", "serve"),
    Cell("70b", "desktop-2x-rtx3090", "chat"),
    Cell("70b", "server-h100-80gb", "long-context"),
    Cell("405b", "mac-studio-m2ultra-192gb", "chat"),
    Cell("405b", "server-2x-epyc-512gb", "chat"),
    Cell("405b", "server-8x-h100", "serve"),
    Cell("405b", "desktop-rtx5090-32gb", "chat"),
    Cell("70b", "mac-air-m2-16gb", "chat"),
    Cell("120b-moe", "laptop-office-16gb", "chat"),
    Cell("8x7b", "laptop-rtx4060-8gb", "serve"),
    Cell("8b", "cloud-2vcpu-4gb", "long-context"),
)


def replanned(grid: Grid, cell: Cell) -> dict[str, Any]:
    """What is chosen now, as far as it decides anything; or the refusal."""
    hardware, goal = presets()[cell.preset], policy().goal(cell.goal)
    try:
        plan = choose(
            hardware, candidates(cell.shape), policy(), Wishes(), goal, grid.oracle(hardware)
        )
    except DoesNotFitError as refused:
        return {"refused": refused.message, "hint": refused.hint}
    verdicts = [verdict for verdict in plan.verdicts if verdict.fits and verdict.why_not is None]
    return {
        "quant": plan.model.quant,
        "type_k": plan.type_k,
        "where": verdicts[0].where,
        "n_gpu_layers": plan.n_gpu_layers,
        "devices": None if plan.devices is None else list(plan.devices),
        "tensor_split": None if plan.tensor_split is None else list(plan.tensor_split),
        "tensor_overrides": list(plan.tensor_overrides),
        "n_ctx": plan.n_ctx,
        "n_parallel": plan.n_parallel,
        "n_ubatch": plan.n_ubatch,
        "memory": [
            {
                "device": row.device,
                "model_bytes": row.model_bytes,
                "context_bytes": row.context_bytes,
            }
            for row in plan.memory
        ],
    }


def shapes() -> tuple[str, ...]:
    """Those of the cells."""
    return tuple(sorted({cell.shape for cell in CELLS}))


def rewrite() -> list[Path]:
    """Plans all cells anew, and takes away what is no cell; the files that changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    changed = []
    with open_grid(shapes()) as grid:
        for cell in CELLS:
            text = json.dumps(replanned(grid, cell), indent=2) + "\n"
            if not cell.path.is_file() or cell.path.read_text("utf-8") != text:
                cell.path.write_text(text, "utf-8")
                changed.append(cell.path)
    for path in {*FOLDER.glob("*.json")} - {cell.path for cell in CELLS}:
        path.unlink()
        changed.append(path)
    return changed


if __name__ == "__main__":
    import sys

    for path in rewrite():
        sys.stdout.write(f"{path.name}\n")
