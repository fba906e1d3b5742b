"""Several replies to one question, of which one stays."""

from __future__ import annotations

from pathlib import Path

import chat_app
import folder
import pytest
from chat_app import contents, do

from nfox import Settings, load
from nfox.cli.chat.app import ChatApp
from nfox.cli.chat.commands import registry
from nfox.cli.log.database import ConversationLog
from nfox.cli.log.writer import LogWriter
from nfox.decoding.sampling import Sampling
from nfox.engine import Engine
from nfox.errors import UsageError
from nfox.models.options import ModelOptions
from nfox.text.pieces import text_of

HOT = Settings(Sampling(temperature=1.0, seed=4), max_new_tokens=12)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load(str(folder.llama()), method="lookup", loading=ModelOptions(dtype="float32"))


@pytest.fixture
def app(engine: Engine, tmp_path: Path) -> ChatApp:
    engine.use_settings(HOT)
    engine._replies = 0  # the noise of a reply is that of its number, whatever ran before
    app = chat_app.make(engine)
    app.log = LogWriter(ConversationLog(tmp_path / "log.db"))
    return app


def replies(app: ChatApp) -> list[str]:
    return [candidate.message.content for candidate in app.candidates.values()]


def test_one_of_several_replies_stays_with_all_that_is_known_of_it(app: ChatApp) -> None:
    do(app, "hello")
    first = contents(app)[-1]
    told = do(app, "/retry 3")
    assert [f"reply {number} of 3:" in told for number in (1, 2, 3)] == [True] * 3
    assert told.endswith("reply 3 stays; /retry pick K keeps another, 0 the one before\n")
    assert list(app.candidates) == [0, 1, 2, 3] and replies(app)[0] == first
    assert len(set(replies(app))) == 4 and contents(app) == ["hello", replies(app)[3]]
    proofs = []
    for number in (1, 0, 2):
        assert "stays" in do(app, f"/retry pick {number}")
        chosen = app.candidates[number]
        assert contents(app) == ["hello", replies(app)[number]]
        (part,) = chosen.parts
        assert app.replies.last_part(app.conversation) is part
        assert app.conversation.messages[-1].ids == tuple(part.exchange.reply.ids)
        assert text_of(app.replies.pieces(app.conversation.turns)[-1]) == replies(app)[number]
        assert sum(len(record.tokens) for record in part.records) == 12
        assert app.log is not None and app.log.number is not None
        logged = app.log.log.read(app.log.number).rows
        assert [row.content for row in logged] == contents(app)
        proofs.append(do(app, "/prove"))
    assert all("identical: 12 tokens" in proof for proof in proofs)
    do(app, "/continue")
    assert contents(app)[-1].startswith(replies(app)[2])


def test_the_chosen_reply_is_the_one_that_is_answered_next(app: ChatApp) -> None:
    do(app, "hello")
    do(app, "/retry 2")
    do(app, "/retry pick 1")
    do(app, "and then?")
    asked = app.conversation.asked
    assert [message.content for message in asked] == ["hello", replies(app)[1], "and then?"]
    with pytest.raises(UsageError, match="has gone on since"):
        do(app, "/retry pick 2")
    assert contents(app)[:2] == ["hello", replies(app)[1]]
    do(app, "/undo")
    do(app, "/retry pick 2")
    assert contents(app) == ["hello", replies(app)[2]]
    do(app, "/reset")
    with pytest.raises(UsageError, match="has gone on since"):
        do(app, "/retry pick 1")


def test_a_reply_that_was_loaded_can_be_chosen_again(app: ChatApp, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    file.write_text('[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]')
    do(app, f"/load {file}")
    do(app, "/retry 1")
    do(app, "/retry pick 0")
    assert contents(app) == ["hi", "ho"]
    with pytest.raises(UsageError, match="decoded is not known"):
        do(app, "/prove")


def test_a_complete_reply_is_complete_when_it_is_chosen(app: ChatApp, engine: Engine) -> None:
    do(app, "hello")
    reply = contents(app)[-1]
    engine.use_settings(HOT.changed(stop=(reply[3],)))
    do(app, "/regen")
    do(app, "/retry 3")
    ends = [c.parts[-1].exchange.reply.finish for c in app.candidates.values()]
    complete = [number for number, finish in enumerate(ends) if finish == "stop"]
    assert complete
    for number in complete:
        do(app, f"/retry pick {number}")
        with pytest.raises(UsageError, match="came to its end"):
            do(app, "/continue")


def test_nothing_differs_at_temperature_0(app: ChatApp, engine: Engine) -> None:
    do(app, "hello")
    before = contents(app)
    engine.use_settings(Settings(max_new_tokens=12))
    with pytest.raises(UsageError, match="at temperature 0 every reply") as error:
        do(app, "/retry 2")
    assert "/set temperature" in error.value.hint and contents(app) == before


def test_what_retry_takes(app: ChatApp) -> None:
    with pytest.raises(UsageError, match="nothing to answer again"):
        do(app, "/retry 2")
    with pytest.raises(UsageError, match="no replies to choose from"):
        do(app, "/retry pick 1")
    do(app, "hello")
    for wrong in ("", "0", "100", "-1", "x", "pick", "pick x", "pick 1 2", "2 3"):
        with pytest.raises(UsageError, match="expected how many replies"):
            do(app, f"/retry {wrong}")
    do(app, "/retry 1")
    with pytest.raises(UsageError, match="there is no reply 7"):
        do(app, "/retry pick 7")
    assert list(registry.complete(app, "/retry ")) == ["0", "1", "pick"]


def test_the_same_reply_is_said_to_be_the_same(app: ChatApp, engine: Engine) -> None:
    engine.use_settings(HOT.changed(top_k=1))
    do(app, "hello")
    told = do(app, "/retry 2")
    assert told.count("the same as the reply before") == 2
