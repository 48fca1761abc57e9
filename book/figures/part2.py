"""The figures of chapters 10 to 14."""

import re

from facts import constant, hexa, number, record, said, source
from shapes import WIDTH, Place, figure

COLUMNS = (16, 392)
WIDE = 352


def chain(f, x, y, steps, wide=WIDE, gap=24):
    """Boxes below one another, with arrows: (kind, head, text, kind of the arrow to it)."""
    last = None
    for kind, head, text, arrow in steps:
        box = f.box(x, y, wide, text, kind, head=head)
        if last:
            f.line((last.cx, last.bottom), (box.cx, box.top), kind=arrow)
        last, y = box, box.bottom + gap
    return last


@figure("10-timer", "One timer interrupt, without Sstc and with it")
def timer(f):
    without, with_ = counts("10-exits-plain"), counts("10-exits")
    calls, fires = without["sbi TIME.set_timer"], without["Supervisor timer interrupt"]
    assert not {"sbi TIME.set_timer", "Supervisor timer interrupt"} & set(with_)
    for x, head in zip(COLUMNS, ("without Sstc", "with Sstc")):
        f.text(x + WIDE / 2, 26, head, anchor="middle", bold=True)
    chain(f, COLUMNS[0], 42, [
        ("guest", "the guest", "sets its timer to t: `ecall`", ""),
        ("exit", "exit 1: `set_timer()`", "`hvip.VSTIP` = 0, `sie.STIP` = 1,\nand `ecall` to the firmware", "exit"),
        ("hart", "the firmware", "sets its timer to t", "host"),
        ("guest", "the guest", "runs, until the time is t", "guest"),
        ("hart", "the firmware", "its timer fires: `sip.STIP` = 1", "hart"),
        ("exit", "exit 2: `handle_interrupts()`", "`sie.STIP` = 0, `hvip.VSTIP` = 1", "exit"),
        ("guest", "the guest", "takes its timer interrupt", "guest"),
    ])  # fmt: skip
    b = chain(f, COLUMNS[1], 42, [
        ("guest", "the guest", "sets its timer to t:\nit writes `stimecmp`", ""),
        ("hart", "the hart", "takes `vstimecmp` for it", "hart"),
        ("guest", "the guest", "runs, until the time is t", "guest"),
        ("hart", "the hart", "compares `time` with `vstimecmp`: the guest has `sip.STIP` = 1", "hart"),
        ("guest", "the guest", "takes its timer interrupt", "guest"),
    ])  # fmt: skip
    f.note(COLUMNS[1], b.bottom + 46, "In the run at the end of this chapter:", WIDE)
    y = f.note(
        COLUMNS[1],
        b.bottom + 72,
        f"without Sstc {calls} exits to set the timer, and {fires} when it fires;",
        WIDE,
    )
    f.note(COLUMNS[1], y + 26, "with Sstc none of either kind.", WIDE)
    return f"""Two columns, from top to bottom. Without Sstc the guest sets its timer by an ecall,
        which is an exit; we pass it on to the firmware; when that timer fires, a second exit lets
        us set VSTIP. With Sstc the guest writes stimecmp, and the hart compares and interrupts it
        without us. In one run there were {calls} exits of the first kind and {fires} of the
        second; with Sstc there were none."""


def counts(name):
    return {k: int(n) for n, k in re.findall(r"(?m)^ *(\d+)  (.*)$", record(name))}


@figure("11-inject", "What inject() changes")
def inject(f):
    names = "vscause vsepc vstval vsstatus vstvec sepc".split()
    both = [[number("11-way", rf"print/x \${n}\n.*= (0x\w+)", i) for n in names] for i in (0, 1)]
    before, after = (dict(zip(names, values)) for values in both)
    cause = number("11-way", r"scause\n.*= (0x\w+)")
    bits = {n: constant("11.1", f"SSTATUS_{n}") for n in ("SIE", "SPIE", "SPP")}
    f.box(
        16,
        10,
        WIDTH - 32,
        f"a load from `{hexa(after['vstval'])}`, where nothing is: `scause` = {cause}",
        "exit",
        head="the exit",
    )
    rows = [
        ("`vscause`", "why, in the guest's terms", lambda r: str(r["vscause"])),
        ("`vsepc`", "the instruction", lambda r: hexa(r["vsepc"])),
        ("`vstval`", "the address", lambda r: hexa(r["vstval"])),
        (
            "`vsstatus.SIE`",
            "its interrupts are on",
            lambda r: str(int(bool(r["vsstatus"] & bits["SIE"]))),
        ),
        (
            "`vsstatus.SPIE`",
            "and were before",
            lambda r: str(int(bool(r["vsstatus"] & bits["SPIE"]))),
        ),
        (
            "`vsstatus.SPP`",
            "it was in S-mode",
            lambda r: str(int(bool(r["vsstatus"] & bits["SPP"]))),
        ),
        ("`sepc`", "where `sret` leads", lambda r: hexa(r["sepc"])),
        ("`vstvec`", "the guest's handler", lambda r: hexa(r["vstvec"])),
    ]
    f.text(425, 108, "at the exit", bold=True, anchor="start")
    f.text(590, 108, "after `inject()`", bold=True)
    y = 120
    for name, meaning, value in rows:
        old, new = value(before), value(after)
        f.text(16, y + 25, name)
        f.text(176, y + 25, meaning, "note")
        f.box(420, y + 3, 144, f"`{old}`", "plain", h=34)
        f.box(584, y + 3, 160, f"`{new}`", "exit" if old != new else "plain", h=34)
        f.line((564, y + 20), (584, y + 20), kind="exit" if old != new else "plain")
        y += 42
    assert after["sepc"] == after["vstvec"]
    f.box(
        16,
        y + 18,
        WIDTH - 32,
        f"at `{hexa(after['vstvec'])}` its handler finds `scause` = {after['vscause']}, a load access fault",
        "guest",
        head="`sret`: the guest",
    )
    return f"""A table of the guest's CSRs before inject() and after it. vscause gets
        {after['vscause']}, vsepc the address of the instruction, vstval the address
        {hexa(after['vstval'])}; SIE moves to SPIE, and SPP says S-mode. sepc gets what is in
        vstvec, so sret leads to the guest's handler at {hexa(after['vstvec'])}."""


@figure("12-rings", "One request in the guest's queue and in ours")
def rings(f):
    q = r"slots\[7\]\.queue\[0\]\."

    def at(what):
        return number("12-rings", rf"print &?{q}{what}\n.*?(0x\w+)")

    form = r"\[{}\]\n.*addr = (0x\w+), len = (0x\w+), flags = (0x\w+), next = (0x\w+)"
    theirs = [said("12-rings", rf"{q}desc" + form.format(i)) for i in range(3)]
    ours = [said("12-rings", rf"{q}ours->desc" + form.format(i)) for i in range(3)]
    more = number("05-map", r"print guest_ram\n.*?(0x\w+)") - constant("12.3", "GUEST_RAM")
    gpa = number("12-rings", r"set\[0x80 / 4\]\n.*= (0x\w+)")
    assert all(
        int(b[0], 16) - int(a[0], 16) == more and a[1:3] == b[1:3] for a, b in zip(theirs, ours)
    )
    assert at("desc") - gpa == more
    lx, rx, w = 16, 404, 340
    f.text(lx + w / 2, 26, "the guest's RAM", anchor="middle", bold=True)
    f.text(rx + w / 2, 26, "our memory", anchor="middle", bold=True)

    def table(x, y, head, rows, kind):
        f.text(x, y + 18, head)
        f.text(x + 30, y + 44, "address", "small")
        f.text(x + 148, y + 44, "bytes", "small")
        f.text(x + 214, y + 44, "flags, next", "small")
        for i, (addr, length, flags, following) in enumerate(rows):
            words = ("write " if int(flags, 16) & 2 else "read ") + (
                f"→ {int(following, 16)}" if int(flags, 16) & 1 else ""
            )
            place = Place(x, y + 52 + 38 * i, w, 38)
            f.rect(place, kind, round=3)
            base = place.top + 25
            f.text(x + 10, base, str(i), "note")
            f.text(x + 30, base, f"`{addr}`")
            f.text(x + 148, base, f"{int(length, 16)}", "note")
            f.text(x + 214, base, words.strip(), "note")
        return Place(x, y, w, 52 + 38 * len(rows))

    a = table(lx, 40, f"`desc`, at HPA `{hexa(at('desc'))}`", theirs, "guest")
    table(rx, 40, f"`desc`, at `{hexa(at('ours'))}`", ours, "host")
    f.line((lx + w, a.bottom - 57), (rx, a.bottom - 57), kind="host")
    f.text(
        WIDTH / 2,
        a.bottom + 28,
        f"`copy_chain()`: all addresses + `{hexa(more)}`",
        "note",
        "middle",
    )

    def ring(x, y, head, idx, first, kind):
        f.text(x, y + 18, head)
        return f.box(x, y + 30, w, f"`idx = {idx}`,  `ring[0] = {first}`", kind)

    y = a.bottom + 44
    idx, first = said("12-rings", rf"print {q}avail->idx\n.*= (\d+)"), said(
        "12-rings", rf"print {q}avail->ring\[0\]\n.*= (\d+)"
    )
    idx2, first2 = said("12-rings", rf"{q}ours->avail\.idx\n.*= (\d+)"), said(
        "12-rings", rf"{q}ours->avail\.ring\[0\]\n.*= (\d+)"
    )
    c = ring(lx, y, f"`avail`, at HPA `{hexa(at('avail'))}`", idx, first, "guest")
    d = ring(rx, y, f"`avail`, at `{hexa(at('ours->avail'))}`", idx2, first2, "host")
    f.line((c.right, c.cy), (d.left, d.cy), kind="host")
    f.text(WIDTH / 2, c.bottom + 26, "`translate()`", "note", "middle")
    y = c.bottom + 60
    f.text(lx, y, f"`used`, at HPA `{hexa(at('used'))}`")
    u = f.box(lx, y + 10, w, "what is done", "guest")
    parts = f.box(
        lx,
        u.bottom + 22,
        w,
        "what is to be done, the data, and a byte for the result",
        "guest",
        head="the buffers",
    )
    dev = f.box(
        rx,
        u.top,
        w,
        "reads our `desc` and `avail`, and uses the guest's buffers and `used` directly",
        "plain",
        head="the device",
        h=parts.bottom - u.top,
    )
    f.line((rx + w - 40, d.bottom), (rx + w - 40, dev.top), kind="plain")
    f.line((dev.left, u.cy), (u.right, u.cy), kind="plain")
    f.line((dev.left, parts.cy), (parts.right, parts.cy), kind="plain")
    f.line((parts.right - 1, parts.cy), (dev.left, parts.cy), kind="plain")
    return f"""On the left the guest's queue, on the right ours. A request is a chain of three
        descriptors; in our copy each address is {hexa(more)} higher: {theirs[0][0]} becomes
        {ours[0][0]}. avail is copied as well. The device reads our descriptors and our avail, and
        works with the guest's own buffers and its used ring."""


@figure("13-again", "When does the device interrupt?")
def again(f):
    pairs = re.findall(r"used->idx\n\$\d+ = (\d+)\n.*\n\$\d+ = (\d+)", record("13-again"))
    pairs = [(int(a), int(b)) for a, b in pairs]
    assert all(event == used - 1 for used, event in pairs)
    last = counts("12-exits")
    assert last["store virtio7.QueueNotify"] == 2 and last["store virtio7.InterruptACK"] == 1
    f.note(
        16,
        26,
        "`used.idx` counts what is done. The device interrupts when it gets past `used_event`, which is in our `avail`.",
        WIDTH - 32,
    )
    for x, head in ((130, "`used.idx`"), (300, "`used_event`"), (470, "the device")):
        f.text(x, 88, head, bold=True)
    y = 100

    def row(label, used, event, fires, kind):
        nonlocal y
        f.text(16, y + 26, label, "note")
        f.box(130, y, 110, f"`{used}`", "plain")
        f.box(300, y, 110, f"`{event}`", kind)
        f.box(
            470,
            y,
            WIDTH - 16 - 470,
            "interrupts" if fires else "is silent",
            "exit" if fires else "plain",
        )
        y += 47

    f.text(16, y + 22, "chapter 12: nobody writes `used_event`", bold=True)
    y += 36
    for used in 1, 2:
        row(f"request {used}", used, 0, used == 1, "plain")
    y += 14
    f.text(16, y + 22, "chapter 13: `ask_for_interrupts()` after each `InterruptACK`", bold=True)
    y += 36
    for used, event in pairs:
        row(f"request {used}", used, event, True, "host")
    return f"""Two tables. In chapter 12 used_event stays 0, so the device interrupts for the
        first request and not for the second. In chapter 13 ask_for_interrupts() sets it to
        used.idx after each InterruptACK: {", ".join(str(e) for _, e in pairs)} for the requests 1
        to {len(pairs)}. So used.idx gets past it each time, and the device interrupts."""


@figure("14-room", "The states of one of the guest's harts")
def room(f):
    names = ("HART_STOPPED", "HART_START_PENDING", "HART_STARTED", "HART_SUSPENDED")
    value = {name: constant("14.3", name) for name in names}
    code = source("14.3", "hart.c") + source("14.3", "sbi.c")
    assert all(re.search(rf"\b{name}\b", code) for name in names)

    def state(x, y, name, text, kind, w=300):
        return f.box(x, y, w, text, kind, head=f"{name.removeprefix('HART_')}, {value[name]}")

    stopped = state(16, 64, "HART_STOPPED", "`wfi` in our code,\nin the waiting room", "host")
    pending = state(
        WIDTH - 316,
        64,
        "HART_START_PENDING",
        "`start_pc` is set,\nand the IPI is on its way",
        "host",
    )
    started = state(WIDTH - 316, 268, "HART_STARTED", "in the guest,\nor in an exit of it", "guest")
    suspended = state(WIDTH - 316, 472, "HART_SUSPENDED", "waits for an interrupt", "host")
    f.text(16, 26, "at boot, from `main()`")
    f.line((60, 36), (60, stopped.top), kind="host")
    f.line((stopped.right, stopped.cy), (pending.left, pending.cy), kind="guest")
    f.text(
        (stopped.right + pending.left) / 2,
        stopped.top - 26,
        "another hart: `hart_start`",
        "note",
        "middle",
    )
    f.text((stopped.right + pending.left) / 2, stopped.top - 6, "`start_hart()`", "note", "middle")
    f.line((pending.cx, pending.bottom), (pending.cx, started.top), kind="host")
    f.note(
        pending.cx + 14,
        (pending.bottom + started.top) / 2 - 4,
        "the IPI ends its `wfi`: `start_guest()`",
        150,
    )
    f.line(
        (started.left, started.cy),
        (stopped.cx, started.cy),
        (stopped.cx, stopped.bottom),
        kind="guest",
    )
    f.note(
        stopped.cx + 14,
        started.cy - 62,
        "`hart_stop`, or `stop_others()` before a reset: `stop_hart()`",
        250,
    )
    f.line((started.cx - 60, started.bottom), (started.cx - 60, suspended.top), kind="guest")
    f.text(
        started.cx - 72, (started.bottom + suspended.top) / 2 + 5, "`hart_suspend`", "note", "end"
    )
    f.line((started.cx + 30, suspended.top), (started.cx + 30, started.bottom), kind="host")
    f.text(started.cx + 40, (started.bottom + suspended.top) / 2 + 5, "an interrupt", "note")
    f.legend(suspended.bottom + 36, "guest", "host")
    return """Four states of a hart of the guest: STOPPED, START_PENDING, STARTED and SUSPENDED.
        At boot each is STOPPED, in our waiting room. hart_start from another hart makes it
        START_PENDING and sends an IPI, after which it is STARTED. hart_stop, or a reset, takes it
        back to STOPPED. hart_suspend takes it to SUSPENDED, and an interrupt back."""


@figure("14-ipi", "The way of an IPI from hart to hart")
def ipi(f):
    found = counts("14-exits")
    sent, come = found["sbi IPI.send_ipi"], found["Supervisor software interrupt"]
    for x, head in zip(COLUMNS, ("hart 0", "hart 1")):
        f.text(x + WIDE / 2, 26, head, anchor="middle", bold=True)
    chain(f, COLUMNS[0], 42, [
        ("guest", "the guest", "wants hart 1: `send_ipi`,\nwith a mask of harts", ""),
        ("exit", "an exit: `to_harts()`", "the guest's hart n is our hart n, so the same mask goes on", "exit"),
        ("hart", "the firmware", "writes to hart 1's place in the CLINT, and hart 1 traps into M-mode", "host"),
        ("guest", "the guest", "goes on", "guest"),
    ])  # fmt: skip
    chain(f, COLUMNS[1], 284, [
        ("hart", "the firmware", "`sip.SSIP` = 1", ""),
        ("exit", "an exit: `handle_interrupts()`", "`sip.SSIP` = 0, `hvip.VSSIP` = 1", "exit"),
        ("guest", "the guest", "finds SSIP in its `sip`, and takes the interrupt", "guest"),
    ])  # fmt: skip
    here, there = f.boxes[2], f.boxes[4]  # the firmware's
    f.line((here.right, here.cy), (there.left, here.cy), kind="hart")
    f.note(
        16,
        f.bottom() + 32,
        f"The run at the end of this chapter: {sent} times `send_ipi`, and {come} exits with cause software interrupt. A hart that waits in a WFI needs no exit of its own for an IPI, for the WFI is one already.",
        WIDTH - 32,
    )
    return """Two columns, hart 0 and hart 1. The guest's hart 0 calls send_ipi, an exit. We call
        the firmware with the same mask. It sets SSIP on hart 1, where that is an exit. We clear
        SSIP and set VSSIP in hvip, and the guest's hart 1 takes its software interrupt."""
