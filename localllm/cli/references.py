"""What a person types for a model, and the way to where it may be."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from localllm import paths
from localllm.errors import NotFoundError, UsageError
from localllm.hub import open_source
from localllm.hub.address import without_secrets
from localllm.hub.patience import Limits
from localllm.hub.source import Source
from localllm.hub.web import Web
from localllm.naming import ModelRef, parse_ref
from localllm.profiles import load_policy


def make_web(*, offline: bool = False) -> Web:
    """The way to the network, as patient as the policy says.

    Args:
        offline: nobody is to be asked. The hub's own switch, HF_HUB_OFFLINE, means the same.
    """
    policy = load_policy(paths.shipped_profiles_dir(), paths.config_dir())
    limits = Limits(
        idle_seconds=policy.download_idle_seconds,
        attempts=policy.download_attempts,
        wait_seconds=policy.download_wait_seconds,
    )
    switches = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    # The values that huggingface_hub takes for true (constants.py).
    is_off = any(value.upper() in ("1", "ON", "YES", "TRUE") for value in switches)
    return Web(limits, offline=offline or is_off)


def resolve(ref: str | ModelRef) -> ModelRef:
    """The reference, read, and an alias of the catalogue replaced by the repository it stands for.

    Raises:
        UsageError: not a reference. NotFoundError: no such alias.
    """
    parsed = parse_ref(ref) if isinstance(ref, str) else ref
    if parsed.kind != "alias":
        return parsed
    from localllm.catalogue import load_catalogue

    if Path(parsed.text).exists():  # the hint about ./ is of more use than one about aliases
        return parsed
    assert parsed.repo is not None
    entry = load_catalogue(paths.shipped_profiles_dir(), paths.config_dir()).find(parsed.repo)
    return replace(parsed, kind="hf", repo=entry.repo)


def expanded(ref: str) -> Path:
    """The path that a person typed, with their home in it.

    Raises:
        NotFoundError: it begins with somebody's home who is not known.
    """
    try:
        return Path(ref).expanduser()
    except RuntimeError:  # ~nobody-knows/x
        raise NotFoundError(f"{ref!r} begins with an unknown user's home", "write it out") from None


def shown(parsed: ModelRef) -> str:
    """The reference as it may be shown and kept: a URL may hold secrets."""
    return without_secrets(parsed.text) if parsed.kind == "url" else parsed.text


def source_of(parsed: ModelRef, web: Web) -> tuple[Source, str | None]:
    """The source that a reference names, and the one file of it where it names one.

    Raises:
        UsageError: it names something on this disk.
    """
    if parsed.kind in ("demo", "file", "alias"):
        raise UsageError(f"{parsed.text!r} is not a repository", "name it as org/repo, or a URL")
    return open_source(parsed, web)
