"""The cache of built engine wheels: one folder per recipe, its wheel and a key.json beside it.

Standard library only. It knows wheels and recipes, not how either is made. An entry appears by
one rename, so it is whole or absent, and its wheel is hashed again at every use. The Windows
branch of the lock is unproven.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from localllm.engine.recipe import BuildError, Recipe


@dataclass(frozen=True)
class Entry:
    """A cached wheel.

    Attributes:
        wheel: the file, under the name that pip wants.
        recipe: what it was made by.
        sha256, size_bytes: of the wheel.
        ui: the web UI really is in it; ui_note: why not, where the recipe wanted it.
        built_at: UTC, ISO 8601.
    """

    wheel: Path
    recipe: Recipe
    sha256: str
    size_bytes: int
    ui: bool
    ui_note: str | None
    built_at: str


def engine_cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    r"""`localllm.paths.cache_dir()/engine`, without platformdirs, which is not installed yet.

    1. LOCALLLM_HOME, 2. the platform's custom: XDG_CACHE_HOME or ~/.cache, ~/Library/Caches,
    %LOCALAPPDATA%\localllm\Cache.
    """
    env = os.environ if environ is None else environ
    if home := env.get("LOCALLLM_HOME"):
        return Path(home).expanduser() / "cache" / "engine"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "localllm"
    elif sys.platform == "win32":
        local = env.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        base = Path(local) / "localllm" / "Cache"
    else:
        # platformdirs takes a blank XDG_CACHE_HOME for none, too.
        xdg = env.get("XDG_CACHE_HOME", "")
        base = (Path(xdg) if xdg.strip() else Path.home() / ".cache") / "localllm"
    return base / "engine"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def entries(cache: Path) -> list[Entry]:
    """All entries that can be read, newest first; their wheels are not hashed here."""
    found = []
    for path in cache.glob("[!.]*/key.json"):
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            entry = Entry(
                wheel=path.parent / Path(document["wheel"]).name,
                recipe=Recipe.from_json(document["recipe"]),
                sha256=document["sha256"],
                size_bytes=document["size_bytes"],
                ui=document["ui"],
                ui_note=document["ui_note"],
                built_at=document["built_at"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # of another version of localllm, or damaged: it is as good as absent
        found.append(entry)
    return sorted(found, key=lambda entry: entry.built_at, reverse=True)


def lookup(cache: Path, recipe: Recipe, say: Callable[[str], None]) -> Entry | None:
    """An intact wheel that serves for this recipe, or None. A damaged one is told and removed."""
    fitting = [entry for entry in entries(cache) if not entry.recipe.differences(recipe)]
    for entry in sorted(fitting, key=lambda entry: entry.recipe != recipe):
        try:
            intact = file_sha256(entry.wheel) == entry.sha256
        except OSError:
            intact = False
        if intact:
            return entry
        say(f"the cached engine {entry.recipe.key} is damaged: it is left out")
        shutil.rmtree(entry.wheel.parent, ignore_errors=True)
    return None


def store(cache: Path, recipe: Recipe, wheel: Path, *, ui: bool, ui_note: str | None) -> Entry:
    """Copies a wheel into the cache, and makes it visible only when it is all there.

    Raises:
        BuildError: the cache cannot be written to.
    """
    target = cache / recipe.key
    built_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A dot in front: `entries` must not see what is not finished.
        draft = Path(tempfile.mkdtemp(prefix=f".{recipe.key}-", dir=cache))
        try:
            shutil.copyfile(wheel, draft / wheel.name)
            document = {
                "wheel": wheel.name,
                "recipe": recipe.to_json(),
                "sha256": file_sha256(draft / wheel.name),
                "size_bytes": wheel.stat().st_size,
                "ui": ui,
                "ui_note": ui_note,
                "built_at": built_at,
            }
            with (draft / "key.json").open("w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as exc:
        raise BuildError(
            f"cannot write the engine cache {cache}: {exc.strerror or exc}",
            "set LOCALLLM_HOME to a folder with room that you may write to",
            8,
        ) from exc
    return Entry(
        target / wheel.name,
        recipe,
        str(document["sha256"]),
        wheel.stat().st_size,
        ui,
        ui_note,
        built_at,
    )


def sweep(cache: Path, key: str) -> None:
    """Removes what a killed build left behind. Only for the holder of the key's lock."""
    for draft in cache.glob(f".{key}-*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def locked(cache: Path, key: str, waiting: Callable[[float], None]) -> Iterator[None]:
    """One build of a recipe at a time on this machine. The lock dies with its process.

    Args:
        cache: the cache folder.
        key: the recipe's.
        waiting: called about twice a second with the seconds waited so far.

    Raises:
        BuildError: the cache folder cannot be written to.
    """
    try:
        (cache / "locks").mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (cache / "locks" / key).open("a+b")
    except OSError as exc:
        raise BuildError(
            f"cannot write the engine cache {cache}: {exc.strerror or exc}",
            "set LOCALLLM_HOME to a folder that you may write to",
            8,
        ) from exc
    with file:
        start = time.monotonic()
        while not _try_lock(file):
            waiting(time.monotonic() - start)
            time.sleep(0.5)
        yield  # closing the file gives the lock back


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
