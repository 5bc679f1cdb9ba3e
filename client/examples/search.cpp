/*
 * search.cpp - the same from C++11: handles that close themselves, errors as exceptions, a filter.
 *
 *   search_cpp COLLECTION ID [FILTER]
 */
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <kith/kith.h>

namespace
{

struct closer {
    void operator()(kith *index) const
    {
        kith_close(index);
    }
    void operator()(kith_results *r) const
    {
        kith_results_free(r);
    }
};
using handle = std::unique_ptr<kith, closer>;
using results = std::unique_ptr<kith_results, closer>;

void check(int rc, const kith_error &error)
{
    if (rc < 0)
        throw std::runtime_error(error.code == rc ? error.text : kith_strerror(rc));
}

struct hit {
    std::string id;
    float distance;
};

std::vector<hit> search(kith *index, const std::vector<float> &query, unsigned k, const char *filter)
{
    kith_error error{};
    kith_search_opts opts = KITH_SEARCH_OPTS_INIT;
    opts.filter = filter;
    opts.error = &error;
    results found(kith_results_new());
    int n = kith_search(index, query.data(), query.size(), k, &opts, found.get());
    check(n, error);
    std::vector<hit> hits;
    for (unsigned i = 0; i < static_cast<unsigned>(n); i++)
        hits.push_back({ kith_results_id(found.get(), i), kith_results_distance(found.get(), i) });
    return hits;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s COLLECTION ID [FILTER]\n", argv[0]);
        return 2;
    }
    try {
        kith_error error{};
        kith_open_opts opts = KITH_OPEN_OPTS_INIT;
        opts.error = &error;
        kith *opened = nullptr;
        check(kith_open(argv[1], &opts, &opened), error);
        handle index(opened);

        std::vector<float> query(kith_dim(index.get()));
        check(kith_get(index.get(), argv[2], query.data(), query.size(), nullptr), error);
        for (const hit &h : search(index.get(), query, 3, argc > 3 ? argv[3] : nullptr))
            std::printf("%s %g\n", h.id.c_str(), static_cast<double>(h.distance));
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
