"""The SBI that a guest is given, against the specification of SBI 2.0.

guests/sbi.c, a kernel of its own, does the checks.
"""

import re

import pytest

from conftest import QEMUS

FAIL = re.compile(rb"^FAIL .*$", re.MULTILINE)


@pytest.fixture
def start(boot, build_guest, qemu):
    """start(HARTS, ARGUMENTS, ...): guests/sbi.c, running."""
    # On a busy machine QEMU 7.2 now and then forgets a timer interrupt of a
    # guest with several harts; handle_exit() in exit.c reminds it.
    forgets = QEMUS.get("qemu-7.2") == qemu

    def start(harts, *arguments, kind="elf", **options):
        if forgets and harts > 1:
            arguments += ("forgets=1",)
        return boot(
            *("-k", build_guest("sbi").with_suffix("." + kind)),
            *("-c", harts, "--no-disk"),
            *("-p", " ".join([f"harts={harts}", *arguments])),
            **options,
        )

    return start


def no_failure(guest):
    failures = [line.decode() for line in FAIL.findall(guest.console)]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("harts", [1, 4])
@pytest.mark.parametrize("kind", ["elf", "bin"])
def test_sbi(start, harts, kind):
    guest = start(harts, kind=kind)
    for name, text in ("DBCN", "Hello, DBCN!"), ("getchar", "H e l l o!"):
        guest.expect(rb"type for %s: " % name.encode())
        guest.send(text)
        guest.expect(rb"\n%s read: (.*)\n" % name.encode())
        assert f"{name} read: {text}\n".encode() in guest.console
    assert guest.ended() == 0
    no_failure(guest)
    for text in b"DBCN writes this.", b"DBCN writes bytes.", b"legacy putchar.":
        assert re.search(rb"^%s$" % text, guest.console, re.MULTILINE)
    assert re.search(rb"^sbi: \d+ checks, 0 failed$", guest.console, re.M)


@pytest.mark.parametrize("harts", [1, 4])
def test_sbi_without_sstc(start, harts):
    """The hypervisor's own timer stands in for the guest's."""
    guest = start(harts, qemu_args="-cpu rv64,h=true,sstc=false")
    guest.expect(rb"(ok|FAIL) time: .*\n")
    no_failure(guest)


# A shutdown, a cold reboot, a warm one; for no reason, and because the system
# failed.  The hart that asks is not the one that booted, and all the others
# run.
@pytest.mark.parametrize("harts", [1, 4])
@pytest.mark.parametrize("high", ["", "high=1"])
@pytest.mark.parametrize("reset", ["0,0", "0,1", "1,0", "1,1", "2,0", "2,1"])
def test_reset(start, harts, high, reset):
    guest = start(harts, f"srst={reset}", high)
    guest.expect(rb"sbi: hart \d+ begins\n")
    if reset.startswith("0"):
        assert guest.ended() == 0
        assert guest.console.count(b"begins") == 1
    else:
        guest.expect(rb"sbi: hart \d+ begins\n")
    no_failure(guest)


def test_resets_at_once(start):
    """The machine is reset once, by one of them."""
    guest = start(4, "srst=1,0", "all=1")
    for _ in range(4):
        guest.expect(rb"sbi: hart \d+ begins\n")
    no_failure(guest)


@pytest.mark.parametrize("harts", [1, 4])
def test_legacy_shutdown(start, harts):
    guest = start(harts, "legacy=8")
    assert guest.ended() == 0
    assert guest.console.count(b"begins") == 1
    no_failure(guest)


def test_all_are_here(start):
    """When the guest begins, no hart is still on its way through the firmware, because
    an IPI to it would be an error.  With thread=single all harts share one thread of
    QEMU's, so the first one runs for a long time before the others get their turn."""
    guest = start(8, "srst=0,0", qemu_args="-accel tcg,thread=single")
    assert guest.ended() == 0
    no_failure(guest)
