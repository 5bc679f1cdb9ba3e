# Tests are named after their file: tests/unit/shm/base/test_id.c is unit.shm.base.id, label unit.

# Timeouts are for a plain build on a busy machine; emulation and sanitizers get a multiple.
set(KITH_TEST_SLOWNESS 1)
if(CMAKE_CROSSCOMPILING)
    set(KITH_TEST_SLOWNESS 6)
elseif(KITH_SANITIZE OR KITH_COVERAGE)
    set(KITH_TEST_SLOWNESS 3)
endif()

# kith_test_name(<out> <path from the root>)
function(kith_test_name out path)
    string(REGEX REPLACE "^tests/" "" name "${path}")
    string(REGEX REPLACE "\\.(c|cpp|sh)$" "" name "${name}")
    string(REGEX REPLACE "(^|/)(test|fuzz)_" "\\1" name "${name}")
    string(REPLACE "/" "." name "${name}")
    set(${out} "${name}" PARENT_SCOPE)
endfunction()

# The library that the code under a path of tests/unit lives in.
function(kith_test_library out path)
    set(library kith_static)
    if(path MATCHES "^tests/[a-z]+/shm/")
        set(library kith_shm)
    elseif(path MATCHES "^tests/[a-z]+/server/base/")
        set(library kith_base)
    elseif(path MATCHES "^tests/[a-z]+/server/wal/")
        set(library kith_wal)
    elseif(path MATCHES "^tests/[a-z]+/server/index/")
        set(library kith_index)
    elseif(path MATCHES "^tests/[a-z]+/server/writer/")
        set(library kith_writer)
    endif()
    set(${out} ${library} PARENT_SCOPE)
endfunction()

# kith_test_binary(<name> <path> [SOURCES ...] [LIBS ...]): a test program without a test.
# Without LIBS it links the library that the path points at.
function(kith_test_binary name path)
    cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
    if(NOT ARG_LIBS)
        kith_test_library(ARG_LIBS "${path}")
    endif()
    add_executable(${name} "${PROJECT_SOURCE_DIR}/${path}" ${ARG_SOURCES})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
    target_link_libraries(${name} PRIVATE ${ARG_LIBS} kith_test_support cmocka::cmocka Threads::Threads m)
    target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/client/include")
    kith_harden(${name})
endfunction()

# kith_label(<target> <label>): building tests-<label> builds what the tests of one label need.
function(kith_label target label)
    if(NOT TARGET tests-${label})
        add_custom_target(tests-${label})
    endif()
    add_dependencies(tests-${label} ${target})
endfunction()

# kith_test(<path> [LABEL label] [TIMEOUT seconds] [SOURCES ...] [LIBS ...] [ARGS ...] [SERIAL]):
# binary, name and test from a path such as tests/race/test_birth.c. The label is the folder.
function(kith_test path)
    cmake_parse_arguments(ARG "SERIAL" "LABEL;TIMEOUT" "SOURCES;LIBS;ARGS" ${ARGN})
    if(NOT ARG_LABEL)
        string(REGEX REPLACE "^tests/([a-z]+)/.*" "\\1" ARG_LABEL "${path}")
    endif()
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 60)
    endif()
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * ${KITH_TEST_SLOWNESS}")
    kith_test_name(name "${path}")
    kith_test_binary(${name} "${path}" SOURCES ${ARG_SOURCES} LIBS ${ARG_LIBS})
    kith_label(${name} ${ARG_LABEL})
    add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
    # Those that may take long start first, so that none of them runs alone at the end.
    set_tests_properties(${name} PROPERTIES
        LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT} COST ${ARG_TIMEOUT})
    if(ARG_SERIAL)
        set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
    endif()
endfunction()

# kith_unit(<path> [TIMEOUT seconds] [SOURCES ...] [LIBS ...]): a cmocka test below tests/unit.
function(kith_unit path)
    kith_test("${path}" LABEL unit ${ARGN})
endfunction()

# kith_proc(<path> ...): as kith_test, for tests that start kithd and kith. The programs are built
# first, and the test finds them as KITH_TEST_KITHD and KITH_TEST_KITH in its environment.
function(kith_proc path)
    kith_test("${path}" ${ARGN})
    kith_test_name(name "${path}")
    kith_test_programs(${name})
    add_dependencies(${name} kithd kith_cli)
endfunction()

function(kith_test_programs name)
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT
        "KITH_TEST_KITHD=$<TARGET_FILE:kithd>" "KITH_TEST_KITH=$<TARGET_FILE:kith_cli>")
endfunction()

# kith_test_failing(<test>): its own thread's calls can be made to fail (tests/support/failing.h). Calls of code that is
# linked statically are led there by the linker.
function(kith_test_failing name)
    set(calls access aligned_alloc calloc fallocate fdatasync flock fstat fsync ftruncate getrandom link lseek lstat
        malloc mkdir mmap open opendir posix_memalign pread pthread_create pwrite pwritev2 readdir realloc realpath rename renameat2
        rmdir stat strdup strndup unlink)
    list(TRANSFORM calls PREPEND "LINKER:--wrap=")
    target_sources(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests/support/failing.c")
    target_link_options(${name} PRIVATE ${calls})
endfunction()

# kith_script(<path> LABEL label [TIMEOUT seconds] [ARGS ...]): a shell script as a test.
function(kith_script path)
    cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "ARGS" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 60)
    endif()
    kith_test_name(name "${path}")
    add_test(NAME ${name} COMMAND "${PROJECT_SOURCE_DIR}/${path}" ${ARG_ARGS}
        WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# kith_fuzz(<path> [LIBS ...] [SOURCES ...]): a target with LLVMFuzzerTestOneInput. With KITH_FUZZ it
# is linked with libFuzzer and the test fuzzes for KITH_FUZZ_SECONDS; otherwise the test replays the
# corpus in tests/fuzz/corpus/<target> and mutations of it with a fixed seed. tests/fuzz/<target>.options has
# arguments for libFuzzer, one a line, which tools/dev/fuzz.sh gives it, too: inputs that are lists of words of eight bytes are cut at
# some of them, as with many the first check refuses each, and are no shorter in the beginning, as nothing is damaged then.
set(KITH_FUZZ_SECONDS 10 CACHE STRING "How long the test of a fuzz target runs")
function(kith_fuzz path)
    cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
    kith_test_name(name "${path}")
    string(REGEX REPLACE "^fuzz\\." "" target "${name}")
    set(corpus "${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${target}")
    if(KITH_FUZZ)
        kith_test_binary(${name} "${path}" SOURCES ${ARG_SOURCES} LIBS ${ARG_LIBS})
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        # libFuzzer writes what it finds into the first directory: never into the checkout.
        set(found "${PROJECT_BINARY_DIR}/tests/corpus/${target}")
        file(MAKE_DIRECTORY "${found}")
        set(dirs "${found}")
        if(EXISTS "${corpus}")
            list(APPEND dirs "${corpus}")
        endif()
        set(options "")
        if(EXISTS "${PROJECT_SOURCE_DIR}/tests/fuzz/${target}.options")
            file(STRINGS "${PROJECT_SOURCE_DIR}/tests/fuzz/${target}.options" options)
        endif()
        add_test(NAME ${name} COMMAND ${name} ${options} -max_total_time=${KITH_FUZZ_SECONDS} -timeout=10
            -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=${found}- ${dirs})
        math(EXPR timeout "${KITH_FUZZ_SECONDS} + 60")
    else()
        kith_test_binary(${name} "${path}" LIBS ${ARG_LIBS}
            SOURCES ${ARG_SOURCES} "${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c")
        add_test(NAME ${name} COMMAND ${name} "${corpus}")
        set(timeout 120)
    endif()
    kith_label(${name} fuzz)
    set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT ${timeout})
endfunction()
