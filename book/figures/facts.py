"""What the records of runs and the sources say."""

import importlib.machinery
import importlib.util
import re
from collections import namedtuple
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent
loader = importlib.machinery.SourceFileLoader("book", str(BOOK / "book"))
book = importlib.util.module_from_spec(importlib.util.spec_from_loader("book", loader))
loader.exec_module(book)


def record(name):
    return (BOOK / f"runs/{name}.txt").read_text()


def said(name, pattern, which=0):
    """The group of PATTERN, or all if there are several, in the record of run NAME."""
    found = list(re.finditer(pattern, record(name), re.MULTILINE))
    if len(found) <= which:
        raise ValueError(f"the run {name} does not say {pattern}")
    groups = found[which].groups()
    return groups[0] if len(groups) == 1 else groups


def number(name, pattern, which=0):
    return int(said(name, pattern, which), 16)


def source(step, file):
    return (book.state(step) / file).read_text()


def constant(step, name):
    """The number that NAME has in hv.h: a #define or a member of an enum."""
    found = re.search(
        rf"\b{name} *=? *(?:\(?)(0x[0-9a-f]+|\d+)(?:ul)?(?: << (\d+))?", source(step, "hv.h")
    )
    return int(found[1], 0) << int(found[2] or 0)


Entry = namedtuple("Entry", "level index at value words then where")


def entries(text):
    """The page table entries that `hv walk` and `hv gwalk` print."""
    form = r"(.*?)level (\d): PTE (\d+) at ([HG]PA) (0x\w+) = (0x\w+): (.*): (.*)"
    return [
        Entry(int(m[2]), int(m[3]), int(m[5], 16), int(m[6], 16), m[7], m[8], m[1].strip() or m[4])
        for m in map(re.compile(form).match, text.split("\n"))
        if m
    ]


def hexa(number):
    return f"{number:#x}"
