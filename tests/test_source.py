"""The tree itself: size, format, scripts."""

import json
import os
import platform
import re
import subprocess

import pytest

from conftest import QEMUS, ROOT
from mutants import MUTANTS


def names(*patterns):
    return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))


def lines_of_code(files):
    """Neither blank nor comment, by cloc."""
    result = subprocess.run(
        ["cloc", "--json", "--force-lang=C,dts", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    count = json.loads(result.stdout)
    assert count["header"]["n_files"] == len(files)
    return count["SUM"]["code"]


@pytest.mark.parametrize(
    "patterns, without, budget",
    [
        (("*.c", "*.S"), ["mmode.c"], 1000),  # what it takes to boot Linux
        (("mmode.c",), [], 160),  # for kernels that begin in M-mode
        (("hv.h", "csr.h"), [], 250),
    ],
)
def test_line_budget(report, patterns, without, budget):
    lines = lines_of_code([name for name in names(*patterns) if name not in without])
    but = f" but {' '.join(without)}" if without else ""
    report(f"{lines:7} lines of code in {' '.join(patterns)}{but}, of {budget}")
    assert lines <= budget


def test_readme_numbers():
    """What the README says of each file's length, and that it names them all."""
    text = (ROOT / "README.md").read_text()
    said = dict(re.findall(r"^\| ([\w.]+) \| (\d+) \|", text, re.MULTILINE))
    files = names("*.c", "*.S", "*.h", "*.dts")
    assert said == {file: str(lines_of_code([file])) for file in files}


def test_readme_options():
    """It has what --help says."""
    help_text = subprocess.run(
        [ROOT / "run.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert f"```\n{help_text}```\n" in (ROOT / "README.md").read_text()


def test_headers():
    """The vocabulary, and the instructions that no other machine has."""
    assert names("*.h") == ["csr.h", "hv.h"]


def test_format():
    version = subprocess.run(["clang-format", "--version"], capture_output=True, text=True)
    if " 14." not in version.stdout:
        pytest.skip("other versions of clang-format than 14 want other lines")
    result = subprocess.run(
        ["clang-format", "--dry-run", "-Werror", *names("*.[ch]", "tests/**/*.[ch]")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "script",
    ["run.sh", "tools/need.sh", "tools/debian.sh", "tools/debian13.sh"]
    + ["linux/build.sh", "rootfs/build.sh", "rootfs/init", "tests/run", ".ci/run"],
)
def test_script(script):
    """It can be started, and the shell understands it."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", path], check=True)


def test_promises():
    """The tests that docs/security.md names are there."""
    text = (ROOT / "docs/security.md").read_text()
    named = set(re.findall(r"(test_\w+\.py)(?:::(test_\w+))?", text))
    assert len(named) > 10
    for file, test in named:
        tests = (ROOT / "tests" / file).read_text()
        assert (f"def {test}(" if test else "def test_") in tests, (file, test)


def test_mutants():
    """What `make mutants` changes is there, each in one place."""
    for file, right, wrong, _ in MUTANTS:
        assert (ROOT / file).read_text().count(right) == 1, (file, right)
        assert right != wrong


def test_readme_table():
    """The README names the QEMUs that Debian 12 has, where its table is made.

    By their major versions: the newest one changes without our doing.
    """
    text = (ROOT / "README.md").read_text()
    table = re.search(r"(?s)^<!-- tested .*?^<!-- end ", text, re.MULTILINE)[0]
    rows = re.findall(r"^\| (\d+)\.\d+ \| \d+\.\d+ \|", table, re.MULTILINE)
    assert rows
    system = platform.freedesktop_os_release()
    debian_12 = (system["ID"], system.get("VERSION_ID")) == ("debian", "12")
    if debian_12 and not os.environ.get("QEMU"):
        assert rows == [re.search(r"\d+", name)[0] for name in QEMUS]
