"""llama-server's paths: which of them take a slot, and how each one names a request's prompt.

A path that is not here is passed on as it is, without a slot: llama-server answers it, or says
that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Those that compute, and so wait for a slot (llama.cpp 0c1e570, tools/server/server.cpp).
_GENERATING = frozenset(
    (
        "/completion", "/completions", "/v1/completions",
        "/chat/completions", "/v1/chat/completions",
        "/responses", "/v1/responses", "/v1/messages", "/infill",
        "/audio/transcriptions", "/v1/audio/transcriptions",
        "/embedding", "/embeddings", "/v1/embeddings",
        "/rerank", "/reranking", "/v1/rerank", "/v1/reranking",
        "/predict",  # where AIP_MODE is set
    )
)  # fmt: skip
_OTHERS = frozenset(
    (
        "/", "/health", "/v1/health", "/props", "/models", "/v1/models",
        "/tokenize", "/detokenize", "/apply-template",
        "/chat/completions/input_tokens", "/v1/chat/completions/input_tokens",
        "/responses/input_tokens", "/v1/responses/input_tokens", "/v1/messages/count_tokens",
        "/v1/chat/completions/control", "/lora-adapters", "/slots",
        "/v1/stream", "/v1/streams/lookup",
    )
)  # fmt: skip
#: The gateway's own, and those that need no key. Triton's names are for those who come from there.
HEALTHZ, READYZ, METRICS, OPENAPI = "/healthz", "/readyz", "/metrics", "/openapi.json"
_OWN = frozenset((HEALTHZ, READYZ, METRICS, OPENAPI, "/v2/health/live", "/v2/health/ready"))
#: Of these, the ones that ask for a key.
PRIVATE = frozenset((METRICS, OPENAPI))


@dataclass(frozen=True)
class Route:
    """A path.

    Attributes:
        pattern: its name in logs and metrics, one of a bounded number.
        generates: it takes a slot.
        is_messages: errors in its streams are told in Anthropic's way.
    """

    pattern: str
    generates: bool = False
    is_messages: bool = False


def find(method: str, path: str) -> Route:
    """The route of a path without prefix and query."""
    if path in _GENERATING:
        return Route(path, generates=method == "POST", is_messages=path == "/v1/messages")
    if path in _OTHERS or path in _OWN:
        return Route(path)
    if path.startswith("/slots/"):
        return Route("/slots/:id")
    if path.startswith("/v2/models/"):
        return Route("/v2/models/:name")
    return Route("other")


#: For those who count by route.
PATTERNS = _GENERATING | _OTHERS | _OWN | {"/slots/:id", "/v2/models/:name", "other"}
