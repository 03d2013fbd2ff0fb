"""Manifests: what is written is what is read, and what is damaged says so."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from localllm.digests import Claim
from localllm.store.manifest import DamagedError, Manifest, StoredFile, from_bytes, to_bytes
from tests.store.things import version

FILE = StoredFile(
    path="Q4_K_M/model-00001-of-00002.gguf",
    location="/hub/models--org--model-GGUF/snapshots/1/Q4_K_M/model-00001-of-00002.gguf",
    size_bytes=4_900_000_000,
    mtime_ns=1_795_000_000_123_456_789,
    digests={"sha256": "c" * 64, "md5": "d" * 32, "git-sha1": "e" * 40},
    proofs=(
        Claim("sha256", "c" * 64, "huggingface.co"),
        Claim("md5", "d" * 32, "model.gguf.md5 of example.org", "transfer"),
    ),
    role="mmproj",
    adopted="Ollama",
    in_place=True,
)
WHOLE = replace(version(FILE, FILE), verified={"integrity": "2026-11-20T12:00:00Z"})
BARE = replace(
    version(kind="url", repo="https://example.org/models", revision="f" * 64, template=None),
    quant=None,
)


@pytest.mark.parametrize("manifest", [WHOLE, BARE], ids=["with everything", "with little"])
def test_what_is_written_is_what_is_read(manifest: Manifest) -> None:
    assert from_bytes(to_bytes(manifest)) == manifest


def test_a_manifest_is_json_that_says_its_version() -> None:
    document = json.loads(to_bytes(WHOLE))
    assert document["schema_version"] == 1
    assert document["files"][0]["proofs"][1]["by"] == "model.gguf.md5 of example.org"


def test_a_name_is_what_its_versions_share() -> None:
    assert WHOLE.name == "hf:org/model-GGUF:Q4_K_M"
    assert WHOLE.size_bytes == 9_800_000_000


def test_a_key_that_a_later_release_adds_is_passed_over() -> None:
    document = {**json.loads(to_bytes(WHOLE)), "colour": "blue"}
    assert from_bytes(json.dumps(document).encode()) == WHOLE


def _changed(*keys: str | int, to: Any) -> bytes:
    document = json.loads(to_bytes(WHOLE))
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"", "complete JSON", id="empty"),
        pytest.param(to_bytes(WHOLE)[:-2], "complete JSON", id="cut short"),
        pytest.param(b"[" * 100_000, "complete JSON", id="nested"),
        pytest.param(b"[]", "schema_version", id="a list"),
        pytest.param(_changed("schema_version", to=True), "schema_version", id="version"),
        pytest.param(_changed("schema_version", to=2), "newer", id="newer"),
        pytest.param(_changed("kind", to="ftp"), "'ftp' is none of", id="kind"),
        pytest.param(_changed("repo", to="../x"), "not a repository", id="repo"),
        pytest.param(_changed("revision", to="../x"), "not a commit", id="revision"),
        pytest.param(_changed("files", 0, "path", to="../x"), "climbs", id="path"),
        pytest.param(_changed("files", 0, "location", to="x"), "absolute", id="location"),
        pytest.param(_changed("files", 0, "size_bytes", to="9"), "int", id="size"),
        pytest.param(_changed("files", 0, "size_bytes", to=True), "int", id="size that is true"),
        pytest.param(_changed("files", 0, "digests", to={}), "no sha256", id="digests"),
        pytest.param(_changed("files", 0, "digests", to={"crc": "c" * 64}), "none of", id="crc"),
        pytest.param(_changed("files", 0, "digests", "sha256", to="C"), "digest", id="digest"),
        pytest.param(_changed("files", 0, "proofs", 0, "proves", to="x"), "none of", id="proves"),
        pytest.param(_changed("files", 0, "role", to=["x"]), "none of", id="role"),
        pytest.param(_changed("verified", to={"luck": "2026"}), "none of", id="check"),
        pytest.param(_changed("model", to=None), "dict", id="model"),
    ],
)
def test_a_damaged_manifest_says_why(raw: bytes, why: str) -> None:
    with pytest.raises(DamagedError, match=why):
        from_bytes(raw)


@pytest.mark.parametrize("key", sorted(json.loads(to_bytes(WHOLE))))
def test_a_manifest_that_lacks_anything_is_damaged(key: str) -> None:
    document = json.loads(to_bytes(WHOLE))
    del document[key]
    with pytest.raises(DamagedError, match=key):
        from_bytes(json.dumps(document).encode())


def test_no_damage_is_anything_but_damage() -> None:
    """Seeded: bytes changed, cut and doubled; numbers, texts and lists in each other's places."""
    random_ = random.Random(20261120)
    whole, n_damaged = to_bytes(WHOLE), 0
    odd: list[Any] = [None, True, -1, 1e300, "", "\0", [], {}, [[]], {"sha256": []}, "a" * 5000]
    for _ in range(2000):
        raw = bytearray(whole)
        if random_.random() < 0.5:
            for _ in range(random_.randint(1, 4)):
                raw[random_.randrange(len(raw))] = random_.randrange(256)
        else:
            document = json.loads(whole)
            places = [document, document["model"], document["files"][0]]
            inner = random_.choice([*places, document["files"][0]["proofs"][0]])
            inner[random_.choice(list(inner))] = random_.choice(odd)
            raw = bytearray(json.dumps(document).encode())
        try:
            from_bytes(bytes(raw))
        except DamagedError:
            n_damaged += 1
    assert n_damaged > 500
