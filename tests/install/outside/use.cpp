/*
 * use.cpp - the same from C++: the header is usable there, and its handles fit a unique_ptr.
 */
#include <kith/kith.h>

#include <cstdio>
#include <memory>

int main()
{
    kith_search_opts search = KITH_SEARCH_OPTS_INIT;
    kith_open_opts opts = KITH_OPEN_OPTS_INIT;
    kith *index = nullptr;

    search.ef = 64;
    int rc = kith_open("nobody", &opts, &index);
    std::unique_ptr<kith, decltype(&kith_close)> closer(index, kith_close);
    std::unique_ptr<kith_results, decltype(&kith_results_free)> results(kith_results_new(),
                                                                        kith_results_free);
    if (rc != KITH_E_NO_COLLECTION || !results || kith_results_count(results.get()) != 0) {
        std::fprintf(stderr, "kith_open: %s\n", kith_errname(rc));
        return 1;
    }
    std::printf("kith %s: %s\n", kith_version(), kith_strerror(rc));
    return 0;
}
