"""What the gateway answers by itself, in llama-server's form."""

from __future__ import annotations

import json

import pytest

from localllm.gateway.refusal import Refused


def test_a_refusal_is_an_error_of_llama_servers_form() -> None:
    error = json.loads(Refused(503, "Loading model").body)
    kind = "unavailable_error"
    assert error == {"error": {"code": 503, "message": "Loading model", "type": kind}}


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(None, {}), (0.0, {"Retry-After": "1"}), (2.2, {"Retry-After": "3"})],
)
def test_when_to_come_again_is_whole_seconds_and_never_at_once(
    seconds: float | None, header: dict[str, str]
) -> None:
    assert Refused(429, "full", seconds).headers == header


def test_a_stream_ends_with_the_error_in_its_own_form() -> None:
    refused = Refused(500, "it ended")
    of_openai = refused.event(is_messages=False)
    assert of_openai.startswith(b"data: {")
    assert of_openai.endswith(b"}\n\n")
    assert json.loads(of_openai[6:])["error"]["message"] == "it ended"
    event, data, *_ = refused.event(is_messages=True).split(b"\n")
    assert event == b"event: error"
    assert json.loads(data[6:]) == {"code": 500, "message": "it ended", "type": "server_error"}


def test_a_refusal_can_be_raised_and_caught_like_any_error() -> None:
    with pytest.raises(Refused, match="too much") as caught:
        raise Refused(413, "too much")
    assert caught.value.status == 413
