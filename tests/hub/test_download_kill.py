"""Downloads that are killed, find the disk full, or are eight at once: nothing wrong, little twice.

LOCALLLM_KILLS=200 kills as often as the project promises; a run without it does less.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localllm.digests import Claim
from localllm.errors import DiskError
from localllm.hub.download import download
from localllm.hub.pace import Connections
from localllm.hub.part import forget, settle, side_car
from localllm.hub.patience import Limits
from localllm.hub.remote import RemoteFile
from localllm.hub.web import Reply, Web
from localllm.units import KIB, MIB, format_bytes
from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.loopback_hub import Generated, LoopbackHub

N_KILLS = int(os.environ.get("LOCALLLM_KILLS", "15"))
N_OFFSETS = 50
#: What may be fetched again after each kill, by the issue that asked for this.
AGAIN_BYTES = 8 * MIB
CONTENT = Generated(48 * MIB + 4321)
RIGHT = CONTENT.read(0, CONTENT.size_bytes)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def url(hub: LoopbackHub) -> str:
    return hub.add_file("file", CONTENT)


def start(url: str, folder: Path, most: int) -> subprocess.Popen[str]:
    order = {
        "url": url,
        "size_bytes": CONTENT.size_bytes,
        "sha256": CONTENT.sha256,
        "folder": str(folder),
        "most": most,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hub.pulling", json.dumps(order)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept_by(part: Path) -> list[tuple[int, int]]:
    """What the next run will believe to be here."""
    try:
        told = json.loads(side_car(part).read_bytes())
    except FileNotFoundError:
        return []
    return [(first, last) for first, last in told["have"]]


def is_whole(part: Path) -> bool:
    return kept_by(part) == [(0, CONTENT.size_bytes)]


def arrived_in(part: Path) -> int:
    """How many bytes of the file are really here, in pages of 4 KiB: no page of it is empty."""
    if not part.exists():
        return 0
    held = part.read_bytes()
    places = range(0, len(held), 4 * KIB)
    return sum(4 * KIB for at in places if held[at : at + 4 * KIB] == RIGHT[at : at + 4 * KIB])


@dataclass
class Losses:
    """What each kill cost, in bytes.

    Attributes:
        here: that were in the part, and are fetched again.
        sent: that the server had sent besides what was kept: with what was still on its way.
    """

    here: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


def kill_at_random(
    hub: LoopbackHub, url: str, folder: Path, chance: random.Random, losses: Losses
) -> None:
    """One run that is killed somewhere between its first byte and its last."""
    part = folder / "file.part"
    before = kept_by(part)
    due_bytes = CONTENT.size_bytes - sum(end - start for start, end in before)
    hub.reset()
    hub.cap_bytes_per_second = chance.choice([None, 40 * MIB])
    process = start(url, folder, most=chance.choice([1, 8]))
    moment = chance.choice([chance.randint(0, due_bytes), chance.randint(0, due_bytes), due_bytes])
    at_the_end = chance.choice(["", "", "here", "named"])
    try:
        hub.wait_for(lambda: hub.sent_bytes() >= moment, PATIENCE_SECONDS)
        if moment == due_bytes and at_the_end == "here":  # then it hashes and syncs
            wait_until(lambda: is_whole(part) or not part.exists(), "the last byte")
        elif moment == due_bytes and at_the_end == "named":
            wait_until((folder / "file").exists, "the name")
    finally:
        process.kill()
        process.communicate()
    hub.wait_for(lambda: hub.connections == 0)
    if (folder / "file").exists():
        assert (folder / "file").read_bytes() == RIGHT
        (folder / "file").unlink()
        for left in (part, side_car(part)):
            left.unlink(missing_ok=True)
        return
    kept = kept_by(part)
    held = part.read_bytes() if part.exists() else b""
    for first, last in kept:
        assert held[first:last] == RIGHT[first:last]
    kept_bytes = sum(last - first for first, last in kept)
    fresh_bytes = kept_bytes - sum(last - first for first, last in before)
    assert fresh_bytes >= 0
    losses.here.append(max(0, arrived_in(part) - kept_bytes))
    losses.sent.append(hub.sent_bytes() - fresh_bytes)


def test_kill_9_at_any_moment_leaves_no_wrong_file_and_costs_little(
    hub: LoopbackHub, url: str, tmp_path: Path
) -> None:
    chance = random.Random(9)
    losses = Losses()
    for _ in range(N_KILLS):
        kill_at_random(hub, url, tmp_path, chance, losses)
        assert all(path.name.startswith("file.part") for path in tmp_path.iterdir())
    kept = sum(last - first for first, last in kept_by(tmp_path / "file.part"))
    hub.reset()
    hub.cap_bytes_per_second = None
    process = start(url, tmp_path, most=8)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert (tmp_path / "file").read_bytes() == RIGHT
    assert {path.name for path in tmp_path.iterdir()} == {"file", "file.part.lock"}
    # What was kept is not asked for again.
    assert json.loads(out)["fetched_bytes"] <= CONTENT.size_bytes - kept + AGAIN_BYTES
    sys.stdout.write(  # for pytest -rP
        f"{N_KILLS} kills, {len(losses.here)} of them before the end: at most"
        f" {format_bytes(max(losses.here))} that were here are fetched again, and"
        f" {format_bytes(max(losses.sent))} counting what was on its way\n"
    )
    assert max(losses.here) <= AGAIN_BYTES


def test_another_process_takes_over_where_a_killed_one_stopped(
    hub: LoopbackHub, url: str, tmp_path: Path
) -> None:
    hub.cap_bytes_per_second = 40 * MIB
    first, second = start(url, tmp_path, most=1), start(url, tmp_path, most=1)
    try:
        hub.wait_for(lambda: hub.sent_bytes() >= CONTENT.size_bytes // 2, PATIENCE_SECONDS)
        (owner,) = owners(tmp_path / "file.part", (first, second))
        owner.kill()
        heir = second if owner is first else first
        out, err = heir.communicate(timeout=PATIENCE_SECONDS)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert heir.returncode == 0, err
    assert (tmp_path / "file").read_bytes() == RIGHT
    assert json.loads(out)["fetched_bytes"] <= CONTENT.size_bytes // 2 + AGAIN_BYTES


def owners(part: Path, processes: Sequence[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """The processes that have the part open."""
    found = []
    for process in processes:
        folder = Path(f"/proc/{process.pid}/fd")
        if any(each.resolve() == part.resolve() for each in folder.iterdir()):
            found.append(process)
    return found


def test_eight_processes_make_one_download(hub: LoopbackHub, url: str, tmp_path: Path) -> None:
    hub.cap_bytes_per_second = 40 * MIB
    processes = [start(url, tmp_path, most=1) for _ in range(8)]
    told = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, err
            told.append(json.loads(out))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [each["sha256"] for each in told] == [CONTENT.sha256] * 8
    assert sorted(each["fetched_bytes"] for each in told) == [*[0] * 7, CONTENT.size_bytes]
    assert len(hub.requests) == 1


SMALLER = Generated(20 * MIB + 1234, seed=5)
PROVEN = (Claim("sha256", SMALLER.sha256, "the test"),)
QUICK = Limits(idle_seconds=PATIENCE_SECONDS, backoff_seconds=0.01)


class FullDisk(RemoteFile):
    """Lets no file of this process grow beyond a size, from the first byte that is fetched on."""

    def __init__(self, url: str, limit_bytes: int) -> None:
        super().__init__(Web(QUICK), url, "file", size_bytes=SMALLER.size_bytes)
        self._limit_bytes = limit_bytes

    def open(self, start: int, end: int) -> Reply:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit_bytes, hard))
        return super().open(start, end)


@pytest.fixture
def _room() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def resume(url: str, part: Path) -> None:
    """There is room again: only what is not here is fetched, and it is the right file."""
    kept_bytes = sum(last - first for first, last in kept_by(part))
    remote = RemoteFile(Web(QUICK), url, "file", size_bytes=SMALLER.size_bytes)
    done = download(remote, part, PROVEN, connections=Connections(most=1))
    assert done.kept_bytes == kept_bytes
    assert done.fetched_bytes == SMALLER.size_bytes - kept_bytes
    settle(part, part.with_name("file"))
    forget(part)
    assert part.with_name("file").read_bytes() == SMALLER.read(0, SMALLER.size_bytes)
    assert [path.name for path in part.parent.iterdir()] == ["file"]


@pytest.mark.usefixtures("_room")
@pytest.mark.parametrize("most", [1, 4])
def test_a_limit_on_the_size_of_files_keeps_what_is_here(
    hub: LoopbackHub, tmp_path: Path, most: int
) -> None:
    url = hub.add_file("file", SMALLER)
    part = tmp_path / "file.part"
    chance = random.Random(most)
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(N_OFFSETS // 2):
        limit_bytes = chance.randrange(KIB, SMALLER.size_bytes)
        remote = FullDisk(url, limit_bytes)
        with pytest.raises(DiskError, match="no room") as error:
            download(remote, part, PROVEN, connections=Connections(most, 0.0, 0.0))
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
        assert error.value.exit_code == 8
        kept_bytes = sum(last - first for first, last in kept_by(part))
        if most == 1:  # else a piece far ahead may be the first that finds no room
            assert limit_bytes - kept_bytes <= AGAIN_BYTES
        resume(url, part)
        (tmp_path / "file").unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder)
    if not disk.mount(f"size={MIB}"):
        pytest.skip("mounting is not permitted")
    try:
        yield disk
    finally:
        subprocess.run(["umount", folder], check=True)


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs."""

    folder: Path

    def mount(self, options: str) -> bool:
        if shutil.which("mount") is None:
            return False
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def resize(self, size_bytes: int) -> None:
        assert self.mount(f"remount,size={size_bytes}")


def test_a_full_disk_keeps_what_is_here(hub: LoopbackHub, small_disk: SmallDisk) -> None:
    url = hub.add_file("file", SMALLER)
    part = small_disk.folder / "file.part"
    chance = random.Random(7)
    for _ in range(N_OFFSETS):
        room_bytes = chance.randrange(64 * KIB, SMALLER.size_bytes)
        most = chance.choice([1, 4])
        small_disk.resize(room_bytes)
        remote = RemoteFile(Web(QUICK), url, "file", size_bytes=SMALLER.size_bytes)
        with pytest.raises(DiskError, match="no room") as error:
            download(remote, part, PROVEN, connections=Connections(most, 0.0, 0.0))
        assert error.value.exit_code == 8
        kept_bytes = sum(last - first for first, last in kept_by(part))
        assert room_bytes - kept_bytes <= AGAIN_BYTES
        small_disk.resize(2 * SMALLER.size_bytes)
        resume(url, part)
        (small_disk.folder / "file").unlink()
