"""The files of a repository, put together to what can be chosen."""

from __future__ import annotations

import random
import time

import pytest

from localllm.errors import NotFoundError, UsageError
from localllm.naming import parse_ref
from localllm.variants import RepoFile, Variant, group_files, match_quant

GB = 10**9


def _repo(*paths: str, size: int = GB) -> tuple[Variant, ...]:
    return group_files(RepoFile(path, size) for path in paths)


def _labels(*paths: str) -> list[str]:
    return [variant.label for variant in _repo(*paths)]


# As listed by the hub, shortened.
BARTOWSKI = (
    ".gitattributes",
    "README.md",
    "Qwen3-8B-IQ4_XS.gguf",
    "Qwen3-8B-Q3_K_XL.gguf",
    "Qwen3-8B-Q4_0.gguf",
    "Qwen3-8B-Q4_K_L.gguf",
    "Qwen3-8B-Q4_K_M.gguf",
    "Qwen3-8B-Q8_0.gguf",
    "Qwen3-8B-bf16/Qwen3-8B-bf16-00001-of-00002.gguf",
    "Qwen3-8B-bf16/Qwen3-8B-bf16-00002-of-00002.gguf",
    "Qwen3-8B.imatrix",
    "Qwen3-8B-imatrix.gguf",
)
UNSLOTH = (
    "BF16/GLM-5-BF16-00001-of-00003.gguf",
    "BF16/GLM-5-BF16-00002-of-00003.gguf",
    "BF16/GLM-5-BF16-00003-of-00003.gguf",
    "GLM-5-UD-TQ1_0.gguf",
    "Q4_K_M/GLM-5-Q4_K_M-00001-of-00002.gguf",
    "Q4_K_M/GLM-5-Q4_K_M-00002-of-00002.gguf",
    "UD-Q4_K_M/GLM-5-UD-Q4_K_M-00001-of-00002.gguf",
    "UD-Q4_K_M/GLM-5-UD-Q4_K_M-00002-of-00002.gguf",
    "UD-Q4_K_XL/GLM-5-UD-Q4_K_XL-00001-of-00002.gguf",
    "UD-Q4_K_XL/GLM-5-UD-Q4_K_XL-00002-of-00002.gguf",
    "config.json",
    "imatrix_unsloth.gguf_file",
    "mmproj-BF16.gguf",
    "mmproj-F16.gguf",
    "mtp-GLM-5-Q8_0.gguf",
)


# Grouping.


def test_each_quantization_is_one_variant_best_first() -> None:
    assert _labels(*BARTOWSKI) == [
        "BF16",
        "Q8_0",
        "Q4_K_L",
        "Q4_K_M",
        "IQ4_XS",
        "Q4_0",
        "Q3_K_XL",
    ]


def test_shards_are_put_together_in_order() -> None:
    files = [
        RepoFile("m-Q4_0-00003-of-00003.gguf", 30, "c" * 64),
        RepoFile("m-Q4_0-00001-of-00003.gguf", 10, "a" * 64),
        RepoFile("m-Q4_0-00002-of-00003.gguf", 20, "b" * 64),
    ]
    (variant,) = group_files(files)
    assert variant.files == (files[1], files[2], files[0])
    assert variant.size_bytes == 60
    assert variant.n_shards == 3
    assert variant.is_complete
    assert variant.unusable is None
    assert variant.name.shard == 1


def test_folders_of_quantizations() -> None:
    variants = _repo(*UNSLOTH)
    assert [(v.label, v.folder, len(v.files)) for v in variants] == [
        ("BF16", "BF16", 3),
        ("UD-Q4_K_XL", "UD-Q4_K_XL", 2),
        ("UD-Q4_K_M", "UD-Q4_K_M", 2),
        ("Q4_K_M", "Q4_K_M", 2),
        ("UD-TQ1_0", "", 1),
    ]


def test_projectors_and_drafts_are_apart() -> None:
    for variant in _repo(*UNSLOTH):
        assert [f.path for f in variant.mmproj] == ["mmproj-BF16.gguf", "mmproj-F16.gguf"]
        assert [f.path for f in variant.drafts] == ["mtp-GLM-5-Q8_0.gguf"]
        assert variant.size_bytes == GB * len(variant.files)


def test_missing_shards_are_named() -> None:
    (variant,) = _repo("m-Q8_0-00002-of-00004.gguf", "m-Q8_0-00003-of-00004.gguf")
    assert variant.missing == (1, 4)
    assert not variant.is_complete
    assert variant.unusable == "shards 1, 4 of 4 are missing"
    assert variant.n_shards == 4
    assert variant.size_bytes == 2 * GB


def test_many_missing_shards_are_told_briefly() -> None:
    (variant,) = _repo("m-Q8_0-00002-of-00010.gguf")
    assert variant.unusable == "shards 1, 3, 4, 5, 6 and 4 more of 10 are missing"


def test_shards_of_sets_of_another_length_are_another_variant() -> None:
    variants = _repo("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00001-of-00003.gguf")
    assert [v.n_shards for v in variants] == [2, 3]
    assert [v.missing for v in variants] == [(2,), (2, 3)]


def test_shards_in_different_folders_are_different_sets() -> None:
    variants = _repo("a/m-Q8_0-00001-of-00002.gguf", "b/m-Q8_0-00002-of-00002.gguf")
    assert [v.missing for v in variants] == [(2,), (1,)]
    assert [v.label for v in variants] == ["a/m-Q8_0", "b/m-Q8_0"]


def test_a_shard_listed_in_two_cases_is_taken_once() -> None:
    (variant,) = _repo("m-Q8_0-00001-of-00001.GGUF", "m-Q8_0-00001-of-00001.gguf")
    assert len(variant.files) == 1


def test_a_file_listed_twice_is_taken_once() -> None:
    (variant,) = _repo("m-Q8_0.gguf", "m-Q8_0.gguf")
    assert len(variant.files) == 1


@pytest.mark.parametrize("listing", [BARTOWSKI, UNSLOTH], ids=["bartowski", "unsloth"])
def test_the_order_of_the_listing_does_not_matter(listing: tuple[str, ...]) -> None:
    rng = random.Random(3)
    for _ in range(20):
        assert _repo(*rng.sample(listing, len(listing))) == _repo(*listing)


def test_unknown_quantizations_come_last() -> None:
    assert _labels("m.gguf", "a-IQ4_KSS.gguf", "m-Q1_0.gguf", "m-F32.gguf") == [
        "F32",
        "Q1_0",
        "IQ4_KSS",
        "m",
    ]


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        pytest.param(("m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"), ["UD-Q4_K_M", "Q4_K_M"], id="dynamic"),
        pytest.param(("m-Q4_K_M.gguf", "m-Q4_K_M-imat.gguf"), ["m-Q4_K_M", "m-Q4_K_M-imat"],
                     id="an infix"),
        pytest.param(("Kimi-Q4_0.gguf", "Kimi-Base-Q4_0.gguf"), ["Kimi-Base-Q4_0", "Kimi-Q4_0"],
                     id="another model"),
        pytest.param(("m-Q4_0.gguf", "old/m-Q4_0.gguf"), ["m-Q4_0.gguf", "old/m-Q4_0"],
                     id="another folder"),
        pytest.param(("a/m-Q4_0.gguf", "b/m-Q4_0.gguf"), ["a/m-Q4_0", "b/m-Q4_0"],
                     id="two folders"),
        pytest.param(("Q4_0/Q4_0.gguf", "m-Q4_0.gguf"), ["m-Q4_0", "Q4_0/Q4_0"],
                     id="a stem that is another's quantization"),
        pytest.param(("m-Q4_0.gguf", "m-Q4_0-00001-of-00001.gguf"),
                     ["m-Q4_0.gguf", "m-Q4_0-00001-of-00001.gguf"], id="whole and in shards"),
        pytest.param(("m-q4_0.gguf", "M-Q4_0.gguf"), ["M-Q4_0.gguf", "m-q4_0.gguf"],
                     id="in two cases"),
        pytest.param(("a.gguf", "b.gguf"), ["a", "b"], id="no quantization"),
        pytest.param(("m-Q4_K.gguf", "m-Q4_K_M.gguf"), ["Q4_K", "Q4_K_M"], id="an alias"),
    ],
)  # fmt: skip
def test_variants_of_one_quantization_have_labels_of_their_own(
    paths: tuple[str, ...], labels: list[str]
) -> None:
    assert sorted(_labels(*paths)) == sorted(labels)


def test_what_is_no_model_is_no_variant() -> None:
    paths = ["README.md", "imatrix.dat", "mmproj-F16.gguf", "x-lora-f16.gguf", "../m-Q4_0.gguf",
             "a:m-Q4_0.gguf", "m-Q4_0.gguf.part1of2", "m-Q4_0-00002-of-00001.gguf"]  # fmt: skip
    assert _repo(*paths) == ()
    assert group_files([]) == ()


def test_what_cannot_be_loaded_is_listed_and_says_so() -> None:
    withdrawn, whole = sorted(_repo("m-Q4_0_8_8.gguf", "m-Q8_0.gguf"), key=lambda v: v.label)
    assert withdrawn.unusable == "Q4_0_8_8 was withdrawn from llama.cpp"
    assert whole.unusable is None


def test_llamafiles_count_where_there_is_no_gguf() -> None:
    assert _labels("m.Q4_0.llamafile", "m.Q8_0.llamafile") == ["Q8_0", "Q4_0"]
    assert _labels("m.Q4_0.llamafile", "m.Q8_0.gguf") == ["Q8_0"]


def test_a_repository_of_drafts_offers_them() -> None:
    (variant,) = _repo("Mistral-DRAFT-0.5B-Q8_0.gguf", "README.md")
    assert variant.quant == "Q8_0"
    assert variant.drafts == ()


def test_a_long_listing_is_grouped_at_once() -> None:
    paths = [f"{no}/m{no % 7}-Q{no % 5 + 2}_K-00001-of-01000.gguf" for no in range(1000)]
    started = time.perf_counter()
    assert len(_repo(*paths, *(f"{no}/mmproj-m{no % 7}.gguf" for no in range(200)))) == 1000
    assert time.perf_counter() - started < 5


# Which projector belongs to which model.


@pytest.mark.parametrize(
    ("paths", "model", "projectors"),
    [
        pytest.param(("m-Q4_0.gguf", "mmproj-F16.gguf"), "Q4_0", ["mmproj-F16.gguf"], id="any"),
        pytest.param(("Q4_0/m.gguf", "Q4_0/mmproj-F16.gguf", "mmproj-F32.gguf"), "Q4_0",
                     ["Q4_0/mmproj-F16.gguf", "mmproj-F32.gguf"], id="the nearest folder first"),
        pytest.param(("Q4_0/m.gguf", "Q8_0/m.gguf", "Q8_0/mmproj-F16.gguf", "mmproj-F16.gguf"),
                     "Q4_0", ["mmproj-F16.gguf"], id="not from a folder beside"),
        pytest.param(("m-Q4_0.gguf", "mmproj/m-f16.gguf"), "Q4_0", ["mmproj/m-f16.gguf"],
                     id="from a folder beside where there is no other"),
        pytest.param(("ab/m-Q4_0.gguf", "a/mmproj-F16.gguf", "mmproj-F32.gguf"), "Q4_0",
                     ["mmproj-F32.gguf"], id="a folder is not the beginning of its name"),
        pytest.param(("Vl-2B-Q4_0.gguf", "Vl-7B-Q8_0.gguf", "mmproj-Vl-2B-f16.gguf",
                      "mmproj-Vl-7B-f16.gguf"), "Q4_0", ["mmproj-Vl-2B-f16.gguf"],
                     id="by the model's name"),
        pytest.param(("Vl-2B-Q4_0.gguf", "Vl-7B-Q8_0.gguf", "mmproj-Vl-7B-f16.gguf"), "Q4_0", [],
                     id="never another model's"),
        pytest.param(("Vl-2B-Q4_0.gguf", "mmproj-Vl-2B-f16.gguf", "mmproj-f32.gguf"), "Q4_0",
                     ["mmproj-Vl-2B-f16.gguf"], id="a name before none"),
        pytest.param(("Vl-2B-chat-Q4_0.gguf", "mmproj-Vl-2B-f16.gguf"), "Q4_0",
                     ["mmproj-Vl-2B-f16.gguf"], id="a name that is nobody's"),
        pytest.param(("VL-2B-Q4_0.gguf", "vl-2b.mmproj-Q8_0.gguf", "mmproj-x-F16.gguf"), "Q4_0",
                     ["vl-2b.mmproj-Q8_0.gguf"], id="in another case, as a suffix"),
        pytest.param(("m-Q4_0.gguf",), "Q4_0", [], id="none"),
    ],
)  # fmt: skip
def test_a_model_finds_its_projectors(
    paths: tuple[str, ...], model: str, projectors: list[str]
) -> None:
    (variant,) = (v for v in _repo(*paths) if v.quant == model)
    assert [file.path for file in variant.mmproj] == projectors


# What `org/repo:QUANT` picks.


@pytest.mark.parametrize(
    ("wanted", "paths", "picked"),
    [
        pytest.param("Q4_K_M", BARTOWSKI, "Qwen3-8B-Q4_K_M.gguf", id="the very one"),
        pytest.param("q4_k_m", BARTOWSKI, "Qwen3-8B-Q4_K_M.gguf", id="in lower case"),
        pytest.param("Q4_0", BARTOWSKI, "Qwen3-8B-Q4_0.gguf", id="not IQ4_0 or Q4_0_4_4"),
        pytest.param("bf16", BARTOWSKI, "Qwen3-8B-bf16/Qwen3-8B-bf16-00001-of-00002.gguf",
                     id="shards"),
        pytest.param("Q4_K_M", UNSLOTH, "Q4_K_M/GLM-5-Q4_K_M-00001-of-00002.gguf",
                     id="plain before dynamic"),
        pytest.param("UD-Q4_K_M", UNSLOTH, "UD-Q4_K_M/GLM-5-UD-Q4_K_M-00001-of-00002.gguf",
                     id="dynamic by its name"),
        pytest.param("Q4_K_XL", UNSLOTH, "UD-Q4_K_XL/GLM-5-UD-Q4_K_XL-00001-of-00002.gguf",
                     id="dynamic where there is no plain"),
        pytest.param("ud-tq1_0", UNSLOTH, "GLM-5-UD-TQ1_0.gguf", id="dynamic in lower case"),
        pytest.param("F16", ("m-F16.gguf", "m-BF16.gguf"), "m-F16.gguf", id="F16 is not BF16"),
        pytest.param("fp16", ("m-F16.gguf", "m-BF16.gguf"), "m-F16.gguf", id="fp16 is F16"),
        pytest.param("FP16", ("m-fp16.gguf",), "m-fp16.gguf", id="fp16 and fp16"),
        pytest.param("Q4_K", ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf"), "m-Q4_K_M.gguf", id="an alias"),
        pytest.param("Q4_K_M", ("m-Q4_K.gguf", "m-Q8_0.gguf"), "m-Q4_K.gguf", id="an alias back"),
        pytest.param("Q4_K", ("m-Q4_K.gguf", "m-Q4_K_M.gguf"), "m-Q4_K.gguf",
                     id="the very one before its alias"),
        pytest.param("MXFP4", ("m-MXFP4_MOE.gguf", "m-F16.gguf"), "m-MXFP4_MOE.gguf", id="MXFP4"),
        pytest.param("mxfp4_moe", ("m-mxfp4.gguf", "m-F16.gguf"), "m-mxfp4.gguf", id="MXFP4_MOE"),
        pytest.param("Q4", ("m-Q4_K_M.gguf", "m-IQ4_XS.gguf", "m-Q8_0.gguf"), "m-Q4_K_M.gguf",
                     id="the only one of a width"),
        pytest.param("q4", ("m-q4.gguf", "m-Q4_0.gguf"), "m-q4.gguf", id="a bare width itself"),
        pytest.param("IQ4", ("m-Q4_K_M.gguf", "m-IQ4_XS.gguf"), "m-IQ4_XS.gguf", id="IQ"),
        pytest.param("UD", ("m-Q4_K_M.gguf", "m-UD-IQ2_M.gguf"), "m-UD-IQ2_M.gguf", id="UD"),
        pytest.param("UD-Q4", ("m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf"), "m-UD-Q4_K_XL.gguf",
                     id="a dynamic width"),
        pytest.param("m-Q4_K_M-imat", ("m-Q4_K_M.gguf", "m-Q4_K_M-imat.gguf"),
                     "m-Q4_K_M-imat.gguf", id="by the name of the file"),
        pytest.param("M-q4_k_m", ("m-Q4_K_M.gguf", "m-Q4_K_M-imat.gguf"), "m-Q4_K_M.gguf",
                     id="by the name in another case"),
        pytest.param("b/m-Q4_0", ("a/m-Q4_0.gguf", "b/m-Q4_0.gguf"), "b/m-Q4_0.gguf",
                     id="by folder and name"),
        pytest.param("m-Q4_0.gguf", ("m-Q4_0.gguf", "old/m-Q4_0.gguf"), "m-Q4_0.gguf",
                     id="by the label of the one at the root"),
        pytest.param("model", ("model.gguf", "model-Q8_0.gguf"), "model.gguf",
                     id="one without a quantization"),
        pytest.param("Q8_0", ("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf",
                              "m-Q8_0.gguf"), "m-Q8_0.gguf", id="whole before shards"),
        pytest.param("Q8_0", ("a-Q8_0-00001-of-00002.gguf", "b-Q8_0.gguf"), "b-Q8_0.gguf",
                     id="complete before incomplete"),
        pytest.param("Q8_0", ("a-Q8_0-00001-of-00002.gguf", "b-Q4_0.gguf"),
                     "a-Q8_0-00001-of-00002.gguf", id="incomplete where there is no other"),
        pytest.param("Q4_0_4_4", ("m-Q4_0_4_4.gguf", "m-Q4_0.gguf"), "m-Q4_0_4_4.gguf",
                     id="withdrawn, asked for"),
        pytest.param("IQ4_KSS", ("m-IQ4_KSS.gguf", "m-IQ4_XS.gguf"), "m-IQ4_KSS.gguf",
                     id="a fork's, asked for"),
    ],
)  # fmt: skip
def test_picks(wanted: str, paths: tuple[str, ...], picked: str) -> None:
    assert match_quant(wanted, _repo(*paths)).files[0].path == picked


@pytest.mark.parametrize(
    ("wanted", "paths", "message", "hint"),
    [
        pytest.param("Q4_K_M", ("m-Q4_K_M.gguf", "m-Q4_K_M-imat.gguf"),
                     "'Q4_K_M' may be any of 2 models here",
                     "name one: m-Q4_K_M (954 MiB), m-Q4_K_M-imat (954 MiB)", id="an infix"),
        pytest.param("q4", ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf"),
                     "'q4' may be any of 2 models here",
                     "name one: Q4_K_M (954 MiB), Q4_K_S (954 MiB)", id="a width"),
        pytest.param("Q4_0", ("a/m-Q4_0.gguf", "b/m-Q4_0.gguf"),
                     "'Q4_0' may be any of 2 models here",
                     "name one: a/m-Q4_0 (954 MiB), b/m-Q4_0 (954 MiB)", id="two folders"),
        pytest.param("Q4_K", ("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "b-Q8_0.gguf"),
                     "'Q4_K' may be any of 2 models here",
                     "name one: a-Q4_K_M (954 MiB), b-Q4_K_M (954 MiB)", id="an alias"),
        pytest.param("Q4_K_XL", ("a-UD-Q4_K_XL.gguf", "b-UD-Q4_K_XL.gguf"),
                     "'Q4_K_XL' may be any of 2 models here",
                     "name one: a-UD-Q4_K_XL (954 MiB), b-UD-Q4_K_XL (954 MiB)", id="dynamic"),
    ],
)  # fmt: skip
def test_refuses_to_guess(wanted: str, paths: tuple[str, ...], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        match_quant(wanted, _repo(*paths))
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("wanted", "paths", "nearest"),
    [
        pytest.param("Q5_K_M", BARTOWSKI, ["Q4_K_L", "Q8_0", "Q4_K_M", "IQ4_XS"], id="by quality"),
        pytest.param("UD-Q4_K_M", BARTOWSKI, ["Q4_K_M", "Q4_K_L", "IQ4_XS", "Q4_0"],
                     id="dynamic is not plain"),
        pytest.param("F16", ("m-BF16.gguf", "m-Q2_K.gguf"), ["BF16", "Q2_K"], id="F16 not BF16"),
        pytest.param("Q4_0", ("m-Q4_0_4_4.gguf", "m-IQ4_NL.gguf"), ["IQ4_NL", "Q4_0_4_4"],
                     id="Q4_0 not Q4_0_4_4"),
        pytest.param("Q4_K_S", ("m-Q4_K_M.gguf", "m-IQ2_M.gguf"), ["Q4_K_M", "IQ2_M"],
                     id="a sister"),
        pytest.param("Q4KM", BARTOWSKI, ["Q4_K_M", "Q4_K_L"], id="by spelling"),
        pytest.param("nonsense", ("m-Q4_0.gguf", "m-Q8_0.gguf"), ["Q8_0", "Q4_0"], id="by nothing"),
        pytest.param("Q4_0", ("model.gguf",), ["model"], id="no quantization here"),
        pytest.param("", ("m-Q4_0.gguf",), ["Q4_0"], id="nothing"),
    ],
)  # fmt: skip
def test_names_the_nearest(wanted: str, paths: tuple[str, ...], nearest: list[str]) -> None:
    with pytest.raises(NotFoundError) as caught:
        match_quant(wanted, _repo(*paths))
    assert caught.value.message == f"there is no {wanted!r} here"
    assert caught.value.hint is not None
    named = caught.value.hint.removeprefix("the nearest: ").split("), ")
    assert [name.partition(" (")[0] for name in named][: len(nearest)] == nearest


def test_nothing_to_choose_from() -> None:
    with pytest.raises(NotFoundError) as caught:
        match_quant("Q4_K_M", ())
    assert caught.value.message == "the repository has no GGUF model"


@pytest.mark.parametrize("listing", [BARTOWSKI, UNSLOTH], ids=["bartowski", "unsloth"])
def test_every_label_picks_its_variant_and_can_be_typed(listing: tuple[str, ...]) -> None:
    variants = _repo(*listing)
    for variant in variants:
        assert match_quant(variant.label, variants) is variant
        assert match_quant(variant.label.swapcase(), variants) is variant
        assert parse_ref(f"org/repo:{variant.label}").quant == variant.label
