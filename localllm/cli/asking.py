"""Questions to the person at the terminal; off one nobody is asked."""

from __future__ import annotations

import sys

from localllm.errors import UsageError


def can_ask() -> bool:
    """Whether somebody reads questions and may answer them."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str | None:
    """The answer, in lower case; None where the input ended."""
    sys.stderr.write(f"{question} ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return answer.strip().lower() if answer else None


def agreed(question: str, what: str, *, unless_told: bool) -> bool:
    """Whether the person says yes.

    Args:
        question: "Download 5 GiB?".
        what: the same as a noun, for whoever cannot be asked: "a download of 5 GiB".
        unless_told: what an empty answer means.

    Raises:
        UsageError: there is nobody to ask.
    """
    if not can_ask():
        raise UsageError(f"{what} wants a yes, and there is no terminal", "add --yes")
    answer = ask(f"{question} [{'Y/n' if unless_told else 'y/N'}]")
    return unless_told if answer == "" else answer in ("y", "yes")
