"""Runs the hypervisor's files, unchanged, on this machine inside a fake one
(tests/host): unit tests with the sanitizers, how much of the code they run, and
fuzzers.
"""

import json
import math
import os
import re
import subprocess

import pytest

from conftest import ROOT
from patience import piece

HOST = ROOT / "tests/host"
# The files that handle what a guest asks for.
FILES = ["mem", "mmio", "plic", "sbi", "uart", "virtio"]
BRANCHES = 95  # per cent


def run(command, **options):
    result = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,
    )
    assert result.returncode == 0, result.stdout[-8000:]
    return result.stdout


def build(program, out):
    run(["make", "-C", HOST, f"O={out}", out / program])
    return out / program


def test_unit(tmp_path, report):
    """cmocka's tests pass, and take nearly every branch both ways."""
    unit = build("unit", tmp_path)
    raw, data = tmp_path / "raw", tmp_path / "data"
    output = run([unit], env=dict(os.environ, LLVM_PROFILE_FILE=str(raw)))
    passed = output.count("[       OK ]")
    assert passed > 0
    run(["llvm-profdata", "merge", "-o", data, raw])
    command = ["llvm-cov", "export", "-summary-only", "-instr-profile", data, unit]
    files = json.loads(run(command))["data"][0]["files"]
    files = {os.path.realpath(HOST / f["filename"]): f["summary"] for f in files}
    report(f"{passed:7} unit tests on the host; branches that they take:")
    for name in FILES:
        branches = files[str(ROOT / f"{name}.c")]["branches"]
        report(
            f"{branches['percent']:7.1f} % of {name}.c: "
            f"{branches['covered']} of {branches['count']}"
        )
        assert branches["percent"] > BRANCHES, name


@pytest.mark.parametrize("name", ["mmio", "sbi"])
def test_fuzz(name, tmp_path, report):
    """libFuzzer finds nothing in FUZZ_SECONDS, starting from the inputs that we keep.

    If it does find something, its output shows the input in Base64, and a run with
    the same SEED finds it again.
    """
    fuzzer = build(f"fuzz_{name}", tmp_path)
    new = tmp_path / "new"
    new.mkdir()
    hang = math.ceil(40 * piece())  # seconds for one input: 10 on a quiet machine
    output = run(
        [fuzzer, f"-max_total_time={os.environ.get('FUZZ_SECONDS', 60)}"]
        + [f"-seed={os.environ['SEED']}", f"-timeout={hang}", "-print_final_stats=1"]
        + [f"-artifact_prefix={tmp_path}/", new, HOST / "corpus" / name],
    )
    runs = int(re.search(r"stat::number_of_executed_units: (\d+)", output)[1])
    rate = int(re.search(r"stat::average_exec_per_sec: +(\d+)", output)[1])
    covered = re.findall(r"cov: (\d+)", output)[-1]
    report(f"{runs:7} runs of fuzz_{name}, {rate} a second, {covered} edges")
    assert runs > len(list((HOST / "corpus" / name).iterdir()))
