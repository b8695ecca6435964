"""The C source and the version script of one stand-in, as text."""

from __future__ import annotations

from collections.abc import Mapping

from images.device_code.stand_ins.answers import Answer, Kind, answer_of, status_of
from images.device_code.stand_ins.names import Chosen

CALLS = "CARDSTOCK_STAND_IN_CALLS"
SAID = "cardstock: stand-in called: "

# One line for each call into the file of CALLS, one line for each process and library to stderr; each is one write, so
# that lines of several threads and processes do not mix. A pipe without a reader is not waited for.
_CALLED = """\
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRIVATE static __attribute__((noinline, cold))
#define STATUS(name) long name(void) { return called(#name); }
#define VALUE(name, value) long name(void) { called(#name); return value; }
#define TEXT(name) const char *name(void) { return text; }
#define TEXT_AT(name) long name(long status, const char **to) { (void)status; if (to) *to = text; return 0; }
#define BUFFER(name) void name(char *to, size_t size) { buffer(to, size); }
#define NUMBER(name, value) long name(void) { return value; }
#define NUMBER_AT(name, value) long name(int *to) { if (to) *to = value; return 0; }
#define PROPERTY(name) long name(int part, int *to) { return property(part, to); }

static const char text[] = %(text)s;
static int said;

PRIVATE void put(int out, const char *first, const char *second, const char *third)
{
    char line[%(longest)d];
    char *at = stpcpy(stpcpy(stpcpy(line, first), second), third);
    if (write(out, line, at - line) < 0)
        return;
}

PRIVATE long called(const char *function)
{
    int before = errno;
    const char *file = secure_getenv(%(calls)s);
    if (file && *file) {
        int out = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
        if (out >= 0) {
            put(out, %(soname)s " ", function, "\\n");
            close(out);
        }
    }
    if (!__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
        put(2, %(said)s, function, %(rest)s);
    errno = before;
    return %(status)d;
}

__attribute__((unused)) PRIVATE void buffer(char *to, size_t size)
{
    size_t length = sizeof text - 1;
    if (!to || !size)
        return;
    length = length < size - 1 ? length : size - 1;
    memcpy(to, text, length);
    to[length] = 0;
}

__attribute__((unused)) PRIVATE long property(int part, int *to)
{
    static const int parts[3] = {%(parts)s};
    if (part < 0 || part > 2 || !to)
        return %(status)d;
    *to = parts[part];
    return 0;
}

"""


def source(chosen: Chosen, used_for: str, version: tuple[int, ...]) -> str:
    """The C source; ``version`` is the real library's, () if nobody knows. Raises StandInError for an unknown one."""
    rest = (
        f" of {chosen.soname}, for {used_for}: this image leaves that library out; "
        "the same image with -whole at the end of its tag has it (./inv build --whole)\n"
    )
    longest = max(len(name) for name, _ in chosen.functions)
    values: Mapping[str, object] = {
        "text": c_text(f"{chosen.soname} is left out of this image: not supported"),
        "soname": c_text(chosen.soname),
        "calls": c_text(CALLS),
        "said": c_text(SAID),
        "rest": c_text(rest),
        "longest": len(SAID) + longest + len(rest.encode()) + len(chosen.soname) + 8,
        "status": status_of(chosen.stem, chosen.soname),
        "parts": ", ".join(str(one) for one in (*version, 0, 0, 0)[:3]),
    }
    return _CALLED % values + "".join(_function(name, answer_of(name, version)) for name, _ in chosen.functions)


def _function(name: str, answer: Answer) -> str:
    value = f", {answer.value}" if answer.kind in (Kind.VALUE, Kind.NUMBER, Kind.NUMBER_AT) else ""
    return f"{answer.kind.name}({name}{value})\n"


def version_script(chosen: Chosen) -> str:
    """What the linker exports, each function under its version, and nothing else."""
    nodes: dict[str, list[str]] = {}
    for name, version in chosen.functions:
        nodes.setdefault(version, []).append(name)
    return "".join(
        f"{version}{' ' if version else ''}{{ global: {' '.join(f'{name};' for name in names)} local: *; }};\n"
        for version, names in sorted(nodes.items())
    )


def c_text(text: str) -> str:
    """A string of C; whatever is no plain letter, in octal digits."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode("utf-8")
    )
    return f'"{plain}"'
