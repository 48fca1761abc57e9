"""The exit strip at the end of a chapter: which exits has its run that no earlier one had?"""

import math
import re

from facts import book, record
from shapes import WIDTH, figure

CHAPTERS = "04 06 07 08 09 10 11 12 13 14".split()


def exits(chapter):
    """{kind: how many} of the run at the end of CHAPTER."""
    rows = re.findall(r"(?m)^ *(\d+)  (.*)$", record(f"{chapter}-exits"))
    return {name: int(count) for count, name in rows}


def sometimes(chapter):
    """The kinds that book.toml leaves out of this chapter's record, as a pattern."""
    return book.plan()["run"][f"{chapter}-exits"].get("sometimes", "(?!)")


def group(kinds):
    """All registers of one virtio slot, loads and stores apart, in one row."""
    out = {}
    for name, count in kinds.items():
        if not re.search("QueueNotify|InterruptACK", name):
            name = re.sub(r"virtio\d\..*", "virtio7, others", name)
        out[name] = out.get(name, 0) + count
    return out


def strip(chapter):
    place = CHAPTERS.index(chapter)
    before = group(exits(CHAPTERS[place - 1])) if place else {}
    now = group(exits(chapter))
    ever = {k for c in CHAPTERS[:place] for k in group(exits(c))}
    new = [k for k in now if k not in ever]

    def draw(f):
        f.text(16, 28, "kind of exit", bold=True)
        f.text(WIDTH - 16, 28, "how many", bold=True, anchor="end")
        y, x, most = 46, 372, math.log10(20000)
        rows = sorted(now, key=lambda k: (k not in new, -now[k], k))
        most_old = len(new) + 9
        if len(rows) <= most_old + 2:
            most_old = len(rows)
        for name in rows[:most_old]:
            kind = "exit" if name in new else "plain"
            f.text(16, y + 18, f"`{name}`")
            f.box(x, y + 2, 14 + 240 * math.log10(now[name]) / most, "", kind, h=22)
            f.text(WIDTH - 16, y + 18, f"`{now[name]}`", anchor="end")
            y += 31
        if rows[most_old:]:
            f.text(
                16, y + 18, f"and {len(rows) - most_old} more kinds that were there before", "note"
            )
            y += 31
        gone = [f"`{k}`" for k in before if k not in now and not re.search(sometimes(chapter), k)]
        y += 22
        if place and new:
            f.out.append(
                f'<rect x="16" y="{y - 13}" width="16" height="14" rx="3" class="exit" stroke-width="1.5"/>'
            )
            f.text(40, y, "new in this chapter", "note")
            y += 26
        if gone:
            y = (
                f.note(
                    16,
                    y,
                    "not in this run, but in the last chapter's: " + ", ".join(gone),
                    WIDTH - 32,
                )
                + 26
            )
        if max(now.values()) > 1:
            f.text(16, y, "one run on QEMU 7.2; the bars have a logarithmic scale", "note")
        some = ", ".join(sorted(new, key=lambda k: (-now[k], k)))
        top = sorted(now, key=lambda k: -now[k])[:3]
        kinds = "one kind of exit" if len(now) == 1 else f"{len(now)} kinds of exits"
        return f"""The run at the end of chapter {int(chapter)} has
            {kinds}{", most of them " + ", ".join(top) if len(now) > 3 else ""}.
            {"New" if place else "It is"}: {some or "none of them"}.
            {"No longer there: " + ", ".join(gone).replace("`", "") + "." if gone else ""}"""

    figure(f"{chapter}-exits", f"The exits of chapter {int(chapter)}")(draw)


for chapter in CHAPTERS:
    strip(chapter)
