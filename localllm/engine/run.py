"""Plan -> something that answers: the door by which others use the engine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from localllm.completion import ChatModel
from localllm.engine.locate import (
    ENGINE_DIR_VARIABLE,
    SERVER,
    find_library,
    find_tools,
    require_tools,
)
from localllm.plan import Plan

if TYPE_CHECKING:
    from localllm.engine.server import LlamaServer


@contextlib.contextmanager
def open_chat_model(
    plan: Plan,
    chat_template: str | None = None,
    watch: Callable[[LlamaServer], None] | None = None,
) -> Iterator[ChatModel]:
    """The plan's model, loaded and ready; gone when the block is left.

    Precedence: 1. llama-server as a child; 2. llama_cpp.Llama in this process, where only the
    library is there.

    Args:
        plan: what to run.
        chat_template: llama.cpp's name of a template to use instead of the model's own.
        watch: called with the ready server before anybody uses it, to measure it (canary.py);
            not where there is no server.

    Raises:
        EngineMissingError: neither is there. EngineError, IntegrityError: it does not load.
    """
    tools = find_tools()
    if tools is None and os.environ.get(ENGINE_DIR_VARIABLE):
        require_tools(SERVER)  # a person who names a folder wants that one, or an error
    if (tools is None or SERVER not in tools.names) and find_library() is not None:
        from localllm.engine.inprocess import InProcessModel

        with contextlib.closing(InProcessModel(plan, chat_template)) as model:
            yield model
        return
    from localllm.engine.client import HttpChatModel
    from localllm.engine.server import LlamaServer

    extra_argv = ["--chat-template", chat_template] if chat_template else []
    if watch is not None:
        from localllm.engine.canary import EXTRA_ARGV

        extra_argv += EXTRA_ARGV
    with LlamaServer(tools or require_tools(SERVER), plan, extra_argv=extra_argv) as server:
        if watch is not None:
            watch(server)
        endpoint = server.require_endpoint()
        name = plan.model.name or plan.model.ref
        n_ctx = plan.n_ctx // plan.n_parallel
        chat_model = HttpChatModel(endpoint, name, n_ctx, server.explain_death)
        with contextlib.closing(chat_model):
            yield chat_model
