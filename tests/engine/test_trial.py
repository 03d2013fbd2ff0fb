"""A short test inference: what a sound model and a spoiled one come to, with the real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localllm.engine.trial import judge_tokens, judge_vectors, try_model
from localllm.errors import EngineError, LocalllmError
from localllm.hub.localfile import open_model
from localllm.plan import Plan
from tests.ggufs import Llama, write_gguf
from tests.spoiled import INFINITE, NAN, ZERO, spoil

MODEL = Llama()


def everywhere(name: str) -> bool:
    return True


def in_the_output(name: str) -> bool:
    return name == "output.weight"


def in_one_layer(name: str) -> bool:
    return name == "blk.1.ffn_up.weight"


def write(folder: Path, **keys: Any) -> Path:
    return write_gguf(folder / "model.gguf", {**MODEL.metadata(), **keys}, MODEL.tensors())


def plan_of(path: Path) -> Plan:
    return Plan(open_model(path, "model", "file").model, n_ctx=512)


def test_a_model_that_writes_passes(tmp_path: Path) -> None:
    trial = try_model(plan_of(write(tmp_path)))
    assert trial.passed
    assert "it decoded 4 tokens" in trial.message


def test_a_second_trial_comes_to_the_same(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path))
    assert try_model(plan) == try_model(plan)


@pytest.mark.parametrize(
    ("weights", "where", "told"),
    [
        pytest.param(ZERO, everywhere, "as likely", id="zeros"),
        pytest.param(ZERO, in_the_output, "as likely", id="an output of zeros"),
        pytest.param(NAN, everywhere, "no numbers", id="NaN"),
        pytest.param(NAN, in_one_layer, "no numbers", id="NaN in one tensor"),
        pytest.param(INFINITE, in_the_output, "no numbers", id="an infinite output"),
    ],
)
def test_a_spoiled_model_fails(
    tmp_path: Path, weights: bytes, where: Callable[[str], bool], told: str
) -> None:
    trial = try_model(plan_of(spoil(write(tmp_path), weights, where)))
    assert not trial.passed
    assert told in trial.message


@pytest.mark.parametrize("pooling", [1, 2, 3], ids=["mean", "cls", "last"])
def test_an_embedding_model_passes(tmp_path: Path, pooling: int) -> None:
    plan = plan_of(write(tmp_path, **{"llama.pooling_type": pooling}))
    assert not plan.model.is_generative
    trial = try_model(plan)
    assert trial.passed
    assert "64 numbers" in trial.message


@pytest.mark.parametrize(("weights", "told"), [(ZERO, "zeros"), (NAN, "none")], ids=["0", "NaN"])
def test_a_spoiled_embedding_model_fails(tmp_path: Path, weights: bytes, told: str) -> None:
    path = spoil(write(tmp_path, **{"llama.pooling_type": 1}), weights, everywhere)
    trial = try_model(plan_of(path))
    assert not trial.passed
    assert told in trial.message


def test_a_model_that_does_not_load_is_the_engines_error(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "cut.gguf", MODEL.metadata(), MODEL.tensors()[:-1])
    path.write_bytes(path.read_bytes().replace(b"blk.1.attn_q", b"blk.1.attn_x"))
    with pytest.raises(LocalllmError, match="attn_q"):
        try_model(plan_of(path))


def test_no_engine_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALLLM_ENGINE_DIR", str(tmp_path))
    with pytest.raises(EngineError, match="llama-server"):
        try_model(plan_of(write(tmp_path)))


def test_probabilities_of_no_token_are_no_answer() -> None:
    assert not judge_tokens({}).passed
    assert not judge_tokens({"completion_probabilities": [{"top_logprobs": []}]}).passed


def test_one_certain_token_is_no_reason_to_fail() -> None:
    certain = {"top_logprobs": [{"logprob": 0.0}, {"logprob": -90.0}]}
    assert judge_tokens({"completion_probabilities": [certain]}).passed


def test_no_vector_is_no_answer() -> None:
    assert not judge_vectors([{"embedding": []}]).passed
    assert not judge_vectors([{"embedding": [[]]}]).passed
