"""What is on a machine, read from made-up folders that stand for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localllm.engine import toolchain
from localllm.engine.toolchain import Machine, how_to_install, survey

CPUINFO = "processor\t: 0\nflags\t\t: fpu vme tsc pae avx avx2 fma f16c bmi2 sse4_2 ibrs arat\n"


def program(folder: Path, name: str, prints: str, status: int = 0) -> Path:
    """A program that prints something and leaves with a status."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(CPUINFO)
    (root / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
    return root


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cat").symlink_to("/bin/cat")
    return folder


def look(root: Path, bin_folder: Path, **environ: str) -> Machine:
    return survey({"PATH": str(bin_folder), **environ}, root)


def test_a_bare_machine_has_nothing_and_says_so(root: Path, bin_folder: Path) -> None:
    machine = look(root, bin_folder)
    assert machine.compiler is None
    assert machine.npm is None
    assert machine.nvcc is None
    assert not machine.nvidia
    assert not machine.amd
    assert machine.manager is None


@pytest.mark.parametrize(
    ("prints", "name"),
    [
        pytest.param(
            "c++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation",
            "gcc 12.2",
            id="gcc",
        ),
        pytest.param(
            "Ubuntu clang version 18.1.3 (1ubuntu1)\nTarget: x86_64", "clang 18.1", id="clang"
        ),
        pytest.param("Apple clang version 15.0.0 (clang-1500.3.9.4)", "clang 15.0", id="apple"),
    ],
)
def test_the_compiler_is_named_for_people(
    root: Path, bin_folder: Path, prints: str, name: str
) -> None:
    program(bin_folder, "cc", prints)
    program(bin_folder, "c++", prints)
    compiler = look(root, bin_folder).compiler
    assert compiler is not None
    assert compiler.name == name
    assert compiler.identity == prints.splitlines()[0]


def test_a_c_compiler_without_a_cpp_one_is_no_compiler(root: Path, bin_folder: Path) -> None:
    program(bin_folder, "cc", "cc 1.0")
    assert look(root, bin_folder).compiler is None


def test_cc_and_cxx_win_over_what_is_on_path(root: Path, bin_folder: Path, tmp_path: Path) -> None:
    for name in ("cc", "c++"):
        program(bin_folder, name, "clang version 17.0.1")
    mine = program(tmp_path / "my tools", "mine", "mine 9.9")
    quoted = f"'{mine}'"
    compiler = look(root, bin_folder, CC=quoted, CXX=quoted).compiler
    assert compiler is not None
    assert (compiler.cc, compiler.identity) == (quoted, "mine 9.9")


def test_a_shim_that_fails_is_not_a_program(root: Path, bin_folder: Path) -> None:
    program(bin_folder, "node", "node: command not found", status=127)
    program(bin_folder, "npm", "11.4.2")
    machine = look(root, bin_folder)
    assert machine.node is None
    assert machine.npm is not None
    assert machine.npm.version == "11"


def test_an_nvidia_machine_with_its_toolkit_off_path(root: Path, bin_folder: Path) -> None:
    (root / "dev").mkdir()
    (root / "dev/nvidia0").touch()
    smi = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |"
    program(bin_folder, "nvidia-smi", smi)
    nvcc = program(
        root / "usr/local/cuda/bin",
        "nvcc",
        "Cuda compilation tools, release 12.3, V12.3.107",
    )
    machine = look(root, bin_folder)
    assert machine.nvidia
    assert machine.driver_cuda == "12.4"
    assert machine.nvcc == toolchain.Tool(str(nvcc), "12.3")


def test_wsl_without_the_drivers_library_has_no_gpu(root: Path, bin_folder: Path) -> None:
    (root / "dev").mkdir()
    (root / "dev/dxg").touch()
    assert not look(root, bin_folder).nvidia
    (root / "usr/lib/wsl/lib").mkdir(parents=True)
    (root / "usr/lib/wsl/lib/libcuda.so.1").touch()
    assert look(root, bin_folder).nvidia


def test_vulkan_needs_headers_spirv_and_a_loader(root: Path, bin_folder: Path) -> None:
    (root / "usr/include/vulkan").mkdir(parents=True)
    (root / "usr/include/vulkan/vulkan.h").touch()
    (root / "usr/include/spirv").mkdir()
    assert not look(root, bin_folder).vulkan
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu/libvulkan.so").touch()
    assert look(root, bin_folder).vulkan


def test_instruction_sets_leave_out_what_no_compiler_emits() -> None:
    assert toolchain.parse_cpuinfo(CPUINFO, "x86_64") == (
        "avx", "avx2", "bmi2", "f16c", "fma", "sse4_2",
    )  # fmt: skip
    assert toolchain.parse_cpuinfo("Features\t: fp asimd sve\n", "aarch64") == (
        "asimd",
        "fp",
        "sve",
    )
    assert toolchain.parse_cpuinfo("processor: 0\n", "x86_64") is None


def test_instruction_sets_of_macos_come_in_linux_spelling() -> None:
    arm = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\nhw.optional.AdvSIMD: 1\n"
    assert toolchain.parse_sysctl(arm, "aarch64") == ("asimd", "asimddp")
    intel = "FPU VME SSE4.2 AVX1.0 F16C\nAVX2 BMI2\n"
    assert toolchain.parse_sysctl(intel, "x86_64") == ("avx", "avx2", "bmi2", "f16c", "sse4_2")


def test_cores_and_memory_obey_the_cgroups_above(root: Path, bin_folder: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/user/job\n")
    job = root / "sys/fs/cgroup/user/job"
    job.mkdir(parents=True)
    (job / "cpu.max").write_text("max 100000\n")
    (job.parent / "cpu.max").write_text("150000 100000\n")
    (job.parent / "memory.max").write_text(f"{3 << 30}\n")
    (job.parent / "memory.current").write_text(f"{2 << 30}\n")
    (job.parent / "memory.stat").write_text(f"anon 5\ninactive_file {1 << 30}\n")
    machine = look(root, bin_folder)
    assert machine.n_cores == 1
    assert machine.free_memory_bytes == 2 << 30


def test_version_1_cgroups_are_obeyed_and_their_huge_numbers_mean_none(
    root: Path, bin_folder: Path
) -> None:
    (root / "proc/self/cgroup").write_text("4:memory:/job\n1:cpu,cpuacct:/job\n")
    memory, cpu = root / "sys/fs/cgroup/memory", root / "sys/fs/cgroup/cpu"
    memory.mkdir(parents=True)
    cpu.mkdir()
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (memory / "memory.usage_in_bytes").write_text("5\n")
    (cpu / "cpu.cfs_quota_us").write_text("100000\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    machine = look(root, bin_folder)
    assert machine.n_cores == 1
    assert machine.free_memory_bytes == 8000000 * 1024


@pytest.mark.parametrize("manager", ["apt-get", "dnf", "pacman", "brew", None])
@pytest.mark.parametrize("what", ["compiler", "cuda", "rocm", "vulkan"])
def test_every_remedy_is_a_line_for_every_distribution(what: str, manager: str | None) -> None:
    assert how_to_install(what, Machine("Linux", "x86_64", manager=manager))


def test_root_is_not_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("Linux", "x86_64", manager="apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert how_to_install("compiler", machine) == "apt-get install build-essential"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert how_to_install("compiler", machine) == "sudo apt-get install build-essential"
