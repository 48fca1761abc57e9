"""The tree itself: size, format, scripts."""

import json
import subprocess

import pytest

from conftest import ROOT


def names(*patterns):
    return sorted(p.name for pattern in patterns for p in ROOT.glob(pattern))


def lines_of_code(files):
    """Neither blank nor comment, by cloc."""
    result = subprocess.run(
        ["cloc", "--json", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    count = json.loads(result.stdout)
    assert count["header"]["n_files"] == len(files)
    return count["SUM"]["code"]


@pytest.mark.parametrize(
    "patterns, budget", [(("*.c", "*.S"), 1000), (("hv.h",), 150)]
)
def test_line_budget(report, patterns, budget):
    lines = lines_of_code(names(*patterns))
    report(f"{lines:7} lines of code in {' '.join(patterns)}, of {budget}")
    assert lines <= budget


def test_one_header():
    assert names("*.h") == ["hv.h"]


def test_format():
    result = subprocess.run(
        ["clang-format", "--dry-run", "-Werror", *names("*.c", "*.h")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "script",
    ["run.sh", "tools/need.sh", "tools/debian.sh", "linux/build.sh"]
    + ["rootfs/build.sh", "rootfs/init", "tests/run", ".ci/run"],
)
def test_script(script):
    """It can be started, and the shell understands it."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", path], check=True)
