"""A command that imports for seconds says at once that it is at work."""

import subprocess
import sys

SCRIPT = """
import dataclasses, sys, time
from ccop_hub.console import Command, program
from ccop_hub.validation import Validated

@dataclasses.dataclass(frozen=True)
class Settings(Validated):
    pass

def run(_):
    deadline = time.monotonic() + 60
    while {waits} and time.monotonic() < deadline and not printed:
        time.sleep(0.01)

printed = []
class Stream:
    def write(self, text): printed.append(text); sys.__stderr__.write(text)
    def flush(self): sys.__stderr__.flush()

program._SECONDS_OF_SILENCE = 0.05
sys.stderr = Stream()
commands = [Command("work", "Work.", Settings, run, takes_long={takes_long})]
sys.exit(program.run_program("ccop-hub", "", commands, ["work"]))
"""


def told(waits: bool, takes_long: bool) -> str:
    code = SCRIPT.format(waits=waits, takes_long=takes_long)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_long_command_says_that_it_starts() -> None:
    assert told(waits=True, takes_long=True) == "ccop-hub work: starting ...\n"


def test_a_short_command_is_silent() -> None:
    assert told(waits=False, takes_long=False) == ""
