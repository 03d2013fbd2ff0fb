"""`localllm recommend`, and `pull` without a model: what runs best here, and the question."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest

from tests.conftest import PATIENCE_SECONDS, run_localllm
from tests.ggufs import header_bytes
from tests.loopback_hub import HeaderOnly, LoopbackHub
from tests.shapes import SHAPES

LAPTOP = ("--hw", "laptop-rtx4060-8gb")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


def recommended(*argv: str, **environment: str) -> list[dict[str, Any]]:
    done = run_localllm("recommend", *argv, "--json", **environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    suggestions: list[dict[str, Any]] = document["suggestions"]
    return suggestions


def test_without_a_network_the_ranking_is_made_of_estimates() -> None:
    found = recommended("--offline", *LAPTOP)
    assert len(found) > 20
    assert {each["figures"] for each in found} == {"estimated"}
    assert found[0]["usable"]
    assert found[0]["because"] == "the best that is usable here"
    speeds = [each["tokens_per_second"] for each in found if not each["usable"]]
    assert speeds == sorted(speeds, reverse=True)


def test_the_first_few_are_shown_with_how_to_get_the_best() -> None:
    first = recommended("--offline", *LAPTOP)[0]["model"]
    done = run_localllm("recommend", "--offline", *LAPTOP)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["1", first]
    assert lines[-1] == f"localllm pull {first}"
    assert sum(line[:1].isdigit() for line in lines) == 5
    assert "estimates" in done.stderr


def test_a_hub_that_is_down_costs_one_attempt_and_leaves_the_estimates(hub: LoopbackHub) -> None:
    hub.close()
    found = recommended(*LAPTOP, HF_ENDPOINT=hub.endpoint)
    assert {each["figures"] for each in found} == {"estimated"}


def repository(shape_id: str) -> dict[str, HeaderOnly]:
    """A repository whose files are headers of real shapes."""
    shape = SHAPES[shape_id]
    files = {}
    for quant in ("Q8_0", "Q4_K_M"):
        tensors = shape.tensors(quant)
        head = header_bytes(shape.metadata(quant), tensors)
        n_bytes = len(head) + sum(-(-tensor.n_bytes // 32) * 32 for tensor in tensors)
        files[f"Some-Model-{quant}.gguf"] = HeaderOnly(n_bytes, head)
    return files


def test_what_the_hub_has_is_planned_from_its_header(hub: LoopbackHub) -> None:
    estimated = recommended("--offline", *LAPTOP)
    wanted = estimated[2]
    files = repository("8b")
    hub.add_repo(wanted["repo"], files)
    found = recommended(*LAPTOP, HF_ENDPOINT=hub.endpoint)
    exact = [each for each in found if each["figures"] == "exact"]
    assert [each["model"] for each in exact] == [wanted["model"]]
    assert exact[0]["size_bytes"] in {file.size_bytes for file in files.values()}
    # Those that the hub does not have any more are not recommended.
    assert estimated[0]["model"] not in {each["model"] for each in found}
    n_requests = len([seen for seen in hub.requests if seen.route == "cdn"])
    recommended(*LAPTOP, HF_ENDPOINT=hub.endpoint)
    again = len([seen for seen in hub.requests if seen.route == "cdn"])
    assert again == n_requests, "headers that were read before were read again"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--task", "poetry"), "is no task"),
        (("--goal", "fame"), "no goal 'fame'"),
        (("--hw", "abacus"), "abacus"),
    ],
    ids=["a task", "a goal", "a machine"],
)
def test_what_cannot_be_meant_is_told(argv: tuple[str, str], said: str) -> None:
    done = run_localllm("recommend", "--offline", *argv)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert done.stdout == ""


def test_a_machine_that_holds_nothing_is_told() -> None:
    done = run_localllm("recommend", "--offline", "--ram", "100M")
    assert done.returncode == 7
    assert "nothing in the catalogue fits" in done.stderr


def test_a_task_narrows_the_ranking() -> None:
    found = recommended("--offline", *LAPTOP, "--task", "embed")
    assert found
    assert all("embed" in each["tasks"] for each in found)


def test_pull_without_a_model_and_without_a_terminal_is_a_usage_error() -> None:
    done = run_localllm("pull", "--offline")
    assert done.returncode == 2
    assert "localllm recommend" in done.stderr


def test_pull_without_a_model_asks_which_and_takes_no_for_an_answer(hub: LoopbackHub) -> None:
    hub.close()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "localllm", "pull"],
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "TERM": "xterm"},
        timeout=PATIENCE_SECONDS,
        encoding="utf-8",
        dimensions=(50, 120),
    )
    child.expect(r"Which\? \[1-5")
    child.sendline("99")
    child.expect(r"Which\? \[1-5")
    child.sendline("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_pull_without_a_model_pulls_the_one_that_was_chosen(hub: LoopbackHub) -> None:
    wanted = recommended("--offline")[0]
    hub.add_repo(wanted["repo"], repository("0.5b"))
    child = pexpect.spawn(
        sys.executable,
        ["-m", "localllm", "pull"],
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "TERM": "xterm"},
        timeout=PATIENCE_SECONDS,
        encoding="utf-8",
        dimensions=(50, 120),
    )
    child.expect(r"Which\? \[1-5")
    child.sendline(wanted["model"])
    child.expect(r"Download .*\? \[Y/n\]")
    child.sendline("n")
    child.expect("nothing was downloaded")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
