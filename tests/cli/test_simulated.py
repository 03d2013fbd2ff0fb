"""Plans for machines that are not here: `plan --hw` and `plan --ram`, through the whole program."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm.cli.simulation import Simulation, StandIns, simulation
from localllm.errors import UsageError
from localllm.hardware import Accelerator, Cpu, Hardware, Memory, System
from localllm.paths import shipped_profiles_dir
from localllm.plan import Device, DeviceMemory, Model, Plan, Reason
from localllm.presets import load_preset
from localllm.profiles import load_policy
from localllm.units import GIB, MIB
from tests.conftest import run_localllm
from tests.ggufs import Llama, header_bytes

USAGE, MISSING, NO_ROOM = 2, 3, 7
POLICY = load_policy(shipped_profiles_dir())
SERVE = POLICY.goal("serve")

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
    wished = SERVE.n_ctx_wished * n_parallel  # 8 GiB of context
    step_bytes = 256 * n_parallel * 64 * 1024  # what the next larger context would add
    argv = ("--parallel", str(n_parallel), "--kv", "f16")
    contexts = []
    for name in ("cloud-2vcpu-4gb", "laptop-2011-8gb", "board-raspberry-pi-5-8gb"):
        document = planned(str(deep), "--hw", name, *argv)
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
    server = planned(str(deep), "--hw", "server-2x-epyc-512gb", *argv)
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


# -- machines with accelerators: devices on loopback stand in for theirs --------------------------


def test_a_machine_with_a_card_gets_a_real_plan(large: str, tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(CARD)
    document = planned(large, "--hw", str(path))
    choice = document["chosen"]
    assert (choice["n_gpu_layers"], choice["devices"]) == (33, ["CUDA0"])
    host, card = document["memory"]
    assert (host["device"], host["free_bytes"]) == ("Host", 12 * GIB)
    assert (card["device"], card["free_bytes"]) == ("CUDA0", 8 * GIB)
    assert card["model_bytes"] > GIB
    assert card["context_bytes"] == 8192 * 32 * 2 * 8 * 64 * 2  # tokens, layers, K and V, f16
    sources = {line["what"]: line for line in card["lines"]}
    assert (sources["model"]["source"], sources["context"]["source"]) == ("dry-run", "dry-run")
    assert sources["compute"]["source"] == "assumed"
    assert sources["compute"]["because"].startswith("approximate")
    assert card["total_bytes"] == sum(line["n_bytes"] for line in card["lines"])
    argv = document["argv"]
    assert argv[argv.index("--device") + 1] == "CUDA0"
    assert "127.0.0.1" not in " ".join(argv)
    assert document["speed"]["decode_tokens_per_second"] is None  # no bandwidth in that file


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        pytest.param("desktop-rtx3060-12gb", ["CUDA0"], id="one card"),
        pytest.param("desktop-2x-rtx3090", ["CUDA0"], id="two alike"),
        pytest.param("desktop-rtx4090-rtx3060", ["CUDA0"], id="two unlike"),
        pytest.param("desktop-rx7900xtx-24gb", ["ROCm0"], id="amd"),
        pytest.param("mac-air-m2-16gb", ["MTL0"], id="unified"),
    ],
)
def test_a_small_model_goes_on_the_fastest_device_of_a_preset(
    large: str, name: str, devices: list[str]
) -> None:
    document = planned(large, "--hw", name)
    assert document["chosen"]["devices"] == devices
    assert document["chosen"]["n_gpu_layers"] == 33
    assert [row["device"] for row in document["memory"]] == ["Host", *devices]
    assert document["speed"]["decode_tokens_per_second"] > 20


def test_unified_memory_is_counted_once(large: str) -> None:
    memory = load_preset("mac-air-m2-16gb", shipped_profiles_dir()).hardware.memory
    rows = planned(large, "--hw", "mac-air-m2-16gb")["memory"]
    assert memory.free_bytes is not None
    assert {row["free_bytes"] for row in rows} == {memory.free_bytes}
    taken = sum(row["total_bytes"] for row in rows)
    assert taken <= memory.free_bytes - POLICY.host_reserve_bytes


def test_vram_stands_for_the_memory_of_each_accelerator(large: str) -> None:
    document = planned(large, "--hw", "desktop-rtx3060-12gb", "--vram", "2G", "--ctx", "8192")
    assert 0 < document["chosen"]["n_gpu_layers"] < 33
    _, card = document["memory"]
    assert card["free_bytes"] == 2 * GIB
    assert card["total_bytes"] <= 2 * GIB - POLICY.device_reserve_bytes
    said = reasons(document)["vram_bytes"]
    assert (said["value"], said["source"]) == (2 * GIB, "flag")


def test_a_model_too_large_for_one_card_is_split_between_two(tmp_path: Path) -> None:
    shape = Llama(
        n_layers=60, n_embd=6144, n_ff=24576, n_head=48, n_head_kv=8, n_ctx_train=8192,
        kind="Q8_0",
    )  # fmt: skip
    path = hollow(tmp_path / "huge.gguf", shape)
    choice = planned(str(path), "--hw", "desktop-2x-rtx3090")["chosen"]
    assert choice["n_gpu_layers"] == 61
    assert choice["devices"] == ["CUDA0", "CUDA1"]
    assert sum(choice["tensor_split"]) == 61
    assert abs(choice["tensor_split"][0] - choice["tensor_split"][1]) <= 1


def test_layers_that_are_asked_for_stay_on_another_machine(large: str) -> None:
    document = planned(large, "--hw", "desktop-rtx3060-12gb", "--ngl", "7")
    assert document["chosen"]["n_gpu_layers"] == 7
    assert reasons(document)["n_gpu_layers"]["source"] == "flag"
    alone = planned(large, "--hw", "desktop-rtx3060-12gb", "--ngl", "0")
    assert [row["device"] for row in alone["memory"]] == ["Host"]


def test_a_machine_without_a_card_has_no_vram(large: str) -> None:
    told = refused(run_localllm("plan", large, "--hw", "laptop-2011-8gb", "--vram", "8G"), USAGE)
    assert "this machine has none" in told
    told = refused(run_localllm("plan", large, "--hw", "mac-air-m2-16gb", "--vram", "8G"), USAGE)
    assert "shares main memory with its accelerator" in told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three quantizations of one model."""
    path = tmp_path_factory.mktemp("quants")
    for kind, name in [("Q8_0", "Q8_0"), ("Q4_K", "Q4_K_M"), ("Q2_K", "Q2_K")]:
        shape = Llama(
            n_layers=32, n_embd=4096, n_ff=14336, n_head=32, n_head_kv=8, n_ctx_train=8192,
            kind=kind, file_type=name,
        )  # fmt: skip
        hollow(path / f"some-8b-{name}.gguf", shape)
    return path


@pytest.mark.parametrize(
    ("machine", "quant"),
    [("desktop-rtx4090-24gb", "Q8_0"), ("laptop-rtx4060-8gb", "Q4_K_M")],
)
def test_of_a_folder_the_best_quantization_for_the_machine_is_taken(
    folder: Path, machine: str, quant: str
) -> None:
    document = planned(str(folder), "--hw", machine)
    assert document["chosen"]["quant"] == quant
    assert document["argv"][document["argv"].index("--model") + 1].endswith(f"{quant}.gguf")
    verdicts = {row["quant"]: row for row in document["candidates"]}
    assert verdicts.keys() == {"Q8_0", "Q4_K_M", "Q2_K"}
    assert [name for name, row in verdicts.items() if row["why_not"] is None] == [quant]
    table = run_localllm("plan", str(folder), "--hw", machine).stdout
    assert all(name in table for name in verdicts)


def test_of_a_folder_the_quantization_that_is_asked_for_is_taken(folder: Path) -> None:
    document = planned(str(folder), "--hw", "desktop-rtx4090-24gb", "--quant", "q2_k")
    assert document["chosen"]["quant"] == "Q2_K"
    assert reasons(document)["quant"]["source"] == "flag"
    argv = ("plan", str(folder), "--hw", "desktop-rtx4090-24gb", "--quant", "Q5_K_M")
    assert "there are" in refused(run_localllm(*argv), MISSING)


def test_speed_first_takes_a_smaller_one(folder: Path) -> None:
    usual = planned(str(folder), "--hw", "mac-air-m2-16gb")
    fast = planned(str(folder), "--hw", "mac-air-m2-16gb", "--prefer", "speed")
    decode = [each["speed"]["decode_tokens_per_second"] for each in (usual, fast)]
    assert decode[0] < decode[1]
    assert usual["chosen"]["quant"] != fast["chosen"]["quant"]


def test_a_goal_of_long_contexts_gets_a_long_one(large: str, deep: Path) -> None:
    argv = ("--hw", "desktop-rtx4090-24gb")
    assert planned(str(deep), *argv)["chosen"]["n_ctx"] == 8192
    assert planned(str(deep), *argv, "--goal", "long-context")["chosen"]["n_ctx"] == 131072
    assert planned(large, *argv, "--goal", "long-context")["chosen"]["n_ctx"] == 8192  # trained


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

    def devices(self, rpc: tuple[str, ...] = ()) -> tuple[Device, ...]:
        raise AssertionError("this machine's devices are not those of another")

    def memory(self, plan: Plan) -> tuple[DeviceMemory, ...]:
        self.asked.append(plan)
        rows = [DeviceMemory(name, 1, 1, 1) for name in plan.devices or ()]
        return (DeviceMemory("Host", 1, 1, 1), *rows)


HERE = Hardware(
    System("Linux"),
    Cpu(n_logical=2),
    Memory(8 * GIB, 6 * GIB, limit_bytes=GIB, limit_used_bytes=0, bandwidth=4e10),
    (Accelerator("nvidia", 0, total_bytes=24 * GIB),),
)
PLAN = Plan(Model("m", "m.gguf"), 1024, reasons=(Reason("n_threads", 2, "cores", "measured"),))


def test_this_machines_own_card_is_kept_out_of_another_machines_memory() -> None:
    recorder = Recorder()
    other = load_preset("laptop-2011-8gb", shipped_profiles_dir()).hardware
    oracle = StandIns(recorder, other)
    assert oracle.devices() == ()
    oracle.memory(PLAN)
    assert [plan.devices for plan in recorder.asked] == [()]


def test_stand_ins_are_asked_for_and_named_as_the_devices_they_stand_for() -> None:
    recorder = Recorder()
    other = load_preset("desktop-rtx4090-rtx3060", shipped_profiles_dir()).hardware
    oracle = StandIns(recorder, other, ("127.0.0.1:1", "127.0.0.1:2"))
    names = [device.name for device in oracle.devices()]
    assert names == ["CUDA0", "CUDA1"]
    assert [device.free_bytes for device in oracle.devices()] == [
        gpu.free_bytes for gpu in other.accelerators
    ]
    rows = oracle.memory(replace(PLAN, devices=("CUDA1",), n_gpu_layers=3))
    (asked,) = recorder.asked
    assert (asked.devices, asked.rpc) == (("RPC1",), ("127.0.0.1:1", "127.0.0.1:2"))
    assert [row.device for row in rows] == ["Host", "CUDA1"]
    with pytest.raises(UsageError, match="devices of other machines"):
        oracle.devices(("10.0.0.1:50052",))


def test_other_memory_leaves_this_machine_its_card() -> None:
    other = Simulation(ram_bytes=2 * GIB)
    machine = other.hardware(HERE)
    assert (machine.cpu, machine.accelerators) == (HERE.cpu, HERE.accelerators)
    assert machine.memory == Memory(2 * GIB, 2 * GIB, bandwidth=4e10)
    assert [r.source for r in other.told(PLAN).reasons] == ["flag", "measured"]


def test_other_memory_of_the_cards_leaves_this_machine_its_own() -> None:
    machine = Simulation(vram_bytes=2 * GIB).hardware(HERE)
    assert machine.memory == HERE.memory
    (card,) = machine.accelerators
    assert (card.total_bytes, card.free_bytes) == (2 * GIB, 2 * GIB)


def test_no_flag_is_this_machine_as_it_is() -> None:
    assert simulation(None, None) is None
    assert Simulation().hardware(HERE) is HERE
    assert Simulation().told(PLAN) == PLAN


def test_a_size_is_read_before_any_model_is() -> None:
    with pytest.raises(UsageError, match="'x' is not a size"):
        simulation(None, "x")
    assert replace(Simulation(), ram_bytes=GIB) == simulation(None, "1G")
