"""The judgement numbers: what ships, what a person may change, what is refused and where."""

from __future__ import annotations

import dataclasses
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from localllm.errors import UsageError
from localllm.paths import shipped_profiles_dir
from localllm.profiles import Goal, Policy, load_policy, parse_policy
from tests.unprivileged import unprivileged

#: Numbers, each with a reason; the goals have numbers of their own.
KEYS = [field.name for field in fields(Policy) if field.name != "goals"]
GOAL_KEYS = [field.name for field in fields(Goal) if field.name != "name"]
GOALS = ["chat", "serve", "long-context"]
#: A goal of ones.
ONES = "{" + ", ".join(f"{key}: 1" for key in GOAL_KEYS) + "}"


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


@pytest.fixture(scope="module")
def document() -> Any:
    return yaml.safe_load((shipped_profiles_dir() / "policy.yaml").read_text("utf-8"))


def test_the_shipped_policy_sets_every_key_and_no_other(document: Any) -> None:
    assert sorted(document) == sorted([*KEYS, "goals"])
    assert list(document["goals"]) == GOALS
    for goal in document["goals"].values():
        assert sorted(goal) == sorted(GOAL_KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_shipped_number_says_why(key: str, shipped: Policy, document: Any) -> None:
    assert set(document[key]) == {"value", "because"}
    assert len(document[key]["because"].split()) >= 4
    assert getattr(shipped, key) == document[key]["value"]


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("key", GOAL_KEYS)
def test_every_number_of_a_goal_says_why(
    key: str, goal: str, shipped: Policy, document: Any
) -> None:
    said = document["goals"][goal][key]
    assert set(said) == {"value", "because"}
    assert len(said["because"].split()) >= 2
    assert getattr(shipped.goal(goal), key) == said["value"]
    assert shipped.goal(goal).name == goal


def test_the_shipped_numbers_go_together(shipped: Policy) -> None:
    assert shipped.n_ubatch <= shipped.n_ubatch_experts <= shipped.n_batch
    for goal in shipped.goals.values():
        assert goal.n_ctx_least <= goal.n_ctx_wished
        assert goal.n_ctx_least % 256 == goal.n_ctx_wished % 256 == 0
        assert goal.speed_least < goal.speed_comfortable < shipped.speed_plenty
    assert shipped.price_fast_halving < shipped.price_slow_halving < shipped.price_unusable_halving
    for share in ("host_bandwidth_share", "host_sheet_share", "device_bandwidth_share"):
        assert 0 < getattr(shipped, share) < 1
    assert shipped.host_sheet_share < shipped.host_bandwidth_share
    assert 0 < shipped.host_bytes_per_second < shipped.device_bytes_per_second
    # A model of half the weights, or slowness worth as much, outweighs any plan's own speed price.
    assert shipped.price_model_halving > shipped.price_unusable_halving
    assert shipped.model_doublings_per_year < 12 / 3.5, "the published figure is a bound"


def test_an_unknown_goal_gets_the_nearest_name(shipped: Policy) -> None:
    with pytest.raises(UsageError, match="there is no goal 'long'") as caught:
        shipped.goal("long")
    assert caught.value.hint is not None
    assert "long-context" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        shipped.goal("xyzzy")
    assert caught.value.hint == "chat, serve, long-context"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("n_batch: 4096\n", id="the value alone"),
        pytest.param("n_batch:\n  value: 4096\n", id="as a value"),
        pytest.param("n_batch: {value: 4096, because: I read books}\n", id="with a reason"),
        pytest.param("\ufeff# mine\nn_batch: 4096\n", id="with a byte order mark"),
    ],
)
def test_a_person_changes_one_key_and_keeps_the_others(
    user_dir: Path, shipped: Policy, text: str
) -> None:
    write(user_dir, text)
    assert load_policy(shipped_profiles_dir(), user_dir) == replace(shipped, n_batch=4096)


def test_a_person_changes_one_number_of_a_goal_and_keeps_the_others(
    user_dir: Path, shipped: Policy
) -> None:
    write(user_dir, "goals:\n  chat:\n    n_ctx_wished: {value: 16384, because: I read books}\n")
    chat = replace(shipped.goal("chat"), n_ctx_wished=16384)
    assert load_policy(shipped_profiles_dir(), user_dir) == replace(
        shipped, goals={**shipped.goals, "chat": chat}
    )


def test_a_person_adds_a_goal_of_their_own(user_dir: Path, shipped: Policy) -> None:
    write(user_dir, f"goals: {{agents: {ONES}}}\n")
    policy = load_policy(shipped_profiles_dir(), user_dir)
    assert dataclasses.asdict(policy.goal("agents")) == {
        "name": "agents",
        **dict.fromkeys(GOAL_KEYS, 1),
    }
    assert policy.goal("chat") == shipped.goal("chat")


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
            "line 3: n_batch occurs twice",
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
        pytest.param("n_batch: [1]\n", "line 1: n_batch must be a single value", id="list value"),
        pytest.param(
            "# mine\nn_batch: -1\n",
            "line 2: n_batch must be at least 0, not -1",
            id="negative",
        ),
        pytest.param(
            "price_kv_q8_0: -0.5\n",
            "line 1: price_kv_q8_0 must be at least 0, not -0.5",
            id="a price below nothing",
        ),
        pytest.param("price_kv_q8_0: .nan\n", "line 1: price_kv_q8_0 must be", id="a price of nan"),
        pytest.param(
            "host_reserve_bytes: lots\n",
            "line 1: host_reserve_bytes must be a size, not 'lots'",
            id="no size",
        ),
        pytest.param("goals: 3\n", "line 1: goals must hold keys with values", id="no goals"),
        pytest.param(
            "goals:\n  chat: fast\n", "line 2: goals.chat must hold keys", id="a goal of a word"
        ),
        pytest.param(
            "goals:\n  chat:\n    n_ctx: 5\n",
            "line 3: there is no setting 'goals.chat.n_ctx'",
            id="no such number of a goal",
        ),
        pytest.param(
            "goals:\n  chat:\n    n_ctx_wished: 1024\n",
            "line 2: goals.chat needs an n_ctx_least above 0 and at most n_ctx_wished",
            id="less wished than needed",
        ),
        pytest.param(
            "goals:\n  chat: {n_parallel: 0}\n",
            "line 2: goals.chat needs an n_parallel of at least 1",
            id="no slots",
        ),
        pytest.param(
            "goals:\n  mine: {n_parallel: 1}\n",
            "line 2: goals.mine.n_ctx_wished is missing",
            id="a goal with holes",
        ),
        pytest.param(
            "n_batch:\n  because: I like it\n",
            "line 1: n_batch needs a value (and may say because)",
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
            "line 1: n_batch must be a single value",
            id="a tag that would run code",
        ),
        pytest.param(
            "n_batch: !!python/name:os.getcwd ''\n",
            "line 1: n_batch cannot be read: could not determine a constructor",
            id="a tag that would import",
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
            "n_batch: &a {value: *a}\n", "line 1: n_batch must be a single value", id="a circle"
        ),
        pytest.param(
            "n_batch: {[1]: 2}\n",
            "line 1: n_batch needs a value (and may say because)",
            id="a list for a key",
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
        pytest.param("n_batc", "did you mean n_batch?", id="a letter missing"),
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
    text = "".join(f"{name}: 1\n" for name in KEYS if name != key) + f"goals: {{mine: {ONES}}}\n"
    with pytest.raises(UsageError, match=rf"^mine\.yaml: the setting '{key}' is missing$"):
        parse_policy(text, "mine.yaml")


def test_a_policy_of_its_own_needs_no_base() -> None:
    text = "".join(f"{name}: 1\n" for name in KEYS) + f"goals: {{mine: {ONES}}}\n"
    ones: dict[str, Any] = dict.fromkeys(GOAL_KEYS, 1)
    everything: dict[str, Any] = dict.fromkeys(KEYS, 1)
    assert parse_policy(text, "mine.yaml") == Policy(
        goals={"mine": Goal("mine", **ones)}, **everything
    )


def test_a_policy_of_its_own_needs_a_goal() -> None:
    text = "".join(f"{name}: 1\n" for name in KEYS)
    with pytest.raises(UsageError, match=r"^mine\.yaml: the setting 'goals' is missing$"):
        parse_policy(text, "mine.yaml")


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
