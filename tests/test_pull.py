"""The pull as a whole, in this process: what comes, from where, what is proven, what is kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm.cli import app, finding
from localllm.digests import Claim
from localllm.errors import DiskError, IntegrityError, LocalllmError, NetworkError, UsageError
from localllm.hub import huggingface
from localllm.hub.pace import Connections
from localllm.hub.patience import Limits
from localllm.hub.web import Web
from localllm.pull import Order, Pulled, Step, pull
from localllm.store import HUB_PROGRAM, Store
from localllm.variants import RepoFile
from tests.ggufs import I32, U16, Llama, Projector, write_gguf
from tests.loopback_hub import BitFlip, Gone, LoopbackHub
from tests.store.things import ask_hub_library

REPO = "org/Some-Model-1B-GGUF"
SHAPE = Llama(n_layers=2, n_embd=256, n_head=4, n_head_kv=4, n_ff=512, n_ctx_train=4096)
KINDS = {"Q8_0": "Q8_0", "Q4_K_M": "Q4_K", "F16": "F16"}
MMPROJ = "mmproj-Some-Model-1B-F16.gguf"
DRAFT = "Some-Model-1B-draft-Q8_0.gguf"
#: Quick to try again, slow to lose patience with a busy machine.
QUICK = Web(Limits(backoff_seconds=0.01, attempts=3))
PROGRAM = b"MZqFpD='\n" + random.Random(1).randbytes(50_000)


def name_of(quant: str) -> str:
    return f"Some-Model-1B-{quant}.gguf"


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def make_models(folder: Path) -> dict[str, bytes]:
    """A repository: three quantizations, a projector, a draft."""
    files = {}
    for quant, kind in KINDS.items():
        path = replace(SHAPE, kind=kind, file_type=quant).write(folder / name_of(quant))
        files[path.name] = path.read_bytes()
    files[MMPROJ] = Projector(n_embd_text=256).write(folder / MMPROJ).read_bytes()
    draft = replace(SHAPE, n_layers=1, kind="Q8_0", file_type="Q8_0")
    files[DRAFT] = draft.write(folder / DRAFT).read_bytes()
    files["README.md"] = b"# A model\n"
    return files


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_models(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model in two files."""
    folder = tmp_path_factory.mktemp("shards")
    shape = replace(SHAPE, kind="Q8_0", file_type="Q8_0")
    tensors = shape.tensors()
    count = {"split.count": U16(2), "split.tensors.count": I32(len(tensors))}
    first = {**shape.metadata(), **count, "split.no": U16(0)}
    parts = ((first, tensors[:10]), ({**count, "split.no": U16(1)}, tensors[10:]))
    files = {}
    for no, (keys, some) in enumerate(parts, 1):
        path = write_gguf(folder / f"Split-Q8_0-0000{no}-of-00002.gguf", keys, some)
        files[path.name] = path.read_bytes()
    return files


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.modelscope_endpoint)
        yield running


@pytest.fixture(autouse=True)
def person(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without other programs' models, and the working folder."""
    folder = home / "person"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return folder


def order_of(ref: str, quant: str | None = None, **changes: Any) -> Order:
    """What a person's command comes to, its plan left out."""
    found = finding.find_there(ref, QUICK, quant)
    assert found.there is not None
    opened = found.models[0]
    order = Order(
        source=found.there.source,
        listing=found.there.listing,
        variant=found.there.variant_of(opened),
        model=opened.model,
        connections=Connections(most=1),
    )
    return replace(order, **changes)


def fetch(ref: str, quant: str | None = None, **changes: Any) -> Pulled:
    return pull(order_of(ref, quant, **changes), Store.here())


def llamafile(members: Mapping[str, bytes]) -> bytes:
    """A program with a zip behind it, whose members are stored."""
    file = io.BytesIO(PROGRAM)
    with zipfile.ZipFile(file, "a") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def location(pulled: Pulled) -> Path:
    return Path(pulled.manifest.files[0].location)


def kept_files(home: Path) -> list[str]:
    """Whatever could pass for a model: everything but memory of the network, locks and folders."""
    return sorted(
        str(path.relative_to(home))
        for root in (home / "hf", home / "data")
        for path in root.rglob("*")
        if (path.is_symlink() or path.is_file()) and not path.name.endswith(".lock")
    )


def beside(listing_files: tuple[RepoFile, ...], name: str) -> RepoFile:
    return next(file for file in listing_files if file.path == name)


class TestMainPath:
    def test_a_pulled_file_is_where_the_hubs_own_programs_look(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        commit = hub.add_repo(REPO, models)
        pulled = fetch(REPO, "Q8_0")
        hub.close()
        assert location(pulled).read_bytes() == models[name_of("Q8_0")]
        code = (
            "import json, sys, huggingface_hub as h\n"
            "found = [h.hf_hub_download(*sys.argv[1:], revision=r) for r in ('main', None)]\n"
            "print(json.dumps(found))"
        )
        found = ask_hub_library(code, REPO, name_of("Q8_0"), HF_HUB_OFFLINE="1")
        assert found == [str(location(pulled))] * 2
        manifest = pulled.manifest
        assert (manifest.revision, manifest.asked, manifest.label) == (commit, "main", "Q8_0")
        assert manifest.files[0].digests == {"sha256": sha256(models[name_of("Q8_0")])}
        assert manifest.verified.keys() == {"integrity", "structure", "quantization"}
        assert Store.here().find("hf", REPO) == (manifest,)

    def test_a_mirrors_digest_proves_the_transfer_and_the_hubs_own_the_origin(
        self, hub: LoopbackHub, models: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add_repo(REPO, models)
        host = hub.endpoint.partition("://")[2]
        proof = Claim("sha256", sha256(models[name_of("Q8_0")]), host, "transfer")
        assert fetch(REPO, "Q8_0").manifest.files[0].proofs == (proof,)
        monkeypatch.setattr(huggingface, "_PUBLIC_HOSTS", (host,))
        (proof,) = fetch(REPO, "F16").manifest.files[0].proofs
        assert (proof.by, proof.proves) == (host, "origin")

    def test_steps_tell_how_far_it_is_and_what_is_verified(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo(REPO, models)
        steps: list[Step] = []
        pull(order_of(REPO, "Q8_0"), Store.here(), steps.append)
        size = len(models[name_of("Q8_0")])
        assert {(step.file, step.doing) for step in steps} == {(name_of("Q8_0"), "downloading")}
        assert (steps[-1].done_bytes, steps[-1].hashed_bytes) == (size, size)

    def test_modelscope_keeps_its_models_apart(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo(REPO, models)
        pulled = fetch(f"ms:{REPO}", "Q8_0")
        assert pulled.manifest.name == f"ms:{REPO}:Q8_0"
        assert location(pulled).read_bytes() == models[name_of("Q8_0")]
        assert location(pulled).is_relative_to(Store.here().models_root / "ms")
        assert Store.here().find("hf", REPO) == ()

    def test_a_projector_stays_with_its_model_when_the_model_is_pulled_again(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo(REPO, models)
        files = order_of(REPO, "Q8_0").listing.files
        companions = ((beside(files, MMPROJ), "mmproj"), (beside(files, DRAFT), "draft"))
        first = fetch(REPO, "Q8_0", beside=companions)
        assert [file.role for file in first.manifest.files] == ["model", "mmproj", "draft"]
        again = fetch(REPO, "Q8_0")
        assert again.manifest.files == first.manifest.files
        assert again.how == ("here",) * 3

    def test_files_of_one_folder_on_a_server_are_models_of_their_own(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        urls = {quant: hub.add_file(name_of(quant), models[name_of(quant)]) for quant in KINDS}
        for quant in ("Q8_0", "F16"):
            fetch(urls[quant])
        for quant in ("Q8_0", "F16"):
            (opened,) = finding.find_here(urls[quant]).models
            assert Path(opened.model.path).read_bytes() == models[name_of(quant)]
        with pytest.raises(LocalllmError, match="is not on this disk"):
            finding.find_here(urls["Q4_K_M"])


class TestProofs:
    def test_checksum_files_of_a_repository_are_told_beside_the_hubs_own_word(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        name, raw = name_of("Q8_0"), models[name_of("Q8_0")]
        md5 = hashlib.md5(raw).hexdigest()
        sums = f"{sha256(raw)}  {name}\n{'0' * 64}  other.gguf\n".encode()
        hub.add_repo(REPO, {**models, f"{name}.md5": md5.encode(), "SHA256SUMS": sums})
        (file,) = fetch(REPO, "Q8_0").manifest.files
        said = {(proof.algorithm, proof.by.partition(" of ")[0]) for proof in file.proofs}
        host = hub.endpoint.partition("://")[2]
        assert said == {("sha256", host), ("sha256", "SHA256SUMS"), ("md5", f"{name}.md5")}
        assert file.digests == {"sha256": sha256(raw), "md5": md5}

    @pytest.mark.parametrize("side_car", [".md5", ".sha256", ".sha512"])
    def test_a_checksum_file_beside_a_url_proves_the_transfer(
        self, hub: LoopbackHub, models: dict[str, bytes], side_car: str
    ) -> None:
        raw = models[name_of("Q8_0")]
        algorithm = side_car[1:]
        digest = hashlib.new(algorithm, raw).hexdigest()
        url = hub.add_file("m.gguf", raw)
        hub.add_file(f"m.gguf{side_car}", f"{digest}  m.gguf\n".encode())
        (proof,) = fetch(url).manifest.files[0].proofs
        assert (proof.algorithm, proof.hex, proof.proves) == (algorithm, digest, "transfer")
        assert proof.by.startswith(f"m.gguf{side_car} of 127.0.0.1")

    @pytest.mark.parametrize("where", ["url", "repository"])
    def test_a_file_that_its_checksum_file_contradicts_is_refused(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, where: str
    ) -> None:
        raw = models[name_of("Q8_0")]
        ref = hub.add_file("m.gguf", raw)
        hub.add_file("m.gguf.md5", b"0" * 32)
        if where == "repository":
            hub.add_repo(REPO, {"m.gguf": raw, "m.gguf.md5": b"0" * 32})
            ref = REPO
        with pytest.raises(IntegrityError, match=r"m\.gguf\.md5 of 127\.0\.0\.1.* says 0{32}"):
            fetch(ref)
        assert kept_files(home) == []

    def test_nobody_has_to_claim_anything(self, hub: LoopbackHub, models: dict[str, bytes]) -> None:
        raw = models[name_of("Q8_0")]
        (file,) = fetch(hub.add_file("m.gguf", raw)).manifest.files
        assert (file.proofs, file.digests) == ((), {"sha256": sha256(raw)})

    def test_what_the_person_says_is_asked_of_what_is_here_already(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        raw = models[name_of("Q8_0")]
        hub.add_repo(REPO, models)
        fetch(REPO, "Q8_0")
        md5 = Claim("md5", hashlib.md5(raw).hexdigest(), "--md5")
        again = fetch(REPO, "Q8_0", claims=(md5,))
        assert (again.how, again.fetched_bytes) == (("here",), 0)
        assert md5 in again.manifest.files[0].proofs
        assert again.manifest.files[0].digests["md5"] == md5.hex

    def test_a_person_who_means_another_file_is_told_before_any_of_it_comes(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path
    ) -> None:
        hub.add_repo(REPO, models)
        order = order_of(REPO, "Q8_0", claims=(Claim("sha256", "0" * 64, "--sha256"),))
        hub.reset()
        with pytest.raises(IntegrityError, match=r"--sha256 wants .* lists it with"):
            pull(order, Store.here())
        assert (hub.requests, kept_files(home)) == ([], [])

    def test_a_file_that_is_another_than_its_listing_says_leaves_nothing(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path
    ) -> None:
        hub.add_repo(REPO, models)
        order = order_of(REPO, "Q8_0")
        hub.misbehave(BitFlip(len(models[name_of("Q8_0")]) // 2))
        with pytest.raises(IntegrityError, match="has the sha256"):
            pull(order, Store.here())
        assert kept_files(home) == []

    def test_a_digest_is_of_one_file(self, hub: LoopbackHub, shards: dict[str, bytes]) -> None:
        hub.add_repo("org/Split-GGUF", shards)
        claims = (Claim("sha256", "0" * 64, "--sha256"),)
        with pytest.raises(UsageError, match="is 2 files, and a digest is of one"):
            fetch("org/Split-GGUF", claims=claims)

    def test_a_file_called_otherwise_than_it_is_comes_with_a_warning(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo("org/Wrong-GGUF", {"Wrong-Q8_0.gguf": models[name_of("F16")]})
        pulled = fetch("org/Wrong-GGUF")
        assert "the name says Q8_0, and the header that it is F16" in pulled.warnings[0]
        assert "quantization" not in pulled.manifest.verified


class TestSplitSets:
    REPO = "org/Split-GGUF"

    def test_all_parts_come(self, hub: LoopbackHub, shards: dict[str, bytes]) -> None:
        hub.add_repo(self.REPO, shards)
        pulled = fetch(self.REPO)
        stored = {Path(file.location).name: Path(file.location) for file in pulled.manifest.files}
        assert {name: path.read_bytes() for name, path in stored.items()} == shards
        assert len({path.parent for path in stored.values()}) == 1

    @pytest.mark.parametrize("missing", [0, 1])
    def test_a_set_that_lacks_a_part_is_refused_before_anything_comes(
        self, hub: LoopbackHub, shards: dict[str, bytes], home: Path, missing: int
    ) -> None:
        rest = {name: raw for no, (name, raw) in enumerate(shards.items()) if no != missing}
        hub.add_repo(self.REPO, rest)
        with pytest.raises(IntegrityError, match=f"shards {missing + 1} of 2 are missing"):
            fetch(self.REPO)
        assert kept_files(home) == []
        assert {seen.route for seen in hub.requests} == {"api"}

    def test_the_part_that_came_is_not_fetched_again_when_the_other_could_not_be_had(
        self, hub: LoopbackHub, shards: dict[str, bytes]
    ) -> None:
        first, second = shards
        hub.add_repo(self.REPO, shards)
        order = order_of(self.REPO)
        hub.misbehave(Gone(), file=second, on=("resolve",))
        with pytest.raises(NetworkError, match=f"lists {second}, and does not have it"):
            pull(order, Store.here())
        assert Store.here().contents().manifests == ()
        hub.behave()
        hub.reset()
        pulled = pull(order, Store.here())
        assert pulled.how == ("here", "downloaded")
        assert hub.sent_bytes(first) == 0
        assert [file.adopted for file in pulled.manifest.files] == [None, None]


class TestNothingTwice:
    def test_the_same_again_asks_for_no_byte(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo(REPO, models)
        url = hub.add_file("m.gguf", models[name_of("F16")])
        for ref, quant in ((REPO, "Q8_0"), (f"ms:{REPO}", "Q8_0"), (url, None)):
            first = fetch(ref, quant)
            hub.reset()
            again = fetch(ref, quant)
            assert (again.how, again.fetched_bytes) == (("here",), 0)
            assert again.manifest.files == first.manifest.files
            assert hub.sent_bytes("*.gguf") <= 1  # of a URL, whether it is still the same

    def test_a_revision_with_the_same_file_is_a_version_that_costs_nothing(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo(REPO, models)
        first = fetch(REPO, "Q8_0")
        hub.commit(REPO, {"README.md": b"# Another readme\n"})
        hub.reset()
        second = fetch(REPO, "Q8_0")
        assert second.manifest.revision != first.manifest.revision
        assert (second.fetched_bytes, hub.sent_bytes("*.gguf")) == (0, 0)
        assert os.path.samefile(location(first), location(second))
        assert len(Store.here().versions(first.manifest.name)) == 2

    def test_another_template_in_the_next_version_is_a_warning(
        self, hub: LoopbackHub, models: dict[str, bytes], tmp_path: Path
    ) -> None:
        hub.add_repo(REPO, models)
        assert fetch(REPO, "Q8_0").warnings == ()
        shape = replace(SHAPE, kind="Q8_0", file_type="Q8_0", chat_template="{{ messages }}")
        other = shape.write(tmp_path / "other.gguf")
        hub.commit(REPO, {name_of("Q8_0"): other.read_bytes()})
        (warning,) = fetch(REPO, "Q8_0").warnings
        assert "The chat template" in warning

    @pytest.mark.parametrize("program", ["Ollama", "LM Studio"])
    @pytest.mark.parametrize("source", ["hub", "url"])
    def test_what_another_program_has_is_linked(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        person: Path,
        program: str,
        source: str,
    ) -> None:
        raw = models[name_of("Q8_0")]
        theirs = {
            "Ollama": person / ".ollama/models/blobs" / f"sha256-{sha256(raw)}",
            "LM Studio": person / ".lmstudio/models/org/model" / name_of("Q8_0"),
        }[program]
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(raw)
        claims = ()
        if source == "hub":
            hub.add_repo(REPO, models)
            ref = REPO
        else:
            ref = hub.add_file(name_of("Q8_0"), raw)
            claims = (Claim("sha256", sha256(raw), "--sha256"),)
        order = order_of(ref, "Q8_0" if source == "hub" else None, claims=claims)
        hub.reset()
        # Nothing has to come, so there is room for it on any disk.
        pulled = pull(replace(order, reserve_bytes=2**62), Store.here())
        assert (pulled.how, pulled.manifest.files[0].adopted) == ((program,), program)
        assert hub.sent_bytes("*.gguf") == 0
        assert os.path.samefile(location(pulled), theirs)

    def test_what_the_hubs_own_library_downloaded_stays_its_own(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        hub.add_repo(REPO, models)
        code = (
            "import json, sys, huggingface_hub as h\n"
            "print(json.dumps(h.hf_hub_download(*sys.argv[1:])))"
        )
        theirs = ask_hub_library(code, REPO, name_of("Q8_0"), HF_ENDPOINT=hub.endpoint)
        order = order_of(REPO, "Q8_0")
        hub.reset()
        pulled = pull(order, Store.here())
        (file,) = pulled.manifest.files
        assert (file.location, file.adopted, file.in_place) == (theirs, HUB_PROGRAM, True)
        assert hub.sent_bytes("*.gguf") == 0
        hub.commit(REPO, {"README.md": b"# Another readme\n"})
        next_one = fetch(REPO, "Q8_0")
        assert not next_one.manifest.files[0].in_place  # this link is ours
        Store.here().remove(next_one.manifest)
        Store.here().remove(pulled.manifest)
        assert not location(next_one).exists()
        assert Path(theirs).read_bytes() == models[name_of("Q8_0")]

    @pytest.mark.parametrize("harm", ["flipped", "cut", "emptied"])
    def test_a_damaged_file_in_the_cache_is_fetched_anew(
        self, hub: LoopbackHub, models: dict[str, bytes], harm: str
    ) -> None:
        raw = models[name_of("Q8_0")]
        hub.add_repo(REPO, models)
        first = fetch(REPO, "Q8_0")
        blob = location(first).resolve()
        flipped = raw[:-1] + bytes([raw[-1] ^ 1])
        blob.write_bytes({"flipped": flipped, "cut": raw[:-1], "emptied": b""}[harm])
        again = fetch(REPO, "Q8_0")
        assert again.how == ("downloaded",)
        assert location(again).read_bytes() == raw

    def test_a_removed_file_comes_again(self, hub: LoopbackHub, models: dict[str, bytes]) -> None:
        hub.add_repo(REPO, models)
        first = fetch(REPO, "Q8_0")
        location(first).resolve().unlink()
        assert fetch(REPO, "Q8_0").how == ("downloaded",)

    def test_a_disk_without_room_is_told_before_anything_comes(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path
    ) -> None:
        hub.add_repo(REPO, models)
        order = order_of(REPO, "Q8_0", reserve_bytes=2**62)
        hub.reset()
        with pytest.raises(DiskError, match=r"are to be downloaded to .* are to stay so"):
            pull(order, Store.here())
        assert (hub.sent_bytes("*.gguf"), kept_files(home)) == (0, [])


class TestLlamafiles:
    @pytest.fixture
    def packed(self, models: dict[str, bytes]) -> bytes:
        return llamafile({name_of("Q8_0"): models[name_of("Q8_0")], ".args": b"-m\nx.gguf\n"})

    @pytest.mark.parametrize("claimed", [False, True], ids=["unclaimed", "claimed"])
    def test_the_model_in_one_behind_a_url_is_taken_out_and_the_rest_goes(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        packed: bytes,
        home: Path,
        claimed: bool,
    ) -> None:
        url = hub.add_file("Some-Model.llamafile", packed)
        claims = (Claim("sha256", sha256(packed), "--sha256"),) if claimed else ()
        pulled = fetch(url, claims=claims)
        (file,) = pulled.manifest.files
        assert Path(file.location).read_bytes() == models[name_of("Q8_0")]
        assert file.digests == {"sha256": sha256(models[name_of("Q8_0")])}
        sizes = [(home / path).stat().st_size for path in kept_files(home)]
        assert max(sizes) < len(packed)
        assert len(file.archive_proofs) == claimed
        for proof in file.proofs:  # which are to hold of the file that is here, for `verify`
            assert file.digests[proof.algorithm] == proof.hex
            assert sha256(packed) in proof.by
        hub.reset()
        again = fetch(url, claims=claims)
        assert again.how == ("here",)
        assert hub.sent_bytes("*.llamafile") <= 1

    def test_one_that_the_person_means_otherwise_is_not_the_one_that_is_here(
        self, hub: LoopbackHub, packed: bytes
    ) -> None:
        url = hub.add_file("Some-Model.llamafile", packed)
        fetch(url)
        with pytest.raises(IntegrityError, match=r"--sha256 says 0{64}"):
            fetch(url, claims=(Claim("sha256", "0" * 64, "--sha256"),))

    def test_one_in_a_repository_comes_once_for_all_revisions(
        self, hub: LoopbackHub, models: dict[str, bytes], packed: bytes
    ) -> None:
        hub.add_repo(REPO, {"Some-Model-Q8_0.llamafile": packed})
        first = fetch(REPO)
        assert location(first).name == "Some-Model-Q8_0.gguf"
        assert location(first).read_bytes() == models[name_of("Q8_0")]
        hub.commit(REPO, {"README.md": b"# New\n"})
        hub.reset()
        second = fetch(REPO)
        assert second.manifest.revision != first.manifest.revision
        assert (second.how, hub.sent_bytes("*.llamafile")) == (("here",), 0)
        assert location(second).name == location(first).name
        assert location(second).read_bytes() == models[name_of("Q8_0")]

    def test_one_without_a_model_is_told(self, hub: LoopbackHub, home: Path) -> None:
        url = hub.add_file("empty.llamafile", llamafile({"README": b"nothing"}))
        with pytest.raises(IntegrityError, match=r"there is no model in empty\.llamafile"):
            fetch(url)
        assert kept_files(home) == []


# -- hostile names ------------------------------------------------------------------------------

LONG = "a" * 300
HOSTILE_NAMES = {
    "climbs": "../evil.gguf",
    "climbs far": "../../../../../../../../tmp/evil.gguf",
    "climbs inside": "a/../../evil.gguf",
    "climbs and comes back": "a/../evil.gguf",
    "stays": "./evil.gguf",
    "stays inside": "a/./evil.gguf",
    "absolute": "/tmp/evil.gguf",
    "absolute twice": "//tmp/evil.gguf",
    "empty part": "a//evil.gguf",
    "drive": "C:/evil.gguf",
    "drive without a slash": "C:evil.gguf",
    "drive backslash": "C:\\evil.gguf",
    "share": "\\\\server\\share\\evil.gguf",
    "backslash climbs": "..\\evil.gguf",
    "backslash inside": "a\\..\\..\\evil.gguf",
    "stream": "evil.gguf:stream.gguf",
    "device": "con.gguf",
    "device in capitals": "NUL.gguf",
    "device in a folder": "a/aux.gguf",
    "device as a folder": "PRN/evil.gguf",
    "numbered device": "COM1.gguf",
    "raised device": "lpt\u00b9.gguf",
    "console": "CONIN$.gguf",
    "dot at the end of a folder": "a./evil.gguf",
    "blank at the end of a folder": "a /evil.gguf",
    "dots as a folder": ".../evil.gguf",
    "newline": "evil\n.gguf",
    "return": "evil\r.gguf",
    "escape": "\x1b[2Jevil.gguf",
    "bell": "\x07evil.gguf",
    "delete": "evil\x7f.gguf",
    "next line": "evil\x85.gguf",
    "right to left": "evil\u202efugg.gguf",
    "isolate": "evil\u2066.gguf",
    "zero width": "ev\u200bil.gguf",
    "byte order mark": "\ufeffevil.gguf",
    "line separator": "evil\u2028.gguf",
    "nul": "evil\0.gguf",
    "overlong name": f"{LONG}.gguf",
    "overlong name in letters of three bytes": "\u6a21" * 100 + ".gguf",
    "overlong path": "/".join(["abcdefghi"] * 120) + "/evil.gguf",
    "encoded slash": "..%2fevil.gguf",
    "encoded dots": "%2e%2e/evil.gguf",
    "encoded backslash": "a%5Cevil.gguf",
    "encoded nul": "evil%00.gguf",
    "question mark": "evil?.gguf",
    "star": "*.gguf",
    "pipe": "evil|.gguf",
    "quote": 'evil".gguf',
    "angle": "<evil>.gguf",
    "climbing shard": "../evil-00001-of-00002.gguf",
    "half a pair": "evil\ud800.gguf",
}
ODD_NAMES = {
    "a leading dash": "-rf.gguf",
    "a hidden file": ".hidden.gguf",
    "a tilde": "~root.gguf",
    "a variable": "$HOME.gguf",
    "a shell's own": "a;b&c'd(e).gguf",
    "a blank inside": "two words.gguf",
    "Chinese": "\u6a21\u578b.gguf",
    "a percent sign": "100%.gguf",
    "a hash": "a#b.gguf",
    "a mail address": "a@b.gguf",
    "capitals": "SOME-model.GGUF",
}


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that is below a folder, by what would change with any write."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind: tuple[Any, ...] = ("folder",)
        if path.is_symlink():
            kind = ("link", os.readlink(path))
        elif path.is_file():
            kind = ("file", status.st_ino, status.st_mtime_ns, path.read_bytes())
        found[str(path.relative_to(root))] = kind
    return found


def store_folders(home: Path) -> tuple[Path, ...]:
    """Where a pull may write."""
    return tuple(home / each for each in ("hf/hub", "data", "cache", "state", "run"))


def outside(home: Path) -> dict[str, tuple[Any, ...]]:
    """What is where a pull has no business: elsewhere in the home, where absolute names lead."""
    assert list(Path("/tmp").glob("evil*")) == []
    inside = [str(folder.relative_to(home)) for folder in store_folders(home)]
    inside += ["hf"]  # which holds nothing itself but what is checked below
    return {
        path: what
        for path, what in snapshot(home).items()
        if not any(path == each or path.startswith(f"{each}/") for each in inside)
    }


def escapes(home: Path) -> list[Path]:
    """Whatever in the store's folders is really elsewhere."""
    roots = [os.path.realpath(folder) for folder in store_folders(home)]
    return [
        path
        for folder in store_folders(home)
        for path in folder.rglob("*")
        if not any(os.path.realpath(path).startswith(root + os.sep) for root in roots)
    ]


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The program in this process: its status, what it printed, what it said."""

    def run(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = app.run(argv)
        said = capfd.readouterr()
        return status, said.out, said.err

    return run


Program = Callable[..., tuple[int, str, str]]


class TestHostileNames:
    @pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES.keys())
    def test_a_repository_cannot_have_a_file_written_elsewhere(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, program: Program, name: str
    ) -> None:
        raw = models[name_of("Q8_0")]
        md5 = hashlib.md5(raw).hexdigest()
        with contextlib.suppress(UnicodeEncodeError):  # then the hub itself cannot have it
            hub.add_repo("org/Evil-GGUF", {name: raw, f"{name}.md5": md5.encode()})
        hub.add_repo(REPO, {name: raw, "mmproj-" + name: raw, name_of("F16"): raw})
        before = outside(home)
        # ModelScope has the path in a query, where nothing on the way tidies it up.
        for argv in (["org/Evil-GGUF"], ["ms:org/Evil-GGUF"], ["ms:org/Evil-GGUF", "--file", name]):
            status, out, err = program("pull", "--yes", *argv)
            assert (status in (2, 3, 6), out) == (True, ""), err
            assert "bug in localllm" not in err
            assert "Traceback" not in err
            assert not any(c in err for c in "\x1b\x07\u202e\u2028\u200b")
        assert kept_files(home) == []
        honest = fetch(REPO)
        assert location(honest).read_bytes() == raw
        assert outside(home) == before
        assert escapes(home) == []

    @pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
    def test_a_name_that_is_only_odd_is_kept(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, name: str
    ) -> None:
        raw = models[name_of("Q8_0")]
        hub.add_repo(REPO, {name: raw, f"{name}.md5": hashlib.md5(raw).hexdigest().encode()})
        before = outside(home)
        pulled = fetch(REPO)
        assert (location(pulled).name, location(pulled).read_bytes()) == (name, raw)
        assert len(pulled.manifest.files[0].proofs) == 2
        assert outside(home) == before
        assert escapes(home) == []

    def test_names_that_differ_by_case_are_two_files(
        self, hub: LoopbackHub, models: dict[str, bytes]
    ) -> None:
        files = {"model-a.gguf": models[name_of("Q8_0")], "Model-A.gguf": models[name_of("F16")]}
        hub.add_repo(REPO, files)
        for label, raw in files.items():
            found = finding.find_there(REPO, QUICK, file=label)
            assert found.there is not None
            order = order_of(REPO)
            (variant,) = (v for v in found.there.variants if v.files[0].path == label)
            model = next(m.model for m in found.models if m.model.files == variant.files)
            pulled = pull(replace(order, variant=variant, model=model), Store.here())
            assert location(pulled).read_bytes() == raw

    @pytest.mark.parametrize("revision", ["../../evil", "/tmp/evil", "a\\b", "", "x" * 200, ".."])
    def test_a_commit_that_is_none_is_refused(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, revision: str
    ) -> None:
        hub.add_repo(REPO, models)
        order = order_of(REPO, "Q8_0")
        before = outside(home)
        with pytest.raises(IntegrityError):
            pull(replace(order, listing=replace(order.listing, revision=revision)), Store.here())
        assert outside(home) == before
        assert escapes(home) == []

    @pytest.mark.parametrize("digest", ["../../../evil", "/tmp/evil", "0" * 20, "G" * 64, ""])
    def test_a_digest_that_is_none_is_refused(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, digest: str
    ) -> None:
        hub.add_repo(REPO, models)
        order = order_of(REPO, "Q8_0")
        (file,) = order.variant.files
        before = outside(home)
        with contextlib.suppress(LocalllmError):
            variant = replace(order.variant, files=(replace(file, sha256=digest),))
            pulled = pull(replace(order, variant=variant), Store.here())
            assert location(pulled).read_bytes() == models[name_of("Q8_0")]
        assert outside(home) == before
        assert escapes(home) == []


class TestPlantedLinks:
    """Somebody else may write into a cache that programs share."""

    @pytest.mark.parametrize(
        "place",
        ["{repo}", "{repo}/blobs", "{repo}/snapshots", "{repo}/refs", ".locks", ".locks/{repo}"],
    )
    def test_a_folder_that_is_a_link_is_not_written_through(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, place: str
    ) -> None:
        hub.add_repo(REPO, models)
        victim = home / "victim"
        victim.mkdir()
        repo = Store.here().repo("hf", REPO)
        link = repo.root / place.format(repo=repo.folder_name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(victim)
        with pytest.raises(IntegrityError, match="reached through a link"):
            fetch(REPO, "Q8_0")
        assert list(victim.iterdir()) == []

    @pytest.mark.parametrize("place", ["part", "side-car", "new", "blob", "lock", "entry"])
    def test_a_file_that_is_a_link_is_not_written_through(
        self, hub: LoopbackHub, models: dict[str, bytes], home: Path, place: str
    ) -> None:
        raw = models[name_of("Q8_0")]
        commit = hub.add_repo(REPO, models)
        victim = home / "victim"
        victim.write_bytes(b"precious")
        repo = Store.here().repo("hf", REPO)
        digest = sha256(raw)
        link = {
            "part": repo.folder / "blobs" / f"{digest}.part",
            "side-car": repo.folder / "blobs" / f"{digest}.part.json",
            "new": repo.folder / "blobs" / f"{digest}.part.json.new",
            "blob": repo.folder / "blobs" / digest,
            "lock": repo.lock_folder / f"{digest}.lock",
            "entry": repo.snapshot_path(commit, name_of("Q8_0")),
        }[place]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(victim)
        with contextlib.suppress(LocalllmError):
            assert location(fetch(REPO, "Q8_0")).read_bytes() == raw
        assert victim.read_bytes() == b"precious"


HOSTILE_REFERENCES = (
    "../../../etc/passwd",
    "/etc/passwd",
    "../evil.gguf",
    "/dev/zero",
    "/dev/stdin.gguf",
    "C:\\evil.gguf",
    "\\\\server\\share\\evil.gguf",
    "org/..",
    "../org",
    "org/../../evil",
    "org//evil",
    "org/evil/more",
    "hf:../../evil",
    "hf:/etc/passwd",
    "ms:../../evil",
    "ms:org/..",
    "org/a--b",
    "org/a..b",
    "org/.hidden",
    "org/model.",
    "org/model-",
    "org/model.git",
    "org/model@../../evil",
    "org/model@..",
    "org/model@a\\b",
    "org/model@%2e%2e",
    "org/model@" + "x" * 5000,
    "org/model:../../evil",
    "org/model:" + "Q" * 5000,
    "x" * 5000 + "/y",
    "org/" + "y" * 5000,
    "org/con",
    "nul",
    "con:nul",
    "org/mo\x1bdel",
    "org/mo\u202edel",
    "org/\u6a21\u578b",
    "org/mod\nel",
    "",
    " ",
    "@",
    ":",
    "--",
    "https://",
    "https:///evil.gguf",
    "http://[::1/evil.gguf",
    "http://127.0.0.1:99999/evil.gguf",
    "http://127.0.0.1:1/../../evil.gguf",
    "{files}/files/..%2f..%2fevil.gguf",
    "{files}/files/%2e%2e/evil.gguf",
    "{files}/files/evil%00.gguf",
    "{files}/files/con.gguf",
    "{files}/files/evil%0a.gguf",
    "{files}/files/" + "x" * 300 + ".gguf",
    "{files}/files/",
    "{files}",
    "{files}/files/evil.gguf%5c..%5c",
    "{hub}/org/model/resolve/main/../../../evil.gguf",
    "{hub}/org/model/resolve/..%2f..%2fevil/x.gguf",
    "{hub}/org/..%2f../resolve/main/x.gguf",
    "file:///etc/passwd",
    "ftp://127.0.0.1/evil.gguf",
    "javascript:alert(1)",
    "~nobody-of-this-name/evil.gguf",
)


class TestHostileReferences:
    @pytest.mark.parametrize("ref", HOSTILE_REFERENCES, ids=lambda ref: ascii(ref[:40]))
    def test_no_reference_writes_elsewhere_or_ends_in_a_traceback(
        self, hub: LoopbackHub, home: Path, program: Program, ref: str
    ) -> None:
        ref = ref.format(files=hub.files_endpoint, hub=hub.endpoint)
        before = outside(home)
        status, out, err = program("pull", "--yes", "--", ref)
        assert status in (2, 3, 4, 5, 6), err
        assert (out, "bug in localllm" in err, "Traceback" in err) == ("", False, False)
        assert err.startswith("error: ")
        assert outside(home) == before
        assert escapes(home) == []
        assert kept_files(home) == []

    @pytest.mark.parametrize(
        "revision", ["../../evil", "..", "/etc", "a\\b", "", "x" * 3000, "refs/../..", "\x1b[2J"]
    )
    def test_no_revision_does(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        home: Path,
        program: Program,
        revision: str,
    ) -> None:
        hub.add_repo(REPO, models)
        before = outside(home)
        status, _, err = program("pull", REPO, "--yes", "--revision", revision)
        assert status in (2, 3, 6), err
        assert "bug in localllm" not in err
        assert "\x1b" not in err
        assert outside(home) == before
        assert kept_files(home) == []
