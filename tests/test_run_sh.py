"""run.sh: its options, its errors, and what it rebuilds when."""

import gzip
import os
import re
import shlex
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from conftest import INITRD, ISA, KERNEL, copy_tree
from test_mmode import has_mpv

# --- What it says ------------------------------------------------------------


def test_help(run_sh):
    result = run_sh("--help")
    assert result.returncode == 0 and result.stderr == ""
    for option in "kernel initrd params disk cpus mem net".split():
        assert f"-{option[0]}, --{option}" in result.stdout
    for word in "--bare --gdb --stats --trace --dry-run QEMU QEMU_ARGS".split():
        assert word in result.stdout


def compile_at(elf, address):
    """A kernel that shuts down, as the ELF file ELF, linked for ADDRESS."""
    command = "riscv64-linux-gnu-gcc -nostdlib -static -Wl,--build-id=none -x assembler -"
    subprocess.run(
        [*command.split(), f"-Wl,-Ttext={address:#x}", "-o", elf],
        input=".globl _start\n_start: li a7, 8\necall\n",
        text=True,
        check=True,
    )


@pytest.fixture
def files(tmp_path):
    """The folder with files that run.sh has to refuse."""
    (tmp_path / "text").write_text("not a kernel\n" * 100)
    (tmp_path / "empty").touch()
    with open(tmp_path / "large", "wb") as large:
        large.truncate(100 << 20)
    # An Image's header, with 100 MiB as its size in memory.
    header = struct.pack("<16xQ32xI", 100 << 20, 0x05435352)
    (tmp_path / "huge").write_bytes(header)
    (tmp_path / "host.elf").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "half.gz").write_bytes(gzip.compress(os.urandom(9999))[:5000])
    compile_at(tmp_path / "high.elf", 0x40000000)
    return tmp_path


def contents(folder):
    """The files below FOLDER and their times."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            file = os.path.join(path, name)
            if not os.path.islink(file):
                found[file] = os.stat(file).st_mtime_ns
    return found


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--nonsense", "unknown option '--nonsense'"),
        ("kernel", "unknown option 'kernel'"),
        ("-k", "-k needs a value"),
        ("--initrd", "--initrd needs a value"),
        ("-p", "-p needs a value"),
        ("-m", "-m needs a value"),
        ("-c", "-c needs a value"),
        ("-k missing", "-k: cannot read missing"),
        ("-i missing", "-i: cannot read missing"),
        ("-k .", "-k: cannot read ."),
        ("-k empty", "empty is empty"),
        ("-k host.elf", "host.elf is an ELF file, but not for 64-bit RISC-V"),
        ("-k high.elf", "high.elf is for addresses .* try a larger --mem"),
        ("-k half.gz", "half.gz is not a whole gzip file"),
        ("-k huge@0x80000000", "an Image says by itself where it belongs"),
        ("-k text@0x1000", "text is for addresses .* try a larger --mem"),
        ("-k text@here", "-k: cannot read text@here"),
        ("-m 64 -i large", "large is for addresses .* try a larger --mem"),
        ("-m 64 -k huge", "huge is for addresses .* try a larger --mem"),
        ("-m 0", "-m takes a number from"),
        ("-m -5", "-m takes a number from"),
        ("-m 1G", "-m takes a number from"),
        ("-m ''", "-m takes a number from"),
        ("-m 99999999999999999999", "-m takes a number from"),
        ("-c 0", "-c takes a number from"),
        ("-c two", "-c takes a number from"),
        ("-c 9", "-c takes a number from"),
        ("-d missing", "cannot read missing"),
        ("--share missing", "missing is not a folder"),
        ("--no-disk -d text", "do not go together"),
        ("--gdb=tmux", "--gdb=tmux: this is not a tmux window"),
        ("--gdb=screen", "unknown option '--gdb=screen'"),
        ("--stats --bare", "--bare and --stats do not go together"),
        ("--trace file --bare", "--bare and --trace do not go together"),
        ("--trace", "--trace needs a value"),
        ("--trace .", "--trace: cannot write to ."),
        ("--trace missing/file", "--trace: cannot write to missing/file"),
        ("--trace text/file", "--trace: cannot write to text/file"),
        ("""-p 'a "quoted" word'""", "no quotes"),
    ],
)
def test_error(run_sh, files, tree, tmp_path, arguments, message):
    """One line, exit status 2, and nothing is left behind."""
    before = contents(tree), contents(tmp_path)
    out = tmp_path / "out"
    result = run_sh(
        *shlex.split(arguments), cwd=files, O=str(out), TMPDIR=str(tmp_path), TMUX=""
    )
    assert result.returncode == 2
    assert re.fullmatch(rf"run\.sh: .*{message}.*\n", result.stderr)
    assert result.stdout == ""
    assert not out.exists()
    assert before == (contents(tree), contents(tmp_path))


def test_no_qemu(run_sh):
    """A wrong QEMU= is reported, and not cured by installing another one."""
    result = run_sh("--dry-run", QEMU="/nowhere/qemu")
    assert result.returncode == 2
    assert result.stderr == "run.sh: QEMU: there is no command /nowhere/qemu\n"


def test_first_start(run_sh, tmp_path):
    """Before it builds the kernel, run.sh says what one can read meanwhile."""
    copy_tree(tmp_path / "tree")
    make = tmp_path / "bin/make"
    make.parent.mkdir()
    make.write_text('#!/bin/sh\necho "make $*" >&2\nexit 1\n')
    make.chmod(0o755)
    path = f"{make.parent}:{os.environ['PATH']}"
    result = run_sh(script=tmp_path / "tree/run.sh", PATH=path)
    hint, build = result.stderr.splitlines()
    assert "boot.S, hv.c, mem.c" in hint
    assert build.startswith("make ") and build.endswith("/Image")


# --- What it starts ----------------------------------------------------------


def test_dry_run(run_sh, spawn, qemu):
    """It prints one command, and that boots."""
    result = run_sh("--dry-run", "-p", "quiet", QEMU=qemu)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.count("\n") == 1
    with spawn(shlex.split(result.stdout)) as guest:
        assert "quiet" in guest.output("cat /proc/cmdline")
        guest.poweroff()


# What the very same guest must answer on both sides.  Without the dates: Linux
# unpacks the initramfs while it sets its clock, so a link may be from 1970 or
# from now.
FILES = "find /bin /sbin /init -exec ls -l {} + | awk '{ $6 = $7 = $8 = \"\"; print }'"
SAME = f"uname -a; cat /proc/cmdline; {FILES} | md5sum"


def test_bare(boot):
    """The same kernel, initramfs and arguments, and no hypervisor."""
    isa = f"tr -d '\\0' <{ISA}"
    with boot("-p", "quiet") as guest:
        ours = guest.output(SAME)
        assert "h" not in guest.output(isa).split("_")[0]
        guest.poweroff()
    with boot("-p", "quiet", "--bare") as guest:
        assert guest.output(SAME) == ours
        assert "h" in guest.output(isa).split("_")[0]
        guest.poweroff()


def test_params(boot):
    with boot("-p", "quiet one=1 two=2") as guest:
        assert guest.output("cat /proc/cmdline").endswith(" quiet one=1 two=2")


def test_other_folder(boot, tmp_path):
    """File names are relative to the folder from which run.sh was called."""
    shutil.copy(KERNEL, tmp_path / "kernel")
    shutil.copy(INITRD, tmp_path / "initrd")
    with boot("-k", "kernel", "-i", "initrd", cwd=tmp_path) as guest:
        guest.poweroff()


@pytest.mark.parametrize("option, file", [("-k", KERNEL), ("-i", INITRD)])
def test_name_with_space(boot, tmp_path, option, file):
    name = tmp_path / "a name with spaces"
    shutil.copy(file, name)
    with boot(option, name) as guest:
        guest.poweroff()


# --- What it builds ----------------------------------------------------------

# What has to be built anew in any case, and what when the guest's options change.
LINKED = {"hv.elf", "hv.asm", "hv.sym"}
GUEST = {"guest.options", "guest.dtb", "guest.S.o"} | LINKED


@pytest.fixture
def build(run_sh, out):
    """build(OPTIONS): lets run.sh build, and tells which files are new."""

    def run(*arguments, **options):
        before = contents(out)
        result = run_sh("--dry-run", *arguments, **options)
        assert result.returncode == 0, result.stderr
        after = contents(out).items()
        return {os.path.basename(name) for name, _ in after - before.items()}

    return run


def test_nothing_to_rebuild(build, files):
    """Neither with our own kernel nor with one that has no initramfs."""
    for options in [], ["-k", files / "text"]:
        build(*options)
        assert build(*options) == set()


@pytest.mark.parametrize("options", [("-p", "other"), ("-m", "512")])
def test_rebuild_for_option(build, options):
    build()
    assert build(*options) == GUEST
    assert build(*options) == set()
    assert build() == GUEST


@pytest.mark.parametrize("option, file", [("-k", KERNEL), ("-i", INITRD)])
def test_rebuild_for_file(build, tmp_path, option, file):
    """Another file for the guest, and then the same one with a newer date."""
    copy = tmp_path / "copy"
    shutil.copy(file, copy)
    build()
    assert build(option, copy) == GUEST
    os.utime(copy)
    assert build(option, copy) == GUEST
    assert build(option, copy) == set()


@pytest.mark.parametrize("what", ["larger", "older", "same size and time"])
@pytest.mark.parametrize("option, file", [("-k", KERNEL), ("-i", INITRD)])
def test_rebuild_for_other_contents(build, out, tmp_path, option, file, what):
    """Another file under the same name, whatever its size and time are."""
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copy(file, copy)
    build(option, copy)
    old, time = file.read_bytes(), copy.stat().st_mtime_ns
    if what == "same size and time":
        data = old[:-1] + bytes([old[-1] ^ 1])
    else:
        data = old + os.urandom(123457)
    other.write_bytes(data)
    if what != "larger":
        time -= 10**15 * (what == "older")
        os.utime(other, ns=(time, time))
    os.replace(other, copy)
    assert build(option, copy) == GUEST
    assert data in (out / "hv.elf").read_bytes()
    initrd = data if option == "-i" else INITRD.read_bytes()
    assert initrd_size(out / "guest.dtb") == len(initrd)
    assert build(option, copy) == set()


def initrd_size(dtb):
    """The size of the initramfs, as the device tree DTB has it."""
    command = ["fdtget", "-tx", dtb, "/chosen"]
    start, end = (
        subprocess.check_output([*command, f"linux,initrd-{which}"], text=True)
        for which in ("start", "end")
    )
    to_number = lambda cells: int("".join(f"{cell:>08}" for cell in cells.split()), 16)
    return to_number(end) - to_number(start)


def test_bare_builds_nothing(build):
    build()
    assert build("--bare", "-p", "other") == set()


def test_rebuild_for_source(build, tree):
    """A .c file renews its object, the header renews all of them."""
    build()
    os.utime(tree / "hv.c")
    assert build() == {"hv.c.o"} | LINKED
    os.utime(tree / "hv.h")
    objects = {f"{file.name}.o" for file in tree.glob("*.[cS]")}
    assert build() == objects | LINKED


# --- ELF files ---------------------------------------------------------------

# Types what is in .data, and then "0" for the .bss.
ELF = """
        .globl  _start
_start: la      s0, text
1:      lbu     a0, (s0)
        li      a7, 1           # SBI: legacy putchar
        ecall
        addi    s0, s0, 1
        lbu     t0, (s0)
        bnez    t0, 1b
        ld      a0, bss
        addi    a0, a0, '0'
        ecall
        li      a7, 8           # shutdown
        ecall
        .data
text:   .asciz  "the data, .bss: "
        .lcomm  bss, 8192
"""
ELF_SCRIPT = """
ENTRY(_start)
SECTIONS {
        . = 0x80201000;
        .text : { *(.text) }
        . = ALIGN(4096);
        .data : { *(.data) }
        .bss : { *(.bss) }
}
"""


@pytest.mark.parametrize("options", ["-N", "-z separate-code", "-z noseparate-code"])
def test_elf(spawn, tree, tmp_path, options):
    """One segment or several, as linkers lay them out.

    A script leaves the file's header out of the first segment: QEMU's board
    would enter that header, and so would we.
    """
    source, script, elf = (tmp_path / name for name in ("elf.S", "elf.ld", "elf"))
    source.write_text(ELF)
    script.write_text(ELF_SCRIPT)
    link = f"-nostdlib -static -T {script} -Wl,--build-id=none,{options.replace(' ', ',')}"
    subprocess.run(["riscv64-linux-gnu-gcc", *link.split(), source, "-o", elf], check=True)
    guest = spawn([tree / "run.sh", "-k", elf, "--no-disk"])
    guest.expect(rb"the data, .bss: 0")
    assert guest.ended() == 0


# --- Where and how a kernel is entered ----------------------------------------

# Types L if it is entered at its lowest address, E if at _start, where its ELF
# file says; then S or M, its mode, if it can do there what that mode allows.
ENTERED = {
    "S": """
        li      a0, 'L'
        j       1f
        .globl  _start
_start: li      a0, 'E'
1:      li      a7, 1           # SBI: legacy putchar
        ecall
        li      a0, 'S'
        ecall
        li      a0, '\\n'
        ecall
        li      a7, 8           # shutdown
        ecall
""",
    "M": """
        li      t1, 'L'
        j       1f
        .globl  _start
_start: li      t1, 'E'
1:      li      t0, 0x10000000  # UART
        sb      t1, (t0)
        csrr    t1, mhartid
        li      t1, 'M'
        sb      t1, (t0)
        li      t1, '\\n'
        sb      t1, (t0)
2:      j       2b
""",
}

VIRTUAL = 0xFFFFFFFF00000000  # from a physical address to one in the upper half


def compile_entered(folder, mode, address, offset=0):
    """ENTERED as an ELF file that belongs to ADDRESS and is linked OFFSET above it."""
    elf, script = folder / "kernel.elf", folder / "kernel.ld"
    where = f"{address + offset:#x} : AT({address:#x})"
    script.write_text(f"ENTRY(_start) SECTIONS {{ .text {where} {{ *(.text) }} }}")
    command = "riscv64-linux-gnu-gcc -nostdlib -static -Wl,--build-id=none -o"
    subprocess.run(
        [*command.split(), elf, "-T", script, "-x", "assembler", "-"],
        input=ENTERED[mode],
        text=True,
        check=True,
    )
    return elf


def to_flat(elf):
    flat = elf.with_suffix(".bin")
    subprocess.run(["riscv64-linux-gnu-objcopy", "-O", "binary", elf, flat], check=True)
    return flat


def to_image(elf, address):
    """With the header of an Image, which begins with a jump over it."""
    code, image = to_flat(elf).read_bytes(), elf.with_suffix(".image")
    jump, magic = 0x0400006F, 0x05435352
    numbers = jump, address - 0x80000000, 64 + len(code), magic
    image.write_bytes(struct.pack("<I4xQQ32xI4x", *numbers) + code)
    return image


def to_gzip(file):
    zipped = file.with_suffix(".gz")
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    return zipped


FORMS = {  # what run.sh calls it, and its file
    "elf": ("ELF", lambda folder, *at: compile_entered(folder, *at)),
    "elf, virtual": ("ELF", lambda folder, *at: compile_entered(folder, *at, VIRTUAL)),
    "elf, gzipped": ("ELF", lambda folder, *at: to_gzip(compile_entered(folder, *at))),
    "Image": ("Image", lambda folder, *at: to_image(compile_entered(folder, *at), at[1])),
    "flat": (
        "neither an Image nor ELF: flat",
        lambda folder, *at: to_flat(compile_entered(folder, *at)),
    ),
}


@pytest.mark.parametrize("bare", [[], ["--bare"]], ids=["hv", "bare"])
@pytest.mark.parametrize("address", [0x80000000, 0x80200000, 0x80600000], ids=hex)
@pytest.mark.parametrize("form", FORMS)
def test_entry(boot, run_sh, qemu, tmp_path, form, address, bare):
    """A kernel is entered as run.sh says, with and without the hypervisor."""
    mode = "M" if address == 0x80000000 else "S"
    kind, make = FORMS[form]
    file = make(tmp_path, mode, address)
    said = f"run.sh: {file} ({kind}) is entered at {address:#x} in {mode}-mode"
    where = f"@{address:#x}" if form == "flat" and address != 0x80200000 else ""
    options = ["--no-disk", "-k", f"{file}{where}", *bare]
    result = run_sh("--dry-run", *options, QEMU=qemu)
    lines = [line for line in result.stderr.splitlines() if "hangs on this QEMU" not in line]
    assert result.returncode == 0 and lines == [said]
    guest = boot(*options)
    guest.expect(re.escape(said.encode()) + rb"\n")
    if mode == "M" and not bare and not has_mpv(qemu):
        guest.expect(rb"(?m)^L")  # and hangs
    else:
        guest.expect(rb"(?m)^L%s\n" % mode.encode())


def test_own_kernel_is_not_told(run_sh):
    """That line is for those who bring a kernel of their own."""
    assert run_sh("--dry-run").stderr == ""


# Maps the first 512 GiB to themselves by one entry of Sv48's root, turns that
# on, and types the mode that satp has then.
SV48 = """
        .globl  _start
_start: la      t0, root
        li      t1, 0xcf        # D, A, X, W, R, V
        sd      t1, (t0)
        srli    t0, t0, 12
        li      t1, 9 << 60     # MODE: Sv48
        or      t0, t0, t1
        sfence.vma
        csrw    satp, t0
        csrr    a0, satp
        srli    a0, a0, 60
        addi    a0, a0, '0'
        li      a7, 1           # SBI: legacy putchar
        ecall
        li      a0, '\\n'
        ecall
        li      a7, 8           # shutdown
        ecall
        .balign 4096
root:   .skip   4096
"""


@pytest.mark.parametrize("bare", [[], ["--bare"]], ids=["hv", "bare"])
def test_sv48(boot, tmp_path, bare):
    """Only our own kernel has to make do with three levels (test_levels_of_page_tables)."""
    elf = tmp_path / "sv48"
    command = "riscv64-linux-gnu-gcc -nostdlib -static -Wl,--build-id=none,-N,-Ttext=0x80200000"
    subprocess.run(
        [*command.split(), "-o", elf, "-x", "assembler", "-"],
        input=SV48,
        text=True,
        check=True,
    )
    guest = boot("--no-disk", "-k", elf, *bare)
    assert guest.expect(rb"(?m)^(\d)\n")[1] == b"9"
    assert guest.ended() == 0
