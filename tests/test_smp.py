"""Several harts."""

import re
import subprocess

import pytest

from conftest import ROOT


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder with a program for the guest."""
    folder = tmp_path_factory.mktemp("smp")
    compiler = "riscv64-linux-gnu-gcc -O2 -Wall -Werror -static -o"
    source = ROOT / "tests/harts.c"
    subprocess.run([*compiler.split(), folder / "harts", source], check=True)
    return folder


def no_errors(guest):
    log = guest.output("dmesg")
    assert not re.search(r"rcu|stall|lockup|WARNING|BUG|I/O error|hung", log.split("Run /init")[1])


@pytest.mark.parametrize("harts", [1, 2, 4, 8])
def test_nproc(boot, harts):
    with boot("-c", harts) as guest:
        assert guest.output("nproc") == str(harts)
        assert guest.output("cat /sys/devices/system/cpu/online") == (
            "0" if harts == 1 else f"0-{harts - 1}"
        )
        guest.poweroff()


def test_20_boots(boot, report, qemu):
    """It does not matter which hart the firmware boots on, which is a lottery."""
    chosen = []
    for _ in range(20):
        with boot("-c", 4, "-p", "quiet") as guest:
            assert guest.output("nproc") == "4"
            chosen.append(int(re.search(rb"Boot HART ID +: (\d)", guest.console)[1]))
            guest.poweroff()
    report(f"20 boots with 4 harts, boot harts {chosen} ({qemu})")


# Linux 6.1 calls a hart off when the hart says so itself, just before it calls
# hart_stop.  Then it asks for the hart's state, and takes 0, STARTED, for stopped
# (sbi_cpu_is_stopped).  A hart whose thread gets no time just then is still started
# when it is told to start, and hart_start must refuse that (ALREADY_AVAILABLE).  So
# try again.  If the hart never stops, this never ends, and the test fails.
ON = "until echo 1 >{}; do :; done"


def test_offline_and_online(boot):
    """Harts 1 to 3 take turns in being stopped and started by SBI, 50 times."""
    with boot("-c", 4) as guest:
        guest.output(
            "for i in $(seq 50); do c=/sys/devices/system/cpu/cpu$((i % 3 + 1))/online; "
            f"echo 0 >$c && [ $(nproc) = 3 ] && {ON.format('$c')} && [ $(nproc) = 4 ] || exit; "
            "done"
        )
        assert guest.output("nproc") == "4"
        for hart in range(4):
            guest.output(f"taskset -c {hart} true")
        no_errors(guest)
        guest.poweroff()


def test_pinned_load(boot):
    """A process on each hart stays there, and all of them get on."""
    with boot("-c", 4) as guest:
        guest.output(
            "for h in 0 1 2 3; do taskset -c $h sh -c 'i=0; while [ $i -lt 20000 ]; do "
            "i=$((i+1)); done; cut -d\" \" -f39 /proc/$$/stat' >/tmp/$h & done; wait"
        )
        assert guest.output("cat /tmp/[0-3]").split() == ["0", "1", "2", "3"]
        no_errors(guest)
        guest.poweroff()


def test_ping_pong(boot, programs, report, qemu):
    """A byte through pipes between two harts, each waiting for the other."""
    with boot("-c", 2, "--share", programs) as guest:
        line = guest.output("/mnt/harts ping 0 1 2000 2>/dev/null")
        assert re.fullmatch(r"2000 round trips, \d+ ns each", line)
        report(f"{line} ({qemu})")
        guest.poweroff()


def test_messages_and_disk(boot, programs, tmp_path):
    """Many processes send each other messages while the disk is busy."""
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", image], check=True)
    with boot("-c", 4, "--share", programs, "-d", image) as guest:
        guest.output("dmesg -n 4")  # it would report each drop_caches
        guest.output("head -c 4m /dev/urandom >/tmp/file; sum=$(md5sum </tmp/file)")
        guest.start(
            "(for i in $(seq 8); do cp /tmp/file /data/$i && sync && "
            "echo 3 >/proc/sys/vm/drop_caches; done; echo >/tmp/copied) &"
        )
        guest.wait_for_prompt()
        assert guest.output("/mnt/harts messages 4 10 50 2>/dev/null") == "20000 messages"
        guest.output("while [ ! -e /tmp/copied ]; do usleep 10000; done")
        guest.output('for i in $(seq 8); do [ "$(md5sum </data/$i)" = "$sum" ] || exit; done')
        no_errors(guest)
        guest.poweroff()
    subprocess.run(["/sbin/e2fsck", "-f", "-n", image], check=True)


@pytest.mark.parametrize("hart", [0, 1])
def test_interrupt_affinity(boot, hart):
    """The console's interrupt goes to the hart that Linux wants."""
    with boot("-c", 2) as guest:
        line = "grep ttyS0 /proc/interrupts"
        irq = guest.output(line).split(":")[0].strip()
        guest.output(f"echo {1 << hart} >/proc/irq/{irq}/smp_affinity")
        before = [int(n) for n in guest.output(line).split()[1:3]]
        guest.output("cat /proc/meminfo")
        after = [int(n) for n in guest.output(line).split()[1:3]]
        grown = [b - a for a, b in zip(before, after)]
        assert grown[hart] > 10 and grown[1 - hart] == 0
        guest.poweroff()


def test_reboot(boot):
    with boot("-c", 4) as guest:
        guest.output("touch /tmp/before")
        guest.start("reboot")
        guest.wait_for_prompt()
        assert guest.run("ls /tmp/before")[1] != 0
        assert guest.output("nproc") == "4"
        guest.poweroff()
