"""Digests: what people type and write down, and what bytes really have."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from localllm.digests import Algorithm, Claim, Digester, make_claim, parse_checksums
from localllm.errors import UsageError

DATA = b"a model, or so"
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
SHA1 = hashlib.sha1(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        pytest.param(SHA256, "sha256", id="sha256"),
        pytest.param(SHA256.upper(), "sha256", id="capitals"),
        pytest.param(f" {MD5}\n", "md5", id="blanks-around"),
        pytest.param(f"sha256:{SHA256}", "sha256", id="prefix"),
        pytest.param(f"SHA512:{SHA512}", "sha512", id="prefix-in-capitals"),
        pytest.param(SHA1, "sha1", id="sha1"),
    ],
)
def test_a_typed_digest_is_known_by_its_length(text: str, algorithm: Algorithm) -> None:
    claim = make_claim(text, "--sha256")
    assert claim == Claim(algorithm, text.strip().lower().rpartition(":")[2], "--sha256")


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        pytest.param("", None, id="empty"),
        pytest.param(SHA256[:-1], None, id="a-digit-short"),
        pytest.param("z" * 64, None, id="no-digits"),
        pytest.param("１" * 64, None, id="digits-of-another-script"),
        pytest.param(MD5, "sha256", id="another-algorithm-than-asked"),
        pytest.param(f"md5:{SHA256}", None, id="another-algorithm-than-said"),
        pytest.param(f"sha3:{SHA256}", None, id="an-algorithm-that-we-lack"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, algorithm: Algorithm | None) -> None:
    with pytest.raises(UsageError, match="is no digest by") as caught:
        make_claim(text, "--sha256", algorithm=algorithm)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{SHA256}  m.gguf\n", id="gnu"),
        pytest.param(f"{SHA256} *m.gguf\r\n", id="gnu-binary-windows"),
        pytest.param(f"\\{SHA256}  m.gguf", id="gnu-escaped"),
        pytest.param(f"SHA256 (m.gguf) = {SHA256}", id="bsd"),
        pytest.param(f"SHA2-256(m.gguf)= {SHA256}", id="openssl"),
        pytest.param(f"{SHA256.upper()}\n", id="digits-alone"),
        pytest.param(f"# made on Monday\n\n{SHA256}", id="comment"),
        pytest.param(f"{SHA256}  ./out/m.gguf", id="folders-of-its-maker"),
        pytest.param(f"{SHA256}  C:\\out\\m.gguf", id="folders-of-its-maker-on-windows"),
        pytest.param(f"{OTHER}  n.gguf\n{SHA256}  m.gguf", id="among-others"),
        pytest.param(f"{OTHER}  old/m.gguf\n{SHA256}  m.gguf", id="another-in-a-folder"),
        pytest.param(f"{SHA256}  m.gguf\n{SHA256}  m.gguf", id="twice"),
        pytest.param(f"SHA3-256 (m.gguf) = {OTHER}\n{SHA256}  m.gguf", id="beside-a-sha3"),
    ],
)
def test_checksum_files_are_read_as_people_write_them(text: str) -> None:
    assert parse_checksums(text, "m.gguf", "x") == (Claim("sha256", SHA256, "x", "transfer"),)


def test_several_algorithms_are_several_claims() -> None:
    text = f"MD5 (m.gguf) = {MD5}\nSHA256 (m.gguf) = {SHA256}\nSHA512 (m.gguf) = {SHA512}\n"
    claims = parse_checksums(text, "m.gguf", "x")
    assert {claim.algorithm: claim.hex for claim in claims} == {
        "md5": MD5,
        "sha256": SHA256,
        "sha512": SHA512,
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{SHA256}  n.gguf", id="another-file"),
        pytest.param(f"{SHA256}  xm.gguf", id="a-name-that-ends-alike"),
        pytest.param(f"{SHA256}\n{OTHER}\n", id="digits-of-two-files"),
        pytest.param(f"{SHA256}  a/m.gguf\n{OTHER}  b/m.gguf", id="two-folders-contradict"),
        pytest.param(f"RMD160 (m.gguf) = {SHA1}", id="ripemd"),
        pytest.param(f"SHA256 (m.gguf) = {MD5}", id="not-as-long-as-it-says"),
        pytest.param("<html><body>404</body></html>", id="a-page"),
        pytest.param("\0\1\2" * 100, id="bytes"),
    ],
)
def test_what_does_not_speak_of_the_file_claims_nothing(text: str) -> None:
    assert parse_checksums(text, "m.gguf", "x") == ()


def test_a_file_in_a_folder_is_not_taken_for_one_of_the_same_name_elsewhere() -> None:
    text = f"{OTHER}  m.gguf\n{SHA256}  Q4/m.gguf\n"
    assert [claim.hex for claim in parse_checksums(text, "Q4/m.gguf", "x")] == [SHA256]
    assert parse_checksums(f"{OTHER}  m.gguf\n", "Q4/m.gguf", "x") == ()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="GNU coreutils are not here")
@pytest.mark.parametrize("flags", [[], ["--tag"], ["--binary"]], ids=["plain", "tag", "binary"])
@pytest.mark.parametrize("name", ["m.gguf", "a b (1).gguf", "模型.gguf"])
def test_what_coreutils_write_is_understood(tmp_path: Path, flags: list[str], name: str) -> None:
    (tmp_path / name).write_bytes(DATA)
    for program, digest in ("sha256sum", SHA256), ("md5sum", MD5), ("sha512sum", SHA512):
        made = subprocess.run(
            [program, *flags, name], cwd=tmp_path, capture_output=True, check=True, timeout=60
        )
        claims = parse_checksums(made.stdout.decode(), name, program)
        assert [claim.hex for claim in claims] == [digest]


def test_a_hostile_line_of_a_mebibyte_takes_no_time_and_claims_nothing() -> None:
    for line in (")" * 2**20, "MD5 (" + ") = a" * 200_000, "a" * 2**20, "SHA256 (" * 100_000):
        assert parse_checksums(line, "m.gguf", "x") == ()


def test_digests_made_in_pieces_are_those_of_the_whole() -> None:
    digester = Digester(("md5", "sha1", "sha512", "git-sha1"), len(DATA))
    for at in range(0, len(DATA), 3):
        digester.update(memoryview(DATA)[at : at + 3])
    assert digester.hexdigests() == {
        "sha256": SHA256,
        "md5": MD5,
        "sha1": SHA1,
        "sha512": SHA512,
        "git-sha1": hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest(),
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_the_digest_of_git_is_what_git_says(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(DATA)
    said = subprocess.run(
        ["git", "hash-object", "m"], cwd=tmp_path, capture_output=True, check=True, timeout=60
    )
    digester = Digester(("git-sha1",), len(DATA))
    digester.update(DATA)
    assert digester.hexdigests()["git-sha1"] == said.stdout.decode().strip()


def test_sha256_is_always_made() -> None:
    digester = Digester((), 0)
    assert digester.hexdigests() == {"sha256": hashlib.sha256().hexdigest()}
