# Flags that every target of the project carries.

# kith_harden(<target>): C11, root include path, warnings, hardening, sanitizers.
function(kith_harden target)
    set_target_properties(${target} PROPERTIES
        C_STANDARD 11
        C_STANDARD_REQUIRED ON
        C_EXTENSIONS OFF
        C_VISIBILITY_PRESET hidden
        CXX_STANDARD 17
        CXX_STANDARD_REQUIRED ON
        CXX_VISIBILITY_PRESET hidden)
    target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
    target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}")

    # -Wsign-conversion is part of -Wconversion in C; it drowns the lossy conversions in noise.
    target_compile_options(${target} PRIVATE
        -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wformat=2 -Wpointer-arith
        -Wwrite-strings -Wundef -Wvla
        $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
        $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
        -fno-omit-frame-pointer -fstack-protector-strong)
    if(KITH_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
    endif()

    if(KITH_SANITIZE)
        target_compile_options(${target} PRIVATE -fsanitize=${KITH_SANITIZE} -fno-sanitize-recover=all)
        target_link_options(${target} PRIVATE -fsanitize=${KITH_SANITIZE})
    else()
        # Fortified functions hide from the sanitizers what they would report; without optimisation
        # they do nothing but warn.
        target_compile_definitions(${target} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:_FORTIFY_SOURCE=2>)
    endif()
    if(KITH_FUZZ)
        target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
    if(KITH_COVERAGE)
        # What gets installed is counted, tests and tools are not. Without optimisation each branch of the source is one of
        # the program; counters are shared by threads.
        get_target_property(folder ${target} SOURCE_DIR)
        file(RELATIVE_PATH folder "${PROJECT_SOURCE_DIR}" "${folder}")
        if(folder MATCHES "^(shm|client|server)(/|$)")
            target_compile_options(${target} PRIVATE --coverage -fprofile-update=atomic -O0)
            target_compile_definitions(${target} PRIVATE KITHI_COVERAGE)
        endif()
        target_link_options(${target} PRIVATE --coverage)
    endif()
    target_link_options(${target} PRIVATE -Wl,-z,relro,-z,now)
endfunction()
