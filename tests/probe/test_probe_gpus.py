"""AMD's, Intel's and Apple's GPUs, on captured trees of /sys and sysctl's answers."""

from __future__ import annotations

import shutil

import pytest

from localllm.hardware import Accelerator, Memory
from localllm.probe.apple import parse_sysctl, probe_apple, working_set
from localllm.probe.pci import normal_address
from localllm.probe.sysfs_gpu import gfx_target, is_apu, probe_sysfs_gpus

GIB = 1 << 30
MIB = 1 << 20


def test_a_discrete_amd_gpu_has_its_own_memory_alone(machine):
    gpus, findings = probe_sysfs_gpus(machine("sysfs/rx-7900-xtx"))

    assert gpus == (
        Accelerator(
            vendor="amd",
            index=0,
            name="AMD GPU [1002:744c]",
            uuid="GPU-9e7fc11b7d1a5c9b",
            pci_bus_id="0000:03:00.0",
            total_bytes=25753026560,
            free_bytes=25753026560 - 1285517312,
            unified=False,
            compute_capability="gfx1100",
            display=True,
        ),
    )
    assert findings == ()


def test_an_apu_has_its_carve_out_and_what_the_driver_may_map(machine):
    (gpu,), findings = probe_sysfs_gpus(machine("sysfs/strix-halo"))

    assert gpu.unified
    assert gpu.compute_capability == "gfx1151"
    assert gpu.total_bytes == 4294967296 + 103079215104
    assert gpu.free_bytes == 4294967296 - 214748365 + 103079215104 - 536870912
    assert findings == ()


def test_an_apu_cannot_have_more_than_main_memory_has_free(machine):
    main = Memory(total_bytes=124 * GIB, available_bytes=10 * GIB)

    (gpu,), _ = probe_sysfs_gpus(machine("sysfs/strix-halo"), main)

    assert gpu.free_bytes == 4294967296 - 214748365 + 10 * GIB


def test_a_server_cards_name_is_the_drivers(machine):
    root = machine("sysfs/rx-7900-xtx")
    name = root / "sys/bus/pci/devices/0000:03:00.0/product_name"
    name.write_text("AMD Instinct MI210\n")

    (gpu,), _ = probe_sysfs_gpus(root)

    assert gpu.name == "AMD Instinct MI210"


def test_an_amd_gpu_without_amdgpu_is_a_finding_and_no_accelerator(machine):
    root = machine("sysfs/rx-7900-xtx")
    folder = root / "sys/bus/pci/devices/0000:03:00.0"
    (folder / "mem_info_vram_total").unlink()
    (folder / "driver").unlink()
    (folder / "driver").symlink_to("../../drivers/vfio-pci")
    (root / "sys/bus/pci/drivers/vfio-pci").mkdir()

    gpus, findings = probe_sysfs_gpus(root)

    assert gpus == ()
    assert [f.code for f in findings] == ["probe.amd-driver"]
    assert "driven by vfio-pci" in findings[0].message


@pytest.mark.parametrize(
    ("target", "voltage", "vram", "apu"),
    [
        pytest.param("gfx1151", None, 96 * GIB, True, id="strix-halo-with-a-large-carve-out"),
        pytest.param("gfx803", None, 4 * GIB, False, id="rx-580-with-less-memory-than-main"),
        pytest.param("gfx90c", None, 512 * MIB, True, id="ryzen-5600g"),
        pytest.param(None, "vddnb", 2 * GIB, True, id="no-kfd-but-the-sensor-tells"),
        pytest.param(None, None, 512 * MIB, True, id="no-kfd-and-a-tiny-carve-out"),
        pytest.param(None, None, 8 * GIB, False, id="no-kfd-and-a-real-cards-memory"),
    ],
)
def test_apus_are_known_by_target_then_sensor_then_size(target, voltage, vram, apu):
    assert is_apu(target, voltage, vram) is apu


@pytest.mark.parametrize(
    ("version", "target"),
    [
        (110000, "gfx1100"),
        (90010, "gfx90a"),
        (90402, "gfx942"),
        (110501, "gfx1151"),
        (100302, "gfx1032"),
        (120001, "gfx1201"),
        (90012, "gfx90c"),
        (0, None),
    ],
)
def test_amd_targets_have_hexadecimal_minor_and_stepping(version, target):
    assert gfx_target(version) == target


def test_intel_on_the_root_bus_is_unified_and_a_card_behind_a_bridge_is_not(machine):
    gpus, findings = probe_sysfs_gpus(machine("sysfs/arc-a770-i915"))

    assert gpus == (
        Accelerator(
            "intel",
            0,
            name="Intel GPU [8086:4680]",
            pci_bus_id="0000:00:02.0",
            unified=True,
            display=True,
        ),
        Accelerator(
            "intel", 1, name="Intel GPU [8086:56a0]", pci_bus_id="0000:03:00.0", display=False
        ),
    )
    assert [f.code for f in findings] == ["probe.intel-memory"]
    assert "0000:03:00.0" in findings[0].message


def test_an_arc_on_xe_shows_its_memory(machine):
    (gpu,), findings = probe_sysfs_gpus(machine("sysfs/arc-a770-xe"))

    assert (gpu.unified, gpu.total_bytes, gpu.free_bytes) == (False, 0x3FA000000, None)
    assert findings == ()


def test_an_arc_on_builds_of_i915_that_count_shows_its_memory(machine):
    files = {"sys/class/drm/card1/lmem_total_bytes": "17049845760\n"}

    gpus, findings = probe_sysfs_gpus(machine("sysfs/arc-a770-i915", files=files))

    assert [gpu.total_bytes for gpu in gpus] == [None, 17049845760]
    assert findings == ()


def test_a_laptops_intel_graphics_are_unified(machine):
    (gpu,), findings = probe_sysfs_gpus(machine("sysfs/intel-igpu"))

    assert (gpu.vendor, gpu.unified, gpu.total_bytes) == ("intel", True, None)
    assert findings == ()


def test_an_intel_gpu_without_a_driver_is_a_finding(machine):
    root = machine("sysfs/intel-igpu")
    shutil.rmtree(root / "sys/class")

    gpus, findings = probe_sysfs_gpus(root)

    assert gpus == ()
    assert [f.code for f in findings] == ["probe.intel-driver"]


def test_management_and_virtual_displays_are_no_accelerators_and_no_findings(machine):
    assert probe_sysfs_gpus(machine("sysfs/server-consoles")) == ((), ())


def test_a_machine_without_pci_has_none(tmp_path):
    assert probe_sysfs_gpus(tmp_path) == ((), ())


@pytest.mark.parametrize(
    ("nvml", "linux"),
    [
        ("00000000:65:00.0", "0000:65:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("nonsense", "nonsense"),
    ],
)
def test_pci_addresses_are_written_as_linux_does(nvml, linux):
    assert normal_address(nvml) == linux


def apple_values(text: str) -> dict[str, int]:
    pairs = (line.split(": ", 1) for line in text.splitlines())
    return {name: int(value) for name, value in pairs if value.isdecimal()}


def test_an_apple_gpu_shares_main_memory_within_a_limit_that_names_its_source(captured):
    values = apple_values(captured("sysctl/apple-m3"))

    gpu = parse_sysctl("Apple M3", values, Memory(24 * GIB, available_bytes=20 * GIB))

    assert gpu == Accelerator(
        "apple",
        0,
        name="Apple M3",
        total_bytes=24 * GIB,
        free_bytes=16 * GIB,
        unified=True,
        limit_bytes=16 * GIB,
        limit_source="assumed: two thirds of memory, as macOS does by default",
    )


@pytest.mark.parametrize(
    ("total", "setting", "limit", "source"),
    [
        pytest.param(32 * GIB, 0, 22906492245, "assumed", id="llama.cpp-log-of-32-gib"),
        pytest.param(96 * GIB, 0, 73728 * MIB, "assumed", id="llama.cpp-log-of-96-gib"),
        pytest.param(64 * GIB, None, 49152 * MIB, "assumed", id="llama.cpp-log-of-64-gib"),
        pytest.param(32 * GIB, 26624, 26624 * MIB, "iogpu.wired_limit_mb", id="setting-wins"),
    ],
)
def test_what_an_apple_gpu_may_hold(total, setting, limit, source):
    value, says = working_set(total, setting)

    assert value == limit
    assert source in says


def test_a_mac_with_an_intel_processor_has_no_apple_gpu():
    assert parse_sysctl("Intel(R) Core(TM) i9-9880H", {"hw.memsize": 16 * GIB}) is None


def test_apple_is_not_asked_elsewhere_and_its_silence_is_a_finding():
    assert probe_apple(os_name="Linux") == ((), ())
    if not probe_apple(os_name="Darwin")[0]:  # on Linux libc has no sysctlbyname
        assert [f.code for f in probe_apple(os_name="Darwin")[1]] == ["probe.apple"]
