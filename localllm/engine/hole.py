"""Files that are headers with a hole behind: what llama.cpp dry-runs in place of a model.

They live in a private run folder, named so that the sweep of a later start clears it if this
process is killed (guarded.py), and take no room on the disk: the hole is sparse.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from localllm.engine.guarded import make_run_dir
from localllm.errors import DiskError
from localllm.gguf import MemorySource


class Holes:
    """A folder of such files; a context manager that leaves nothing."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._n_models = 0

    def __enter__(self) -> Holes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def dig(self, headers: Sequence[MemorySource]) -> Path:
        """Writes the headers of one model (one for each of its files) and returns the first.

        Raises:
            DiskError: no room, or a file system that cannot hold a hole of that size.
        """
        folder = self._make_folder() / str(self._n_models)
        self._n_models += 1
        n_files = len(headers)
        names = (
            ["model.gguf"]
            if n_files == 1
            else [f"model-{no:05d}-of-{n_files:05d}.gguf" for no in range(1, n_files + 1)]
        )
        try:
            folder.mkdir(mode=0o700)
            for name, header in zip(names, headers, strict=True):
                with (folder / name).open("wb") as file:
                    file.write(header.data)
                    file.truncate(header.size_bytes)
        except OSError as exc:
            raise DiskError(
                f"cannot make a file with a hole in {folder}: {exc.strerror}",
                "set LOCALLLM_HOME to a folder on a file system with sparse files",
            ) from exc
        return folder / names[0]

    def _make_folder(self) -> Path:
        if self._folder is None:
            self._folder = make_run_dir()
        return self._folder
