"""The book's site: built once, and looked at in Chromium (site/browse.mjs), on a desktop in
light colours and on a phone in dark ones.
"""

import fcntl
import json
import os
import random
import re
import shutil
import struct
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from conftest import ROOT
from patience import Patience, piece

CHAPTERS = sorted((ROOT / "book/chapters").glob("*.md"))
SITE, NODE = ROOT / "build/site", ROOT / "build/site-node"
TABLES = json.loads((ROOT / "site/tables.json").read_text())
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")

# What "Type an instruction" is asked, besides its own examples: instruction, transformed.
ASKED = [
    ("00b72023", False), ("00B72023", False), ("0x00554783", False), ("0044_a503", False),
    ("0044e503", False), ("00053503", False), ("00b51023", False), ("00a58023", False),
    ("c30c", False), ("60a2", False), ("e406", False), ("8004", False), ("8444", False),
    ("8808", False), ("8c0c", False), ("1234c30c", False), ("00b7262f", False),
    ("1005a52f", False), ("18b5252f", False), ("00000013", False), ("00000073", False),
    ("00057507", False), ("0", False), ("ffffffff", False), ("00b02023", True),
    ("00b02021", True), ("00b23023", True), ("00022503", True), ("00004501", True),
]  # fmt: skip


def run(command, **options):
    result = Patience().run(command, stderr=subprocess.STDOUT, **options)
    assert result.returncode == 0, result.stdout[-8000:]
    return result.stdout


def pairs():
    """All instructions of 16 bits, some thousand others, and each as htinst reports it."""
    choose = random.Random(3)
    short = [n for n in range(1 << 16) if n & 3 != 3]
    loads = [choose.getrandbits(25) << 7 | opcode for opcode in (0x03, 0x23, 0x2F) for _ in range(4000)]
    others = [choose.getrandbits(32) for _ in range(10000)]
    reported = [choose.getrandbits(32) & ~0x7F | low for low in (0x01, 0x03, 0x21, 0x23, 0x2F) for _ in range(2000)]
    return [(n, 0) for n in short + loads + others] + [(n, 1) for n in reported]


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(NAME, MAKE): what MAKE(FILE) has written into the file NAME, made by one worker."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers

    def get(name, make):
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = folder / name
            if not file.exists():
                make(file.with_suffix(".new"))
                file.with_suffix(".new").rename(file)
            return file

    return get


@pytest.fixture(scope="session")
def site(once):
    once("site-built", lambda file: file.write_text(run(["make", "-C", ROOT, "site"])))
    return SITE


@pytest.fixture(scope="session")
def report(site, once):
    """What browse.mjs has found."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium")

    def browse(file):
        task = file.with_name("site-task.json")
        task.write_text(
            json.dumps(
                {
                    "chromium": CHROMIUM,
                    "patience": 240_000 * piece(),  # ms: a minute on a quiet machine
                    "judge": ["^index", "^chapters/", "^play/", "^code/mmio", "^code/trap", "^docs/", "^teachers"],
                    "search": ["plic_show", "htinst"],
                    "instructions": ASKED,
                    "pairs": pairs(),
                    "walks": [at for at, *_ in TABLES["examples"] + TABLES["vectors"]],
                    "gwalks": [at for at, _ in TABLES["gwalks"]],
                    "embedded": {page_of("08"): ".instruction", page_of("05"): ".walk"},
                    "copy": page_of("08"),
                }
            )
        )
        with open(file, "w") as output:
            subprocess.run(
                ["node", ROOT / "site/browse.mjs", SITE, task], cwd=NODE, stdout=output, check=True
            )

    return json.loads(once("site-report", browse).read_text())


def page_of(chapter):
    return next(f"chapters/{f.stem}.html" for f in CHAPTERS if f.name.startswith(chapter))


def test_lock_file():
    """npm takes the registry that it is configured for: the lock file names none."""
    text = (ROOT / "site/package-lock.json").read_text()
    assert '"resolved"' not in text and "registry" not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
    wanted = json.loads((ROOT / "site/package.json").read_text())
    for name, version in (wanted["dependencies"] | wanted["devDependencies"]).items():
        assert packages[f"node_modules/{name}"]["version"] == version


def test_pages(site):
    """There is a page for each chapter, with its title, and for each source file."""
    for chapter in CHAPTERS:
        title = re.search("^# (.*)$", chapter.read_text(), re.MULTILINE)[1]
        html = (site / f"chapters/{chapter.stem}.html").read_text()
        assert unescape(html).count(f"<title>{title} | "), chapter
    for pattern in ("*.c", "*.h", "*.S", "*.dts", "hv.ld"):
        for file in ROOT.glob(pattern):
            assert (site / f"code/{file.name}.html").exists(), file


def test_browser(report, request):
    """Every page loads, without errors, on both screens, and asks no other host."""
    assert report["foreign"] == []
    assert report["errors"] == []
    assert len(report["pages"]) > 30 + len(CHAPTERS)
    for path, sizes in report["pages"].items():
        for width, found in sizes.items():
            assert found["status"] == 200, path
            assert found["title"], path
            assert not (path.startswith("chapters/") and found["comments"]), path
            assert found["wide"] <= 0, f"{path} is {found['wide']} pixels too wide at {width}"
            assert found["dark"] == (width == "390"), path
            assert found["heading"] or path == "404.html", path


def test_links(report):
    """No link inside the site leads nowhere."""
    address, pages = report["address"], report["pages"]
    dead, count = [], 0
    for path, sizes in pages.items():
        for found in sizes.values():
            for link in found["links"]:
                if not link.startswith(address + "/"):
                    assert re.match("https://|mailto:", link), (path, link)
                    continue
                count += 1
                target, place = urldefrag(link.removeprefix(address + "/"))
                target = unquote(target)
                if target == "" or target.endswith("/"):
                    target += "index.html"
                if target in pages:
                    ids = set().union(*(size["ids"] for size in pages[target].values()))
                    if place and unquote(place) not in ids:
                        dead.append(f"{path}: #{place} in {target}")
                elif not (SITE / target).is_file():
                    dead.append(f"{path}: {target}")
    assert count > 1000
    assert not dead, sorted(set(dead))


def test_readable(report):
    """axe-core finds nothing: contrast, names, roles, order, in light and dark."""
    judged = 0
    for path, sizes in report["pages"].items():
        for width, found in sizes.items():
            if "violations" in found:
                judged += 1
                assert found["violations"] == [], (path, width)
    assert judged >= 2 * len(CHAPTERS)


def test_search(report):
    for found in report["search"], report["searchOnPhone"]:
        assert found["hits"]["htinst"][0].startswith("/" + page_of("08"))
        assert any(hit.startswith("/" + page_of("09")) for hit in found["hits"]["plic_show"])
        assert found["left"].startswith("/" + page_of("08"))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The same wrapper, compiled for this machine: decode(PAIRS) is a list of numbers."""
    folder = tmp_path_factory.mktemp("decode")
    (folder / "main.c").write_text(
        "#define printf hv_printf\n"  # the hypervisor has its own
        f'#include "{ROOT}/site/wasm/decode.c"\n'
        "#undef printf\n"
        "#include <stdio.h>\n"
        "int main(void) {\n"
        "    uint32_t in[2];\n"
        "    while (fread(in, sizeof in, 1, stdin))\n"
        '        printf("%u\\n", decode_packed(in[0], in[1]));\n'
        "}\n"
    )
    flags = ["-std=gnu11", "-O1", f"-I{ROOT}", "-fsanitize=undefined", "-fno-sanitize-recover"]
    run(["clang", *flags, "-Wno-unused-function", folder / "main.c", "-o", folder / "decode"])

    def decode(words):
        data = b"".join(struct.pack("<2I", *pair) for pair in words)
        result = subprocess.run([folder / "decode"], input=data, stdout=subprocess.PIPE, check=True)
        return list(map(int, result.stdout.split()))

    return decode


def fields(packed):
    """What the page's table shows for that."""
    boolean = ["false", "true"]
    return {
        "known": boolean[packed & 1],
        "store": boolean[packed >> 1 & 1],
        "sign_extend": boolean[packed >> 2 & 1],
        "width": str(packed >> 4 & 15),
        "reg": str(packed >> 8 & 31),
        "base": str(packed >> 13 & 31),
        "low": str(packed >> 18 & 7),
    }


def test_instruction(report, host):
    """The page answers what the same code says when it is compiled for this machine."""
    found, words = report["instruction"], pairs()
    assert len(words) > 80_000
    wrong = [pair for pair, a, b in zip(words, found["bulk"], host(words), strict=True) if a != b]
    assert not wrong, wrong[:20]
    asked = [(int(digits.replace("_", ""), 16), how) for digits, how in ASKED]
    asked = [(n if how or n & 3 == 3 else n & 0xFFFF, how) for n, how in asked]
    for (n, how), answer, packed in zip(asked, found["answers"], host(asked), strict=True):
        expected = fields(packed)
        assert {name: answer[name] for name in expected} == expected, (hex(n), how)
        kind = "store" if packed & 2 else "load"
        assert answer["sentence"].strip().startswith(f"A {kind} of" if packed & 1 else "No "), (hex(n), answer)
    assert "hexadecimal" in found["refused"]


def test_examples(report, host, tmp_path):
    """The examples are what they are called, as binutils has it."""
    plain = [e for e in report["instruction"]["examples"] if not e[2]]
    assert len(plain) > 8
    code = b"".join(int(digits, 16).to_bytes(len(digits) // 2, "little") for _, digits, *_ in plain)
    (tmp_path / "code").write_bytes(code)
    command = ["riscv64-linux-gnu-objdump", "-D", "-b", "binary", "-m", "riscv:rv64", "-M", "no-aliases"]
    lines = re.findall(r"^ +\w+:\t\w+ +\t(.*)", run([*command, tmp_path / "code"]), re.MULTILINE)
    assert [" ".join(line.split()) for line in lines] == [name for name, *_ in plain]
    for name, digits, how, shown in report["instruction"]["examples"]:
        expected = fields(host([(int(digits, 16), how)])[0])
        assert {key: shown[key] for key in expected} == expected, name


def test_walk(report):
    """The page prints what gdb's `hv walk` and `hv gwalk` did when the tables were recorded."""
    said = [text for *_, text in TABLES["examples"] + TABLES["vectors"]]
    assert len(said) > 50
    assert report["walk"]["bulk"] == said
    assert report["walk"]["said"] == said
    assert report["walk"]["gwalks"] == [text for _, text in TABLES["gwalks"]]
    assert "hexadecimal" in report["walk"]["refused"]
    ends = {re.sub(r"0x\w+|\d+", "N", text.splitlines()[-1]) for text in said}
    assert "HPA N" in ends and len(ends) > 3  # and faults of both stages
    assert (ROOT / "site/tables.json").stat().st_size < 300_000


def test_embedded(report):
    assert set(report["embedded"].values()) == {1}


def test_keyboard(report):
    """All can be done without a mouse, and one sees where one is."""
    found = report["keyboard"]
    assert found["skip"] == {"stops": 1, "focus": "VPContent"}
    unseen = [stop["name"] for stop in found["stops"] if not (stop["shows"] and stop["seen"])]
    assert not unseen, unseen
    assert found["instruction"]["store"] == "false" and found["instruction"]["reg"] == "10"
    assert found["checked"] and found["opened"]
    assert found["walk"] == TABLES["examples"][1][2]
    assert found["began"].startswith("/chapters/00")


def test_switches(report):
    found = report["switches"]
    assert (found["before"], found["after"], found["kept"]) == (False, True, True)
    listing = re.search("```diff\n(.*?)```", (ROOT / f"book/{page_of('08')[:-5]}.md").read_text(), re.DOTALL)[1]
    # Neither the signs nor the lines that go away.
    code = [line[1:] for line in listing.splitlines() if not line.startswith("-")]
    assert found["copied"].rstrip("\n") == "\n".join(code).rstrip("\n")


@needs_chromium
def test_pdf(site, tmp_path):
    """The printed book has all chapters, each one in its outline."""
    pdf = tmp_path / "book.pdf"
    run(["node", ROOT / "site/pdf.mjs", site, pdf], cwd=NODE)
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF-") and b"%%EOF" in data[-64:]
    pages = len(re.findall(rb"/Type /Page\b", data))
    assert pages > 4 * len(CHAPTERS), pages
    titles = [title.decode("utf-16-be", "replace") if title[:2] == b"\xfe\xff" else title.decode("latin-1")
              for title in re.findall(rb"/Title \(((?:[^()\\]|\\.)*)\)", data)]
    numbers = [int(m[1]) for title in titles if (m := re.match(r"(\d+)\. ", title))]
    assert numbers == [int(file.name[:2]) for file in CHAPTERS]
