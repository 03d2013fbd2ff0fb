"""How long a plan takes: one file, ten quantizations of a model, known ones, from a hub.

    .venv/bin/python -m benchmarks.planning [--rounds 7]

Whole commands (`localllm plan … --json`), headers with a real number of tokens in their vocabulary
(128k or 152k, 100k merges: 4 to 5 MB of header each), interleaved. On this machine, for a laptop
and a desktop that are not here, and once more from what is remembered of the first look. Goals: a
file in 0.4 s; ten quantizations, once their headers are local, in 1 s; from a hub on loopback in
3 s, with one whole header fetched and at most 1 MiB for each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import half_billion_model, store
from tests.ggufs import byte_vocabulary, header_bytes
from tests.loopback_hub import HeaderOnly, LoopbackHub
from tests.loopback_hub.contents import Content
from tests.shapes import SHAPES

_N_MERGES = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LOCALLLM_HOME"] = str(folder / "home")
        dense, sparse = write(folder, "8b"), write(folder, "30b-a3b")
        known = write(folder / "known", "8b")
        plan(str(known))
        for path in known.iterdir():
            path.unlink()
        commands = {
            "a file": [str(half_billion_model())],
            "10 of 8B": [str(dense), "--ram", "64G"],
            "10 of 8B, known": [str(known), "--ram", "64G"],
            "10 of 8B, laptop 8 GB GPU": [str(dense), "--hw", "laptop-rtx4060-8gb"],
            "10 of 30B-A3B": [str(sparse), "--ram", "64G"],
            "10 of 30B-A3B, desktop 12 GB GPU": [str(sparse), "--hw", "desktop-rtx3060-12gb"],
            "10 of 4B from a hub": ["org/4b", "--ram", "64G"],
            "10 of 30B-A3B from a hub": ["org/30b-a3b", "--ram", "64G"],
            "the same, seen before": ["org/seen", "--ram", "64G"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        fetched: dict[str, int] = {}
        with LoopbackHub() as hub:
            os.environ["HF_ENDPOINT"] = hub.endpoint
            for shape_id in ("4b", "30b-a3b"):
                hub.add_repo(f"org/{shape_id}", published(shape_id))
            hub.add_repo("org/seen", published("30b-a3b"))
            plan("org/seen", "--ram", "64G")
            for number in range(arguments.rounds):
                for name, argv in commands.items():
                    is_new = name.endswith("from a hub")
                    home = folder / f"new {number}" if is_new else folder / "home"
                    hub.reset()
                    started = time.perf_counter()
                    plan(*argv, home=home)
                    seconds[name].append(time.perf_counter() - started)
                    fetched[name] = hub.sent_bytes("*.gguf")
    print(f"{'plan':<34} {'median':>9} {'least':>9}")
    for name, values in seconds.items():
        over = f"  {fetched[name] / 1e6:6.2f} MB fetched" if "hub" in name else ""
        print(f"{name:<34} {statistics.median(values):7.2f} s {min(values):7.2f} s{over}")
    store("planning", {"rounds": arguments.rounds, "seconds": seconds, "fetched": fetched})


def plan(*argv: str, home: Path | None = None) -> None:
    command = [sys.executable, "-m", "localllm", "plan", *argv, "--json"]
    env = {**os.environ, "LOCALLLM_HOME": str(home)} if home else None
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=env
    )
    if done.returncode:
        raise SystemExit(done.stderr.decode())


def headers(shape_id: str) -> Iterator[tuple[str, bytes, int]]:
    """Ten quantizations: name, whole header, and bytes of the weights behind it."""
    shape = SHAPES[shape_id]
    vocabulary = byte_vocabulary(shape.model.sizes.vocab)
    vocabulary["tokenizer.ggml.merges"] = [f"w{at} x{at}" for at in range(_N_MERGES)]
    for quant in shape.quants[:10]:
        tensors = shape.tensors(quant)
        data = header_bytes({**shape.metadata(quant), **vocabulary}, tensors)
        n_bytes = sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
        yield f"{shape.title}-{quant}.gguf", data, n_bytes


def write(folder: Path, shape_id: str) -> Path:
    """Ten files with holes for the weights."""
    models = folder / shape_id
    models.mkdir(parents=True)
    for name, data, n_bytes in headers(shape_id):
        path = models / name
        path.write_bytes(data)
        with path.open("r+b") as file:
            file.truncate(len(data) + n_bytes)
    return models


def published(shape_id: str) -> dict[str, Content]:
    """The same as a repository."""
    return {
        name: HeaderOnly(len(data) + n_bytes, data) for name, data, n_bytes in headers(shape_id)
    }


if __name__ == "__main__":
    main()
