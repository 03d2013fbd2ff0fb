"""How a conversation is spelled for the model: ChatML, as a template and as Python.

Knows the words around messages and tools. The template goes into the GGUF and is what llama.cpp
runs; `render` is what the model is trained on; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from localllm.demo.tokenizer import IM_END, IM_START

__all__ = ["CHAT_TEMPLATE", "Conversation", "Turn", "render"]

# ChatML. Tools are offered and called in the way of Hermes and Qwen, which llama-server recognises.
CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nTo call a tool:\\n<tool_call>\\n' }}
{{- '{"name": <name>, "arguments": <arguments>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{%- set given = call.function.arguments %}
{{- given if given is string else (given | tojson) }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
{{- '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@dataclass(frozen=True)
class Turn:
    """What the person says and what the model shall say, with the name of the intent behind it."""

    user: str
    answer: str
    intent: str = ""


@dataclass(frozen=True)
class Conversation:
    """Some turns, after a system prompt or a list of tools or neither."""

    turns: tuple[Turn, ...]
    system: str | None = None
    tools: tuple[dict[str, Any], ...] = ()


def render(conversation: Conversation) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of `conversation` as the chat template spells them.

    Each comes with whether the model shall learn to write it.
    """
    head = conversation.system or ""
    if conversation.tools:
        tools = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in conversation.tools)
        head = (head + "\n\n" if head else "") + (
            f"<tools>{tools}\n</tools>\nTo call a tool:\n<tool_call>\n"
            '{"name": <name>, "arguments": <arguments>}\n</tool_call>'
        )
    if head:
        yield f"{IM_START}system\n{head}{IM_END}\n", False
    for turn in conversation.turns:
        yield f"{IM_START}user\n{turn.user}{IM_END}\n{IM_START}assistant\n", False
        yield f"{turn.answer}{IM_END}", True
        yield "\n", False
