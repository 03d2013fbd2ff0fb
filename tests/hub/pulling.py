"""A program that downloads one file as the store does, for tests that kill it.

    python -m tests.hub.pulling '{"url": …, "size_bytes": …, "sha256": …, "folder": …, "most": 4}'

Under a lock beside the part, so that several of them make one download. Prints how much it
fetched, and the digest of what it found in the end.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import filelock

from localllm.digests import Claim
from localllm.errors import LocalllmError
from localllm.hub import download as downloading
from localllm.hub.download import download
from localllm.hub.pace import Connections
from localllm.hub.part import forget, settle
from localllm.hub.remote import RemoteFile
from localllm.hub.web import Web

#: A look now and then would find these files done: connections would never be more than one.
WATCH_SECONDS = 0.005


def main() -> int:
    """Downloads; returns the exit code."""
    order = json.loads(sys.argv[1])
    part, final = (Path(order["folder"]) / name for name in ("file.part", "file"))
    downloading._WATCH_SECONDS = WATCH_SECONDS
    fetched_bytes = 0
    with filelock.FileLock(f"{part}.lock"):
        if not final.exists():
            remote = RemoteFile(Web(), order["url"], "file", size_bytes=order["size_bytes"])
            claims = (Claim("sha256", order["sha256"], "the test"),)
            connections = Connections(most=order["most"], gain=0.0, settle_seconds=0.0)
            try:
                done = download(remote, part, claims, connections=connections)
            except LocalllmError as error:
                sys.stderr.write(f"{error}\n")
                return error.exit_code
            fetched_bytes = done.fetched_bytes
            settle(part, final)
        forget(part)
    sha256 = hashlib.sha256(final.read_bytes()).hexdigest()
    sys.stdout.write(json.dumps({"fetched_bytes": fetched_bytes, "sha256": sha256}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
