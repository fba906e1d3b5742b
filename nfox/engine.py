"""A model, a method and a template: the engine that every front end stands on.

`Engine` turns messages into a stream of text in which every piece says where it came from.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch

from nfox import drafters
from nfox.decoding.cache import KVCache
from nfox.decoding.costs import Costs, context_slowdown
from nfox.decoding.generate import Limits, Prompt, generate
from nfox.decoding.running_costs import RunningCosts
from nfox.decoding.threads import ThreadChoice
from nfox.drafters.common.method import DrafterInputs, DrafterSpec, Method
from nfox.engine_summary import EngineSummary
from nfox.errors import UsageError
from nfox.model_loader import ModelLoader
from nfox.models.loading import load_model
from nfox.models.options import LoadedModel
from nfox.models.prompt import encode_prompt, stop_ids_of, stop_tokens
from nfox.reply import Reply, Request, Settings, Update
from nfox.reply_stream import ReplyStream
from nfox.reply_text import timed, to_updates
from nfox.text.messages import Message, Messages, as_messages
from nfox.text.resolve import resolve
from nfox.text.template import Template
from nfox.text.thinking import Think

_FREED = ("model", "drafter", "cache", "_inputs", "loader", "_costs")
"""What `Engine.close` gives back: all that holds weights or cached states."""


class _Closed(UsageError, AttributeError):
    """A closed engine has no model any more."""


ASKED_FOR = "as asked for"
"""Why a method is the one in use, where it was named."""


class Engine:
    """Answers conversations, one reply at a time. What two of them have in common is read once.

    Leaving a `with` block, or `close`, frees the memory of its models.

    Args:
        model: the target.
        template: renders messages to token ids.
        drafting: the method, its options, and where weights are; by default the method that
            chooses as it goes from those whose needs are met.
        settings: for all replies, unless a reply has its own.
        max_context: the most positions to use; None for all that the target has.
        costs: of target forwards over several tokens; None if they were not measured.
        threads: chooses how many threads the target has; None leaves that as it is.
        system: the person's own system message, for a template that is chosen later.
        loader: loads draft models, and the target again with another adapter.

    Attributes:
        model: the target.
        template: renders messages to token ids.
        settings: for all replies, unless a reply has its own.
        stop_ids: all tokens that end a reply.
        method: the name of the method in use.
        why: why it is this one, in a few words.
        drafter: the method's drafter; a `Method` is a `Drafter` that says what it needs.
        sources: where the person said that weights are.
        cache: what the target has read.
        loader: loads draft models, and the target again; None if it was not loaded by name.
    """

    def __init__(
        self,
        model: LoadedModel,
        template: Template,
        *,
        drafting: DrafterSpec | None = None,
        settings: Settings | None = None,
        max_context: int | None = None,
        costs: Costs | None = None,
        threads: ThreadChoice | None = None,
        system: str | None = None,
        loader: ModelLoader | None = None,
    ) -> None:
        drafting = drafting or DrafterSpec()
        self.model = model
        self.template = template
        self.settings = settings or Settings()
        self.max_context = min(max_context or model.target.max_context, model.target.max_context)
        self._costs = RunningCosts(costs, model.target, threads) if costs else None
        self.system = system
        self.stop_ids = stop_ids_of(model, template)
        # One for all replies: each thread has a team of its own for the work of a forward.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self.cache: KVCache = model.target.new_cache()
        self.method, self.why = "", ""
        self.drafter: Method
        self.loader = loader
        self.sources = drafting.sources
        load_draft = loader.draft if loader else load_model
        self._inputs = DrafterInputs(model, costs, load=load_draft, hub=drafting.sources.hub)
        self._replies = 0
        self._answering = threading.Lock()
        self.use(drafting.method, drafting.options)

    @property
    def costs(self) -> Costs | None:
        """What target forwards cost now, by their width; None if that was not measured."""
        return self._costs.now if self._costs else None

    @property
    def costs_at_load(self) -> Costs | None:
        """What target forwards cost when the model was loaded; None if that was not measured."""
        return self._costs.at_load if self._costs else None

    def context_slowdown(self) -> float:
        """Return how many times as long a forward over one token takes after what the cache holds
        as after a few tokens, measured now, between replies.
        """
        return context_slowdown(self.model.target, self.cache)

    @property
    def threads(self) -> ThreadChoice | None:
        """What chooses how many threads the target has; None if nothing does."""
        return self._costs.threads if self._costs else None

    def use(self, method: str | None = None, options: Mapping[str, str] | None = None) -> None:
        """Change the method; the cache stays.

        Args:
            method: its name; None chooses as it goes from those whose needs are met.
            options: of the method, as texts.

        Raises:
            NfoxError: if the method is unknown, does not fit, or lacks what it needs.
        """
        why = ASKED_FOR
        if not method:
            method, why = drafters.choose_method(self.model, self.sources, options or ())
        drafter = self.make(method, options)
        if self._costs:  # now, so that it says of itself what it will do
            self._costs.plan(drafter)
        self.drafter, self.method, self.why = drafter, method, why
        self._options = dict(options or {})

    def make(self, method: str, options: Mapping[str, str] | None = None) -> Method:
        """Return a drafter for this target, without using it.

        Args:
            method: its name.
            options: of the method, as texts.

        Raises:
            NfoxError: if the method is unknown, does not fit, or lacks what it needs.
        """
        return self._build(method, options or {}, replace(self._inputs, costs=self.costs))

    def _build(self, method: str, options: Mapping[str, str], inputs: DrafterInputs) -> Method:
        """Return a drafter that is built from these inputs, with the costs as they are."""
        drafter = drafters.build_drafter(method, dict(options), inputs, self.sources)
        if self._costs:
            self._costs.built(drafter)
        return drafter

    def adapt(self, adapter: str | None) -> None:
        """Change the target's adapter, which makes another target of it: the cache starts anew. An
        adapter may bring a tokenizer of its own, and with it the template.

        The target is loaded again: taking an adapter out of rounded weights leaves traces. Both are
        in memory for a moment. Where anything fails, all stays as it was.

        Args:
            adapter: as in `ModelOptions`; None for the model as it is.

        Raises:
            NfoxError: if it cannot be loaded, or does not fit.
        """
        if self.loader is None:
            raise UsageError("this model was not loaded by name, so it cannot be loaded again")
        model, template = self.loader.target(adapter), self.template
        if template.origin == "tokenizer":
            name = None if template.name == "tokenizer" else template.name
            template = resolve(model.tokenizer, name, model_name=model.name, system=self.system)
        inputs = replace(self._inputs, model=model, costs=self.costs)
        stop_ids = stop_ids_of(model, template)
        self.drafter = self._build(self.method, self._options, inputs)
        self.model, self._inputs = model, inputs
        if self._costs:
            self._costs.use_target(model.target)
        self.cache = model.target.new_cache()
        self.template, self.stop_ids = template, stop_ids

    def use_template(self, template: Template) -> None:
        """Change the template, and with it what ends a reply."""
        self.template = template
        self.stop_ids = stop_ids_of(self.model, template)

    def use_settings(self, settings: Settings) -> None:
        """Change the settings of all replies to come that have none of their own."""
        self.settings = settings

    def request(
        self,
        messages: Messages | Prompt,
        settings: Settings | None = None,
        *,
        number: int | None = None,
    ) -> Request:
        """Return what answering a conversation takes, as `stream` does it.

        Args:
            messages: the conversation, or what `encode` made of it. One that ends with an
                assistant's message is continued there; the reply is then what is new.
            settings: of this reply; None for the engine's.
            number: of the reply, which with the seed fixes the noise; None counts on.

        Raises:
            ContextError: if the conversation does not fit into the context.
            UsageError: if it is not one, or the template refuses it.
        """
        settings = settings or self.settings
        if not isinstance(messages, Prompt):
            messages = self.encode(as_messages(messages), settings.think)
        messages.check(self.max_context, self.model.target.vocabulary_size)
        if number is None:
            number = self._replies
            self._replies += 1
        stop_strings = self.template.stop_strings
        return Request(messages, settings, number, stop_strings, frozenset(self.stop_ids))

    def stream(
        self,
        messages: Messages | Request,
        *,
        drafter: Method | None = None,
        cache: KVCache | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_end: Callable[[Reply], None] | None = None,
        **changes: Any,
    ) -> ReplyStream:
        """Answer a conversation; return an iterator over the pieces of the reply's text.

        An engine gives one reply at a time: the first step of a second one is refused until the
        first is read to its end, closed or lost.

        Args:
            messages: the conversation as a string, as messages, or as a `Request`.
            drafter: what drafts; by default the engine's method.
            cache: what the target has read; by default the engine's own cache.
            cancelled: asked before every forward; True ends the reply there.
            on_end: called once, with the reply, when it has ended, in whatever way.
            changes: of the settings for this reply, such as `max_new_tokens=40`, `temperature=0.7`,
                `seed=1`.

        Raises:
            ContextError: if the conversation does not fit into the context.
            UsageError: if an argument is of another kind than expected.
        """
        if isinstance(messages, Request):
            request = replace(messages, settings=messages.settings.changed(**changes))
        else:
            request = self.request(messages, self.settings.changed(**changes))
        drafter, cache = drafter or self.drafter, self.cache if cache is None else cache
        reply, stop = Reply(drafter.method_name()), threading.Event()

        def over() -> bool:
            return stop.is_set() or bool(cancelled and cancelled())

        updates = self._exclusively(self._updates(request, reply, drafter, cache, over), drafter)
        return ReplyStream(request, reply, updates, stop, self._thread, on_end)

    def answer(self, messages: Messages | Request, **changes: Any) -> Reply:
        """Answer a conversation; return the whole reply.

        Args:
            messages: as for `stream`.
            changes: of the settings for this reply, and the other arguments of `stream`.

        Raises:
            NfoxError: as `stream` does.
        """
        return self.stream(messages, **changes).read_to_end()

    def answer_all(self, conversations: Iterable[Messages], **changes: Any) -> list[Reply]:
        """Answer several conversations, one after the other; return their replies.

        A reply depends on its conversation and its place among them, not on the others.

        Args:
            conversations: each a string or a list of messages.
            changes: of the settings for these replies.

        Raises:
            NfoxError: as `stream` does.
        """
        if isinstance(conversations, str | Message | Mapping) or not isinstance(
            conversations, Iterable
        ):
            raise UsageError("answer_all takes several conversations", "put them into a list")
        several = list(conversations)
        if any(isinstance(one, Message | Mapping) for one in several):
            raise UsageError(
                "answer_all cannot tell whether these are one conversation or several",
                "write each conversation as a string or as a list of messages",
            )
        settings = self.settings.changed(**changes)
        # All of them first: what is wrong with the last is told before the first is answered.
        requests = [self.request(one, settings, number=n) for n, one in enumerate(several)]
        return [self.answer(request) for request in requests]

    def encode(self, messages: list[Message], think: Think | None = None) -> Prompt:
        """Return the token ids that answering a conversation begins with.

        Args:
            messages: the conversation.
            think: whether the model is told to think; None for the engine's setting.

        Raises:
            UsageError: if there is nothing to answer.
        """
        template = self.template.told(think or self.settings.think)
        return encode_prompt(self.model, template, messages)

    def summary(self) -> EngineSummary:
        """Return which model answers, by which method and template, and where."""
        return EngineSummary(
            model=self.model.name,
            adapter=self.model.adapter,
            method=self.method,
            why=self.why,
            drafter=self.drafter.describe(),
            template=self.template.name,
            dtype=self.model.target.numbers,
            device=str(self.model.target.device),
            max_context=self.max_context,
            lossless=self.settings.lossless,
            reproducible=self.model.target.is_native and self.settings.accept == "exact",
        )

    def close(self) -> None:
        """Free the memory of the models and caches, where no stream is open. The engine answers
        nothing after it.
        """
        for name in _FREED:
            self.__dict__.pop(name, None)
        self._thread.shutdown(wait=False)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say what was done where a closed engine is used."""
            if name in _FREED:
                raise _Closed("this engine was closed", "load another one: nfox.load(...)")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _updates(
        self,
        request: Request,
        reply: Reply,
        drafter: Method,
        cache: KVCache,
        cancelled: Callable[[], bool],
    ) -> Iterator[Update]:
        """Return what every step will add to a reply, with the engine as it is now."""
        settings, stop_ids = request.settings, self.stop_ids_of(request)
        steps = generate(
            self.model.target,
            drafter,
            request.prompt,
            cache=cache,
            rule=settings.rule(request.number),
            limits=Limits(settings.max_new_tokens, self.max_context, stop_ids),
            cancelled=cancelled,
            keep_logits=settings.keep_logits,
        )
        steps = timed(steps, request.prompt, cache, reply)
        if self._costs:
            steps = self._costs.observed(steps)
        return to_updates(steps, self.model.tokenizer, request, reply, stop_ids)

    def stop_ids_of(self, request: Request) -> frozenset[int]:
        """Return the ids of the tokens that end a reply to a request."""
        own = self.stop_ids if request.stop_ids is None else request.stop_ids
        return own | stop_tokens(self.model.tokenizer, request.settings.stop)

    def _exclusively(self, updates: Iterator[Update], drafter: Method) -> Generator[Update]:
        """Yield the updates of a reply, while this engine gives no other one; before, let what
        drafts plan anew where the costs are others.
        """
        if not self._answering.acquire(blocking=False):
            raise UsageError(
                "this engine is giving another reply already",
                "read that stream to its end or close it; answer_all gives several, in turn",
            )
        try:
            if self._costs:
                self._costs.plan(drafter)
            yield from updates
        finally:
            self._answering.release()
