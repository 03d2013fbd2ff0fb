"""Which engine is built on which machine, and when two engines are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from localllm.engine.recipe import (
    BuildError,
    Choice,
    Recipe,
    choose_backend,
    compose,
    prebuilt_folder,
    without_ui,
)
from localllm.engine.toolchain import Compiler, Machine, Tool

GCC = Compiler("cc", "c++", "gcc 12.2", "c++ (Debian 12.2.0-14+deb12u1) 12.2.0")
PLAIN = Machine(
    "Linux", "x86_64", libc="glibc 2.36", manager="apt-get", isa=("avx", "avx2", "f16c", "fma"),
    compiler=GCC, npm=Tool("/usr/bin/npm", "11"), node=Tool("/usr/bin/node", "20.20.2"),
)  # fmt: skip
NVCC = Tool("/usr/local/cuda/bin/nvcc", "12.4")
GLSLC = Tool("/usr/bin/glslc", "2023.2")


def made(machine: Machine, backend: str = "cpu", **environ: str) -> Recipe:
    return compose("0.3.36", machine, Choice(backend, "as asked"), environ)


@pytest.mark.parametrize(
    ("machine", "backend", "because", "advice"),
    [
        pytest.param(PLAIN, "cpu", "no accelerator found", None, id="nothing"),
        pytest.param(replace(PLAIN, nvcc=NVCC), "cpu", "no accelerator", None, id="toolkit-only"),
        pytest.param(
            replace(PLAIN, nvidia=True, nvcc=NVCC, driver_cuda="12.2"),
            "cuda", "CUDA toolkit 12.4", None, id="cuda-newer-minor",
        ),
        pytest.param(
            replace(PLAIN, nvidia=True, nvcc=NVCC), "cuda", "NVIDIA GPU", None, id="driver-unknown"
        ),
        pytest.param(
            replace(PLAIN, nvidia=True),
            "cpu", "without the CUDA toolkit", "nvidia-cuda-toolkit", id="no-nvcc",
        ),
        pytest.param(
            replace(PLAIN, nvidia=True, nvcc=Tool("nvcc", "13.0"), driver_cuda="12.4"),
            "cpu", "driver is older", "update the driver", id="driver-too-old",
        ),
        pytest.param(
            replace(PLAIN, nvidia=True, glslc=GLSLC, vulkan=True, render_node=True),
            "vulkan", "without the CUDA toolkit", "nvidia-cuda-toolkit", id="nvidia-by-vulkan",
        ),
        pytest.param(
            replace(PLAIN, amd=True, hipcc=Tool("hipcc", "6.3")),
            "rocm",
            "ROCm 6.3",
            None,
            id="rocm",
        ),
        pytest.param(replace(PLAIN, amd=True), "cpu", "without ROCm", "hipcc", id="no-hipcc"),
        pytest.param(
            replace(PLAIN, render_node=True), "cpu", "without the Vulkan", "glslc", id="no-vulkan"
        ),
        pytest.param(
            replace(PLAIN, glslc=GLSLC, vulkan=True), "cpu", "no accelerator", None, id="no-gpu"
        ),
        pytest.param(Machine("Darwin", "aarch64"), "metal", "Apple silicon", None, id="metal"),
    ],
)  # fmt: skip
def test_auto_chooses_and_says_why(
    machine: Machine, backend: str, because: str, advice: str | None
) -> None:
    choice = choose_backend(machine)
    assert choice.backend == backend
    assert because in choice.because
    assert (advice in (choice.advice or "")) if advice else choice.advice is None


@pytest.mark.parametrize(
    ("backend", "code", "hint"),
    [
        pytest.param("cuda", 9, "nvidia-cuda-toolkit", id="cuda"),
        pytest.param("rocm", 9, "hipcc", id="rocm"),
        pytest.param("vulkan", 9, "libvulkan-dev", id="vulkan"),
        pytest.param("metal", 2, "leave out", id="metal"),
        pytest.param("opencl", 2, "choose from", id="unknown"),
    ],
)
def test_a_backend_that_cannot_be_built_is_refused_with_a_remedy(
    backend: str, code: int, hint: str
) -> None:
    with pytest.raises(BuildError) as caught:
        choose_backend(PLAIN, backend)
    assert caught.value.exit_code == code
    assert hint in (caught.value.hint or "")


def test_a_backend_that_somebody_else_built_needs_no_toolkit() -> None:
    assert choose_backend(PLAIN, "cuda", to_build=False).backend == "cuda"


def test_the_engine_comes_with_its_tools_and_finds_its_libraries() -> None:
    arguments = made(PLAIN).cmake_args
    assert "-DLLAMA_TOOLS_INSTALL=ON" in arguments
    assert "-DLLAVA_BUILD=OFF" in arguments
    assert "-DGGML_RPC=ON" in arguments
    assert "-DCMAKE_INSTALL_RPATH=$ORIGIN/../lib" in arguments
    assert "-DGGML_NATIVE=ON" in arguments
    assert "-DCMAKE_INSTALL_RPATH=@loader_path/../lib" in made(Machine("Darwin", "aarch64")).flags


def test_a_processor_without_avx2_has_every_instruction_set_stated() -> None:
    flags = made(replace(PLAIN, isa=("avx", "f16c", "sse4_2"))).flags
    assert {
        "-DGGML_NATIVE=OFF", "-DGGML_SSE42=ON", "-DGGML_AVX=ON", "-DGGML_F16C=ON",
        "-DGGML_FMA=OFF", "-DGGML_BMI2=OFF", "-DGGML_AVX2=OFF", "-DGGML_AVX512=OFF",
    } <= set(flags)  # fmt: skip


def test_unknown_instruction_sets_are_left_to_the_compiler() -> None:
    assert "-DGGML_NATIVE=ON" in made(replace(PLAIN, isa=None)).flags


@pytest.mark.parametrize(
    ("backend", "machine", "flags"),
    [
        pytest.param(
            "cuda", replace(PLAIN, nvidia=True, nvcc=NVCC),
            {"-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"}, id="cuda",
        ),
        pytest.param("rocm", replace(PLAIN, hipcc=NVCC), {"-DGGML_HIP=ON"}, id="rocm"),
        pytest.param("vulkan", replace(PLAIN, glslc=GLSLC), {"-DGGML_VULKAN=ON"}, id="vulkan"),
        pytest.param("metal", Machine("Darwin", "aarch64"), {"-DGGML_METAL=ON"}, id="metal"),
    ],
)  # fmt: skip
def test_each_backend_has_its_flags(backend: str, machine: Machine, flags: set[str]) -> None:
    assert flags <= set(made(machine, backend).flags)


def test_without_a_gpu_cuda_is_built_for_all_of_them() -> None:
    # CMake refuses "native" then: "CUDA_ARCHITECTURES is set to native, but no GPU was detected"
    flags = made(replace(PLAIN, nvcc=NVCC), "cuda").flags
    assert "-DCMAKE_CUDA_ARCHITECTURES=all-major" in flags


def test_a_persons_own_cmake_args_come_last() -> None:
    flags = made(PLAIN, CMAKE_ARGS="-DGGML_RPC=OFF '-DCMAKE_C_FLAGS=-O2 -g'").flags
    assert flags[-2:] == ("-DGGML_RPC=OFF", "-DCMAKE_C_FLAGS=-O2 -g")


@pytest.mark.parametrize(
    ("machine", "environ", "field"),
    [
        pytest.param(replace(PLAIN, isa=("avx", "avx2")), {}, "isa", id="isa"),
        pytest.param(
            replace(PLAIN, compiler=replace(GCC, identity="c++ 13.1.0")),
            {},
            "compiler",
            id="compiler",
        ),
        pytest.param(replace(PLAIN, libc="musl"), {}, "platform", id="libc"),
        pytest.param(PLAIN, {"CMAKE_ARGS": "-DX=1"}, "flags", id="flags"),
        pytest.param(PLAIN, {"CFLAGS": "-O1"}, "environment", id="environment"),
    ],
)
def test_what_changes_the_engine_changes_the_key(
    machine: Machine, environ: dict[str, str], field: str
) -> None:
    other = made(machine, **environ)
    assert other.key != made(PLAIN).key
    assert other.differences(made(PLAIN)) == [field]


def test_version_backend_and_toolkit_change_the_key() -> None:
    plain = made(PLAIN)
    assert compose("0.3.37", PLAIN, Choice("cpu", ""), {}).key != plain.key
    cuda = made(replace(PLAIN, nvcc=NVCC), "cuda")
    newer = made(replace(PLAIN, nvcc=Tool("nvcc", "12.6")), "cuda")
    assert len({plain.key, cuda.key, newer.key}) == 3


def test_the_same_machine_has_the_same_key_and_it_survives_json() -> None:
    recipe = made(PLAIN)
    assert made(PLAIN).key == recipe.key
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_machine_without_a_compiler_takes_any_compilers_engine() -> None:
    assert made(PLAIN).differences(made(replace(PLAIN, compiler=None))) == []
    assert made(replace(PLAIN, compiler=None)).differences(made(PLAIN)) == ["compiler"]


def test_an_engine_with_the_web_ui_serves_where_none_is_asked_for() -> None:
    with_ui, without = made(PLAIN), made(replace(PLAIN, npm=None))
    assert with_ui.differences(without) == []
    assert without.differences(with_ui) == ["ui"]


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("20.20.2", None), ("20.18.9", "too old"), ("22.12.0", None), ("22.11.0", "too old"),
        ("23.1.0", "too old"), ("24.0.0", None), ("18.19.1", "too old"), ("", "too old"),
    ],
)  # fmt: skip
def test_the_web_ui_is_built_where_node_is_new_enough(version: str, why: str | None) -> None:
    said = without_ui(replace(PLAIN, node=Tool("node", version)), offline=False)
    assert (why in (said or "")) if why else said is None


def test_the_web_ui_is_left_out_with_a_word() -> None:
    assert without_ui(replace(PLAIN, npm=None), offline=False) == "no npm"
    assert without_ui(PLAIN, offline=True) == "no network"
    assert "-DLLAMA_BUILD_UI=OFF" in made(replace(PLAIN, npm=None)).cmake_args
    assert "-DLLAMA_BUILD_UI=ON" in made(PLAIN).cmake_args


@pytest.mark.parametrize(
    ("backend", "machine", "folder"),
    [
        pytest.param("cpu", PLAIN, "cpu", id="cpu"),
        pytest.param("cuda", replace(PLAIN, nvcc=NVCC), "cu124", id="toolkit-12.4"),
        pytest.param("cuda", replace(PLAIN, nvcc=Tool("nvcc", "12.8")), "cu125", id="toolkit-12.8"),
        pytest.param("cuda", replace(PLAIN, driver_cuda="13.1"), "cu130", id="driver-13.1"),
        pytest.param("rocm", PLAIN, "rocm72", id="rocm"),
        pytest.param("metal", Machine("Darwin", "aarch64"), "metal", id="metal"),
    ],
)
def test_the_maintainers_index_has_a_folder_per_backend(
    backend: str, machine: Machine, folder: str
) -> None:
    assert prebuilt_folder(machine, Choice(backend, "")) == folder


@pytest.mark.parametrize(
    ("backend", "machine", "words"),
    [
        pytest.param("cpu", replace(PLAIN, libc="musl"), "musl", id="musl"),
        pytest.param("cpu", replace(PLAIN, isa=("avx",)), "AVX2", id="no-avx2"),
        pytest.param("cuda", replace(PLAIN, nvcc=Tool("nvcc", "10.2")), "CUDA 10.2", id="old-cuda"),
    ],
)
def test_a_maintainers_wheel_that_would_not_run_is_not_fetched(
    backend: str, machine: Machine, words: str
) -> None:
    with pytest.raises(BuildError, match=words):
        prebuilt_folder(machine, Choice(backend, ""))


def test_llama_cpp_is_mended_wherever_the_checkout_lies() -> None:
    recipe = made(PLAIN)
    includes = [a for a in recipe.cmake_args if a.startswith("-DCMAKE_PROJECT_llama.cpp_INCLUDE=")]
    assert [Path(a.partition("=")[2]).is_file() for a in includes] == [True]
    assert not any("INCLUDE" in flag for flag in recipe.flags), "a path is no part of the key"


def test_an_engine_without_the_patch_is_another_engine() -> None:
    recipe = made(PLAIN)
    stock = replace(recipe, patch="")
    assert stock.key != recipe.key
    assert stock.differences(recipe) == ["patch"]
    assert not any("INCLUDE" in argument for argument in stock.cmake_args)
