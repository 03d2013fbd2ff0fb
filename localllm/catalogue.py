"""Short names for models: profiles/models.yaml -> Catalogue.

Knows what an alias stands for and what a person may want to know before choosing it. It does not
know whether a repository is still there; the hub does. Reading YAML is done in profiles.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from localllm.errors import NotFoundError, UsageError
from localllm.profiles import Field, read_document, read_layers
from localllm.quants import find_quant

Task = Literal["chat", "code", "embed", "rerank", "vision", "reasoning"]
_Word = TypeVar("_Word", bound=str)

#: What naming.parse_ref takes for an alias, with the tag written out.
_ALIAS = re.compile(r"[a-z][a-z0-9.-]*:[a-z0-9][a-z0-9.-]*", re.ASCII)
#: The hub's own rule: letters, digits, "-", "_" and ".", 96 characters, no ".git" at the end.
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COUNT = re.compile(r"(\d{1,6})(?:\.(\d{1,3}))?([KMBT])", re.ASCII)
_MONTH = re.compile(r"20\d\d-(0[1-9]|1[0-2])", re.ASCII)
_EXPONENT = {"K": 3, "M": 6, "B": 9, "T": 12}


@dataclass(frozen=True)
class CatalogueEntry:
    """A model under a short name.

    Attributes:
        alias: "qwen3:8b", family and tag.
        repo: the GGUF repository on the Hugging Face hub.
        description: one line.
        n_params: weights; n_params_active: those that a token passes through, fewer where experts
            or per-layer embeddings lie idle.
        released: the month in which its weights were published, "2025-04".
        licence: as its makers name it.
        tasks: what it is made for.
        n_ctx_train: the context it was trained for, tokens.
        quants: those of the usual quantizations that the repository holds, where it does not hold
            all of them; else empty.
        gated: the repository asks for an account and consent before a download.
        source: the page that tells this.
    """

    alias: str
    repo: str
    description: str
    n_params: int
    n_params_active: int
    released: str
    licence: str
    tasks: tuple[Task, ...]
    n_ctx_train: int
    quants: tuple[str, ...]
    gated: bool
    source: str

    @property
    def family(self) -> str:
        """The alias without its tag."""
        return self.alias.partition(":")[0]


@dataclass(frozen=True)
class Catalogue:
    """Entries by alias, and the alias that a family's name alone stands for."""

    entries: Mapping[str, CatalogueEntry]
    defaults: Mapping[str, str]

    def find(self, alias: str) -> CatalogueEntry:
        """The entry of "qwen3:8b", or of the default tag for "qwen3".

        Raises:
            NotFoundError: there is none; the hint names the nearest.
        """
        entry = self.entries.get(self.defaults.get(alias, alias))
        if entry is None:
            raise NotFoundError(f"there is no model called {alias!r}", self._instead(alias))
        return entry

    def _instead(self, alias: str) -> str | None:
        import difflib

        family = alias.partition(":")[0]
        tags = [other for other in self.entries if other.partition(":")[0] == family]
        if tags:
            return f"of {family} there are {', '.join(tags)}"
        near = difflib.get_close_matches(alias, [*self.entries, *self.defaults], n=1)
        return f"did you mean {near[0]}?" if near else None


def parse_models(text: str, name: str, base: Catalogue | None = None) -> Catalogue:
    """A catalogue from YAML; with a base, its entries are added to the base's or replace them.

    Args:
        text: the YAML document.
        name: of the file, for errors.
        base: what to start from.

    Raises:
        UsageError: not YAML, a bad alias or repository, an unknown or a missing key, a value of
            the wrong type, a family with several tags and no default; the sentence names the
            line and the key.
    """
    entries: dict[str, CatalogueEntry] = {}
    defaults: dict[str, str] = {}
    fields: dict[str, Field] = {}
    for alias, field in read_document(text, name).items():
        entry, is_default = _entry(alias, field)
        entries[alias] = entry
        fields[entry.family] = field
        if is_default:
            if entry.family in defaults:
                raise field.wrong(f"is a second default, after {defaults[entry.family]}")
            defaults[entry.family] = alias
    known = dict(base.defaults) if base else {}
    for family, field in fields.items():
        tags = [entry.alias for entry in entries.values() if entry.family == family]
        if family in defaults or family in known:
            continue
        if len(tags) > 1:
            raise field.wrong(f"is one of {len(tags)} of {family}, and none is the default")
        defaults[family] = tags[0]
    if base is None:
        return Catalogue(entries, defaults)
    return Catalogue({**base.entries, **entries}, {**known, **defaults})


def load_catalogue(shipped: Path, user: Path | None = None) -> Catalogue:
    """The shipped catalogue, with the user's own entries over it.

    Precedence: 1. `user`/models.yaml, 2. `shipped`/models.yaml.

    Raises:
        UsageError: as `parse_models`, and for a file that cannot be read.
    """
    return read_layers("models.yaml", parse_models, shipped, user)


def _entry(alias: str, field: Field) -> tuple[CatalogueEntry, bool]:
    """The entry, and whether its family's name alone stands for it."""
    if not _ALIAS.fullmatch(alias):
        raise UsageError(
            f"{field.file}, line {field.line}: {alias!r} is not an alias",
            "write it like qwen3:8b, in lower case",
        )
    found = field.fields(
        (
            "repo",
            "description",
            "parameters",
            "released",
            "licence",
            "tasks",
            "n_ctx_train",
            "gated",
            "source",
        ),
        ("active", "quants", "default"),
    )
    repo = found["repo"].text()
    if not _REPO.fullmatch(repo) or repo.endswith(".git") or ".." in repo or "--" in repo:
        raise found["repo"].wrong(f"must be a repository, org/name, not {repo!r}")
    source = found["source"].text()
    if not source.startswith("https://"):
        raise found["source"].wrong(f"must be a page, https://…, not {source!r}")
    n_params = _count(found["parameters"])
    n_active = _count(found["active"]) if "active" in found else n_params
    if n_active > n_params:
        raise found["active"].wrong("must not be more than its parameters")
    released = found["released"].text()
    if not _MONTH.fullmatch(released):
        raise found["released"].wrong(f"must be a month like 2025-04, not {released!r}")
    entry = CatalogueEntry(
        alias=alias,
        repo=repo,
        description=found["description"].text(),
        n_params=n_params,
        n_params_active=n_active,
        released=released,
        licence=found["licence"].text(),
        tasks=_each_once(found["tasks"], _task),
        n_ctx_train=found["n_ctx_train"].whole(1),
        quants=_each_once(found["quants"], _quant) if "quants" in found else (),
        gated=found["gated"].flag(),
        source=source,
    )
    return entry, "default" in found and found["default"].flag()


def _each_once(field: Field, read: Callable[[Field], _Word]) -> tuple[_Word, ...]:
    """The words of a list that is not empty and has none of them twice."""
    words = tuple(read(item) for item in field.each())
    if not words:
        raise field.wrong("must name one at least")
    if len(set(words)) < len(words):
        raise field.wrong("names one of them twice")
    return words


def _task(field: Field) -> Task:
    return cast(Task, field.one_of(get_args(Task)))


def _quant(field: Field) -> str:
    """A quantization whose bits per weight are known."""
    quant = find_quant(field.text())
    if quant is None or quant.bits_per_weight is None:
        raise field.wrong(f"must be a quantization like Q4_K_M, not {field.text()!r}")
    return quant.name


def _count(field: Field) -> int:
    """Parameters: "8.2B", "596M" or a number."""
    value = field.scalar()
    if isinstance(value, int) and not isinstance(value, bool):
        return field.whole(1)
    match = _COUNT.fullmatch(str(value))
    if match is None:
        raise field.wrong(f"must be a count like 8.2B, not {value!r}")
    whole, decimals, letter = match.groups(default="")
    count: int = int(whole + decimals) * 10 ** (_EXPONENT[letter] - len(decimals))
    if count == 0:
        raise field.wrong("must be above 0")
    return count
