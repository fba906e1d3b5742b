"""Whole files of all kinds that nfox reads, small ones, of which `mutations` makes others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from nfox import Conversation, Engine

TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one two one two one"},
    {"role": "assistant", "content": "two"},
]
FACTS = {"model": "m", "entrants": ["none", "lookup"], "tasks": [{"id": "a"}, {"id": "b"}]}
"""What the trials depend on."""


def write(folder: Path, engine: Engine) -> None:
    """Write all files but those of the model itself.

    Args:
        folder: the folder, in which the model lies as "model".
        engine: the model's engine.
    """
    _write_texts(folder)
    _write_heads(folder)
    _write_adapter(folder)
    _write_shards(folder)
    _write_results(folder)
    _write_lines(folder)
    _write_conversation(engine, folder / "chat.json")
    _write_events(engine, folder / "events.jsonl")
    _write_gguf(engine, folder)


def _write_texts(folder: Path) -> None:
    """Write the files that need no model."""
    sharegpt = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    tables = [
        {
            "db_id": "pets",
            "table_names_original": ["owner", "pet"],
            "column_names_original": [[-1, "*"], [0, "id"], [1, "id"], [1, "age"]],
        }
    ]
    ids = {
        "prompt_ids_len": [3],
        "prompt_ids": [[1, 5, 6]],
        "teacher_output_ids": [[1, 5, 6, 8, 9]],
    }
    trajectory = {
        "data_id": "data_0",
        "jacobian_itr_id": "itr_0",
        **ids,
        "answer_trajectory_ids": [[7, 7], [8, 7], [8, 9]],
        "complete_teacher_output_ids": [1, 5, 6, 8, 9],
        "labels_ids": [1, 5, 6, 8],
    }
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    texts: dict[str, Any] = {
        "data.json": [sharegpt, {"messages": TURNS}, TURNS[1:]],
        "tables.json": tables,
        "tree.json": {"tree": [[0], [1], [0, 0], [0, 1], [0, 0, 0]], "model": "m"},
        "template.json": {
            "name": "t",
            "chat_template": source + "{% if add_generation_prompt %}assistant:{% endif %}",
            "stop_str": "\nuser:",
            "stop_token_ids": [2],
            "system_message": "be good",
        },
        "fastchat.json": {
            "name": "f",
            "system_template": "S{system_message}|",
            "system_message": "be good",
            "roles": ["Q", "A"],
            "sep_style": "ADD_COLON_TWO",
            "sep": " ",
            "sep2": "</s>",
            "stop_str": ["</s>"],
        },
        "settings.yaml": {
            "base_model": "m",
            "datasets": [{"path": "data.json", "type": "sharegpt"}],
            "output_dir": str(folder / "trained"),
            "micro_batch_size": 2,
            "num_epochs": 1,
            "learning_rate": 0.001,
            "optimizer": "adamw_torch",
            "bf16": "auto",
            "use_cpu": True,
            "medusa_num_heads": 3,
        },
        "checkpoint-1/trainer_state.json": {
            "global_step": 3, "max_steps": 5, "num_train_epochs": 1, "epoch": 0.5,
            "log_history": [{"loss": 2.5, "step": 1}], "stateful_callbacks": {},
        },
    }  # fmt: skip
    (folder / "options.toml").write_text(
        'model = "m"\ntemperature = 0.7\nstop = ["x", "y"]\nlive = false\n'
        'system = """\nseed = 1\n"""\n'
        "[serve]\nport = 5055\n[data.distill]\nlimit = 3\n"
    )
    (folder / "checkpoint-1").mkdir()
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=1))
    spider = {"db_id": "pets", "question": "how old?", "query": "SELECT age"}
    lines: dict[str, list[Any]] = {
        "data.jsonl": [spider, {"question": "1+1", "answer": "2"}, {"docstring": "d", "code": "c"}],
        "prompts.jsonl": [
            {"id": "a", "messages": [TURNS[1]]},
            {"id": "b", "prompt": "one two"},
            {"id": "c", "turns": ["one", "two"]},
        ],
        "spec-bench.jsonl": [
            {"question_id": 81, "category": "writing", "turns": ["one", "two"]},
            {"task_id": "HumanEval/1", "prompt": "def f():"},
            spider,
        ],
        "trajectories.jsonl": [trajectory, trajectory | {"data_id": "data_1"}],
    }
    for name, values in lines.items():
        (folder / name).write_text("".join(json.dumps(value) + "\n" for value in values))


def _write_lines(folder: Path) -> None:
    """Write a file of answers with its provenance, as a killed process leaves them."""
    from nfox.files import provenance
    from nfox.files.jsonl import WorkShare, append_lines

    out = folder / "out.jsonl"
    provenance.begin(out, {"model": "m", "questions": "q"}, WorkShare())
    for name in ("a", "b/0", "b"):
        append_lines(out, json.dumps({"id": name, "text": "x", "tokens": [5]}) + "\n")
    provenance.finish(out, WorkShare(), {"kept": 2}, 3.0)


def _write_conversation(engine: Engine, path: Path) -> None:
    conversation = Conversation(engine, system="be brief")
    conversation.send("one two").read_to_end()
    conversation.save(path)


def _write_events(engine: Engine, path: Path) -> None:
    """Write the events of two replies."""
    from nfox.cli.chat import events

    replies = [events.reply(engine.stream(text), steps=False) for text in ("one two", "two")]
    rows = [events.start(engine), *(event for reply in replies for event in reply)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_gguf(engine: Engine, folder: Path) -> None:
    """Write the model as a GGUF file without a vocabulary, and the tokenizer beside it."""
    from nfox.eval.peers import gguf

    (folder / "gguf").mkdir()
    gguf.write(engine.model, folder / "gguf" / "model.gguf")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / "model" / name, folder / "gguf")


def _write_heads(folder: Path) -> None:
    """Write random Medusa heads, in our layout and in the published one."""
    import torch

    from nfox.drafters.medusa import Medusa
    from nfox.heads.checkpoint import HeadsInfo, write

    torch.manual_seed(1)
    config = Medusa.heads_class.Config(hidden_size=32, vocab_size=4096, num_heads=3)
    heads = Medusa.heads_class(config)
    accuracy = [[0.6, 0.2, 0.1]] * 3
    training = {"base_fingerprint": [1.0, 2.0], "joint": {"base": "lora"}, "steps": 3}
    info = HeadsInfo(
        method="medusa",
        base="m",
        config=config.model_dump(),
        accuracy=accuracy,
        training=training,
    )
    write(folder / "heads", info, heads.state_dict())
    (folder / "medusa").mkdir()
    published = {"medusa_num_heads": 2, "medusa_num_layers": 1, "base_model_name_or_path": "m"}
    (folder / "medusa" / "config.json").write_text(json.dumps(published))
    weights = {}
    for head in range(2):
        weights[f"{head}.0.linear.weight"] = torch.randn(32, 32) * 0.1
        weights[f"{head}.0.linear.bias"] = torch.zeros(32)
        weights[f"{head}.1.weight"] = torch.randn(4096, 32)
    torch.save(weights, folder / "medusa" / "medusa_lm_head.pt")


def _write_adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    config = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    get_peft_model(model, config).save_pretrained(folder / "adapter")


def _write_shards(folder: Path) -> None:
    """Write the model again, its weights in several files with an index."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    model.save_pretrained(folder / "shards", max_shard_size="300KB")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / "model" / file, folder / "shards")


def _write_results(folder: Path) -> None:
    """Write a result of the benchmark, a baseline made of it, and trials."""
    from nfox.decoding.stats import Stats
    from nfox.eval.bench.baseline import baseline
    from nfox.eval.bench.figures import Row
    from nfox.eval.bench.journal import TrialJournal
    from nfox.eval.bench.result import BenchResult, EntrantRecord, Machine
    from nfox.eval.bench.trials import Trial

    figures = {"tokens": 70, "steps": 35, "tau": 2.0, "speedup": 1.5, "speedup_low": 1.4,
               "speedup_high": 1.6, "efficiency": 0.75, "overhead": 0.1}  # fmt: skip
    rows = [
        Row(target="m", method=method, category="all", prompts=7, accept_by_depth=[0.5], **figures)
        for method in ("none", "lookup")
    ]
    kinds = {method: EntrantRecord(kind="method") for method in ("none", "lookup")}
    machine = Machine(dtype="float32", threads=1, versions={"torch": "2"})
    result = BenchResult(machine=machine, settings={"rounds": 2}, entrants=kinds, rows=rows)
    (folder / "result.json").write_text(result.json_text())
    (folder / "baseline.json").write_text(baseline([result, result]).json_text())
    with TrialJournal(folder / "result.json.trials", FACTS).writing() as add:
        for task in (0, 1):
            for entrant in ("none", "lookup"):
                add(
                    Trial(entrant, task, 0, [[5, 6]], [Stats(steps=2, tokens=2, lengths=[1, 1])], 9)
                )
