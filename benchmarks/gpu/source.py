"""The engine for a machine without a network: packed where there is one, built where there is none.

Standard library only, because it runs before anything is installed. Flags and version are those of
localllm/engine/recipe.py and pyproject.toml; what is measured with the engine is check.py's.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm.engine import recipe, toolchain, workshop
from localllm.engine.build import pinned_version

#: What one trip to such a machine may weigh, this repository (8 MB) included.
CARRY_BYTES = 64 << 20
SOURCE = "source.tar.xz"

#: Of the sdist's 77 MB these are left; vocabularies, documents, tests and git are the rest.
_KEPT = re.compile(
    r"CMakeLists\.txt|LICENSE\.md|llama_cpp/[^/]+\.py"
    r"|vendor/llama\.cpp/(CMakeLists\.txt|LICENSE"
    r"|(cmake|common|ggml|include|scripts|src|tools|vendor)/.*)"
)
#: Backends that are not built, the web UI's own sources, and what tools have beside their code.
_LEFT_OUT = re.compile(
    r"ggml/src/ggml-(cann|et|hexagon|metal|opencl|openvino|sycl|virtgpu|vulkan|webgpu|zendnn)/"
    r"|tools/ui/(?!CMakeLists\.txt|sources\.cmake|ui\.)|tools/[^/]+/(tests|bench|themes|legacy.*)/"
    r"|\.(md|png|jpg|jpeg|mp3|gif|pdf|ipynb)$"
)

#: module -> distribution: what localllm and this benchmark import.
_PACKAGES = {
    "anyio": "anyio", "certifi": "certifi", "h11": "h11", "httpcore": "httpcore",
    "httpx": "httpx", "idna": "idna", "numpy": "numpy", "platformdirs": "platformdirs",
    "psutil": "psutil", "pynvml": "nvidia-ml-py", "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}  # fmt: skip
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

#: llama-cpp-python's CMakeLists.txt asks for 3.21.
_CMAKE_LEAST = (3, 21)
#: A CUDA build for one architecture, and the models of models.py (an estimate and a sum).
_DISK_BYTES = 45 << 30


@dataclass(frozen=True)
class Folder:
    """Where everything of this benchmark lies on either machine.

    Attributes:
        root: source.tar.xz and wheels/ are carried in it; the rest is made where they are used.
    """

    root: Path

    @property
    def engine(self) -> Path:
        """The built engine: bin, lib and llama_cpp, as in a site-packages folder."""
        return self.root / "engine"

    @property
    def site(self) -> Path:
        """Packages that the machine lacked."""
        return self.root / "site"

    @property
    def borrowed(self) -> Path:
        """Links to what the CUDA toolkit lacks, as include and lib."""
        return self.root / "borrowed"

    @property
    def models(self) -> Path:
        """GGUF files with random weights."""
        return self.root / "models"

    @property
    def results(self) -> Path:
        """A JSON file for each card and model that was done, and the table."""
        return self.root / "results"

    def enter(self) -> None:
        """Makes this process and its children use the packages and the engine of the folder.

        Without a built engine that of the environment is used. May be called again.
        """
        if (self.engine / "bin").is_dir():
            os.environ["LOCALLLM_ENGINE_DIR"] = str(self.engine)
        for folder in (self.engine, self.site):
            sys.path[:0] = [str(folder)]
            _put_first("PYTHONPATH", folder)
        _put_first("LD_LIBRARY_PATH", self.borrowed / "lib")
        os.environ["LOCALLLM_HOME"] = str(self.root / "home")


def _put_first(variable: str, folder: Path) -> None:
    """Puts a folder in front of a search path of this process's children."""
    known = os.environ.get(variable, "").split(os.pathsep)
    rest = [each for each in known if each not in ("", str(folder))]
    os.environ[variable] = os.pathsep.join([str(folder), *rest])


def pack(folder: Folder, sdist: Path | None, python: str, also: list[str]) -> int:
    """Writes source.tar.xz and wheels/; returns their bytes.

    Args:
        folder: where to.
        sdist: llama-cpp-python's; None downloads it.
        python: the other machine's Python, "3.12".
        also: further distributions to carry: "cmake", "ninja".
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    with tempfile.TemporaryDirectory() as temporary:
        if sdist is None:
            # Not ":all:": pip would build the packages, too, with which it reads the sdist's name.
            subprocess.run([*pip, "--no-binary", "llama-cpp-python", "-d", temporary,
                            f"llama-cpp-python=={pinned_version()}"], check=True)  # fmt: skip
            sdist = next(Path(temporary).glob("llama_cpp_python-*.tar.gz"))
        trim(sdist, folder.root / SOURCE)
    wheels = folder.root / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    names = [*_PACKAGES.values(), *also]
    subprocess.run([*pip, "--only-binary", ":all:", "--python-version", python,
                    "--implementation", "cp", *platforms, "-d", str(wheels), *names],
                   check=True)  # fmt: skip
    return sum(path.stat().st_size for path in (folder.root / SOURCE, *wheels.iterdir()))


def trim(sdist: Path, target: Path) -> None:
    """The part of llama-cpp-python's sdist that a build needs, compressed again."""
    with tarfile.open(sdist) as whole, tarfile.open(target, "w:xz", preset=9) as small:
        for member in whole:
            name = member.name.partition("/")[2]
            inner = name.removeprefix("vendor/llama.cpp/")
            if member.isfile() and _KEPT.fullmatch(name) and not _LEFT_OUT.search(inner):
                # A new entry: the old one's long name stands a second time in its pax header.
                entry = tarfile.TarInfo(f"source/{name}")
                entry.size, entry.mode, entry.mtime = member.size, member.mode, int(member.mtime)
                small.addfile(entry, whole.extractfile(member))


def look(folder: Folder, backend: str) -> bool:
    """Prints what the machine has, a line each; whether everything is there."""
    complete = True
    for what, found, otherwise in _looks(folder, backend):
        print(f"{'ok' if found else 'MISSING':<8} {what}" + ("" if found else f": {otherwise}"))
        complete = complete and bool(found)
    return complete


def _looks(folder: Folder, backend: str) -> Iterator[tuple[str, object, str]]:
    """(what, whether it is there, what to do otherwise)."""
    machine = toolchain.survey()
    python = ".".join(str(number) for number in sys.version_info[:3])
    yield f"Python {python}", sys.version_info >= (3, 10), "3.10 or later is needed"
    source = (folder.root / SOURCE).exists() or (folder.engine / "bin").is_dir()
    yield f"{SOURCE} or a built engine", source, "pack leaves it in the folder: carry that"
    compiler = machine.compiler.name if machine.compiler else "a C++ compiler"
    yield compiler, machine.compiler, "gcc or clang is needed, in the PATH"
    found = _version([_program(folder, "cmake"), "--version"])
    text = "cmake " + ".".join(map(str, found))
    yield text, found >= _CMAKE_LEAST, "3.21 or later is needed; pack --also cmake carries it"
    found = _version([_program(folder, "ninja"), "--version"])
    yield "ninja", found, "pack --also ninja carries it"
    if backend == "cuda":
        nvcc = machine.nvcc.version if machine.nvcc else None
        yield f"nvcc {nvcc or ''}".rstrip(), nvcc, "the CUDA toolkit is needed, nvcc in the PATH"
        yield "libcuda.so.1", _loads("libcuda.so.1"), "NVIDIA's driver is needed"
        yield "libnvidia-ml.so.1", _loads("libnvidia-ml.so.1"), "NVIDIA's driver is needed"
        where = "the whole CUDA toolkit is needed, or Python's nvidia-cublas beside it"
        yield "cuBLAS", machine.nvcc and _cublas(machine.nvcc), where
        nvcc_major, driver = (nvcc or "0").split(".")[0], machine.driver_cuda or "unknown"
        fits = driver == "unknown" or int(nvcc_major) <= int(driver.split(".")[0])
        yield f"driver for CUDA {driver}", fits, f"it cannot run programs of nvcc {nvcc}"
    for module in _PACKAGES:
        names = [path.name for path in _wheels(folder, module)]
        hint = f"carried is {', '.join(names) or 'nothing'}; pack --python {python[:4]} again"
        yield f"Python's {module}", _imports(module), hint
    written = sum(path.stat().st_size for path in folder.models.glob("*"))
    free = shutil.disk_usage(folder.root).free + written
    yield (
        f"{free >> 30} GiB of disk for it all",
        free > _DISK_BYTES,
        f"{_DISK_BYTES >> 30} GiB are needed",
    )


def unpack(folder: Folder) -> None:
    """Lays out the wheels of what this Python and its PATH lack, and the source."""
    lacking = [module for module in _PACKAGES if importlib.util.find_spec(module) is None]
    lacking += [program for program in ("cmake", "ninja") if shutil.which(program) is None]
    for name in lacking:
        for wheel in _wheels(folder, name):
            _unzip(wheel, folder.site)
    importlib.invalidate_caches()
    if (folder.root / SOURCE).exists() and not (folder.root / "source").is_dir():
        part = folder.root / "source.part"
        shutil.rmtree(part, ignore_errors=True)
        with tarfile.open(folder.root / SOURCE) as archive:
            archive.extractall(part)
        (part / "source").rename(folder.root / "source")
        part.rmdir()


def build(folder: Folder, backend: str, architecture: str, n_jobs: int | None) -> None:
    """Configures, builds and installs into folder.engine; goes on where it was cut off.

    Args:
        folder: with the unpacked source.
        backend: "cuda" or "cpu".
        architecture: CUDA's number of the GPU: "90".
        n_jobs: compilers at a time; None leaves it to the memory and the processors.

    Raises:
        BuildError: something to build with is missing.
        CalledProcessError: CMake or a compiler failed, and has said why.
    """
    machine = toolchain.survey()
    choice = recipe.choose_backend(machine, backend)
    asked = {"CMAKE_ARGS": f"-DCMAKE_CUDA_ARCHITECTURES={architecture}"}
    composed = recipe.compose(
        pinned_version(), machine, choice, asked if backend == "cuda" else {}, offline=True
    )
    source, engine = folder.root / "source", folder.engine
    built = folder.root / "build"
    cmake, ninja = _program(folder, "cmake"), _program(folder, "ninja")
    environment = dict(os.environ)
    if backend == "cuda" and machine.nvcc:
        environment.setdefault("CUDACXX", machine.nvcc.path)
        _lend(folder, machine.nvcc)
        # After all folders of the command line, so that nothing of the toolkit's is hidden.
        environment["CPATH"] = str(folder.borrowed / "include")

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, env=environment)

    run(cmake, "-S", str(source), "-B", str(built), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_BUILD_TYPE=Release",
        # What scikit-build says to the same CMakeLists.txt.
        f"-DSKBUILD_PLATLIB_DIR={engine}", f"-DCMAKE_INSTALL_PREFIX={engine}",
        "-DCMAKE_INSTALL_LIBDIR=lib", f"-DCMAKE_LIBRARY_PATH={folder.borrowed / 'lib'}",
        *composed.cmake_args)  # fmt: skip
    run(cmake, "--build", str(built), "--parallel", str(n_jobs or workshop.jobs(backend, machine)))
    run(cmake, "--install", str(built))
    for path in (source / "llama_cpp").glob("*.py"):
        shutil.copy(path, engine / "llama_cpp")


def _toolkit(nvcc: toolchain.Tool) -> Path:
    """The CUDA toolkit's folder by nvcc's own word; in the PATH may be a link or a script to it.

    #$ TOP=/usr/local/cuda-13.0/bin/..
    """
    said = subprocess.run([nvcc.path, "--dryrun", "-x", "cu", os.devnull],
                          capture_output=True, text=True, check=False).stderr  # fmt: skip
    top = re.search(r"^#\$ TOP=(.+)$", said, re.MULTILINE)
    return Path(top[1]).resolve() if top else Path(nvcc.path).resolve().parents[1]


def _cublas(nvcc: toolchain.Tool) -> Path | None:
    """The folder whose include has cublas_v2.h: 1. the toolkit's; 2. Python's nvidia-cublas."""
    toolkit = _toolkit(nvcc)
    if (toolkit / "include" / "cublas_v2.h").exists():
        return toolkit
    packages = importlib.util.find_spec("nvidia")
    for place in (packages.submodule_search_locations or ()) if packages else ():
        for header in Path(place).glob("*/include/cublas_v2.h"):
            return header.parents[1]
    return None


def _lend(folder: Folder, nvcc: toolchain.Tool) -> None:
    """Links to cuBLAS where it is not the toolkit's, to the driver's and the runtime's library.

    nvcc alone is a toolkit without cuBLAS; a driver has no libcuda.so, which is what is linked; and
    the toolkit's folder, being nvcc's own, does not come into what is built.
    """
    shutil.rmtree(folder.borrowed, ignore_errors=True)
    for name in ("include", "lib"):
        (folder.borrowed / name).mkdir(parents=True)
    toolkit, cublas = _toolkit(nvcc), _cublas(nvcc)
    for library in (toolkit / "lib64").glob("libcudart.so.*"):
        (folder.borrowed / "lib" / library.name).symlink_to(library)
    if cublas is not None and cublas != toolkit:
        for header in (cublas / "include").glob("cublas*.h"):
            (folder.borrowed / "include" / header.name).symlink_to(header)
        for library in (cublas / "lib").glob("libcublas*.so.*"):
            (folder.borrowed / "lib" / library.name).symlink_to(library)
            (folder.borrowed / "lib" / f"{library.name.partition('.')[0]}.so").symlink_to(library)
    ctypes.CDLL("libcuda.so.1")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    driver = re.search(r"/\S*/libcuda\.so\S*", maps)
    if driver:
        (folder.borrowed / "lib" / "libcuda.so").symlink_to(driver[0])


def _unzip(wheel: Path, target: Path) -> None:
    """A wheel's files where they can be imported; programs stay programs."""
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            path = Path(archive.extract(item, target))
            mode = item.external_attr >> 16 & 0o777
            if mode and not item.is_dir():
                path.chmod(mode)


def _wheels(folder: Folder, module: str) -> list[Path]:
    """The carried wheel of a module, one or none."""
    stem = _PACKAGES.get(module, module).replace("-", "_").lower()
    every = sorted((folder.root / "wheels").glob("*.whl"))
    return [path for path in every if path.name.lower().startswith(f"{stem}-")]


def _program(folder: Folder, name: str) -> str:
    """1. The PATH's; 2. that of the carried wheel; 3. its mere name."""
    carried = (*folder.site.glob(f"{name}/data/bin/{name}"),
               *folder.site.glob(f"{name}-*.data/scripts/{name}"))  # fmt: skip
    return shutil.which(name) or next(map(str, carried), name)


def _version(argv: list[str]) -> tuple[int, ...]:
    """The first version number that a program prints, "3.25.1"; empty where it does not run."""
    try:
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in match.groups("0")) if match else ()


def _loads(library: str) -> bool:
    return _succeeds(lambda: ctypes.CDLL(library), OSError)


def _imports(module: str) -> bool:
    """Whether it really imports: a wheel for another Python is found and does not."""
    return _succeeds(lambda: importlib.import_module(module), ImportError)


def _succeeds(attempt: Callable[[], object], expected: type[Exception]) -> bool:
    try:
        attempt()
    except expected:
        return False
    return True
