"""`localllm pull` as a person meets it: what it shows, asks, survives, refuses and keeps secret."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from localllm.cli import app, pull, references
from localllm.hub.part import partial_bytes
from localllm.hub.patience import Limits
from localllm.pull import Pulled
from localllm.store import Store
from localllm.units import MIB
from tests.conftest import PATIENCE_SECONDS, run_localllm, wait_until
from tests.loopback_hub import (
    BitFlip,
    CutJson,
    LoopbackHub,
    NotJson,
    RedirectLoop,
    ServerError,
    Stall,
    TooManyRequests,
    Truncate,
)
from tests.test_pull import DRAFT, MMPROJ, REPO, SHAPE, llamafile, make_models, name_of, sha256

USAGE, MISSING, ACCESS, NETWORK, INTEGRITY, FULL, INTERRUPTED = 2, 3, 4, 5, 6, 8, 130
Q8, F16 = name_of("Q8_0"), name_of("F16")
BIG = "Big-F16.gguf"
ALIAS = """\
tiny:1b:
  repo: org/Some-Model-1B-GGUF
  description: a tiny one
  parameters: 1.1B
  licence: MIT
  tasks: [chat]
  n_ctx_train: 4096
  gated: false
  source: https://huggingface.co/org/Some-Model-1B-GGUF
  released: 2025-04
"""

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_models(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model of 9 MiB: large enough to be interrupted within."""
    shape = replace(SHAPE, kind="F16", file_type="F16", n_vocab=6000)
    return shape.write(tmp_path_factory.mktemp("big") / BIG).read_bytes()


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, and a person who has nothing yet."""
    (home / "person").mkdir()
    monkeypatch.setenv("HOME", str(home / "person"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("LOCALLLM_DEBUG", "")
    with LoopbackHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.modelscope_endpoint)
        yield running


@pytest.fixture
def commit(hub: LoopbackHub, models: dict[str, bytes]) -> str:
    return hub.add_repo(REPO, models)


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program in this process, off a terminal: its status, what it printed, what it said."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(references, "Limits", partial(Limits, backoff_seconds=0.01))

    def run(*argv: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = app.run(argv)
        said = capfd.readouterr()
        assert "bug in localllm" not in said.err
        return status, said.out, said.err

    return run


def succeeds(run: Program, *argv: str) -> tuple[str, str]:
    status, out, err = run(*argv)
    assert status == 0, err
    return out, err


def document(run: Program, *argv: str) -> dict[str, Any]:
    out, _ = succeeds(run, *argv, "--json")
    told: dict[str, Any] = json.loads(out)
    assert told["schema_version"] == 1
    return told


def kept() -> list[str]:
    """What the store has, by name."""
    return [manifest.name for manifest in Store.here().contents().manifests]


def entry(commit: str, name: str) -> Path:
    return Store.here().repo("hf", REPO).snapshot_path(commit, name)


def assert_it_chats(ref: str) -> None:
    """It decodes; what random weights say may be blanks."""
    talked = run_localllm("chat", ref, "-p", "hello", "-n", "3", "--stats")
    assert talked.returncode == 0, talked.stderr
    assert " tokens " in talked.stderr


class TestMainPath:
    def test_a_model_is_planned_pulled_proven_and_then_used_without_a_network(
        self, hub: LoopbackHub, models: dict[str, bytes], commit: str
    ) -> None:
        done = run_localllm("pull", REPO, "--yes")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        host = hub.endpoint.partition("://")[2]
        for said in (
            "→  Q8_0",
            "of 3 it concedes least",
            f"1.5 MiB from {host}, {REPO}@{commit[:12]}: {Q8}",
            f"{Q8}: 1.5 MiB, verified",
            f"{Q8}: downloaded, sha256 as {host} says, which proves the transfer alone",
            "structure: 21 tensors lie inside",
            "quantization: its weights are 100% Q8_0",
            f"ready: localllm chat {REPO}:Q8_0",
        ):
            assert said in done.stderr
        assert entry(commit, Q8).read_bytes() == models[Q8]
        hub.close()
        for ref in (REPO, f"{REPO}:Q8_0"):
            planned = run_localllm("plan", ref, "--json", "--offline")
            assert planned.returncode == 0, planned.stderr
            assert json.loads(planned.stdout)["chosen"]["quant"] == "Q8_0"
        assert_it_chats(REPO)

    def test_json_is_one_document_and_nothing_else(
        self, hub: LoopbackHub, models: dict[str, bytes], commit: str, program: Program
    ) -> None:
        told = document(program, "pull", REPO, "--yes", "--quant", "q4_k_m")
        raw = models[name_of("Q4_K_M")]
        (file,) = told["files"]
        assert (told["name"], told["revision"]) == (f"hf:{REPO}:Q4_K_M", commit)
        assert (file["from"], file["size_bytes"]) == ("downloaded", len(raw))
        assert file["digests"] == {"sha256": sha256(raw)}
        assert file["proofs"][0]["proves"] == "transfer"
        assert Path(file["path"]).read_bytes() == raw
        assert told["fetched_bytes"] == len(raw)
        assert [check["passed"] for check in told["checks"]] == [True, True]
        again = document(program, "pull", REPO, "--yes", "--quant", "q4_k_m")
        assert (again["files"][0]["from"], again["fetched_bytes"]) == ("here", 0)
        assert again.keys() == told.keys()
        hub.close()
        unheard = document(program, "pull", REPO, "--yes", "--offline")
        assert (unheard["files"][0]["from"], unheard["fetched_bytes"]) == ("here", 0)
        assert unheard.keys() == told.keys()

    def test_what_is_here_needs_no_yes(
        self, hub: LoopbackHub, commit: str, program: Program
    ) -> None:
        assert program("pull", REPO, "--json")[0] == USAGE
        assert program("pull", REPO, "--json", "--yes")[0] == 0
        hub.reset()
        status, out, _ = program("pull", REPO, "--json")
        assert status == 0
        assert json.loads(out)["fetched_bytes"] == 0
        assert hub.sent_bytes("*.gguf") == 0

    def test_off_a_terminal_nobody_is_asked_and_nothing_is_done(
        self, hub: LoopbackHub, commit: str, program: Program
    ) -> None:
        status, out, err = program("pull", REPO)
        assert (status, out) == (USAGE, "")
        assert "a download of 1.5 MiB wants a yes, and there is no terminal" in err
        assert "hint: add --yes" in err
        assert (kept(), Store.here().hub_root.exists()) == ([], False)

    def test_a_dry_run_writes_nothing_but_what_was_learnt(
        self, hub: LoopbackHub, commit: str, program: Program, home: Path
    ) -> None:
        out, err = succeeds(program, "pull", REPO, "--dry-run")
        assert (out, "1.5 MiB from" in err) == ("", True)
        told = document(program, "pull", REPO, "--dry-run", "--with-mmproj")
        assert (told["dry_run"], told["chosen"]["quant"]) == (True, "Q8_0")
        written = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
        assert written <= {"cache", "state"}
        assert kept() == []

    @pytest.mark.parametrize(
        ("argv", "quant", "revision"),
        [
            ([REPO], "Q8_0", "main"),
            ([f"hf:{REPO}:f16"], "F16", "main"),
            ([REPO, "--quant", "Q4_K_M"], "Q4_K_M", "main"),
            ([f"{REPO}@old"], "F16", "old"),
            ([f"{REPO}@old:F16"], "F16", "old"),
            ([REPO, "--revision", "old"], "F16", "old"),
            ([REPO, "--revision", "v1"], "F16", "old"),
            ([REPO, "--revision", "{old}"], "F16", "old"),
            ([REPO, "--file", F16], "F16", "main"),
            (["{hub}/" + REPO], "Q8_0", "main"),
            (["{hub}/" + REPO + "/tree/old"], "F16", "old"),
            (["{hub}/" + REPO + "/blob/main/" + F16], "F16", "main"),
            (["{hub}/" + REPO + "/resolve/old/" + F16 + "?download=true"], "F16", "old"),
            (["tiny:1b"], "Q8_0", "main"),
            (["tiny"], "Q8_0", "main"),
            (["tiny:1b:F16"], "F16", "main"),
            ([f"ms:{REPO}", "-q", "F16"], "F16", None),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_what_is_named_is_what_would_come(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        home: Path,
        program: Program,
        argv: list[str],
        quant: str,
        revision: str | None,
    ) -> None:
        hub.add_repo(REPO, {F16: models[F16]})
        hub.commit(REPO, {}, branch="old")
        old = hub.repositories[REPO].branches["old"]
        hub.tag(REPO, "v1", old)
        main = hub.commit(REPO, models)
        (home / "config").mkdir()
        alias = ALIAS.replace("released", "default: true\n  released")
        (home / "config" / "models.yaml").write_text(alias)
        named = [word.format(hub=hub.endpoint, old=old) for word in argv]
        told = document(program, "pull", *named, "--dry-run")
        assert told["chosen"]["quant"] == quant
        if revision is not None:  # the test hub's ModelScope tells no commit
            assert told["model"]["revision"] == {"main": main, "old": old}[revision]
        assert [file["sha256"] for file in told["chosen"]["files"]] == [
            sha256(models[name_of(quant)])
        ]

    def test_what_is_not_there_is_told_with_what_is(self, commit: str, program: Program) -> None:
        for argv, said in (
            (["--quant", "Q2_K"], "the nearest: Q4_K_M"),
            (["--file", "other.gguf"], "has no model in a file 'other.gguf'"),
            (["--revision", "gone"], f"{REPO} has no revision 'gone'"),
        ):
            status, _, err = program("pull", REPO, "--yes", *argv)
            assert (status, said in err, "\nhint: " in err) == (MISSING, True, True), err

    def test_companions_come_with_it(
        self, models: dict[str, bytes], commit: str, program: Program
    ) -> None:
        argv = ("--yes", "--with-mmproj", "--with-draft")
        told = document(program, "pull", REPO, *argv)
        assert {file["role"]: file["name"] for file in told["files"]} == {
            "model": Q8,
            "mmproj": MMPROJ,
            "draft": DRAFT,
        }
        for file in told["files"]:
            assert Path(file["path"]).read_bytes() == models[file["name"]]

    @pytest.mark.parametrize(
        ("flag", "what"), [("--with-mmproj", "projector"), ("--with-draft", "draft model")]
    )
    def test_a_companion_that_is_not_there_is_told(
        self, hub: LoopbackHub, models: dict[str, bytes], program: Program, flag: str, what: str
    ) -> None:
        hub.add_repo("org/Alone-GGUF", {Q8: models[Q8]})
        status, _, err = program("pull", "org/Alone-GGUF", "--yes", flag)
        assert (status, f"has no {what}" in err, f"leave out {flag}" in err) == (3, True, True)

    def test_digests_that_a_person_names_are_met_or_it_is_refused(
        self, hub: LoopbackHub, models: dict[str, bytes], commit: str, program: Program
    ) -> None:
        raw, url = models[F16], hub.add_file("m.gguf", models[F16])
        for ref, flag in ((REPO, "--sha256"), (REPO, "--md5"), (url, "--sha256"), (url, "--md5")):
            quant = ["--quant", "F16"] if ref is REPO else []
            wrong = "0" * (64 if flag == "--sha256" else 32)
            status, _, err = program("pull", ref, "--yes", flag, wrong, *quant)
            assert (status, flag in err, wrong in err) == (INTEGRITY, True, True), err
            assert kept() == []
        assert not entry(commit, F16).exists()
        right = hashlib.md5(raw).hexdigest().upper()
        told = document(program, "pull", url, "--yes", "--sha256", sha256(raw), "--md5", right)
        assert [proof["by"] for proof in told["files"][0]["proofs"]] == ["--sha256", "--md5"]
        assert {proof["proves"] for proof in told["files"][0]["proofs"]} == {"origin"}

    @pytest.mark.parametrize("digest", ["", "xyz", "0" * 63, "md5:" + "0" * 32, "\x1b[2J"])
    def test_what_is_no_digest_is_a_usage_error(self, program: Program, digest: str) -> None:
        status, _, err = program("pull", REPO, "--yes", "--sha256", digest)
        assert (status, "is no digest by sha256" in err, "\x1b" in err) == (USAGE, True, False)

    @pytest.mark.parametrize("ref", ["demo", "./here.gguf"])
    def test_what_is_here_anyway_needs_no_pull(
        self, program: Program, ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        SHAPE.write(tmp_path / "here.gguf")
        status, _, err = program("pull", ref, "--yes")
        assert (status, "localllm " in err.partition("hint:")[2]) == (USAGE, True)


class TestTerminal:
    @pytest.fixture
    def terminal(self, commit: str) -> Iterator[Callable[..., Any]]:
        """The program at a terminal, up to its question."""
        pexpect = pytest.importorskip("pexpect")
        opened: list[Any] = []

        def start(*argv: str) -> Any:
            child = pexpect.spawn(
                sys.executable,
                ["-m", "localllm", *argv],
                env={**os.environ, "TERM": "xterm-256color"},
                dimensions=(40, 120),
                encoding="utf-8",
                timeout=PATIENCE_SECONDS,
            )
            opened.append(child)
            child.expect(r"Download 1\.5 MiB\? \[Y/n\] ")
            return child

        yield start
        for child in opened:
            child.close(force=True)

    @staticmethod
    def left(child: Any) -> int:
        """Waits for the end; the exit status."""
        child.read()
        child.close()
        return int(child.exitstatus)

    @pytest.mark.parametrize("answer", ["y", "", "n"], ids=["yes", "enter", "no"])
    def test_a_person_is_asked_and_the_answer_counts(
        self, terminal: Callable[..., Any], commit: str, answer: str
    ) -> None:
        child = terminal("pull", REPO)
        assert not entry(commit, Q8).exists()
        child.send(f"{answer}\r")
        if answer == "n":
            child.expect("nothing was downloaded")
        else:
            child.expect(r"1\.5 MiB, verified")
            child.expect("ready: localllm chat")
        assert self.left(child) == 0
        assert entry(commit, Q8).exists() is (answer != "n")

    @pytest.mark.parametrize("answer", ["y", "n"], ids=["yes", "no"])
    def test_a_chat_with_a_model_that_is_not_here_begins_with_the_same_question(
        self, terminal: Callable[..., Any], commit: str, answer: str
    ) -> None:
        child = terminal("chat", REPO, "-p", "hello", "-n", "3")
        child.send(f"{answer}\r")
        child.expect("ready: localllm chat" if answer == "y" else f"{REPO} is not on this disk")
        assert self.left(child) == (0 if answer == "y" else MISSING)
        assert entry(commit, Q8).exists() is (answer == "y")


class TestLlamafiles:
    @pytest.fixture
    def packed(self, models: dict[str, bytes]) -> bytes:
        return llamafile({Q8: models[Q8]})

    def test_one_on_this_disk_is_taken_out_and_may_then_go(
        self, models: dict[str, bytes], packed: bytes, tmp_path: Path, program: Program
    ) -> None:
        path = tmp_path / "Some Model.llamafile"
        path.write_bytes(packed)
        status, _, err = program("plan", str(path))
        assert (status, f"localllm pull {path}" in err) == (MISSING, True), err
        told = document(program, "pull", str(path), "--yes", "--sha256", sha256(packed))
        assert Path(told["files"][0]["path"]).read_bytes() == models[Q8]
        assert path.read_bytes() == packed
        again = document(program, "pull", str(path), "--yes", "--sha256", sha256(packed))
        assert again["files"][0]["from"] == "here"
        path.unlink()
        assert_it_chats(str(path))

    def test_one_on_this_disk_that_is_another_is_refused(
        self, packed: bytes, tmp_path: Path, program: Program
    ) -> None:
        path = tmp_path / "m.llamafile"
        path.write_bytes(packed)
        status, _, err = program("pull", str(path), "--yes", "--sha256", "0" * 64)
        assert (status, "another digest than --sha256 says" in err, kept()) == (6, True, [])

    def test_one_behind_a_url_answers_by_its_url(
        self, hub: LoopbackHub, packed: bytes, program: Program
    ) -> None:
        url = hub.add_file("Some-Model.llamafile", packed)
        succeeds(program, "pull", url, "--yes")
        hub.close()
        assert_it_chats(url)


class TestInterrupted:
    @pytest.fixture
    def part(self, hub: LoopbackHub, big: bytes) -> Path:
        """Where the unfinished file is."""
        hub.add_repo(REPO, {BIG: big})
        return Store.here().repo("hf", REPO).part_path(sha256(big))

    def interrupt(self, hub: LoopbackHub, part: Path, how: signal.Signals) -> int:
        """A download that ends so when more than 4 MiB are here; its status."""
        hub.misbehave(Stall(5 * MIB), times=1)
        with subprocess.Popen(
            [sys.executable, "-m", "localllm", "pull", REPO, "--yes"],
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            wait_until(lambda: partial_bytes(part) >= 4 * MIB, "some of the file")
            child.send_signal(how)
            _, err = child.communicate(timeout=PATIENCE_SECONDS)
        assert "Traceback" not in err
        if how is signal.SIGINT:
            assert "the same command goes on where it stopped" in err
        hub.behave()
        hub.reset()
        return child.returncode

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
    def test_it_goes_on_where_it_stopped(
        self, hub: LoopbackHub, big: bytes, part: Path, program: Program, how: signal.Signals
    ) -> None:
        status = self.interrupt(hub, part, how)
        assert status == (INTERRUPTED if how is signal.SIGINT else -how)
        assert kept() == []
        told = document(program, "pull", REPO, "--yes")
        assert Path(told["files"][0]["path"]).read_bytes() == big
        # What is being given to the kernel is counted before it goes: a MiB for each connection.
        assert hub.sent_bytes(BIG) <= len(big) - 4 * MIB + MIB
        assert not part.exists()

    def test_a_full_disk_keeps_what_is_here(
        self,
        hub: LoopbackHub,
        big: bytes,
        part: Path,
        program: Program,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.interrupt(hub, part, signal.SIGKILL)
        here = partial_bytes(part)
        real = pull.fetch

        def on_a_full_disk(chosen: pull.Chosen, *, quiet: bool = False) -> Pulled:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, hard))
            try:
                return real(chosen, quiet=quiet)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        with monkeypatch.context() as patch:
            patch.setattr(pull, "fetch", on_a_full_disk)
            status, _, err = program("pull", REPO, "--yes")
        assert (status, "there is no room for" in err) == (FULL, True), err
        assert "it goes on where it stopped" in err
        assert partial_bytes(part) >= here
        hub.reset()
        told = document(program, "pull", REPO, "--yes")
        assert Path(told["files"][0]["path"]).read_bytes() == big
        assert hub.sent_bytes(BIG) <= len(big) - 4 * MIB + MIB


class TestAtOnce:
    @staticmethod
    def start(*argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "localllm", "pull", "--yes", "--json", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_eight_who_want_the_same_make_one_download_and_nobody_sees_half_of_it(
        self, hub: LoopbackHub, big: bytes
    ) -> None:
        commit = hub.add_repo(REPO, {BIG: big})
        hub.cap_bytes_per_second = 8 * MIB
        path = entry(commit, BIG)
        seen: set[tuple[int, str]] = set()
        over = threading.Event()

        def look() -> None:
            with contextlib.suppress(FileNotFoundError):
                raw = path.read_bytes()
                seen.add((len(raw), sha256(raw)))

        def keep_looking() -> None:
            while not over.wait(0.01):
                look()

        reader = threading.Thread(target=keep_looking)
        reader.start()
        try:
            children = [self.start(REPO) for _ in range(8)]
            ended = [child.communicate(timeout=PATIENCE_SECONDS) for child in children]
        finally:
            over.set()
            reader.join()
        look()
        assert [child.returncode for child in children] == [0] * 8, [err for _, err in ended]
        told = [json.loads(out) for out, _ in ended]
        assert sum(each["files"][0]["from"] == "downloaded" for each in told) == 1
        # Where a connection takes over from another, a little comes twice.
        assert len(big) <= sum(each["fetched_bytes"] for each in told) < 3 * len(big) // 2
        assert seen == {(len(big), sha256(big))}

    def test_two_quantizations_share_their_projector(
        self, hub: LoopbackHub, models: dict[str, bytes], commit: str
    ) -> None:
        hub.cap_bytes_per_second = 2 * MIB
        children = [self.start(f"{REPO}:{quant}", "--with-mmproj") for quant in ("Q8_0", "F16")]
        ended = [child.communicate(timeout=PATIENCE_SECONDS) for child in children]
        assert [child.returncode for child in children] == [0, 0], [err for _, err in ended]
        told = [json.loads(out)["files"] for out, _ in ended]
        assert {files[0]["name"] for files in told} == {Q8, F16}
        assert sorted(files[1]["from"] for files in told) == ["downloaded", "here"]
        for file in (file for files in told for file in files):
            assert Path(file["path"]).read_bytes() == models[file["name"]]
        assert len(kept()) == 2


class TestAccess:
    GATED, PRIVATE = "org/Gated-GGUF", "org/Private-GGUF"

    def test_a_gated_model_says_where_to_consent(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        program: Program,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        hub.add_repo(self.GATED, models, gated="manual")
        for token, said in (("", "then set HF_TOKEN or run"), (hub.token, "with the account of")):
            monkeypatch.setenv("HF_TOKEN", token)
            status, _, err = program("pull", self.GATED, "--yes")
            assert (status, f"{hub.endpoint}/{self.GATED}" in err, said in err) == (4, True, True)
        hub.grant(self.GATED)
        succeeds(program, "pull", self.GATED, "--yes")

    def test_a_private_one_wants_the_right_token(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        program: Program,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        hub.add_repo(self.PRIVATE, models, private=True)
        status, _, err = program("pull", self.PRIVATE, "--yes")
        assert (status, "a private one wants HF_TOKEN" in err) == (MISSING, True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
        status, _, err = program("pull", self.PRIVATE, "--yes")
        assert (status, "is the token valid" in err) == (ACCESS, True), err
        monkeypatch.setenv("HF_TOKEN", hub.token)
        succeeds(program, "pull", self.PRIVATE, "--yes")
        assert hub.leaks == []

    @pytest.mark.parametrize("ref", ["org/no-such-model", "ms:org/no-such-model", "{files}/x.gguf"])
    def test_what_is_not_there_says_what_to_check(
        self, hub: LoopbackHub, program: Program, ref: str
    ) -> None:
        status, _, err = program("pull", ref.format(files=hub.files_endpoint), "--yes")
        assert (status, "hint: check" in err) == (MISSING, True), err


def down(hub: LoopbackHub) -> None:
    hub.api.close()


TROUBLES: dict[str, Callable[[LoopbackHub], object]] = {
    "down": down,
    "too many requests": lambda hub: hub.misbehave(TooManyRequests(600)),
    "too many requests, as the hub says it": lambda hub: hub.misbehave(
        TooManyRequests(250, "ratelimit")
    ),
    "failing": lambda hub: hub.misbehave(ServerError(502)),
    "a page for people": lambda hub: hub.misbehave(NotJson()),
    "half an answer": lambda hub: hub.misbehave(CutJson(100)),
}


class TestTrouble:
    @pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
    def test_a_hub_in_trouble_never_stops_what_is_here(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        commit: str,
        program: Program,
        trouble: Callable[[LoopbackHub], object],
    ) -> None:
        hub.add_repo("org/Another-GGUF", models)
        succeeds(program, "pull", f"{REPO}:Q8_0", "--yes")
        trouble(hub)
        host = hub.endpoint.partition("://")[2]
        status, out, err = program("pull", "org/Another-GGUF", "--yes")
        assert (status, out) == (NETWORK, "")
        assert err.startswith(f"error: {host} ")
        assert "\nhint: " in err
        _, err = succeeds(program, "pull", f"{REPO}:Q8_0", "--yes")
        assert f"warning: {host} " in err
        assert "what is here was not compared with it" in err
        assert f"{REPO}:Q8_0 is here" in err
        out, err = succeeds(program, "plan", f"{REPO}:Q8_0", "--json")
        assert json.loads(out)["chosen"]["quant"] == "Q8_0"
        assert host in err

    @pytest.mark.parametrize(
        "argv",
        [
            ["--quant", "F16"],
            ["--file", F16],
            ["--with-mmproj"],
            ["--with-draft"],
            ["--revision", "another"],
            ["--sha256", "0" * 64],
        ],
        ids=" ".join,
    )
    def test_something_else_than_what_is_here_does_not_pass_for_it(
        self, hub: LoopbackHub, commit: str, program: Program, argv: list[str]
    ) -> None:
        succeeds(program, "pull", f"{REPO}:Q8_0", "--yes")
        status, _, err = program("pull", REPO, "--yes", "--offline", *argv)
        assert (status, "offline mode" in err) == (NETWORK, True), err

    def test_what_was_damaged_or_removed_is_not_said_to_be_here(
        self, hub: LoopbackHub, commit: str, program: Program
    ) -> None:
        succeeds(program, "pull", f"{REPO}:Q8_0", "--yes")
        entry(commit, Q8).resolve().write_bytes(b"GGUF")
        assert program("pull", REPO, "--yes", "--offline")[0] == NETWORK
        entry(commit, Q8).resolve().unlink()
        assert program("pull", REPO, "--yes", "--offline")[0] == NETWORK


# -- secrets -----------------------------------------------------------------------------------

CANARY = "canary0sings0aloud"


def everything_written(home: Path) -> str:
    """All files of a person, unpacked where they are packed, and all names and links."""
    pieces = []
    for path in home.rglob("*"):
        pieces.append(os.fsencode(path))
        if path.is_symlink():
            pieces.append(os.fsencode(os.readlink(path)))
        elif path.is_file():
            raw = path.read_bytes()
            pieces.append(raw)
            with contextlib.suppress(zlib.error):
                pieces.append(zlib.decompressobj().decompress(raw))
    return b"\n".join(pieces).decode("latin-1")


def spellings(secret: str) -> list[str]:
    """The ways in which it may be seen."""
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    return [secret, urllib.parse.quote(secret, safe=""), basic, basic.rstrip("=")]


FAULTS: dict[str, Callable[[LoopbackHub], object]] = {
    "success": lambda hub: None,
    "a flipped bit": lambda hub: hub.misbehave(BitFlip(1_000_000)),
    "a failing server": lambda hub: hub.misbehave(ServerError(500)),
    "a cut connection": lambda hub: hub.misbehave(Truncate(100)),
    "a loop of redirects": lambda hub: hub.misbehave(RedirectLoop()),
    "a token that is none": lambda hub: setattr(hub, "token", "hf_of_somebody_else"),
    "closed": lambda hub: hub.close(),
}
WAYS = ("hub", "modelscope", "query", "user", "elsewhere")


class TestSecrets:
    @pytest.fixture
    def secret(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> str:
        """What must never be seen: the hub's token."""
        hub.token = f"hf_{CANARY}"
        hub.add_repo(REPO, models, private=True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", hub.token)
        return hub.token

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
    @pytest.mark.parametrize("way", WAYS)
    def test_are_in_no_message_and_no_file_and_go_nowhere_else(
        self,
        hub: LoopbackHub,
        models: dict[str, bytes],
        home: Path,
        program: Program,
        secret: str,
        way: str,
        fault: Callable[[LoopbackHub], object],
    ) -> None:
        url = hub.add_file("m.gguf", models[Q8])
        ref = {
            "hub": f"{REPO}:Q8_0",
            "modelscope": f"ms:{REPO}:Q8_0",
            "query": f"{url}?token={CANARY}",
            "user": url.replace("://", f"://user:{CANARY}@"),
            # The hub's token has no business at a server that the hub's name redirects to.
            "elsewhere": hub.add_redirect("else.gguf", url),
        }[way]
        fault(hub)
        status, out, err = program("pull", ref, "--yes", "--debug")
        self.unseen(out + err)
        again = ("plan", ref, "--json") if status else ("pull", ref, "--yes", "--json")
        _, out, err = program(*again)
        self.unseen(out + err)
        self.unseen(everything_written(home))
        allowed = {hub.files_endpoint} if way == "user" else set()
        assert {each.endpoint for each in hub.leaks} <= allowed

    @staticmethod
    def unseen(text: str) -> None:
        assert not [each for each in spellings(CANARY) if each in text]

    def test_are_not_in_what_an_interrupted_download_leaves(
        self, hub: LoopbackHub, big: bytes, home: Path
    ) -> None:
        url = hub.add_file(BIG, big).replace("://", f"://user:{CANARY}@")
        hub.misbehave(Stall(5 * MIB), times=1)
        argv = [sys.executable, "-m", "localllm", "pull", f"{url}?token={CANARY}", "--yes"]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as child:
            wait_until(
                lambda: any(partial_bytes(part) >= 4 * MIB for part in home.rglob("*.part")),
                "some of the file",
            )
            child.kill()
        self.unseen(everything_written(home))

    @pytest.mark.parametrize("command", ["chat", "plan", "pull"])
    def test_of_a_reference_are_not_in_what_is_said_of_it(
        self, hub: LoopbackHub, program: Program, command: str
    ) -> None:
        for ref in (
            f"{hub.files_endpoint}/gone.gguf?token={CANARY}",
            f"http://user:{CANARY}@127.0.0.1:1/gone.gguf",
            f"http://user:{CANARY}@[::1/gone.gguf",
            f"http://user:{CANARY}@127.0.0.1:99999/gone.gguf",
        ):
            flags = {"pull": ["--yes"], "chat": ["-p", "hello"], "plan": []}[command]
            status, out, err = program(command, ref, *flags)
            assert status != 0
            self.unseen(out + err)

    def test_are_not_handed_to_any_child_and_stand_on_no_command_line(
        self, hub: LoopbackHub, secret: str, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        succeeds(program, "pull", f"{REPO}:Q8_0", "--yes")
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{CANARY}@127.0.0.1:1")
        names: set[str] = set()
        with subprocess.Popen(
            [sys.executable, "-m", "localllm", "chat", REPO, "-p", "hello", "-n", "200"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            looked = psutil.Process(child.pid)
            while child.poll() is None:
                with contextlib.suppress(psutil.Error):
                    parents = looked.cmdline()
                    self.unseen(" ".join(parents))
                    for each in looked.children(recursive=True):
                        with contextlib.suppress(psutil.Error):
                            argv = each.cmdline()
                            if argv == parents:  # between fork and exec it is still its parent
                                continue
                            names.add(each.name())
                            self.unseen(f"{argv} {each.environ()}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.01)
            out, err = child.communicate()
        assert child.returncode == 0, err
        assert "llama-server" in names
        self.unseen(out.decode(errors="replace") + err.decode())


class Forwarder(BaseHTTPRequestHandler):
    """A proxy for plain HTTP."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        target = urllib.parse.urlsplit(self.path)
        there = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        headers = {k: v for k, v in self.headers.items() if not k.lower().startswith("proxy-")}
        there.request("GET", f"{target.path}?{target.query}", headers=headers)
        reply = there.getresponse()
        body = reply.read()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        there.close()

    def log_message(self, *_: object) -> None:
        pass


class TestProxy:
    @pytest.fixture
    def proxy(self) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
        """Its address, and what it was asked."""
        asked: list[tuple[str, str | None]] = []
        handler = type("Handler", (Forwarder,), {"asked": asked})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"127.0.0.1:{server.server_port}", asked
            server.shutdown()
            thread.join()

    def test_all_goes_through_it_and_its_password_is_not_told(
        self,
        hub: LoopbackHub,
        commit: str,
        home: Path,
        proxy: tuple[str, list[tuple[str, str | None]]],
    ) -> None:
        address, asked = proxy
        through = f"http://user:{CANARY}@{address}"
        done = run_localllm(
            "--debug", "pull", REPO, "--yes", HTTP_PROXY=through, http_proxy=through
        )
        assert done.returncode == 0, done.stderr
        basic = "Basic " + base64.b64encode(f"user:{CANARY}".encode()).decode()
        assert {authorization for _, authorization in asked} == {basic}
        came = {urllib.parse.urlsplit(url).netloc for url, _ in asked}
        assert came == {each.partition("://")[2] for each in (hub.endpoint, hub.cdn_endpoint)}
        assert len(asked) == len(hub.requests)
        TestSecrets.unseen(done.stdout + done.stderr + everything_written(home))

    def test_hosts_that_are_left_out_are_asked_themselves(
        self, hub: LoopbackHub, commit: str, proxy: tuple[str, list[tuple[str, str | None]]]
    ) -> None:
        address, asked = proxy
        away = {"HTTP_PROXY": f"http://{address}", "http_proxy": f"http://{address}"}
        done = run_localllm("pull", REPO, "--yes", **away, NO_PROXY="127.0.0.1,localhost")
        assert (done.returncode, asked) == (0, []), done.stderr

    def test_one_that_is_not_there_is_named_without_its_password(
        self, hub: LoopbackHub, commit: str
    ) -> None:
        through = f"http://user:{CANARY}@127.0.0.1:1"
        done = run_localllm(
            "--debug", "pull", REPO, "--yes", HTTP_PROXY=through, http_proxy=through
        )
        assert done.returncode == NETWORK, done.stderr
        TestSecrets.unseen(done.stderr)
