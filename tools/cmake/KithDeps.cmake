# Outside libraries, as imported targets. The client library needs none of them.

include(CheckLanguage)

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# kith_find(<target> <header> <library> <debian package>): an imported target, or an error that says
# what to install.
function(kith_find target header library package)
    string(MAKE_C_IDENTIFIER "KITH_${library}" var)
    find_path(${var}_INCLUDE_DIR "${header}")
    find_library(${var}_LIBRARY "${library}")
    mark_as_advanced(${var}_INCLUDE_DIR ${var}_LIBRARY)
    if(NOT ${var}_INCLUDE_DIR OR NOT ${var}_LIBRARY)
        message(FATAL_ERROR "${header} or lib${library} is missing: install ${package} (or run tools/dev/setup.sh)")
    endif()
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES
        IMPORTED_LOCATION "${${var}_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${${var}_INCLUDE_DIR}")
endfunction()

if(KITH_SERVER)
    kith_find(uring::uring liburing.h uring liburing-dev)
    kith_find(jemalloc::jemalloc jemalloc/jemalloc.h jemalloc libjemalloc-dev)
endif()
if(KITH_GATEWAY)
    kith_find(jansson::jansson jansson.h jansson libjansson-dev)
    kith_find(openssl::ssl openssl/ssl.h ssl libssl-dev)
    kith_find(openssl::crypto openssl/crypto.h crypto libssl-dev)
    kith_find(nghttp2::nghttp2 nghttp2/nghttp2.h nghttp2 libnghttp2-dev)
endif()
if(KITH_TESTS OR KITH_BENCH)
    # For the header check, the memory model and the benchmarks' peer; none of them is required.
    check_language(CXX)
    if(CMAKE_CXX_COMPILER)
        enable_language(CXX)
    endif()
endif()
if(KITH_TESTS)
    kith_find(cmocka::cmocka cmocka.h cmocka libcmocka-dev)
    find_path(KITH_RELACY_INCLUDE_DIR relacy/relacy.hpp PATH_SUFFIXES include)
    mark_as_advanced(KITH_RELACY_INCLUDE_DIR)
    if(NOT CMAKE_CROSSCOMPILING AND NOT (KITH_RELACY_INCLUDE_DIR AND CMAKE_CXX_COMPILER))
        message(WARNING "the models of the protocol are left out: they need g++ and relacy-dev")
    endif()
endif()
