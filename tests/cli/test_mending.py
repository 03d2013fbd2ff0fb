"""A damaged model under a server: found out, fetched again from a hub on loopback, loaded again."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from localllm.cli import app, mending, references
from localllm.engine.locate import Tools
from localllm.engine.server import LlamaServer
from localllm.errors import IntegrityError, LocalllmError
from localllm.hub.patience import Limits
from localllm.plan import Model, Plan
from localllm.store import Manifest, Store
from localllm.store.checks import is_untouched
from tests import test_pull
from tests.loopback_hub import BitFlip, LoopbackHub, ServerError
from tests.test_pull import REPO, fetch, llamafile, location, make_models, name_of

Q8 = name_of("Q8_0")
REFUSED = IntegrityError("the model is cut short: the data of the tensor 'x' is missing")

Damage = Callable[[Path], None]

shards = test_pull.shards


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_models(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, and a person without other programs' models."""
    (home / "person").mkdir()
    monkeypatch.setenv("HOME", str(home / "person"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(references, "Limits", partial(Limits, backoff_seconds=0.01))
    with LoopbackHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.modelscope_endpoint)
        yield running


@pytest.fixture
def commit(hub: LoopbackHub, models: dict[str, bytes]) -> str:
    return hub.add_repo(REPO, models)


class Mender:
    """One that notes what it said."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        self.plan = Plan(Model("it", str(path), name="it"), n_ctx=512)
        self._mend = mending.mender(self.plan, self.said.append)

    def __call__(self, error: LocalllmError = REFUSED) -> bool:
        return self._mend(error)

    def has_said(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.said)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Turns over one bit; size and time stay as they were, as on a failing disk."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        (byte,) = file.read(1)
        file.seek(status.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def lose(path: Path) -> None:
    path.resolve().unlink()


def refuse(*_: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def is_trusted(manifest: Manifest) -> bool:
    """Whether the store vouches for a version as it is on the disk now."""
    versions = Store.here().versions(manifest.name)
    now = next(each for each in versions if each.revision == manifest.revision)
    return "integrity" in now.verified and all(is_untouched(file) for file in now.files)


def test_a_truncated_model_that_llama_server_refuses_is_fetched_and_loads_again(
    hub: LoopbackHub, commit: str, models: dict[str, bytes], tools: Tools
) -> None:
    pulled = fetch(REPO, "Q8_0")
    path = location(pulled)
    mend = Mender(path)
    cut(path)
    with pytest.raises(IntegrityError, match="cut short") as refused, LlamaServer(tools, mend.plan):
        pass
    assert mend(refused.value)
    assert path.read_bytes() == models[Q8]
    with LlamaServer(tools, mend.plan) as server:
        assert server.poll() is None
    assert is_trusted(pulled.manifest)
    half, whole = len(models[Q8]) // 2, len(models[Q8])
    host = hub.endpoint.partition("://")[2]
    assert mend.has_said("compared with its recorded digests", "1.5 MiB")
    assert mend.has_said(f"has {half} bytes, not the {whole} that it had")
    assert mend.has_said(f"{Q8} is fetched again from {host}: 1.5 MiB")
    assert mend.said[-1] == f"hf:{REPO}:Q8_0 is whole again"


@pytest.mark.parametrize("damage", [cut, flip, lose])
@pytest.mark.parametrize("source", ["hub", "modelscope", "url", "llamafile", "llamafile here"])
def test_whatever_is_wrong_is_made_good_wherever_it_came_from(
    hub: LoopbackHub,
    commit: str,
    models: dict[str, bytes],
    tmp_path: Path,
    source: str,
    damage: Damage,
) -> None:
    packed = llamafile({Q8: models[Q8]})
    archive = tmp_path / "Some-Model.llamafile"
    ref = {
        "hub": f"{REPO}:Q8_0",
        "modelscope": f"ms:{REPO}:Q8_0",
        "url": hub.add_file("a model #1 Q8_0.gguf", models[Q8]),
        "llamafile": hub.add_file("Some-Model.llamafile", packed),
        "llamafile here": str(archive),
    }[source]
    if source == "llamafile here":
        archive.write_bytes(packed)
        assert app.run(["pull", ref, "--yes", "--json"]) == 0
    else:
        fetch(ref)
    (manifest,) = Store.here().contents().manifests
    path = Path(manifest.files[0].location)
    mend = Mender(path)
    damage(path)
    assert mend(), mend.said
    assert path.read_bytes() == models[Q8]
    assert is_trusted(manifest)


def test_of_a_split_set_only_the_damaged_part_is_fetched(
    hub: LoopbackHub, models: dict[str, bytes], shards: dict[str, bytes]
) -> None:
    hub.add_repo(REPO, shards)
    pulled = fetch(REPO)
    first, second = (Path(file.location) for file in pulled.manifest.files)
    flip(second)
    hub.reset()
    assert Mender(first)()
    assert [path.read_bytes() for path in (first, second)] == list(shards.values())
    assert hub.sent_bytes(first.name) == 0
    assert is_trusted(pulled.manifest)


def test_what_one_try_did_not_bring_the_next_one_does(
    hub: LoopbackHub, shards: dict[str, bytes]
) -> None:
    hub.add_repo(REPO, shards)
    older = fetch(REPO)
    hub.commit(REPO, {"README.md": b"# New\n"})
    newer = fetch(REPO)
    first, second = (Path(file.location) for file in older.manifest.files)
    cut(first)
    cut(second)
    mend = Mender(first)
    hub.misbehave(ServerError(), file=second.name)
    assert not mend()
    assert first.read_bytes() == shards[first.name]
    assert not is_trusted(older.manifest)
    hub.behave()
    hub.reset()
    assert mend()
    assert second.read_bytes() == shards[second.name]
    assert hub.sent_bytes(first.name) == 0
    assert is_trusted(older.manifest)
    assert is_trusted(newer.manifest)


def test_a_model_served_through_a_link_of_the_persons_is_mended_behind_it(
    hub: LoopbackHub, commit: str, models: dict[str, bytes], tmp_path: Path
) -> None:
    link = tmp_path / "my model.gguf"
    link.symlink_to(location(fetch(REPO, "Q8_0")))
    cut(link)
    assert Mender(link)()
    assert link.is_symlink()
    assert link.read_bytes() == models[Q8]


def test_two_versions_with_the_same_bytes_are_both_trusted_again_and_neither_moves(
    hub: LoopbackHub, commit: str, models: dict[str, bytes]
) -> None:
    older = fetch(REPO, "Q8_0")
    hub.commit(REPO, {"README.md": b"# New\n"})
    newer = fetch(REPO, "Q8_0")
    flip(location(older))
    assert Mender(location(older))()
    assert location(newer).read_bytes() == models[Q8]
    assert is_trusted(older.manifest)
    assert is_trusted(newer.manifest)
    current = Store.here().current(newer.manifest.name)
    assert current is not None
    assert current.revision == newer.manifest.revision
    ref = Store.here().repo("hf", REPO).folder / "refs" / "main"
    assert ref.read_text() == newer.manifest.revision


def test_an_old_version_is_fetched_as_it_was_then(
    hub: LoopbackHub, commit: str, models: dict[str, bytes]
) -> None:
    older = fetch(REPO, "Q8_0")
    hub.commit(REPO, {Q8: models[name_of("F16")]})
    cut(location(older))
    assert Mender(location(older))()
    assert location(older).read_bytes() == models[Q8]


def test_another_programs_copy_is_not_changed(
    hub: LoopbackHub, commit: str, models: dict[str, bytes], home: Path
) -> None:
    theirs = home / "person" / ".lmstudio" / "models" / "some" / Q8
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(models[Q8])
    pulled = fetch(REPO, "Q8_0")
    assert pulled.how == ("LM Studio",)
    cut(theirs)
    damaged = theirs.read_bytes()
    assert Mender(location(pulled))()
    assert location(pulled).read_bytes() == models[Q8]
    assert theirs.read_bytes() == damaged
    (manifest,) = Store.here().contents().manifests
    assert manifest.files[0].adopted is None  # so that `rm` does not call it theirs


def test_another_programs_file_that_is_served_itself_stays_and_the_stores_own_is_named(
    hub: LoopbackHub,
    commit: str,
    models: dict[str, bytes],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = home / "person" / ".lmstudio" / "models" / "some" / Q8
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(models[Q8])
    with monkeypatch.context() as elsewhere:  # a disk of its own: no hard link leads there
        elsewhere.setattr(os, "link", refuse)
        path = location(fetch(REPO, "Q8_0"))
    assert path.resolve() == theirs
    cut(theirs)
    damaged = theirs.read_bytes()
    mend = Mender(theirs)
    assert not mend()
    assert theirs.read_bytes() == damaged
    assert path.read_bytes() == models[Q8]
    assert mend.has_said("another program's file", f"localllm serve {REPO}:Q8_0")


def test_without_the_hub_it_says_so_and_succeeds_when_the_hub_is_back(
    hub: LoopbackHub, commit: str, models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = fetch(REPO, "Q8_0")
    path = location(pulled)
    cut(path)
    mend = Mender(path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert not mend()
    assert mend.said[-1].startswith(f"{path} stays damaged: 127.0.0.1:1 cannot be reached")
    assert path.stat().st_size == len(models[Q8]) // 2
    assert not is_trusted(pulled.manifest)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    assert mend()
    assert path.read_bytes() == models[Q8]


def test_offline_nobody_is_asked(
    hub: LoopbackHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = location(fetch(REPO, "Q8_0"))
    cut(path)
    hub.reset()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mend = Mender(path)
    assert not mend()
    assert mend.has_said("stays damaged", "because this is offline mode", "unset HF_HUB_OFFLINE")
    assert hub.requests == []


def test_a_source_that_sends_other_bytes_mends_nothing(
    hub: LoopbackHub, commit: str, models: dict[str, bytes]
) -> None:
    pulled = fetch(REPO, "Q8_0")
    path = location(pulled)
    cut(path)
    hub.misbehave(BitFlip(1000))
    mend = Mender(path)
    assert not mend()
    assert mend.has_said("stays damaged", "has the sha256")
    assert not is_trusted(pulled.manifest)


def test_a_url_that_has_another_file_now_mends_nothing(
    hub: LoopbackHub, models: dict[str, bytes]
) -> None:
    url = hub.add_file("m.gguf", models[Q8])
    path = location(fetch(url))
    cut(path)
    hub.add_file("m.gguf", models[name_of("F16")])
    mend = Mender(path)
    assert not mend()
    assert mend.has_said("has another version", f"localllm pull {url}")
    assert path.stat().st_size == len(models[Q8]) // 2


def test_a_loose_file_is_not_touched_and_told_with_what_its_header_needs(
    hub: LoopbackHub, commit: str, models: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / Q8
    path.write_bytes(models[Q8])
    cut(path)
    before = path.stat()
    mend = Mender(path)
    assert not mend()
    assert (path.stat(), os.listdir(tmp_path)) == (before, [Q8])
    (said,) = mend.said
    assert f"({before.st_size})" in said
    assert "it is cut short" in said
    assert "get it again from where it came" in said
    assert hub.requests == []


def test_files_that_are_whole_are_hashed_once_and_not_fetched(
    hub: LoopbackHub, commit: str
) -> None:
    path = location(fetch(REPO, "Q8_0"))
    hub.reset()
    mend = Mender(path)
    assert not mend()
    assert mend.said[-1].startswith(f"every file of hf:{REPO}:Q8_0 has its recorded digest")
    assert REFUSED.message in mend.said[-1]
    n_said = len(mend.said)
    assert not mend()
    assert mend.said[n_said:] == mend.said[-1:]
    assert hub.requests == []


def test_what_was_fetched_and_is_refused_all_the_same_is_not_fetched_for_ever(
    hub: LoopbackHub, commit: str, models: dict[str, bytes]
) -> None:
    path = location(fetch(REPO, "Q8_0"))
    mend = Mender(path)
    cut(path)
    assert mend()
    hub.reset()
    assert not mend()
    assert hub.requests == []
    flip(path)  # as a failing disk would, with nobody having written
    assert not mend()
    assert hub.requests == []
    cut(path)  # somebody did this
    assert mend()
    assert path.read_bytes() == models[Q8]


def test_replicas_that_fail_together_make_one_download(
    hub: LoopbackHub, commit: str, models: dict[str, bytes]
) -> None:
    path = location(fetch(REPO, "Q8_0"))
    cut(path)
    hub.reset()
    hub.cap_bytes_per_second = 1 << 20  # so that the others come while the first is at it
    mend = Mender(path)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(mend())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 3
    assert len(models[Q8]) <= hub.sent_bytes(Q8) < 2 * len(models[Q8])
