"""Files that no program wrote: none may hang, be taken for right, or raise what nobody can read.

    python benchmarks/mutations.py --count 10000

Of every kind of file that nfox reads there is a whole one, of which values, lines or bytes are
changed. Each is read as the commands read it. It is refused in one line, or what is made of it
decodes to the text of plain decoding.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mutation_samples
import small_model
from changes import (
    any_of,
    change_beginning,
    change_json,
    change_lines,
    change_source,
    change_template,
    change_tensors,
    change_toml,
    change_yaml,
    damage,
)

from nfox import Conversation, Engine, Message, ModelOptions, NfoxError, Settings
from nfox.drafters.common.method import DrafterSpec, WeightSources
from nfox.files.hub import HubOptions
from nfox.models.loading import load_model
from nfox.text.resolve import resolve

_SECONDS = 60.0  # that a file may take
_LOADING = ModelOptions(dtype="float32", offline=True)
Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        file: the path of a whole one, below the folder of all samples.
        change: changes its bytes.
        read: reads it as the commands do; returns what is wrong with what was made of it, or "".
        beside: the paths of files that reading may change.
        named: whether every error names the file; others name a setting or a template in it.
        share: how many are read for one of other kinds; models take their time.
    """

    file: str
    change: Change
    read: Callable[[], str]
    beside: tuple[str, ...] = ()
    named: bool = True
    share: float = 1.0


@dataclass
class Outcome:
    """What became of changed files.

    Args:
        accepted: the number of files that were read, by kind.
        refused: the number of those that were refused in one line, by kind.
        wrong: a line for each that was not treated as it must be.
    """

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class _HangError(BaseException):
    pass


class Samples:
    """Whole files of all kinds in a folder, and how each is read.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        small_model.save(folder / "model", context=128)
        self._model = load_model(str(folder / "model"), _LOADING)
        self._template = resolve(self._model.tokenizer, None)
        self.engine = self._engine("lookup")
        mutation_samples.write(folder, self.engine)

    def kinds(self) -> dict[str, Kind]:
        """Return every kind by its name."""
        as_json, as_lines = any_of(change_json), any_of(change_lines)
        heads = {"heads/drafter.json": as_json, "heads/heads.safetensors": change_tensors,
                 "medusa/config.json": as_json, "medusa/medusa_lm_head.pt": damage}  # fmt: skip
        names = ("config", "generation_config", "tokenizer_config", "tokenizer")
        models = {**dict.fromkeys([f"{name}.json" for name in names], as_json),
                  "chat_template.jinja": change_template,
                  "model.safetensors": change_tensors}  # fmt: skip
        adapters = {"adapter_config.json": as_json, "adapter_model.safetensors": change_tensors}
        kinds = {
            "conversation": Kind("chat.json", as_json, self._conversation),
            "prompts": Kind("prompts.jsonl", as_lines, self._prompts),
            "training data": Kind("data.json", as_json, self._training_data, named=False),
            "training lines": Kind("data.jsonl", as_lines, self._training_lines, named=False),
            "tables": Kind("tables.json", as_json, self._tables),
            "trajectories": Kind("trajectories.jsonl", as_lines, self._trajectories),
            "questions": Kind("spec-bench.jsonl", as_lines, self._questions),
            "tree": Kind("tree.json", as_json, self._tree),
            "template": Kind(
                "template.json", any_of(change_json, change_source), self._jinja, named=False
            ),
            "FastChat's template": Kind("fastchat.json", as_json, self._fastchat, named=False),
            "provenance": Kind("out.jsonl.provenance.json", as_json, self._provenance, _OUT),
            "answers": Kind("out.jsonl", as_lines, self._answers, _OUT),
            "result": Kind("result.json", as_json, self._result),
            "baseline": Kind("baseline.json", as_json, self._baseline, named=False),
            "trials": Kind("result.json.trials", as_lines, self._trials),
            "settings": Kind(
                "settings.yaml", any_of(change_json, change_yaml), self._settings, named=False
            ),
            "options": Kind("options.toml", any_of(change_toml), self._options),
            "events": Kind("events.jsonl", as_lines, self._events),
            "checkpoint": Kind("checkpoint-1/trainer_state.json", as_json, self._checkpoint),
        }
        for file, change in heads.items():
            kinds[file] = Kind(file, change, self._heads(file.partition("/")[0]), share=0.25)
        for file, change in models.items():
            kinds[file] = Kind(f"model/{file}", change, self._loaded, named=False, share=0.1)
        kinds["index"] = Kind(
            "shards/model.safetensors.index.json", as_json, self._shards, share=0.1
        )
        kinds["GGUF"] = Kind(
            "gguf/model.gguf", change_beginning, self._gguf, named=False, share=0.2
        )
        for file, change in adapters.items():
            kinds[file] = Kind(f"adapter/{file}", change, self._adapter, share=0.1)
        return kinds

    def _engine(
        self, method: str | None = None, options: dict[str, str] | None = None, **parts: Any
    ) -> Engine:
        """Return an engine without measured costs, which would take seconds."""
        sources = WeightSources(None, parts.get("heads"), HubOptions(offline=True))
        return Engine(
            parts.get("model", self._model),
            parts.get("template", self._template),
            drafting=DrafterSpec(method, options or {}, sources),
            settings=Settings(max_new_tokens=6),
        )

    def _conversation(self) -> str:
        conversation = Conversation(self.engine)
        conversation.load(self.folder / "chat.json")
        if not conversation.turns:
            return ""
        question = [*conversation.messages, Message("user", "and?")]
        as_text = [replace(message, ids=None) for message in question]
        for message in question:
            ids = message.ids
            if ids and self._model.tokenizer.decode(list(ids)).removeprefix(" ") != message.content:
                return f"ids that do not spell {message.content!r}"
        return _differs(self.engine, question) or _differs(self.engine, as_text)

    def _prompts(self) -> str:
        from nfox.batch import answer, parse_prompts
        from nfox.characters import decode_escaped

        path = self.folder / "prompts.jsonl"
        prompts = parse_prompts(decode_escaped(path.read_bytes(), path).split("\n"), str(path))
        lines = []
        for method in ("lookup", "none"):
            self.engine.use(method)
            lines.append([answer(self.engine, prompt).get("tokens") for prompt in prompts[:1]])
        return "" if lines[0] == lines[1] else f"not the plain text: {lines}"

    def _questions(self) -> str:
        from nfox.eval.bench.tasks import read

        source = f"spec-bench={self.folder / 'spec-bench.jsonl'}"
        tasks = read(source, schemas=self.folder / "tables.json").tasks
        texts = [text for task in tasks for text in (task.id, task.category, *task.turns)]
        return "" if all(isinstance(text, str) for text in texts) else f"no texts: {tasks}"

    def _options(self) -> str:
        from nfox.cli.config.file import read_config

        values = read_config(self.folder / "options.toml", _commands()).values
        return "" if isinstance(values, dict) else f"no table: {values}"

    def _training_data(self) -> str:
        from nfox.train.data.conversations import read_conversations

        return self._rows(read_conversations(str(self.folder / "data.json")).conversations)

    def _training_lines(self) -> str:
        from nfox.train.data.tasks import read_tasks

        tables = self.folder / "tables.json"
        return self._rows(read_tasks(str(self.folder / "data.jsonl"), tables).conversations)

    def _rows(self, conversations: Any) -> str:
        from nfox.train.data.rows import Rows

        rows = Rows(conversations, self._template, self._model.tokenizer, 64)
        size = self._model.target.vocabulary_size
        ids = {
            token for row in map(rows.__getitem__, range(len(rows))) for token in row["input_ids"]
        }
        return "" if all(0 <= token < size for token in ids) else "tokens that are none"

    def _tables(self) -> str:
        from nfox.train.data.tasks import DatabaseSchemas

        schema = DatabaseSchemas(self.folder / "tables.json").schema("pets")
        texts = [name for table, columns in schema.items() for name in (table, *columns)]
        return "" if all(isinstance(text, str) for text in texts) else f"no names: {schema}"

    def _trajectories(self) -> str:
        from nfox.train.cllm.answers import AnswerSet
        from nfox.train.cllm.rows import TrajectoryRows, collate
        from nfox.train.cllm.trajectories import read_trajectories

        size = self._model.target.vocabulary_size
        read = read_trajectories(str(self.folder / "trajectories.jsonl"))
        rows = TrajectoryRows(AnswerSet(read, {1}, 64, vocabulary_size=size))
        batch = collate([rows[number] for number in range(len(rows))])
        ids = batch["input_ids"]
        nodes = max(
            int(batch[name].max())
            for name in ("student_nodes", "label_nodes")
            if batch[name].numel()
        )
        if int(ids.min()) < 0 or int(ids.max()) >= size or nodes >= ids.shape[1]:
            return "tokens that are none"
        return ""

    def _tree(self) -> str:
        tree = str(self.folder / "tree.json")
        return _differs(self._engine("medusa", {"tree": tree}, heads=str(self.folder / "heads")))

    def _jinja(self) -> str:
        return self._templated("template.json")

    def _fastchat(self) -> str:
        return self._templated("fastchat.json")

    def _templated(self, file: str) -> str:
        template = resolve(self._model.tokenizer, str(self.folder / file))
        engine = self._engine("lookup", template=template)
        return _differs(engine, [*_messages(), Message("user", "one two")])

    def _provenance(self) -> str:
        from nfox.files import provenance
        from nfox.files.jsonl import WorkShare

        out = self.folder / "out.jsonl"
        provenance.check(out, {"model": "m", "questions": "q"}, "data.json")
        provenance.begin(out, {"model": "m", "questions": "q"}, WorkShare())
        provenance.add_name_without_line(out, "7")
        if "7" not in provenance.names_without_line(out):
            return "a name was lost"
        counts = provenance.finish(out, WorkShare(), {"kept": 2}, 1.0)
        return "" if counts is None or counts["kept"] >= 2 else f"counted {counts}"

    def _answers(self) -> str:
        from nfox.batch import AnswerCounter, parse_prompts, sort_answers
        from nfox.train.cllm.collect import drop_unfinished

        out = self.folder / "out.jsonl"
        prompts = parse_prompts(['{"id": "b", "prompt": "x"}', '{"id": "a", "prompt": "x"}'], "")
        counter = AnswerCounter(out, prompts)
        sort_answers(out, prompts)
        missing = set(AnswerCounter(out, prompts).missing)
        drop_unfinished(out)
        return "" if missing == counter.missing else "sorting lost an answer"

    def _result(self) -> str:
        from nfox.eval.bench.compare import changes, rankings
        from nfox.eval.bench.result import BenchResult, read

        result = read(self.folder / "result.json", BenchResult)
        changes(result, result)
        rankings(result, result)
        result.json_text()
        return ""

    def _baseline(self) -> str:
        from nfox.eval.bench.guard import guard
        from nfox.eval.bench.result import Baseline, BenchResult, read

        guard(
            read(self.folder / "baseline.json", Baseline),
            read(self.folder / "result.json", BenchResult),
        )
        return ""

    def _trials(self) -> str:
        from nfox.eval.bench.journal import TrialJournal, complete_rounds

        trials = TrialJournal(self.folder / "result.json.trials", mutation_samples.FACTS).read()
        for trial in complete_rounds(trials, ["none", "lookup"]):
            if trial.task not in range(2) or len(trial.replies) != len(trial.stats):
                return f"a trial that is none: {trial}"
        return ""

    def _settings(self) -> str:
        from nfox.cli.train.arguments import parse

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parse("medusa", [str(self.folder / "settings.yaml")], "")
        return ""

    def _events(self) -> str:
        from nfox.cli.display.heat_document import FORMATS
        from nfox.cli.heat import read_heat_maps

        for heat in read_heat_maps(str(self.folder / "events.jsonl")):
            if any(band.length not in heat.lengths for band in heat.bands):
                return f"a step that is none: {heat}"
            for document in FORMATS.values():
                document(heat)
        return ""

    def _checkpoint(self) -> str:
        from nfox.train.checkpoints import is_finished, resume_point

        checkpoint = resume_point(str(self.folder / "checkpoint-1"), self.folder)
        return "" if checkpoint and is_finished(checkpoint, -1, 1.0) in (True, False) else "none"

    def _heads(self, folder: str) -> Callable[[], str]:
        def read() -> str:
            return _differs(self._engine("medusa", heads=str(self.folder / folder)))

        return read

    def _loaded(self) -> str:
        return self._load("model")

    def _shards(self) -> str:
        return self._load("shards")

    def _gguf(self) -> str:
        return self._load("gguf")

    def _adapter(self) -> str:
        return self._load("model", adapter=str(self.folder / "adapter"))

    def _load(self, folder: str, **options: str) -> str:
        name = str(self.folder / folder)
        model = load_model(name, replace(_LOADING, **options))
        if model.tokenizer is None:
            return ""
        template = resolve(model.tokenizer, None, model_name=name)
        engine = self._engine("lookup", model=model, template=template)
        return _differs(engine)


_OUT = ("out.jsonl", "out.jsonl.provenance.json", "out.jsonl.lock")


def _differs(engine: Engine, messages: Any = "one two one two one") -> str:
    """Return how the reply to messages differs from that of plain decoding; "" if it does not."""
    drafted = engine.answer(messages)
    expected = engine.answer(messages, drafter=engine.make("none"))
    if drafted.ids == expected.ids:
        return ""
    return f"not the plain text: {drafted.ids}, expected {expected.ids}"


@cache
def _commands() -> Any:
    """Return the program's command, with all that are below it."""
    from typer.main import get_command

    from nfox.cli.app import app

    return get_command(app)


def _messages() -> list[Message]:
    return [Message(turn["role"], turn["content"]) for turn in mutation_samples.TURNS]


def fuzz(folder: Path, count: int, seed: int = 0, only: Collection[str] = ()) -> Outcome:
    """Read changed files of all kinds.

    Args:
        folder: an empty folder.
        count: the number of files.
        seed: of the changes.
        only: the names of the kinds; all of them by default.
    """
    outcome, numbers, samples = Outcome(), random.Random(seed), Samples(folder)
    kinds = {name: kind for name, kind in samples.kinds().items() if not only or name in only}
    whole = {name: folder.joinpath(kind.file).read_bytes() for name, kind in kinds.items()}
    for name, kind in kinds.items():  # a sample that is refused as it is would show nothing
        if complaint := _complaint(kind, folder, None):
            outcome.wrong.append(f"{name}, unchanged: {complaint}")
        _restore(folder, kind, whole[name])
    chosen = numbers.choices([*kinds], [kind.share for kind in kinds.values()], k=count)
    for name in chosen:
        kind = kinds[name]
        changed = kind.change(whole[name], numbers)
        beside = {path: _content(folder / path) for path in kind.beside}
        folder.joinpath(kind.file).write_bytes(changed)
        if complaint := _complaint(kind, folder, outcome, name):
            outcome.wrong.append(f"{name}: {complaint}: {_difference(whole[name], changed)}")
        for path, content in beside.items():
            if content is None:
                (folder / path).unlink(missing_ok=True)
            else:
                (folder / path).write_bytes(content)
        _restore(folder, kind, whole[name])
    return outcome


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _restore(folder: Path, kind: Kind, content: bytes) -> None:
    folder.joinpath(kind.file).write_bytes(content)


def _complaint(kind: Kind, folder: Path, outcome: Outcome | None, name: str = "") -> str:
    """Read a file; return what is wrong with how it was taken, or "".

    Args:
        kind: of the file.
        folder: of all samples.
        outcome: counts what became of it; None for one that must be accepted.
        name: of the kind.
    """
    try:
        with _limited():
            complaint = kind.read()
    except NfoxError as error:
        if outcome is None:
            return f"refused: {error.message}"
        outcome.refused[name] += 1
        return _complaint_of(error, folder if kind.named else None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is none that `Exception` catches
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{_place(error)}"
    if outcome is not None:
        outcome.accepted[name] += 1
    return complaint


def _complaint_of(error: NfoxError, folder: Path | None) -> str:
    """Return what is wrong with an error: a person must see in a line which file it is.

    Args:
        error: of reading.
        folder: the file's, which the error must name; None if it need not.
    """
    for text in (error.message, error.hint):
        if "\n" in text or len(text) > 2000:
            return f"not one line: {text[:200]!r}"
    named = folder is None or str(folder) in error.message + error.hint or error.code == 4
    return "" if named and error.message.strip() else f"which file? {error.message}"


def _place(error: BaseException) -> str:
    """Return where an error was raised, the last line of nfox first."""
    lines, trace = [], error.__traceback__
    while trace:
        lines.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f" ({' '.join(lines[-6:])})"


@contextmanager
def _limited() -> Iterator[None]:
    """Raise an error in what takes too long."""

    def stop(*_: object) -> None:
        raise _HangError(f"longer than {_SECONDS:.0f} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _difference(whole: bytes, changed: bytes) -> str:
    """Return where a changed file first differs from the whole one, and how."""
    start = next((n for n, (a, b) in enumerate(zip(whole, changed, strict=False)) if a != b), 0)
    return f"at {start} of {len(changed)}: {changed[max(0, start - 40) : start + 120]!r}"


def main() -> None:
    """Read changed files of all kinds, and print what became of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", default=[], help="of this kind only")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        outcome = fuzz(Path(folder), arguments.count, arguments.seed, arguments.kind)
    counts = {"accepted": outcome.accepted, "refused": outcome.refused}
    print(json.dumps(counts | {"seconds": round(time.perf_counter() - start)}))
    print("\n".join(outcome.wrong[:200]), file=sys.stderr)
    print(f"{sum(outcome.accepted.values())} accepted, {sum(outcome.refused.values())} refused, "
          f"{len(outcome.wrong)} wrong", file=sys.stderr)  # fmt: skip
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
