"""Whatever a server does wrong: the right file, or an error with a name; never a wrong file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localllm.errors import LocalllmError
from localllm.hub import download as downloading
from localllm.hub.download import download
from localllm.hub.huggingface import HuggingFace
from localllm.hub.pace import Connections
from localllm.hub.part import Identity, Part, forget, settle
from localllm.hub.patience import Limits
from localllm.hub.web import Web
from localllm.units import KIB, MIB
from tests.conftest import PATIENCE_SECONDS
from tests.loopback_hub import (
    BitFlip,
    Changed,
    Drip,
    ExpireAfter,
    ExpiredRedirect,
    Fault,
    Generated,
    Gone,
    IgnoreRange,
    LoopbackHub,
    RedirectLoop,
    RedirectTo,
    RefuseRange,
    Reset,
    ServerError,
    Short,
    Somewhere,
    Stall,
    TooManyRequests,
    Truncate,
    WrongContentLength,
    WrongContentRange,
    WrongSha256,
    WrongSize,
)
from tests.loopback_hub.faults import Position

N_SEEDS = 20
REPO = "org/name"
#: Of fixed sizes and digests, so that these are worked out once.
FILES = [Generated(2 * MIB + 77 * n * KIB + n, seed=n) for n in range(8)]
OTHERS = [Generated(file.size_bytes, seed=100 + n) for n, file in enumerate(FILES)]

Make = Callable[[random.Random, int], Fault]

PATIENT = Limits(
    connect_seconds=PATIENCE_SECONDS,
    idle_seconds=PATIENCE_SECONDS,
    backoff_seconds=0.001,
    attempts=5,
    wait_seconds=0.5,
)
IMPATIENT = Limits(
    idle_seconds=0.3,
    slow_seconds=0.1,
    slow_bytes_per_second=100 * KIB,
    backoff_seconds=0.001,
    attempts=5,
)


@dataclass(frozen=True)
class Trouble:
    """A fault to be drawn.

    Attributes:
        make: it, from chance and the file's number.
        heals: a download that meets it once ends well.
        limits: that it is met with.
        ever: how often stands for "for ever" where each time brings some bytes.
    """

    make: Make
    heals: bool = True
    limits: Limits = PATIENT
    ever: int | None = None


def somewhere(chance: random.Random) -> Position:
    """In a reply; at its very beginning no byte of it comes."""
    return 0 if chance.random() < 0.3 else Somewhere(chance.randrange(2**32))


TROUBLES = {
    "truncate": Trouble(lambda chance, _: Truncate(somewhere(chance)), ever=40),
    "reset": Trouble(lambda chance, _: Reset(somewhere(chance)), ever=40),
    "bit-flip": Trouble(lambda chance, _: BitFlip(somewhere(chance))),
    "200-for-range": Trouble(lambda *_: IgnoreRange()),
    "416": Trouble(lambda *_: RefuseRange()),
    "429": Trouble(
        # What is asked for beyond the patience for waits, and what is not.
        lambda chance, _: TooManyRequests(
            chance.choice([0, 3600]),
            chance.choice(["seconds", "date", "ratelimit", "nothing"]),
        ),
        heals=False,
    ),
    "500": Trouble(lambda chance, _: ServerError(chance.choice([500, 502, 503, 504]))),
    "other-etag": Trouble(lambda *_: Changed()),
    "other-bytes": Trouble(lambda _, n: Changed(OTHERS[n])),
    "other-size": Trouble(lambda _, n: Changed(Generated(FILES[n].size_bytes - 1)), heals=False),
    "slow-drip": Trouble(lambda chance, _: Drip(chance.randint(1, 64), 0.01), limits=IMPATIENT),
    "stall": Trouble(lambda chance, _: Stall(somewhere(chance)), limits=IMPATIENT, ever=6),
    "short": Trouble(lambda chance, _: Short(somewhere(chance)), ever=40),
    "longer-length": Trouble(lambda chance, _: WrongContentLength(chance.randint(1, MIB))),
    "shorter-length": Trouble(lambda chance, _: WrongContentLength(-chance.randint(1, MIB))),
    "wrong-range": Trouble(lambda chance, _: WrongContentRange(chance.choice([-1, 1, MIB]))),
    "wrong-size": Trouble(lambda chance, _: WrongSize(chance.choice([-MIB, -1, 1])), heals=False),
    "wrong-sha256": Trouble(lambda *_: WrongSha256(), heals=False),
    "missing": Trouble(lambda *_: Gone(), heals=False),
    "expiring-url": Trouble(lambda chance, _: ExpireAfter(somewhere(chance)), ever=40),
    "expired-redirect": Trouble(lambda *_: ExpiredRedirect()),
    "redirect-to-file": Trouble(lambda *_: RedirectTo("file:///etc/passwd"), heals=False),
    "redirect-loop": Trouble(lambda *_: RedirectLoop(), heals=False),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        names = {f"{n}.gguf": file for n, file in enumerate(FILES)}
        running.add_repo(REPO, names, private=True)
        running.cap_bytes_per_second = 80 * MIB  # so that several connections have their time
        yield running


@pytest.fixture(scope="module")
def webs() -> dict[Limits, Web]:
    """One for all cases: certificates take longer to read than these files."""
    return {limits: Web(limits) for limits in (PATIENT, IMPATIENT)}


@pytest.fixture(autouse=True)
def _quick(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_WATCH_SECONDS", 0.005)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)


@dataclass(frozen=True)
class Case:
    """One file, one fault.

    Attributes:
        n: the file's number.
        fault: what goes wrong.
        times: how often; None for ever.
        after: how many fitting replies are right before.
        connections: at most.
        kept: what an earlier run left, as (start, end) pairs.
        spoils: and what it left is not right.
    """

    n: int
    fault: Fault
    times: int | None
    after: int
    connections: Connections
    kept: tuple[tuple[int, int], ...]
    spoils: bool

    def pull(self, web: Web, folder: Path) -> LocalllmError | None:
        """As the store does it: list, download, prove, name; what went wrong, if so."""
        try:
            self._pull(HuggingFace(web, REPO), folder)
        except LocalllmError as error:
            return error
        return None

    def _pull(self, source: HuggingFace, folder: Path) -> None:
        listing = source.listing()
        file = next(file for file in listing.files if file.path == f"{self.n}.gguf")
        part = folder / "file.part"
        claims = listing.claims(file)
        assert claims
        download(source.remote(listing, file), part, claims, connections=self.connections)
        settle(part, folder / "file")
        forget(part)

    def begin(self, folder: Path) -> None:
        """Leaves what an earlier run left."""
        content = FILES[self.n]
        identity = Identity("", "", "", content.size_bytes, f"sha256:{content.sha256}")
        with Part(folder / "file.part", identity) as part:
            for start, end in self.kept:
                part.write(start, content.read(start, end))
            if self.kept and self.spoils:
                part.write(self.kept[0][0], b"?")


def draw(trouble: Trouble, chance: random.Random) -> Case:
    n = chance.randrange(len(FILES))
    size = FILES[n].size_bytes
    places = sorted(chance.sample(range(size), chance.choice([0, 0, 2, 4])))
    return Case(
        n,
        trouble.make(chance, n),
        times=chance.choice([1, 1, 2, 3, trouble.ever]),
        after=chance.choice([0, 0, 0, 1]),
        connections=chance.choice(
            [Connections(most=1), Connections(most=4, gain=0.0, settle_seconds=0.0)]
        ),
        kept=tuple(zip(places[::2], places[1::2], strict=True)),
        spoils=chance.random() < 0.1,
    )


@pytest.mark.parametrize("seed", range(N_SEEDS))
@pytest.mark.parametrize("name", TROUBLES)
def test_the_right_file_or_an_error_with_a_name(
    hub: LoopbackHub, webs: dict[Limits, Web], tmp_path: Path, name: str, seed: int
) -> None:
    trouble = TROUBLES[name]
    case = draw(trouble, random.Random(f"{name} {seed}"))
    content = FILES[case.n]
    right = content.read(0, content.size_bytes)
    case.begin(tmp_path)
    rule = hub.misbehave(case.fault, file=f"{case.n}.gguf", times=case.times, after=case.after)
    error = case.pull(webs[trouble.limits], tmp_path)
    hub.behave()
    if error is not None:
        assert rule.done > 0
        assert error.exit_code in (4, 5, 6)
        assert error.message
        assert hub.token not in f"{error} {error.hint} {error.detail}"
        # What was kept and is wrong takes the one second chance.
        assert not (trouble.heals and case.times == 1 and not case.spoils), error
        assert all(path.name.startswith("file.part") for path in tmp_path.iterdir())
        # What is left of it goes on as soon as all is well.
        assert case.pull(webs[PATIENT], tmp_path) is None
    assert (tmp_path / "file").read_bytes() == right
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert hub.leaks == []


@pytest.mark.parametrize("name", TROUBLES)
def test_each_fault_is_met(
    hub: LoopbackHub, webs: dict[Limits, Web], tmp_path: Path, name: str
) -> None:
    """Else the matrix would show nothing."""
    trouble = TROUBLES[name]
    case = draw(trouble, random.Random(name))
    rule = hub.misbehave(case.fault, file=f"{case.n}.gguf", times=trouble.ever)
    error = case.pull(webs[trouble.limits], tmp_path)
    hub.behave()
    assert rule.done > 0
    if error is None:
        content = FILES[case.n]
        assert (tmp_path / "file").read_bytes() == content.read(0, content.size_bytes)
    else:
        assert error.exit_code in (4, 5, 6)
