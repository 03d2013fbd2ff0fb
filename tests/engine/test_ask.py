"""What the installed engine says it is, and what is said of one that cannot answer."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from localllm.engine import ask
from localllm.engine.locate import ENGINE_DIR_VARIABLE, Tools, find_library, find_tools
from localllm.engine.locate import require_tools as require
from localllm.engine_report import EngineReport
from localllm.errors import EngineMissingError


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)


def test_the_engine_of_this_environment_answers(tools: Tools) -> None:
    report = ask.ask_engine()
    assert report.error is None
    assert report.tools_error is None
    assert report.system_info is not None
    assert "CPU" in report.system_info
    assert [device.name for device in report.devices if device.kind == "cpu"] == ["CPU"]
    assert report.tools_folder == str(tools.folder)


def test_the_library_and_the_programs_are_the_same_llama_cpp(tools: Tools) -> None:
    report = ask.ask_engine()
    assert report.commit
    assert report.commit == report.tools_commit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU 12.2.0\n",
            ("0c1e570", None),
            id="built outside git",
        ),
        pytest.param(
            "version: 0.5.0 (build 8210, commit 4f1cd2a9)\n", ("4f1cd2a9", 8210), id="released"
        ),
        pytest.param("version: 4589 (eb7cf15a)\nbuilt with cc\n", ("eb7cf15a", 4589), id="older"),
        pytest.param("Segmentation fault\n", (None, None), id="no version"),
    ],
)
def test_reads_the_version_line(text: str, expected: tuple[str | None, int | None]) -> None:
    assert ask.parse_version(text) == expected


@pytest.mark.parametrize(
    ("registered", "backend"),
    [
        pytest.param(["CPU"], "cpu", id="cpu"),
        pytest.param(["RPC", "CPU"], "cpu", id="rpc is no accelerator"),
        pytest.param(["CUDA", "RPC", "CPU"], "cuda", id="cuda"),
        pytest.param(["ROCm", "CPU"], "rocm", id="rocm"),
        pytest.param(["MTL", "BLAS", "CPU"], "metal", id="metal"),
    ],
)
def test_the_backend_is_read_from_what_is_registered(registered: list[str], backend: str) -> None:
    assert ask.parse_backend(registered) == backend


@pytest.mark.parametrize(
    ("status", "err", "error", "killed_by"),
    [
        pytest.param(-signal.SIGILL, "", "it died of SIGILL", "SIGILL", id="SIGILL"),
        pytest.param(
            1,
            "OSError: libcudart.so.12: cannot open shared object file: No such file or directory\n",
            "the library libcudart.so.12 is missing",
            None,
            id="libcudart",
        ),
        pytest.param(None, "", "it gave no answer in 30 s", None, id="hang"),
        pytest.param(1, "a\nOSError: bad ELF\n", "OSError: bad ELF", None, id="anything else"),
    ],
)
def test_a_child_that_gives_no_answer_is_an_answer_too(
    status: int | None, err: str, error: str, killed_by: str | None
) -> None:
    report = ask._with_answer(EngineReport(), status, "", err)
    assert (report.error, report.signal) == (error, killed_by)


def test_a_library_that_does_not_load_is_reported_and_does_not_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = find_library()
    assert library is not None
    broken = tmp_path / "lib"
    broken.mkdir()
    for path in library.glob("*.so*"):
        (broken / path.name).write_bytes(b"not a library")
    monkeypatch.setattr(ask, "find_library", lambda: broken)
    report = ask.ask_engine()
    assert report.error
    assert report.backend is None


@pytest.mark.skipif(sys.platform != "linux", reason="a real SIGILL by a program of our own")
def test_a_program_that_dies_of_sigill_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "llama-server", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv(ENGINE_DIR_VARIABLE, str(tmp_path))
    assert ask.ask_engine().tools_error == "SIGILL"


def test_a_named_engine_folder_wins(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in tools.names[:2]:
        shutil.copy(tools.path(name), tmp_path / name)
    monkeypatch.setenv(ENGINE_DIR_VARIABLE, str(tmp_path))
    found = find_tools()
    assert found is not None
    assert found.folder == tmp_path


def test_a_named_folder_without_an_engine_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINE_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(EngineMissingError, match=str(tmp_path)):
        require("llama-server")


def test_path_is_the_last_resort(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENGINE_DIR_VARIABLE, raising=False)
    script(tmp_path, "llama-server", "pass")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_tools()
    assert found is not None
    assert found.folder == tools.folder  # this environment's own comes first
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path / "elsewhere"))
    found = find_tools()
    assert found is not None
    assert found.folder == tmp_path
