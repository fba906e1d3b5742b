"""A model, a method and a template, ready to talk: what every front end stands on.

`Engine` turns messages into a stream of text in which every piece says where it came from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nfox import drafters
from nfox.decoding.cache import KVCache
from nfox.decoding.costs import Costs
from nfox.decoding.drafter import Drafter
from nfox.decoding.generate import Step, generate
from nfox.drafters.common.method import DrafterInputs, WeightSources
from nfox.errors import ContextError, UsageError
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel
from nfox.reply import Reply, Settings, Update
from nfox.text.stream import Piece, TextStream, spelled
from nfox.text.template import Message, Template


class Engine:
    """Answers lists of messages. What two of them have in common is read once.

    Args:
        model: the target.
        template: renders messages to token ids.
        method: None takes the best one whose needs are met.
        options: of the method, as texts.
        settings: for all replies, until changed.
        max_context: positions to use at most.
        costs: of forwards over several tokens, if measured.
        system: the person's own system message, for a template that is chosen later.
        places: where weights of methods were said to be.
        load_draft: loads a draft model.
        load_target: loads the target again, with the adapter that it is given or with none.

    Attributes:
        method: name of the method in use.
        why: why this one, in a few words.
        drafter: what guesses.
        reply: the last or current reply.
    """

    def __init__(
        self,
        model: LoadedModel,
        template: Template,
        *,
        method: str | None = None,
        options: dict[str, str] | None = None,
        settings: Settings | None = None,
        max_context: int | None = None,
        costs: Costs | None = None,
        system: str | None = None,
        places: WeightSources | None = None,
        load_draft: Callable[[str], LoadedModel] = load_model,
        load_target: Callable[[str | None], LoadedModel] | None = None,
    ) -> None:
        self.model = model
        self.template = template
        self.settings = settings or Settings()
        self.max_context = min(max_context or model.target.max_context, model.target.max_context)
        self.costs = costs
        self.system = system
        self.places = places or WeightSources()
        self._parts = DrafterInputs(model, costs, load=load_draft, hub=self.places.hub)
        self._load_target = load_target
        self.stop_ids = stop_ids(model, template)
        self.cache: KVCache = model.target.new_cache()
        self.replies = 0
        self.reply = Reply("")
        self._cancelled = threading.Event()
        self.method, self.why = "", ""
        self.drafter: Drafter
        self.use(method, options)

    def use(self, name: str | None = None, options: dict[str, str] | None = None) -> None:
        """Change the method; the cache stays.

        Args:
            name: of the method; None takes the best one whose needs are met.
            options: of the method, as texts.

        Raises:
            NfoxError: if the method is unknown, does not fit, or lacks what it needs.
        """
        best = (name, "as asked for") if name else drafters.best(self.model, self.places)
        self.drafter = self.make(best[0], options)
        self.method, self.why = best
        self._options = options or {}

    def make(self, name: str, options: dict[str, str] | None = None) -> Drafter:
        """Make the drafter of a method for this target, without using it.

        Args:
            name: of the method.
            options: of the method, as texts.

        Raises:
            NfoxError: if the method is unknown, does not fit, or lacks what it needs.
        """
        return drafters.build(name, options or {}, self._parts, self.places)

    def adapt(self, adapter: str | None) -> None:
        """Change the target's adapter, which makes another target of it: the cache starts anew.

        The target is loaded again: taking an adapter out of rounded weights leaves traces. Both are
        in memory for a moment. Where anything fails, all stays as it was.

        Args:
            adapter: see `ModelOptions.adapter`; None for the model as it is.

        Raises:
            NfoxError: if it cannot be loaded, or does not fit.
        """
        if self._load_target is None:
            raise UsageError("this model was not loaded by name, so it cannot be loaded again")
        model = self._load_target(adapter)
        inputs = replace(self._parts, model=model)
        self.drafter = drafters.build(self.method, self._options, inputs, self.places)
        self.model, self._parts = model, inputs
        self.cache = model.target.new_cache()

    def set_template(self, template: Template) -> None:
        """Change the template, and with it what ends a reply."""
        self.template = template
        self.stop_ids = stop_ids(self.model, template)

    def cancel(self) -> None:
        """End the current reply after its current forward; what it said so far is kept."""
        self._cancelled.set()

    def stream(self, messages: Sequence[Message | dict[str, str]]) -> Iterator[Piece]:
        """Answer messages; yield the reply's text piece by piece.

        Args:
            messages: the conversation, `Message`s or {"role": ..., "content": ...}.

        Raises:
            ContextError: if they do not fit into the context.
        """
        for update in self.updates(messages):
            yield from update.pieces

    def updates(self, messages: Sequence[Message | dict[str, str]]) -> Generator[Update]:
        """Answer messages; yield what every step adds. The reply grows in `self.reply`.

        Args:
            messages: the conversation, `Message`s or {"role": ..., "content": ...}. One that ends
                with an assistant's is continued there; the reply is then what is new.

        Raises:
            ContextError: if they do not fit into the context.
        """
        asked = [
            m if isinstance(m, Message) else Message(m["role"], m["content"]) for m in messages
        ]
        self._cancelled.clear()
        self.reply = Reply(self.method)
        prompt, source = self.encode(asked)
        begun = prompt if [m.role for m in asked[-1:]] == ["assistant"] else []
        yield from self.decode(
            prompt,
            begun,
            source,
            stop_strings=self.template.stop_strings,
            stop=self._cancelled.is_set,
        )

    def decode(
        self,
        prompt: Sequence[int],
        begun: Sequence[int] = (),
        source: tuple[int, ...] | None = None,
        *,
        stop_strings: Sequence[str] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Update]:
        """Decode what follows token ids; yield what every step adds, in `self.reply` too.

        Args:
            prompt: what has been said, at least one token.
            begun: its last tokens, where the text goes on from theirs instead of starting anew.
            source: what the encoder reads, for encoder-decoder models.
            stop_strings: that end the reply, besides those of the settings.
            stop: asked before every forward; True ends the reply.

        Raises:
            ContextError: if the prompt does not fit into the context.
        """
        reply = self.reply = Reply(self.method)
        stops = (*stop_strings, *self.settings.stop)
        text = TextStream(self.model.tokenizer, stops, begun, trim=not begun)
        try:
            for step in self._steps(prompt, source, reply, stop):
                pieces = self._take(step, reply, text)
                reply.finish = "stop" if text.stopped else step.finish or "interrupt"
                yield Update(tuple(pieces), step)
                if text.stopped:
                    break
            rest = text.finish()
            reply.text = text.text
            if rest:
                yield Update(tuple(rest), None)
        finally:
            text.finish()
            close(self.model.tokenizer, reply, text, begun)

    def _steps(
        self,
        prompt: Sequence[int],
        source: tuple[int, ...] | None,
        reply: Reply,
        stop: Callable[[], bool],
    ) -> Iterator[Step]:
        """Run the loop over a prompt; note what reading it took."""
        settings, stats = self.settings, reply.stats
        rule = settings.rule(self.replies)
        self.replies += 1
        stats.cached_tokens = self.cache.reuse(prompt, source)
        steps = generate(
            self.model.target,
            self.drafter,
            prompt,
            cache=self.cache,
            rule=rule,
            max_tokens=settings.max_new_tokens,
            stop_ids=self.stop_ids,
            source=source,
            max_context=self.max_context,
            stop=stop,
            keep_logits=settings.keep_logits,
        )
        stats.prompt_tokens = len(prompt)
        start = time.perf_counter()
        for index, step in enumerate(steps):
            if index == 0:
                stats.prefill_seconds = time.perf_counter() - start - step.seconds.total
            yield step

    def encode(self, messages: Sequence[Message]) -> tuple[list[int], tuple[int, ...] | None]:
        """Return the token ids that the target reads, and those that its encoder reads, if any.

        Raises:
            ContextError: if the encoder cannot read so many.
        """
        if not self.model.target.is_encoder_decoder:
            return self.template.encode(self.model.tokenizer, messages), None
        tokenize, question, ids = self.model.tokenizer, messages[-1], None
        if question.role == "assistant":
            if len(messages) == 1:
                raise UsageError("there is no question before the reply", "ask one")
            begun, question = question, messages[-2]
            ids = begun.ids or tokenize(begun.content, add_special_tokens=False).input_ids
        # An encoder reads the last question alone, as the model was trained.
        source = tokenize(question.content).input_ids
        if not source:
            raise UsageError("the question has no tokens", "say something")
        if len(source) > self.max_context:
            raise ContextError(f"the text has {len(source)} tokens, more than {self.max_context}")
        return [self.model.target.decoder_start_token, *(ids or ())], tuple(source)

    def _take(self, step: Step, reply: Reply, text: TextStream) -> list[Piece]:
        """Add a step's tokens to the reply; return the text they complete."""
        pieces: list[Piece] = []
        count = 0
        for token, source in zip(step.tokens, step.sources, strict=True):
            count += 1
            if token in self.stop_ids:
                break
            reply.ids.append(token)
            pieces += text.push(token, source, reply.stats.steps)
            if text.stopped:
                break
        reply.stats.add(step, count)
        reply.text = text.text
        return pieces


def close(tokenizer: Any, reply: Reply, text: TextStream, begun: Sequence[int] = ()) -> None:
    """Make a reply's ids and text agree: a stop string belongs to neither.

    Args:
        tokenizer: of the model.
        reply: that is complete.
        text: of it.
        begun: tokens that it goes on from.
    """
    reply.text = text.text
    if not text.stopped:
        return
    before = spelled(tokenizer, begun)

    def said() -> str:
        whole = spelled(tokenizer, [*begun, *reply.ids])[len(before) :]
        return whole if begun else whole.removeprefix(" ")

    while reply.ids and len(said()) > len(text.text):
        reply.ids.pop()
    if said() != text.text:
        reply.ids = []  # the cut is inside a token: the text will be tokenised again


def stop_ids(model: LoadedModel, template: Template) -> frozenset[int]:
    """Return all tokens that end a reply: of the model's generation config, tokenizer, template."""
    generation = model.target.model.generation_config.eos_token_id
    listed = generation if isinstance(generation, list) else [generation]
    own = getattr(model.tokenizer, "eos_token_id", None)
    return frozenset(token for token in (*listed, own, *template.stop_ids) if token is not None)
