# Cross build for aarch64, tests under qemu-user. KITH_SYSROOT is a Debian arm64 root made by
# tools/dev/sysroot.sh:  cmake --preset aarch64 -DKITH_SYSROOT=<directory>

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(KITH_SYSROOT "" CACHE PATH "Root of a Debian arm64 file system with the development packages")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES KITH_SYSROOT)
if(NOT KITH_SYSROOT)
    message(FATAL_ERROR "set KITH_SYSROOT to a directory made by tools/dev/sysroot.sh")
endif()

set(CMAKE_SYSROOT "${KITH_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH "${KITH_SYSROOT}")
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;${KITH_SYSROOT}")
