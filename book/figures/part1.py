"""The figures of chapters 1 to 9."""

import re

from facts import constant, entries, hexa, number, record, said, source
from shapes import LINE, WIDTH, Place, figure


def place_of(name, symbol):
    """Where SYMBOL is, as gdb prints its address in run NAME."""
    return number(name, rf"print &{symbol}.*\n.*?(0x\w+)")


@figure("00-layers", "What runs on what")
def layers(f):
    banner = said("01-opening", r"OpenSBI (v\S+)")
    rows = [
        ("guest", "the guest's programs: a shell", "VU-mode"),
        ("guest", "the guest's kernel: Linux", "VS-mode"),
        ("host", "our hypervisor", "HS-mode"),
        ("hart", f"the firmware: OpenSBI {banner}", "M-mode"),
        ("plain", "the host: harts, RAM and devices of `virt`", ""),
        ("bare", "QEMU, a program on your own computer", ""),
    ]
    y, top = 14, 14
    for i, (kind, text, mode) in enumerate(rows):
        f.box(150, y, 470, text, kind if kind != "bare" else "plain", h=52, dash=kind == "bare")
        f.text(136, y + 32, mode, anchor="end", bold=True)
        y += 60
    for first, last, label in ((0, 1, "the guest"), (2, 2, "this book"), (4, 5, "emulated")):
        a, b = top + 60 * first + 4, top + 60 * last + 48
        f.line(
            (636, a),
            (644, a),
            (644, b),
            (636, b),
            head=False,
            kind=("guest", "host", "plain")[min(first, 4) // 2],
        )
        f.text(654, (a + b) / 2 + 6, label, "note")
    return """Layers, from top to bottom: the guest's programs in VU-mode, the guest's kernel in
        VS-mode, our hypervisor in HS-mode, the firmware OpenSBI in M-mode, the host with its
        harts, RAM and devices, and QEMU, which emulates that host on your own computer."""


@figure("01-boot", "Who runs first, and where it is in memory")
def boot(f):
    rom = number("01-map", r"^\$1 = (0x\w+)")
    image = int(re.search(r"\. = (0x\w+);", source("01.3", "hv.ld"))[1], 16)
    vcpus = place_of("01-map", r"vcpus\[0\]")
    sp, tree = number("01-map", r"^sp +(0x\w+)"), number("01-map", r"^a1 +(0x\w+)")
    ram = number("03-end", r"RAM at (\w+)")
    end = ram + number("03-end", r"RAM at \w+, (\w+)")
    assert said("01-map", rf"{image:#x}\n(\w+) in section") == "boot"
    x, w = 150, 250

    def row(y, h, address, text, kind, dash=False):
        if address is not None:
            f.text(x - 10, y + 6, f"`{hexa(address)}`", anchor="end")
        return f.box(x, y, w, text, kind, h=h, dash=dash)

    f.text(x + w / 2, 26, "the board's memory", anchor="middle", bold=True)
    a = row(44, 56, rom, "a small ROM", "hart")
    f.text(x + w / 2, 132, "...", "note", "middle")
    b = row(150, 76, ram, "the firmware: OpenSBI", "hart")
    c = row(b.bottom, 76, image, "`boot`, then our code", "host")
    d = row(c.bottom, 46, vcpus, "`vcpus[0]`", "host")
    f.text(x - 10, d.bottom + 6, f"`{hexa(sp)}`", anchor="end")
    e = row(d.bottom, 80, None, "the other harts' vcpus, then free", "plain", True)
    g = row(e.bottom, 56, tree, "the device tree", "hart")
    h = row(g.bottom, 46, None, "free", "plain", True)
    f.text(x - 10, h.bottom + 6, f"`{hexa(end)}`", anchor="end")
    right = 470
    one = f.box(
        right,
        a.top,
        WIDTH - 16 - right,
        "The power comes on: pc is here, in M-mode",
        "bare",
        size="note",
    )
    two = f.box(
        right,
        b.top - 4,
        WIDTH - 16 - right,
        "sets the machine up, and stays in M-mode",
        "bare",
        size="note",
    )
    three = f.box(
        right,
        c.top + 6,
        WIDTH - 16 - right,
        "a0 = 0, the hart's number; a1 = the tree. Now in HS-mode",
        "bare",
        size="note",
    )
    four = f.box(
        right,
        three.bottom + 24,
        WIDTH - 16 - right,
        f"`boot` sets sp = {hexa(sp)}, and the stack grows down, into `vcpus[0]`",
        "bare",
        size="note",
    )
    f.line((one.cx, one.bottom), (two.cx, two.top), kind="hart")
    f.line((two.cx, two.bottom), (three.cx, three.top), kind="exit")
    f.line((three.cx, three.bottom), (four.cx, four.top), kind="host")
    for box, other in ((a, one), (b, two), (c, three), (d, four)):
        y = max(other.top + 8, min(other.bottom - 8, box.cy))
        f.line(
            (other.left, y),
            (box.right + 20, y),
            (box.right + 20, box.cy),
            (box.right, box.cy),
            head=True,
        )
    f.legend(h.bottom + 40, "hart", "host")
    return f"""Memory from low addresses to high ones: a ROM at {hexa(rom)}, the firmware at
        {hexa(ram)}, our image at {hexa(image)} with vcpus[0] at {hexa(vcpus)}, and far up the
        device tree at {hexa(tree)}. The hart begins in the ROM, goes on in the firmware, both in
        M-mode, and then comes to boot in HS-mode, which sets sp to {hexa(sp)}."""


@figure("02-trap", "A trap of our own, and where it leads")
def trap(f):
    cause, pc, stval = said("02-end", r"trap (\w+) at pc (\w+), stval (\w+)")
    top = f.box(200, 10, 360, f"`*(volatile int *)0x{stval} = 1;`", "host", head="main()")
    hart = f.box(
        130, top.bottom + 34, 500,
        f"`sepc` = `0x{pc}`, the instruction\n`scause` = `{cause}`, a store access fault\n`stval` = `0x{stval}`, the address",
        "hart", head="the hart",
    )  # fmt: skip
    f.line((top.cx, top.bottom), (top.cx, hart.top), kind="exit")
    y = hart.bottom + 62
    left = f.box(
        16, y, 350, "what the firmware left there", "exit", head="before: `stvec` is our image"
    )
    right = f.box(394, y, 350, "boot.S has written it", "host", head="now: `stvec` is `vm_exit`")
    f.line((250, hart.bottom), (250, y), kind="exit")
    f.line((510, hart.bottom), (510, y), kind="host")
    f.text(380, hart.bottom + 36, "pc = `stvec`", anchor="middle")
    a = f.box(16, left.bottom + 28, 350, "`boot` again, but a0 is no number of a hart now", "plain")
    b = f.box(16, a.bottom + 28, 350, "sp points outside the memory", "plain")
    c = f.box(16, b.bottom + 28, 350, "its first store traps, too", "plain")
    for one, two in ((left, a), (a, b), (b, c)):
        f.line((one.cx, one.bottom), (two.cx, two.top), kind="exit")
    f.line(
        (c.left + 40, c.bottom),
        (c.left + 40, c.bottom + 20),
        (6, c.bottom + 20),
        (6, hart.cy),
        (hart.left, hart.cy),
        kind="exit",
    )
    f.text(c.left + 60, c.bottom + 26, "and again, and nothing is said", "note")
    d = f.box(
        394, right.bottom + 28, 350, "`sscratch` is 0, so it was no guest", "host", head="`vm_exit`"
    )
    e = f.box(394, d.bottom + 28, 350, "reads the three CSRs", "host", head="`bug_found()`")
    g = f.box(
        394, e.bottom + 28, 350, f"`hv: BUG: trap {cause} at pc`\n`{pc}, stval {stval}`", "plain"
    )
    for one, two in ((right, d), (d, e), (e, g)):
        f.line((one.cx, one.bottom), (two.cx, two.top), kind="host")
    return f"""A store to 0x{stval} in main() traps. The hart writes sepc, scause = {cause} and
        stval, and jumps to stvec. Before, that was boot: the hart gets a wrong stack there, traps
        again, and so on for ever. Now it is vm_exit, which leads to bug_found() and to the line
        with BUG."""


def tree_bytes():
    return [
        int(b, 16)
        for line in re.findall(r"(?m)^0x\w+:\t(0x.*)$", record("03-tree"))
        for b in line.split()
    ]


def constant_of(name):
    return int(re.search(rf"{name} = (\d+)", source("03.3", "fdt.c"))[1])


@figure("03-tree", "A node of the device tree, as text and in memory")
def tree(f):
    data, at = tree_bytes(), 0
    strings = re.findall(r'(?m)^0x\w+:\t"(.*)"', record("03-tree"))
    tokens = {constant_of(name): name for name in ("FDT_BEGIN_NODE", "FDT_PROP")} | {
        2: "FDT_END_NODE"
    }
    f.text(16, 26, "in memory, four bytes a word", bold=True)
    f.text(400, 26, "what it means", bold=True)
    y = 40

    def row(count, meaning, kind, indent=1):
        nonlocal at, y
        bytes_ = data[at : at + count]
        at += count
        lines = [bytes_[i : i + 8] for i in range(0, count, 8)]
        h = LINE * len(lines) + 9
        f.rect(Place(16, y, 340, h), kind, round=3)
        for i, line in enumerate(lines):
            words = "  ".join(
                " ".join(f"{b:02x}" for b in line[j : j + 4]) for j in (0, 4) if line[j:]
            )
            f.text(28, y + 22 + LINE * i, f"`{words}`")
        f.text(400, y + h / 2 + 6, meaning, anchor="start")
        y += h + 5

    def word():
        return int.from_bytes(bytes(data[at : at + 4]), "big")

    def ascii_(start):
        return bytes(data[start : data.index(0, start)]).decode()

    while at < len(data):
        token = tokens[word()]
        if token == "FDT_BEGIN_NODE":
            row(4, f"`{token}`", "hart")
            name = ascii_(at)
            row((len(name) + 4) // 4 * 4, f"`{name}`, and a 0", "plain")
        elif token == "FDT_PROP":
            y += 6
            row(4, f"`{token}`", "hart")
            size = word()
            row(4, f"the value has {size} bytes", "plain")
            name = strings.pop(0)
            row(4, f"`{name}`, by its offset: {hexa(word())}", "plain")
            if name == "reg":
                first, second = (
                    int.from_bytes(bytes(data[at + i : at + i + 8]), "big") for i in (0, 8)
                )
                row(8, f"address `{hexa(first)}`", "guest")
                row(8, f"size `{hexa(second)}`", "guest")
            else:
                row((size + 3) // 4 * 4, f'`"{ascii_(at)}"`, a 0, padding', "guest")
        else:
            y += 6
            row(4, f"`{token}`", "hart")
            break
    return """The bytes of the node memory@80000000 in four columns of eight: the token
        FDT_BEGIN_NODE with the node's name, FDT_PROP with the length, name and value of
        device_type, FDT_PROP with those of reg, which are an address and a size, and
        FDT_END_NODE."""


@figure("03-memory", "How the host's memory is divided")
def memory(f):
    ram = number("03-end", r"RAM at (\w+)")
    end = ram + number("03-end", r"RAM at \w+, (\w+)")
    image = int(re.search(r"\. = (0x\w+);", source("03.3", "hv.ld"))[1], 16)
    hv_end = place_of("03-memory", "hv_end")
    heap, heap_end = (
        number("03-memory", rf"print/x {what}\n.*= (0x\w+)") for what in ("heap", "heap_end")
    )
    size = number("03-memory", r"ram_size\n.*= (0x\w+)")
    assert heap_end + size == end
    x, w, y = 150, 250, 14
    rows = [
        (ram, 46, "the firmware", "hart", "", ""),
        (image, 56, "our image", "host", "`boot`", ""),
        (hv_end, 62, "given away", "host", "`hv_end`", "the copy of the device tree"),
        (heap, 96, "free", "plain", "`heap`", "`alloc()` gives from here, and `heap` moves up"),
        (
            heap_end,
            120,
            "the guest's RAM",
            "guest",
            "`heap_end`",
            f"{hexa(size)} bytes, at a multiple of 1\u00a0GiB",
        ),
    ]
    for address, h, text, kind, name, note in rows:
        f.text(x - 10, y + 6, f"`{hexa(address)}`", anchor="end")
        f.box(x, y, w, text, kind, h=h, dash=kind == "plain")
        if name:
            f.text(x + w + 14, y + 6, name)
        if note:
            f.note(x + w + 14, y + 31, note, WIDTH - x - w - 26)
        y += h
    f.text(x - 10, y + 6, f"`{hexa(end)}`", anchor="end")
    f.text(x + w + 14, y + 6, "`ram_end`")
    return f"""The host's memory from low addresses to high ones: the firmware at {hexa(ram)}, our
        image at {hexa(image)}, what alloc() has given away at {hexa(hv_end)}, free memory from
        heap = {hexa(heap)} on, and the guest's RAM from heap_end = {hexa(heap_end)} up to ram_end
        = {hexa(end)}."""


def instructions(step, label, until):
    """The code in trap.S from LABEL up to UNTIL, one instruction each, without comments."""
    text = source(step, "trap.S")
    text = text[text.index(f"\n{label}:") : text.index(f"\n{until}:")]
    lines = (line.split("//")[0] for line in text.split("\n")[2:])
    return [" ".join(line.split()) for line in lines if line.strip() and ".globl" not in line]


@figure("04-door", "The door between the guest and us")
def door(f):
    out, back = instructions("04.4", "vm_exit", "enter_guest"), instructions(
        "04.4", "enter_guest", "bug"
    )
    numbers = re.search(r"\.irp\s+n, ([\d,]+)", source("04.4", "trap.S"))[1].split(",")
    words = {  # what each instruction does, or None: the one before it says it
        "csrrw a0, sscratch, a0": "a0 = our `struct vcpu`,\n`sscratch` = the guest's a0",
        "beqz a0, bug": "0? Then the trap was ours",
        "each_register sd": f"{len(numbers)} registers go\nto `regs[]`, all but a0",
        "csrrw t0, sscratch, zero": "the guest's a0 follows,\nand `sscratch` = 0",
        "sd t0, 8 * 10(a0)": None,
        "lui t0, 1": "sp = the end of the page",
        "add sp, a0, t0": None,
        "mv s0, a0": "",
        "call handle_exit": "",
        "mv a0, s0": "",
        "csrw sscratch, a0": "`sscratch` = our `struct vcpu`",
        "each_register ld": f"{len(numbers)} registers come back",
        "ld a0, 8 * 10(a0)": "the guest's a0, the last",
        "sret": "",
    }
    guest = f.box(16, 10, WIDTH - 32, "", "guest", h=68, head="the guest, in VS-mode (V = 1)")
    left, right, wide = 16, 392, 352
    f.text(left + 4, 108, "the way out", bold=True)
    f.text(right + 4, 108, "the way in", bold=True)
    hart = f.box(
        left, 124, wide,
        "V = 0, `hstatus.SPV` = 1\n`sepc` = the guest's pc\n`scause` `stval` `htval` `htinst` = why\npc = `stvec`\nx1 to x31 stay as they are",
        "hart", head="a trap: the hart itself",
    )  # fmt: skip
    y = hart.bottom + 26
    f.line((hart.cx, guest.bottom), (hart.cx, hart.top), kind="exit")

    def group(code):
        rows = []
        for line in code:
            if words[line] is None:
                rows[-1][0].append(line)
            elif words[line]:
                rows.append(([line], words[line]))
        return rows

    def column(x, y, code):
        at = y
        for lines, text in group(code):
            for line in lines:
                f.text(x + 12, at + 20, f"`{line}`")
                at += LINE - 2
            for line in text.split("\n"):
                f.text(x + 30, at + 20, line, "note")
                at += LINE - 3
            at += 8
        place = Place(x, y, wide, at - y + 6)
        f.out.insert(0, "")  # the box is below its text
        f.rect(place, "host")
        f.out.insert(0, f.out.pop())
        return place

    save = column(left, y, out)
    f.line((save.cx, hart.bottom), (save.cx, save.top), kind="exit")
    high = column(right, save.bottom - 8 * LINE + 0, back)
    go = f.box(
        right, 124, wide,
        "mode = S if `sstatus.SPP`\nV = 1, because `hstatus.SPV` = 1\npc = `sepc`",
        "hart", head="`sret`: the hart itself",
    )  # fmt: skip
    f.line((high.cx, high.top), (high.cx, go.bottom), kind="guest")
    f.line((go.cx, go.top), (go.cx, guest.bottom), kind="guest")
    c = f.box(
        16,
        save.bottom + 30,
        WIDTH - 32,
        "in C, on our stack, in HS-mode (V = 0)",
        "host",
        head="`handle_exit()`",
    )
    f.line((save.cx, save.bottom), (save.cx, c.top), kind="exit")
    f.line((high.cx, c.top), (high.cx, high.bottom), kind="guest")
    # struct vcpu
    y = c.bottom + 34
    f.text(16, y, "`struct vcpu`, to which a0 and `sscratch` point", bold=False)
    regs = f.box(16, y + 12, 160, "`regs[32]`", "guest")
    f.box(176, y + 12, 224, "its other fields", "plain")
    stack = f.box(400, y + 12, 140, "our stack", "host")
    log = f.box(540, y + 12, WIDTH - 16 - 540, "the log of exits", "plain")
    f.text(regs.left, regs.bottom + 22, "0", "note")
    f.text(log.left + 4, regs.bottom + 22, "4096", "note")
    f.line((stack.right - 12, stack.bottom + 14), (stack.left + 24, stack.bottom + 14), kind="host")
    f.text(stack.left + 18, stack.bottom + 20, "sp", "note", "end")
    return f"""Two columns. On the way out the hart writes sepc, scause and hstatus.SPV and jumps
        to stvec; trap.S then swaps a0 with sscratch, saves {len(numbers)} registers and a0 in
        struct vcpu, and calls handle_exit(). On the way in trap.S sets sscratch, loads all
        registers, and sret leads back into the guest."""


@figure("05-memory", "The memory of the host and of the guest")
def memories(f):
    ram = number("03-end", r"RAM at (\w+)")
    image, vcpus, hv_end = (place_of("05-map", s) for s in ("boot", r"vcpus\[0\]", "hv_end"))
    heap, size, kernel = (
        number("05-map", rf"print/x {what}\n.*= (0x\w+)")
        for what in ("heap", "guest_ram_size", r"guest\.kernel\.gpa")
    )
    root, theirs = (
        number("05-map", rf"print {what}\n.*?(0x\w+)") for what in (r"host\.root", "guest_ram")
    )
    base = constant("05.2", "GUEST_RAM")
    lx, lw, rx, rw = 130, 210, 430, 200
    f.text(lx + lw / 2, 26, "host-physical", anchor="middle", bold=True)
    f.text(rx + rw / 2, 26, "guest-physical", anchor="middle", bold=True)
    y, places = 42, {}
    for name, address, h, text, kind in (
        ("low", 0, 60, "devices", "plain"),
        ("firmware", ram, 50, "the firmware", "hart"),
        ("image", image, 56, "our image, from `boot` on", "host"),
        ("vcpus", vcpus, 46, "`vcpus[]`", "host"),
        ("heap", hv_end, 36, "our heap", "host"),
        ("root", root, 56, "the root of our page table", "host"),
        ("free", heap, 60, "free", "plain"),
        ("ram", theirs, 190, "", "guest"),
    ):  # fmt: skip
        f.text(lx - 10, y + 6, f"`{hexa(address)}`", anchor="end")
        places[name] = f.box(lx, y, lw, text, kind, h=h, dash=name == "free")
        y += h
    f.text(lx - 10, y + 6, f"`{hexa(theirs + size)}`", anchor="end")
    mine = places["ram"]
    top = places["image"].top - 50  # its 0x80200000 is at the height of ours
    f.box(rx, 42, rw, "nothing is here: an access is an exit", "plain", h=top - 42, dash=True)
    ours = Place(rx, top, rw, 190)
    f.rect(ours, "guest")
    for address, at in ((0, 42), (base, top), (kernel, top + 50), (base + size, top + 190)):
        f.text(rx + rw + 10, at + 6, f"`{hexa(address)}`")
    for place in (ours, mine):
        f.text(place.cx, place.top + 30, "RAM of the guest", anchor="middle")
        f.rect(Place(place.left, place.top + 50, place.w, 56), "guest", round=2)
        f.text(place.cx, place.top + 84, "its program", anchor="middle")
    f.text(lx - 10, mine.top + 56, f"`{hexa(theirs + kernel - base)}`", anchor="end")
    f.box(rx, ours.bottom, rw, "nothing", "plain", h=60, dash=True)
    f.area(
        (mine.right, mine.top),
        (ours.left, ours.top),
        (ours.left, ours.bottom),
        (mine.right, mine.bottom),
        kind="guest",
    )
    f.line((ours.left, ours.top + 78), (mine.right, mine.top + 78), kind="guest")
    f.note(
        rx,
        mine.top + 60,
        f"Our table maps `{hexa(base)}` to `{hexa(theirs)}`, `{hexa(size)}` bytes: one entry.",
        300,
    )
    f.text(rx, y + 8, "Heights are not to scale.", "small")
    return f"""Two columns of memory. Host-physical: devices, the firmware at {hexa(ram)}, our
        image at {hexa(image)}, our page table's root at {hexa(root)}, and the guest's RAM at
        {hexa(theirs)}. Guest-physical: only RAM, from {hexa(base)} to {hexa(base + size)}, with
        the program at {hexa(kernel)}. The one is mapped to the other, so the guest's
        {hexa(kernel)} is the host's {hexa(theirs + kernel - base)}, and not our image."""


@figure("05-walk", "One address through the second stage")
def second_stage(f):
    gpa = number("05-gdb", r"^GPA (0x\w+)")
    hpa = number("05-gdb", r"^HPA (0x\w+)")
    root = number("05-map", r"host\.root\n.*\) (0x\w+)")
    (pte,) = entries(record("05-gdb"))
    low = gpa & (1 << 30) - 1
    leaf = (pte.value >> 10) << 12
    assert pte.index == gpa >> 30 and root + 8 * pte.index == pte.at and leaf + low == hpa
    f.text(16, 26, "a guest-physical address:", bold=True)
    f.text(WIDTH - 16, 26, f"`{hexa(gpa)}`", anchor="end")
    index = f.box(16, 40, 240, f"`{pte.index}`", "guest", head="bits 40 to 30")
    f.box(256, 40, WIDTH - 16 - 256, f"`{hexa(low)}`", "guest", head="bits 29 to 0")
    # the table
    y = 168
    f.text(60, y - 10, f"the root, at `{hexa(root)}`")
    rows = []
    first = [int(entry, 16) for entry in said("05-map", r"\{(0x.*)\}").split(", ")]
    assert first[pte.index] == pte.value
    for i, entry in enumerate(map(hexa, first)):
        f.text(46, y + 24 + 36 * i, str(i), "note", "end")
        rows.append(
            f.box(60, y + 36 * i, 200, f"`{entry}`", "host" if i == pte.index else "plain", h=36)
        )
    f.text(160, y + 36 * 4 + 22, "...", "note", "middle")
    f.text(46, y + 36 * 4 + 56, "2047", "note", "end")
    f.box(60, y + 36 * 4 + 32, 200, "", "plain", h=36)
    hit = rows[pte.index]
    f.line(
        (index.left + 10, index.bottom),
        (index.left + 10, 140),
        (8, 140),
        (8, hit.cy),
        (30, hit.cy),
        kind="guest",
    )
    # the entry
    x, y2 = 330, 168
    f.text(x, y2 - 10, "the entry, a leaf:")
    page = f.box(x, y2, 250, f"`{hexa(pte.value >> 10)}`", "host", head="bits 53 to 10")
    f.box(
        x + 250, y2, WIDTH - 16 - x - 250, f"`{hexa(pte.value & 1023)}`", "host", head="bits 9 to 0"
    )
    f.line((hit.right, hit.cy), (296, hit.cy), (296, page.cy), (page.left, page.cy), kind="host")
    y3 = page.bottom + 30
    f.text(x, y3, "shifted left by 12: this leaf's address", "note")
    f.text(x, y3 + 24, f"`{hexa(leaf)}`")
    names = "D A G U X W R V".split()
    f.text(x, y3 + 66, "bits 7 to 0, where 1:", "note")
    for i, name in enumerate(names):
        on = pte.value >> (7 - i) & 1
        place = f.box(WIDTH - 16 - 24 * (8 - i), y3 + 44, 24, "", "host" if on else "plain", h=34)
        f.text(place.cx, y3 + 67, name if on else "-", "note", "middle")
    y4 = y + 36 * 4 + 32 + 36 + 40
    f.box(
        16,
        y4,
        WIDTH - 32,
        f"`{hexa(leaf)}` + `{hexa(low)}` = `{hexa(hpa)}`",
        "plain",
        head="the host-physical address",
    )
    return f"""The guest-physical address {hexa(gpa)} in two parts: bits 40 to 30 are {pte.index}
        and choose entry {pte.index} of the root. That entry, {hexa(pte.value)}, is a leaf of 1
        GiB at {hexa(leaf)}. Bits 29 to 0, {hexa(low)}, are added to it, and the result is
        {hexa(hpa)}."""


@figure("06-call", "A call of the guest, and our calls for it")
def call(f):
    eid = number("06-gdb", r"^\$1 = (0x\w+)")
    hpa, text = said("06-gdb", r'^\$2 = (0x\w+) "(.*?)\\r')
    theirs, base = number("05-map", r"print guest_ram\n.*?(0x\w+)"), constant("06.3", "GUEST_RAM")
    gpa = int(hpa, 16) - theirs + base
    length = int(re.search(r"li\s+a0, (\d+)", source("06.3", "guests/hello.S"))[1])
    putchar = constant("06.3", "LEGACY_PUTCHAR")
    name = bytes.fromhex(f"{eid:x}").decode()
    x, w = 96, WIDTH - 16 - 96
    for y, h, mode, kind in (
        (10, 146, "VS", "guest"),
        (214, 246, "HS", "host"),
        (518, 76, "M", "hart"),
    ):
        f.text(16, y + h / 2 + 6, mode, bold=True)
        f.rect(Place(x, y, w, h), kind)
    f.text(x + 16, 38, f"wants to print `{text}`", bold=True)
    for i, line in enumerate((
        f"`a7 = {hexa(eid)}`, which spells {name}",
        "`a6 = 0`, the function: write",
        f"`a0 = {length}`, so many bytes",
        f"`a1 = {hexa(gpa)}`, from this guest-physical address",
    )):  # fmt: skip
        f.text(x + 16, 66 + 26 * i, line)
    f.text(x + 16, 242, "`handle_sbi()` finds the row for " + name + " in its table", bold=True)
    f.text(x + 16, 274, "`console()` asks for the memory:")
    f.text(x + 16, 300, f"`guest_ptr({hexa(gpa)}, {length}) = {hpa}`")
    f.text(x + 16, 328, f"{length} times:  `a7 = {putchar}`, `a0 =` the next character")
    f.text(x + 16, 384, "the answer:", bold=True)
    f.text(x + 16, 414, f"`a0 = 0`, no error;  `a1 = {length}`, so many are done")
    f.text(x + 16, 440, "`sepc + 4`: the guest goes on after its `ecall`")
    f.text(x + 16, 550, "OpenSBI puts the character into the UART,")
    f.text(x + 16, 576, "and returns to the instruction after our `ecall`")
    down, up = x + 440, x + 580
    f.line((down, 156), (down, 214), kind="exit")
    f.text(down - 12, 190, "`ecall`: an exit, cause 10", anchor="end")
    f.line((up, 214), (up, 156), kind="guest")
    f.text(up - 12, 190, "`sret`", anchor="end")
    f.line((down, 460), (down, 518), kind="host")
    f.text(down - 12, 494, "`ecall` from HS-mode, cause 9", anchor="end")
    f.line((up, 518), (up, 460), kind="hart")
    f.text(up - 12, 494, "`mret`", anchor="end")
    return f"""Three layers. The guest in VS-mode puts {hexa(eid)}, a length of {length} and the
        guest-physical address {hexa(gpa)} into registers and executes ecall. We, in HS-mode, turn
        the address into {hpa} and call the firmware in M-mode once for each character. Then we
        answer in a0 and a1, and the guest goes on after its ecall."""


NAMES = {
    0: "instruction address misaligned", 1: "instruction access fault", 2: "illegal instruction",
    3: "breakpoint", 4: "load address misaligned", 5: "load access fault",
    6: "store address misaligned", 7: "store access fault", 8: "ecall from VU-mode",
    10: "ecall from VS-mode", 12: "instruction page fault", 13: "load page fault",
    15: "store page fault", 20: "instruction guest-page fault", 21: "load guest-page fault",
    22: "virtual instruction", 23: "store guest-page fault",
}  # fmt: skip


@figure("07-delegate", "Who takes which exception of the guest")
def delegate(f):
    firmware = number("01-opening", r"MEDELEG +: (0x\w+)")
    text = source("07.5", "hv.h")
    ours = re.search(r"(?s)#define HEDELEG.*?\)\n\n", text)[0]
    theirs = sum(1 << constant("07.5", name) for name in re.findall(r"CAUSE_\w+", ours))
    xs, w = (394, 514, 634), 110
    for x, head, kind in zip(xs, ("firmware", "us", "guest"), ("hart", "host", "guest")):
        f.box(x, 10, w, head, kind)
    f.text(16, 38, "cause", bold=True)
    y = 62
    for cause, name in NAMES.items():
        f.text(44, y + 20, str(cause), "note", "end")
        f.text(58, y + 20, name)
        bits = firmware >> cause & 1, theirs >> cause & 1
        takes = 2 if bits[1] else 1
        kind = ("hart", "exit", "guest")[takes]
        if not bits[0]:
            f.box(xs[0], y + 3, w, "looks first", "hart", h=24, size="small")
            f.line((xs[0] + w, y + 15), (xs[takes], y + 15), kind="hart")
        f.box(xs[takes], y + 3, w, "" if takes == 2 else "exit", kind, h=24, size="small")
        y += 29
    f.text(16, y + 28, f"`medeleg = {hexa(firmware)}`: what the firmware gives to HS-mode", "note")
    f.text(16, y + 54, f"`hedeleg = {hexa(theirs)}`: what we give to the guest", "note")
    exits = ", ".join(str(k) for k in NAMES if not theirs >> k & 1)
    first = ", ".join(str(k) for k in NAMES if not firmware >> k & 1)
    return f"""A table of the exceptions with their causes, and who takes them. The causes {exits}
        are exits to us. All others go to the guest, because they are in hedeleg. The firmware
        looks first at those that are not in its medeleg: {first}."""


@figure("07-files", "The guest's three files, in our image and in its RAM")
def files(f):
    form = r"{} = {{gpa = (0x\w+), start = (0x\w+), end = (0x\w+)}}"
    names = {"kernel": "`Image`, the kernel", "initrd": "the initramfs", "dtb": "the device tree"}
    places = {k: [int(x, 16) for x in said("07-files", form.format(k))] for k in names}
    base = constant("07.5", "GUEST_RAM")
    end = base + number("07-files", r"ram_size\n.*= (0x\w+)")
    lx, rx, w = 130, 424, 200
    f.text(lx + w / 2, 26, "our image", anchor="middle", bold=True)
    f.text(rx + w / 2, 26, "the guest's RAM", anchor="middle", bold=True)
    left, y = {}, 42
    for name in sorted(names, key=lambda k: places[k][1]):
        h = 150 if name == "kernel" else 70
        f.text(lx - 10, y + 6, f"`{hexa(places[name][1])}`", anchor="end")
        left[name] = f.box(lx, y, w, names[name], "host", h=h)
        y += h
    f.text(lx - 10, y + 6, f"`{hexa(places['dtb'][2])}`", anchor="end")
    y, at = 42, base
    for name in sorted(names, key=lambda k: places[k][0]):
        gpa, start, stop = places[name]
        if gpa > at:
            f.text(rx + w + 10, y + 6, f"`{hexa(at)}`")
            f.box(rx, y, w, "free", "plain", h=44, dash=True)
            y += 44
        h = 150 if name == "kernel" else 70
        f.text(rx + w + 10, y + 6, f"`{hexa(gpa)}`")
        box = f.box(rx, y, w, f"{(stop - start + 1023) // 1024} KiB", "guest", h=h)
        f.line((lx + w, left[name].cy), (rx, box.cy), kind="host")
        y, at = y + h, gpa + stop - start
    f.text(rx + w + 10, y + 6, f"`{hexa(at)}`")
    f.box(rx, y, w, "free", "plain", h=60, dash=True)
    f.text(rx + w + 10, y + 66, f"`{hexa(end)}`")
    f.note(
        16,
        y + 34,
        "`load()` copies each file to where it belongs. Heights are not to scale.",
        380,
        "small",
    )
    return f"""Two columns. Our image has the kernel, the initramfs and the device tree one after
        the other, from {hexa(places["kernel"][1])} on. load() copies them into the guest's RAM:
        the kernel to {hexa(places["kernel"][0])}, the device tree to {hexa(places["dtb"][0])} and
        the initramfs to {hexa(places["initrd"][0])}."""


@figure("07-walk", "One address through both stages")
def walk(f):
    every = entries(record("07-gdb"))
    theirs = [e for e in every if e.where == "GPA"]
    gva = int(said("07-gdb", r"tval=(\d+)"))
    gpa = number("07-gdb", r"^GPA (0x\w+)")
    base = constant("07.5", "GUEST_RAM")
    f.text(16, 26, "a guest-virtual address:", bold=True)
    f.text(WIDTH - 16, 26, f"`{hexa(gva)}`", anchor="end")
    wide = (WIDTH - 32) / (len(theirs) + 1)
    for i, e in enumerate(theirs):
        f.box(16 + wide * i, 40, wide, f"level {e.level}\n`{e.index}`", "guest", size="note")
    f.box(16 + wide * len(theirs), 40, wide, f"offset\n`{hexa(gva & 4095)}`", "guest", size="note")
    left, middle, right = 16, 260, 466
    f.text(left, 136, "where the entry is", bold=True)
    f.text(middle, 136, "our table", bold=True)
    f.text(right, 136, "the entry", bold=True)
    y, step, reads = 150, 92, 0
    before = None
    for e in theirs:
        at = every[every.index(e) + 1]
        offset = int(at.then.split()[-1], 16)  # of the leaf
        a = f.box(left, y, 216, f"GPA `{hexa(e.at)}`", "guest", head=f"level {e.level}")
        b = f.box(middle, y, 178, f"entry {at.index}, a leaf", "host", head=f"read {reads + 1}")
        leads = f"`{e.then.split()[-1]}`"
        c = f.box(
            right,
            y,
            WIDTH - 16 - right,
            f"{'a leaf' if 'leaf' in e.then else 'next table'}: {leads}",
            "guest",
            head=f"read {reads + 2}",
        )
        f.line((a.right, a.cy), (b.left, b.cy), kind="guest")
        f.line((b.right, b.cy), (c.left, c.cy), kind="host")
        if before:
            f.line(
                (before.cx, before.bottom),
                (before.cx, y - 13),
                (a.cx, y - 13),
                (a.cx, a.top),
                kind="guest",
            )
        assert offset == number("05-map", r"print guest_ram\n.*?(0x\w+)") and e.at >= base
        before, reads, y = c, reads + 2, y + step
    last = every[-1]
    a = f.box(left, y, 216, f"GPA `{hexa(gpa)}`", "guest", head="the address itself")
    b = f.box(
        middle,
        y,
        178,
        f"entry {last.index}: {last.words}",
        "host",
        head=f"read {reads + 1}",
        size="note",
    )
    c = f.box(right, y, WIDTH - 16 - right, "load guest-page fault", "exit", head="an exit")
    f.line((a.right, a.cy), (b.left, b.cy), kind="guest")
    f.line((b.right, b.cy), (c.left, c.cy), kind="exit")
    f.line(
        (before.cx, before.bottom), (before.cx, y - 13), (a.cx, y - 13), (a.cx, a.top), kind="guest"
    )
    most = len(theirs) * 4 + 3
    f.note(16, f.bottom() + 32, f"{reads + 1} reads of memory, for one load of the guest's. Each of ours could take three reads "
        f"in place of one, down to level 0: then it would be {most}. With Sv39 in the guest it is 15 at most.", WIDTH - 32)  # fmt: skip
    return f"""The guest-virtual address {hexa(gva)} is walked from the top down, in {len(theirs)}
        rows, a row for each level of the guest's table. In each row the entry's guest-physical
        address goes through our table, which takes one read, and then the entry itself is read.
        The last row takes the result, {hexa(gpa)}, through our table, where its entry is not
        valid: an exit."""


@figure("08-devices", "What the guest can reach without an exit")
def devices(f):
    parts = re.split(r"(?m)^\(gdb\) hv gwalk ", record("08-map"))[1:]
    f.text(16, 28, "guest-physical", bold=True)
    f.text(470, 28, "a load", bold=True)
    f.text(610, 28, "a store", bold=True)
    names = {
        "test device": "the test device", "the clock": "the clock", "PLIC priority of source 1": "PLIC: priorities, pending",
        "PLIC enable of hart 0's S-mode": "PLIC: enables", "PLIC claim/complete of hart 0's M-mode": "PLIC: context of M-mode",
        "PLIC claim/complete of hart 0's S-mode": "PLIC: context of S-mode", "UART RBR/THR": "the UART", "RAM": "RAM",
    }  # fmt: skip
    y, free = 44, []
    for part in parts:
        gpa, what = re.search(r"^GPA (0x\w+): (.*)$", part, re.MULTILINE).groups()
        last = entries(part)[-1].words
        f.text(132, y + 27, f"`{gpa}`", anchor="end")
        f.text(148, y + 27, names[what])
        for x, word in ((460, "readable"), (604, "writable")):
            direct = word in last.split()
            f.box(
                x,
                y,
                136 if x > 600 else 130,
                "direct" if direct else "an exit",
                "guest" if direct else "exit",
                h=40,
            )
            if direct:
                free.append((names[what], word))
        y += 48
    f.note(
        16,
        y + 22,
        "Of the PLIC these are the addresses of source 1 and hart 0. From chapter 9 on the context of S-mode is mapped most of the time.",
        WIDTH - 32,
    )
    both = [n for n, w in free if w == "writable"]
    reads = [n for n, w in free if w == "readable" and n not in both]
    return f"""A table of addresses. Loads and stores go through without an exit for:
        {", ".join(both)}. Loads alone for: {", ".join(reads)}. Everything else is an exit."""


@figure("08-exit", "From a store that traps to the device")
def mmio(f):
    pc, inst, word = (
        said("08-gdb", p) for p in (r"fault at (0x\w+)", r"^(0x\w+) is", r"is (\w+ .*)$")
    )
    tval, gpa, htinst = said("08-gdb", r"tval (0x\w+), gpa (0x\w+), inst (0x\w+)")
    width, reg = said("08-gdb", r"width = (\d).*reg = (\d+)")
    value = said("08-gdb", r"<- (0x\w+)")
    cause = number("08-gdb", r"cause (0x\w+)")
    code = int(inst, 16)
    plic = constant("08.5", "GUEST_PLIC")
    offset = int(gpa, 16) - plic
    assert code >> 13 == 6 and code & 3 == 0 and 8 + (code >> 2 & 7) == int(reg)  # c.sw
    names = "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5".split()
    rs1, rs2 = 8 + (code >> 7 & 7), 8 + (code >> 2 & 7)
    w = WIDTH - 32
    a = f.box(16, 10, w, f"at `{pc}` it stores to `{tval}`", "guest", head="the guest")
    b = f.box(
        16, a.bottom + 26, w,
        f"`stval` = `{tval}`\nits own table: GPA `{gpa}`, which goes to `htval`\nour table: it may be read, not written\n"
        f"`scause` = {cause}, store guest-page fault; `htinst` = {htinst}",
        "hart", head="the hart walks both stages",
    )  # fmt: skip
    f.line((a.cx, a.bottom), (a.cx, b.top), kind="guest")
    y = b.bottom + 26
    f.line((b.cx, b.bottom), (b.cx, y), kind="exit")
    panel = Place(16, y, w, 236)
    f.rect(panel, "host")
    f.text(32, y + 28, f"`htinst` is 0, so `fetch()` reads the instruction: `{inst}`", bold=True)
    fields = [
        (3, "a store,\n4 bytes"),
        (3, "offset"),
        (3, f"x{rs1}\n{names[rs1]}"),
        (2, "offset"),
        (3, f"x{rs2}\n{names[rs2]}"),
        (2, "quad-\nrant 0"),
    ]
    cell, at, x0 = 42, 15, 44
    for count, text in fields:
        x = x0 + (15 - at) * cell
        for i in range(count):
            bit = code >> at - i & 1
            f.box(x + cell * i, y + 66, cell, f"`{bit}`", "plain", h=36)
        f.text(x + 4, y + 60, str(at), "small")
        f.line((x + 5, y + 110), (x + cell * count - 5, y + 110), kind="host", head=False, thick=3)
        for i, line in enumerate(text.split("\n")):
            f.text(x + cell * count / 2, y + 132 + 20 * i, line, "note", "middle")
        at -= count
    f.text(x0 + 16 * cell - 4, y + 60, "0", "small", "end")
    f.text(32, y + 190, f"`decode()`:  `{word}`")
    f.text(32, y + 216, f"`store = true, width = {width}, reg = {reg}`, which has {value}")
    y = panel.bottom
    f.line((380, y), (380, y + 26), kind="host")
    d = f.box(
        16,
        y + 26,
        w,
        f"finds the device at `{hexa(plic)}` in its table, and the offset `{hexa(offset)}`",
        "host",
        head="`access_device()`",
    )
    e = f.box(
        16,
        d.bottom + 26,
        w,
        f"an enable of the guest's S-mode: stores {value} there, {width} bytes wide",
        "host",
        head="`plic_access()`",
    )
    g = f.box(
        16,
        e.bottom + 26,
        w,
        f"`sepc + {2 if code & 3 != 3 else 4}`, the length of the instruction",
        "guest",
        head="back to the guest",
    )
    f.line((d.cx, d.bottom), (d.cx, e.top), kind="host")
    f.line((e.cx, e.bottom), (e.cx, g.top), kind="guest")
    return f"""From top to bottom: the guest stores to {tval}; the hart translates that to {gpa},
        which our table lets it only read, and leaves the guest with cause {cause}; we fetch the
        instruction {inst} and take it apart, bit by bit: a store of {width} bytes from register
        {reg}; the table of devices leads to the PLIC, which gets the value; and the guest goes on
        two bytes further."""


@figure("09-interrupt", "The way of an interrupt to the guest and back")
def interrupt(f):
    parts = re.findall(
        r"print/x \$sip\n.*?(0x\w+)\n.*\n.*?(0x\w+)\n.*\n.*?(0x\w+)\n(?:\(gdb\) hv gwalk(?:.*\n)*?(HPA|an access))?",
        record("09-way"),
    )
    states = []
    for sip, sie, hvip, page in parts:
        seip = int(sip, 16) >> 9 & 1, int(sie, 16) >> 9 & 1, int(hvip, 16) >> 10 & 1
        states.append((*seip, {"HPA": "yes", "an access": "no"}.get(page)))
    come, shown, claimed, back = states
    claimed = (*claimed[:3], shown[3])
    claim = number("09-way", r"claim/complete.*= (0x\w+)$")
    x1, x2 = 16, 532
    for i, head in enumerate(("`sip`\nSEIP", "`sie`\nSEIP", "`hvip`\nVSEIP", "claim\npage")):
        for k, line in enumerate(head.split("\n")):
            f.text(x2 + 53 * i + 26, 26 + 20 * k, line, "small", "middle")
    steps = [
        (
            "plain",
            "the UART and the PLIC",
            f"The UART raises its line. The PLIC has source {claim} pending, and raises SEIP.",
            come,
        ),
        (
            "host",
            "an exit: `plic_show(v, true)`",
            "We show it to the guest, switch ours off, and unmap the page with the claim.",
            shown,
        ),
        (
            "guest",
            "the guest",
            "It finds SEIP in its `sip`, takes the interrupt, and loads from claim. That is an exit.",
            shown,
        ),
        (
            "host",
            "`plic_access()`",
            f"We do the load for it. The PLIC answers {claim}, and takes SEIP back.",
            claimed,
        ),
        (
            "host",
            "`plic_show(v, false)`",
            "SEIP is gone, so the guest has claimed. We take VSEIP back and map the page.",
            back,
        ),
        (
            "guest",
            "the guest",
            f"It got {claim}: the UART. It deals with it, and writes complete, without an exit.",
            back,
        ),
    ]
    y, last = 62, None
    for kind, head, text, state in steps:
        box = f.box(x1, y, 490, text, kind, head=head, anchor="start")
        for i, bit in enumerate(state):
            f.box(
                x2 + 53 * i,
                box.cy - 19,
                53,
                f"`{bit}`" if bit in (0, 1) else bit,
                "exit" if last and last[i] != bit else "plain",
                h=38,
                size="" if bit in (0, 1) else "note",
            )
        if last:
            f.line((box.cx, y - 24), (box.cx, y), kind="exit" if kind == "host" else "guest")
        last, y = state, box.bottom + 24
    f.note(
        16,
        y + 8,
        "The bits are those after each step, and orange ones have changed. The last column: is the page with the guest's claim register mapped?",
        WIDTH - 32,
    )
    return f"""Six steps from top to bottom, with the bits after each. The PLIC raises SEIP for
        source {claim}. We set VSEIP, clear SEIP in sie and unmap the claim page. The guest takes
        the interrupt and loads from claim, an exit. We do the load, and SEIP is gone. We clear
        VSEIP, set SEIP in sie and map the page again. The guest deals with the UART."""
