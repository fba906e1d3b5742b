"""Markdown in the page of the server: what becomes of it, at every moment of its growth."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import browser
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from nfox.serve.pages import page_routes

TEXT = """\
# A list *of* `days`

First **bold, with *both* and `co*de`** words;
a second line.

1. Monday
   - nested [link](https://example.com/a_(b))
     still it

     > quoted
2. Tuesday
```python
if a * b * c:

    print("|---|")
```
3) other

| day | number |
|:----|-------:|
| `Mo` | **1** |
| a \\| b | |

- [x] done
- [ ] open

***
The end, snake_case and 2 * 3, <b>no</b> ~~gone~~ &amp; https://example.com/x.
"""
HOSTILE = """\
<script>document.title = "taken"</script>
<img src=x onerror="document.title = 'taken'">
[a](javascript:document.title='taken') [b](JaVaScRiPt:1) [c](data:text/html,x) ![d](javascript:1)
<javascript:document.title='taken'> [e](vbscript:1) [f](/docs) [g](&#106;avascript:1)
[h](https://x.org/"onmouseover="document.title='taken')
&lt;script&gt;document.title='taken'&lt;/script&gt;

```<img src=x onerror=document.title='taken'>
</code></pre><script>document.title = "taken"</script>
```

| <iframe srcdoc="<script>parent.document.title='taken'</script>"> |
|---|
| <svg onload="document.title='taken'"> |
"""
pytestmark = pytest.mark.slow


HELPERS = """{
window.shown = (text, kind = "b") => {
  log.replaceChildren();
  window.view = new ReplyView(log);
  view.add({text, runs: [[[...text].length, kind]]});
  view.end();
  return view.box;
};
window.plain = (box) => box.innerHTML.replace(/<\\/?span[^>]*>| class=""/g, "");
0}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as it is served, without its server: no policy forbids what a reply could bring."""
    app = FastAPI()
    app.include_router(page_routes(app, "tiny"))
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(TestClient(app).get("/").text, encoding="utf-8")
    return file


def opened(page: browser.Page, file: Path, **size: Any) -> browser.Page:
    page.show(file.as_uri(), **size)
    page.wait("document.querySelectorAll('article.error').length")  # it has asked for a server
    page.run(HELPERS)
    return page


@pytest.fixture
def page(page: browser.Page, file: Path) -> browser.Page:
    return opened(page, file)


def rendered(page: browser.Page, text: str) -> str:
    made: str = page.run(f"plain(shown({json.dumps(text)}))")
    return made


def link(address: str, text: str | None = None) -> str:
    return f'<a href="{address}" target="_blank" rel="noopener noreferrer">{text or address}</a>'


QUOTE, UNQUOTE, TABLE = "<blockquote>", "</blockquote>", '<div class="table"><table>'
MAIL = link("mailto:a@x.org")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a **b** *c* ~~d~~", "a <strong>b</strong> <em>c</em> <s>d</s>"),
        ("__a__ _b_", "<strong>a</strong> <em>b</em>"),
        ("***a** b* **c *d***", "<em><strong>a</strong> b</em> <strong>c <em>d</em></strong>"),
        ("2 * 3 * 4, a_b_c, **open, *", "2 * 3 * 4, a_b_c, **open, *"),
        ("**重要\uff1a**文字", "<strong>重要\uff1a</strong>文字"),
        ("`a *b*` ``c`d`` `` `e` `` `f", "<code>a *b*</code> <code>c`d</code> <code>`e`</code> `f"),
        (r"\*a\* &lt;&copy;&nosuch; \d", "*a* &lt;©&amp;nosuch; \\d"),
        ("[a *b*](https://x.org/(c)_d 'e')", link("https://x.org/(c)_d", "a <em>b</em>")),
        ("(https://x.org/a_b_c.)", f"({link('https://x.org/a_b_c')}.)"),
        ("**https://x.org** <mailto:a@x.org>", f"<strong>{link('https://x.org')}</strong> {MAIL}"),
        ("[https://x.org](https://x.org/a)", link("https://x.org/a", "https://x.org")),
        ("[![a](http://x.org)](http://x.org/b)", link("http://x.org/b", "a")),
        ("![a](http://x.org) ![](http://x.org)", f"{link('http://x.org', 'a')} {link('http://x.org')}"),
        ("[a](b) [c] (d) [e](javascript:1)", "[a](b) [c] (d) [e](javascript:1)"),
        ("roses\n  are red  \nviolets", "roses\n  are red  \nviolets"),
    ],
)  # fmt: skip
def test_marks_within_a_paragraph(page: browser.Page, text: str, html: str) -> None:
    assert rendered(page, text) == f"<p>{html}</p>"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# a #\n###### b\n#c", "<h3>a<h6>b<p>#c"),
        ("a\n---\n* * *", "<p>a<hr><hr>"),
        ("- a\n- b\n\n  c\n\n- d", "<ul><li><p>a<li><p>b<p>c<li><p>d"),
        ("- a\n\t- b\n\t\t- c\n- d", "<ul><li><p>a<ul><li><p>b<ul><li><p>c</ul></ul><li><p>d"),
        ("7. a\n  - b\nc", '<ol><li value="7"><p>a<ul><li><p>b\nc'),
        ("1) a\n- b", '<ol class="bracketed"><li value="1"><p>a</ol><ul><li><p>b'),
        ("- [ ] a\n- [X] b", "<ul><li>☐ <p>a</p><li>☑ <p>b</p>"),
        ("> a\n> > b\n> - c\nd", f"{QUOTE}<p>a{QUOTE}<p>b{UNQUOTE}<ul><li><p>c</ul>{UNQUOTE}<p>d"),
        ("| a | b |\n|--|:-:|\n| c", f'{TABLE}<tr><th>a<th class="center">b<tr><td>c'),
        ("| a | b |\n|--|", "<p>| a | b |<p>|--|"),
        ("a\n--|--", "<p>a\n--|--"),
    ],
)  # fmt: skip
def test_blocks(page: browser.Page, text: str, html: str) -> None:
    """Tags that HTML lets out are left out."""
    made = re.sub(r"</(p|li|h\d|th|td|tr)>", "", rendered(page, text))
    assert re.sub(r"(</\w+>)+$", "", made) == re.sub("</(p|li)>", "", html)


def test_code_is_named_and_copied_as_it_was_said(page: browser.Page) -> None:
    code = "<ul>\n\n\t<li>**1**</li>  \n```\n</ul>"
    rendered(page, f"Look:\n  ````html x\n{code}\n  ````")
    assert page.run("view.box.querySelector('.code span').textContent") == "html x"
    page.run(
        "Object.defineProperty(navigator, 'clipboard', {configurable: true, "
        "value: {writeText: async (text) => { window.copied = text; }}})"
    )
    page.run("view.box.querySelector('.copy').click()")
    page.wait("view.box.querySelector('.copy').textContent === 'Copied'")
    assert page.run("copied") == code
    page.run("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.run("document.addEventListener('copy', () => { copied = String(getSelection()); })")
    page.run("copied = null; view.box.querySelector('.copy').focus()")
    page.press("Enter")
    assert page.wait("copied") == code


def test_it_is_the_same_however_it_came_and_what_is_finished_stays(page: browser.Page) -> None:
    for text in (TEXT, HOSTILE):
        moved = page.run(
            f"""{{
            const text = {json.dumps(text)}, wrong = [], kept = [];
            log.hidden = true;
            const one = new ReplyView(log);
            for (let end = 1; end <= text.length; end += 1) {{
                one.add({{text: text[end - 1], runs: [[1, "abc"[end % 3]]]}});
                one.draw();
                const other = new ReplyView(log);
                other.said = {{...one.said}};
                other.draw();
                if (!one.box.isEqualNode(other.box)) wrong.push(end);
                other.article.remove();
                kept.push(...[...one.box.childNodes].slice(kept.length, one.finished));
                const stays = (node, index) => one.box.childNodes[index] === node;
                if (!kept.every(stays)) wrong.push(-end);
            }}
            [wrong, kept.length]}}"""
        )
        assert moved[0] == [] and moved[1] >= 2


def test_nothing_that_is_shown_turns_out_to_be_a_mark(page: browser.Page) -> None:
    """No bullet, number, hash or fence is seen as text while its line has just begun."""
    seen = page.run(
        f"""{{
        const text = {json.dumps(TEXT)}, seen = new Set();
        const one = new ReplyView(log);
        for (const letter of text) {{
            one.add({{text: letter, runs: [[1, "b"]]}});
            one.draw();
            for (const p of one.box.querySelectorAll("p")) seen.add(p.textContent);
        }}
        [...seen]}}"""
    )
    assert not [text for text in seen if re.match(r"([-*#>~`]|\d+[.)]?|\[.?\]?)$|```", text)]


def test_marks_of_tokens_stand_in_all_of_it(page: browser.Page) -> None:
    words = re.findall(r"\W*\w+|\W+$", TEXT)
    parts = [{"text": word, "runs": [[len(word), "abc"[n % 3]]]} for n, word in enumerate(words)]
    spans = page.run(
        f"{{shown(''); for (const part of {json.dumps(parts)}) view.add(part);"
        "view.draw();"
        "[...view.box.querySelectorAll('span')].map(span => [span.textContent, span.className])}"
    )
    found = {re.sub(r"\W", "", text): kind for text, kind in spans}
    named = {re.sub(r"\W", "", part["text"]): part["runs"][0][1] for part in parts}
    said = [word for word in named if len(word) > 2 and TEXT.count(word) == 1]
    said = [word for word in said if word not in ("python", "snake_case")]
    assert len(said) > 20
    assert {word: found[word] for word in said} == {word: named[word] for word in said}


def test_a_reply_is_not_trusted(page: browser.Page) -> None:
    page.run("document.title = 'nfox'")
    assert 'taken"' in page.run(f"shown({json.dumps(HOSTILE)}).textContent")
    tags = page.run("[...new Set([...view.box.querySelectorAll('*')].map(e => e.tagName))]")
    assert {*tags} <= {"P", "SPAN", "A", "DIV", "PRE", "CODE", "BUTTON", "TABLE", "TR", "TH", "TD"}
    attributes = "[...view.box.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    assert {*page.run(attributes)} <= {"class", "type", "href", "rel", "target"}
    links = page.run("[...view.box.querySelectorAll('a')].map(a => [a.protocol, a.rel, a.target])")
    assert {*map(tuple, links)} == {("https:", "noopener noreferrer", "_blank")}
    page.run("new Promise((done) => setTimeout(done, 100))")
    assert page.run("document.title") == "nfox"


def test_the_text_is_shown_as_it_was_said_and_copied_so(page: browser.Page) -> None:
    said = TEXT + "\n\n\n  two  blanks \t and a tab"
    before = rendered(page, said)
    page.run("view.article.querySelector('.foot button').click()")
    assert page.run("view.box.textContent") == said
    assert page.run("view.article.querySelector('.foot button').ariaPressed") == "true"
    assert page.run("getSelection().selectAllChildren(view.box), String(getSelection())") == said
    page.run("view.add({text: '**more**', runs: [[8, 'a']]}), view.draw()")
    assert page.run("view.box.textContent") == said + "**more**"
    page.run("view.article.querySelector('.foot button').click()")
    assert page.run("plain(view.box)").startswith(before[:200])
    assert page.run("view.box.lastChild.lastChild.textContent") == "more"


CHUNKS = """{
const draw = ReplyView.prototype.draw;
window.draws = 0;
ReplyView.prototype.draw = function(...at) { draws += 1; draw.apply(this, at); };
window.chunks = () => {
  window.view = new ReplyView(log);
  draws = 0;
  for (let count = 0; count < 300; count += 1) {
    view.add({text: count ? `\\nline ${count}` : "```", runs: [[99, "b"]]});
    view.show(`${count} lines`);
  }
};
window.seen = () => {
  const code = view.box.querySelector("code")?.textContent ?? "";
  return [draws, code.split("\\n").length, view.figures.textContent];
};
window.frame = () => new Promise(requestAnimationFrame);
0}"""


def test_it_is_drawn_once_for_each_picture_of_the_window(page: browser.Page) -> None:
    page.run(CHUNKS)
    whole = [1, 299, "299 lines"]
    assert page.run("chunks(), frame().then(seen)") == whole
    assert page.run("frame().then(seen)") == whole  # and not again where nothing came
    assert page.run("chunks(), view.end(), seen()") == whole
    assert page.run("frame().then(seen)") == whole


def test_nothing_is_lost_in_a_hidden_window(page: browser.Page) -> None:
    """It is drawn when the reply has ended, or when the window is shown again."""
    page.run(CHUNKS)
    page.run("window.asked = []; window.requestAnimationFrame = (draw) => asked.push(draw)")
    assert page.run("chunks(), seen()") == [0, 1, ""]
    assert page.run("asked.length") == 1
    assert page.run("asked[0](), seen()") == [1, 299, "299 lines"]
    assert page.run("chunks(), view.end(), seen()") == [1, 299, "299 lines"]


def test_nothing_is_lost_whatever_comes(page: browser.Page) -> None:
    draw = random.Random(5)
    marks = ["**", "*", "_", "~~", "`", "```", "\n", "\n\n", "\n    ", "\n\t", "- ", "1. ", "> "]
    marks += ["# ", "| ", "\n|-|-|\n", "[", "]", ")", "\\", " ", "<", "&", "[x] ", "\n---\n", "é😀"]
    for _ in range(150):
        words = [f"w{n}w" for n in range(25)]
        text = "".join(word + "".join(draw.choices(marks, k=draw.randrange(4))) for word in words)
        shown = page.run(f"shown({json.dumps(text)}).textContent")
        assert [*re.findall(r"w\d+w", shown)] == words, text


@pytest.mark.parametrize(
    "piece",
    ["*a ", "[", "[a](", "`", "`a``", "**a *b ", "> ", "- ", "  - a\n", "| a ", "_a* ", "https://"],
)
def test_odd_texts_take_no_time(page: browser.Page, piece: str) -> None:
    text = json.dumps(piece * 3000)
    begin = f"{{const begin = performance.now(); shown({text}); performance.now() - begin}}"
    assert page.run(begin) < 3000


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_wide_code_and_tables_do_not_widen_the_page(
    page: browser.Page, file: Path, width: int, dark: bool
) -> None:
    wide = "\n".join(["```", "x" * 400, "```", "| a | b |", "|---|---|", "| c | " + "d" * 300])
    opened(page, file, width=width, dark=dark)
    page.run(f"shown({json.dumps(TEXT + wide)}, 'a')")
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run("view.box.scrollWidth <= view.box.clientWidth")
