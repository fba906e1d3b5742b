"""Random sessions: whatever was done before, every reply is the one that plain decoding gives.

    python benchmarks/sessions.py --sessions 660 --out benchmarks/sessions.json

A session is a tiny random model in float64 and what people and programs do with it, in random
order: questions, replies that are read whole, cancelled, closed, lost or interrupted at a forward,
regenerated, continued, taken back and edited, between them other methods, options and settings, a
second conversation with the same cache, which leaves its oldest turns out once it outgrows the
context, and requests that take their caches out of a server's pool.
Every reply is decoded again, plainly, with a new cache and the same prompt, and must be the same to
the last token; what was cut must be its beginning. Greedy tokens must be the likeliest of one
forward over all of them, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from nfox import Conversation, Engine, Message, Sampling, Settings, __version__
from nfox.drafters import plain_method, ready_methods
from nfox.drafters.common.method import DrafterSpec
from nfox.errors import NfoxError
from nfox.models.options import LoadedModel
from nfox.models.transformers_target import TransformersTarget
from nfox.reply import Reply, Request
from nfox.reply_stream import ReplyStream
from nfox.serve.cache_pool import CachePool
from nfox.text.resolve import resolve

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
import folder
import tiny

KINDS = ("llama", "mistral", "llama", "bloom", "mamba", "llama", "t5")
"""Kinds of memory: full, with a window, chains only, a recurrent state, an encoder. The first has
weights for all methods.
"""

_CONTEXT = 160  # positions, so that some conversations fill them
_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "äöü", "😀", "?", "\n")
_OPTIONS: dict[str, tuple[dict[str, str], ...]] = {
    "lookup": ({}, {"gamma": "1"}, {"gamma": "6", "ngram": "2"}),
    "jacobi": ({}, {"window": "1"}, {"window": "6", "pool": "2", "ngram": "3"}),
    "spec": ({}, {"gamma": "1"}, {"gamma": "4"}),
    "medusa": ({}, {"tree": "measured"}, {"nodes": "3"}),
    "ctc": ({}, {"collapse": "false"}, {"nodes": "5"}),
    "chimera": ({}, {"nodes": "4"}),
}


@dataclass
class Report:
    """What sessions showed.

    Args:
        counts: of what was done, and of how replies ended.
        wrong: a line for each reply that was not as it must be.
        tokens: that were compared.
        accepted: drafted tokens that were accepted.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    accepted: int = 0

    @property
    def replies(self) -> int:
        """The number of replies that were compared."""
        return sum(n for name, n in self.counts.items() if name.startswith("finish "))


@cache
def load_model(location: str) -> LoadedModel:
    """Load a model in float64."""
    kind = AutoModelForSeq2SeqLM if location.endswith("t5") else AutoModelForCausalLM
    target = TransformersTarget(kind.from_pretrained(location, dtype=torch.float64).eval())
    target.fuse()  # as a model that is loaded by its name
    return LoadedModel(location, target, AutoTokenizer.from_pretrained(location))


class _Loader:
    """Loads the models of an engine."""

    def __init__(self, name: str) -> None:
        self._name = name

    def target(self, adapter: str | None) -> LoadedModel:
        return load_model(self._name)

    def draft(self, location: str) -> LoadedModel:
        return load_model(location)


@cache
def model_folder(kind: str) -> str:
    """Save the tiny model of a kind, with weights beside it for every method that it can have;
    return the folder. Its draft model agrees with it in most places.
    """
    place = Path(tempfile.mkdtemp(prefix="nfox-sessions-")) / kind
    made: dict[str, Callable[[], Path]] = {
        "llama": folder.equipped, "mamba": folder.mamba, "t5": folder.t5
    }  # fmt: skip
    if kind in made:
        shutil.copytree(made[kind](), place)
    else:
        tiny.target(kind, vocab_size=320).model.save_pretrained(place)
        folder.tokenizer().save_pretrained(place)
    if kind not in ("mamba", "t5"):
        model = AutoModelForCausalLM.from_pretrained(place)
        torch.manual_seed(7)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight += 0.03 * weight.std() * torch.randn_like(weight)
        shutil.rmtree(place / "nfox" / "spec", ignore_errors=True)
        model.save_pretrained(place / "nfox" / "spec")
        folder.tokenizer().save_pretrained(place / "nfox" / "spec")
    return str(place)


def make_engine(kind: str) -> Engine:
    """Return an engine of the tiny model of a kind, which has read nothing yet."""
    place = model_folder(kind)
    model = load_model(place)
    template = resolve(model.tokenizer, "plain" if kind == "t5" else None, model_name=place)
    return Engine(
        model,
        template,
        drafting=DrafterSpec(plain_method()),
        max_context=_CONTEXT,
        loader=_Loader(place),
    )


class Session:
    """One random session.

    Args:
        kind: of the model.
        seed: of all that is done.
        report: gets what was found.
    """

    def __init__(self, kind: str, seed: int, report: Report) -> None:
        self.random = random.Random(seed)
        self.engine = engine = make_engine(kind)
        self.report, self.name = report, f"{kind} {seed}"
        self.methods = [plain_method()]
        if engine.model.target.proposals != "nothing":
            self.methods = ready_methods(engine.model.name, engine.sources)
        self.conversations = [Conversation(engine), Conversation(engine, context_policy="drop")]
        self.pool = CachePool(engine.model.target.new_cache, 1 << 20)
        self.texts: list[str] = []  # what the pool's conversations have said so far
        self.change_method()
        self.change_settings()

    def run(self, acts: int) -> None:
        """Do so many things."""
        chances = {
            self.ask: 8, self.ask_again: 3, self.go_on: 3, self.take_back: 2, self.edit: 2,
            self.ask_the_pool: 4, self.change_method: 3, self.change_settings: 3, self.clear: 1,
        }  # fmt: skip
        for act in self.random.choices([*chances], [*chances.values()], k=acts):
            self.report.counts[act.__name__.replace("_", " ")] += 1
            with suppress(NfoxError):  # there is nothing to go on with, or no room any more
                act()

    def change_method(self) -> None:
        """Go on with another method, or with other options."""
        method = self.random.choice(self.methods)
        options = self.random.choice(_OPTIONS.get(method, ({},)))
        self.engine.use(method, options)
        self.report.counts[f"method {method}"] += 1

    def change_settings(self) -> None:
        """Go on with other settings."""
        sampling = Sampling(
            temperature=self.random.choice((0.0, 0.0, 0.7, 1.3)),
            top_k=self.random.choice((0, 0, 20)),
            top_p=self.random.choice((1.0, 1.0, 0.9)),
            repetition_penalty=self.random.choice((1.0, 1.0, 1.2)),
            seed=self.random.randrange(100),
        )
        stop = self.random.choice(((), (), (" ",), ("e", "the q"), ("\ufffd",), (*"aio\xe4",)))
        limit = self.random.randint(1, 10)
        self.engine.use_settings(Settings(sampling=sampling, stop=stop, max_new_tokens=limit))

    def question(self) -> str:
        """Return something to say; sometimes it leaves no room for a reply."""
        length = self.random.choice((1, 2, 4, 4, 40))
        return " ".join(self.random.choices(_WORDS, k=length))

    def ask(self) -> None:
        """Ask a question in one of the conversations."""
        self.read(self.random.choice(self.conversations).send, self.question())

    def ask_again(self) -> None:
        """Have the last question answered again."""
        self.read(self.random.choice(self.conversations).regenerate)

    def go_on(self) -> None:
        """Have a reply continued that was cut."""
        self.read(self.random.choice(self.conversations).go_on)

    def take_back(self) -> None:
        """Undo a question and its reply."""
        self.random.choice(self.conversations).undo()

    def clear(self) -> None:
        """Begin anew, or with another system message."""
        conversation = self.random.choice(self.conversations)
        if self.random.random() < 0.5:
            conversation.reset()
        conversation.system = self.random.choice((None, "be brief"))

    def edit(self) -> None:
        """Change what was said: another reply, one as text only, or fewer messages."""
        conversation = self.random.choice(self.conversations)
        messages = list(conversation.messages)
        if not messages:
            return
        at = self.random.randrange(len(messages))
        role, content = messages[at].role, messages[at].content
        content = self.random.choice((content, content + " fox", "another"))
        messages[at] = Message(role, content)
        conversation.messages = messages[: self.random.randint(at + 1, len(messages))]

    def ask_the_pool(self) -> None:
        """Ask as a server does: a whole conversation, with the cache that fits it best."""
        if self.texts and self.random.random() < 0.3:
            self.texts = self.texts[: 2 * self.random.randrange(len(self.texts) // 2 + 1)]
        texts = [*self.texts, self.question()]
        roles = ("user", "assistant")
        messages = [Message(roles[i % 2], text) for i, text in enumerate(texts)]
        number = self.random.randrange(3)
        request = self.engine.request(messages, self.engine.settings, number=number)
        cache = self.pool.take(request.prompt.ids, request.prompt.encoder_ids)
        drafter = self.engine.make(self.random.choice(self.methods))

        def stream() -> ReplyStream:
            return self.engine.stream(request, cache=cache, drafter=drafter)

        reply = self.read(stream)
        self.pool.add(cache)
        if reply.finish != "interrupt":
            self.texts = [*texts, reply.text]

    def read(self, begin: Callable[..., ReplyStream], *arguments: Any) -> Reply:
        """Read a reply in one of the ways that there are, and compare it."""
        ways = {"whole": 6, "cancelled": 2, "closed": 2, "lost": 1, "interrupted": 3}
        (way,) = self.random.choices([*ways], [*ways.values()])
        self.report.counts[way] += 1
        stream = begin(*arguments)
        self.report.counts["turns left out"] += bool(self.conversations[1].left_out)
        request, reply = stream.request, stream.reply
        updates = self.random.randint(0, 4)
        if way == "interrupted":
            with self.interrupt(self.random.randint(1, 6)), stream:
                stream.read_to_end()
        elif way == "whole":
            stream.read_to_end()
        else:
            for count, _ in enumerate(stream.updates()):
                if count == updates and way == "cancelled":
                    stream.cancel()
                elif count == updates:
                    break
            if way == "closed":
                stream.close()
        del stream
        self.compare(request, reply)
        return reply

    @contextmanager
    def interrupt(self, call: int) -> Iterator[None]:
        """Raise KeyboardInterrupt before or after one of the next forwards, and swallow it."""
        target, left, after = self.engine.model.target, [call], self.random.random() < 0.5

        def interrupted(own: Callable[..., Any]) -> Callable[..., Any]:
            def calls(*arguments: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] == 0 and not after:
                    raise KeyboardInterrupt
                result = own(*arguments, **more)
                if left[0] == 0:
                    raise KeyboardInterrupt
                return result

            return calls

        names = ("score", "read")
        for name in names:
            setattr(target, name, interrupted(getattr(target, name)))
        try:
            with suppress(KeyboardInterrupt):
                yield
        finally:
            for name in names:
                delattr(target, name)

    def compare(self, request: Request, reply: Reply) -> None:
        """Decode a reply again, plainly, and compare the two."""
        self.report.counts[f"finish {reply.finish}"] += 1
        self.report.tokens += len(reply.ids)
        self.report.accepted += reply.stats.accepted
        expected = plain_reply(self.engine, request)
        same = (reply.ids, reply.text, reply.finish) == (
            expected.ids, expected.text, expected.finish
        )  # fmt: skip
        if reply.finish == "interrupt":  # a beginning; the ids may go on to where a text is cut
            unstopped = replace(request, settings=replace(request.settings, stop=()))
            ids = plain_reply(self.engine, unstopped).ids
            same = expected.text.startswith(reply.text.rstrip("\ufffd"))
            same &= ids[: len(reply.ids)] == reply.ids
        if not same:
            self.report.wrong.append(
                f"{self.name}: {reply.method} gave {reply.ids} {reply.text!r} ({reply.finish}), "
                f"plain decoding {expected.ids} {expected.text!r} ({expected.finish})"
            )
        elif not is_greedy(self.engine, request, reply.ids):
            self.report.wrong.append(f"{self.name}: {reply.ids} are not the likeliest tokens")


def plain_reply(engine: Engine, request: Request) -> Reply:
    """Return the reply of plain decoding, from the first token of the prompt on."""
    drafter, cache = engine.make(plain_method()), engine.model.target.new_cache()
    return engine.answer(request, drafter=drafter, cache=cache)


def is_greedy(engine: Engine, request: Request, ids: Sequence[int]) -> bool:
    """Whether the ids are the likeliest of one forward over all of them, if they must be."""
    sampling, prompt = request.settings.sampling, request.prompt
    if sampling.temperature or sampling.repetition_penalty != 1 or not ids:
        return True
    read = {"decoder_input_ids" if prompt.encoder_ids else "input_ids": [*prompt.ids, *ids]}
    read |= {"input_ids": list(prompt.encoder_ids)} if prompt.encoder_ids else {}
    with torch.inference_mode():
        inputs = {name: torch.tensor([values]) for name, values in read.items()}
        logits = engine.model.target.model(**inputs, use_cache=False).logits[0]
    return bool((logits[len(prompt.ids) - 1 : -1].argmax(-1) == torch.tensor(ids)).all())


def run_sessions(seeds: Sequence[int], acts: int, kinds: Sequence[str] = KINDS) -> Report:
    """Run a session for every seed, with one kind of model after the other.

    Args:
        seeds: of the sessions.
        acts: the number of things that are done in each.
        kinds: of models.
    """
    report = Report()
    for seed in seeds:
        Session(kinds[seed % len(kinds)], seed, report).run(acts)
    return report


def main() -> None:
    """Run sessions, and write a summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sessions", type=int, default=660)
    parser.add_argument("--acts", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place
        seeds = range(arguments.seed, arguments.seed + arguments.sessions)
        report = run_sessions(seeds, arguments.acts)
    summary = {
        "command": f"python benchmarks/sessions.py --sessions {arguments.sessions}",
        "nfox": __version__,
        "machine": platform.machine(),
        "sessions": arguments.sessions,
        "replies": report.replies,
        "wrong": len(report.wrong),
        "tokens": report.tokens,
        "accepted": report.accepted,
        "counts": dict(sorted(report.counts.items())),
        "processor_seconds": round(time.process_time() - begin),
    }
    print(json.dumps(summary, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print("\n".join(report.wrong[:20]), file=sys.stderr)
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
