"""Which engine to build: the backend, the CMake flags, and the key that tells two engines apart.

Standard library only and, but for the patch that it reads, pure: a Machine in, a Recipe out.
`toolchain.py` brings the Machine, `build.py` cooks.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from localllm.engine.toolchain import Machine, how_to_install

#: Prints one line for a person.
Say = Callable[[str], None]

BACKENDS = ("cpu", "cuda", "rocm", "vulkan", "metal")

#: One llama.cpp, library and native tools alike. Without LLAVA_BUILD=OFF mtmd is added twice and
#: CMake fails; PREBUILT_UI would fetch assets from the internet in the middle of a build.
_COMMON_FLAGS = (
    "-DLLAVA_BUILD=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_TOOLS_INSTALL=ON",
    "-DGGML_RPC=ON",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)
#: What is mended in llama.cpp before it is compiled; it says what and why.
_PATCH = Path(__file__).with_name("patches") / "cancel.cmake"
#: Variables that change what the compiler makes, and so belong in the key.
_ENVIRONMENT = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDAFLAGS", "HIPFLAGS")

#: GGML_NATIVE=OFF alone switches these on (ggml/CMakeLists.txt, INS_ENB), so without native each
#: is stated. F16C, FMA and BMI2 are in some processors without AVX2 (Ivy Bridge, Piledriver).
_STATED_ISA = {
    "GGML_SSE42": "sse4_2",
    "GGML_AVX": "avx",
    "GGML_F16C": "f16c",
    "GGML_FMA": "fma",
    "GGML_BMI2": "bmi2",
    "GGML_AVX2": "avx2",
    "GGML_AVX_VNNI": "avx_vnni",
    "GGML_AVX512": "avx512f",
}

#: The maintainer's index has one folder per CUDA version (llama-cpp-python's README, 0.3.36).
_PREBUILT_CUDA = ("11.8", "12.1", "12.2", "12.3", "12.4", "12.5", "13.0", "13.2")
PREBUILT_INDEX = "https://abetlen.github.io/llama-cpp-python/whl/"


class BuildError(Exception):
    """An engine that cannot be had, in one sentence.

    Attributes:
        message: the sentence, with the values in it.
        hint: the command that mends it, or None.
        exit_code: 9 broken engine, 8 disk, 5 network, 2 usage (as in localllm/errors.py).
    """

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 9) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


@dataclass(frozen=True)
class Choice:
    """A backend, why it is the one, and what would make a better one possible."""

    backend: str
    because: str
    advice: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that makes one built engine differ from another.

    Attributes:
        version: llama-cpp-python's.
        backend: one of BACKENDS.
        flags: CMake arguments, without the one for the web UI.
        isa: instruction sets of the machine that a native build is for; None when unknown.
        compiler: its identity line; None when no compiler is here.
        toolkit: "cuda 12.4", or None for the backends that need none.
        ui: llama-server's web UI is to be built in.
        platform: operating system, architecture and C library.
        environment: "NAME=value" of the variables that reach the compiler.
        patch: eight hexadecimal digits of what is mended in llama.cpp; empty for a stock one.
    """

    version: str
    backend: str
    flags: tuple[str, ...]
    isa: tuple[str, ...] | None = None
    compiler: str | None = None
    toolkit: str | None = None
    ui: bool = False
    platform: str = ""
    environment: tuple[str, ...] = ()
    patch: str = ""

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits, equal for equal engines only."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def cmake_args(self) -> tuple[str, ...]:
        """What goes into CMAKE_ARGS."""
        # Where the patch lies is no part of what it does: not among the flags, which make the key.
        patch = [f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={_PATCH}"] if self.patch else []
        return (*self.flags, f"-DLLAMA_BUILD_UI={'ON' if self.ui else 'OFF'}", *patch)

    def to_json(self) -> dict[str, Any]:
        """The document form, field names as here."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: the document is not a recipe of this version of localllm.
        """
        values = {field.name: document[field.name] for field in fields(cls)}
        for name in ("flags", "isa", "environment"):
            values[name] = None if values[name] is None else tuple(map(str, values[name]))
        return cls(**values)

    def differences(self, wanted: Recipe) -> list[str]:
        """The names of what keeps an engine of this recipe from serving as the wanted one.

        With no compiler here any compiler's engine will do, and one with the web UI serves where
        none is asked for.
        """
        names = []
        for field in fields(self):
            have, want = getattr(self, field.name), getattr(wanted, field.name)
            excused = (field.name == "compiler" and want is None) or (
                field.name == "ui" and have and not want
            )
            if have != want and not excused:
                names.append(field.name)
        return names


def choose_backend(machine: Machine, wanted: str = "auto", *, to_build: bool = True) -> Choice:
    """The backend to build, or to have built by somebody else: then no toolkit is needed.

    `auto`, first match: 1. NVIDIA GPU with a CUDA toolkit that its driver can run, 2. AMD GPU with
    ROCm, 3. Apple silicon, 4. any GPU with the Vulkan headers and glslc, 5. the CPU.

    Raises:
        BuildError: the wanted backend cannot be built here; the hint installs what is missing.
    """
    if wanted == "auto":
        return _choose_automatically(machine)
    if wanted not in BACKENDS:
        raise BuildError(
            f"there is no backend {wanted!r}", f"choose from auto, {', '.join(BACKENDS)}", 2
        )
    if wanted == "metal" and machine.system != "Darwin":
        raise BuildError(
            f"the metal backend is for macOS, and this is {machine.system}",
            "leave out --backend, and the best one is chosen",
            2,
        )
    missing = {
        "cuda": None if machine.nvcc else "the CUDA toolkit (nvcc)",
        "rocm": None if machine.hipcc else "ROCm (hipcc)",
        "vulkan": None
        if machine.glslc and machine.vulkan
        else "the Vulkan and SPIR-V headers, loader and glslc",
    }.get(wanted)
    if missing and to_build:
        raise BuildError(
            f"--backend {wanted} needs {missing}, and it is not here",
            how_to_install(wanted, machine),
        )
    advice = None
    if wanted == "cuda" and not machine.nvidia:
        advice = (
            "no NVIDIA GPU is here: the engine is built for all kinds of them, which takes long"
        )
    elif wanted == "cuda":
        advice = _driver_too_old(machine)
    elif wanted == "cpu" and machine.system == "Darwin":
        # llama-cpp-python's CMakeLists.txt forces GGML_METAL=ON on Apple
        advice = "on macOS the engine always has Metal too; it is used only when asked"
    return Choice(wanted, "as asked", advice)


def _choose_automatically(machine: Machine) -> Choice:
    vulkan = machine.glslc is not None and machine.vulkan and machine.render_node
    again = "then run this again"
    if machine.nvidia and machine.nvcc and not (reason := _driver_too_old(machine)):
        return Choice("cuda", f"NVIDIA GPU, CUDA toolkit {machine.nvcc.version}")
    if machine.amd and machine.hipcc:
        return Choice("rocm", f"AMD GPU, ROCm {machine.hipcc.version or ''}".rstrip())
    if machine.system == "Darwin" and machine.architecture == "aarch64":
        return Choice("metal", "Apple silicon")
    because, advice = "no accelerator found", None
    if machine.nvidia and machine.nvcc:
        because, advice = "the NVIDIA driver is older than the CUDA toolkit", reason
    elif machine.nvidia:
        because = "NVIDIA GPU without the CUDA toolkit"
        advice = f"to use the NVIDIA GPU: {how_to_install('cuda', machine)}, {again}"
    elif machine.amd:
        because = "AMD GPU without ROCm"
        advice = f"to use the AMD GPU: {how_to_install('rocm', machine)}, {again}"
    elif machine.render_node and not vulkan:
        because = "GPU without the Vulkan toolkit"
        advice = f"to try the GPU: {how_to_install('vulkan', machine)}, {again}"
    if vulkan:
        return Choice("vulkan", "GPU, Vulkan" if advice is None else because, advice)
    return Choice("cpu", because, advice)


def _driver_too_old(machine: Machine) -> str | None:
    """Within one major version any toolkit's machine code runs on any driver (CUDA's own rule)."""
    toolkit, driver = machine.nvcc and machine.nvcc.version, machine.driver_cuda
    if not toolkit or not driver or int(toolkit.split(".")[0]) <= int(driver.split(".")[0]):
        return None
    return (
        f"the NVIDIA driver runs CUDA {driver}, the toolkit is {toolkit}: update the driver, "
        f"or install a CUDA {driver.split('.')[0]} toolkit"
    )


def without_ui(machine: Machine, *, offline: bool) -> str | None:
    """Why the web UI is left out, in a word or two; None when it can be built."""
    if offline:
        return "no network"
    if machine.npm is None:
        return "no npm"
    if machine.node is None or not _node_will_do(machine.node.version or ""):
        return f"node {machine.node.version if machine.node else ''} is too old".replace("  ", " ")
    return None


def _node_will_do(version: str) -> bool:
    """The UI's lock file has vite 7 (^20.19.0 || >=22.12.0) and its svelte plugin (not 23)."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return False
    major, minor = int(parts[0]), int(parts[1])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major >= 24


def compose(
    version: str,
    machine: Machine,
    choice: Choice,
    environ: Mapping[str, str],
    *,
    offline: bool = False,
) -> Recipe:
    """The recipe for this machine. A person's own CMAKE_ARGS come last, so they win."""
    flags = [*_COMMON_FLAGS, *_isa_flags(machine)]
    if machine.system == "Darwin":
        flags.append("-DCMAKE_INSTALL_RPATH=@loader_path/../lib")
    elif machine.system != "Windows":  # there DLLs lie beside the programs
        flags.append("-DCMAKE_INSTALL_RPATH=$ORIGIN/../lib")
    toolkit = None
    if choice.backend == "cuda":
        flags.append("-DGGML_CUDA=ON")
        # "native" asks the GPU itself; left unset, GGML_NATIVE means it, too, and CMake fails.
        architectures = "native" if machine.nvidia else "all-major"
        flags.append(f"-DCMAKE_CUDA_ARCHITECTURES={architectures}")
        toolkit = f"cuda {machine.nvcc.version if machine.nvcc else ''}".rstrip()
    elif choice.backend == "rocm":
        flags.append("-DGGML_HIP=ON")
        toolkit = f"rocm {machine.hipcc.version if machine.hipcc else ''}".rstrip()
    elif choice.backend == "vulkan":
        flags.append("-DGGML_VULKAN=ON")
        toolkit = f"glslc {machine.glslc.version if machine.glslc else ''}".rstrip()
    elif choice.backend == "metal":
        flags.append("-DGGML_METAL=ON")
    flags += shlex.split(environ.get("CMAKE_ARGS", ""))
    return Recipe(
        version=version,
        backend=choice.backend,
        flags=tuple(flags),
        isa=machine.isa,
        compiler=machine.compiler.identity if machine.compiler else None,
        toolkit=toolkit,
        ui=without_ui(machine, offline=offline) is None,
        platform=" ".join(filter(None, (machine.system, machine.architecture, machine.libc))),
        environment=tuple(f"{name}={environ[name]}" for name in _ENVIRONMENT if environ.get(name)),
        patch=hashlib.sha256(_PATCH.read_bytes()).hexdigest()[:8],
    )


def _isa_flags(machine: Machine) -> list[str]:
    if not machine.lacks_avx2:
        # Stated, because SOURCE_DATE_EPOCH in the environment turns ggml's default off.
        return ["-DGGML_NATIVE=ON"]
    have = machine.isa or ()
    stated = [f"-D{name}={'ON' if flag in have else 'OFF'}" for name, flag in _STATED_ISA.items()]
    return ["-DGGML_NATIVE=OFF", *stated]


def prebuilt_folder(machine: Machine, choice: Choice) -> str:
    """The folder of the maintainer's index for this backend: "cpu", "cu124", "metal", ...

    Raises:
        BuildError: the maintainer publishes nothing that runs here.
    """
    if machine.libc == "musl":
        raise BuildError(
            "the maintainer's wheels are for glibc, and this system has musl",
            "build it: leave out --prebuilt",
        )
    if machine.lacks_avx2:
        raise BuildError(
            "the maintainer's wheels need AVX2, and this processor has none",
            "build it: leave out --prebuilt",
        )
    if choice.backend == "cuda":
        # The wheel needs the CUDA libraries of its own version, which the toolkit brings.
        have = (machine.nvcc and machine.nvcc.version) or machine.driver_cuda
        major = have.split(".")[0] if have else "12"
        fitting = [
            version
            for version in _PREBUILT_CUDA
            if version.split(".")[0] == major and (not have or _numbers(version) <= _numbers(have))
        ]
        if not fitting:
            raise BuildError(
                f"the maintainer publishes no wheel for CUDA {have}",
                "build it: leave out --prebuilt",
            )
        return "cu" + fitting[-1].replace(".", "")
    if choice.backend == "rocm":
        return "hip-radeon" if machine.system == "Windows" else "rocm72"
    return choice.backend


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
