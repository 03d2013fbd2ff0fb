"""A GGUF inside a llamafile: where it is, how to read it there, how to take it out.

A `.llamafile` is a zip behind a program, and its model is stored in it as it is, so that it can be
mapped; it can be read by ranges for the same reason. Knows zips and trusts none of their numbers;
knows nothing of what a GGUF means. Names in it are for people and never become paths.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm.digests import Algorithm, Digester
from localllm.errors import DiskError, IntegrityError, NotFoundError
from localllm.gguf import ByteSource
from localllm.hub.part import settle
from localllm.naming import Kind, read_file_name
from localllm.units import KIB, MIB, format_bytes

#: Of one read of the zip's structure. The directory of a llamafile takes 60 KB (some 600 entries,
#: nearly all of them time zones); 1 MiB has room for 20,000 entries at the least.
_MAX_READ_BYTES = MIB
#: The end of a zip, fetched at once: it holds the end record, and mostly all of the directory.
_TAIL_BYTES = 128 * KIB
_MAX_ARGS_BYTES = 64 * KIB
_PIECE_BYTES = 16 * MIB
_HASH_BYTES = MIB

# APPNOTE.TXT 4.3.7: signature, version, flags, method, time, date, crc32, sizes, lengths of the
# name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ENCRYPTED, _SIZES_BEHIND, _UTF8 = 0x1, 0x8, 0x800  # 4.4.4
_IN_ZIP64 = 0xFFFFFFFF  # 4.4.8

_NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_AGAIN = "download it again"

#: What zipfile raises over files that are none.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    EOFError,
)


@dataclass(frozen=True)
class Member:
    """A GGUF that lies in a llamafile as it is.

    Attributes:
        name: the last part of what the zip calls it; for people.
        offset: of its first byte in the llamafile.
        size_bytes: of the GGUF.
        crc32: of the GGUF, by the zip's account.
        mmproj: the projector for images beside it; None where there is none.
    """

    name: str
    offset: int
    size_bytes: int
    crc32: int
    mmproj: Member | None = None


@dataclass(frozen=True)
class Slice:
    """A part of a ByteSource as a ByteSource of its own.

    Attributes:
        source: the whole.
        offset: where the part begins.
        size_bytes: how long it is.
    """

    source: ByteSource
    offset: int
    size_bytes: int

    @property
    def name(self) -> str:
        """As the whole's."""
        return self.source.name

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Up to n_bytes from the offset on, none beyond the part's end."""
        n_bytes = min(n_bytes, self.size_bytes - offset)
        return self.source.read(self.offset + offset, n_bytes) if n_bytes > 0 else b""


def find_gguf(source: ByteSource) -> Member:
    """The model in a llamafile.

    Of several, precedence: 1. one that the llamafile itself starts with (`.args`), 2. the
    largest.

    Args:
        source: the llamafile, wherever it is. It is read at its end, and before the model.

    Raises:
        NotFoundError: there is no model in it.
        IntegrityError: it is no zip, or one that contradicts itself; or the model is compressed
            or encrypted, so that it cannot be read where it is.
    """
    with _translated(source.name), zipfile.ZipFile(_File(source)) as archive:
        models = [info for info in archive.infolist() if _kind(info) == "model"]
        projectors = [info for info in archive.infolist() if _kind(info) == "mmproj"]
        if not models:
            raise NotFoundError(
                f"there is no model in {source.name}",
                "it is the program alone; name a .gguf file",
            )
        named = _args(archive)

        def place(info: zipfile.ZipInfo) -> tuple[bool, int]:
            return _last_part(info) in named, info.file_size

        mmproj = None
        if projectors:
            mmproj = _member(source, archive, max(projectors, key=place))
        return _member(source, archive, max(models, key=place), mmproj)


def open_member(source: ByteSource) -> Slice:
    """The model in a llamafile, to be read where it is; errors as `find_gguf`."""
    member = find_gguf(source)
    return Slice(source, member.offset, member.size_bytes)


def extract(
    path: Path,
    member: Member,
    into: Path,
    on_progress: Callable[[int], None] = lambda _: None,
) -> dict[Algorithm, str]:
    """Copies a member out of a llamafile; whoever sees the new file sees all of it.

    Args:
        path: the llamafile.
        member: of it.
        into: the file to be; what is there is replaced. Its folder exists.
        on_progress: told the bytes that are copied, from time to time.

    Returns:
        The file's digests; sha256 is among them.

    Raises:
        IntegrityError: the bytes are not those that the zip promises.
        DiskError: the disk is full, or fails. Nothing is left then.
    """
    part = None
    try:
        descriptor, part = tempfile.mkstemp(".part", f".{into.stem[:64]}.", into.parent)
        # Unbuffered: what is written is read again below, past any buffer.
        with open(descriptor, "w+b", 0) as target, path.open("rb", 0) as llamafile:
            digests = _copy(llamafile, member, target, on_progress)
            os.fsync(target.fileno())
        settle(Path(part), into)
    except BaseException as exc:
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)
        if isinstance(exc, OSError):
            raise DiskError(
                f"cannot take {member.name} ({format_bytes(member.size_bytes)}) out of {path} into"
                f" {into.parent}: {exc.strerror}",
                "free some space there" if exc.errno in _NO_ROOM else None,
            ) from exc
        raise
    return digests


def _copy(
    llamafile: io.FileIO, member: Member, target: io.FileIO, on_progress: Callable[[int], None]
) -> dict[Algorithm, str]:
    digester, crc32, n_done = Digester((), member.size_bytes), 0, 0
    buffer = memoryview(bytearray(_HASH_BYTES))
    copy = _share if hasattr(os, "copy_file_range") else _rewrite
    while n_done < member.size_bytes:
        n_due = min(_PIECE_BYTES, member.size_bytes - n_done)
        try:
            n_copied = copy(llamafile, target, member.offset + n_done, n_due)
        except OSError as exc:
            # Not every pair of file systems can share, and not every sandbox lets them.
            if copy is _rewrite or exc.errno in _NO_ROOM:
                raise
            copy = _rewrite
            continue
        if n_copied == 0:
            raise IntegrityError(f"{llamafile.name} ends within {member.name}", _AGAIN)
        # What is digested is what was written; it is still in the page cache.
        target.seek(n_done)
        n_done += n_copied
        while target.tell() < n_done:
            n_read = target.readinto(buffer[: n_done - target.tell()])
            if not n_read:
                raise DiskError(f"the copy of {member.name} was cut short by another program")
            digester.update(buffer[:n_read])
            crc32 = zlib.crc32(buffer[:n_read], crc32)
        on_progress(n_done)
    if crc32 != member.crc32:
        raise IntegrityError(
            f"{member.name} in {llamafile.name} is damaged: its CRC32 is {crc32:08x}, and was"
            f" {member.crc32:08x}",
            _AGAIN,
        )
    return digester.hexdigests()


def _share(llamafile: io.FileIO, target: io.FileIO, offset: int, n_bytes: int) -> int:
    """Copies within the kernel; on btrfs, XFS and the like both files then share the bytes."""
    return os.copy_file_range(llamafile.fileno(), target.fileno(), n_bytes, offset)


def _rewrite(llamafile: io.FileIO, target: io.FileIO, offset: int, n_bytes: int) -> int:
    llamafile.seek(offset)
    return target.write(llamafile.read(min(n_bytes, _HASH_BYTES)))


class _File:
    """A ByteSource as a file that zipfile can read, bounded, and with its end read only once."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._at = 0
        self._tail_at = max(0, source.size_bytes - _TAIL_BYTES)
        self._tail = source.read(self._tail_at, source.size_bytes - self._tail_at)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size_bytes}
        if base[whence] + offset < 0:
            raise ValueError("before the beginning")
        self._at = base[whence] + offset
        return self._at

    def read(self, n_bytes: int = -1) -> bytes:
        left = max(0, self._source.size_bytes - self._at)
        n_bytes = left if n_bytes < 0 else min(n_bytes, left)
        if n_bytes > _MAX_READ_BYTES:
            raise ValueError("a directory of this size")
        if self._at >= self._tail_at:
            start = self._at - self._tail_at
            piece = self._tail[start : start + n_bytes]
        else:
            piece = self._source.read(self._at, n_bytes)
        self._at += len(piece)
        return piece


def _member(
    source: ByteSource,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    mmproj: Member | None = None,
) -> Member:
    """Where an entry's bytes are, once both of its headers say so and nothing else lies there.

    Raises:
        IntegrityError: it is compressed or encrypted, or something does not fit.
    """
    name = _last_part(info)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        how = "encrypted" if info.flag_bits & _ENCRYPTED else "compressed"
        raise IntegrityError(
            f"{name} is {how} in {source.name}, so it cannot be read where it is",
            "unzip it, and name the .gguf",
        )
    raw = source.read(info.header_offset, _LOCAL_HEADER.size)
    magic, _, flags, method, _, _, crc32, stored, plain, n_name, n_extra = _LOCAL_HEADER.unpack(raw)
    offset = info.header_offset + _LOCAL_HEADER.size + n_name + n_extra
    end = offset + info.file_size
    said = source.read(info.header_offset + _LOCAL_HEADER.size, n_name)
    # A writer that did not know them yet puts 0 and a bit; zip64 keeps them elsewhere.
    sizes = {info.file_size, _IN_ZIP64, 0 if flags & _SIZES_BEHIND else info.file_size}
    if (
        magic != b"PK\3\4"
        or said != info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        or (method, flags & _ENCRYPTED) != (zipfile.ZIP_STORED, 0)
        or not {stored, plain} <= sizes
        or info.compress_size != info.file_size
        or crc32 not in {info.CRC, 0 if flags & _SIZES_BEHIND else info.CRC}
        or end > archive.start_dir
        or sum(info.header_offset <= each.header_offset < end for each in archive.infolist()) != 1
    ):
        raise IntegrityError(f"what {source.name} says of {name} contradicts itself", _AGAIN)
    return Member(name, offset, info.file_size, info.CRC, mmproj)


def _args(archive: zipfile.ZipFile) -> frozenset[str]:
    """The words that a llamafile starts with, one on each line of `.args`, without folders."""
    with contextlib.suppress(KeyError):
        info = archive.getinfo(".args")
        if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with archive.open(info) as file:
                text = file.read(_MAX_ARGS_BYTES).decode("utf-8", "replace")
            return frozenset(line.strip().rpartition("/")[2] for line in text.splitlines())
    return frozenset()


def _kind(info: zipfile.ZipInfo) -> Kind:
    name = _last_part(info)
    return read_file_name(name).kind if name.lower().endswith(".gguf") else "other"


def _last_part(info: zipfile.ZipInfo) -> str:
    return info.filename.rpartition("/")[2]


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """What zipfile raises over hostile files, as ours; its own words may quote such a file."""
    try:
        yield
    except _ZIP_ERRORS:
        raise IntegrityError(
            f"{name} is not a sound llamafile: the zip in it cannot be read", _AGAIN
        ) from None
