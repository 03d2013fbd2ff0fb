"""The test hub as a process of its own, for benchmarks and for tests that kill.

Prints one JSON line that says where everything is, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.loopback_hub.contents import Content, Generated, OnDisk
from tests.loopback_hub.hub import LoopbackHub


def main() -> None:
    """Serves until standard input is closed."""
    parser = argparse.ArgumentParser(prog="python -m tests.loopback_hub", description=__doc__)
    parser.add_argument("--file", type=Path, action="append", default=[], help="a file to serve")
    parser.add_argument(
        "--generated",
        action="append",
        default=[],
        metavar="NAME=BYTES",
        help="a file to make up",
    )
    parser.add_argument("--repo", default="loopback/model", help="what repository has them")
    parser.add_argument("--cap", type=int, metavar="BYTES_PER_SECOND", help="of each connection")
    parser.add_argument("--no-ranges", action="store_true", help="whole files only")
    options = parser.parse_args()
    files: dict[str, Content] = {path.name: OnDisk(path) for path in options.file}
    for made_up in options.generated:
        name, _, size_bytes = made_up.rpartition("=")
        files[name] = Generated(int(size_bytes))
    with LoopbackHub() as hub:
        hub.cap_bytes_per_second = options.cap
        hub.ranges = not options.no_ranges
        where = {
            "endpoint": hub.endpoint,
            "cdn_endpoint": hub.cdn_endpoint,
            "files_endpoint": hub.files_endpoint,
            "modelscope_endpoint": hub.modelscope_endpoint,
            "token": hub.token,
            "repo": options.repo,
            "revision": hub.add_repo(options.repo, files),
            "urls": {name: hub.add_file(name, content) for name, content in files.items()},
        }
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
