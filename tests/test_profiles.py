"""The judgement numbers: what ships, what a person may change, what is refused and where."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from localllm.errors import UsageError
from localllm.paths import shipped_profiles_dir
from localllm.profiles import Policy, load_policy, parse_policy
from tests.unprivileged import unprivileged

KEYS = [field.name for field in fields(Policy)]


@pytest.fixture
def shipped() -> Policy:
    return load_policy(shipped_profiles_dir())


@pytest.fixture
def user_dir(tmp_path: Path) -> Path:
    return tmp_path


def write(user_dir: Path, text: str | bytes) -> Path:
    path = user_dir / "policy.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_shipped_policy_sets_every_key_and_no_other() -> None:
    document = yaml.safe_load((shipped_profiles_dir() / "policy.yaml").read_text("utf-8"))
    assert sorted(document) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_shipped_number_says_why(key: str, shipped: Policy) -> None:
    document = yaml.safe_load((shipped_profiles_dir() / "policy.yaml").read_text("utf-8"))
    assert set(document[key]) == {"value", "because"}
    assert len(document[key]["because"].split()) >= 4
    assert getattr(shipped, key) == document[key]["value"]


def test_the_shipped_numbers_go_together(shipped: Policy) -> None:
    assert shipped.n_ctx_least <= shipped.n_ctx_wished
    assert shipped.n_ubatch <= shipped.n_batch
    assert shipped.n_ctx_least % 256 == 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("n_ctx_wished: 16384\n", id="the value alone"),
        pytest.param("n_ctx_wished:\n  value: 16384\n", id="as a value"),
        pytest.param("n_ctx_wished: {value: 16384, because: I read books}\n", id="with a reason"),
        pytest.param("\ufeff# mine\nn_ctx_wished: 16384\n", id="with a byte order mark"),
    ],
)
def test_a_person_changes_one_key_and_keeps_the_others(
    user_dir: Path, shipped: Policy, text: str
) -> None:
    write(user_dir, text)
    assert load_policy(shipped_profiles_dir(), user_dir) == replace(shipped, n_ctx_wished=16384)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"], ids=["empty", "comment", "mark"])
def test_an_empty_file_changes_nothing(user_dir: Path, shipped: Policy, text: str) -> None:
    write(user_dir, text)
    assert load_policy(shipped_profiles_dir(), user_dir) == shipped


def test_a_folder_without_a_policy_changes_nothing(user_dir: Path, shipped: Policy) -> None:
    assert load_policy(shipped_profiles_dir(), user_dir) == shipped
    assert load_policy(shipped_profiles_dir(), user_dir / "absent") == shipped


def test_zero_is_a_value(user_dir: Path) -> None:
    write(user_dir, "host_reserve_bytes: 0\n")
    assert load_policy(shipped_profiles_dir(), user_dir).host_reserve_bytes == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "n_batch: 512\nn_ctx_wish: 1\n",
            "line 2: there is no setting 'n_ctx_wish'",
            id="unknown key",
        ),
        pytest.param("? [a, b]\n: 1\n", "line 1: there is no setting", id="a key that is a list"),
        pytest.param(
            "n_batch: 512\n\nn_batch: 256\n",
            "line 3: the setting 'n_batch' occurs twice",
            id="duplicate",
        ),
        pytest.param(
            "n_batch: many\n", "line 1: n_batch must be a whole number, not 'many'", id="text"
        ),
        pytest.param(
            "n_batch: 512.5\n", "line 1: n_batch must be a whole number, not 512.5", id="float"
        ),
        pytest.param(
            "n_batch: yes\n", "line 1: n_batch must be a whole number, not True", id="bool"
        ),
        pytest.param(
            "n_batch: {value: true}\n",
            "line 1: n_batch must be a whole number, not True",
            id="bool as a value",
        ),
        pytest.param("n_batch:\n", "line 1: n_batch must be a whole number, not None", id="null"),
        pytest.param(
            "n_batch: [1]\n", "line 1: n_batch must be a whole number, not [1]", id="list value"
        ),
        pytest.param(
            "# mine\nn_batch: -1\n",
            "line 2: n_batch must not be negative, not -1",
            id="negative",
        ),
        pytest.param("type_kv: 16\n", "line 1: type_kv must be text, not 16", id="int for text"),
        pytest.param(
            "n_batch:\n  because: I like it\n",
            "line 2: n_batch needs a value (and may say because)",
            id="reason without a value",
        ),
        pytest.param(
            "n_batch: {value: 1, becuase: x}\n",
            "line 1: n_batch needs a value (and may say because)",
            id="a third key beside value",
        ),
        pytest.param("n_batch: [1, 2\n", "line 2: not YAML: ", id="not YAML"),
        pytest.param("a: 1\nb\tc: :\n  - x: y: z\n", "not YAML: ", id="not YAML further down"),
        pytest.param("n_batch: 1\n\x01\n", "line 2: not YAML: special characters", id="control"),
        pytest.param("n_batch: 1\n---\nn_batch: 2\n", "line 2: not YAML: ", id="two documents"),
        pytest.param("n_batch: *none\n", "line 1: not YAML: ", id="an alias for nothing"),
        pytest.param("- n_batch\n", "line 1: expected keys with values", id="a list"),
        pytest.param("just words\n", "line 1: expected keys with values", id="words"),
        pytest.param(
            "n_batch: !!python/object/apply:os.getcwd []\n",
            "line 1: n_batch cannot be read: could not determine a constructor",
            id="a tag that would run code",
        ),
        pytest.param(
            "n_batch: 1\nn_ubatch: !mine 3\n",
            "line 2: n_ubatch cannot be read: ",
            id="an unknown tag",
        ),
        pytest.param(
            "n_batch: 2026-13-32\n", "line 1: n_batch cannot be read: month", id="no such date"
        ),
        pytest.param(
            "n_batch: &a {value: *a}\n", "line 1: n_batch cannot be read: ", id="a circle"
        ),
        pytest.param(
            "n_batch: {[1]: 2}\n", "line 1: n_batch cannot be read: ", id="a list for a key"
        ),
    ],
)
def test_an_error_names_the_file_the_line_and_the_key(
    user_dir: Path, text: str, sentence: str
) -> None:
    path = write(user_dir, text)
    with pytest.raises(UsageError) as caught:
        load_policy(shipped_profiles_dir(), user_dir)
    assert caught.value.message.startswith(str(path))
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        pytest.param("n_ctx_wish", "did you mean n_ctx_wished?", id="a letter missing"),
        pytest.param("gomp_spin_count", "did you mean gomp_spincount?", id="a letter too many"),
        pytest.param("xyzzy", None, id="nothing near"),
    ],
)
def test_an_unknown_key_gets_the_nearest_name(key: str, hint: str | None, shipped: Policy) -> None:
    with pytest.raises(UsageError) as caught:
        parse_policy(f"{key}: 1\n", "mine.yaml", shipped)
    assert caught.value.hint == hint


@pytest.mark.parametrize("key", KEYS)
def test_a_policy_of_its_own_must_set_every_key(key: str) -> None:
    text = "".join(f"{name}: {'f16' if name == 'type_kv' else 1}\n" for name in KEYS if name != key)
    with pytest.raises(UsageError, match=f"^mine.yaml: the setting '{key}' is missing$"):
        parse_policy(text, "mine.yaml")


def test_a_policy_of_its_own_needs_no_base() -> None:
    text = "".join(f"{name}: {'f16' if name == 'type_kv' else 1}\n" for name in KEYS)
    assert parse_policy(text, "mine.yaml") == Policy(
        **{name: "f16" if name == "type_kv" else 1 for name in KEYS}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "raw", [b"n_batch: \xff\n", "n_batch: 1\n".encode("utf-16")], ids=["latin", "utf-16"]
)
def test_a_file_that_is_not_utf8_is_refused(user_dir: Path, raw: bytes) -> None:
    write(user_dir, raw)
    with pytest.raises(UsageError, match=r"policy\.yaml is not UTF-8 text$"):
        load_policy(shipped_profiles_dir(), user_dir)


def test_a_shipped_policy_that_is_not_there_asks_for_a_new_installation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as caught:
        load_policy(tmp_path)
    assert caught.value.hint == "install localllm again"


def test_an_own_policy_that_may_not_be_read_is_an_error(home: Path) -> None:
    home.chmod(0o755)
    path = write(home, "n_batch: 1\n")
    path.chmod(0)
    with unprivileged(), pytest.raises(UsageError, match="Permission denied") as caught:
        load_policy(shipped_profiles_dir(), home)
    assert caught.value.hint == f"chmod u+r {path}"
