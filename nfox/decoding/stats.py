"""Counts and times of one reply, by the definitions that vLLM and llama.cpp use too."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfox.decoding.generate import Step

DEFINITIONS = {
    "steps": "target forwards after prefill; each scores one tree",
    "tau": "mean acceptance length: tokens emitted / steps, bonus and first token included",
    "tokens/s": "tokens emitted / time of the steps after prefill; drawing the text is not in it",
    "acceptance": "accepted tokens / drafted tokens; small by construction for wide trees",
    "by depth": "of the steps that drafted that deep, the share that accepted that deep",
    "TTFT": "time to first token: prefill and the first step",
    "prefill": "prompt tokens that had to be read, without those the cache still held",
    "speed-up": "tokens/s against this program's own plain decoding (--method none), same prompt",
}


@dataclass
class Stats:
    """What happened in one reply; grows with every step.

    Args:
        prompt_tokens: of the whole prompt.
        cached_tokens: of these, how many the cache still held.
        prefill_seconds: for reading the others.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    first_token_seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0
    draft_seconds: float = 0.0
    target_seconds: float = 0.0
    verify_seconds: float = 0.0
    cache_seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)

    def add(self, step: Step, emitted: int | None = None) -> None:
        """Count a step.

        Args:
            step: what the loop yielded.
            emitted: how many of its tokens count, if a stop string cut it short.
        """
        count = len(step.tokens) if emitted is None else emitted
        accepted = sum(source == "accepted" for source in step.sources[:count])
        self.steps += 1
        self.tokens += count
        self.lengths.append(count)
        self.drafted += len(step.tree) - 1
        self.accepted += accepted
        self.seconds += step.seconds.total
        self.draft_seconds += step.seconds.draft
        self.target_seconds += step.seconds.target
        self.verify_seconds += step.seconds.verify
        self.cache_seconds += step.seconds.cache
        if self.steps == 1:
            self.first_token_seconds = self.prefill_seconds + step.seconds.total
        for depth in range(max(step.tree.depths)):
            if depth == len(self.tried):
                self.tried.append(0)
                self.reached.append(0)
            self.tried[depth] += 1
            self.reached[depth] += depth < accepted

    @property
    def tau(self) -> float:
        """Mean acceptance length: tokens per step."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, without prefill."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def acceptance_by_depth(self) -> list[float]:
        """Of the steps that drafted so deep, the share that accepted so deep; depth 1 first."""
        return [hit / tries for hit, tries in zip(self.reached, self.tried, strict=True)]

    @property
    def host_seconds(self) -> float:
        """The loop's own time: neither drafting nor the target's forwards."""
        return self.seconds - self.draft_seconds - self.target_seconds

    def timings(self) -> dict[str, float]:
        """Return the times under llama.cpp's names."""
        return {
            "prompt_n": self.prompt_tokens - self.cached_tokens,
            "prompt_ms": round(self.prefill_seconds * 1e3, 3),
            "predicted_n": self.tokens,
            "predicted_ms": round(self.seconds * 1e3, 3),
            "predicted_per_second": round(self.tokens_per_second, 3),
        }

    def spec(self, method: str) -> dict[str, object]:
        """Return what speculation did, as it goes into JSON."""
        return {
            "method": method,
            "steps": self.steps,
            "mean_acceptance_length": round(self.tau, 4),
            "drafted": self.drafted,
            "accepted": self.accepted,
            "acceptance_by_depth": [round(rate, 4) for rate in self.acceptance_by_depth],
        }
