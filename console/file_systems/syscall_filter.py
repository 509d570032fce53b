"""A filter of system calls for the process that reads file systems: what it needs, and nothing that opens a
file, makes a socket, connects one, starts a program or reaches another process.

Linux only; the kernel takes the filter as a program of classic BPF, eight bytes an instruction:

    0  2  code        2  1  instructions to skip if true        3  1  if false        4  4  constant

It runs over what the kernel knows of a call: 0 4 number, 4 4 architecture, 16+8n 8 argument n. A call that is
not named is answered with EPERM; one by another architecture's numbers ends the process, since the same
number means something else there.

Source: seccomp(2); linux/seccomp.h, linux/filter.h, linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct

_INSTRUCTION = Struct("<HBBI")
_LOAD, _RETURN = 0x20, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_ALLOW = 0x7FFF0000
_ANSWER = 0x00050000
_KILL = 0x80000000
# On x86-64, numbers from here on are the 32-bit calls of x32.
_X32 = 0x40000000
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_PROT_EXEC = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A system call that is let through. `zero`: arguments that must be 0; `no_bits`: bits that an argument
    must not have."""

    name: str
    zero: Sequence[int] = ()
    no_bits: Mapping[int, int] = field(default_factory=dict)


# Memory never becomes code; only the own limits change; what is sent goes where the socket is connected.
NEEDED = (
    *(Call(name=name) for name in (
        "read", "write", "close", "fstat", "lseek", "recvfrom", "munmap", "mremap", "brk", "madvise", "futex",
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "restart_syscall", "sigaltstack", "sched_yield",
        "getpid", "gettid", "getrusage", "getrandom", "clock_gettime", "exit", "exit_group",
    )),
    Call(name="mmap", no_bits={2: _PROT_EXEC}),
    Call(name="mprotect", no_bits={2: _PROT_EXEC}),
    Call(name="sendto", zero=(4,)),
    Call(name="prlimit64", zero=(0,)),
)  # fmt: skip
# Beside those, for a process that answers on a socket which it was given.
SERVING = (Call(name="poll"), Call(name="accept4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An architecture: its number in the filter's input, and its calls'."""

    number: int
    calls: Mapping[str, int]


MACHINES = {
    "x86_64": Machine(number=0xC000003E, calls={
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
        "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24,
        "mremap": 25, "madvise": 28, "getpid": 39, "sendto": 44, "recvfrom": 45, "exit": 60, "getrusage": 98,
        "sigaltstack": 131, "gettid": 186, "futex": 202, "restart_syscall": 219, "clock_gettime": 228,
        "exit_group": 231, "prlimit64": 302, "getrandom": 318, "poll": 7, "accept4": 288,
    }),
    "aarch64": Machine(number=0xC00000B7, calls={
        "close": 57, "lseek": 62, "read": 63, "write": 64, "fstat": 80, "exit": 93, "exit_group": 94,
        "futex": 98, "clock_gettime": 113, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132,
        "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "getrusage": 165, "getpid": 172,
        "gettid": 178, "sendto": 206, "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222,
        "mprotect": 226, "madvise": 233, "prlimit64": 261, "getrandom": 278, "accept4": 242,
        "poll": 73,  # there is none: the C library calls ppoll
    }),
}  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def assemble(calls: Sequence[Call], machine: Machine, otherwise: int = _ANSWER | errno.EPERM) -> bytes:
    """The filter's instructions."""
    out = [
        _op(_LOAD, _ARCHITECTURE_AT),
        _op(_IF_EQUAL, machine.number, if_true=1),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER_AT),
        _op(_IF_AT_LEAST, _X32, if_false=1),
        _op(_RETURN, _KILL),
    ]
    for call in calls:
        body = _body(call)
        out += [_op(_IF_EQUAL, machine.calls[call.name], if_false=len(body)), *body]
    out.append(_op(_RETURN, otherwise))
    return b"".join(out)


def _body(call: Call) -> list[bytes]:
    """What decides about one call; it always returns."""
    refuse = _op(_RETURN, _ANSWER | errno.EPERM)
    out: list[bytes] = []
    for argument in call.zero:
        for half in (0, 4):
            out += [_op(_LOAD, _ARGUMENTS_AT + 8 * argument + half), _op(_IF_EQUAL, 0, if_true=1), refuse]
    for argument, bits in call.no_bits.items():
        out += [_op(_LOAD, _ARGUMENTS_AT + 8 * argument), _op(_IF_ANY_BIT, bits, if_false=1), refuse]
    return [*out, _op(_RETURN, _ALLOW)]


def _op(code: int, constant: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, constant)


def install(program: bytes) -> None:
    """For this process, for good; it must have given up gaining rights. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = _Program(len(program) // _INSTRUCTION.size, program)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(held), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def filter_calls(more: Sequence[Call] = ()) -> None:
    """Nothing but `NEEDED` and `more` from now on. Raises OSError where the kernel or this program cannot do
    it."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no filter of system calls is known for {platform.machine()}")
    install(assemble((*NEEDED, *more), machine))
