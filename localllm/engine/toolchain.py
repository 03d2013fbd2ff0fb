"""What this machine has to build an engine with: compilers, GPU toolkits, instruction sets, room.

Standard library only, because it runs before anything is installed. It looks and does not judge
(`build.py` does), and it knows nothing of models: `localllm/probe` describes the machine for that.
The macOS and Windows branches follow the vendors' documentation and are unproven.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Flags of /proc/cpuinfo that name instructions a compiler may emit under -march=native; the rest
#: of that line is about mitigations, paging and profiling, and moves with every kernel.
_X86_ISA = re.compile(
    r"^(avx|amx|sse|ssse3|pni$|fma|f16c$|bmi|abm$|movbe$|popcnt$|aes$|vaes$|v?pclmulqdq$|gfni$"
    r"|sha|adx$|xop$|tbm$|cx16$|lahf_lm$|rdrand$|rdseed$|3dnow|mmx|clwb$|clflushopt$|serialize$)"
)
#: From the narrowest to the widest; the last one present is what a person reads.
_X86_LEVELS = (
    ("sse4_2", "SSE4.2"),
    ("avx", "AVX"),
    ("avx2", "AVX2"),
    ("avx512f", "AVX-512"),
    ("amx_int8", "AVX-512 and AMX"),
)
_ARM_LEVELS = (
    ("neon", "NEON"),
    ("asimd", "NEON"),
    ("asimddp", "NEON dotprod"),
    ("i8mm", "NEON i8mm"),
    ("sve", "SVE"),
)
_MANAGERS = ("apt-get", "dnf", "zypper", "pacman", "apk", "brew", "winget")

#: What to type, by package manager. ROCm is in few distributions: AMD's own page says how.
_ROCM_PAGE = "see https://rocm.docs.amd.com/projects/install-on-linux"
_INSTALL: dict[str, dict[str, str]] = {
    "compiler": {
        "apt-get": "sudo apt-get install build-essential",
        "dnf": "sudo dnf install gcc-c++ make",
        "zypper": "sudo zypper install gcc-c++ make",
        "pacman": "sudo pacman -S base-devel",
        "apk": "sudo apk add build-base linux-headers",
        "brew": "xcode-select --install",
        "winget": "winget install Microsoft.VisualStudio.2022.BuildTools",
        "": "install a C and C++ compiler (gcc or clang)",
    },
    "cuda": {
        "apt-get": "sudo apt-get install nvidia-cuda-toolkit",
        "dnf": "sudo dnf install cuda-toolkit",
        "zypper": "sudo zypper install cuda-toolkit",
        "pacman": "sudo pacman -S cuda",
        "winget": "winget install Nvidia.CUDA",
        "": "see https://developer.nvidia.com/cuda-downloads",
    },
    "rocm": {
        "apt-get": "sudo apt-get install hipcc libhipblas-dev librocblas-dev",
        "dnf": "sudo dnf install rocm-hip-devel hipblas-devel rocblas-devel",
        "pacman": "sudo pacman -S rocm-hip-sdk",
        "": _ROCM_PAGE,
    },
    "vulkan": {
        "apt-get": "sudo apt-get install libvulkan-dev glslc spirv-headers",
        "dnf": "sudo dnf install vulkan-headers vulkan-loader-devel glslc spirv-headers-devel",
        "zypper": "sudo zypper install vulkan-devel shaderc spirv-headers",
        "pacman": "sudo pacman -S vulkan-headers vulkan-icd-loader shaderc spirv-headers",
        "apk": "sudo apk add vulkan-headers vulkan-loader-dev shaderc spirv-headers",
        "brew": "brew install vulkan-headers vulkan-loader shaderc spirv-headers",
        "winget": "winget install KhronosGroup.VulkanSDK",
        "": "see https://vulkan.lunarg.com/sdk/home",
    },
}


@dataclass(frozen=True)
class Tool:
    """A program that was found, and the version it states ("13.0"), None when it states none."""

    path: str
    version: str | None = None


@dataclass(frozen=True)
class Compiler:
    """The C and C++ compilers of a build.

    Attributes:
        cc, cxx: what goes into CC and CXX.
        name: for people, "gcc 12.2".
        identity: the first line of `--version`, which changes with every release of the compiler.
    """

    cc: str
    cxx: str
    name: str
    identity: str


@dataclass(frozen=True)
class Machine:
    """What a build can count on here.

    Attributes:
        system, architecture: as `platform` says them, with AMD64 and arm64 mapped to Linux's names.
        libc: "glibc 2.36", "musl", or None off Linux.
        manager: the package manager a person would type, or None.
        isa: instruction sets, sorted, as the kernel names them; None when they cannot be read.
        compiler: None when there is none that runs.
        nvidia, amd, render_node: device files of an NVIDIA GPU, an AMD one, any GPU.
        driver_cuda: the newest CUDA version that the installed NVIDIA driver runs.
        nvcc, hipcc, glslc, npm, node: the programs; vulkan: its headers and loader are here.
        n_cores: processors this process may use (affinity and cgroup quota).
        free_memory_bytes: memory it may still take (machine and cgroup); None when unknown.
    """

    system: str
    architecture: str
    libc: str | None = None
    manager: str | None = None
    isa: tuple[str, ...] | None = None
    compiler: Compiler | None = None
    nvidia: bool = False
    amd: bool = False
    render_node: bool = False
    driver_cuda: str | None = None
    nvcc: Tool | None = None
    hipcc: Tool | None = None
    glslc: Tool | None = None
    vulkan: bool = False
    npm: Tool | None = None
    node: Tool | None = None
    n_cores: int = 1
    free_memory_bytes: int | None = None

    @property
    def lacks_avx2(self) -> bool:
        """An x86-64 processor known not to have AVX2."""
        return self.architecture == "x86_64" and self.isa is not None and "avx2" not in self.isa

    @property
    def isa_label(self) -> str:
        """The widest instruction set, as a person calls it."""
        levels = _X86_LEVELS if self.architecture == "x86_64" else _ARM_LEVELS
        found = [label for flag, label in levels if flag in (self.isa or ())]
        return found[-1] if found else self.architecture


def how_to_install(what: str, machine: Machine) -> str:
    """The line that installs "compiler", "cuda", "rocm" or "vulkan" on this distribution."""
    lines = _INSTALL[what]
    line = lines.get(machine.manager or "", lines[""])
    # Root needs no sudo, and in a container there is none.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return line.removeprefix("sudo ") if is_root else line


def survey(environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> Machine:
    """Looks at this machine.

    Args:
        environ: the environment to search programs with; the process's own by default.
        root: where /proc, /sys, /dev and /usr are; another folder in tests.
    """
    env = dict(os.environ if environ is None else environ)
    system = platform.system()
    machine = platform.machine().lower()
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    nvidia = any(
        (root / name).exists()
        for name in ("proc/driver/nvidia/version", "dev/nvidia0", "dev/nvhost-ctrl-gpu")
    ) or ((root / "dev/dxg").exists() and (root / "usr/lib/wsl/lib/libcuda.so.1").exists())
    return Machine(
        system=system,
        architecture=architecture,
        libc=_libc(system, root),
        manager=next((name for name in _MANAGERS if which(name, env)), None),
        isa=_isa(system, architecture, root, env),
        compiler=_compiler(system, env),
        nvidia=nvidia,
        amd=(root / "dev/kfd").exists(),
        render_node=any((root / "dev/dri").glob("renderD*")),
        driver_cuda=_driver_cuda(env, root) if nvidia else None,
        nvcc=_tool("nvcc", env, r"release (\d+\.\d+)", root / "usr/local/cuda/bin"),
        hipcc=_tool("hipcc", env, r"HIP version: (\d+\.\d+)", root / "opt/rocm/bin"),
        glslc=_tool("glslc", env, r"shaderc v(\S+)"),
        vulkan=_has_vulkan(env, root),
        npm=_tool("npm", env, r"^(\d+)"),
        node=_tool("node", env, r"v(\d+\.\d+\.\d+)"),
        n_cores=_n_cores(root),
        free_memory_bytes=_free_memory(root),
    )


def which(name: str, env: Mapping[str, str]) -> str | None:
    """The program's path by this environment's PATH."""
    return shutil.which(name, path=env.get("PATH", ""))


def ask(argv: list[str], env: Mapping[str, str]) -> str | None:
    """What a program prints when asked; None when it cannot run, fails or says nothing.

    A shim of a version manager (pyenv, nvm, asdf) exists and still fails: only running it tells.
    """
    try:
        done = subprocess.run(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout or done.stderr) if done.returncode == 0 else None


def _tool(
    name: str, env: Mapping[str, str], pattern: str, folder: Path | None = None
) -> Tool | None:
    """A program on PATH, or in the folder where its vendor puts it without touching PATH."""
    path = which(name, env) or (folder and shutil.which(name, path=str(folder)))
    text = ask([path, "--version"], env) if path else None
    if not path or text is None:
        return None
    found = re.search(pattern, text)
    return Tool(path, found[1] if found else None)


def _compiler(system: str, env: Mapping[str, str]) -> Compiler | None:
    """The compilers a build would use: 1. CC and CXX, 2. cc and c++, 3. gcc, 4. clang.

    Stated to the build, because scikit-build-core otherwise takes the compiler that Python itself
    was built with, which need not exist here (python-build-standalone, conda).
    """
    pairs = [("cc", "c++"), ("gcc", "g++"), ("clang", "clang++")]
    if env.get("CC") or env.get("CXX"):
        pairs = [(env.get("CC") or "cc", env.get("CXX") or "c++")]
    elif system == "Windows":  # found by CMake in the registry, not on PATH
        pairs = [("cl", "cl")] if which("cl", env) else pairs[1:]
    for cc, cxx in pairs:
        # CC may be "ccache gcc".
        answers = [ask([*shlex.split(name), "--version"], env) for name in (cc, cxx)]
        if all(answer is not None for answer in answers):
            text = answers[1] or ""
            return Compiler(cc, cxx, _compiler_name(cxx, text), (text.splitlines() or [cxx])[0])
    return None


# c++ (Debian 12.2.0-14+deb12u1) 12.2.0
# Apple clang version 15.0.0 (clang-1500.3.9.4)
def _compiler_name(cxx: str, text: str) -> str:
    clang = re.search(r"clang version (\d+\.\d+)", text)
    if clang:
        return f"clang {clang[1]}"
    gcc = re.search(r"\) (\d+\.\d+)", text.splitlines()[0] if text else "")
    return f"gcc {gcc[1]}" if gcc and "Free Software" in text else Path(cxx).name


def _libc(system: str, root: Path) -> str | None:
    if system != "Linux":
        return None
    name, version = platform.libc_ver()
    if name == "glibc":
        return f"glibc {version}"
    return "musl" if any((root / "lib").glob("ld-musl-*")) else None


def _isa(
    system: str, architecture: str, root: Path, env: Mapping[str, str]
) -> tuple[str, ...] | None:
    if system == "Linux":
        return parse_cpuinfo(_read(root / "proc/cpuinfo"), architecture)
    if system == "Darwin":
        names = ["machdep.cpu.features", "machdep.cpu.leaf7_features"]
        text = ask(["sysctl", "hw.optional"] if architecture == "aarch64" else
                   ["sysctl", "-n", *names], env)  # fmt: skip
        return parse_sysctl(text, architecture) if text else None
    return None  # Windows tells only through an API; -march=native there is CMake's business


# flags		: fpu vme de pse tsc msr pae mce cx8 ... avx2 ...
# Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimddp
def parse_cpuinfo(text: str, architecture: str) -> tuple[str, ...] | None:
    """The instruction sets of the first processor; None where no such line is."""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if not line:
        return None
    words = set(line[1].split())
    if architecture == "x86_64":
        words = {word for word in words if _X86_ISA.search(word)}
    return tuple(sorted(words))


# hw.optional.arm.FEAT_DotProd: 1                     (Apple silicon)
# FPU VME DE PSE TSC MSR ... SSE4.2 AVX1.0 F16C AVX2  (Intel)
def parse_sysctl(text: str, architecture: str) -> tuple[str, ...]:
    """The instruction sets that macOS reports, in Linux's spelling where ggml has one."""
    if architecture == "aarch64":
        found = {name.lower() for name in re.findall(r"(?:FEAT_)?(\w+): 1$", text, re.MULTILINE)}
        spelling = {"dotprod": "asimddp", "advsimd": "asimd"}
        return tuple(sorted(spelling.get(name, name) for name in found))
    words = text.lower().replace("avx1.0", "avx").replace(".", "_").split()
    return tuple(sorted({word for word in words if _X86_ISA.search(word)}))


# | NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |
def _driver_cuda(env: Mapping[str, str], root: Path) -> str | None:
    path = which("nvidia-smi", env) or shutil.which(
        "nvidia-smi", path=str(root / "usr/lib/wsl/lib")
    )
    found = re.search(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)", (path and ask([path], env)) or "")
    return found[1] if found else None


def _has_vulkan(env: Mapping[str, str], root: Path) -> bool:
    """Headers, loader and SPIRV-Headers: ggml-vulkan's CMakeLists.txt requires all three."""
    bases = [root / "usr", root / "usr/local", root / "opt/homebrew"]
    if env.get("VULKAN_SDK"):
        bases.insert(0, Path(env["VULKAN_SDK"]))
    header = any((base / "include/vulkan/vulkan.h").exists() for base in bases)
    spirv = any((base / "include/spirv").is_dir() for base in bases)
    libraries = ("lib*/libvulkan.*", "lib/*/libvulkan.*", "Lib/vulkan-1.lib")
    loader = any(next(base.glob(name), None) for base in bases for name in libraries)
    return header and spirv and loader


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """This process's cgroup and its ancestors, for one controller (v1) and unified (v2)."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0":
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        # Inside a container the path is the host's and is not there: its own root is.
        inner = base / path.lstrip("/")
        folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    return folders


def _n_cores(root: Path) -> int:
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    for folder in _cgroup_folders(root, "cpu"):
        # v2, "200000 100000" or "max 100000"; v1, two files and -1 for none
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota = _read(folder / "cpu.cfs_quota_us").strip()
            period = _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.strip().isdigit() and int(period) > 0:
            count = min(count, max(1, int(quota) // int(period)))
    return max(1, count)


def _free_memory(root: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    free = [int(found[1]) * 1024] if found else []
    for folder in _cgroup_folders(root, "memory"):
        for limit_name, used_name, stat_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _read(folder / limit_name).strip(), _read(folder / used_name).strip()
            # v1 says "no limit" with about 2^63
            if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:
                cache = re.search(
                    rf"^{stat_name} (\d+)", _read(folder / "memory.stat"), re.MULTILINE
                )
                free.append(int(limit) - int(used) + (int(cache[1]) if cache else 0))
    return max(0, min(free)) if free else None
