"""The file of measurements: read whole, written whole, shared by every localllm of a person.

Knows the document, the lock and what to do with a damaged file. What a measurement means is in
localllm/measured.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from localllm import paths
from localllm.errors import DiskError
from localllm.hardware import Finding
from localllm.measured import Experience, Key, Measurement
from localllm.recovery import FIELDS, Concession

SCHEMA_VERSION = 1
#: Of the newest runs; a person tries some tens of models in a few shapes each.
_MOST_KEYS = 500
#: Some hundred times what so many keys take; bounds what a wrong file can make us read.
_FILE_LIMIT_BYTES = 64 << 20
#: A holder of the lock reads and writes half a megabyte at most; past this it is stuck.
_LOCK_SECONDS = 10.0
_LOCK_POLL_SECONDS = 0.01


class _DamagedError(Exception):
    """The file is not a document of measurements."""


class _NewerError(Exception):
    """The file was written by a newer localllm."""


def load(path: Path) -> Experience:
    """What was measured so far; empty where there is no file, or none that can be read.

    Never raises and never changes the file: the next `record` sets a damaged one aside, and tells.
    """
    with contextlib.suppress(OSError, _DamagedError, _NewerError):
        return _read(path)
    return Experience()


def record(path: Path, key: Key, measurement: Measurement) -> Finding | None:
    """Merges a measurement into the file (Measurement.merged); losing one never stops a run.

    The file is its owner's alone (0600) and at every moment a whole one: it is written beside its
    place and renamed, by one process at a time. It keeps the newest 500 keys. A damaged one is
    moved to its name + ".damaged" and begun anew.

    Returns:
        What a person should know: the file was damaged, or the measurement could not be kept.
    """
    try:
        paths.private_folder(path.parent)
        with _locked(path.with_name(path.name + ".lock")):
            return _record(path, key, measurement)
    except _NewerError:
        reason = f"{path} was written by a newer localllm"
    except TimeoutError:
        reason = f"another process has held {path}.lock for {_LOCK_SECONDS:.0f} s"
    except DiskError as exc:
        reason = exc.message
    except OSError as exc:
        reason = f"cannot write {path}: {exc.strerror or exc}"
    return Finding("warn", "measurements.unkept", f"What was measured is not kept: {reason}.")


def _record(path: Path, key: Key, measurement: Measurement) -> Finding | None:
    """`record` for the holder of the lock."""
    finding = None
    try:
        experience = _read(path)
    except _DamagedError as exc:
        aside = path.with_name(path.name + ".damaged")
        path.replace(aside)
        experience = Experience()
        finding = Finding(
            "warn",
            "measurements.damaged",
            f"The file of earlier measurements was damaged ({exc}) and was moved to {aside};"
            " measuring begins anew.",
        )
    _write(path, experience.learned(key, measurement))
    return finding


def _read(path: Path) -> Experience:
    try:
        if path.stat().st_size > _FILE_LIMIT_BYTES:
            raise _DamagedError("it is too large")
        raw = path.read_bytes()
    except FileNotFoundError:
        return Experience()
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _DamagedError("it is not a complete JSON document") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _DamagedError("it has no schema_version")
    if version > SCHEMA_VERSION:
        raise _NewerError
    entries = document.get("measurements")
    if not isinstance(entries, dict):
        raise _DamagedError("it has no measurements")
    # One bad entry costs itself only: each can be measured again.
    pairs = (_parse_entry(entry) for entry in entries.values())
    return Experience(dict(pair for pair in pairs if pair is not None))


def _parse_entry(entry: Any) -> tuple[Key, Measurement] | None:
    """One of the document's entries; None where it is not one.

    {"devices": ["AMD EPYC 9B45"], "engine": "0.3.36 0c1e570", "model": "Qwen3 8B | qwen3 | …",
     "shape": {"n_gpu_layers": "0", …}, "extra_bytes": {"Host": 47500000}, "peak_bytes": {…},
     "decode_tokens_per_second": 49.1, "n_decoded": 256, "prompt_tokens_per_second": null,
     "n_prompt": 0, "when": "2026-11-20T12:00:00Z",
     "concessions": [{"changes": {"n_ubatch": 256}, "sentence": "micro-batch 512 -> 256"}]}
    The last is not there in files of before there was recovery.
    """
    try:
        key = Key(
            devices=tuple(_text(device) for device in _typed(entry["devices"], list)),
            engine=_text(entry["engine"]),
            model=_text(entry["model"]),
            shape=tuple((n, _text(v)) for n, v in _typed(entry["shape"], dict).items()),
        )
        measurement = Measurement(
            extra_bytes=_byte_counts(entry["extra_bytes"]),
            peak_bytes=_byte_counts(entry["peak_bytes"]),
            decode_tokens_per_second=_rate(entry["decode_tokens_per_second"]),
            prompt_tokens_per_second=_rate(entry["prompt_tokens_per_second"]),
            n_decoded=_count(entry["n_decoded"]),
            n_prompt=_count(entry["n_prompt"]),
            concessions=tuple(
                _concession(each) for each in _typed(entry.get("concessions", []), list)
            ),
            when=_text(entry["when"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return key, measurement


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(value)
    return value


def _text(value: Any) -> str:
    text: str = _typed(value, str)
    return text


def _byte_counts(value: Any) -> dict[str, int]:
    return {device: _typed(count, int) for device, count in _typed(value, dict).items()}


def _count(value: Any) -> int:
    count: int = _typed(value, int)
    if count < 0:
        raise ValueError(count)
    return count


def _rate(value: Any) -> float | None:
    if value is None:
        return None
    rate = value if type(value) is float else float(_typed(value, int))
    if not math.isfinite(rate) or rate <= 0:
        raise ValueError(rate)
    return rate


def _concession(value: Any) -> Concession:
    changes: dict[str, Any] = {}
    for name, new in _typed(value["changes"], dict).items():
        kind = FIELDS[name]
        if kind is tuple:
            changes[name] = tuple(_text(each) for each in _typed(new, list))
        else:
            changes[name] = _count(new) if kind is int else _text(new)
    return Concession(changes, _text(value["sentence"]))


def _write(path: Path, experience: Experience) -> None:
    newest = list(experience.measurements.items())[-_MOST_KEYS:]
    entries = {key.text: _to_json(key, measurement) for key, measurement in newest}
    document = {"schema_version": SCHEMA_VERSION, "measurements": entries}
    # mkstemp makes it 0600, and in the same folder, since rename does not cross file systems.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())  # a rename that outlives a power cut must not be of nothing
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _to_json(key: Key, measurement: Measurement) -> dict[str, Any]:
    return {
        "devices": list(key.devices),
        "engine": key.engine,
        "model": key.model,
        "shape": dict(key.shape),
        "extra_bytes": dict(measurement.extra_bytes),
        "peak_bytes": dict(measurement.peak_bytes),
        "decode_tokens_per_second": measurement.decode_tokens_per_second,
        "n_decoded": measurement.n_decoded,
        "prompt_tokens_per_second": measurement.prompt_tokens_per_second,
        "n_prompt": measurement.n_prompt,
        "when": measurement.when,
        "concessions": [
            {"changes": dict(concession.changes), "sentence": concession.sentence}
            for concession in measurement.concessions
        ],
    }


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time; the lock dies with its process.

    A file of its own: the measurements' file is replaced, and a lock on it would be on the old.

    Raises:
        TimeoutError: somebody has held it too long.
        OSError: the file system has no locks, or the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_LOCK_POLL_SECONDS)
        yield  # closing the file gives the lock back


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
