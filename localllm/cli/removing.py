"""`localllm rm`, `use`, `prune`: which versions stay here, and which of them a name means."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from localllm.cli import asking, kept, render
from localllm.errors import UsageError
from localllm.store import Manifest, Removal, Store, template_warning
from localllm.store.removal import take_away
from localllm.units import format_bytes


def remove(
    refs: Sequence[str], *, all_versions: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Removes versions: the one in use, the one that is named, or all of a name.

    Raises:
        NotFoundError: there is none. UsageError: several models may be meant, or nobody can be
            asked. DiskError: a manifest cannot be removed.
    """
    store = Store.here()
    going: list[Manifest] = []
    for ref in refs:
        meant = _meant(ref, store, all_versions=all_versions)
        going += [each for each in meant if each not in going]
    staying = [each for each in store.contents().manifests if each not in going]
    # All at once: what two of them share goes with the last.
    expected = take_away(going, staying, dry_run=True)
    if not as_json:
        for each in going:
            _say(f"{kept.typed_version(each)}: {_afterwards(each, going, store)}")
        _show(expected)
    if not dry_run:
        if not _agreed(expected, yes=yes):
            render.say("nothing was removed")
            return
        freed_bytes = sum(store.remove(each).freed_bytes for each in going)
        expected = replace(expected, freed_bytes=freed_bytes)
    if as_json:
        versions = [kept.document(each) for each in going]
        render.print_json({**_document(expected, dry_run=dry_run), "versions": versions})
    elif not dry_run:
        _say(f"removed: {format_bytes(expected.freed_bytes)} are free again")


def use(ref: str, *, as_json: bool) -> None:
    """Makes a name mean another of its versions: the one that is named, or the one before.

    Raises:
        NotFoundError: there is no such version. UsageError: several may be meant.
    """
    store = Store.here()
    before, revision = kept.find_name(ref)
    after = store.use(before.name, revision)
    warning = template_warning(before, after)
    if as_json:
        document = {
            "schema_version": 1,
            "ref": kept.typed_name(after),
            "was": kept.document(before),
            "is": kept.document(after),
            "warnings": [warning] if warning else [],
        }
        render.print_json(document)
        return
    name = kept.typed_name(after)
    if before.revision == after.revision:
        _say(f"{name} means {_version(after)} already")
    else:
        _say(f"{name} now means {_version(after)}; it meant {_version(before)}")
    if warning:
        render.say(f"warning: {warning}")


def prune(*, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Removes what nobody will miss: see Store.prune.

    Raises:
        UsageError: nobody can be asked. DiskError: a manifest cannot be removed.
    """
    store = Store.here()
    kept.tell(store.contents().findings)
    removal = store.prune(time.time(), dry_run=True)
    if not removal.goes:
        if as_json:
            render.print_json(_document(removal, dry_run=dry_run))
        else:
            _show(removal)
            _say("there is nothing to prune")
        return
    if not as_json:
        _show(removal)
    if not dry_run:
        if not _agreed(removal, yes=yes):
            render.say("nothing was removed")
            return
        removal = store.prune(time.time())
    if as_json:
        render.print_json(_document(removal, dry_run=dry_run))
    elif not dry_run:
        _say(f"removed: {format_bytes(removal.freed_bytes)} are free again")


def _meant(ref: str, store: Store, *, all_versions: bool) -> Sequence[Manifest]:
    if not all_versions:
        return [kept.find_one(ref)]
    current, revision = kept.find_name(ref)
    if revision is not None:
        raise UsageError(
            f"{ref} names one version, and --all-versions means all of them",
            f"localllm rm --all-versions {kept.typed_name(current)}",
        )
    return store.versions(current.name)


def _afterwards(manifest: Manifest, going: Sequence[Manifest], store: Store) -> str:
    """What its name means when these are gone: as Store.remove leaves it."""
    gone = {each.revision for each in going if each.name == manifest.name}
    name, current = manifest.name, store.current(manifest.name)
    versions = (current, store.previous(name), *store.versions(name))
    left = next((each for each in versions if each and each.revision not in gone), None)
    if left is None:
        return "the last version of it"
    if current is not None and current.revision not in gone:
        return f"not in use; the name means {_version(left)}"
    return f"in use; the name then means {_version(left)}"


def _version(manifest: Manifest) -> str:
    """A version as people tell them apart."""
    return f"{kept.short(manifest.revision)} of {manifest.pulled_at[:10]}"


def _agreed(removal: Removal, *, yes: bool) -> bool:
    """Whether the person wants it; off a terminal nobody is asked.

    Raises:
        UsageError: there is nobody to ask.
    """
    if yes:
        return True
    what = f"{len(removal.goes)} files and links ({format_bytes(removal.freed_bytes)})"
    return asking.agreed(f"Remove {what}?", f"removing {what}", unless_told=False)


def _show(removal: Removal) -> None:
    """What goes, what stays and why, and what the disk gains."""
    for path in removal.goes:
        _say(f"  goes   {render.home_shortened(str(path))}")
    for each in removal.stays:
        _say(f"  stays  {render.home_shortened(str(each.path))}: {each.why}")
    if removal.goes:
        _say(f"  frees  {format_bytes(removal.freed_bytes)}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _document(removal: Removal, *, dry_run: bool) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "dry_run": dry_run,
        "goes": [str(path) for path in removal.goes],
        "stays": [{"path": str(each.path), "why": each.why} for each in removal.stays],
        "freed_bytes": removal.freed_bytes,
    }
