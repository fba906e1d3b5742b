"""A chat template is a program of a stranger: it ends in time, and makes no more than it may."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from chat_templates import TEMPLATES
from test_rendering import talk, tokenizer_of

from nfox.errors import ModelError, NfoxError
from nfox.text import meter
from nfox.text.messages import Message
from nfox.text.resolve import resolve
from nfox.text.sandbox import render

TURNS = [{"role": "user", "content": "hello " * 200}]
THOUSAND_TIMES_OVER = "{% set ns = namespace(x=START) %}{% for i in range(99) %}"
THOUSAND_TIMES_OVER += "{% set ns.x = DOUBLED %}{% endfor %}{{ ns.x SHOWN}}"
ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if false %}x{% endfor %}{% endfor %}",
    "{% set x = range(9999) | list %}{% for a in x %}{% for b in x %}{% if a == b %}{% endif %}"
    "{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "{% for a in messages[0].content %}{% for b in messages[0].content %}"
    "{% for c in messages[0].content %}{% endfor %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = ns.x + [i] %}"
    "{% endfor %}",
]
LARGE = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * ['a'] }}",
    "{{ 'a' * 10**4 * 10**5 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a' | attr('zfill')(10**9) }}",
    "{{ ['a'] | map('center', 10**9) | first }}",
    "{{ '\\t'.expandtabs(10**9) }}",
    "{{ ('a\\n' * 99999) | indent(10**6) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%.1000000000f' | format(1.5) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 1000000000) }}",
    "{{ '{a:>{b}}'.format_map({'a': 1, 'b': 1000000000}) }}",
    "{{ (5).to_bytes(10**10) }}",
    "{{ 1.5 | round(10**9) }}",
    "{{ [1] | batch(10**9, 'x') | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ range(99999) | join('x' * 99999) }}",
    "{{ ('x' * 99999).join('a' * 99999) }}",
    "{{ ('x' * 999999).replace('', 'y' * 999999) }}",
    "{{ ('x' * 999999).translate({120: 'y' * 999999}) }}",
    "{{ ('x ' * 99999) | wordwrap(1, wrapstring='y' * 999999) }}",
    "{{ [[[[1, 2]]]] | tojson(indent=10**9) }}",
    "{{ dict.fromkeys(range(99999), 'a' * 99999) }}",
    "{% filter center(10**9) %}a{% endfilter %}",
    "{% set x | center(10**9) %}a{% endset %}",
    "{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
    *(
        THOUSAND_TIMES_OVER.replace("START", start)
        .replace("DOUBLED", doubled)
        .replace("SHOWN", shown)
        for start, doubled, shown in (
            ("'ab'", "ns.x + ns.x", ""),
            ("'ab'", "ns.x ~ ns.x", ""),
            ("'a'", "ns.x.replace('a', 'aaa')", ""),
            ("'a'", "[ns.x, ns.x] | join", ""),
            ("'a'", "'{0}{0}'.format(ns.x)", ""),
            ("'a'", "'%s%s' % (ns.x, ns.x)", ""),
            ("7", "ns.x * ns.x", ""),
            ("['a']", "[ns.x, ns.x]", ""),
            ("['a']", "[ns.x, ns.x]", "| tojson"),
            ("('a',)", "(ns.x, ns.x)", "| string"),
            ("{'a': 1}", "{'a': ns.x, 'b': ns.x}", "| tojson"),
            ("1", "namespace(a=ns.x, b=ns.x)", ""),
        )
    ),
    "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% endfor %}",
]


def written(chat_template: str, **variables: Any) -> str:
    return render(chat_template, {"messages": TURNS, **variables}, len(TURNS[0]["content"]))


@pytest.mark.parametrize("chat_template", ENDLESS)
def test_a_template_that_does_not_end_is_ended(
    chat_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread too, where no alarm could."""
    monkeypatch.setattr(meter, "_SECONDS", 0.05)
    caught: list[Exception] = []

    def run() -> None:
        try:
            written(chat_template)
        except ModelError as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [error.message.partition(" 0")[0] for error in caught] == ["it takes more than"]


@pytest.mark.parametrize("chat_template", LARGE)
def test_what_would_be_large_is_not_made(chat_template: str) -> None:
    start = time.thread_time()
    with pytest.raises(ModelError, match=r"it makes more than [\d,]+ characters"):
        written(chat_template)
    assert time.thread_time() - start < 3


@pytest.mark.parametrize(
    ("chat_template", "complaint"),
    [
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "recursion depth"),
        ("{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "recursion depth"),
        ("{{ lipsum(n=10**9) }}", "'lipsum' is undefined"),
        ("{{ ''.__class__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_what_fails_in_another_way_fails_as_it_does_in_transformers(
    chat_template: str, complaint: str
) -> None:
    with pytest.raises(Exception, match=complaint):
        written(chat_template)


def test_a_template_may_be_long_but_not_endless() -> None:
    assert written("x" * 200_000) == "x" * 200_000
    with pytest.raises(ModelError, match="300,000 characters long"):
        written("x" * 300_000)


def test_what_is_allowed_grows_with_what_was_said() -> None:
    """A long conversation is not refused, even where a template copies it again and again."""
    turns = [{"role": "user", "content": "hello, there\n" * 4000}] * 100  # 5 MB
    gathering = (
        "{% set ns = namespace(all='') %}{% for m in messages %}{% set ns.all = ns.all + m.role + "
        "m.content | trim | replace('hello', 'Hello') %}{% endfor %}{{ ns.all }}"
    )
    text = render(gathering, {"messages": turns}, sum(len(turn["content"]) for turn in turns))
    assert text == "".join("user" + ("Hello, there\n" * 4000).strip() for _ in turns)


def test_what_transformers_adds_to_jinja_is_there() -> None:
    loop = "{% for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    assert written(loop) == "012"
    assert written("{{ {'ä': [1]} | tojson }}") == '{"ä": [1]}'
    assert written("{% generation %}{{ strftime_now('%%') }}{% endgeneration %}") == "%"
    with pytest.raises(Exception, match="no tools"):
        written("{{ raise_exception('no tools') }}")


@pytest.mark.parametrize("where", ["resolve", "messages"])
def test_the_error_names_the_template_and_what_to_do(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_SECONDS", 0.05)
    if where == "resolve":
        with pytest.raises(ModelError) as caught:
            resolve(tokenizer_of(ENDLESS[0]), None)
    else:  # only some conversations are too much for it
        picky = "{% for m in messages if 'x' in m.content %}" + ENDLESS[0] + "{% endfor %}"
        template = resolve(tokenizer_of(TEMPLATES["chatml"] + picky), None)
        assert template.text([Message("user", "Hi")])
        with pytest.raises(ModelError) as caught:
            template.text([Message("user", "fox")])
    assert (
        caught.value.message
        == "conversation template tokenizer: it takes more than 0 s of processor time"
    )
    assert "--conv-template" in caught.value.hint
    assert caught.value.code == 3


def test_known_templates_stay_far_below_the_limits() -> None:
    """511 messages, as many as the server takes, by every kind of template."""
    long = [message for seed in range(400) for message in talk(seed) if message.role != "system"]
    turns = [
        Message(("user", "assistant")[number % 2], message.content)
        for number, message in enumerate(long[:511])
    ]
    for name, chat_template in TEMPLATES.items():
        template = resolve(tokenizer_of(chat_template), None)
        start = time.thread_time()
        try:
            template.text(turns)
        except NfoxError as error:
            pytest.fail(f"{name}: {error.message}")
        assert time.thread_time() - start < meter._SECONDS / 4, name
