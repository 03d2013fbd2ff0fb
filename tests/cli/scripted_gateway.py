"""A server that only tells of itself, as a script says; run by test_servers.py and test_top.py.

    python -m tests.cli.scripted_gateway NAME [--deaf] [--stubborn]

It takes a name, answers GET /status on its control socket with the document in its log folder's
status.json (with its own name and pid), and ends like a gateway: the first SIGTERM drains, as long
as the document says that requests run, and the second ends at once. --deaf does not answer,
--stubborn heeds no signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from typing import Any

from localllm import running


class Gateway:
    def __init__(self, name: str, drain_seconds: float) -> None:
        self.n_signals = 0
        record = running.claim(
            name, model="Tiny Q8_0", drain_seconds=drain_seconds, argv=["serve", name]
        )
        record.log_dir.mkdir(parents=True, exist_ok=True)
        self.record = running.update(record, url="http://127.0.0.1:8080")

    def heed(self, *_: object) -> None:
        self.n_signals += 1

    def status(self) -> dict[str, Any]:
        path = self.record.log_dir / "status.json"
        document = json.loads(path.read_text()) if path.exists() else status()
        document["name"], document["pid"] = self.record.name, self.record.pid
        document["draining"] = document["draining"] or self.n_signals > 0
        return document

    @property
    def has_ended(self) -> bool:
        return self.n_signals > 1 or (self.n_signals == 1 and not self.status()["n_running"])

    def serve(self, *, deaf: bool, stubborn: bool) -> None:
        assert self.record.control_socket is not None
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(self.record.control_socket)
            door.listen()
            door.settimeout(0.02)
            print(self.record.name, flush=True)  # noqa: T201
            while stubborn or not self.has_ended:
                with contextlib.suppress(TimeoutError):
                    client, _ = door.accept()
                    if not deaf:
                        answer(client, self.status())
        running.remove(self.record)


def answer(client: socket.socket, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    with client, contextlib.suppress(OSError):
        client.settimeout(5)
        asked = client.recv(65536)
        assert asked.startswith(b"GET /status "), asked
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + body)


def status(**changes: Any) -> dict[str, Any]:
    """A small server at work, as its document."""
    percentiles = {"n": 120, "p50": 0.084, "p90": 0.41, "p99": 2.7}
    replica = {
        "name": "0", "state": "ready", "n_slots": 4, "n_busy": 1, "pid": 4711, "restarts": 0,
        "last_error": "", "ready_since": time.time() - 60, "load_seconds": 1.5,
        "rss_bytes": 700 << 20, "rss_peak_bytes": 800 << 20, "gpu_bytes": {}, "concessions": [],
    }  # fmt: skip
    document = {
        "schema_version": 1, "name": "", "url": "http://127.0.0.1:8080", "model": "Tiny Q8_0",
        "version": "0.1", "pid": 0, "started_at": time.time() - 3900, "now": time.time(),
        "draining": False, "n_waiting": 3, "queue_limit": 64, "n_running": 0,
        "rss_bytes": 60 << 20, "replicas": [replica], "gpus": [], "errors": [],
        "traffic": {
            "seconds": 300.0, "n_requests": 120, "n_refused": 2, "n_failed": 1, "n_left": 4,
            "tokens_per_second": 51.3, "prompt_tokens_per_second": 410.0,
            "queue_seconds": percentiles, "ttft_seconds": percentiles,
            "seconds_per_token": percentiles, "total_seconds": percentiles,
        },
    }  # fmt: skip
    return {**document, **changes}


def main() -> None:
    gateway = Gateway(sys.argv[1], drain_seconds=float(os.environ.get("DRAIN_SECONDS", "30")))
    stubborn = "--stubborn" in sys.argv
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else gateway.heed)
    gateway.serve(deaf="--deaf" in sys.argv, stubborn=stubborn)


if __name__ == "__main__":
    main()
