"""What cffi has to know of libkith, made of kith.h itself: nothing is declared twice.

setuptools runs this for a wheel (setup.py). By hand, to use the package from the sources:

    python3 abi_build.py DIRECTORY      copies the package to DIRECTORY/kith, with its _abi.py

The mode is cffi's ABI mode, out of line: no compiler, a wheel for every machine, and at run time cffi's backend alone
(Debian: python3-cffi-backend), without a parser of C.
"""
import re
import shutil
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
HEADER = HERE.parent.parent / "include" / "kith" / "kith.h"


def declarations(header: str) -> str:
    """The declarations of a header, and those of its constants that are plain numbers, in the C that cffi reads."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.S)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.S)
    constants = re.findall(r"^#define (KITH_\w+) (\d+|0x[0-9a-fA-F]+)u?$", text, flags=re.M)
    text = re.sub(r"^#.*?(?<!\\)$", "", text, flags=re.M | re.S)
    text = re.sub(r"\bKITH_API\b", "", text)
    return "".join(f"#define {name} {value}\n" for name, value in constants) + text


ffi = FFI()
ffi.cdef(declarations(HEADER.read_text(encoding="utf-8")))
ffi.set_source("kith._abi", None)


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: abi_build.py DIRECTORY", file=sys.stderr)
        return 2
    package = Path(sys.argv[1]) / "kith"
    shutil.copytree(HERE / "kith", package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "_abi.py"))
    ffi.emit_python_code(str(package / "_abi.py"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
