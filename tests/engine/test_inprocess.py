"""The fallback where only the Python library is installed: the same answers, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.completion import Delta, Message, Sampling, Usage
from localllm.engine import run
from localllm.engine.inprocess import InProcessModel
from localllm.engine.locate import Tools
from localllm.errors import ContextFullError, EngineError
from localllm.plan import Model, Plan

HELLO = [Message("user", "hello")]


@pytest.fixture
def in_process(tiny_plan: Plan) -> Iterator[InProcessModel]:
    model = InProcessModel(tiny_plan)
    yield model
    model.close()


def test_streams_a_reply_and_ends_with_its_usage(in_process: InProcessModel) -> None:
    items = list(in_process.stream(HELLO, Sampling(max_tokens=8, seed=1)))
    usage = items[-1]
    assert isinstance(usage, Usage)
    assert all(isinstance(item, Delta) for item in items[:-1])
    assert 0 < (usage.n_tokens or 0) <= 8
    assert usage.n_prompt_tokens


def test_a_conversation_longer_than_the_context_is_told_as_such(
    in_process: InProcessModel,
) -> None:
    with pytest.raises(ContextFullError, match="exceed"):
        list(in_process.stream([Message("user", "word " * 4000)], Sampling()))


def test_a_file_that_is_no_model_is_an_engine_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"no")
    with pytest.raises(EngineError, match=r"bad\.gguf"):
        InProcessModel(Plan(Model("bad", str(path)), n_ctx=512))


def test_it_is_what_opens_where_llama_server_is_missing(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_tools", lambda: None)
    with run.open_chat_model(tiny_plan) as model:
        assert isinstance(model, InProcessModel)


def test_the_child_is_preferred(tools: Tools, tiny_plan: Plan) -> None:
    with run.open_chat_model(tiny_plan) as model:
        assert not isinstance(model, InProcessModel)
        assert model.n_ctx == tiny_plan.n_ctx
