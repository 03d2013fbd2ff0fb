"""How fast a verified download is, beside curl and the hash alone.

    .venv/bin/python -m benchmarks.downloads [--size 1G] [--rounds 5] [--folder DIR]

Everything from one loopback server, interleaved, medians of ratios:
- one connection against `curl -o`, against `sha256` alone, and against both one after the other;
- the same with the hash left out: what hashing adds;
- a server that caps each connection, against N times the cap;
- one connection of a capped server, with and without the hash: what hashing adds where a network
  and not this machine is the limit;
- the most memory that a downloading process ever held.
The goals: at least 0.9 of the slower of curl and the hash, hashing adds 10 % at most, within 20 %
of N times the cap, 150 MB. With --folder on a disk the last write to it counts as well: ours waits
until the file is on the disk, curl does not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import store
from localllm.units import MIB, format_bytes, parse_bytes

#: A line of 3.2 Gbit/s.
_LINE = 400_000_000
_CHILD = """
import json, resource, sys, time
from pathlib import Path
from localllm.digests import Claim
from localllm.hub import download as room
from localllm.hub.remote import RemoteFile
from localllm.hub.web import Web

url, part, sha256, most, hashes = sys.argv[1:]
claims = [Claim("sha256", sha256, "the benchmark")]
if hashes == "no":
    class Digester(room.Digester):
        def update(self, piece):
            pass
        def hexdigests(self):
            return {"sha256": sha256}
    room.Digester = Digester
counts = []
started = time.perf_counter()
done = room.download(
    RemoteFile(Web(), url, "the file"), Path(part), claims,
    connections=room.Connections(most=int(most)),
    on_progress=lambda progress: counts.append(progress.n_connections),
)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "connections": max(counts)}))
"""
_HASH = """
import hashlib, sys, time
started = time.perf_counter()
digest, piece = hashlib.sha256(), memoryview(bytearray(1 << 20))
with open(sys.argv[1], "rb", buffering=0) as file:
    while n_bytes := file.readinto(piece):
        digest.update(piece[:n_bytes])
print(digest.hexdigest(), time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1G")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--cap", default="25M", help="bytes a second of a connection")
    arguments = parser.parse_args()
    size = parse_bytes(arguments.size)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "source.bin"
        write(source, size)
        result = {
            "size_bytes": size,
            "folder": str(arguments.folder),
            "one": one_connection(folder, source, size, arguments.rounds),
            "capped": capped(folder, source, size, parse_bytes(arguments.cap)),
        }
    store("downloads", result)


def one_connection(folder: Path, source: Path, size: int, rounds: int) -> dict[str, Any]:
    runs: list[dict[str, float]] = []
    with served(source) as url:
        for _ in range(rounds):
            target = folder / "out"
            started = time.perf_counter()
            subprocess.run(["curl", "-s", "-o", str(target), url], check=True)
            curl = time.perf_counter() - started
            target.unlink()
            sha256, seconds = run(_HASH, str(source)).split()
            target = folder / "out.part"
            ours = child(url, target, sha256, 1)
            unhashed = child(url, target, sha256, 1, hashes="no")
            many = child(url, target, sha256, 8)
            runs.append(
                {
                    "curl": curl,
                    "sha256": float(seconds),
                    "ours": ours["seconds"],
                    "unhashed": unhashed["seconds"],
                    "up to 8": many["seconds"],
                    "peak_bytes": max(ours["peak_bytes"], many["peak_bytes"]),
                }
            )
    for name in ("curl", "sha256", "ours", "unhashed", "up to 8"):
        rate = size / statistics.median(each[name] for each in runs)
        print(f"{name:<28} {rate / 1e9:6.2f} GB/s")
    ratios = {
        "of curl -o": [r["curl"] / r["ours"] for r in runs],
        "of the slower of curl, hash": [max(r["curl"], r["sha256"]) / r["ours"] for r in runs],
        "of curl, then the hash": [(r["curl"] + r["sha256"]) / r["ours"] for r in runs],
        "hashing adds": [r["ours"] / r["unhashed"] - 1 for r in runs],
    }
    for name, values in ratios.items():
        print(f"{name:<28} {statistics.median(values):6.2f}")
    peak = max(each["peak_bytes"] for each in runs)
    print(f"{'most memory':<28} {format_bytes(peak)}")
    return {"runs": runs, "ratios": ratios, "peak_bytes": peak}


def capped(folder: Path, source: Path, size: int, cap: int) -> dict[str, Any]:
    sha256 = run(_HASH, str(source)).split()[0]
    result: dict[str, Any] = {"cap": cap}
    with served(source, "--cap", str(_LINE)) as url:
        seconds = {
            hashes: child(url, folder / "out.part", sha256, 1, hashes)["seconds"]
            for hashes in ("yes", "no")
        }
    added = seconds["yes"] / seconds["no"] - 1
    print(f"{'hashing adds, at 400 MB/s':<28} {added:6.2f}")
    result["hashing adds at 400 MB/s"] = added
    with served(source, "--cap", str(cap)) as url:
        for most in (2, 4, 8):
            told = child(url, folder / "out.part", sha256, most)
            rate = size / told["seconds"]
            result[str(most)] = {**told, "of_n_caps": rate / (most * cap)}
            print(
                f"capped, up to {most} connections: {rate / 1e6:7.1f} MB/s,"
                f" {rate / (most * cap):.2f} of {most} x {cap / 1e6:.0f} MB/s"
            )
    return result


def child(url: str, part: Path, sha256: str, most: int, hashes: str = "yes") -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(_CHILD, url, str(part), sha256, str(most), hashes))
    for path in part.parent.glob(f"{part.name}*"):
        path.unlink()
    return told


def run(code: str, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


@contextmanager
def served(path: Path, *flags: str) -> Iterator[str]:
    """The loopback hub as a process of its own; gives the file's URL."""
    command = [sys.executable, "-m", "tests.loopback_hub", "--file", str(path), *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        try:
            yield next(iter(told["urls"].values()))
        finally:
            server.communicate()  # closes its standard input, on which it ends


def write(path: Path, size: int) -> None:
    piece = os.urandom(64 * MIB)
    with path.open("wb") as file:
        for start in range(0, size, len(piece)):
            file.write(piece[: size - start])


if __name__ == "__main__":
    main()
