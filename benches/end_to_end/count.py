#!/usr/bin/env python3
"""Counts what one event costs this library, with valgrind's callgrind: instructions, atomic operations, allocations.

    cargo bench --no-run --bench end_to_end
    benches/end_to_end/count.py small get

The kinds are small, update and large; the work is get or decode. Counts hardly differ from run to run. They do not say
how long a thing takes: an atomic operation takes as long as some twenty other instructions.
"""

import glob
import json
import os
import re
import subprocess
import sys
import tempfile

# The events that are on their way, as in the benchmark: a mebibyte.
WINDOWS = {"small": 4144, "update": 1093, "large": 106}
ALLOCATE = {"malloc", "calloc", "realloc", "posix_memalign"}


def main():
    kind, work = sys.argv[1:]
    binaries = [path for path in glob.glob("target/release/deps/end_to_end-*") if os.access(path, os.X_OK)]
    binary = max(binaries, key=os.path.getmtime)
    # The start costs both the same.
    few, few_events = measure(binary, kind, work, 500)
    many, many_events = measure(binary, kind, work, 2500)
    events = many_events - few_events
    print(f"{kind} {work}, {events:.0f} events, for each:")
    for what in many:
        print(f"{(many[what] - few[what]) / events:9.1f} {what}")


def measure(binary, kind, work, milliseconds):
    server = subprocess.Popen([binary, "--server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ports = json.loads(server.stdout.readline())["ports"]
    settings = f"warm_up=0&duration={milliseconds}&rate=0&window={WINDOWS[kind]}&connections=1&cut=0"
    url = f"ws://127.0.0.1:{ports['plain']}/?kind={kind}&subscriptions=1&{settings}"
    client = [binary, "--client", "library", work, url, json.dumps(ports)]
    with tempfile.TemporaryDirectory() as folder:
        profile = os.path.join(folder, "profile")
        callgrind = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={profile}"]
        callgrind += ["--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"]
        output = subprocess.run(callgrind + client, stdout=subprocess.PIPE, check=True).stdout
        server.kill()
        return counted(profile), json.loads(output)["events"]


def counted(profile):
    counts = {"instructions": 0, "atomic operations": 0, "allocations": 0}
    atomic = {}
    addresses, callee, is_call = set(), "", False
    with open(profile) as lines:
        for line in lines:
            if line.startswith("ob="):
                path = line[3:].strip()
                if path not in atomic:
                    atomic[path] = atomic_operations(path)
                addresses = atomic[path]
            elif line.startswith("cfn="):
                callee = line[4:].strip()
            elif line.startswith("calls="):
                is_call = True
                if callee in ALLOCATE:
                    counts["allocations"] += int(line[6:].split()[0])
            elif line.startswith("0x"):
                # The line after a call has what the callee has cost in all, which is counted there.
                if not is_call:
                    address, _, cost = line.split()
                    counts["instructions"] += int(cost)
                    if int(address, 16) in addresses:
                        counts["atomic operations"] += int(cost)
                is_call = False
    return counts


def atomic_operations(path):
    """The addresses of the instructions with the prefix `lock`, and of exchanges with memory, which need none."""
    if not os.path.isfile(path):
        return set()
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True).stdout
    found = re.finditer(r"^ *([0-9a-f]+):\t(?:lock |xchg .*\()", code, re.MULTILINE)
    return {int(match[1], 16) for match in found}


if __name__ == "__main__":
    main()
