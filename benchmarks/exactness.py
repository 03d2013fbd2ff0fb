"""How far the dry run is from what llama.cpp really takes, for 150 small architectures.

    .venv/bin/python -m benchmarks.exactness [--all]

Each model is dry-run from its outline (a header without vocabulary and weights) and then loaded,
on the CPU alone and with a loopback device that holds none, some and all of its layers. The table
shows where bytes per device differ, and every row with --all; the result holds every row.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import store
from localllm.engine.dryrun import DryRun
from localllm.engine.locate import RPC_SERVER, require_tools
from localllm.errors import LocalllmError
from tests.architectures.loaded import (
    SETUPS,
    Loaded,
    loopback_device,
    sizes_of,
    small_plan,
    wants_device,
    write_outline,
)
from tests.architectures.table import ARCHITECTURES

PARTS = ("model", "context", "compute")


@dataclass(frozen=True)
class Row:
    """One part of one device's memory, bytes."""

    architecture: str
    setup: str
    device: str
    part: str
    predicted: int
    loaded: int

    @property
    def error(self) -> float:
        """The difference as a share of what was loaded."""
        return abs(self.predicted - self.loaded) / max(self.loaded, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="print the exact rows too")
    arguments = parser.parse_args()
    refused: dict[str, str] = {}
    rows = list(measure(refused))
    print(f"{'architecture':<20}{'setup':<24}{'device':<8}{'part':<9}{'predicted':>12}{'loaded':>12}"
          f"{'error':>9}")  # fmt: skip
    for row in rows:
        if row.error or arguments.all:
            print(f"{row.architecture:<20}{row.setup:<24}{row.device:<8}{row.part:<9}"
                  f"{row.predicted:>12}{row.loaded:>12}{row.error:>9.3%}")  # fmt: skip
    for run, reason in refused.items():
        print(f"not run: {run}: {reason}")
    worst = {part: max(row.error for row in rows if row.part == part) for part in PARTS}
    n_exact = sum(row.error == 0 for row in rows)
    print(f"{len(ARCHITECTURES)} architectures, {len(SETUPS)} setups: {n_exact} of {len(rows)} "
          "figures exact; largest errors "
          + ", ".join(f"{part} {error:.3%}" for part, error in worst.items()))  # fmt: skip
    store(
        "exactness",
        {
            "n_architectures": len(ARCHITECTURES),
            "n_figures": len(rows),
            "n_exact": n_exact,
            "largest_error": worst,
            "not_run": refused,
            "inexact": [asdict(row) for row in rows if row.error],
            "loaded": _by_run(rows),
        },
    )


def _by_run(rows: list[Row]) -> dict[str, dict[str, str]]:
    """What was loaded, a line a run: "Host model+context+compute, RPC0 ..."."""
    runs: dict[str, dict[str, dict[str, list[str]]]] = {}
    for row in rows:
        devices = runs.setdefault(row.architecture, {}).setdefault(row.setup, {})
        devices.setdefault(row.device, []).append(str(row.loaded))
    return {
        architecture: {
            setup: ", ".join(f"{device} {'+'.join(sizes)}" for device, sizes in devices.items())
            for setup, devices in setups.items()
        }
        for architecture, setups in runs.items()
    }


def measure(refused: dict[str, str]) -> Iterator[Row]:
    """Every figure, and into `refused` why there is none for a run."""
    tools = require_tools(RPC_SERVER)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        devices = [stack.enter_context(loopback_device(tools)) for _ in range(2)]
        # Two of each: once a child knows of a device, it plans with it.
        dry = {with_device: stack.enter_context(DryRun()) for with_device in (False, True)}
        real = {with_device: stack.enter_context(Loaded()) for with_device in (False, True)}
        for architecture in ARCHITECTURES:
            path = architecture.write(folder)
            outline = write_outline(path)
            for setup in SETUPS:
                which = wants_device(setup)
                try:
                    predicted = sizes_of(
                        dry[which], small_plan(architecture, outline, setup, devices[0])
                    )
                    loaded = sizes_of(
                        real[which], small_plan(architecture, path, setup, devices[1])
                    )
                except LocalllmError as exc:
                    refused[f"{architecture.id}, {setup}"] = architecture.cannot.get(
                        setup, str(exc)
                    )
                    continue
                for device in sorted(predicted.keys() | loaded.keys()):
                    ours, theirs = (size.get(device, (0, 0, 0)) for size in (predicted, loaded))
                    for part, predicted_bytes, loaded_bytes in zip(
                        PARTS, ours, theirs, strict=True
                    ):
                        yield Row(
                            architecture.id, setup, device, part, predicted_bytes, loaded_bytes
                        )


if __name__ == "__main__":
    main()
