# SPDX-License-Identifier: GPL-2.0
"""Counts by function what is executed between two marks of a guest. `make bench` runs it in gdb.

A mark is a call of memparse(): exported, harmless, and with nothing to do in a running kernel. Its argument
is MARK and a name where counting begins, and MARK alone where it ends. The second, if there is one, points to a
struct nolocks_mark (filler.c): how many operations are counted, and the symbols of the module that does them.
Interrupts wait while gdb steps.
"""

import bisect
import collections
import json
import os
import re
import struct
import time

import gdb

MARK = "nolocks:"
# The registers with a function's first two arguments, where it returns to, and the stub's number of the PC.
REGISTERS = {
    "x86_64": ("$rdi", "$rsi", "*(unsigned long *)$rsp", 16),
    "arm64": ("$x0", "$x1", "$lr", 32),
}
# Of instructions: what is longer was interrupted by something.
LIMIT = 20000
# Of ELF: a symbol is name, information, other, section, value and size; a function is of this type, with a section.
SYMBOL = struct.Struct("<IBBHQQ")
FUNCTION, UNDEFINED = 2, 0


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


def readable(name):
    """A function's own name and its type's or module's, without what they are generic over."""
    if not name.startswith("_R"):
        return name
    name = gdb.execute(f"demangle -l rust -- {name}", to_string=True).strip()
    name = re.sub(r"\[[0-9a-f]+\]", "", name)
    for _ in range(name.count("<")):
        # The innermost first: `::<T>` and `Box<T>`, then `<Type>` and `<Type as Trait>`.
        name = re.sub(r"(::|(?<=\w))<[^<>]*>", "", name)
        name = re.sub(r"(?<![\w:])<([^<>]*?)( as [^<>]*)?>", r"\1", name)
    return "::".join(name.split("::")[-2:])


class Marked:
    """What a mark says beside its name; of those without a struct, one operation and no symbols."""

    def __init__(self, address):
        self.ops, self.functions = 1, []
        if not address:
            return
        memory = gdb.selected_inferior().read_memory
        _, self.ops, symbols, nr, self.names = struct.unpack("<5Q", memory(address, 5 * 8))
        for name, info, _, section, value, size in SYMBOL.iter_unpack(memory(symbols, nr * SYMBOL.size)):
            if info & 0xF == FUNCTION and section != UNDEFINED:
                self.functions.append((value, size, name))

    def function(self, pc):
        for value, size, name in self.functions:
            if value <= pc < value + size:
                return readable(string_at(self.names + name))
        return "the caller"


def main():
    addresses, names, end = read_symbols(os.environ["NOLOCKS_MAP"])
    argument, second, caller, pc_number = REGISTERS[os.environ["NOLOCKS_ARCH"]]
    socket = os.environ["NOLOCKS_SOCKET"]
    mark = addresses[names.index("memparse")]

    def count(marked):
        # By packets of the stub's: with each step of its own gdb looks for the caller, which takes ten times as long.
        stub = gdb.selected_inferior().connection
        steps = collections.Counter()
        for _ in range(LIMIT):
            answer = bytes.fromhex(stub.send_packet(f"p{pc_number:x}").decode())
            pc = int.from_bytes(answer, "little")
            if pc == mark:
                break
            steps[pc] += 1
            stub.send_packet("s")
        gdb.execute("maintenance flush register-cache", to_string=True)
        counts = collections.Counter()
        for pc, n in steps.items():
            nth = bisect.bisect_right(addresses, pc) - 1
            counts[names[nth] if nth >= 0 and pc < end else marked.function(pc)] += n
        each = {name: round(n / marked.ops) for name, n in counts.items()}
        return {name: n for name, n in each.items() if n}

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
        marked = Marked(evaluate(second))
        gdb.execute(f"thbreak *{evaluate(caller):#x}", to_string=True)
        gdb.execute("continue", to_string=True)
        profile[name.removeprefix(MARK)] = count(marked)
        with open(os.environ["NOLOCKS_PROFILE"], "w") as file:
            json.dump(profile, file)


main()
