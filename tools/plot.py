#!/usr/bin/python3
"""plot.py TRACE PICTURE: boots once with --trace, and draws its exits (SVG)."""

import json
import os
import subprocess
import sys

# Kinds of exits: how the names in a trace begin, the label, the colour.  The
# colours can be told apart on white and on black, and by the colour-blind.
KINDS = [
    (("load uart", "store uart"), "UART (console)", "#0072b2"),
    (("load virtio", "store virtio"), "virtio (disk, entropy)", "#d55e00"),
    (("load plic", "store plic"), "PLIC (interrupts)", "#009e73"),
    (("sbi RFENCE",), "SBI: fences", "#cc79a7"),
    (("sbi",), "SBI: all else", "#8a6fd1"),
    (("wfi",), "WFI (sleep)", "#999999"),
    (("",), "interrupts to us", "#c9a400"),
]


def boot(trace):
    """Boot the guest, and type poweroff at its prompt."""
    pipe = subprocess.PIPE
    command = ["./run.sh", "--trace", trace]
    qemu = subprocess.Popen(command, stdin=pipe, stdout=pipe)
    seen = b""
    while not seen.endswith(b"guest:~# "):
        byte = os.read(qemu.stdout.fileno(), 1)
        if not byte:
            sys.exit("plot.py: no prompt came")
        seen += byte
    qemu.stdin.write(b"poweroff\n")
    qemu.communicate()


def growth(trace):
    """For each kind, the points (seconds, exits until then)."""
    points = [[] for _ in KINDS]
    with open(trace) as file:
        events = json.load(file)["traceEvents"]
    for event in events:
        if event["ph"] == "X":
            kind = next(i for i, k in enumerate(KINDS) if event["name"].startswith(k[0]))
            points[kind].append((event["ts"] / 1e6, len(points[kind]) + 1))
    return points


def said(trace, text):
    """When the guest had written TEXT to its console, in seconds."""
    shown = ""
    with open(trace) as file:
        for event in json.load(file)["traceEvents"]:
            if event["name"] == "store uart.THR/DLL":
                shown += chr(int(event["args"]["value"], 16))
                if shown.endswith(text):
                    return event["ts"] / 1e6
    return sys.exit(f"plot.py: the console never said {text}")


STYLE = """
set terminal svg size 880,460 font 'Helvetica,Arial,sans-serif,14' background '#ffffff'
set encoding utf8
set border 3 lc '#57606a'
set tics nomirror out textcolor '#24292f'
set title '{/=17 VM exits of Linux on one hart, from power-on to power-off}' tc '#24292f'
set xlabel 'seconds since power-on' tc '#24292f'
set ylabel 'exits until then' tc '#24292f'
set rmargin 28
set key at graph 1.05, graph 0.95 left top title '{/:Bold exits in all}' left Left reverse samplen 1.5 spacing 1.5 tc '#24292f'
set logscale y
set format y '%.0f'
set grid ytics lc '#d0d7de' lw 1
"""


def draw(trace, picture):
    points = growth(trace)
    end = max(kind[-1][0] for kind in points if kind)
    script = [STYLE, f"set output '{picture}'", f"set xrange [0:{end * 1.02}]"]
    script.append(f"set yrange [0.8:{2 * max(map(len, points))}]")
    for text, label in ("Run /init", "init"), ("guest:~# ", "shell"):
        at = said(trace, text)
        script.append(f"set arrow from {at},graph 0 to {at},graph 1 nohead dt 3 lc '#57606a'")
        script.append(f"set label '{label}  ' at {at},graph 0.96 right tc '#57606a'")
    plots = []
    order = sorted(range(len(KINDS)), key=lambda i: -len(points[i]))
    for i in order:
        if points[i]:
            each_ms = {f"{at:.3f}": number for at, number in points[i]}
            lines = [f"{at} {number}" for at, number in each_ms.items()]
            script += [f"$kind{i} << EOD", *lines, f"{end:.3f} {len(points[i])}", "EOD"]
            title = f"{len(points[i]):,}  {KINDS[i][1]}"
            plots.append(f"$kind{i} with steps lw 2.2 lc '{KINDS[i][2]}' title '{title}'")
    script.append("plot " + ", ".join(plots))
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)


if __name__ == "__main__":
    boot(sys.argv[1])
    draw(*sys.argv[1:])
