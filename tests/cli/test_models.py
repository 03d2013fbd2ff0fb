"""list, show, verify, rm, use and prune: the real program, a hub on loopback, real files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from localllm import paths
from localllm.cli import showing, verifying
from localllm.digests import Claim
from localllm.errors import DoesNotFitError, EngineMissingError
from localllm.store import Store, StoredFile
from tests.conftest import PATIENCE_SECONDS, run_localllm
from tests.ggufs import CHAT_TEMPLATE, Llama, header_bytes
from tests.loopback_hub import LoopbackHub
from tests.spoiled import NAN, ZERO, spoil
from tests.store.things import version

pexpect = pytest.importorskip("pexpect")

SHAPE = Llama(n_embd=256, n_ff=512)
USAGE, MISSING, DAMAGED = 2, 3, 6
REPO = "org/Some-Model-1B-GGUF"
Q8, Q4 = f"{REPO}:Q8_0", f"{REPO}:Q4_K_M"


def write(folder: Path, quant: str, **changes: Any) -> Path:
    kind = "Q4_K" if quant == "Q4_K_M" else quant
    shape = replace(SHAPE, kind=kind, file_type=quant, **changes)
    return shape.write(folder / f"Some-Model-1B-{quant}.gguf")


@dataclass
class Person:
    """Somebody with a store of their own, and a hub that holds REPO."""

    hub: LoopbackHub
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        cache = str(self.folder / "cache")
        return {"HF_ENDPOINT": self.hub.endpoint, "HF_HUB_CACHE": cache}

    def runs(self, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run_localllm(*argv, **self.environment, **more)

    def told(self, *argv: str) -> dict[str, Any]:
        done = self.runs(*argv, "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["schema_version"] == 1
        return document

    def pulls(self, *refs: str) -> list[dict[str, Any]]:
        return [self.told("pull", ref, "--yes") for ref in refs]

    def publishes(self, **changes: Any) -> str:
        """A new commit, with the Q8_0 written anew where anything of it changed."""
        folder = self.folder / f"commit-{len(self.hub.repositories[REPO].commits)}"
        folder.mkdir()
        if not changes:
            return self.hub.commit(REPO, {"README.md": str(folder).encode()})
        path = write(folder, "Q8_0", **changes)
        return self.hub.commit(REPO, {path.name: path})

    def spawns(self, *argv: str, columns: int = 100) -> Any:
        environment = {**os.environ, **self.environment, "TERM": "xterm", "NO_COLOR": "1"}
        environment.pop("COLUMNS", None)
        return pexpect.spawn(
            sys.executable,
            ["-m", "localllm", *argv],
            env=environment,
            dimensions=(50, columns),
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
        )


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    made = tmp_path / "made"
    made.mkdir()
    with LoopbackHub() as hub:
        hub.add_repo(
            REPO, {path.name: path for path in (write(made, "Q8_0"), write(made, "Q4_K_M"))}
        )
        yield Person(hub, tmp_path)


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    return Llama().write(tmp_path / "loose-F32.gguf")


def location(pulled: dict[str, Any]) -> Path:
    return Path(pulled["files"][0]["path"])


def damage(path: Path) -> None:
    """Turns over one bit in the middle; size and time stay as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)
        file.seek(status.st_size // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_proves_a_llamafile_proves_the_model_that_was_taken_out_of_it() -> None:
    claim = Claim("sha256", "ab" * 32, "huggingface.co")
    file = StoredFile(
        "m.llamafile", "/m.gguf", 5, 0, {"sha256": "cd" * 32}, archive_proofs=(claim,)
    )
    lines = showing._file_lines(file)
    assert f"its llamafile: sha256 {claim.hex}, as huggingface.co said" in lines[-1]
    bare = showing._file_lines(replace(file, archive_proofs=()))
    assert bare[-1] == "nobody but this machine has said what its digest must be"


# -- list -------------------------------------------------------------------------------------


def test_an_empty_store_says_how_to_pull() -> None:
    done = run_localllm("list")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "localllm pull" in done.stderr
    assert json.loads(run_localllm("list", "--json").stdout)["models"] == []


def test_what_is_here_is_listed_by_the_names_to_type(person: Person) -> None:
    (pulled, _) = person.pulls(Q8, Q4)
    done = person.runs("list")
    assert done.returncode == 0
    assert done.stderr == ""
    (q4, q8) = done.stdout.splitlines()[1:]
    assert q4.split()[0] == Q4
    assert q8.split()[0] == Q8
    assert pulled["revision"][:12] in q8
    assert f"{pulled['verified']['integrity'][:10]}, not inference" in q8
    assert "yes, 2,048 tokens" in q8


def test_the_list_is_told_as_data(person: Person) -> None:
    person.pulls(Q8)
    (model,) = person.told("list")["models"]
    assert model["ref"] == Q8
    assert model["quant"] == "Q8_0"
    assert model["in_use"]
    assert model["verified"].keys() == {"integrity", "structure", "quantization"}
    assert model["fits_now"] == {"fits": True, "n_ctx": 2048, "why_not": None}


def test_a_manifest_that_cannot_be_read_is_a_warning(person: Person) -> None:
    person.pulls(Q8, Q4)
    manifest = next(
        path for path in paths.data_dir().rglob("*.json") if "Q4-K-M" in path.parent.name
    )
    manifest.write_text("{")
    done = person.runs("list")
    assert done.returncode == 0
    assert str(manifest) in done.stderr
    assert Q8 in done.stdout
    assert Q4 not in done.stdout


def test_a_model_whose_file_is_gone_does_not_fit(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    location(pulled).unlink()
    (model,) = person.told("list")["models"]
    assert not model["fits_now"]["fits"]
    assert "is gone" in model["fits_now"]["why_not"]


def test_a_model_larger_than_memory_is_said_not_to_fit(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in person.environment.items():
        monkeypatch.setenv(name, value)
    giant = Llama(n_layers=100, n_embd=16384, n_ff=65536, n_head=128, n_head_kv=128, kind="F16")
    store = Store.here()
    entry = store.repo("hf", REPO).snapshot_path("1" * 40, "Giant-F16.gguf")
    entry.parent.mkdir(parents=True)
    header = header_bytes(giant.metadata(), giant.tensors())
    with entry.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(tensor.n_bytes for tensor in giant.tensors()))
    # As if its terabyte had been read: only its header is.
    size, digests = entry.stat().st_size, {"sha256": "f" * 64}
    file = StoredFile(entry.name, str(entry), size, entry.stat().st_mtime_ns, digests)
    store.add(version(file, revision="1" * 40, label="F16", repo=REPO))
    (model,) = person.told("list")["models"]
    assert model["fits_now"]["fits"] is False
    assert "short on Host" in model["fits_now"]["why_not"]


def test_a_window_that_is_too_narrow_for_a_table_gets_paragraphs(person: Person) -> None:
    person.pulls(Q8)
    for columns in (60, 80, 160):
        child = person.spawns("list", columns=columns)
        child.expect(pexpect.EOF)
        assert child.before is not None
        rows = re.sub(r"\x1b\[[0-9;]*m|\r", "", child.before).splitlines()
        assert max(map(len, rows)) <= columns
        assert any(Q8 in row for row in rows)
        assert ("revision" in rows[0]) == (columns == 160)


# -- show -------------------------------------------------------------------------------------


def test_a_pulled_model_is_shown_with_what_proves_it(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    document = person.told("show", Q8)
    manifest, header = document["manifest"], document["header"]
    assert manifest["revision"] == pulled["revision"]
    assert manifest["in_use"]
    (file,) = manifest["files"]
    sha256 = hashlib.sha256(location(pulled).read_bytes()).hexdigest()
    assert file["digests"] == {"sha256": sha256}
    (proof,) = file["proofs"]
    assert (proof["hex"], proof["proves"]) == (sha256, "transfer")
    assert header["n_layers"] == 2
    assert header["n_vocab"] == 320
    assert header["weights_by_type"]["Q8_0"] > 0.99
    assert header["has_chat_template"]
    assert document["plan"]["chosen"]["n_ctx"] == 2048
    text = person.runs("show", Q8).stdout
    assert sha256 in text
    assert "which proves the transfer alone" in text
    assert "llama-server --model" in text


def test_of_several_quantizations_here_one_has_to_be_named(person: Person) -> None:
    person.pulls(Q8, Q4)
    done = person.runs("show", REPO)
    assert done.returncode == USAGE
    assert Q8 in done.stderr
    assert Q4 in done.stderr


def test_what_is_not_here_is_shown_from_the_network_and_then_from_memory(person: Person) -> None:
    there = person.told("show", REPO)
    assert there["manifest"] is None
    assert there["plan"]["chosen"]["quant"] == "Q8_0"
    person.hub.reset()
    again = person.told("show", REPO, "--offline")
    assert again["header"] == there["header"]
    assert person.hub.requests == []


def test_a_revision_that_is_not_here_is_shown_from_the_network(person: Person) -> None:
    commit = next(iter(person.hub.repositories[REPO].commits))
    person.publishes(n_layers=3)
    person.pulls(Q8)
    document = person.told("show", f"{Q8}@{commit}")
    assert document["manifest"] is None
    assert document["header"]["n_layers"] == 2


def test_the_template_is_printed_and_nothing_else(person: Person, loose: Path) -> None:
    from_hub = person.runs("show", Q8, "--template")
    assert from_hub.stdout == f"{CHAT_TEMPLATE}\n"
    from_file = person.runs("show", str(loose), "--template")
    assert from_file.stdout == f"{CHAT_TEMPLATE}\n"
    assert person.told("show", str(loose), "--template")["chat_template"] == CHAT_TEMPLATE
    bare = replace(Llama(), chat_template=None).write(loose.with_name("bare.gguf"))
    assert person.runs("show", str(bare), "--template").returncode == MISSING


def test_a_template_that_only_an_outline_was_kept_of_is_not_invented(person: Person) -> None:
    person.told("show", Q8)
    done = person.runs("show", Q8, "--template", "--offline")
    assert done.returncode == MISSING
    assert "only an outline was kept" in done.stderr


def test_all_keys_are_shown_with_long_ones_cut_short(loose: Path) -> None:
    text = run_localllm("show", str(loose), "--header").stdout
    assert "llama.context_length" in text
    (tokens,) = (line for line in text.splitlines() if line.startswith("tokenizer.ggml.tokens"))
    assert "of 320" in tokens
    assert len(tokens) < 200
    metadata = json.loads(run_localllm("show", str(loose), "--header", "--json").stdout)["metadata"]
    assert metadata["llama.context_length"] == 2048


def test_a_loose_file_has_no_manifest(loose: Path) -> None:
    document = json.loads(run_localllm("show", str(loose), "--json").stdout)
    assert document["manifest"] is None
    assert document["header"]["architecture"] == "llama"


# -- verify -----------------------------------------------------------------------------------


def checks(document: dict[str, Any]) -> dict[str, str]:
    (model,) = document["models"]
    return {check["name"]: check["status"] for check in model["checks"]}


def test_a_pulled_model_passes_all_four_and_that_is_noted(person: Person) -> None:
    person.pulls(Q8)
    document = person.told("verify", Q8)
    assert document["passed"]
    assert checks(document) == dict.fromkeys(
        ("integrity", "structure", "quantization", "inference"), "passed"
    )
    (model,) = person.told("list")["models"]
    assert "inference" in model["verified"]


def test_a_quick_verification_runs_nothing(person: Person) -> None:
    person.pulls(Q8)
    assert "inference" not in checks(person.told("verify", Q8, "--quick"))
    (model,) = person.told("list")["models"]
    assert "inference" not in model["verified"]


def test_all_that_is_here_is_verified(person: Person) -> None:
    person.pulls(Q8, Q4)
    document = person.told("verify", "--all", "--quick")
    assert [model["ref"] for model in document["models"]] == [Q4, Q8]
    assert person.runs("verify").returncode == USAGE
    assert person.runs("verify", Q8, "--all").returncode == USAGE


def test_what_was_written_to_since_it_was_proven_is_told_before_it_runs(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    argv = ("chat", Q8, "-p", "x", "-n", "2", "--chat-template", "chatml")
    assert "warning" not in person.runs(*argv).stderr
    path = location(pulled).resolve()
    damage(path)
    os.utime(path)
    done = person.runs(*argv)
    assert f"was written to since it was proven: localllm verify {Q8}" in done.stderr
    assert person.runs("verify", Q8, "--quick").returncode == DAMAGED
    done = person.runs(*argv)
    assert done.returncode == DAMAGED
    assert "is damaged, as a check found" in done.stderr
    assert done.stderr.endswith(f"hint: localllm pull {Q8}\n")


def test_a_damaged_file_is_found_and_pulled_anew(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    path = location(pulled)
    sound = path.read_bytes()
    damage(path)
    done = person.runs("verify", Q8)
    assert done.returncode == DAMAGED
    assert "FAIL" in done.stdout
    assert "what is damaged is not loaded" in done.stdout
    assert "error:" in done.stderr
    assert done.stderr.endswith(f"hint: localllm pull {Q8}\n")
    assert "not integrity" in person.runs("list").stdout
    (again,) = person.pulls(Q8)
    assert again["fetched_bytes"] == len(sound)
    assert location(again).read_bytes() == sound
    assert person.told("verify", Q8)["passed"]


def test_a_file_that_is_gone_fails_and_is_pulled_anew(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    location(pulled).resolve().unlink()
    done = person.runs("verify", Q8)
    assert done.returncode == DAMAGED
    assert "cannot be read" in done.stderr
    person.pulls(Q8)
    assert person.told("verify", Q8, "--quick")["passed"]


@pytest.mark.parametrize("number", [ZERO, NAN], ids=["zeros", "NaN"])
def test_a_model_of_nothing_fails_its_inference_alone(loose: Path, number: bytes) -> None:
    spoil(loose, number)
    done = run_localllm("verify", str(loose), "--json")
    assert done.returncode == DAMAGED
    document = json.loads(done.stdout)
    assert not document["passed"]
    assert checks(document) == {
        "integrity": "not tried",
        "structure": "passed",
        "quantization": "passed",
        "inference": "failed",
    }


def test_a_file_that_was_cut_short_fails_its_structure_and_is_not_loaded(loose: Path) -> None:
    loose.write_bytes(loose.read_bytes()[:-1000])
    done = run_localllm("verify", str(loose), "--json")
    assert done.returncode == DAMAGED
    found = checks(json.loads(done.stdout))
    assert found["structure"] == "failed"
    assert found["inference"] == "not tried"


def test_a_name_that_the_header_denies_fails_the_quantization(loose: Path) -> None:
    renamed = loose.rename(loose.with_name("loose-Q4_K_M.gguf"))
    done = run_localllm("verify", str(renamed), "--quick", "--json")
    assert done.returncode == DAMAGED
    assert checks(json.loads(done.stdout))["quantization"] == "failed"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param("{name}.sha256", "{sha256}  {name}", id="sha256"),
        pytest.param("{name}.md5", "{md5}", id="md5"),
        pytest.param("SHA256SUMS", "{sha256} *{name}", id="SHA256SUMS"),
    ],
)
def test_a_checksum_file_beside_a_loose_file_is_its_witness(
    loose: Path, name: str, form: str
) -> None:
    raw = loose.read_bytes()
    words = {
        "name": loose.name,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "md5": hashlib.md5(raw).hexdigest(),
    }
    side_car = loose.with_name(name.format(**words))
    side_car.write_text(form.format(**words) + "\n")
    done = run_localllm("verify", str(loose), "--quick")
    assert done.returncode == 0, done.stderr
    assert f"as {side_car.name} said" in done.stdout
    damage(loose)
    done = run_localllm("verify", str(loose), "--quick")
    assert done.returncode == DAMAGED
    assert "from where it came" in done.stderr


def test_a_digest_that_the_person_gives_must_hold(loose: Path, person: Person) -> None:
    raw = loose.read_bytes()
    sha256, md5 = hashlib.sha256(raw).hexdigest(), hashlib.md5(raw).hexdigest()
    argv = ("verify", str(loose), "--quick", "--json")
    done = run_localllm(*argv, "--sha256", sha256, "--md5", md5)
    assert checks(json.loads(done.stdout))["integrity"] == "passed"
    assert run_localllm(*argv, "--sha256", "0" * 64).returncode == DAMAGED
    assert run_localllm(*argv, str(loose), "--sha256", sha256).returncode == USAGE
    person.pulls(Q8)
    done = person.runs("verify", Q8, "--quick", "--md5", "0" * 32)
    assert done.returncode == DAMAGED


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(DoesNotFitError("it needs 9 GiB"), "not tried", id="too large now"),
        pytest.param(EngineMissingError("there is none"), "not tried", id="no engine"),
    ],
)
def test_what_cannot_run_now_is_not_tried_and_has_not_failed(
    loose: Path,
    error: Exception,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(verifying.prepare, "prepare", refuse)
    verifying.run([str(loose)], every=False, quick=False, claims=(), as_json=True)
    assert checks(json.loads(capsys.readouterr().out))["inference"] == status


def test_the_demo_passes() -> None:
    done = run_localllm("verify", "demo")
    assert done.returncode == 0, done.stdout + done.stderr


# -- rm, use, prune ---------------------------------------------------------------------------


def test_what_would_be_removed_is_shown_and_nothing_is(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    done = person.runs("rm", Q8, "--dry-run")
    assert done.returncode == 0
    assert str(location(pulled)) in done.stdout
    assert "the last version of it" in done.stdout
    assert "frees" in done.stdout
    assert location(pulled).is_file()
    assert len(person.told("list")["models"]) == 1


def test_nobody_is_asked_off_a_terminal_and_nothing_is_removed(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    for argv in (("rm", Q8), ("rm", Q8, "--json")):
        done = person.runs(*argv)
        assert done.returncode == USAGE
        assert "hint: add --yes" in done.stderr
    assert location(pulled).is_file()


def test_a_removed_model_is_gone_and_others_stay(person: Person) -> None:
    (q8, q4) = person.pulls(Q8, Q4)
    size = location(q8).stat().st_size
    document = person.told("rm", Q8, "--yes")
    assert document["freed_bytes"] == size
    assert [each["ref"] for each in document["versions"]] == [Q8]
    assert not location(q8).exists()
    assert location(q4).is_file()
    assert [model["ref"] for model in person.told("list")["models"]] == [Q4]
    assert person.runs("rm", Q8, "--yes").returncode == MISSING


def test_of_several_models_one_has_to_be_named_for_removal(person: Person) -> None:
    (q8, _) = person.pulls(Q8, Q4)
    done = person.runs("rm", REPO, "--yes")
    assert done.returncode == USAGE
    assert Q8 in done.stderr
    assert location(q8).is_file()
    assert len(person.told("rm", Q8, Q4, "--yes")["versions"]) == 2
    assert person.told("list")["models"] == []


def test_on_a_terminal_the_person_is_asked(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    child = person.spawns("rm", Q8)
    child.expect(r"Remove .* \[y/N\] ")
    child.sendline("")
    child.expect("nothing was removed")
    child.expect(pexpect.EOF)
    assert location(pulled).is_file()
    child = person.spawns("rm", Q8)
    child.expect(r"Remove .* \[y/N\] ")
    child.sendline("y")
    child.expect("are free again")
    child.expect(pexpect.EOF)
    assert not location(pulled).exists()


def test_a_version_that_shares_its_file_leaves_it(person: Person) -> None:
    (old,) = person.pulls(Q8)
    person.publishes()
    (new,) = person.pulls(Q8)
    done = person.runs("rm", Q8, "--dry-run")
    assert f"in use; the name then means {old['revision'][:12]}" in done.stdout
    assert "is the same file" in done.stdout
    document = person.told("rm", Q8, "--yes")
    assert document["freed_bytes"] == 0
    assert [each["revision"] for each in document["versions"]] == [new["revision"]]
    assert location(old).is_file()
    (model,) = person.told("list")["models"]
    assert model["revision"] == old["revision"]


def test_all_versions_go_together_and_free_what_they_shared(person: Person) -> None:
    (old,) = person.pulls(Q8)
    person.publishes()
    (new,) = person.pulls(Q8)
    size = location(new).stat().st_size
    preview = person.told("rm", Q8, "--all-versions", "--dry-run")
    document = person.told("rm", Q8, "--all-versions", "--yes")
    assert preview["freed_bytes"] == document["freed_bytes"] == size
    assert not location(old).exists()
    assert not location(new).exists()


def test_one_version_is_named_by_the_beginning_of_its_revision(person: Person) -> None:
    (old,) = person.pulls(Q8)
    person.publishes(n_layers=3)
    person.pulls(Q8)
    named = f"{Q8}@{old['revision'][:7]}"
    assert person.told("show", named)["header"]["n_layers"] == 2
    done = person.runs("rm", named, "--yes")
    assert "not in use" in done.stdout
    assert not location(old).exists()
    assert person.runs("rm", named, "--yes").returncode == MISSING


def test_a_name_moves_between_its_versions_and_back(person: Person) -> None:
    (old,) = person.pulls(Q8)
    person.publishes(chat_template="{{ messages }}")
    (new,) = person.pulls(Q8)
    assert new["warnings"]
    done = person.runs("use", f"{Q8}@{old['revision'][:10]}")
    assert done.returncode == 0
    assert f"now means {old['revision'][:12]}" in done.stdout
    assert f"it meant {new['revision'][:12]}" in done.stdout
    assert "The chat template" in done.stderr
    in_use = {each["revision"]: each["in_use"] for each in person.told("list")["models"]}
    assert in_use == {old["revision"]: True, new["revision"]: False}
    assert "→" in person.runs("list").stdout
    back = person.told("use", Q8)
    assert back["is"]["revision"] == new["revision"]
    assert back["was"]["revision"] == old["revision"]
    assert back["warnings"]
    assert "already" in person.runs("use", f"{Q8}@{new['revision']}").stdout


def test_a_version_that_is_not_here_is_told_with_those_that_are(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    done = person.runs("use", f"{Q8}@fedcba")
    assert done.returncode == MISSING
    assert pulled["revision"][:12] in done.stderr
    assert person.runs("use", Q8).returncode == MISSING


def test_pruning_leaves_the_version_in_use_and_the_one_before(person: Person) -> None:
    kept = person.pulls(Q8)
    for n_layers in (3, 4):
        person.publishes(n_layers=n_layers)
        kept += person.pulls(Q8)
    oldest, *others = kept
    assert person.runs("prune").returncode == USAGE
    person.told("prune", "--dry-run")
    assert location(oldest).is_file()
    document = person.told("prune", "--yes")
    assert document["freed_bytes"] > 0
    assert not location(oldest).exists()
    assert all(location(each).is_file() for each in others)
    assert "nothing to prune" in person.runs("prune").stdout


# -- names ------------------------------------------------------------------------------------


def test_a_url_names_the_one_file_that_was_pulled_from_it(person: Person) -> None:
    made = person.folder / "made"
    urls = [
        person.hub.add_file(path.name, path) for path in (write(made, "F16"), write(made, "Q8_0"))
    ]
    person.pulls(*urls)
    assert sorted(model["ref"] for model in person.told("list")["models"]) == sorted(urls)
    for url in urls:
        (model,) = person.told("verify", url, "--quick")["models"]
        assert model["ref"] == url
    person.told("rm", urls[0], "--yes")
    assert [model["ref"] for model in person.told("list")["models"]] == [urls[1]]


def test_a_llamafile_names_the_model_that_was_taken_out_of_it(person: Person, loose: Path) -> None:
    archive = person.folder / "loose-F32.llamafile"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo(loose.name), loose.read_bytes())
    (pulled,) = person.pulls(str(archive))
    assert [model["ref"] for model in person.told("list")["models"]] == [str(archive)]
    assert person.told("show", str(archive))["manifest"]["revision"] == pulled["revision"]
    assert person.told("verify", str(archive))["passed"]
    person.told("rm", str(archive), "--yes")
    assert not location(pulled).exists()
    assert archive.is_file()


def test_the_file_in_the_store_names_its_model(person: Person) -> None:
    (pulled,) = person.pulls(Q8)
    assert person.told("show", str(location(pulled)))["manifest"]["ref"] == Q8


@pytest.mark.parametrize(
    "argv",
    [("show", "org/none:Q8_0", "--offline"), ("verify", "org/none"), ("rm", "org/none", "--yes"),
     ("use", "org/none@abc")],
    ids=["show", "verify", "rm", "use"],
)  # fmt: skip
def test_what_is_not_here_is_not_found(argv: tuple[str, ...]) -> None:
    done = run_localllm(*argv)
    assert done.returncode in (MISSING, 5)
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
