"""What the hypervisor costs, in figures that are the same each time.

tests/accepted.json has the figures that were accepted, for each major version
of QEMU and the guest's kernel of that time.  A change that makes one of them
worse fails here.  After a change that makes them better, or that is worth its
price, put the reported figures in.
"""

import json
import re

import pytest

from bench import Bench, compare
from conftest import ROOT


def test_deterministic_figures(qemu, report, request, tree, tmp_path):
    name = request.node.callspec.id
    found, exits, _ = Bench(qemu, tmp_path, tree).deterministic()
    report(f"deterministic figures ({name}): {json.dumps(found)}")
    for where, count in exits.items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in count.most_common())
        report(f"VM exits {where}, quiet ({name}): {kinds}")
    accepted = json.loads((ROOT / "tests/accepted.json").read_text())
    release = (ROOT / "build/linux/include/config/kernel.release").read_text()
    these = f"QEMU {re.search(r'[0-9]+', name)[0]}, Linux {re.match(r'[0-9]+.[0-9]+', release)[0]}"
    if these not in accepted:
        pytest.skip(f"tests/accepted.json has no figures for {these}")
    assert found.keys() == accepted[these].keys()
    worse, better = compare(found, accepted[these])
    for line in better:
        report(f"better than in tests/accepted.json ({name}): {line}")
    assert not worse
