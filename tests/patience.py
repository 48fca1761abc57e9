"""How long to wait for what should come before we call it a hang.

1 MiB of text on the console needs 40 seconds on a quiet machine, and 500 on one
that has ten times more to do than it can manage.  So the limit is no number of
seconds.  It is a number of pieces of work, and how long a piece takes is
measured while we wait.  On a slow or busy machine we wait longer; on a quiet
one a hang is found in about two minutes.
"""

import subprocess
import sys
import time

# WORK takes a quarter of a second on the machine where PIECES was chosen.
# There, PIECES is three times what the longest wait needs.
WORK = "for _ in range(10_000_000): pass"
PIECES = 500
STEP = 30  # seconds between two measurements, which load the machine


def piece():
    """Seconds that a piece of work takes now.

    Linux may share out the CPUs among sessions, so the piece gets a session of
    its own, as a guest does.
    """
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", WORK], check=True, start_new_session=True)
    return time.monotonic() - start


class Patience:
    """For one thing that should come."""

    def __init__(self, pieces=PIECES):
        self.left = pieces
        self.since, self.seconds = time.monotonic(), STEP

    def step(self):
        """How many seconds to wait now, at most; then ask again."""
        waited = time.monotonic() - self.since
        if waited >= self.seconds:
            takes = piece()
            self.left -= waited / takes
            assert self.left >= 1, "it hangs"
            self.since, self.seconds = time.monotonic(), min(STEP, self.left * takes)
            waited = 0
        return self.seconds - waited

    def until(self, wait):
        """Call WAIT(SECONDS) until it returns something true; return that."""
        while not (came := wait(self.step())):
            pass
        return came

    def run(self, command, **options):
        """subprocess.run() without a terminal; what it says is text."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            list(map(str, command)),
            **{"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "text": True, **options},
        ) as process:
            try:
                while True:
                    try:
                        said = process.communicate(timeout=self.step())
                        return subprocess.CompletedProcess(command, process.returncode, *said)
                    except subprocess.TimeoutExpired:
                        pass
            except BaseException:
                process.kill()
                raise
