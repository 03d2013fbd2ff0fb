"""The engine built and installed through pip, from a tiny sdist that stands for the real one.

Everything is real but llama.cpp itself: pip, the environment, the compiler, signals. No network.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from localllm.engine import build, installed, workshop
from localllm.engine.build import BuildError, Environment, Options, install, read_stamp, status
from localllm.engine.recipe import PREBUILT_INDEX
from localllm.engine.toolchain import Machine

ROOT = Path(build.__file__).resolve().parents[2]
VERSION = build.pinned_version()

pytestmark = pytest.mark.skipif(
    not shutil.which("cc") or not shutil.which("c++") or sys.platform == "win32",
    reason="needs a C compiler",
)

#: A build backend of the standard library alone: it counts like ninja, compiles a library with the
#: functions that are asked, and puts what it was told into the wheel. control.json steers it.
BACKEND = """
import json, os, pathlib, shlex, subprocess, sys, time, zipfile

NAME = "llama_cpp_python-@VERSION@"
HERE = pathlib.Path(__file__).parent
CONTROL = json.loads(pathlib.Path("@CONTROL@").read_text())

def metadata(folder):
    info = pathlib.Path(folder) / (NAME + ".dist-info")
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: @VERSION@\\n")
    (info / "WHEEL").write_text(
        "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: false\\nTag: py3-none-any\\n")
    return info.name

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    return metadata(folder)

def build_wheel(folder, config_settings=None, metadata_directory=None):
    print("*** Configuring CMake...", flush=True)
    for i in range(1, 6):
        print(f"[{i}/5] cc -c {i}.c", flush=True)
        time.sleep(CONTROL.get("step_seconds", 0))
    if CONTROL.get("fail"):
        print("FAILED: ggml.o\\nggml.c:3:1: error: expected ';' before '}' token")
        sys.exit(1)
    print(CONTROL.get("says", "-- UI: npm build succeeded"))
    (HERE / "l.c").write_text("int llama_supports_gpu_offload(void) { return %d; }\\n%s" % (
        CONTROL.get("offload", 0), CONTROL.get("c", "")))
    subprocess.check_call(shlex.split(os.environ["CC"])
                          + ["-shared", "-fPIC", "-o", HERE / "libllama.so", HERE / "l.c"])
    wheel = NAME + "-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / wheel, "w") as archive:
        def add(name, data, mode=0o644):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, data)
            names.append(name)
        names = []
        add("llama_cpp/lib/libllama.so", (HERE / "libllama.so").read_bytes())
        add("bin/llama-server", "#!/bin/sh\\n" + CONTROL.get("server", "echo version: 1"), 0o755)
        add("bin/llama-bench", "#!/bin/sh\\n", 0o755)
        told = ("CMAKE_ARGS", "CMAKE_BUILD_PARALLEL_LEVEL", "NINJA_STATUS", "CC", "TMPDIR")
        add("llama_cpp/told.json", json.dumps({name: os.environ.get(name) for name in told}))
        info = HERE / metadata(HERE)
        for path in info.iterdir():
            add(info.name + "/" + path.name, path.read_text())
        record = info.name + "/RECORD"
        archive.writestr(record, "".join(f"{name},,\\n" for name in [*names, record]))
    return wheel
"""


class Place:
    """A private cache, a wheelhouse with the tiny sdist, and what the run said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home with blanks"
        self.cache = self.home / "cache" / "engine"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.wheelhouse = folder / "wheel house"
        self.wheelhouse.mkdir()
        self.said: list[str] = []
        self.shown: list[str] = []
        self.control()
        control = str(folder / "control.json")
        backend = BACKEND.replace("@VERSION@", VERSION).replace("@CONTROL@", control)
        files = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
            'backend-path = ["."]\n',
            "backend.py": backend,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {VERSION}\n",
        }
        sdist = self.wheelhouse / f"llama_cpp_python-{VERSION}.tar.gz"
        with tarfile.open(sdist, "w:gz") as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(f"llama_cpp_python-{VERSION}/{name}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))

    def control(self, **values: object) -> None:
        (self.folder / "control.json").write_text(json.dumps(values))

    def options(self, **values: object) -> Options:
        return Options(wheelhouse=self.wheelhouse, **values)  # type: ignore[arg-type]

    def install(self, environment: Environment, **values: object) -> build.Result:
        self.said.clear()
        self.shown.clear()
        return install(self.options(**values), self.said.append, self.shown.append, environment)

    def cached(self) -> list[Path]:
        return list(self.cache.glob("*/*.whl"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.setenv("LOCALLLM_HOME", str(place.home))
    monkeypatch.setenv("TMPDIR", str(place.temporary))
    for name in ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_BUILD_PARALLEL_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    # pip's own settings of this machine must not decide a test.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


@pytest.fixture
def new_environment(tmp_path: Path) -> Callable[[str], Environment]:
    """Makes environments with the pip of the Python that runs the tests, which is quick."""
    pip = pytest.importorskip("pip")

    def make(name: str) -> Environment:
        folder = tmp_path / name
        argv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(argv, check=True)
        scheme = {"base": str(folder), "platbase": str(folder)}
        site_packages = Path(sysconfig.get_path("platlib", "venv", scheme))
        (site_packages / "pip").symlink_to(Path(pip.__file__).parent)
        return Environment(folder / "bin" / "python", site_packages)

    return make


def test_an_engine_is_built_once_and_serves_every_environment(
    place: Place, new_environment: Callable[[str], Environment]
) -> None:
    first, second = new_environment("first"), new_environment("second env")
    result = place.install(first)
    assert result.action == "built"
    assert result.tools == ("llama-server", "llama-bench")
    assert any("no web UI (no network)" in line for line in place.said)
    assert place.said[-1].startswith("engine ready: llama-server, llama-bench")
    told = json.loads((first.site_packages / "llama_cpp/told.json").read_text())
    assert "-DLLAMA_TOOLS_INSTALL=ON" in told["CMAKE_ARGS"]
    assert "-DLLAMA_BUILD_UI=OFF" in told["CMAKE_ARGS"]
    assert "$ORIGIN/../lib" in told["CMAKE_ARGS"] or sys.platform == "darwin"
    assert told["NINJA_STATUS"] == "[%f/%t] "
    assert int(told["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1
    assert told["TMPDIR"].startswith(str(place.temporary))
    assert list(place.temporary.iterdir()) == []

    stamp = read_stamp(first)
    assert stamp == result.stamp
    assert stamp.source == "built"
    document = json.loads((first.tools_folder / "engine.json").read_text())
    assert {"version", "key", "backend", "flags", "isa", "compiler", "ui", "built_at"} <= set(
        document
    )
    assert document["version"] == VERSION

    again = place.install(first)
    assert again.action == "unchanged"
    assert again.seconds < 2
    assert place.said == [f"the engine is here already: llama-cpp-python {VERSION}, "
                          f"backend {stamp.recipe.backend}, no web UI"]  # fmt: skip

    from_cache = place.install(second)
    assert from_cache.action == "cache"
    assert from_cache.stamp.built_at == stamp.built_at
    now = status(Options(), second)
    assert now.installed_version == VERSION
    assert [key for key, _, _ in now.cached] == [stamp.recipe.key]
    assert json.dumps(now.to_json())


def test_a_stamp_does_not_outlive_its_engine(
    place: Place, new_environment: Callable[[str], Environment]
) -> None:
    environment = new_environment("env")
    place.install(environment)
    assert read_stamp(environment) is not None
    record = next(environment.site_packages.glob("llama_cpp_python-*.dist-info/RECORD"))
    record.write_text(record.read_text() + "other,,\n")  # as another pip install would
    assert read_stamp(environment) is None
    wheel = place.cached()[0]
    wheel.write_bytes(wheel.read_bytes()[:-1])
    # The stamp is void and the cached wheel damaged: only a build is left.
    assert place.install(environment).action == "built"
    assert any("damaged" in line for line in place.said)


def test_a_failed_build_says_why_where_the_log_is_and_leaves_nothing(
    place: Place, new_environment: Callable[[str], Environment]
) -> None:
    place.control(fail=True)
    with pytest.raises(BuildError) as caught:
        place.install(new_environment("env"))
    assert caught.value.exit_code == 9
    assert any("error: expected ';'" in line for line in place.said)
    log = Path(caught.value.message.rpartition("the whole log is ")[2])
    assert "FAILED: ggml.o" in log.read_text()
    assert place.cached() == []
    assert list(place.temporary.iterdir()) == []


def test_a_web_ui_that_npm_could_not_build_is_told_and_not_tried_again(
    place: Place,
    new_environment: Callable[[str], Environment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("localllm.engine.recipe.without_ui", lambda machine, *, offline: None)
    place.control(says="-- UI: running npm ci\n-- UI: npm ci failed (1)")
    environment = new_environment("env")
    result = place.install(environment)
    assert result.stamp.ui is False
    assert result.stamp.ui_note == "npm ci failed"
    assert any("web UI is left out: npm ci failed" in line for line in place.said)
    assert place.install(environment).action == "unchanged"
    place.control()
    again = place.install(environment, rebuild=True)
    assert again.action == "built"
    assert again.stamp.ui is True


def test_an_engine_that_does_not_run_is_told_at_once_and_not_stamped(
    place: Place, new_environment: Callable[[str], Environment]
) -> None:
    place.control(c="__attribute__((constructor)) void f(void) { __builtin_trap(); }")
    environment = new_environment("env")
    with pytest.raises(
        BuildError, match=r"engine's library .* does not run: died of SIG"
    ) as caught:
        place.install(environment)
    assert caught.value.exit_code == 9
    assert read_stamp(environment) is None


def test_a_server_that_lacks_a_cuda_library_is_told_with_the_remedy(
    tmp_path: Path, new_environment: Callable[[str], Environment]
) -> None:
    environment = new_environment("env")
    source = tmp_path / "l.c"
    source.write_text("int llama_supports_gpu_offload(void) { return 1; }")
    library = environment.site_packages / "llama_cpp/lib/libllama.so"
    library.parent.mkdir(parents=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert build.verify(environment) is True
    environment.tools_folder.mkdir()
    server = environment.tools_folder / "llama-server"
    server.write_text(
        "#!/bin/sh\necho 'libcudart.so.12: cannot open shared object' >&2; exit 127\n"
    )
    server.chmod(0o755)
    with pytest.raises(BuildError, match=r"llama-server .* not run: libcudart\.so\.12") as caught:
        build.verify(environment)
    assert "LD_LIBRARY_PATH" in (caught.value.hint or "")


def test_a_wheelhouse_with_a_built_engine_needs_no_compiler(
    place: Place,
    new_environment: Callable[[str], Environment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.install(new_environment("builder"))
    shutil.move(place.cached()[0], place.wheelhouse)
    shutil.rmtree(place.home)
    monkeypatch.setattr(build, "survey", lambda: Machine("Linux", "x86_64"))
    environment = new_environment("env")
    assert place.install(environment).action == "wheelhouse"
    assert place.install(environment).action == "unchanged"
    # without its server it is still an engine, for `chat`
    wheel = next(place.wheelhouse.glob("*.whl"))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(wheel.with_suffix(".new"), "w") as new:
        for entry in old.infolist():
            if not entry.filename.startswith("bin/"):
                new.writestr(entry, old.read(entry))
    wheel.with_suffix(".new").replace(wheel)
    result = place.install(new_environment("library only"))
    assert result.tools == ()
    assert "`localllm serve` will not run" in place.said[-1]


def script(place: Place, environment: Environment, *arguments: str) -> subprocess.Popen[str]:
    """The build as install.sh starts it: a plain file, run by the environment's Python."""
    return subprocess.Popen(
        [str(environment.python), str(ROOT / "localllm/engine/build.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )


def wait_for(true: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def running_under(folder: Path) -> list[str]:
    """Command lines of processes whose working folder is under this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_a_build_that_is_killed_leaves_nothing_half_true(
    place: Place, new_environment: Callable[[str], Environment], number: signal.Signals
) -> None:
    environment = new_environment("env")
    place.control(step_seconds=0.3)
    child = script(place, environment, "install", "--wheelhouse", str(place.wheelhouse))
    wait_for(lambda: any("[2/5]" in log.read_text() for log in place.cache.glob("logs/*.log")))
    child.send_signal(number)
    said, _ = child.communicate(timeout=15)
    wait_for(lambda: not running_under(place.temporary))
    if number == signal.SIGTERM:
        assert child.returncode == 130
        assert said.endswith("localllm: interrupted; the engine was not changed\n")
        assert list(place.temporary.iterdir()) == []
    assert place.cached() == []
    assert read_stamp(environment) is None
    if number == signal.SIGKILL:
        place.control()
        assert place.install(environment).action == "built"
        assert list(place.temporary.iterdir()) == []  # swept, whatever the killed one left


def test_two_installs_at_once_build_once(
    place: Place, new_environment: Callable[[str], Environment]
) -> None:
    environments = [new_environment("one"), new_environment("two")]
    place.control(step_seconds=0.2)
    arguments = ("install", "--json", "--wheelhouse", str(place.wheelhouse))
    children = [script(place, environment, *arguments) for environment in environments]
    texts = [child.communicate(timeout=30)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    actions = sorted(json.loads(text[text.index("{") :])["action"] for text in texts)
    assert actions == ["built", "cache"]
    assert any("another install is building this very engine" in text for text in texts)


def test_no_compiler_is_one_sentence_and_the_command(
    place: Place,
    new_environment: Callable[[str], Environment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine("Linux", "x86_64", manager="apt-get")
    monkeypatch.setattr(build, "survey", lambda: machine)
    with pytest.raises(BuildError, match="no C and C\\+\\+ compiler") as caught:
        place.install(new_environment("env"))
    assert "apt-get install build-essential" in (caught.value.hint or "")


def test_too_little_room_is_told_with_the_numbers(
    place: Place,
    new_environment: Callable[[str], Environment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workshop, "_free_bytes", lambda folder: 1_500_000_000)
    with pytest.raises(BuildError, match=r"needs 2.1 GB in .*, and 1.5 GB are free") as caught:
        place.install(new_environment("env"))
    assert caught.value.exit_code == 8
    assert "TMPDIR" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("machine", "backend", "jobs"),
    [
        (Machine("Linux", "x86_64", n_cores=8, free_memory_bytes=64 << 30), "cpu", 8),
        (Machine("Linux", "x86_64", n_cores=8, free_memory_bytes=3 << 30), "cpu", 3),
        (Machine("Linux", "x86_64", n_cores=8, free_memory_bytes=3 << 30), "cuda", 1),
        (Machine("Linux", "x86_64", n_cores=8, free_memory_bytes=1 << 20), "cpu", 1),
        (Machine("Linux", "x86_64", n_cores=8), "cpu", 8),
    ],
    ids=["plenty", "memory", "nvcc", "nearly-none", "unknown"],
)
def test_compilers_at_a_time_are_bounded_by_cores_and_memory(
    machine: Machine, backend: str, jobs: int
) -> None:
    assert workshop.jobs(backend, machine) == jobs


def test_the_sdist_of_the_pinned_version_is_built_whatever_else_is_on_offer(tmp_path: Path) -> None:
    argv = workshop.wheel_argv(Path("py"), "0.3.36", tmp_path, tmp_path / "out", None)
    assert argv[-1] == "llama-cpp-python==0.3.36"
    assert argv[argv.index("--no-binary") + 1] == "llama-cpp-python"
    assert "--no-index" not in argv
    offline = workshop.wheel_argv(Path("py"), "0.3.36", tmp_path, tmp_path, tmp_path / "house")
    assert offline[offline.index("--no-index") + 1 :][:2] == [
        "--find-links",
        str(tmp_path / "house"),
    ]


def test_the_maintainers_wheel_is_pinned_and_never_built() -> None:
    index = PREBUILT_INDEX + "cpu"
    arguments = installed.prebuilt_arguments("0.3.36", index)
    assert arguments[arguments.index("--extra-index-url") + 1] == index
    assert arguments[arguments.index("--only-binary") + 1] == "llama-cpp-python"
    assert arguments[-1] == "llama-cpp-python==0.3.36"


def test_a_maintainers_index_that_is_out_of_reach_is_one_sentence(
    place: Place,
    new_environment: Callable[[str], Environment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Port 9 on loopback: nobody is there, and no packet leaves the machine.
    nobody = "http://127.0.0.1:9/"
    monkeypatch.setattr("localllm.engine.recipe.PREBUILT_INDEX", nobody)
    monkeypatch.setenv("PIP_INDEX_URL", nobody)
    monkeypatch.setattr(
        installed, "prebuilt_arguments",
        lambda version, index: ["--retries", "1", "--extra-index-url", index, "llama-cpp-python"],
    )  # fmt: skip
    said: list[str] = []
    machine = Machine("Linux", "x86_64", libc="glibc 2.36")
    monkeypatch.setattr(build, "survey", lambda: machine)
    with pytest.raises(
        BuildError, match=r"index http://127\.0\.0\.1:9/cpu cannot be reached"
    ) as caught:
        install(Options(prebuilt=True), said.append, None, new_environment("env"))
    assert caught.value.exit_code == 5
    assert "leave out --prebuilt" in (caught.value.hint or "")
    assert any("`localllm serve` will not" in line for line in said)


def test_a_missing_wheelhouse_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not a folder") as caught:
        install(Options(wheelhouse=tmp_path / "none"), print)
    assert caught.value.exit_code == 3


def test_it_needs_the_standard_library_only() -> None:
    """Isolated (-I) and without site-packages (-S), as on a machine where nothing is installed."""
    script = str(ROOT / "localllm/engine/build.py")
    argv = [sys.executable, "-I", "-S", script, "status", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=True)
    assert json.loads(done.stdout)["pinned_version"] == VERSION
