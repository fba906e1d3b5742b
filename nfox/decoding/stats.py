"""Counts and times of one reply. Its times are those of llama.cpp's server; vLLM counts only steps
that drafted, so its acceptance length is no smaller, and its rates by depth no larger, than here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfox.decoding.generate import Step

DEFINITIONS = {
    "steps": "forwards of the model after prefill; each checks all guesses of the step at once",
    "tau": "tokens emitted / steps, the model's own token of each step included",
    "tokens/s": "tokens emitted / time of the steps after prefill; drawing the text is not in it",
    "accepted": "accepted tokens / drafted (guessed) tokens; small where many stand side by side",
    "TTFT": "time to first token: prefill and the first step",
    "prefill": "reading the prompt, without the tokens that the cache still held",
    "by depth": "of the steps that drafted so many tokens ahead, the share that accepted so many",
    "drafting": "making the guesses",
    "forward": "running the model over the last token and the guesses of a step",
    "checking": "comparing the guesses with what the model says",
    "cache": "keeping the model's state for what was accepted",
    "thought": "tokens inside <think>, and their share of the time after prefill",
    "speed-up": "tokens/s against this program's own plain decoding (--method none), same prompt",
}


@dataclass
class Stats:
    """Counts and times of one reply; they grow with every step.

    Args:
        prompt_tokens: the tokens of the whole prompt.
        cached_tokens: how many of these the cache still held.
        prefill_seconds: what reading the other ones took.
        first_token_seconds: from the start of the prefill to the end of the first step.
        steps: target forwards after prefill.
        tokens: emitted in these steps.
        drafted: nodes of all trees, without their roots.
        accepted: drafted tokens that were emitted.
        thought_tokens: emitted inside what the model thinks before it answers.
        thought_seconds: their share of the steps' time.
        seconds: of all steps; the next four are parts of it.
        draft_seconds: what the drafter took.
        target_seconds: what the target's forwards took.
        verify_seconds: what judging the trees took.
        cache_seconds: what committing the accepted tokens took.
        lengths: the tokens that each step emitted.
        reached: by depth, from 1: how many steps accepted so deep.
        tried: by depth, from 1: how many steps drafted so deep.
        choices: by what the drafter chose to draft with, how many steps; empty if it has no choice.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    first_token_seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    thought_tokens: int = 0
    thought_seconds: float = 0.0
    seconds: float = 0.0
    draft_seconds: float = 0.0
    target_seconds: float = 0.0
    verify_seconds: float = 0.0
    cache_seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    choices: dict[str, int] = field(default_factory=dict)

    def add(self, step: Step, emitted: int | None = None, thought: int = 0) -> None:
        """Add the counts and times of a step.

        Args:
            step: what the loop yielded.
            emitted: how many of its tokens count, if a stop string cut it short; by default all.
            thought: how many of these the model thought before it answers.
        """
        count = len(step.tokens) if emitted is None else emitted
        accepted = sum(source == "accepted" for source in step.sources[:count])
        self.steps += 1
        self.tokens += count
        self.lengths.append(count)
        self.drafted += len(step.tree) - 1
        self.accepted += accepted
        self.seconds += step.times.total
        self.thought_tokens += thought
        self.thought_seconds += step.times.total * thought / max(count, 1)
        self.draft_seconds += step.times.draft
        self.target_seconds += step.times.target
        self.verify_seconds += step.times.verify
        self.cache_seconds += step.times.cache
        if self.steps == 1:
            self.first_token_seconds = self.prefill_seconds + step.times.total
        if step.choice:
            self.choices[step.choice] = self.choices.get(step.choice, 0) + 1
        for depth in range(max(step.tree.depths)):
            if depth == len(self.tried):
                self.tried.append(0)
                self.reached.append(0)
            self.tried[depth] += 1
            self.reached[depth] += depth < accepted

    @property
    def tau(self) -> float:
        """The mean acceptance length: tokens per step; 0 before the first step."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def tokens_per_second(self) -> float:
        """The decoding speed, without prefill; 0 before the first step."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def acceptance_by_depth(self) -> list[float]:
        """Of the steps that drafted so deep, the share that accepted so deep; depth 1 first."""
        depths = zip(self.reached, self.tried, strict=True)
        return [reached / tried for reached, tried in depths]

    @property
    def host_seconds(self) -> float:
        """The loop's own seconds: neither drafting nor the target's forwards."""
        return self.seconds - self.draft_seconds - self.target_seconds

    def timings(self) -> dict[str, float]:
        """Return counts and milliseconds of prefill and decoding, under llama.cpp's names."""
        return {
            "prompt_n": self.prompt_tokens - self.cached_tokens,
            "prompt_ms": round(self.prefill_seconds * 1e3, 3),
            "predicted_n": self.tokens,
            "predicted_ms": round(self.seconds * 1e3, 3),
            "predicted_per_second": round(self.tokens_per_second, 3),
        }

    def spec(self, method: str) -> dict[str, object]:
        """Return what speculation did, as JSON output has it.

        Args:
            method: the name of the drafter's method.
        """
        choices = {"choices": dict(self.choices)} if self.choices else {}
        return {
            "method": method,
            "steps": self.steps,
            "mean_acceptance_length": round(self.tau, 4),
            "drafted": self.drafted,
            "accepted": self.accepted,
            "acceptance_by_depth": [round(rate, 4) for rate in self.acceptance_by_depth],
            **choices,
        }
