"""Models in a store, for tests: published files, their manifests, and what is on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from localllm.digests import Claim
from localllm.store.layout import Kind, Repo
from localllm.store.library import Store
from localllm.store.manifest import Facts, Manifest, StoredFile
from tests.conftest import PATIENCE_SECONDS

#: Two commits.
OLD, NEW = "1" * 40, "2" * 40
NAME = "hf:org/model-GGUF:Q4_K_M"


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def put(repo: Repo, raw: bytes, revision: str, path: str) -> Path:
    """A file as a download leaves it."""
    digest = sha256(raw)
    with repo.lock(digest):
        part = repo.part_path(digest)
        part.write_bytes(raw)
        os.replace(part, repo.blob_path(digest))
        return repo.publish(digest, revision, path)


def stored(entry: Path, path: str, **changes: Any) -> StoredFile:
    raw, status = entry.read_bytes(), entry.stat()
    claim = Claim("sha256", sha256(raw), "huggingface.co")
    known: dict[str, Any] = {
        "digests": {"sha256": sha256(raw)},
        "proofs": (claim,),
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }
    return StoredFile(path=path, location=str(entry), **{**known, **changes})


def version(
    *files: StoredFile,
    revision: str = OLD,
    label: str = "Q4_K_M",
    when: str = "2026-11-20T12:00:00Z",
    kind: Kind = "hf",
    repo: str = "org/model-GGUF",
    template: str | None = "a" * 64,
) -> Manifest:
    return Manifest(
        kind=kind,
        repo=repo,
        revision=revision,
        asked="main",
        authority="huggingface.co",
        label=label,
        quant=label,
        files=files,
        model=Facts("Model", "llama", 32, 131072),
        header_sha256="b" * 64,
        chat_template_sha256=template,
        pulled_at=when,
    )


def pull(
    store: Store, raw: bytes, revision: str, path: str = "model-Q4_K_M.gguf", **changes: Any
) -> Manifest:
    """A model of one file, downloaded, published and taken in."""
    kind, name = changes.get("kind", "hf"), changes.get("repo", "org/model-GGUF")
    repo = store.repo(kind, name)
    entry = put(repo, raw, revision, path)
    repo.set_ref("main", revision)
    manifest = version(stored(entry, path), revision=revision, **changes)
    store.add(manifest)
    return manifest


def tree(folder: Path) -> list[str]:
    """Every file and link below a folder, but for locks."""
    return sorted(
        Path(inner, name).relative_to(folder).as_posix()
        for inner, _, names in os.walk(folder)
        for name in names
        if not name.endswith(".lock")
    )


def ask_hub_library(code: str, *argv: str, **environment: str) -> Any:
    """What a program that uses huggingface_hub prints, as JSON; it reads HF_* at import."""
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
