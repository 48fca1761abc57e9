"""The slides: a deck for each chapter, made from its text, that needs nothing but its file."""

import importlib.machinery
import importlib.util
import json
import re
import shutil
import subprocess

import pytest

from conftest import ROOT
from patience import Patience

SLIDES = ROOT / "site/slides"
loader = importlib.machinery.SourceFileLoader("make_slides", str(SLIDES / "make"))
slides = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_slides", loader))
loader.exec_module(slides)

CHAPTERS = sorted((ROOT / "book/chapters").glob("[0-9][0-9]-*.md"))


def pages(path):
    """The slides of a chapter, as Marp gets them."""
    return slides.deck(path, "the next").partition("---\n\n")[2].split("\n\n---\n\n")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_deck(path):
    """It has the failure with its question, each section, and the figures of the chapter."""
    text, deck = path.read_text(), pages(path)
    whole = "\n".join(deck)
    outside = re.sub(r"(?ms)^```.*?^```$", "", text)
    headings = re.findall(r"(?m)^## (.*)", outside)
    assert [h for h in headings if f"## {h}\n" not in whole] == []
    opening = outside.partition("\n## ")[0]
    if "<!-- run" in opening and "Epilogue" not in opening:
        assert "**What do you think" in opening
        failure = next(page for page in deck if "_class: failure" in page)
        assert '<div class="console' in failure and '<div class="question">' in failure
        said = re.search(r"(?ms)^```console\n(.*?)```", text)[1].split()
        assert not said or said[-1] in failure
    drawn = [f for f in re.findall(r"(?m)^!\[.*?\]\((.*?)\)", outside) if (path.parent / f).exists()]
    assert whole.count('<img class="figure"') == len(drawn)
    assert "Notes\n" in whole


def test_parts():
    """Text before code, a figure that is missing, a comment that names no listing."""
    listing = '*a.c, a new file:*\n\n```c\nint a;\nint b;\n```\n'
    text = f"# 1. X\n\n## Y\n\n<!-- slide\nsaid\ncode: 1 from \"int b\" in a.c\n-->\n\nNot said.\n\n{listing}\n![no](no.svg)\n"
    (_, parts) = slides.sections(text)[1]
    (slide,) = slides.section("Y", parts)
    assert "said" in slide and "int b;" in slide and "int a;" not in slide
    assert "<!--\nNotes\n\nNot said.\n-->" in slide
    with pytest.raises(slides.Wrong, match="no listing has 'int c'"):
        slides.section("Y", slides.sections(text.replace('"int b"', '"int c"'))[1][1])
    # console blocks where the comment wants them, and text below code
    said = 'code: 1 from "int b"\nrun: -1\nbelow\n-->\n\n<!-- slide\ntitle: Then\nrun:\nafter'
    runs = "\n```console\none\ntwo\n```\n\n```console\nthree\n```\n"
    (coded, then) = slides.section("Y", slides.sections(text.replace('code: 1 from "int b" in a.c', said) + runs)[1][1])
    assert [coded.index(t) for t in ("said", "int b;", "[...]\ntwo", "below")] == sorted(
        coded.index(t) for t in ("said", "int b;", "[...]\ntwo", "below")
    )
    assert "one" not in coded and then.index("three") < then.index("after") and "three" not in coded
    with pytest.raises(slides.Wrong, match="no console block is left for 'Then'"):
        slides.section("Y", slides.sections(text.replace('code: 1 from "int b" in a.c', said) + runs[:30])[1][1])
    # a section for which nothing was written
    (slide,) = slides.section("Y", slides.sections(re.sub(r"(?s)<!-- slide.*?-->\n", "", text))[1][1])
    assert "- Not said." in slide and "int a;" in slide


def test_lock():
    """package-lock.json names no host, and each package by its checksum."""
    lock = json.loads((SLIDES / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages and all("integrity" in entry and "resolved" not in entry for entry in packages.values())
    assert "omit-lockfile-registry-resolved=true" in (SLIDES / ".npmrc").read_text()
    wanted = json.loads((SLIDES / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())


def test_pages(tmp_path, report):
    """In a browser each slide fits, and no page asks for anything but itself."""
    for command in "node", "npm", "chromium":
        if not shutil.which(command):
            pytest.skip(f"there is no {command}: tools/need.sh site installs it")
    made = Patience().run([SLIDES / "make", tmp_path])
    assert made.returncode == 0, made.stderr
    for path in CHAPTERS:
        assert "https://fonts" not in (page := (tmp_path / f"{path.stem}.html").read_text())
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page.partition("<body")[0])
    index = (tmp_path / "index.html").read_text()
    assert re.findall(r'href="(.*?)"', index) == [f"{path.stem}.html" for path in CHAPTERS]
    looked = Patience().run(["node", SLIDES / "check.mjs", tmp_path])
    assert looked.returncode == 0, looked.stderr
    found = json.loads(looked.stdout)
    assert {name: deck["troubles"] for name, deck in found.items() if deck["troubles"]} == {}
    for path in CHAPTERS:
        assert found[f"{path.stem}.html"]["slides"] == len(pages(path))
    report(f"{sum(deck['slides'] for deck in found.values())} slides in {len(CHAPTERS)} decks")
