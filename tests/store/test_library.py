"""The store: names and their versions, what goes with one, and several processes at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from localllm import paths
from localllm.errors import IntegrityError, LocalllmError, NotFoundError, UsageError
from localllm.store.layout import hub_cache_root
from localllm.store.library import Store
from localllm.store.removal import STALE_SECONDS, Removal
from tests.conftest import wait_until
from tests.store.things import (
    NAME,
    NEW,
    OLD,
    ask_hub_library,
    pull,
    put,
    sha256,
    stored,
    tree,
    version,
)

MODEL, OTHER = b"GGUF" * 1000, b"other" * 1000
FOLDER = "models--org--model-GGUF"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "manifests", tmp_path / "hub", tmp_path / "models")


def later() -> float:
    """When all that is being done now was done long ago."""
    return time.time() + STALE_SECONDS + 3600


# -- names and versions ---------------------------------------------------------------------------


def test_the_store_of_a_person_is_where_the_paths_say() -> None:
    store = Store.here()
    assert store.manifests_root == paths.data_dir() / "manifests"
    assert store.hub_root == hub_cache_root()
    assert store.repo("ms", "org/model").root == paths.models_dir() / "ms"


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert store.contents().manifests == ()
    assert store.find("hf", "org/model-GGUF") == ()
    assert store.current(NAME) is None
    assert store.prune(later()).goes == ()


def test_a_version_that_is_added_is_what_its_name_means(store: Store) -> None:
    old = pull(store, MODEL, OLD)
    assert store.current(NAME) == old
    new = pull(store, OTHER, NEW, when="2026-11-21T12:00:00Z")
    assert store.current(NAME) == new
    assert store.previous(NAME) == old
    assert store.versions(NAME) == (new, old)
    assert store.contents().manifests == (new, old)
    assert store.contents().findings == ()


def test_versions_of_several_names_are_found(store: Store) -> None:
    small = pull(store, MODEL, OLD, "model-Q4_K_M.gguf")
    large = pull(store, OTHER, OLD, "model-Q8_0.gguf", label="Q8_0")
    newer = pull(store, MODEL, NEW, "model-Q4_K_M.gguf", when="2026-11-21T12:00:00Z")
    elsewhere = pull(store, MODEL, OLD, kind="ms")
    assert store.find("hf", "org/model-GGUF") == (newer, large)
    assert store.find("hf", "ORG/model-gguf", "q8_0") == (large,)
    assert store.find("hf", "org/model-GGUF", revision=OLD[:7]) == (small, large)
    assert store.find("hf", "org/model-GGUF", "Q4_K_M", "main") == (newer,)
    assert store.find("hf", "org/model-GGUF", revision="v2") == ()
    assert store.find("ms", "org/model-GGUF") == (elsewhere,)


def test_labels_that_differ_by_case_or_by_a_slash_are_different_names(store: Store) -> None:
    labels = ["a/b", "a-b", "A/b", "a b", "..", "x" * 500, "ü"]
    for label in labels:
        pull(store, MODEL, OLD, label=label)
    assert sorted(each.label for each in store.contents().manifests) == sorted(labels)


def test_a_name_is_moved_to_another_version_and_back(store: Store) -> None:
    old = pull(store, MODEL, OLD)
    new = pull(store, OTHER, NEW)
    assert store.use(NAME, "1111") == old
    assert store.current(NAME) == old
    assert store.use(NAME) == new
    assert store.use(NAME) == old
    assert store.use(NAME, OLD) == old
    assert store.previous(NAME) == new, "to use what is in use is no move"


@pytest.mark.parametrize(
    ("revision", "error", "told"),
    [
        pytest.param("9", NotFoundError, OLD[:12], id="unknown"),
        pytest.param("", UsageError, OLD, id="ambiguous"),
    ],
)
def test_a_version_that_is_not_one_is_refused_and_the_others_listed(
    revision: str, error: type[LocalllmError], told: str, store: Store
) -> None:
    pull(store, MODEL, OLD)
    pull(store, OTHER, NEW)
    with pytest.raises(error) as caught:
        store.use(NAME, revision)
    assert told in str(caught.value.hint)


def test_a_name_that_has_meant_nothing_else_has_no_way_back(store: Store) -> None:
    with pytest.raises(NotFoundError, match=NAME):
        store.use(NAME)
    pull(store, MODEL, OLD)
    with pytest.raises(NotFoundError, match="no other version"):
        store.use(NAME)


def test_a_changed_chat_template_is_a_warning(store: Store) -> None:
    first = pull(store, MODEL, OLD)
    entry = put(store.repo("hf", "org/model-GGUF"), OTHER, NEW, "model-Q4_K_M.gguf")
    same = version(stored(entry, "model-Q4_K_M.gguf"), revision=NEW)
    assert store.add(same) is None
    assert store.add(replace(same, chat_template_sha256=None)) is not None
    store.use(NAME, first.revision)
    warning = store.add(replace(same, chat_template_sha256="f" * 64))
    assert warning is not None
    assert OLD[:12] in warning
    assert NEW[:12] in warning


def test_what_is_not_there_is_not_taken_in(store: Store) -> None:
    entry = put(store.repo("hf", "org/model-GGUF"), MODEL, OLD, "model.gguf")
    manifest = version(stored(entry, "model.gguf"))
    store.repo("hf", "org/model-GGUF").blob_path(sha256(MODEL)).unlink()
    with pytest.raises(NotFoundError, match=r"model\.gguf"):
        store.add(manifest)
    assert store.contents().manifests == ()


def test_a_version_is_updated_in_its_place(store: Store) -> None:
    old = pull(store, MODEL, OLD)
    new = pull(store, OTHER, NEW)
    checked = replace(old, verified={"inference": "2026-11-22T12:00:00Z"})
    store.update(checked)
    assert store.versions(NAME) == (new, checked) or store.versions(NAME) == (checked, new)
    assert store.current(NAME) == new
    store.remove(checked)
    with pytest.raises(NotFoundError):
        store.update(checked)


def test_manifests_are_their_owners_alone(store: Store) -> None:
    pull(store, MODEL, OLD)
    (folder,) = [path for path in store.manifests_root.iterdir() if path.is_dir()]
    for path in (store.manifests_root, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"schema_version": 99}'], ids=repr)
def test_a_damaged_manifest_is_a_finding_and_harms_no_other(damage: bytes, store: Store) -> None:
    good = pull(store, MODEL, OLD)
    pull(store, OTHER, NEW)
    (path,) = store.manifests_root.glob(f"*/{NEW}.json")
    path.write_bytes(damage)
    contents = store.contents()
    assert contents.manifests == (good,)
    (finding,) = contents.findings
    assert finding.level == "warn"
    assert str(path) in finding.message
    assert store.current(NAME) == good


def test_a_manifest_in_another_ones_place_is_damaged(store: Store) -> None:
    pull(store, MODEL, OLD)
    (path,) = store.manifests_root.glob(f"*/{OLD}.json")
    shutil.copy(path, path.with_name(f"{NEW}.json"))
    assert len(store.contents().findings) == 1


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"current": "../x", "previous": 3}'], ids=repr)
def test_without_a_note_of_what_it_means_a_name_means_its_newest(
    damage: bytes, store: Store
) -> None:
    pull(store, MODEL, OLD)
    new = pull(store, OTHER, NEW, when="2026-11-21T12:00:00Z")
    store.use(NAME, OLD)
    (path,) = store.manifests_root.glob("*/current")
    path.write_bytes(damage)
    assert store.current(NAME) == new


# -- what goes ------------------------------------------------------------------------------------


def test_a_model_goes_with_all_that_was_its_own(store: Store, tmp_path: Path) -> None:
    manifest = pull(store, MODEL, OLD, "sub/model-Q4_K_M.gguf")
    removal = store.remove(manifest)
    assert removal.freed_bytes == len(MODEL)
    assert removal.stays == ()
    assert tree(tmp_path) == []
    assert not (store.hub_root / FOLDER).exists()
    assert store.contents().manifests == ()


def test_a_dry_run_says_the_same_and_does_nothing(store: Store, tmp_path: Path) -> None:
    manifest = pull(store, MODEL, OLD)
    before = tree(tmp_path)
    told = store.remove(manifest, dry_run=True)
    assert tree(tmp_path) == before
    assert store.current(NAME) == manifest
    assert store.remove(manifest) == told


def test_a_version_goes_that_was_checked_since_it_was_listed(store: Store, tmp_path: Path) -> None:
    manifest = pull(store, MODEL, OLD)
    store.update(replace(manifest, verified={"integrity": "2026-11-22T12:00:00Z"}))
    assert store.remove(manifest).freed_bytes == len(MODEL)
    assert tree(tmp_path) == []


def test_a_projector_stays_while_another_quantization_needs_it(
    store: Store, tmp_path: Path
) -> None:
    repo = store.repo("hf", "org/model-GGUF")
    eyes = stored(put(repo, b"eyes", OLD, "mmproj.gguf"), "mmproj.gguf", role="mmproj")
    manifests = []
    for label, raw in (("Q4_K_M", MODEL), ("Q8_0", OTHER)):
        entry = put(repo, raw, OLD, f"{label}.gguf")
        manifests.append(version(stored(entry, f"{label}.gguf"), eyes, label=label))
        store.add(manifests[-1])
    first = store.remove(manifests[0])
    assert [(kept.path.name, kept.why) for kept in first.stays] == [
        ("mmproj.gguf", "hf:org/model-GGUF:Q8_0 needs it")
    ]
    assert first.freed_bytes == len(MODEL)
    second = store.remove(manifests[1])
    assert second.freed_bytes == len(OTHER) + 4
    assert tree(tmp_path) == []


def test_bytes_stay_while_another_version_has_them(store: Store) -> None:
    old, new = pull(store, MODEL, OLD), pull(store, MODEL, NEW)
    removal = store.remove(new)
    assert removal.freed_bytes == 0
    assert [path.name for path in removal.goes] == ["model-Q4_K_M.gguf"]
    assert str(OLD) in removal.stays[0].why
    assert Path(old.files[0].location).read_bytes() == MODEL
    assert store.current(NAME) == old


def test_bytes_stay_while_an_entry_of_another_program_leads_to_them(store: Store) -> None:
    manifest = pull(store, MODEL, NEW)
    theirs = put(store.repo("hf", "org/model-GGUF"), MODEL, OLD, "theirs.gguf")
    assert store.remove(manifest).freed_bytes == 0
    assert theirs.read_bytes() == MODEL


def test_what_stood_in_its_place_before_us_stays_and_says_so(store: Store) -> None:
    entry = put(store.repo("hf", "org/model-GGUF"), MODEL, OLD, "model.gguf")
    found = stored(entry, "model.gguf", adopted="huggingface_hub", in_place=True)
    store.add(version(found))
    removal = store.remove(version(found))
    assert removal.goes == ()
    assert [kept.why for kept in removal.stays] == ["huggingface_hub put it there"]
    assert entry.read_bytes() == MODEL


@pytest.mark.parametrize("how", ["hard", "symbolic"])
def test_of_another_programs_file_only_our_link_goes(
    how: str, store: Store, tmp_path: Path
) -> None:
    theirs = tmp_path / "ollama" / f"sha256-{sha256(MODEL)}"
    theirs.parent.mkdir()
    theirs.write_bytes(MODEL)
    repo = store.repo("hf", "org/model-GGUF")
    blob = repo.blob_path(sha256(MODEL))
    blob.parent.mkdir(parents=True)
    (os.link if how == "hard" else os.symlink)(theirs, blob)
    entry = repo.publish(blob.name, OLD, "model.gguf")
    manifest = version(stored(entry, "model.gguf", adopted="Ollama"))
    store.add(manifest)
    removal = store.remove(manifest)
    assert removal.freed_bytes == 0
    assert "Ollama" in removal.stays[0].why
    assert set(removal.goes) == {entry, blob}
    assert tree(tmp_path) == [f"ollama/sha256-{sha256(MODEL)}"]
    assert theirs.read_bytes() == MODEL


def test_where_files_stand_in_the_snapshot_they_go_from_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    manifest = pull(store, MODEL, OLD)
    assert store.remove(manifest).freed_bytes == len(MODEL)
    assert tree(tmp_path) == []


def test_the_hubs_library_finds_a_sound_cache_when_a_version_has_gone(store: Store) -> None:
    old = pull(store, MODEL, OLD)
    pull(store, OTHER, NEW)
    put(store.repo("hf", "org/other-GGUF"), b"card", OLD, "README.md")
    code = (
        "import huggingface_hub as hub, json\n"
        "info = hub.scan_cache_dir()\n"
        "print(json.dumps([[str(each) for each in info.warnings], sorted(r.repo_id for r in"
        " info.repos), sorted(v.commit_hash for r in info.repos for v in r.revisions)]))"
    )
    environment = {"HF_HUB_CACHE": str(store.hub_root)}
    store.remove(old)
    both = ["org/model-GGUF", "org/other-GGUF"]
    assert ask_hub_library(code, **environment) == [[], both, sorted([OLD, NEW])]
    store.remove(store.find("hf", "org/model-GGUF")[0])
    assert ask_hub_library(code, **environment) == [[], ["org/other-GGUF"], [OLD]]


def test_a_reference_goes_with_its_revision_and_no_other_does(store: Store) -> None:
    old, new = pull(store, MODEL, OLD), pull(store, OTHER, NEW)
    refs = store.repo("hf", "org/model-GGUF").folder / "refs"
    store.repo("hf", "org/model-GGUF").set_ref("refs/pr/1", OLD)
    assert (refs / "main").read_text() == NEW
    store.remove(old)
    assert tree(refs) == ["main"]
    store.remove(new)
    assert not refs.exists()


def test_what_another_process_is_at_stays(store: Store) -> None:
    manifest = pull(store, MODEL, OLD)
    repo = store.repo("hf", "org/model-GGUF")
    with repo.lock(sha256(MODEL)):
        removal = store.remove(manifest)
    assert removal.goes == ()
    assert "another process" in removal.stays[0].why
    assert repo.find(OLD, "model-Q4_K_M.gguf") is not None


def test_folders_stay_while_something_is_being_downloaded_there(store: Store) -> None:
    manifest = pull(store, MODEL, OLD)
    folder = store.repo("hf", "org/model-GGUF").folder
    # As the hub's library: the entry's folder first, the entry when all is there.
    (folder / "blobs" / f"{'c' * 64}.1234abcd.incomplete").write_bytes(b"...")
    store.remove(manifest)
    assert (folder / "snapshots" / OLD).is_dir()


@pytest.mark.parametrize(
    "location",
    [
        "{tmp}/victim.gguf",
        "{tmp}/hub/models--org--model-GGUF/victim.gguf",
        f"{{tmp}}/hub/models--org--model-GGUF/snapshots/{OLD}/../../../../victim.gguf",
        f"{{tmp}}/hub/models--org--other/snapshots/{OLD}/victim.gguf",
        "/",
    ],
)
def test_a_manifest_that_names_another_place_removes_nothing_there(
    location: str, store: Store, tmp_path: Path
) -> None:
    place = Path(location.format(tmp=tmp_path))
    real = Path(os.path.normpath(place))
    if location != "/":
        (store.hub_root / FOLDER / "snapshots" / OLD).mkdir(parents=True)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(MODEL)
    victim = stored(put(store.repo("ms", "a/b"), MODEL, OLD, "model.gguf"), "model.gguf")
    before = tree(tmp_path)
    assert store.remove(version(replace(victim, location=str(place)))).goes == ()
    assert tree(tmp_path) == before


def test_a_cache_that_was_moved_by_the_environment_is_still_known(
    store: Store, tmp_path: Path
) -> None:
    manifest = pull(store, MODEL, OLD)
    moved = replace(store, hub_root=tmp_path / "another hub")
    assert moved.current(NAME) == manifest
    assert moved.remove(manifest).freed_bytes == len(MODEL)
    assert tree(tmp_path) == []


def test_a_snapshot_that_is_a_link_out_of_the_cache_loses_nothing_there(
    store: Store, tmp_path: Path
) -> None:
    manifest = pull(store, MODEL, OLD)
    snapshots = store.repo("hf", "org/model-GGUF").folder / "snapshots"
    (snapshots / OLD).rename(tmp_path / "outside")
    (snapshots / OLD).symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "outside" / "empty").mkdir()
    removal = store.remove(manifest)
    assert removal.goes == ()
    assert (tmp_path / "outside" / "model-Q4_K_M.gguf").is_symlink()
    assert (tmp_path / "outside" / "empty").is_dir()


# -- pruning --------------------------------------------------------------------------------------


def test_pruning_keeps_what_a_name_means_and_meant_before(store: Store) -> None:
    versions = [
        pull(store, MODEL + bytes([no]), str(no) * 40, when=f"2026-11-2{no}T12:00:00Z")
        for no in range(4)
    ]
    told = store.prune(time.time(), dry_run=True)
    removal = store.prune(time.time())
    assert told == removal
    assert removal.freed_bytes == 2 * (len(MODEL) + 1)
    assert store.versions(NAME) == (versions[3], versions[2])
    assert store.use(NAME) == versions[2]
    assert store.prune(time.time()).goes == ()


@pytest.mark.parametrize("kind", ["hf", "ms", "url"])
def test_an_unfinished_download_goes_when_it_was_given_up(kind: str, store: Store) -> None:
    repo = store.repo(kind, "org/model-GGUF")  # type: ignore[arg-type]
    digest = sha256(MODEL)
    with repo.lock(digest):
        part = repo.part_path(digest)
        part.write_bytes(b"some")
        part.with_name(part.name + ".json").write_bytes(b"{}")
        theirs = part.with_name(f"{digest}.1234abcd.incomplete")
        theirs.write_bytes(b"of the hub's library")
    assert store.prune(time.time()).goes == ()
    with repo.lock(digest):
        assert store.prune(later()).goes == ()
    assert store.prune(later(), dry_run=True).freed_bytes == 6
    assert {path.name for path in store.prune(later()).goes} == {part.name, part.name + ".json"}
    assert theirs.exists()
    assert store.prune(later()).goes == ()


def test_in_our_own_folders_what_nobody_claims_goes(store: Store, tmp_path: Path) -> None:
    claimed = pull(store, MODEL, OLD, kind="ms")
    repo = store.repo("ms", "org/model-GGUF")
    put(repo, b"given up before its manifest", NEW, "model.gguf")
    orphan = repo.blob_path(sha256(b"whole, and never published"))
    orphan.write_bytes(b"whole, and never published")
    assert store.prune(time.time()).goes == ()
    told = store.prune(later(), dry_run=True)
    assert told.freed_bytes == 28 + 26
    assert store.prune(later()) == told
    assert Path(claimed.files[0].location).read_bytes() == MODEL
    assert store.prune(later()).goes == ()


def test_an_old_file_that_was_linked_in_just_now_is_not_stale(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(MODEL)
    os.utime(theirs, (0, 0))
    repo = store.repo("ms", "org/model-GGUF")
    with repo.lock(sha256(MODEL)):
        os.link(theirs, repo.blob_path(sha256(MODEL)))
    assert store.prune(time.time()).goes == ()
    assert store.prune(later()).goes == (repo.blob_path(sha256(MODEL)),)


def test_in_the_hubs_cache_what_we_do_not_know_is_none_of_our_business(store: Store) -> None:
    repo = store.repo("hf", "org/model-GGUF")
    put(repo, b"theirs", NEW, "model.gguf")
    repo.blob_path(sha256(b"orphan")).write_bytes(b"orphan")
    before = tree(store.hub_root)
    assert store.prune(later()).goes == ()
    assert tree(store.hub_root) == before


def test_while_a_manifest_cannot_be_read_nothing_counts_as_unclaimed(store: Store) -> None:
    manifest = pull(store, MODEL, OLD, kind="url", repo="https://example.org/models")
    (path,) = store.manifests_root.glob("*/*.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert store.prune(later()).goes == ()
    path.write_bytes(whole)
    assert store.prune(later()).goes == ()
    assert Path(manifest.files[0].location).read_bytes() == MODEL


def test_a_repository_that_is_a_link_is_not_pruned(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    part = outside / "blobs" / f"{'c' * 64}.part"
    temporary = outside / "blobs" / f".{'c' * 16}.tmp"
    part.parent.mkdir(parents=True)
    part.touch()
    temporary.touch()
    store.hub_root.mkdir()
    (store.hub_root / FOLDER).symlink_to(outside, target_is_directory=True)
    assert store.prune(later()) == Removal()
    assert part.exists()
    assert temporary.exists()


def test_what_a_crash_left_among_the_blobs_goes(store: Store) -> None:
    repo = store.repo("hf", "org/model-GGUF")
    put(repo, MODEL, OLD, "model.gguf")
    link = repo.folder / "blobs" / f".{'c' * 16}.tmp"
    link.symlink_to("../../nowhere")
    assert store.prune(later()).goes == (link,)
    assert not link.is_symlink()


# -- several processes ----------------------------------------------------------------------------

N_PROCESSES, N_ROUNDS = 4, 25
#: Two revisions share one file, and not the other.
CONTENTS = {
    ("Q4_K_M", OLD): MODEL,
    ("Q4_K_M", NEW): MODEL,
    ("Q8_0", OLD): OTHER,
    ("Q8_0", NEW): OTHER + b"!",
}


def _come_and_go(
    root: Path, seed: int, problems: multiprocessing.Queue[str], n_rounds: int = N_ROUNDS
) -> None:
    """Pulls and removes the same few models over and over."""
    store = Store(root / "manifests", root / "hub", root / "models")
    chance = random.Random(seed)
    repo = store.repo("hf", "org/model-GGUF")
    try:
        for _ in range(n_rounds):
            label, revision = chance.choice(["Q4_K_M", "Q8_0"]), chance.choice([OLD, NEW])
            raw = CONTENTS[label, revision]
            digest, path = sha256(raw), f"{label}.gguf"
            if chance.random() < 0.6:
                with repo.lock(digest):
                    blob = repo.blob_path(digest)
                    if not blob.exists():
                        repo.part_path(digest).write_bytes(raw)
                        os.replace(repo.part_path(digest), blob)
                    entry = repo.publish(digest, revision, path)
                    manifest = version(stored(entry, path), revision=revision, label=label)
                    store.add(manifest)
            elif chance.random() < 0.8:
                for manifest in store.find("hf", "org/model-GGUF", label):
                    store.remove(manifest)
            else:
                store.prune(time.time())
    except BaseException as exc:
        problems.put(f"{seed}: {exc!r}")
        raise


def test_processes_that_pull_and_remove_at_once_lose_nothing_that_is_claimed(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    processes = [
        context.Process(target=_come_and_go, args=(tmp_path, seed, problems))
        for seed in range(N_PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * N_PROCESSES, problems.get(timeout=9)
    _check_claims(Store(tmp_path / "manifests", tmp_path / "hub", tmp_path / "models"))


def test_a_kill_at_any_moment_leaves_no_claim_without_its_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "manifests", tmp_path / "hub", tmp_path / "models")
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    for seed in range(8):
        process = context.Process(target=_come_and_go, args=(tmp_path, seed, problems, 10**6))
        process.start()
        before = _latest(store)
        wait_until(lambda seen=before: _latest(store) != seen, "the other process to write")
        process.kill()
        process.join()
        assert problems.empty()
        _check_claims(store)
    for manifest in store.contents().manifests:
        store.remove(manifest)
    store.prune(later())
    assert [path for path in tree(store.hub_root) if path.endswith((".part", ".tmp"))] == []


def _latest(store: Store) -> list[tuple[str, int]]:
    while True:
        with contextlib.suppress(FileNotFoundError):  # it went while it was looked at
            found = store.manifests_root.glob("*/*.json")
            return sorted((str(path), path.stat().st_mtime_ns) for path in found)


def _check_claims(store: Store) -> None:
    contents = store.contents()
    assert contents.findings == ()
    for manifest in contents.manifests:
        for file in manifest.files:
            assert sha256(Path(file.location).read_bytes()) == file.digests["sha256"]


def test_a_note_that_is_written_by_many_is_whole(store: Store) -> None:
    pull(store, MODEL, OLD)
    pull(store, OTHER, NEW)
    (path,) = store.manifests_root.glob("*/current")
    assert json.loads(path.read_bytes()) == {
        "schema_version": 1,
        "current": NEW,
        "previous": OLD,
    }


def test_a_manifest_is_not_written_for_a_revision_that_is_a_trap(store: Store) -> None:
    manifest = pull(store, MODEL, OLD)
    with pytest.raises(IntegrityError):
        store.add(replace(manifest, revision="../../x"))
