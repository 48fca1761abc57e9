#!/usr/bin/python3
"""Do the tests bite?  `make mutants` puts one fault at a time into a copy of the
tree, each a line that somebody could have written, and runs the tests that should
notice.  A fault that none of them finds has survived: a test is missing.

It takes about an hour; `tests/mutants.py N M ...` tries only those faults.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
from conftest import ROOT, copy_tree  # noqa: E402

BOOT = "tests/test_boot.py -k 'test_firmware or test_sleep or test_console'"
SBI = "tests/test_sbi.py -k 'test_sbi or test_reset'"
MMODE = "tests/test_mmode.py -k 'csr or super'"
DISK = "tests/test_virtio.py -k 'persists or two_disks or tree'"
SAFETY = "tests/test_virtio_safety.py"
HOSTILE = "tests/test_hostile.py"
HOST = "tests/test_host.py -k unit"

# The faults: (file, the right code, the wrong code, the tests that find it).
MUTANTS = [
    # What the guest may reach.
    ("mem.c", "offset > guest_ram_size || size > guest_ram_size - offset",
     "offset > guest_ram_size", SBI),
    ("mem.c", "size > guest_ram_size - offset", "offset + size > guest_ram_size", SBI),
    ("mem.c", "perm | PTE_V | PTE_U |", "perm | PTE_V |", BOOT),
    ("plic.c", " && context % 2 == 1", "", HOSTILE),
    ("sbi.c", "buffer = a[2] ? NULL : guest_ptr", "buffer = guest_ptr", SBI),
    ("sbi.c", "if (!guest_ptr(a[1], 4))", "if (false)", SBI),
    ("sbi.c", "type && !guest_ptr(a[1], 4)", "false", SBI),
    ("virtio.c", "i < q->num && length < q->num", "length < q->num", HOST),
    ("virtio.c", " && length < q->num; length++", "; length++", SAFETY),
    ("virtio.c", "!d.addr || d.flags", "d.flags", SAFETY),
    ("virtio.c", "(uint16_t)(idx - q->translated) <= q->num &&", "true &&", SAFETY),
    ("virtio.c", "d.flags & ~(DESC_F_NEXT | DESC_F_WRITE)", "false", SAFETY),
    ("virtio.c", "q->num > MAX_QUEUE_SIZE || ", "", SAFETY),
    ("virtio.c", "gpa % align ? NULL : guest_ptr", "guest_ptr", SAFETY),
    ("virtio.c", "index >= MAX_QUEUES || !slots[n].queue[index].ready",
     "index >= MAX_QUEUES", SAFETY),
    # What the guest's instruction asks for.
    ("mmio.c", "a->sign_extend = load && !(funct3 & 4)", "a->sign_extend = false",
     "tests/test_decode.py"),
    ("mmio.c", "(inst & 3) == 3 ? 4 : 2", "4", HOSTILE),
    ("mmio.c", "gpa - d->base >= d->size", "gpa - d->base > d->size", HOSTILE),
    ("mmio.c", " || a->offset % a->width)", ")", HOSTILE),
    ("mmio.c", "!(d->widths & a->width)", "false", HOSTILE),
    ("mem.c", "high << 16 | low", "low", BOOT),
    ("mmio.c", "known && !walk && !inside", "known && !inside", HOSTILE),
    ("mmio.c", "(amo && inst >> 27 != 2)", "(amo && inst >> 27 == 2)", HOSTILE),
    ("mmio.c", "if (!a->store && a->reg)", "if (!a->store)", HOST),
    ("mmio.c", "? a.base", "? 0", HOST),
    ("mmio.c", "v->regs[a.base] + a.low", "v->regs[a.base]", HOST),
    # Exceptions and interrupts for the guest.
    ("hart.c", "spie | (sstatus & SSTATUS_SPP)", "spie", HOSTILE),
    ("hart.c", "csr_write(vsepc, v->exit->pc)", "csr_write(vsepc, v->exit->pc + 2)", HOSTILE),
    ("hart.c", "csr_write(vstval, tval)", "csr_write(vstval, 0)", HOSTILE),
    ("hart.c", "csr_read(vstvec) & ~3ul", "csr_read(vstvec)", HOST),
    ("exit.c", "csr_write(sepc, e->pc + step)", "csr_write(sepc, e->pc + 4)", HOSTILE),
    ("exit.c", "INSTRUCTION_WFI || !(csr_read(sstatus) & SSTATUS_SPP)", "INSTRUCTION_WFI",
     HOSTILE),
    ("plic.c", "        csr_clear(hvip, HVIP_VSEIP);\n", "", BOOT),
    ("plic.c", "        map_guest(GUEST_PLIC + page, 0, PAGE, 0);\n", "", HOST),
    ("plic.c", "        hfence_gvma();\n", "", HOST),
    ("plic.c", "    fence(); // before anything tells others that this hart is ready\n", "",
     HOST),
    ("plic.c", "host.plic + page, PAGE", "host.plic + CONTEXT, PAGE", HOST),
    ("exit.c", "        csr_set(hvip, HVIP_VSSIP);\n", "", SBI),
    ("hart.c", "    csr_write(hcounteren, -1);", "    //", BOOT),
    ("plic.c", "CONTEXT_SIZE * (2 * (hart) + 1)", "CONTEXT_SIZE", HOST),
    ("plic.c", "context < 2 * guest.harts", "context < 2 * MAX_HARTS", HOST),
    ("virtio.c", "        ask_for_interrupts(s);", "        ;", DISK),
    ("virtio.c", "s->features[0] | F_EVENT_IDX", "s->features[0]", HOST),
    ("virtio.c", "= s->features[1];", "= s->features[0];", HOST),
    ("virtio.c", "s->regs[QUEUE_SEL] = s->queue_sel = 0", "s->queue_sel = 0", HOST),
    ("virtio.c", "    value &= s->refused ? 0xff & ~STATUS_FEATURES_OK : 0xff;", "", SAFETY),
    # What SBI promises.
    ("sbi.c", "a[0] >> (guest.harts - a[1])", "a[0] >> (guest.harts - a[1] + 1)", HOST),
    ("sbi.c", "find_extension(a[0]) != NULL", "true", SBI),
    ("sbi.c", "type > SBI_SRST_WARM_REBOOT || ", "", SBI),
    ("sbi.c", "a[0] ? SBI_ERR_INVALID_PARAM : 0", "SBI_ERR_INVALID_PARAM", HOST),
    ("sbi.c", "if (a[EXTENSION] > LEGACY_SHUTDOWN)", "if (true)", HOST),
    ("hart.c", "to = HART_START_PENDING", "to = HART_STARTED", HOST),
    ("hart.c", "    v->start_opaque = opaque;\n", "", HOST),
    ("hart.c", "true))\n        stop_hart(v);\n    for", "true))\n        ;\n    for", HOST),
    ("exit.c", "            stop_hart(v);", "            ;", HOST),
    ("hart.c", "} while (host.resetting);", "} while (false);", HOST),
    ("hv.c", "args).error)", "args).value)", HOST),
    ("uart.c", "        stop_others(v);\n", "", HOST),
    ("sbi.c", "a[FUNCTION] <= e->last_function", "true", SBI),
    ("sbi.c", "    csr_clear(hvip, HVIP_VSTIP);\n", "",
     "tests/test_sbi.py -k without_sstc"),
    ("mem.c", "return mxr ? -1 : fetch(pc, SSTATUS_MXR)", "return -1", HOSTILE + " -k code"),
    ("trap.S", "        csrw    hstatus, t3\n", "", SBI),
    ("trap.S", "        csrw    sepc, t1\n", "", HOSTILE),
    # M-mode.
    ("mmode.c", "m->on = mode == MODE_M;", "m->on = true;", MMODE),
    ("mmode.c", "csr_set(vsstatus, old & SSTATUS_SIE)", "csr_set(vsstatus, 0)", MMODE),
    ("mmode.c", "        m->vsatp = csr_read(vsatp);\n", "", MMODE),
    ("mmode.c", "        csr_set(sie, SIP_STIP);\n", "", HOST),
    ("mmode.c", "m->csr[MENVCFG] & HENVCFG_STCE", "false", HOST),
    ("mmode.c", "pending & MIP_MEIP ? 11 :", "", HOST),
    # Who sees what, and when: memory ordering, which QEMU keeps even without fences.
    ("virtio.c", "    fence(); // the device must see our ring before it looks at it\n", "", HOST),
    ("virtio.c", "    fence(); // the device must see our rings before it looks at them\n", "", HOST),
    ("virtio.c", "        fence(); // acknowledge before we look what the device has done since\n",
     "", HOST),
    ("virtio.c", "    fence(); // the lock alone puts RAM in order, but not devices\n", "", HOST),
    ("virtio.c", "    fence(); // the PTE must be there before any hart walks again\n", "", HOST),
    ("virtio.c", "    fence();\n    atomic_flag_clear(&busy);", "    atomic_flag_clear(&busy);",
     HOST),
    ("virtio.c", "more ? d.next : 0", "d.next", HOST),
    ("virtio.c", "(more && d.next >= q->num)", "false", HOST),
    ("virtio.c", "            q->ours->desc[i].addr = (hpa_t)guest_ptr(GUEST_RAM, 0);",
     "            ;", HOST),
    ("hart.c", "    fence();          // the IPI comes after that\n", "", HOST),
    ("hart.c", "    fence_i(); // load() or another hart may just have written this code\n", "", HOST),
    # The host's harts.
    ("hart.c", "hlvx_hu(nothing, 0) >= 0 || ", "", HOST),
    ("hart.c", " || csr_read(htval) != nothing >> 2", "", HOST),
    # The device tree.
    ("fdt.c", '{NULL, "rng-seed"},', '', HOST),
    ("fdt.c", '(host.sstc || !same(from, "sstc"))', "true", HOST),
    ("fdt.c", "isa_has(from) &&", "true &&",
     "tests/test_boot.py -k isa"),
]


def killed(tree, tests):
    """The first test that fails, or None."""
    result = subprocess.run(
        f"/usr/bin/python3 -B -m pytest -x -q -n 2 --rootdir=. -p no:cacheprovider {tests}",
        shell=True,
        cwd=tree,
        capture_output=True,
        text=True,
        env={**os.environ, "QEMU": os.environ.get("QEMU", "qemu-system-riscv64")},
    )
    failed = [line for line in result.stdout.split("\n") if line.startswith(("FAILED", "ERROR"))]
    assert failed or result.returncode == 0, result.stdout + result.stderr
    return failed[0].split(" - ")[0].split()[1] if failed else None


def main(chosen):
    survivors = 0
    chosen = chosen or range(len(MUTANTS))
    for n in map(int, chosen):
        file, right, wrong, tests = MUTANTS[n]
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            copy_tree(tree)
            (tree / "build").symlink_to(ROOT / "build")
            text = (tree / file).read_text()
            assert text.count(right) == 1, f"{n}: {file} has not one {right!r}"
            (tree / file).write_text(text.replace(right, wrong))
            subprocess.run(["make", "-s", f"O={folder}/build"], cwd=tree, check=True)
            test = killed(tree, tests)
        survivors += not test
        what = f"{file}: {right.strip()!r} -> {wrong.strip()!r}"
        print(f"{n:2}", f"killed by {test}" if test else "SURVIVED", what, sep="  ", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed")
    return survivors > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
