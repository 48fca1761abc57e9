"""decode() in mmio.c against binutils: all compressed instructions, and samples
of all others, as they are in the guest's code and as htinst reports them.
"""

import random
import re
import struct
import subprocess

import pytest

from conftest import ROOT
from test_host import build

# Mnemonic: width, and whether the register is filled with the sign.
LOADS = {"lb": (1, 1), "lh": (2, 1), "lw": (4, 1), "ld": (8, 0)}
LOADS |= {"lbu": (1, 0), "lhu": (2, 0), "lwu": (4, 0)}
STORES = {"sb": (1, 0), "sh": (2, 0), "sw": (4, 0), "sd": (8, 0)}


def objdumps():
    """Debian 12's knows neither Zcb's c.lbu and its like, nor that max means
    all extensions."""
    yield ["riscv64-linux-gnu-objdump"]
    if (ROOT / "build/judges/run").exists():
        yield [ROOT / "build/judges/run", "riscv64-linux-gnu-objdump"]


def disassemble(objdump, instructions, tmp_path):
    """For each of INSTRUCTIONS its mnemonic, its operands, its length."""
    code, at = bytearray(), []
    for inst in instructions:
        at.append(len(code))
        code += inst.to_bytes(2 if inst & 3 != 3 else 4, "little")
        if inst & 0x1F == 0x1F:  # this begins a longer one, of up to 22 bytes
            code += b"\x01\x00" * 10
    (tmp_path / "code").write_bytes(code)
    command = [*objdump, "-D", "-z", "-b", "binary", "-m", "riscv:rv64"]
    command += ["-M", "no-aliases,numeric,max", tmp_path / "code"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = re.compile(r"^ *([0-9a-f]+):\t([0-9a-f ]+)\t(\S+)[ \t]*(.*)", re.MULTILINE)
    found = {
        int(address, 16): (mnemonic, operands, len(code.replace(" ", "")) // 2)
        for address, code, mnemonic, operands in line.findall(text)
    }
    return [found[address] for address in at]


def meaning(mnemonic, operands, length):
    """What decode.c should say, or begin with."""
    name = mnemonic.removeprefix("c.").removesuffix("sp")
    table = LOADS if name in LOADS else STORES
    if name in table:
        width, signed = table[name]
        register = re.match(r"x(\d+),", operands)[1]
        kind = "load" if name in LOADS else "store"
        return f"{kind} {width} {signed} {register} {length}"
    # For these decode() tells the kind of the fault: QEMU 7.2 calls an AMO a load.
    if re.match(r"amo|sc\.", mnemonic):
        return f"nostore {length}"
    return f"noload {length}" if re.match(r"lr\.", mnemonic) else "no"


def transformed(said):
    """htinst for an instruction that means that, with an address offset of 5."""
    kind, width, signed, register, length = said.split()
    funct3 = {1: 0, 2: 1, 4: 2, 8: 3}[int(width)]
    if kind == "store":
        inst = 0x23 | funct3 << 12 | int(register) << 20
    else:
        unsigned = signed == "0" and width != "8"
        inst = 0x03 | (funct3 | unsigned << 2) << 12 | int(register) << 7
    return (inst | 5 << 15) & ~(2 if length == "2" else 0)


def samples():
    """All of opcode, funct3 and AMO's funct5, with samples of all other fields."""
    choose = random.Random(1).choice
    for opcode in range(3, 128, 4):
        for funct3 in range(8):
            for funct5 in range(32):
                for _ in range(8):
                    yield (
                        opcode
                        | choose([0, 1, 2, 8, 15, 16, 31]) << 7
                        | funct3 << 12
                        | choose([0, 1, 2, 8, 15, 16, 31]) << 15
                        | choose([0, 1, 2, 8, 15, 16, 31]) << 20
                        | choose([0, 1, 2, 3]) << 25
                        | funct5 << 27
                    )


def compare(decode, words, expected):
    """WORDS: pairs of instruction and whether it is transformed."""
    data = b"".join(struct.pack("<2I", *pair) for pair in words)
    output = subprocess.run([decode], input=data, stdout=subprocess.PIPE, check=True)
    lines = output.stdout.decode().splitlines()
    assert len(lines) == len(words) == len(expected)
    wrong = [
        f"{word:#x} (transformed: {how}): {line}, should be {said}"
        for (word, how), line, said in zip(words, lines, expected)
        if line != said and not (said == "no" and line.startswith("no"))
    ]
    assert not wrong, f"{len(wrong)}: " + "; ".join(wrong[:20])


# c.lwsp and c.ldsp to x0.  The hart itself refuses them, so whatever decode()
# says about them does not matter.
NEVER = {0x4002 | imm << 2 | bit << 12 for imm in range(32) for bit in range(2)}
NEVER |= {never | 0x2000 for never in NEVER}


@pytest.mark.parametrize("which", range(2), ids=["system", "newer"])
def test_decoder(which, tmp_path, report):
    found = list(objdumps())
    if which >= len(found):
        pytest.skip("there is no newer binutils")
    objdump = found[which]
    choose = random.Random(2)
    halves = [h | (choose.randrange(1 << 16) << 16 if h & 3 == 3 else 0) for h in range(1 << 16)]
    words = [*halves, *samples()]
    said = [meaning(*line) for line in disassemble(objdump, words, tmp_path)]
    zcb = any(line.startswith("load 1 0 ") and line.endswith(" 2") for line in said)
    decode = build("decode", tmp_path)
    pairs = []
    for word, line in zip(words, said):
        unknown_zcb = not zcb and word & 0xe003 == 0x8000 and word <= 0xffff
        if word not in NEVER and not unknown_zcb:
            pairs.append((word, line))
    compare(decode, [(word, 0) for word, _ in pairs], [line for _, line in pairs])
    accesses = sorted({line for _, line in pairs if not line.startswith("no")})
    compare(decode, [(transformed(line), 1) for line in accesses], accesses)
    report(
        f"{len(pairs):7} instructions decoded as binutils does, "
        f"{len(accesses)} transformed ones"
    )
