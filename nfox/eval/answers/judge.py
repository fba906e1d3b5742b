"""MT-bench: answers are judged by a model (Zheng et al. 2023, arXiv 2306.05685).

Each turn is rated from 1 to 10, the second one with the whole conversation; or two models' answers
are compared, in both orders, and one wins only if it wins in both. Questions of maths, reasoning
and coding are judged beside a reference answer. Judgments are kept in FastChat's layout.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfox.errors import UsageError
from nfox.eval.answers.judge_prompts import Mode, Prompt
from nfox.eval.answers.mt_bench import Key, Match
from nfox.files.jsonl import append
from nfox.text.template import Message
from nfox.train.data.local_answers import Answerer

Line = dict[str, Any]
UNRATED = -1
"""Score where the judge gave none, as in FastChat."""
UNCLEAR = "error"
"""Winner where the judge named none, as in FastChat."""

_RATINGS = (re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]"), re.compile(r"\[(\d+(?:\.\d+)?)\]"))


def judge(
    todo: Sequence[Match],
    answerer: Answerer,
    name: str,
    out: Path,
    batch: int = 8,
    tell: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Have answers judged, and add each judgment to a file; return why some could not be.

    Args:
        todo: what is judged.
        answerer: the judge.
        name: its name.
        out: the file.
        batch: judgments at a time.
        tell: told how many more are done.
    """
    reasons = []
    for start in range(0, len(todo), batch):
        some = todo[start : start + batch]
        asked = [_messages(match.prompt, text) for match in some for text in match.texts]
        replies = iter(answerer.answer(asked))
        lines = []
        for match in some:
            said = [next(replies) for _ in match.texts]
            if why := next((reply for reply in said if isinstance(reply, str)), None):
                reasons.append(why)
            else:
                texts = [reply.content for reply in said if isinstance(reply, Message)]
                lines.append(_line(match, name, texts))
        if lines:
            append(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        tell(len(some))
    return reasons


def _messages(prompt: Prompt, text: str) -> list[Message]:
    return [Message("system", prompt.system_prompt), Message("user", text)]


def _line(match: Match, name: str, said: Sequence[str]) -> Line:
    """Return a judgment in FastChat's layout."""
    begin: Line = {"question_id": match.question.id}
    judge, system = [name, match.prompt.name], match.prompt.system_prompt
    end = {"turn": match.turn, "tstamp": time.time(), "system_prompt": system}
    if len(match.models) == 1:
        scored = {"user_prompt": match.texts[0], "judgment": said[0], "score": rating(said[0])}
        return {**begin, "model": match.models[0], "judge": judge, **scored, **end}
    places = ("model_1", "model_2")
    return {
        **begin,
        **dict(zip(places, match.models, strict=True)),
        "g1_winner": winner(said[0], *places),
        "g2_winner": winner(said[1], *places[::-1]),
        "judge": judge,
        "g1_user_prompt": match.texts[0],
        "g1_judgment": said[0],
        "g2_user_prompt": match.texts[1],
        "g2_judgment": said[1],
        **end,
    }


def rating(text: str) -> int | float:
    """Return the rating that a judge gives, found as FastChat does; `UNRATED` if it gives none."""
    found = next((found for one in _RATINGS if (found := one.search(text))), None)
    if found is None or not 0 <= float(found[1]) <= 10:
        return UNRATED
    return float(found[1]) if "." in found[1] else int(found[1])


def winner(text: str, a: str, b: str) -> str:
    """Return who wins, found as FastChat does: one of two names, "tie", or `UNCLEAR`."""
    verdicts = {"[[A]]": a, "[[B]]": b, "[[C]]": "tie"}
    return next((who for verdict, who in verdicts.items() if verdict in text), UNCLEAR)


def kept(out: Path, mode: Mode) -> list[Line]:
    """Read the judgments of a file; what stands behind its last whole line is left out.

    Raises:
        UsageError: if it has anything else in it.
    """
    if not out.exists():
        return []
    *whole, rest = out.read_bytes().split(b"\n")
    if rest and (_parsed(rest) is not None or not rest.startswith(b"{")):
        _read(out, len(whole) + 1, rest, mode)  # not what was begun here: it must not be lost
    return [_read(out, number, line, mode) for number, line in enumerate(whole, 1) if line.strip()]


def _read(out: Path, number: int, text: bytes, mode: Mode) -> Line:
    needed = {"question_id", "judge", "turn"}
    needed |= {"model", "score"} if mode == "single" else {"model_1", "model_2", "g1_winner"}
    line = _parsed(text)
    if isinstance(line, dict) and needed <= line.keys():
        return line
    raise UsageError(f"{out}, line {number}: no {mode} judgment", "choose another --out")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def remaining(todo: Iterable[Match], lines: Sequence[Line], name: str, out: Path) -> list[Match]:
    """Return what has not been judged yet.

    Args:
        todo: all that is to be judged.
        lines: of the file.
        name: of the judge.
        out: the file.

    Raises:
        UsageError: if the file has judgments by another judge, or of other answers.
    """
    done = {_key(line): line for line in lines}
    if other := next((line["judge"][0] for line in lines if line["judge"][0] != name), None):
        raise UsageError(f"{out} was judged by {other}, not {name}", "choose another --out")
    left = []
    for match in todo:
        line = done.get(match.key)
        if line is None:
            left.append(match)
            continue
        system = line.get("system_prompt", match.prompt.system_prompt)
        asked = line.get("user_prompt", line.get("g1_user_prompt"))
        if asked not in match.texts or system != match.prompt.system_prompt:
            who, number = " and ".join(match.models), match.question.id
            raise UsageError(
                f"{out}: question {number} of {who} was judged with other words or another answer",
                "choose another --out",
            )
    return left


def _key(line: Line) -> Key:
    models = (line["model"],) if "model" in line else (line["model_1"], line["model_2"])
    return str(line["question_id"]), tuple(sorted(models)), line["turn"]


def scores(lines: Sequence[Line], categories: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every model's mean scores: of all, of each turn, of each category; the best first.

    Args:
        lines: judgments of single answers; those without a rating are counted, not averaged.
        categories: of questions.
    """
    kinds = dict.fromkeys(filter(None, categories.values()))
    found = []
    for model in dict.fromkeys(line["model"] for line in lines):
        own = [line for line in lines if line["model"] == model]
        rated = [line for line in own if line["score"] != UNRATED]
        asked = [categories.get(str(line["question_id"])) for line in rated]
        found.append(
            {
                "model": model,
                "score": _mean(rated),
                "first": _mean(line for line in rated if line["turn"] == 1),
                "second": _mean(line for line in rated if line["turn"] == 2),
                "categories": {
                    kind: _mean(line for line, of in zip(rated, asked, strict=True) if of == kind)
                    for kind in kinds
                },
                "judged": len(own),
                "unrated": len(own) - len(rated),
            }
        )
    return sorted(found, key=lambda row: -(row["score"] or 0.0))


def _mean(lines: Iterable[Line]) -> float | None:
    listed = [line["score"] for line in lines]
    return sum(listed) / len(listed) if listed else None


def wins(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return how often every model wins, loses and ties; the best first.

    A judgment without a verdict in one of its orders is counted apart.

    Args:
        lines: judgments of two models' answers.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        orders = {line["g1_winner"], line["g2_winner"]}
        for place in ("model_1", "model_2"):
            row = found.setdefault(
                line[place],
                {"model": line[place], "wins": 0, "losses": 0, "ties": 0, "unclear": 0},
            )
            agreed = "wins" if orders == {place} else "losses"
            tied = len(orders) > 1 or "tie" in orders
            row["unclear" if UNCLEAR in orders else "ties" if tied else agreed] += 1
    for row in found.values():
        played = row["wins"] + row["losses"] + row["ties"]
        row["win_rate"] = row["wins"] / played if played else None
        row["adjusted"] = (row["wins"] + row["ties"] / 2) / played if played else None
    return sorted(found.values(), key=lambda row: -(row["adjusted"] or 0.0))
