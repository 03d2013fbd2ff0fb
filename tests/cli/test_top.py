"""top: what is drawn at every size, and the live view at a real terminal before a real socket."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localllm import running
from localllm.cli.top import View, draw, sparkline
from localllm.gateway.status import Status
from tests.cli.emulator import Emulator
from tests.cli.scripted_gateway import status
from tests.conftest import PATIENCE_SECONDS, run_localllm, wait_until

pexpect = pytest.importorskip("pexpect")

ROOT = Path(__file__).parents[2]
_SCREEN = re.compile(r"(\x1b\[\?\d+[hl]|\x1b\[H)")
#: "\x1b[4" of a sequence that the next piece brings the rest of.
_BEGUN = re.compile(r"\x1b(\[[\d;?]*)?\Z")


class Screen(Emulator):
    """The emulator with a screen of its own that is painted over from its first row."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__(columns, lines)
        self.is_alternate = False
        self.begun = ""

    def write(self, text: str) -> int:
        text = self.begun + text
        found = _BEGUN.search(text)
        self.begun = found[0] if found else ""
        for piece in _SCREEN.split(text[: len(text) - len(self.begun)]):
            if piece == "\x1b[H" or "1049" in piece[:8]:
                self.y = self.x = 0
                self.is_alternate = {"h": True, "l": False}.get(piece[-1], self.is_alternate)
            elif not piece.startswith("\x1b[?"):
                super().write(piece)
        return len(text)


def replica(name: str = "0", **changes: Any) -> dict[str, Any]:
    (first,) = status()["replicas"]
    return {**first, "name": name, **changes}


BUSY = Status.from_json(
    status(
        name="demo",
        replicas=[
            replica("0", n_busy=4, gpu_bytes={"0000:01:00.0": 9 << 30}),
            replica("1", state="loading", restarts=3, last_error="llama-server died with signal 9",
                    concessions=["micro-batch 512 -> 256"], rss_bytes=None, ready_since=None),
            *(replica(str(n)) for n in range(2, 6)),
        ],
        gpus=[{"name": "NVIDIA H200", "utilization": 0.87, "used_bytes": 9 << 30,
               "total_bytes": 139 << 30}],
        errors=[[time.time() - n, f"error number {n}"] for n in range(20, 0, -1)],
    )
)  # fmt: skip


def drawn(view: View, columns: int, lines: int = 1000) -> list[str]:
    return [row.plain for row in draw(view, columns, lines)]


@pytest.mark.parametrize("lines", [15, 24, 60])
@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize(
    "lost", ["", "no server named demo runs; this is 4 s old"], ids=["", "lost"]
)
def test_the_important_is_seen_at_every_size_and_no_row_is_too_long(
    columns: int, lines: int, lost: str
) -> None:
    rows = drawn(View(BUSY, [1.0, 2.0, 50.0] * 60, lost), columns, lines)
    seen = "\n".join(rows)
    assert len(rows) <= lines
    assert max(len(row) for row in rows) <= columns
    assert "demo  ready  5 of 6 replicas ready" in seen
    assert "3 of 64" in seen
    assert "51.3/s" in seen
    assert re.search(r"^1 +loading", seen, re.MULTILINE), "the one that is not ready comes first"
    assert re.search(r"first token +84 ms +410 ms +2\.7 s", seen)
    assert ("no server named demo runs" in seen) == bool(lost)
    assert "error number 1\n" in seen + "\n" or lost, "the newest error"


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        (60, "replica state slots restarts memory GPU"),
        (80, "replica state slots restarts memory peak GPU load pid"),
        (120, "replica state slots restarts memory peak GPU load up pid"),
    ],
    ids=str,
)
def test_a_narrow_window_has_fewer_columns(columns: int, headings: str) -> None:
    (heading,) = [row for row in drawn(View(BUSY), columns) if row.startswith("replica  state")]
    assert heading.split() == headings.split()


def test_what_fits_in_a_high_window_is_all_there() -> None:
    seen = "\n".join(drawn(View(BUSY), 120))
    for part in (
        "up 1 h 5 min", "localllm 0.1", "http://127.0.0.1:8080", "9 of 24 busy",
        "last 5 min   120 requests   1 failed   2 refused   4 left", "9.0 GiB",
        "replica 1: llama-server died with signal 9", "replica 1 gave up: micro-batch 512 -> 256",
        "NVIDIA H200       87%  9.0 GiB  139 GiB", "error number 8",
    ):  # fmt: skip
        assert part in seen, part


def test_a_server_that_has_just_begun_has_nothing_to_tell_and_that_is_no_error() -> None:
    young = Status("demo", "", "m", "0.1", 1, time.time(), time.time())
    rows = drawn(View(young), 80)
    assert any("loading" in row for row in rows)
    assert any(re.search(r"first token +- +- +-", row) for row in rows)


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([0.0, 5.0, 10.0], "▁▅█"), ([7.0], "█")],
    ids=["nothing", "silence", "rising", "one"],
)
def test_the_sparkline_is_as_high_as_its_values(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_no_text_of_others_reaches_the_terminal_as_a_sequence() -> None:
    evil = "a\x1b]0;title\x07b\x9b2Jc\nd"
    document = status(
        name=evil, model=evil, url=evil, version=evil, errors=[[0.0, evil]],
        replicas=[replica(evil, last_error=evil, concessions=[evil])],
        gpus=[{"name": evil}],
    )  # fmt: skip
    for row in drawn(View(Status.from_json(document), (), evil), 200):
        assert re.search(r"[\x00-\x1f\x7f-\x9f]", row) is None, row


class Terminal:
    """A person who looks at top."""

    def __init__(self, *argv: str, columns: int = 80, lines: int = 24, **environment: str) -> None:
        variables = {**os.environ, "TERM": "xterm-256color", **environment}
        variables.pop("COLUMNS", None)
        self.screen = Screen(columns, lines)
        self.raw = ""
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "localllm", "top", *argv],
            env=variables,
            dimensions=(lines, columns),
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
        )

    def until(self, seen: str) -> str:
        """What is on the screen once that is."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(seen, self.screen.text):
            assert time.monotonic() < deadline, f"no {seen!r} in:\n{self.screen.text}"
            self.read()
        assert len(self.screen.cells) <= self.screen.lines, "it scrolled"
        return self.screen.text

    def read(self) -> bool:
        try:
            piece = self.child.read_nonblocking(65536, timeout=1)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += piece
        self.screen.write(piece)
        return True

    def left(self) -> int:
        while self.read():
            pass
        self.child.close()
        return int(self.child.exitstatus)


Server = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start_one(name: str = "demo") -> Server:
        one = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.scripted_gateway", name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline().strip() == name
        return one

    yield start_one
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(*argv: str, **kwargs: Any) -> Terminal:
        opened.append(Terminal(*argv, **kwargs))
        return opened[-1]

    yield open_one
    for one in opened:
        one.child.close(force=True)


def says(**changes: Any) -> None:
    folder = running.logs_of("demo")
    (folder / "new").write_text(json.dumps(status(**changes)))
    (folder / "new").replace(folder / "status.json")


@pytest.mark.parametrize(("columns", "lines"), [(60, 15), (80, 24), (200, 50)], ids=str)
def test_it_fills_the_window_and_follows_the_server_until_q(
    start: Callable[..., Server], terminal: Callable[..., Terminal], columns: int, lines: int
) -> None:
    start()
    here = terminal(columns=columns, lines=lines)
    assert here.until("whole answer").startswith("demo  ready")
    assert here.screen.is_alternate
    says(n_waiting=61)
    here.until("61 of 64")
    here.child.send("q")
    assert here.left() == 0
    assert not here.screen.is_alternate
    assert "Traceback" not in here.raw


def test_ctrl_c_leaves_as_well(
    start: Callable[..., Server], terminal: Callable[..., Terminal]
) -> None:
    start()
    here = terminal()
    here.until("whole answer")
    here.child.sendintr()
    assert here.left() == 0
    assert "Traceback" not in here.raw


def test_a_server_that_goes_away_is_told_and_one_that_comes_back_is_gone_on_with(
    start: Callable[..., Server], terminal: Callable[..., Terminal]
) -> None:
    first = start()
    here = terminal("demo")
    here.until("whole answer")
    first.kill()
    here.until("no server named demo runs; this is")
    start()
    says(n_waiting=7)
    assert "no server" not in here.until("7 of 64")


def test_a_window_that_changes_is_filled_anew(
    start: Callable[..., Server], terminal: Callable[..., Terminal]
) -> None:
    start()
    here = terminal(columns=60, lines=15)
    assert "peak" not in here.until("whole answer")
    here.screen = Screen(120, 40)
    here.child.setwinsize(40, 120)
    here.until("peak")
    here.child.setwinsize(15, 60)

    def shown() -> list[str]:
        """The rows of the last whole frame."""
        here.read()
        return here.raw.split("\x1b[H")[-2].splitlines()

    wait_until(lambda: len(shown()) == 15, "frames of 15 rows")


@pytest.mark.parametrize(
    ("environment", "is_colourful"),
    [({}, True), ({"NO_COLOR": "1"}, False)],
    ids=["colours", "NO_COLOR"],
)
def test_colours_are_left_out_where_they_are_not_wanted(
    start: Callable[..., Server],
    terminal: Callable[..., Terminal],
    environment: dict[str, str],
    is_colourful: bool,
) -> None:
    start()
    here = terminal(**environment)
    here.until("whole answer")
    assert bool(re.search(r"\x1b\[(\d;)?3\dm", here.raw)) == is_colourful


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}], ids=["--once", "dumb"])
def test_once_it_prints_and_leaves(
    start: Callable[..., Server], terminal: Callable[..., Terminal], environment: dict[str, str]
) -> None:
    start()
    here = terminal(*(() if environment else ("--once",)), **environment)
    assert here.left() == 0
    assert "whole answer" in here.screen.text
    assert "\x1b[?1049h" not in here.raw


def test_off_a_terminal_it_prints_once_without_styles(start: Callable[..., Server]) -> None:
    start()
    done = run_localllm("top")
    assert done.returncode == 0
    assert "whole answer" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_document_is_the_servers_own(start: Callable[..., Server]) -> None:
    server = start()
    document = json.loads(run_localllm("top", "--json").stdout)
    assert document["schema_version"] == 1
    assert (document["name"], document["pid"]) == ("demo", server.pid)
    assert Status.from_json(document).n_waiting == 3


def test_without_a_server_it_says_so(start: Callable[..., Server]) -> None:
    assert run_localllm("top").returncode == 3
    server = start()
    server.kill()
    wait_until(lambda: running.find_all() == (), "its end")
    done = run_localllm("top", "demo")
    assert (done.returncode, "no server named demo runs" in done.stderr) == (3, True)
