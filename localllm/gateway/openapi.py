"""The gateway's own paths, described for programs: an OpenAPI document.

llama-server's paths, which are passed on, are described where llama.cpp is.
"""

from __future__ import annotations

from typing import Any

import localllm
from localllm.gateway import routes


def document() -> dict[str, Any]:
    """An OpenAPI 3.1 description, as JSON; its paths are without the settings' api_prefix."""
    live = _json(_object(status={"const": "ok"}, live={"const": True}))
    ready = _json(_object(status={"enum": ["ok", "not ready"]}, ready={"type": "boolean"}))
    of_model = _json(_object(name={"type": "string"}, ready={"type": "boolean"}))
    page = {"text/plain": {"schema": {"type": "string"}}}
    itself = _json({"type": "object", "required": ["openapi", "paths"]})
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    error = _object(
        code={"type": "integer"}, message={"type": "string"}, type={"type": "string"}
    )  # as llama-server's own are
    return {
        "openapi": "3.1.0",
        "info": {"title": "localllm serve", "version": localllm.__version__},
        "paths": {
            routes.HEALTHZ: _get("The gateway lives.", live),
            routes.READYZ: _get("A replica can answer.", ready, unready=ready),
            "/v2/health/live": _get("As /healthz, for those who come from Triton.", live),
            "/v2/health/ready": _get("As /readyz, for them.", ready, unready=ready),
            "/v2/models/{name}/ready": {
                "parameters": [name],
                **_get("As /readyz, of the model.", of_model, "404", unready=of_model),
            },
            routes.METRICS: _get("Figures for Prometheus.", page, "401", "503", needs_key=True),
            routes.OPENAPI: _get("This document.", itself, "401", "503", needs_key=True),
        },
        "components": {
            "responses": {
                "Refused": {"description": "Why not.", "content": _json(_object(error=error))}
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _get(
    summary: str,
    content: object,
    *refusals: str,
    unready: object = None,
    needs_key: bool = False,
) -> dict[str, Any]:
    """A path; besides the given refusals, a Host or an Origin may be refused (door.py)."""
    responses: dict[str, object] = {"200": {"description": "Yes.", "content": content}}
    for status in ("400", "403", *refusals):
        responses[status] = {"$ref": "#/components/responses/Refused"}
    if unready is not None:
        responses["503"] = {"description": "Not now.", "content": unready}
    security: dict[str, object] = {"security": [{"key": []}]} if needs_key else {}
    return {"get": {"summary": summary, **security, "responses": responses}}


def _object(**properties: object) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _json(schema: object) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
