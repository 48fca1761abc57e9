"""The book: every step builds, every run shows what the chapter says."""

import importlib.machinery
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest

from conftest import QEMUS, ROOT

loader = importlib.machinery.SourceFileLoader("book", str(ROOT / "book/book"))
book = importlib.util.module_from_spec(importlib.util.spec_from_loader("book", loader))
loader.exec_module(book)

sys.path.insert(0, str(ROOT / "book/figures"))
import part1  # noqa: E402,F401
import part2  # noqa: E402,F401
import strips  # noqa: E402,F401
from shapes import FIGURES, KINDS, THEMES  # noqa: E402

PLAN = book.plan()
CHAPTERS = {path.name[:2]: path for path in book.chapters()}


def on_each(entries, at_most=9):
    """Each on all QEMUs, or on AT_MOST so many, in turn; but not where the book says so."""
    params = []
    for i, (name, entry) in enumerate(entries.items()):
        qemus = [
            (qemu, command)
            for qemu, command in QEMUS.items()
            if "only" not in entry or re.search(r"\d+", qemu)[0] in entry["only"]
        ]
        most = 1 if "shell" in entry else at_most
        for qemu, command in (qemus * 2)[i % len(qemus or [0]) :][: min(most, len(qemus))]:
            params.append(pytest.param(name, command, id=f"{name}-{qemu}"))
    return params


@pytest.mark.parametrize("step", book.steps())
def test_step(step, tmp_path):
    """It applies to what was there before, and builds without a warning."""
    folder = tmp_path / step
    shutil.copytree(book.state(step), folder, symlinks=True, ignore=shutil.ignore_patterns("build"))
    book.build(folder)


def test_last_step():
    """The code is then this repository's, byte for byte."""
    folder = book.state(max(book.steps()))
    mine = {path.name: path.read_bytes() for path in book.sources()}
    its = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".c", ".S", ".h", ".ld", ".dts")
    }
    extra = {name for name in its if name.startswith("guests/")}
    assert {name: text for name, text in its.items() if name not in extra} == mine


@pytest.mark.parametrize("name, qemu", on_each(PLAN["run"]))
def test_run(name, qemu):
    book.compare(name, qemu)


def test_mask():
    """What the kernel says behind a prompt takes no prompt away."""
    said = "guest:~# [    0.6] x\nguest:~# [    0.612345] hrtimer: interrupt took 1 ns\npoweroff\n"
    assert book.mask(said) == ["guest:~# [    0.6] x", "guest:~# poweroff"]


@pytest.mark.parametrize("name, qemu", on_each(PLAN["fault"], 1))
def test_fault(name, qemu):
    """A row of "if you see this": the fault shows what the row says."""
    book.fault(name, qemu)


def test_faults():
    """Each row has its fault, and each fault its row; no chapter that has steps has under three."""
    for number, chapter in CHAPTERS.items():
        rows = re.findall(r"(?m)^\|.*<!-- fault (\S+) -->", chapter.read_text())
        assert sorted(rows) == sorted(n for n in PLAN["fault"] if n.startswith(number))
        assert number in ("00", "16") or len(rows) >= 3, chapter


@pytest.mark.parametrize("name, qemu", on_each(PLAN["exercise"], 1))
def test_exercise(name, qemu):
    """Its check fails on the chapter's code, and passes with the solution."""
    assert not book.solved(name, qemu)
    assert book.solved(name, qemu, solution=True)


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS.keys())
def test_chapter(chapter):
    """Its listings and console blocks are what the steps and records say."""
    text = chapter.read_text()
    assert book.fill(text, chapter.name[:2]) == text, "book/book fill"
    for name in re.findall(r"<!-- run (\S+)", text):
        assert name in PLAN["run"]
    number = str(int(chapter.name[:2]))
    exercises = re.findall(r"(?m)^\*\*(\d+\.\d)\*\*", text)
    mine = [n for n in PLAN["exercise"] if n.startswith(chapter.name[:2])]
    assert [f"{chapter.name[:2]}-{e.split('.')[1]}" for e in exercises] == mine
    assert all(e.startswith(number + ".") for e in exercises)
    for link in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert link.startswith("https://") or (chapter.parent / link).exists(), link


@pytest.mark.parametrize("name", FIGURES)
def test_figure(name):
    """It is what the runs and sources say, says so in words, and is in its chapter, once."""
    svg = (ROOT / f"book/figures/{name}.svg").read_text()
    assert FIGURES[name]().svg() == svg, f"book/figures/draw {name}"  # looks at its texts, too
    assert 'role="img" viewBox' in svg and f"<title id=\"fig-{name}-title\">" in svg
    assert 80 < len(re.search("<desc[^>]*>(.*)</desc>", svg)[1]) < 500
    assert not re.search("https?://(?!www.w3.org/2000/svg)|url\\(", svg)
    if name[:2] in CHAPTERS:  # it is written
        assert CHAPTERS[name[:2]].read_text().count(f"<!-- figure {name} -->") == 1


def test_figures():
    """There are no others, and their text can be read on all that it stands on."""
    assert {path.stem for path in (ROOT / "book/figures").glob("*.svg")} == set(FIGURES)
    for theme in THEMES.values():

        def light(name):
            parts = [int(theme[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]
            r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05

        for text in "fg", "dim":
            for ground in (*KINDS, "ground"):
                assert max(light(text), light(ground)) / min(light(text), light(ground)) >= 4.5


def test_tool():
    """Its errors are one line each, and say where."""

    def run(*words):
        return subprocess.run([ROOT / "book/book", *words], capture_output=True, text=True)

    assert run("--help").stdout.startswith("The machinery")
    for words in ["nonsense"], ["apply", "77.1", "/tmp"], ["grade", "01", "/nowhere"], ["apply"]:
        result = run(*words)
        assert result.returncode == 1 and result.stdout == ""
        assert re.fullmatch(r"book: .*\n", result.stderr), result.stderr


def test_apply(tmp_path):
    """A patch that does not fit names the step, the file and the hunk."""
    folder = tmp_path / "hv"
    subprocess.run([ROOT / "book/book", "apply", "01", folder], check=True, capture_output=True)
    (folder / "hv.c").write_text("something else\n")
    result = subprocess.run([ROOT / "book/book", "apply", "02.1", folder], capture_output=True, text=True)
    assert result.returncode == 0  # that step does not touch hv.c
    result = subprocess.run([ROOT / "book/book", "apply", "03.1", folder], capture_output=True, text=True)
    assert result.stderr == "book: 03.1-tree.patch does not fit: hv.c, hunk 1 (line 1)\n"


def test_grade(tmp_path):
    """It passes on the end of a chapter, and says what is missing before that."""
    folder = tmp_path / "hv"
    grade = [ROOT / "book/book", "grade", "02", folder]
    subprocess.run([ROOT / "book/book", "apply", "01", folder], check=True, capture_output=True)
    result = subprocess.run([*grade, "--json"], capture_output=True, text=True)
    assert result.returncode == 1 and not json.loads(result.stdout)["passed"]
    subprocess.run([ROOT / "book/book", "apply", "02", folder], check=True, capture_output=True)
    result = subprocess.run(grade, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_grade_looks_at_the_end(tmp_path):
    """The right text is not enough: QEMU must end where the chapter says so."""
    folder = tmp_path / "hv"
    subprocess.run([ROOT / "book/book", "apply", "01.2", folder], check=True, capture_output=True)
    grade = [ROOT / "book/book", "grade", "01", folder]
    result = subprocess.run(grade, capture_output=True, text=True)
    assert result.returncode == 1 and "+ [QEMU goes on]" in result.stdout, result.stdout


def test_fold(tmp_path):
    """A change of the sources goes to the step where the line was born."""
    # On a copy of the tree, because fold writes into book/steps
    copy = tmp_path / "tree"
    ignore = shutil.ignore_patterns(".git", "build", "*.img*")
    shutil.copytree(ROOT, copy, ignore=ignore)
    for name in "print.c", "exit.c":
        text = (copy / name).read_text()
        assert "unsigned long, in hexadecimal" in text or "There is no way back" in text
        text = text.replace("an unsigned long, in hexadecimal", "an unsigned long in hexadecimal")
        (copy / name).write_text(text.replace("There is no way back", "No way leads back"))
    before = {path.name: path.read_text() for path in (copy / "book/steps").iterdir()}
    subprocess.run([copy / "book/book", "fold"], check=True)
    after = {path.name: path.read_text() for path in (copy / "book/steps").iterdir()}
    assert {n for n in after if after[n] != before[n]} >= {"01.2-print.patch", "02.1-trap.patch"}
    last = tmp_path / "last"
    subprocess.run([copy / "book/book", "apply", "15", last], check=True, capture_output=True)
    for name in "print.c", "exit.c":
        assert (last / name).read_text() == (copy / name).read_text()


def test_stats(report):
    """How long the chapters are, for the summary of the run."""
    report(book.stats())
