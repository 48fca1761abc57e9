"""Names for what an exit's record says, as the specifications have them."""

import bisect

INTERRUPT = 1 << 63
SBI_CALL, FETCH, LOAD, VIRTUAL_INSTRUCTION, STORE = 10, 20, 21, 22, 23
WFI = VIRTUAL_INSTRUCTION, 0x10500073

# scause (Privileged Architecture, "Supervisor Cause Register", with H)
CAUSES = {
    2: "Illegal instruction",
    SBI_CALL: "Environment call from VS-mode",
    FETCH: "Instruction guest-page fault",
    LOAD: "Load guest-page fault",
    VIRTUAL_INSTRUCTION: "Virtual instruction",
    STORE: "Store/AMO guest-page fault",
    INTERRUPT | 1: "Supervisor software interrupt",
    INTERRUPT | 5: "Supervisor timer interrupt",
    INTERRUPT | 9: "Supervisor external interrupt",
}

# SBI 2.0; "legacy" is its chapter 5, where each function is an extension.
LEGACY = (
    "set_timer console_putchar console_getchar clear_ipi send_ipi remote_fence_i "
    "remote_sfence_vma remote_sfence_vma_asid shutdown"
).split()
EXTENSIONS = {
    0x10: "BASE get_spec_version get_impl_id get_impl_version probe_extension "
    "get_mvendorid get_marchid get_mimpid",
    0x54494D45: "TIME set_timer",
    0x735049: "IPI send_ipi",
    0x52464E43: "RFENCE remote_fence_i remote_sfence_vma remote_sfence_vma_asid "
    "remote_hfence_gvma_vmid remote_hfence_gvma remote_hfence_vvma_asid remote_hfence_vvma",
    0x48534D: "HSM hart_start hart_stop hart_get_status hart_suspend",
    0x53525354: "SRST system_reset",
    0x4442434E: "DBCN debug_console_write debug_console_read debug_console_write_byte",
}

# The 16550 has two registers at some addresses: one for loads, one for stores,
# and two others while LCR's bit DLAB is set.
UART_LOAD = "RBR/DLL IER/DLM IIR LCR MCR LSR MSR SCR".split()
UART_STORE = "THR/DLL IER/DLM FCR LCR MCR LSR MSR SCR".split()

# virtio 1.2, 4.2.2: the registers from each offset on.
VIRTIO = {
    0x000: "MagicValue Version DeviceID VendorID DeviceFeatures DeviceFeaturesSel",
    0x020: "DriverFeatures DriverFeaturesSel",
    0x030: "QueueSel QueueNumMax QueueNum",
    0x044: "QueueReady",
    0x050: "QueueNotify",
    0x060: "InterruptStatus InterruptACK",
    0x070: "Status",
    0x080: "QueueDescLow QueueDescHigh",
    0x090: "QueueDriverLow QueueDriverHigh",
    0x0A0: "QueueDeviceLow QueueDeviceHigh SHMSel SHMLenLow SHMLenHigh SHMBaseLow SHMBaseHigh",
    0x0C0: "QueueReset",
    0x0FC: "ConfigGeneration",
}
VIRTIO = {at + 4 * i: name for at in VIRTIO for i, name in enumerate(VIRTIO[at].split())}


def sbi_function(call):
    """"IPI.send_ipi", for a7 << 32 | a6."""
    extension, function = call >> 32, call & 0xFFFFFFFF
    if extension < len(LEGACY):
        return "legacy." + LEGACY[extension]
    name, *functions = EXTENSIONS.get(extension, hex(extension)).split()
    return f"{name}.{functions[function] if function < len(functions) else function}"


def plic_register(offset, store):
    if offset < 0x200000:
        return "priority" if offset < 0x1000 else "pending" if offset < 0x2000 else "enable"
    return {0: "threshold", 4: "complete" if store else "claim"}.get(offset % 0x1000, "reserved")


def clint_register(offset):
    return "msip" if offset < 0x4000 else "mtimecmp" if offset < 0xBFF8 else "mtime"


def register(gpa, store):
    """"uart.IIR", at a guest-physical address (guest.dts); "elsewhere"."""
    if 0x00100000 <= gpa < 0x00100004:
        return "test"
    if 0x02000000 <= gpa < 0x02010000:
        return "clint." + clint_register(gpa - 0x02000000)
    if 0x0C000000 <= gpa < 0x0C600000:
        return "plic." + plic_register(gpa - 0x0C000000, store)
    if 0x10000000 <= gpa < 0x10000008:
        return "uart." + (UART_STORE if store else UART_LOAD)[gpa - 0x10000000]
    if 0x10001000 <= gpa < 0x10009000:
        slot, offset = divmod(gpa - 0x10001000, 4096)
        return f"virtio{slot}." + ("Config" if offset >= 0x100 else VIRTIO.get(offset, hex(offset)))
    return "elsewhere"


def cause_name(cause, detail):
    if (cause, detail) == WFI:
        return CAUSES[cause] + ": WFI"
    kind = "Interrupt" if cause & INTERRUPT else "Exception"
    return CAUSES.get(cause) or f"{kind} {cause & ~INTERRUPT}"


def name(cause, detail):
    """"store plic.enable", "sbi IPI.send_ipi", "wfi", or the cause's name.

    DETAIL is the call or the guest-physical address, where there is one, or the
    instruction.
    """
    if cause == SBI_CALL:
        return "sbi " + sbi_function(detail)
    if cause in (FETCH, LOAD, STORE):
        what = {FETCH: "fetch ", LOAD: "load ", STORE: "store "}[cause]
        return what + ("elsewhere" if cause == FETCH else register(detail, cause == STORE))
    return "wfi" if (cause, detail) == WFI else cause_name(cause, detail)


class Symbols:
    """Names for addresses, from what nm prints, or a System.map."""

    def __init__(self, file):
        lines = (line.split() for line in open(file)) if file else []
        self.sorted = sorted((int(at, 16), what) for at, kind, what in lines if kind in "tTD")

    def at(self, pc):
        """"function+0x12", or "" for an address that is in none of them."""
        i = bisect.bisect(self.sorted, (pc, "\x7f")) - 1
        if not 0 <= i < len(self.sorted) - 1:  # anything may follow the last one
            return ""
        return f"{self.sorted[i][1]}+{pc - self.sorted[i][0]:#x}"
