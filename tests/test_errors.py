"""The error tree: every error has its exit code, its sentence and its hint."""

from __future__ import annotations

import re

import pytest

from localllm import errors
from localllm.errors import LocalllmError

#: The contract of scripts that call localllm (design: streams and codes).
EXIT_CODES = {
    "LocalllmError": 1,
    "UsageError": 2,
    "NotFoundError": 3,
    "AccessError": 4,
    "NetworkError": 5,
    "IntegrityError": 6,
    "GgufError": 6,
    "DoesNotFitError": 7,
    "ContextFullError": 7,
    "DiskError": 8,
    "EngineError": 9,
    "EngineMissingError": 9,
    "OutOfMemoryError": 9,
}

#: "LocalllmError        1   a failure" and "│   └── GgufError        a file": depth, name, code.
_LINE = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+Error)(?: +(?P<code>\d+))? {2,}\S")


def error_classes() -> dict[str, type[LocalllmError]]:
    return {
        name: item
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, LocalllmError)
    }


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items(), ids=EXIT_CODES)
def test_an_error_leaves_with_its_exit_code(name: str, code: int) -> None:
    assert error_classes()[name].exit_code == code


def test_there_is_no_error_without_an_exit_code_in_the_contract() -> None:
    assert error_classes().keys() == EXIT_CODES.keys()


def test_an_interruption_has_the_exit_code_of_a_shell() -> None:
    assert errors.INTERRUPTED_EXIT_CODE == 130


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn: dict[str, tuple[str | None, int]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["branch"]) // 4
        above[depth:] = [match["name"]]
        parent = above[depth - 1] if depth else None
        code = int(match["code"]) if match["code"] else drawn[parent or ""][1]
        drawn[match["name"]] = parent, code
    real = {
        name: (None if item is LocalllmError else item.__mro__[1].__name__, item.exit_code)
        for name, item in error_classes().items()
    }
    assert drawn == real


@pytest.mark.parametrize("kind", error_classes().values(), ids=error_classes())
def test_an_error_keeps_its_sentence_and_its_hint(kind: type[LocalllmError]) -> None:
    error = kind("it broke", "mend it")
    assert (str(error), error.message, error.hint) == ("it broke", "it broke", "mend it")
    assert kind("it broke").hint is None


def test_the_top_of_the_program_catches_them_all_and_no_bug() -> None:
    assert all(issubclass(kind, LocalllmError) for kind in error_classes().values())
    assert not issubclass(ValueError, LocalllmError)
    assert not issubclass(LocalllmError, (OSError, ValueError))
