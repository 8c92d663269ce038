# SPDX-License-Identifier: GPL-2.0
"""Counts by function what is executed between two marks of a guest. `make bench` runs it in gdb.

A mark is a call of memparse(): exported, harmless, and with nothing to do in a running kernel. Its argument
is MARK and a name where counting begins, and MARK alone where it ends. Interrupts wait while gdb steps.
"""

import bisect
import collections
import json
import os
import time

import gdb

MARK = "nolocks:"
# The register with a function's first argument, and where it returns to.
REGISTERS = {
    "x86_64": ("$rdi", "*(unsigned long *)$rsp"),
    "arm64": ("$x0", "$lr"),
}
# Of instructions: what is longer was interrupted by something.
LIMIT = 20000


def read_symbols(path):
    """Addresses of functions, and their names, by address."""
    with open(path) as file:
        rows = [line.split()[:3] for line in file]
    symbols = sorted((int(address, 16), name) for address, kind, name in rows if kind in "tTwW")
    end = next(int(address, 16) for address, _, name in rows if name == "_etext")
    return [address for address, _ in symbols], [name for _, name in symbols], end


def evaluate(expression):
    return int(gdb.parse_and_eval(expression).cast(gdb.lookup_type("unsigned long")))


def string_at(address):
    try:
        return gdb.Value(address).cast(gdb.lookup_type("char").pointer()).string()
    except (gdb.MemoryError, UnicodeDecodeError):
        return ""


def main():
    addresses, names, end = read_symbols(os.environ["NOLOCKS_MAP"])
    argument, caller = REGISTERS[os.environ["NOLOCKS_ARCH"]]
    socket = os.environ["NOLOCKS_SOCKET"]
    mark = addresses[names.index("memparse")]

    def function(pc):
        nth = bisect.bisect_right(addresses, pc) - 1
        return names[nth] if nth >= 0 and pc < end else "the caller"

    def count():
        counts = collections.Counter()
        while (pc := evaluate("$pc")) != mark and counts.total() < LIMIT:
            counts[function(pc)] += 1
            gdb.execute("stepi", to_string=True)
        return counts

    while not os.path.exists(socket):
        time.sleep(0.1)
    gdb.execute("set pagination off")
    gdb.execute("set confirm off")
    gdb.execute(f"target remote {socket}")
    gdb.execute(f"hbreak *{mark:#x}")
    profile = {}
    while True:
        try:
            gdb.execute("continue", to_string=True)
            name = string_at(evaluate(argument))
        except gdb.error:
            # The guest is off.
            return
        if not name.startswith(MARK) or name == MARK:
            continue
        gdb.execute(f"thbreak *{evaluate(caller):#x}", to_string=True)
        gdb.execute("continue", to_string=True)
        profile[name.removeprefix(MARK)] = count()
        with open(os.environ["NOLOCKS_PROFILE"], "w") as file:
            json.dump(profile, file)


main()
