"""What the tests share: the QEMUs to test on, and a guest to talk to.

Run the tests with `make check`, or some of them with `tests/run -k NAME`, or
on one QEMU with `QEMU=/path/to/qemu-system-riscv64 tests/run`.  What has been
built already can also be tested by `/usr/bin/python3 -m pytest tests`.

To add a test, write a function `test_...` into one of the files:

    def test_hostname(guest):               # booted, at its prompt
        assert guest.output("hostname") == "guest"

    def test_quiet(boot):                   # with options of ./run.sh
        with boot("-p", "quiet") as guest:
            assert "quiet" in guest.output("cat /proc/cmdline")

A test that asks for `guest`, `boot` or `qemu` runs once on each QEMU.  When it
fails, the last lines of its consoles are shown.  The only limit of time is for
hangs; patience.py explains it.  No test sleeps to wait for something, none says
how many seconds something may take, and none tries a second time.

Several tests run at a time.  Each worker has its own copy of the tree, and with
it its own disk.img and build.  A test that measures time needs the machine to
itself: mark it with @pytest.mark.alone.
"""

import fcntl
import functools
import os
import random
import re
import select
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pexpect
import pytest

from patience import Patience

ROOT = Path(__file__).resolve().parent.parent
KERNEL = ROOT / "build/linux/arch/riscv/boot/Image"
INITRD = ROOT / "build/rootfs/initramfs.cpio.gz"

ROWS, COLUMNS = 30, 100  # no terminal's default
ISA = "/proc/device-tree/cpus/cpu@0/riscv,isa"  # in the guest
PROMPT = rb"guest:[~/][^ #]*# "

# What may appear in the middle of anything: QEMU's own messages, and the
# kernel's complaint that the host was busy with something else.
ASIDE = re.compile(rb"(qemu-system-riscv64: |\[ *\d+\.\d+\] hrtimer: interrupt took )[^\n]*\n")

# What no console may show.
TROUBLE = re.compile(
    rb"^(hv: .*|.*(Kernel panic|Oops|BUG:|WARNING:|Call Trace|rcu.*stall).*)$",
    re.MULTILINE,
)


def find_qemus():
    """The QEMUs to test on: {name: command}."""
    if os.environ.get("QEMU"):
        commands = [os.environ["QEMU"]]
    else:
        commands = ["qemu-system-riscv64"]
        commands += sorted(map(str, ROOT.glob("build/qemu-*/qemu-system-riscv64")))
    qemus = {}
    for command in commands:
        text = subprocess.run(
            [command, "--version"], capture_output=True, text=True, check=True
        ).stdout
        version = re.search(r"version (\d+\.\d+)", text)[1]
        qemus.setdefault(f"qemu-{version}", command)
    return qemus


QEMUS = find_qemus()


class Guest:
    """A virtual machine started by run.sh on a pseudo-terminal of its own."""

    def __init__(self, command, env, cwd, trouble=False):
        """Start COMMAND, a list; TROUBLE: its console may report some."""
        self.console = bytearray()  # all that has come so far
        self.seen = 0  # how much of it expect() has dealt with
        self.trouble = trouble
        self.child = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(cwd),
            env=env,
            dimensions=(ROWS, COLUMNS),
        )
        self.child.delaybeforesend = None
        self.process = os.pidfd_open(self.child.pid)  # readable when it has ended

    def __enter__(self):
        try:
            self.wait_for_prompt()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, *_):
        self.kill()
        if kind is None and not self.trouble:
            found = TROUBLE.search(self.console)
            assert not found, "on the console: " + found[0].decode()

    def expect(self, pattern):
        """Wait for PATTERN, a regular expression for bytes; return the match.

        It must not match more than 200 bytes, as only the end of the output is
        searched again: to search all of a long one for each character would
        take minutes.
        """
        patience = Patience()
        start = self.seen
        while not (match := re.compile(pattern).search(self.console, start)):
            start = max(self.seen, len(self.console) - 400)
            assert self.read(patience), f"the console ended without {pattern}"
        self.seen = match.end()
        return match

    def read(self, patience):
        """Add what comes next to the console; false if it has ended."""
        fd = self.child.fileno()
        patience.until(lambda seconds: select.select([fd], [], [], seconds)[0])
        try:
            data = os.read(fd, 65536)
        except OSError:  # Linux says so when nobody has the terminal any more
            data = b""
        # The guest's terminal turns LF into CR LF, ours turns that into CR CR LF.
        tail = max(self.seen, len(self.console) - 200)
        self.console += data.replace(b"\r", b"")
        self.console[tail:] = ASIDE.sub(b"", self.console[tail:])
        return bool(data)

    def wait_for_prompt(self):
        self.expect(PROMPT)

    def send(self, text):
        self.child.send(text)

    def start(self, command):
        """Type COMMAND and Enter, and don't wait for anything."""
        self.send(command + "\r")

    def run(self, command):
        """Run COMMAND in the guest's shell; return its output and status.

        The output is marked by control characters that printf makes from
        \\002 and \\003, so what the shell echoes while the command is typed,
        in however many lines, can't be taken for it.
        """
        self.start(f"printf '\\002'; {command}; printf '\\003%d\\003\\n' $?")
        begin = self.expect(rb"\x02").end()
        mark = self.expect(rb"\x03(\d+)\x03")
        output = self.console[begin : mark.start()]
        self.wait_for_prompt()
        return output.decode(errors="replace"), int(mark[1])

    def output(self, command):
        """The output of COMMAND, which must succeed, without the last newline."""
        output, status = self.run(command)
        assert status == 0, f"{command}: status {status}, output {output!r}"
        return output.rstrip("\n")

    def ended(self):
        """Wait for QEMU's end; return its exit status."""
        patience = Patience()
        while self.read(patience):
            pass
        self.close()
        assert self.child.signalstatus is None
        return self.child.exitstatus

    def close(self):
        """Wait until the process is gone, and give up its terminal.

        pexpect would send it signals after a tenth of a second.
        """
        Patience().until(lambda seconds: select.select([self.process], [], [], seconds)[0])
        os.close(self.process)
        self.child.close()

    def kill(self):
        if not self.child.closed:
            self.child.kill(signal.SIGKILL)
            self.close()

    def poweroff(self):
        self.start("poweroff")
        assert self.ended() == 0

    def tail(self, lines=40):
        """The console's last lines, with control characters made visible."""
        text = self.console.decode(errors="replace").split("\n")[-lines:]
        return re.sub(
            r"[^\n -~]", lambda c: f"<{ord(c[0]):02x}>", "\n".join(text)
        )


@pytest.fixture(scope="session", params=QEMUS.values(), ids=QEMUS.keys())
def qemu(request):
    """The command of a QEMU; a test that uses it runs on each."""
    return request.param


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of the tree, with what has been built for the guest."""
    copy = tmp_path_factory.mktemp("session") / "tree"
    copy_tree(copy)
    (copy / "build").symlink_to(ROOT / "build")
    return copy


def copy_tree(to):
    ignore = shutil.ignore_patterns(".git", "build", "*.img*")
    shutil.copytree(ROOT, to, ignore=ignore, symlinks=True)


@pytest.fixture(scope="session")
def out(tree):
    """A folder to build the hypervisor in, for the whole session.

    One folder does for all options: make rebuilds what a change of options
    touches, in a few tenths of a second, and a running guest needs none of the
    files.
    """
    return tree.with_name("build")


@pytest.fixture(autouse=True)
def turn(request, tmp_path_factory):
    """Tests run side by side; one that is marked `alone` runs by itself.

    A test that waits to be alone stands in the door, so that no other gets in.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    alone = request.node.get_closest_marker("alone")
    with ExitStack() as stack:
        door, room = (stack.enter_context(open(folder / n, "w")) for n in ("door", "room"))
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def build_guest(tmp_path_factory):
    """build_guest(NAME): guests/NAME.c as NAME.elf and, beside it, NAME.bin."""
    source, cross = ROOT / "tests/guests", "riscv64-linux-gnu-"
    # The compiler gets no register of the FPU, because start.S uses them all.
    flags = (
        "-march=rv64gc -mabi=lp64 -mcmodel=medany -mno-relax -std=gnu11 -O2 -g "
        "-ffreestanding -fno-pic -fno-stack-protector "
        "-fno-tree-loop-distribute-patterns -Wall -Wextra -Werror "
        "-nostdlib -static -Wl,--build-id=none,--no-warn-rwx-segments -T"
    ).split()

    @functools.cache
    def build(name):
        elf = tmp_path_factory.mktemp("guest") / f"{name}.elf"
        files = [source / "guest.ld", source / "start.S", source / f"{name}.c"]
        subprocess.run([f"{cross}gcc", *flags, *files, "-o", elf], check=True)
        flat = [f"{cross}objcopy", "-O", "binary", elf, elf.with_suffix(".bin")]
        subprocess.run(flat, check=True)
        return elf

    return build


@pytest.fixture
def spawn(request, out, tree, qemu):
    """spawn(COMMAND, ...): a Guest of COMMAND, not yet at its prompt."""
    request.node.guests = []

    def start(command, qemu_args="", cwd=tree, **options):
        env = dict(os.environ, O=str(out), QEMU=qemu, QEMU_ARGS=qemu_args)
        guest = Guest(list(map(str, command)), env, cwd, **options)
        request.node.guests.append(guest)
        return guest

    yield start
    for guest in request.node.guests:
        guest.kill()


@pytest.fixture
def boot(spawn, tree):
    """boot(OPTIONS of run.sh, ...): a Guest; `with` waits for its prompt."""

    def start(*arguments, **options):
        return spawn([tree / "run.sh", *arguments], **options)

    return start


@pytest.fixture
def guest(boot):
    """A guest without options, at its prompt."""
    with boot() as guest:
        yield guest


@pytest.fixture
def run_sh(out, tree):
    """run_sh(OPTIONS): run.sh without a terminal, to its end."""

    def run(*arguments, script=tree / "run.sh", cwd=tree, **env):
        env = {**os.environ, "O": str(out), **env}
        return Patience().run([script, *arguments], cwd=cwd, env=env)

    return run


@pytest.fixture
def report(request):
    """report(TEXT): lines to show at the end of the run."""
    return lambda text: request.node.user_properties.append(("report", text))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Show the consoles of a test that fails."""
    result = (yield).get_result()
    if result.failed:
        for guest in getattr(item, "guests", []):
            result.sections.append(("the console's last lines", guest.tail()))


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: no other test runs meanwhile")
    # For the random choices of this run, in all workers: to repeat it, set SEED.
    os.environ.setdefault("SEED", str(random.randrange(1 << 31)))


def pytest_report_header():
    return "SEED=" + os.environ["SEED"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


def pytest_terminal_summary(terminalreporter):
    count, said = Counter(), {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for result in terminalreporter.getreports(outcome):
            name = re.search(r"\[(qemu-[\d.]+)|$", result.nodeid)[1]
            count[name, outcome] += 1
            for key, text in result.user_properties:
                if key == "report":
                    terminalreporter.write_line(text)
                else:
                    said[name, key] = text
    for name, path in QEMUS.items():
        terminalreporter.write_line(f"tested on {name} ({path})")
    if os.environ.get("SKIPPED"):
        terminalreporter.write_line("SKIP: " + os.environ["SKIPPED"])
    failed = any(count[name, "failed"] + count[name, "error"] for name in [*QEMUS, None])
    if os.environ.get("TESTED") and not failed:
        Path(os.environ["TESTED"]).write_text(table(count, said))


def table(count, said):
    """The QEMUs on which everything has passed, for the README."""
    lines = ["| QEMU | OpenSBI | its SBI | tests skipped |", "|---|---|---|---|"]
    for name in QEMUS:
        cells = [name.replace("qemu-", ""), said[name, "OpenSBI"], said[name, "SBI"]]
        lines.append("| " + " | ".join([*cells, str(count[name, "skipped"])]) + " |")
    return "\n".join(lines) + "\n"
