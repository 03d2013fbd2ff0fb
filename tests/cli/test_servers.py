"""ps, stop, logs, --background and --print-systemd: real processes, real sockets, real logs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from localllm import running
from localllm.cli import background
from localllm.errors import LocalllmError
from localllm.gateway.exchange import Exchange
from localllm.gateway.logs import Logs
from localllm.gateway.settings import Settings
from localllm.gateway.status import Status
from tests.cli.scripted_gateway import status
from tests.conftest import PATIENCE_SECONDS, run_localllm, wait_until

pexpect = pytest.importorskip("pexpect")

ROOT = Path(__file__).parents[2]
USAGE, MISSING = 2, 3
STYLE = re.compile(r"\x1b\[[\d;]*m")

Server = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Scripted gateways, which have taken their names when they are handed out."""
    started: list[Server] = []

    def start_one(name: str, *flags: str, **environment: str) -> Server:
        one = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.scripted_gateway", name, *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline().startswith(name)
        return one

    yield start_one
    for one in started:
        one.kill()
        one.communicate()


def says(name: str, **changes: Any) -> None:
    """What the server of that name says from now on."""
    folder = running.find(name).log_dir
    (folder / "new").write_text(json.dumps(status(**changes)))
    (folder / "new").replace(folder / "status.json")


def spawn(*argv: str, columns: int = 100) -> Any:
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    return pexpect.spawn(
        sys.executable,
        ["-m", "localllm", *argv],
        env=environment,
        dimensions=(30, columns),
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
    )


class TestPs:
    def test_a_sentence_when_nothing_runs(self) -> None:
        done = run_localllm("ps")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no server runs" in done.stderr
        assert json.loads(run_localllm("ps", "--json").stdout) == {
            "schema_version": 1,
            "servers": [],
        }

    def test_a_row_for_each_server(self, start: Callable[..., Server]) -> None:
        start("demo")
        start("big")
        says("big", draining=True, model="A very long name of a model " * 5, n_waiting=17)
        done = run_localllm("ps")
        heading, big, demo = done.stdout.splitlines()
        assert heading.split() == [
            "name", "model", "url", "state", "replicas", "busy", "waiting", "tok/s", "up", "memory"
        ]  # fmt: skip
        assert big.startswith("big ")
        assert " draining " in big
        assert demo.endswith("  760 MiB")
        assert demo.split()[-11:-2] == [
            "ready", "1/1", "1/4", "3", "51.3", "1", "h", "5", "min"
        ]  # fmt: skip
        assert " 17 " in big

    @pytest.mark.parametrize(
        ("states", "told"),
        [
            pytest.param(["ready", "loading"], "ready", id="one is enough"),
            pytest.param(["loading", "failed"], "loading", id="one may still come"),
            pytest.param(["failed", "failed"], "failed", id="none is left"),
            pytest.param(["starting"], "loading", id="at the beginning"),
        ],
    )
    def test_the_state_of_all_replicas_together(self, states: list[str], told: str) -> None:
        from localllm.cli.processes import state_of

        (replica,) = status()["replicas"]
        replicas = [{**replica, "state": state} for state in states]
        assert state_of(Status.from_json(status(replicas=replicas))) == told

    def test_one_that_does_not_answer_is_told_and_does_not_hide_the_others(
        self, start: Callable[..., Server]
    ) -> None:
        start("deaf", "--deaf")
        start("demo")
        done = run_localllm("ps")
        _, deaf, demo = done.stdout.splitlines()
        assert "not answering" in deaf
        assert " ready " in demo
        assert "deaf does not answer" in done.stderr
        assert done.returncode == 0

    def test_the_document_has_no_secret_of_the_control_address(
        self, start: Callable[..., Server]
    ) -> None:
        start("demo")
        (server,) = json.loads(run_localllm("ps", "--json").stdout)["servers"]
        assert (server["name"], server["state"], server["error"]) == ("demo", "ready", None)
        assert server["status"]["n_waiting"] == 3
        assert not any("control" in key for key in server)

    @pytest.mark.parametrize("columns", [60, 80, 120])
    def test_a_narrow_window_has_fewer_columns_and_no_broken_row(
        self, start: Callable[..., Server], columns: int
    ) -> None:
        start("demo")
        child = spawn("ps", columns=columns)
        child.expect(pexpect.EOF)
        rows = STYLE.sub("", child.before).strip().splitlines()
        assert len(rows) == 2
        assert max(map(len, rows)) <= columns
        assert ("memory" in rows[0]) == (columns > 60)
        assert {"name", "state", "url"} <= set(rows[0].split())

    def test_a_models_name_cannot_control_the_terminal(self, start: Callable[..., Server]) -> None:
        start("demo")
        running.update(running.find("demo"), model="evil\x1b]0;title\x07\x9b2J\nmodel")
        assert "evil]0;title2J model" in run_localllm("ps").stdout


class TestStop:
    def test_it_ends_and_is_gone(self, start: Callable[..., Server]) -> None:
        server = start("demo")
        done = run_localllm("stop")
        assert done.returncode == 0, done.stderr
        assert "demo has stopped" in done.stderr
        assert server.wait(PATIENCE_SECONDS) == 0
        assert running.find_all() == ()

    def test_it_waits_for_the_requests_that_run(self, start: Callable[..., Server]) -> None:
        server = start("demo")
        says("demo", n_running=1, n_waiting=0)
        child = spawn("stop", "demo")
        child.expect("demo is stopping, 1 request to finish")
        assert server.poll() is None
        says("demo", n_running=0)
        child.expect("demo has stopped")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0

    def test_now_does_not_wait(self, start: Callable[..., Server]) -> None:
        server = start("demo")
        says("demo", n_running=1)
        done = run_localllm("stop", "demo", "--now")
        assert done.returncode == 0, done.stderr
        assert server.wait(PATIENCE_SECONDS) == 0

    def test_one_that_drains_already_is_waited_for_and_not_hurried(
        self, start: Callable[..., Server]
    ) -> None:
        server = start("demo")
        says("demo", n_running=2, draining=True)
        child = spawn("stop", "demo")
        child.expect("5 requests to finish")  # 3 of them wait
        server.send_signal(signal.SIGTERM)
        child.expect("5 requests to finish")
        assert server.poll() is None
        says("demo", n_running=0)
        child.expect("demo has stopped")

    def test_all_are_stopped(self, start: Callable[..., Server]) -> None:
        servers = [start("demo"), start("demo"), start("other")]
        assert run_localllm("stop").returncode == USAGE
        assert run_localllm("stop", "demo", "--all").returncode == USAGE
        assert run_localllm("stop", "--all").returncode == 0
        assert [server.wait(PATIENCE_SECONDS) for server in servers] == [0, 0, 0]
        assert run_localllm("stop", "--all").returncode == 0

    def test_one_that_does_not_end_in_time_is_told(
        self, start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from localllm.cli import processes

        server = start("demo", "--stubborn", DRAIN_SECONDS="0.1")
        monkeypatch.setattr(processes, "GRACE_SECONDS", 0.3)
        with pytest.raises(LocalllmError, match="not stopped in time: demo") as caught:
            processes.run_stop("demo", every=False, now=False)
        assert caught.value.exit_code == 1
        assert f"kill -9 {server.pid}" in str(caught.value.hint)
        assert "--now" in str(caught.value.hint)
        assert server.poll() is None

    def test_an_unknown_name_says_which_there_are(self, start: Callable[..., Server]) -> None:
        start("demo")
        done = run_localllm("stop", "dmeo")
        assert done.returncode == MISSING
        assert "hint: there is demo" in done.stderr


class TestLogs:
    @pytest.fixture
    def logs(self) -> Iterator[Logs]:
        written = Logs(running.logs_of("demo"), Settings(log_bytes=2000, log_files=50))
        yield written
        written.close()

    def answered(self, logs: Logs, n: int, **changes: Any) -> None:
        exchange = Exchange(
            f"id-{n}", time.time(), "POST", "/v1/chat/completions", key="alice", status=200,
            route="/v1/chat/completions", queue_seconds=0.003, ttft_seconds=0.084,
            total_seconds=2.7, n_tokens=132,
        )  # fmt: skip
        for name, value in changes.items():
            setattr(exchange, name, value)
        logs.ended(exchange)

    def ids(self, text: str) -> list[int]:
        return [int(json.loads(line)["id"].removeprefix("id-")) for line in text.splitlines()]

    def test_the_last_lines_as_they_are_in_a_pipe_whatever_file_they_are_in(
        self, logs: Logs
    ) -> None:
        for n in range(60):
            self.answered(logs, n)
        logs.close()
        assert len(list(running.logs_of("demo").glob("access.log.*"))) > 3
        assert self.ids(run_localllm("logs", "demo").stdout) == list(range(40, 60))
        assert self.ids(run_localllm("logs", "demo", "-n", "50").stdout) == list(range(10, 60))
        assert self.ids(run_localllm("logs", "demo", "-n", "999").stdout) == list(range(60))
        assert self.ids(run_localllm("logs", "demo", "-n", "0").stdout) == []

    def test_follow_shows_each_line_once_across_rotation(self, logs: Logs) -> None:
        self.answered(logs, 0)
        wait_until((running.logs_of("demo") / "access.log").exists, "the log")
        with subprocess.Popen(
            [sys.executable, "-m", "localllm", "logs", "demo", "-f"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            seen = [child.stdout.readline()]
            for n in range(1, 13):
                self.answered(logs, n)
                seen.append(child.stdout.readline())
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE_SECONDS) == 130
            assert child.stderr.read() == ""
        assert self.ids("".join(seen)) == list(range(13))
        assert (running.logs_of("demo") / "access.log.1").exists()

    def test_follow_waits_for_a_log_that_is_not_there_yet_and_for_whole_lines(
        self, start: Callable[..., Server]
    ) -> None:
        start("demo")
        path = running.logs_of("demo") / "error.log"
        child = spawn("logs", "-f", "--error", "--json")
        with path.open("a") as file:
            file.write('{"what": "hal')
            file.flush()
            with pytest.raises(pexpect.TIMEOUT):
                child.expect("hal", timeout=0.6)
            file.write('f"}\n')
            file.flush()
            child.expect_exact('{"what": "half"}')
        child.sendintr()
        child.expect(pexpect.EOF)

    def test_an_emptied_log_is_read_from_its_beginning(self, logs: Logs) -> None:
        self.answered(logs, 0)
        logs.close()
        path = running.logs_of("demo") / "access.log"
        child = spawn("logs", "demo", "-f", "--json", columns=2000)
        child.expect("id-0")
        line = path.read_text()
        os.truncate(path, 0)
        with path.open("a") as file:
            file.write(line.replace("id-0", "id")[:50].partition(",")[0] + "}\n")
        child.expect_exact('{"time"')
        child.close(force=True)

    @pytest.mark.parametrize("columns", [60, 80, 200])
    def test_a_row_each_on_a_terminal(self, logs: Logs, columns: int) -> None:
        self.answered(logs, 1)
        self.answered(
            logs, 2, status=429, outcome="refused", error="the queue \x1b[2Jis\nfull", key="",
            ttft_seconds=None, n_tokens=None,
        )  # fmt: skip
        logs.close()
        child = spawn("logs", "demo", columns=columns)
        child.expect(pexpect.EOF)
        heading, good, bad = STYLE.sub("", child.before).strip().splitlines()
        assert max(map(len, (heading, good, bad))) <= columns
        assert good.split()[1:3] == ["alice", "chat/completions"]
        if columns >= 80:
            assert heading.split()[1:] == [
                "key", "route", "code", "queue", "ttft", "tokens", "tok/s", "total"
            ]  # fmt: skip
            assert good.split()[3:] == ["200", "3", "ms", "84", "ms", "132", "48.9", "2.7", "s"]
            for title, value in (("code", "200"), ("tok/s", "48.9"), ("total", "2.7 s")):
                end = heading.index(title) + len(title)
                assert good[:end].endswith(value), title
        if columns == 200:
            assert "the queue [2Jis full" in bad
        assert "\x1b[2J" not in child.before

    def test_errors_and_performance_have_rows_of_their_own(self, logs: Logs) -> None:
        logs.error("llama-server died", replica="0", detail="much\nmore")
        logs.performance(Status.from_json(status()))
        logs.close()
        child = spawn("logs", "demo", "--error")
        child.expect("error +replica 0: llama-server died")
        child = spawn("logs", "demo", "--performance")
        child.expect(r"120 +2 +1 +3 +1/4 +51\.3 +84 ms +2\.7 s +760 MiB")

    def test_what_the_engines_print_is_shown_while_they_run(
        self, start: Callable[..., Server]
    ) -> None:
        server = start("demo")
        from localllm import paths

        folder = paths.runtime_dir() / f"engine-{server.pid}-abc"
        folder.mkdir()
        (folder / "engine.log").write_text("one\ntwo\n")
        assert run_localllm("logs", "--engine").stdout == "one\ntwo\n"
        end = run_localllm("stop")
        assert end.returncode == 0
        done = run_localllm("logs", "demo", "--engine")
        assert done.returncode == MISSING
        assert "--error" in done.stderr

    def test_whose_logs_there_are_is_told(self, logs: Logs) -> None:
        assert run_localllm("logs", "demo", "--error", "--access").returncode == USAGE
        done = run_localllm("logs", "other")
        assert done.returncode == MISSING
        assert "the logs of demo are here" in done.stderr
        assert run_localllm("logs", "../logs/demo").returncode == MISSING

    def test_a_file_among_them_is_nobodys_logs(self, logs: Logs) -> None:
        (running.logs_of("demo").parent / ".starting-1.log").touch()
        done = run_localllm("logs", "other")
        assert "the logs of demo are here" in done.stderr


class TestBackground:
    @pytest.fixture
    def serve(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
        """Makes the program that is started in the background a script."""

        def serve_by(script: str) -> None:
            program = tmp_path / "python"
            program.write_text(f"#!/bin/sh\nshift 3\n{script}\n")  # -c CODE serve
            program.chmod(0o755)
            monkeypatch.setattr(background.sys, "executable", str(program))

        return serve_by

    def test_it_returns_when_a_replica_is_ready_and_the_server_goes_on(
        self, serve: Callable[[str], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        serve(f'echo loading; cd {ROOT}; exec {sys.executable} -m tests.cli.scripted_gateway "$@"')
        record = background.start_background(["demo"], "demo")
        try:
            assert running.is_alive(record)
            assert os.getsid(record.pid) == record.pid, "it has no terminal"
            printed = capsys.readouterr().out
            assert printed.startswith("demo on http://127.0.0.1:8080\n")
            assert "localllm stop demo" in printed
            assert "localllm logs demo -f" in printed
            assert (record.log_dir / "serve.log").read_text().startswith("loading\n")
            assert (record.log_dir / "serve.log").stat().st_mode & 0o777 == 0o600
        finally:
            running.terminate(record)
        wait_until(lambda: not running.is_alive(record), "its end")
        assert list(record.log_dir.parent.glob(".starting*")) == []

    @pytest.mark.parametrize(
        ("script", "code", "message", "hint"),
        [
            pytest.param(
                "echo planning; printf 'error: it is not here\\n\\nhint: pull it\\n'; exit 3",
                3, "it is not here", "pull it", id="with its own words",
            ),
            pytest.param("echo 'error: no room'; exit 8", 8, "no room", None, id="without a hint"),
            pytest.param("echo one; echo two >&2; exit 7", 7, "one two", None, id="other words"),
            pytest.param("kill -9 $$", 137, "it said nothing", None, id="killed"),
            pytest.param("exit 0", 1, "ended with 0 before", None, id="told to stop"),
        ],
    )  # fmt: skip
    def test_one_that_ends_at_once_leaves_its_words_and_its_exit_code(
        self, serve: Callable[[str], None], script: str, code: int, message: str, hint: str | None
    ) -> None:
        serve(script)
        with pytest.raises(LocalllmError, match=message) as caught:
            background.start_background(["demo"], "demo")
        assert (caught.value.exit_code, caught.value.hint) == (code, hint)

    def test_one_whose_replicas_all_failed_is_ended_with_their_error(
        self, serve: Callable[[str], None]
    ) -> None:
        folder = running.logs_of("demo")
        folder.mkdir(parents=True)
        (replica,) = status()["replicas"]
        failed = {**replica, "state": "failed", "last_error": "no memory for it"}
        (folder / "status.json").write_text(json.dumps(status(replicas=[failed])))
        serve(f'cd {ROOT}; exec {sys.executable} -m tests.cli.scripted_gateway "$@"')
        with pytest.raises(LocalllmError, match="demo cannot answer: no memory for it"):
            background.start_background(["demo"], "demo")
        wait_until(lambda: running.find_all() == (), "its end")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda of: of.name)
    def test_a_starter_that_is_told_to_end_takes_the_server_along(
        self, serve: Callable[[str], None], tmp_path: Path, number: signal.Signals
    ) -> None:
        python = sys.executable
        serve("exec sleep 1000")
        start = "import sys; sys.executable = sys.argv[1]; from localllm.cli import background"
        start += "; background.start_background(['demo'], 'demo')"
        with subprocess.Popen(
            [python, "-c", start, str(tmp_path / "python")],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        ) as starter:
            assert starter.stderr is not None
            assert starter.stderr.readline() == "localllm: demo is starting\n"
            (server,) = psutil.Process(starter.pid).children()
            starter.send_signal(number)
            assert starter.wait(PATIENCE_SECONDS) == 128 + number
        wait_until(lambda: not server.is_running(), "its end")
        assert list(running.logs_of("demo").parent.glob(".starting*")) == []


ARGUMENTS = ["--api-key-file", "/my keys/$HOME 100%", "a\"b'\\", ";", "$$", "%h", "tab\there", "é"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
class TestSystemd:
    @pytest.mark.parametrize("user", [True, False], ids=["user", "system"])
    def test_systemd_finds_nothing_wrong_with_the_unit(self, tmp_path: Path, user: bool) -> None:
        unit = tmp_path / "localllm.service"
        unit.write_text(background.systemd_unit(["demo", *ARGUMENTS], user=user))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user" if user else "--system", str(unit)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )
        about_ours = [line for line in done.stderr.splitlines() if "localllm" in line]
        assert (about_ours, done.returncode) == ([], 0), done.stderr


class TestUnit:
    def line(self, unit: str, key: str) -> str:
        (found,) = [line for line in unit.splitlines() if line.startswith(f"{key}=")]
        return found.partition("=")[2]

    def test_the_arguments_mean_the_same_in_it(self) -> None:
        command = self.line(background.systemd_unit(["demo", *ARGUMENTS]), "ExecStart")
        # Quoting is a shell's but for escapes; then specifiers and variables.
        plain = command.replace("\\x09", "\t").replace("$$", "$").replace("%%", "%")
        words = shlex.split(plain)
        assert words[0] == sys.executable
        assert words[3:] == ["serve", "demo", *ARGUMENTS]
        assert '";"' in command

    def test_it_goes_on_with_the_folders_of_this_shell_and_without_its_secrets(self) -> None:
        environment = {"LOCALLLM_HOME": "/my models/50%", "HF_TOKEN": "s3cret", "HF_HOME": ""}
        unit = background.systemd_unit(["demo"], environment=environment)
        assert self.line(unit, "Environment") == '"LOCALLLM_HOME=/my models/50%%"'
        assert "s3cret" not in unit

    @pytest.mark.parametrize(
        ("drain", "stop"), [(30.0, "60"), (600.0, "630"), (0.0, "infinity")], ids=str
    )
    def test_systemd_waits_longer_than_the_requests_may_take(self, drain: float, stop: str) -> None:
        unit = background.systemd_unit(["demo"], drain_seconds=drain)
        assert self.line(unit, "TimeoutStopSec") == stop
