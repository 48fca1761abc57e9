"""Disk, network, shared folder and entropy: the virtio relay."""

import hashlib
import http.server
import os
import random
import re
import select
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time

import pytest

from conftest import INITRD, KERNEL, ROOT, copy_tree
from patience import Patience
from test_boot import in_foreground

SEED = int(os.environ["SEED"])
MIB = 1 << 20
# On the first QEMU, and on each of the others.
KILLS = 20, 5
READS = 70_000, 20_000  # an index of a ring has 16 bits

# Where Debian keeps its tools for file systems.
os.environ["PATH"] += ":/sbin:/usr/sbin"


def host(*command, status=0):
    """The output of COMMAND, run here, which has to end with STATUS."""
    result = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert result.returncode == status, f"{command}: {result.stdout}"
    return result.stdout


def debugfs(image, command):
    """A COMMAND of debugfs on the file system in IMAGE."""
    return host("debugfs", "-R", command, image)


def check(image):
    """e2fsck finds nothing to repair in IMAGE."""
    host("e2fsck", "-fn", image)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def guest_sha256(guest, file):
    return guest.output(f"sha256sum {file}").split()[0]


def no_errors(guest):
    """The kernel knows of no request that failed."""
    assert guest.run("dmesg | grep -iE 'I/O error|ext4-fs.*err|timed? ?out'") == ("", 1)


@pytest.fixture(scope="session")
def disk_load(tmp_path_factory):
    """A folder with the programs for the guest."""
    folder = tmp_path_factory.mktemp("disk_load")
    compiler = ["riscv64-linux-gnu-gcc", "-O2", "-Wall", "-Werror", "-static"]
    for name in ("disk_load", "raw_driver"):
        source = ROOT / f"tests/{name}.c"
        subprocess.run([*compiler, "-o", folder / name, source], check=True)
    return folder


@pytest.fixture
def disk(tmp_path):
    """disk(NAME, MiB, files of FOLDER): an image with ext4."""

    def make(name="disk", mib=64, folder=None):
        image = tmp_path / name
        with open(image, "wb") as file:
            file.truncate(mib * MIB)
        host("mkfs.ext4", "-q", "-F", *(["-d", folder] if folder else []), image)
        return image

    return make


@pytest.fixture(scope="session")
def pattern(tmp_path_factory):
    """16 MiB, each sector full of its number; nobody may write to it."""
    image = tmp_path_factory.mktemp("pattern") / "image"
    sectors = range(16 * MIB // 512)
    image.write_bytes(b"".join(struct.pack("<I", n) * 128 for n in sectors))
    return image


# --- The disk, from outside ---------------------------------------------------


def test_disk_persists(boot, disk):
    """What was written and synced is there, even after a kill."""
    image = disk()
    with boot("-d", image) as guest:
        assert " /data ext4 rw," in guest.output("grep ^/dev/vda /proc/mounts")
        guest.output("echo first >/data/a; sync")
        guest.child.kill(9)
    with boot("-d", image) as guest:
        assert guest.output("cat /data/a") == "first"
        guest.output("echo second >/data/a")
        guest.poweroff()
    check(image)
    with boot("-d", image) as guest:
        assert guest.output("cat /data/a") == "second"


def test_two_disks(boot, disk):
    """In the order of the command line, each with its own size."""
    images = disk("one, with a comma", 64), disk("two", 32)
    with boot("-d", images[0], "-d", images[1]) as guest:
        assert guest.output("cat /sys/block/vd*/size") == "131072\n65536"
        guest.output("mount -t ext4 /dev/vdb /mnt")
        guest.output("echo one >/data/a; echo two >/mnt/a; umount /mnt")
        guest.poweroff()
    for image, text in zip(images, ("one", "two")):
        check(image)
        assert debugfs(image, "cat /a").endswith(text + "\n")


def test_read_only(boot, disk):
    image = disk()
    before = image.read_bytes()
    with boot("-d", f"{image},ro") as guest:
        assert guest.output("cat /sys/block/vda/ro") == "1"
        assert " /data ext4 ro," in guest.output("grep ^/dev/vda /proc/mounts")
        assert guest.run("touch /data/a")[1] != 0
        assert guest.run("dd if=/dev/zero of=/dev/vda count=1 conv=fsync")[1] != 0
        guest.poweroff()
    assert image.read_bytes() == before


def test_no_disk(boot):
    with boot("--no-disk") as guest:
        assert guest.run("ls /dev | grep vd") == ("", 1)
        guest.poweroff()


def test_empty_disk(boot, tmp_path):
    """A disk without a file system is there, but not mounted."""
    image = tmp_path / "empty"
    with open(image, "wb") as file:
        file.truncate(MIB)
    with boot("-d", image) as guest:
        assert "it is not mounted" in guest.console.decode()
        assert guest_sha256(guest, "/dev/vda") == sha256(bytes(MIB))


def test_default_disk(spawn, tmp_path):
    """The disk.img that run.sh makes, in a copy of the tree."""
    copy = tmp_path / "copy"
    copy_tree(copy)
    command = [copy / "run.sh", "-k", KERNEL, "-i", INITRD]
    image = copy / "disk.img"
    with spawn(command) as guest:
        assert image.stat().st_size == 64 * MIB
        assert image.stat().st_blocks * 512 < 16 * MIB
        guest.output("echo hello >/data/a")
        guest.poweroff()
    check(image)
    with spawn(command) as guest:
        assert guest.output("cat /data/a") == "hello"
        guest.poweroff()


# --- The disk under load ------------------------------------------------------


def test_copy_a_tree(boot, disk, tmp_path):
    """Files written by the guest are right for the host and at the next boot."""
    image = disk()
    sums = "cd %s && find . -type f | sort | xargs sha256sum"
    with boot("-d", image) as guest:
        guest.output("mkdir -p /tmp/tree/generated && cp -a /bin /tmp/tree")
        guest.output(
            "for i in $(seq 150); do head -c $((i * i * 10)) /dev/urandom"
            " >/tmp/tree/generated/$i; done"
        )
        guest.output("cp -a /tmp/tree /data && sync")
        before = guest.output(sums % "/tmp/tree")
        no_errors(guest)
        guest.poweroff()
    assert len(before.splitlines()) > 150
    check(image)
    debugfs(image, f"rdump /tree {tmp_path}")
    for line in before.splitlines():
        digest, name = line.split()
        assert sha256((tmp_path / "tree" / name).read_bytes()) == digest
    with boot("-d", image) as guest:
        assert guest.output(sums % "/data/tree") == before
        guest.poweroff()


def test_kill(boot, disk, disk_load, qemu, request, report):
    """kill -9 at random moments: what fsync() has taken is in the image."""
    image, copy, file = disk(folder=disk_load), *(disk(n) for n in ("copy", "file"))
    kills = KILLS[request.node.callspec.indices["qemu"] > 0]
    moments = random.Random(SEED)
    total = 0
    for turn in range(kills):
        with boot("-d", image) as guest:
            guest.output("dmesg | grep -q 'mounted filesystem'")
            guest.output("rm -f /data/records* /data/load")
            guest.start(
                "while dd if=/dev/zero of=/data/load bs=64k count=100 conv=fsync"
                f" 2>/dev/null; do :; done & /data/disk_load records /data/records{turn}"
            )
            guest.expect(rb"synced 0\.\n")
            end = time.monotonic() + moments.random()
            while (left := end - time.monotonic()) > 0:
                if select.select([guest.child], [], [], left)[0]:
                    guest.read(Patience())
            guest.child.kill(9)
            patience = Patience()
            while guest.read(patience):
                pass
            synced = [int(n) for n in re.findall(rb"synced (\d+)\.\n", guest.console)]
        assert synced == list(range(len(synced)))
        total += len(synced)
        # The journal is replayed in a copy: in the image the guest is to do that.
        shutil.copyfile(image, copy)
        host("e2fsck", "-E", "journal_only", "-p", copy)
        check(copy)
        debugfs(copy, f"dump /records{turn} {file}")
        lines = file.read_bytes().split(b"\n")
        for i in synced:
            length = 20 + i * 977 % 5000
            assert lines[i] == (b"%d " % i).ljust(length, b"x"), f"record {i}"
    report(f"{kills} kills, {total} records synced, SEED={SEED} ({qemu})")


def test_index_wrap(boot, disk, disk_load, pattern, qemu, request, report):
    """More single requests than an index of 16 bits can count."""
    count = READS[request.node.callspec.indices["qemu"] > 0]
    image = disk(folder=disk_load)
    with boot("-d", image, "-d", f"{pattern},ro") as guest:
        start = time.monotonic()
        guest.output(
            f"for i in 1 2 3 4; do /data/disk_load read /dev/vdb {count // 4}"
            f" $(({SEED} + i)) >/tmp/$i 2>&1 & done; wait"
        )
        seconds = time.monotonic() - start
        right = f"{count // 4} reads are right\n" * 4
        assert guest.output("cat /tmp/[1-4]") == right.rstrip()
        reads = int(guest.output("cat /sys/block/vdb/stat").split()[0])
        assert count <= reads < 1.2 * count  # few were split
        no_errors(guest)
        guest.poweroff()
    report(f"{count} direct reads in {seconds:.1f} s, SEED={SEED} ({qemu})")


def test_disk_and_console(boot, disk, disk_load, pattern):
    """Somebody types while the disk is busy: both go on."""
    image = disk(folder=disk_load)
    with boot("-d", image, "-d", f"{pattern},ro") as guest:
        guest.output(
            "{ n=0; while [ ! -e /tmp/stop ]; do"
            f" /data/disk_load read /dev/vdb 500 $n && cp /bin/busybox /data/b.$((n % 4))"
            " && sync && cmp /bin/busybox /data/b.$((n % 4)) && : $((n += 1)) ||"
            " { echo bad >>/tmp/bad; break; }; done >/tmp/log 2>&1; echo $n >/tmp/n; } & true"
        )
        in_foreground(guest, "cat")
        for i in range(400):
            text = f"{i} " + "typed " * (i % 12)
            guest.start(text)
            guest.expect(text.encode() + b"\n" + text.encode() + b"\n")
        # All at once: the answers come between the echoes.
        text = "".join(f"line {i}\n" for i in range(200))
        guest.send(text + "end of the text\n")
        guest.expect(b"end of the text\n")
        guest.expect(b"end of the text\n")
        guest.send("\x04")
        guest.wait_for_prompt()
        guest.output("touch /tmp/stop; wait; test ! -e /tmp/bad || cat /tmp/log")
        assert int(guest.output("cat /tmp/n")) > 1
        no_errors(guest)
        guest.poweroff()
    check(image)


def test_device_and_driver_part(boot, disk, disk_load, pattern):
    """The driver is unbound and bound, even with requests in flight."""
    image = disk(folder=disk_load)
    driver = "/sys/bus/virtio/drivers/virtio_blk"
    with boot("-d", image, "-d", f"{pattern},ro") as guest:
        device = guest.output("basename $(readlink /sys/block/vdb/device)")
        for i in range(10):
            if i % 2:
                guest.output(
                    "for i in 1 2 3; do (while cat /dev/vdb; do :; done"
                    " >/dev/null 2>&1) & done; true"
                )
                guest.output(f"usleep {random.Random(SEED + i).randrange(200000)}")
            guest.output(f"echo {device} >{driver}/unbind")
            assert guest.run("wait; test -b /dev/vdb")[1] == 1
            guest.output(f"echo {device} >{driver}/bind")
            guest.output(f"/data/disk_load read /dev/vdb 300 {i}")
        assert guest_sha256(guest, "/dev/vdb") == sha256(pattern.read_bytes())
        guest.poweroff()


@pytest.mark.parametrize("following", [1, 60000])
def test_ready_twice(boot, disk, disk_load, following):
    """A queue made ready anew with a request in flight, then a cyclic chain."""
    driver = "/sys/bus/virtio/drivers/virtio_blk"
    image = disk(folder=disk_load)
    with boot("-d", image, "-p", "mem=766M", trouble=True) as guest:
        guest.output("cp /data/raw_driver /tmp && umount /data")
        path = guest.output("readlink -f /sys/block/vda/device")
        registers = re.search(r"/(\w+)\.virtio_mmio/", path)[1]
        device = path.split("/")[-1]
        guest.output(f"echo {device} >{driver}/unbind")
        assert "alive" in guest.output(f"/tmp/raw_driver {registers} {following}")
        guest.output(f"echo {device} >{driver}/bind")
        guest.output("mount -t ext4 /dev/vda /data")
        guest.poweroff()
    check(image)


# --- The network --------------------------------------------------------------


@pytest.fixture
def web(tmp_path):
    """An HTTP server on the loopback with a file of 16 MiB: (port, contents)."""
    data = random.Random(SEED).randbytes(16 * MIB)
    (tmp_path / "file").write_bytes(data)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, data
        server.shutdown()


@pytest.fixture
def sink():
    """A server on the loopback: (port, what it has got, event when all came)."""
    got, complete = bytearray(), threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            while len(got) < 16 * MIB and (data := self.request.recv(1 << 16)):
                got.extend(data)
            complete.set()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], got, complete
        server.shutdown()


def test_network(boot, web, sink):
    """16 MiB down, 16 MiB up, and a second 16 MiB down meanwhile."""
    port, data = web
    to, got, complete = sink
    url = f"http://10.0.2.2:{port}/file"
    with boot("--no-disk", "-n") as guest:
        assert "inet addr:10.0.2.15 " in guest.output("ifconfig eth0")
        guest.output(f"wget -q -O /tmp/down {url}")
        assert guest_sha256(guest, "/tmp/down") == sha256(data)
        guest.output(f"wget -q -O /tmp/again {url} & nc 10.0.2.2 {to} </tmp/down; wait")
        Patience().until(complete.wait)
        assert sha256(got) == sha256(data)
        guest.output("cmp /tmp/down /tmp/again")
        guest.poweroff()


def test_network_card_parts(boot, web):
    """The driver is unbound with all receive buffers in flight, and bound."""
    driver = "/sys/bus/virtio/drivers/virtio_net"
    with boot("--no-disk", "-n") as guest:
        device = guest.output("basename $(readlink /sys/class/net/eth0/device)")
        for _ in range(3):
            guest.output(f"echo {device} >{driver}/unbind")
            guest.output(f"echo {device} >{driver}/bind")
            udhcpc = "udhcpc -q -n -i eth0"  # rootfs/init says why twice
            guest.output(f"ip link set eth0 up && {{ {udhcpc} || {udhcpc}; }}")
        guest.output(f"wget -q -O /tmp/down http://10.0.2.2:{web[0]}/file")
        assert guest_sha256(guest, "/tmp/down") == sha256(web[1])
        guest.poweroff()


def test_no_network(boot):
    with boot("--no-disk") as guest:
        assert guest.run("ls /sys/class/net | grep eth") == ("", 1)
        guest.poweroff()


# --- The shared folder, entropy, and what is left out -------------------------


def test_share(boot, tmp_path):
    folder = tmp_path / "some, folder"
    folder.mkdir()
    data = random.Random(SEED).randbytes(3 * MIB)
    (folder / "from host").write_bytes(data)
    with boot("--no-disk", "--share", folder) as guest:
        assert guest_sha256(guest, "'/mnt/from host'") == sha256(data)
        guest.output("head -c 1000000 /dev/urandom >/tmp/a; cp /tmp/a /mnt/a; sync")
        digest = guest_sha256(guest, "/tmp/a")
        guest.output("mkdir /mnt/folder && mv /mnt/a /mnt/folder")
        guest.poweroff()
    assert sha256((folder / "folder/a").read_bytes()) == digest


def test_entropy(boot):
    with boot("--no-disk") as guest:
        one, two = (guest.output("head -c 32 /dev/hwrng | xxd -p") for _ in range(2))
        assert len(set(one)) > 8 and one != two
        guest.poweroff()


LEGACY = "-global virtio-mmio.force-legacy=true"  # QEMU takes the last one


def test_legacy_slot(boot, disk):
    """One line for each device that is left out, and the guest boots."""
    with boot("-d", disk(), qemu_args=LEGACY, trouble=True) as guest:
        lines = re.findall(rb"^hv: .*$", guest.console, re.M)
        assert len(lines) == 2  # entropy and disk
        for line in lines:
            assert re.fullmatch(
                rb"hv: slot \d: unknown, or lacks force-legacy=false or event_idx", line
            )
        assert guest.run("ls /sys/bus/virtio/devices") == ("", 0)
        guest.poweroff()
