"""What a person may type for a model, and what it means.

Pure: it never looks whether the thing exists. (What file names mean is added here with pull.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from localllm.errors import UsageError

_HUB = re.compile(
    r"(?:(?P<hub>hf|ms):)?(?P<repo>[\w][\w.-]*/[\w][\w.-]*)"
    r"(?:@(?P<revision>[\w][\w.-]*(?:/[\w][\w.-]*)*))?(?::(?P<quant>[\w][\w.-]*))?",
    re.ASCII,
)
_ALIAS = re.compile(r"[a-z][a-z0-9.-]*(?::[a-z0-9][\w.-]*)?", re.ASCII)
DEMO = "demo"


@dataclass(frozen=True)
class ModelRef:
    """A reference to a model.

    Attributes:
        kind: "demo", "file", "url", "hf", "ms" or "alias" (a name in the catalogue).
        text: what was typed.
        repo, revision, quant: of a hub reference; None where not given.
    """

    kind: Literal["demo", "file", "url", "hf", "ms", "alias"]
    text: str
    repo: str | None = None
    revision: str | None = None
    quant: str | None = None


def parse_ref(text: str) -> ModelRef:
    """Reads a model reference.

    Precedence: 1. `demo`; 2. `https://…` and `http://…`; 3. what looks like a path: it ends in
    .gguf or .llamafile, begins with `/`, `./`, `../`, `~` or a drive letter, or has a
    backslash; 4. `[hf:|ms:]org/repo[@revision][:QUANT]`; 5. a catalogue alias such as
    `qwen3:8b`. A file whose name looks like nothing else is reached as `./name`.

    Raises:
        UsageError: it is none of these.
    """
    if not text or "\0" in text or "\n" in text:
        raise UsageError("a model needs a name", _HINT)
    if text == DEMO:
        return ModelRef("demo", text)
    if re.match(r"https?://", text, re.IGNORECASE):
        return ModelRef("url", text)
    if (
        text.lower().endswith((".gguf", ".llamafile"))
        or text.startswith(("/", "./", "../", "~", ".\\"))
        or text in (".", "..")
        or "\\" in text
        or re.match(r"[A-Za-z]:[/\\]", text)
    ):
        if text.startswith(("hf:", "ms:")):
            raise UsageError(f"{text!r} names a file, not a repository", _HINT)
        return ModelRef("file", text)
    if match := _HUB.fullmatch(text):
        hub: Literal["hf", "ms"] = "ms" if match["hub"] == "ms" else "hf"
        return ModelRef(hub, text, match["repo"], match["revision"], match["quant"])
    if _ALIAS.fullmatch(text) and not text.startswith(("hf:", "ms:")):
        return ModelRef("alias", text)
    raise UsageError(f"{text!r} is not a model reference", _HINT)


_HINT = "name a file (./model.gguf), a repository (org/repo:Q4_K_M), or demo"
