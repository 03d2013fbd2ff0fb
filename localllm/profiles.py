"""profiles/*.yaml -> values that know their line, and the Policy: the judgement numbers.

The only room that reads YAML; presets.py and catalogue.py say what the other files mean. Texts
come in as strings with the name to quote in errors; `read_profile` alone opens a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from localllm.errors import UsageError
from localllm.units import parse_bytes, parse_rate

if TYPE_CHECKING:
    import yaml

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class Goal:
    """What a plan is for. Contexts are tokens of one slot, speeds tokens per second of decoding.

    Attributes:
        name: "chat", "serve" or "long-context".
        n_parallel: slots.
        n_ctx_wished: the context that is enough.
        n_ctx_least: below it the goal is not met, and a plan is refused.
        price_context_halving: for each halving of the context below the wished one.
        speed_least: below it a plan is hardly usable.
        speed_comfortable: above it more speed hardly matters.
        cache_ram_bytes: for old prompts on the host, where so much is left.
        batch_seconds: what one batch of a prompt may take; 0 where nobody waits for its end.
    """

    name: str
    n_parallel: int
    n_ctx_wished: int
    n_ctx_least: int
    price_context_halving: float
    speed_least: float
    speed_comfortable: float
    cache_ram_bytes: int
    batch_seconds: float


@dataclass(frozen=True)
class Policy:
    """The numbers that somebody had to decide. Meanings and reasons: profiles/policy.yaml."""

    goals: Mapping[str, Goal]
    n_batch: int
    n_batch_least: int
    n_ubatch: int
    n_ubatch_experts: int
    host_reserve_bytes: int
    group_reserve_bytes: int
    host_overhead_bytes: int
    device_reserve_bytes: int
    device_display_bytes: int
    device_overhead_bytes: int
    unified_overhead_bytes: int
    device_growth_bytes: int
    price_kv_q8_0: float
    price_leaving_device: float
    price_slow_halving: float
    price_unusable_halving: float
    price_fast_halving: float
    price_unnoticed: float
    speed_first_factor: float
    speed_plenty: float
    host_bandwidth_share: float
    host_sheet_share: float
    device_bandwidth_share: float
    thread_bytes_per_second: float
    thread_bytes_per_second_plain: float
    thread_flops: float
    thread_flops_plain: float
    device_flops_per_byte: float
    unified_flops_per_byte: float
    host_layer_seconds: float
    device_layer_seconds: float
    speed_error: float
    host_bytes_per_second: float
    device_bytes_per_second: float
    price_model_halving: float
    model_doublings_per_year: float
    n_ctx_checkpoints: int
    checkpoints_share: float
    cache_reuse: int
    canary_seconds: float
    disk_reserve_bytes: int
    download_connections: int
    download_idle_seconds: float
    download_attempts: int
    download_wait_seconds: float
    gomp_spincount: int
    gomp_spincount_per_core: int
    weight_bytes_per_thread: int

    def goal(self, name: str) -> Goal:
        """The goal of that name.

        Raises:
            UsageError: there is none.
        """
        if name not in self.goals:
            known = ", ".join(self.goals)
            raise UsageError(f"there is no goal {name!r}", _nearest(name, self.goals) or known)
        return self.goals[name]


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
    kinds = {field.name: str(field.type) for field in fields(Policy) if field.name != "goals"}
    values: dict[str, Any] = {}
    goals = dict(base.goals) if base is not None else {}
    for key, field in read_document(text, name).items():
        if key == "goals":
            for goal_name, goal in field.items():
                goals[goal_name] = _goal(goal_name, goal, goals.get(goal_name))
        else:
            values[key] = _judgement(field, kinds)
    values["goals"] = goals
    if base is not None:
        return replace(base, **values)
    missing = sorted(kinds.keys() - values.keys()) or ([] if goals else ["goals"])
    if missing:
        raise UsageError(f"{name}: the setting {missing[0]!r} is missing")
    return Policy(**values)


def _goal(name: str, field: Field, base: Goal | None) -> Goal:
    """One of the policy's goals, laid over the one that it replaces."""
    kinds = {each.name: str(each.type) for each in fields(Goal) if each.name != "name"}
    values = {key: _judgement(value, kinds) for key, value in field.items()}
    if base is None:
        for key in kinds:
            if key not in values:
                raise replace(field, key=f"{field.key}.{key}").wrong("is missing")
        goal = Goal(name, **values)
    else:
        goal = replace(base, **values)
    if not 0 < goal.n_ctx_least <= goal.n_ctx_wished:
        raise field.wrong("needs an n_ctx_least above 0 and at most n_ctx_wished")
    if goal.n_parallel < 1:
        raise field.wrong("needs an n_parallel of at least 1")
    return goal


def _judgement(field: Field, kinds: Mapping[str, str]) -> Any:
    """The number in `key: {value: …, because: …}`; a user may write `key: number` alone."""
    key = field.key.rpartition(".")[2]
    if key not in kinds:
        message = f"{field.file}, line {field.line}: there is no setting {field.key!r}"
        raise UsageError(message, _nearest(key, kinds))
    if field.is_mapping:
        found = dict(field.items())
        if "value" not in found or found.keys() - {"value", "because"}:
            raise field.wrong("needs a value (and may say because)")
        field = replace(found["value"], key=field.key)
    if key.endswith("_bytes"):
        return field.size()
    return field.whole() if kinds[key] == "int" else field.number(least=0.0)


def load_policy(shipped: Path, user: Path | None = None) -> Policy:
    """The shipped policy, overridden by the user's own file where there is one.

    Precedence: 1. `user`/policy.yaml, 2. `shipped`/policy.yaml.

    Raises:
        UsageError: as `parse_policy`, and for a file that cannot be read.
    """
    return read_layers("policy.yaml", parse_policy, shipped, user)


def read_layers(
    file: str,
    parse: Callable[[str, str, _Parsed | None], _Parsed],
    shipped: Path,
    user: Path | None,
) -> _Parsed:
    """The shipped file, parsed, with the user's own of the same name laid over it.

    Args:
        file: the name, the same in both folders.
        parse: text, name for errors, and what to start from -> the nouns.
        shipped: the folder that came with localllm.
        user: the user's folder; None leaves it out.
    """
    path = shipped / file
    value = parse(read_profile(path, "install localllm again"), str(path), None)
    if user is not None and (user / file).is_file():
        path = user / file
        value = parse(read_profile(path, f"chmod u+r {path}"), str(path), value)
    return value


@dataclass(frozen=True)
class Field:
    """One value of a YAML document, and where it stands.

    Every reading method raises a UsageError that names the file, the line and the key.

    Attributes:
        file: the document's name, for errors.
        key: the way to the value: "accelerators[0].total"; "" for the whole document.
        line: where its key is written; where it begins itself in a list.
        node: what YAML has there.
    """

    file: str
    key: str
    line: int
    node: yaml.Node | None

    def wrong(self, what: str, hint: str | None = None) -> UsageError:
        """The error that this value is: "FILE, line 3: memory.total must be a size"."""
        subject = f"{self.key} " if self.key else ""
        return UsageError(f"{self.file}, line {self.line}: {subject}{what}", hint)

    def items(self) -> Iterator[tuple[str, Field]]:
        """The keys with their values, each key once."""
        import yaml

        if self.node is None or self.node.tag == "tag:yaml.org,2002:null":
            return
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(
                "must hold keys with values" if self.key else "expected keys with values"
            )
        seen: set[str] = set()
        for key_node, node in self.node.value:
            key = str(key_node.value)
            field = Field(self.file, self._within(key), key_node.start_mark.line + 1, node)
            if key in seen:
                raise field.wrong("occurs twice")
            seen.add(key)
            yield key, field

    def fields(self, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Field]:
        """The values of these keys; all of the required ones, and no others."""
        required = list(required)
        known = [*required, *optional]
        found: dict[str, Field] = {}
        for key, field in self.items():
            if key not in known:
                message = f"{self.file}, line {field.line}: there is no setting {field.key!r}"
                raise UsageError(message, _nearest(key, known))
            found[key] = field
        for key in required:
            if key not in found:
                raise replace(self, key=self._within(key)).wrong("is missing")
        return found

    def each(self) -> list[Field]:
        """The items of a list."""
        import yaml

        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong("must be a list")
        return [
            Field(self.file, f"{self.key}[{at}]", node.start_mark.line + 1, node)
            for at, node in enumerate(self.node.value)
        ]

    def scalar(self) -> Any:
        """The value as YAML reads it."""
        import yaml

        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong("must be a single value")
        return _construct(self.key, self.node, self.file)

    def text(self) -> str:
        """Words, on one line."""
        value = self.scalar()
        if not isinstance(value, str):
            # 9.0 and "9.0" look alike and are not: YAML would make 9 of a version.
            raise self.wrong(f"must be text, not {value!r}", f'in quotes, "{value}" is text')
        if not value.strip():
            raise self.wrong("must not be empty")
        return " ".join(value.split())

    def one_of(self, choices: Iterable[str]) -> str:
        """One of these words."""
        words, value = list(choices), self.text()
        if value not in words:
            raise self.wrong(f"must be one of {', '.join(words)}, not {value!r}")
        return value

    def flag(self) -> bool:
        """True or false."""
        value = self.scalar()
        if not isinstance(value, bool):
            raise self.wrong(f"must be true or false, not {value!r}")
        return value

    def whole(self, least: int = 0) -> int:
        """A whole number, not below the least."""
        value = self.scalar()
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(f"must be a whole number, not {value!r}")
        if value < least:
            raise self.wrong(f"must be at least {least}, not {value}")
        return value

    def number(self, least: float | None = None) -> float:
        """A number, not below the least; above zero where none is given."""
        value = self.scalar()
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(f"must be a number, not {value!r}")
        if least is None and not (math.isfinite(value) and value > 0):
            raise self.wrong(f"must be above 0, not {value}")
        if least is not None and not (math.isfinite(value) and value >= least):
            raise self.wrong(f"must be at least {least:g}, not {value}")
        return float(value)

    @property
    def is_mapping(self) -> bool:
        """Whether it holds keys with values."""
        import yaml

        return isinstance(self.node, yaml.MappingNode)

    def size(self, least: int = 0) -> int:
        """Bytes, as a number or as "24 GiB"."""
        n_bytes: int = self._quantity("a size", int, parse_bytes)
        if n_bytes < least:
            raise self.wrong(f"must be at least {least} bytes, not {n_bytes}")
        return n_bytes

    def rate(self) -> float:
        """Bytes per second, as a number or as "936 GB/s"."""
        per_second: float = self._quantity("a rate", (int, float), parse_rate)
        if not math.isfinite(per_second) or per_second <= 0:
            raise self.wrong(f"must be above 0, not {per_second}")
        return float(per_second)

    def _quantity(self, what: str, kinds: Any, parse: Callable[[str], _Parsed]) -> Any:
        value = self.scalar()
        if isinstance(value, kinds) and not isinstance(value, bool):
            if value < 0:
                raise self.wrong(f"must not be negative, not {value}")
            return value
        if not isinstance(value, str):
            raise self.wrong(f"must be {what}, not {value!r}")
        if value.lstrip().startswith("-"):
            raise self.wrong(f"must not be negative, not {value!r}")
        try:
            return parse(value)
        except UsageError as exc:
            raise self.wrong(f"must be {what}, not {value!r}", exc.hint) from None

    def _within(self, key: str) -> str:
        return f"{self.key}.{key}" if self.key else key


def read_document(text: str, name: str) -> Field:
    """A YAML document as the one value that holds all others.

    Raises:
        UsageError: it is not YAML.
    """
    return Field(name, "", 1, _compose(text, name))


def read_profile(path: Path, hint: str) -> str:
    """The text of a file.

    Raises:
        UsageError: it cannot be read, with that hint, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}", hint) from exc
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None


def _compose(text: str, name: str) -> yaml.Node | None:
    """The nodes of the document, with the line numbers that yaml.safe_load would lose."""
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise UsageError(f"{name}, line {line}: not YAML: {exc.problem}") from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise UsageError(f"{name}, line {line}: not YAML: {exc.reason}") from None
    except RecursionError:
        raise UsageError(f"{name} is nested too deep to be read") from None


def _construct(key: str, node: yaml.Node, name: str) -> Any:
    import yaml

    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as exc:  # an unknown tag; a date such as 2026-13-32
        wrong = (exc.problem if isinstance(exc, yaml.MarkedYAMLError) else None) or exc
        line = node.start_mark.line + 1
        raise UsageError(f"{name}, line {line}: {key} cannot be read: {wrong}") from None


def _nearest(key: str, known: Iterable[str]) -> str | None:
    import difflib

    near = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {near[0]}?" if near else None
