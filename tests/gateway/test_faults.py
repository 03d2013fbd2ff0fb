"""Faults under load: what dies is replaced, and no request that had not begun is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from localllm.engine.locate import SERVER, Tools
from localllm.units import GIB, MIB
from tests.conftest import run_localllm, wait_until
from tests.control_groups import limited_groups
from tests.gateway.faults import (
    ANSWERS_BETWEEN,
    PATH,
    Asked,
    kill_under_load,
    load,
    n_descriptors,
    replace_child,
    request_body,
    run_folders,
    wait_at_rest,
)
from tests.gateway.serving import Served, served

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")

FAILURE, BROKEN_ENGINE = 1, 9
JSON = {"Content-Type": "application/json"}
#: A restart takes some tenths of a second; this is for a machine that is busy with other things.
RESTART_SECONDS = 30.0
#: As llama.cpp writes it (tests/engine/test_failure.py).
ON_DEVICE = "CUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:549"
ON_HOST = "terminate called after throwing an instance of 'std::bad_alloc'"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with served("demo", "--parallel", "4") as one:
        yield one


def ask_whole(client: httpx.Client, n_tokens: int = 20) -> dict[str, Any]:
    body = request_body(1, n_tokens)
    answer = client.post(PATH, content=body, headers=JSON)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def errors_of(one: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in one.log("error").splitlines()]


# A child that dies, or hangs.


def test_killed_children_are_replaced_and_no_request_that_had_not_begun_is_lost(
    gateway: Served,
) -> None:
    n_kills = 8
    kill_under_load(gateway, 1)  # what is made once is made now
    n_before, restarts = n_descriptors(gateway), gateway.status.replicas[0].restarts

    faults = kill_under_load(gateway, n_kills)

    for asked in faults.asked:
        asked.check()
    assert len(faults.asked) == (n_kills + 1) * ANSWERS_BETWEEN
    assert faults.n_cut, "no stream had begun when a child was killed"
    assert max(faults.ready_seconds) < RESTART_SECONDS
    n_after = n_descriptors(gateway)
    assert n_after <= n_before, f"{n_after - n_before} descriptors were leaked"
    assert gateway.status.replicas[0].restarts == restarts + n_kills
    assert len(gateway.children) == 1
    assert len(run_folders(gateway)) == 1
    tried_again = [
        line
        for line in map(json.loads, gateway.log("access").splitlines())
        if line["attempts"] > 1 and line["outcome"] == "answered"
    ]
    assert tried_again, "no request was given to a second child"


def test_a_child_that_hangs_is_noticed_ended_and_replaced(gateway: Served) -> None:
    faults = kill_under_load(gateway, 1, signal.SIGSTOP)
    for asked in faults.asked:
        asked.check()
    wait_at_rest(gateway)
    assert len(gateway.children) == 1
    died = "llama-server does not answer and does not compute"
    assert gateway.status.replicas[0].last_error == died
    assert errors_of(gateway)[-1]["what"] == f"{died}; it is started again"


def test_a_child_without_work_that_is_looked_at_all_the_time_lives_on(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("health_seconds: 0.5\nwedged_seconds: 2\n")
    with served("demo", "--config", str(config)) as one:
        later = time.monotonic() + 6
        wait_until(lambda: time.monotonic() > later, "some looks")
        [replica] = one.status.replicas
        assert (replica.state, replica.restarts) == ("ready", 0)


def test_a_request_over_which_three_children_died_is_not_tried_again(
    gateway: Served,
) -> None:
    with gateway.client() as client, ThreadPoolExecutor() as pool:
        fatal = pool.submit(client.post, PATH, content=request_body(1, 4000), headers=JSON)
        for _ in range(3):
            wait_until(lambda: gateway.n_busy == 1, "it to be in a child")
            replace_child(gateway)
        answer = fatal.result()
        assert answer.status_code == 502
        assert "ended 3 times over this request" in answer.json()["error"]["message"]
        ask_whole(client)


def test_of_two_replicas_one_answers_all_while_the_other_is_dead() -> None:
    with served("demo", "--parallel", "2", "--replicas", "2") as one:
        wait_until(lambda: all(of.state == "ready" for of in one.status.replicas), "both")
        never_unready = True
        asked: list[Asked] = []

        async def run() -> None:
            nonlocal never_unready
            running = asyncio.ensure_future(load(one, 60, asked))
            while len(asked) < 12:
                await asyncio.sleep(0.005)
            victim = one.status.replicas[0].pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            while not running.done():
                states = {of.state for of in (await asyncio.to_thread(lambda: one.status)).replicas}
                never_unready &= "ready" in states
                await asyncio.sleep(0.01)
            await running

        asyncio.run(run())
        for each in asked:
            each.check()
        assert never_unready
        wait_until(lambda: all(of.state == "ready" for of in one.status.replicas), "both again")
        assert [of.restarts for of in one.status.replicas] == [1, 0]
        wait_at_rest(one)


@LINUX
def test_a_child_that_cannot_be_started_for_want_of_descriptors_is_started_later(
    gateway: Served,
) -> None:
    process = psutil.Process(gateway.process.pid)
    with gateway.client() as client:
        ask_whole(client)
        restarts = gateway.status.replicas[0].restarts
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() - 4, hard))
        try:
            gateway.children[0].kill()
            wait_until(lambda: "Too many open files" in gateway.output, "the want of them")
        finally:
            process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        ask_whole(client)
        assert client.get("/readyz").status_code == 200
    assert gateway.status.replicas[0].restarts > restarts
    assert len(gateway.children) == 1


# Memory.


@pytest.fixture
def scarce(tmp_path: Path, tools: Tools) -> Callable[[str, str], dict[str, str]]:
    """An engine that dies with such a text while a condition of the shell holds.

    It sees its arguments as variables: $n_ubatch, $n_ctx, $n_parallel, $type_k, $cache_ram.
    """

    def make(text: str, condition: str) -> dict[str, str]:
        folder = tmp_path / "engine"
        folder.mkdir(exist_ok=True)
        script = folder / SERVER
        script.write_text(
            f"""#!/bin/sh
previous=
for word; do
    case $previous in
        --ubatch-size) n_ubatch=$word ;;
        --ctx-size) n_ctx=$word ;;
        --parallel) n_parallel=$word ;;
        --cache-type-k) type_k=$word ;;
        --cache-ram) cache_ram=$word ;;
    esac
    previous=$word
done
if {condition}; then
    cat <<'TEXT'
{text}
TEXT
    exit 134
fi
exec {tools.path(SERVER)} "$@"
"""
        )
        script.chmod(0o755)
        for name in tools.names:
            with contextlib.suppress(FileExistsError):
                (folder / name).symlink_to(tools.path(name))
        return {"LOCALLLM_ENGINE_DIR": str(folder)}

    return make


@pytest.mark.parametrize(
    ("text", "condition", "given_up"),
    [
        pytest.param(
            ON_DEVICE,
            '[ "$type_k" != q8_0 ]',
            [
                "micro-batch 512 -> 256",
                "micro-batch 256 -> 128",
                "micro-batch 128 -> 64",
                "context 16384 -> 8192",
                "slots 4 -> 2",
                "slots 2 -> 1",
                "KV cache f16 -> q8_0",
            ],
            id="on a device, down to the last step",
        ),
        pytest.param(
            ON_HOST,
            '[ "$n_ubatch" -gt 256 ]',
            ["prompt cache 2.0 GiB -> none", "micro-batch 512 -> 256"],
            id="on the host, where the prompt cache goes first",
        ),
    ],
)
def test_memory_that_runs_out_costs_one_step_after_the_other_and_is_remembered(
    scarce: Callable[[str, str], dict[str, str]], text: str, condition: str, given_up: list[str]
) -> None:
    environment = scarce(text, condition)
    with served("demo", environment=environment) as one:
        replica = one.status.replicas[0]
        assert list(replica.concessions) == given_up
        assert replica.restarts == len(given_up)
        warned = [line["what"] for line in errors_of(one) if line["level"] == "warning"]
        assert warned == [f"memory ran out; with {step} it is tried again" for step in given_up]
        with one.client() as client:
            ask_whole(client)
        shown = json.loads(run_localllm("ps", "--json", LOCALLLM_HOME=str(one.home)).stdout)
        assert given_up[-1] in json.dumps(shown)
        measured = next(one.home.rglob("measurements.json")).read_text()
        assert all(json.dumps(step) in measured for step in given_up)
        argv = one.children[0].cmdline()

        one.signal(signal.SIGTERM)
        one.process.wait()
        again = Served("demo", "--port", "0", home=one.home, environment=environment)
        try:
            again.wait_ready()
            assert again.status.replicas[0].restarts == 0, again.output
            assert _told(again.children[0].cmdline()) == _told(argv)
        finally:
            again.stop()


def _told(argv: Sequence[str]) -> Sequence[str]:
    """What the plan says to a llama-server: its address is another one in each life."""
    return argv[: argv.index("--host")]


def test_what_the_kernel_kills_for_memory_is_started_again_with_less_and_no_request_is_lost(
    home: Path,
) -> None:
    with (
        limited_groups(4 * GIB, 2) as groups,
        served("demo", "--parallel", "2", ready=False) as one,
    ):
        group = groups[0]
        (group / "cgroup.procs").write_text(str(one.process.pid))
        one.wait_ready()
        is_v2 = (group / "memory.max").exists()
        used = int((group / ("memory.current" if is_v2 else "memory.usage_in_bytes")).read_text())
        for child in one.children:  # of the two, it is the one to be killed
            assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) > 0
        # The old prompts that llama-server keeps, 12 MiB each, soon do not fit.
        limit = group / ("memory.max" if is_v2 else "memory.limit_in_bytes")
        limit.write_text(str(used + 16 * MIB))
        with one.client() as client:
            for number in range(20):
                prompt = f"{number} " + "once upon a time " * 600
                body = {"prompt": prompt, "max_tokens": 4}
                assert client.post("/v1/completions", json=body).status_code == 200
                if one.status.replicas[0].concessions:
                    break
        told = one.status.replicas[0]
        assert told.concessions == ("prompt cache 2.0 GiB -> none",)
        assert told.restarts == 1
        assert "ran out of memory on the host while running" in told.last_error
        wait_at_rest(one)


def test_where_a_person_asked_for_every_value_it_fails_at_once_and_says_why(
    scarce: Callable[[str, str], dict[str, str]], home: Path
) -> None:
    done = run_localllm(
        *("serve", "demo", "--port", "0", "--parallel", "1", "--ctx", "2048", "--kv", "f16"),
        *("--", "--ubatch-size", "128"),
        **scarce(ON_DEVICE, "true"),
    )
    assert done.returncode == BROKEN_ENGINE, done.stderr
    assert "ran out of memory on CUDA0" in done.stderr
    assert "there is nothing left to give up" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "tried again" not in done.stderr
    assert not list((home / "run").glob("engine-*"))
    assert not list((home / "run/servers").glob("*.json"))


# Files.


def test_a_model_that_is_cut_short_is_told_and_waited_for(tmp_path: Path, demo_path: Path) -> None:
    model = tmp_path / "story.gguf"
    shutil.copy(demo_path, model)
    with (
        served(str(model), "--parallel", "2") as one,
        one.client() as client,
        ThreadPoolExecutor() as pool,
    ):
        os.truncate(model, demo_path.stat().st_size // 2)
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):  # it had the file mapped
            one.children[0].kill()
        wait_until(lambda: "is cut short" in one.log("error"), "the damage to be told")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        answer = pool.submit(ask_whole, client)
        wait_until(lambda: one.status.n_waiting == 1, "a request to wait")
        shutil.copy(demo_path, model)
        answer.result()
        assert client.get("/readyz").status_code == 200


@LINUX
def test_without_room_for_logs_requests_are_answered_and_the_lost_lines_counted(
    gateway: Served,
) -> None:
    process = psutil.Process(gateway.process.pid)
    access = gateway.record.log_dir / "access.log"
    with gateway.client() as client:
        ask_whole(client)
        wait_until(lambda: access.exists(), "a line")
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        # Its soft limit, which whoever set it may take back.
        process.rlimit(psutil.RLIMIT_FSIZE, (access.stat().st_size + 100, hard))
        try:
            for _ in range(5):
                ask_whole(client)
            wait_until(lambda: _n_lost(client) > 0, "lines to be lost")
            replace_child(gateway)  # its log has no room, either
            ask_whole(client)
        finally:
            process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, hard))
        ask_whole(client)
        wait_until(lambda: '"lost":' in gateway.log("access"), "the number of lost lines")


def _n_lost(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if "lost" in line and not line.startswith("#")]
    assert found
    return sum(float(line.split()[-1]) for line in found)


def test_a_port_that_is_taken_is_told_before_anything_runs(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_localllm("serve", "demo", "--port", str(port))
    assert done.returncode == FAILURE
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "hint: " in done.stderr
    assert "--port" in done.stderr
    assert not list((home / "run").rglob("engine-*"))
    assert not list((home / "run").rglob("*.json"))
