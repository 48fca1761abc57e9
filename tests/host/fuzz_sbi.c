// libFuzzer: SBI calls with anything in their registers, and a firmware that
// answers anything.  judge() knows which calls may get through to it.
#include "fuzz.h"

// Returns an argument, often one at the limit of what is allowed.
static uint64_t argument(void) {
    static const uint64_t edges[] = {
        0,
        1,
        2,
        3,
        4,
        -1ul,
        1ul << 32,
        1ul << 63,
        0x80000000,
        GUEST_RAM + GUEST_RAM_SIZE - 1,
        GUEST_RAM,
        GUEST_RAM + GUEST_RAM_SIZE,
        GUEST_RAM_SIZE,
    };
    uint64_t kind = take(1);
    if (kind < LENGTH(edges))
        return edges[kind];
    return kind & 1 ? take(8) : kind & 2 ? GUEST_RAM + take(3) : take(1);
}

static uint64_t extension(void) {
    static const uint64_t ids[] = {
        SBI_EXT_BASE, SBI_EXT_TIME, SBI_EXT_IPI,  SBI_EXT_RFENCE,
        SBI_EXT_HSM,  SBI_EXT_SRST, SBI_EXT_DBCN,
    };
    uint64_t kind = take(1);
    return kind < 16                 ? kind
           : kind < 16 + LENGTH(ids) ? ids[kind - 16]
                                     : take(kind & 1 ? 8 : 4);
}

static unsigned characters; // written or read by one call

static void judge(const struct call *c) {
    // A mask may name only harts that the guest has.
    bool harts = c->a[1] == -1ul || (c->a[1] < guest.harts &&
                                     c->a[0] < 1ul << (guest.harts - c->a[1]));
    switch (c->id) {
    case LEGACY_PUTCHAR:
    case LEGACY_GETCHAR: check(++characters <= 256); break;
    case LEGACY_SHUTDOWN: break;
    case SBI_EXT_BASE: check(c->function >= 4 && c->function <= 6); break;
    case SBI_EXT_TIME: check(c->function == 0); break;
    case SBI_EXT_IPI: check(c->function == 0 && harts); break;
    case SBI_EXT_RFENCE:
        check(harts &&
              (c->function == 0 || c->function == 5 || c->function == 6));
        break;
    case SBI_EXT_SRST:
        check(c->function == 0 && c->a[0] <= 2 && c->a[1] <= 1);
        break;
    default: check(!"an extension that is not for the guest");
    }
}

static struct sbiret any(const struct call *call) {
    judge(call);
    uint64_t error = take(1), value = take(1);
    for (unsigned hart = 0; host.resetting && hart < guest.harts; hart++)
        if (hart != this_hart)
            vcpus[hart].state = HART_STOPPED; // stop_others() waits for that
    return (struct sbiret){(int8_t)error, value};
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    make_machine();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    data = input;
    size = length;
    reset_harts();
    the_firmware = any;
    host.sstc = take(1) & 1;
    struct vcpu *v = &vcpus[take(1) % guest.harts];
    this_hart = v->hart;
    while (size) {
        uint64_t *a = &v->regs[10];
        a[7] = extension();
        a[6] = take(1);
        a[6] = a[6] < 0x80 ? a[6] : take(8);
        for (unsigned i = 0; i < 5; i++)
            a[i] = argument();
        characters = 0;
        csrs.scause = CAUSE_VIRTUAL_SUPERVISOR_ECALL;
        csrs.sepc = GUEST_RAM + PC;
        csrs.vstvec = 0x1000;
        enum how how = how_ends(handle_exit(v));
        check(how != DIED);
        check(how != ASLEEP || v->state == HART_STOPPED);
        v->state = HART_STARTED;
        check(how == ASLEEP    ? true
              : how == ENTERED ? guest_ptr(csrs.sepc, 4) != NULL
                               : csrs.sepc == GUEST_RAM + PC + 4 ||
                                     csrs.sepc == csrs.vstvec);
        check(!said[0]);
    }
    return 0;
}
