"""The library's front door, as people try it."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import gc
import threading
import weakref
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import folder
import numpy as np
import pytest

import nfox
from nfox import Engine, Message, ModelOptions, Settings, load, model_loader
from nfox.decoding import running_costs
from nfox.decoding.costs import WIDTHS, Costs
from nfox.drafters.common.method import DrafterSpec
from nfox.errors import ContextError, NfoxError, UsageError

FLOAT32 = ModelOptions(dtype="float32")
ROOT = Path(__file__).parent.parent


def fresh(**more: Any) -> Engine:
    settings = Settings(max_new_tokens=24)
    return load(str(folder.equipped()), loading=FLOAT32, **{"settings": settings} | more)


@cache
def engine() -> Engine:
    return fresh()


def test_an_answer_is_text_ids_timings_and_statistics() -> None:
    reply = engine().answer("hello")
    assert str(reply) == reply.text
    assert reply.text == "".join(piece.text for piece in engine().stream("hello"))
    assert engine().model.tokenizer.decode(reply.ids).strip() == reply.text
    assert reply.method == engine().method
    assert reply.timings["predicted_n"] == reply.stats.tokens == len(reply.ids)
    assert reply.stats.tau >= 1


def test_a_conversation_may_be_written_in_any_form() -> None:
    expected = engine().answer("hello").ids
    mapping = {"role": "user", "content": "hello"}
    parts = mapping | {"content": [{"type": "text", "text": "hello"}]}
    message = Message("user", "hello")
    for same in (mapping, [mapping], (mapping,), message, [message], parts):
        assert engine().answer(same).ids == expected


@pytest.mark.parametrize(
    "wrong",
    [
        7, None, b"hello", [], ["hello"], [7], {"role": "user"}, {"content": "x"}, {},
        {"role": 7, "content": "x"}, {"role": "user", "content": 7},
        [{"role": "user", "content": [{"type": "image", "image": "x"}]}],
        Message("user", None),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_one_clear_line(wrong: Any) -> None:
    with pytest.raises(UsageError) as error:
        engine().stream(wrong)
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": 5}, {"method": 5}, {"template": 5}, {"max_context": "x"}, {"max_context": True},
        {"settings": {"seed": 1}}, {"loading": "float32"}, {"heads": Path("x")}, {"options": "a=1"},
        {"progress": print},
    ],
)  # fmt: skip
def test_what_load_cannot_take_is_one_clear_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))} must be of type"):
        load(**wrong)


def test_settings_are_of_the_call_and_stay_as_they_were() -> None:
    before = engine().settings
    assert len(engine().answer("hello", max_new_tokens=3).ids) == 3
    warm = [engine().answer("hello", temperature=1, top_k=50, seed=seed).ids for seed in (1, 2)]
    assert warm[0] != warm[1]
    assert engine().settings is before
    full = engine().answer("hello").text
    assert engine().answer("hello", stop=full[5]).text == full[: full.index(full[5])]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": "4"}, {"max_new_tokens": 4.5}, {"max_new_tokens": True},
        {"max_new_tokens": 0}, {"temperature": "hot"}, {"temperature": -1}, {"stop": 7},
        {"stop": [7]}, {"colour": "red"}, {"accept": "maybe"}, {"keep_logits": 1},
        {"sampling": 0.7},
    ],
)  # fmt: skip
def test_a_setting_of_another_kind_is_one_clear_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        engine().answer("hello", **wrong)
    assert "\n" not in error.value.message
    assert next(iter(wrong)) in error.value.message or "rule" in error.value.message


def test_several_are_answered_each_as_alone() -> None:
    questions = ["hello", [{"role": "user", "content": "the fox"}], "hello"]
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_new_tokens": 12}
    together = [reply.ids for reply in engine().answer_all(questions, **settings)]
    again = [reply.ids for reply in fresh().answer_all(questions, **settings)]
    assert together == again
    assert together[0] != together[2], "each has noise of its own"
    for number, question in enumerate(questions):
        request = engine().request(question, engine().settings.changed(**settings), number=number)
        assert engine().answer(request).ids == together[number]


def test_costs_that_were_wrong_at_load_are_right_after_a_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flat = Costs(dict.fromkeys(WIDTHS, 1e-6))
    monkeypatch.setattr(running_costs, "measure_costs", lambda target, time_limit: flat)
    one = fresh(method="lookup")
    busy = Costs({n: 9.0 * n for n in WIDTHS})
    drafting = DrafterSpec("lookup")
    other = Engine(one.model, one.template, drafting=drafting, settings=one.settings, costs=busy)
    assert "does not pay" in other.drafter.describe()
    assert other.answer("hello").ids == one.answer("hello").ids
    assert other.costs == other.costs_at_load == busy
    assert other.answer("hello").ids == one.answer("hello").ids
    assert other.costs and other.costs.forward_seconds(1) < 1
    assert other.costs_at_load == busy
    assert "does not pay" not in other.drafter.describe()


def test_a_drafter_that_was_built_in_a_busy_moment_plans_again() -> None:
    flat, busy = (
        Costs({n: seconds * n**power for n in WIDTHS}) for seconds, power in ((1, 0), (9, 1))
    )
    one, drafting = fresh(method="lookup"), DrafterSpec("lookup")
    other = Engine(one.model, one.template, drafting=drafting, settings=one.settings, costs=flat)
    running = other._costs
    assert running
    running.now = busy
    built = other.make("lookup")
    assert "does not pay" in built.describe()
    running.now = flat
    other.answer("hello", drafter=built)
    assert "does not pay" not in built.describe()


def test_a_method_that_is_interrupted_while_it_plans_is_not_in_use() -> None:
    one = fresh(method="none")
    running = one._costs
    assert running

    def interrupted(drafter: object) -> None:
        raise KeyboardInterrupt

    before, running.plan = (one.drafter, one.method, one.why), interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        one.use("lookup")
    assert (one.drafter, one.method, one.why) == before


def test_a_second_stream_is_refused_until_the_first_has_ended() -> None:
    first, second = engine().stream("hello"), engine().stream("the fox")
    begun = next(first)
    with pytest.raises(UsageError, match="another reply already") as error:
        next(second)
    assert "close" in error.value.hint
    text = begun.text + "".join(piece.text for piece in first)
    assert text == engine().answer("hello").text, "the first goes on undisturbed"
    with engine().stream("hello") as left:
        next(left)
    assert left.reply.finish == "interrupt"
    lost = engine().stream("hello")
    next(lost)
    del lost
    assert engine().answer("the fox").finish != "interrupt"


def test_numbers_of_any_kind_are_taken_and_none_changes_nothing() -> None:
    numbers = {"max_new_tokens": np.int64(5), "temperature": np.float32(0.5), "top_k": np.int32(3)}
    settings = Settings().changed(**numbers, seed=None, stop=None)
    assert (settings.max_new_tokens, settings.sampling.temperature) == (5, 0.5)
    assert type(settings.max_new_tokens) is type(settings.sampling.top_k) is int
    assert settings.stop == Settings().changed(stop="").stop == ()


@pytest.mark.parametrize(
    "one", [None, 7, "hello", [{"role": "user", "content": "x"}], Message("user", "x")]
)
def test_one_conversation_is_not_taken_for_several(one: Any) -> None:
    with pytest.raises(UsageError, match=r"several"):
        engine().answer_all(one)


def test_a_prompt_that_is_too_long_is_told_before_others_are_answered() -> None:
    before = list(engine().cache.tokens)
    with pytest.raises(ContextError):
        engine().answer_all(["a question", "x " * 2000])
    assert engine().cache.tokens == before


def test_a_task_that_is_cancelled_ends_its_reply_and_leaves_the_engine_free() -> None:
    async def cut() -> int:
        pieces = 0

        async def read() -> None:
            nonlocal pieces
            async with engine().stream("hello", max_new_tokens=400) as stream:
                async for _ in stream:
                    pieces += 1

        task = asyncio.create_task(read())
        while not pieces:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pieces

    assert 0 < asyncio.run(cut()) < 400
    assert engine().answer("hello").finish != "interrupt"


def test_a_stream_is_closed_from_another_thread_after_its_forward() -> None:
    stream = engine().stream("hello", max_new_tokens=400)
    next(stream)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    stream.close()
    reader.join(20)
    assert not reader.is_alive()
    assert list(stream) == []
    assert engine().answer("hello").finish != "interrupt"


def test_what_waits_to_be_read_is_gone_for_a_reader_once_another_thread_has_closed() -> None:
    stream = engine().stream("hello", max_new_tokens=40)
    read: list[object] = []
    reader = threading.Thread(target=lambda: read.extend(stream))
    with stream._stepping:  # as `close` has it
        stream._pieces.append(next(stream))
        reader.start()
        reader.join(0.1)
        assert reader.is_alive()
        stream.close()
    reader.join(20)
    assert read == [] and not reader.is_alive()


def test_an_adapter_counts_when_it_is_asked_whether_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one a file that is kept packed is unpacked."""

    def check(models: Any, context: int) -> None:
        assert models[0][1].adapter == "some-adapter"
        raise NfoxError("no room")

    monkeypatch.setattr(model_loader, "check_memory", check)
    with pytest.raises(NfoxError, match="no room"):
        engine().adapt("some-adapter")


def test_the_end_of_a_reply_is_told_once_in_whatever_way_it_comes() -> None:
    ends: list[str] = []

    def stream() -> nfox.ReplyStream:
        return engine().stream("hello", on_end=lambda reply: ends.append(reply.finish))

    whole = stream().read_to_end().finish
    never_begun = stream()
    never_begun.close()
    never_begun.close()
    next(stream())
    for _ in stream().updates():
        break
    assert ends == [whole, "interrupt", "interrupt", "interrupt"]


def test_what_changes_meanwhile_does_not_change_a_reply_on_its_way() -> None:
    expected = engine().answer("hello").ids
    stream = engine().stream("hello")
    begun = engine().stop_ids
    try:
        engine().use_template(dataclasses.replace(engine().template, stop_ids=(expected[2],)))
        assert stream.read_to_end().ids == expected
    finally:
        engine().use_template(dataclasses.replace(engine().template, stop_ids=()))
    assert engine().stop_ids == begun


def test_a_stream_is_cancelled_from_outside() -> None:
    stream = engine().stream("hello")
    next(stream)
    stream.cancel()
    assert 0 < len(stream.read_to_end().ids) < 24
    assert stream.reply.finish == "interrupt"
    assert engine().stream("hello", cancelled=lambda: True).read_to_end().ids == []


def test_a_stream_is_iterated_in_an_event_loop() -> None:
    async def read() -> str:
        return "".join([piece.text async for piece in engine().stream("hello")])

    assert asyncio.run(read()) == engine().answer("hello").text


def test_a_prompt_beyond_the_context_is_refused_at_once_and_nothing_changes() -> None:
    tokens = list(engine().cache.tokens)
    with pytest.raises(ContextError):
        engine().stream("x " * 2000)
    assert engine().cache.tokens == tokens


def test_a_with_block_frees_the_model() -> None:
    with fresh() as made:
        made.answer("hello", max_new_tokens=2)
        model = weakref.ref(made.model.target.model)
    gc.collect()
    assert model() is None
    with pytest.raises(UsageError, match="closed"):
        made.answer("hello")
    assert not hasattr(made, "model")
    made.close()


def assigned(file: Path) -> set[str]:
    """Return the assignments in a file to fields of something that is called an engine."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        parts = [part for target in targets for part in ast.walk(target)]
        for part in parts:
            if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store | ast.Del):
                owner = ast.unparse(part.value)
                if owner.rpartition(".")[2] in ("engine", "chat"):
                    found.add(f"{file.relative_to(ROOT)}:{part.lineno}: {ast.unparse(part)}")
        is_setattr = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr")
        if is_setattr and "engine" in ast.unparse(node.args[0]).rpartition(".")[2]:
            found.add(f"{file.relative_to(ROOT)}:{node.lineno}: setattr")
    return found


@pytest.mark.parametrize("package", ["nfox", "cli", "benchmarks", "recipes"])
def test_nobody_assigns_an_engines_fields_from_outside(package: str) -> None:
    files = [file for file in (ROOT / package).rglob("*.py") if file.name != "engine.py"]
    assert files
    assert not {line for file in files for line in assigned(file)}


def test_the_public_names_are_those_of_the_documentation() -> None:
    for name in ("load", "Engine", "Conversation", "Reply", "ReplyStream", "Request"):
        assert name in nfox.__all__
    assert set(nfox.__all__) < set(dir(nfox))


@pytest.mark.parametrize("method", ["none", "lookup"])
def test_a_special_token_ends_a_reply_whose_stop_string_it_is(method: str) -> None:
    """It has no letters in the text, where its name could be found."""
    own = load(str(folder.llama(endless=True)), loading=FLOAT32, method=method)
    settings = own.settings.changed(temperature=2.0, max_new_tokens=40)
    requests = (own.request("hello there", settings, number=number) for number in count())
    bos = own.model.tokenizer.bos_token_id
    request, whole = next(
        (request, reply) for request in requests if bos in (reply := own.answer(request)).ids
    )
    at = whole.ids.index(bos)
    stopped = own.answer(request, stop=["never said", own.model.tokenizer.bos_token])
    assert (stopped.ids, stopped.finish) == (whole.ids[:at], "stop")
    assert whole.text.startswith(stopped.text.rstrip("\ufffd"))
