"""What the book's figures are made of: boxes, lines, text, and their looks.

A figure has a light and a dark look, on a transparent ground.  As an image of its own it
follows the reader's system (prefers-color-scheme).  A page that puts the SVG's text into
itself gives the <svg> the class "inlined": then the class "dark" on any element around it
decides, and the system's wish does not count.  All of a figure's rules begin with its own
class, fig-NAME, so that several figures can be in one page.

A figure is 760 units wide.  On a telephone that is half of the size, so no text is smaller
than 15.  Figure.check() says where text may not be.
"""

import functools
import math
import re
from collections import namedtuple
from html import escape

WIDTH = 760

# --- Looks -------------------------------------------------------------------

# For each kind of thing: what fills its box, and what is around it.  `fg` is text, `dim`
# is text of less weight, `ground` is what the page is likely to have behind us.
THEMES = {
    "light": {
        "fg": "#1f2328", "dim": "#4f5862", "ground": "#ffffff",
        "guest": "#ddf2e2", "guest-line": "#2f8f4e",
        "host": "#dfeafb", "host-line": "#3b6fc4",
        "hart": "#ebe5f8", "hart-line": "#7a5cc0",
        "exit": "#fde6d3", "exit-line": "#c4621a",
        "plain": "#f1f2f4", "plain-line": "#79828c",
    },
    "dark": {
        "fg": "#e8ebef", "dim": "#b1bac4", "ground": "#1b1b1f",
        "guest": "#173524", "guest-line": "#58b97a",
        "host": "#172a4a", "host-line": "#6f9fe8",
        "hart": "#2c2349", "hart-line": "#a58be6",
        "exit": "#452811", "exit-line": "#eb9550",
        "plain": "#262b31", "plain-line": "#88929c",
    },
}  # fmt: skip
KINDS = ("guest", "host", "hart", "exit", "plain")
MEANING = {
    "guest": "the guest",
    "host": "our hypervisor",
    "hart": "the hart and the firmware",
    "exit": "an exit, or what is new",
    "plain": "the board",
}
SIZES = {"": 18, "mono": 16.5, "note": 16.5, "small": 15}
LINE = 25  # from one line of text to the next


def style(name):
    """The rules of figure NAME."""
    me = f".fig-{name}"

    def colours(theme):
        return "".join(f"--{k}:{v};" for k, v in THEMES[theme].items() if k != "ground")

    rules = [f"{me}{{{colours('light')}}}"]
    rules += [f"@media (prefers-color-scheme:dark){{{me}:not(.inlined){{{colours('dark')}}}}}"]
    rules += [f".dark {me}{{{colours('dark')}}}"]
    rules += [f"{me} text{{font:{SIZES['']}px system-ui,sans-serif;fill:var(--fg)}}"]
    rules += [
        f"{me} .mono{{font:{SIZES['mono']}px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}}"
    ]
    rules += [f"{me} .note{{font-size:{SIZES['note']}px;fill:var(--dim)}}"]
    rules += [f"{me} .small{{font-size:{SIZES['small']}px;fill:var(--dim)}}"]
    rules += [f"{me} .bold{{font-weight:600}}"]
    rules += [f"{me} .dash{{stroke-dasharray:6 5}}"]
    rules += [f"{me} .bare{{fill:none;stroke:none}}"]
    for kind in KINDS:
        rules += [f"{me} .{kind}{{fill:var(--{kind});stroke:var(--{kind}-line)}}"]
        rules += [f"{me} .{kind}-line{{fill:none;stroke:var(--{kind}-line)}}"]
        rules += [f"{me} .{kind}-head{{fill:var(--{kind}-line)}}"]
    return "\n".join(rules)


def width(text, size, mono=False, bold=False):
    """How wide is TEXT, with a wide font?  (DejaVu Sans is one.)"""
    if mono:
        return 0.603 * size * len(text)
    total = 0
    for c in text:
        if c in "il|'.,:;!jI ":
            total += 0.34
        elif c in 'frt()[]-/"':
            total += 0.44
        elif c in "mwMW@%→←↑↓—≤≥":
            total += 0.95
        elif c.isupper():
            total += 0.72
        else:
            total += 0.62
    return total * size * (1.1 if bold else 1)


def pieces(line):
    """(text, mono) for each piece of LINE: what is between two ` is mono."""
    return [(text, i % 2 == 1) for i, text in enumerate(line.split("`")) if text]


def line_width(line, kind="", bold=False):
    size = SIZES[kind]
    return sum(width(t, min(size, SIZES["mono"]) if m else size, m, bold) for t, m in pieces(line))


def wrap(text, room, kind="", bold=False):
    """TEXT in lines of at most ROOM; it may have line ends of its own."""
    lines = []
    for part in text.split("\n"):
        now = ""
        for word in re.findall(r"(?:`[^`]*`|[^ `])+", part) or [""]:
            longer = f"{now} {word}" if now else word
            if now and line_width(longer, kind, bold) > room:
                lines.append(now)
                longer = word
            now = longer
        lines.append(now)
    return lines


class Place(namedtuple("Place", "x y w h")):
    """Where something is, and points of it."""

    left = property(lambda p: p.x)
    right = property(lambda p: p.x + p.w)
    top = property(lambda p: p.y)
    bottom = property(lambda p: p.y + p.h)
    cx = property(lambda p: p.x + p.w / 2)
    cy = property(lambda p: p.y + p.h / 2)

    def inside(self, other):
        return (
            other.left <= self.left and self.right <= other.right
            and other.top <= self.top and self.bottom <= other.bottom
        )  # fmt: skip

    def meets(self, other, by=0):
        return (
            self.left < other.right - by and other.left < self.right - by
            and self.top < other.bottom - by and other.top < self.bottom - by
        )  # fmt: skip


def n(number):
    return f"{number:.1f}".rstrip("0").rstrip(".")


class Figure:
    """What has been drawn; the height comes from it."""

    def __init__(self, name, title):
        self.name, self.title, self.says = name, title, ""
        self.out, self.texts, self.boxes, self.lines = [], [], [], []

    def text(self, x, y, line, kind="", anchor="start", bold=False):
        """One LINE with its baseline at Y; `code` in it is in mono."""
        size, wide = SIZES[kind], line_width(line, kind, bold)
        left = x - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        self.texts.append((Place(left, y - 0.8 * size, wide, size), line))
        spans = ""
        for text, mono in pieces(line):
            # A space at a tspan's end would be lost in some programs.
            small = f' style="font-size:{n(size)}px"' if mono and size < SIZES["mono"] else ""
            spans += f'<tspan class="mono"{small}>{escape(text)}</tspan>' if mono else escape(text)
        classes = " ".join(c for c in (kind, "bold" if bold else "") if c)
        self.out.append(
            f'<text x="{n(x)}" y="{n(y)}"'
            + (f' class="{classes}"' if classes else "")
            + (f' text-anchor="{anchor}"' if anchor != "start" else "")
            + f' xml:space="preserve">{spans}</text>'
        )

    def note(self, x, y, text, room, kind="note", anchor="start"):
        """A paragraph; Y is the baseline of its first line.  Returns that of the last."""
        for line in wrap(text, room, kind):
            self.text(x, y, line, kind, anchor)
            y += LINE - 3
        return y - LINE + 3

    def box(
        self, x, y, w, text="", kind="plain", h=None, head="", anchor="middle", dash=False, size=""
    ):
        """A box with TEXT, below a bold HEAD; as high as it must be, or H."""
        room = w - 20
        rows = [(line, "", True) for line in wrap(head, room, "", True)] if head else []
        rows += [(line, size, False) for line in wrap(text, room, size)] if text else []
        high = LINE * len(rows) + 16
        h = h or high
        place = Place(x, y, w, h)
        self.rect(place, kind, dash)
        at = y + (h - LINE * len(rows)) / 2 + 18.5
        for line, k, bold in rows:
            self.text({"middle": x + w / 2, "start": x + 10}[anchor], at, line, k, anchor, bold)
            at += LINE
        return place

    def rect(self, place, kind="plain", dash=False, round=6):
        self.boxes.append(place)
        dashed = " dash" if dash else ""
        self.out.append(
            f'<rect x="{n(place.x)}" y="{n(place.y)}" width="{n(place.w)}" height="{n(place.h)}" '
            f'rx="{round}" class="{kind}{dashed}" stroke-width="1.5"/>'
        )

    def line(self, *points, kind="plain", head=True, dash=False, thick=2):
        """A line through POINTS, with an arrow's HEAD at its end, or without one."""
        self.lines.append(points)
        (ax, ay), (bx, by) = points[-2:]
        angle = math.atan2(by - ay, bx - ax)
        end = (bx - 8 * math.cos(angle), by - 8 * math.sin(angle)) if head else (bx, by)
        path = " ".join(f"{n(x)},{n(y)}" for x, y in [*points[:-1], end])
        self.out.append(
            f'<polyline points="{path}" class="{kind}-line{" dash" if dash else ""}" stroke-width="{thick}"/>'
        )
        if head:
            tips = [(bx, by)]
            tips += [
                (bx - 11 * math.cos(angle + t), by - 11 * math.sin(angle + t))
                for t in (0.45, -0.45)
            ]
            self.out.append(
                f'<polygon points="{" ".join(f"{n(x)},{n(y)}" for x, y in tips)}" class="{kind}-head"/>'
            )

    def area(self, *points, kind="plain"):
        path = " ".join(f"{n(x)},{n(y)}" for x, y in points)
        self.out.append(f'<polygon points="{path}" class="{kind}" stroke-width="0" opacity="0.6"/>')

    def legend(self, y, *kinds):
        x = 16
        for kind in kinds:
            meaning = MEANING[kind]
            if x + 26 + line_width(meaning, "small") > WIDTH - 10:
                x, y = 16, y + 24
            self.out.append(
                f'<rect x="{x}" y="{y - 12}" width="16" height="14" rx="3" class="{kind}" stroke-width="1.5"/>'
            )
            self.text(x + 24, y, meaning, "small")
            x += 24 + line_width(meaning, "small") + 26

    def bottom(self):
        low = [p.bottom for p in self.boxes] + [p.bottom for p, _ in self.texts]
        return max(low + [y for line in self.lines for _, y in line])

    def check(self):
        """Is all text in the picture, in its box, and apart from other text and lines?"""
        page = Place(0, 0, WIDTH, self.bottom() + 12)
        for i, (place, line) in enumerate(self.texts):
            if not place.inside(page):
                raise ValueError(f"{self.name}: not in the picture: {line}")
            for box in self.boxes:
                if place.meets(box, 2) and not place.inside(box) and not box.inside(place):
                    raise ValueError(f"{self.name}: on the edge of a box: {line}")
            for other, text in self.texts[i + 1 :]:
                if place.meets(other, 1):
                    raise ValueError(f"{self.name}: '{line}' is on '{text}'")
            for points in self.lines:
                for a, b in zip(points, points[1:]):
                    for k in range(65):
                        x, y = (a[j] + (b[j] - a[j]) * k / 64 for j in (0, 1))
                        if place.left < x < place.right and place.top + 3 < y < place.bottom - 3:
                            raise ValueError(f"{self.name}: a line goes through '{line}'")

    def svg(self):
        self.check()
        me, high = self.name, math.ceil(self.bottom() + 12)
        title, desc = escape(self.title), escape(" ".join(self.says.split()))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="fig fig-{me}" role="img" '
            f'viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" height="{high}" '
            f'aria-labelledby="fig-{me}-title fig-{me}-desc">\n'
            f'<title id="fig-{me}-title">{title}</title>\n<desc id="fig-{me}-desc">{desc}</desc>\n'
            f"<style>\n{style(me)}\n</style>\n" + "\n".join(self.out) + "\n</svg>\n"
        )


FIGURES = {}  # name: a function that returns a Figure


def figure(name, title):
    """Makes FUNCTION, which draws on the Figure that it gets, the figure NAME."""

    def put(function):
        @functools.wraps(function)
        def drawn():
            f = Figure(name, title)
            f.says = function(f)
            return f

        FIGURES[name] = drawn
        return drawn

    return put
