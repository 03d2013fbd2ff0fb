"""Files of other programs: found by size and name, taken by digest alone, and left as they are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from localllm import paths
from localllm.digests import Claim, Digester
from localllm.store import adoption
from localllm.store.adoption import HUB_PROGRAM, Candidate, adopt, find_elsewhere, hash_file
from localllm.store.layout import Repo
from localllm.store.library import Store
from tests.loopback_hub import LoopbackHub
from tests.store.things import NEW, OLD, ask_hub_library, sha256, stored, tree, version
from tests.unprivileged import unprivileged

RAW = b"GGUF" + bytes(range(256)) * 5000  # more than one piece
SHA = sha256(RAW)
NAME = "model-Q4_K_M.gguf"
CLAIM = Claim("sha256", SHA, "huggingface.co")


@pytest.fixture(autouse=True)
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with nothing of other programs in it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def repo(person: Path) -> Repo:
    return Store.here().repo("ms", "org/model-GGUF")


def place(path: Path, raw: bytes = RAW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def candidate(path: Path, program: str = "Ollama") -> Candidate:
    return Candidate(path, program, "digest")


# -- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "program", "evidence"),
    [
        (f".ollama/models/blobs/sha256-{SHA}", "Ollama", "digest"),
        (f"here/blobs/sha256-{SHA}", "Ollama", "digest"),
        (f".lmstudio/models/org/model-GGUF/{NAME}", "LM Studio", "name"),
        (".lmstudio/models/org/model-GGUF/renamed.gguf", "LM Studio", "size"),
        (f".cache/lm-studio/models/org/model-GGUF/{NAME}", "LM Studio", "name"),
        (f"elsewhere/lm/models/{NAME.upper()}", "LM Studio", "name"),
        (f".cache/llama.cpp/{NAME}", "llama.cpp", "name"),
        (f"there/{NAME}", "llama.cpp", "name"),
        (f".cache/huggingface/hub/models--a--b/blobs/{SHA}", HUB_PROGRAM, "digest"),
        (f".cache/huggingface/hub/models--a--b/snapshots/{OLD}/x/{NAME}", HUB_PROGRAM, "name"),
    ],
    ids=lambda value: value.replace(SHA, "SHA").replace(OLD, "OLD"),
)
def test_a_file_is_found_where_its_program_keeps_it(
    where: str, program: str, evidence: str, person: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(person / "here"))
    monkeypatch.setenv("LLAMA_CACHE", str(person / "there"))
    if where.startswith(".cache/llama.cpp"):
        monkeypatch.delenv("LLAMA_CACHE")
    place(person / ".lmstudio-home-pointer", f"{person}/elsewhere/lm\n".encode())
    path = place(person / where)
    place(path.with_name("too-small.gguf"), RAW[:-1])
    found = find_elsewhere(len(RAW), SHA, NAME)
    assert found == (Candidate(path.resolve(), program, evidence),)  # type: ignore[arg-type]


def test_nothing_is_found_where_nothing_is() -> None:
    assert find_elsewhere(len(RAW), SHA, NAME) == ()


def test_the_best_reason_comes_first_and_a_wrong_digest_not_at_all(person: Path) -> None:
    by_size = place(person / ".lmstudio/models/other.gguf", bytes(len(RAW)))
    by_name = place(person / f".cache/llama.cpp/{NAME}")
    by_digest = place(person / f".ollama/models/blobs/sha256-{SHA}")
    place(person / f".ollama/models/blobs/sha256-{'0' * 64}")
    place(person / f".ollama/models/blobs/sha256-{SHA}-partial")
    found = find_elsewhere(len(RAW), SHA, NAME)
    assert [each.path for each in found] == [by_digest, by_name, by_size]
    unknown = find_elsewhere(len(RAW), None, NAME)
    assert [each.evidence for each in unknown] == ["name", "size", "size", "size"]


def test_two_names_of_one_file_are_one_candidate(person: Path) -> None:
    path = place(person / f".lmstudio/models/{NAME}")
    link = person / f".ollama/models/blobs/sha256-{SHA}"
    link.parent.mkdir(parents=True)
    os.link(path, link)
    (person / ".lmstudio/models/again.gguf").symlink_to(path)
    found = find_elsewhere(len(RAW), SHA, NAME)
    assert [each.evidence for each in found] == ["digest"]


def test_folders_pipes_and_links_that_lead_nowhere_are_no_candidates(person: Path) -> None:
    folder = person / ".lmstudio/models"
    (folder / "folder.gguf").mkdir(parents=True)
    (folder / "nowhere.gguf").symlink_to("gone")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    os.mkfifo(folder / "pipe.gguf")
    assert find_elsewhere(0, None, "pipe.gguf") == ()


# -- taking over ----------------------------------------------------------------------------------


def test_a_file_is_taken_over_by_a_hard_link(repo: Repo, person: Path) -> None:
    path = place(person / "theirs")
    path.chmod(0o444)
    before = path.stat()
    seen: list[int] = []
    with repo.lock(SHA):
        adopted = adopt(candidate(path), repo, [CLAIM], seen.append)
        assert adopted is not None
        entry = repo.publish(adopted.blob, NEW, NAME)
    assert (adopted.blob, adopted.program) == (SHA, "Ollama")
    assert adopted.digests["sha256"] == SHA
    assert seen == sorted(seen)
    assert seen[-1] == len(RAW)
    assert entry.samefile(path)
    assert not repo.blob_path(SHA).is_symlink()
    after = path.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size, after.st_uid) == (
        before.st_mode, before.st_mtime_ns, before.st_size, before.st_uid,
    )  # fmt: skip
    path.unlink()  # its program lets go of it
    assert entry.read_bytes() == RAW


def _no_hard_links(*_: object, **__: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_across_file_systems_it_is_a_link_by_name(
    repo: Repo, person: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(person / "theirs")
    monkeypatch.setattr(os, "link", _no_hard_links)
    with repo.lock(SHA):
        assert adopt(candidate(path), repo, [CLAIM]) is not None
        entry = repo.publish(SHA, NEW, NAME)
    assert Path(os.readlink(repo.blob_path(SHA))) == path
    assert entry.read_bytes() == RAW


def test_a_file_in_a_cache_is_never_linked_to_by_name(
    repo: Repo, person: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(person / "theirs")
    monkeypatch.setattr(os, "link", _no_hard_links)
    assert adopt(candidate(path, HUB_PROGRAM), repo, [CLAIM]) is None
    assert not os.path.lexists(repo.blob_path(SHA))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_a_real_other_file_system(repo: Repo) -> None:
    path = place(Path("/dev/shm") / f"localllm-test-{os.getpid()}")
    try:
        if path.stat().st_dev == paths.models_dir().parent.parent.stat().st_dev:
            pytest.skip("/dev/shm is the same file system")
        with repo.lock(SHA):
            assert adopt(candidate(path), repo, [CLAIM]) is not None
        assert repo.blob_path(SHA).is_symlink()
        assert repo.blob_path(SHA).read_bytes() == RAW
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param([Claim("sha256", "0" * 64, "x")], id="another sha256"),
        pytest.param([CLAIM, Claim("md5", "0" * 32, "--md5")], id="another md5 beside it"),
        pytest.param([Claim("git-sha1", "0" * 40, "x")], id="another git sha1"),
    ],
)
def test_another_file_is_not_taken(claims: list[Claim], repo: Repo, person: Path) -> None:
    path = place(person / "theirs")
    assert adopt(candidate(path), repo, claims) is None
    assert tree(repo.root) == []


def test_without_a_claim_nothing_is_taken(repo: Repo, person: Path) -> None:
    with pytest.raises(ValueError, match="nothing says"):
        adopt(candidate(place(person / "theirs")), repo, [])


def test_the_blob_is_called_as_the_hub_calls_it(repo: Repo, person: Path) -> None:
    path = place(person / "theirs", b"small")
    digester = Digester(["git-sha1", "md5"], 5)
    digester.update(b"small")
    digests = digester.hexdigests()
    git = adopt(candidate(path), repo, [Claim("git-sha1", digests["git-sha1"], "hub")])
    md5 = adopt(candidate(path), repo, [Claim("md5", digests["md5"], "--md5")])
    assert git is not None
    assert md5 is not None
    assert (git.blob, md5.blob) == (digests["git-sha1"], digests["sha256"])


def _vanishes(path: Path) -> None:
    path.unlink()


def _grows(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _is_replaced(path: Path) -> None:
    place(path.with_name("new"), RAW)
    os.replace(path.with_name("new"), path)


def _is_rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"X")


@pytest.mark.parametrize("change", [_vanishes, _grows, _is_replaced, _is_rewritten])
def test_a_file_that_changes_while_it_is_hashed_is_no_candidate(
    change: Callable[[Path], None], repo: Repo, person: Path
) -> None:
    path = place(person / "theirs")
    done = False

    def on_progress(_: int) -> None:
        nonlocal done
        if not done:
            done = True
            os.utime(path, ns=(0, 0))  # so that a change is seen on a coarse clock, too
            change(path)

    assert adopt(candidate(path), repo, [CLAIM], on_progress) is None
    assert done
    assert tree(repo.root) == []


@pytest.mark.parametrize("change", [_vanishes, _grows, _is_replaced, _is_rewritten])
def test_a_file_that_changes_before_it_is_linked_is_no_candidate(
    change: Callable[[Path], None], repo: Repo, person: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(person / "theirs")
    os.utime(path, ns=(0, 0))
    real = adoption._link

    def late(*arguments: object) -> bool:
        change(path)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(adoption, "_link", late)
    assert adopt(candidate(path), repo, [CLAIM]) is None
    assert tree(repo.root) == []


def test_what_is_not_there_or_may_not_be_read_is_no_candidate(repo: Repo, person: Path) -> None:
    person.mkdir()
    assert adopt(candidate(person / "gone"), repo, [CLAIM]) is None
    assert adopt(candidate(person), repo, [CLAIM]) is None


def test_a_dangling_link_in_the_blobs_place_is_replaced(repo: Repo, person: Path) -> None:
    path = place(person / "theirs")
    blob = repo.blob_path(SHA)
    blob.parent.mkdir(parents=True)
    blob.symlink_to("gone")
    assert adopt(candidate(path), repo, [CLAIM]) is not None
    assert blob.samefile(path)


# -- what the hub's own library downloaded --------------------------------------------------------


def test_what_the_hubs_library_downloaded_is_found_proven_and_kept(person: Path) -> None:
    with LoopbackHub() as hub:
        commit = hub.add_repo("org/model-GGUF", {NAME: RAW, "README.md": b"card"})
        code = (
            "from huggingface_hub import snapshot_download\nimport json\n"
            "print(json.dumps(snapshot_download('org/model-GGUF')))"
        )
        folder = ask_hub_library(code, HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET="1")
    store = Store.here()
    theirs = store.repo("hf", "org/model-GGUF")
    entry = theirs.find(commit, NAME)
    assert entry is not None
    assert str(entry.parent) == folder
    assert hash_file(entry, [CLAIM])["sha256"] == SHA
    assert theirs.blob_of(entry) == SHA

    # For a model of another source, the same bytes are linked and not fetched.
    (found,) = find_elsewhere(len(RAW), SHA, NAME)
    assert (found.program, found.evidence) == (HUB_PROGRAM, "digest")
    ours = store.repo("ms", "org/model-GGUF")
    with ours.lock(SHA):
        assert adopt(found, ours, [CLAIM]) is not None
        assert ours.publish(SHA, NEW, NAME).samefile(entry)

    # In its own repository it is taken as it stands, and stays when the model goes.
    manifest = version(stored(entry, NAME, adopted=HUB_PROGRAM, in_place=True), revision=commit)
    before = tree(store.hub_root)
    store.add(manifest)
    assert store.remove(manifest).goes == ()
    assert tree(store.hub_root) == before


def test_a_blob_in_the_hubs_shared_store_is_a_candidate(person: Path) -> None:
    # huggingface_hub keeps what several repositories have once, with links from their blobs.
    root = person / ".cache/huggingface/hub"
    shared = place(root / "blobs" / "ab" / ("ab" * 32))
    blob = root / "models--a--b" / "blobs" / SHA
    blob.parent.mkdir(parents=True)
    blob.symlink_to(f"../../blobs/ab/{'ab' * 32}")
    assert find_elsewhere(len(RAW), SHA, NAME) == (
        Candidate(shared.resolve(), HUB_PROGRAM, "digest"),
    )


def test_a_file_of_another_user_is_linked_by_name_where_the_kernel_guards_it() -> None:
    guard = Path("/proc/sys/fs/protected_hardlinks")
    if os.getuid() != 0 or not guard.exists() or guard.read_text().strip() != "1":
        pytest.skip("needs root, and a kernel that guards hard links")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        theirs = place(folder / "ollama" / "theirs")  # root's, for all to read
        theirs.chmod(0o644)
        ours = folder / "ours"
        ours.mkdir()
        ours.chmod(0o777)
        repo = Repo.of(ours, "ms", "org/model-GGUF")
        with unprivileged():
            assert adopt(candidate(theirs), repo, [CLAIM]) is not None
        assert Path(os.readlink(repo.blob_path(SHA))) == theirs
        assert repo.blob_path(SHA).read_bytes() == RAW
