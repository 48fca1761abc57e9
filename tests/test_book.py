"""The book: every step builds, every run shows what the chapter says."""

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from conftest import QEMUS, ROOT
from test_mmode import has_mpv

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


def needs_mpv(name, qemu):
    if name.startswith("15") and name != "15-opening" and not has_mpv(qemu):
        pytest.skip("mstatus.MPV can't be written on this QEMU")


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
    if not book.same_linux() and not re.match(r"\d\d-end", name):
        pytest.skip("the records are of another Linux and compiler")
    needs_mpv(name, qemu)
    book.compare(name, qemu)


def test_other_linux(monkeypatch):
    """Where Linux is another one, the grader looks at all but its log."""
    monkeypatch.setattr(book, "same_linux", lambda: False)
    book.compare("13-end", QEMUS[min(QEMUS)])
    before = ["[time] x", "guest:~# nproc", "4", "hv: exit: cause 15, pc ff, tval 8, gpa c"]
    assert book.without_log(before) == ["guest:~# nproc", "4", "hv: exit: cause 15, pc ..., tval ..., gpa c"]


def test_mask():
    """What the kernel says behind a prompt takes no prompt away."""
    said = "guest:~# [    0.6] x\nguest:~# [    0.612345] hrtimer: interrupt took 1 ns\npoweroff\n"
    assert book.mask(said) == ["guest:~# [    0.6] x", "guest:~# poweroff"]


@pytest.mark.parametrize("name, qemu", on_each(PLAN["fault"], 1))
def test_fault(name, qemu):
    """A row of "if you see this": the fault shows what the row says."""
    needs_mpv(name, qemu)
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
    needs_mpv(name, qemu)
    assert not book.solved(name, qemu)
    if not (ROOT / "book/solutions").exists():
        pytest.skip("there is no book/solutions here: this is a handout, see book/teachers.md")
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


def texts(folder):
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {n: p.read_text() for n, p in files.items() if not p.is_symlink() and not n.startswith("build/")}


@pytest.mark.parametrize("chapter", [n for n in CHAPTERS if any(s.startswith(n) for s in book.steps())])
def test_listings(chapter):
    """Whoever types them, each in the one place where its context is, gets the chapter's code."""
    before = [step for step in book.steps() if step < chapter]
    files = texts(book.state(before[-1])) if before else {}
    text = CHAPTERS[chapter].read_text()
    listing = r"(?ms)^\*([\w./]+)(, a new file|, below that|.*?):\*\n\n```(\w*)\n(.*?)^```$"
    for part in re.findall(r"(?ms)^<!-- listing .*?^<!-- end -->$", text):
        for name, place, kind, code in re.findall(listing, part):
            if kind != "diff":
                assert (name in files) == (place == ", below that"), name
                files[name] = f"{files[name]}\n{code}" if name in files else code
                continue
            rows = [(line[:1] or " ", line[1:] + "\n") for line in code.split("\n")[:-1]]
            old = "".join(line for mark, line in rows if mark != "+")
            new = "".join(line for mark, line in rows if mark != "-")
            have = "\n" + files[name]
            assert have.count("\n" + old) == 1, f"{name}{place}: {old}"
            files[name] = have.replace("\n" + old, "\n" + new)[1:]
    assert files == texts(book.state(chapter))


def test_tool():
    """Its errors are one line each, and say where."""

    def run(*words):
        return subprocess.run([ROOT / "book/book", *words], capture_output=True, text=True)

    assert run("--help").stdout.startswith("The machinery")
    for words in ["nonsense"], ["apply", "77.1", "/tmp"], ["grade", "01", "/nowhere"], ["apply"]:
        result = run(*words)
        assert result.returncode == 2 and result.stdout == ""
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


def graded(*words, run=subprocess.run, **options):
    """What grade says as JSON, and its exit status."""
    result = run([ROOT / "book/book", "grade", *words, "--json"], capture_output=True, text=True, **options)
    said = json.loads(result.stdout)
    assert ("error" in said) == (result.returncode == 2) and "Traceback" not in result.stderr
    assert said["passed"] == {0: True, 1: False, 2: None}[result.returncode]
    return said, result.returncode


@pytest.mark.parametrize(
    "words, env, error",
    [
        (["77", "hv"], {}, "there is no chapter 77 with a run at its end: they are 01 to"),
        (["one", "hv"], {}, "there is no chapter one"),
        (["01-9", "hv"], {}, "there is no exercise 01-9"),
        (["01", "."], {}, "has no Makefile"),
        (["01", "nowhere"], {}, "nowhere has no Makefile"),
        (["01"], {}, "no command of mine"),
        (["01", "hv"], {"QEMU": "no-qemu"}, "there is no command no-qemu: book/book doctor"),
        (["01", "hv"], {"QEMU": "true"}, "true is no QEMU"),
        (["01", "hv"], {"CROSS": "no-"}, "there is no command no-gcc"),
    ],
)
def test_grade_errors(words, env, error, tmp_path):
    """What is not the reader's fault is status 2, and one line or a JSON error."""
    (tmp_path / "hv").mkdir()
    (tmp_path / "hv/Makefile").write_text("all:\n")
    options = {"cwd": tmp_path, "env": {**os.environ, **env}}
    said, status = graded(*words, **options)
    assert status == 2 and error in said["error"]
    result = subprocess.run([ROOT / "book/book", "grade", *words], capture_output=True, text=True, **options)
    assert result.returncode == 2 and result.stdout == ""
    assert re.fullmatch(r"book: .*\n", result.stderr) and error in result.stderr


def test_grade_without_guest(tmp_path, monkeypatch, capsys):
    """Linux that is not built is no fault of the reader's."""
    monkeypatch.setattr(book, "GUEST", {"Image": "build/no/Image"})
    (tmp_path / "Makefile").write_text("all:\n")
    assert book.grade("07", tmp_path, True) == 2
    assert "build/no/Image is not built yet: book/book guest" in json.loads(capsys.readouterr().out)["error"]


def test_grade_any_folder(tmp_path):
    """One that is read-only, with spaces, odd files and a stale Image, from anywhere."""
    folder = tmp_path / "my own folder"
    subprocess.run([ROOT / "book/book", "apply", "01", folder], check=True, capture_output=True)
    for link in "Image", "link":
        (folder / link).symlink_to("/nowhere")
    os.mkfifo(folder / "fifo")
    (folder / "notes").mkdir()
    (folder / "notes/day 1").write_text("hello")
    before = sorted(folder.rglob("*"))
    for path in before:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    folder.chmod(0o555)
    # Root may write anywhere unless it gives that up.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    wrap = drop if os.getuid() == 0 and subprocess.run([*drop, "true"]).returncode == 0 else []
    try:
        said, status = graded("1", folder, run=lambda c, **o: subprocess.run([*wrap, *c], **o), cwd="/")
    finally:
        for path in (folder, folder / "notes"):
            path.chmod(0o755)
    assert status == 0 and said["chapter"] == "01" and said["exercises"] == {"01-1": False, "01-2": False}
    assert sorted(folder.rglob("*")) == before
    assert not list(book.CACHE.glob(f"grade.{os.getpid()}*"))


def test_grade_exercise(tmp_path):
    """An exercise alone, which has its own status; it may change what the chapter shows."""
    folder = tmp_path / "hv"
    subprocess.run([ROOT / "book/book", "apply", "01", folder], check=True, capture_output=True)
    say = '    say("hello from hart %lx", hart);\n'
    text = (folder / "hv.c").read_text().replace(say, say + '    say("the firmware is 1");\n')
    (folder / "hv.c").write_text(text)
    assert [graded(what, folder)[1] for what in ("01", "01-1", "1.2")] == [1, 0, 1]


def test_grade_makefile(tmp_path, monkeypatch, capsys):
    """A Makefile that fails, that makes nothing, that hangs, that leaves something running."""
    monkeypatch.setattr(book, "LIMIT", 8)
    monkeypatch.setattr("patience.STEP", 2)
    makefiles = {
        "all:\n\t@printf 'caf\\351\\n'; exit 3\n": "caf\ufffd",
        "all:\n\t@true\n": "no build/hv.elf",
        "all:\n\t@sleep 87654\n": "does not come to an end",
        "all:\n\t@sleep 87654 & false\n": "Error 1",
        "all:\n\t@yes\n": "and so on",
    }
    for text, why in makefiles.items():
        (tmp_path / "Makefile").write_text(text)
        assert book.grade("01", tmp_path, True) == 1
        said = json.loads(capsys.readouterr().out)
        assert said["exercises"] == {"01-1": False, "01-2": False}
        assert [c["passed"] for c in said["checks"]] == [False] and why in said["checks"][0]["why"]
    assert subprocess.run(["pgrep", "-f", "^sleep 87654$"]).returncode == 1


@pytest.mark.parametrize("loop", ["for (;;);", 'for (;;) say("on");', 'for (;;) { say("on"); pause(); }'])
def test_grade_loop(loop, tmp_path, monkeypatch, capsys):
    """Code that never ends is ended: if it says nothing, if it goes on, and if it does so slowly."""
    monkeypatch.setattr(book, "LIMIT", 40)
    monkeypatch.setattr("patience.STEP", 2)
    folder = tmp_path / "hv"
    subprocess.run([ROOT / "book/book", "apply", "01", folder], check=True, capture_output=True)
    text = (folder / "hv.c").read_text()
    assert '    say("hello' in text
    pause = "static void pause(void) { for (volatile long i = 0; i < 50000000; i++); }\n" if "pause" in loop else ""
    text = text.replace('    say("hello', f'    {loop}\n    say("hello').replace("_Noreturn void main", pause + "_Noreturn void main")
    (folder / "hv.c").write_text(text)
    assert book.grade("01-1", folder, True) == 1
    said = json.loads(capsys.readouterr().out)
    assert [c["passed"] for c in said["checks"]] == [True, False]


def test_grade_try(tmp_path):
    """A try goes into code that differs from the book's, or the result says that it did not."""
    folder = tmp_path / "hv"
    subprocess.run([ROOT / "book/book", "apply", "02", folder], check=True, capture_output=True)
    text = (folder / "hv.c").read_text()
    hello, end = '    say("hello from hart %lx", hart);\n', "    shut_down(TEST_PASS);\n"
    assert hello + end in text
    store = "    *(volatile int *)0x8000000 = 1;\n"
    others = {
        hello.replace("    ", "\t") + end: 0,
        hello.strip() + " // mine\n\n" + end + "\n": 0,
        hello + store + end: 0,  # it is there already
        hello.strip() + " // mine\n" + end.strip() + " // mine\n": 0,
        hello.replace("hart);", "hart );") + end.replace("(TEST_PASS)", "( TEST_PASS )"): 1,
    }
    for other, expected in others.items():
        (folder / "hv.c").write_text(text.replace(hello + end, other))
        said, status = graded("02", folder)
        assert status == expected, (other, said)
        assert (status == 1) == ("could not put tries/02-store.patch into your code" in said["checks"][1]["why"])


def test_teachers(tmp_path):
    """The page for teachers has the chapters' numbers, and shows what grade prints."""
    page = (ROOT / "book/teachers.md").read_text()
    assert book.fill_teachers(page) == page, "book/book fill"
    for link in re.findall(r"\]\(([^)#\s]+)\)", page):
        assert (ROOT / "book" / link).exists(), link
    shown = [json.loads(block) for block in re.findall(r"(?ms)^```json\n(.*?)^```$", page)]
    folder = tmp_path / "anna"
    subprocess.run([ROOT / "book/book", "apply", "02", folder], check=True, capture_output=True)
    said = [graded("02", folder)[0], graded("77", folder)[0]]
    assert [list(s) for s in said] == [list(s) for s in shown]
    assert [c["check"] for c in said[0]["checks"]] == [c["check"] for c in shown[0]["checks"]]
    for name in re.findall(r"\b(\d\d?)\.(\d)\b", page.partition("## Five lab")[2].partition("## Slides")[0]):
        assert f"{int(name[0]):02}-{name[1]}" in PLAN["exercise"], name


@pytest.mark.alone
def test_grade_time(tmp_path, report):
    """How long it takes to grade a chapter is what the teachers' page says, on any machine."""
    low, high = map(int, re.search(r"takes about (\d+) to (\d+) seconds", (ROOT / "book/teachers.md").read_text()).groups())
    folder = tmp_path / "hv"
    subprocess.run([ROOT / "book/book", "apply", "05", folder], check=True, capture_output=True)
    before = book.piece()
    said, status = graded("05", folder)
    assert status == 0
    slow = max(1, (before + book.piece()) / 2 / 0.25)  # patience.py: what a piece takes
    report(f"grading chapter 5 took {said['seconds']} s")
    assert low / 5 <= said["seconds"] <= high * slow


def test_handout(tmp_path):
    """It has no solutions and no history, and grade and the tests work in it."""
    copy = tmp_path / "hand out"
    command = [ROOT / "book/book", "handout", copy]
    subprocess.run(command, check=True, capture_output=True)
    assert subprocess.run(command, capture_output=True).returncode == 2  # there is something
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert not [p for p in files if "solution" in p.name or ".git" in p.relative_to(copy).parts]
    text = "\n".join(path.read_text(errors="replace") for path in files)
    tries = "\n".join(path.read_text() for path in (ROOT / "book/tries").iterdir())
    for solution in (ROOT / "book/solutions").glob("*.patch"):
        for hunk in re.findall(r"(?m)(?:^\+(?!\+\+).*\n)+", solution.read_text()):
            if len(hunk) > 24 and hunk not in tries:
                assert hunk not in text and re.sub(r"(?m)^\+", "", hunk) not in text, solution
    folder = tmp_path / "hv"
    subprocess.run([copy / "book/book", "apply", "01", folder], check=True, capture_output=True)
    assert subprocess.run([copy / "book/book", "grade", "01", folder], capture_output=True).returncode == 0
    test = [sys.executable, "-B", "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-k", "test_exercise and 01-2"]
    result = subprocess.run([*test, "tests/test_book.py"], cwd=copy, capture_output=True, text=True)
    assert "SKIPPED [1]" in result.stdout and "this is a handout" in result.stdout, result.stdout


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
