"""--stats and --trace: what they say about a run, against other witnesses."""

import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

import bench
from conftest import ROOT
from patience import Patience

sys.path.insert(0, str(ROOT / "tools"))
import exits  # noqa: E402
import plot  # noqa: E402

CROSS = "riscv64-linux-gnu-"


def rows(text, title):
    """{name: exits} of a part of the table."""
    part = re.search(rf"^{title} .*\n((?:.+\n)*)", text, re.MULTILINE)
    found = (re.match(r"(.+?) {2,}(\d+)", line) for line in part[1].splitlines())
    return {row[1]: int(row[2]) for row in found}


def table(guest):
    """The table at the end of the console of a guest that has ended."""
    text = guest.console.decode(errors="replace")
    text = text[text.rindex(" VM exits, ") - 20 :]
    assert " 0 exits lost" in text
    assert max(len(line) for line in text.splitlines()[1:] if "+0x" not in line) <= 80
    return text


def load(trace):
    """The exits in a trace, after a check of its form."""
    events = json.loads(trace.read_text())["traceEvents"]
    found = [event for event in events if event["ph"] == "X"]
    for event in found:
        assert {"name", "ph", "ts", "dur", "pid", "tid", "args"} <= event.keys()
        assert event["ts"] > 0 and event["dur"] >= 0
    assert {event["ph"] for event in events} == {"M", "X"}
    times = [event["ts"] for event in found]
    assert times == sorted(times)
    return found


def causes(events):
    return Counter(event["args"]["cause"].removesuffix(": WFI") for event in events)


# --- The ring ----------------------------------------------------------------


def test_layout():
    """exits.py knows where hv.h puts things."""
    wanted = {
        "sizeof(struct vcpu)": exits.VCPU_SIZE,
        "offsetof(struct vcpu, exits)": exits.EXITS,
        "offsetof(struct vcpu, log)": exits.LOG,
        "LENGTH(vcpus->log)": exits.RING,
        "sizeof(struct exit)": exits.RECORD.size,
        **{f"offsetof(struct exit, {f})": 8 * i for i, f in enumerate(exits.Exit._fields)},
    }
    source = '#include "hv.h"\n' + "".join(
        f'_Static_assert({what} == {value}, "");\n' for what, value in wanted.items()
    )
    command = f"{CROSS}gcc -I. -march=rv64imac_zicsr -mabi=lp64 -ffreestanding -fsyntax-only -xc -"
    subprocess.run(command.split(), cwd=ROOT, input=source, text=True, check=True)


class Ring:
    """A struct vcpu, into which a test writes as the hypervisor would."""

    def __init__(self):
        self.memory = bytearray(exits.VCPU_SIZE)
        self.hart = exits.Hart(memoryview(self.memory), True)
        self.number = 0

    def add(self, number):
        """NUMBER exits of one tick each, one every ten ticks."""
        for _ in range(number):
            at = exits.LOG + self.number % exits.RING * exits.RECORD.size
            time = 10 * self.number + 1
            exits.RECORD.pack_into(self.memory, at, time, time + 1, 10, self.number, *[0] * 5)
            self.number += 1
        struct.pack_into("=Q", self.memory, exits.EXITS, self.number)

    def reset(self):
        self.memory[:] = bytes(len(self.memory))
        self.number = 0

    def taken(self, boot=0):
        return [e.pc for e in exits.records(self.hart.boots[boot])]


def test_nothing_lost():
    """Around the ring several times, in steps of many sizes."""
    ring = Ring()
    for step in [0, 1, 2, 7220, 7222, 1, 5000, 5000, 7222]:
        ring.add(step)
        ring.hart.poll()
        ring.hart.poll()
    ring.hart.end_of_boot()
    assert ring.taken() == list(range(ring.number)) and ring.hart.lost == 0
    assert ring.hart.hypervisor == ring.number and ring.hart.guest == 9 * (ring.number - 1)


def test_lost():
    """The hart overtakes us: what is lost is counted, what is there is taken."""
    ring = Ring()
    ring.add(10)
    ring.hart.poll()
    ring.add(20000)
    ring.hart.poll()
    ring.hart.end_of_boot()
    taken = ring.taken()
    assert taken == [*range(9), *range(20010 - 7223, 20010)]
    assert ring.hart.lost == 20010 - len(taken)
    assert ring.hart.hypervisor == len(taken) and ring.hart.guest == 9 * (len(taken) - 2)


def test_machine_reset():
    ring = Ring()
    for number in 10, 5:
        ring.add(number)
        ring.hart.poll()
        ring.reset()
        ring.hart.poll()
    assert [ring.taken(0), ring.taken(1)] == [list(range(10)), list(range(5))]
    assert ring.hart.lost == 0


# --- A run -------------------------------------------------------------------


def test_against_qemu_log(boot, tmp_path):
    """Two harts: each cause is there as often as in QEMU's own log."""
    log, trace = tmp_path / "int.log", tmp_path / "trace"
    with boot("-c", 2, "--stats", "--trace", trace, qemu_args=f"-d int -D {log}") as guest:
        guest.output("for i in 1 2 3 4 5; do ls / & done; wait")
        guest.poweroff()
    text, events = table(guest), load(trace)
    judge = sum(bench.exits(log.read_text(), None), Counter())
    assert causes(events) == judge
    said = Counter()
    for name, number in rows(text, "by cause").items():
        said[name.removesuffix(": WFI")] += number
    assert said == judge
    assert int(re.search(r"(\d+) VM exits", text)[1]) == len(events)
    for hart in 0, 1:  # and for each hart
        count = Counter(e["args"]["cause"] for e in events if e["tid"] == hart)
        for cause, number in count.items():
            cells = re.search(rf"^ {cause} .*", text, re.MULTILINE)[0].split()
            assert cells[hart - 2] == str(number)
    # One hart's last exit is the shutdown; another one may leave the guest later.
    (end,) = (e for e in events if e["name"] == "sbi SRST.system_reset")
    assert re.match(r"(sbi_srst_power_off|__sbi_ecall)\+0x", end["args"]["symbol"])
    last = text.split("last exits of hart")[1 + end["tid"]]
    assert last.split("\n\n")[0].splitlines()[-1].split()[1:3] == ["sbi", "SRST.system_reset"]
    # What the console showed went through the UART.
    stores = (e for e in events if e["name"] == "store uart.THR/DLL")
    shown = bytes(int(e["args"]["value"], 16) for e in stores).replace(b"\r", b"")
    assert b"Run /init as init process" in shown and b"reboot: Power down\n" in shown
    # No two exits of a hart overlap.
    for hart in 0, 1:
        own = [e for e in events if e["tid"] == hart]
        assert all(a["ts"] + a["dur"] <= b["ts"] + 0.01 for a, b in zip(own, own[1:]))


def test_disk_reads(boot, tmp_path):
    """Each direct read is one QueueNotify, one interrupt, one InterruptACK."""
    mark = "devmem 0x10000007 8 "  # the UART's scratch register, in the trace
    trace, disk = tmp_path / "trace", tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))  # not mounted, so nobody else reads it
    with boot("--stats", "--trace", trace, "-p", "quiet", "-d", f"{disk},ro") as guest:
        guest.output(f"dd if=/dev/vda bs=4k count=50 skip=9 iflag=direct of=/dev/null 2>&1; {mark} 1")
        guest.output(
            f"{mark} 2; dd if=/dev/vda bs=4k count=50 skip=99 iflag=direct of=/dev/null; {mark} 3"
        )
        guest.poweroff()
    events = load(trace)
    names = [(e["name"], e["args"].get("value")) for e in events]
    first, last = (names.index(("store uart.SCR", value)) for value in ("0x2", "0x3"))
    between = Counter(name for name, _ in names[first:last])
    assert between["store virtio0.QueueNotify"] == between["store virtio0.InterruptACK"] == 50
    claims = Counter(value for name, value in names if name == "load plic.claim")
    text = table(guest)
    for source in "1", "10":
        line = re.search(rf"^interrupts from PLIC source {source} +(\d+)$", text, re.MULTILINE)
        assert int(line[1]) == claims[hex(int(source))]
    assert claims["0x1"] >= 100


CALLS = """
        .macro  sbi extension, function, a0, a1, times
        li      s0, \\times
1:      li      a7, \\extension
        li      a6, \\function
        li      a0, \\a0
        li      a1, \\a1
        ecall
        addi    s0, s0, -1
        bnez    s0, 1b
        .endm
        .globl  _start
_start: sbi     0x10, 3, 0x10, 0, 30000
        sbi     0x735049, 0, 0, 0, 70
        sbi     0x54494d45, 0, -1, 0, 11
        sbi     0x52464e43, 1, 1, 0, 12
        sbi     0x4442434e, 2, 'x', 0, 5
        sbi     1, 77, 'y', 0, 3
        sbi     0x12345, 6, 0, 0, 2
        sbi     0x53525354, 0, 0, 0, 1
"""


def test_sbi_calls(boot, tmp_path):
    """A kernel makes that many calls; the table shows not one less or more."""
    elf = tmp_path / "elf"
    command = f"{CROSS}gcc -nostdlib -static -Wl,-N,--build-id=none,-Ttext=0x80200000 -xassembler -"
    subprocess.run([*command.split(), "-o", elf], input=CALLS, text=True, check=True)
    guest = boot("-k", elf, "--stats", "--no-disk")
    assert guest.ended() == 0
    text = guest.console.decode()
    assert rows(text, "by SBI extension and function") == {
        "BASE.probe_extension": 30000,
        "IPI.send_ipi": 70,
        "TIME.set_timer": 11,
        "RFENCE.remote_sfence_vma": 12,
        "DBCN.debug_console_write_byte": 5,
        "legacy.console_putchar": 3,
        "0x12345.6": 2,
        "SRST.system_reset": 1,
    }
    assert "\n30104 VM exits, 0 exits lost\n" in table(guest)


def test_reboot(boot, tmp_path):
    """Each boot is a process of its own, with all its exits."""
    trace = tmp_path / "trace"
    with boot("--trace", trace, "-p", "quiet") as guest:
        guest.start("reboot")
        guest.wait_for_prompt()
        guest.poweroff()
    assert b"VM exits" not in guest.console
    boots = {boot: [e for e in load(trace) if e["pid"] == boot] for boot in (1, 2)}
    assert [e["name"] for e in boots[1]][-1] == "sbi SRST.system_reset"
    first, second = (
        [e["name"] for e in boots[boot] if e["name"].startswith("sbi BASE")] for boot in (1, 2)
    )
    assert first == second and len(first) > 5


# --- The terminal ------------------------------------------------------------


def test_terminal(boot, spawn):
    """Ctrl-C goes to the guest, Ctrl-a x ends QEMU, the table comes last."""
    with boot("--stats", "-p", "quiet") as guest:
        guest.start("sh -c 'printf \"\\002\"; exec sleep 1000'")
        guest.expect(rb"\x02")
        guest.send("\x03")
        guest.wait_for_prompt()
        guest.output("test -t 0 -a -t 1")
        guest.send("\x01x")
        assert guest.ended() == 0
    assert rows(table(guest), "by cause")


def test_status(run_sh, qemu):
    """The exit status is QEMU's own, even if QEMU does not start."""
    for options in [], ["--stats"]:
        result = run_sh(*options, QEMU=qemu, QEMU_ARGS="-nonsense")
        assert result.returncode == 1 and "invalid option" in result.stderr


def test_killed(boot):
    """SIGKILL to the process that run.sh became ends QEMU as well."""
    with boot("--stats") as guest:
        (child,) = Path(f"/proc/{guest.child.pid}/task/{guest.child.pid}/children").read_text().split()
        assert "qemu" in Path(f"/proc/{child}/cmdline").read_text()
        # The RAM is a file without a name, so nothing can be left of it.
        mapped = Path(f"/proc/{child}/maps").read_text()
        assert re.findall(r"rw-s .* (/.*RAM.*)", mapped) == ["/memfd:RAM (deleted)"]
        with open(os.pidfd_open(int(child))) as process:  # readable when it ends
            guest.child.kill(9)
            Patience().until(lambda seconds: select.select([process], [], [], seconds)[0])


def test_off(run_sh, qemu):
    """Without the options QEMU runs as always."""
    command = run_sh("--dry-run", QEMU=qemu).stdout
    assert command.startswith(f"{qemu} -M virt ") and "memory-backend" not in command
    with_stats = run_sh("--dry-run", "--stats", QEMU=qemu).stdout
    assert with_stats.endswith(f" -- {command}")


def test_plot(out, tree):
    """The README's picture: each kind that occurs has its line."""
    if not shutil.which("gnuplot"):
        pytest.skip("make plot installs gnuplot")
    picture = tree / "docs/exits.svg"
    picture.unlink()
    subprocess.run(["make", "plot", f"O={out}"], cwd=tree, env={**os.environ, "O": str(out)}, check=True)
    text = "".join(ElementTree.parse(picture).getroot().itertext())
    # Newer Linux asks for no fence on one hart; whether it sleeps before it is
    # switched off, and whether an interrupt comes to us, is chance.
    chance = {"SBI: fences", "WFI (sleep)", "interrupts to us"}
    for (_, label, _), points in zip(plot.KINDS, plot.growth(out / "exits.json")):
        assert points or label in chance
        assert (f"{len(points):,}  {label}" in text) == bool(points)
    for label in "seconds since power-on", "init", "shell":
        assert label in text
