"""A conversation: its turns, its context, and the file it is kept in."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from localllm.chat import Conversation, Forgotten
from localllm.completion import Delta, Message, Sampling, Usage
from localllm.errors import (
    ContextFullError,
    DiskError,
    EngineError,
    IntegrityError,
    NotFoundError,
    UsageError,
)
from localllm.session import (
    SessionFile,
    Transcript,
    check_session_name,
    load_transcript,
    save_transcript,
)

Step = str | Delta | Usage | Exception


class ScriptedModel:
    """Answers with scripts, one per request; refuses prompts of more than `room` characters."""

    name = "scripted"

    def __init__(
        self, *scripts: Sequence[Step], n_ctx: int | None = None, room: int | None = None
    ) -> None:
        self.n_ctx = n_ctx
        self.room = room
        self.scripts = list(scripts)
        self.asked: list[list[Message]] = []
        self.samplings: list[Sampling] = []
        self.n_closed = 0

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Delta | Usage]:
        self.asked.append(list(messages))
        self.samplings.append(sampling)
        if self.room is not None and sum(len(m.content) for m in messages) > self.room:
            raise ContextFullError("the prompt is longer than the context")
        script = self.scripts.pop(0) if self.scripts else ["yes"]
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                yield Delta(step) if isinstance(step, str) else step
        finally:
            self.n_closed += 1


def say(chat: Conversation, text: str) -> str:
    return "".join(item.content for item in chat.reply(text) if isinstance(item, Delta))


def contents(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


def test_a_reply_is_yielded_as_it_comes_and_then_recorded() -> None:
    usage = Usage("stop", 10, 4, 2, 0.1, 100.0, 50.0, 0.2)
    model = ScriptedModel(["Hel", "lo", usage])
    chat = Conversation(model, system="Be kind.", sampling=Sampling(seed=1))
    assert list(chat.reply("Hi")) == [Delta("Hel"), Delta("lo"), usage]
    assert chat.messages == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert model.asked == [[Message("system", "Be kind."), Message("user", "Hi")]]
    assert model.samplings == [Sampling(seed=1)]
    assert chat.last_usage == usage
    assert chat.context_tokens == 12


def test_the_second_question_is_sent_with_what_was_said_before() -> None:
    model = ScriptedModel(["one"], ["two"])
    chat = Conversation(model)
    say(chat, "a")
    say(chat, "b")
    assert contents(model.asked[1]) == ["a", "one", "b"]


def test_totals_add_up_and_leave_out_what_is_unknown() -> None:
    model = ScriptedModel(["x", Usage("stop", 10, 4, 20, 0.1, 1.0, 10.0, 3.0)], ["y", Usage()])
    chat = Conversation(model)
    say(chat, "a")
    say(chat, "b")
    assert (chat.totals.n_replies, chat.totals.n_tokens) == (2, 20)
    assert chat.totals.n_decoded / chat.totals.decode_seconds == pytest.approx(10.0)


def test_what_was_said_before_a_stop_is_kept_and_the_model_is_closed() -> None:
    model = ScriptedModel(["one ", "two ", "three"])
    chat = Conversation(model)
    reply = chat.reply("count")
    next(reply)
    next(reply)
    reply.close()
    assert contents(chat.messages) == ["count", "one two "]
    assert model.n_closed == 1
    assert chat.last_usage is not None
    assert chat.last_usage.ttft_seconds is not None


def test_an_interrupt_inside_the_model_keeps_what_was_said() -> None:
    class Interrupted(ScriptedModel):
        def stream(
            self, messages: Sequence[Message], sampling: Sampling
        ) -> Iterator[Delta | Usage]:
            yield Delta("one ")
            raise KeyboardInterrupt

    chat = Conversation(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        list(chat.reply("count"))
    assert contents(chat.messages) == ["count", "one "]


def test_reasoning_is_recorded_apart() -> None:
    model = ScriptedModel([Delta(reasoning="hm"), Delta(reasoning="m"), "42"])
    chat = Conversation(model)
    list(chat.reply("?"))
    assert chat.messages[-1] == Message("assistant", "42", "hmm")


def test_retry_drops_the_last_answer_and_asks_again() -> None:
    model = ScriptedModel(["bad"], ["good"])
    chat = Conversation(model)
    say(chat, "q")
    list(chat.retry())
    assert contents(chat.messages) == ["q", "good"]
    assert contents(model.asked[1]) == ["q"]


def test_retry_before_anything_was_asked_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        Conversation(ScriptedModel()).retry()


def test_a_question_that_failed_can_be_retried() -> None:
    model = ScriptedModel([EngineError("it died")], ["back"])
    chat = Conversation(model)
    with pytest.raises(EngineError):
        list(chat.reply("q"))
    assert contents(chat.messages) == ["q"]
    list(chat.retry())
    assert contents(chat.messages) == ["q", "back"]


def test_a_new_question_takes_the_place_of_one_that_got_no_answer() -> None:
    model = ScriptedModel([EngineError("it died")], ["back"])
    chat = Conversation(model)
    with pytest.raises(EngineError):
        list(chat.reply("q"))
    say(chat, "other")
    assert contents(model.asked[1]) == ["other"]


def test_an_empty_answer_is_no_turn() -> None:
    chat = Conversation(ScriptedModel([Usage("stop")]))
    list(chat.reply("q"))
    assert contents(chat.messages) == ["q"]


def test_clear_forgets_the_turns_and_keeps_the_system_prompt() -> None:
    model = ScriptedModel(["a"], ["b"])
    chat = Conversation(model, system="S")
    say(chat, "q")
    chat.clear()
    say(chat, "r")
    assert contents(model.asked[1]) == ["S", "r"]


class TestFullContext:
    def chat_of(self, n_pairs: int, model: ScriptedModel) -> Conversation:
        chat = Conversation(model)
        turns = [
            message
            for i in range(n_pairs)
            for message in (Message("user", f"q{i}" * 5), Message("assistant", f"a{i}" * 5))
        ]
        chat.load(Transcript(tuple(turns)))
        return chat

    def test_the_oldest_half_is_left_out_with_a_notice_and_the_question_is_asked_again(
        self,
    ) -> None:
        model = ScriptedModel(["fine"], room=70)
        chat = self.chat_of(4, model)
        items = list(chat.reply("next?"))
        assert items == [Forgotten(4), Delta("fine")]
        assert contents(model.asked[-1])[0] == "q2" * 5
        assert len(chat.messages) == 10, "the transcript still has every turn"

    def test_it_goes_on_until_it_fits(self) -> None:
        model = ScriptedModel(["fine"], room=20)
        chat = self.chat_of(8, model)
        items = list(chat.reply("next?"))
        assert items[-1] == Delta("fine")
        assert contents(model.asked[-1]) == ["next?"]
        assert next(message.role for message in model.asked[-2]) == "user"

    def test_one_message_that_is_too_long_alone_is_the_error_and_costs_no_history(self) -> None:
        model = ScriptedModel(["fine"], room=70)
        chat = self.chat_of(2, model)
        with pytest.raises(ContextFullError):
            list(chat.reply("x" * 100))
        say(chat, "short")
        assert len(model.asked[-1]) == 5

    def test_room_for_an_answer_is_made_before_it_is_cut_off(self) -> None:
        nearly_full = Usage("stop", 900, 0, 90)
        model = ScriptedModel(["a"], ["b", nearly_full], ["c"], n_ctx=1024)
        chat = Conversation(model)
        say(chat, "first " * 50)
        say(chat, "second")
        first, *_ = chat.reply("third")
        assert first == Forgotten(2)
        assert contents(model.asked[-1]) == ["second", "b", "third"]

    def test_a_refusal_in_the_midst_of_an_answer_is_not_asked_again(self) -> None:
        model = ScriptedModel(["part ", ContextFullError("full")])
        chat = self.chat_of(2, model)
        with pytest.raises(ContextFullError):
            list(chat.reply("q"))
        assert contents(chat.messages)[-1] == "part "
        assert len(model.asked) == 1


class TestSession:
    def test_every_turn_is_on_the_disk_when_the_reply_ends(self) -> None:
        chat = Conversation(ScriptedModel(["one"], ["两"]), session=SessionFile.named("plans"))
        say(chat, "a")
        say(chat, "b")
        again = Conversation(ScriptedModel(), session=SessionFile.named("plans"))
        assert again.messages == chat.messages

    def test_it_is_readable_by_its_owner_alone(self, home: Path) -> None:
        say(Conversation(ScriptedModel(), session=SessionFile.named("plans")), "a")
        file = home / "data" / "sessions" / "plans.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert os.listdir(file.parent) == ["plans.json"]
        assert json.loads(file.read_text("utf-8"))["schema_version"] == 1

    def test_its_system_prompt_comes_back_unless_another_is_given(self) -> None:
        say(Conversation(ScriptedModel(), system="S", session=SessionFile.named("s")), "a")
        assert Conversation(ScriptedModel(), session=SessionFile.named("s")).system == "S"
        other = Conversation(ScriptedModel(), system="T", session=SessionFile.named("s"))
        assert other.system == "T"

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("", id="empty"),
            pytest.param('{"schema_version": 1, "messages": [', id="cut off"),
            pytest.param("[]", id="not an object"),
            pytest.param('{"messages": []}', id="no version"),
            pytest.param('{"schema_version": 2, "messages": []}', id="newer version"),
            pytest.param('{"schema_version": 1}', id="no messages"),
            pytest.param('{"schema_version": 1, "messages": [3]}', id="a number for a turn"),
            pytest.param(
                '{"schema_version": 1, "messages": [{"role": "system", "content": ""}]}',
                id="a role that is none",
            ),
            pytest.param(
                '{"schema_version": 1, "messages": [{"role": "user", "content": 1}]}',
                id="content that is no text",
            ),
            pytest.param("[" * 100_000, id="nested without end"),
        ],
    )
    def test_a_damaged_file_is_an_integrity_error_and_stays_as_it_is(self, text: str) -> None:
        session = SessionFile.named("broken")
        session.path.write_text(text)
        with pytest.raises(IntegrityError, match=r"broken\.json"):
            Conversation(ScriptedModel(), session=session)
        assert session.path.read_text() == text

    def test_a_file_that_somebody_else_changed_is_not_overwritten(self) -> None:
        one = Conversation(ScriptedModel(), session=SessionFile.named("shared"))
        two = Conversation(ScriptedModel(), session=SessionFile.named("shared"))
        say(one, "from one")
        with pytest.raises(IntegrityError, match="shared"):
            say(two, "from two")
        assert contents(two.messages) == ["from two", "yes"], "it is still in memory"
        assert "from one" in one.session.path.read_text()  # type: ignore[union-attr]

    def test_a_failing_disk_is_a_disk_error_and_leaves_the_old_file(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = SessionFile.named("full")
        chat = Conversation(ScriptedModel(), session=session)
        say(chat, "first")
        before = session.path.read_text()

        def no_room(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("localllm.session.os.fsync", no_room)
        with pytest.raises(DiskError, match="No space left"):
            say(chat, "second")
        assert session.path.read_text() == before
        assert len(os.listdir(session.path.parent)) == 1

    @pytest.mark.parametrize("name", ["plans", "旅行计划", "a b-c_d.2", "conversation"])
    def test_a_name_may_be(self, name: str) -> None:
        assert check_session_name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            ".hidden",
            "..",
            "a/b",
            "a\\b",
            "../../etc/passwd",
            "a\nb",
            "a\x00b",
            "\x1b[2J",
            "a\u202eb",
            "con",
            "COM1.json",
            "lpt²",
            "a:b",
            "a*",
            "end.",
            "-f",
            "字" * 67,
        ],
    )
    def test_a_name_may_not_be(self, name: str) -> None:
        with pytest.raises(UsageError):
            check_session_name(name)


class TestTranscript:
    def test_json_comes_back_as_it_was(self, tmp_path: Path) -> None:
        transcript = Transcript(
            (Message("user", "你好\n"), Message("assistant", '"x"', "thought")), "S", "m"
        )
        save_transcript(tmp_path / "t.json", transcript)
        assert load_transcript(tmp_path / "t.json") == transcript

    def test_markdown_is_for_a_person(self, tmp_path: Path) -> None:
        save_transcript(
            tmp_path / "t.md", Transcript((Message("user", "Hi"), Message("assistant", "Yo")))
        )
        text = (tmp_path / "t.md").read_text()
        assert "## You\n\nHi\n" in text
        assert "## Model\n\nYo\n" in text

    def test_a_missing_file_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            load_transcript(tmp_path / "none.json")
