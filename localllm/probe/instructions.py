"""Instruction sets: what each operating system calls them -> what ggml calls them.

Pure tables and look-ups. ggml's names are those of its CMake options and feature list
(ggml/src/ggml-cpu/ggml-cpu.cpp, ggml_backend_cpu_get_features), lower case; its "AVX512" stands
for the f, cd, vl, dq and bw parts together, which are kept apart here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

#: The `flags` line of /proc/cpuinfo on x86 (arch/x86/include/asm/cpufeatures.h).
_LINUX_X86 = {
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_2": "sse42",
    "avx": "avx",
    "avx2": "avx2",
    "f16c": "f16c",
    "fma": "fma",
    "bmi2": "bmi2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512vl": "avx512vl",
    "avx512dq": "avx512dq",
    "avx512bw": "avx512bw",
    "avx512vbmi": "avx512_vbmi",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
}

#: The `Features` line of /proc/cpuinfo on ARM (Documentation/arch/arm64/elf_hwcaps.rst).
_LINUX_ARM = {
    "neon": "neon",  # 32-bit kernels
    "asimd": "neon",
    "asimdhp": "fp16_va",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
    "sme2": "sme2",
}

#: sysctl names of macOS on Apple silicon (sysctl hw.optional).
_SYSCTL_ARM = {
    "hw.optional.arm64": "neon",  # there is no Apple processor of 64 bits without it
    "hw.optional.arm.FEAT_FP16": "fp16_va",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.arm.FEAT_SME2": "sme2",
}

#: The same on Intel Macs, and under Rosetta, which answers for both.
_SYSCTL_X86 = {
    "hw.optional.sse3": "sse3",
    "hw.optional.supplementalsse3": "ssse3",
    "hw.optional.sse4_2": "sse42",
    "hw.optional.avx1_0": "avx",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.f16c": "f16c",
    "hw.optional.fma": "fma",
    "hw.optional.bmi2": "bmi2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512cd": "avx512cd",
    "hw.optional.avx512vl": "avx512vl",
    "hw.optional.avx512dq": "avx512dq",
    "hw.optional.avx512bw": "avx512bw",
    "hw.optional.avx512vbmi": "avx512_vbmi",
}

#: All names that from_sysctl can use.
SYSCTL_NAMES = (*_SYSCTL_ARM, *_SYSCTL_X86)

#: Numbers of IsProcessorFeaturePresent (winnt.h, PF_*_INSTRUCTIONS_AVAILABLE).
_WINDOWS_X86 = {
    13: "sse3",
    36: "ssse3",
    38: "sse42",
    39: "avx",
    40: "avx2",
    41: "avx512f",
    60: "bmi2",
}
_WINDOWS_ARM = {
    19: "neon",
    43: "dotprod",
    46: "sve",
    47: "sve2",
    66: "i8mm",
    67: "fp16_va",
    68: "bf16",
    70: "sme",
    71: "sme2",
}


def from_linux_flags(flags: Iterable[str], architecture: str | None) -> tuple[str, ...] | None:
    """What ggml calls the words of a flags or Features line, sorted; None for other machines."""
    if architecture in ("x86_64", "i686"):
        return _named(_LINUX_X86, flags)
    if architecture in ("aarch64", "armv7l"):
        return _named(_LINUX_ARM, flags)
    return None


def from_sysctl(values: Mapping[str, int], architecture: str | None) -> tuple[str, ...]:
    """What ggml calls the hw.optional values that are 1, sorted."""
    table = _SYSCTL_ARM if architecture == "aarch64" else _SYSCTL_X86
    return _named(table, (name for name, value in values.items() if value == 1))


def from_windows(is_present: Callable[[int], bool], architecture: str | None) -> tuple[str, ...]:
    """What ggml calls what IsProcessorFeaturePresent affirms, sorted.

    Windows has no number for FMA and F16C. Every processor sold with AVX2 has both (Haswell and
    Zen brought them together or earlier), and llama.cpp's own Windows builds rely on it.
    """
    numbers = _WINDOWS_ARM if architecture == "aarch64" else _WINDOWS_X86
    names = {name for number, name in numbers.items() if is_present(number)}
    return tuple(sorted(names | ({"f16c", "fma"} if "avx2" in names else set())))


def _named(table: Mapping[str, str], words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({table[word] for word in words if word in table}))
