"""Asks a running server about itself, at its private control address (running.Running).

The other side of the conversation is the gateway; what it says is a Status.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from localllm.engine.client import http_client
from localllm.engine.endpoint import Endpoint
from localllm.errors import NetworkError
from localllm.gateway.status import Status
from localllm.running import Running

if TYPE_CHECKING:
    import httpx

#: The gateway answers from memory; it is busy for long only when it is stuck.
_ANSWER_SECONDS = 2.0


def fetch_status(record: Running) -> Status:
    """What it is doing now.

    Raises:
        NetworkError: it does not answer, or not with a status.
    """
    with _client(record) as client:
        response = client.get("/status")
        response.raise_for_status()
        return Status.from_json(response.json())


def request_stop(record: Running, *, now: bool) -> None:
    """Tells it to stop, where there are no signals; `now` means not to wait for requests.

    Raises:
        NetworkError: it does not answer.
    """
    with _client(record) as client:
        client.post("/stop", json={"now": now}).raise_for_status()


@contextlib.contextmanager
def _client(record: Running) -> Iterator[httpx.Client]:
    import httpx

    endpoint = Endpoint(record.control_url, record.control_socket, record.control_token or None)
    try:
        with http_client(endpoint, read_timeout_seconds=_ANSWER_SECONDS) as client:
            yield client
    except httpx.HTTPError as exc:
        raise NetworkError(f"{record.name} does not answer: {exc}", _hint(record)) from exc
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise NetworkError(f"{record.name} does not answer with a status", _hint(record)) from exc


def _hint(record: Running) -> str:
    return f"localllm logs {record.name} --error"
