"""The tree itself: size, format, scripts."""

import graphlib
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
    """Counts the lines that are neither blank nor comments, by cloc."""
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
    """The README names every file and gives its right length."""
    text = (ROOT / "README.md").read_text()
    said = dict(re.findall(r"^\| \[([\w.]+)\]\(\1\) \| (\d+) \|", text, re.MULTILINE))
    files = names("*.c", "*.S", "*.h", "*.dts")
    assert said == {file: str(lines_of_code([file])) for file in files}


def test_calls_run_down():
    """No two files call each other, not even by way of others.

    So you can read a file and know what it builds on.  trap.S is a door and not a
    call: a hart that enters the guest comes back in handle_exit().
    """
    defined, used = {}, {}
    for file in names("*.c", "*.S"):
        command = ["riscv64-linux-gnu-nm", ROOT / f"build/{file}.o"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        symbols = [line.split()[-2:] for line in lines.splitlines()]
        defined |= {name: file for kind, name in symbols if kind == "T"}
        used[file] = {name for kind, name in symbols if kind == "U"}
    used["trap.S"] -= {"handle_exit", "bug_found"}
    used["hv.c"] -= {"boot"}  # it only gives boot's address to the firmware
    calls = {
        file: {defined[name] for name in names if name in defined} - {file}
        for file, names in used.items()
    }
    assert "hart.c" in calls["hv.c"] and "plic.c" in calls["mmio.c"]
    tuple(graphlib.TopologicalSorter(calls).static_order())  # or CycleError


def test_readme_options():
    """The README shows exactly what --help prints."""
    help_text = subprocess.run(
        [ROOT / "run.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert f"```\n{help_text}```\n" in (ROOT / "README.md").read_text()


def test_headers():
    """There are two: the vocabulary, and the instructions that only RISC-V has."""
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
    + ["linux/build.sh", "rootfs/build.sh", "rootfs/init", "tests/run", ".ci/run", "site/build"],
)
def test_script(script):
    """The script is executable, and its shell can parse it."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", path], check=True)


def test_promises():
    """Every test that docs/security.md names exists."""
    text = (ROOT / "docs/security.md").read_text()
    named = set(re.findall(r"(test_\w+\.py)(?:::(test_\w+))?", text))
    assert len(named) > 10
    for file, test in named:
        tests = (ROOT / "tests" / file).read_text()
        assert (f"def {test}(" if test else "def test_") in tests, (file, test)


def test_mutants():
    """The code that `make mutants` changes exists, each piece in one place only."""
    for file, right, wrong, _ in MUTANTS:
        assert (ROOT / file).read_text().count(right) == 1, (file, right)
        assert right != wrong


def test_readme_table():
    """The README's table is made on Debian 12, and names the QEMUs found there.

    Only their major versions count: the newest QEMU changes without our doing.
    """
    text = (ROOT / "README.md").read_text()
    table = re.search(r"(?s)^<!-- tested .*?^<!-- end ", text, re.MULTILINE)[0]
    rows = re.findall(r"^\| (\d+)\.\d+ \| \d+\.\d+ \|", table, re.MULTILINE)
    assert rows
    system = platform.freedesktop_os_release()
    debian_12 = (system["ID"], system.get("VERSION_ID")) == ("debian", "12")
    if debian_12 and not os.environ.get("QEMU"):
        assert rows == [re.search(r"\d+", name)[0] for name in QEMUS]
