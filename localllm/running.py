"""The servers that run on this machine, each as a file that it writes of itself.

Knows names, processes and those files. Knows nothing of what a server does: that is asked of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localllm import paths
from localllm.errors import AccessError, DiskError, LocalllmError, NotFoundError, UsageError

SCHEMA_VERSION = 1
#: A name is typed, and becomes the name of a file and of a folder.
_NAME_LIMIT = 40
#: A holder of the lock reads and writes a few small files; past this it is stuck.
_LOCK_SECONDS = 10.0
#: Arguments of llama-server and of ours whose value is a secret.
_SECRET_OPTIONS = frozenset(("--api-key", "--hf-token", "-hft"))


@dataclass(frozen=True)
class Running:
    """One server, as it says of itself.

    Attributes:
        name: unique among those that run: "demo", "demo-2".
        pid: its process. created: when that was made (`_created`), so that another process that
            got the same pid later is not taken for it.
        model: what it serves. url: where; empty until it listens.
        started_at: Unix time.
        drain_seconds: how long it waits for its requests when it is told to stop; 0 is no limit.
        log_dir: the folder of its logs.
        control_socket: of the unix socket where it tells of itself over HTTP; None on a system
            without them, and then control_url and control_token are a port of loopback and the
            bearer token that it asks for.
        argv: what it was started with, without secrets.
    """

    name: str
    pid: int
    created: float
    model: str
    started_at: float
    drain_seconds: float
    log_dir: Path
    url: str = ""
    control_socket: str | None = None
    control_url: str = "http://localllm"
    control_token: str = ""
    argv: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Its file."""
        return _folder() / f"{self.name}.json"

    def to_json(self) -> dict[str, Any]:
        """The document form, secrets included: the file is its owner's alone."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "log_dir": str(self.log_dir)}


def claim(
    hint: str,
    *,
    model: str,
    drain_seconds: float,
    log_dir: Path | None = None,
    argv: Sequence[str] = (),
) -> Running:
    """Takes a name for this process, and writes its file.

    Args:
        hint: what the name is made of. Where a living server has it: with -2, -3 ... behind it.
        model: see Running.
        drain_seconds: see Running.
        log_dir: None is the state folder's logs/NAME.
        argv: see Running; its secrets are taken out here.

    Raises:
        DiskError: the file cannot be written.
    """
    pid = os.getpid()
    created = _created(pid)
    assert created is not None, "we are alive"
    paths.private_folder(paths.runtime_dir())
    folder = paths.private_folder(_folder())
    with _locked(folder):
        _sweep(folder)
        name = _free_name(hint, folder)
        # A socket's path is short (paths.SOCKET_PATH_LIMIT), which a name need not be.
        socket = str(folder / f"{secrets.token_hex(4)}.sock") if os.name != "nt" else None
        record = Running(
            name,
            pid,
            created,
            _without_secrets(model),
            time.time(),
            drain_seconds,
            (log_dir or logs_of(name)).absolute(),  # read from other folders, too
            control_socket=socket,
            argv=_shown(argv),
        )
        _write(record)
    return record


def update(record: Running, **changes: Any) -> Running:
    """Writes the file anew, with the changes.

    Raises:
        DiskError: it cannot be written; the old one stands.
    """
    changed = replace(record, **changes)
    _write(changed)
    return changed


def remove(record: Running) -> None:
    """Takes away the file and the control socket; no error where they are gone."""
    for path in (record.path, record.control_socket):
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)


def find_all() -> tuple[Running, ...]:
    """All that run, by name. Files of those that are gone are cleared away.

    Raises:
        AccessError: the folder of these files belongs to somebody else.
    """
    folder = _folder()
    records = list(_read_all(folder))
    living = tuple(record for record in records if is_alive(record))
    if len(living) < len(records):
        with contextlib.suppress(LocalllmError, OSError), _locked(folder):
            _sweep(folder)
    return living


def find(name: str | None = None) -> Running:
    """The server of that name; without one, the only one that runs.

    Raises:
        NotFoundError: there is none. UsageError: there are several to choose from.
    """
    living = find_all()
    if not living:
        what = f"no server named {name} runs" if name else "no server runs"
        raise NotFoundError(what, "to start one: localllm serve MODEL --background")
    names = ", ".join(record.name for record in living)
    if name is None:
        if len(living) > 1:
            raise UsageError(f"{len(living)} servers run", f"name one of them: {names}")
        return living[0]
    for record in living:
        if record.name == name:
            return record
    raise NotFoundError(f"no server named {name} runs", f"there is {names}")


def is_alive(record: Running) -> bool:
    """Whether its process, and not another of the same pid, still runs."""
    return _created(record.pid) == record.created


def terminate(record: Running) -> None:
    """SIGTERM: it drains and ends; a second one means that it is not to wait for requests.

    Nothing happens where its process is gone.

    Raises:
        AccessError: it is another user's.
    """
    import psutil

    if not is_alive(record):
        return
    try:
        psutil.Process(record.pid).terminate()  # looks again whose pid it is
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as exc:
        raise AccessError(
            f"process {record.pid} of {record.name} may not be stopped by this user"
        ) from exc


def logs_of(name: str) -> Path:
    """The folder of the logs of a server of that name, unless it was told another one."""
    return paths.state_dir() / "logs" / name


def engine_logs(record: Running) -> tuple[Path, ...]:
    """What its llama-servers printed: a file in the run folder of each (engine/guarded.py)."""
    return tuple(sorted(paths.runtime_dir().glob(f"engine-{record.pid}-*/engine.log")))


def _folder() -> Path:
    return paths.runtime_dir() / "servers"


def _created(pid: int) -> float | None:
    """When the process was made, in a measure that never changes; None where it is gone."""
    import psutil

    try:
        # On Linux this is counted from the boot: the time of day that psutil makes of it moves
        # whenever the clock is set, which a machine without a clock of its own does long after
        # its services have started.
        booted_at = psutil.boot_time() if psutil.LINUX else 0.0
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return round(process.create_time() - booted_at, 2)
    except psutil.NoSuchProcess:
        return None


def _free_name(hint: str, folder: Path) -> str:
    # Lower case: there are file systems to which Demo and demo are one.
    base = re.sub(r"[^a-z0-9._]+", "-", hint.lower())[:_NAME_LIMIT].strip("-._") or "server"
    n = 1
    while True:
        name = base if n == 1 else f"{base}-{n}"
        if not (folder / f"{name}.json").exists():
            return name
        n += 1


def _sweep(folder: Path) -> None:
    """Clears away the files of processes that are gone; for the holder of the lock.

    A file that cannot be read (a newer localllm's) is left alone.
    """
    for record in _read_all(folder):
        if not is_alive(record):
            remove(record)


def _read_all(folder: Path) -> Iterator[Running]:
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        try:
            yield _parse(json.loads(path.read_text(encoding="utf-8")), path.stem)
        except PermissionError as exc:
            raise AccessError(f"cannot read {path}: {exc.strerror}") from exc
        except (OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or not one of ours
            continue


def _parse(document: Mapping[str, Any], name: str) -> Running:
    """What to_json made; raises what _read_all expects.

    {"schema_version": 1, "name": "demo", "pid": 4711, "created": 81723.07, "model": "demo",
     "started_at": 1795192321.2, "drain_seconds": 30.0, "log_dir": "/home/me/…/logs/demo",
     "url": "http://127.0.0.1:8080", "control_socket": "/run/user/1000/localllm/servers/1f.sock",
     "control_url": "http://localllm", "control_token": "", "argv": ["serve", "demo"]}
    """
    if document["schema_version"] != SCHEMA_VERSION or document["name"] != name:
        raise ValueError(name)
    socket = document["control_socket"]
    return Running(
        name,
        int(document["pid"]),
        float(document["created"]),
        str(document["model"]),
        float(document["started_at"]),
        float(document["drain_seconds"]),
        Path(document["log_dir"]),
        url=str(document["url"]),
        control_socket=None if socket is None else str(socket),
        control_url=str(document["control_url"]),
        control_token=str(document["control_token"]),
        argv=tuple(str(word) for word in document["argv"]),
    )


def _write(record: Running) -> None:
    try:
        # mkstemp makes it 0600, and in the same folder, since rename does not cross file systems.
        descriptor, name = tempfile.mkstemp(dir=record.path.parent, prefix=".", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(record.to_json(), file, indent=1)
            temporary.replace(record.path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise DiskError(
            f"cannot write {record.path}: {exc.strerror or exc}",
            "free some space there, or set LOCALLLM_HOME to a folder that you may write to",
        ) from exc


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time takes a name or clears away; the lock dies with its holder."""
    import filelock  # 30 ms that most commands need not spend

    lock = folder / ".lock"
    try:
        with filelock.FileLock(lock, timeout=_LOCK_SECONDS, mode=0o600):
            yield
    except filelock.Timeout as exc:
        raise DiskError(
            f"another process has held {lock} for {_LOCK_SECONDS:.0f} s", "try again"
        ) from exc


def _shown(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line without what nobody else may know."""
    words = [_without_secrets(word) for word in argv]
    for at, word in enumerate(words):
        option, equals, _ = word.partition("=")
        # llama-server takes --api_key for --api-key.
        if option.replace("_", "-") not in _SECRET_OPTIONS:
            continue
        if equals:
            words[at] = f"{option}=…"
        elif at + 1 < len(words):
            words[at + 1] = "…"
    return tuple(words)


def _without_secrets(word: str) -> str:
    """A URL without its user and its query: a signed one is a key by itself."""
    if "://" not in word:
        return word
    return re.sub(r"\?.*", "?…", re.sub(r"://[^/@]*@", "://", word))
