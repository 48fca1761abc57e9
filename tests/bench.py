#!/usr/bin/python3
"""The hypervisor against the bare machine: `make bench`, see docs/bench.md.

From the environment: QEMU, the command to run; N, the number of pairs; BASE, a
revision of this repository: only the deterministic figures are then compared,
with that revision's.
"""

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

from patience import PIECES, Patience

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "build/linux/arch/riscv/boot/Image"
INITRD = ROOT / "build/rootfs/initramfs.cpio.gz"
CROSS = "riscv64-linux-gnu-"
DONE, PROMPT = rb"bench done", rb"guest:[^ ]*# "

# What makes a run repeatable: a clock that counts instructions, and a fixed seed.
ICOUNT = "-seed 1 -rtc base=2026-01-01,clock=vm -icount shift=0,sleep=off"


def die(text):
    sys.exit(f"bench: {text}")


# --- VM exits ----------------------------------------------------------------

# What `-d int` logs for each trap, and the causes that are VM exits.  With H,
# all other causes are either the guest's own business (it took them in VS-mode:
# 8, 12, 13, 15 and interrupts 2, 6, 10) or the firmware's (9, 11).
TRAP = re.compile(r"async:(\d), cause:([0-9a-f]+), epc:0x([0-9a-f]+), tval:0x([0-9a-f]+)")
NOTHING = 0x7FFFF000  # where init_hart() in hart.c tests whether there is a second stage
EXITS = {
    (0, 2): "Illegal instruction",
    (0, 10): "Environment call from VS-mode",
    (0, 20): "Instruction guest-page fault",
    (0, 21): "Load guest-page fault",
    (0, 22): "Virtual instruction",
    (0, 23): "Store/AMO guest-page fault",
    (1, 1): "Supervisor software interrupt",
    (1, 5): "Supervisor timer interrupt",
    (1, 9): "Supervisor external interrupt",
}
FIRMWARE_END = 0x80200000


def exits(log, mark):
    """The VM exits in LOG, the text of a -d int log: a Counter for each part.

    The first part ends at the first trap out of user mode, which is init's; the
    others end at each system call at the address MARK.

    Illegal instructions go to the firmware first, which hands them on.  It makes
    some itself when it probes for CSRs: those come from below FIRMWARE_END.
    """
    parts = [Counter()]
    for match in TRAP.finditer(log):
        trap, pc = (int(match[1]), int(match[2], 16)), int(match[3], 16)
        user = pc < 0x80000000 or 1 << 32 <= pc < 1 << 47
        if user and len(parts) == 1 or trap == (0, 8) and pc == mark:
            parts.append(Counter())
        if trap == (0, 21) and int(match[4], 16) == NOTHING:
            continue  # not the guest's; newer QEMUs call it another trap
        if trap in EXITS and (trap != (0, 2) or pc >= FIRMWARE_END):
            parts[-1][EXITS[trap]] += 1
    return parts


def own(count):
    """How many of them are the guest's doing: not idling, not interrupts."""
    return sum(n for kind, n in count.items() if not re.search("^Virtual|interrupt$", kind))


# --- Machines ----------------------------------------------------------------


def cpio(**files):
    """An archive of executables, for Linux to unpack before its initramfs."""
    archive = b""
    for name, data in [*files.items(), ("TRAILER!!!", b"")]:
        numbers = 1, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0
        header = "070701" + "".join(f"{n:08x}" for n in numbers) + name + "\0"
        for part in header.encode(), data:
            archive += part + b"\0" * (-(len(archive) + len(part)) % 4)
    return archive


def figures(console):
    """{what: (nanoseconds, rounds)}, in the order in which a guest printed them."""
    lines = re.findall(r"^bench (.+): (\w[\w.]*)(?: (\d+))?\r?$", console, re.MULTILINE)
    number = lambda text: float(int(text, 16) if text.startswith("0x") else text)
    return {what: (number(ns), int(rounds or 1)) for what, ns, rounds in lines}


class Bench:
    """A QEMU, a TREE with a hypervisor, and a FOLDER for what the guests need."""

    def __init__(self, qemu, folder, tree=ROOT):
        self.qemu, self.folder, self.tree = qemu, folder, tree
        self.out = os.path.relpath(folder, tree)  # for programs that can't take a space
        folder.mkdir(parents=True, exist_ok=True)
        program, guest = folder / "bench", folder / "exits.elf"
        for output, options in (
            (program, "-O2 -Wall -static tests/bench.c"),
            (guest, "-march=rv64gc -mabi=lp64 -mcmodel=medany -mno-relax -O2 -ffreestanding "
            "-nostdlib -static -Wl,--build-id=none,--no-warn-rwx-segments "
            "-T tests/guests/guest.ld tests/guests/start.S tests/guests/bench.c"),
        ):
            subprocess.run([f"{CROSS}gcc", *options.split(), "-o", output], cwd=ROOT, check=True)
        symbols = subprocess.check_output([f"{CROSS}nm", program], text=True)
        version = subprocess.check_output([qemu, "--version"], text=True)
        older = re.search(r"version \d\.", version)
        # Linux's page tables, as run.sh chooses them for its own kernel, which this is
        self.cpu = "" if older else "-cpu rv64,h=true,sv48=off,sv57=off "
        self.mark = int(re.search(r"(\w+) t mark_ecall", symbols)[1], 16)
        (folder / "initrd").write_bytes(cpio(bench=program.read_bytes()) + INITRD.read_bytes())
        (folder / "disk").write_bytes(os.urandom(64 << 20))

    def machine(self, *options, bare=False, qemu_args=""):
        """The command that run.sh would run."""
        qemu_args += " -snapshot"  # so that the disks are the same each time
        env = dict(os.environ, QEMU=self.qemu, QEMU_ARGS=qemu_args, O=f"{self.out}/hv")
        env.pop("MAKEFLAGS", None)
        command = [self.tree / "run.sh", "--dry-run", *options, *(["--bare"] if bare else [])]
        done = subprocess.run(list(map(str, command)), env=env, stdin=DEVNULL, stdout=PIPE, text=True)
        return shlex.split(done.stdout) if done.returncode == 0 else die("run.sh refuses")

    def linux(self, init, *options, log="quiet", qemu_args="", **more):
        """The command for Linux.  INIT: arguments for the program bench, which
        is then init.

        Without them init is the usual one, and there is no disk for it to
        mount.
        """
        # lpj, as run.sh passes it to its own kernel, which this is
        params = f"{log} lpj=40000" + (f" rdinit=/bench -- {init}" if init else "")
        disk = ["-d", self.folder / "disk"] if init else ["--no-disk"]
        files = "-k", IMAGE, "-i", self.folder / "initrd", *disk
        return self.machine(*files, "-p", params, *options, qemu_args=self.cpu + qemu_args, **more)

    def run(self, command, until=DONE):
        """Run COMMAND until it prints UNTIL: its output, seconds, CPU seconds."""
        start, output, patience = time.monotonic(), b"", Patience(3 * PIECES)
        qemu = subprocess.Popen(command, cwd=self.tree, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
        try:
            while not re.search(until, output[-200:]):
                patience.until(lambda left: select.select([qemu.stdout], [], [], left)[0])
                data = os.read(qemu.stdout.fileno(), 65536)
                assert data and b"Kernel panic" not in output, "it ended"
                output += data
            seconds = time.monotonic() - start
        except AssertionError as error:
            die(f"{error}:\n" + output[-2000:].decode(errors="replace"))
        finally:
            os.kill(qemu.pid, signal.SIGKILL)  # qemu.kill() might reap it, and lose the usage
            usage = os.wait4(qemu.pid, 0)[2]
        return output.decode(errors="replace"), seconds, usage.ru_utime + usage.ru_stime

    def deterministic(self):
        """Figures that depend on the code alone; exits by kind; milliseconds.

        Virtual times are multiples of the bare machine's, so that another build
        of the guest's kernel hardly changes them.
        """
        log, until = self.folder / "int.log", rb"disk: write 4 KiB, depth 16: [^\n]*\n"
        qemu_args = f"{ICOUNT} -d int -D {self.out}/{log.name}"
        bare = figures(self.run(self.linux("one 1", bare=True, qemu_args=ICOUNT), until)[0])
        hv = figures(self.run(self.linux("one 1", qemu_args=qemu_args), until)[0])
        start, entry, *rest = hv
        parts = exits(log.read_text(), self.mark)
        count = dict(zip(rest, map(own, parts[2::2])))
        self.run(self.linux("", qemu_args=qemu_args), PROMPT)
        boot = sum(exits(log.read_text(), None), Counter())
        found = {"exits to init": own(parts[0]), "exits to the prompt": own(boot)}
        for what in rest:
            if re.match("disk|console", what):
                found[f"exits, {what}"] = round(count[what] / hv[what][1], 3)
        programs = rest[: rest.index("message, ten processes") + 1]
        found["exits, system calls to messages"] = sum(count[what] for what in programs)
        for what in entry, *programs, "console: a character":
            found[f"virtual time, {what}"] = round(hv[what][0] / bare[what][0], 3)
        ms = {what: [machine[what][0] / 1e6 for machine in (hv, bare)] for what in (start, entry)}
        return found, {"to init": parts[0], "to the prompt": boot}, ms


def compare(found, accepted):
    """Lines that say where FOUND is worse than ACCEPTED, and where better."""
    lines = [], []
    for what, was in accepted.items():
        now = found.get(what, 0)
        # An interrupt may come a little earlier or later.  Before the prompt Linux may
        # ask the source of entropy once more.  A character's time is mostly the
        # hypervisor's, and another compiler makes other code of that.  Before init
        # Linux waits for a tick, which it catches or misses: 4 ms, 8 % of the time.
        # With several requests on their way, one interrupt may finish two: that is
        # chance, but one exit more for each would be 1 in 3.
        tick = what == "virtual time, entry to init"
        some = re.search("prompt|time, console", what)
        headroom = 0.3 if "depth" in what else 0.09 if tick else 0.05 if some else 0.02
        if abs(now - was) > headroom * was:
            lines[now < was].append(f"{what}: {now}, was {was}")
    return lines


# --- What differs each time --------------------------------------------------


class Server(socketserver.BaseRequestHandler):
    """The other end of the guest's connections: the first byte says what kind."""

    def handle(self):
        with contextlib.suppress(OSError):  # the guest closes when it has enough
            kind = self.request.recv(1)
            while kind == b"r":
                self.request.sendall(bytes(1 << 20))
            while data := self.request.recv(1 << 16):
                if kind == b"e":
                    self.request.sendall(data)


def timed(bench, pairs):
    """{what: [(nanoseconds with the hypervisor, on the bare machine), ...]}"""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    one = f"one 3 {server.server_address[1]}"
    guest = "--no-disk", "-k", bench.folder / "exits.elf"
    kinds = {
        "QEMU start to init, CPU time": lambda bare: bench.linux("init", bare=bare),
        "the same, full log on ttyS0": lambda bare: bench.linux("init", log="", bare=bare),
        "boot to the prompt": lambda bare: bench.linux("", bare=bare),
        "one hart": lambda bare: bench.linux(one, "-n", bare=bare),
        "two harts": lambda bare: bench.linux("two 3", "-c", 2, bare=bare),
        "exits": lambda bare: bench.machine(*guest, bare=bare),
    }
    found = {}
    for kind, command in kinds.items():
        commands = [command(False), command(True)]
        for n in range(pairs):
            print(f"{kind}: pair {n + 1} of {pairs}", file=sys.stderr)
            pair = [None, None]
            for bare in n % 2, 1 - n % 2:  # they take turns in going first
                until = PROMPT if "prompt" in kind else DONE
                output, seconds, cpu = bench.run(commands[bare], until)
                boots = {boot: 1e9 * cpu for boot in list(kinds)[:2]}
                boots["boot to the prompt"] = 1e9 * seconds
                pair[bare] = {kind: [boots[kind]]} if kind in boots else figures(output)
            for what in pair[0]:
                if not re.match("(start|entry) to init", what):
                    found.setdefault(what, []).append([round(p[what][0], 1) for p in pair])
    return found


# --- Tables and a picture ----------------------------------------------------


def ratios(pairs):
    """Hypervisor to bare: the median, the least, the most."""
    all_of_them = [hv / max(bare, 1) for hv, bare in pairs]
    return statistics.median(all_of_them), min(all_of_them), max(all_of_them)


def duration(ns):
    units = (1e9, "s"), (1e6, "ms"), (1e3, "us"), (0, "ns")
    size, unit = next(u for u in units if ns >= u[0])
    return f"{ns / (size or 1):.3g} {unit}"


def table(head, rows):
    """As Markdown, with even columns, for a terminal."""
    rows = [head, *(list(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, row, widths))} |\n" for row in rows)


def table_of_times(times):
    rows = []
    for what, pairs in times.items():
        median, least, most = ratios(pairs)
        hv, bare = (duration(statistics.median(column)) for column in zip(*pairs))
        rows.append([what, hv, bare, f"{median:.2f}", f"{least:.2f} to {most:.2f}"])
    return table(["", "hypervisor", "bare", "ratio", "least to most"], rows)


def draw(times, svg):
    """Ratios as bars with their range, in colours for light and dark pages."""
    names = [what for what in reversed(times) if not what.startswith("exit")]
    lines = ['"%s" %d %f %f %f\n' % (what, y, *ratios(times[what])) for y, what in enumerate(names)]
    script = f"""
        set terminal svg size 800,{60 + 24 * len(names)} font "sans-serif,13"
        set output "{svg}"
        set border 1 linecolor "#777777"
        set tics textcolor "#777777" nomirror scale 0.5
        set xlabel "time with the hypervisor / time without" textcolor "#777777"
        set yrange [-0.7:{len(names) - 0.3}]
        set xrange [0:*]
        set arrow from 1, graph 0 to 1, graph 1 nohead linecolor "#777777" dashtype 2
        set style fill solid
        unset key
        $data << END\n{"".join(lines)}END
        plot $data using 3:2:(0):3:($2-0.35):($2+0.35):ytic(1) with boxxyerror linecolor "#5b8dc9", \\
             $data using 3:2:4:5 with xerrorbars pointtype 0 linewidth 2 linecolor "#c96a2b"
        """
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def show(found, kinds, ms):
    """The deterministic figures, on the terminal."""
    print(table(["the same each time", "figure"], found.items()))
    for what, count in kinds.items():
        print(f"exits {what}: " + ", ".join(f"{n} {kind}" for kind, n in count.most_common()))
    for what, times in ms.items():
        print("virtual time, {}: {:.3f} ms, bare {:.3f} ms".format(what, *times))


def against(base, bench):
    """Whether this tree is worse than the revision BASE; 1 if it is."""
    git = ["git", "-C", str(ROOT)]
    ask = [*git, "rev-parse", "-q", "--verify", f"{base}^{{commit}}"]
    revision = subprocess.run(ask, stdout=PIPE, text=True).stdout.strip()
    if not revision:
        die(f"BASE: there is no revision {base}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        try:
            subprocess.run([*git, "worktree", "add", "-q", "--detach", tree, revision], check=True)
            was = Bench(bench.qemu, Path(folder, "out"), tree).deterministic()[0]
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", tree])
    now = bench.deterministic()
    show(*now)
    worse, better = compare(now[0], was)
    for how, lines in ("better", better), ("worse", worse):
        print(f"{how} than {base}:", "; ".join(lines) or "nothing")
    return 1 if worse else 0


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    qemu, pairs = os.environ.get("QEMU") or "qemu-system-riscv64", os.environ.get("N") or "5"
    if not re.fullmatch(r"[1-9]\d?", pairs):
        die(f"N: a number of pairs from 1 to 99, not {pairs}")
    if os.environ.get("QEMU") and not shutil.which(qemu):
        die(f"QEMU: there is no command {qemu}")
    build = ROOT / "build"
    for command in ["tools/need.sh", "run", "guest", "plot"], ["make", "-s"]:
        if subprocess.run(command, cwd=ROOT).returncode:
            die(f"{command[0]} failed")
    bench = Bench(qemu, build / "bench")
    if os.environ.get("BASE"):
        return against(os.environ["BASE"], bench)
    found, kinds, ms = bench.deterministic()
    show(found, kinds, ms)
    times = timed(bench, int(pairs))
    print("\n" + table_of_times(times))
    same = table(["the same each time", "figure"], found.items())
    (build / "bench.md").write_text(table_of_times(times) + "\n" + same)
    version = subprocess.check_output([qemu, "--version"], text=True).split("\n")[0]
    everything = dict(qemu=version, ns=times, deterministic=found, exits=kinds, virtual_ms=ms)
    (build / "bench.json").write_text(json.dumps(everything, indent=1) + "\n")
    draw(times, build / "bench.svg")
    print("also in build/bench.md, build/bench.json and build/bench.svg")


if __name__ == "__main__":
    sys.exit(main())
