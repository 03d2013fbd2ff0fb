"""Models looked at before: what is kept of them, for how long, and what becomes of damage."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from localllm import paths
from localllm.engine.dryrun import DryRun
from localllm.errors import DiskError
from localllm.gguf import MemorySource, parse_header
from localllm.hub import known
from localllm.hub.known import Known, KnownModel, recall, remember
from localllm.hub.localfile import open_model
from localllm.hub.source import Listing
from localllm.plan import Model, Plan
from localllm.units import MIB
from localllm.variants import RepoFile
from tests.ggufs import Llama
from tests.unprivileged import unprivileged

KEY = "hf:org/Some-Model-GGUF@main"


def listing_at(revision: str) -> Listing:
    """A listing of one file at a commit."""
    return Listing(
        kind="hf",
        repo="org/Some-Model-GGUF",
        asked="main",
        revision=revision,
        files=(RepoFile("model-Q8_0.gguf", 9000, "ab" * 32),),
        authority="huggingface.co",
        is_origin=True,
    )


def model_of(quant: str, n_bytes: int = 1000, n_parts: int = 1) -> KnownModel:
    """A model whose outlines are noise."""
    path = f"model-{quant}.gguf"
    files = (RepoFile(path, n_bytes * 9, "ab" * 32),)
    model = Model(
        "org/Some-Model-GGUF", path, source="hf", quant=quant, size_bytes=n_bytes * 9, files=files
    )
    parts = tuple(
        MemorySource(os.urandom(n_bytes), f"part {no}", n_bytes * 9) for no in range(n_parts)
    )
    return KnownModel(model, parts)


def entries() -> list[Path]:
    return sorted((paths.cache_dir() / "outlines").iterdir())


def test_what_is_remembered_is_recalled_as_it_was() -> None:
    models = (model_of("Q4_K_M"), model_of("Q8_0", n_parts=3))
    remember(KEY, listing_at("0123abcd"), models)
    found = recall(KEY)
    assert found is not None
    assert found == Known(KEY, listing_at("0123abcd"), models, found.when)


@pytest.mark.parametrize("key", ["https://host/model.gguf", "hf:org/模型", "/a/\udcff.gguf", ""])
def test_a_source_without_revisions_or_models_is_known_too(key: str) -> None:
    remember(key, None, [])
    found = recall(key)
    assert found is not None
    assert (found.listing, found.models) == (None, ())


@pytest.mark.parametrize("key", [KEY + "2", KEY.upper(), "", "../../etc/passwd"])
def test_another_key_is_unknown(key: str) -> None:
    remember(KEY, listing_at("r"), [model_of("Q8_0")])
    assert recall(key) is None


def test_the_newer_look_replaces_the_older() -> None:
    remember(KEY, listing_at("old"), [model_of("Q8_0"), model_of("Q2_K")])
    remember(KEY, listing_at("new"), [model_of("Q6_K")])
    found = recall(KEY)
    assert found is not None
    assert found.listing == listing_at("new")
    assert [each.model.quant for each in found.models] == ["Q6_K"]
    assert len(entries()) == 1


def test_only_the_owner_may_read_it() -> None:
    remember(KEY, listing_at("r"), [model_of("Q8_0")])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (entries()[0].parent, entries()[0])]
    assert modes == [0o700, 0o600]


def test_quantizations_of_one_model_share_their_bytes(tmp_path: Path) -> None:
    shape = Llama(n_layers=32, n_embd=256, n_head=8, n_ff=512, kind="Q4_K", file_type="Q4_K_M")
    outlines = {
        kind: open_model(replace(shape, kind=kind).write(tmp_path / f"{kind}.gguf"), "m", "hf")
        for kind in ("Q4_K", "Q6_K", "Q8_0", "F16")
    }
    models = [KnownModel(each.model, each.outlines) for each in outlines.values()]
    remember(KEY, listing_at("r"), models)
    n_plain = sum(len(source.data) for each in models for source in each.outlines)
    assert entries()[0].stat().st_size < n_plain / 3


# -- what it is for ------------------------------------------------------------------------------


def test_recalled_outlines_tell_the_same_memory_as_the_file(tiny_path: Path) -> None:
    opened = open_model(tiny_path, "tiny", "hf")
    gone = replace(opened.model, path="/nowhere/tiny.gguf")
    remember(KEY, listing_at("r"), [KnownModel(gone, opened.outlines)])
    found = recall(KEY)
    assert found is not None
    (file,) = found.models
    assert parse_header(file.outlines[0]).architecture == "llama"
    with DryRun() as asks_the_file:
        expected = asks_the_file.memory(Plan(opened.model, n_ctx=1024))
    with DryRun({file.model.path: file.outlines}) as asks_what_is_known:
        rows = asks_what_is_known.memory(Plan(file.model, n_ctx=1024))
    assert rows == expected
    assert rows[0].model_bytes > 0


# -- damage --------------------------------------------------------------------------------------


def _edited(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def edit(raw: bytes) -> bytes:
        line, _, data = zlib.decompress(raw).partition(b"\n")
        index = json.loads(line)
        change(index)
        return zlib.compress(json.dumps(index).encode() + b"\n" + data)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda raw: raw[:-1], id="cut by a byte"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="cut in half"),
        pytest.param(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), id="a wrong sum"),
        pytest.param(lambda raw: raw[:200] + b"\xff" * 20 + raw[220:], id="overwritten"),
        pytest.param(lambda _: b"once upon a time", id="text"),
        pytest.param(lambda _: zlib.compress(b"once upon a time"), id="no index"),
        pytest.param(lambda _: zlib.compress(b"[]\n"), id="an index of another shape"),
        pytest.param(lambda _: zlib.compress(b"[" * 100_000), id="nested without end"),
        pytest.param(lambda _: zlib.compress(bytes(65 * MIB)), id="larger than was ever written"),
        pytest.param(_edited(lambda i: i.update(models=[[]])), id="models of another shape"),
        pytest.param(_edited(lambda i: i.update(schema_version=99)), id="of a newer layout"),
        pytest.param(_edited(lambda i: i.pop("schema_version")), id="without a version"),
        pytest.param(_edited(lambda i: i.update(key="hf:another/one")), id="of another repository"),
        pytest.param(
            _edited(lambda i: i["models"][0]["model"].pop("quant")),  # type: ignore[index]
            id="a model that lacks a field",
        ),
        pytest.param(
            _edited(lambda i: i["listing"].pop("files")),  # type: ignore[attr-defined]
            id="a listing without files",
        ),
        pytest.param(
            _edited(lambda i: i["models"][0].update(model=[])),  # type: ignore[index]
            id="a model that is none",
        ),
        pytest.param(
            _edited(lambda i: i["models"][0]["model"].update(shape=1)),  # type: ignore[index]
            id="a model that has one more",
        ),
        pytest.param(
            _edited(lambda i: i["models"][0]["outlines"][0].update(n_bytes=10)),  # type: ignore[index]
            id="outlines of another length",
        ),
    ],
)
def test_what_is_damaged_or_of_another_layout_is_unknown_and_goes(
    damage: Callable[[bytes], bytes],
) -> None:
    remember(KEY, listing_at("r"), [model_of("Q8_0")])
    (path,) = entries()
    path.write_bytes(damage(path.read_bytes()))
    assert recall(KEY) is None
    assert entries() == []


def test_what_may_not_be_read_is_unknown() -> None:
    remember(KEY, listing_at("r"), [model_of("Q8_0")])
    (path,) = entries()
    path.unlink()
    path.mkdir()
    assert recall(KEY) is None


def test_a_folder_that_may_not_be_written_is_a_disk_error(home: Path) -> None:
    home.chmod(0o555)
    with unprivileged(), pytest.raises(DiskError, match="cannot make the folder"):
        remember(KEY, listing_at("r"), [model_of("Q8_0")])


def test_a_disk_that_fails_is_told_and_leaves_what_was_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember(KEY, listing_at("old"), [model_of("Q8_0")])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskError, match=rf"cannot remember {KEY} in .*: No space left on device"):
        remember(KEY, listing_at("new"), [model_of("Q6_K")])
    found = recall(KEY)
    assert found is not None
    assert found.listing == listing_at("old")
    assert len(entries()) == 1, "the half-written file was left"


# -- bounds --------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_when_there_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "_MAX_BYTES", 50_000)
    for age, name in enumerate(("c", "b", "a")):  # 10 KB each, "a" the oldest
        remember(name, None, [model_of("Q8_0", 10_000)])
        hour_ago = os.stat(_path_of(name)).st_mtime - 3600 * (age + 1)
        os.utime(_path_of(name), (hour_ago, hour_ago))
    (entries()[0].parent / "left-by-a-killed-writer").write_bytes(bytes(10_000))
    os.utime(entries()[0].parent / "left-by-a-killed-writer", (0, 0))
    assert recall("a") is not None  # and so it is the newest
    remember("d", None, [model_of("Q8_0", 30_000)])
    assert {name: recall(name) is not None for name in "abcd"} == {
        "a": True, "b": False, "c": False, "d": True,
    }  # fmt: skip
    assert len(entries()) == 2


def _path_of(key: str) -> Path:
    return paths.cache_dir() / "outlines" / known._file_name(key)


def test_the_newest_is_kept_even_when_it_is_too_much_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MAX_BYTES", 1000)
    remember("small", None, [])
    remember("large", None, [model_of("Q8_0", 5000)])
    assert recall("small") is None
    assert recall("large") is not None


def test_more_than_an_entry_may_hold_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MAX_UNPACKED_BYTES", 100_000)
    remember(KEY, listing_at("small"), [model_of("Q8_0", 5000)])
    assert recall(KEY) is not None
    remember(KEY, listing_at("large"), [model_of("Q8_0", 100_000)])
    assert recall(KEY) is None
    assert entries() == []


# -- two at once ---------------------------------------------------------------------------------

N_ROUNDS = 40


def _writes(who: str) -> None:
    for number in range(N_ROUNDS):
        n_bytes = 2000 + 500 * (number % 5)
        written = model_of("Q8_0", n_bytes)
        remember(KEY, listing_at(who), [replace(written, model=replace(written.model, path=who))])
        found = recall(KEY)
        assert found is not None, "the other one's writing was seen half done"
        assert found.listing == listing_at(found.models[0].model.path)
        assert len(found.models[0].outlines[0].data) * 9 == found.models[0].model.size_bytes


def test_of_two_writers_one_is_remembered_and_never_a_mixture() -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_writes, args=(who,)) for who in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = recall(KEY)
    assert found is not None
    assert found.listing in (listing_at("one"), listing_at("two"))
    assert len(entries()) == 1
