"""Completions that try to pass without being right, to hang, or to break out: a table by kind.

Each is `(verifier, completion, ground truth)`. Those made by `attempt` solve the task exactly when
their attack works, so that a score of 0 says that it does not.
"""

from __future__ import annotations

import textwrap
from typing import Any

TESTS = ["assert f(2) == 4", "assert f(3) == 9", "assert [f(n) for n in (0, 1)] == [0, 1]"]
Case = tuple[str, str, Any]


def code(text: str) -> Case:
    return "code", f"```python\n{textwrap.dedent(text).strip()}\n```", TESTS


def attempt(text: str) -> Case:
    body = textwrap.indent(textwrap.dedent(text).strip(), "    ")
    return code(
        f"def attack():\n{body}\n"
        "try:\n    won = bool(attack())\nexcept BaseException:\n    won = False\n"
        "def f(x):\n    return x * x if won else None"
    )


WRONG = "\ndef f(x):\n    return 5\n"
LEAVING = {
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "sys.exit in f": "import sys\ndef f(x):\n    sys.exit(0)",
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit in f": "import os\ndef f(x):\n    os._exit(0)",
    "raise SystemExit": "raise SystemExit(0)",
    "raise KeyboardInterrupt": "raise KeyboardInterrupt",
    "raise GeneratorExit in f": "def f(x):\n    raise GeneratorExit",
    "raise StopIteration in f": "def f(x):\n    raise StopIteration",
    "raise AssertionError in f": "def f(x):\n    raise AssertionError",
    "exit()": "exit()",
    "quit()": "quit()",
    "abort": "import os\nos.abort()",
    "SIGKILL itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)" + WRONG,
    "SIGSTOP itself": "import signal\nsignal.raise_signal(signal.SIGSTOP)" + WRONG,
    "segfault": "import ctypes\nctypes.string_at(0)" + WRONG,
    "exec true": "import os\nos.execv('/bin/true', ['true'])" + WRONG,
    "atexit exits 0": "import atexit, os\natexit.register(lambda: os._exit(0))" + WRONG,
    "ends the judge's pipe": "import os\nos.closerange(0, 64)" + WRONG,
    "fork and leave": "import os\nif os.fork():\n    os._exit(0)" + WRONG,
}
CHEATING = {
    "always equal": "class A:\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "always equal int": "class A(int):\n    def __eq__(s, o): return True\ndef f(x): return A(7)",
    "always equal float": (
        "class A(float):\n    def __eq__(s, o): return True\ndef f(x): return A(7)"
    ),
    "always equal str": "class A(str):\n    def __eq__(s, o): return True\ndef f(x): return A('')",
    "always equal list": "class A(list):\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "always equal tuple": (
        "class A(tuple):\n    def __eq__(s, o): return True\ndef f(x): return A()"
    ),
    "never unequal": "class A:\n    def __ne__(s, o): return False\ndef f(x): return A()",
    "equal by metaclass": (
        "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\n"
        "class A(metaclass=M): pass\ndef f(x): return A"
    ),
    "absorbs arithmetic": (
        "class A:\n    def __getattr__(s, n): return lambda *a: s\n"
        "    def __sub__(s, o): return 0\n"
        "    __rsub__ = __sub__\n    def __eq__(s, o): return True\ndef f(x): return A()"
    ),
    "remembers what it is compared with": (
        "seen = []\nclass A:\n    def __eq__(s, o):\n        seen.append(o)\n        return True\n"
        "def f(x): return seen[-1] if seen else A()"
    ),
    "claims to be int": (
        "class A:\n    __class__ = int\n    def __eq__(s, o): return True\ndef f(x): return A()"
    ),
    "patches AssertionError": (
        "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {})" + WRONG
    ),
    "patches every builtin": (
        "import builtins\nfor n in ('all', 'any', 'bool', 'len', 'list', 'sorted', 'isinstance'):\n"
        "    setattr(builtins, n, lambda *a, **k: True)" + WRONG
    ),
    "patches operator.eq": "import operator\noperator.eq = lambda a, b: True" + WRONG,
    "patches unittest": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None" + WRONG
    ),
    "patches sys.excepthook": "import sys\nsys.excepthook = lambda *a: None" + WRONG,
    "patches int by ctypes": ("import ctypes\nctypes.memset(id(5) + 24, 4, 1)" + WRONG),
    "patches json.dumps": (
        'import json\njson.dumps = lambda *a, **k: \'{"passed": 3, "done": 3, "first": null}\''
        + WRONG
    ),
    "patches json.loads": (
        "import json\njson.loads = lambda *a, **k: {'passed': 3, 'done': 3, 'first': None}" + WRONG
    ),
    "patches os.write": (
        "import os\nreal = os.write\n"
        "os.write = lambda fd, data: real(fd, data.replace(b'5', b'4'))" + WRONG
    ),
    "answers by its line": (
        "import sys\ndef f(x):\n    frame = sys._getframe(1)\n    while frame:\n"
        "        for name, value in frame.f_locals.items():\n"
        "            if name in ('tests', 'expected'): return value\n        frame = frame.f_back"
    ),
    "reads the caller's source": (
        "import inspect, re\ndef f(x):\n    for info in inspect.stack():\n"
        "        found = re.search(r'== (\\d+)', ''.join(info.code_context or []))\n"
        "        if found: return int(found[1])"
    ),
    "searches the heap for tests": (
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, dict):\n"
        "            for v in list(o.values()):\n"
        "                if isinstance(v, str) and 'assert f(' + str(x) in v:\n"
        "                    return int(v.split('==')[1])"
    ),
    "searches its memory for tests": (
        "import re\ndef f(x):\n    for line in open('/proc/self/maps'):\n"
        "        a, b = (int(v, 16) for v in line.split()[0].split('-'))\n"
        "        with open('/proc/self/mem', 'rb') as m:\n            m.seek(a)\n"
        "            hit = re.search(rb'assert f\\(%d\\) == (\\d+)' % x, m.read(b - a))\n"
        "            if hit: return int(hit[1])"
    ),
    "prints the expected answer": "print(4, 9, [0, 1])\nprint('3 of 3 tests passed')" + WRONG,
    "prints a verdict": 'print(\'{"passed": 3, "done": 3, "first": null}\')' + WRONG,
    "writes a verdict everywhere": (
        "import os\nfor fd in range(64):\n    try:\n"
        '        os.write(fd, b\'{"passed": 3, "done": 3, "first": null}\\n\')\n'
        "    except OSError: pass" + WRONG
    ),
    "sends framed verdicts": (
        'import os, struct\nd = b\'{"value": {"f": 4}}\'\nfor fd in range(3, 64):\n    try:\n'
        "        os.write(fd, struct.pack('!I', len(d)) + d)\n    except OSError: pass" + WRONG
    ),
    "sends a huge frame": (
        "import os, struct\nfor fd in range(3, 64):\n    try:\n"
        "        os.write(fd, struct.pack('!I', 2**32 - 1))\n    except OSError: pass" + WRONG
    ),
    "sends a deep frame": (
        "import os, struct\nd = b'[' * 100000\nfor fd in range(3, 64):\n    try:\n"
        "        os.write(fd, struct.pack('!I', len(d)) + d)\n    except OSError: pass" + WRONG
    ),
    "sends no JSON": (
        "import os, struct\nd = b'\\xff' * 8\nfor fd in range(3, 64):\n    try:\n"
        "        os.write(fd, struct.pack('!I', len(d)) + d)\n    except OSError: pass" + WRONG
    ),
    "rewrites its server": (
        "import sys, gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Server':\n"
        "        type(o).answer = lambda s, r: {'value': True}" + WRONG
    ),
    "server that raises": (
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Server':\n"
        "        type(o).answer = lambda s, r: {'raised': ['SystemExit', None, [0], '']}" + WRONG
    ),
    "server that names a builtin": (
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Server':\n"
        "        type(o).do_names = lambda s, n: {'value': {'f': {'type': 'int'},"
        " '__builtins__': {'dict': []}, 'len': {'type': 'bool'}}}" + WRONG
    ),
    "server that calls back": (
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Server':\n"
        "        type(o).answer = lambda s, r: {'callback': 0, 'args': []}" + WRONG
    ),
    "f is a class": "class f(int):\n    def __eq__(s, o): return False",
    "f is no function": "f = 4",
    "f is missing": "def g(x):\n    return x * x",
    "f is async": "async def f(x):\n    return x * x",
    "f yields": "def f(x):\n    yield x * x",
    "f returns a lambda": "def f(x):\n    return lambda: x * x",
    "f returns itself": "def f(x):\n    return f",
    "f returns a module": "import math\ndef f(x):\n    return math",
    "f returns nan": "def f(x):\n    return float('nan')",
    "f returns text": "def f(x):\n    return str(x * x)",
    "changes its argument": "def f(x):\n    x += 1\n    return 0",
    "defines assert's helper": "def sorted(*a): return 1\ndef len(*a): return 1" + WRONG,
    "syntax error": "def f(x) return x * x",
    "null byte": "def f(x):\n    return '\x00'",
    "only prose": "The function squares its argument.",
    "tests in the code": "\n".join(TESTS),
    "shadows the judge's names": "judge = candidate = check = lambda *a: True" + WRONG,
    "imports the judge": (
        "from posttrain.verifiers.sandbox import judge\njudge.judge = lambda *a: {}" + WRONG
    ),
}
ENDLESS = {
    "while True": "while True: pass",
    "while True in f": "def f(x):\n    while True: pass",
    "sleeps": "import time\ntime.sleep(1e6)",
    "sleeps in f": "import time\ndef f(x): time.sleep(1e6)",
    "9 ** 9 ** 9": "x = 9 ** 9 ** 9" + WRONG,
    "huge shift": "x = 1 << (1 << 40)" + WRONG,
    "factorial": "import math\nmath.factorial(10 ** 8)" + WRONG,
    "huge text of a number": "x = str(7 ** 10 ** 7)" + WRONG,
    "catastrophic pattern": "import re\nre.match('(a+)+$', 'a' * 40 + 'b')" + WRONG,
    "endless generator": "def f(x):\n    while True: yield x",
    "endless list": "x = []\nwhile True: x.append(x)",
    "endless recursion": "def f(x): return f(x)",
    "recursion without a limit": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return f(x + 1)"
    ),
    "endless output": "while True: print('x' * 10 ** 6)",
    "endless errors": "import sys\nwhile True: sys.stderr.write('x' * 10 ** 6)",
    "endless file": "f = open('big', 'wb')\nwhile True: f.write(b'x' * 10 ** 6)",
    "many files": "n = 0\nwhile True:\n    n += 1\n    open(f'f{n}', 'w').write('x')",
    "many descriptors": "import os\nwhile True: os.dup(0)",
    "many folders": "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
    "memory": "x = bytearray(1 << 40)" + WRONG,
    "memory by and by": "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "memory by mapping": ("import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 28))"),
    "memory by memfd": (
        "import os\nx = []\nwhile True:\n    fd = os.memfd_create('m')\n"
        "    os.write(fd, b'x' * (1 << 24))\n    x.append(fd)"
    ),
    "fork bomb": "import os\nwhile True: os.fork()",
    "quiet fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
    "fork bomb in f": (
        "import os\ndef f(x):\n    while True:\n        try: os.fork()\n"
        "        except OSError: pass"
    ),
    "fork and setsid": (
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n        time.sleep(1e6)" + WRONG
    ),
    "double fork, ignoring signals": (
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\n    for n in range(1, 64):\n"
        "        try: signal.signal(n, signal.SIG_IGN)\n        except Exception: pass\n"
        "    time.sleep(1e6)" + WRONG
    ),
    "thread bomb": (
        "import threading, time\n"
        "while True: threading.Thread(target=time.sleep, args=(1e6,)).start()"
    ),
    "process pool": (
        "import multiprocessing, time\nfor _ in range(50):\n"
        "    multiprocessing.get_context('fork').Process(target=time.sleep, args=(1e6,)).start()"
        + WRONG
    ),
    "ignores SIGXCPU": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    ),
    "waits for input": "input()" + WRONG,
    "reads a pipe for ever": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "deadlock": "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()",
    "result too large": "def f(x): return 'x' * (1 << 28)",
    "result too deep": "def f(x):\n    r = []\n    for _ in range(10 ** 5): r = [r]\n    return r",
    "result without end": "def f(x):\n    r = []\n    r.append(r)\n    return r",
    "slow comparison": (
        "class A:\n    def __eq__(s, o):\n        while True: pass\ndef f(x): return A()"
    ),
    "slow repr": "class A:\n    def __repr__(s):\n        while True: pass\ndef f(x): return A()",
    "compile bomb": "x = '(' * 10 ** 5" + "\neval(x)" + WRONG,
    "nested tuples to compile": "eval('(' * 90 + '1' + ',)' * 90 * 1000)" + WRONG,
    "many digits in source": "x = " + "9" * 100_000,
    "a million names": "\n".join(f"a{n} = {n}" for n in range(12_000)),
}
BREAKING_OUT = {
    "/etc/passwd": "return open('/etc/passwd').read()",
    "/etc/shadow": "return open('/etc/shadow').read()",
    "the home folder": (
        "import os, sys\nreturn [n for n in os.listdir('/root') if n not in sys.base_prefix]"
    ),
    "ssh keys": "import glob\nreturn glob.glob('/root/.ssh/*') + glob.glob('/home/*/.ssh/*')",
    "the canary": "return open({canary!r}).read()",
    "writes over the canary": "open({canary!r}, 'w').write('x')\nreturn True",
    "deletes the canary": "import os\nos.remove({canary!r})\nreturn True",
    "deletes its folder": (
        "import shutil, os\nshutil.rmtree(os.path.dirname({canary!r}))\nreturn True"
    ),
    "renames the canary": "import os\nos.rename({canary!r}, {canary!r} + '2')\nreturn True",
    "chmods the canary": "import os\nos.chmod({canary!r}, 0)\nreturn True",
    "links to the canary": "import os\nos.link({canary!r}, 'c')\nreturn open('c').read()",
    "symlink to the canary": "import os\nos.symlink({canary!r}, 'c')\nreturn open('c').read()",
    "the canary through /proc": "return open('/proc/1/root' + {canary!r}).read()",
    "the canary through cwd": "return open('../' * 20 + {canary!r}).read()",
    "a file beside it": "open({canary!r} + '.new', 'w').write('x')\nreturn True",
    "a file in /tmp of the host": (
        "import os\nopen('/tmp/hostile', 'w').write('x')\nreturn os.path.exists({canary!r})"
    ),
    "a file in /dev/shm": "open('/dev/shm/hostile', 'w').write('x')\nreturn True",
    "a file in /var/tmp": "open('/var/tmp/hostile', 'w').write('x')\nreturn True",
    "the library": "import os\nopen(os.__file__, 'a').write('#')\nreturn True",
    "the library's folder": (
        "import os\nopen(os.path.dirname(os.__file__) + '/hostile.py', 'w')\nreturn True"
    ),
    "site-packages": "import numpy\nreturn True",
    "this package": "import posttrain.formats\nreturn True",
    "its own environment": "import os\nreturn {secret!r} in str(os.environ)",
    "the parent's environment": (
        "import os\nreturn {secret!r} in open(f'/proc/{{os.getppid()}}/environ').read()"
    ),
    "every environment": (
        "import glob\nfor p in glob.glob('/proc/[0-9]*/environ'):\n    try:\n"
        "        if {secret!r} in open(p).read(): return True\n    except OSError: pass"
    ),
    "its first environment": "return {secret!r} in open('/proc/self/environ').read()",
    "other processes": (
        "import os\nme = os.getpid()\n"
        "return [p for p in os.listdir('/proc') if p.isdigit() and int(p) > me + 1000]"
    ),
    "other command lines": (
        "import glob\n"
        "return 'pytest' in ''.join(open(p).read() for p in glob.glob('/proc/*/cmdline'))"
    ),
    "the parent's memory": "import os\nreturn open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "the parent's descriptors": ("import os\nreturn os.listdir(f'/proc/{{os.getppid()}}/fd')"),
    "the judge's memory": (
        "import os\nfor p in range(os.getpid() - 3, os.getpid() + 4):\n    if p != os.getpid():\n"
        "        try: return open(f'/proc/{{p}}/mem', 'rb')\n        except OSError: pass"
    ),
    "ptrace": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "return any(libc.ptrace(16, p, 0, 0) == 0 for p in (1, 2, 3, 4, os.getppid()))"
    ),
    "process_vm_readv": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nb = ctypes.create_string_buffer(8)\n"
        "iov = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8)\n"
        "return libc.process_vm_readv(1, iov, 1, iov, 1, 0) == 8"
    ),
    "kills its parent": "import os\nos.kill(os.getppid(), 9)\nreturn True",
    "kills everybody": "import os\nos.kill(-1, 9)\nreturn True",
    "kills the judge": (
        "import os\nfor p in range(1, 9):\n    if p != os.getpid(): os.kill(p, 9)\nreturn True"
    ),
    "signals through tgkill": (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "return any(libc.syscall(234, p, p, 9) == 0 for p in (1, 3, 4))"
    ),
    "a process group": "import os\nos.killpg(0, 9)\nreturn True",
    "an inet socket": "import socket\nsocket.socket()\nreturn True",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nreturn True",
    "ipv6": "import socket\nsocket.socket(socket.AF_INET6)\nreturn True",
    "a unix socket": "import socket\nsocket.socket(socket.AF_UNIX)\nreturn True",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\nreturn True",
    "packets": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nreturn True",
    "the loopback": "import socket\nsocket.create_connection(('127.0.0.1', {port}))\nreturn True",
    "a server": "import socket\nsocket.create_server(('127.0.0.1', 0))\nreturn True",
    "urllib": (
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')\nreturn True"
    ),
    "name service": "import socket\nreturn socket.gethostbyname('example.com')",
    "a shell": "import subprocess\nreturn subprocess.run('true', shell=True).returncode == 0",
    "os.system": "import os\nreturn os.system('true') == 0",
    "root": "import os\nreturn os.getuid() == 0 or os.geteuid() == 0",
    "setuid back": "import os\nos.setuid(0)\nreturn True",
    "setgid back": "import os\nos.setgid(0)\nreturn True",
    "capabilities": (
        "import ctypes, struct\nlibc = ctypes.CDLL(None)\n"
        "head, data = struct.pack('II', 0x20080522, 0), bytes(24)\n"
        "libc.capget(head, data)\nreturn any(data)"
    ),
    "unshare": "import ctypes\nreturn ctypes.CDLL(None).unshare(0x10000000) == 0",
    "unshare the network": "import ctypes\nreturn ctypes.CDLL(None).unshare(0x40000000) == 0",
    "setns": (
        "import ctypes, os\nfd = os.open('/proc/1/ns/net', 0)\n"
        "return ctypes.CDLL(None).setns(fd, 0) == 0"
    ),
    "mount": "import ctypes\nreturn ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0",
    "remount for writing": (
        "import ctypes\nreturn ctypes.CDLL(None).mount(b'none', b'/', b'', 32 | 4096, 0) == 0"
    ),
    "umount": "import ctypes\nreturn ctypes.CDLL(None).umount2(b'/tmp', 2) == 0",
    "chroot": "import os\nos.mkdir('r')\nos.chroot('r')\nreturn True",
    "mknod": (
        "import os\nos.mknod('d', 0o60600, os.makedev(254, 0))\nreturn open('d', 'rb').read(1)"
    ),
    "raw disk": "import glob\nreturn any(open(p, 'rb').read(1) for p in glob.glob('/dev/[vs]d*'))",
    "kernel memory": "return open('/dev/mem', 'rb').read(1)",
    "kernel settings": "open('/proc/sys/kernel/hostname', 'w').write('x')\nreturn True",
    "host name": "import socket\nsocket.sethostname('x')\nreturn True",
    "a set-uid file": (
        "import os\nopen('s', 'w')\nos.chmod('s', 0o4755)\nos.chown('s', 0, 0)\nreturn True"
    ),
    "runs a file of its own": (
        "import os, subprocess\nopen('r', 'w').write('#!/bin/sh\\n')\nos.chmod('r', 0o755)\n"
        "return subprocess.run(['./r']).returncode == 0"
    ),
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (10 ** 6, 10 ** 6))\n"
        "return True"
    ),
    "limits another": (
        "import resource\nresource.prlimit(1, resource.RLIMIT_CPU, (1, 1))\nreturn True"
    ),
    "bpf": "import ctypes\nreturn ctypes.CDLL(None).syscall(321, 0, 0, 0) != -1",
    "io_uring": (
        "import ctypes\nb = ctypes.create_string_buffer(120)\n"
        "return ctypes.CDLL(None).syscall(425, 4, b) != -1"
    ),
    "perf": "import ctypes\nreturn ctypes.CDLL(None).syscall(298, 0, 0, -1, -1, 0) != -1",
    "keyrings": "import ctypes\nreturn ctypes.CDLL(None).syscall(250, 0, -3, 1) != -1",
    "userfaultfd": "import ctypes\nreturn ctypes.CDLL(None).syscall(323, 0) != -1",
    "shared memory stays": (
        "from multiprocessing import shared_memory\n"
        "shared_memory.SharedMemory('hostile', True, 64)\nreturn True"
    ),
    "descriptors left open": (
        "import os\nfor fd in range(3, 64):\n    try:\n"
        "        if b'assert' in os.pread(fd, 10 ** 6, 0): return True\n    except OSError: pass"
    ),
    "inherited terminal": "return open('/dev/tty', 'w')",
    "crontab": "open('/etc/cron.d/x', 'w')\nreturn True",
    "docker": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('/var/run/docker.sock')\nreturn True"
    ),
}
DEEP = "\\boxed{" * 10_000 + "4" + "}" * 10_000
TEXTS: dict[str, Case] = {
    "boxed 10,000 deep": ("math", DEEP, "5"),
    "boxed never closed": ("math", "\\boxed{" * 10_000, "5"),
    "a million digits": ("math", f"\\boxed{{{'9' * 1_000_000}}}", "5"),
    "a million digits after 5": ("gsm8k", "5" + "0" * 1_000_000, "5"),
    "a million numbers": ("gsm8k", "7 " * 500_000, "5"),
    "tower of powers": ("math", "\\boxed{9^{9^{9^9}}}", "5"),
    "9**9**9**9": ("math", "\\boxed{9**9**9**9}", "5"),
    "factorial of a factorial": ("math", "\\boxed{((9!)!)!}", "5"),
    "huge factorial": ("math", "\\boxed{99999999!}", "5"),
    "huge sum": ("math", r"\boxed{\sum_{n=1}^{10^{12}} \sin(n)}", "5"),
    "huge product": ("math", r"\boxed{\prod_{n=1}^{10^9} n}", "5"),
    "hard integral": ("math", r"\boxed{\int_0^1 e^{x^{x^{x^x}}} dx}", "x"),
    "many roots": ("math", r"\boxed{" + r"\sqrt{" * 60 + "2" + "}" * 60 + "}", "x"),
    "many fractions": ("math", r"\boxed{" + r"\frac{1}{" * 80 + "2" + "}" * 81, "x"),
    "many variables": ("math", r"\boxed{(a+b+c+d+e+f+g+h)^{40}}", "(a+b+c+d+e+f+g+h)^{41}"),
    "expansion": ("math", r"\boxed{(x+1)^{999}(x-1)^{998}}", "(x^2-1)^{997}"),
    "modulus of a tower": ("math", r"\boxed{7^{7^{7^7}} \bmod 10}", "x"),
    "a matrix": ("math", r"\boxed{\begin{pmatrix}" + "1&" * 90 + r"\end{pmatrix}}", "x"),
    "dollar signs": ("math", "$" * 100_000, "5"),
    "braces": ("math", "{" * 100_000, "5"),
    "backslashes": ("math", "\\" * 100_000, "5"),
    "every answer boxed": ("math", " ".join(f"\\boxed{{{n}}}" for n in range(4)), "5"),
    "a set of answers": ("math", r"\boxed{1, 2, 3, 4, 5}", "5"),
    "either or": ("math", r"\boxed{4 \text{ or } 5}", "5"),
    "python in the box": ("math", r"\boxed{__import__('os').system('true') or 5}", "5"),
    "sympy in the box": ("math", r"\boxed{Eq(5,5)}", "5"),
    "answer in the thoughts": ("math", "<think>\\boxed{5}</think>", "5"),
    "thoughts never end": ("gsm8k", "<think> it is 5", "5"),
    "right-to-left digits": ("gsm8k", "\u202e6 \u06f5 \u0665", "5"),
    "infinity": ("gsm8k", "inf nan 1e999", "5"),
    "all letters": ("multiple_choice", "A B C D", "B"),
    "every letter stated": ("multiple_choice", "The answer is A. The answer is B. It is C.", "A"),
    "letters in a row": ("multiple_choice", "(A)(B)(C)(D)", "B"),
    "a million letters": ("multiple_choice", "answer is " * 100_000 + "C", "B"),
    "every answer": ("string_match", "paris london rome", "paris"),
    "the text of the list": ("string_match", '["paris", "rome"]', ["paris", "rome"]),
    "a million spaces": ("string_match", " " * 1_000_000 + "x", "paris"),
    "nested pattern": ("regex", "a" * 50 + "!", "(a+)+$"),
    "pattern with choices": ("regex", "ab" * 30 + "!", "^((ab)*|(ab)+)*$"),
    "pattern with spaces": ("regex", " " * 50_000 + "x", r"^(\s+)+$"),
    "deep JSON": ("json_schema", "[" * 100_000, {"type": "array"}),
    "deep closed JSON": ("json_schema", "[" * 5000 + "]" * 5000, {"items": {"type": "string"}}),
    "JSON with a schema": ("json_schema", '{"$ref": "#"}', {"type": "object", "required": ["a"]}),
    "JSON twice": ("json_schema", '{"a": 1} {"a": 1}', {"type": "object"}),
    "JSON not a number": ("json_schema", '{"a": NaN}', {"type": "object"}),
    "JSON catastrophic name": (
        "json_schema", f'{{"{"a" * 50}!": 1}}', {"propertyNames": {"pattern": "^(a+)+$"}},
    ),
    "JSON huge number": ("json_schema", "1" * 100_000, {"type": "integer", "maximum": 5}),
    "a loop of references": (
        "json_schema",
        "[" * 200 + "]" * 200,
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    ),
    "constraint met by nothing": (
        "ifeval", " \n ", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    ),
    "a megabyte of brackets": (
        "ifbench", "[({" * 300_000,
        {"instruction_id_list": ["format:parentheses"], "kwargs": [{}]},
    ),
    "a megabyte of quotes": (
        "ifbench", "\"'" * 300_000 + "x",
        {"instruction_id_list": ["count:numbers"], "kwargs": [{"N": 1}]},
    ),
}  # fmt: skip


def cases(canary: str, secret: str, port: int) -> dict[str, Case]:
    """Every kind by name, with what is to be stolen or destroyed filled in."""
    fill = {"canary": canary, "secret": secret, "port": port}
    found = {
        f"code: {name}": code(text)
        for table in (LEAVING, CHEATING, ENDLESS)
        for name, text in table.items()
    }
    found |= {f"out: {n}": attempt(text.format(**fill)) for n, text in BREAKING_OUT.items()}
    return found | {f"text: {name}": case for name, case in TEXTS.items()}


NAMES = tuple(cases("", "", 0))
