"""Many boots, each of a different machine: `make soak N=200`; a few in `make check`.

QEMU, harts, RAM, the speed of the virtual clock, and what is to be done are
chosen at random from SEED, so a run can be repeated.
"""

import os
import random
import re

import pytest

from conftest import QEMUS
from test_smp import ON
from test_virtio import check, disk, no_errors  # noqa: F401, disk is a fixture

BOOTS = int(os.environ.get("BOOTS", 20))
SEED = int(os.environ["SEED"])


def load_disk(guest, harts):
    guest.output(
        "head -c 4m /dev/urandom >/tmp/file; sum=$(md5sum </tmp/file); "
        "for i in 1 2 3 4 5 6; do cp /tmp/file /data/$i; sync; "
        "echo 3 >/proc/sys/vm/drop_caches; "
        '[ "$(md5sum </data/$i)" = "$sum" ] || exit; done'
    )


def load_console(guest, harts):
    text = guest.output("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done")
    lines = text.split("\n")
    # What the kernel says in between would tell why
    assert not [line for line in lines if not re.fullmatch(r"line \d+", line)]
    assert lines == [f"line {i}" for i in range(3000)]


def load_processes(guest, harts):
    guest.output("for i in $(seq 100); do (true | cat) & done; wait")


def load_harts(guest, harts):
    for hart in range(1, harts):
        file = f"/sys/devices/system/cpu/cpu{hart}/online"
        guest.output(f"echo 0 >{file} && {ON.format(file)}")
        guest.output(f"taskset -c {hart} true")


def load_reboot(guest, harts):
    guest.start("reboot")
    guest.wait_for_prompt()


LOADS = {
    "disk": load_disk,
    "console": load_console,
    "processes": load_processes,
    "harts": load_harts,
    "reboot": load_reboot,
}


def machine(n):
    """The Nth one: (name of its QEMU, harts, RAM in MiB, QEMU's arguments, what it does)."""
    chosen = random.Random(SEED + n)
    harts = chosen.choice([1, 1, 2, 3, 4, 8])
    # With icount each instruction takes 1 << shift ns; without it time is the
    # host's.  With icount all harts share one thread, and QEMU starves some:
    # Linux on four of them comes to no prompt without the hypervisor, either.
    shift = chosen.choice([None, 0, 1, 2, 3, 4]) if harts == 1 else None
    icount = "" if shift is None else f"-icount shift={shift},sleep=off"
    what = chosen.sample(list(LOADS), 2)
    return chosen.choice(list(QEMUS)), harts, chosen.randrange(96, 2049), icount, what


@pytest.mark.parametrize(
    "qemu, n",
    [
        pytest.param(QEMUS[machine(n)[0]], n, id=f"{machine(n)[0]}-{n}")
        for n in range(BOOTS)
    ],
    indirect=["qemu"],
)
def test_soak(boot, disk, qemu, n):  # noqa: F811
    _, harts, ram, icount, what = machine(n)
    image = disk()
    with boot("-c", harts, "-m", ram, "-d", image, qemu_args=icount) as guest:
        assert guest.output("nproc") == str(harts)
        for name in what:
            LOADS[name](guest, harts)
        no_errors(guest)
        guest.poweroff()
    check(image)
