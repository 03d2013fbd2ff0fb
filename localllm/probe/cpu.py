"""The processor: what it is, what it can execute, and how much of it this process may use.

Knows /proc/cpuinfo and /sys on Linux, sysctl on macOS, the registry and kernel32 on Windows.
Instruction sets are named in instructions.py; quota and cpuset come from cgroups.py.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localllm.hardware import Cpu, Finding
from localllm.probe import instructions, sysctl
from localllm.probe.cgroups import CgroupLimits
from localllm.probe.files import numbered, parse_cpu_list, read_int, read_text

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i386": "i686"}

#: "CPU implementer" and "CPU part" (fields of MIDR_EL1, as lscpu names them).
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x51, 0x001): "Oryon",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}


@dataclass(frozen=True)
class CpuInfo:
    """What /proc/cpuinfo says.

    Attributes:
        model: marketing name, or the ARM core's name with the board's.
        flags: the words that every processor has (cores of one machine may differ).
        cores: logical processor -> (package, core), empty where the file does not say.
        n_logical: processors listed, which are those that are on.
    """

    model: str | None
    flags: frozenset[str]
    cores: Mapping[int, tuple[int, int]]
    n_logical: int


def normal_architecture(machine: str) -> str | None:
    """The one name for an architecture: "AMD64" -> "x86_64", "arm64" -> "aarch64"."""
    lower = machine.lower()
    return _ARCHITECTURES.get(lower, lower) or None


def probe_cpu(
    root: Path = Path("/"),
    limits: CgroupLimits | None = None,
    os_name: str | None = None,
    machine: str | None = None,
) -> tuple[Cpu, tuple[Finding, ...]]:
    """The processor below a root folder, bounded by the control groups' limits."""
    limits = limits or CgroupLimits()
    os_name = os_name or platform.system()
    architecture = normal_architecture(machine or platform.machine())
    if os_name == "Linux":
        return _linux(root, limits, architecture)
    if os_name == "Darwin":
        return _darwin(architecture)
    return _windows(architecture)


def _linux(
    root: Path, limits: CgroupLimits, architecture: str | None
) -> tuple[Cpu, tuple[Finding, ...]]:
    findings = []
    text = read_text(root / "proc/cpuinfo")
    info = parse_cpuinfo(text or "")
    if info.n_logical == 0:
        message = "/proc/cpuinfo could not be read: the processor's instruction sets are unknown."
        findings.append(Finding("warn", "probe.cpuinfo", message))
    siblings = frozenset[frozenset[int]]() if info.cores else _sibling_groups(root)
    features = instructions.from_linux_flags(info.flags, architecture) if info.flags else None
    # The kernel cuts affinity down to the cpuset by itself; a captured tree has no kernel.
    affinity = _affinity() if root == Path("/") else None
    allowed = limits.cpus if affinity is None else affinity & (limits.cpus or affinity)
    policies = numbered(root / "sys/devices/system/cpu/cpufreq", "policy")
    governors = {read_text(policy / "scaling_governor") for policy in policies} - {None}
    drivers = {read_text(policy / "scaling_driver") for policy in policies} - {None}
    cpu = Cpu(
        model=info.model,
        architecture=architecture,
        features=features,
        n_physical=len(set(info.cores.values())) or len(siblings) or None,
        n_logical=info.n_logical or os.cpu_count(),
        n_performance=_performance_cores(root, info.cores, siblings),
        n_affinity=len(allowed) if allowed else None,
        quota=limits.cpu_quota,
        # Policies differ only where somebody set them apart: then the slowest matters.
        governor="powersave" if "powersave" in governors else next(iter(governors), None),
        scaling_driver=next(iter(drivers), None),
    )
    return cpu, tuple(findings)


# /proc/cpuinfo, one block a processor; x86:
#   processor	: 0
#   model name	: 12th Gen Intel(R) Core(TM) i7-1260P
#   physical id	: 0
#   core id		: 0
#   flags		: fpu vme de pse ... avx2 ... avx_vnni
# ARM has no model name and no core numbers (Model is the board, at the file's end):
#   processor	: 0
#   Features	: fp asimd evtstrm aes ... asimdhp ... asimddp
#   CPU implementer	: 0x41
#   CPU part	: 0xd0b
#   Model		: Raspberry Pi 5 Model B Rev 1.0
def parse_cpuinfo(text: str) -> CpuInfo:
    """The machine's processors out of /proc/cpuinfo."""
    blocks: list[dict[str, str]] = []
    board = None
    for line in text.splitlines():
        key, separator, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdecimal():
            blocks.append({})
        if separator and blocks:
            blocks[-1].setdefault(key, value)
        if key == "Model":
            board = value
    names = dict.fromkeys(b["model name"] for b in blocks if b.get("model name"))
    parts = dict.fromkeys(part for part in map(_arm_part, blocks) if part)
    arm = " + ".join(parts) + (f" ({board})" if board and parts else "")
    flag_sets = [set(b.get("flags", b.get("Features", "")).split()) for b in blocks]
    cores = {}
    for block in blocks:
        package, core = block.get("physical id", ""), block.get("core id", "")
        if package.isdecimal() and core.isdecimal():
            cores[int(block["processor"])] = (int(package), int(core))
    return CpuInfo(
        model=next(iter(names), None) or arm or board,
        flags=frozenset(set.intersection(*flag_sets) if flag_sets else ()),
        cores=cores if len(cores) == len(blocks) else {},
        n_logical=len(blocks),
    )


def _arm_part(block: Mapping[str, str]) -> str | None:
    try:
        implementer = int(block["CPU implementer"], 16)
        part = int(block["CPU part"], 16)
    except (KeyError, ValueError):
        return None
    return _ARM_PARTS.get((implementer, part), f"ARM {implementer:#04x}:{part:#05x}")


def _sibling_groups(root: Path) -> frozenset[frozenset[int]]:
    """The sets of logical processors that share a core (/sys/.../cpuN/topology)."""
    groups = set()
    for cpu in numbered(root / "sys/devices/system/cpu", "cpu"):
        # thread_siblings_list is the older name of core_cpus_list (admin-guide/cputopology.rst).
        for name in ("core_cpus_list", "thread_siblings_list"):
            siblings = parse_cpu_list(read_text(cpu / "topology" / name))
            if siblings:
                groups.add(siblings)
                break
    return frozenset(groups)


def _performance_cores(
    root: Path, cores: Mapping[int, tuple[int, int]], siblings: frozenset[frozenset[int]]
) -> int | None:
    """Cores (not threads) of the faster kind, None where all are of one kind.

    1. Intel hybrids: the kernel has one event source per kind, /sys/devices/cpu_core and cpu_atom.
    2. ARM: cpu_capacity, 1024 for the fastest. Faster than the middle between the slowest and the
       fastest counts: 1 + 3 + 4 phones (1024, 900, 300) have 4, a board with two kinds has one of
       them, and small differences of clock within a kind (997 and 1024) make no second kind.
    """
    fast: frozenset[int] | None = None
    if read_text(root / "sys/devices/cpu_atom/cpus"):
        fast = parse_cpu_list(read_text(root / "sys/devices/cpu_core/cpus"))
    else:
        capacities = {
            int(cpu.name[3:]): capacity
            for cpu in numbered(root / "sys/devices/system/cpu", "cpu")
            if (capacity := read_int(cpu / "cpu_capacity")) is not None
        }
        slowest, fastest = min(capacities.values(), default=0), max(capacities.values(), default=0)
        if slowest < 0.9 * fastest:
            fast = frozenset(n for n, c in capacities.items() if c > (slowest + fastest) / 2)
    if not fast:
        return None
    if cores:
        return len({cores[n] for n in fast if n in cores}) or None
    return sum(1 for group in siblings if group & fast) or len(fast)


def _affinity() -> frozenset[int] | None:
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        try:
            return frozenset(os.sched_getaffinity(0))
        except OSError:
            return None
    return None


#: sysctl names of macOS beside the instruction sets.
_SYSCTL_COUNTS = ("hw.physicalcpu", "hw.logicalcpu", "hw.nperflevels", "hw.perflevel0.physicalcpu")


def _darwin(architecture: str | None) -> tuple[Cpu, tuple[Finding, ...]]:
    values = sysctl.read_integers((*_SYSCTL_COUNTS, *instructions.SYSCTL_NAMES))
    cpu = parse_sysctl(sysctl.read_string("machdep.cpu.brand_string"), values, architecture)
    if values:
        return cpu, ()
    message = "sysctl did not answer: the processor's instruction sets are unknown."
    return cpu, (Finding("warn", "probe.cpuinfo", message),)


# sysctl hw on an Apple M1:
#   hw.physicalcpu: 8
#   hw.logicalcpu: 8
#   hw.nperflevels: 2
#   hw.perflevel0.physicalcpu: 4
#   hw.optional.arm.FEAT_DotProd: 1
def parse_sysctl(model: str | None, values: Mapping[str, int], architecture: str | None) -> Cpu:
    """A Mac's processor out of sysctl values; macOS has no affinity, quota or governor."""
    hybrid = values.get("hw.nperflevels", 1) > 1
    return Cpu(
        model=model,
        architecture=architecture,
        features=instructions.from_sysctl(values, architecture) or None,
        n_physical=values.get("hw.physicalcpu"),
        n_logical=values.get("hw.logicalcpu", os.cpu_count()),
        n_performance=values.get("hw.perflevel0.physicalcpu") if hybrid else None,
    )


def _windows(architecture: str | None) -> tuple[Cpu, tuple[Finding, ...]]:
    findings = []
    features, model = None, None
    try:
        import ctypes
        import winreg

        is_present = ctypes.CDLL("kernel32").IsProcessorFeaturePresent
        features = instructions.from_windows(lambda n: bool(is_present(n)), architecture)
        key = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        # typeshed knows winreg's names on Windows only
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as processor:  # type: ignore[attr-defined,unused-ignore]
            model = str(winreg.QueryValueEx(processor, "ProcessorNameString")[0]).strip()  # type: ignore[attr-defined,unused-ignore]
    except (OSError, AttributeError, ImportError) as exc:
        findings.append(Finding("warn", "probe.cpuinfo", f"Windows did not name the CPU: {exc}."))
    n_physical, n_affinity, problem = _psutil_counts()
    if problem:
        findings.append(Finding("warn", "probe.cpuinfo", problem))
    cpu = Cpu(
        model=model,
        architecture=architecture,
        features=features,
        n_physical=n_physical,
        n_logical=os.cpu_count(),
        n_affinity=n_affinity,
    )
    return cpu, tuple(findings)


def _psutil_counts() -> tuple[int | None, int | None, str | None]:
    """Cores, allowed logical processors, and why they could not be counted."""
    try:
        import psutil
    except ImportError as exc:
        return None, None, f"The cores could not be counted: {exc}."
    try:
        allowed = psutil.Process().cpu_affinity()
        return psutil.cpu_count(logical=False), len(allowed or ()) or None, None
    except (OSError, AttributeError, psutil.Error) as exc:
        return None, None, f"The cores could not be counted: {exc}."
