"""What is wrong with this pair of machine and engine, and the line that mends it.

Pure: values in, findings out. `localllm/probe` brings the Hardware, `localllm/engine` the
EngineReport, `localllm/cli/doctor.py` prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from localllm.engine_report import EngineReport
from localllm.hardware import Finding, Hardware
from localllm.units import GIB, format_bytes


@dataclass(frozen=True)
class Toolchain:
    """What could build an engine here.

    Attributes:
        cxx: the C++ compiler's path, or None.
        install_compiler: this system's command that brings one.
    """

    cxx: str | None
    install_compiler: str


#: llama.cpp builds from which a crafted GGUF no longer overruns memory.
_FIXED_BUILDS = ((7824, "CVE-2026-33298"), (8146, "CVE-2026-27940"))
#: The first llama-cpp-python with such a llama.cpp (2026-03-23; 0.3.16 is of 2025-08). The
#: library itself does not know its build number.
_FIXED_LIBRARY = (0, 3, 17)

_REINSTALL = "localllm engine install --rebuild"
_BACKEND_OF = {"nvidia": "cuda", "amd": "rocm", "apple": "metal", "intel": "vulkan"}

#: ggml's names in llama_print_system_info -> ours in Cpu.features; each can raise SIGILL.
_COMPILED_FEATURES = {
    "AVX": "avx",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512_vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "DOTPROD": "dotprod",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
#: Those whose absence from an engine costs a factor, not a few percent.
_WORTH_HAVING = ("avx2", "fma", "f16c", "avx512f", "dotprod", "i8mm")


def diagnose(
    hardware: Hardware,
    engine: EngineReport,
    toolchain: Toolchain,
    probed: Sequence[Finding] = (),
) -> tuple[Finding, ...]:
    """Everything there is to say, the worst first.

    Args:
        hardware: the machine.
        engine: what is installed, as it answered.
        toolchain: what could build another.
        probed: what the probe itself found; carried over.
    """
    findings = [
        *probed,
        *_engine(hardware, engine, toolchain),
        *_offload(hardware, engine),
        *_instructions(hardware, engine),
        *_system(hardware),
        *_memory(hardware),
        *_disk(hardware),
    ]
    return tuple(sorted(findings, key=lambda finding: _SEVERITY.index(finding.level)))


_SEVERITY = ("fail", "warn", "ok")

#: What `localllm doctor` leaves with.
_EXIT_CODES = {"ok": 0, "warn": 1, "fail": 9}


def exit_code(findings: Sequence[Finding]) -> int:
    """0 when all is well, 1 with a warning, 9 with a failure."""
    return max((_EXIT_CODES[finding.level] for finding in findings), default=0)


def _engine(hardware: Hardware, engine: EngineReport, toolchain: Toolchain) -> Iterator[Finding]:
    """Is there an engine, whole, of one version, and does it start?"""
    if engine.library is None and engine.tools_folder is None:
        yield Finding(
            "fail", "engine.missing", "no llama.cpp is installed", "localllm engine install"
        )
        if toolchain.cxx is None:
            yield Finding(
                "fail",
                "engine.no-compiler",
                "no C++ compiler was found, and the engine is built from source",
                toolchain.install_compiler,
            )
        return
    if engine.error is not None and engine.library is not None:
        yield _broken(engine)
    elif engine.library is None:
        yield Finding(
            "warn",
            "engine.library-missing",
            "llama-cpp-python is not installed; the programs alone run chat and serve",
            "localllm engine install",
        )
    if engine.version is not None and _numbers(engine.version) < _FIXED_LIBRARY:
        yield Finding(
            "warn",
            "engine.vulnerable",
            f"llama-cpp-python {engine.version} is older than 0.3.17 and has the llama.cpp of"
            " CVE-2026-33298 and CVE-2026-27940: a crafted model file can take it over",
            _REINSTALL,
        )
    if engine.tools_folder is None:
        yield Finding(
            "warn",
            "engine.tools-missing",
            "only the Python library is installed: chat runs inside localllm, serve cannot",
            "localllm engine install",
        )
    else:
        yield from _tools(engine)
    if engine.error is None and engine.tools_error is None and engine.library is not None:
        yield Finding(
            "ok",
            "engine.runs",
            f"llama-cpp-python {engine.version or '?'} (llama.cpp {engine.commit or '?'}),"
            f" built for {engine.backend or '?'}",
        )
    if toolchain.cxx is None and (engine.error or engine.tools_folder is None):
        yield Finding(
            "warn",
            "engine.no-compiler",
            "no C++ compiler was found, so the engine cannot be built again",
            toolchain.install_compiler,
        )


def _broken(engine: EngineReport) -> Finding:
    if engine.signal == "SIGILL":
        return Finding(
            "fail",
            "engine.illegal-instruction",
            "the engine died of SIGILL: it was built for instructions that this processor lacks",
            _REINSTALL,
        )
    if "libcudart" in engine.stderr or "libcublas" in engine.stderr:
        return Finding(
            "fail",
            "engine.cudart-missing",
            f"the engine was built for CUDA, and its runtime is not found: {engine.error}",
            'export LD_LIBRARY_PATH="/usr/local/cuda/lib64:$LD_LIBRARY_PATH"',
        )
    return Finding("fail", "engine.broken", f"the engine does not load: {engine.error}", _REINSTALL)


def _tools(engine: EngineReport) -> Iterator[Finding]:
    if engine.tools_error is not None:
        yield Finding(
            "fail",
            "engine.tools-broken",
            f"llama-server in {engine.tools_folder} does not start: {engine.tools_error}",
            _REINSTALL,
        )
    if "llama-server" not in engine.tools:
        message = f"{engine.tools_folder} has no llama-server"
        yield Finding("warn", "engine.tools-missing", message, _REINSTALL)
    if engine.commit and engine.tools_commit and not _same(engine.commit, engine.tools_commit):
        yield Finding(
            "warn",
            "engine.version-mismatch",
            f"the programs are of llama.cpp {engine.tools_commit} and the library of"
            f" {engine.commit}: what one plans, the other may not run",
            "unset LOCALLLM_ENGINE_DIR, or localllm engine install",
        )
    for build, cve in _FIXED_BUILDS:
        if engine.build_number is not None and engine.build_number < build:
            yield Finding(
                "warn",
                "engine.vulnerable",
                f"llama.cpp b{engine.build_number} is older than b{build}, which closed {cve}:"
                " a crafted model file can take it over",
                _REINSTALL,
            )


def _numbers(version: str) -> tuple[int, ...]:
    """0.3.36 as (0, 3, 36); what follows the numbers is left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _same(one: str, other: str) -> bool:
    """Commits are the same when one abbreviates the other."""
    return one.startswith(other) or other.startswith(one)


def _offload(hardware: Hardware, engine: EngineReport) -> Iterator[Finding]:
    """Does the engine reach the accelerators that are there?

    `supports_gpu_offload` is no help: an engine with the RPC backend says yes to it without any
    GPU backend, so the registered backends decide.
    """
    if not hardware.accelerators or engine.error is not None or engine.backend is None:
        return
    # A laptop's integrated GPU must not hide the real one beside it.
    gpu = min(hardware.accelerators, key=lambda gpu: gpu.unified)
    backend = _BACKEND_OF[gpu.vendor]
    named = gpu.name or f"the {gpu.vendor} GPU"
    if engine.backend == "cpu":
        if gpu.unified and gpu.vendor in ("intel", "amd"):
            return  # an integrated GPU shares the memory bandwidth: little is lost
        yield Finding(
            "warn",
            "engine.cpu-only",
            f"{named} is here, but the engine was built for the CPU alone and will not use it",
            f"localllm engine install --backend {backend}",
        )
        return
    if "driver version is insufficient" in engine.stderr:
        yield Finding(
            "fail",
            "engine.driver-older",
            f"the driver ({gpu.driver or '?'}, CUDA up to {gpu.runtime or '?'}) is older than the"
            " toolkit that the engine was built with",
            "update the NVIDIA driver, or build with an older toolkit: " + _REINSTALL,
        )
    elif not any(device.kind in ("gpu", "igpu") for device in engine.devices):
        yield Finding(
            "warn",
            "engine.no-device",
            f"the engine was built for {engine.backend} but sees no device, though {named} is here",
            "check the driver (nvidia-smi, rocminfo, vulkaninfo), then localllm doctor",
        )


def _instructions(hardware: Hardware, engine: EngineReport) -> Iterator[Finding]:
    """Does what was compiled in match what the processor has?"""
    if engine.system_info is None or hardware.cpu.features is None:
        return
    has = set(hardware.cpu.features)
    compiled = {
        ours
        for theirs, ours in _COMPILED_FEATURES.items()
        if re.search(rf"\b{theirs} = 1\b", engine.system_info)
    }
    lacking = sorted(compiled - has)
    if lacking:
        yield Finding(
            "fail",
            "engine.illegal-instruction",
            f"the engine uses {', '.join(lacking)}, which this processor lacks",
            _REINSTALL,
        )
    unused = [name for name in _WORTH_HAVING if name in has and name not in compiled]
    # A build for no extension at all names none; an answer without the CPU says nothing of them.
    if unused and (compiled or "CPU : " in engine.system_info):
        yield Finding(
            "warn",
            "engine.slow-build",
            f"this processor has {', '.join(unused)}, and the engine was built without",
            _REINSTALL,
        )


_PSTATE_DRIVERS = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")


def _system(hardware: Hardware) -> Iterator[Finding]:
    system, cpu, memory = hardware.system, hardware.cpu, hardware.memory
    if system.libc is not None and system.libc.startswith("musl"):
        yield Finding(
            "warn",
            "system.musl",
            f"this system uses {system.libc}: prebuilt wheels do not run here, a build does",
            "localllm engine install",
        )
    if system.translated:
        yield Finding(
            "fail",
            "system.rosetta",
            "this Python is an Intel one under Rosetta: no Metal, and many times slower",
            "install an arm64 Python and run ./install.sh again",
        )
    # intel_pstate and amd-pstate-epp call their normal, load-following mode "powersave".
    if cpu.governor == "powersave" and cpu.scaling_driver not in _PSTATE_DRIVERS:
        yield Finding(
            "warn",
            "cpu.governor",
            "the processor's frequency governor is powersave",
            "sudo cpupower frequency-set -g performance",
        )
    host = cpu.n_logical
    if host is not None and cpu.n_usable < host:
        yield Finding(
            "ok",
            "cpu.limited",
            f"{cpu.n_usable} of {host} processors may be used here; plans keep to that",
        )
    limit, total = memory.limit_bytes, memory.total_bytes
    if limit is not None and total is not None and limit < total:
        yield Finding(
            "warn" if limit < total // 2 else "ok",
            "memory.limited",
            f"this {system.container or 'cgroup'} may use {format_bytes(limit)} of the"
            f" {format_bytes(total)} that the host shows; plans keep to that",
            "raise the limit (docker run --memory …, MemoryMax= in the unit)",
        )


#: Below this not even a 1B model at Q4_K_M (0.8 GiB) runs with its context.
_LEAST_FREE_MEMORY = 1 * GIB
#: A 7B model at Q4_K_M is 4.4 GB, and its download keeps a reserve.
_LITTLE_DISK = 10 * GIB
_LEAST_DISK = 1 * GIB


def _memory(hardware: Hardware) -> Iterator[Finding]:
    free = hardware.memory.free_bytes
    if free is not None and free < _LEAST_FREE_MEMORY:
        yield Finding(
            "warn",
            "memory.low",
            f"only {format_bytes(free)} of memory are free",
            "close other programs",
        )


def _disk(hardware: Hardware) -> Iterator[Finding]:
    disk = hardware.disk
    if disk is None or disk.free_bytes is None or disk.free_bytes >= _LITTLE_DISK:
        return
    yield Finding(
        "fail" if disk.free_bytes < _LEAST_DISK else "warn",
        "disk.nearly-full",
        f"{format_bytes(disk.free_bytes)} are free where models go ({disk.path})",
        "free some, or set LOCALLLM_HOME to a folder on another disk",
    )


def redact(text: str, home: str, user: str, host: str) -> str:
    """A report without what points at a person: home, names, UUIDs, keys.

    Args:
        text: the report.
        home: the home folder's path.
        user: the login name.
        host: the machine's name.
    """
    if len(home) > 1:  # "/home/al" is not a part of "/home/alice"
        text = re.sub(rf"{re.escape(home)}(?![\w-])", "~", text)
    for word, stand_in in ((user, "USER"), (host, "HOST")):
        if len(word) > 2 and word != "root":
            text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", stand_in, text)
    text = re.sub(r"\b(GPU|MIG)-[0-9a-fA-F][0-9a-fA-F/-]{7,}", r"\1-…", text)
    # A key has capitals or digits in it; hf_transfer and ms_per_token have not.
    text = re.sub(r"\b(hf_|sk[_-]|ms-)(?=[\w-]*[0-9A-Z])[A-Za-z0-9_-]{8,}", r"\1…", text)
    return re.sub(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", "…", text)
