"""Files of other programs on this machine that need no download: found, proven, linked.

Knows where other programs keep models. Never copies, moves or changes a file of theirs; one that
changes or vanishes meanwhile is no candidate.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from localllm import paths
from localllm.digests import Algorithm, Claim, Digester
from localllm.store.atomic import sync_folder, temporary_name, writing
from localllm.store.layout import Repo, hub_cache_root, listed
from localllm.units import MIB

#: Why a file may be the wanted one, the best reason first. All are of its size.
Evidence: TypeAlias = Literal["digest", "name", "size"]
_EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)

#: Who keeps models in the hub's own layout, us included.
HUB_PROGRAM = "huggingface_hub"
_SHA256_NAME = re.compile(r"(?:sha256-)?(?P<sha256>[0-9a-f]{64})", re.ASCII)
#: Large enough that Python costs nothing beside the hash; hashing goes at 0.5 to 2 GB/s.
_PIECE_BYTES = MIB

OnProgress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class Candidate:
    """A file of another program that may be the wanted one.

    Attributes:
        path: of it, links followed.
        program: whose it is, for a person.
        evidence: why it may be.
    """

    path: Path
    program: str
    evidence: Evidence


@dataclass(frozen=True)
class Adopted:
    """A file of another program that is the wanted one, and linked in.

    Attributes:
        blob: the digest that its blob is called by.
        digests: of its bytes.
        program: whose it is.
    """

    blob: str
    digests: Mapping[Algorithm, str]
    program: str


def find_elsewhere(size_bytes: int, sha256: str | None, file_name: str) -> tuple[Candidate, ...]:
    """Files on this machine that may be the wanted one, the likeliest first.

    Looks into, in this order: 1. the hub's own cache, any repository and revision, and ours;
    2. Ollama's folders; 3. LM Studio's; 4. llama.cpp's own cache. Reads no file, only names and
    sizes; a file whose name is another sha256 than the wanted one is none.

    Args:
        size_bytes: of the wanted file, exactly.
        sha256: of it; None where nobody says.
        file_name: of it, without folders.
    """
    found: dict[tuple[int, int], Candidate] = {}
    for program, path in _files():
        named = _SHA256_NAME.fullmatch(path.name)
        if named and sha256 is not None and named["sha256"] != sha256:
            continue
        evidence: Evidence = "size"
        if named and sha256 is not None:
            evidence = "digest"
        elif path.name.lower() == file_name.lower():
            evidence = "name"
        with contextlib.suppress(OSError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and status.st_size == size_bytes:
                candidate = Candidate(Path(os.path.realpath(path)), program, evidence)
                # Two names of one file are hashed once, for the better reason.
                other = found.setdefault((status.st_dev, status.st_ino), candidate)
                if _EVIDENCE.index(evidence) < _EVIDENCE.index(other.evidence):
                    found[status.st_dev, status.st_ino] = candidate
    return tuple(sorted(found.values(), key=lambda each: _EVIDENCE.index(each.evidence)))


def adopt(
    candidate: Candidate,
    repo: Repo,
    claims: Sequence[Claim],
    on_progress: OnProgress | None = None,
) -> Adopted | None:
    """Proves a candidate, and links it in as a blob; to be called with the blob's lock held.

    A hard link where it is on the same file system and the kernel allows it, so that it stays
    when the other program lets go of it; else a link by name. Of a file in a cache of the hub's
    layout only a hard link: there a removal cannot know that somebody links to it by name.

    Args:
        candidate: the file.
        repo: where it is to be.
        claims: of the wanted file; every one must hold.
        on_progress: called with the bytes hashed so far.

    Returns:
        None where it is another file after all, is changing, or cannot be linked.

    Raises:
        ValueError: there is no claim to prove it by.
        DiskError: the cache's folder cannot be written.
    """
    if not claims:
        raise ValueError("nothing says what the file must be")
    try:
        with candidate.path.open("rb") as file:
            before = os.fstat(file.fileno())
            digests = _digests(file, before.st_size, claims, on_progress)
    except OSError:
        return None
    if any(digests[claim.algorithm] != claim.hex for claim in claims):
        return None
    named = [claim.hex for claim in claims if claim.algorithm in ("sha256", "git-sha1")]
    name = named[0] if named else digests["sha256"]
    if not _link(candidate, repo.inside(repo.blob_path(name)), _identity(before)):
        return None
    return Adopted(name, digests, candidate.program)


def hash_file(
    path: Path, claims: Iterable[Claim] = (), on_progress: OnProgress | None = None
) -> dict[Algorithm, str]:
    """The digests of a file: sha256, and those that are claimed of it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _digests(file, os.fstat(file.fileno()).st_size, claims, on_progress)


def _digests(
    file: io.BufferedReader,
    size_bytes: int,
    claims: Iterable[Claim],
    on_progress: OnProgress | None,
) -> dict[Algorithm, str]:
    digester = Digester([claim.algorithm for claim in claims], size_bytes)
    piece, n_done = memoryview(bytearray(_PIECE_BYTES)), 0
    while n_read := file.readinto(piece):
        digester.update(piece[:n_read])
        n_done += n_read
        if on_progress is not None:
            on_progress(n_done)
    return digester.hexdigests()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """What changes when another file stands there, or this one was written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _link(candidate: Candidate, blob: Path, identity: tuple[int, int, int, int]) -> bool:
    """Links the very file that was hashed; False where that cannot be had."""
    with writing(blob):
        blob.parent.mkdir(parents=True, exist_ok=True)
        with temporary_name(blob.parent) as link:
            try:
                try:
                    os.link(candidate.path, link)
                except OSError:
                    # Another file system, or somebody else's file (fs.protected_hardlinks).
                    if candidate.program == HUB_PROGRAM:
                        return False
                    os.symlink(candidate.path, link)
                if _identity(link.stat()) != identity:
                    return False
            except OSError:
                return False
            os.replace(link, blob)
        sync_folder(blob.parent)
    return True


def _files() -> Iterator[tuple[str, Path]]:
    """Every file that may be a model, with its program."""
    own = paths.models_dir()
    for root in (hub_cache_root(), own / "ms", own / "url"):
        for repo in Repo.all_in(root):
            for path in listed(repo.folder / "blobs"):
                if _SHA256_NAME.fullmatch(path.name):
                    yield HUB_PROGRAM, path
            for entry in repo.entries():
                if not entry.is_symlink():  # where there are no links, files stand here
                    yield HUB_PROGRAM, entry
    for folder in _ollama_folders():
        for path in listed(folder / "blobs"):
            if _SHA256_NAME.fullmatch(path.name):
                yield "Ollama", path
    for program, folders in (
        ("LM Studio", _lm_studio_folders()),
        ("llama.cpp", [_llama_cpp_folder()]),
    ):
        for folder in folders:
            for inner, _, names in os.walk(folder):
                for name in names:
                    if name.lower().endswith((".gguf", ".llamafile")):
                        yield program, Path(inner, name)


def _ollama_folders() -> Iterator[Path]:
    """Where Ollama keeps models (its docs/faq.md; /var/lib/ollama on Arch and NixOS)."""
    if named := os.environ.get("OLLAMA_MODELS"):
        yield Path(named)
    yield Path("~/.ollama/models").expanduser()
    yield Path("/usr/share/ollama/.ollama/models")
    yield Path("/var/lib/ollama")
    yield Path("/var/lib/ollama/models")


def _lm_studio_folders() -> Iterator[Path]:
    """Where LM Studio keeps models; a file in the home names its home where that is elsewhere."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        named = Path("~/.lmstudio-home-pointer").expanduser().read_text("utf-8").strip()
        if os.path.isabs(named) and "\0" not in named:
            yield Path(named, "models")
    yield Path("~/.lmstudio/models").expanduser()
    yield Path("~/.cache/lm-studio/models").expanduser()


def _llama_cpp_folder() -> Path:
    """llama.cpp's own cache (fs_get_cache_directory in common/common.cpp of 0c1e570)."""
    if named := os.environ.get("LLAMA_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path("~/Library/Caches/llama.cpp").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~"), "llama.cpp").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "llama.cpp").expanduser()
