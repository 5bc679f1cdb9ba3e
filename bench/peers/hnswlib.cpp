/*
 * hnswlib.cpp - Debian's libhnswlib-dev behind peer.h, compiled -O3 -march=native.
 */
#include "bench/peers/peer.h"

#include <hnswlib/hnswlib.h>

#include <atomic>
#include <memory>
#include <queue>
#include <string>
#include <thread>
#include <vector>

#include <kith/kith.h>

#include "bench/peers/normalise.h"

struct peer {
    peer_params params;
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> index;
    std::vector<float> query; /* normalised, under cosine */
    std::priority_queue<std::pair<float, hnswlib::labeltype>> found;
};

namespace
{
using graph = hnswlib::HierarchicalNSW<float>;

peer *create(const peer_params *params)
{
    auto p = std::make_unique<peer>();
    p->params = *params;
    if (params->metric == KITH_METRIC_L2)
        p->space = std::make_unique<hnswlib::L2Space>(params->dim);
    else
        p->space = std::make_unique<hnswlib::InnerProductSpace>(params->dim);
    p->index = std::make_unique<graph>(p->space.get(), params->count_max, params->m, params->ef_construction);
    p->query.resize(params->dim);
    return p.release();
}

void destroy(peer *p)
{
    delete p;
}

void build(peer *p, const float *base, uint32_t n, unsigned threads)
{
    bool cosine = p->params.metric == KITH_METRIC_COSINE;
    size_t dim = p->params.dim;
    std::atomic<uint32_t> next{ 0 };
    auto work = [&]() {
        std::vector<float> unit(dim);
        for (uint32_t i = next++; i < n; i = next++) {
            const float *row = base + i * dim;
            if (cosine) {
                normalise(unit.data(), row, p->params.dim);
                row = unit.data();
            }
            p->index->addPoint(row, i);
        }
    };
    std::vector<std::thread> pool;
    for (unsigned t = 1; t < threads; t++)
        pool.emplace_back(work);
    work();
    for (auto &t : pool)
        t.join();
}

bool load(peer *p, const char *path)
{
    try {
        auto index = std::make_unique<graph>(p->space.get(), std::string(path));
        if (index->cur_element_count != p->params.count_max || index->M_ != p->params.m ||
            index->ef_construction_ != p->params.ef_construction)
            return false;
        p->index = std::move(index);
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

void save(peer *p, const char *path)
{
    p->index->saveIndex(path);
}

void search(peer *p, const float *query, uint32_t k, uint32_t ef)
{
    if (p->params.metric == KITH_METRIC_COSINE) {
        normalise(p->query.data(), query, p->params.dim);
        query = p->query.data();
    }
    p->index->setEf(ef);
    p->found = p->index->searchKnn(query, k);
}

uint32_t rows(peer *p, uint32_t *out_rows, uint32_t k)
{
    uint32_t n = 0;
    for (; n < k && !p->found.empty(); n++) {
        out_rows[n] = static_cast<uint32_t>(p->found.top().second);
        p->found.pop();
    }
    return n;
}

size_t bytes(const peer *p)
{
    const graph &g = *p->index;
    size_t sum =
        g.cur_element_count * (g.size_data_per_element_ + sizeof(char *) + sizeof(int) + sizeof(std::mutex));
    for (size_t i = 0; i < g.cur_element_count; i++)
        sum += static_cast<size_t>(g.element_levels_[i]) * g.size_links_per_element_;
    return sum;
}
} // namespace

const peer_kind peer_hnswlib = { "hnswlib", create, destroy, build, load, save, search, rows, bytes };
