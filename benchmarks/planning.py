"""How long a plan takes: one file, ten quantizations of an 8B and a 30B-A3B model, known ones.

    .venv/bin/python -m benchmarks.planning [--rounds 7]

Whole commands (`localllm plan … --json`), headers with a real number of tokens in their vocabulary
(128k or 152k, 100k merges: 4 to 5 MB of header each), interleaved. On this machine, for a laptop
and a desktop that are not here, and once more from what is remembered of the first look. Goals: a
file in 0.4 s; ten quantizations, once their headers are local, in 1 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import half_billion_model, store
from tests.ggufs import byte_vocabulary, header_bytes
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
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, argv in commands.items():
                started = time.perf_counter()
                plan(*argv)
                seconds[name].append(time.perf_counter() - started)
    print(f"{'plan':<34} {'median':>9} {'least':>9}")
    for name, values in seconds.items():
        print(f"{name:<34} {statistics.median(values):7.2f} s {min(values):7.2f} s")
    store("planning", {"rounds": arguments.rounds, "seconds": seconds})


def plan(*argv: str) -> None:
    command = [sys.executable, "-m", "localllm", "plan", *argv, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())


def write(folder: Path, shape_id: str) -> Path:
    """Ten quantizations: whole headers, and holes for the weights."""
    shape = SHAPES[shape_id]
    models = folder / shape_id
    models.mkdir(parents=True)
    n_vocab = shape.model.sizes.vocab
    vocabulary = byte_vocabulary(n_vocab)
    vocabulary["tokenizer.ggml.merges"] = [f"w{at} x{at}" for at in range(_N_MERGES)]
    for quant in shape.quants[:10]:
        metadata = {**shape.metadata(quant), **vocabulary}
        tensors = shape.tensors(quant)
        data = header_bytes(metadata, tensors)
        n_bytes = sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
        path = models / f"{shape.title}-{quant}.gguf"
        path.write_bytes(data)
        with path.open("r+b") as file:
            file.truncate(len(data) + n_bytes)
    return models


if __name__ == "__main__":
    main()
