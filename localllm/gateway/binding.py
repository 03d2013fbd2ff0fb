"""Why an address cannot be listened on, in a sentence."""

from __future__ import annotations

from localllm.errors import AccessError, LocalllmError


def explain_bind_failure(host: str, port: int, exc: OSError) -> LocalllmError:
    """The error for a bind that failed: AccessError where the port is not for this user."""
    if isinstance(exc, PermissionError):
        return AccessError(
            f"port {port} may not be used by this user", "ports above 1023 may: --port 8080"
        )
    return LocalllmError(
        f"cannot listen on {host}:{port}: {exc.strerror}",
        "is another server running there? --port takes another one",
    )
