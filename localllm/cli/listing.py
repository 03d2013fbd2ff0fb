"""`localllm list`: the models that are here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from localllm.cli import kept, render
from localllm.cli.fitting import Fit, fits_now
from localllm.store import CheckName, Manifest, Store
from localllm.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_INDENT = 2
CHECKS: tuple[CheckName, ...] = get_args(CheckName)


@dataclass(frozen=True)
class Row:
    """A version of a model.

    Attributes:
        manifest: of it.
        fit: whether it would run now.
        has_others: there are other versions of its name.
        is_in_use: it is the one that its name means.
    """

    manifest: Manifest
    fit: Fit
    has_others: bool
    is_in_use: bool

    @property
    def style(self) -> str:
        """A version that is not in use steps back."""
        return "" if self.is_in_use else "dim"


def run(*, as_json: bool) -> None:
    """Prints every version of every model that is here, by name, the newest first."""
    contents = Store.here().contents()
    rows = _rows(contents.manifests)
    if as_json:
        findings = [vars(each) for each in contents.findings]
        models = [_document(row) for row in rows]
        render.print_json({"schema_version": 1, "models": models, "findings": findings})
    elif rows:
        _print(rows)
    kept.tell(contents.findings)
    if not rows and not as_json:
        render.say("no models are here yet; to get one: localllm pull")


def verified_words(manifest: Manifest) -> str:
    """The day of the oldest check that passed, and those that did not or were never made."""
    if not manifest.verified:
        return "never"
    day = min(manifest.verified.values())[:10]
    missing = [name for name in CHECKS if name not in manifest.verified]
    return f"{day}, not {', '.join(missing)}" if missing else day


def _rows(manifests: Sequence[Manifest]) -> list[Row]:
    store = Store.here()
    n_versions = Counter(each.name for each in manifests)
    current = {name: store.current(name) for name in n_versions}
    return [
        Row(each, fit, n_versions[each.name] > 1, each == current[each.name])
        for each, fit in zip(manifests, fits_now(manifests) if manifests else (), strict=True)
    ]


def _document(row: Row) -> dict[str, Any]:
    return {**kept.document(row.manifest), "in_use": row.is_in_use, "fits_now": vars(row.fit)}


def _print(rows: Sequence[Row]) -> None:
    """As a table, or where the window is too narrow for it as paragraphs."""
    out = kept.table_console()
    table = _table(rows)
    unbounded = out.options.update(width=kept.UNBOUNDED_COLUMNS)
    if out.measure(table, options=unbounded).maximum <= out.width:
        out.print(table)
    else:
        _print_paragraphs(rows, out)


def _table(rows: Sequence[Row]) -> Table:
    left = ("", "model", "quant", "revision", "verified", "fits now")
    table = render.make_table("", "model", "size", *left[2:], left=left)
    for row in rows:
        table.add_row(*_cells(row), style=row.style)
    return table


def _print_paragraphs(rows: Sequence[Row], out: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for row in rows:
        mark, name, size, quant, revision, verified, fits = _cells(row)
        out.print(Text(f"{name} {mark}".rstrip(), f"bold {row.style}"), soft_wrap=True)
        lines = [f"{size} · {quant} · {revision}"]
        for part in (f"verified {verified}", f"fits now: {fits}"):
            longer = f"{lines[-1]} · {part}"
            if len(longer) <= out.width - _INDENT:
                lines[-1] = longer
            else:
                lines.append(part)
        out.print(Padding(Text("\n".join(lines), row.style), (0, 0, 0, _INDENT)))


def _cells(row: Row) -> tuple[str, ...]:
    manifest = row.manifest
    return (
        "→" if row.is_in_use and row.has_others else "",
        kept.typed_name(manifest),
        format_bytes(manifest.size_bytes),
        manifest.quant or "?",
        kept.short(manifest.revision),
        verified_words(manifest),
        row.fit.words,
    )
