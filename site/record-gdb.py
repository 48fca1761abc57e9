"""In gdb, after gdb/hv.py, for site/record: `python dump(FILE)` writes what the machine
has in its page tables.  It uses hv.py's functions, so both say the same.
"""

import json
import re
from pathlib import Path


def follow(atp, levels, wide, read):
    """Each table that can be reached from the root: {address: {index: entry}}."""
    found, leaves = {}, []

    def visit(address, level, base):
        entries = found.setdefault(f"{address:#x}", {})
        size = 4 * 4096 if wide and level == levels - 1 else 4096
        table = read(address, size)
        for index in range(size // 8):
            pte = int.from_bytes(table[8 * index : 8 * index + 8], "little")
            if pte:  # what is not valid is printed, too
                entries[str(index)] = f"{pte:#x}"
            if not pte & 1:
                continue
            at, target = base | index << 12 + 9 * level, (pte >> 10 & (1 << 44) - 1) << 12
            if pte & 10:
                leaves.append((at, target, level, pte))
            elif level:
                visit(target, level - 1, at)

    visit((atp & (1 << 44) - 1) << 12, levels - 1, 0)
    return found, leaves


def dump(path):
    def said(command):
        return gdb.execute(command, to_string=True).rstrip("\n")

    satp = guest_csr("satp")
    scheme, levels = MODES[satp >> 60]
    bits = 12 + 9 * levels

    first, pages = follow(satp, levels, False, lambda gpa, size: physical(second_stage(gpa), size))
    second, _ = follow(hgatp(), 3, True, physical)

    def canonical(gva):
        return gva | (1 << 64) - (1 << bits) if gva >> bits - 1 else gva

    def mapped(gpa):
        """Where the guest has mapped the page at GPA for itself, below its RAM."""
        return next((canonical(at) for at, to, level, _ in pages if level == 0 and to == gpa), None)

    pc, sp = register("pc"), register("sp")
    banner = int(gdb.parse_and_eval("(long)&linux_banner")) & (1 << 64) - 1
    start = int(gdb.parse_and_eval("(long)&start_kernel")) & (1 << 64) - 1
    linear = next(canonical(at) for at, to, level, pte in pages if to == 0x80400000 and not pte & 16)
    examples = [
        (start, "start_kernel, where Linux's C code begins"),
        (banner, "linux_banner, a string in Linux's read-only data"),
        (linear + 0x123456, "Linux's own map of all RAM"),
        (pc, "the instruction that the shell was at"),
        (sp, "the shell's stack"),
    ]
    for gpa, offset, text in (
        (0x10000000, 0, "the UART's first register, as Linux has mapped it"),
        (0xC000000, 0x2080, "the PLIC: which interrupts are enabled (chapter 8)"),
        (0xC201000, 4, "the PLIC: the claim register, on a page of its own"),
        (0xC200000, 4, "the PLIC: M-mode's claim register, which is not the guest's"),
    ):
        at = mapped(gpa)
        if at is not None:
            examples.append((at + offset, text))
    examples += [
        (0x1000, "nothing is mapped there"),
        (1 << 60, f"no address of {scheme}: its upper bits differ"),
    ]
    gwalks = [0x80200000, 0x80000000, 0x0C002080, 0x0C200004, 0x0C201004, 0x10000000, 0x10001050]
    gwalks += [0x100000, 0x101000, 0x1000, 1 << 41, 0x2000000]
    # A few from each kind of page, by stride, so that the choice needs no dice.
    some = [canonical(at) + (at >> 5 & 0xFF8) for at, *_ in pages[:: max(1, len(pages) // 40)]]
    some += [gva + 0x1000 for gva, _ in examples if gva < (1 << 64) - 0x1000]
    some += [(1 << bits - 1) - 8, 1 << bits - 1, (1 << 64) - (1 << bits - 1), (1 << 64) - 8]
    Path(path).write_text(
        json.dumps(
            {
                "satp": f"{satp:#x}",
                "hgatp": f"{hgatp():#x}",
                "qemu": re.search(r"\d+\.\d+", said("monitor info version"))[0],
                "places": {
                    "ram": int(guest()["ram_size"]),
                    "devices": devices(),
                    "virtio": VIRTIO,
                    "uart": UART,
                },
                "first": first,
                "second": second,
                "examples": [[f"{at:#x}", text, said(f"hv walk {at:#x}")] for at, text in examples],
                "gwalks": [[f"{at:#x}", said(f"hv gwalk {at:#x}")] for at in gwalks],
                "vectors": [[f"{at:#x}", said(f"hv walk {at:#x}")] for at in some],
            }
        )
    )
