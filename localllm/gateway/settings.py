"""What a person may choose about the gateway, and serve.yaml, where it is written down.

Values only. Precedence (cli/serve.py): flags, serve.yaml, the defaults here. What llama-server
itself is told is not here but in the Plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from localllm.profiles import Field, read_document, read_profile
from localllm.units import MIB

#: What cannot change while the server runs: its address, its children and its files, and how long
#: it drains, which whoever may have to stop it is told at the start (running.py).
FIXED = frozenset(
    (
        "host", "port", "tls_cert", "tls_key", "replicas", "log_dir", "api_prefix",
        "api_key_file", "insecure", "max_connections", "head_seconds", "drain_seconds",
    )
)  # fmt: skip


@dataclass(frozen=True)
class KeyLimits:
    """What one key may use; None is without limit.

    Attributes:
        requests_per_minute: requests that generate, admitted.
        tokens_per_minute: prompt tokens that were computed and tokens that were written.
        concurrency: requests at the same time, waiting ones included.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Settings:
    """The gateway's own settings. Seconds of 0 mean no limit.

    Attributes:
        host, port: where to listen; port 0 takes a free one. A host that ends in .sock is the path
            of a unix socket.
        api_prefix: put before every path, "/llm"; empty for none.
        replicas: llama-server children; 0 is one per GPU, or one where there is none.
        api_key_file: keys, one a line (credentials.py); None asks for none.
        insecure: listen beyond loopback without keys.
        tls_cert, tls_key: PEM files; both or none.
        allowed_hosts: names, besides this machine's own, under which a browser may come.
        cors_origins: web pages that may use the API: origins, or "*"; none by default.
        queue_limit: requests that may wait for a slot; None is 16 for each slot.
        queue_seconds: how long one may wait.
        deadline_seconds: for a whole request, from its arrival.
        idle_seconds: of silence from llama-server in one request. It pings streams every 30 s, and
            pings do not count.
        slow_client_seconds: of a client that does not take what is sent to it.
        head_seconds, body_seconds: for a client to send its headers; its body.
        drain_seconds: for the requests that run when the server is told to stop.
        body_bytes: largest request body. bodies_bytes: of all requests at the same time.
        max_connections: of clients.
        health_seconds: between two looks at a replica that is ready and has nothing to do.
        wedged_seconds: work in flight and nothing moves: the replica is ended. 0 is never.
        limits: of every key that has none of its own. key_limits: by the key's name.
        log_dir: where the three logs go. None is the state folder's logs/NAME.
        log_prompts: write request bodies into access.log.
        log_bytes: of one log file before it is rotated; log_files: how many are kept.
        performance_seconds: between two lines of performance.log.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_prefix: str = ""
    replicas: int = 1
    api_key_file: Path | None = None
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    queue_limit: int | None = None
    queue_seconds: float = 120.0
    deadline_seconds: float = 3600.0
    idle_seconds: float = 600.0
    slow_client_seconds: float = 60.0
    head_seconds: float = 15.0
    body_seconds: float = 60.0
    drain_seconds: float = 30.0
    body_bytes: int = 64 * MIB
    bodies_bytes: int = 512 * MIB
    max_connections: int = 2048
    health_seconds: float = 30.0
    wedged_seconds: float = 120.0
    limits: KeyLimits = KeyLimits()
    key_limits: Mapping[str, KeyLimits] = field(default_factory=dict)
    log_dir: Path | None = None
    log_prompts: bool = False
    log_bytes: int = 32 * MIB
    log_files: int = 5
    performance_seconds: float = 10.0


_SECONDS = frozenset(of.name for of in fields(Settings) if of.name.endswith("_seconds"))
_SIZES = frozenset(of.name for of in fields(Settings) if of.name.endswith("_bytes"))
_PATHS = frozenset(("api_key_file", "tls_cert", "tls_key", "log_dir"))
_LISTS = frozenset(("allowed_hosts", "cors_origins"))
_LEAST = {"replicas": 0, "queue_limit": 0, "max_connections": 1, "log_files": 1}
_MOST_PORT = 65535
#: An api_prefix: with nothing in it that would have to be escaped.
PREFIX = re.compile(r"(/[\w.~-]+)+", re.ASCII)


def parse_settings(text: str, name: str, base: Settings | None = None) -> Settings:
    """A serve.yaml laid over the base. Relative paths are left as they are.

    Args:
        text: the document.
        name: what to call it in errors.
        base: what holds where the document is silent.

    Raises:
        UsageError: a setting that is not there, or a value that cannot be; with its line.
    """
    base = base or Settings()
    document = read_document(text, name)
    if document.node is None:
        return base
    chosen: dict[str, object] = {}
    for key, value in document.fields((), (of.name for of in fields(Settings))).items():
        chosen[key] = _value(key, value)
    return replace(base, **chosen)  # type: ignore[arg-type]


def read_settings(path: Path, base: Settings | None = None) -> Settings:
    """The file's settings; its relative paths are meant from its own folder.

    Raises:
        UsageError: it cannot be read, or see parse_settings.
    """
    text = read_profile(path, "serve.yaml holds what the flags of localllm serve say")
    base = base or Settings()
    settings = parse_settings(text, str(path), base)
    here = {
        name: path.parent / value
        for name in _PATHS
        if (value := getattr(settings, name)) is not None and value != getattr(base, name)
    }
    return replace(settings, **here)


def _value(key: str, value: Field) -> object:
    if key in _SECONDS:
        return value.number(least=0)
    if key in _SIZES:
        return value.size(least=1)
    if key in _PATHS:
        return _path(value)
    if key in _LISTS:
        return tuple(item.text() for item in value.each())
    if key in ("insecure", "log_prompts"):
        return value.flag()
    if key in _LEAST:
        return value.whole(_LEAST[key])
    if key == "port":
        return _port(value)
    if key == "api_prefix":
        return _prefix(value)
    if key == "limits":
        return _limits(value)
    if key == "key_limits":
        return {name: _limits(of_key) for name, of_key in value.items()}
    return value.text()


def _path(value: Field) -> Path:
    try:
        return Path(value.text()).expanduser()
    except RuntimeError:
        raise value.wrong(f"is in the home of a user whom nobody knows: {value.text()}") from None


def _port(value: Field) -> int:
    port = value.whole()
    if port > _MOST_PORT:
        raise value.wrong(f"must be at most {_MOST_PORT}, not {port}")
    return port


def _prefix(value: Field) -> str:
    prefix = value.text()
    if not PREFIX.fullmatch(prefix):
        raise value.wrong(f"must be a path, not {prefix!r}", "like this: /llm")
    return prefix


def _limits(value: Field) -> KeyLimits:
    found = value.fields((), (of.name for of in fields(KeyLimits)))
    return KeyLimits(**{name: number.whole(1) for name, number in found.items()})
