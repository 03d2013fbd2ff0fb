"""The catalogue of short names: what ships, what a person may add, what is refused and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from localllm.catalogue import Catalogue, load_catalogue, parse_models
from localllm.errors import NotFoundError, UsageError
from localllm.naming import parse_ref
from localllm.paths import shipped_profiles_dir

ENTRY = """\
tiny:1b:
  repo: org/Tiny-1B-GGUF
  description: a tiny one
  parameters: 1.1B
  licence: MIT
  tasks: [chat, code]
  n_ctx_train: 4096
  gated: false
  source: https://huggingface.co/org/Tiny-1B-GGUF
  released: 2025-04
"""


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue(shipped_profiles_dir())


def test_enough_models_ship(shipped: Catalogue) -> None:
    assert len(shipped.entries) >= 30
    tasks = {task for entry in shipped.entries.values() for task in entry.tasks}
    assert tasks == {"chat", "code", "embed", "rerank", "vision", "reasoning"}


def test_every_shipped_alias_and_family_is_typed_as_it_is_written(shipped: Catalogue) -> None:
    for name in [*shipped.entries, *shipped.defaults]:
        assert parse_ref(name).kind == "alias", name


def test_every_shipped_repository_is_one_that_the_hub_could_have(shipped: Catalogue) -> None:
    for entry in shipped.entries.values():
        assert parse_ref(entry.repo).repo == entry.repo
        assert entry.source == f"https://huggingface.co/{entry.repo}"
        assert entry.repo.lower().endswith("gguf")


def test_no_two_shipped_aliases_stand_for_the_same_repository(shipped: Catalogue) -> None:
    repos = [entry.repo for entry in shipped.entries.values()]
    assert sorted(set(repos)) == sorted(repos)


def test_every_shipped_tag_agrees_with_the_number_of_weights(shipped: Catalogue) -> None:
    """qwen3:8b has some 8 billion; tags that are words say nothing."""
    compared = 0
    for entry in shipped.entries.values():
        size = entry.alias.partition(":")[2].partition("-")[0]
        if size[:-1].replace(".", "").isdigit() and size[-1] in "bm":
            compared += 1
            wanted = float(size[:-1]) * {"b": 1e9, "m": 1e6}[size[-1]]
            assert entry.n_params == pytest.approx(wanted, rel=0.25), entry.alias
    assert compared >= 40


def test_every_shipped_name_is_in_its_repositorys(shipped: Catalogue) -> None:
    """A slip of a line would give one model's repository to another."""
    for entry in shipped.entries.values():
        family, repo = (
            "".join(c for c in text.lower() if c.isalpha()) for text in (entry.family, entry.repo)
        )
        assert family in repo, entry.alias


@pytest.mark.parametrize(
    ("alias", "repo", "n_params", "n_active", "n_ctx_train"),
    [
        ("qwen3:8b", "Qwen/Qwen3-8B-GGUF", 8_190_000_000, 8_190_000_000, 40960),
        ("qwen3:30b-a3b", "Qwen/Qwen3-30B-A3B-GGUF", 30_500_000_000, 3_300_000_000, 40960),
        ("gpt-oss:120b", "ggml-org/gpt-oss-120b-GGUF", 116_800_000_000, 5_100_000_000, 131072),
        ("gemma3:4b", "ggml-org/gemma-3-4b-it-GGUF", 4_300_000_000, 4_300_000_000, 131072),
        ("qwen3:0.6b", "Qwen/Qwen3-0.6B-GGUF", 596_000_000, 596_000_000, 40960),
    ],
)
def test_a_shipped_model_is_what_its_makers_say(
    alias: str, repo: str, n_params: int, n_active: int, n_ctx_train: int, shipped: Catalogue
) -> None:
    entry = shipped.find(alias)
    assert (entry.repo, entry.n_params, entry.n_params_active, entry.n_ctx_train) == (
        repo,
        n_params,
        n_active,
        n_ctx_train,
    )


@pytest.mark.parametrize(
    ("family", "alias"),
    [("qwen3", "qwen3:8b"), ("llama3.2", "llama3.2:3b"), ("bge-m3", "bge-m3:567m")],
)
def test_a_family_alone_is_its_default(family: str, alias: str, shipped: Catalogue) -> None:
    assert shipped.find(family).alias == alias


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        pytest.param("qwem3:8b", "did you mean qwen3:8b?", id="a letter wrong"),
        pytest.param("phi4:15b", "of phi4 there are phi4:14b", id="a tag that is not"),
        pytest.param("gpt-oss:8b", "of gpt-oss there are gpt-oss:20b, gpt-oss:120b", id="two tags"),
        pytest.param("xyzzy", None, id="nothing near"),
    ],
)
def test_a_miss_is_told_the_nearest(typed: str, hint: str | None, shipped: Catalogue) -> None:
    with pytest.raises(NotFoundError) as caught:
        shipped.find(typed)
    assert caught.value.message == f"there is no model called {typed!r}"
    assert caught.value.hint == hint


def test_an_entry_keeps_all_that_is_written() -> None:
    text = ENTRY.replace("parameters: 1.1B", "parameters: 1.1B\n  active: 300M")
    entry = parse_models(text.replace("gated: false", "gated: true"), "m.yaml").find("tiny")
    assert entry.alias == "tiny:1b"
    assert (entry.n_params, entry.n_params_active) == (1_100_000_000, 300_000_000)
    assert (entry.licence, entry.tasks, entry.gated) == ("MIT", ("chat", "code"), True)
    assert (entry.n_ctx_train, entry.description) == (4096, "a tiny one")
    assert (entry.released, entry.quants) == ("2025-04", ())


def test_a_repository_that_holds_few_quantizations_says_which() -> None:
    entry = parse_models(ENTRY + "  quants: [Q8_0, q4_k_m]\n", "m.yaml").find("tiny")
    assert entry.quants == ("Q8_0", "Q4_K_M")


def test_every_shipped_model_was_released_when_its_kind_was(shipped: Catalogue) -> None:
    """Llama's first weights, which llama.cpp was written for, are of February 2023."""
    for entry in shipped.entries.values():
        assert "2023-03" <= entry.released <= "2026-11", entry.alias


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("qwen2.5:7b", "qwen3:8b"),
        ("qwen3:4b", "qwen3.5:4b"),
        ("qwen3.5:27b", "qwen3.6:27b"),
        ("qwen3.6:27b", "qwen3.8:27b"),
        ("llama3.1:70b", "llama3.3:70b"),
        ("gemma3:27b", "gemma4:31b"),
        ("mistral:7b", "ministral3:8b"),
        ("granite3.3:8b", "granite4:micro"),
    ],
)
def test_a_later_version_was_released_later(older: str, newer: str, shipped: Catalogue) -> None:
    assert shipped.find(older).released < shipped.find(newer).released


def test_what_was_trained_in_a_quantization_comes_in_it_alone(shipped: Catalogue) -> None:
    for alias in ("gpt-oss:20b", "gpt-oss:120b"):
        assert shipped.find(alias).quants == ("MXFP4",)


def test_a_number_of_weights_may_be_written_out() -> None:
    entry = parse_models(ENTRY.replace("1.1B", "1100048384"), "m.yaml").find("tiny:1b")
    assert entry.n_params == 1_100_048_384


def test_an_empty_catalogue_is_one() -> None:
    assert parse_models("# nothing yet\n", "m.yaml") == Catalogue({}, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("tiny:1b: [\n", "line 2: not YAML: ", id="not YAML"),
        pytest.param("- tiny\n", "line 1: expected keys with values", id="a list"),
        pytest.param(ENTRY + ENTRY, "line 11: tiny:1b occurs twice", id="an alias twice"),
        pytest.param(
            ENTRY.replace("tiny:1b:", "Tiny:1b:"), "line 1: 'Tiny:1b' is not an alias", id="capital"
        ),
        pytest.param(
            ENTRY.replace("tiny:1b:", "tiny:"), "line 1: 'tiny' is not an alias", id="without a tag"
        ),
        pytest.param(
            ENTRY.replace("tiny:1b:", "a/b:1b:"), "line 1: 'a/b:1b' is not an alias", id="a slash"
        ),
        pytest.param(
            "tiny:1b: org/x\n",
            "line 1: tiny:1b must hold keys with values",
            id="the repository alone",
        ),
        pytest.param("tiny:1b:\n", "line 1: tiny:1b.repo is missing", id="nothing"),
        pytest.param(
            ENTRY + "  quant: Q4_0\n", "line 11: there is no setting 'tiny:1b.quant'", id="unknown"
        ),
        pytest.param(
            ENTRY.replace("  licence: MIT\n", ""),
            "line 1: tiny:1b.licence is missing",
            id="missing",
        ),
        pytest.param(
            ENTRY.replace("org/Tiny-1B-GGUF\n  d", "Tiny-1B-GGUF\n  d"),
            "line 2: tiny:1b.repo must be a repository, org/name, not 'Tiny-1B-GGUF'",
            id="no organisation",
        ),
        pytest.param(
            ENTRY.replace("repo: org/Tiny-1B-GGUF", "repo: https://huggingface.co/org/x"),
            "line 2: tiny:1b.repo must be a repository",
            id="an address",
        ),
        pytest.param(
            ENTRY.replace("repo: org/Tiny-1B-GGUF", "repo: org/../x"),
            "line 2: tiny:1b.repo must be a repository",
            id="a way out",
        ),
        pytest.param(
            ENTRY.replace("repo: org/Tiny-1B-GGUF", "repo: org/x..y"),
            "line 2: tiny:1b.repo must be a repository",
            id="two dots",
        ),
        pytest.param(
            ENTRY.replace("parameters: 1.1B", "parameters: large"),
            "line 4: tiny:1b.parameters must be a count like 8.2B, not 'large'",
            id="no number",
        ),
        pytest.param(
            ENTRY.replace("parameters: 1.1B", "parameters: 1.1"),
            "line 4: tiny:1b.parameters must be a count like 8.2B, not 1.1",
            id="without a unit",
        ),
        pytest.param(
            ENTRY.replace("parameters: 1.1B", "parameters: 0B"),
            "line 4: tiny:1b.parameters must be above 0",
            id="none",
        ),
        pytest.param(
            ENTRY.replace("parameters: 1.1B", "parameters: -1"),
            "line 4: tiny:1b.parameters must be at least 1, not -1",
            id="negative",
        ),
        pytest.param(
            ENTRY + "  active: 2B\n",
            "line 11: tiny:1b.active must not be more than its parameters",
            id="more active than all",
        ),
        pytest.param(
            ENTRY.replace("2025-04", "2025-13"),
            "line 10: tiny:1b.released must be a month like 2025-04, not '2025-13'",
            id="a thirteenth month",
        ),
        pytest.param(
            ENTRY.replace("2025-04", "2025"),
            "line 10: tiny:1b.released must be text, not 2025",
            id="a year alone",
        ),
        pytest.param(
            ENTRY.replace("2025-04", '"2025-4"'),
            "line 10: tiny:1b.released must be a month like 2025-04, not '2025-4'",
            id="a month without its zero",
        ),
        pytest.param(
            ENTRY + "  quants: [Q4_K_M, Q7_K]\n",
            "line 11: tiny:1b.quants[1] must be a quantization like Q4_K_M, not 'Q7_K'",
            id="an unknown quantization",
        ),
        pytest.param(
            ENTRY + "  quants: [UD-Q4_K_XL]\n",
            "line 11: tiny:1b.quants[0] must be a quantization like Q4_K_M, not 'UD-Q4_K_XL'",
            id="a quantization of no known size",
        ),
        pytest.param(
            ENTRY + "  quants: [Q4_K_M, q4_k_m]\n",
            "line 11: tiny:1b.quants names one of them twice",
            id="a quantization twice",
        ),
        pytest.param(
            ENTRY + "  quants: []\n",
            "line 11: tiny:1b.quants must name one at least",
            id="no quantization",
        ),
        pytest.param(
            ENTRY.replace("[chat, code]", "[chat, cook]"),
            "line 6: tiny:1b.tasks[1] must be one of chat, code, embed, rerank, vision, reasoning,"
            " not 'cook'",
            id="an unknown task",
        ),
        pytest.param(
            ENTRY.replace("[chat, code]", "[chat, chat]"),
            "line 6: tiny:1b.tasks names one of them twice",
            id="a task twice",
        ),
        pytest.param(
            ENTRY.replace("[chat, code]", "[]"),
            "line 6: tiny:1b.tasks must name one at least",
            id="no task",
        ),
        pytest.param(
            ENTRY.replace("[chat, code]", "chat"),
            "line 6: tiny:1b.tasks must be a list",
            id="one task alone",
        ),
        pytest.param(
            ENTRY.replace("4096", "4k"),
            "line 7: tiny:1b.n_ctx_train must be a whole number, not '4k'",
            id="a context in words",
        ),
        pytest.param(
            ENTRY.replace("gated: false", "gated: 0"),
            "line 8: tiny:1b.gated must be true or false, not 0",
            id="a number for a flag",
        ),
        pytest.param(
            ENTRY.replace("https:", "http:"),
            "line 9: tiny:1b.source must be a page, https://…, not",
            id="a page in the clear",
        ),
        pytest.param(
            ENTRY + ENTRY.replace("tiny:1b", "tiny:2b"),
            "line 11: tiny:2b is one of 2 of tiny, and none is the default",
            id="no default",
        ),
        pytest.param(
            ENTRY + "  default: true\n" + ENTRY.replace("tiny:1b", "tiny:2b") + "  default: true\n",
            "line 12: tiny:2b is a second default, after tiny:1b",
            id="two defaults",
        ),
    ],
)
def test_an_error_names_the_file_the_line_and_the_key(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_models(text, "my/models.yaml")
    assert caught.value.message.startswith("my/models.yaml")
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


def test_a_person_adds_a_model_and_keeps_the_others(tmp_path: Path, shipped: Catalogue) -> None:
    (tmp_path / "models.yaml").write_text(ENTRY)
    mine = load_catalogue(shipped_profiles_dir(), tmp_path)
    assert mine.find("tiny").repo == "org/Tiny-1B-GGUF"
    assert {alias: mine.entries[alias] for alias in shipped.entries} == shipped.entries


def test_a_persons_own_entry_goes_before_a_shipped_one(tmp_path: Path, shipped: Catalogue) -> None:
    (tmp_path / "models.yaml").write_text(ENTRY.replace("tiny:1b", "qwen3:8b"))
    mine = load_catalogue(shipped_profiles_dir(), tmp_path)
    assert mine.find("qwen3:8b").repo == "org/Tiny-1B-GGUF"
    assert mine.find("qwen3").repo == "org/Tiny-1B-GGUF", "the default stays the same alias"
    assert mine.find("qwen3:4b") == shipped.find("qwen3:4b")


@pytest.mark.parametrize(
    ("default", "expected"), [("", "qwen3:8b"), ("  default: true\n", "qwen3:mine")]
)
def test_a_new_tag_is_the_default_only_when_it_says_so(
    default: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "models.yaml").write_text(ENTRY.replace("tiny:1b", "qwen3:mine") + default)
    mine = load_catalogue(shipped_profiles_dir(), tmp_path)
    assert mine.find("qwen3").alias == expected


def test_entries_compare_by_what_they_say(shipped: Catalogue) -> None:
    entry = shipped.find("qwen3:8b")
    assert replace(entry, gated=True) != entry
    assert (entry.family, entry.gated) == ("qwen3", False)
