#!/usr/bin/python3
"""Runs QEMU, and reads the hypervisor's VM exits out of its memory.

./run.sh --stats and --trace start this.  The hypervisor keeps the last 7,224
exits of each hart (hv.h: struct vcpu's log is the ring, its exits counts them).
QEMU's RAM comes from here, so we see it without the machine noticing; a look
each millisecond misses nothing.  When QEMU ends we print the table (--stats),
write the file for Perfetto (--trace), and end as QEMU did.
"""

import argparse
import contextlib
import ctypes
import functools
import heapq
import itertools
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict, namedtuple

from names import FETCH, LOAD, SBI_CALL, STORE, VIRTUAL_INSTRUCTION, WFI
from names import Symbols, cause_name, name, register, sbi_function

# The layout of struct vcpu and struct exit; tests/test_stats.py checks it.
RING, EXITS, LOG, VCPU_SIZE = 7224, 304, 4096, 524288
Exit = namedtuple("Exit", "time end cause pc tval gpa inst value call")
RECORD = struct.Struct("=9Q")
RAM = 0x80000000  # where QEMU's begins
TICKS = 10  # of the timebase, in a microsecond
SUSPEND = SBI_CALL, 0x48534D << 32 | 3  # HSM's hart_suspend
ROWS, LAST = 12, 8  # how many the table shows of each kind, and of the last exits


def key(e):
    """What tells exits apart in the table: the cause, and what belongs to it."""
    if e.cause == SBI_CALL:
        return SBI_CALL, e.call
    if e.cause in (FETCH, LOAD, STORE):
        return e.cause, e.gpa
    return e.cause, e.tval if e.cause == VIRTUAL_INSTRUCTION else 0


def records(raw):
    return map(Exit._make, RECORD.iter_unpack(raw))


class Hart:
    """What is known about one of the guest's harts."""

    def __init__(self, vcpu, keep):
        """VCPU: its struct vcpu's memory; KEEP all records, for a trace."""
        self.exits, self.log = vcpu.cast("Q")[EXITS // 8 :], vcpu[LOG:]
        self.seen = self.done = self.lost = 0
        self.newest = b""  # the last record, which may still change
        self.left = None  # when the guest went on after the last exit
        self.count = defaultdict(lambda: [0, 0, 0])  # key: [exits, with an end, ticks]
        self.claims = Counter()  # by source
        self.guest = self.hypervisor = self.asleep = 0  # ticks
        self.last = b""  # records
        self.boots = [bytearray()] if keep else []

    def poll(self):
        """Take what is new in the ring; exit number n is at n % RING."""
        exits, size = self.exits[0], RECORD.size
        if exits < self.seen:  # the machine has been reset
            self.end_of_boot()
        self.seen = exits
        if not exits:
            return
        start = max(self.done, exits - RING + 1)
        begin, end = start % RING * size, (exits - 1) % RING * size + size
        if begin < end:
            raw = bytes(self.log[begin:end])
        else:
            raw = bytes(self.log[begin : RING * size]) + bytes(self.log[:end])
        # What may have changed while we read it?  After a reset, everything.
        now = self.exits[0]
        good = max(start, now - RING + 1) if now >= exits else exits
        if good > self.done:
            self.lost += good - self.done
            self.left = None
        raw = raw[(good - start) * size :]
        self.take(raw[:-size])
        self.newest = raw[-size:]
        self.done = max(good, exits - 1)

    def take(self, raw):
        """Count the exits whose records are RAW."""
        if self.boots:
            self.boots[-1] += raw
        self.last = (self.last + raw)[-LAST * RECORD.size :]
        for e in records(raw):
            what, ticks = key(e), e.end - e.time
            row = self.count[what]
            row[0] += 1
            if self.left is not None:
                self.guest += e.time - self.left
            if e.cause == LOAD and e.value and register(e.gpa, False) == "plic.claim":
                self.claims[e.value] += 1
            self.left = e.end if ticks >= 0 else None
            if ticks < 0:  # it has no end: the hart or the machine stopped
                continue
            row[1] += 1
            row[2] += ticks
            if what in (WFI, SUSPEND):
                self.asleep += ticks
            else:
                self.hypervisor += ticks

    def end_of_boot(self):
        """Take the newest record, too: nothing is written any more."""
        self.take(self.newest)
        self.newest, self.left, self.seen, self.done = b"", None, 0, 0
        if self.boots:
            self.boots.append(bytearray())


# --- The table ---------------------------------------------------------------


def device_row(cause, detail):
    return name(cause, detail) if cause in (FETCH, LOAD, STORE) else None


def sbi_row(cause, detail):
    return sbi_function(detail) if cause == SBI_CALL else None


PARTS = [
    ("by cause", cause_name),
    ("by device and register", device_row),
    ("by SBI extension and function", sbi_row),
]


def rows(harts, row_of):
    """{name: [exits, with an end, ticks]}: each row, summed over HARTS."""
    found = {}
    for hart in harts:
        for what, numbers in hart.count.items():
            row = row_of(*what)
            found[row] = [a + b for a, b in zip(found.get(row, (0, 0, 0)), numbers)]
    found.pop(None, None)
    return found


def short(number):
    """NUMBER in at most five characters."""
    return f"{number}" if number < 100000 else f"{number // 1000}k"


def print_table(harts, symbols):
    """Print the table, 80 columns wide, to stderr."""
    out = functools.partial(print, file=sys.stderr)
    total = sum(exits for exits, _, _ in rows(harts, cause_name).values())
    out(f"\n{total} VM exits, {sum(hart.lost for hart in harts)} exits lost")
    split = []  # lines for each hart
    for title, row_of in PARTS:
        found = sorted(rows(harts, row_of).items(), key=lambda row: -row[1][0])
        if not found:
            continue
        split += [(row, row_of) for row, _ in found[:ROWS] if len(harts) > 1]
        out(f"\n{title:40}{'exits':>9}{'%':>7}{'us in all':>13}{'us each':>10}")
        for row, (exits, ended, ticks) in found[:ROWS]:
            us = f"{ticks / TICKS:13.1f}{ticks / TICKS / ended:10.1f}" if ended else ""
            out(f"{row:40}{exits:9}{100 * exits / total:7.1f}{us}")
        exits = sum(numbers[0] for _, numbers in found[ROWS:])
        if exits:
            out(f"{f'{len(found) - ROWS} more':40}{exits:9}{100 * exits / total:7.1f}")

    def line(title, cells):
        out(f"{title:32.32}" + "".join(f"{cell:>6}" for cell in cells))

    out()
    line("by hart", range(len(harts)))
    for row, row_of in split:
        each = (rows([hart], row_of).get(row, [0]) for hart in harts)
        line(" " + row, (short(numbers[0]) for numbers in each))
    for source in sorted(set().union(*(hart.claims for hart in harts))):
        line(f"interrupts from PLIC source {source}", (short(hart.claims[source]) for hart in harts))
    for what in "guest", "hypervisor", "asleep":
        known = [hart.guest + hart.hypervisor + hart.asleep for hart in harts]
        shares = (f"{100 * getattr(h, what) / k:.1f}" if k else "-" for h, k in zip(harts, known))
        line(f"% of the time {what if what == 'asleep' else 'in the ' + what}", shares)
    for n, hart in enumerate(harts):
        out(f"\nlast exits of hart {n}: seconds, what, value, pc")
        for e in records(hart.last):
            value = f"{e.value:#x}" if e.cause in (LOAD, STORE) else ""
            where = symbols.at(e.pc) or f"{e.pc:#x}"
            out(f"{e.time / TICKS / 1e6:12.6f} {name(*key(e)):30}{value:>6}  {where}")


# --- The trace ---------------------------------------------------------------


def events(boot, tid, raw, symbols):
    """The records RAW as "complete" events of the Trace Event Format."""
    for e in records(raw):
        args = {"cause": cause_name(*key(e)), "pc": f"{e.pc:#x}", "symbol": symbols.at(e.pc)}
        if e.cause in (FETCH, LOAD, STORE):
            args.update(gpa=f"{e.gpa:#x}", value=f"{e.value:#x}")
        if e.end < e.time:
            args["end"] = "unknown"
        ts, dur = e.time / TICKS, max(0, e.end - e.time) / TICKS
        yield dict(name=name(*key(e)), ph="X", ts=ts, dur=dur, pid=boot, tid=tid, args=args)


def write_trace(file, harts, symbols):
    """All exits, sorted by time, in microseconds.

    A boot is a process, because time begins anew with each; a hart is a thread.
    """
    about, streams = [], []
    for tid, hart in enumerate(harts):
        for boot, raw in enumerate(hart.boots, 1):
            if not raw:
                continue
            for what, said in ("process_name", f"guest, boot {boot}"), ("thread_name", f"hart {tid}"):
                about.append(dict(name=what, ph="M", ts=0, pid=boot, tid=tid, args={"name": said}))
            streams.append(events(boot, tid, raw, symbols))
    merged = heapq.merge(*streams, key=lambda event: event["ts"])
    lost = sum(hart.lost for hart in harts)
    file.write(f'{{"displayTimeUnit": "ns", "otherData": {{"exits lost": {lost}}},\n')
    file.write('"traceEvents": [')
    comma = ""
    for event in itertools.chain(about, merged):
        file.write(f"{comma}\n{json.dumps(event)}")
        comma = ","
    file.write("\n]}\n")
    file.close()


# --- QEMU --------------------------------------------------------------------


def shared_memory(size):
    """A file without a name: nothing is left of it, however we end."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("RAM", 0)
    else:
        file = os.dup(tempfile.TemporaryFile().fileno())
    os.set_inheritable(file, True)
    os.ftruncate(file, size)
    return file


def schedule(policy):
    """SCHED_FIFO gets the CPU before all others, and is for root (sched(7))."""
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):
            number = getattr(os, policy)
            least = os.sched_param(os.sched_get_priority_min(number))
            os.sched_setscheduler(0, number, least)


def end_with_parent():
    """Called in QEMU's process as it begins: what kills us kills it, too (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(command, harts):
    """Run COMMAND to its end; return its exit status, negative for a signal."""
    qemu = subprocess.Popen(command, close_fds=False, preexec_fn=end_with_parent)
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, _: qemu.send_signal(number))
    schedule("SCHED_FIFO")
    while qemu.poll() is None:
        for hart in harts:
            hart.poll()
        time.sleep(0.001)
    schedule("SCHED_OTHER")
    for hart in harts:
        hart.poll()
        hart.end_of_boot()
    return qemu.returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stats", action="store_true", help="print a table")
    parser.add_argument("--trace", type=argparse.FileType("w"), help="write all exits to a file")
    parser.add_argument("--harts", type=int, required=True)
    parser.add_argument("--mib", type=int, required=True, help="QEMU's RAM")
    parser.add_argument("--hv", required=True, help="the symbols of the hypervisor")
    parser.add_argument("--map", help="the symbols of the guest's kernel")
    parser.add_argument("command", nargs="+", help="QEMU's")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    size = options.mib << 20
    file = shared_memory(size)
    memory = memoryview(mmap.mmap(file, size, prot=mmap.PROT_READ))
    (vcpus,) = (at - RAM for at, what in Symbols(options.hv).sorted if what == "vcpus")
    starts = [vcpus + n * VCPU_SIZE for n in range(options.harts)]
    harts = [Hart(memory[at : at + VCPU_SIZE], options.trace) for at in starts]
    backend = f"memory-backend-file,id=ram,size={size},mem-path=/dev/fd/{file},share=on"
    ram = ["-object", backend, "-machine", "memory-backend=ram"]
    status = run([*options.command, *ram], harts)
    symbols = Symbols(options.map)
    if options.stats:
        print_table(harts, symbols)
    if options.trace:
        try:
            write_trace(options.trace, harts, symbols)
        except OSError as error:
            sys.exit(f"run.sh: --trace: {options.trace.name}: {error.strerror}")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
