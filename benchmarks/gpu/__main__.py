"""Plans checked against an NVIDIA GPU, on a machine that need not have a network.

    .venv/bin/python -m benchmarks.gpu pack                # where there is a network
    python3 -m benchmarks.gpu look                         # the rest where the GPU is
    python3 -m benchmarks.gpu build --architecture 90
    python3 -m benchmarks.gpu models
    python3 -m benchmarks.gpu check [--minutes 9]          # again until it says that all is done
    python3 -m benchmarks.gpu report

Everything lies in one folder (--folder, benchmarks/results/local/gpu of the checkout): what `pack`
leaves there is carried with the checkout, some 25 MB. Each step can be cut off and given again, and
goes on: the build by ninja's log, models and cards by the files that are there.

`check` emulates cards: it takes the GPU's memory away until only so much is free, plans with
localllm, runs llama-server with a full context, and compares the plan with what NVML saw at most.
Wanted: no plan runs out of memory, errors within 2 % or 256 MiB after the canary, n_gpu_layers
within 1 of the largest that works.

Without a GPU: `--stand-in` puts a loopback device in its place, with the same steps:

    .venv/bin/python -m benchmarks.gpu models --models 0.5b:Q4_K_M
    .venv/bin/python -m benchmarks.gpu check --stand-in --models 0.5b:Q4_K_M --ctx 1024 --gib 0.4 2
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import source
from benchmarks.gpu.source import Folder
from localllm.engine.recipe import BuildError

FOLDER = Path(__file__).parents[1] / "results" / "local" / "gpu"
MODELS = ("8b:Q4_K_M", "8b:Q8_0", "30b-a3b:Q4_K_M", "12b-swa:Q4_K_M")
SIZES_GIB = (8.0, 12.0, 16.0, 24.0, 48.0)


def main() -> None:
    arguments = _parser().parse_args()
    folder = Folder(arguments.folder.resolve())
    folder.root.mkdir(parents=True, exist_ok=True)
    try:
        arguments.step(folder, arguments)
    except BuildError as exc:
        sys.exit(f"{exc.message}\nhint: {exc.hint}")
    except subprocess.CalledProcessError as exc:
        sys.exit(f"{exc.cmd[0]} left with {exc.returncode}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", type=Path, default=FOLDER)
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--models", nargs="+", default=MODELS, metavar="SHAPE:QUANT",
                        help="shapes of tests/shapes")  # fmt: skip
    backend = argparse.ArgumentParser(add_help=False)
    backend.add_argument("--backend", choices=("cuda", "cpu"), default="cuda")
    steps = parser.add_subparsers(required=True, metavar="STEP")

    def step(name: str, function: Any, about: str, *more: argparse.ArgumentParser) -> Any:
        added = steps.add_parser(name, help=about, parents=[common, *more])
        added.set_defaults(step=function)
        return added

    packing = step("pack", _pack, "the engine's source and Python packages, to carry")
    packing.add_argument("--sdist", type=Path, help="llama-cpp-python's, instead of a download")
    packing.add_argument("--python", default="3.12", help="the other machine's Python")
    packing.add_argument("--also", nargs="*", default=[], help="what else it lacks: cmake ninja")
    step("look", _look, "what the machine has, and what it lacks", backend)
    building = step("build", _build, "the engine, from what was carried", backend)
    building.add_argument("--architecture", default="90", help="the GPU's, as CMake takes it")
    building.add_argument("--jobs", type=int, help="compilers at a time")
    step("models", _models, "GGUF files with random weights", chosen)
    checking = step("check", _check, "plans against cards", chosen)
    checking.add_argument("--gib", type=float, nargs="+", default=SIZES_GIB, help="cards")
    checking.add_argument("--goal", default="chat")
    checking.add_argument("--ctx", type=int, help="the context, instead of the planner's choice")
    checking.add_argument("--tries", type=int, default=3, help="neighbours of a plan, at most")
    checking.add_argument("--minutes", type=float, default=9.0, help="end before they are over")
    checking.add_argument("--stand-in", action="store_true", help="a loopback device as the card")
    step("report", _report, "the table of what was checked, and its result file").add_argument(
        "--stand-in", action="store_true", help="of the loopback device"
    )
    return parser


def _pack(folder: Folder, arguments: argparse.Namespace) -> None:
    n_bytes = source.pack(folder, arguments.sdist, arguments.python, arguments.also)
    print(f"{n_bytes / 1e6:.1f} MB in {folder.root}: source.tar.xz and wheels/")
    if n_bytes > source.CARRY_BYTES:
        sys.exit(f"that is more than {source.CARRY_BYTES >> 20} MiB")


def _look(folder: Folder, arguments: argparse.Namespace) -> None:
    source.unpack(folder)
    folder.enter()
    if not source.look(folder, arguments.backend):
        sys.exit("something is missing")


def _build(folder: Folder, arguments: argparse.Namespace) -> None:
    _look(folder, arguments)
    source.build(folder, arguments.backend, arguments.architecture, arguments.jobs)
    print(f"the engine is in {folder.engine}")


def _models(folder: Folder, arguments: argparse.Namespace) -> None:
    folder.enter()
    from benchmarks.gpu import models

    for name in arguments.models:
        started = time.monotonic()
        path = models.write(folder.models, *name.split(":"))
        n_bytes, seconds = path.stat().st_size, time.monotonic() - started
        print(f"{name:<20}{n_bytes / 1e9:8.2f} GB{seconds:8.1f} s  {path.name}", flush=True)


def _check(folder: Folder, arguments: argparse.Namespace) -> None:
    folder.enter()
    from benchmarks.gpu import cards, check, models
    from tests.shapes import SHAPES

    began, longest = time.monotonic(), 0.0
    make = cards.stand_in if arguments.stand_in else cards.gpu
    asked = str(arguments.ctx or arguments.goal)
    for name, gib in itertools.product(arguments.models, arguments.gib):
        model = name.replace(":", "-")
        kept = folder.results / f"{_kind(arguments)}-{gib:g}-{model}-{asked}.json"
        if kept.exists():
            continue
        if began + arguments.minutes * 60 < time.monotonic() + longest:
            sys.exit("time is up: give the same command again, and it goes on")
        started = time.monotonic()
        shape, quant = name.split(":")
        path, n_vocab = models.write(folder.models, shape, quant), SHAPES[shape].model.sizes.vocab
        try:
            with make(int(gib * 2**30)) as card:
                found = check.check(
                    card, path, n_vocab, arguments.goal, arguments.ctx, arguments.tries
                )
        except cards.CardError as exc:
            print(f"{gib:>4g} G {name:<16}{exc}", flush=True)
            continue
        row = {"card_gib": gib, "model": name, "asked": asked, **found}
        _keep(kept, row)
        longest = max(longest, time.monotonic() - started)
        print(_line(row), flush=True)
    print("all is done")


def _report(folder: Folder, arguments: argparse.Namespace) -> None:
    folder.enter()
    from benchmarks.common import store

    kind = _kind(arguments)
    paths = sorted(folder.results.glob(f"{kind}-[0-9]*.json"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not rows:
        sys.exit(f"there are no results in {folder.results}: check first")
    rows.sort(key=lambda row: (row["asked"], row["model"], row["card_gib"]))
    print(_HEAD)
    for row in rows:
        print(_line(row))
    ran = [row for row in rows if "refused" not in row]
    outcomes = [row[run]["outcome"] for row in rows for run in ("first", "second") if run in row]
    summary = {
        "n_checked": len(ran),
        "n_refused": len(rows) - len(ran),
        "n_out_of_memory": outcomes.count("out of memory"),
        "n_failed": outcomes.count("failed"),
        "n_good_predictions": sum(row["is_good"] for row in ran),
        "n_layers_within_1": sum(
            row["steps_to_spare"] is not None and abs(row["steps_to_spare"]) <= 1 for row in ran
        ),
    }
    print(", ".join(f"{name[2:].replace('_', ' ')}: {n}" for name, n in summary.items()))
    store(kind, {**summary, "rows": rows})


_HEAD = (
    f"{'card':>6} {'model':<16}{'asked':<14}{'layers':>7}{'ctx':>8} {'KV':<6}"
    f"{'predicted, first and after the canary':>38}{'at most':>10}{'error':>9}  "
    f"{'ran':<14}{'spare':>6}{'tok/s, estimated and measured':>31}"
)


def _line(row: dict[str, Any]) -> str:
    """One row of the table; memory in MiB."""
    start = f"{row['card_gib']:>4g} G {row['model']:<16}{row['asked']:<14}"
    if "refused" in row:
        return f"{start}  {row['refused']}"
    first, second = row["first"], row["second"]
    predicted, peak = second["predicted_bytes"], second["peak_bytes"]
    before = f"{first['predicted_bytes'] / 2**20:.0f} {predicted / 2**20:.0f}"
    speeds = (first["estimated"].get("decode"), second["measured"].get("decode"))
    rates = " ".join("?" if speed is None else f"{speed:.1f}" for speed in speeds)
    spare = "?" if row["steps_to_spare"] is None else str(row["steps_to_spare"])
    return (
        f"{start}{second['n_gpu_layers']:>7}{second['n_ctx']:>8} {second['type_k']:<6}"
        f"{before:>38}{peak / 2**20:>10.0f}{(predicted - peak) / 2**20:>+9.0f}  "
        f"{second['outcome']:<14}{spare:>6}{rates:>31}"
    )


def _kind(arguments: argparse.Namespace) -> str:
    return "gpu-stand-in" if arguments.stand_in else "gpu"


def _keep(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
