#!/usr/bin/env python3
"""Which exits does a run have?  (`exits` in book.toml)

The hypervisor keeps its last exits in memory from step 04.4 on.  tools/exits.py reads them
out of QEMU while it runs.  This tells it where they are at a step of the book, and makes a
table of what it found: how many there were of each kind, by name.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def ask_gdb(elf, *questions):
    """What numbers does gdb give for QUESTIONS, without running anything?"""
    line = [shutil.which("gdb-multiarch") or "gdb", "-nx", "-q", "-batch", elf]
    for question in questions:
        line += ["-ex", f"output {question}", "-ex", "echo \\n"]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return [int(number) for number in re.findall(r"(?m)^\d+$", text)]


def watched(qemu, folder, ram):
    """A command that runs QEMU with its arguments, and writes build/trace in FOLDER."""
    elf = folder / "build/hv.elf"
    offset, harts = ask_gdb(
        elf, "(long)&((struct vcpu *)0)->exits", "((struct guest *)&guest)->harts"
    )
    symbols = folder / "build/symbols"
    nm = os.environ.get("CROSS", "riscv64-linux-gnu-") + "nm"
    symbols.write_text(subprocess.run([nm, elf], capture_output=True, text=True, check=True).stdout)
    words = [sys.executable, __file__, offset, "--harts", harts, "--mib", int(ram[:-1]) << 10]
    words += ["--hv", symbols, "--trace", folder / "build/trace", "--", qemu]
    command = folder / "build/qemu"
    command.write_text(f"#!/bin/sh\nexec {' '.join(map(str, words))} \"$@\"\n")
    command.chmod(0o755)
    return str(command)


def table(folder, without):
    """How many exits of which kind build/trace has, WITHOUT those like this.

    Exception 0 is none of them: that record was read before it was complete, and then the
    machine was reset.  A completion is an exit only if the next interrupt is shown already.
    """
    trace = json.loads((folder / "build/trace").read_text())
    kinds = Counter(event["name"] for event in trace["traceEvents"] if event["ph"] == "X")
    kinds = {k: n for k, n in kinds.items() if not re.search(f"Exception 0|plic.complete|{without or '(?!)'}", k)}
    lost = trace["otherData"]["exits lost"]
    text = "".join(f"{count:7}  {kind}\n" for kind, count in sorted(kinds.items()))
    return text + (f"{lost:7}  lost\n" if lost else "")


if __name__ == "__main__":
    sys.path.insert(0, str(TOOLS))
    import exits  # of tools

    exits.EXITS = int(sys.argv.pop(1))
    exits.main()
