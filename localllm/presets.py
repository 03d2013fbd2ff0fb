"""Machines written down: profiles/hardware/*.yaml -> Preset, to plan for what is not here.

Knows which keys such a file has and what cannot be true of a machine. Reading YAML is done in
profiles.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from localllm.errors import NotFoundError
from localllm.hardware import Accelerator, Cpu, Disk, Hardware, Memory, System, Vendor
from localllm.profiles import Field, read_document, read_profile

_SYSTEMS = ("Linux", "Darwin", "Windows")
_ARCHITECTURES = ("x86_64", "aarch64")
_FEATURE = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_LIMIT_SOURCE = "the preset"
#: More would be a typing error, and each of them costs a row in every table.
_MOST_ALIKE = 64


@dataclass(frozen=True)
class Preset:
    """A machine to plan for.

    Attributes:
        name: the file's name without its ending; what --hw takes.
        title: one line for a person.
        hardware: the machine, as a probe of it would tell, with memory free but for the use
            that the file states.
        sources: where the numbers come from, by section: "cpu", "memory", "accelerators[0]".
    """

    name: str
    title: str
    hardware: Hardware
    sources: Mapping[str, str]


def parse_hardware(text: str, name: str) -> Preset:
    """A preset from YAML (profiles/hardware/README.md lists the keys).

    Args:
        text: the YAML document.
        name: of the file, for errors; its stem is the preset's name.

    Raises:
        UsageError: not YAML, an unknown or a missing key, a value of the wrong type, or a
            machine that cannot be; the sentence names the line and the key.
    """
    top = read_document(text, name).fields(
        ("title", "system", "cpu", "memory"), ("accelerators", "disk")
    )
    sources: dict[str, str] = {}
    memory = _memory(top["memory"], sources)
    hardware = Hardware(
        system=_system(top["system"]),
        cpu=_cpu(top["cpu"], sources),
        memory=memory,
        accelerators=_accelerators(top["accelerators"], memory, sources)
        if "accelerators" in top
        else (),
        disk=_disk(top["disk"]) if "disk" in top else None,
    )
    return Preset(Path(name).stem, top["title"].text(), hardware, sources)


def preset_files(shipped: Path, user: Path | None = None) -> dict[str, Path]:
    """Every preset's file by its name.

    Precedence: 1. `user`/hardware/NAME.yaml, 2. `shipped`/hardware/NAME.yaml.
    """
    folders = [folder / "hardware" for folder in (shipped, user) if folder is not None]
    found = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    return dict(sorted(found.items()))


def load_preset(name: str, shipped: Path, user: Path | None = None) -> Preset:
    """The preset of that name, or in the file of that path.

    What has a slash or ends in .yaml or .yml is a path.

    Raises:
        NotFoundError: there is no such preset or file.
        UsageError: as `parse_hardware`, and for a file that cannot be read.
    """
    if "/" in name or "\\" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise NotFoundError(f"there is no file {name}", _LIST)
    else:
        files = preset_files(shipped, user)
        if name not in files:
            raise NotFoundError(f"there is no preset called {name!r}", _nearest(name, files))
        path = files[name]
    return parse_hardware(read_profile(path, f"chmod u+r {path}"), str(path))


_LIST = "localllm plan --hw list"


def _nearest(name: str, files: Mapping[str, Path]) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(files), n=1)
    return f"did you mean {near[0]}? All of them: {_LIST}" if near else f"all of them: {_LIST}"


def _system(field: Field) -> System:
    found = field.fields(("os",), ("release", "container"))
    return System(
        os=found["os"].one_of(_SYSTEMS),
        release=found["release"].text() if "release" in found else None,
        container=found["container"].text() if "container" in found else None,
    )


def _cpu(field: Field, sources: dict[str, str]) -> Cpu:
    found = field.fields(
        ("architecture", "n_physical", "n_logical"),
        ("model", "features", "n_performance", "quota", "source"),
    )
    n_physical, n_logical = found["n_physical"].whole(1), found["n_logical"].whole(1)
    if n_logical < n_physical:
        raise found["n_logical"].wrong(f"must be at least n_physical, {n_physical}")
    n_performance = found["n_performance"].whole(1) if "n_performance" in found else None
    if n_performance is not None and n_performance > n_physical:
        raise found["n_performance"].wrong(f"must be at most n_physical, {n_physical}")
    quota = found["quota"].number() if "quota" in found else None
    if quota is not None and quota > n_logical:
        raise found["quota"].wrong(f"must be at most n_logical, {n_logical}")
    _note_source(found, field, sources)
    return Cpu(
        model=found["model"].text() if "model" in found else None,
        architecture=found["architecture"].one_of(_ARCHITECTURES),
        features=_features(found["features"]) if "features" in found else None,
        n_physical=n_physical,
        n_logical=n_logical,
        n_performance=n_performance,
        quota=quota,
    )


def _features(field: Field) -> tuple[str, ...]:
    names = []
    for item in field.each():
        name = item.text()
        if not _FEATURE.fullmatch(name):
            raise item.wrong(f"must be named as ggml does (avx2, dotprod), not {name!r}")
        names.append(name)
    return tuple(sorted(set(names)))


def _memory(field: Field, sources: dict[str, str]) -> Memory:
    found = field.fields(("total", "used"), ("bandwidth", "limit", "limit_used", "source"))
    total, used = found["total"].size(1), found["used"].size()
    if used > total:
        raise found["used"].wrong("must not be more than memory.total")
    limit = found["limit"].size(1) if "limit" in found else None
    limit_used = found["limit_used"].size() if "limit_used" in found else None
    if limit_used is not None and (limit is None or limit_used > limit):
        raise found["limit_used"].wrong(
            "needs a memory.limit" if limit is None else "must not be more than memory.limit"
        )
    bandwidth = found["bandwidth"].rate() if "bandwidth" in found else None
    _note_source(found, field, sources)
    return Memory(
        total_bytes=total,
        available_bytes=total - used,
        limit_bytes=limit,
        limit_used_bytes=None if limit is None else limit_used or 0,
        limit_source=None if limit is None else _LIMIT_SOURCE,
        bandwidth=bandwidth,
        bandwidth_source=None if bandwidth is None else "data-sheet",
    )


def _accelerators(field: Field, memory: Memory, sources: dict[str, str]) -> tuple[Accelerator, ...]:
    gpus: list[Accelerator] = []
    for item in field.each():
        gpu, count = _accelerator(item, memory, sources)
        for _ in range(count):
            index = sum(other.vendor == gpu.vendor for other in gpus)
            gpus.append(replace(gpu, index=index))
    return tuple(gpus)


def _accelerator(field: Field, memory: Memory, sources: dict[str, str]) -> tuple[Accelerator, int]:
    """One of them, and how many alike there are."""
    found = field.fields(
        ("vendor", "name"),
        (
            "count",
            "total",
            "used",
            "unified",
            "limit",
            "bandwidth",
            "compute_capability",
            "display",
            "source",
        ),
    )
    vendor = cast(Vendor, found["vendor"].one_of(get_args(Vendor)))
    unified = "unified" in found and found["unified"].flag()
    count = found["count"].whole(1) if "count" in found else 1
    if count > _MOST_ALIKE:
        raise found["count"].wrong(f"must be at most {_MOST_ALIKE}, not {count}")
    gpu = Accelerator(
        vendor=vendor,
        index=0,
        name=found["name"].text(),
        unified=unified,
        compute_capability=found["compute_capability"].text()
        if "compute_capability" in found
        else None,
        bandwidth=found["bandwidth"].rate() if "bandwidth" in found else None,
        display=found["display"].flag() if "display" in found else None,
    )
    _note_source(found, field, sources)
    if unified:
        return _sharing(gpu, found, memory), count
    if "limit" in found:
        raise found["limit"].wrong("is for unified memory; a card has all of its own")
    if "total" not in found:
        raise field.wrong("needs a total, or unified: true where it shares main memory")
    total = found["total"].size(1)
    used = found["used"].size() if "used" in found else 0
    if used > total:
        raise found["used"].wrong(f"must not be more than {field.key}.total")
    return replace(gpu, total_bytes=total, free_bytes=total - used), count


def _sharing(gpu: Accelerator, found: Mapping[str, Field], memory: Memory) -> Accelerator:
    """A GPU in main memory, with the sizes that the probe of its vendor would tell."""
    for key in ("total", "used"):
        if key in found:
            raise found[key].wrong("is main memory's where unified is true: leave it out")
    limit = found["limit"].size(1) if "limit" in found else None
    if limit is not None and limit > (memory.total_bytes or 0):
        raise found["limit"].wrong("must not be more than memory.total")
    if gpu.vendor in ("nvidia", "intel"):  # their drivers answer N/A
        total = free = None
    else:
        total = memory.total_bytes
        free = min(size for size in (limit, memory.free_bytes) if size is not None)
    return replace(
        gpu,
        total_bytes=total,
        free_bytes=free,
        limit_bytes=limit,
        limit_source=None if limit is None else _LIMIT_SOURCE,
    )


def _disk(field: Field) -> Disk:
    found = field.fields(("path", "total", "free"), ("filesystem",))
    total, free = found["total"].size(1), found["free"].size()
    if free > total:
        raise found["free"].wrong("must not be more than disk.total")
    return Disk(
        path=found["path"].text(),
        total_bytes=total,
        free_bytes=free,
        filesystem=found["filesystem"].text() if "filesystem" in found else None,
    )


def _note_source(found: Mapping[str, Field], field: Field, sources: dict[str, str]) -> None:
    if "source" in found:
        sources[field.key] = found["source"].text()
