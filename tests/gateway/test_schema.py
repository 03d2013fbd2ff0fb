"""The gateway's own paths against their description, and the guide against the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from localllm.gateway import openapi, routes
from localllm.gateway.settings import KeyLimits, Settings
from tests.gateway.serving import Served, served

KEY = "schema-0123456789abcdef"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "serving.md"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"schema {KEY}\n")
    with served("demo", "--api-key-file", str(keys)) as one:
        yield one


Operation: TypeAlias = "schemathesis.APIOperation[Any, Any, Any, Any]"
bounded = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def operations(document: dict[str, Any]) -> list[Any]:
    found = schemathesis.openapi.from_dict(document).get_all_operations()
    return [pytest.param(of.ok(), id=of.ok().label) for of in found]


def with_inputs() -> dict[str, Any]:
    """The paths as if they took a number in the query and in a header, and a body.

    They take nothing, and so there would be no wrong data for them.
    """
    document = openapi.document()
    number = {"required": True, "schema": {"type": "integer", "minimum": 1}}
    body = {"application/json": {"schema": {"type": "object", "required": ["a"]}}}
    for path, item in document["paths"].items():
        item["parameters"] = [
            *item.get("parameters", ()),
            {"name": "n", "in": "query", **number},
            {"name": "X-N", "in": "header", **number},
        ]
        if path != routes.OPENAPI:
            item["post"] = {**item["get"], "requestBody": {"required": True, "content": body}}
    return document


@pytest.mark.parametrize("key", [KEY, "none-of-them"], ids=["key", "wrong key"])
@pytest.mark.parametrize("operation", operations(openapi.document()))
@bounded
@given(data=st.data())
def test_every_path_answers_as_it_is_described(
    gateway: Served, operation: Operation, key: str, data: st.DataObject
) -> None:
    case = data.draw(operation.as_strategy())
    case.call_and_validate(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", operations(with_inputs()))
@bounded
@given(data=st.data())
def test_data_that_nobody_asked_for_are_no_error_of_ours(
    gateway: Served, operation: Operation, mode: GenerationMode, data: st.DataObject
) -> None:
    case = data.draw(operation.as_strategy(generation_mode=mode))
    case.call_and_validate(
        base_url=gateway.url,
        headers={"Authorization": f"Bearer {KEY}"},
        checks=[schemathesis.checks.not_a_server_error],
    )


def test_the_description_is_served(gateway: Served) -> None:
    with gateway.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        assert client.get("/openapi.json").json() == openapi.document()


def test_only_what_says_so_needs_a_key(gateway: Served) -> None:
    with gateway.client() as client:
        for path, item in openapi.document()["paths"].items():
            status = client.get(path.replace("{name}", "localllm demo")).status_code
            assert status == (401 if "security" in item["get"] else 200), path


def test_every_path_of_the_gateways_own_is_described() -> None:
    paths = {path.replace("{name}/ready", ":name") for path in openapi.document()["paths"]}
    own = {routes.HEALTHZ, routes.READYZ, routes.METRICS, routes.OPENAPI}
    assert own | {of for of in routes.PATTERNS if of.startswith("/v2/")} == paths


def test_another_method_is_no_error_of_ours(gateway: Served) -> None:
    with gateway.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        for path in openapi.document()["paths"]:
            for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                answer = client.request(method, path.replace("{name}", "x"), content=b"{")
                assert answer.status_code < 500, (method, path, answer)


def test_a_model_of_any_name_is_no_error_of_ours(gateway: Served) -> None:
    names = ("%00", "%ff", "%2e%2e", "..", "a%2fb", "a/b", "%F0%9F%A6%99", "x" * 5000, "%", "")
    with gateway.client() as client:
        for name in names:
            path = f"/v2/models/{name}/ready".encode()
            answer = client.get(httpx.URL(gateway.url, raw_path=path))
            assert answer.status_code in (401, 404), name


@pytest.mark.parametrize("kind", [Settings, KeyLimits])
def test_the_guide_names_every_setting(kind: type) -> None:
    named = set(re.findall(r"`(\w+)[`:]", GUIDE.read_text(encoding="utf-8")))
    assert {of.name for of in fields(kind)} - named == set()


def test_the_guides_table_tells_the_defaults() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([^|]*) \| [^|]+ \|$", text, re.M)
    told = dict(rows)
    assert set(told) == {of.name for of in fields(Settings)}
    for of in fields(Settings):
        default = getattr(Settings(), of.name)
        if isinstance(default, float) and default:
            assert told[of.name].startswith(f"{default:g} s"), of.name
        elif type(default) is int:
            size = f"{default >> 20} MiB" if of.name.endswith("_bytes") else str(default)
            assert told[of.name].startswith(size), of.name
