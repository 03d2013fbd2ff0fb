"""How this Python runs a module of ours in another process."""

from __future__ import annotations

import sys
from pathlib import Path

_HOME = str(Path(__file__).parents[2])


def module_argv(module: str) -> tuple[str, ...]:
    """The command that runs a module of localllm, before its own arguments.

    Not `-m`: that takes whatever is called localllm in the folder where it is started, which may be
    anybody's. (-P is Python 3.11's, and -I would ignore PYTHONPATH.)
    """
    code = (
        f"import runpy, sys; sys.path[:] = [*filter(None, sys.path), {_HOME!r}];"
        f" runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return (sys.executable, "-c", code)
