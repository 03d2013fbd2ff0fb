"""Llamafiles: a GGUF found in a zip, read where it is, taken out, and zips that lie."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import resource
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localllm.errors import DiskError, IntegrityError, LocalllmError, NotFoundError
from localllm.gguf import MemorySource, parse_header
from localllm.hub import llamafile
from localllm.hub.llamafile import Member, Slice, extract, find_gguf, open_member
from localllm.hub.localfile import FileSource
from localllm.hub.patience import Limits
from localllm.hub.remote import RemoteFile
from localllm.hub.web import Web
from localllm.readahead import ReadAhead
from localllm.units import GIB, MIB
from tests.ggufs import Llama
from tests.loopback_hub import LoopbackHub

#: The program in front: what a llamafile begins with, and nothing that is a zip's.
PROGRAM = b"MZqFpD='\n" + random.Random(1).randbytes(100_000)
MODEL = "tiny-Q4_0.gguf"


@pytest.fixture(scope="module")
def gguf() -> bytes:
    return random.Random(2).randbytes(300_000)


def packed(
    members: dict[str, bytes], *, compress: tuple[str, ...] = (), program: bytes = PROGRAM
) -> bytes:
    """A llamafile; offsets count from the file's beginning, as zipalign writes them."""
    file = io.BytesIO(program)
    with zipfile.ZipFile(file, "a") as archive:
        for name, data in members.items():
            how = zipfile.ZIP_DEFLATED if name in compress else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), data, how)
    return file.getvalue()


def source_of(data: bytes) -> MemorySource:
    return MemorySource(data, "m.llamafile")


def read(data: bytes, member: Member) -> bytes:
    return data[member.offset : member.offset + member.size_bytes]


@pytest.mark.parametrize("prefixed", ["absolute", "relative"])
def test_the_model_is_found_whatever_its_offsets_count_from(gguf: bytes, prefixed: str) -> None:
    members = {MODEL: gguf, "usr/share/zoneinfo/UTC": b"TZif" * 50}
    data = packed(members)
    if prefixed == "relative":
        data = PROGRAM + packed(members, program=b"")
    member = find_gguf(source_of(data))
    assert (member.name, member.size_bytes, member.mmproj) == (MODEL, len(gguf), None)
    assert member.crc32 == zlib.crc32(gguf)
    assert read(data, member) == gguf


def test_a_header_is_read_out_of_a_llamafile_on_a_server(tiny_path: Path) -> None:
    members = {"tiny.gguf": tiny_path.read_bytes(), ".args": b"-m\ntiny.gguf\n"}
    data = packed({**members, **{f"zone/{no}": b"TZ" * 99 for no in range(600)}})
    with LoopbackHub() as hub:
        url = hub.add_file("tiny.llamafile", data)
        remote = RemoteFile(Web(Limits(backoff_seconds=0.01)), url, "tiny.llamafile")
        whole = parse_header(MemorySource(tiny_path.read_bytes()))
        assert parse_header(ReadAhead(open_member(remote))) == whole
        assert len(hub.requests) <= 8


def test_of_several_the_largest_is_the_model_unless_the_args_name_one(gguf: bytes) -> None:
    members = {"a.gguf": gguf[:900], "b.gguf": gguf[:9000], "mmproj-b.gguf": gguf[:20_000]}
    member = find_gguf(source_of(packed(members)))
    assert member.name == "b.gguf"
    assert member.mmproj is not None
    assert (member.mmproj.name, member.mmproj.size_bytes) == ("mmproj-b.gguf", 20_000)
    for args in b"-m\n/zip/a.gguf\n...\n", b"-m\r\na.gguf":
        data = packed({**members, ".args": args}, compress=(".args",))
        assert find_gguf(source_of(data)).name == "a.gguf"


def test_args_that_name_what_is_no_model_are_no_guide(gguf: bytes) -> None:
    members = {"a.gguf": gguf, "mmproj-a.gguf": gguf[:99], ".args": b"-m\nmmproj-a.gguf\n../x.gguf"}
    assert find_gguf(source_of(packed(members))).name == "a.gguf"


def test_names_that_climb_are_only_names(gguf: bytes) -> None:
    member = find_gguf(source_of(packed({"../../../etc/m.gguf": gguf})))
    assert member.name == "m.gguf"
    with pytest.raises(NotFoundError):
        find_gguf(source_of(packed({"..\\..\\m.gguf": gguf, "con.gguf": gguf})))


@pytest.mark.parametrize(
    "members", [{}, {"README": b"x"}, {"mmproj-a.gguf": b"GGUF"}, {"m.gguf/": b""}]
)
def test_a_llamafile_without_a_model_says_so(members: dict[str, bytes]) -> None:
    with pytest.raises(NotFoundError, match=r"there is no model in m\.llamafile") as caught:
        find_gguf(source_of(packed(members)))
    assert caught.value.hint is not None


def test_a_compressed_model_is_refused_with_a_way_out(gguf: bytes) -> None:
    with pytest.raises(IntegrityError, match="is compressed in") as caught:
        find_gguf(source_of(packed({MODEL: gguf}, compress=(MODEL,))))
    assert "unzip" in str(caught.value.hint)


@pytest.mark.parametrize("data", [b"", b"GGUF", b"PK\5\6", PROGRAM], ids=["0", "4", "PK", "exe"])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="is not a sound llamafile"):
        find_gguf(source_of(data))


# Zips of more than 4 GiB are made by hand: what would take minutes to write is a hole.


@dataclass
class Holes:
    """A file of any size, zeros but for a few pieces."""

    size_bytes: int
    name: str = "m.llamafile"
    pieces: dict[int, bytes] = field(default_factory=dict)
    read_bytes: int = 0

    def read(self, offset: int, n_bytes: int) -> bytes:
        data = bytearray(min(n_bytes, self.size_bytes - offset))
        self.read_bytes += len(data)
        for start, piece in self.pieces.items():
            first, last = max(start, offset), min(start + len(piece), offset + len(data))
            if first < last:
                data[first - offset : last - offset] = piece[first - start : last - start]
        return bytes(data)


FULL = 0xFFFFFFFF


def large_zip(size_bytes: int = 9 * GIB, header_offset: int = 5 * GIB) -> tuple[Holes, int]:
    """A zip64 with one stored GGUF behind the first 4 GiB; the file and the GGUF's offset."""
    name = MODEL.encode()
    extra = struct.pack("<HHQQ", 1, 16, size_bytes, size_bytes)
    local = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 7, FULL, FULL, len(name), len(extra)
    )
    local += name + extra
    at = header_offset + len(local) + size_bytes
    extra = struct.pack("<HHQQQ", 1, 24, size_bytes, size_bytes, header_offset)
    head = (45, 45, 0, 0, 0, 0, 7, FULL, FULL, len(name), len(extra), 0, 0, 0, 0, FULL)
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", *head) + name + extra
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(central), at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(central), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, FULL, FULL, 0)
    tail = central + end64 + locator + end
    holes = Holes(at + len(tail), pieces={header_offset: local, at: tail})
    return holes, header_offset + len(local)


def test_a_model_beyond_4_gib_is_found_with_little_reading() -> None:
    holes, offset = large_zip()
    member = find_gguf(holes)
    assert member == Member(MODEL, offset, 9 * GIB, 7)
    assert holes.read_bytes < 200_000


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda pieces: pieces.pop(5 * GIB), id="no-local-header"),
        pytest.param(lambda pieces: pieces.update({5 * GIB: b"PK\3\4" + bytes(60)}), id="zeros"),
    ],
)
def test_a_local_header_that_disagrees_is_refused(lie: Callable[[dict[int, bytes]], None]) -> None:
    holes, _ = large_zip()
    lie(holes.pieces)
    with pytest.raises(IntegrityError, match="contradicts itself"):
        find_gguf(holes)


def edited(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """The zip with bytes of its last header of a kind replaced."""
    at = data.rindex(signature) + offset
    return data[:at] + value + data[at + len(value) :]


LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"


@pytest.mark.parametrize(
    ("signature", "offset", "value"),
    [
        pytest.param(LOCAL, 6, b"\1\0", id="encrypted-locally"),
        pytest.param(CENTRAL, 8, b"\1\0", id="encrypted"),
        pytest.param(LOCAL, 8, b"\x08\0", id="compressed-locally"),
        pytest.param(CENTRAL, 10, b"\x63\0", id="method-99"),
        pytest.param(LOCAL, 14, b"\1\2\3\4", id="crc"),
        pytest.param(LOCAL, 18, b"\0\1\0\0", id="local-size"),
        pytest.param(CENTRAL, 20, b"\0\1\0\0", id="stored-size"),
        pytest.param(CENTRAL, 24, b"\0\1\0\0", id="plain-size"),
        pytest.param(CENTRAL, 20, b"\xf0\xff\xff\x7f" * 2, id="sizes-beyond-the-file"),
        pytest.param(LOCAL, 30, b"tinx", id="local-name"),
        pytest.param(LOCAL, 28, b"\xff\xff", id="extra-field-into-the-model"),
        pytest.param(CENTRAL, 42, b"\0\0\0\0", id="offset-of-nothing"),
        pytest.param(CENTRAL, 42, b"\xf0\xff\xff\xff", id="offset-outside"),
    ],
)
def test_headers_that_lie_are_refused(
    gguf: bytes, signature: bytes, offset: int, value: bytes
) -> None:
    data = packed({MODEL: gguf})
    assert find_gguf(source_of(data)).size_bytes == len(gguf)
    with pytest.raises(IntegrityError) as caught:
        find_gguf(source_of(edited(data, signature, offset, value)))
    assert caught.value.hint is not None


def test_entries_that_overlap_the_model_are_refused(gguf: bytes) -> None:
    inner = packed({"a.txt": b"hidden"}, program=b"")
    data = packed({"outer.gguf": gguf[:99] + inner[: inner.rindex(CENTRAL)], "z.txt": b"z"})
    at = data.index(b"hidden") - 35  # the local header within the model
    with pytest.raises(IntegrityError, match="contradicts itself"):
        find_gguf(source_of(edited(data, CENTRAL, 42, struct.pack("<L", at))))


def test_a_bomb_of_entries_is_refused_before_it_is_read() -> None:
    entry = packed({"x": b""}, program=b"")
    central = entry[entry.index(CENTRAL) : entry.index(b"PK\5\6")]
    bomb = central * 100_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(bomb), len(entry), 0)
    holes = Holes(len(entry) + len(bomb) + len(end))
    holes.pieces = {0: entry, len(entry): bomb, len(entry) + len(bomb): end}
    with pytest.raises(IntegrityError, match="is not a sound llamafile"):
        find_gguf(holes)
    assert holes.read_bytes < MIB


def test_args_that_unpack_to_gigabytes_are_read_as_far_as_needed(gguf: bytes) -> None:
    data = packed({MODEL: gguf, ".args": bytes(64 * MIB)}, compress=(".args",))
    assert find_gguf(source_of(data)).name == MODEL


@pytest.mark.parametrize("seed", range(4))
def test_mutated_zips_are_refused_or_read_right(gguf: bytes, seed: int) -> None:
    rng = random.Random(seed)
    members = {"LICENSE": b"free" * 9, MODEL: gguf[:2000], ".args": b"-m\n" + MODEL.encode()}
    data = packed(members, compress=("LICENSE",), program=b"MZ" + bytes(500))
    truth = find_gguf(source_of(data))
    structure = [at for at in range(len(data)) if not 0 <= at - truth.offset < truth.size_bytes]
    accepted = 0
    for _ in range(1500):
        hostile = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            at = rng.choice(structure[502:])
            hostile[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.1:
            del hostile[rng.randrange(len(hostile)) :]
        try:
            member = find_gguf(source_of(bytes(hostile)))
        except LocalllmError:
            continue
        assert (member.offset, member.size_bytes) == (truth.offset, truth.size_bytes)
        accepted += 1
    assert 0 < accepted < 1500


def test_a_slice_ends_where_it_ends() -> None:
    part = Slice(source_of(b"0123456789"), 3, 4)
    assert (part.read(0, 99), part.read(2, 1), part.read(4, 1), part.read(9, 9)) == (
        b"3456",
        b"5",
        b"",
        b"",
    )
    assert (part.name, part.size_bytes) == ("m.llamafile", 4)


@pytest.fixture
def path(tmp_path: Path, gguf: bytes) -> Path:
    path = tmp_path / "m.llamafile"
    path.write_bytes(packed({MODEL: gguf, "x": b"x"}))
    return path


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamafile, "_PIECE_BYTES", 50_000)
    monkeypatch.setattr(llamafile, "_HASH_BYTES", 7_000)


def found(path: Path) -> Member:
    with FileSource(path) as source:
        return find_gguf(source)


def only(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture(params=["shared", "copied", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With copy_file_range, without, and where the file systems refuse it."""
    if request.param == "copied":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    if request.param == "refused":

        def refuse(*_: object, **__: object) -> int:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    return str(request.param)


@pytest.mark.usefixtures("small_pieces", "way")
def test_a_model_is_taken_out_whole_and_digested(path: Path, tmp_path: Path, gguf: bytes) -> None:
    told: list[int] = []
    digests = extract(path, found(path), tmp_path / "out.gguf", told.append)
    assert (tmp_path / "out.gguf").read_bytes() == gguf
    assert digests["sha256"] == hashlib.sha256(gguf).hexdigest()
    assert told == sorted(told)
    assert len(told) >= 6
    assert told[-1] == len(gguf)
    assert only(tmp_path) == ["m.llamafile", "out.gguf"]


@pytest.mark.usefixtures("small_pieces", "way")
def test_one_wrong_bit_is_found_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    member = found(path)
    data = bytearray(path.read_bytes())
    data[member.offset + member.size_bytes // 2] ^= 1
    path.write_bytes(data)
    (tmp_path / "out.gguf").write_bytes(b"what was there")
    with pytest.raises(IntegrityError, match="CRC32"):
        extract(path, member, tmp_path / "out.gguf")
    assert only(tmp_path) == ["m.llamafile", "out.gguf"]
    assert (tmp_path / "out.gguf").read_bytes() == b"what was there"


@pytest.mark.usefixtures("small_pieces", "way")
def test_a_llamafile_that_was_cut_short_leaves_nothing(path: Path, tmp_path: Path) -> None:
    member = found(path)
    os.truncate(path, member.offset + 60_000)
    with pytest.raises(IntegrityError, match="ends within"):
        extract(path, member, tmp_path / "out.gguf")
    assert only(tmp_path) == ["m.llamafile"]


@pytest.fixture
def _file_limit() -> Iterator[None]:
    """No file of more than 150,000 bytes: the disk is full, as the kernel puts it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_pieces", "way", "path", "_file_limit")
def test_a_full_disk_leaves_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"tiny-Q4_0\.gguf \(293") as caught:
        extract(path, found(path), tmp_path / "out.gguf")
    assert caught.value.hint == "free some space there"
    assert only(tmp_path) == ["m.llamafile"]


@pytest.mark.usefixtures("small_pieces")
def test_an_interruption_leaves_nothing(path: Path, tmp_path: Path) -> None:
    def interrupt(n_bytes: int) -> None:
        assert len(only(tmp_path)) == 2  # the part is there
        if n_bytes > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(path, found(path), tmp_path / "out.gguf", interrupt)
    assert only(tmp_path) == ["m.llamafile"]


def test_a_folder_that_is_not_there_is_an_error_in_a_sentence(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="No such file or directory"):
        extract(path, found(path), tmp_path / "nowhere" / "out.gguf")


@pytest.mark.usefixtures("small_pieces")
def test_two_at_once_both_leave_the_whole_file(path: Path, tmp_path: Path, gguf: bytes) -> None:
    member, into = found(path), tmp_path / "out.gguf"
    threads = [threading.Thread(target=extract, args=(path, member, into)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if into.exists():
            assert into.read_bytes() == gguf
        time.sleep(0.001)
    assert into.read_bytes() == gguf
    assert only(tmp_path) == ["m.llamafile", "out.gguf"]


def test_a_real_gguf_taken_out_is_the_one_put_in(tmp_path: Path) -> None:
    original = Llama().write(tmp_path / "tiny.gguf")
    path = tmp_path / "tiny.llamafile"
    path.write_bytes(packed({"tiny.gguf": original.read_bytes()}))
    extract(path, found(path), tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == original.read_bytes()
