"""System calls that Python 3.11 has no name for: namespaces, mounts, capabilities, seccomp."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET

RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18

_PDEATHSIG, _DUMPABLE, _SECCOMP, _SUBREAPER, _NO_NEW_PRIVS = 1, 4, 22, 36, 38

_libc = ctypes.CDLL(None, use_errno=True)

# name: number on x86_64, on aarch64. What no solution of a programming task needs.
REFUSED = {
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "mount_setattr": (442, 442), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "io_uring_setup": (425, 425), "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "kill": (62, 129), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "tgkill": (234, 131),
    "prlimit64": (302, 261),
}  # fmt: skip
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE, _CLONE3 = (56, 220), 435
# What may be done to oneself only: the first argument must be this.
_OWN: dict[str, Callable[[], int]] = {"tgkill": os.getpid, "prlimit64": lambda: 0}


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def unshare(flags: int) -> None:
    """Leave the namespaces of `flags` for new ones; OSError where that is not allowed."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); OSError where that is not allowed."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
        )
    )


def die_with_parent() -> None:
    """SIGKILL when the thread that forked this process ends."""
    _libc.prctl(_PDEATHSIG, 9, 0, 0, 0)


def adopt_orphans() -> None:
    """Descendants whose parents end become children of this process."""
    _libc.prctl(_SUBREAPER, 1, 0, 0, 0)


def hide() -> None:
    """Processes of the same user may not trace this one nor read its memory or environment."""
    _libc.prctl(_DUMPABLE, 0, 0, 0, 0)


def drop_capabilities() -> None:
    """None left, and none to be gained by running a set-uid program."""
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = struct.pack("=II", 0x20080522, 0)
    _check(_libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)))


def refuse_calls() -> bool:
    """Install a seccomp filter that answers `REFUSED` with EPERM; False where there is none."""
    machine = platform.machine()
    if machine not in _AUDIT:
        return False
    program = _filter(machine, 0 if machine == "x86_64" else 1)
    code = ctypes.create_string_buffer(program)
    length = len(program) // 8
    # struct sock_fprog: a length, then (after padding) a pointer
    fprog = struct.pack("@HP", length, ctypes.addressof(code))
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(_libc.prctl(_SECCOMP, 2, ctypes.c_char_p(fprog), 0, 0) == 0)


def _filter(machine: str, column: int) -> bytes:
    """The filter as classic BPF: each line is (code, jump if true, jump if false, operand)."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    lines = [
        (load, 0, 0, 4), (equal, 1, 0, _AUDIT[machine]), (answer, 0, 0, kill), (load, 0, 0, 0),
        (at_least, 0, 1, 0x40000000), (answer, 0, 0, kill),  # x32, another name for each call
        (equal, 0, 1, _CLONE3), (answer, 0, 0, absent),  # its flags are out of a filter's reach
        (equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (any_bit, 0, 1, NAMESPACES | NEWUSER),
        (answer, 0, 0, refuse), (answer, 0, 0, allow),
    ]  # fmt: skip
    for name, numbers in REFUSED.items():
        if name in _OWN:
            lines += [
                (equal, 0, 4, numbers[column]), (load, 0, 0, 16), (equal, 0, 1, _OWN[name]()),
                (answer, 0, 0, allow), (answer, 0, 0, refuse),
            ]  # fmt: skip
        else:
            lines += [(equal, 0, 1, numbers[column]), (answer, 0, 0, refuse)]
    lines.append((answer, 0, 0, allow))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
