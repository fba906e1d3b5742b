"""What every method keeps to, and what lookup and jacobi propose."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from random import Random
from typing import Any

import folder
import pytest
import tiny
import torch
from tiny import PROMPT, context

from nfox import drafters
from nfox.decoding.costs import Costs, draft_length
from nfox.decoding.drafter import Context, Drafter
from nfox.decoding.rules import RULES, make_rule
from nfox.decoding.sampling import Sampling
from nfox.drafters.common.heads import HeadsDrafter
from nfox.drafters.common.method import DrafterInputs, Options, WeightSources
from nfox.drafters.jacobi import Jacobi
from nfox.drafters.lookup import Lookup
from nfox.errors import ModelError, NfoxError, UsageError
from nfox.models.options import LoadedModel

NAMES = drafters.method_names()


class Watched(Drafter):
    """Another drafter, whose every proposal is looked at."""

    summary = "is watched"

    def __init__(self, inner: Drafter, family: str) -> None:
        self.inner, self.family, self.seen = inner, family, 0

    @classmethod
    def build(cls, parts: object, options: object) -> Watched:
        raise NotImplementedError

    def propose(self, context: Context) -> Any:
        tokens, hidden = list(context.tokens), context.hidden.clone()
        tree = self.inner.propose(context)
        assert context.tokens == tokens, "it may look at the cache, no more"
        assert torch.equal(context.hidden, hidden)
        assert tree.tokens[0] == context.root
        assert max(tree.depths) <= max(context.max_depth, 0)
        assert all(0 <= token < tiny.VOCABULARY for token in tree.tokens)
        assert tree.is_chain or tiny.FAMILIES[self.family].proposals == "trees"
        assert tree.q is None or tree.q.shape == (len(tree), tiny.VOCABULARY)
        self.seen += 1
        return tree

    def rewind(self, length: int) -> None:
        self.inner.rewind(length)


@pytest.mark.parametrize(
    ("family", "method"), [(f, m) for f in ("llama", "bloom", "mamba") for m in tiny.methods(f)]
)
@pytest.mark.parametrize("accept", RULES)
def test_every_method_keeps_to_the_contract(family: str, method: str, accept: str) -> None:
    made = tiny.make(method, family)
    for number, room in enumerate((20, 3, 2, 1)):
        drafter = Watched(made, family)
        rule = make_rule(accept, Sampling(1.0), reply=number)
        steps = tiny.run(tiny.target(family), drafter, PROMPT, rule=rule, max_tokens=room)
        assert drafter.seen == len(steps)
        assert len(tiny.text(steps)) == room


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_what_it_is(name: str) -> None:
    found = drafters.method_class(name)
    assert issubclass(found, Drafter)
    assert found.summary
    assert "\n" not in found.summary + found.needs
    assert issubclass(found.options, Options)
    for option in dataclasses.fields(found.options):
        assert option.metadata["help"], f"{name}: option {option.name} needs a help text"
        assert option.default is not dataclasses.MISSING
    family = "llama"
    assert isinstance(tiny.make(name, family).describe(), str)
    assert found.drafts == any(
        len(step.tree) > 1 for step in tiny.run(tiny.target(), tiny.make(name), PROMPT * 2)
    )


@pytest.mark.parametrize("name", [n for n in NAMES if not drafters.method_class(n).chooses])
def test_every_method_can_be_seen_twice(name: str) -> None:
    """The same conversation drafted for again gives the same proposals."""
    target, drafter = tiny.target(), tiny.make(name)
    trees = [
        [(step.tree.tokens, step.tree.parents) for step in tiny.run(target, drafter, PROMPT)]
        for _ in range(2)
    ]
    assert trees[0] == trees[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("accept", [a for a in RULES if make_rule(a, Sampling(1.0)).follows_drafts])
def test_a_seed_gives_one_text_however_much_of_the_prompt_was_read_before(
    name: str, accept: str
) -> None:
    """Also where the text depends on what is drafted."""
    target, drafter, texts = tiny.target(), tiny.make(name), []
    for held in (0, 4, len(PROMPT) - 1):
        cache = target.new_cache()
        target.read(PROMPT[:held], cache)
        rule = make_rule(accept, Sampling(1.0))
        steps = tiny.run(target, drafter, PROMPT, rule=rule, cache=cache, max_tokens=12)
        texts.append(tiny.text(steps))
    assert texts[0] == texts[1] == texts[2]


def test_methods_are_found_by_their_files_without_torch() -> None:
    code = "import sys, nfox.drafters as d; print(d.method_names(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{NAMES} False"


def test_an_unknown_method_or_option_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="unknown method 'medussa'") as caught:
        drafters.method_class("medussa")
    assert all(name in caught.value.hint for name in NAMES)
    with pytest.raises(UsageError, match="no option 'gama'") as caught:
        drafters.parse_options("lookup", {"gama": "3"})
    assert "gamma" in caught.value.hint
    with pytest.raises(UsageError, match="has no option 'gamma'") as caught:
        drafters.parse_options("none", {"gamma": "3"})
    assert caught.value.hint == "it has no options"
    model = LoadedModel("nowhere", tiny.target())
    with pytest.raises(UsageError, match="no method has the option 'nods'") as caught:
        drafters.choose_method(model, WeightSources(), ["nods"])
    assert caught.value.hint == "did you mean nodes?"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lookup", {"gamma": "-1"}),
        ("lookup", {"gamma": "many"}),
        ("lookup", {"gamma": "2.5"}),
        ("lookup", {"ngram": "0"}),
        ("jacobi", {"window": "-3"}),
        ("spec", {"gamma": "-1"}),
        ("spec", {"branches": "0"}),
        ("spec", {"branches": "11"}),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, values: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        drafters.parse_options(name, values)


def test_options_are_read_from_text() -> None:
    assert dataclasses.asdict(drafters.parse_options("lookup", {"gamma": "4", "ngram": "2"})) == {
        "gamma": 4,
        "ngram": 2,
    }


@pytest.mark.parametrize("name", [n for n in NAMES if drafters.method_class(n).needs])
def test_what_a_method_needs_is_named_when_it_is_missing(name: str) -> None:
    parts = DrafterInputs(LoadedModel("the target", tiny.target()))
    with pytest.raises(ModelError, match=f"method {name} needs"):
        drafters.build_drafter(name, {}, parts, WeightSources())


@pytest.mark.parametrize("name", [n for n in NAMES if drafters.method_class(n).drafts])
def test_a_recurrent_target_cannot_be_drafted_for(name: str) -> None:
    model = LoadedModel("a mamba", tiny.target("mamba"))
    with pytest.raises(ModelError, match="recurrent state"):
        drafters.build_drafter(name, {}, DrafterInputs(model), WeightSources())
    chosen, why = drafters.choose_method(model, WeightSources("x", "y"))
    assert not drafters.method_class(chosen).drafts
    assert "rolled back" in why


def test_weights_that_were_named_come_before_those_that_lie_beside() -> None:
    model = LoadedModel(str(folder.equipped()), tiny.target())
    free = ["lookup", "jacobi"]
    for method in drafters.method_names():
        if issubclass(drafters.method_class(method), HeadsDrafter):
            named = WeightSources(heads=tiny.heads_folder(method).as_posix())
            assert drafters.choose_method(model, named, ["tree"]) == (
                method,
                f"its weights are in {named.heads}",
            )
            chosen, why = drafters.choose_method(model, named)
            assert drafters.drafting_methods(chosen, model.name, named) == [method, *free]
            assert f"{method} ({named.heads}), lookup, jacobi or plain decoding" in why
    both = WeightSources(str(folder.llama(layers=1, seed=1)), str(tiny.heads_folder("medusa")))
    chosen, why = drafters.choose_method(model, both, ["branches", "tree"])  # of one each
    assert (chosen, why.count(str(both.draft_model))) == ("spec", 1)
    assert why.endswith(f"{both.heads}: --method medusa")
    chosen, why = drafters.choose_method(model, both)
    assert drafters.drafting_methods(chosen, model.name, both) == ["spec", "medusa", *free]
    assert "not found" not in why
    every = drafters.drafting_methods(chosen, model.name, WeightSources())
    assert every == ["spec", "ctc", "chimera", "medusa", *free]
    assert drafters.drafting_methods("medusa", model.name, both) == ["medusa"]


def test_where_more_than_plain_decoding_is_possible_the_fastest_is_chosen_as_it_goes() -> None:
    bare = LoadedModel("nothing lies beside it", tiny.target())
    chosen, why = drafters.choose_method(bare, WeightSources())
    assert drafters.method_class(chosen).chooses
    assert drafters.drafting_methods(chosen, bare.name, WeightSources()) == ["lookup", "jacobi"]
    assert why.endswith("; no draft model and no heads were found for this model")


@pytest.mark.parametrize(
    ("options", "sources", "chosen"),
    [
        (["tree"], {}, "ctc"),  # the best of those with trees; spec, which lies there too, has none
        (["branches"], {}, "spec"),
        (["pool"], {}, "jacobi"),
        (["tree"], {"draft_model": "x"}, "spec"),  # what was named is not left for an option
    ],
)
def test_an_option_decides_among_what_lies_beside(
    options: list[str], sources: dict[str, str], chosen: str
) -> None:
    model = LoadedModel(str(folder.equipped()), tiny.target())
    assert drafters.choose_method(model, WeightSources(**sources), options)[0] == chosen


def test_the_draft_length_is_the_given_one_or_as_many_as_pay() -> None:
    model = LoadedModel("the target", tiny.target())
    steep, flat = Costs({1: 1.0, 2: 3.0, 16: 30.0}), Costs({1: 1.0, 32: 1.0})
    assert draft_length(None, 8, None) == 8
    assert draft_length(None, 8, steep) == 0
    assert draft_length(None, 8, flat) == 8
    assert draft_length(5, 8, steep) == 5
    for name in ("lookup", "jacobi"):
        drafter = drafters.build_drafter(name, {}, DrafterInputs(model, steep), WeightSources())
        assert len(drafter.propose(context([1, 1, 1, 1], 1))) == 1


def slow_lookup(text: list[int], root: int, gamma: int, ngram: int) -> list[int]:
    """Look at every place of the text, from the end, for every length."""
    whole = [*text, root]
    for size in range(min(ngram, len(whole)), 0, -1):
        for end in range(len(text) - 1, size - 1, -1):
            if whole[end - size : end] == whole[-size:]:
                return whole[end : end + gamma]
    return []


@pytest.mark.parametrize("ngram", [1, 2, 3, 5])
@pytest.mark.parametrize("gamma", [0, 1, 4, 50])
def test_lookup_proposes_what_followed(gamma: int, ngram: int) -> None:
    random = Random(gamma)
    drafter = Lookup(gamma, ngram)
    for _ in range(20):
        text: list[int] = []
        drafter.rewind(0)
        while len(text) < 40:
            root = random.randrange(5)
            tree = drafter.propose(context(text, root))
            assert list(tree.tokens[1:]) == slow_lookup(text, root, gamma, ngram)
            text += [root, *(random.randrange(5) for _ in range(random.randrange(4)))]


def test_lookup_looks_into_the_source_of_an_encoder_too() -> None:
    drafter, source = Lookup(3, 2), (7, 8, 9, 10, 11)
    tree = drafter.propose(context([0, 7], 8, encoder_ids=source))
    assert tree.tokens == (8, 9, 10, 11)
    drafter.rewind(0)
    assert drafter.propose(context([0, 7], 8, encoder_ids=(1, 2))).tokens == (8,)


def test_lookup_forgets_what_was_taken_back() -> None:
    drafter = Lookup(2, 1)
    drafter.propose(context([1, 2, 3, 4], 5))
    drafter.rewind(1)
    assert drafter.propose(context([1, 6, 7, 8], 2)).tokens == (2,)
    assert drafter.propose(context([1, 6, 7, 8], 6)).tokens == (6, 7, 8)


def test_lookup_is_at_home_after_another_method_changed_the_text() -> None:
    """It proposed for one text, another method replaced the end, and it was told of the rest."""
    drafter = Lookup(2, 1)
    drafter.propose(context([1, 2, 3, 4], 5))
    drafter.rewind(4)  # another text by now: [1, 9, 8, 7]
    assert drafter.propose(context([1, 9, 8, 7], 9)).tokens == (9, 8, 7)


def test_lookup_drafts_as_many_tokens_as_pay_by_how_often_such_were_right() -> None:
    """In a text that says one phrase again and again it copies ever more, in one of few letters at
    random, where runs come again but go on otherwise, hardly anything.
    """
    costs = Costs({1: 1.0, 2: 1.2, 4: 1.3, 8: 1.5, 16: 1.9})
    for vocabulary, least, most in ((1, 8, 16), (8, 0, 0.5)):
        random, drafter, lengths = Random(3), Lookup(16, 3, costs, is_explicit=False), []
        phrase = list(range(30))
        text = phrase * 8 if vocabulary == 1 else [random.randrange(8) for _ in range(240)]
        for end in range(60, len(text) - 1):
            lengths.append(len(drafter.propose(context(text[:end], text[end]))) - 1)
        assert least <= sum(lengths[-60:]) / 60 <= most
        every = Lookup(4, 3)  # a number that was asked for is drafted in every step
        assert len(every.propose(context(text[:60], text[0]))) == 5


@pytest.mark.parametrize("ngram", [1, 3, 7, 8, 16, 40])
def test_lookup_is_the_surer_the_longer_what_stands_before_is_equal(ngram: int) -> None:
    drafter, text = Lookup(16, ngram), [*range(60)]
    first: list[float] = []
    for size in range(1, 50):  # so many tokens are those that came before
        drafter.rewind(0)
        guess, reach = drafter.guess(context([*text, 99, *text[:size]][:-1], text[size - 1]))
        assert guess[0] == size
        first.append(reach[0])
    assert first == sorted(first)
    assert len(set(first)) == 6


def test_lookup_tells_a_text_without_repetition_from_guesses_that_do_not_pay() -> None:
    costs = Costs({1: 1.0, 2: 9.0})
    drafter = Lookup(16, 3, costs, is_explicit=False)
    assert len(drafter.propose(context([1, 2, 3], 4))) == 1
    assert drafter.nothing_found == "no word came a second time"
    assert len(drafter.propose(context([1, 2, 3, 4], 1))) == 1
    assert drafter.nothing_found == "no guess was likely enough to pay"
    drafter.rewind(0)
    assert drafter.nothing_found == "no word came a second time"


def test_what_methods_expect_of_themselves_is_measured_or_of_an_untrained_model() -> None:
    model = LoadedModel("the target", tiny.target())
    assert Lookup().forecast == (1, ())
    assert Jacobi(5, 2, 3).forecast == (1, ())  # an adapter may have trained the model
    plain = Jacobi.build(DrafterInputs(model), Jacobi.options(window=2, pool=3, ngram=4))
    nodes, reach = plain.forecast
    assert (nodes, len(reach)) == (1 + 2 + 3 * 4, 2)
    assert list(reach) == sorted(reach, reverse=True)


def test_heads_expect_what_was_measured() -> None:
    drafter = tiny.make("medusa")
    assert isinstance(drafter, HeadsDrafter)
    accuracy = [[0.6, 0.2, 0.1], [0.4, 0.2, 0.1]]
    drafter.choose_tree(drafter.options(), accuracy, Costs({1: 1.0, 8: 1.2, 16: 2.0}))
    nodes, reach = drafter.forecast
    assert nodes == 1 + len(drafter.shape) > 2
    assert 1 + sum(reach) == pytest.approx(drafter.shape.expected_tau(accuracy))


def test_jacobi_proposes_its_own_last_guesses_then_fills_the_window() -> None:
    drafter, text = Jacobi(5), [1, 2, 9, 10, 11]
    drafter.propose(context(text[:2], 9))
    # Of five nodes two were accepted after the root; 13 and 14 are the choices beyond 12, the root.
    # The same where they were accepted beside this tree, which is what `path` is of.
    for path in ([0, 1, 2], [0]):
        again = copy.deepcopy(drafter)
        tree = again.propose(context(text, 12, path=path, target_tokens=[10, 11, 12, 13, 14]))
        assert tree.tokens[:3] == (12, 13, 14)
        assert len(tree) == 6
        assert set(tree.tokens[3:]) <= set(text)
    assert len(drafter.propose(context([1, 2], 12, max_depth=3))) == 4
    assert drafter.propose(context([], 12)).tokens == (12,) * 6


def test_jacobi_comes_to_the_fixed_point_in_one_pass_per_token_or_less() -> None:
    right = tiny.slow("llama", PROMPT, 24)
    for window in (0, 1, 4, 40):
        steps = tiny.run(tiny.target(), Jacobi(window), PROMPT)
        assert tiny.text(steps) == right
        assert len(steps) <= 24


def test_jacobi_accepts_above_temperature_zero() -> None:
    """The noise of a position stays, so a guess made with it can come true."""
    sampling = Sampling(0.2, seed=1)
    accepted = 0
    for reply in range(6):
        rule = make_rule("exact", sampling, reply=reply)
        steps = tiny.run(tiny.target("gpt2"), Jacobi(8), PROMPT, rule=rule, max_tokens=60)
        accepted += sum(len(step.tokens) - 1 for step in steps)
    assert accepted > 20


def test_an_error_has_a_message_a_hint_and_a_code() -> None:
    assert NfoxError("what", "do").hint == "do"
    assert (NfoxError("w").code, UsageError("w").code, ModelError("w").code) == (1, 2, 3)
    assert NfoxError("w", code=7).code == 7
