"""Plans for machines that are not here: `plan --hw` and `plan --ram`, through the whole program."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm.cli.simulation import Simulation, simulation
from localllm.errors import UsageError
from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.paths import shipped_profiles_dir
from localllm.plan import DeviceMemory, Fit, Model, Plan, Reason
from localllm.presets import load_preset
from localllm.profiles import load_policy
from localllm.units import GIB, MIB
from tests.conftest import run_localllm
from tests.ggufs import Llama, header_bytes

USAGE, MISSING, NO_ROOM = 2, 3, 7
POLICY = load_policy(shipped_profiles_dir())

CARD = """\
title: A box with a card
system: {os: Linux}
cpu: {architecture: x86_64, n_physical: 4, n_logical: 8}
memory: {total: 16 GiB, used: 4 GiB}
accelerators:
  - {vendor: nvidia, name: Some Card, total: 8 GiB}
"""


def planned(*argv: str) -> dict[str, Any]:
    done = run_localllm("plan", *argv, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def hollow(path: Path, shape: Llama) -> Path:
    """A model with a hole for its weights, which a plan never reads."""
    header = header_bytes(shape.metadata(), shape.tensors())
    data = sum(-(-tensor.n_bytes // 32) * 32 for tensor in shape.tensors())
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + data)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of 1.1 GB, which keep more threads busy than any of these machines has."""
    shape = Llama(
        n_layers=32, n_embd=2048, n_ff=8192, n_head=32, n_head_kv=8, n_ctx_train=8192,
        kind="Q4_K", file_type="Q4_K_M",
    )  # fmt: skip
    return str(hollow(tmp_path_factory.mktemp("models") / "large.gguf", shape))


def refused(done: subprocess.CompletedProcess[str], exit_code: int) -> str:
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "\nhint: " in done.stderr
    return done.stderr


def reasons(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {reason["field"]: reason for reason in document["reasons"]}


@pytest.mark.parametrize(
    ("name", "n_threads", "free_bytes"),
    [
        ("board-raspberry-pi-5-8gb", 4, 7 * GIB),
        ("cloud-2vcpu-4gb", 2, 4 * GIB - 100 * MIB),
        ("server-2x-epyc-512gb", 64, 508 * GIB),
    ],
)
def test_threads_and_memory_are_the_presets(
    large: str, name: str, n_threads: int, free_bytes: int
) -> None:
    document = planned(large, "--hw", name)
    preset = load_preset(name, shipped_profiles_dir())
    assert document["chosen"]["n_threads"] == n_threads
    (host,) = document["memory"]
    assert (host["device"], host["free_bytes"]) == ("Host", free_bytes)
    assert document["hardware"] == json.loads(json.dumps(preset.hardware.to_json()))


def test_the_plan_says_that_the_machine_is_not_this_one() -> None:
    said = reasons(planned("demo", "--hw", "laptop-2011-8gb"))
    first = next(iter(said.values()))
    assert (first["field"], first["value"], first["source"]) == (
        "hardware",
        "laptop-2011-8gb",
        "flag",
    )
    assert "simulated: Laptop of 2011" in first["because"]
    assert "measured" not in {reason["source"] for reason in said.values()}
    table = run_localllm("plan", "demo", "--hw", "laptop-2011-8gb").stdout
    assert "simulated: Laptop of 2011" in table


def test_a_plan_for_this_machine_says_nothing_of_the_kind() -> None:
    assert not {"hardware", "ram_bytes"} & reasons(planned("demo")).keys()


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose context takes 64 KiB a token."""
    shape = Llama(n_layers=64, n_embd=256, n_head=4, n_head_kv=4, n_ctx_train=1 << 20)
    return shape.write(tmp_path_factory.mktemp("deep") / "deep.gguf")


def test_the_context_is_what_the_presets_memory_holds(deep: Path) -> None:
    n_parallel = 16
    wished = POLICY.n_ctx_wished * n_parallel  # 8 GiB of context
    step_bytes = 256 * n_parallel * 64 * 1024  # what the next larger context would add
    contexts = []
    for name in ("cloud-2vcpu-4gb", "laptop-2011-8gb", "board-raspberry-pi-5-8gb"):
        document = planned(str(deep), "--hw", name, "--parallel", str(n_parallel))
        memory = load_preset(name, shipped_profiles_dir()).hardware.memory
        budgets = [(memory.available_bytes or 0) - POLICY.host_reserve_bytes]
        if memory.limit_bytes is not None:
            budgets.append(
                memory.limit_bytes - (memory.limit_used_bytes or 0) - POLICY.group_reserve_bytes
            )
        (host,) = document["memory"]
        assert 0 <= min(budgets) - host["total_bytes"] < 1.2 * step_bytes, name
        contexts.append(document["chosen"]["n_ctx"])
    assert contexts[0] < contexts[1] < contexts[2] < wished
    server = planned(str(deep), "--hw", "server-2x-epyc-512gb", "--parallel", str(n_parallel))
    assert server["chosen"]["n_ctx"] == wished


def test_threads_that_are_asked_for_stay_on_another_machine() -> None:
    document = planned("demo", "--hw", "board-raspberry-pi-5-8gb", "--threads", "3")
    assert document["chosen"]["n_threads"] == 3
    assert reasons(document)["n_threads"]["source"] == "flag"


def test_ram_stands_for_the_memory_of_this_machine() -> None:
    document = planned("demo", "--ram", "3G")
    memory = document["hardware"]["memory"]
    assert (memory["total_bytes"], memory["available_bytes"]) == (3 * GIB, 3 * GIB)
    assert memory["limit_bytes"] is None
    assert document["memory"][0]["free_bytes"] == 3 * GIB
    said = reasons(document)["ram_bytes"]
    assert (said["value"], said["source"]) == (3 * GIB, "flag")
    assert document["hardware"]["cpu"] == planned("demo")["hardware"]["cpu"]


def test_ram_stands_for_the_memory_of_a_preset_and_its_container(large: str) -> None:
    document = planned(large, "--hw", "cloud-2vcpu-4gb", "--ram", "64G")
    assert document["memory"][0]["free_bytes"] == 64 * GIB
    assert document["chosen"]["n_threads"] == 2
    assert {"hardware", "ram_bytes"} <= reasons(document).keys()


def test_a_model_that_needs_more_than_the_ram_does_not_fit(tmp_path: Path) -> None:
    shape = Llama(
        n_layers=32, n_embd=2048, n_ff=8192, n_head=16, n_head_kv=4, n_ctx_train=4096, kind="Q8_0"
    )
    path = hollow(tmp_path / "large.gguf", shape)
    assert path.stat().st_size > 1.5 * GIB
    told = refused(run_localllm("plan", str(path), "--ram", "2G"), NO_ROOM)
    assert "where 2.0 GiB are free" in told
    assert "are missing" in told
    fits = planned(str(path), "--ram", "4G")
    assert 1.5 * GIB < fits["memory"][0]["total_bytes"] < 3.5 * GIB


def test_a_file_is_a_machine_too(large: str, tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(CARD[: CARD.index("accelerators")])
    document = planned(large, "--hw", str(path))
    assert document["chosen"]["n_threads"] == 4
    assert document["memory"][0]["free_bytes"] == 12 * GIB
    assert reasons(document)["hardware"]["value"] == "box"


def test_a_persons_own_machine_is_found_by_its_name(home: Path) -> None:
    (home / "config" / "hardware").mkdir(parents=True)
    path = home / "config" / "hardware" / "box.yaml"
    path.write_text(CARD[: CARD.index("accelerators")])
    assert reasons(planned("demo", "--hw", "box"))["hardware"]["value"] == "box"
    assert "A box with a card" in run_localllm("plan", "--hw", "list").stdout


@pytest.mark.parametrize("word", ["list", "help"])
def test_the_presets_are_listed_without_a_model(word: str) -> None:
    done = run_localllm("plan", "--hw", word)
    assert done.returncode == 0, done.stderr
    for name in ("laptop-2011-8gb", "desktop-rtx4090-24gb", "mac-studio-m2ultra-192gb"):
        assert name in done.stdout


def test_the_presets_are_listed_as_json() -> None:
    done = run_localllm("plan", "--hw", "list", "--json")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    by_name = {preset["name"]: preset for preset in document["presets"]}
    assert len(by_name) >= 18
    gpus = by_name["desktop-2x-rtx3090"]["hardware"]["accelerators"]
    assert [gpu["total_bytes"] for gpu in gpus] == [24 * GIB, 24 * GIB]
    assert by_name["desktop-2x-rtx3090"]["sources"]["accelerators[0]"]


def test_a_machine_with_a_card_is_refused_and_one_without_is_named(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(CARD)
    told = refused(run_localllm("plan", "demo", "--hw", str(path)), USAGE)
    assert "box has an accelerator (Some Card)" in told
    suggested = told.partition("one without is ")[2].partition(";")[0]
    assert load_preset(suggested, shipped_profiles_dir()).hardware.accelerators == ()


@pytest.mark.parametrize(
    ("argv", "exit_code", "words"),
    [
        pytest.param(["demo", "--hw", "laptop-2012-8gb"], MISSING, "laptop-2011-8gb", id="a name"),
        pytest.param(["demo", "--hw", "./none.yaml"], MISSING, "./none.yaml", id="a file"),
        pytest.param(["demo", "--ram", "plenty"], USAGE, "'plenty' is not a size", id="a size"),
        pytest.param([], USAGE, "missing argument 'MODEL'", id="no model"),
        pytest.param(["--ram", "2G"], USAGE, "missing argument 'MODEL'", id="no model but memory"),
    ],
)
def test_what_cannot_be_meant_is_told(argv: list[str], exit_code: int, words: str) -> None:
    assert words in refused(run_localllm("plan", *argv), exit_code)


def test_a_preset_with_a_mistake_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(CARD.replace("total: 16 GiB", "total: -16 GiB"))
    done = run_localllm("plan", "demo", "--hw", str(path))
    assert done.returncode == USAGE
    assert f"{path}, line 4: memory.total must not be negative" in done.stderr


class Recorder:
    """A memory oracle that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Plan] = []

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        self.asked.append(plan)
        return (DeviceMemory("Host", 1, 1, 1),)

    def fit(self, plan: Plan, reserve_bytes: int) -> Fit:
        self.asked.append(plan)
        return Fit(plan.n_ctx, 0)


HERE = Hardware(
    System("Linux"),
    Cpu(n_logical=2),
    Memory(8 * GIB, 6 * GIB, limit_bytes=GIB, limit_used_bytes=0, bandwidth=4e10),
    (Accelerator("nvidia", 0, total_bytes=24 * GIB),),
)
PLAN = Plan(Model("m", "m.gguf"), 1024, reasons=(Reason("n_threads", 2, "cores", "measured"),))


def test_this_machines_own_card_is_kept_out_of_another_machines_memory() -> None:
    recorder = Recorder()
    other = simulation("laptop-2011-8gb", None)
    assert other is not None
    oracle = other.oracle(recorder)
    assert oracle is not None
    oracle.memory(PLAN)
    oracle.fit(PLAN, 0)
    assert [plan.devices for plan in recorder.asked] == [(), ()]


def test_other_memory_leaves_this_machine_its_card_and_its_oracle() -> None:
    recorder = Recorder()
    other = Simulation(ram_bytes=2 * GIB)
    assert other.oracle(recorder) is recorder
    machine = other.hardware(HERE)
    assert (machine.cpu, machine.accelerators) == (HERE.cpu, HERE.accelerators)
    assert machine.memory == Memory(2 * GIB, 2 * GIB, bandwidth=4e10)
    assert [r.source for r in other.told(PLAN).reasons] == ["flag", "measured"]


def test_no_flag_is_this_machine_as_it_is() -> None:
    assert simulation(None, None) is None
    assert Simulation().hardware(HERE) is HERE
    assert Simulation().told(PLAN) == PLAN
    assert Simulation().oracle(None) is None


def test_a_size_is_read_before_any_model_is() -> None:
    with pytest.raises(UsageError, match="'x' is not a size"):
        simulation(None, "x")
    assert replace(Simulation(), ram_bytes=GIB) == simulation(None, "1G")
