"""Machines written down: what ships, what a person may add, what is refused and where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from localllm.errors import NotFoundError, UsageError
from localllm.paths import shipped_profiles_dir
from localllm.presets import Preset, load_preset, parse_hardware, preset_files
from localllm.probe.apple import working_set
from localllm.probe.instructions import from_linux_flags
from localllm.units import GIB, MIB

NAMES = sorted(path.stem for path in (shipped_profiles_dir() / "hardware").glob("*.yaml"))

SMALL = """\
title: A small machine
system:
  os: Linux
cpu:
  architecture: x86_64
  n_physical: 4
  n_logical: 8
memory:
  total: 16 GiB
  used: 4 GiB
"""
CARD = """\
accelerators:
  - vendor: nvidia
    name: A card
    total: 8 GiB
"""


def shipped(name: str) -> Preset:
    return load_preset(name, shipped_profiles_dir())


def test_enough_machines_ship() -> None:
    assert len(NAMES) >= 18


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_machine_is_whole_and_says_where_its_numbers_come_from(name: str) -> None:
    preset = shipped(name)
    machine = preset.hardware
    assert preset.name == name
    assert machine.cpu.features
    assert machine.memory.available_bytes is not None
    assert machine.memory.total_bytes is not None
    assert 0 < machine.memory.available_bytes < machine.memory.total_bytes
    assert (machine.system.os == "Darwin") == any(g.vendor == "apple" for g in machine.accelerators)
    sections = {"cpu", "memory"} | ({"accelerators[0]"} if machine.accelerators else set())
    assert preset.sources.keys() >= sections
    assert all(len(text.split()) >= 5 or "same" in text for text in preset.sources.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_instruction_set_has_the_name_that_a_probe_gives_it(name: str) -> None:
    cpu = shipped(name).hardware.cpu
    # The kernel's words for all that the probe knows; what it makes of them is what it can say.
    words = """pni ssse3 sse4_2 avx avx2 f16c fma bmi2 avx_vnni avx512f avx512cd avx512vl avx512dq
        avx512bw avx512vbmi avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 asimd
        asimdhp asimddp i8mm bf16 sve sve2 sme sme2"""
    known = from_linux_flags(words.split(), cpu.architecture)
    assert set(cpu.features or ()) <= set(known or ())


_CHANNELS = re.compile(r"(\d+) channels of DDR\d-(\d+)")
_BUS = re.compile(r"(\d+) bit (?:at ([\d.]+) Gbit/s|of LPDDR\w+-(\d+))")


@pytest.mark.parametrize("name", NAMES)
def test_every_bandwidth_is_its_bus_times_its_clock(name: str) -> None:
    """Where the source gives both; 1 % for clocks that data sheets round."""
    text = (shipped_profiles_dir() / "hardware" / f"{name}.yaml").read_text("utf-8")
    text = " ".join(text.split())
    given = []
    for channels, clock in _CHANNELS.findall(text):
        given.append(int(channels) * 8 * int(clock) * 1e6)
    for bits, gbits, mega in _BUS.findall(text):
        given.append(int(bits) / 8 * (float(gbits) * 1e9 if gbits else int(mega) * 1e6))
    machine = shipped(name).hardware
    rates = [machine.memory.bandwidth, *(gpu.bandwidth for gpu in machine.accelerators)]
    for product in given:
        assert any(rate == pytest.approx(product, rel=0.01) for rate in rates), product
    # Apple and cloud providers print one number, GB10's guide as well.
    assert given or machine.system.os == "Darwin" or name.startswith(("cloud-", "board-dgx"))


@pytest.mark.parametrize(
    ("name", "vendor", "gib", "gb_per_second", "capability", "count"),
    [
        ("laptop-rtx3050-4gb", "nvidia", 4, 192, "8.6", 1),
        ("laptop-rtx4060-8gb", "nvidia", 8, 256, "8.9", 1),
        ("desktop-rtx3060-12gb", "nvidia", 12, 360, "8.6", 1),
        ("desktop-rtx3090-24gb", "nvidia", 24, 936, "8.6", 1),
        ("desktop-rtx4090-24gb", "nvidia", 24, 1008, "8.9", 1),
        ("desktop-rtx5090-32gb", "nvidia", 32, 1792, "12.0", 1),
        ("desktop-2x-rtx3090", "nvidia", 24, 936, "8.6", 2),
        ("desktop-rx7900xtx-24gb", "amd", 24, 960, "gfx1100", 1),
        ("desktop-arc-a770-16gb", "intel", 16, 560, None, 1),
        ("server-a100-80gb", "nvidia", 80, 1935, "8.0", 1),
        ("server-h100-80gb", "nvidia", 79.65, 3350, "9.0", 1),
        ("server-h200-141gb", "nvidia", 140.40, 4800, "9.0", 1),
        ("server-8x-h100", "nvidia", 79.65, 3350, "9.0", 8),
    ],
)
def test_a_card_is_what_its_maker_says(
    name: str, vendor: str, gib: float, gb_per_second: int, capability: str | None, count: int
) -> None:
    gpus = shipped(name).hardware.accelerators
    assert [gpu.index for gpu in gpus] == list(range(count))
    for gpu in gpus:
        assert gpu.vendor == vendor
        assert gpu.total_bytes == pytest.approx(gib * GIB, rel=1e-4)
        assert gpu.bandwidth == gb_per_second * 1e9
        assert gpu.compute_capability == capability
        assert not gpu.unified


def test_unequal_cards_keep_their_order_and_numbers() -> None:
    first, second = shipped("desktop-rtx4090-rtx3060").hardware.accelerators
    assert (first.index, first.total_bytes, first.display) == (0, 24 * GIB, False)
    assert (second.index, second.total_bytes, second.display) == (1, 12 * GIB, True)
    assert second.free_bytes == 12 * GIB - 700 * MIB


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("mac-")])
def test_a_mac_lets_its_gpu_hold_what_the_probe_would_assume(name: str) -> None:
    machine = shipped(name).hardware
    (gpu,) = machine.accelerators
    assert machine.memory.total_bytes is not None
    assert gpu.unified
    assert gpu.total_bytes == machine.memory.total_bytes
    assert gpu.limit_bytes == working_set(machine.memory.total_bytes, None)[0]
    assert gpu.free_bytes == min(gpu.limit_bytes, machine.memory.free_bytes or 0)


@pytest.mark.parametrize("name", ["board-dgx-spark-128gb", "board-jetson-orin-64gb"])
def test_a_unified_board_answers_not_available_as_nvml_does(name: str) -> None:
    (gpu,) = shipped(name).hardware.accelerators
    assert gpu.unified
    assert (gpu.total_bytes, gpu.free_bytes) == (None, None)


def test_the_old_laptop_has_no_avx2() -> None:
    features = shipped("laptop-2011-8gb").hardware.cpu.features
    assert features is not None
    assert "avx" in features
    assert {"avx2", "fma", "f16c"}.isdisjoint(features)


def test_the_container_keeps_to_its_limits() -> None:
    machine = shipped("cloud-2vcpu-4gb").hardware
    assert machine.cpu.n_usable == 2
    assert machine.memory.free_bytes == 4 * GIB - 100 * MIB
    assert machine.system.container == "docker"


def test_free_memory_is_all_but_the_stated_use() -> None:
    memory = parse_hardware(SMALL, "small.yaml").hardware.memory
    assert (memory.total_bytes, memory.free_bytes) == (16 * GIB, 12 * GIB)
    assert (memory.bandwidth, memory.bandwidth_source) == (None, None)


def test_a_card_is_free_but_for_the_stated_use() -> None:
    free = parse_hardware(SMALL + CARD, "x.yaml").hardware.accelerators[0].free_bytes
    used = parse_hardware(SMALL + CARD + "    used: 1 GiB\n", "x.yaml").hardware.accelerators[0]
    assert (free, used.free_bytes) == (8 * GIB, 7 * GIB)


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [
        pytest.param("17179869184", 16 * GIB, id="a number"),
        pytest.param("16G", 16 * GIB, id="short"),
        pytest.param("'16 GiB'", 16 * GIB, id="quoted"),
        pytest.param("16 GB", 16_000_000_000, id="decimal"),
    ],
)
def test_a_size_may_be_written_in_many_ways(written: str, n_bytes: int) -> None:
    preset = parse_hardware(SMALL.replace("16 GiB", written), "x.yaml")
    assert preset.hardware.memory.total_bytes == n_bytes


def test_a_bandwidth_is_of_the_data_sheet() -> None:
    memory = parse_hardware(SMALL + "  bandwidth: 51.2 GB/s\n", "x.yaml").hardware.memory
    assert (memory.bandwidth, memory.bandwidth_source) == (51.2e9, "data-sheet")


def changed(old: str, new: str) -> str:
    assert old in SMALL + CARD
    return (SMALL + CARD).replace(old, new)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("\ntitle: [", "line 2: not YAML: ", id="not YAML"),
        pytest.param("", "line 1: title is missing", id="empty"),
        pytest.param("- title\n", "line 1: expected keys with values", id="a list"),
        pytest.param("[" * 5000, " is nested too deep to be read", id="nested"),
        pytest.param(SMALL + "gpu: 1\n", "line 11: there is no setting 'gpu'", id="unknown key"),
        pytest.param(
            changed("os: Linux", "os: Linux\n  kernel: 6"),
            "line 4: there is no setting 'system.kernel'",
            id="unknown key in a section",
        ),
        pytest.param(
            SMALL + CARD + "    vram: 1\n",
            "line 15: there is no setting 'accelerators[0].vram'",
            id="unknown key of a card",
        ),
        pytest.param(SMALL + "title: again\n", "line 11: title occurs twice", id="a section twice"),
        pytest.param(
            SMALL + "  used: 1 GiB\n", "line 11: memory.used occurs twice", id="a key twice"
        ),
        pytest.param(
            changed("  n_logical: 8\n", ""), "line 4: cpu.n_logical is missing", id="missing key"
        ),
        pytest.param(
            changed("  used: 4 GiB\n", ""), "line 8: memory.used is missing", id="missing use"
        ),
        pytest.param(
            changed("  os: Linux\n", ""), "line 2: system.os is missing", id="an empty section"
        ),
        pytest.param(
            changed("title: A small machine\n", ""), "line 1: title is missing", id="no title"
        ),
        pytest.param(
            changed("system:\n  os: Linux", "system: Linux"),
            "line 2: system must hold keys with values",
            id="words for a section",
        ),
        pytest.param(
            changed("title: A small machine", "title: 4090"),
            "line 1: title must be text, not 4090",
            id="a number for text",
        ),
        pytest.param(
            changed("title: A small machine", "title: ' '"),
            "line 1: title must not be empty",
            id="blank text",
        ),
        pytest.param(
            changed("os: Linux", "os: BeOS"),
            "line 3: system.os must be one of Linux, Darwin, Windows, not 'BeOS'",
            id="an unknown system",
        ),
        pytest.param(
            changed("x86_64", "arm64"),
            "line 5: cpu.architecture must be one of x86_64, aarch64, not 'arm64'",
            id="an unknown architecture",
        ),
        pytest.param(
            changed("n_physical: 4", "n_physical: four"),
            "line 6: cpu.n_physical must be a whole number, not 'four'",
            id="words for a number",
        ),
        pytest.param(
            changed("n_physical: 4", "n_physical: yes"),
            "line 6: cpu.n_physical must be a whole number, not True",
            id="a flag for a number",
        ),
        pytest.param(
            changed("n_physical: 4", "n_physical: 0"),
            "line 6: cpu.n_physical must be at least 1, not 0",
            id="no core",
        ),
        pytest.param(
            changed("n_physical: 4", "n_physical: 16"),
            "line 7: cpu.n_logical must be at least n_physical, 16",
            id="fewer threads than cores",
        ),
        pytest.param(
            changed("n_logical: 8", "n_logical: 8\n  n_performance: 6"),
            "line 8: cpu.n_performance must be at most n_physical, 4",
            id="more performance cores than cores",
        ),
        pytest.param(
            changed("n_logical: 8", "n_logical: 8\n  quota: 9"),
            "line 8: cpu.quota must be at most n_logical, 8",
            id="a quota beyond the machine",
        ),
        pytest.param(
            changed("n_logical: 8", "n_logical: 8\n  quota: .inf"),
            "line 8: cpu.quota must be above 0, not inf",
            id="an endless quota",
        ),
        pytest.param(
            changed("n_logical: 8", "n_logical: 8\n  features: avx2"),
            "line 8: cpu.features must be a list",
            id="a word for a list",
        ),
        pytest.param(
            changed("n_logical: 8", "n_logical: 8\n  features:\n    - avx\n    - AVX-2"),
            "line 10: cpu.features[1] must be named as ggml does (avx2, dotprod), not 'AVX-2'",
            id="a feature of another name",
        ),
        pytest.param(
            changed("total: 16 GiB", "total: -16 GiB"),
            "line 9: memory.total must not be negative, not '-16 GiB'",
            id="a negative size",
        ),
        pytest.param(
            changed("total: 16 GiB", "total: -1"),
            "line 9: memory.total must not be negative, not -1",
            id="a negative number",
        ),
        pytest.param(
            changed("total: 16 GiB", "total: 0"),
            "line 9: memory.total must be at least 1 bytes, not 0",
            id="no memory",
        ),
        pytest.param(
            changed("total: 16 GiB", "total: 16 gigs"),
            "line 9: memory.total must be a size, not '16 gigs'",
            id="not a size",
        ),
        pytest.param(
            changed("total: 16 GiB", "total: 16.5"),
            "line 9: memory.total must be a size, not 16.5",
            id="half a byte",
        ),
        pytest.param(
            changed("total: 16 GiB", "total: [16 GiB]"),
            "line 9: memory.total must be a single value",
            id="a list for a size",
        ),
        pytest.param(
            changed("used: 4 GiB", "used: 17 GiB"),
            "line 10: memory.used must not be more than memory.total",
            id="more used than there is",
        ),
        pytest.param(
            SMALL + "  limit_used: 1 GiB\n",
            "line 11: memory.limit_used needs a memory.limit",
            id="a use without a limit",
        ),
        pytest.param(
            SMALL + "  bandwidth: 51.2 GB\n",
            "line 11: memory.bandwidth must be a rate, not '51.2 GB'",
            id="not a rate",
        ),
        pytest.param(
            SMALL + "  bandwidth: 0\n",
            "line 11: memory.bandwidth must be above 0, not 0",
            id="a rate of nothing",
        ),
        pytest.param(
            SMALL + "  bandwidth: -1 GB/s\n",
            "line 11: memory.bandwidth must not be negative, not '-1 GB/s'",
            id="a negative rate",
        ),
        pytest.param(
            SMALL + "accelerators: none\n", "line 11: accelerators must be a list", id="no list"
        ),
        pytest.param(
            changed("vendor: nvidia", "vendor: matrox"),
            "line 12: accelerators[0].vendor must be one of nvidia, amd, intel, apple, not",
            id="an unknown vendor",
        ),
        pytest.param(
            changed("    total: 8 GiB\n", ""),
            "line 12: accelerators[0] needs a total, or unified: true where it shares main memory",
            id="neither a total nor unified",
        ),
        pytest.param(
            SMALL + CARD + "    unified: true\n",
            "line 14: accelerators[0].total is main memory's where unified is true: leave it out",
            id="a total and unified",
        ),
        pytest.param(
            SMALL + CARD + "    unified: maybe\n",
            "line 15: accelerators[0].unified must be true or false, not 'maybe'",
            id="perhaps unified",
        ),
        pytest.param(
            SMALL + CARD + "    limit: 4 GiB\n",
            "line 15: accelerators[0].limit is for unified memory; a card has all of its own",
            id="a limit without unified",
        ),
        pytest.param(
            changed("    total: 8 GiB\n", "    unified: true\n    limit: 17 GiB\n"),
            "line 15: accelerators[0].limit must not be more than memory.total",
            id="a limit beyond memory",
        ),
        pytest.param(
            SMALL + CARD + "    used: 9 GiB\n",
            "line 15: accelerators[0].used must not be more than accelerators[0].total",
            id="a card more than full",
        ),
        pytest.param(
            SMALL + CARD + "    compute_capability: 8.9\n",
            "line 15: accelerators[0].compute_capability must be text, not 8.9",
            id="a version without quotes",
        ),
        pytest.param(
            SMALL + CARD + "    count: 100000\n",
            "line 15: accelerators[0].count must be at most 64, not 100000",
            id="too many cards",
        ),
        pytest.param(
            SMALL + "disk: {path: /, total: 1 GiB, free: 2 GiB}\n",
            "line 11: disk.free must not be more than disk.total",
            id="a disk more than empty",
        ),
        pytest.param(
            "&a\ntitle: *a\nsystem: *a\ncpu: *a\nmemory: *a\n",
            "line 2: there is no setting 'memory.title'",
            id="a circle",
        ),
    ],
)
def test_an_error_names_the_file_the_line_and_the_key(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_hardware(text, "mine/box.yaml")
    assert caught.value.message.startswith("mine/box.yaml")
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


def test_a_near_key_is_offered() -> None:
    with pytest.raises(UsageError) as caught:
        parse_hardware(SMALL.replace("n_logical", "n_logicals"), "x.yaml")
    assert caught.value.hint == "did you mean n_logical?"


def test_a_version_without_quotes_is_told_about_quotes() -> None:
    with pytest.raises(UsageError) as caught:
        parse_hardware(SMALL + CARD + "    compute_capability: 9.0\n", "x.yaml")
    assert caught.value.hint == 'in quotes, "9.0" is text'


@pytest.fixture
def user_dir(tmp_path: Path) -> Path:
    (tmp_path / "hardware").mkdir()
    return tmp_path


def test_a_person_adds_a_machine(user_dir: Path) -> None:
    (user_dir / "hardware" / "mine.yaml").write_text(SMALL)
    files = preset_files(shipped_profiles_dir(), user_dir)
    assert sorted(files) == sorted([*NAMES, "mine"])
    preset = load_preset("mine", shipped_profiles_dir(), user_dir)
    assert (preset.name, preset.title) == ("mine", "A small machine")


def test_a_persons_own_machine_goes_before_a_shipped_one_of_its_name(user_dir: Path) -> None:
    (user_dir / "hardware" / "desktop-rtx4090-24gb.yaml").write_text(SMALL)
    preset = load_preset("desktop-rtx4090-24gb", shipped_profiles_dir(), user_dir)
    assert preset.title == "A small machine"


def test_a_machine_is_reached_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "anywhere.yml"
    path.write_text(SMALL + CARD)
    preset = load_preset(str(path), shipped_profiles_dir())
    assert preset.name == "anywhere"
    assert preset.hardware.accelerators[0].name == "A card"


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="no preset called 'desktop-rtx4090'") as caught:
        shipped("desktop-rtx4090")
    assert caught.value.hint is not None
    assert "did you mean desktop-rtx4090-24gb?" in caught.value.hint


def test_a_path_to_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file .*none\.yaml"):
        shipped(str(tmp_path / "none.yaml"))
