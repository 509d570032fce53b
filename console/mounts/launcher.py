"""The process that becomes nbdfuse: ready to serve while the kernel is short of memory.

The kernel may need nbdfuse to write dirty pages back before it gets memory, and nbdfuse may need memory to do
it. Against that, best effort; each line on standard error that begins with `farshore: ` says what is missing:

- PR_SET_IO_FLUSHER (prctl(2)) marks the process: what it allocates never waits for such pages. The mark
  outlives exec. It needs CAP_SYS_RESOURCE.
- Its memory is locked (mlockall(2)). That does not outlive exec, and nbdfuse does not ask for it; so a helper
  stops it before its first instruction (ptrace(2)), has it make that one system call, and lets go. Only for
  root: others may not lock more than a little, and would then fail for want of it.

    python launcher.py [--end-with-parent] PROGRAM ARG…

Imports nothing of ours: it is run by its path, without site-packages, to start in a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

SAID = "farshore: "
END_WITH_PARENT = "--end-with-parent"

PR_SET_PDEATHSIG = 1
PR_SET_IO_FLUSHER = 57
PR_SET_PTRACER = 0x59616D61

PTRACE_CONT, PTRACE_DETACH, PTRACE_SYSCALL = 7, 17, 24
PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_SEIZE = 0x4204, 0x4205, 0x4206
PTRACE_O_TRACESYSGOOD, PTRACE_O_TRACEEXEC, PTRACE_EVENT_EXEC = 1, 0x10, 4
NT_PRSTATUS = 1
WALL = 0x40000000

MLOCKALL = 151
# Current and future pages, each as it is first used: whole stacks of idle threads are not pulled in.
MCL_ALL_ON_FAULT = 1 | 2 | 4
# x86-64: `syscall; int3`, and places in user_regs_struct (sys/user.h).
CALL_AND_STOP = b"\x0f\x05\xcc"
RAX, RDI, ORIG_RAX, RIP, REGISTERS = 10, 14, 15, 16, 27

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Vector(ctypes.Structure):
    """struct iovec, as PTRACE_GETREGSET takes it."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _prctl(option: int, value: int) -> str:
    """Empty when done, else why not."""
    if _libc.prctl(option, value, 0, 0, 0) == 0:
        return ""
    return os.strerror(ctypes.get_errno())


def _ptrace(request: int, process: int, address: int = 0, data: int = 0) -> None:
    """Raises OSError."""
    if _libc.ptrace(request, process, address, data) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run_to(process: int, request: int, wanted: int) -> None:
    """Let a traced process run until the stop `wanted` (waitpid(2)'s status without its lowest byte); signals
    on the way are passed on. Request 0: it runs already. Raises OSError if it ends instead."""
    number = 0
    while True:
        if request:
            _ptrace(request, process, 0, number)
        _, status = os.waitpid(process, WALL)
        if not os.WIFSTOPPED(status):
            raise OSError(0, "it ended")
        if status >> 8 == wanted:
            return
        # The upper bits are set for stops that are no signal.
        number = 0 if status >> 16 or status >> 8 & 0x80 else status >> 8
        request = request or PTRACE_CONT


def _registers(process: int, request: int, values: ctypes.Array[ctypes.c_uint64]) -> None:
    vector = _Vector(ctypes.addressof(values), ctypes.sizeof(values))
    _ptrace(request, process, NT_PRSTATUS, ctypes.addressof(vector))


def _call_mlockall(process: int) -> int:
    """The call's result in a process that stands at its first instruction, which is put back then."""
    before, during = (ctypes.c_uint64 * REGISTERS)(), (ctypes.c_uint64 * REGISTERS)()
    _registers(process, PTRACE_GETREGSET, before)
    _registers(process, PTRACE_GETREGSET, during)
    with open(f"/proc/{process}/mem", "r+b", buffering=0) as memory:
        memory.seek(before[RIP])
        code = memory.read(len(CALL_AND_STOP))
        memory.seek(before[RIP])
        memory.write(CALL_AND_STOP)
        try:
            during[RAX], during[RDI], during[ORIG_RAX] = MLOCKALL, MCL_ALL_ON_FAULT, (1 << 64) - 1
            _registers(process, PTRACE_SETREGSET, during)
            _run_to(process, PTRACE_CONT, signal.SIGTRAP)
            _registers(process, PTRACE_GETREGSET, during)
        finally:
            memory.seek(before[RIP])
            memory.write(code)
            _registers(process, PTRACE_SETREGSET, before)
    return ctypes.c_int64(during[RAX]).value


def _lock_memory(process: int, ready: int) -> None:
    """Let a process that is about to exec lock its memory, and let go of it. Raises OSError."""
    _ptrace(PTRACE_SEIZE, process, 0, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD)
    os.write(ready, b"!")
    _run_to(process, 0, signal.SIGTRAP | PTRACE_EVENT_EXEC << 8)
    try:
        # As far as the end of exec itself, which sets a register.
        _run_to(process, PTRACE_SYSCALL, signal.SIGTRAP | 0x80)
        result = _call_mlockall(process)
    finally:
        _ptrace(PTRACE_DETACH, process)
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def _start_locking() -> None:
    """A helper that locks this process's memory once it has become another program. Returns when that is
    prepared, or is not to be had."""
    if platform.machine() != "x86_64":
        _say(f"memory not locked: not on {platform.machine()}")
        return
    target = os.getpid()
    reading, ready = os.pipe()
    _prctl(PR_SET_PTRACER, (1 << 64) - 1)  # whoever: the number of a helper is not known yet
    first = os.fork()
    if first == 0:
        # A child of a child: nbdfuse must not find one that it never made.
        if os.fork() == 0:
            try:
                _lock_memory(target, ready)
            except OSError as error:
                _say(f"memory not locked: {error.strerror or error}")
        os._exit(0)
    os.waitpid(first, 0)
    os.close(ready)
    os.read(reading, 1)
    os.close(reading)


def _say(text: str) -> None:
    os.write(2, f"{SAID}{text}\n".encode())


def main(words: list[str]) -> None:
    """Never returns: becomes the program."""
    if words and words[0] == END_WITH_PARENT:
        # SIGTERM: nbdfuse unmounts before it ends.
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        words = words[1:]
    why = _prctl(PR_SET_IO_FLUSHER, 1)
    if why:
        _say(f"not marked as an I/O flusher: {why} (needs CAP_SYS_RESOURCE)")
    if os.geteuid() == 0:
        _start_locking()
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
