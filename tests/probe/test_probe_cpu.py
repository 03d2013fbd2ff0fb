"""What the processor is said to be, on captured machines."""

from __future__ import annotations

import pytest

from localllm.hardware import Cpu
from localllm.probe import instructions
from localllm.probe.cgroups import CgroupLimits
from localllm.probe.cpu import normal_architecture, parse_cpuinfo, parse_sysctl, probe_cpu
from localllm.probe.files import parse_cpu_list

X86_BASE = {"avx", "sse3", "sse42", "ssse3"}
X86_V3 = X86_BASE | {"avx2", "bmi2", "f16c", "fma"}
ARM_V82 = {"dotprod", "fp16_va", "neon"}


@pytest.mark.parametrize(
    ("capture", "arch", "model", "n_logical", "features"),
    [
        pytest.param(
            "intel-i7-1260p",
            "x86_64",
            "12th Gen Intel(R) Core(TM) i7-1260P",
            16,
            X86_V3 | {"avx_vnni"},
            id="intel-hybrid-has-avx-vnni",
        ),
        pytest.param(
            "amd-epyc-7763",
            "x86_64",
            "AMD EPYC 7763 64-Core Processor",
            4,
            X86_V3,
            id="amd-epyc-milan-has-no-avx512",
        ),
        pytest.param(
            "intel-i5-2520m",
            "x86_64",
            "Intel(R) Core(TM) i5-2520M CPU @ 2.50GHz",
            4,
            X86_BASE,
            id="sandy-bridge-has-no-avx2-fma-f16c",
        ),
        pytest.param("ampere-altra", "aarch64", "Neoverse-N1", 4, ARM_V82, id="ampere-altra"),
        pytest.param(
            "raspberry-pi-5",
            "aarch64",
            "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)",
            4,
            ARM_V82,
            id="raspberry-pi-5-names-its-board",
        ),
        pytest.param(
            "graviton-3",
            "aarch64",
            "Neoverse-V1",
            2,
            ARM_V82 | {"bf16", "i8mm", "sve"},
            id="graviton-3-has-sve",
        ),
        pytest.param(
            "rk3588",
            "aarch64",
            "Cortex-A55 + Cortex-A76",
            8,
            ARM_V82,
            id="big-little-names-both-kinds",
        ),
    ],
)
def test_cpuinfo_gives_model_count_and_instruction_sets(
    captured, capture, arch, model, n_logical, features
):
    info = parse_cpuinfo(captured(f"cpuinfo/{capture}"))

    assert info.model == model
    assert info.n_logical == n_logical
    assert instructions.from_linux_flags(info.flags, arch) == tuple(sorted(features))


def test_avx512_parts_and_amx_carry_ggmls_names():
    flags = (
        "avx512f avx512dq avx512cd avx512bw avx512vl avx512vbmi avx512_vnni avx512_bf16 amx_bf16"
    )
    flags += " amx_tile amx_int8 avx512_fp16 avx512_vbmi2 avx512_bitalg"

    assert instructions.from_linux_flags(flags.split(), "x86_64") == (
        "amx_bf16",
        "amx_int8",
        "amx_tile",
        "avx512_bf16",
        "avx512_fp16",
        "avx512_vbmi",
        "avx512_vnni",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512vl",
    )


def test_only_what_every_core_can_do_counts():
    text = (
        "processor : 0\nFeatures : asimd asimddp sve\n\nprocessor : 1\nFeatures : asimd asimddp\n"
    )

    assert parse_cpuinfo(text).flags == {"asimd", "asimddp"}


def test_cores_of_two_sockets_are_told_apart():
    blocks = [
        f"processor : {n}\nphysical id : {n // 4}\ncore id : {n % 2}\n" for n in range(8)
    ]  # two sockets, two cores each, two threads each

    assert len(set(parse_cpuinfo("\n".join(blocks)).cores.values())) == 4


@pytest.mark.parametrize(
    ("captures", "cpuinfo", "arch", "n_physical", "n_performance"),
    [
        pytest.param(("i7-1260p-cores",), "intel-i7-1260p", "x86_64", 12, 4, id="intel-hybrid"),
        pytest.param((), "amd-epyc-7763", "x86_64", 2, None, id="two-threads-a-core"),
        pytest.param(("rk3588-cores",), "rk3588", "aarch64", 8, 4, id="arm-big-little"),
        pytest.param(
            ("raspberry-pi-5-cores",), "raspberry-pi-5", "aarch64", 4, None, id="arm-one-kind"
        ),
        pytest.param((), "ampere-altra", "aarch64", None, None, id="no-topology-is-unknown"),
    ],
)
def test_cores_are_counted_and_the_fast_kind_is_found(
    machine, captured, captures, cpuinfo, arch, n_physical, n_performance
):
    root = machine(
        *(f"sysfs/{name}" for name in captures),
        files={"proc/cpuinfo": captured(f"cpuinfo/{cpuinfo}")},
    )

    cpu, findings = probe_cpu(root, os_name="Linux", machine=arch)

    assert (cpu.n_physical, cpu.n_performance) == (n_physical, n_performance)
    assert findings == ()


@pytest.mark.parametrize(
    ("capacities", "n_fast"),
    [
        pytest.param([300] * 4 + [900] * 3 + [1024], 4, id="phone-1-3-4"),
        pytest.param([718] * 5 + [731] * 5 + [997] * 5 + [1024] * 5, 10, id="gb10-two-clocks-each"),
        pytest.param([1018, 1024], None, id="small-differences-make-no-hybrid"),
    ],
)
def test_arm_capacities_part_fast_cores_from_slow_ones(machine, capacities, n_fast):
    files = {
        f"sys/devices/system/cpu/cpu{n}/cpu_capacity": str(c) for n, c in enumerate(capacities)
    }

    cpu, _ = probe_cpu(machine(files=files), os_name="Linux", machine="aarch64")

    assert cpu.n_performance == n_fast


@pytest.mark.parametrize(
    ("capture", "governor", "driver"),
    [
        pytest.param("i7-1260p-cores", "powersave", "intel_pstate", id="laptop"),
        pytest.param("rk3588-cores", "powersave", "cpufreq-dt", id="the-slowest-policy-matters"),
        pytest.param("raspberry-pi-5-cores", None, None, id="none-in-a-virtual-machine"),
    ],
)
def test_governor_and_its_driver_are_read(machine, capture, governor, driver):
    cpu, _ = probe_cpu(machine(f"sysfs/{capture}"), os_name="Linux", machine="x86_64")

    assert (cpu.governor, cpu.scaling_driver) == (governor, driver)


def test_quota_and_cpuset_bound_what_is_usable(machine, captured):
    root = machine(files={"proc/cpuinfo": captured("cpuinfo/intel-i7-1260p")})
    limits = CgroupLimits(cpu_quota=2.5, cpus=frozenset({2, 3, 4, 5}))

    cpu, _ = probe_cpu(root, limits, os_name="Linux", machine="x86_64")

    assert (cpu.n_affinity, cpu.quota, cpu.n_usable) == (4, 2.5, 2)


def test_unreadable_cpuinfo_is_a_finding_and_unknown(tmp_path):
    cpu, findings = probe_cpu(tmp_path, os_name="Linux", machine="x86_64")

    assert [f.code for f in findings] == ["probe.cpuinfo"]
    assert (cpu.model, cpu.features, cpu.n_physical) == (None, None, None)


@pytest.mark.parametrize(
    ("machine_name", "name"),
    [
        ("AMD64", "x86_64"),
        ("x86_64", "x86_64"),
        ("arm64", "aarch64"),
        ("ARM64", "aarch64"),
        ("riscv64", "riscv64"),
        ("", None),
    ],
)
def test_architectures_have_one_name(machine_name, name):
    assert normal_architecture(machine_name) == name


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        pytest.param("0-3,8,10-11\n", {0, 1, 2, 3, 8, 10, 11}, id="ranges-and-numbers"),
        pytest.param("5", {5}, id="one"),
        pytest.param("", None, id="empty-inherits"),
        pytest.param("0-x", None, id="damaged"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_kernel_lists_of_processors_are_read(text, cpus):
    assert parse_cpu_list(text) == cpus


def read_sysctl(text: str) -> tuple[str | None, dict[str, int]]:
    pairs = dict(line.split(": ", 1) for line in text.splitlines())
    model = pairs.pop("machdep.cpu.brand_string", None)
    return model, {name: int(value) for name, value in pairs.items()}


def test_an_apple_processor_is_read_from_sysctl(captured):
    model, values = read_sysctl(captured("sysctl/apple-m3"))

    assert parse_sysctl(model, values, "aarch64") == Cpu(
        model="Apple M3",
        architecture="aarch64",
        features=("bf16", "dotprod", "fp16_va", "i8mm", "neon"),
        n_physical=8,
        n_logical=8,
        n_performance=4,
    )


def test_rosetta_does_not_lend_arm_instructions_to_an_x86_process(captured):
    model, values = read_sysctl(captured("sysctl/apple-m3"))
    values["hw.optional.avx1_0"] = 0
    values["hw.optional.sse4_2"] = 1

    assert parse_sysctl(model, values, "x86_64").features == ("sse42",)


def test_windows_avx2_stands_for_fma_and_f16c_which_have_no_number():
    present = {13, 36, 38, 39, 40}

    assert instructions.from_windows(present.__contains__, "x86_64") == (
        "avx",
        "avx2",
        "f16c",
        "fma",
        "sse3",
        "sse42",
        "ssse3",
    )
    assert instructions.from_windows({19, 43, 66}.__contains__, "aarch64") == (
        "dotprod",
        "i8mm",
        "neon",
    )
