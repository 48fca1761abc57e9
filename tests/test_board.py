"""The board that a guest sees: what is where, and that it is QEMU's.

The guests are guests/board.c and others; most check for themselves what they
get.  Where the reference is QEMU without the hypervisor, the same guest runs
there, too, and both have to say the same.
"""

import os
import re
import subprocess
import time

import pytest

from test_boot import cpu_seconds
from test_mmode import has_mpv

FAIL = re.compile(rb"^FAIL .*$", re.MULTILINE)
NS = 10**9


@pytest.fixture
def start(boot, build_guest):
    """start(NAME, PARAMS, HARTS, ...): guests/NAME.c with options of run.sh."""

    def run(name, params="", harts=1, *options, disk=None, **more):
        drive = ("-d", disk) if disk else ("--no-disk",)
        return boot(
            *("-k", build_guest(name), "-c", harts, *drive, *options),
            *("-p", f"harts={harts} {params}"),
            **more,
        )

    return run


def finish(guest):
    """Wait for the end of a guest that checks by itself."""
    assert guest.ended() == 0
    failures = [line.decode() for line in FAIL.findall(guest.console)]
    assert not failures, "\n".join(failures[:50])
    assert re.search(rb"^\w+ checks, 0 failed$", guest.console, re.M)
    assert b"hv: " not in guest.console


# --- What a hart has ----------------------------------------------------------


@pytest.mark.parametrize("harts", [1, 4])
def test_begin(start, harts):
    """No threshold in the PLIC holds interrupts back, and none is pending."""
    finish(start("board", "case=begin", harts))


# Two of QEMU's CPUs: one with all that QEMU has, one with a profile's extensions.
CPUS = ["max", "rva23s64"]


def need_cpu(qemu, cpu):
    names = subprocess.check_output([qemu, "-M", "virt", "-cpu", "help"], text=True)
    if cpu not in names.split():
        pytest.skip(f"this QEMU has no CPU {cpu}")


@pytest.mark.parametrize("cpu", CPUS)
def test_senvcfg(start, qemu, cpu):
    """The guest has senvcfg, though Smstateen can take it away."""
    need_cpu(qemu, cpu)
    guest = start("board", "case=senvcfg", qemu_args=f"-cpu {cpu}")
    finish(guest)
    assert b"\nZicboz\n" in guest.console


def test_senvcfg_of_the_default(start):
    finish(start("board", "case=senvcfg"))


# --- Registers ----------------------------------------------------------------

# What differs on purpose: the registers, and why.
PURPOSE = {
    r"virtio (magic|device|queue|queue size): .* [128]":
        "virtio's registers are words (virtio 1.2, 4.2.2.2), and only words are relayed",
    r"virtio configuration.*: store \d in 8":
        "no field of these devices that a driver writes has 64 bits",
    r"PLIC (enable|threshold), M-mode: .*": "that context belongs to the host's firmware",
    r"boot ROM: .*": "the host's own, which says how the host starts",
    r"fw_cfg: .*": "it would tell about the host, and write to the host's memory",
    r"pflash: .*": "no firmware of the guest starts there",
    r"PCIe.*": "devices that could write to the host's memory",
}  # fmt: skip


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(1 << 20))
    return path


def test_widths(start, disk):
    """Loads and stores of each width do the same to each register as on bare QEMU."""
    said = []
    for options in ["--bare"], []:
        guest = start("board", "case=widths", 1, *options, disk=disk)
        assert guest.ended() == 0
        lines = guest.console.decode(errors="replace").split("here I am\n")[1].split("\n")
        # A store to the UART may type something in front of what comes next.
        said.append([re.sub(r"^[^A-Za-z]+", "", line) for line in lines])
    bare, hv = said
    assert "the end" in bare and len(bare) == len(hv)
    differ = [(a, b) for a, b in zip(bare, hv) if a != b]
    found = set()
    for pair in differ:
        reasons = [
            key for key in PURPOSE if all(re.match(f"{key}: ", line + ": ") for line in pair)
        ]
        assert reasons, pair
        found.update(reasons)
    assert found == set(PURPOSE), set(PURPOSE) - found


def test_straddle(start):
    """An access that goes on into a device is a fault, and the device keeps its
    value: the hart tells us of one part of the access only."""
    finish(start("board", "case=straddle"))


def test_own_page(start):
    """On the page with the claim, while no interrupt is shown, such an access
    does the same as on bare QEMU."""
    said = []
    for options in ["--bare"], []:
        guest = start("board", "case=own", 1, *options)
        assert guest.ended() == 0
        said.append(re.findall(rb"^\w+ at -.*$", guest.console, re.MULTILINE))
    assert len(said[0]) > 50 and said[0] == said[1]


# --- Virtio -------------------------------------------------------------------


@pytest.mark.parametrize("words", [1, 2])
def test_negotiate(start, words):
    """A driver writes one word of the features, or both, and after a reset of
    the device does not say which queue it means."""
    guest = start("negotiate", f"words={words}", 1, "-n")
    finish(guest)
    for group in b"entropy", b"answers", b"packets":
        assert b"\nok " + group in guest.console


# --- Harts --------------------------------------------------------------------


@pytest.mark.alone
def test_stopped_hart_sleeps(start):
    """An interrupt that is pending for it in the PLIC does not keep it awake."""
    guest = start("idle", "", 2)
    used = {}
    for what in "stopped", "pending", "running":
        guest.expect(b"begin %s\n" % what.encode())
        before = cpu_seconds(guest.child.pid)
        guest.expect(b"end %s\n" % what.encode())
        used[what] = cpu_seconds(guest.child.pid) - before
    finish(guest)
    most = used["running"] - used["stopped"]
    assert most > 0 and used["pending"] - used["stopped"] < most / 4, used


def test_resets_and_starts(start):
    """A hart that is started while another one resets the machine."""
    guest = start("reset_race", "", 4)
    typed = []
    for _ in range(21):
        guest.expect(rb"reset\n")
        begin = guest.seen
        end = guest.expect(rb"OpenSBI v").start()
        typed.append(guest.console[begin:end].count(b"Q"))
    assert b"FAIL" not in guest.console and b"hv: " not in guest.console
    # A hart that was started just before may have typed a few, or many if the
    # host made the hart that resets wait; but not each time.
    assert sorted(typed)[len(typed) // 2] < 20, typed


# --- The clock and the power switch -------------------------------------------


@pytest.mark.parametrize("base", ["", "2001-02-03T04:05:06"])
def test_clock(start, base):
    """The time of day is the host's, or what QEMU was told; its alarm works."""
    guest = start("board", "case=clock", qemu_args=base and f"-rtc base={base}")
    ns = int(guest.expect(rb"\nclock: 0x(\w+)\n")[1], 16)
    real = time.time()
    if base:
        real = subprocess.check_output(["date", "-u", "-d", base, "+%s"])
    assert abs(ns / NS - float(real)) < 60
    finish(guest)


def test_linux_clock(guest):
    """Linux takes the time from there: it has no other source."""
    assert abs(int(guest.output("date +%s")) - time.time()) < 60
    guest.output("dmesg | grep 'goldfish_rtc.* setting system clock'")


@pytest.mark.parametrize("harts", [1, 4])
@pytest.mark.parametrize("value", ["5555", "33333", "3333", "7777"])
@pytest.mark.parametrize("half", ["", "half"])  # a half has no room for a status
def test_power(start, harts, half, value):
    """The test device ends the machine, from any hart, while all run."""
    guest = start("board", f"{half} case=power {value}", harts)
    guest.expect(rb"here I am\n")
    if value == "7777":
        guest.expect(rb"here I am\n")
    else:
        status = guest.ended()
        assert status == (3 if value == "33333" and not half else 0)
        assert guest.console.count(b"here I am\n") == 1
    assert b"hv: " not in guest.console and b"FAIL" not in guest.console


# --- The host's machine -------------------------------------------------------

TWO_SOCKETS = (
    "-smp 2,sockets=2 -m 3072 "
    "-object memory-backend-ram,id=m0,size=2G -object memory-backend-ram,id=m1,size=1G "
    "-numa node,nodeid=0,cpus=0,memdev=m0 -numa node,nodeid=1,cpus=1,memdev=m1"
)


def refused(guest, line):
    """The hypervisor says just that LINE, and QEMU ends with status 1."""
    assert guest.ended() == 1
    lines = re.findall(rb"^hv: .*$", guest.console, re.MULTILINE)
    assert len(lines) == 1 and re.search(line, lines[0]), lines


def test_fewer_harts(start):
    guest = start("board", "case=begin", 4, qemu_args="-smp 2")
    refused(guest, rb"^hv: the guest has 4 harts, the host has no [23]$|^hv: the guest has 4 harts, this is ")


def test_two_sockets(start):
    guest = start("board", "case=begin", 2, qemu_args=TWO_SOCKETS)
    refused(guest, rb"two PLICs")


@pytest.fixture
def host_tree(qemu, tmp_path):
    """host_tree(EDIT, ...): a file with QEMU's own device tree for the hypervisor,
    in which EDIT, a function on its source text, has changed something."""

    def make(edit, qemu_args=""):
        dtb, dts = tmp_path / "host.dtb", tmp_path / "host.dts"
        machine = f"-M virt,dumpdtb={dtb} -cpu rv64,h=true -m 2048 -smp 1 "
        machine += "-global virtio-mmio.force-legacy=false -nographic " + qemu_args
        subprocess.run([qemu, *machine.split()], check=True, capture_output=True)
        command = ["dtc", "-q", "-I", "dtb", "-O", "dts", "-o", dts, dtb]
        subprocess.run(command, check=True)
        before = dts.read_text()
        text = edit(before)
        assert text != before
        dts.write_text(text)
        command = ["dtc", "-q", "-I", "dts", "-O", "dtb", "-p", "4096", "-o", dtb, dts]
        subprocess.run(command, check=True)
        return dtb

    return make


def without(*devices):
    """An edit that removes the nodes that are compatible with a DEVICE."""

    def edit(text):
        for device in devices:
            node = rf'\n[^\n{{}}]*{{(?:(?!\n\s*}};)[^{{}}])*compatible = [^;]*\b{device}\b[^{{}}]*}};'
            text, n = re.subn(node, "", text)
            assert n >= 1, device
        return text

    return edit


def only_riscv_plic0(text):
    return re.sub(r'compatible = "sifive,plic-1.0.0[^;]*;', 'compatible = "riscv,plic0";', text)


def test_other_plic(boot, host_tree):
    """Some boards' trees know the PLIC by its newer name alone."""
    with boot(qemu_args=f"-dtb {host_tree(only_riscv_plic0)}") as guest:
        assert "ttyS0" in guest.output("grep ttyS0 /proc/interrupts")
        guest.poweroff()


def test_neither_clock_nor_switch(boot, host_tree):
    """The guest is not told of what the host does not have."""
    dtb = host_tree(without("google,goldfish-rtc", "sifive,test1"))
    with boot(qemu_args=f"-dtb {dtb}") as guest:
        compatible = guest.output("cat $(find /proc/device-tree/ -name compatible) | tr '\\0' '\\n'")
        assert "ns16550a" in compatible
        assert "goldfish" not in compatible and "sifive,test" not in compatible
        assert guest.run("ls /sys/class/rtc/rtc0 2>/dev/null")[1] != 0
        for what in "0x101000 32", "0x100000 32", "0x100000 32 0x5555":
            assert guest.run(f"devmem {what}")[1] in (128 + 7, 128 + 11), what
        # Nobody can switch such a host off.


def test_clock_and_switch(guest):
    """The other way round: it is told of both."""
    compatible = guest.output("cat $(find /proc/device-tree/ -name compatible) | tr '\\0' '\\n'")
    assert {"google,goldfish-rtc", "sifive,test1", "syscon"} <= set(compatible.split("\n"))


def test_other_uart(start, host_tree):
    """A UART that is not the guest's kind.  The firmware knows it, and types
    for us; without any UART it would have no console, and might not even start
    us."""
    dtb = host_tree(lambda text: text.replace('"ns16550a"', '"ns16550"'))
    guest = start("board", "case=begin", qemu_args=f"-dtb {dtb}")
    refused(guest, rb"RAM at 80000000, ns16550a at 0, PLIC at c000000 \(0: none\)$")


# --- The guest's device tree --------------------------------------------------


def test_isa_three_times(guest):
    """riscv,isa-base and riscv,isa-extensions say the same as riscv,isa."""
    cpu = "/proc/device-tree/cpus/cpu@0"
    isa, base, listed = (
        guest.output(f"tr '\\0' '\\n' <{cpu}/riscv,{name}").split("\n")
        for name in ("isa", "isa-base", "isa-extensions")
    )
    listed = [name for name in listed if name]
    assert base == ["rv64i"]
    letters, *words = isa[0].split("_")
    assert not any(isa[1:])
    assert list(letters[4:]) + words == listed
    assert len(listed) == len(set(listed)) > 5


# --- A guest that can't go on -------------------------------------------------

CROSS = "riscv64-linux-gnu-"
# The mode; the code, in which "first" is where the first exception comes; what
# the line names: exception, vector, and first exception; where the first
# exception was, if not at "first".
STUCK = {
    "stvec 0": ("S", "li t0, 0x1000; jr t0", (1, 0, 1), 0x1000),
    "stvec where nothing is": (
        "S",
        "li t0, 0x40000000; csrw stvec, t0; first: ebreak",
        (1, 0x40000000, 3),
        None,
    ),
    "stvec in a device": (
        "S",
        "li t0, 0x10001000; csrw stvec, t0; first: .4byte 0",
        (1, 0x10001000, 2),
        None,
    ),
    "stvec mapped to where nothing is": (
        "S",
        "li t0, 0x40000000; csrw stvec, t0; la t1, table; srli t1, t1, 12; li t0, 8; "
        "slli t0, t0, 60; or t0, t0, t1; csrw satp, t0; sfence.vma; first: ebreak",
        (1, 0x40000000, 3),
        None,
    ),
    "mtvec 0": ("M", "csrw mtvec, zero; first: .4byte 0", (1, 0, 2), None),
    "mtvec in a device": (
        "M",
        "li t0, 0x10000000; csrw mtvec, t0; li t0, 0x10; first: ld t0, (t0)",
        (1, 0x10000000, 5),
        None,
    ),
    "mtvec where no code is": (
        "M",
        "li t0, 0x90000000; csrw mtvec, t0; first: ecall",
        (2, 0x90000000, 11),
        None,
    ),
}


# For Sv39: maps the GiB at 0x40000000 and the one at 0x80000000 to themselves.
TABLE = """
        .balign 4096
table:  .dword  0, 0x40000000 / 4 + 0xcf, 0x80000000 / 4 + 0xcf
        .skip   4096 - 3 * 8
"""


@pytest.mark.parametrize("what", STUCK)
def test_stuck(boot, what, qemu, tmp_path):
    """One line for a guest that takes an exception at its own trap vector."""
    mode, code, said, at_first = STUCK[what]
    if mode == "M":
        if not has_mpv(qemu):
            pytest.skip("mstatus.MPV can't be written on this QEMU")
    source, elf = tmp_path / "stuck.S", tmp_path / "stuck"
    at = "0x80000000" if mode == "M" else "0x80200000"
    code = code.replace(";", "\n")
    source.write_text(f".globl _start\n_start:\n{code}\n{TABLE}")
    link = f"-march=rv64ima_zicsr -mabi=lp64 -nostdlib -static -Wl,--build-id=none,-N,-Ttext={at}"
    subprocess.run([f"{CROSS}gcc", *link.split(), source, "-o", elf], check=True)
    guest = boot("-k", elf, "--no-disk")
    line = guest.expect(
        rb"hv: the guest's hart 0 can't go on: exception (\w+) at its trap vector, "
        rb"(\w+), after exception (\w+) at (\w+)\n"
    )
    assert tuple(int(word, 16) for word in line.groups()[:3]) == said
    names = subprocess.check_output([f"{CROSS}nm", elf], text=True)
    first = int(re.search(r"(\w+) \w first\n", names)[1], 16) if at_first is None else at_first
    assert int(line[4], 16) == first
    guest.child.sendcontrol("a")
    guest.child.send("x")
    guest.ended()
    assert guest.console.count(b"hv: ") == 1
