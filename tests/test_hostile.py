"""Nothing that a guest does hurts the hypervisor.

The guests are guests/hostile_*.c.  Each checks that what it does wrong comes
back to itself, and ends by a shutdown.  Meanwhile all of the host's RAM is a
file, so the tests here can see what else was written to.
"""

import mmap
import os
import random
import re
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import QEMUS, ROOT

FAIL = re.compile(rb"^FAIL .*$", re.MULTILINE)
# The hypervisor's lines, in which another hart's characters may appear, and how
# one about a virtqueue begins.
VOICE = re.compile(rb"hv: .*$", re.MULTILINE)
STOPS = rb"hv: vi"

RAM = 0x80000000  # of the host and of the guest
MIB, GIB, PAGE = 1 << 20, 1 << 30, 4096
GAP = 64  # MiB of the host's RAM behind the guest's
R, W, X = 2, 4, 8  # in a page table's entry
RTC, PLIC, UART, VIRTIO = 0x101000, 0x0C000000, 0x10000000, 0x10001000
HOST = 9  # words of struct host, up to what changes when the guest ends: hv.h
ROOT_TABLE = 6  # its index among them


class Host:
    """The host's physical memory, as the file that QEMU keeps it in."""

    def __init__(self, folder, mem):
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else folder
        self.size, self.guest_size = (mem + 1024 + GAP) * MIB, mem * MIB
        self.file = tempfile.NamedTemporaryFile(dir=folder, prefix="hostile-")
        os.truncate(self.file.name, self.size)
        self.memory = mmap.mmap(self.file.fileno(), self.size)
        self.qemu_args = (
            f"-object memory-backend-file,id=ram,size={self.size},share=on,"
            f"mem-path={self.file.name} -machine memory-backend=ram "
            f"-m {self.size // MIB}"
        )

    def close(self):
        self.memory.close()
        self.file.close()

    def bytes(self, address, size):
        return self.memory[address - RAM : address - RAM + size]

    def words(self, address, n=1):
        return struct.unpack(f"<{n}Q", self.bytes(address, 8 * n))

    def pages(self, start, end):
        """The pages from START to END that are not all zeros: {address: page}."""
        found, at, end = {}, start - RAM, end - RAM
        while at < end:
            try:  # what nobody has touched is a hole
                at = os.lseek(self.file.fileno(), at, os.SEEK_DATA) // PAGE * PAGE
            except OSError:
                break
            page = self.memory[at : at + PAGE]
            if at < end and any(page):
                found[hex(RAM + at)] = page
            at += PAGE
        return found


class Canary:
    """What must not change in the hypervisor while a guest runs."""

    def __init__(self, host, elf, harts):
        self.host, self.harts = host, harts
        names = subprocess.run(
            ["riscv64-linux-gnu-nm", elf], capture_output=True, text=True, check=True
        ).stdout
        self.symbols = {
            name: int(address, 16)
            for address, _, name in map(str.split, names.splitlines())
        }
        self.image = elf.with_suffix(".image")
        subprocess.run(
            ["riscv64-linux-gnu-objcopy", "-O", "binary", "-R", ".data"]
            + [elf, self.image],
            check=True,
        )
        self.firmware = host.bytes(RAM, 64 * 1024)
        self.host_row = self.variable("host", HOST)
        self.around = self.unused()

    def unused(self):
        """The pages next to the guest's RAM, which nobody should write to.

        Below it is RAM that was never allocated, with QEMU's device tree
        somewhere in it; above it is RAM that the guest was not given.
        """
        (heap,), (ram,) = self.variable("heap"), self.variable("guest_ram")
        used = (heap + PAGE - 1) // PAGE * PAGE
        end = ram + self.host.guest_size
        return self.host.pages(used, ram) | self.host.pages(end, RAM + self.host.size)

    def variable(self, name, n=1):
        return self.host.words(self.symbols[name], n)

    def leaves(self, table, entries=2048, span=GIB, gpa=0):
        """What the second stage of translation maps, leaf by leaf."""
        for i, entry in enumerate(self.host.words(table, entries)):
            at = gpa + i * span
            if entry & (R | W | X):
                yield at, span, (entry >> 10) * PAGE, entry & (R | W | X)
            elif entry:
                yield from self.leaves((entry >> 10) * PAGE, 512, span // 512, at)

    def check(self):
        host = self.host
        image = self.image.read_bytes()
        assert host.bytes(self.symbols["boot"], len(image)) == image
        assert host.bytes(RAM, len(self.firmware)) == self.firmware
        assert self.variable("host", HOST) == self.host_row
        (heap,), (heap_end,) = self.variable("heap"), self.variable("heap_end")
        (ram,), root = self.variable("guest_ram"), self.host_row[ROOT_TABLE]
        assert ram == heap_end and self.symbols["hv_end"] < heap < heap_end
        assert self.variable("guest_ram_size") == (host.guest_size,)

        before, after = self.around, self.unused()
        assert {a: page for a, page in before.items() if int(a, 16) >= heap} == after

        # The guest reaches its RAM, the clock and its harts' own contexts of the
        # PLIC, and reads some registers of other devices.
        contexts = [PLIC + 0x201000 + 0x2000 * hart for hart in range(self.harts)]
        for gpa, span, hpa, perm in self.leaves(root):
            if gpa >= RAM:
                assert perm == R | W | X and hpa - ram == gpa - RAM
                assert gpa + span <= RAM + host.guest_size
            elif gpa == RTC or gpa in contexts:
                assert (span, hpa, perm) == (PAGE, gpa, R | W)
            else:
                assert perm == R and hpa == gpa
                assert (
                    PLIC <= gpa and gpa + span <= PLIC + 2 * MIB
                    or UART <= gpa and gpa + span <= VIRTIO + 8 * PAGE
                )

        # A vcpu's first page: registers, and well above them the stack.
        for hart in range(8):
            vcpu = self.symbols["vcpus"] + MIB // 2 * hart
            words = host.words(vcpu, PAGE // 8)
            if hart < self.harts:
                assert words[0] == 0 and words[32] in (0, hart)
                assert not any(words[40:192]), f"the stack of hart {hart}"
            else:
                assert not any(words)


NO_DISK = ("--no-disk",)
NO_SSTC = "-cpu rv64,h=true,sstc=false"


@pytest.fixture
def hostile(boot, build_guest, out, tmp_path):
    """hostile(NAME, HARTS, ...): guests/NAME.c from its beginning to its end."""
    hosts = []

    def run(
        name, harts=1, params="", options=NO_DISK, qemu_args="", says=rb"(?!)"
    ):
        host = Host(tmp_path, 1024)
        hosts.append(host)
        guest = boot(
            *("-k", build_guest(name), "-c", harts, *options),
            *("-p", f"harts={harts} {params}"),
            qemu_args=f"{host.qemu_args} {qemu_args}",
        )
        # It prints only when the hypervisor has set everything up.
        guest.expect(rb"here I am\n")
        canary = Canary(host, Path(out) / "hv.elf", harts)
        while b"fuzz" in guest.expect(rb"\nfuzz: \w+ loads|\w+ checks, \w+ failed")[0]:
            pass  # it lives
        assert guest.ended() == 0
        failures = [line.decode() for line in FAIL.findall(guest.console)]
        assert not failures, "\n".join(failures[:50])
        assert re.search(rb"^\w+ checks, 0 failed$", guest.console, re.M)
        said = VOICE.findall(guest.console)
        assert all(re.match(says, line) for line in said), said[:10]
        canary.check()
        return guest

    yield run
    for host in hosts:
        host.close()


def test_faults(hostile):
    """Accesses from VS-mode and VU-mode where there is no memory or register."""
    hostile("hostile_faults")


def test_faults_vector(hostile):
    guest = hostile("hostile_faults", qemu_args="-cpu rv64,h=true,v=true")
    assert b"no vector" not in guest.console


@pytest.mark.parametrize("harts", [1, 2])
def test_traps(hostile, harts):
    """What the H extension would allow, and page tables that are not in RAM."""
    hostile("hostile_traps", harts)


@pytest.mark.parametrize("harts", [1, 2])
def test_calls(hostile, harts):
    """One of the calls starts the other hart, which may find no code."""
    hostile("hostile_sbi", harts, says=rb"hv: the guest's hart \d can't go on: ")


def test_stop(hostile, devices):
    hostile("hostile_stop", 2, options=devices)


@pytest.mark.parametrize("harts", [1, 2])
def test_devices(hostile, harts):
    hostile("hostile_devices", harts)


@pytest.mark.parametrize("qemu_args", ["", NO_SSTC], ids=["sstc", "no-sstc"])
def test_timer(hostile, qemu_args):
    hostile("hostile_timer", qemu_args=qemu_args)


@pytest.fixture
def devices(tmp_path):
    """Options for a disk and a network card, which has three queues."""
    disk = tmp_path / "disk"
    disk.write_bytes(os.urandom(1 << 20))
    return "-n", "-d", disk


def test_virtio(hostile, devices):
    guest = hostile("hostile_virtio", options=devices, says=STOPS)
    for device in b"1: 3", b"2: 1", b"4: 1":  # network, disk, entropy
        assert b"device %s queues" % device in guest.console


def test_virtio_race(hostile, devices):
    """Another hart rewrites the rings while the hypervisor reads them."""
    guest = hostile("hostile_virtio", 2, "race", options=devices, says=STOPS)
    # Some requests were wrong, and some were not; the numbers are hexadecimal.
    counts = rb"queue \w: \w+ rounds, (\w+) finished, (\w+) stopped"
    finished, stopped = zip(*re.findall(counts, guest.console))
    assert len(stopped) == 5 and any(int(n, 16) for n in finished)
    assert any(int(n, 16) for n in stopped)


def test_balloon(hostile):
    says = rb"hv: slot \d: unknown, or lacks force-legacy=false or event_idx"
    hostile("hostile_balloon", qemu_args="-device virtio-balloon-device", says=says)


@pytest.mark.parametrize("harts", [1, 2])
def test_code(hostile, harts):
    """Code that the hypervisor reads while another hart unmaps it."""
    hostile("hostile_code", harts)


@pytest.mark.parametrize("harts", [1, 2])
def test_fuzz(hostile, devices, report, harts):
    """`make fuzz-guest` sets these.  A seed repeats the numbers, but not the
    order in which two harts, or devices, get their turn."""
    seconds = int(os.environ.get("FUZZ_SECONDS") or 60) / (2 * len(QEMUS))
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(10**6))
    report(f"fuzz.c, {harts} harts: seed {seed}, {seconds:.0f} seconds")
    params = f"seed={seed} seconds={max(1, round(seconds))}"
    # What it types itself may appear anywhere, even in the hypervisor's lines.
    says = rb"hv: (?!BUG)"
    guest = hostile("fuzz", harts, params, options=devices, says=says)
    report(re.findall(rb"fuzz: .* faults", guest.console)[-1].decode())


def test_devmem(boot):
    """Linux's user space at addresses where nothing is: SIGBUS or SIGSEGV, for
    that process alone."""
    with boot("--no-disk", "-c", 2) as guest:
        for what in (
            *("0x1000 8", "0x100000 8", "0x100000 64 0x5555", "0x100010 32 0x5555"),
            *("0x2004000 64 0", "0x102000 32", "0x10100000 16", "0x20000000 32", "0xc600000 32", "0x10009000 32"),
            *("0x7ffffff8 64", "0x7ffffff8 64 1", "0xc0000000 8", "0xc0000000 8 1"),
            # stores that the PLIC and a virtio slot do not take
            *("0xc000004 8 1", "0xc000008 64 1", "0x10008070 16 0"),
        ):
            _, status = guest.run(f"devmem {what}")
            assert status in (128 + 7, 128 + 11), what
        assert guest.output("devmem 0xc000028 32") == "0x00000001"  # the UART's
        # The test device, as on bare QEMU: this value asks for nothing.
        assert guest.output("devmem 0x100000 32 0x1234; devmem 0x100000 32") == "0x00000000"
        guest.start("devmem 0x100000 32 0x5555")
        assert guest.ended() == 0
