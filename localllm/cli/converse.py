"""`localllm chat`: opens what answers (a model here, or a server elsewhere) and begins to talk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from localllm import naming, paths
from localllm.cli import finding, prepare, pull, references, render
from localllm.cli.learning import Learner
from localllm.errors import LocalllmError, NotFoundError, UsageError
from localllm.planner import Wishes

if TYPE_CHECKING:
    from localllm.completion import ChatModel, Sampling
    from localllm.plan import Model

KEY_VARIABLE = "LOCALLLM_API_KEY"


def run(
    *,
    model: str | None,
    prompt: str | None,
    system: str | None,
    session: str | None,
    sampling: Sampling,
    stats: bool,
    reasoning: str | None,
    markdown: bool | None,
    chat_template: str | None,
    url: str | None,
    wishes: Wishes,
    goal: str,
) -> None:
    """One answer or a conversation; returns when it is over.

    Raises:
        LocalllmError: whatever kept it from beginning; in a conversation errors are told there.
    """
    from localllm.chat import Conversation
    from localllm.cli.chat import read_prompt, run_chat
    from localllm.session import SessionFile

    if reasoning not in (None, "show", "hide"):
        raise UsageError(f"--reasoning is show or hide, not {reasoning!r}")
    if url is not None and chat_template is not None:
        raise UsageError("--chat-template is the server's business where --url names one")
    kept = SessionFile.named(session) if session is not None else None
    if kept is not None:
        kept.load()  # a damaged file is told before a model is loaded
    question = read_prompt(prompt)
    opened = (
        _at_url(url, model)
        if url is not None
        else _on_this_machine(model, wishes, goal, chat_template, quiet=question is not None)
    )
    with opened as (answering, note, learner):
        conversation = Conversation(answering, system=system, sampling=sampling, session=kept)
        run_chat(
            conversation,
            prompt=question,
            markdown=markdown,
            reasoning=reasoning,  # type: ignore[arg-type]  # checked above
            stats=stats,
            note=note,
        )
        if learner is not None:
            learner.keep_speed(conversation.totals)


@contextlib.contextmanager
def _on_this_machine(
    ref: str | None, wishes: Wishes, goal: str, chat_template: str | None, *, quiet: bool
) -> Iterator[tuple[ChatModel, str, Learner | None]]:
    from localllm.engine.run import open_chat_model

    note = ""
    if ref is None:
        ref = _last_used()
        note = f"No model was named: this is the last one used, {ref}."
        if ref is None:
            ref, note = naming.DEMO, "No model was named, and none was used yet: this is the demo."
        if quiet:
            render.say(note)
    try:
        found = finding.find_here(ref, wishes.quant)
    except NotFoundError as error:
        found = pull.offer(ref, error, wishes, goal)
    if found.note:
        render.say(f"warning: {found.note}")
    prepared = prepare.prepare(found, wishes, goal)
    plan = prepared.plan
    _check_that_it_chats(plan.model, chat_template)
    if plan.model.source == "demo":
        note = (note + " " if note else "") + "It is tiny, and knows only localllm itself."
    learner = prepared.learner
    watch = learner.watch if learner.wants_canary() else None
    with open_chat_model(plan, chat_template, watch) as answering:
        _remember(plan.model)
        yield answering, note, learner


@contextlib.contextmanager
def _at_url(url: str, name: str | None) -> Iterator[tuple[ChatModel, str, Learner | None]]:
    from localllm.engine.client import HttpChatModel
    from localllm.engine.endpoint import Endpoint

    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is not an address", "write it like http://127.0.0.1:8080")
    endpoint = Endpoint(base, api_key=os.environ.get(KEY_VARIABLE))
    with contextlib.closing(HttpChatModel(endpoint, name or "")) as unnamed:
        offered = name or unnamed.only_model()
    with contextlib.closing(HttpChatModel(endpoint, offered)) as answering:
        yield answering, f"Answered by {base}.", None


def _check_that_it_chats(model: Model, chat_template: str | None) -> None:
    """A model that cannot chat would answer with noise; that is said before it is loaded."""
    if not model.is_generative:
        raise LocalllmError(
            f"{model.name or model.ref} ({model.architecture}) is not a chat model: it turns text"
            " into numbers and writes none",
            f"serve it: localllm serve {model.ref} --direct -- --embeddings",
        )
    if not model.has_chat_template and chat_template is None:
        raise LocalllmError(
            f"{model.name or model.ref} is not a chat model: its file brings no chat template",
            "look for an instruct version, or name a template: --chat-template chatml",
        )


def _memory_file() -> Path:
    return paths.state_dir() / "last-model.json"


def _last_used() -> str | None:
    """The model of the last chat, while it is still here."""
    try:
        ref = json.loads(_memory_file().read_text(encoding="utf-8"))["ref"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(ref, str):
        return None
    if ref == naming.DEMO or Path(ref).is_file():
        return ref
    try:
        return ref if finding.find_kept(references.resolve(ref)) else None
    except LocalllmError:
        return None


def _remember(model: Model) -> None:
    """Best effort: a chat must not fail because a note cannot be written."""
    ref = model.path if model.source == "file" else model.ref
    with contextlib.suppress(OSError, LocalllmError):
        paths.private_folder(_memory_file().parent)
        _memory_file().write_text(json.dumps({"ref": ref}), encoding="utf-8")
