"""The chat over a model whose answers depend on the question; run by test_chat_terminal.py.

    python -m tests.cli.scripted_chat [-p PROMPT] [--session NAME] [--reasoning show|hide] [--stats]

The last word of a question chooses: `forever` streams until it is stopped, `think` reasons first,
`boom` fails, `evil` sends escape sequences, `code` and `table` are Markdown; else it is echoed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

from localllm.chat import Conversation
from localllm.cli.chat import read_prompt, run_chat
from localllm.completion import Delta, Message, Sampling, Usage
from localllm.errors import EngineError, LocalllmError
from localllm.session import SessionFile


class Script:
    name = "scripted"
    n_ctx = 8192

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Delta | Usage]:
        question = messages[-1].content
        word = question.split()[-1]
        if word == "boom":
            raise EngineError("the engine died with signal 9", "look at its log")
        if word == "think":
            yield Delta(reasoning="I wonder.")
        n = 0
        while word == "forever":
            yield Delta(f"word{n} ")
            n += 1
            time.sleep(0.01)
        yield from (Delta(piece) for piece in answer(question, word, len(messages)))
        yield Usage("stop", 214, 180, 132, 0.084, 410.0, 51.3, 2.7)


def answer(question: str, word: str, n_messages: int) -> list[str]:
    if word == "evil":
        return ["a\x1b]52;c;aGk=\x07", "b\x1b[2J", "c\x9b5A", "d"]
    if word == "code":
        return ["```python\n", *(f"print({i})\n" for i in range(200)), "```\n", "END"]
    if word == "table":
        return ["| a | b |\n", "|---|---|\n", "| **1** | 2 |\n", "\nEND"]
    return ["<", question.replace("\n", "\n|"), f"> **{n_messages}** END"]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-p")
    parser.add_argument("--session")
    parser.add_argument("--reasoning")
    parser.add_argument("--stats", action="store_true")
    args = parser.parse_args()
    try:
        prompt = read_prompt(args.p)
        session = SessionFile.named(args.session) if args.session else None
        chat = Conversation(Script(), session=session)
        run_chat(chat, prompt=prompt, reasoning=args.reasoning, stats=args.stats)
    except LocalllmError as exc:
        print(f"{exc.message}\n\nhint: {exc.hint}", file=sys.stderr)  # noqa: T201
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
