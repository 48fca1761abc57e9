"""CBMC proves what the tests can only try: for all instructions, all addresses and
everything that a guest may write into its rings (tests/host/prove_*.c).
"""

import re
import time

import pytest

from conftest import ROOT
from test_host import HOST, run

TOOLS = ROOT / "build/judges/run"  # tests/run gets them
CHECKS = ["--bounds-check", "--pointer-check", "--signed-overflow-check"]
CHECKS += ["--undefined-shift-check", "--div-by-zero-check", "--unwinding-assertions"]

# Smaller tables for the relay, just large enough for the proof.
SMALLER = "MAX_QUEUES = 64, MAX_QUEUE_SIZE = 1024", "MAX_QUEUES = 2, MAX_QUEUE_SIZE = 8"
# Lets the proof choose how many new entries there are.
FEW = "fence(); // read idx before the entries that it promises", "fence(); few(q, idx);"
# Each store into our table.  The proof looks at the table after every one.
STORE = r"(\n +to->(?:addr|len|flags|next) = [^;]+;)"


def prove(program, function, defines, includes, options, tmp_path, report):
    if not TOOLS.exists():
        pytest.skip("there is no CBMC: tools/debian.sh could not get it")
    start = time.monotonic()
    goto = tmp_path / "goto"
    includes = [f"-I{folder}" for folder in (HOST, *includes, ROOT)]
    source = HOST / f"prove_{program}.c"
    command = [TOOLS, "goto-cc", *includes, *defines, "--function", function]
    run([*command, "-o", goto, source])
    run([TOOLS, "goto-instrument", "--nondet-volatile", goto, goto])
    output = run([TOOLS, "cbmc", *CHECKS, *options, "--slice-formula", goto])
    assert "VERIFICATION SUCCESSFUL" in output
    failed, checks = re.search(r"\*\* (\d+) of (\d+) failed", output).groups()
    assert failed == "0" and re.search(rf"\[{function}\.assertion\.1\]", output)
    seconds = time.monotonic() - start
    what = " ".join([program, function, *defines])
    report(f"{checks:>7} checks proved by CBMC in {seconds:.0f} s: {what}")


@pytest.mark.parametrize("program", ["decode", "mem"])
def test_pure(program, tmp_path, report):
    prove(program, "prove", [], [], ["--unwind", 5], tmp_path, report)


@pytest.mark.parametrize(
    "function, size, at_most",
    [("prove", 8, 1), ("prove", 2, 2), ("prove_chain", 8, 1)]
    + [("prove_notify", 2, 2), ("prove_start", 8, 1)],
)
def test_virtio(function, size, at_most, tmp_path, report):
    text = (ROOT / "virtio.c").read_text()
    for right, ours in SMALLER, FEW:
        assert text.count(right) == 1
        text = text.replace(right, ours)
    text, stores = re.subn(STORE, r"\1 look();", text)
    assert stores == 4
    (tmp_path / "virtio.c").write_text(text)
    defines = [f"-DSIZE={size}", f"-DAT_MOST={at_most}"]
    options = ["--unwind", 12, "--drop-unused-functions"]
    # the loops over a chain and over new entries
    options += ["--unwindset", f"copy_chain.0:{size + 1},translate.0:{at_most + 1}"]
    prove("virtio", function, defines, [tmp_path], options, tmp_path, report)
