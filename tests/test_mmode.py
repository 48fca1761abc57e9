"""Kernels that start in M-mode without firmware, as teaching kernels do.

They are in guests/mmode_*; each checks for itself what it gets, prints a FAIL
line for what is wrong, and ends with the line `done: N checks, M failed`.  All
run on the hypervisor and, as the reference, on QEMU without it.
"""

import functools
import os
import random
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import QEMUS, ROOT

GUESTS = ROOT / "tests/guests"
SUPER = ["super.c", "super_asm.S"]
KERNELS = {  # the sources, mmode_..., and options
    "clint": ([*SUPER, "clint.c"], []),
    "sstc": ([*SUPER, "sstc.c"], []),
    "clint_no_ad": ([*SUPER, "clint.c"], ["-DNO_AD"]),
    "sstc_no_ad": ([*SUPER, "sstc.c"], ["-DNO_AD"]),
    "csr": (["csr.c", "csr_asm.S"], []),
    "board": (["board.c", "board_asm.S"], []),
}
CROSS = "riscv64-linux-gnu-"
GCC = (
    f"{CROSS}gcc -march=rv64gc -mabi=lp64d -mcmodel=medany -nostdlib -static "
    "-ffreestanding -fno-pic -no-pie -fno-stack-protector -std=gnu11 -O2 -g "
    "-Wall -Wextra -Werror -Wl,--build-id=none -DSTACK=8192"
)

# What QEMU without the hypervisor starts these kernels with.
BARE = (
    "-M virt -bios none -m 1024 -nographic -global virtio-mmio.force-legacy=false"
)
DISK = (
    "-drive file={},if=none,format=raw,id=disk "
    "-device virtio-blk-device,drive=disk,bus=virtio-mmio-bus.0"
)
BLOCK = 1024
FIRST, BLOCKS = 64, 16  # what hart 0 writes; hart 1 writes the next ones, and so on
ECALLS = 109  # in the program, mmode_super_asm.S

# The groups of mmode_csr.c after "done", in its order, which go beyond what
# those kernels need.  PASS has those that must pass: not "warl", because QEMU
# lets mepc's bit 0 be written.
GROUPS = ["pmp", "views", "ecall", "illegal", "warl"]
# Nor "views" on the hypervisor: while M-mode runs, S-mode's registers need not
# follow, as S-mode can't look at them.
PASS = {
    "bare": ["pmp", "views", "ecall", "illegal"],
    "hv": ["pmp", "ecall", "illegal"],
}


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """The folder with the kernels, NAME.elf and, without headers, NAME."""
    folder = tmp_path_factory.mktemp("mmode")
    for name, (sources, options) in KERNELS.items():
        elf = folder / f"{name}.elf"
        files = [
            GUESTS / f"mmode_{source}"
            for source in ["entry.S", "lib.c", *sources]
        ]
        script = GUESTS / "mmode_link.ld"
        subprocess.run(
            [*GCC.split(), *options, "-T", script, "-o", elf, *files],
            check=True,
        )
        subprocess.run(
            [f"{CROSS}objcopy", "-O", "binary", elf, folder / name], check=True
        )
    return folder


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(1 << 20))
    return path


@pytest.fixture(params=["hv", "bare"])
def machine(request):
    return request.param


# Writes mstatus.MPV, and types what it reads: 1 or 0.
MPV = """
        .globl  _start
_start: li      t0, 1 << 39
        csrw    mstatus, t0
        csrr    t1, mstatus
        and     t1, t1, t0
        srli    t1, t1, 39
        addi    t1, t1, '0'
        li      t0, 0x10000000  # UART
        sb      t1, (t0)
        li      t1, '\\n'
        sb      t1, (t0)
1:      j       1b
"""


@functools.cache
def has_mpv(qemu):
    """Can mstatus.MPV be written?  Not on QEMU 10.0.13 and 11.1: there the
    firmware can't hand a guest's trap to the hypervisor, because it doesn't get
    out of virtual mode."""
    with tempfile.TemporaryDirectory() as folder:
        source, elf = f"{folder}/mpv.S", f"{folder}/mpv"
        Path(source).write_text(MPV)
        link = "-nostdlib -static -Wl,--build-id=none,-Ttext=0x80000000".split()
        subprocess.run([f"{CROSS}gcc", *link, source, "-o", elf], check=True)
        command = [qemu, *BARE.split(), "-cpu", "rv64,h=true", "-kernel", elf]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process:
            line = process.stdout.readline()
            process.kill()
    assert line.strip() in (b"0", b"1")
    return line.strip() == b"1"


def test_warning(run_sh, kernels, qemu):
    """run.sh warns if the QEMU is one of those."""
    kernel = kernels / "clint.elf"
    result = run_sh("--dry-run", "--no-disk", "-k", kernel, QEMU=qemu)
    assert result.returncode == 0
    assert ("hangs on this QEMU" in result.stderr) == (not has_mpv(qemu))


@pytest.fixture
def start(boot, spawn, qemu, kernels, machine):
    """start(NAME, ...): that kernel, on the hypervisor or without it."""
    if machine == "hv" and not has_mpv(qemu):
        pytest.skip("mstatus.MPV can't be written on this QEMU")

    def start(name, harts=1, disk=None, flat=False, qemu_args=""):
        kernel = kernels / (name if flat else f"{name}.elf")
        if machine == "hv":
            what = f"{kernel}@0x80000000" if flat else kernel
            drive = ["-d", disk] if disk else ["--no-disk"]
            options = ["-k", what, "-c", harts, *drive]
            return boot(*options, qemu_args=qemu_args)
        command = [qemu, *BARE.split(), "-smp", harts, "-kernel", kernel]
        command += DISK.format(disk).split() if disk else []
        return spawn(command + qemu_args.split())

    return start


def finish(guest, group=b"done"):
    """Wait for a group's last line; none of its checks may have failed."""
    begin = 0 if group == b"done" else guest.seen
    try:
        line = guest.expect(
            rb"(?m)^(%s|stopped): (\d+) checks, (\d+) failed\n" % group
        )
        ended = line[1] == group and int(line[2]) > 0 and line[3] == b"0"
    except AssertionError as error:
        ended = f"no end: {str(error).splitlines()[0]}"
    text = guest.console[begin : guest.seen if ended is True else None]
    failures = [
        line.decode(errors="replace")
        for line in text.split(b"\n")
        if line.startswith((b"FAIL", b"hv: "))
    ]
    assert ended is True and not failures, "\n".join([*failures, str(ended)])


def check_super(guest, harts, disk, hides_stip=False):
    """Talk to one of the kernels of mmode_super.c; then look at what it did."""
    before = disk.read_bytes()
    text = "".join(random.choices("abcdefghijklmnopqrstuvwxyz ", k=150))
    try:
        guest.expect(rb"type: ")
    except AssertionError:
        finish(guest)
        raise
    guest.send(text + "\r")
    guest.expect(text.encode() + rb"\n")
    guest.expect(rb"line: " + text.encode() + rb"\n")
    end = guest.seen
    finish(guest)
    console = guest.console.decode()
    lines = re.findall(
        r"hart (\d+): ticks (\d+), in U-mode (\d+), ecalls (\d+), "
        r"disk (\d+), uart (\d+)",
        console[end:],
    )
    seen = {int(line[0]): [int(n) for n in line[1:]] for line in lines}
    assert set(seen) == set(range(harts))
    for ticks, in_user, ecalls, _, _ in seen.values():
        assert ticks >= 10 and in_user >= 5 and ecalls == ECALLS
    assert all(sum(counts) > 0 for counts in zip(*seen.values()))
    assert hides_stip or "hidden: " not in console
    for line in ("user: hello\n", "user: bye\n"):
        assert console.count(line) == harts

    sums = dict(re.findall(r"hart (\d+), sum of block \d+ is 0x(\w+)", console))
    expected = bytearray(before)
    for hart in range(harts):
        value = 0
        for byte in before[hart * BLOCK : (hart + 1) * BLOCK]:
            value = (value * 31 + byte) % (1 << 64)
        assert int(sums[str(hart)], 16) == value
        for b in range(BLOCKS):
            at = (FIRST + hart * BLOCKS + b) * BLOCK
            expected[at : at + BLOCK] = bytes(
                (hart * 89 + b * 7 + i * 3 + i // 256 + 1) % 256
                for i in range(BLOCK)
            )
    assert disk.read_bytes() == expected


@pytest.fixture
def run_super(start, machine, qemu, disk):
    """run_super(NAME, HARTS, ...): one of those kernels, and its checks."""
    name = next(name for name, command in QEMUS.items() if command == qemu)
    version = tuple(int(n) for n in name.removeprefix("qemu-").split("."))
    # The guest's sip is vsip, and before 8.2 QEMU did not show STIP there.
    hides_stip = machine == "hv" and version < (8, 2)

    def run(name, harts, **options):
        guest = start(name, harts, disk, **options)
        check_super(guest, harts, disk, hides_stip)

    return run


@pytest.mark.parametrize("harts", [1, 2, 4])
@pytest.mark.parametrize("name", ["clint", "sstc"])
def test_super(run_super, name, harts):
    """Timer, console, disk and U-mode, with both kinds of timer."""
    run_super(name, harts)


@pytest.mark.parametrize("name", ["clint_no_ad", "sstc_no_ad"])
def test_no_ad(run_super, name):
    """Page tables with A and D clear: the hart has to set them (Svadu)."""
    run_super(name, 2)


@pytest.mark.parametrize("name", ["clint", "sstc"])
def test_flat(run_super, name):
    """The same kernels as flat binaries."""
    run_super(name, 2, flat=True)


def test_without_sstc(start, run_super):
    without = {"qemu_args": "-cpu rv64,h=true,sstc=false"}
    start("sstc", **without).expect(rb"skipped: no Sstc\n")
    run_super("clint", 2, **without)


@pytest.mark.parametrize("harts", [1, 2, 4])
def test_csr(start, harts):
    """M-mode's registers, mret, the timer's traps."""
    finish(start("csr", harts))


def test_csr_flat_without_sstc(start):
    without = "-cpu rv64,h=true,sstc=false"
    finish(start("csr", flat=True, qemu_args=without))


def test_csr_more(start, machine):
    """What is emulated beyond what those kernels need."""
    guest = start("csr")
    finish(guest)
    for group in map(str.encode, GROUPS):
        if group.decode() in PASS[machine]:
            finish(guest, group)
        else:
            guest.expect(rb"(?m)^%s: " % group)


@pytest.fixture
def on_both(boot, spawn, qemu, kernels):
    """on_both(HARTS, CPU): what mmode_board.c says, {machine: lines}."""
    if not has_mpv(qemu):
        pytest.skip("mstatus.MPV can't be written on this QEMU")

    def run(harts, cpu="rv64,h=true"):
        elf, said = kernels / "board.elf", {}
        bare = [qemu, *BARE.split(), "-smp", harts, "-cpu", cpu, "-kernel", elf]
        for machine, guest in (
            ("bare", spawn(bare)),
            ("hv", boot("-k", elf, "-c", harts, "--no-disk", qemu_args=f"-cpu {cpu}")),
        ):
            assert guest.ended() == 0  # by the test device
            text = guest.console.decode()
            said[machine] = text[text.index("board: ") :].splitlines()
            assert said[machine][-1] == "the end"
        return said

    return run


@pytest.mark.parametrize(
    "harts, cpu",
    [(1, "rv64,h=true"), (4, "rv64,h=true"), (2, "rv64,h=true,sstc=false")],
)
def test_board(on_both, qemu, harts, cpu):
    """Traps, counters, interrupts: line by line as on bare QEMU."""
    said = on_both(harts, cpu)

    def same(line):  # the line that is not is in test_msip_bits()
        # For an AMO where nothing is, QEMU 7.2 says that the load failed.
        return "msip's other bits" not in line and not (
            QEMUS.get("qemu-7.2") == qemu and "amo in" in line
        )

    bare, hv = (list(filter(same, said[machine])) for machine in ("bare", "hv"))
    assert bare[0] == f"board: {harts} harts" and len(bare) > 150
    assert hv == bare


def test_msip_bits(on_both):
    """All bits of msip but the lowest are 0, whatever is written."""
    said = on_both(1)
    for lines in said.values():
        assert [line for line in lines if "msip's" in line] == ["msip's other bits: 0x0, mip 0x0"]


# Sets one bit of mstatus after the other.  With the bit set, it reads and
# writes a register of M-mode's and waits for an interrupt.  Types "k" at the
# end.
EACH_BIT = """
        .globl  _start
_start: csrr    t0, mhartid
        bnez    t0, park
        la      t0, stuck
        csrw    mtvec, t0
        li      t0, 0x2004000   # mtimecmp: the time has come
        sd      zero, (t0)
        li      t0, 1 << 7      # MTIE
        csrw    mie, t0
        li      s0, 63
1:      li      s1, 1
        sll     s1, s1, s0
        li      t0, 1 << 3      # but not MIE
        beq     s1, t0, 2f
        csrs    mstatus, s1
        csrr    t0, mscratch
        csrw    mscratch, t0
        wfi
        csrc    mstatus, s1
2:      addi    s0, s0, -1
        bgez    s0, 1b
        li      t1, 'k'
        j       say
stuck:  li      t1, '!'
say:    li      t0, 0x10000000  # UART
        sb      t1, (t0)
        li      t1, '\\n'
        sb      t1, (t0)
        li      t0, 0x100000    # test device
        li      t1, 0x5555
        sw      t1, (t0)
park:   wfi
        j       park
"""


@pytest.mark.parametrize("harts", [1, 2])
def test_each_bit_of_mstatus(boot, spawn, qemu, tmp_path, harts):
    """None of them reaches the hart's own mstatus, where MPRV, TVM, TW or TSR
    would be the end of firmware or hypervisor."""
    if not has_mpv(qemu):
        pytest.skip("mstatus.MPV can't be written on this QEMU")
    source, elf = tmp_path / "bits.S", tmp_path / "bits"
    source.write_text(EACH_BIT)
    link = "-nostdlib -static -Wl,--build-id=none,-N,-Ttext=0x80000000".split()
    subprocess.run([f"{CROSS}gcc", *link, source, "-o", elf], check=True)
    bare = [qemu, *BARE.split(), "-smp", harts, "-cpu", "rv64,h=true", "-kernel", elf]
    for guest in spawn(bare), boot("-k", elf, "-c", harts, "--no-disk"):
        guest.expect(rb"(?m)^k\n")
        assert guest.ended() == 0


def test_bare_option(boot, kernels, disk):
    """./run.sh --bare is the reference, too."""
    guest = boot("--bare", "-k", kernels / "clint.elf", "-c", 2, "-d", disk)
    check_super(guest, 2, disk)
