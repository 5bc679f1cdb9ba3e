"""One container of a pod, as far as the kernel knows containers: PID, IPC, UTS and mount namespaces of its own, a root file
system that is read-only, bind mounts, a user without capabilities, a seccomp filter, a cgroup. The program is process 1.

    python3 sandbox.py SPEC

SPEC is a JSON object: root, argv, env; binds, a list of [source, target, read_only]; uid, gid, groups; filter (a list of system
calls that are permitted, null for all); cgroup (a directory, or null); pid_file, which gets the pid that the program has
outside. Ends with the program's exit status, or 128 + signal. Needs root. No engine, so that it works where none is installed.
"""
import ctypes
import json
import os
import platform
import re
import signal
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER, RET_ALLOW, RET_ERRNO = 2, 0x7FFF0000, 0x00050000
EPERM = 1
AUDIT_ARCH_X86_64 = 0xC000003E
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[platform.machine()]

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def unshare(flags):
    check(libc.unshare(flags), "unshare")


def mount(source, target, kind=None, flags=0, data=None):
    def encode(text):
        return None if text is None else text.encode()
    check(libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)), f"mount {source} on {target}")


def bind(source, target, read_only, recursive=False):
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)


def private_mounts():
    """What this process mounts from now on nobody else sees, and it goes with the process."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def syscall_numbers():
    """Names and numbers by the kernel's header; {} on a machine whose filters this module does not write."""
    if platform.machine() != "x86_64":
        return {}
    for path in ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"):
        if os.path.exists(path):
            with open(path, encoding="ascii") as header:
                return {m[1]: int(m[2]) for m in re.finditer(r"#define __NR_(\w+)\s+(\d+)", header.read())}
    return {}


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]


def install_filter(names, numbers):
    """Only these system calls; the others fail with EPERM, as under a runtime's profile."""
    load, equal, ret = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 4), (equal, 1, 0, AUDIT_ARCH_X86_64), (ret, 0, 0, RET_ERRNO | EPERM), (load, 0, 0, 0)]
    for name in names:
        if name in numbers:  # those that a later kernel has are in no earlier header
            code += [(equal, 0, 1, numbers[name]), (ret, 0, 0, RET_ALLOW)]
    code.append((ret, 0, 0, RET_ERRNO | EPERM))
    array = (Instruction * len(code))(*(Instruction(*i) for i in code))
    program = Program(len(code), array)
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0), "seccomp")


def enter_root(spec):
    root = spec["root"]
    bind(root, root, True)
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    bind("/sys", root + "/sys", True, recursive=True)
    mount("tmpfs", root + "/dev", "tmpfs", MS_NOSUID, "size=64k,mode=0755")
    for name in ("null", "zero", "urandom", "random"):
        with open(f"{root}/dev/{name}", "wb"):
            pass
        bind(f"/dev/{name}", f"{root}/dev/{name}", False)
    for source, target, read_only in spec["binds"]:
        bind(source, root + target, read_only)
    os.chdir(root)
    check(libc.syscall(PIVOT_ROOT, b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def become_program(spec):
    numbers = syscall_numbers()  # whose header is not in the image
    private_mounts()  # its own: pivot_root moves everybody in the mount namespace
    enter_root(spec)
    os.setgroups(spec["groups"])
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    # After the change of user, which forgets it.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if spec["filter"] is not None:
        install_filter(spec["filter"], numbers)
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


def main():
    spec = json.loads(sys.argv[1])
    if spec["cgroup"]:
        with open(os.path.join(spec["cgroup"], "cgroup.procs"), "w", encoding="ascii") as procs:
            procs.write("0")
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
    pid = os.fork()
    if pid == 0:
        try:
            become_program(spec)
        except OSError as error:
            print(f"sandbox: {error}", file=sys.stderr, flush=True)
        os._exit(125)
    if spec["pid_file"]:
        with open(spec["pid_file"] + ".new", "w", encoding="ascii") as out:
            out.write(str(pid))
        os.rename(spec["pid_file"] + ".new", spec["pid_file"])
    # Whoever ends this process ends the container as its runtime would: politely.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    _, status = os.waitpid(pid, 0)
    sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
