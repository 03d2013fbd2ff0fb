"""`localllm` and `python -m localllm`."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script. The version is told before anything else is loaded."""
    if sys.argv[1:] == ["--version"]:
        from localllm import __version__

        sys.stdout.write(f"localllm {__version__}\n")
        return
    from localllm.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
