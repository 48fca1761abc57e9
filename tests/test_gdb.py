"""gdb/hv.py: real gdb sessions with a guest that run.sh --gdb has started.

What it prints is compared with what others say about the same moment: QEMU's
own walk and reads of physical memory, gdb's reads through the hart's
translation, and the guest about its own pages.
"""

import re
import shlex
import subprocess

import pytest

from conftest import KERNEL, ROOT
from patience import Patience

VMLINUX = KERNEL.parents[3] / "vmlinux"
BANNER = re.search(rb"Linux version \d[^\n]*\n", VMLINUX.read_bytes())[0].decode().strip()
HINT = rb"in another terminal: (gdb[-a-z]* -q -x [^\r\n]+)\r?\n"


def session(command, *steps):
    """What a gdb that COMMAND starts answers to each of STEPS, as a list.

    A step is a line to type, or that and patterns that the answer must match.
    gdb gets all the lines at once, with a mark before each."""
    steps = [(step,) if isinstance(step, str) else step for step in steps]
    words = [*shlex.split(command), "-nx", "-batch"]
    for line, *_ in (*steps, ("detach",)):
        words += ["-ex", "echo \\n\\002\\n", "-ex", line]
    result = Patience().run(words, stderr=subprocess.STDOUT)
    assert "Traceback" not in result.stdout and "Python Exception" not in result.stdout
    answers = [answer.strip() for answer in result.stdout.split("\n\2\n")[1:-1]]
    assert len(answers) == len(steps), result.stdout
    for (line, *patterns), answer in zip(steps, answers):
        for pattern in patterns:
            assert re.search(pattern, answer, re.MULTILINE), (line, pattern, answer)
    return answers


@pytest.fixture
def start(boot):
    """start(OPTIONS): a guest that waits for gdb, and the command to start gdb."""

    def run_sh(*options):
        guest = boot("--gdb", *options)
        return guest, guest.expect(HINT)[1].decode()

    return run_sh


def test_boot(start, tmp_path):
    """From the reset through the first instruction to the first exits."""
    guest, command = start("-m", "64")
    first = r"ecall from VS-mode at 0xffffffff8\w+ \(\w+\+\d+\): BASE get_spec_version$"
    store = r"store guest-page fault at .*: s[bwd] \w+: (PLIC|UART|virtio) .* <- 0x\w+$"
    save = 'monitor pmemsave 0xc0000000 0x4000000 "{}"'  # of all its RAM
    before, after = tmp_path / "before", tmp_path / "after"
    said = session(
        command,
        # At the reset vector nothing of ours has run.
        ("hv vcpu", "^hart 0: in the firmware, M-mode, at 0x1000; the hypervisor has not begun$"),
        ("hv exits", "^hart 0 has had 0 exits"),
        ("hv walk 0x80200000", "^there is no second stage yet: hgatp is 0$"),
        ("hv inst", "^this hart has had no exit yet$"),
        # The guest's first instruction, at an address that is also ours.
        ("hv break-guest _start", "^Hardware assisted breakpoint 1 "),
        "continue",
        ("hv vcpu", r"^hart 0: in the guest, VS-mode, at 0x80200000 \(_start\)$", " a0   0{16} "),
        ("hv walk $pc", "^no translation", "^GPA 0x80200000: RAM$", "^HPA 0x"),
        "delete",
        # With paging.
        ("hv break-guest start_kernel", "^Hardware assisted breakpoint 3 "),
        ("continue", "start_kernel"),
        "delete",
        # It looks, and changes nothing.
        "info registers",
        save.format(before),
        (
            "hv vcpu",
            r"^hart 0: in the guest, VS-mode, at 0xffffffff8\w+ \(start_kernel\)$",
            r"^hstatus  0x2002001\w\w\n    VSXL  2 .*\n    VTW   1 ",
            "^    SPP   1 ",
            "^scause   hidden",
        ),
        ("hv walk $pc", r"^level \d: PTE \d+ at GPA 0x\w+ = 0x\w+: valid .* executable .*a leaf"),
        ("hv gwalk 0xc200004", "^GPA .*: PLIC claim", "not valid: page fault"),
        ("hv gwalk 0xc201004", "^GPA .*: PLIC claim", "readable writable .*a leaf"),
        ("hv gwalk 0x100000", "^GPA .*: test device$", "not valid: page fault"),
        ("hv gwalk 0x101000", "^GPA .*: the clock$", "^HPA 0x101000$"),
        ("hv gwalk 0x1000", "^GPA .*: nothing is there$"),
        ("hv gwalk 0x80200000", "readable writable executable user .*a leaf of 2 MiB at 0xc0200000$"),
        ("hv walk 0x1000", "page fault$"),
        ("hv exits", "^hart 0 has had 0 exits"),
        ("hv inst", "the guest is at .*start_kernel.*, without an exit:\n0x.* is add"),
        ("hv plic", "^source 10, UART: priority 0, not pending, not enabled$"),
        ("hv plic", "^source 11, clock: priority 0, not pending, not enabled$"),
        ("hv virtio", "^slot 0: block, reset$", "^slot 1: empty$"),
        "info registers",
        save.format(after),
        # What others find where it has looked.
        ("x/s &linux_banner", re.escape(BANNER[:40])),
        "hv walk &linux_banner",
        "monitor gva2gpa &linux_banner",
        "hv walk 0xffffffff80001000",
        "monitor gva2gpa 0xffffffff80001000",
        "python hpa = gdb.execute('hv walk &linux_banner', to_string=True).split()[-1]",
        "python gdb.execute('monitor xp /16cb ' + hpa)",
        # The first exits.
        ("hv next-exit ecall", f"^hart 0, exit #0, nothing is done yet: {first}", "is ecall$"),
        ("hv vcpu", r"^hart 0: in the hypervisor, HS-mode, at 0x8\w+ \(handle_exit\)$"),
        ("hv vcpu", " a7   0{14}10 ", "^scause   0xa: ecall from VS-mode$"),
        ("hv inst", first),
        ("hv exits", "^hart 0 has had 0 exits"),
        "finish",
        ("p vcpus[0].exits", " = 1$"),
        ("hv exits", rf"^hart 0 has had 1 exits; the last 1:\n#0 0\.\d+ s, \d+\.\d us: {first}"),
        ("hv next-exit store", f"exit #[1-9].*{store}"),
        ("hv inst", store, r"^0x[0-9a-f]+ is s[bwd] "),
        ("hv walk $sepc", "^HPA 0x"),
        ("hv exits 2", "^hart 0 has had [1-9][0-9]* exits; the last 2:", "^#.* us: ecall "),
    )
    for line, theirs in zip(said, said[1:]):  # HPA 0x..., gpa: 0x...
        assert "gpa:" not in theirs or theirs.split()[-1] == line.split()[-1]
    assert "".join(re.findall("'(.)'", next(text for text in said if "'L'" in text))) == BANNER[:16]
    registers = [text for text in said if text.startswith("ra  ")]
    assert len(registers) == 2 and registers[0] == registers[1]
    assert before.read_bytes() == after.read_bytes()
    with guest:  # and it goes on as if nothing had happened
        guest.poweroff()


def test_running(start):
    """A guest that runs on two harts, and what it says about its own pages."""
    guest, command = start("-c", "2")
    session(command)
    with guest:
        # A page of its code, which stays in place; data may move when it is written.
        begin = int(guest.output("grep -m 1 r-xp /proc/$$/maps").split("-")[0], 16)
        entry = f"dd if=/proc/$$/pagemap bs=8 skip={begin // 4096} count=1 2>/dev/null"
        page = int(guest.output(f"{entry} | hexdump -e '1/4 \"%x \"'").split()[0], 16)
        guest.start("while :; do :; done")
        guest.expect(rb"done\r?\n")
        look = ("hv vcpu", f"hv walk {begin:#x}", f"monitor gva2gpa {begin:#x}", "hv exits 500")
        *said, virtio, _ = session(
            command,
            *("thread 1", "monitor cpu 0", *look, "thread 2", "monitor cpu 1", *look),
            ("hv virtio", "^slot 0: block, ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK$"),
            ("hv plic", "^source 10, UART: priority 1, .*pending, enabled for hart [01]$"),
        )
        guest.send("\x03")
        guest.wait_for_prompt()
        # One of the harts has the shell, and its page tables.
        pages, console = 0, ""
        for vcpu, walk, gva2gpa, exits in (said[2:6], said[8:12]):
            count, *lines = exits.splitlines()
            assert len(lines) == min(500, int(re.search(r"had (\d+) exits", count)[1]))
            console += exits
            hpa = re.search("^HPA (0x.*)", walk, re.MULTILINE)
            if hpa and f"\nGPA {page * 4096:#x}: RAM\n" in walk:
                assert re.search("readable executable user accessed.*: a leaf of 4 KiB", walk)
                pages += 1
            # QEMU walks by the guest's tables if the hart is in the guest, and
            # in VS-mode calls the pages of VU-mode unmapped.
            if " in the guest, VU-mode" in vcpu:
                assert gva2gpa == (f"gpa: {hpa[1]}" if hpa else "Unmapped")
        assert pages
        assert re.search(r": sb a\d: UART RBR/THR <- 0x\w+$", console, re.MULTILINE)
        queue = r"queue 0, (\d+) entries: avail (\d+), translated (\d+), in ours (\d+), used (\d+)"
        size, avail, translated, ours, used = map(int, re.search(queue, virtio).groups())
        assert avail >= translated >= ours >= used > 0 and size <= 1024
        guest.poweroff()


def test_strange_kernel(start, tmp_path):
    """A kernel without symbols, at the address where the hypervisor is."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bytes.fromhex("a148 73000000"))  # li a7, 8; ecall
    guest, command = start("-k", kernel)
    call = "exit #0, nothing is done yet: ecall from VS-mode at 0x80200002: legacy shutdown$"
    session(
        command,
        *("hv break-guest 0x80200000", "continue"),
        ("hv vcpu", "^hart 0: in the guest, VS-mode, at 0x80200000$"),
        ("hv inst", "is li a7,8$"),
        ("hv next-exit ecall", call),
        ("hv next-exit 3", "^the machine has been switched off$"),  # no exit 3 came
    )
    assert guest.ended() == 0


def test_errors(start):
    """One line for each, whatever is wrong."""
    guest, command = start()
    wrong = {
        "hv walk": "usage: hv walk GVA",
        "hv walk 1 2": "usage: hv walk GVA",
        "hv vcpu 1": "usage: hv vcpu",
        "hv walk nonsense": "'nonsense' is no number",
        "hv gwalk 0x80000000": "there is no second stage yet: hgatp is 0",
        "hv exits many": "'many' is no number",
        "hv next-exit nonsense": "'nonsense' is no number",
        "hv break-guest nonsense": "'nonsense' is no number",
        "hv break-guest bug_found": "the guest has no symbol 'bug_found'",
        "hv virtual": 'Undefined hv command: "virtual".  Try "help hv".',
    }
    assert session(command, *wrong) == list(wrong.values())
    with guest:
        guest.poweroff()
    alone = session(f"gdb-multiarch -x {ROOT / 'gdb/hv.py'}", "hv vcpu", "help hv walk")
    assert alone[0] == "not connected to QEMU: see ./run.sh --help"
    assert alone[1].startswith("hv walk GVA: a guest-virtual address")


def test_bare(start):
    """The same guest without the hypervisor: plain gdb, with its symbols."""
    guest, command = start("--bare")
    said = session(command, "hbreak start_kernel", "continue", "info symbol $pc", "hv vcpu")
    assert said[2].startswith("start_kernel in section .init.text")
    assert said[3].startswith('Undefined command: "hv"')
    with guest:
        guest.poweroff()


def test_tmux(spawn, tree, tmp_path):
    """--gdb=tmux asks tmux for a split with that command in it."""
    tmux = tmp_path / "tmux"
    tmux.write_text('#!/bin/sh\nprintf "<%s>" "$@"\necho\n')
    tmux.chmod(0o755)
    guest = spawn(["env", f"PATH={tmp_path}:/usr/bin:/bin", "TMUX=x", tree / "run.sh", "--gdb=tmux"])
    command = guest.expect(rb"<split-window><-h><(gdb[^>]*)>")[1].decode()
    assert "M-mode, at 0x1000" in session(command, "hv vcpu")[0]
    with guest:
        guest.poweroff()


# Switches double traps on just before each read of the guest's code, as firmware
# would when the hart starts, and counts the reads at which a trap of our own would
# then be an error.
DOUBLE_TRAPS = """
set $reads = 0
hbreak *hlvx_hu
commands
silent
set $menvcfg = $menvcfg | 1ul << 59
set $reads = $reads + ($sstatus >> 24 & 1)
printf "reads with SDT: %d\\n", $reads
continue
end
continue
"""


def test_double_traps(boot, build_guest, qemu, tmp_path):
    """With menvcfg.DTE, each exit sets sstatus.SDT (Ssdbltrp).  A hart that stops
    tests whether the second stage faults, as it should.  That must not be a double
    trap, which the firmware would take for our end."""
    cpus = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, check=True)
    if not re.search(r"\bmax\b", cpus.stdout):
        pytest.skip("no hart with Ssdbltrp in this QEMU")
    script = tmp_path / "double_traps.gdb"
    script.write_text(DOUBLE_TRAPS)
    options = ["--no-disk", "-c", 2, "-k", build_guest("hostile_sbi"), "-p", "harts=2"]
    guest = boot("--gdb", *options, qemu_args="-cpu max")
    command = shlex.split(guest.expect(HINT)[1].decode())
    result = Patience().run([*command, "-nx", "-batch", "-x", script], stderr=subprocess.STDOUT)
    assert guest.ended() == 0
    assert re.search(rb"^\w+ checks, 0 failed$", guest.console, re.MULTILINE)
    assert int(re.findall(r"reads with SDT: (\d+)", result.stdout)[-1]) > 0
