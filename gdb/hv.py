"""Commands for gdb that know the hypervisor: `help hv` lists them.

./run.sh --gdb starts QEMU and says how to get here, and the book shows sessions.

gdb sees one hart that lives in two worlds.  The bit V says in which of them it
has stopped; V is in no register, but QEMU's monitor tells it.  With V = 1 the
names satp, scause and so on mean the guest's registers, and ours are out of
sight; with V = 0 they mean ours, and the guest's are called vsatp, vscause.
gdb shows memory through the translation that the hart has at the moment, so
nothing here relies on that: everything is read by its host-physical address,
after walking the guest's tables in Python.

Nothing here writes to a register or to memory, or reads a register of a device
that would notice.
"""

import functools
import inspect
import re
import sys
from pathlib import Path

import gdb
import gdb.disassembler

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
from names import EXTENSIONS, INTERRUPT, LEGACY, VIRTIO  # noqa: E402

# --- Names (Priv. 1.12, SBI 2.0, virtio 1.2) ---------------------------------

# Of a CSR: each field's name, lowest bit, width, and what it says if not 0.
HSTATUS = [
    ("VSXL", 32, 2, "the guest's registers have 32 (1) or 64 (2) bits"),
    ("VTSR", 22, 1, "sret in VS-mode is an exit"),
    ("VTW", 21, 1, "wfi in VS-mode is an exit"),
    ("VTVM", 20, 1, "sfence.vma and satp in VS-mode are an exit"),
    ("VGEIN", 12, 6, "the guest's external interrupt is this line"),
    ("HU", 9, 1, "U-mode may use hlv, hlvx and hsv"),
    ("SPVP", 8, 1, "the guest left from VS-mode; if clear, from VU-mode"),
    ("SPV", 7, 1, "the last trap came out of the guest, and sret goes there"),
    ("GVA", 6, 1, "stval is a guest-virtual address"),
    ("VSBE", 5, 1, "the guest's data is big-endian"),
]
SSTATUS = [
    ("SD", 63, 1, "FS, VS or XS says dirty"),
    ("UXL", 32, 2, "U-mode's registers have 32 (1) or 64 (2) bits"),
    ("MXR", 19, 1, "what is executable may be read"),
    ("SUM", 18, 1, "S-mode may use U-mode's pages"),
    ("XS", 15, 2, "other state: 1 initial, 2 clean, 3 dirty"),
    ("FS", 13, 2, "floating point: 1 initial, 2 clean, 3 dirty"),
    ("VS", 9, 2, "vectors: 1 initial, 2 clean, 3 dirty"),
    ("SPP", 8, 1, "the last trap came from S-mode; if clear, from U-mode"),
    ("UBE", 6, 1, "U-mode's data is big-endian"),
    ("SPIE", 5, 1, "sret switches interrupts on"),
    ("SIE", 1, 1, "interrupts are on"),
]
HVIP = [
    ("VSEIP", 10, 1, "an external interrupt is pending"),
    ("VSTIP", 6, 1, "a timer interrupt is pending"),
    ("VSSIP", 2, 1, "a software interrupt is pending"),
]
SIE = [
    ("SEIE", 9, 1, "external interrupts are enabled"),
    ("STIE", 5, 1, "timer interrupts are enabled"),
    ("SSIE", 1, 1, "software interrupts are enabled"),
]
PTE = "valid readable writable executable user global accessed dirty".split()
MODES = {8: ("Sv39", 3), 9: ("Sv48", 4), 10: ("Sv57", 5)}  # of satp: name, levels
LEAVES = {12: "4 KiB", 16: "64 KiB", 21: "2 MiB", 30: "1 GiB"}

CAUSES = {
    0: "instruction address misaligned", 1: "instruction access fault",
    2: "illegal instruction", 3: "breakpoint", 4: "load address misaligned",
    5: "load access fault", 6: "store address misaligned", 7: "store access fault",
    8: "ecall from U-mode", 9: "ecall from HS-mode", 10: "ecall from VS-mode",
    12: "instruction page fault", 13: "load page fault", 15: "store page fault",
    20: "instruction guest-page fault", 21: "load guest-page fault",
    22: "virtual instruction", 23: "store guest-page fault",
    INTERRUPT + 1: "software interrupt", INTERRUPT + 5: "timer interrupt",
    INTERRUPT + 9: "external interrupt",
}  # fmt: skip
EXITS = {"ecall": 10, "fetch": 20, "load": 21, "virtual": 22, "store": 23}
WFI = 0x10500073
TICKS = 10e6  # of time, in a second, on QEMU

STATUS = "ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK ? ? DEVICE_NEEDS_RESET FAILED".split()
KINDS = {1: "network", 2: "block", 3: "console", 4: "entropy", 8: "SCSI", 9: "9P"}
UART = "RBR/THR IER IIR/FCR LCR MCR LSR MSR SCR".split()
REGISTERS = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 "
    "s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
).split()
RAM = 0x80000000  # the guest's, guest-physical
CLOCK = 0x101000  # the guest has its page, so it is in no table


# --- The hart: its registers, and where it has stopped -----------------------


def register(name):
    """A register of the hart that gdb looks at, as a number."""
    try:
        return int(gdb.newest_frame().read_register(name)) & (1 << 64) - 1
    except (gdb.error, ValueError):
        raise gdb.GdbError(f"this QEMU does not show {name} here")


def virtual():
    """V: is this hart in the guest?"""
    text = gdb.execute("monitor info registers -a", to_string=True)
    for hart in text.split("CPU#")[1:]:
        found = dict(re.findall(r"^ (V|mhartid)[ =]+([0-9a-f]+)", hart, re.MULTILINE))
        if int(found["mhartid"], 16) == register("mhartid"):
            return found["V"] == "1"
    raise gdb.GdbError("QEMU's monitor does not show this hart's V")


def mode():
    """This hart's privilege mode: VS, VU, HS, U or M."""
    privilege = "US?M"[register("priv") & 3]  # newer QEMUs have V in bit 2
    return "V" + privilege if virtual() else privilege.replace("S", "HS")


def guest_csr(name):
    """The guest's satp, sstatus or the like, wherever that is just now."""
    return register(name if virtual() else "v" + name)


def from_guest():
    """In M-mode: did the hart come from the guest (mstatus.MPV)?"""
    return register("mstatus") >> 39 & 1


def side():
    """Where this hart has stopped."""
    hart, pc, now = f"hart {register('mhartid')}: in", register("pc"), mode()
    if now[0] == "V":
        return (
            f"{hart} the guest, {now}-mode, at {guest_symbol(pc)}\n"
            "($scause, $sepc, $stvec, $satp and so on are the guest's own here)"
        )
    if now == "M":
        below = "it came from " + ("the guest" if from_guest() else "the hypervisor")
        if not load(hv("host"))["booted"]:
            below = "the hypervisor has not begun"
        return f"{hart} the firmware, M-mode, at {pc:#x}; {below}"
    name = gdb.execute(f"info symbol {pc:#x}", to_string=True).split(" in section")[0]
    return f"{hart} the hypervisor, {now}-mode, at {pc:#x} ({name})"


# --- Memory ------------------------------------------------------------------


def physical(hpa, size):
    """SIZE bytes at a host-physical address."""
    inferior = gdb.selected_inferior()
    inferior.connection.send_packet("Qqemu.PhyMemMode:1")
    try:
        return inferior.read_memory(hpa, size).tobytes()
    except gdb.MemoryError:
        raise gdb.GdbError(f"nothing can be read at HPA {hpa:#x}")
    finally:
        inferior.connection.send_packet("Qqemu.PhyMemMode:0")


def number(hpa, size):
    return int.from_bytes(physical(hpa, size), "little")


def hv(name):
    """A variable or function of the hypervisor, not read yet."""
    file = gdb.lookup_objfile("hv.elf")
    symbol = file.lookup_global_symbol(name) or file.lookup_static_symbol(name)
    if not symbol:  # as in the book's first chapters
        raise gdb.GdbError(f"this hypervisor has no {name}")
    return symbol.value()


def load(value):
    """VALUE, read by its host-physical address."""
    return gdb.Value(physical(int(value.address), value.type.sizeof), value.type)


def vcpu():
    return hv("vcpus")[register("mhartid")]


@functools.cache
def guest():
    """`guest`: guest.S defines it, and hv.h gives it a type."""
    return load(gdb.parse_and_eval("(struct guest *)&guest").dereference())


def length(array):
    return array.type.range()[1] + 1


def from_ram(hpa, size):
    """number() for the guest's RAM alone: a device might notice being read."""
    if not 0 <= hpa - int(load(hv("guest_ram"))) < int(load(hv("guest_ram_size"))):
        raise gdb.GdbError(f"HPA {hpa:#x} is not the guest's RAM, and is not read")
    return number(hpa, size)


def silent(line):
    """For a walk that nobody wants to read about."""


def walk(atp, address, second, show):
    """One stage of translation, level by level: the address, or None.

    SECOND: it is the second stage, Sv39x4, with a root four times as large and
    tables at host-physical addresses.  The tables of the guest's own stage are
    at guest-physical ones: each of its steps needs a walk of the second stage.
    """
    if not atp >> 60:
        show(f"no translation: {address:#x} stays")
        return address
    scheme, levels = MODES[atp >> 60]
    bits = 12 + 9 * levels
    if second:  # two bits more
        wrong = address >> bits + 2
    else:  # sign-extended
        wrong = (address + (1 << bits - 1) >> bits) % (1 << 64 - bits)
    if wrong:
        show(f"{address:#x} is no address of {scheme}{'x4' * second}: page fault")
        return None
    table = (atp & (1 << 44) - 1) << 12
    for level in reversed(range(levels)):
        index = address >> 12 + 9 * level & (2047 if second and level == levels - 1 else 511)
        place, lines = table + 8 * index, []
        hpa = place if second else second_stage(place, lines.append)
        pte = 0 if hpa is None else number(hpa, 8) if second else from_ram(hpa, 8)
        words = [word for i, word in enumerate(PTE) if pte >> i & 1] if pte & 1 else ["not valid"]
        words += [f"memory type {pte >> 61 & 3}"] if pte >> 61 & 3 else []
        bad = not pte & 1 or pte & 6 == 4 or (second and pte & 10 and not pte & 16)
        table = (pte >> 10 & (1 << 44) - 1) << 12
        shift = 16 if pte >> 63 else 12 + 9 * level  # bit 63: one of 16 alike (Svnapot)
        leaf = table >> shift << shift
        misaligned = leaf != table and not pte >> 63
        bad = bad or (misaligned if pte & 10 else level == 0)
        then = f"next table at {table:#x}"
        if pte & 10:  # readable or executable
            then = f"a leaf of {LEAVES.get(shift, f'2^{shift} bytes')} at {leaf:#x}"
        show(
            f"level {level}: PTE {index} at {'HPA' if second else 'GPA'} {place:#x} = "
            f"{pte:#x}: {' '.join(words)}: {'page fault' if bad else then}"
        )
        for line in lines:
            show("    where that PTE is: " + line)
        if bad:
            return None
        if pte & 10:
            return leaf | address & (1 << shift) - 1


def second_stage(gpa, show=silent):
    return walk(hgatp(), gpa, True, show)


def hgatp():
    if not register("hgatp"):
        raise gdb.GdbError("there is no second stage yet: hgatp is 0")
    return register("hgatp")


def both_stages(gva, show=silent):
    hgatp()
    gpa = walk(guest_csr("satp"), gva, False, show)
    if gpa is not None:
        show(f"GPA {gpa:#x}: {place_name(gpa)}")
        return second_stage(gpa, lambda line: show("    second stage: " + line))


# --- Words for what is found -------------------------------------------------


def kernel_offset():
    """What Linux adds to its physical addresses; 0 without its symbols."""
    try:
        return int(gdb.parse_and_eval("(long)&_start")) - int(guest()["kernel"]["gpa"])
    except gdb.error:
        return 0


def guest_symbol(pc):
    """PC, and what the guest's symbols say about it."""
    for address in pc, pc + kernel_offset():  # the second: paging is still off
        text = gdb.execute(f"info symbol {address & (1 << 64) - 1:#x}", to_string=True)
        for line in text.splitlines():
            name, _, file = line.partition(" in section ")
            if " of " in file and not file.endswith("hv.elf"):
                return f"{pc:#x} ({name.replace(' + ', '+')})"
    return f"{pc:#x}"


def place_name(gpa):
    """Which register of which device is at GPA?"""
    if 0 <= gpa - RAM < int(guest()["ram_size"]):
        return "RAM"
    for name, base, size in devices():
        if 0 <= gpa - base < size:
            return register_name(name, gpa - base)
    return "the clock" if 0 <= gpa - CLOCK < 4096 else "nothing is there"


@functools.cache
def devices():
    """The table in mmio.c: (name, base, size)."""
    try:
        table = load(hv("devices"))
    except gdb.GdbError:  # there is none before the book's chapter 8
        return []
    rows = [table[i] for i in range(length(table))]
    name = re.compile(r"<(\w+)_access>")
    return [
        (name.search(str(row["access"]))[1], int(row["base"]), int(row["size"])) for row in rows
    ]


def register_name(device, offset):
    if device == "virtio":
        slot, offset = divmod(offset, 4096)
        other = f"configuration+{offset - 0x100:#x}" if offset >= 0x100 else f"{offset:#x}"
        return f"virtio slot {slot} {VIRTIO.get(offset, other)}"
    if device == "uart":
        return f"UART {UART[offset]}"
    if device == "test":
        return "test device"
    if device == "clint":
        if offset < 0x4000:
            return f"CLINT msip {offset // 4}"
        return "CLINT mtime" if offset >= 0xBFF8 else f"CLINT mtimecmp {(offset - 0x4000) // 8}"
    if offset < 0x1000:
        return f"PLIC priority of source {offset // 4}"
    if offset < 0x2000:
        return "PLIC pending"
    context, name = (offset - 0x2000) // 0x80, "enable"
    if offset >= 0x200000:
        context, offset = divmod(offset - 0x200000, 0x1000)
        name = {0: "threshold", 4: "claim/complete"}.get(offset, f"{offset:#x}")
    return f"PLIC {name} of hart {context // 2}'s {'MS'[context % 2]}-mode"


class Disassembler(gdb.disassembler.Disassembler):
    """Lets gdb disassemble the bytes CODE, as if they were at address 0."""

    def __init__(self, code):
        super().__init__("hv")
        self.code = code

    def __call__(self, info):
        code = self.code

        class Info(gdb.disassembler.DisassembleInfo):
            def read_memory(self, size, offset):
                if offset + size > len(code):
                    raise gdb.MemoryError()
                return code[offset : offset + size]

        return gdb.disassembler.builtin_disassemble(Info(info))


def disassemble(inst):
    """An instruction of 2 or 4 bytes, given as a number, in words."""
    gdb.disassembler.register_disassembler(Disassembler(inst.to_bytes(4, "little")))
    try:
        text = gdb.selected_inferior().architecture().disassemble(0)[0]["asm"]
    finally:
        gdb.disassembler.register_disassembler(None)
    return re.sub(r"\s+", " ", text)


def fetch(pc):
    """The guest's instruction at PC as a number, or None: it may cross a page."""
    low = both_stages(pc)
    inst = None if low is None else from_ram(low, 2)
    if inst is None or inst & 3 != 3:
        return inst
    high = both_stages(pc + 2)
    return None if high is None else from_ram(high, 2) << 16 | inst


def access(inst):
    """A load or store and its register: htinst leaves out the address, and has
    bit 1 clear if the instruction is compressed."""
    return disassemble(inst | 2 if inst & 1 else inst).split(",")[0]


def call_name(extension, function):
    if extension < len(LEGACY):
        return "legacy " + LEGACY[extension]
    name, *functions = EXTENSIONS.get(extension, f"extension {extension:#x}").split(" ")
    return f"{name} {functions[function] if function < len(functions) else function}"


def cause_name(cause):
    return CAUSES.get(cause, f"cause {cause:#x}")


def what(e):
    """What the guest wanted with the exit E."""
    if e["cause"] == 10:
        return call_name(e["call"] >> 32, e["call"] & 0xFFFFFFFF)
    if e["cause"] in (2, 22) and e["tval"] < 1 << 32:
        return disassemble(e["tval"])
    if e["cause"] == 20:
        return place_name(e["gpa"])
    if e["cause"] not in (21, 23):
        return ""
    text = f"{access(e['inst'])}: {place_name(e['gpa'])}"
    if e["value"] is None:
        return text
    return f"{text} {'=' if e['cause'] == 21 else '<-'} {e['value']:#x}"


def in_words(e):
    return f"{cause_name(e['cause'])} at {guest_symbol(e['pc'])}: {what(e)}".removesuffix(": ")


# --- The commands ------------------------------------------------------------


class Hv(gdb.Command):
    """What the hypervisor and its guest are doing."""

    def __init__(self):
        super().__init__("hv", gdb.COMMAND_DATA, prefix=True)


Hv()


def command(function):
    """Makes FUNCTION the command that its docstring begins with."""
    usage = function.__doc__.split(": ")[0]

    class Command(gdb.Command):
        __doc__ = function.__doc__

        def invoke(self, text, from_tty):
            words = gdb.string_to_argv(text)
            try:
                inspect.signature(function).bind(*words)
            except TypeError:
                raise gdb.GdbError("usage: " + usage)
            thread = gdb.selected_thread()
            if not thread:
                raise gdb.GdbError("not connected to QEMU: see ./run.sh --help")
            if thread.is_running():
                raise gdb.GdbError("the machine is running: stop it with Ctrl-C")
            if not any(f.filename.endswith("hv.elf") for f in gdb.objfiles()):
                raise gdb.GdbError("there are no symbols of hv.elf: see ./run.sh --help")
            try:
                function(*words)
            except gdb.error as error:
                raise gdb.GdbError(str(error))

    Command(" ".join(usage.split()[:2]), gdb.COMMAND_DATA)
    return function


def value_of(text):
    """A number, or any expression that gdb knows: $sp, &linux_banner."""
    try:
        return int(gdb.parse_and_eval(text)) & (1 << 64) - 1
    except gdb.error:
        raise gdb.GdbError(f"'{text}' is no number")


def print_fields(name, value, fields):
    print(f"{name:9}{value:#x}")
    clear = []
    for field, low, bits, meaning in fields:
        content = value >> low & (1 << bits) - 1
        if content:
            print(f"    {field:6}{content}  {meaning}")
        else:
            clear.append(field)
    print(f"    0: {' '.join(clear)}")


@command
def hv_vcpu():
    """hv vcpu: the guest's registers, and the CSRs that concern it, bit by bit.

    While the hypervisor runs, the registers are those that trap.S has saved."""
    print(side())
    inside, exits = virtual(), int(load(vcpu()["exits"])) or arriving()
    if mode() == "M" and from_guest():
        print("the guest's registers are where the firmware has put them")
    elif inside or exits:
        saved = load(vcpu()["regs"])
        how = "as they are" if inside else "as saved at the exit"
        how = "being saved: some are still in the hart" if "(vm_exit" in side() else how
        print(f"the guest's registers, {how}:")
        print("pc   " + guest_symbol(register("pc" if inside else "sepc")))
        for n in range(32):
            value = register(f"x{n}") if inside else int(saved[n])
            print(f"{REGISTERS[n]:4} {value:016x}", end="\n" if n % 4 == 3 else "  ")
    else:
        print("the guest has had no exit yet")
    print_fields("hstatus", register("hstatus"), HSTATUS)
    print_fields("vsstatus", guest_csr("sstatus"), SSTATUS)
    print_fields("hvip", register("hvip"), HVIP)
    print_fields("vsie", guest_csr("sie"), SIE)
    scause = f"{register('scause'):#x}: {cause_name(register('scause'))}"
    print("scause   " + ("hidden while the guest runs" if inside else scause))
    print("vscause  " + (scause if inside else cause_name(register("vscause"))))


@command
def hv_walk(gva):
    """hv walk GVA: a guest-virtual address through both stages, level by level.

    The guest's page tables are in guest-physical memory: to read one of their
    entries the hart has to walk the second stage, and so does this."""
    hpa = both_stages(value_of(gva), print)
    if hpa is not None:
        print(f"HPA {hpa:#x}")


@command
def hv_gwalk(gpa):
    """hv gwalk GPA: a guest-physical address through the second stage."""
    gpa = value_of(gpa)
    hgatp()
    print(f"GPA {gpa:#x}: {place_name(gpa)}")
    hpa = second_stage(gpa, print)
    print("an access is an exit" if hpa is None else f"HPA {hpa:#x}")


def recorded(n):
    """Exit number N of this hart, as the flight recorder has it."""
    log = vcpu()["log"]
    entry = load(log[n % length(log)])
    return {field.name: int(entry[field.name]) for field in entry.type.fields()}


def arriving():
    """Is this the first instruction of handle_exit(), with nothing recorded?"""
    return register("pc") == int(hv("handle_exit").address) and not virtual()


def arrived():
    """Like recorded(), for an exit that just reached handle_exit(): from the CSRs."""
    e = {"cause": register("scause"), "pc": register("sepc"), "tval": register("stval")}
    e["gpa"] = register("htval") << 2 | e["tval"] & 3
    e["inst"] = register("htinst") or fetch(e["pc"]) or 0
    regs = load(vcpu()["regs"])
    e["call"] = int(regs[17]) << 32 | int(regs[16]) & 0xFFFFFFFF
    source = access(e["inst"]).split()[-1]  # "sw a5": a5 has the value
    known = e["cause"] == 23 and source in REGISTERS
    e["value"] = int(regs[REGISTERS.index(source)]) if known else None
    return e


@command
def hv_exits(count="10"):
    """hv exits [N]: this hart's last N VM exits (10), the oldest first.

    For each: when it was, and for how long the guest stood still; why; where
    the guest was; what it wanted, and for a load or store the device's register
    and the value."""
    exits = int(load(vcpu()["exits"]))
    count = min(value_of(count), exits, length(vcpu()["log"]))
    print(f"hart {register('mhartid')} has had {exits} exits; the last {count}:")
    for n in range(exits - count, exits):
        e = recorded(n)
        took = (e["end"] - e["time"]) / TICKS * 1e6
        took = f"{took:.1f} us" if took >= 0 else "not over"
        print(f"#{n} {e['time'] / TICKS:.6f} s, {took}: {in_words(e)}")


class Stop(gdb.Breakpoint):
    """A hardware breakpoint, which changes no memory; it stops if WANTED()."""

    def __init__(self, address, wanted, **options):
        place = f"*{address & (1 << 64) - 1:#x}"
        super().__init__(place, type=gdb.BP_HARDWARE_BREAKPOINT, **options)
        self.wanted = wanted

    def stop(self):
        return self.wanted()


@command
def hv_next_exit(cause="any"):
    """hv next-exit [CAUSE]: continue to the next VM exit, of any hart.

    CAUSE is a number of scause, or one of ecall, fetch, load, store, virtual,
    wfi and interrupt.  It stops in handle_exit(), before anything is done."""
    words = (*EXITS, "any", "wfi", "interrupt")
    wanted = EXITS.get(cause) if cause in words else value_of(cause)

    def fits():
        scause = register("scause")
        fit = scause == wanted or cause == "any"
        if cause == "wfi":
            fit = scause == 22 and register("stval") == WFI
        elif cause == "interrupt":
            fit = scause >= INTERRUPT
        return fit and not virtual()  # the guest may have code at that address

    stop = Stop(int(hv("handle_exit").address), fits, internal=True)
    stop.silent = True
    try:
        gdb.execute("continue")
    except gdb.error:
        if gdb.selected_thread():
            raise
    finally:
        stop.delete()
    if not gdb.selected_thread():
        print("the machine has been switched off")
    elif arriving():
        gdb.execute("frame")
        hv_inst()


@command
def hv_break_guest(symbol):
    """hv break-guest SYMBOL: stop when the guest comes to SYMBOL, or to an address.

    Linux begins with paging off, at physical addresses: a second breakpoint is
    for these.  Both are hardware breakpoints, so the guest's memory stays as it
    is."""
    try:
        found = {line.pc for line in gdb.decode_line(symbol)[1] or []}
    except gdb.error:
        found = {value_of(symbol)}
    file = gdb.lookup_objfile("hv.elf")
    ours = file.lookup_global_symbol(symbol) or file.lookup_static_symbol(symbol)
    found -= {int(ours.value().address)} if ours else set()
    if not found:
        raise gdb.GdbError(f"the guest has no symbol '{symbol}'")
    for address in sorted(found):
        Stop(address, virtual)
        if kernel_offset():
            Stop(address - kernel_offset(), lambda: virtual() and not guest_csr("satp"))


@command
def hv_inst():
    """hv inst: the instruction that has trapped, and what it wants.

    While the guest runs: the one at its pc, which has not trapped."""
    if virtual():
        pc = register("pc")
        print(f"hart {register('mhartid')}: the guest is at {guest_symbol(pc)}, without an exit:")
    else:
        n = int(load(vcpu()["exits"]))
        if arriving():
            e, state = arrived(), "nothing is done yet"
        elif n:
            n, e = n - 1, recorded(n - 1)
            state = "over" if e["end"] >= e["time"] else "being dealt with"
        else:
            raise gdb.GdbError("this hart has had no exit yet")
        pc = e["pc"]
        print(f"hart {register('mhartid')}, exit #{n}, {state}: {in_words(e)}")
        print(", ".join(f"{key} {e[key]:#x}" for key in ("cause", "tval", "gpa", "inst")))
    inst = fetch(pc)
    print("the guest can't fetch it" if inst is None else f"{inst:#x} is {disassemble(inst)}")


@command
def hv_plic():
    """hv plic: the interrupt controller, which host and guest share.

    The claim registers are not read, as that would claim an interrupt."""
    plic, harts = int(load(hv("host"))["plic"]), range(int(guest()["harts"]))
    for hart in harts:
        threshold = number(plic + 0x201000 + 0x2000 * hart, 4)
        print(f"hart {hart}'s S-mode: threshold {threshold}")
    pending = number(plic + 0x1000, 4)
    for source in (*range(1, 9), 10, 11):
        name = {10: "UART", 11: "clock"}.get(source, f"virtio slot {source - 1}")
        to = [str(h) for h in harts if number(plic + 0x2080 + 0x100 * h, 4) >> source & 1]
        print(
            f"source {source:2}, {name}: priority {number(plic + 4 * source, 4)}, "
            f"{'' if pending >> source & 1 else 'not '}pending, "
            + (f"enabled for hart {', '.join(to)}" if to else "not enabled")
        )


@command
def hv_virtio():
    """hv virtio: the slots, and their queues that are ready, the guest's and ours.

    The numbers count requests, modulo 65,536: those in the guest's avail ring,
    those translated, those in our ring, and those in the used ring, which are
    done."""
    for n in range(length(hv("slots"))):
        slot = hv("slots")[n]
        host = int(load(slot["regs"]))
        if not host or not number(host + 0x008, 4):
            print(f"slot {n}: empty")
            continue
        kind, status = number(host + 0x008, 4), number(host + 0x070, 4)
        words = [word for i, word in enumerate(STATUS) if status >> i & 1]
        print(f"slot {n}: {KINDS.get(kind, f'device {kind}')}, {' '.join(words) or 'reset'}")
        known = "queues" in slot.type.keys()  # not in the book's chapter 12
        for i in range(int(load(slot["queues"])) if known else length(slot["queue"])):
            queue = load(slot["queue"][i])
            if queue["ready"]:
                print_queue(i, queue)


def print_queue(i, queue):
    places = {name: int(queue[name]) for name in ("desc", "avail", "used")}
    ours = queue["ours"].dereference()
    avail, used = number(places["avail"] + 2, 2), number(places["used"] + 2, 2)
    handed_on = number(int(ours["avail"].address) + 2, 2)
    print(
        f"  queue {i}, {int(queue['num'])} entries: avail {avail}, translated "
        f"{int(queue['translated'])}, in ours {handed_on}, used {used}: "
        f"{handed_on - used & 0xFFFF} in the device"
    )
    gpas = [f"{name} {hpa - int(load(hv('guest_ram'))) + RAM:#x}" for name, hpa in places.items()]
    print(f"    the guest's, GPA: {', '.join(gpas)}")
    hpas = [f"{name} {int(ours[name].address):#x}" for name in ("desc", "avail")]
    print(f"    ours, HPA: {', '.join(hpas)}")
