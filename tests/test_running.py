"""Records of running servers: real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localllm import paths, running
from localllm.errors import NotFoundError, UsageError
from localllm.running import Running
from tests.conftest import PATIENCE_SECONDS, wait_until

CLAIM = """
import os, sys
from localllm import running
record = running.claim(sys.argv[1], model="m", drain_seconds=30)
open(record.control_socket, "w").close()
print(record.name, flush=True)
sys.stdin.read()
os._exit(9)  # as after SIGKILL: nothing is cleared away
"""

Other = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[Callable[[str], Other]]:
    """Processes that take a name and keep it until their input ends."""
    started: list[Other] = []

    def start_one(hint: str) -> Other:
        one = subprocess.Popen(
            [sys.executable, "-c", CLAIM, hint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(one)
        return one

    yield start_one
    for one in started:
        one.kill()
        one.communicate()


def name_of(other: Other) -> str:
    assert other.stdout is not None
    return other.stdout.readline().strip()


def end(other: Other) -> None:
    other.communicate(timeout=PATIENCE_SECONDS)


def claim(hint: str = "demo", argv: tuple[str, ...] = ()) -> Running:
    return running.claim(hint, model="Tiny", drain_seconds=30, argv=argv)


def names() -> list[str]:
    return [record.name for record in running.find_all()]


def test_a_record_is_found_as_it_was_written() -> None:
    record = running.update(claim(argv=("serve", "demo")), url="http://127.0.0.1:8080")
    assert running.find_all() == (record,)
    assert running.find() == running.find("demo") == record
    assert record.pid == os.getpid()
    assert record.log_dir == paths.state_dir() / "logs" / "demo"


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        pytest.param("demo", "demo", id="a word"),
        pytest.param("Qwen3-8B:Q4_K_M", "qwen3-8b-q4_k_m", id="a reference"),
        pytest.param("../../etc/passwd", "etc-passwd", id="a path"),
        pytest.param(".hidden", "hidden", id="a dot"),
        pytest.param("千问", "server", id="nothing of it"),
        pytest.param("x" * 300, "x" * 40, id="long"),
    ],
)
def test_a_name_is_made_of_what_is_served(hint: str, name: str) -> None:
    assert claim(hint).name == name


def test_a_name_that_a_living_server_has_is_counted_on(start: Callable[[str], Other]) -> None:
    first = start("demo")
    assert name_of(first) == "demo"
    assert claim().name == "demo-2"
    assert claim().name == "demo-3"
    assert names() == ["demo", "demo-2", "demo-3"]


def test_many_that_begin_at_once_get_a_name_each(start: Callable[[str], Other]) -> None:
    others = [start("demo") for _ in range(6)]
    taken = {name_of(other) for other in others}
    assert taken == {"demo", *(f"demo-{n}" for n in range(2, 7))} == set(names())


def test_what_a_killed_server_left_is_cleared_away_and_its_name_is_free(
    start: Callable[[str], Other],
) -> None:
    other = start("demo")
    name_of(other)
    (record,) = running.find_all()
    assert Path(str(record.control_socket)).exists()
    end(other)
    assert running.find_all() == ()
    assert not record.path.exists()
    assert not Path(str(record.control_socket)).exists()
    assert claim().name == "demo"


def test_a_process_that_ended_and_was_not_waited_for_is_gone(
    start: Callable[[str], Other],
) -> None:
    other = start("demo")
    name_of(other)
    other.send_signal(signal.SIGKILL)
    wait_until(lambda: names() == [], "the zombie to count as gone")
    assert other.returncode is None


def test_another_process_of_the_same_pid_is_not_taken_for_it_and_not_ended() -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        try:
            record = running.update(claim(), pid=innocent.pid)
            assert not running.is_alive(record)
            running.terminate(record)
            assert running.find_all() == ()
            assert innocent.poll() is None
        finally:
            innocent.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps the time itself")
def test_a_clock_that_is_set_makes_nobody_disappear(monkeypatch: pytest.MonkeyPatch) -> None:
    record = claim()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 86_400.0)
    assert running.find_all() == (record,)


def test_terminate_ends_the_process_that_is_meant(start: Callable[[str], Other]) -> None:
    other = start("demo")
    name_of(other)
    running.terminate(running.find("demo"))
    assert other.wait(PATIENCE_SECONDS) == -signal.SIGTERM


def test_the_file_is_its_owners_alone_and_goes_with_the_socket() -> None:
    record = claim()
    Path(str(record.control_socket)).touch()
    assert record.path.stat().st_mode & 0o777 == 0o600
    assert record.path.parent.stat().st_mode & 0o777 == 0o700
    running.remove(record)
    running.remove(record)
    assert {path.name for path in record.path.parent.iterdir()} <= {".lock"}


def test_the_control_sockets_path_is_short_enough_whatever_the_name() -> None:
    record = claim("x" * 300)
    assert len(os.fsencode(str(record.control_socket))) <= paths.SOCKET_PATH_LIMIT


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        pytest.param(("--api-key", "s3cret", "-c", "1"), ("--api-key", "…", "-c", "1"), id="key"),
        pytest.param(("--api-key=s3cret",), ("--api-key=…",), id="key with ="),
        pytest.param(("--", "--api_key", "s3cret"), ("--", "--api_key", "…"), id="key with _"),
        pytest.param(("--api_key=s3cret",), ("--api_key=…",), id="key with _ and ="),
        pytest.param(("-hft", "s3cret"), ("-hft", "…"), id="token"),
        pytest.param(
            ("https://me:s3cret@host/m.gguf?sig=s3cret",), ("https://host/m.gguf?…",), id="URL"
        ),
        pytest.param(("m@main", "--alias", "a?b"), ("m@main", "--alias", "a?b"), id="nothing"),
    ],
)
def test_no_secret_is_written_down(argv: tuple[str, ...], shown: tuple[str, ...]) -> None:
    record = claim(argv=argv)
    assert record.argv == shown
    assert "s3cret" not in record.path.read_text()


def test_a_model_that_is_a_signed_url_is_written_down_without_the_signature() -> None:
    record = running.claim("m", model="https://host/m.gguf?sig=s3cret", drain_seconds=0)
    assert "s3cret" not in record.path.read_text()


def test_without_a_name_the_only_one_is_meant_and_of_several_one_must_be_named() -> None:
    with pytest.raises(NotFoundError, match="no server runs"):
        running.find()
    one = claim()
    assert running.find() == one
    claim()
    with pytest.raises(UsageError, match="2 servers run") as several:
        running.find()
    assert several.value.hint == "name one of them: demo, demo-2"
    with pytest.raises(NotFoundError, match="no server named other runs") as missing:
        running.find("other")
    assert missing.value.hint == "there is demo, demo-2"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[1]", id="no object"),
        pytest.param(b'{"schema_version": 99, "name": "demo", "pid": 1}', id="newer"),
        pytest.param(b"\xff\xfe", id="no text"),
    ],
)
def test_a_file_that_cannot_be_read_is_left_alone_and_keeps_its_name(content: bytes) -> None:
    folder = claim("other").path.parent
    (folder / "demo.json").write_bytes(content)
    assert names() == ["other"]
    assert claim().name == "demo-2"
    assert (folder / "demo.json").read_bytes() == content


def test_a_change_is_seen_whole_or_not_at_all() -> None:
    record = claim()
    done = threading.Event()

    def change() -> None:
        n = 0
        while not done.is_set():
            n += 1
            running.update(record, url=f"http://127.0.0.1:{n}" + "0" * 100_000 * (n % 2))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(200):
            assert json.loads(record.path.read_text())["name"] == "demo"
    finally:
        done.set()
        writer.join()
    assert [path.name for path in record.path.parent.glob(".*.tmp")] == []


def test_the_logs_of_its_engines_are_found_by_its_pid() -> None:
    record = claim()
    for folder in (f"engine-{record.pid}-aa", f"engine-{record.pid}1-bb"):
        (paths.runtime_dir() / folder).mkdir()
        (paths.runtime_dir() / folder / "engine.log").touch()
    assert [path.parent.name for path in running.engine_logs(record)] == [f"engine-{record.pid}-aa"]
    assert running.engine_logs(replace(record, pid=1)) == ()
