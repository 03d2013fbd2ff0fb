"""What a reference names: the demo, a file, a folder of quantizations, a repository."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localllm import demo
from localllm.cli import offers
from localllm.cli.found import FoundModels
from localllm.cli.references import expanded, resolve, shown, source_of
from localllm.errors import IntegrityError, LocalllmError, NetworkError, NotFoundError
from localllm.hub import known, localfile
from localllm.hub.opened import Opened
from localllm.hub.web import Web
from localllm.naming import ModelRef
from localllm.store import Manifest, Store
from localllm.store.checks import is_untouched
from localllm.variants import RepoFile


def find_here(ref: str | ModelRef, quant: str | None = None) -> FoundModels:
    """Reads the headers of what the reference names on this disk.

    Args:
        ref: what the person typed.
        quant: the one of a repository that is meant; a folder's are the planner's to choose.

    Raises:
        NotFoundError: no such file, a missing shard, or a name that is not on this disk.
        IntegrityError: a check found it damaged.
        GgufError, AccessError, UsageError: see `localfile.open_model`.
    """
    parsed = resolve(ref)
    ref = shown(parsed)
    if parsed.kind == "demo":
        return FoundModels((localfile.open_model(demo.model_path(), ref, "demo"),))
    if parsed.kind == "file":
        path = expanded(ref)
        if path.is_dir():
            return FoundModels(tuple(localfile.open_folder(path, ref)))
        if path.suffix.lower() == ".llamafile":
            return _find_extracted(path, ref)
        return FoundModels((localfile.open_model(path, ref, "file"),))
    for kind, test in (("folder", Path.is_dir), ("file", Path.is_file)):
        if test(Path(ref)):
            message = f"there is no model called {ref!r}"
            raise NotFoundError(message, f"for the {kind}, write ./{ref}")
    kept = find_kept(parsed, quant)
    if not kept:
        raise NotFoundError(f"{ref} is not on this disk", f"localllm pull {ref}")
    models = tuple(open_kept(each, ref) for each in kept)
    return FoundModels(models, kept=kept, note=_doubt(kept, ref))


def find_there(
    ref: str | ModelRef, web: Web, quant: str | None = None, file: str | None = None
) -> FoundModels:
    """Reads the headers of what a repository offers, and keeps what they tell.

    Args:
        ref: what the person typed: a repository, a URL, an alias.
        web: the way there.
        quant: the only one that is meant.
        file: the only file that is meant, as the repository lists it.

    Raises:
        NetworkError, AccessError, NotFoundError: it is not to be had.
        UsageError: a file on this disk, which is nowhere else; or a quantization that may be any
            of several.
        IntegrityError: it names a file that must not be written.
    """
    parsed = resolve(ref)
    source, its_file = source_of(parsed, web)
    return offers.find_in(source, shown(parsed), quant or parsed.quant, file or its_file)


def find_models(ref: str | ModelRef, web: Web, quant: str | None = None) -> FoundModels:
    """What there is to plan with: here, there, or seen before.

    Order: 1. files and folders; what was there once, from memory; 2. a repository, asked now;
    3. when it does not answer: what it was when it last did; 4. what was pulled of it.

    Raises:
        As `find_here` and `find_there`.
    """
    parsed = resolve(ref)
    if parsed.kind in ("demo", "file"):
        key = f"file:{expanded(parsed.text).absolute()}"
        try:
            found = find_here(parsed)
        except NotFoundError:
            seen = known.recall(key)
            if seen is None or not seen.models:
                raise
            return FoundModels(tuple(map(offers.from_memory, seen.models)), seen=seen.when)
        if parsed.kind == "file" and not found.kept:
            offers.remember(key, None, found.models, known.recall(key))
        return found
    try:
        return find_there(parsed, web, quant)
    except NetworkError as error:
        return _without_network(parsed, web, quant, error)


def find_kept(parsed: ModelRef, quant: str | None = None) -> tuple[Manifest, ...]:
    """What was pulled of a repository, one version of each of its models.

    The version in use, or the one that the reference names. Of a file: the version whose file it
    is, or whose llamafile.
    """
    store = Store.here()
    if parsed.kind == "file":
        path = expanded(parsed.text).absolute()
        if path.suffix.lower() != ".llamafile":
            return _manifests_of(path)
        kept = store.find("url", path.parent.as_uri())
        return tuple(each for each in kept if _has_file(each, path.name))
    source, file = source_of(parsed, Web(offline=True))
    kept = store.find(source.kind, source.repo, revision=parsed.revision)
    if source.kind == "url":
        # A server's folder stands for a repository, of which the URL may name one file.
        name = unquote(urlsplit(parsed.text).path).rpartition("/")[2]
        file = name if name.lower().endswith((".gguf", ".llamafile")) else None
    wanted = quant or parsed.quant
    if file is not None:
        kept = tuple(each for each in kept if _has_file(each, file))
    if wanted is not None:
        kept = tuple(each for each in kept if each.label.upper() == wanted.upper())
    return kept


def _manifests_of(path: Path) -> tuple[Manifest, ...]:
    """The version whose file in the store this is."""
    manifests = Store.here().contents().manifests
    return tuple(m for m in manifests if any(f.location == str(path) for f in m.files))[:1]


def _has_file(manifest: Manifest, path: str) -> bool:
    return any(each.path == path for each in manifest.files)


def _without_network(
    parsed: ModelRef, web: Web, quant: str | None, error: NetworkError
) -> FoundModels:
    """What was seen of a repository that does not answer, or what was pulled of it."""
    source, file = source_of(parsed, web)
    seen = known.recall(source.key)
    if seen is not None and seen.listing is not None:
        with contextlib.suppress(LocalllmError):
            variants = offers.wanted(seen.listing, quant or parsed.quant, file)
            by_files = {each.model.files: each for each in seen.models}
            models = tuple(
                offers.labelled(offers.from_memory(by_files[variant.files]), variant)
                for variant in variants
                if variant.files in by_files
            )
            if models:
                return FoundModels(models, seen=seen.when, note=error.message, listed=True)
    kept = find_kept(parsed, quant)
    if not kept:
        raise error
    models = tuple(open_kept(each, shown(parsed)) for each in kept)
    return FoundModels(models, kept=kept, note=error.message)


def recall_kept(manifest: Manifest, ref: str) -> Opened | None:
    """A pulled model as its headers were when it was pulled; None where that is forgotten."""
    if manifest.kind == "url":
        key = f"url:{manifest.repo}/{manifest.files[0].path}"
    else:
        there = ModelRef(manifest.kind, ref, manifest.repo, manifest.asked)
        key = source_of(there, Web(offline=True))[0].key
    seen = known.recall(key)
    if seen is None or seen.listing is None or seen.listing.revision != manifest.revision:
        return None
    paths_kept = [each.path for each in manifest.files if each.role == "model"]
    for each in seen.models:
        if [file.path for file in each.model.files] == paths_kept:
            opened = offers.from_memory(each)
            location = manifest.files[0].location
            model = replace(opened.model, path=location, quant=manifest.quant or each.model.quant)
            return replace(opened, model=model, label=manifest.label)
    return None


def open_kept(manifest: Manifest, ref: str) -> Opened:
    """A pulled model, from its files.

    Raises:
        NotFoundError: somebody removed them.
    """
    path = Path(manifest.files[0].location)
    try:
        opened = localfile.open_model(path, ref, manifest.kind)
    except NotFoundError as exc:
        raise NotFoundError(
            f"{manifest.name} was pulled, and {path} is gone", f"localllm pull {ref}"
        ) from exc
    model = replace(
        opened.model,
        revision=manifest.revision,
        quant=manifest.quant or opened.model.quant,
        files=tuple(
            RepoFile(each.path, each.size_bytes, each.digests["sha256"])
            for each in manifest.files
            if each.role == "model"
        ),
    )
    return replace(opened, model=model, label=manifest.label)


def _doubt(kept: Sequence[Manifest], ref: str) -> str | None:
    """A sentence where files are not as they were when they were proven.

    Raises:
        IntegrityError: a check found one damaged.
    """
    for manifest in kept:
        if "integrity" not in manifest.verified:
            raise IntegrityError(
                f"{manifest.name} is damaged, as a check found", f"localllm pull {ref}"
            )
        if not all(is_untouched(file) for file in manifest.files):
            return f"{manifest.name} was written to since it was proven: localllm verify {ref}"
    return None


def _find_extracted(path: Path, ref: str) -> FoundModels:
    kept = find_kept(ModelRef("file", str(path)))  # the llamafile may be gone by now
    if not kept and not path.exists():
        raise NotFoundError(f"there is no file {path}", "check the path")
    if not kept:
        raise NotFoundError(
            f"the model inside {path} has to be taken out of it first", f"localllm pull {ref}"
        )
    return FoundModels((open_kept(kept[0], ref),), kept=kept[:1], note=_doubt(kept[:1], ref))
