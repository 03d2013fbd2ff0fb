"""Where things live on this machine.

Precedence, for every folder: 1. `LOCALLLM_HOME` (moves all of it), 2. the platform's own custom
(XDG on Linux, Library on macOS, AppData on Windows), as platformdirs knows it.

Folders are named here and made by whoever writes into them, through `private_folder`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from localllm.errors import DiskError

_APP = "localllm"
#: sun_path holds 108 bytes on Linux and 104 on macOS, the terminating NUL included (unix(7)).
SOCKET_PATH_LIMIT = 103


def _home() -> Path | None:
    home = os.environ.get("LOCALLLM_HOME")
    # Path.expanduser raises over a ~name that nobody has; this one leaves it alone.
    return Path(os.path.expanduser(home)) if home else None


def config_dir() -> Path:
    """Settings a person writes: config.yaml, own profiles."""
    import platformdirs

    home = _home()
    return home / "config" if home else Path(platformdirs.user_config_dir(_APP, appauthor=False))


def cache_dir() -> Path:
    """What can be made again: engine wheels, the memory's bandwidth, stripped headers."""
    import platformdirs

    home = _home()
    return home / "cache" if home else Path(platformdirs.user_cache_dir(_APP, appauthor=False))


def data_dir() -> Path:
    """What a person would miss: models, chat sessions."""
    import platformdirs

    home = _home()
    return home / "data" if home else Path(platformdirs.user_data_dir(_APP, appauthor=False))


def state_dir() -> Path:
    """What a run leaves behind: input history, the last model, measurements, logs."""
    import platformdirs

    home = _home()
    return home / "state" if home else Path(platformdirs.user_state_dir(_APP, appauthor=False))


def measurements_file() -> Path:
    """What earlier runs took and how fast they were."""
    return state_dir() / "measurements.json"


def runtime_dir() -> Path:
    """Sockets and pid files of running engines, short enough for a unix socket underneath.

    The platform's runtime folder can be deep (a `LOCALLLM_HOME` in a deep tree); a socket under
    it would then not bind, so such a path gives way to one in the temporary folder (/tmp where
    that one is deep too), named after the user and, through a digest, after the path that it
    stands for.
    """
    home = _home()
    # /run/user/UID exists only for a login session: a service or a container has none, and after
    # `su` the variable may still name somebody else's.
    session = os.environ.get("XDG_RUNTIME_DIR")
    if home:
        wanted = home / "run"
    elif session and Path(session).is_dir() and os.access(session, os.W_OK | os.X_OK):
        wanted = Path(session) / _APP
    else:
        wanted = Path(tempfile.gettempdir()) / f"{_APP}-{_user_id()}"
    if _has_room_for_a_socket(wanted):
        return wanted
    import hashlib

    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:8]
    name = f"{_APP}-{_user_id()}-{digest}"
    # TMPDIR may be deep itself: macOS's takes 49 of the 103 bytes, a batch system's takes more.
    short = Path(tempfile.gettempdir()) / name
    return short if _has_room_for_a_socket(short) else Path("/tmp") / name  # noqa: S108


def models_dir() -> Path:
    """Where downloaded models of our own layout go."""
    return data_dir() / "models"


def shipped_profiles_dir() -> Path:
    """The profiles that came with localllm: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    in_wheel = package / "shipped" / "profiles"
    return in_wheel if in_wheel.is_dir() else package.parent / "profiles"


def private_folder(path: Path) -> Path:
    """Makes the folder, open to its owner alone, and returns it.

    Parents that are missing are made the same way; those that exist are left as they are.

    Raises:
        DiskError: it cannot be made, or exists and belongs to somebody else.
    """
    try:
        # mkdir's own parents=True would give the mode to the last folder only.
        for folder in reversed((path, *path.parents)):
            folder.mkdir(exist_ok=True, mode=0o700)
        status = path.stat()
    except OSError as exc:
        raise DiskError(
            f"cannot make the folder {path}: {exc.strerror}",
            "set LOCALLLM_HOME to a folder that you may write to",
        ) from exc
    # A folder in /tmp that somebody else made first would hand them our sockets.
    if _uid() not in (None, status.st_uid):
        raise DiskError(
            f"{path} belongs to another user",
            "remove it, or set LOCALLLM_HOME to a folder of your own",
        )
    if _uid() is not None and stat.S_IMODE(status.st_mode) & 0o077:
        with contextlib.suppress(OSError):  # a FAT or Windows disk has no modes to set
            path.chmod(0o700)
    return path


def _has_room_for_a_socket(folder: Path) -> bool:
    room = len("/engine-4194304-xxxxxxxx/llama.sock")
    return len(os.fsencode(folder)) + room <= SOCKET_PATH_LIMIT


def _uid() -> int | None:
    return os.getuid() if hasattr(os, "getuid") else None


def _user_id() -> str:
    uid = _uid()
    return os.environ.get("USERNAME", "user") if uid is None else str(uid)
