"""The verified download over real sockets: what is taken up, what is proven, what is given up."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localllm.digests import Algorithm, Claim
from localllm.errors import AccessError, IntegrityError, NetworkError
from localllm.hub import download as downloading
from localllm.hub.address import Credentials, Secret
from localllm.hub.download import Downloaded, Progress, download
from localllm.hub.huggingface import HuggingFace
from localllm.hub.pace import Connections, Pace
from localllm.hub.part import (
    Identity,
    Part,
    forget,
    settle,
    side_car,
    synced_side_car,
    url_digest,
)
from localllm.hub.patience import Limits, wait_asked
from localllm.hub.remote import RemoteFile
from localllm.hub.web import Web
from localllm.units import GIB, KIB, MIB
from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.loopback_hub import (
    BitFlip,
    Changed,
    Drip,
    ExpireAfter,
    Fault,
    Generated,
    IgnoreRange,
    LoopbackHub,
    RedirectTo,
    Reset,
    ServerError,
    Short,
    Stall,
    TooManyRequests,
    Truncate,
    WrongContentRange,
)
from tests.loopback_hub.contents import Content
from tests.loopback_hub.messages import Reply, Request

DATA = random.Random(1).randbytes(4 * MIB + 321)
OTHER = random.Random(2).randbytes(len(DATA))
SHA256 = hashlib.sha256(DATA).hexdigest()
PROVEN = (Claim("sha256", SHA256, "the test"),)
#: Quick to try again, slow to lose patience with a busy machine.
QUICK = Limits(idle_seconds=PATIENCE_SECONDS, backoff_seconds=0.01, attempts=4)
ONE = Connections(most=1)
#: Another connection at each look, whatever it brings.
SEVERAL = Connections(most=4, gain=0.0, settle_seconds=0.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_WATCH_SECONDS", 0.01)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


@pytest.fixture
def url(hub: LoopbackHub) -> str:
    return hub.add_file("a.gguf", DATA)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "a.part"


def fetch(
    url: str,
    part: Path,
    claims: tuple[Claim, ...] = PROVEN,
    *,
    limits: Limits = QUICK,
    size_bytes: int | None = None,
    credentials: Credentials | None = None,
    **options: Any,
) -> Downloaded:
    remote = RemoteFile(Web(limits), url, "a.gguf", size_bytes=size_bytes, credentials=credentials)
    return download(remote, part, claims, **options)


def interrupt_when(condition: Callable[[Progress], bool]) -> Callable[[Progress], None]:
    def look(progress: Progress) -> None:
        if condition(progress):
            raise KeyboardInterrupt

    return look


def begin(
    hub: LoopbackHub,
    url: str,
    part: Path,
    n_bytes: int,
    claims: tuple[Claim, ...] = PROVEN,
) -> None:
    """A download that brings the first bytes and is then interrupted; counters begin anew."""
    stalled = hub.misbehave(Stall(n_bytes), times=1)
    stop = interrupt_when(lambda p: p.done_bytes == n_bytes)
    with pytest.raises(KeyboardInterrupt):
        fetch(url, part, claims, connections=ONE, on_progress=stop)
    assert stalled.done == 1
    hub.behave()
    hub.reset()


def ranges(hub: LoopbackHub, route: str = "files") -> list[str | None]:
    """What was asked for, but for the question how long it is."""
    asked = [seen.range for seen in hub.requests if seen.route == route]
    return [each for each in asked if each != "bytes=0-0"]


def edit_side_car(part: Path, **changes: Any) -> None:
    told = json.loads(side_car(part).read_bytes())
    side_car(part).write_text(json.dumps({**told, **changes}))


class TestWhole:
    @pytest.mark.parametrize("connections", [ONE, SEVERAL], ids=["one", "several"])
    def test_brings_the_file_and_proves_it(
        self, hub: LoopbackHub, url: str, part: Path, connections: Connections
    ) -> None:
        hub.cap_bytes_per_second = 8 * MIB
        done = fetch(url, part, connections=connections)
        assert part.read_bytes() == DATA
        assert done.digests == {"sha256": SHA256}
        assert done.proofs == PROVEN
        assert done.kept_bytes == 0
        # Where a connection takes over from another, a little comes twice.
        assert len(DATA) <= done.fetched_bytes < 2 * len(DATA)
        assert (hub.files.max_connections > 1) is (connections is SEVERAL)

    @pytest.mark.parametrize(
        "size_bytes", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 8 * MIB, 8 * MIB + 1]
    )
    @pytest.mark.parametrize("connections", [ONE, SEVERAL], ids=["one", "several"])
    def test_any_size_comes_whole(
        self, hub: LoopbackHub, part: Path, size_bytes: int, connections: Connections
    ) -> None:
        content = Generated(size_bytes)
        url = hub.add_file("sized", content)
        claim = Claim("sha256", content.sha256, "the test")
        done = fetch(url, part, (claim,), size_bytes=size_bytes, connections=connections)
        assert part.read_bytes() == content.read(0, size_bytes)
        assert done.digests["sha256"] == content.sha256

    def test_the_final_name_is_given_only_by_settling(
        self, hub: LoopbackHub, url: str, part: Path, tmp_path: Path
    ) -> None:
        fetch(url, part)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "a.part.json"]
        settle(part, tmp_path / "a.gguf")
        forget(part)
        assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
        assert (tmp_path / "a.gguf").read_bytes() == DATA

    @pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
    @pytest.mark.parametrize("umask", [0o077, 0o022])
    def test_who_may_read_it_is_as_the_person_wants_it(
        self, url: str, part: Path, umask: int
    ) -> None:
        before = os.umask(umask)
        try:
            fetch(url, part)
        finally:
            os.umask(before)
        assert part.stat().st_mode & 0o777 == 0o666 & ~umask

    def test_more_than_4_gib_is_addressed_rightly(self, hub: LoopbackHub, hole: Path) -> None:
        content = Island(4 * GIB + 5 * MIB + 7)
        url = hub.add_file("huge", content)
        remote = RemoteFile(Web(QUICK), url, "huge")
        identity = Identity(url, url_digest(url), "", remote.size_bytes, etag=content.etag)
        around = range(4 * GIB - 3 * MIB, 4 * GIB + 3 * MIB)
        with Part(hole, identity) as begun:  # all but the island, which is where 32 bits end
            begun.have.add(0, around.start)
            begun.have.add(around.stop, content.size_bytes)
        hub.reset()
        done = download(remote, hole, connections=SEVERAL)
        assert len(around) <= done.fetched_bytes < len(around) + 4 * MIB
        assert done.kept_bytes == content.size_bytes - len(around)
        assert hole.stat().st_size == content.size_bytes
        with open(hole, "rb") as file:
            file.seek(around.start)
            assert file.read(len(around)) == content.read(around.start, around.stop)

    @pytest.fixture
    def hole(self, tmp_path: Path) -> Iterator[Path]:
        """A part in memory if there is such a disk: it reads a hole 50 times faster than ext4."""
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            yield Path(folder) / "huge.part"

    def test_memory_stays_the_same_for_a_gigabyte(self, tmp_path: Path) -> None:
        with hub_process("--generated", f"large={GIB}") as url:
            program = (
                "import sys; from pathlib import Path; from localllm.hub.web import Web;"
                "from localllm.hub.remote import RemoteFile;"
                "from localllm.hub.download import download;"
                "r = RemoteFile(Web(), sys.argv[1], 'large');"
                "d = download(r, Path(sys.argv[2])); print(d.fetched_bytes);"
                "print(Path('/proc/self/status').read_text())"
            )
            argv = [sys.executable, "-c", program, url, str(tmp_path / "large.part")]
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
            )
        fetched, _, status = done.stdout.partition("\n")
        (tmp_path / "large.part").unlink()
        # A connection that was given up on a busy machine has some of it fetched again.
        assert GIB <= int(fetched) < GIB + 4 * MIB
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        assert int(peak.split()[1]) * KIB <= 150 * MIB


class Island(Content):
    """Zeros, and in the middle of them 6 MiB that are none, around 4 GiB."""

    etag = '"island"'

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._land = random.Random(3).randbytes(6 * MIB)

    def read(self, start: int, stop: int) -> bytes:
        shore = 4 * GIB - 3 * MIB
        assert shore <= start <= stop <= shore + len(self._land) or stop == 1
        return self._land[start - shore : stop - shore] if start else bytes(stop)


@contextlib.contextmanager
def hub_process(*argv: str) -> Iterator[str]:
    """The URL of the one file that a hub in a process of its own has."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.loopback_hub", *argv],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            (url,) = json.loads(process.stdout.readline())["urls"].values()
            yield url
        finally:
            process.stdin.close()
            process.wait(PATIENCE_SECONDS)


class TestConnections:
    def test_their_number_grows_while_that_makes_it_faster(
        self, hub: LoopbackHub, part: Path
    ) -> None:
        content = Generated(12 * MIB)
        url = hub.add_file("capped", content)
        hub.cap_bytes_per_second = 2 * MIB
        seen = []
        fetch(
            url,
            part,
            (Claim("sha256", content.sha256, "the test"),),
            connections=Connections(most=4, settle_seconds=0.3),
            on_progress=lambda p: seen.append(p.n_connections),
        )
        assert max(seen) == hub.files.max_connections == 4
        assert hub.sent_bytes() < content.size_bytes + 4 * MIB  # next to nothing twice

    @pytest.mark.parametrize(
        ("rates", "wanted"),
        [
            ([10, 20, 40, 80], [1, 2, 4, 8, 8]),
            ([10, 10], [1, 2, 1, 1]),
            ([10, 20, 21], [1, 2, 4, 2, 2]),
            ([10, 11.9], [1, 2, 1]),
            ([10, 12.1], [1, 2, 4]),
        ],
        ids=["helps", "never-helps", "helps-once", "too-little", "just-enough"],
    )
    def test_their_number_goes_back_where_more_do_not_help(
        self, rates: list[float], wanted: list[int]
    ) -> None:
        pace = Pace(Connections(most=8, gain=1.2, settle_seconds=1.0))
        now, fetched, got = 0.0, 1, []
        for rate in rates:
            got.append(pace.wanted(fetched, now))  # begins to look
            now, fetched = now + 1.0, fetched + int(rate * MIB)
            pace.wanted(fetched, now)  # decides
        got += [pace.wanted(fetched, now)] * (len(wanted) - len(got))
        assert got == wanted

    def test_no_more_than_allowed_are_opened(self, hub: LoopbackHub, url: str, part: Path) -> None:
        hub.cap_bytes_per_second = 8 * MIB
        fetch(url, part, connections=Connections(most=2, gain=0.0, settle_seconds=0.0))
        # One that was closed may still be there for the hub when the next one comes.
        assert hub.files.max_connections <= 3

    def test_a_server_that_serves_one_connection_at_a_time_is_enough(self, part: Path) -> None:
        with Exclusive() as hub:
            url = hub.add_file("a.gguf", DATA)
            hub.cap_bytes_per_second = 8 * MIB
            refused = hub.misbehave(Busy(hub))
            limits = Limits(idle_seconds=PATIENCE_SECONDS, backoff_seconds=0.05, attempts=5)
            fetch(url, part, limits=limits, connections=SEVERAL)
        assert refused.done > 0
        assert part.read_bytes() == DATA


class Exclusive(LoopbackHub):
    """Knows which of its threads are sending."""

    def __init__(self) -> None:
        self.sending: set[threading.Thread] = set()
        super().__init__()

    def _sent(self, reply: Reply) -> None:
        self.sending.discard(threading.current_thread())
        super()._sent(reply)


class Busy(Fault):
    """503 while another connection is being served."""

    def __init__(self, hub: Exclusive) -> None:
        self._hub = hub

    def spoil(self, request: Request, reply: Reply) -> Reply | None:
        me = threading.current_thread()
        if any(thread.is_alive() for thread in self._hub.sending - {me}):
            return ServerError(503).spoil(request, reply)
        self._hub.sending.add(me)
        return None


class TestResume:
    def test_what_is_here_is_not_fetched_again(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        begin(hub, url, part, 3 * MIB + 5)
        done = fetch(url, part, connections=ONE)
        assert part.read_bytes() == DATA
        assert (done.kept_bytes, done.fetched_bytes) == (3 * MIB + 5, len(DATA) - 3 * MIB - 5)
        assert ranges(hub) == [f"bytes={3 * MIB + 5}-{len(DATA) - 1}"]

    def test_what_is_whole_is_only_hashed(self, hub: LoopbackHub, url: str, part: Path) -> None:
        fetch(url, part)
        hub.reset()
        done = fetch(url, part, size_bytes=len(DATA))
        assert done.digests["sha256"] == SHA256
        assert (done.kept_bytes, done.fetched_bytes, hub.requests) == (len(DATA), 0, [])

    def test_holes_are_filled_wherever_they_are(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        pieces = [(0, 7), (MIB, MIB + 1), (2 * MIB, 3 * MIB), (len(DATA) - 3, len(DATA))]
        with Part(part, identity_of(url)) as begun:
            for start, end in pieces:
                begun.write(start, DATA[start:end])
        done = fetch(url, part, connections=ONE)
        kept = sum(end - start for start, end in pieces)
        assert part.read_bytes() == DATA
        assert (done.kept_bytes, done.fetched_bytes) == (kept, len(DATA) - kept)

    def test_what_is_here_is_hashed_again(self, hub: LoopbackHub, url: str, part: Path) -> None:
        begin(hub, url, part, 2 * MIB)
        with open(part, "r+b") as file:
            file.write(b"?")
        done = fetch(url, part, connections=ONE)
        assert part.read_bytes() == DATA
        assert (done.kept_bytes, done.fetched_bytes) == (0, 2 * len(DATA) - 2 * MIB)

    @pytest.mark.parametrize(
        "claim",
        [Claim("sha256", "0" * 64, "another"), Claim("md5", "0" * 32, "another")],
        ids=lambda claim: claim.algorithm,
    )
    def test_another_digest_begins_anew(
        self, hub: LoopbackHub, url: str, part: Path, claim: Claim
    ) -> None:
        begin(hub, url, part, 2 * MIB)
        hub.misbehave(ServerError(500), after=1)
        with pytest.raises(NetworkError):
            fetch(url, part, (claim,))
        assert json.loads(side_car(part).read_bytes())["have"] == []

    def test_another_size_begins_anew(self, hub: LoopbackHub, url: str, part: Path) -> None:
        begin(hub, url, part, 2 * MIB)
        hub.add_file("a.gguf", DATA[:-1])
        claim = Claim("sha256", hashlib.sha256(DATA[:-1]).hexdigest(), "the test")
        assert fetch(url, part, (claim,)).kept_bytes == 0
        assert part.read_bytes() == DATA[:-1]

    def test_the_same_digest_goes_on_from_anywhere_else(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        begin(hub, url, part, 2 * MIB)
        mirror = hub.add_file("mirror/b.gguf", DATA)
        assert fetch(mirror, part).kept_bytes == 2 * MIB
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize("claims", [PROVEN, ()], ids=["digest", "etag"])
    def test_without_a_digest_another_etag_begins_anew(
        self, hub: LoopbackHub, url: str, part: Path, claims: tuple[Claim, ...]
    ) -> None:
        begin(hub, url, part, 2 * MIB, claims)
        hub.misbehave(Changed())
        assert fetch(url, part, claims).kept_bytes == (2 * MIB if claims else 0)
        assert part.read_bytes() == DATA

    def test_without_a_digest_the_same_etag_goes_on(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        begin(hub, url, part, 2 * MIB, ())
        assert fetch(url, part, ()).kept_bytes == 2 * MIB
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize(
        "spoiled",
        [
            b"",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe",
            {"schema_version": 99},
            {"identity": {}},
            {"identity": {"surprise": 1}},
            {"have": None},
            {"have": 5},
            {"have": [[1]]},
            {"have": [["a", "b"]]},
            {"have": [[0, math.inf]]},
        ],
        ids=repr,
    )
    def test_a_damaged_side_car_begins_anew(
        self, hub: LoopbackHub, url: str, part: Path, spoiled: bytes | dict[str, Any]
    ) -> None:
        begin(hub, url, part, 2 * MIB)
        if isinstance(spoiled, bytes):
            side_car(part).write_bytes(spoiled)
        else:
            edit_side_car(part, **spoiled)
        assert fetch(url, part).kept_bytes == 0
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize(
        "have",
        [[[0, 10**15]], [[-5, 2 * MIB]], [[0, 3 * MIB]], [[2 * MIB, 0]]],
        ids=["beyond-the-end", "before-the-beginning", "more-than-is-here", "backwards"],
    )
    def test_a_lying_side_car_does_no_harm(
        self, hub: LoopbackHub, url: str, part: Path, have: list[list[int]]
    ) -> None:
        begin(hub, url, part, 2 * MIB)
        edit_side_car(part, have=have)
        fetch(url, part)
        assert part.read_bytes() == DATA

    def test_a_side_car_without_its_part_does_no_harm(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        begin(hub, url, part, 2 * MIB)
        part.unlink()
        assert fetch(url, part).kept_bytes == 0
        assert part.read_bytes() == DATA

    def test_a_side_car_that_outlived_its_file_is_not_believed(
        self, hub: LoopbackHub, url: str, part: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetch(url, part, ())
        part.unlink()

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        real = os.ftruncate
        monkeypatch.setattr(os, "ftruncate", lambda fd, n: (real(fd, n), die()))
        with pytest.raises(KeyboardInterrupt):
            fetch(url, part, ())
        monkeypatch.undo()
        assert fetch(url, part, ()).kept_bytes == 0
        assert part.read_bytes() == DATA

    def test_after_a_reboot_only_what_was_synced_counts(self, hub: LoopbackHub, part: Path) -> None:
        content = Generated(24 * MIB)
        claim = Claim("sha256", content.sha256, "the test")
        url = hub.add_file("large", content)
        identity = Identity(url, "", "", content.size_bytes, f"sha256:{content.sha256}")
        with Part(part, identity) as begun:
            begun.write(0, content.read(0, 20 * MIB))

            wait_until(synced_side_car(part).exists, "the first sync")
            begun.write(20 * MIB, content.read(20 * MIB, 22 * MIB))
        synced = json.loads(synced_side_car(part).read_bytes())
        assert synced["have"] == [[0, 20 * MIB]]
        assert json.loads(side_car(part).read_bytes())["have"] == [[0, 22 * MIB]]
        edit_side_car(part, boot="another")
        with open(part, "r+b") as file:  # what a power cut takes
            file.truncate(20 * MIB)
            file.truncate(content.size_bytes)
        done = fetch(url, part, (claim,), connections=ONE)
        assert done.kept_bytes == 20 * MIB
        assert done.fetched_bytes == content.size_bytes - 20 * MIB
        assert hashlib.sha256(part.read_bytes()).hexdigest() == content.sha256

    def test_a_link_in_the_place_of_the_part_is_not_followed(
        self, url: str, part: Path, tmp_path: Path
    ) -> None:
        precious = tmp_path / "precious"
        precious.write_bytes(b"mine")
        part.symlink_to(precious)
        with pytest.raises(Exception, match=r"a\.part") as error:
            fetch(url, part)
        assert getattr(error.value, "exit_code", None) == 8
        assert precious.read_bytes() == b"mine"


def identity_of(url: str) -> Identity:
    return Identity(url, url_digest(url), "", len(DATA), f"sha256:{SHA256}")


DIGESTS: dict[Algorithm, str] = {
    "md5": hashlib.md5(DATA).hexdigest(),
    "sha1": hashlib.sha1(DATA).hexdigest(),
    "git-sha1": hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest(),
    "sha512": hashlib.sha512(DATA).hexdigest(),
    "sha256": SHA256,
}


class TestProof:
    @pytest.mark.parametrize("algorithm", DIGESTS)
    def test_any_digest_proves(self, url: str, part: Path, algorithm: Algorithm) -> None:
        claim = Claim(algorithm, DIGESTS[algorithm], "the test", "transfer")
        done = fetch(url, part, (claim,))
        assert done.proofs == (claim,)
        assert done.digests == {"sha256": SHA256, algorithm: claim.hex}

    def test_all_digests_prove_at_once(self, url: str, part: Path) -> None:
        claims = tuple(Claim(name, digits, "the test") for name, digits in DIGESTS.items())
        done = fetch(url, part, claims)
        assert (done.proofs, done.digests) == (claims, DIGESTS)

    def test_no_claim_proves_nothing_but_the_sha256_is_told(self, url: str, part: Path) -> None:
        done = fetch(url, part, ())
        assert (done.proofs, done.digests) == ((), {"sha256": SHA256})
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize("algorithm", DIGESTS)
    def test_one_wrong_digest_is_one_too_many(
        self, hub: LoopbackHub, url: str, part: Path, algorithm: Algorithm
    ) -> None:
        wrong = Claim(algorithm, "0" * len(DIGESTS[algorithm]), "somebody")
        with pytest.raises(IntegrityError, match="somebody says 000"):
            fetch(url, part, tuple(dict.fromkeys((*PROVEN, wrong))))
        assert not part.exists()
        assert not side_car(part).exists()

    def test_a_wrong_digest_gets_one_second_chance(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        flip = hub.misbehave(BitFlip(MIB), times=1)
        done = fetch(url, part, connections=ONE)
        assert flip.done == 1
        assert part.read_bytes() == DATA
        assert done.fetched_bytes == 2 * len(DATA)

    def test_a_wrong_digest_gets_no_third_chance(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.misbehave(BitFlip(MIB))
        with pytest.raises(IntegrityError) as error:
            fetch(url, part, connections=ONE)
        assert error.value.exit_code == 6
        assert ranges(hub) == [f"bytes=0-{len(DATA) - 1}"] * 2
        assert not part.exists()


class TestServers:
    def test_one_without_ranges_sends_it_whole(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.ranges = False
        fetch(url, part, connections=SEVERAL)
        assert part.read_bytes() == DATA

    def test_one_that_forgets_ranges_sends_it_whole(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        begin(hub, url, part, 2 * MIB)
        hub.misbehave(IgnoreRange())
        done = fetch(url, part)
        assert part.read_bytes() == DATA
        assert done.kept_bytes == 2 * MIB

    def test_one_without_ranges_that_breaks_off_begins_again(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.ranges = False
        hub.misbehave(Reset(2 * MIB), times=2, after=2)
        fetch(url, part)
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize(
        "fault",
        [Truncate(MIB), Reset(MIB), Short(MIB), ServerError(500), WrongContentRange()],
        ids=lambda fault: type(fault).__name__,
    )
    def test_what_breaks_goes_on_where_it_broke(
        self, hub: LoopbackHub, url: str, part: Path, fault: Any
    ) -> None:
        has_first_byte = isinstance(fault, (ServerError, WrongContentRange))
        broken = hub.misbehave(fault, times=2, after=1 if has_first_byte else 0)
        done = fetch(url, part, connections=ONE)
        assert broken.done == 2
        assert part.read_bytes() == DATA
        assert done.fetched_bytes == len(DATA)

    def test_patience_ends_without_progress(self, hub: LoopbackHub, url: str, part: Path) -> None:
        begin(hub, url, part, MIB)
        broken = hub.misbehave(ServerError(500), after=1)
        with pytest.raises(NetworkError) as error:
            fetch(url, part, connections=ONE)
        assert error.value.exit_code == 5
        assert broken.done == QUICK.attempts
        assert json.loads(side_car(part).read_bytes())["have"] == [[0, MIB]]

    def test_a_server_that_only_drips_is_left(self, hub: LoopbackHub, url: str, part: Path) -> None:
        dripping = hub.misbehave(Drip(1, 0.02), after=1)
        limits = Limits(slow_seconds=0.1, slow_bytes_per_second=KIB, backoff_seconds=0, attempts=3)
        with pytest.raises(NetworkError, match="next to nothing"):
            fetch(url, part, limits=limits, connections=ONE)
        assert dripping.done == 3

    def test_a_drip_is_left_for_a_better_connection(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.misbehave(Drip(1, 0.02), times=1, after=1)
        limits = Limits(slow_seconds=0.1, slow_bytes_per_second=KIB, backoff_seconds=0)
        fetch(url, part, limits=limits)
        assert part.read_bytes() == DATA

    def test_one_that_stands_still_is_left(self, hub: LoopbackHub, url: str, part: Path) -> None:
        stalled = hub.misbehave(Stall(MIB), times=1)
        fetch(url, part, limits=Limits(idle_seconds=0.5, backoff_seconds=0.01))
        assert stalled.done == 1
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize(
        "location",
        [
            "file:///etc/passwd",
            "http://[",
            "http://a..b/",
            "http://127.0.0.1:99999/",
            "gopher://x/",
        ],
    )
    def test_a_redirect_to_what_is_no_web_address_is_a_network_error(
        self, hub: LoopbackHub, url: str, part: Path, location: str
    ) -> None:
        hub.misbehave(RedirectTo(location))
        with pytest.raises(NetworkError) as error:
            fetch(url, part, size_bytes=len(DATA))
        assert error.value.exit_code == 5

    @pytest.mark.parametrize(
        "headers",
        [
            {"Retry-After": "\xb2"},
            {"Retry-After": "9" * 400},
            {"Retry-After": "Fri, 01 Jan 99999 00:00:00 GMT"},
            {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"},
            {"Retry-After": "-1"},
            {"RateLimit": '"resolvers";r=0;t=' + "9" * 400},
        ],
        ids=["superscript", "digits", "far", "past", "negative", "ratelimit"],
    )
    def test_nonsense_in_place_of_a_wait_is_no_trap(self, headers: dict[str, str]) -> None:
        seconds = wait_asked(headers)
        assert seconds is None or 0 <= seconds < math.inf


class TestWaits:
    @pytest.mark.parametrize("said_as", ["seconds", "ratelimit", "date"])
    def test_a_429_waits_as_long_as_asked(
        self, hub: LoopbackHub, url: str, part: Path, said_as: Any
    ) -> None:
        # A date is cut to the second: the wait is between one second and two.
        wait = 2 if said_as == "date" else 1
        hub.misbehave(TooManyRequests(wait, said_as), times=1, after=1)
        since = time.monotonic()
        fetch(url, part, connections=ONE)
        assert time.monotonic() - since >= 1
        assert part.read_bytes() == DATA

    @pytest.mark.parametrize("said_as", ["seconds", "ratelimit", "date"])
    def test_a_429_is_not_waited_for_for_ever(
        self, hub: LoopbackHub, url: str, part: Path, said_as: Any
    ) -> None:
        begin(hub, url, part, MIB)
        asked = hub.misbehave(TooManyRequests(3600, said_as), after=1)
        with pytest.raises(NetworkError, match="too many requests") as error:
            fetch(url, part, connections=ONE)
        assert "asks to wait" in str(error.value.hint)
        assert asked.done == 1
        assert json.loads(side_car(part).read_bytes())["have"] == [[0, MIB]]

    def test_waits_add_up(self, hub: LoopbackHub, url: str, part: Path) -> None:
        asked = hub.misbehave(TooManyRequests(1), after=1)
        limits = Limits(wait_seconds=1.5)
        with pytest.raises(NetworkError):
            fetch(url, part, limits=limits, connections=ONE)
        assert asked.done == 2

    @pytest.mark.parametrize("said_as", ["seconds", "ratelimit", "nothing"])
    def test_a_429_that_asks_for_no_wait_is_a_failure_like_others(
        self, hub: LoopbackHub, url: str, part: Path, said_as: Any
    ) -> None:
        asked = hub.misbehave(TooManyRequests(0, said_as), after=1)
        with pytest.raises(NetworkError):
            fetch(url, part, connections=ONE)
        assert asked.done == QUICK.attempts


class TestRedirects:
    @pytest.fixture
    def remote(self, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> RemoteFile:
        """A file of a private repository, which its owner's token opens."""
        hub.add_repo("org/name", {"a.gguf": DATA}, private=True)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        source = HuggingFace(Web(QUICK), "org/name")
        listing = source.listing()
        return source.remote(listing, listing.files[0])

    def test_a_token_stays_with_its_origin(
        self, hub: LoopbackHub, remote: RemoteFile, part: Path
    ) -> None:
        hub.cap_bytes_per_second = 8 * MIB
        download(remote, part, PROVEN, connections=SEVERAL)
        assert part.read_bytes() == DATA
        resolved = [seen for seen in hub.requests if seen.route == "resolve"]
        assert {seen.authorization for seen in resolved} == {f"Bearer {hub.token}"}
        assert hub.leaks == []
        assert hub.token not in side_car(part).read_text()

    def test_the_place_is_asked_for_once(
        self, hub: LoopbackHub, remote: RemoteFile, part: Path
    ) -> None:
        hub.misbehave(Truncate(MIB), times=2)
        download(remote, part, PROVEN, connections=ONE)
        assert [seen.route for seen in hub.requests[1:]] == ["resolve", "cdn", "cdn", "cdn"]

    def test_an_expired_url_is_asked_for_anew(
        self, hub: LoopbackHub, remote: RemoteFile, part: Path
    ) -> None:
        hub.misbehave(ExpireAfter(MIB), times=2)
        done = download(remote, part, PROVEN, connections=ONE)
        assert part.read_bytes() == DATA
        assert done.fetched_bytes == len(DATA)
        assert [seen.status for seen in hub.requests if seen.route == "cdn"] == [
            *(206, 403, 206, 403, 206)
        ]
        assert hub.leaks == []

    def test_a_place_that_is_down_is_asked_for_anew(
        self, hub: LoopbackHub, remote: RemoteFile, part: Path
    ) -> None:
        patient = Limits(idle_seconds=PATIENCE_SECONDS, backoff_seconds=0.01, attempts=12)
        remote.web.limits = patient
        hub.cap_bytes_per_second = 2 * MIB

        def shut_and_open(progress: Progress) -> None:
            n_asked = len([seen for seen in hub.requests if seen.route == "resolve"])
            if progress.done_bytes and n_asked == 1 and not hub.cdn.stopping.is_set():
                hub.cdn.close()
            elif n_asked > 3 and hub.cdn.stopping.is_set():
                hub.cdn.open()

        download(remote, part, PROVEN, connections=ONE, on_progress=shut_and_open)
        assert part.read_bytes() == DATA

    def test_a_url_of_the_same_host_that_expired_is_asked_for_anew(
        self, hub: LoopbackHub, part: Path
    ) -> None:
        hub.add_file("signed-1", DATA)
        hub.add_file("signed-2", DATA)
        url = hub.add_redirect("a.gguf", "signed-1")
        hub.misbehave(Truncate(MIB), file="signed-1", times=1)

        def expire(progress: Progress) -> None:
            if progress.done_bytes:
                hub.add_redirect("a.gguf", "signed-2")
                hub.add_redirect("signed-1", "nowhere")

        hub.cap_bytes_per_second = 2 * MIB
        fetch(url, part, connections=ONE, on_progress=expire)
        assert part.read_bytes() == DATA
        assert 404 in [seen.status for seen in hub.requests]

    def test_a_refusal_is_told_as_such(
        self, hub: LoopbackHub, remote: RemoteFile, part: Path
    ) -> None:
        hub.repositories["org/name"].gated = "manual"
        with pytest.raises(AccessError) as error:
            download(remote, part, PROVEN)
        assert error.value.exit_code == 4

    def test_a_password_stays_with_its_origin(self, hub: LoopbackHub, part: Path) -> None:
        hub.add_repo("org/open", {"a.gguf": DATA})
        target = hub.add_file("b.gguf", DATA)
        url = f"{hub.endpoint}/org/open/resolve/main/a.gguf"
        hub.misbehave(RedirectTo(target), on=["resolve"])
        secret = Credentials(hub.endpoint, {"Authorization": Secret(f"Bearer {hub.token}")})
        fetch(url, part, credentials=secret)
        assert part.read_bytes() == DATA
        assert hub.requests[0].authorization == f"Bearer {hub.token}"
        assert hub.leaks == []


class TestChanges:
    def test_another_etag_half_way_is_an_error_without_a_digest(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.misbehave(Truncate(MIB), times=1)
        hub.misbehave(Changed(OTHER), after=2)
        with pytest.raises(IntegrityError, match="changed on") as error:
            fetch(url, part, (), connections=ONE)
        assert error.value.exit_code == 6
        fetch(url, part, ())
        assert part.read_bytes() == OTHER

    def test_behind_a_redirect_too(self, hub: LoopbackHub, part: Path) -> None:
        commit = hub.add_repo("org/name", {"a.gguf": DATA})
        url = hub.add_redirect("a.gguf", hub.signed_url("org/name", commit, "a.gguf"))
        hub.misbehave(Truncate(MIB), times=1)
        hub.misbehave(Changed(OTHER), after=2, on=["cdn"])
        with pytest.raises(IntegrityError, match="changed on"):
            fetch(url, part, (), connections=ONE)

    def test_another_etag_is_of_no_interest_where_a_digest_proves(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.misbehave(Truncate(MIB), times=1)
        hub.misbehave(Changed(), after=2)
        fetch(url, part, connections=ONE)
        assert part.read_bytes() == DATA

    def test_other_bytes_half_way_never_pass(self, hub: LoopbackHub, url: str, part: Path) -> None:
        hub.misbehave(Truncate(MIB), times=1)
        hub.misbehave(Changed(OTHER), after=2)
        with pytest.raises(IntegrityError):
            fetch(url, part, connections=ONE)
        assert not part.exists()

    @pytest.mark.parametrize("connections", [ONE, SEVERAL], ids=["one", "several"])
    @pytest.mark.parametrize("has_ranges", [True, False], ids=["ranges", "no-ranges"])
    @pytest.mark.parametrize("claims", [PROVEN, ()], ids=["digest", "none"])
    def test_another_size_than_listed_is_an_error(
        self,
        hub: LoopbackHub,
        url: str,
        part: Path,
        connections: Connections,
        has_ranges: bool,
        claims: tuple[Claim, ...],
    ) -> None:
        hub.ranges = has_ranges
        for size in (len(DATA) - 1, len(DATA) + 1):
            with pytest.raises(IntegrityError, match="listed"):
                fetch(url, part, claims, size_bytes=size, connections=connections)

    def test_a_whole_file_that_has_another_size_by_now_is_not_begun(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        hub.ranges = False
        hub.misbehave(Changed(DATA[:-1]), after=1)
        with pytest.raises(IntegrityError, match="listed"):
            fetch(url, part, size_bytes=len(DATA))


class TestProgress:
    @pytest.mark.parametrize("connections", [ONE, SEVERAL], ids=["one", "several"])
    def test_it_only_grows_and_ends_complete(
        self, hub: LoopbackHub, url: str, part: Path, connections: Connections
    ) -> None:
        hub.cap_bytes_per_second = 4 * MIB
        seen: list[Progress] = []
        threads = set()

        def look(progress: Progress) -> None:
            seen.append(progress)
            threads.add(threading.get_ident())

        fetch(url, part, connections=connections, on_progress=look)
        assert threads == {threading.get_ident()}
        for earlier, later in itertools.pairwise(seen):
            assert earlier.done_bytes <= later.done_bytes
            assert earlier.hashed_bytes <= later.hashed_bytes <= later.done_bytes
        assert seen[-1].done_bytes == seen[-1].hashed_bytes == seen[-1].size_bytes == len(DATA)
        assert len(seen) > 2

    def test_trouble_is_told_while_it_lasts(self, hub: LoopbackHub, url: str, part: Path) -> None:
        hub.misbehave(TooManyRequests(1), times=1, after=1)
        seen: list[Progress] = []
        fetch(url, part, on_progress=seen.append)
        assert any("too many requests" in str(progress.trouble) for progress in seen)
        assert seen[-1].trouble is None


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
class TestInterruption:
    @pytest.mark.parametrize("connections", [ONE, SEVERAL], ids=["one", "several"])
    @pytest.mark.parametrize(
        "fault", [None, Stall(MIB // 2), Reset(MIB // 2)], ids=["on", "stall", "reset"]
    )
    def test_leaves_no_thread_and_no_descriptor_and_a_part_that_goes_on(
        self,
        hub: LoopbackHub,
        url: str,
        part: Path,
        connections: Connections,
        fault: Any,
    ) -> None:
        # Nothing but the interruption ends a read within the time that is waited for that.
        limits = Limits(idle_seconds=10 * PATIENCE_SECONDS, backoff_seconds=0.01)
        remote = RemoteFile(Web(limits), url, "a.gguf", size_bytes=len(DATA))
        before = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
        hub.cap_bytes_per_second = 2 * MIB
        if fault is not None:
            hub.misbehave(fault)
        wanted = 1 if connections is ONE else 2
        stop = interrupt_when(lambda p: p.done_bytes >= MIB // 2 and p.n_connections >= wanted)
        with pytest.raises(KeyboardInterrupt):
            download(remote, part, PROVEN, connections=connections, on_progress=stop)
        wait_until(lambda: set(threading.enumerate()) <= before[0], "the threads' end")
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before[1], "the descriptors' end")
        hub.behave()
        hub.cap_bytes_per_second = None
        done = fetch(url, part, connections=ONE)
        assert part.read_bytes() == DATA
        assert done.kept_bytes >= MIB // 2
        assert done.fetched_bytes == len(DATA) - done.kept_bytes

    def test_a_failure_leaves_no_thread_and_no_descriptor(
        self, hub: LoopbackHub, url: str, part: Path
    ) -> None:
        remote = RemoteFile(Web(QUICK), url, "a.gguf", size_bytes=len(DATA))
        before = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
        hub.misbehave(Truncate(MIB), times=1)
        hub.misbehave(Changed(OTHER), after=1)
        with pytest.raises(IntegrityError):
            download(remote, part, (), connections=SEVERAL)
        wait_until(lambda: set(threading.enumerate()) <= before[0], "the threads' end")
        del remote  # and with it the connections that wait to be of use again
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before[1], "the descriptors' end")
