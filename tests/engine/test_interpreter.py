"""What is started is this localllm, whatever lies in the current folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from localllm.engine.interpreter import module_argv


def test_a_localllm_py_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "localllm.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    # A plan asks a dry run, which is a process of its own.
    argv = [*module_argv("localllm"), "plan", "demo"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stranger" not in done.stderr
    assert "n_ctx" in done.stdout
