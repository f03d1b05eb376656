"""Texts of others in a model card show as they are: they make no links, tags, headings or keys of the front matter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny

import advgen
from advgen.cli import main
from advgen.export import export_run
from advgen.export.card import CONSENT, INTENDED_USE, CardFacts, write_card
from advgen.export.markup import code, plain
from advgen.registry import BUILTIN, find_plugin
from advgen.terminal import visible

yaml = pytest.importorskip("yaml")
markdown_it = pytest.importorskip("markdown_it")

ATTACKS = [
    ': - "x" \n---',
    "\n---\nlicense: mit\n---\n# Mine",
    "x\n\n# A heading",
    "# a heading",
    "- a list",
    "+ a list",
    "1. a list",
    "2) a list",
    "> quoted",
    "=====",
    "-----",
    "___",
    "***",
    "~~~",
    "```\ncode",
    "`code`",
    "``two``",
    "`",
    "\\",
    "ends in \\",
    "\\`escaped`",
    "*slanted*",
    "**bold**",
    "_slanted_",
    "__bold__",
    "a_b_c",
    "~~gone~~",
    "[link](http://evil.example)",
    "![image](http://evil.example/x.png)",
    "[a]: http://evil.example",
    "[a][b]",
    "<http://evil.example>",
    "http://evil.example",
    "HTTPS://evil.example/?a=b",
    "www.evil.example",
    "me@evil.example",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- hidden",
    "</audio><iframe src=x>",
    "<a href='javascript:alert(1)'>x</a>",
    '" onerror="alert(1)',
    "' onerror='alert(1)",
    "&lt;script&gt;",
    "&copy; &#60;b&#62;",
    "a | b | c",
    "| --- |",
    "$x$ $$y$$",
    "{{ template }} {% block %}",
    "!!python/object:os.system",
    "&anchor *anchor",
    "key: value # comment",
    "'single' \"double\"",
    "{a: b}",
    "[a, b]",
    "null",
    "1e3",
    "yes",
    "",
    " ",
    "\t",
    "\x1b[31mred",
    "\x00\x85\u2028\u2029\x0c",
    "\u202egnp.exe",
    "\ud83d half",
    "😀 中文 é עברית",
    "\ufeff\ufffe",
    "a" * 300,
    "$(rm -rf x) `id` ; ls",
    "__import__('os').system('x')\n\nimport os",
    "    indented",
    "%YAML 1.2",
    "--- !tag",
]
HARMLESS = "harmless"


def facts(folder: Path, text: str) -> CardFacts:
    """A card's facts with a text of somebody else's in every place that takes one."""
    protocol = {"features": text, "step": 2, text or "empty": text, "judge": {text: text}, "listed": [text, text]}
    protocol["metrics"] = {text: {"protocol": text, "better": "higher"}}
    report: dict[str, Any] = {"protocol": protocol, "generated": {text: 1.5}, "real": {text: 0.5}}
    (folder / "samples").mkdir(exist_ok=True)
    files = [folder / "samples" / f"x{index}{suffix}" for index, suffix in enumerate((".png", ".wav", ".txt", ".npy"))]
    files[2].write_text(text + "\n", encoding="utf-8", errors="replace", newline="\n")
    return CardFacts(
        *(text, text, text, text, text, 2, 1234, text, text, [text, text], "plugin = 1"),
        [report],
        files,
        folder,
        text,
        text,
        text,
        text,
    )


def tokens(page: str) -> Iterator[tuple[str, str]]:
    """Kinds and targets of what a renderer makes of a page, without its texts."""
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for token in parser.parse(page):
        yield token.type, ""
        kinds = [(each.type, str(each.attrs.get("href", each.attrs.get("src", "")))) for each in token.children or ()]
        for kind, target in kinds:
            if kind not in ("text", "text_special"):
                yield kind, target


def split(card: str) -> tuple[dict[str, Any], str]:
    """The front matter as a hub reads it, and the page."""
    front, _, page = card.removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(front), page


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_card_has_the_same_parts_whatever_its_texts_are(attack: str, tmp_path: Path) -> None:
    head, page = split(write_card(facts(tmp_path, attack)))
    _, quiet = split(write_card(facts(tmp_path, HARMLESS)))
    if attack.strip():  # an empty name leaves an empty heading or cell
        assert list(tokens(page)) == list(tokens(quiet))
    assert head["license"] == head.get("pipeline_tag", "") == visible(attack)
    assert head["tags"] == ["gan", "advgen", f"advgen-plugin:{visible(attack)}", visible(attack)]
    (result,) = head["model-index"][0]["results"]
    assert head["model-index"][0]["name"] == result["dataset"]["name"] == visible(attack)
    assert [(each["type"], each["value"]) for each in result["metrics"]] == [(visible(attack), 1.5)]
    assert set(head) <= {"library_name", "license", "pipeline_tag", "tags", "model-index"}


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.strip()])
def test_a_text_is_shown_as_it_is(attack: str) -> None:
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for page in (f"Before {plain(attack)} after", f"Before {code(attack)} after", f"- {plain(attack)} after"):
        (inline,) = [token for token in parser.parse(page) if token.type == "inline"]
        told = "".join(child.content for child in inline.children)
        assert visible(attack).strip() in told


@pytest.mark.parametrize("name", ["a b", 'a" onerror="x', "a'b", "<b>", "a)b(", "[x](y)", "a\nb", "é", "\udcff", "a#b?c=%41"])
def test_names_of_samples_are_addresses_that_lead_to_them(name: str, tmp_path: Path) -> None:
    files = [tmp_path / "samples" / f"{name}{suffix}" for suffix in (".png", ".wav", ".npy")]
    told = replace(facts(tmp_path, HARMLESS), samples=files)
    _, page = split(write_card(told))
    quiet = replace(told, samples=[tmp_path / "samples" / f"x{suffix}" for suffix in (".png", ".wav", ".npy")])
    own, other = list(tokens(page)), list(tokens(split(write_card(quiet))[1]))
    assert [kind for kind, _ in own] == [kind for kind, _ in other]
    targets = {target for kind, target in own if target}
    assert all(target.startswith("samples/") and target.isascii() and not set(target) & set("\"'<>() ") for target in targets)


def test_numbers_that_are_not_finite_stay_out_of_the_front_matter(tmp_path: Path) -> None:
    told = facts(tmp_path, HARMLESS)
    report = {"protocol": {"features": "x"}, "generated": {"a": float("inf"), "b": float("nan"), "c": 1}, "real": {}}
    head, page = split(write_card(replace(told, reports=[report])))
    assert [each["type"] for each in head["model-index"][0]["results"][0]["metrics"]] == ["c"]
    assert "| a | inf |" in page


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    advgen.train("image", overrides=tiny("image"), steps=1, out=out, progress=False, device="cpu")
    return out


def test_a_card_says_what_the_model_is_for_and_asks_for_consent(trained: Path, tmp_path: Path) -> None:
    spec = find_plugin("image").spec
    assert spec is not None
    card = (export_run(trained, "huggingface", tmp_path / "model").path / "README.md").read_text()
    part = card.partition("## Intended use")[2].partition("\n## ")[0]
    assert spec.intended_use in part and spec.out_of_scope in part and CONSENT in part
    assert "Voices and faces" in CONSENT and "consent" in CONSENT
    arguments = ["export", trained, "--format", "huggingface", "--out", tmp_path / "own", "--intended-use", "A <b>toy</b>."]
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    own = (tmp_path / "own" / "README.md").read_text().partition("## Intended use")[2].partition("\n## ")[0]
    assert not ended.value.code and "A &lt;b&gt;toy&lt;/b&gt;." in own and CONSENT in own and spec.intended_use not in own


def test_a_plugin_that_says_nothing_has_a_general_use(tmp_path: Path) -> None:
    card = write_card(replace(facts(tmp_path, HARMLESS), intended_use="", out_of_scope=""))
    assert INTENDED_USE in card and CONSENT in card


@pytest.mark.parametrize("plugin", BUILTIN)
def test_every_public_set_tells_its_licence_and_terms(plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = find_plugin(plugin).spec
    assert spec is not None and spec.intended_use and spec.out_of_scope and spec.datasets
    with pytest.raises(SystemExit):
        main(["data", "list"])
    told = capsys.readouterr().out
    for name, entry in spec.datasets.items():
        assert entry.licence in told and f"terms of {name}: {entry.terms}" in told and entry.terms


def test_the_card_of_a_run_on_a_public_set_tells_its_licence_and_terms(trained: Path, tmp_path: Path) -> None:
    spec = find_plugin("image").spec
    assert spec is not None
    first = export_run(trained, "huggingface", tmp_path / "first").path
    assert "Licence of the data" not in (first / "README.md").read_text()
    about = json.loads((first / "config.json").read_text())
    for name, known in (("mnist", True), ("of-nobody", False), (3, False), (["mnist"], False)):
        (first / "config.json").write_text(json.dumps(about | {"data": "mnist", "data_set": name}))
        card = export_run(first, "huggingface", tmp_path / f"of {name}").path / "README.md"
        assert (f"Licence of the data: {spec.datasets['mnist'].licence}." in card.read_text()) is known
        assert (spec.datasets["mnist"].terms in card.read_text()) is known
