"""The supervisor of one jail, run as `python -s -S -P -c <start> code tests result`.

    supervisor          new namespaces, the clock; ends init when time is up
      init              pid 1 of the jail: builds the file system, forks, reaps; no foreign code
        candidate       reads the code, drops every right, loads it, answers calls
        judge           reads the tests, drops every right, asks, writes the result

The candidate is forked before anybody has read a test, so that none is anywhere in its memory.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from posttrain.verifiers.sandbox import kernel
from posttrain.verifiers.sandbox.candidate import serve_calls, serve_runs
from posttrain.verifiers.sandbox.judge import judge
from posttrain.verifiers.sandbox.wire import Channel

_NOEXEC, _RELATIME = 8, 1 << 21
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_STAGES = ("/tmp", "/mnt", "/srv", "/opt", "/var")
_FIRST_UID, _UIDS, _NOBODY = 1_000_000_000, 100_000, 65_534
# Without a file system of its own the candidate may be unable to read the library once its user
# is another, so what solutions import is loaded first.
_LIBRARY_TEXT = """
abc array bisect calendar cmath collections contextlib copy csv dataclasses datetime decimal
difflib enum fractions functools hashlib heapq inspect io itertools json math numbers
operator pprint queue random re secrets statistics string struct textwrap threading time
traceback types typing unittest uuid warnings zlib
"""
_LIBRARY = _LIBRARY_TEXT.split()


def main() -> None:
    """Judge one request; the result is one line of JSON on the third descriptor."""
    code_fd, tests_fd, result_fd = map(int, sys.argv[1:4])
    request = json.loads(read_all(code_fd))
    kernel.die_with_parent()
    kernel.adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    active = enter_namespaces()
    if "files" not in active:
        for name in _LIBRARY:
            importlib.import_module(name)
    init = os.fork()
    if init == 0:
        run_init(request, tests_fd, result_fd, active)
    os.close(tests_fd)
    if not wait_for(init, time.monotonic() + request["limits"]["wall_seconds"]):
        os.write(result_fd, json.dumps({"timeout": True, "active": active}).encode())
    os.close(result_fd)
    sweep()


def read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def enter_namespaces() -> dict[str, str]:
    """Processes, files, network and IPC of one's own, as root or through a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    try:
        kernel.unshare(kernel.NAMESPACES | (kernel.NEWUSER if os.geteuid() else 0))
        if os.geteuid():
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        return {}
    return {"processes": "namespace", "network": "namespace", "files": "namespace"}


def wait_for(child: int, deadline: float) -> bool:
    """Whether a child ended by itself before the deadline; it is gone either way."""
    while True:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            break
        signal.sigtimedwait({signal.SIGCHLD}, left)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def sweep() -> None:
    """End whatever is left. A namespace left nothing; without one orphans have come to us."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants() -> list[int]:
    """Every process below this one, as /proc tells it."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/stat").read_text()
            parents[int(pid)] = int(status.rpartition(")")[2].split()[1])
    found, grown = {os.getpid()}, True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in found} - found
        found |= below
        grown = bool(below)
    return sorted(found - {os.getpid()})


def run_init(request: dict[str, Any], tests_fd: int, result_fd: int, active: Any) -> NoReturn:
    """Pid 1: ends with the judge, and everything else with it."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        kernel.die_with_parent()
        os.setsid()
        uid = _FIRST_UID + 2 * (os.getppid() or int(request["number"])) % _UIDS
        if "files" in active:
            try:
                build_root(request["limits"])
            except OSError as error:
                active["files"] = f"none ({error})"
        if active.get("files") != "namespace":
            os.chdir(request["folder"])
            if os.geteuid() == 0:
                os.chmod(request["folder"], 0o777)
        asked, answered = os.pipe(), os.pipe()
        if os.fork() == 0:
            run_candidate(request, uid, Channel(asked[0], answered[1]))
        last = os.fork()
        if last == 0:
            kernel.hide()
            run_judge(request, uid + 1, Channel(answered[0], asked[1]), tests_fd, result_fd, active)
        for descriptor in (*asked, *answered, tests_fd, result_fd):
            os.close(descriptor)
        while os.waitpid(-1, 0)[0] != last:
            pass
    finally:
        os._exit(0)


def build_root(limits: dict[str, Any]) -> None:
    """A file system with the interpreter's library, read-only, and a folder in memory."""
    prefix = os.path.realpath(sys.base_prefix)
    sources = [prefix, *(p for p in _LIBRARIES if not f"{p}/".startswith(f"{prefix}/")), *_DEVICES]
    stages = (s for s in _STAGES if not any(source.startswith(s) for source in sources))
    root = next(filter(os.path.isdir, stages))
    flags = kernel.NOSUID | kernel.NODEV
    kernel.mount("none", "/", "", kernel.REC | kernel.PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", flags, "size=1m,mode=755")
    for source in filter(os.path.lexists, sources):
        target = root + source
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            continue
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            Path(target).touch()
        kernel.mount(source, target, "", kernel.BIND | kernel.REC)
        if source not in _DEVICES:
            locked = os.statvfs(target).f_flag & (_NOEXEC | 1024 | 2048)
            readonly = kernel.BIND | kernel.REMOUNT | kernel.RDONLY | flags | locked
            kernel.mount("none", target, "", readonly | _RELATIME)
    os.mkdir(f"{root}/tmp")
    size = f"size={4 * limits['file_mb']}m,nr_inodes=4096,mode=1777"
    kernel.mount("tmpfs", f"{root}/tmp", "tmpfs", flags | _NOEXEC, size)
    kernel.mount("none", root, "", kernel.BIND | kernel.REMOUNT | kernel.RDONLY | flags)
    os.chroot(root)
    os.chdir("/tmp")


def drop_rights(limits: dict[str, Any], uid: int, keep: set[int]) -> dict[str, str]:
    """Limits, another user, no capabilities, refused system calls; what of it could be had."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else map(str, range(3, 1024)):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
    is_root = os.geteuid() == 0
    set_limits(limits, 0 if is_root or os.path.isdir("/proc/self") is False else own_tasks())
    done = {"user": "the same"}
    if is_root:
        os.setgroups([])
        for number in (uid, _NOBODY - uid % 2):
            with contextlib.suppress(OSError):
                os.setresgid(number, number, number)
                os.setresuid(number, number, number)
                done["user"] = "another"
                break
    kernel.drop_capabilities()
    kernel.die_with_parent()
    done["calls"] = "refused" if kernel.refuse_calls() else "all"
    return done


def set_limits(limits: dict[str, Any], already: int) -> None:
    """rlimits; they bind each process, and the number of processes binds the user."""
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, limits["file_mb"] << 20),
        (resource.RLIMIT_NPROC, limits["processes"] + already),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def own_tasks() -> int:
    """Threads that this user runs on this machine: the limit counts them too."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{pid}/task"))
    return count


def run_candidate(request: dict[str, Any], uid: int, channel: Channel) -> NoReturn:
    try:
        os.setsid()
        drop_rights(request["limits"], uid, {channel.reading, channel.writing})
        for name in [name for name in sys.modules if name.startswith("posttrain")]:
            del sys.modules[name]
        if request["runs"]:
            serve_runs(channel, request["code"], request["limits"]["output_kb"] << 10)
        else:
            serve_calls(channel, request["code"], request["setup"])
    finally:
        os._exit(0)


def run_judge(
    request: dict[str, Any], uid: int, channel: Channel, tests_fd: int, result_fd: int, active: Any
) -> NoReturn:
    try:
        keep = {channel.reading, channel.writing, tests_fd, result_fd}
        active |= drop_rights(request["limits"], uid, keep)
        kernel.hide()
        if "network" not in active and active["calls"] == "refused":
            active["network"] = "calls refused"
        tests = json.loads(read_all(tests_fd))
        result = judge(channel, tests) | {"active": active}
        os.write(result_fd, json.dumps(result).encode())
    finally:
        os._exit(0)
