"""A short test inference: whether a model that loads also answers with numbers that mean anything.

Asks a llama-server of its own. What becomes of the answer is for others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localllm.engine.client import http_client
from localllm.engine.locate import SERVER, require_tools
from localllm.engine.server import LlamaServer
from localllm.errors import EngineError
from localllm.plan import Plan

#: A context for the plan of a trial: the prompt and its tokens take a tenth of it.
N_CTX = 512

_TEXT = "One, two, three, four, five,"
_N_TOKENS = 4
#: Likeliest tokens to be told of each token that is taken.
_N_PROBS = 8
#: A large model that is read from a slow disk while it answers.
_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Trial:
    """What came of a test inference.

    Attributes:
        passed: the model answers as a trained one might.
        message: one sentence with the values in it, for a person.
    """

    passed: bool
    message: str


def try_model(plan: Plan) -> Trial:
    """Loads the model, lets it decode a few tokens or embed a text, and judges the numbers.

    Which tokens it takes is decided before, so a second trial asks for the same numbers.

    Raises:
        EngineMissingError: there is no llama-server. EngineError, IntegrityError: the model does
            not load, or the engine dies over it.
    """
    import httpx

    writes = plan.model.is_generative
    path, body = ("/completion", _COMPLETION) if writes else ("/embedding", {"content": _TEXT})
    # The mean has every token in it; by its own pooling a reranker gives a score and no vector.
    extra_argv = [] if writes else ["--embeddings", "--pooling", "mean"]
    with (
        LlamaServer(require_tools(SERVER), plan, extra_argv=extra_argv) as server,
        http_client(server.require_endpoint(), _TIMEOUT_SECONDS) as client,
    ):
        try:
            reply = client.post(path, json=body)
        except httpx.TransportError as exc:
            raise server.explain_death() or EngineError(
                f"the engine gave no answer about {plan.model.path}: {exc}"
            ) from exc
    if reply.status_code != 200:
        return Trial(False, f"llama-server refused: {reply.status_code} {reply.text[:200]}")
    try:
        return judge_tokens(reply.json()) if writes else judge_vectors(reply.json())
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise EngineError(f"llama-server's reply cannot be read: {exc!r}") from exc


_COMPLETION = {
    "prompt": _TEXT,
    "n_predict": _N_TOKENS,
    "n_probs": _N_PROBS,
    "temperature": 0,
    "ignore_eos": True,
    # Always the same letter: llama-server keeps back the probabilities of a token that ends inside
    # a UTF-8 sequence. They are told as they were before this.
    "logit_bias": [["a", 1000]],
    "cache_prompt": False,
}


def judge_tokens(reply: Mapping[str, Any]) -> Trial:
    """Whether the probabilities of a completion are those of a model.

    Weights that are NaN or infinite give no numbers at all (JSON has none for them), and weights
    of zeros make every token as likely as any other (llama.cpp 0c1e570):

        {"content": "w60", …, "completion_probabilities": [{"id": 316, …, "logprob": -5.47,
            "top_logprobs": [{"id": 208, …, "logprob": -4.71}, …]}, …]}
    """
    told = [
        [each["logprob"] for each in step["top_logprobs"]]
        for step in reply.get("completion_probabilities", ())
    ]
    if not told or not all(told):
        return Trial(False, "it decoded no token")
    if not all(_is_finite(logprob) for step in told for logprob in step):
        return Trial(False, "the probabilities of its tokens are no numbers")
    if all(math.isclose(max(step), min(step), abs_tol=1e-6) for step in told):
        return Trial(False, "every token is as likely to it as any other")
    likeliest = ", ".join(f"{math.exp(max(step)):.1%}" for step in told)
    return Trial(True, f"it decoded {len(told)} tokens, the likeliest at {likeliest}")


def judge_vectors(reply: Any) -> Trial:
    """Whether an embedding is one: `[{"index": 0, "embedding": [[0.04, -0.01, …]]}]`."""
    vectors = reply[0]["embedding"]
    if not vectors or not all(vectors):
        return Trial(False, "it gave no vector")
    if not all(_is_finite(number) for vector in vectors for number in vector):
        return Trial(False, "the numbers of its vector are none")
    if not any(number for vector in vectors for number in vector):
        return Trial(False, "its vector is all zeros")
    return Trial(True, f"it gave a vector of {len(vectors[0])} numbers")


def _is_finite(number: Any) -> bool:
    return isinstance(number, (int, float)) and math.isfinite(number)
