"""From its start to its end: signals, settings that change, the ways to start it, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from localllm import running
from localllm.gateway.control import fetch_status
from tests.conftest import PATIENCE_SECONDS, run_localllm, wait_until
from tests.gateway.faults import PATH, request_body, run_folders, stream_error
from tests.gateway.serving import Served, served

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

FAILURE, USAGE, INTEGRITY, BROKEN_ENGINE = 1, 2, 6, 9
JSON = {"Content-Type": "application/json"}


class Held:
    """A stream that has begun, of a llama-server that was stopped then: it lasts until `go_on`."""

    def __init__(self, one: Served, pool: ThreadPoolExecutor) -> None:
        self._child = one.children[0]
        self._begun = threading.Event()
        self.answer: Future[tuple[int, bytes]] = pool.submit(self._read, one)
        assert self._begun.wait(PATIENCE_SECONDS)
        self._child.suspend()

    def _read(self, one: Served) -> tuple[int, bytes]:
        body = b""
        with (
            one.client() as client,
            client.stream("POST", PATH, content=request_body(0, 2000), headers=JSON) as answer,
        ):
            for piece in answer.iter_raw():
                body += piece
                self._begun.set()
        return answer.status_code, body

    def go_on(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._child.resume()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def ask(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post(PATH, content=request_body(1, 5), headers={**JSON, **headers})


def assert_nothing_left(one: Served, code: int = 0) -> None:
    assert one.process.wait(PATIENCE_SECONDS) == code, one.output
    assert "Traceback" not in one.output
    assert not run_folders(one)
    assert not list((one.home / "run/servers").glob("*.json"))
    assert not list((one.home / "run").rglob("*.sock"))


# It is told to stop.


def test_sigterm_lets_what_runs_be_answered_and_takes_nothing_new(
    pool: ThreadPoolExecutor, home: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(PATIENCE_SECONDS)
        notified.bind(str(home / "notify"))
        environment = {"NOTIFY_SOCKET": str(home / "notify")}
        with served("demo", "--parallel", "2", environment=environment) as one:
            assert notified.recv(100) == b"READY=1"
            with one.client() as client:
                assert client.get("/readyz").status_code == 200
                held = Held(one, pool)
                one.signal(signal.SIGTERM)
                wait_until(lambda: one.status.draining, "it to drain")
                assert notified.recv(100) == b"STOPPING=1"
                # On a connection that is there already; there are no new ones.
                assert client.get("/readyz").status_code == 503
                assert client.get("/healthz").status_code == 200
                refused = ask(client)
                assert refused.status_code == 503
                assert refused.json()["error"]["message"] == "the server is shutting down"
                assert int(refused.headers["Retry-After"]) > 0
            assert not one.gone
            held.go_on()
            status, body = held.answer.result()
            assert status == 200
            assert stream_error(body) is None
            assert_nothing_left(one)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, id="Ctrl-C")]
)
def test_the_second_signal_ends_what_runs(pool: ThreadPoolExecutor, number: int) -> None:
    with served("demo", "--parallel", "2") as one:
        held = Held(one, pool)
        one.signal(number)
        wait_until(lambda: one.status.draining, "it to drain")
        assert "1 requests are still being answered" in one.output
        one.signal(number)
        status, body = held.answer.result()
        held.go_on()
        assert status == 200
        assert json.loads(_last_event(body))["error"]["code"] == 503
        assert_nothing_left(one)


def test_what_was_not_answered_in_the_time_for_it_is_ended_and_told(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("drain_seconds: 0.2\n")
    with served("demo", "--parallel", "2", "--config", str(config)) as one:
        held = Held(one, pool)
        one.signal(signal.SIGTERM)
        _, body = held.answer.result()
        held.go_on()
        assert json.loads(_last_event(body))["error"]["code"] == 503
        assert_nothing_left(one)
        assert "1 requests were not answered within 0.2 s" in one.output


def _last_event(body: bytes) -> str:
    assert body.endswith(b"\n\n")
    return body.decode().removesuffix("\n\n").rpartition("data: ")[2]


def test_sigkill_leaves_no_llama_server_and_no_folder_of_one() -> None:
    with served("demo", "--parallel", "2") as one:
        child = one.children[0]
        one.process.kill()
        one.process.wait()
        wait_until(lambda: not child.is_running(), "its llama-server to be ended")
        wait_until(lambda: not run_folders(one), "its folder to be cleared away")


def test_what_nobody_was_left_to_clear_away_the_next_start_clears_away() -> None:
    with served("demo", "--parallel", "2") as one:
        child = one.children[0]
        guardian = child.parent()
        assert guardian is not None
        folders = run_folders(one)
        guardian.suspend()  # which else would clear away
        one.process.kill()
        guardian.kill()
        one.process.wait()
        wait_until(lambda: not child.is_running(), "its llama-server to be ended")
        assert run_folders(one) == folders
        again = Served("demo", "--parallel", "2", "--port", "0", home=one.home)
        try:
            again.wait_ready()
            assert again.record.name == "demo"
            assert len(run_folders(again)) == 1
            assert run_folders(again) != folders
        finally:
            again.stop()
        assert_nothing_left(again)


# Settings that change.


class Configured:
    """A gateway with a serve.yaml and keys that can be written anew."""

    def __init__(self, one: Served, config: Path, keys: Path) -> None:
        self.one = one
        self.config = config
        self.keys = keys

    def reload(self, text: str, told: str) -> None:
        """Writes it, and waits until the gateway has said that."""
        n_before = self.one.output.count(told)
        self.config.write_text(text)
        self.one.signal(signal.SIGHUP)
        wait_until(lambda: self.one.output.count(told) > n_before, f"{told!r} in its output")


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    folder = tmp_path_factory.mktemp("serve")
    config, keys = folder / "serve.yaml", folder / "keys"
    config.write_text("api_key_file: keys\n")
    keys.write_text("alice alice-has-a-long-key\n")
    keys.chmod(0o600)
    with served("demo", "--parallel", "2", "--config", str(config)) as one:
        yield Configured(one, config, keys)


BASE = "api_key_file: keys\n"
AGAIN = "settings read again"


@pytest.fixture
def by_alice(configured: Configured) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer alice-has-a-long-key"}
    with configured.one.client(headers=headers) as client:
        yield client


def test_sighup_takes_over_limits_and_origins(
    configured: Configured, by_alice: httpx.Client
) -> None:
    page = {"Origin": "https://chat.example"}
    assert ask(by_alice, **page).status_code == 403
    configured.reload(
        f"{BASE}cors_origins: [https://chat.example]\nlimits:\n  requests_per_minute: 1\n",
        f"{AGAIN}: cors_origins, limits",
    )
    answers = [ask(by_alice, **page) for _ in range(4)]
    assert answers[0].headers["Access-Control-Allow-Origin"] == "https://chat.example"
    assert answers[-1].status_code == 429
    configured.reload(BASE, f"{AGAIN}: cors_origins, limits")
    assert ask(by_alice).status_code == 200
    assert ask(by_alice, **page).status_code == 403


def test_sighup_takes_over_keys(configured: Configured, by_alice: httpx.Client) -> None:
    of_bob = {"Authorization": "Bearer bob-has-a-long-key-as-well"}
    assert ask(by_alice, **of_bob).status_code == 401
    before = configured.keys.read_text()
    configured.keys.write_text("bob bob-has-a-long-key-as-well\n")
    configured.reload(BASE, AGAIN)
    assert ask(by_alice, **of_bob).status_code == 200
    assert ask(by_alice).status_code == 401
    configured.keys.write_text(before)
    configured.reload(BASE, AGAIN)
    assert ask(by_alice).status_code == 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("que_limit: 3\n", "line 2: there is no setting 'que_limit'", id="a name"),
        pytest.param("queue_limit: few\n", "line 2: queue_limit must", id="a value"),
        pytest.param("queue_limit: [3\n", "not YAML", id="no YAML"),
    ],
)
def test_sighup_with_a_broken_file_changes_nothing_and_says_so(
    configured: Configured, by_alice: httpx.Client, text: str, told: str
) -> None:
    limit = configured.one.status.queue_limit
    configured.reload(BASE + text, told)
    assert "the settings stay as they are: " in configured.one.output
    assert any(told in what for _, what in configured.one.status.errors)
    assert configured.one.status.queue_limit == limit
    assert ask(by_alice).status_code == 200
    configured.reload(BASE, AGAIN)


def test_sighup_without_the_key_file_changes_nothing(
    configured: Configured, by_alice: httpx.Client
) -> None:
    away = configured.keys.with_name("away")
    configured.keys.rename(away)
    configured.reload(BASE, "the settings stay as they are: ")
    away.rename(configured.keys)
    assert ask(by_alice).status_code == 200
    assert ask(by_alice, Authorization="Bearer nobody-has-this-key").status_code == 401


def test_what_cannot_change_while_it_runs_is_told_and_the_rest_changes(
    configured: Configured, by_alice: httpx.Client
) -> None:
    configured.reload(
        "replicas: 3\nqueue_limit: 7\n",
        "api_key_file, replicas: changes only when the server is started again",
    )
    wait_until(lambda: configured.one.status.queue_limit == 7, "the rest to change")
    assert len(configured.one.status.replicas) == 1
    # Above all, without a key file in the settings the keys go on to be asked for.
    assert ask(by_alice, Authorization="Bearer nobody-has-this-key").status_code == 401
    assert ask(by_alice).status_code == 200
    configured.reload(BASE, AGAIN)


def test_a_serve_yaml_that_is_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("# mine\nport: 0\nqueue_limit: -1\n")
    done = run_localllm("serve", "demo", "--config", str(config))
    assert done.returncode == USAGE
    assert f"{config}, line 3: queue_limit " in done.stderr


# The ways to start it.


def test_background_ps_logs_and_stop(home: Path) -> None:
    started = run_localllm("serve", "demo", "--port", "0", "--parallel", "2", "--background")
    assert started.returncode == 0, started.stderr
    try:
        assert started.stdout.startswith("demo on http://127.0.0.1:")
        url = started.stdout.splitlines()[0].removeprefix("demo on ")
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
            assert ask(client).status_code == 200
        shown = run_localllm("ps")
        assert url in shown.stdout
        assert "ready" in shown.stdout
        wait_until(lambda: PATH in run_localllm("logs", "demo").stdout, "the request in the log")
    finally:
        stopped = run_localllm("stop", "demo")
    assert stopped.returncode == 0, stopped.stderr
    assert not running.find_all()
    assert not list((home / "run").glob("engine-*"))
    assert run_localllm("logs", "demo").returncode == 0


def test_the_systemd_unit_runs_what_it_says(home: Path) -> None:
    unit = run_localllm("serve", "demo", "--port", "0", "--parallel", "2", "--print-systemd")
    assert unit.returncode == 0, unit.stderr
    command = next(
        line.removeprefix("ExecStart=")
        for line in unit.stdout.splitlines()
        if line.startswith("ExecStart=")
    )
    child = subprocess.Popen(
        shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: child.poll() is not None or _is_ready(child.pid), "it to be ready")
        assert child.poll() is None
    finally:
        child.terminate()
        assert child.wait(PATIENCE_SECONDS) == 0


def _is_ready(pid: int) -> bool:
    with contextlib.suppress(Exception):
        record = next(record for record in running.find_all() if record.pid == pid)
        return fetch_status(record).replicas[0].state == "ready"
    return False


def test_two_servers_have_two_names(home: Path) -> None:
    with served("demo", "--parallel", "1") as one:
        other = Served("demo", "--parallel", "1", "--port", "0", home=one.home)
        try:
            other.wait_ready()
            assert (one.record.name, other.record.name) == ("demo", "demo-2")
            assert one.record.log_dir != other.record.log_dir
            for each in (one, other):
                with each.client() as client:
                    assert ask(client).status_code == 200
        finally:
            other.stop()
        assert one.is_ready


def test_an_alias_with_a_comma_is_two_names_here_as_in_llama_server() -> None:
    with (
        served("demo", "--", "-a", "second,first") as one,
        httpx.Client(base_url=one.url, timeout=PATIENCE_SECONDS) as client,
    ):
        (model,) = client.get("/v1/models").json()["data"]
        assert (model["id"], model["aliases"]) == ("first", ["first", "second"])
        for name in model["aliases"]:
            assert client.get(f"/v2/models/{name}/ready").status_code == 200
        assert client.get("/v2/models/third/ready").status_code == 404


def test_a_unix_socket_is_an_address_and_is_gone_afterwards() -> None:
    with contextlib.ExitStack() as stack:
        path = Path("/tmp") / f"ll-test-{os.getpid()}.sock"
        stack.callback(path.unlink, missing_ok=True)
        one = stack.enter_context(served("demo", "--host", str(path)))
        assert str(path) in one.url
        transport = httpx.HTTPTransport(uds=str(path))
        base_url = "http://localhost"
        with httpx.Client(
            transport=transport, base_url=base_url, timeout=PATIENCE_SECONDS
        ) as client:
            assert ask(client).status_code == 200
        taken = run_localllm("serve", "demo", "--host", str(path))
        assert taken.returncode == FAILURE
        assert f"another server listens on {path}" in taken.stderr
        one.stop()
        assert not path.exists()


def test_a_damaged_model_ends_the_start(demo_path: Path, tmp_path: Path, home: Path) -> None:
    model = tmp_path / "half.gguf"
    shutil.copy(demo_path, model)
    os.truncate(model, demo_path.stat().st_size // 2)
    done = run_localllm("serve", str(model), "--port", "0")
    assert done.returncode == INTEGRITY, done.stderr
    assert f"error: {model} is not a sound GGUF file: it is cut short" in done.stderr
    assert "Traceback" not in done.stderr
    assert not running.find_all()
    assert not list((home / "run").glob("engine-*"))


def test_a_llama_server_that_refuses_to_start_ends_the_start_with_its_reason(home: Path) -> None:
    done = run_localllm("serve", "demo", "--port", "0", "--", "--no-such-argument")
    assert done.returncode == BROKEN_ENGINE, done.stderr
    assert "error: this llama-server does not know the argument --no-such-argument" in done.stderr
    assert "it is started again" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not running.find_all()
    assert not list((home / "run").glob("engine-*"))
