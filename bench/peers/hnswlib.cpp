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
#include <unordered_map>
#include <vector>

#include <kith/kith.h>

#include "bench/peers/normalise.h"

struct peer {
    peer_params params;
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> index;
    std::vector<float> query; /* normalised, under cosine */
    std::priority_queue<std::pair<float, hnswlib::labeltype>> found;
    /* Of add and remove: labels are the order of addition. */
    std::vector<uint32_t> row_of;                              /* by label */
    std::unordered_map<uint32_t, hnswlib::labeltype> label_of; /* by row, of those that are there */
    std::vector<hnswlib::labeltype> removed;                   /* labels, to be used again */
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

/* Row rows[i] of base under labels[i]; without them row i under label i. */
void insert(peer *p, const float *base, const uint32_t *rows, const hnswlib::labeltype *labels, uint32_t n,
            unsigned threads)
{
    bool cosine = p->params.metric == KITH_METRIC_COSINE;
    size_t dim = p->params.dim;
    std::atomic<uint32_t> next{ 0 };
    auto work = [&]() {
        std::vector<float> unit(dim);
        for (uint32_t i = next++; i < n; i = next++) {
            const float *row = base + (rows ? rows[i] : i) * dim;
            if (cosine) {
                normalise(unit.data(), row, p->params.dim);
                row = unit.data();
            }
            p->index->addPoint(row, labels ? labels[i] : i);
        }
    };
    std::vector<std::thread> pool;
    for (unsigned t = 1; t < threads; t++)
        pool.emplace_back(work);
    work();
    for (auto &t : pool)
        t.join();
}

void build(peer *p, const float *base, uint32_t n, unsigned threads)
{
    insert(p, base, nullptr, nullptr, n, threads);
}

/* A label that was removed is one that exists: addPoint() takes the mark away and links the element anew, as later versions do
 * under allow_replace_deleted. */
template <bool Replace>
void add(peer *p, const float *base, const uint32_t *rows, uint32_t n, unsigned threads)
{
    std::vector<hnswlib::labeltype> labels(n);
    for (uint32_t i = 0; i < n; i++) {
        if (Replace && !p->removed.empty()) {
            labels[i] = p->removed.back();
            p->removed.pop_back();
            p->row_of[labels[i]] = rows[i];
        } else {
            labels[i] = p->row_of.size();
            p->row_of.push_back(rows[i]);
        }
        p->label_of[rows[i]] = labels[i];
    }
    if (p->row_of.size() > p->index->max_elements_)
        p->index->resizeIndex(p->row_of.size() + p->row_of.size() / 2);
    insert(p, base, rows, labels.data(), n, threads);
}

template <bool Replace> void take_away(peer *p, const uint32_t *rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        auto at = p->label_of.find(rows[i]);
        if (at == p->label_of.end())
            continue;
        p->index->markDelete(at->second);
        if (Replace)
            p->removed.push_back(at->second);
        p->label_of.erase(at);
    }
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
        hnswlib::labeltype label = p->found.top().second;
        out_rows[n] = p->row_of.empty() ? static_cast<uint32_t>(label) : p->row_of[label];
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

const peer_kind peer_hnswlib = { "hnswlib", false, create,     destroy,          build, load, save,
                                 search,    rows,  add<false>, take_away<false>, bytes };
const peer_kind peer_hnswlib_replace = {
    "hnswlib-replace", false,           create, destroy, build, load, save, search, rows,
    add<true>,         take_away<true>, bytes
};
