"""Captured machines: text files of tests/data/probe, unpacked into trees that probes can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(__file__).parent.parent / "data" / "probe"


def plant(text: str, root: Path) -> None:
    """Writes the files ("== path", then the content) and links ("=> path target") of a capture."""
    path: Path | None = None
    lines: list[str] = []

    def finish() -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")

    for line in text.splitlines():
        if line.startswith("== "):
            finish()
            path, lines = root / line[3:], []
        elif line.startswith("=> "):
            finish()
            path = None
            link, target = line[3:].split(" ")
            (root / link).parent.mkdir(parents=True, exist_ok=True)
            (root / link).symlink_to(target)
        else:
            lines.append(line)
    finish()


@pytest.fixture
def captured() -> Callable[[str], str]:
    """The text of a captured file, by its path below tests/data/probe without ".txt"."""
    return lambda name: (DATA / f"{name}.txt").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """Unpacks captures, and files given by path, into one tree and returns its root."""
    root = tmp_path / "machine"
    root.mkdir()

    def build(*names: str, files: dict[str, str] | None = None) -> Path:
        for name in names:
            plant((DATA / f"{name}.txt").read_text(), root)
        for path, content in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        return root

    return build
