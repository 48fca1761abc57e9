"""Guests that know nothing of this project: U-Boot, and Debian 13's kernel."""

import gzip
import json
import lzma
import random
import re
import shutil
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from conftest import INITRD, KERNEL, ROOT, TROUBLE
from test_board import CPUS, need_cpu
from test_virtio import MIB, SEED, check, debugfs, guest_sha256, host, no_errors, sha256


def quiet(guest):
    """From here on, keep warnings out of the commands' output on the console.

    Some say nothing about the guest: that an interrupt took long, because the
    machine had more to do than run the guest's harts.
    """
    guest.run("dmesg -n 4")


def good_log(guest):
    no_errors(guest)
    found = TROUBLE.search(guest.output("dmesg").encode())
    assert not found, found[0]


# --- Debian 13's packages -----------------------------------------------------

DEBIAN = ROOT / "build/debian-13"


@pytest.fixture(scope="session")
def unpacked():
    """The folder with Debian 13's packages, if tests/run got them."""
    if not DEBIAN.exists():
        pytest.skip("no packages of Debian 13 for riscv64")
    return DEBIAN


# --- U-Boot -------------------------------------------------------------------

UBOOT = Path("/usr/lib/u-boot/qemu-riscv64_smode")  # u-boot.bin and uboot.elf


@pytest.fixture(params=["own", "debian-13"])
def uboot_folder(request):
    """Where U-Boot is: this distribution's own, and a newer one."""
    if request.param == "debian-13":
        return request.getfixturevalue("unpacked") / UBOOT.relative_to("/")
    if not UBOOT.exists():
        pytest.skip("no U-Boot for S-mode among this distribution's packages")
    return UBOOT


def interrupt(guest):
    """Keep U-Boot from booting by itself, and wait for its prompt."""
    guest.expect(rb"Hit any key to stop autoboot")
    guest.send(" ")
    guest.expect(rb"\n=> ")


def uboot(guest, command):
    """The output of COMMAND in U-Boot."""
    guest.start(command)
    begin = guest.expect(rb"\n").end()  # of its echo
    end = guest.expect(rb"(?<=\n)=> ").start()
    return guest.console[begin:end].decode()


@pytest.fixture
def uboot_disk(tmp_path):
    """A disk for U-Boot: (image, the contents of the file "data" on it)."""
    folder = tmp_path / "files"
    folder.mkdir()
    data = random.Random(SEED).randbytes(5 * MIB + 4321)
    (folder / "data").write_bytes(data)
    shutil.copy(KERNEL, folder / "Image")
    shutil.copy(INITRD, folder / "initrd")
    image = tmp_path / "disk"
    host("mkfs.ext4", "-q", "-d", folder, image, "96M")
    return image, data


@pytest.fixture
def at_uboot(boot, uboot_disk, uboot_folder):
    """at_uboot(FILE, HARTS): a guest in which U-Boot is at its prompt."""

    def start(file, harts):
        guest = boot("-k", uboot_folder / file, "-c", harts, "-d", uboot_disk[0])
        interrupt(guest)
        return guest

    return start


@pytest.mark.parametrize("file", ["u-boot.bin", "uboot.elf"])
def test_uboot_reads_a_file(at_uboot, uboot_disk, file):
    """A driver for virtio that polls, where Linux waits for interrupts."""
    data = uboot_disk[1]
    guest = at_uboot(file, 1)
    assert "VirtIO Block Device" in uboot(guest, "virtio info")
    assert f"{len(data)} bytes read" in uboot(guest, "load virtio 0 $loadaddr /data")
    assert f"filesize={len(data):x}\n" in uboot(guest, "printenv filesize")
    crc = uboot(guest, "crc32 $loadaddr $filesize")
    assert re.search(r"==> ([0-9a-f]{8})\n", crc)[1] == f"{zlib.crc32(data):08x}"
    # It knows of no reset and no power-off but the SBI's.
    guest.start("reset")
    interrupt(guest)
    guest.start("poweroff")
    assert guest.ended() == 0


@pytest.mark.parametrize("harts", [1, 2])
def test_uboot_boots_linux(at_uboot, uboot_disk, harts):
    """With the device tree that it was given, and boot arguments of its own."""
    image, data = uboot_disk
    guest = at_uboot("u-boot.bin", harts)
    # U-Boot adds to the device tree, and uses the memory right behind it for
    # itself.  So the tree has to bring room of its own, as the firmware's does.
    uboot(guest, "fdt addr $fdtcontroladdr")
    header = uboot(guest, "fdt header")
    total, strings, size = (
        int(re.search(rf"{name}:\s+0x([0-9a-f]+)", header)[1], 16)
        for name in ("totalsize", "off_dt_strings", "size_dt_strings")
    )
    assert total - strings - size >= 512
    arguments = f"console=ttyS0 from=uboot-{SEED}"
    uboot(guest, f"setenv bootargs {arguments}")
    assert "bytes read" in uboot(guest, "load virtio 0 $kernel_addr_r /Image")
    assert "bytes read" in uboot(guest, "load virtio 0 $ramdisk_addr_r /initrd")
    guest.start("booti $kernel_addr_r $ramdisk_addr_r:$filesize $fdtcontroladdr")
    guest.expect(rb"Starting kernel")
    with guest:
        quiet(guest)
        assert guest.output("cat /proc/cmdline") == arguments
        guest.output("test -e /proc/device-tree/chosen/u-boot,version")
        assert guest.output("nproc") == str(harts)
        assert guest_sha256(guest, "/data/data") == sha256(data)
        guest.output("cp /data/data /data/copy && sync")
        good_log(guest)
        guest.poweroff()
    check(image)
    debugfs(image, f"dump /copy {image}.copy")
    assert Path(f"{image}.copy").read_bytes() == data


# --- Debian 13 ----------------------------------------------------------------

# Debian's kernel has UART and PLIC built in, the disk and ext4 as modules.
# Their dependencies are found below, except crc32c, which ext4 asks for by name
# when it is used.
MODULES = ["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"]

# The first process in the initramfs, with BusyBox, and on the disk, with bash.
INITRAMFS_INIT = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do
	busybox insmod $module || echo "$module: not loaded"
done
busybox mount -t ext4 /dev/vda /disk
busybox mount --move /dev /disk/dev
exec busybox switch_root /disk /sbin/guest-init
"""
DISK_INIT = """#!/bin/bash
export PATH=/usr/local/bin:/usr/sbin:/usr/bin HOME=/root TERM=vt100 PS1='guest:\\w# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
cd
setsid --ctty --wait bash --norc -i </dev/ttyS0 >/dev/ttyS0 2>&1
poweroff
"""
POWEROFF = """#!/bin/bash
mount -o remount,ro /
exec busybox poweroff -f
"""


def add(path, text):
    """Write TEXT as an executable file, in place of what may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def with_dependencies(folder, wanted):
    """The kernel's modules below FOLDER: [contents] in the order to load them.

    It works without depmod: each module names what it needs.
    """
    paths = {
        path.name.split(".")[0].replace("-", "_"): path
        for path in folder.rglob("*.ko*")
    }
    modules = {}  # in the order in which to load them

    def load(name):
        if name in modules or name not in paths:  # not there: it is built in
            return
        data = paths[name].read_bytes()
        if paths[name].suffix == ".xz":
            data = lzma.decompress(data)
        needs = re.search(rb"\0depends=([^\0]*)\0", data)[1].decode()
        for other in filter(None, needs.replace("-", "_").split(",")):
            load(other)
        modules[name] = data

    for name in wanted:
        load(name)
    return list(modules.values())


def cpio(files):
    """An archive in the kernel's format of FILES, {name: (mode, contents)}."""
    archive = b""
    for name, (mode, data) in {**files, "TRAILER!!!": (0, b"")}.items():
        fields = 0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0
        header = "070701" + "".join(f"{field:08X}" for field in fields) + name
        for part in header.encode() + b"\0", data:
            archive += part + bytes(-len(part) % 4)
    return archive


@pytest.fixture(scope="session")
def debian(unpacked, tmp_path_factory):
    """Debian 13: (kernel, initramfs, image of its root file system)."""
    folder = tmp_path_factory.mktemp("debian")

    files = {name: (0o40755, b"") for name in ("bin", "modules", "disk", "dev")}
    files["init"] = 0o100755, INITRAMFS_INIT.encode()
    files["bin/busybox"] = 0o100755, (unpacked / "usr/bin/busybox").read_bytes()
    for i, data in enumerate(with_dependencies(unpacked / "usr/lib/modules", MODULES)):
        files[f"modules/{i:02}.ko"] = 0o100644, data
    initramfs = folder / "initramfs.gz"
    initramfs.write_bytes(gzip.compress(cpio(files), 1))

    root = folder / "root"
    shutil.copytree(
        unpacked,
        root,
        symlinks=True,
        ignore=shutil.ignore_patterns("modules", "boot", "u-boot"),
    )
    add(root / "sbin/guest-init", DISK_INIT)
    add(root / "usr/local/bin/poweroff", POWEROFF)
    shutil.copy(root / "usr/share/base-passwd/passwd.master", root / "etc/passwd")
    shutil.copy(root / "usr/share/base-passwd/group.master", root / "etc/group")
    if not (root / "usr/bin/sh").is_symlink():
        (root / "usr/bin/sh").symlink_to("dash")
    image = folder / "image"
    host("mkfs.ext4", "-q", "-E", "root_owner=0:0", "-d", root, image, "512M")
    shutil.rmtree(root)
    (kernel,) = unpacked.glob("boot/vmlinu[xz]-*")
    return kernel, initramfs, image


def is_gzip(file):
    return file.read_bytes().startswith(b"\x1f\x8b")


@pytest.fixture
def debian_guest(boot, debian, tmp_path):
    """debian_guest(HARTS, GZIPPED): (guest, image of its disk).

    GZIPPED: whether the kernel is to be gzipped, whatever the package's is.
    """
    kernel, initramfs, image = debian
    disk = tmp_path / "disk"
    subprocess.run(["cp", "--sparse=always", image, disk], check=True)

    def start(harts, gzipped, **options):
        file = kernel
        if gzipped != is_gzip(kernel):
            file = tmp_path / "vmlinux"
            change = gzip.compress if gzipped else gzip.decompress
            file.write_bytes(change(kernel.read_bytes()))
        guest = boot("-k", file, "-i", initramfs, "-c", harts, "-d", disk, **options)
        return guest, disk

    return start


# A mixture of reads and writes; then what was written is read back and compared.
FIO_MIB = 12
FIO = f"""fio --name=job --directory=/root --size={FIO_MIB}M --numjobs={{jobs}} --direct=1
    --ioengine=libaio --rw=randrw --bs=4k --iodepth=8 --verify=crc32c
    --verify_fatal=1 --randseed={{seed}} --group_reporting
    --output-format=json --output=/tmp/fio.json"""


@pytest.mark.parametrize("harts, gzipped", [(1, False), (2, True)])
def test_debian(debian_guest, report, harts, gzipped, qemu):
    guest, disk = debian_guest(harts, gzipped)
    start = time.monotonic()
    with guest:
        booted = time.monotonic() - start
        quiet(guest)
        assert "deb13" in guest.output("uname -r")
        assert guest.output("nproc") == str(harts)
        release = guest.output("cat /etc/os-release")
        assert 'VERSION_ID="13"' in release
        assert "VERSION_CODENAME=trixie" in release
        guest.output("findmnt -n -o SOURCE,FSTYPE / | grep -x '/dev/vda *ext4'")
        guest.output(" ".join(FIO.format(jobs=harts, seed=SEED).split()))
        (job,) = json.loads(guest.output("cat /tmp/fio.json"))["jobs"]
        assert job["error"] == 0
        reads, writes = (job[kind]["total_ios"] for kind in ("read", "write"))
        assert writes > 1000 * harts
        # Those of the mixture, and one for each write.
        assert reads == harts * FIO_MIB * MIB // 4096
        good_log(guest)
        assert guest.output("dmesg -l emerg,alert,crit,err") == ""
        guest.poweroff()
    check(disk)
    report(
        f"Debian 13, -c {harts}: shell after {booted:.1f} s; fio: {reads} reads,"
        f" {writes} writes, {job['job_runtime'] / 1000 / harts:.1f} s ({qemu})"
    )


@pytest.mark.parametrize("cpu", CPUS)
def test_debian_with_more(debian_guest, qemu, cpu):
    """It uses whatever the device tree tells it of, and all of that works."""
    need_cpu(qemu, cpu)
    guest, disk = debian_guest(2, True, qemu_args=f"-cpu {cpu}")
    with guest:
        quiet(guest)
        assert "zicboz" in guest.output("grep -m 1 isa /proc/cpuinfo")
        good_log(guest)
        assert guest.output("dmesg -l emerg,alert,crit,err") == ""
        guest.poweroff()
    check(disk)
