"""What a driver does wrong must not reach the device or hurt the hypervisor.

The driver is a shell script in the guest, which writes to the registers of the
entropy device with devmem, and to rings in RAM that Linux was told not to use.
"""

STOPS = b"stops: a wrong descriptor or index"
NEEDS_RESET = 0x40

# The rings, above the 766 MiB that Linux uses from 0x80200000 on; RAM ends
# at 0xC0000000.
DESC, AVAIL, USED, DATA = 0xB0000000, 0xB0001000, 0xB0002000, 0xB0003000

# For the guest's shell: read and write a register; write descriptor $1; write
# ring[0] = $2 and idx = $1; negotiate; set up queue 0; all of that as it should be.
SETUP = [
    "r() { devmem $(($base + $1)) 32; }",
    "w() { devmem $(($base + $1)) 32 $2; }",
    f"desc() {{ a=$(({DESC} + 16 * $1)); devmem $a 64 $2; devmem $((a + 8)) 32 $3; "
    "devmem $((a + 12)) 16 $4; devmem $((a + 14)) 16 $5; }",
    f"avail() {{ devmem {AVAIL + 4} 16 $2; devmem {AVAIL + 2} 16 $1; }}",
    "begin() { w 0x70 0; w 0x70 1; w 0x70 3; w 0x24 1; w 0x20 1; w 0x24 0; "
    "w 0x20 0; w 0x70 11; w 0x30 0; }",
    "ring() { w 0x38 $1; w 0x80 $2; w 0x84 0; w 0x90 $3; w 0x94 0; w 0xa0 $4; "
    "w 0xa4 0; w 0x44 1; }",
    f"good() {{ begin; devmem {AVAIL} 32 0; devmem {USED} 32 0; "
    f"ring 8 {DESC} {AVAIL} {USED}; w 0x70 15; }}",
    "drivers=/sys/bus/virtio/drivers/virtio_rng",
    "d=$(basename $drivers/virtio?)",
    "base=0x$(readlink -f $drivers/$d | sed 's/.*platform.soc.//; s/[.].*//')",
    "echo $d > $drivers/unbind",
]

RING = f"{DESC} {AVAIL} {USED}"
WRONG = {
    "size 0": f"begin; ring 0 {RING}",
    "size 3": f"begin; ring 3 {RING}",
    "size 65535": f"begin; ring 65535 {RING}",
    "size 2^31": f"begin; ring 0x80000000 {RING}",
    "descriptors below RAM": f"begin; ring 8 0x7ffffff0 {AVAIL} {USED}",
    "avail ring across the end of RAM": f"begin; ring 8 {DESC} 0xbffffff8 {USED}",
    "used ring in a device": f"begin; ring 8 {DESC} {AVAIL} 0x10000000",
    "descriptors misaligned": f"begin; ring 8 {DESC + 8} {AVAIL} {USED}",
    "used ring misaligned": f"begin; ring 8 {DESC} {AVAIL} {USED + 2}",
    "buffer below RAM": "good; desc 0 0x1000 64 2 0; avail 1 0; w 0x50 0",
    "buffer across the end of RAM": "good; desc 0 0xbffffff0 17 2 0; avail 1 0; w 0x50 0",
    "buffer wraps": "good; desc 0 0xffffffffffffffff 64 2 0; avail 1 0; w 0x50 0",
    "length 2^32-1": f"good; desc 0 {DATA} 0xffffffff 2 0; avail 1 0; w 0x50 0",
    "head too large": f"good; desc 0 {DATA} 64 2 0; avail 1 8; w 0x50 0",
    "next too large": f"good; desc 0 {DATA} 64 3 65535; avail 1 0; w 0x50 0",
    "a cycle": f"good; desc 0 {DATA} 64 3 1; desc 1 {DATA} 64 3 0; avail 1 0; w 0x50 0",
    "itself": f"good; desc 0 {DATA} 64 3 0; avail 1 0; w 0x50 0",
    "indirect": f"good; desc 0 {DATA} 64 4 0; avail 1 0; w 0x50 0",
    "avail index too far ahead": f"good; desc 0 {DATA} 64 2 0; avail 9 0; w 0x50 0",
}


# Here QueueReady stays 0; with the others the queue is ready, and needs a reset.
NEVER_READY = [name for name, wrong in WRONG.items() if wrong.startswith("begin")]


def test_bad_driver(boot):
    """The device never sees it, but says that it needs a reset.  The console
    says why, once."""
    with boot("-p", "quiet mem=766M", trouble=True) as guest:
        for line in SETUP:
            guest.output(line)
        for name, wrong in WRONG.items():
            before = guest.console.count(STOPS)
            guest.output(wrong)
            if name in NEVER_READY:
                assert int(guest.output("r 0x44"), 16) == 0, name
                stops = 0
            else:
                assert int(guest.output("r 0x70"), 16) & NEEDS_RESET, name
                stops = 1
            guest.output("w 0x50 0")
            assert guest.console.count(STOPS) == before + stops, name
            guest.output("w 0x70 0")
            assert int(guest.output("r 0x70"), 16) == 0, name

        # Not wrong enough to stop for: too early, or for a queue that is not there.
        guest.output("begin; w 0x50 0; good; w 0x50 1; w 0x50 0xffffffff")
        assert int(guest.output("r 0x70"), 16) == 15

        # A correct request still works: 64 bytes of entropy.
        guest.output(f"desc 0 {DATA} 64 2 0; avail 1 0; w 0x50 0")
        guest.output(f"until [ $(devmem {USED + 2} 16) = 0x0001 ]; do :; done")
        assert int(guest.output(f"devmem {USED + 8} 32"), 16) == 64
        guest.output("w 0x70 0; echo $d > $drivers/bind")
        guest.output("dd if=/dev/hwrng of=/dev/null bs=64 count=4")
        guest.poweroff()


def test_refused_feature(boot):
    """A feature that was not offered: FEATURES_OK does not stay."""
    with boot("-p", "quiet mem=766M") as guest:
        for line in SETUP:
            guest.output(line)
        guest.output("w 0x70 0; w 0x70 3; w 0x24 0; w 0x20 0x10000000; w 0x70 11")
        assert int(guest.output("r 0x70"), 16) == 3
        guest.output("w 0x14 1")  # and of these, VERSION_1 is the only one offered
        assert int(guest.output("r 0x10"), 16) == 1
        guest.poweroff()
