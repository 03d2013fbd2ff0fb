"""profiles/*.yaml -> Policy: the judgement numbers, schema-checked.

The only room that reads YAML. Texts come in as strings with the name to quote in errors; finding
and reading the files is done in `load_policy` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import yaml


@dataclass(frozen=True)
class Policy:
    """The numbers that somebody had to decide. Meanings and reasons: profiles/policy.yaml."""

    n_ctx_wished: int
    n_ctx_least: int
    n_parallel_serve: int
    n_batch: int
    n_ubatch: int
    type_kv: str
    host_reserve_bytes: int
    group_reserve_bytes: int
    host_overhead_bytes: int
    device_reserve_bytes: int
    cache_ram_bytes_chat: int
    cache_ram_bytes_serve: int
    gomp_spincount: int


def parse_policy(text: str, name: str, base: Policy | None = None) -> Policy:
    """A policy from YAML; with a base, keys that are left out keep the base's values.

    Args:
        text: the YAML document.
        name: of the file, for errors.
        base: what to start from.

    Raises:
        UsageError: not YAML, an unknown or a missing key, a value of the wrong type; the
            sentence names the line and the key.
    """
    kinds = {field.name: str(field.type) for field in fields(Policy)}
    values: dict[str, Any] = {}
    for key, line, node in _entries(text, name):
        if key not in kinds:
            raise UsageError(f"{name}, line {line}: there is no setting {key!r}", _nearest(key))
        value = _value(key, node, name)
        if kinds[key] == "int" and (not isinstance(value, int) or isinstance(value, bool)):
            raise UsageError(f"{name}, line {line}: {key} must be a whole number, not {value!r}")
        if kinds[key] == "int" and value < 0:
            raise UsageError(f"{name}, line {line}: {key} must not be negative, not {value}")
        if kinds[key] == "str" and not isinstance(value, str):
            raise UsageError(f"{name}, line {line}: {key} must be text, not {value!r}")
        values[key] = value
    if base is not None:
        return replace(base, **values)
    missing = sorted(kinds.keys() - values.keys())
    if missing:
        raise UsageError(f"{name}: the setting {missing[0]!r} is missing")
    return Policy(**values)


def load_policy(shipped: Path, user: Path | None = None) -> Policy:
    """The shipped policy, overridden by the user's own file where there is one.

    Precedence: 1. `user`/policy.yaml, 2. `shipped`/policy.yaml.

    Raises:
        UsageError: as `parse_policy`, and for a file that cannot be read.
    """
    path = shipped / "policy.yaml"
    policy = parse_policy(_read(path, "install localllm again"), str(path))
    if user is not None and (user / "policy.yaml").is_file():
        path = user / "policy.yaml"
        policy = parse_policy(_read(path, f"chmod u+r {path}"), str(path), policy)
    return policy


def _read(path: Path, hint: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}", hint) from exc
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None


def _entries(text: str, name: str) -> Iterator[tuple[str, int, yaml.Node]]:
    """The top-level keys with their line numbers, which yaml.safe_load would lose."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise UsageError(f"{name}, line {line}: not YAML: {exc.problem}") from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise UsageError(f"{name}, line {line}: not YAML: {exc.reason}") from None
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{name}, line 1: expected keys with values")
    seen: set[str] = set()
    for key_node, value_node in root.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen:
            raise UsageError(f"{name}, line {line}: the setting {key!r} occurs twice")
        seen.add(key)
        yield key, line, value_node


def _value(key: str, node: yaml.Node, name: str) -> Any:
    """The value of `key: {value: …, because: …}`; a user may write `key: value` alone."""
    import yaml

    try:
        value = yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as exc:  # an unknown tag; a date such as 2026-13-32
        wrong = (exc.problem if isinstance(exc, yaml.MarkedYAMLError) else None) or exc
        line = node.start_mark.line + 1
        raise UsageError(f"{name}, line {line}: {key} cannot be read: {wrong}") from None
    if not isinstance(value, dict):
        return value
    if "value" not in value or value.keys() - {"value", "because"}:
        line = node.start_mark.line + 1
        raise UsageError(f"{name}, line {line}: {key} needs a value (and may say because)")
    return value["value"]


def _nearest(key: str) -> str | None:
    import difflib

    near = difflib.get_close_matches(key, [field.name for field in fields(Policy)], n=1)
    return f"did you mean {near[0]}?" if near else None
