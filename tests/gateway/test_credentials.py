"""Keys: which lines are keys, who is found, and that no key is ever shown."""

from __future__ import annotations

import hmac
import os
import pickle
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from localllm.errors import AccessError, NotFoundError, UsageError
from localllm.gateway import credentials
from localllm.gateway.credentials import (
    KeyRing,
    literal_keys,
    parse_keys,
    presented,
    read_keys,
)
from tests.unprivileged import unprivileged

ALICE = "2f0d5c1e9a7b4c38"
BOB = "71c2ab09d1e84f56"
POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows files have no modes")


def found(text: str, *keys: str) -> list[str | None]:
    ring = parse_keys(text, "keys")
    return [ring.find(key) for key in keys]


def test_a_line_is_a_name_and_a_key_or_a_key_that_is_named_by_its_place() -> None:
    ring = parse_keys(f"alice {ALICE}\n{BOB}\n", "keys")
    assert ring.names == ("alice", "key-2")
    assert (ring.find(ALICE), ring.find(BOB)) == ("alice", "key-2")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"# the team\n\n  \t\nalice {ALICE}\n", id="comments and empty lines"),
        pytest.param(f"  alice \t  {ALICE}  ", id="blanks around"),
        pytest.param(f"alice {ALICE}\r\n# end\r\n", id="Windows line ends"),
        pytest.param(f"alice {ALICE} # since May", id="a comment behind"),
        pytest.param(f"alice {ALICE}\t#since May", id="a comment behind, without a blank"),
    ],
)
def test_only_words_count(text: str) -> None:
    assert parse_keys(text, "keys").names == ("alice",)
    assert found(text, ALICE) == ["alice"]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("12345678", id="8 characters"),
        pytest.param("k" * 512, id="512 characters"),
        pytest.param("!#$%&'()*+,-./:;<=>?@[]^_`{|}~", id="every sign but a first #"),
        pytest.param("sk-proj-a_b#c", id="a # inside"),
    ],
)
def test_a_key_is_any_printable_ascii(key: str) -> None:
    assert found(key, key, key[:-1], key + "x") == ["key-1", None, None]


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "n" * 64])
def test_a_name_is_letters_digits_and_three_signs(name: str) -> None:
    assert found(f"{name} {ALICE}", ALICE) == [name]


@pytest.mark.parametrize(
    ("text", "where", "secrets"),
    [
        pytest.param("# none\nshort12", "line 2", ["short12"], id="short key"),
        pytest.param("k" * 513, "line 1", ["kkk"], id="long key"),
        pytest.param(f"{ALICE}ä", "line 1", [ALICE], id="key with an umlaut"),
        pytest.param(f"{ALICE}\xa0{BOB}", "line 1", [ALICE, BOB], id="key with a hard blank"),
        pytest.param(f"{ALICE}\x0b{BOB}", "line 1", [ALICE, BOB], id="key with a vertical tab"),
        pytest.param(f"{ALICE}\u2028{BOB}", "line 1", [ALICE, BOB], id="key with a line sign"),
        pytest.param(f"{ALICE}\x7f", "line 1", [ALICE], id="key with a control character"),
        pytest.param(f"al/ice {ALICE}", "line 1", [ALICE, "al/ice"], id="name with a slash"),
        pytest.param(f"{'n' * 65} {ALICE}", "line 1", [ALICE, "nnn"], id="long name"),
        pytest.param(f"{BOB} short", "line 1", [BOB, "short"], id="key before name"),
        pytest.param(f"alice {ALICE} {BOB}", "line 1", [ALICE, BOB], id="three words"),
        pytest.param(f"alice {ALICE}\n\nbob {ALICE}", "line 3", [ALICE], id="a key twice"),
        pytest.param(f"a {ALICE}\na {BOB}", "line 2", [ALICE, BOB], id="a name twice"),
        pytest.param(f"key-2 {ALICE}\n{BOB}", "line 2", [ALICE, BOB], id="an automatic name twice"),
        pytest.param("alice #2f0d5c1e", "line 1", ["2f0d5c1e", "alice"], id="a key after #"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_never_quoted(
    text: str, where: str, secrets: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_keys(text, "keys")
    told = caught.value.message + (caught.value.hint or "")
    assert where in told
    assert not [secret for secret in secrets if secret in told]


def test_a_duplicate_names_both_lines() -> None:
    with pytest.raises(UsageError, match="line 3: the same key as line 1"):
        parse_keys(f"alice {ALICE}\n\nbob {ALICE}", "keys")


@pytest.mark.parametrize("text", ["", "\n\n", "# no keys yet\n"])
def test_a_file_without_a_key_is_refused_and_does_not_mean_that_none_is_needed(text: str) -> None:
    with pytest.raises(UsageError, match="holds no key"):
        parse_keys(text, "keys")


def test_literal_keys_are_named_by_their_place() -> None:
    ring = literal_keys([ALICE, BOB], "--api-key")
    assert (ring.find(ALICE), ring.find(BOB)) == ("arg-1", "arg-2")
    with pytest.raises(UsageError, match="--api-key, key 2: the key is not one") as caught:
        literal_keys([ALICE, "a key"], "--api-key")
    assert "a key" not in caught.value.message.replace("a key is", "")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("", id="empty"),
        pytest.param(ALICE.upper(), id="another case"),
        pytest.param(ALICE[:-1], id="cut"),
        pytest.param(f" {ALICE}", id="a blank before"),
        pytest.param(f"{ALICE}\0", id="a zero after"),
        pytest.param("alice", id="the name"),
        pytest.param("alice " + ALICE, id="the line"),
        pytest.param("\udcff" * 16, id="bytes that are no text"),
        pytest.param("ключ", id="not ASCII"),
        pytest.param("k" * 100_000, id="huge"),
    ],
)
def test_what_is_not_a_key_finds_nobody(wrong: str) -> None:
    assert found(f"alice {ALICE}\n{BOB}", wrong) == [None]


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = literal_keys([f"key-number-{n}" for n in range(20)], "keys")
    compared: list[bytes] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return hmac.compare_digest(left, right)

    class Watched:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(credentials, "hmac", Watched)
    assert ring.find("key-number-0") == "arg-1"
    assert ring.find("key-number-19") == "arg-20"
    assert ring.find("nobody's key") is None
    assert len(compared) == 3 * 20
    assert compared[:20] == compared[20:40] == compared[40:]


def test_a_ring_holds_and_shows_no_key_and_shows_no_digest() -> None:
    ring = parse_keys(f"alice {ALICE}\n{BOB}", "keys")
    assert ALICE.encode() not in pickle.dumps(ring)
    assert repr(ring) == str(ring) == f"{ring}" == "KeyRing(2 keys)"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param({"Authorization": f"Bearer {ALICE}"}, ALICE, id="bearer"),
        pytest.param({"Authorization": f"bearer {ALICE}"}, ALICE, id="bearer in small letters"),
        pytest.param({"Authorization": f"BEARER  {ALICE} "}, ALICE, id="bearer and blanks"),
        pytest.param({"Authorization": ALICE}, ALICE, id="no scheme, as llama-server takes it"),
        pytest.param({"X-Api-Key": ALICE}, ALICE, id="x-api-key, as Anthropic's clients send it"),
        pytest.param({"X-Api-Key": f"Bearer {ALICE}"}, ALICE, id="x-api-key with bearer"),
        pytest.param({"Authorization": BOB, "X-Api-Key": ALICE}, BOB, id="authorization first"),
        pytest.param({"Authorization": "", "X-Api-Key": ALICE}, ALICE, id="empty authorization"),
        pytest.param({"Authorization": "Bearer ", "X-Api-Key": ALICE}, ALICE, id="empty bearer"),
        pytest.param({"Authorization": f"Basic {ALICE}"}, f"Basic {ALICE}", id="another scheme"),
        pytest.param({"Authorization": f"Bearer{ALICE}"}, f"Bearer{ALICE}", id="no blank"),
        pytest.param({"Authorization": "Bearer"}, None, id="bearer alone"),
        pytest.param({"X-Api-Key": "  "}, None, id="blanks alone"),
        pytest.param({"Cookie": ALICE, "Api-Key": ALICE}, None, id="other headers"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_a_key_comes_in_one_of_two_headers(headers: Mapping[str, str], key: str | None) -> None:
    assert presented(headers) == key


def test_what_another_scheme_brings_is_no_key() -> None:
    assert found(ALICE, presented({"Authorization": f"Basic {ALICE}"}) or "") == [None]


def test_a_key_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbf# caf\xc3\xa9\r\nalice " + ALICE.encode())
    path.chmod(0o600)
    ring, warnings = read_keys(path)
    assert (ring.find(ALICE), warnings) == ("alice", ())


@POSIX
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_a_key_file_that_others_may_open_is_warned_of(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_text(ALICE)
    path.chmod(mode)
    ring, (warning,) = read_keys(path)
    assert ring.find(ALICE) == "key-1"
    assert warning == f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"


@POSIX
def test_keys_may_come_through_a_pipe_which_needs_no_mode(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    path.chmod(0o644)
    writer = threading.Thread(target=path.write_text, args=(ALICE,))
    writer.start()
    ring, warnings = read_keys(path)
    writer.join()
    assert (ring.find(ALICE), warnings) == ("key-1", ())


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(NotFoundError) as caught:
        read_keys(path)
    assert caught.value.hint == f"openssl rand -hex 24 > {path}"


def test_a_key_file_that_may_not_be_read_is_an_access_error() -> None:
    # Not tmp_path: nobody may not enter that, where the tests run as root.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "keys")
        path.write_text(ALICE)
        path.chmod(0)
        with unprivileged(), pytest.raises(AccessError, match="may not be read"):
            read_keys(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\xff\xfe\0k", "not UTF-8", id="not text"),
        pytest.param(b"x" * ((1 << 20) + 1), "larger than 1 MiB", id="too large"),
    ],
)
def test_what_cannot_be_a_key_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_keys(path)


def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the key file"):
        read_keys(tmp_path)


def test_keys_that_hash_alike_in_part_are_different() -> None:
    ring = KeyRing((("line 1", "a", ALICE), ("line 2", "b", ALICE + "0")), "keys")
    assert (ring.find(ALICE), ring.find(ALICE + "0")) == ("a", "b")
