"""The hub's cache layout: what others find, who waits for whom, and what names cannot do."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localllm import paths
from localllm.errors import DiskError, IntegrityError, LocalllmError, NotFoundError, UsageError
from localllm.store.layout import Repo, cache_root, hub_cache_root
from tests.conftest import PATIENCE_SECONDS, wait_until
from tests.loopback_hub import LoopbackHub
from tests.store.things import NEW, OLD, ask_hub_library, put, sha256, tree

DIGEST = "ab" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def repo(root: Path) -> Repo:
    return Repo.of(root, "hf", "org/model-GGUF")


# -- what other programs find ---------------------------------------------------------------------

_READS = """
import json, sys, huggingface_hub as hub
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
name = "org/model-GGUF"
info = scan_cache_dir()
found = [
    try_to_load_from_cache(name, "Q4_K_M/model.gguf", revision=revision)
    for revision in ("main", "v1", "refs/pr/7", sys.argv[1])
]
found.append(hub.hf_hub_download(name, "Q4_K_M/model.gguf", local_files_only=True))
found.append(snapshot_download(name, local_files_only=True) + "/Q4_K_M/model.gguf")
(model,) = info.repos
print(json.dumps({
    "found": found,
    "warnings": [str(each) for each in info.warnings],
    "repo": model.repo_id,
    "size": model.size_on_disk,
    "refs": sorted(model.refs),
    "files": sorted(file.file_name for each in model.revisions for file in each.files),
}))
"""


def test_what_we_publish_is_found_by_the_hubs_own_library(repo: Repo, root: Path) -> None:
    entry = put(repo, b"new" * 100, NEW, "Q4_K_M/model.gguf")
    put(repo, b"card", NEW, "README.md")
    put(repo, b"card", OLD, "README.md")
    for name in ("main", "v1", "refs/pr/7"):
        repo.set_ref(name, NEW)
    seen = ask_hub_library(_READS, NEW, HF_HUB_CACHE=str(root), HF_HUB_OFFLINE="1")
    assert seen["found"] == [str(entry)] * 6
    assert seen["warnings"] == []
    assert seen["repo"] == "org/model-GGUF"
    assert seen["size"] == 304
    assert seen["refs"] == ["main", "refs/pr/7", "v1"]
    assert seen["files"] == ["README.md", "README.md", "model.gguf"]


def test_a_link_is_relative_so_that_the_cache_can_be_moved(repo: Repo, root: Path) -> None:
    entry = put(repo, b"bytes", NEW, "a/b/model.gguf")
    assert os.readlink(entry) == f"../../../../blobs/{sha256(b'bytes')}"
    root.rename(root.with_name("moved"))
    moved = Repo(root.with_name("moved"), repo.folder_name)
    found = moved.find(NEW, "a/b/model.gguf")
    assert found is not None
    assert found.read_bytes() == b"bytes"


def test_a_file_may_be_published_twice_and_in_several_revisions(repo: Repo) -> None:
    first = put(repo, b"bytes", NEW, "model.gguf")
    assert put(repo, b"bytes", NEW, "model.gguf") == first
    other = put(repo, b"bytes", OLD, "old name.gguf")
    assert repo.references(sha256(b"bytes")) == (other, first)
    assert repo.blob_of(first) == repo.blob_of(other) == sha256(b"bytes")


def test_publishing_replaces_what_stood_there(repo: Repo) -> None:
    put(repo, b"old", NEW, "model.gguf")
    entry = put(repo, b"new", NEW, "model.gguf")
    assert entry.read_bytes() == b"new"
    assert repo.references(sha256(b"old")) == ()


def test_without_a_blob_there_is_nothing_to_publish(repo: Repo) -> None:
    with pytest.raises(NotFoundError, match=DIGEST):
        repo.publish(DIGEST, NEW, "model.gguf")


def test_where_links_are_not_to_be_had_the_file_itself_stands_in_the_snapshot(
    repo: Repo, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    entry = put(repo, b"bytes", NEW, "model.gguf")
    assert not entry.is_symlink()
    assert entry.read_bytes() == b"bytes"
    assert tree(root) == [f"models--org--model-GGUF/snapshots/{NEW}/model.gguf"]
    assert repo.find(NEW, "model.gguf") == entry
    repo.set_ref("main", NEW)
    code = (
        "import huggingface_hub as hub, json\n"
        "print(json.dumps([hub.try_to_load_from_cache('org/model-GGUF', 'model.gguf'),"
        " [str(each) for each in hub.scan_cache_dir().warnings]]))"
    )
    assert ask_hub_library(code, HF_HUB_CACHE=str(root)) == [str(entry), []]


def test_a_full_disk_is_no_reason_to_move_the_file(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(DiskError, match="No space left"):
        put(repo, b"bytes", NEW, "model.gguf")
    assert repo.blob_path(sha256(b"bytes")).read_bytes() == b"bytes"


def test_a_commit_that_was_asked_for_by_its_own_name_needs_no_reference(repo: Repo) -> None:
    put(repo, b"bytes", NEW, "model.gguf")
    repo.set_ref(NEW, NEW)
    assert not (repo.folder / "refs").exists()


def test_a_link_that_leads_nowhere_is_not_found(repo: Repo) -> None:
    entry = put(repo, b"bytes", NEW, "model.gguf")
    repo.blob_path(sha256(b"bytes")).unlink()
    assert repo.find(NEW, "model.gguf") is None
    assert repo.references(sha256(b"bytes")) == (entry,)


@pytest.mark.parametrize("kind", ["ms", "url"])
def test_no_two_repositories_share_a_folder(kind: str, root: Path) -> None:
    names = [
        "a/b", "a--b/c", "a/b--c", "a/b-c", "https://a/b", "https://A/b", "https://a/b/", "a", "A",
        "a//b", "a/..", "https://a:1/b", "https://a/1/b", "x" * 300 + "1", "x" * 300 + "2", "", ".",
    ]  # fmt: skip
    folders = [Repo.of(root, kind, name).folder for name in names]  # type: ignore[arg-type]
    assert len({str(folder).lower() for folder in folders}) == len(names)
    assert {folder.parent for folder in folders} == {root}
    assert all(len(folder.name) < 200 for folder in folders)


# -- where the root is ----------------------------------------------------------------------------

_VARIABLES = [
    {},
    {"XDG_CACHE_HOME": "/x"},
    {"HF_HOME": "/h"},
    {"HF_HOME": "~/h"},
    {"HF_HOME": "$MY/h", "MY": "/m"},
    {"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"},
    {"HUGGINGFACE_HUB_CACHE": "/old"},
    {"HUGGINGFACE_HUB_CACHE": "~/old", "HF_HOME": "/h"},
    {"HF_HUB_CACHE": "/new", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
    {"HF_HUB_CACHE": "~/${MY}/new", "MY": "m"},
    {"LOCALLLM_HOME": "/ours"},
]
_NAMES = ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE", "MY")


def test_the_hubs_cache_is_where_its_own_library_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its constants are read at import: loaded anew for each set of variables, without the library.
    code = (
        "import importlib.util, json, os, sys\n"
        "spec = importlib.util.find_spec('huggingface_hub')\n"
        "path = spec.submodule_search_locations[0] + '/constants.py'\n"
        "found = []\n"
        f"for variables in json.loads({json.dumps(json.dumps(_VARIABLES))}):\n"
        f"    for name in {_NAMES!r}: os.environ.pop(name, None)\n"
        "    os.environ.update(variables)\n"
        "    module = {'__name__': 'constants'}\n"
        "    exec(open(path).read(), module)\n"
        "    found.append(module['HF_HUB_CACHE'])\n"
        "print(json.dumps(found))"
    )
    theirs = ask_hub_library(code)
    ours = []
    for variables in _VARIABLES:
        with monkeypatch.context() as patch:
            for name in _NAMES:
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            ours.append(str(hub_cache_root()))
    assert ours == theirs


def test_models_of_other_sources_have_a_root_of_our_own() -> None:
    roots = [cache_root("hf"), cache_root("ms"), cache_root("url")]
    assert roots[0] == hub_cache_root()
    assert [each.parent for each in roots[1:]] == [paths.models_dir()] * 2
    assert len(set(roots)) == 3


# -- locks ----------------------------------------------------------------------------------------

_HOLDS = """
import sys
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_we_and_the_hubs_library_wait_for_one_another(repo: Repo, root: Path) -> None:
    path = root / ".locks" / "models--org--model-GGUF" / f"{DIGEST}.lock"
    path.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        waits = 0

        def let_go() -> None:
            nonlocal waits
            waits += 1
            assert other.stdin is not None
            other.stdin.close()

        with repo.lock(DIGEST, let_go):
            assert other.wait(PATIENCE_SECONDS) == 0
    assert waits >= 1


def test_the_hubs_library_takes_what_we_downloaded_while_it_waited(repo: Repo, root: Path) -> None:
    raw = b"GGUF" * 1000
    with LoopbackHub() as hub:
        commit = hub.add_repo("org/model-GGUF", {"model.gguf": raw})
        code = (
            "import huggingface_hub as hub\n"
            "print(hub.hf_hub_download('org/model-GGUF', 'model.gguf'))"
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_CACHE": str(root),
            "HF_HUB_DISABLE_XET": "1",
        }
        with (
            contextlib.ExitStack() as holder,
            subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
            ) as other,
        ):
            holder.enter_context(repo.lock(sha256(raw)))
            hub.wait_for(lambda: hub.requests)
            repo.part_path(sha256(raw)).write_bytes(raw)
            os.replace(repo.part_path(sha256(raw)), repo.blob_path(sha256(raw)))
            entry = repo.publish(sha256(raw), commit, "model.gguf")
            holder.close()
            told, _ = other.communicate(timeout=PATIENCE_SECONDS)
        assert told == f"{entry}\n"
        assert hub.sent_bytes("model.gguf") == 0


class _EnoughError(Exception):
    pass


def test_whoever_waits_may_give_up(repo: Repo) -> None:
    def give_up() -> None:
        raise _EnoughError

    with repo.lock(DIGEST), pytest.raises(_EnoughError), repo.lock(DIGEST, give_up):
        pass
    with repo.lock(DIGEST, give_up):  # and the lock is free again
        pass


def _holds(root: Path, held: Path) -> None:
    with Repo.of(root, "hf", "org/model-GGUF").lock(DIGEST):
        held.touch()
        multiprocessing.Event().wait()


def test_the_lock_of_a_killed_process_is_free(repo: Repo, root: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    holder = multiprocessing.get_context("spawn").Process(target=_holds, args=(root, held))
    holder.start()
    wait_until(held.exists, "the other process to hold the lock")
    holder.kill()
    holder.join()
    with repo.lock(DIGEST):
        assert repo.blob_path(DIGEST).parent.is_dir()


# -- hostile names --------------------------------------------------------------------------------

PATHS = [
    "", ".", "..", "../x", "../../../../x", "a/../../x", "a/..", "a/./b", "./a", "/etc/x", "//x",
    "\\x", "..\\x", "a\\..\\x", "C:\\x", "C:x", "c:/x", "\\\\host\\share\\x", "//host/share",
    "a//b", "a/", "/", "~root/x/", "a\0b", "a\nb", "a\rb", "a\tb", "\x1b[2Ja", "a\x7fb",
    "a\u202egguf.exe", "a\u200bb", "\ufeffa", "a\u2028b", "CON", "con.gguf", "nul", "a/AUX/b",
    "COM1.gguf", "lpt9", "COM¹", "CONIN$", "PRN .txt", "a.", "a ", "a./b", "a /b", "x:stream",
    "a<b", "a>b", "a|b", "a?b", "a*b", 'a"b', "%2e%2e/x", "..%2fx", "a%00b", "a%5Cb", "x" * 256,
    "x/" * 600 + "x", "\udc80", "é" * 128,
]  # fmt: skip
REVISIONS = [
    "", ".", "..", "../x", "a/b", "/", "main/..", "a\\b", "a\0", "a b", "con", "NUL", "x" * 101,
    "a\n", "-x", "é", "%2e%2e", "a:b", "a.", "\u202e",
]  # fmt: skip
DIGESTS = [
    "", "a" * 39, "a" * 65, "A" * 64, "g" * 64, "../" * 20 + "a" * 4, "a" * 63 + "/", "." * 64,
    "a" * 63 + "\n", "a" * 64 + "\n", "sha256:" + "a" * 57, "\0" * 64, "٣" * 64,
    "a" * 32 + "/../" + "b" * 28,
]  # fmt: skip
REPOS = [
    "", "org", "org/", "/repo", "org/repo/more", "../repo", "org/..", "./repo", "org/.", "a--b/c",
    "a/b--c", "a/b..c", "org/repo\n", "org/re po", "org\\repo", "org/repo\0", "-a/b", "a/b-", "é/b",
    "org/" + "x" * 97,
]  # fmt: skip
REFS = ["..", "../x", "/x", "a/../x", "a//b", "", ".", "x\0", "a\\b", "con", "a:b", "x.", "a\nb"]


def _take_lock(repo: Repo, digest: str) -> None:
    with repo.lock(digest):
        pass


def _write_part(repo: Repo, raw: bytes) -> None:
    part = repo.part_path(sha256(raw))
    if part.parent.is_dir():
        part.write_bytes(raw)


def _everything(repo: Repo) -> list[Callable[[], object]]:
    """All that writes, with names that are fine."""
    return [
        lambda: put(repo, b"bytes", NEW, "model.gguf"),
        lambda: repo.set_ref("main", NEW),
        lambda: _write_part(repo, b"bytes"),
        lambda: _take_lock(repo, DIGEST),
    ]


def test_there_are_sixty_hostile_names_and_more() -> None:
    assert len(set(PATHS)) >= 60
    assert len(PATHS + REVISIONS + DIGESTS + REPOS + REFS) >= 120


@pytest.mark.parametrize(
    ("names", "write"),
    [
        pytest.param(PATHS, lambda r, n: r.publish(sha256(b"x"), NEW, n), id="path"),
        pytest.param(PATHS, lambda r, n: r.find(NEW, n), id="path to find"),
        pytest.param(REVISIONS, lambda r, n: r.publish(sha256(b"x"), n, "a"), id="revision"),
        pytest.param(REVISIONS, lambda r, n: r.set_ref("main", n), id="revision of a reference"),
        pytest.param(REFS, lambda r, n: r.set_ref(n, NEW), id="reference"),
        pytest.param(DIGESTS, lambda r, n: r.publish(n, NEW, "a"), id="digest"),
        pytest.param(DIGESTS, lambda r, n: r.part_path(n), id="digest of a part"),
        pytest.param(DIGESTS, _take_lock, id="digest of a lock"),
    ],
)
def test_hostile_names_write_nothing(
    names: list[str], write: Callable[[Repo, str], object], repo: Repo, tmp_path: Path
) -> None:
    put(repo, b"x", NEW, "fine.gguf")
    before = sorted(tmp_path.rglob("*"))
    for name in names:
        with pytest.raises(IntegrityError):
            write(repo, name)
        assert sorted(tmp_path.rglob("*")) == before, name


@pytest.mark.parametrize("name", REPOS, ids=repr)
def test_hostile_repositories_are_none_of_the_hubs(name: str, root: Path) -> None:
    with pytest.raises(UsageError):
        Repo.of(root, "hf", name)


@pytest.mark.parametrize("kind", ["ms", "url"])
@pytest.mark.parametrize("name", [*REPOS, *PATHS], ids=lambda name: repr(name)[:30])
def test_hostile_repositories_of_other_sources_stay_in_the_root(
    name: str, kind: str, root: Path, tmp_path: Path
) -> None:
    repo = Repo.of(root, kind, name)  # type: ignore[arg-type]
    put(repo, b"bytes", NEW, "model.gguf")
    assert {path.name for path in tmp_path.iterdir() if path != root} == set()
    assert {path.name for path in root.iterdir()} == {".locks", repo.folder_name}


@pytest.mark.parametrize("where", [
    "", "blobs", "refs", "snapshots", f"snapshots/{NEW}", "../.locks",
    "../.locks/models--org--model-GGUF",
])  # fmt: skip
def test_a_folder_that_is_a_link_is_refused(where: str, repo: Repo, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = Path(os.path.normpath(repo.folder / where))
    link.parent.mkdir(parents=True)
    link.symlink_to(outside, target_is_directory=True)
    refused = 0
    for write in _everything(repo):
        try:
            write()
        except IntegrityError:
            refused += 1
    assert refused >= 1
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("where", [
    f"blobs/{sha256(b'bytes')}.part", f"blobs/{sha256(b'bytes')}", f"snapshots/{NEW}/model.gguf",
    "refs/main", f"../.locks/models--org--model-GGUF/{DIGEST}.lock",
    f"../.locks/models--org--model-GGUF/{sha256(b'bytes')}.lock",
])  # fmt: skip
@pytest.mark.parametrize("content", [b"precious", None], ids=["a file", "nothing"])
def test_a_link_in_the_place_of_a_file_is_not_written_through(
    content: bytes | None, where: str, repo: Repo, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    if content is not None:
        victim.write_bytes(content)
    link = Path(os.path.normpath(repo.folder / where))
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    for write in _everything(repo):
        try:
            write()
        except LocalllmError:
            continue
    assert (victim.read_bytes() if victim.exists() else None) == content


def test_a_cache_that_is_itself_reached_through_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk2").mkdir()
    (tmp_path / "hub").symlink_to(tmp_path / "disk2", target_is_directory=True)
    repo = Repo.of(tmp_path / "hub", "hf", "org/model-GGUF")
    put(repo, b"bytes", NEW, "model.gguf")
    found = repo.find(NEW, "model.gguf")
    assert found is not None
    assert found.read_bytes() == b"bytes"
