"""The three logs: what they tell, and that no disk ever stops whoever logs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import DiskError
from localllm.gateway import logs as logging
from localllm.gateway.exchange import Exchange
from localllm.gateway.logs import Logs
from localllm.gateway.settings import Settings
from localllm.gateway.status import GpuUse, Percentiles, ReplicaStatus, Status, Traffic
from localllm.units import KIB, MIB
from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.unprivileged import unprivileged

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX's")

ANSWERED = Exchange(
    id="a1b2",
    arrived_at=1_795_000_000.1234,
    method="POST",
    path="/v1/chat/completions",
    route="/v1/chat/completions",
    generates=True,
    client="127.0.0.1",
    key="team",
    model="demo",
    replica="0",
    status=200,
    attempts=1,
    streams=True,
    received_bytes=120,
    sent_bytes=4000,
    queue_seconds=0.0125,
    ttft_seconds=0.25,
    total_seconds=1.25,
    n_prompt=30,
    n_cached=10,
    n_tokens=51,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def logs(folder: Path) -> Iterator[Logs]:
    logs = Logs(folder, Settings())
    yield logs
    logs.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """What a reader sees: every line is JSON, and the last one is whole."""
    raw = path.read_bytes() if path.exists() else b""
    assert raw == b"" or raw.endswith(b"\n")
    return [json.loads(line) for line in raw.splitlines()]


def await_lines(path: Path, n: int) -> list[dict[str, Any]]:
    """Once so many are there."""
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= n, f"{n} lines")
    return lines(path)


def test_a_request_is_one_line_with_all_that_is_known(logs, folder):
    logs.ended(ANSWERED)
    logs.close()

    assert lines(folder / "access.log") == [
        {
            "time": "2026-11-18T11:06:40.123Z",
            "id": "a1b2",
            "client": "127.0.0.1",
            "key": "team",
            "method": "POST",
            "path": "/v1/chat/completions",
            "route": "/v1/chat/completions",
            "model": "demo",
            "replica": "0",
            "status": 200,
            "outcome": "answered",
            "error": "",
            "attempts": 1,
            "stream": True,
            "received_bytes": 120,
            "sent_bytes": 4000,
            "queue_ms": 12.5,
            "ttft_ms": 250.0,
            "total_ms": 1250.0,
            "n_prompt": 30,
            "n_cached": 10,
            "n_tokens": 51,
            "tokens_per_second": 41.21,
        }
    ]


def test_what_is_not_known_is_null_and_what_a_prompt_says_is_not_there(logs, folder):
    logs.ended(Exchange("1", 0.0, "GET", "/health", status=200, total_seconds=0.5))
    logs.close()
    (line,) = lines(folder / "access.log")

    unknown = {name for name, value in line.items() if value is None}
    assert unknown == {
        "queue_ms",
        "ttft_ms",
        "n_prompt",
        "n_cached",
        "n_tokens",
        "tokens_per_second",
    }
    assert "body" not in line


def test_a_body_is_written_where_it_is_set_and_cut_where_it_is_long(logs, folder):
    logs.ended(replace(ANSWERED, body='{"prompt": "héllo"}'))
    logs.ended(replace(ANSWERED, body="x" * MIB))
    logs.close()
    short, long = lines(folder / "access.log")

    assert short["body"] == '{"prompt": "héllo"}'
    assert long["body"] == "x" * 256 * KIB


def test_a_secret_in_a_query_is_not_written(logs, folder):
    logs.ended(replace(ANSWERED, path="/v1/models?api_key=sk-secret"))
    logs.close()

    assert lines(folder / "access.log")[0]["path"] == "/v1/models"
    assert b"sk-secret" not in (folder / "access.log").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('x"}\n{"status": 200, "key": "admin"}', id="a-line-of-its-own"),
        pytest.param("\x1b]0;title\x07\x1b[2J\x9b31m", id="terminal-escapes"),
        pytest.param("a\u2028b\u2029c\x85d\r\x0b\x0c", id="other-line-ends"),
        pytest.param("/caf\udce9", id="bytes-that-are-no-utf-8"),
        pytest.param("\x00", id="nul"),
    ],
)
def test_what_a_client_sends_cannot_forge_a_line(logs, folder, text):
    logs.ended(replace(ANSWERED, path=text, model=text, method=text, body=text))
    logs.error(text, detail=text)
    logs.close()

    for name, field in (("access", "model"), ("access", "body"), ("error", "detail")):
        raw = (folder / f"{name}.log").read_bytes()
        (line,) = lines(folder / f"{name}.log")
        assert line[field] == text
        assert all(0x20 <= byte < 0x7F for byte in raw[:-1])


def test_a_client_cannot_make_a_line_long(logs, folder):
    text = "y" * MIB
    logs.ended(replace(ANSWERED, path=text, model=text, method=text, error=text))
    logs.close()

    assert (folder / "access.log").stat().st_size < 8 * KIB


def test_an_error_has_a_sentence_and_the_end_of_its_detail(logs, folder):
    log = "\n".join(f"line {n}" for n in range(5000))
    logs.error("Replica 0 died: out of memory.", replica="0", detail=log)
    logs.error("Replica 0 is ready again.", replica="0", level="info")
    logs.close()
    died, ready = lines(folder / "error.log")

    assert (died["level"], died["what"]) == ("error", "Replica 0 died: out of memory.")
    assert died["replica"] == "0"
    assert len(died["detail"]) == 8 * KIB
    assert died["detail"].endswith("line 4999")
    assert (ready["level"], ready["detail"]) == ("info", "")


def test_the_last_twenty_errors_are_remembered(logs):
    for n in range(25):
        logs.error(f"error {n}")

    assert [what for _, what in logs.recent_errors] == [f"error {n}" for n in range(5, 25)]
    assert all(at > 1e9 for at, _ in logs.recent_errors)


def test_performance_is_one_line_of_a_status(logs, folder):
    status = Status(
        name="demo",
        url="http://127.0.0.1:8080",
        model="demo",
        version="1",
        pid=7,
        started_at=0.0,
        now=1_795_000_000.0,
        n_waiting=3,
        queue_limit=64,
        n_running=5,
        rss_bytes=90 * MIB,
        replicas=(
            ReplicaStatus(
                name="0",
                state="ready",
                n_slots=4,
                n_busy=4,
                load_seconds=1.5,
                rss_bytes=500,
                rss_peak_bytes=600,
                gpu_bytes={"0000:19:00.0": 700},
            ),
            ReplicaStatus("1", "loading", 4, 1, restarts=2),
        ),
        traffic=Traffic(
            seconds=60.0,
            n_requests=10,
            n_refused=1,
            tokens_per_second=42.123456,
            ttft_seconds=Percentiles(10, 0.1, 0.2, 0.3),
        ),
        gpus=(GpuUse("NVIDIA H200", 0.5, 10, 20),),
    )
    logs.performance(status)
    logs.performance(replace(status, rss_bytes=80 * MIB))
    logs.close()
    first, second = lines(folder / "performance.log")

    assert first["time"] == "2026-11-18T11:06:40.000Z"
    assert (first["requests"], first["refused"], first["tokens_per_second"]) == (10, 1, 42.12)
    assert first["ttft_ms"] == {"n": 10, "p50": 100.0, "p90": 200.0, "p99": 300.0}
    assert first["queue_ms"] == {"n": 0, "p50": None, "p90": None, "p99": None}
    assert {"token_ms", "total_ms"} <= first.keys()
    assert (first["waiting"], first["slots_busy"], first["slots"]) == (3, 5, 8)
    assert [of["load_seconds"] for of in first["replicas"]] == [1.5, None]
    assert first["replicas"][0]["rss_peak_bytes"] == 600
    assert first["replicas"][0]["gpu_bytes"] == {"0000:19:00.0": 700}
    assert first["replicas"][1]["restarts"] == 2
    gpu = {"name": "NVIDIA H200", "utilization": 0.5, "used_bytes": 10, "total_bytes": 20}
    assert first["gpus"] == [gpu]
    assert (second["rss_bytes"], second["rss_peak_bytes"]) == (80 * MIB, 90 * MIB)


def test_ten_thousand_lines_come_in_their_order(logs, folder):
    for n in range(10_000):
        logs.ended(replace(ANSWERED, id=str(n)))
    logs.close()

    assert [line["id"] for line in lines(folder / "access.log")] == [str(n) for n in range(10_000)]
    assert logs.lost_lines == 0


@posix
def test_folder_and_files_are_the_owners_alone(logs, folder):
    logs.ended(ANSWERED)
    logs.close()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "access.log").stat().st_mode) == 0o600


@posix
def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path):
    tmp_path.chmod(0o755)
    with unprivileged(), pytest.raises(DiskError, match="cannot make the folder"):
        Logs(Path("/proc/no/such"), Settings())


def ids(folder: Path, name: str = "access.log") -> list[int]:
    return [int(line["id"]) for line in lines(folder / name)]


def test_files_are_rotated_by_size_and_the_oldest_go(folder):
    logs = Logs(folder, Settings(log_bytes=5000, log_files=3))
    for n in range(100):
        logs.ended(replace(ANSWERED, id=str(n)))
    logs.close()

    names = ["access.log.2", "access.log.1", "access.log"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all(2500 < (folder / name).stat().st_size <= 5000 for name in names[:2])
    kept = [n for name in names for n in ids(folder, name)]
    assert kept == list(range(100 - len(kept), 100))
    assert stat.S_IMODE((folder / "access.log").stat().st_mode) & 0o077 == 0 or os.name == "nt"


def test_one_file_alone_begins_anew(folder):
    logs = Logs(folder, Settings(log_bytes=2000, log_files=1))
    for n in range(50):
        logs.ended(replace(ANSWERED, id=str(n)))
    logs.close()

    assert [path.name for path in folder.iterdir()] == ["access.log"]
    assert ids(folder)[-1] == 49
    assert (folder / "access.log").stat().st_size <= 2000


def test_fewer_and_smaller_files_can_be_asked_for_while_it_runs(folder):
    logs = Logs(folder, Settings(log_bytes=1000, log_files=6))
    (folder / "access.log.1.gz").write_text("somebody else's")
    for n in range(40):
        logs.ended(replace(ANSWERED, id=str(n)))
    wait_until(lambda: (folder / "access.log.5").exists(), "six files")
    wait_until(lambda: 39 in ids(folder), "the last line")
    logs.changed(Settings(log_bytes=600, log_files=2))
    for n in range(40, 45):
        logs.ended(replace(ANSWERED, id=str(n)))
    logs.close()

    names = sorted(path.name for path in folder.iterdir())
    assert names == ["access.log", "access.log.1", "access.log.1.gz"]
    assert (ids(folder, "access.log.1"), ids(folder)) == ([43], [44])


def test_a_process_that_comes_after_goes_on_in_the_same_file(folder):
    for n in range(2):
        logs = Logs(folder, Settings())
        logs.ended(replace(ANSWERED, id=str(n)))
        logs.close()

    assert ids(folder) == [0, 1]


@posix
def test_a_deleted_file_comes_back(logs, folder):
    logs.ended(replace(ANSWERED, id="1"))
    await_lines(folder / "access.log", 1)
    (folder / "access.log").unlink()
    logs.ended(replace(ANSWERED, id="2"))
    await_lines(folder / "access.log", 1)
    shutil.rmtree(folder)
    logs.ended(replace(ANSWERED, id="3"))
    logs.close()

    assert ids(folder) == [3]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert logs.lost_lines == 0


@posix
@pytest.mark.parametrize("others", ["nothing", "a new file"])
def test_a_file_that_logrotate_moved_is_left(logs, folder, others):
    logs.ended(replace(ANSWERED, id="1"))
    await_lines(folder / "access.log", 1)
    (folder / "access.log").rename(folder / "moved")
    if others == "a new file":
        (folder / "access.log").touch(0o640)
    logs.ended(replace(ANSWERED, id="2"))
    logs.close()

    assert (ids(folder, "moved"), ids(folder)) == ([1], [2])


@posix
def test_a_truncated_file_goes_on_at_its_beginning(logs, folder):
    logs.ended(replace(ANSWERED, id="1"))
    await_lines(folder / "access.log", 1)
    os.truncate(folder / "access.log", 0)
    logs.ended(replace(ANSWERED, id="2"))
    logs.close()

    assert ids(folder) == [2]


def test_files_are_opened_anew_when_asked(logs, folder):
    opened = []
    file = logs._files["access"]
    file._open = lambda: (opened.append(1), type(file)._open(file))
    logs.ended(ANSWERED)
    await_lines(folder / "access.log", 1)
    logs.reopen()
    wait_until(lambda: file._file is None, "the file to be closed")
    logs.ended(ANSWERED)
    await_lines(folder / "access.log", 2)

    assert len(opened) == 2


@dataclass(frozen=True)
class Disk:
    """One that can be filled and freed again."""

    folder: Path
    fill: Callable[[], None]
    free: Callable[[], None]
    reason: str


@pytest.fixture(params=["a limit on files", "a full file system"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    resource = pytest.importorskip("resource")
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a limit on files":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limit(n_bytes: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))

        yield Disk(folder, lambda: limit(700), lambda: limit(before[0]), "File too large")
        limit(before[0])
        return
    mounted = shutil.which("mount") is not None and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "localllm-test", folder],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("mounting is not permitted")
    filler = folder / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(KIB))

    yield Disk(folder, fill, filler.unlink, "No space left")
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_loses_lines_and_tells_how_many_when_there_is_room_again(disk):
    logs = Logs(disk.folder, Settings())
    path = disk.folder / "access.log"
    logs.ended(replace(ANSWERED, id="0"))
    await_lines(path, 1)

    disk.fill()
    for n in range(1, 101):
        logs.ended(replace(ANSWERED, id=str(n)))
    access = logs._files["access"]
    wait_until(lambda: access.lost_lines + path.read_bytes().count(b"\n") == 101, "all to be tried")
    n_lost, n_kept = access.lost_lines, len(lines(path))
    disk.free()
    logs.ended(replace(ANSWERED, id="101"))
    logs.ended(replace(ANSWERED, id="102"))
    logs.close()

    assert 1 <= n_kept < 101
    *_, after, last = lines(path)
    assert (after["id"], after["lost"]) == ("101", n_lost)
    assert last["id"] == "102"
    assert "lost" not in last
    assert [line["id"] for line in lines(path)[:n_kept]] == [str(n) for n in range(n_kept)]
    told = [what for _, what in logs.recent_errors]
    assert [what for what in told if "access.log" in what] == [told[0]], "told once"
    assert disk.reason in told[0]


@posix
def test_a_disk_that_hangs_does_not_stop_whoever_logs(folder, monkeypatch):
    monkeypatch.setattr(logging, "_QUEUED_BYTES", 50 * KIB)
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "access.log", 0o600)  # opening it waits for a reader
    logs = Logs(folder, Settings())
    logged = threading.Event()

    def log() -> None:
        for n in range(1000):
            logs.ended(replace(ANSWERED, id=str(n)))
        logged.set()

    threading.Thread(target=log, daemon=True).start()
    assert logged.wait(PATIENCE_SECONDS), "logging waited for the disk"
    assert logs._queued_bytes <= 50 * KIB
    assert 0 < logs.lost_lines < 1000

    with open(folder / "access.log", "rb") as reader:  # the disk is back
        n_read = 1000 - logs.lost_lines
        first = [json.loads(reader.readline()) for _ in range(n_read)]
        n_lost = logs.lost_lines
        logs.ended(replace(ANSWERED, id="later"))
        later = json.loads(reader.readline())
        logs.close()

    written = [int(line["id"]) for line in first]
    assert written == sorted(set(written))
    assert sum(line.get("lost", 0) for line in [*first, later]) == n_lost
    assert later["id"] == "later"


@posix
def test_closing_does_not_wait_for_a_disk_that_hangs(folder, monkeypatch):
    monkeypatch.setattr(logging, "_CLOSE_SECONDS", 0.05)
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "access.log", 0o600)
    logs = Logs(folder, Settings())
    logs.ended(ANSWERED)
    closed = threading.Event()
    threading.Thread(target=lambda: (logs.close(), closed.set()), daemon=True).start()

    assert closed.wait(PATIENCE_SECONDS)
    logs.ended(ANSWERED)  # and nothing raises afterwards
    assert logs.lost_lines == 1
    os.close(os.open(folder / "access.log", os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go
