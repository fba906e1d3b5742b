"""Other programs in the same run: their replies are counted as nfox's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import folder
import psutil
import pytest
from fatal_peer import FatalPeer

from nfox import Engine, Message, ModelOptions, Settings, load
from nfox.decoding.generate import Limits, Prompt
from nfox.decoding.sampling import Sampling
from nfox.decoding.stats import Stats
from nfox.drafters import plain_method
from nfox.errors import ContextError, UsageError
from nfox.eval import peers
from nfox.eval.bench.divergence import divergences, near_ties
from nfox.eval.bench.entrants import MethodEntrant, PeerEntrant
from nfox.eval.bench.figures import DivergenceRow, Row
from nfox.eval.bench.metrics import rows
from nfox.eval.bench.result import BenchResult, Machine
from nfox.eval.bench.summary import summarise
from nfox.eval.bench.trials import Bench, Task, Trial
from nfox.eval.peers.base import Peer, PeerError
from nfox.eval.peers.process import PeerProcess
from nfox.eval.peers.replies import answer

PLAIN = MethodEntrant.parse(plain_method())
TASKS = [
    Task("one", "a", ("the quick brown fox",)),
    Task("two", "a", ("over the lazy", "dog, and again")),
]


def loaded(model: Path | None = None, **more: Any) -> Engine:
    loading = ModelOptions(dtype="float32", offline=True)
    settings = Settings(max_new_tokens=12)
    return load(str(model or folder.llama()), loading=loading, settings=settings, **more)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers are made in this process, which is faster; one test makes them as they are."""
    monkeypatch.setattr("nfox.eval.bench.entrants.PeerProcess", lambda peer, recipe: peer(**recipe))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return loaded(draft_model=str(folder.llama(1)))


class Scripted(Peer):
    """Says what it is told to, block by block."""

    name = "scripted"

    def __init__(self, *blocks: Sequence[int]) -> None:
        self.said = blocks
        self.limit = 0

    @classmethod
    def recipe(cls, engine: Engine, folder: Path) -> dict[str, Any]:
        return {}

    def answer(
        self,
        prompt: Prompt,
        settings: Settings,
        limits: Limits,
        on_tokens: Callable[[Sequence[int]], None],
    ) -> None:
        self.limit = limits.max_tokens
        for block in self.said:
            on_tokens(block)


ASKED = [Message("user", "the fox")]


def test_what_comes_with_the_prompt_is_no_step(engine: Engine) -> None:
    reply = answer(Scripted([70, 71], [72], [73, 74, 75]), engine, engine.request(ASKED))
    assert reply.ids == [70, 71, 72, 73, 74, 75]
    assert (reply.stats.steps, reply.stats.tokens, reply.stats.lengths) == (2, 4, [1, 3])
    assert reply.stats.first_token_seconds == reply.stats.prefill_seconds > 0
    assert reply.text == engine.model.tokenizer.decode(reply.ids)
    one = answer(Scripted([70]), engine, engine.request(ASKED))
    assert (one.ids, one.stats.steps, one.stats.tau) == ([70], 0, 0)
    assert answer(Scripted(), engine, engine.request(ASKED)).ids == []


def test_a_stop_token_inside_a_block_ends_the_reply(engine: Engine) -> None:
    end = next(iter(engine.stop_ids))
    reply = answer(Scripted([70], [71, end, 72], [73]), engine, engine.request(ASKED))
    assert (reply.ids, reply.finish) == ([70, 71], "stop")
    # The stop token was emitted, and what follows was not: as nfox counts its own.
    assert (reply.stats.steps, reply.stats.tokens, reply.stats.lengths) == (1, 2, [2])


def test_a_reply_is_cut_at_its_limit_and_at_a_stop_string(engine: Engine) -> None:
    peer = Scripted([70] * 8, [71] * 8)
    reply = answer(peer, engine, engine.request(ASKED))
    assert peer.limit == 12
    assert (len(reply.ids), reply.finish, reply.stats.lengths) == (12, "length", [4])
    ids = engine.model.tokenizer("one two three", add_special_tokens=False).input_ids
    engine.settings = Settings(max_new_tokens=50, stop=(" two",))
    try:
        reply = answer(Scripted(ids[:1], ids[1:]), engine, engine.request(ASKED))
    finally:
        engine.settings = Settings(max_new_tokens=12)
    assert (reply.text, reply.finish) == ("one", "stop")
    assert engine.model.tokenizer.decode(reply.ids) == "one"


def test_a_context_that_is_full_ends_a_reply_or_refuses_the_prompt(engine: Engine) -> None:
    peer = Scripted([70])
    left = engine.max_context - len(engine.encode(ASKED).ids)
    engine.max_context -= left - 4
    try:
        answer(peer, engine, engine.request(ASKED))
        assert peer.limit == 5  # the last token need not be read
        engine.max_context -= 5
        with pytest.raises(ContextError, match="context holds"):
            answer(peer, engine, engine.request(ASKED))
    finally:
        engine.max_context = engine.model.target.max_context


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["hf", "hf-assisted", "hf-lookup"])
def test_transformers_says_the_same_in_the_same_run(engine: Engine, name: str) -> None:
    benchmark = Bench(engine, [PLAIN, PeerEntrant(name)], TASKS)
    trials = list(benchmark.rounds(1, 0))
    assert benchmark.missing == {}
    _, row = rows("tiny", trials, ["a", "a"], divergences(benchmark, trials), {name})
    assert row.identical == 1
    assert row.steps > 0
    assert row.tau >= 1
    assert row.speedup > 0 < row.speedup_total
    assert row.time is row.nodes is row.wide is None
    if name == "hf":
        assert row.tau == 1
        # All but the first token of each of three replies, and stop tokens.
        said = sum(len(ids) for trial in trials if trial.entrant == name for ids in trial.replies)
        assert said - 3 <= row.tokens <= said
    assert "transformers" in benchmark.runners[name].describe()


def test_the_speed_of_a_peer_is_counted_after_its_first_tokens() -> None:
    """Prefill and first token 2 s, then 4 tokens in 4 s; the plain one 5 tokens in 1 + 10 s."""
    ids = [[7, 8, 9, 7, 8]]
    theirs = Stats(steps=4, tokens=4, seconds=4.0, prefill_seconds=2.0, first_token_seconds=2.0)
    own = Stats(steps=5, tokens=5, seconds=10.0, prefill_seconds=1.0, first_token_seconds=3.0)
    trials = [Trial(PLAIN.name, 0, 0, ids, [own], 0), Trial("hf", 0, 0, ids, [theirs], 0)]
    _, row = rows("tiny", trials, ["a"], (), {"hf"})
    assert (row.tau, row.tokens_per_second, row.ttft_ms) == (1, 1, 2000)
    assert row.speedup == 2
    assert row.speedup_total == pytest.approx((5 / 6) / (5 / 11))
    assert row.identical == 1


@pytest.mark.usefixtures("here")
def test_what_a_models_own_config_asks_for_is_not_plain_decoding(tmp_path: Path) -> None:
    shutil.copytree(folder.llama(), tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    own = json.loads(file.read_text())
    own |= {"no_repeat_ngram_size": 2, "num_beams": 3, "min_new_tokens": 9}
    file.write_text(json.dumps(own))
    benchmark = Bench(
        loaded(tmp_path / "model"), [PLAIN, PeerEntrant("hf"), PeerEntrant("hf-lookup")], TASKS
    )
    trials = list(benchmark.rounds(1, 0))
    assert not benchmark.missing
    assert [row.identical for row in rows("tiny", trials, ["a", "a"])] == [1, 1, 1]


@pytest.mark.usefixtures("here")
def test_one_seed_gives_a_peer_one_text(engine: Engine) -> None:
    engine.settings = Settings(max_new_tokens=12, sampling=Sampling(temperature=1.0, seed=5))
    try:
        benchmark = Bench(engine, [PLAIN, PeerEntrant("hf")], TASKS[:1])
        first, again = (benchmark.run_trial(benchmark.entrants[1], 0, 0).replies for _ in range(2))
        assert first == again
    finally:
        engine.settings = Settings(max_new_tokens=12)


@pytest.mark.usefixtures("here")
def test_a_model_that_a_peer_cannot_run_leaves_the_peer_out() -> None:
    loading = ModelOptions(dtype="float32", offline=True)
    mamba = load(str(folder.mamba()), loading=loading, settings=Settings(max_new_tokens=8))
    benchmark = Bench(mamba, [PLAIN, PeerEntrant("hf"), PeerEntrant("hf-lookup")], TASKS[:1])
    assert "transformers does not generate so" in benchmark.missing["hf-lookup"]
    trials = list(benchmark.rounds(1, 0))
    assert rows("tiny", trials, ["a"])[1].identical == 1


@pytest.mark.usefixtures("here")
def test_drawn_tokens_are_others_and_not_looked_into(engine: Engine) -> None:
    engine.settings = Settings(max_new_tokens=12, sampling=Sampling(temperature=1.0, top_k=50))
    try:
        benchmark = Bench(engine, [PLAIN, PeerEntrant("hf")], TASKS[:1])
        trials = list(benchmark.rounds(1, 0))
        assert divergences(benchmark, trials) == []
    finally:
        engine.settings = Settings(max_new_tokens=12)


@pytest.mark.usefixtures("here")
def test_an_encoder_decoder_has_peers_too() -> None:
    loading = ModelOptions(dtype="float32", offline=True)
    t5 = load(str(folder.t5()), loading=loading, settings=Settings(max_new_tokens=8))
    benchmark = Bench(t5, [PLAIN, PeerEntrant("hf")], TASKS)
    trials = list(benchmark.rounds(1, 0))
    assert rows("tiny", trials, ["a", "a"])[1].identical == 1


@pytest.mark.usefixtures("here")
def test_who_lacks_something_is_left_out_and_said_to_be() -> None:
    benchmark = Bench(loaded(), [PLAIN, PeerEntrant("hf-assisted"), PeerEntrant("hf")], TASKS)
    assert [one.name for one in benchmark.entrants] == [PLAIN.name, "hf"]
    assert "draft model" in benchmark.missing["hf-assisted"]


def test_quantised_peers_say_a_text_of_their_own() -> None:
    """Their gaps are no near-ties, and do not hide those of others."""
    parted = [
        DivergenceRow(entrant=name, task="one", reply=0, token=0, gap=gap)
        for name, gap in (("llama.cpp", 0.01), ("llama.cpp q4_0", 3.0), ("llama.cpp", 0.02))
    ]
    result = BenchResult(
        machine=Machine(),
        settings={},
        rows=[Row(target="t", method="none", category="all", prompts=1)],
        divergences=parted,
    )
    assert [row.gap for row in near_ties(result)] == [0.02, 0.01]


def test_there_is_no_other_peer() -> None:
    for wrong in (PeerEntrant, peers.peer):
        with pytest.raises(UsageError, match="no peer 'vllm'"):
            wrong("vllm")
    assert all(peers.peer(name).name == name for name in peers.names())


def peer_processes() -> list[psutil.Process]:
    """Return the processes of peers that this one has started; others run programs for tests."""
    children = psutil.Process().children()
    return [child for child in children if "nfox.eval.peers.process" in child.cmdline()]


def test_a_peer_answers_from_a_process_of_its_own(engine: Engine) -> None:
    benchmark = Bench(engine, [PLAIN, PeerEntrant("hf")], TASKS)
    trials = list(benchmark.rounds(1, 0))
    assert rows("tiny", trials, ["a", "a"], peers={"hf"})[1].identical == 1
    assert all(trial.memory > 50e6 for trial in trials)
    (child,) = peer_processes()
    assert {trial.memory for trial in trials if trial.entrant == "hf"} != {0}
    benchmark.close()
    assert not child.is_running()
    assert "transformers" in benchmark.runners["hf"].describe()


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("signal 4", "died: SIGILL, it was built for instructions that this processor does not"),
        ("signal 9", "died: SIGKILL, as when memory runs out: an assertion failed"),
        ("signal 6", "died: SIGABRT: an assertion failed"),
        ("exit 3", "died: exit code 3"),
        ("an error", "ValueError: an error"),
    ],
)
def test_whatever_ends_a_peer_is_said_in_one_line(engine: Engine, end: str, said: str) -> None:
    request = engine.request(ASKED)
    peer = PeerProcess(FatalPeer, {"end": end})
    process = psutil.Process(int(peer.describe().partition(" ")[2]))
    for _ in range(2):
        peer.begin()
        reply = answer(peer, engine, request)
        assert (reply.ids, reply.stats.steps) == ([7, 8, 9], 2)
        assert 0.02 <= reply.stats.seconds + reply.stats.prefill_seconds < 2  # by its own clock
    peer.begin()
    with pytest.raises(PeerError, match=said) as caught:
        answer(peer, engine, request)
    assert "\n" not in caught.value.message
    assert not process.is_running()
    with pytest.raises(PeerError, match=said):
        PeerProcess(FatalPeer, {"end": end, "early": True})


def test_a_peer_that_dies_costs_its_own_row_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "peer", lambda name: FatalPeer)
    benchmark = Bench(engine, [PLAIN, PeerEntrant("hf"), MethodEntrant.parse("lookup")], TASKS)
    assert not benchmark.missing
    told: list[tuple[int, int]] = []
    trials = list(benchmark.rounds(2, 0, lambda *done: told.append(done)))
    assert told[-1] == (12, 12)
    assert benchmark.missing.keys() == {"hf"}
    whole = [trial for trial in trials if trial.entrant in benchmark.runners]
    assert len(whole) == 8
    result = summarise(benchmark, whole, {}, model="m", target="m", command="")
    assert list(dict.fromkeys(row.method for row in result.rows)) == [PLAIN.name, "lookup"]
    assert "SIGKILL" in result.missing["hf"]
    assert peer_processes() == []


def test_a_peer_ends_with_whoever_asked_it() -> None:
    script = """
import os
from fatal_peer import FatalPeer
from nfox.eval.peers.process import PeerProcess
print(PeerProcess(FatalPeer, {"end": ""}).describe(), flush=True)
os._exit(0)  # without closing anything
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
    with suppress(psutil.NoSuchProcess):  # it has ended already
        psutil.Process(int(said.split()[1])).wait(10)
