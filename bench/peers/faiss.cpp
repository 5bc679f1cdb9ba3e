/*
 * faiss.cpp - Debian's libfaiss-dev behind peer.h: IndexHNSWFlat and IndexHNSWSQ with 8 bits a dimension.
 *
 * Debian compiles the library for every x86-64 machine, which makes it several times slower than FAISS is
 * elsewhere. All its time goes into distances, so these are given to it, compiled for this machine; they
 * compute what its own do. A search goes to the graph itself and not through Index::search, which would make and
 * clear a table of all vectors for every single query.
 */
#include "bench/peers/peer.h"

#include <faiss/IndexHNSW.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/DistanceComputer.h>
#include <faiss/impl/FaissException.h>
#include <faiss/index_io.h>
#include <faiss/utils/Heap.h>

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <vector>

#include <omp.h>

#include <kith/kith.h>

#include "bench/peers/normalise.h"

namespace
{
/* The element of a vector that a byte of QT_8bit stands for: (u + 0.5) / 255 of the way that training saw. */
struct decoder {
    const uint8_t *code;
    const float *low; /* of each dimension, in the middle of the lowest step */
    const float *step;
    float operator[](size_t i) const
    {
        return low[i] + step[i] * static_cast<float>(code[i]);
    }
};

template <class A, class B> float square(A a, B b, size_t dim)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < dim; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

template <class A, class B> float product(A a, B b, size_t dim)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < dim; i++)
        sum += a[i] * b[i];
    return sum;
}

/* similarity: IndexHNSW turns a product into a distance by itself while it builds; a search below does it here. */
template <class Storage> struct computer : faiss::FlatCodesDistanceComputer {
    const Storage &storage;
    const float *query = nullptr;
    float sign;

    computer(const Storage &s, bool distance)
        : faiss::FlatCodesDistanceComputer(s.codes.data(), s.code_size), storage(s),
          sign(distance ? -1.0F : 1.0F)
    {
    }
    void set_query(const float *x) override
    {
        query = x;
    }
    template <class A, class B> float compare(A a, B b) const
    {
        size_t dim = static_cast<size_t>(storage.d);
        return storage.metric_type == faiss::METRIC_L2 ? square(a, b, dim) : sign * product(a, b, dim);
    }
    float distance_to_code(const uint8_t *code) override
    {
        return compare(query, storage.decode(code));
    }
    float symmetric_dis(idx_t i, idx_t j) override
    {
        return compare(storage.decode(codes + static_cast<size_t>(i) * code_size),
                       storage.decode(codes + static_cast<size_t>(j) * code_size));
    }
};

struct flat : faiss::IndexFlat {
    using faiss::IndexFlat::IndexFlat;
    explicit flat(const faiss::IndexFlat &other) : faiss::IndexFlat(other)
    {
    }
    const float *decode(const uint8_t *code) const
    {
        return reinterpret_cast<const float *>(code);
    }
    static faiss::IndexHNSW *graph(int dim, int m, faiss::MetricType metric)
    {
        return new faiss::IndexHNSWFlat(dim, m, metric);
    }
    void ready()
    {
    }
    faiss::FlatCodesDistanceComputer *get_FlatCodesDistanceComputer() const override
    {
        return new computer<flat>(*this, false);
    }
};

struct sq8 : faiss::IndexScalarQuantizer {
    std::vector<float> low;
    std::vector<float> step;

    sq8(int dim, faiss::MetricType metric)
        : faiss::IndexScalarQuantizer(dim, faiss::ScalarQuantizer::QT_8bit, metric)
    {
    }
    explicit sq8(const faiss::IndexScalarQuantizer &other) : faiss::IndexScalarQuantizer(other)
    {
    }
    decoder decode(const uint8_t *code) const
    {
        return { code, low.data(), step.data() };
    }
    static faiss::IndexHNSW *graph(int dim, int m, faiss::MetricType metric)
    {
        return new faiss::IndexHNSWSQ(dim, faiss::ScalarQuantizer::QT_8bit, m, metric);
    }
    /* After training: its result is the minimum of every dimension, then the range. */
    void ready()
    {
        for (size_t i = 0; i < static_cast<size_t>(d); i++) {
            step.push_back(sq.trained[static_cast<size_t>(d) + i] / 255);
            low.push_back(sq.trained[i] + 0.5F * step[i]);
        }
    }
    faiss::FlatCodesDistanceComputer *get_FlatCodesDistanceComputer() const override
    {
        return new computer<sq8>(*this, false);
    }
};
} // namespace

struct peer {
    peer_params params;
    std::unique_ptr<faiss::IndexHNSW> index;
    std::unique_ptr<faiss::Index> storage;
    std::unique_ptr<faiss::DistanceComputer> distance;
    std::unique_ptr<faiss::VisitedTable> visited;
    std::vector<float> query; /* normalised, under cosine */
    std::vector<float> found_distance;
    std::vector<faiss::Index::idx_t> found;
    /* Of add and remove: the library numbers vectors in their order, and cannot take one out of a graph. Those that are removed are left
     * out of answers, which are as long as ef is wide for that. */
    std::vector<uint32_t> row_of;                   /* by number */
    std::unordered_map<uint32_t, size_t> number_of; /* by row, of those that are there */
    std::vector<bool> removed;                      /* by number */
    size_t removed_count = 0;
};

namespace
{
faiss::MetricType metric_of(const peer_params &params)
{
    return params.metric == KITH_METRIC_L2 ? faiss::METRIC_L2 : faiss::METRIC_INNER_PRODUCT;
}

template <class Storage> peer *create(const peer_params *params)
{
    auto p = std::make_unique<peer>();
    p->params = *params;
    p->query.resize(params->dim);
    p->storage = std::make_unique<Storage>(static_cast<int>(params->dim), metric_of(*params));
    p->index.reset(
        Storage::graph(static_cast<int>(params->dim), static_cast<int>(params->m), metric_of(*params)));
    delete p->index->storage; /* its own gives place to ours */
    p->index->own_fields = false;
    p->index->storage = p->storage.get();
    p->index->hnsw.efConstruction = static_cast<int>(params->ef_construction);
    return p.release();
}

void destroy(peer *p)
{
    delete p;
}

/* After build and load: what a search keeps from one query to the next. */
template <class Storage> void prepare(peer *p)
{
    p->distance = std::make_unique<computer<Storage>>(*static_cast<Storage *>(p->storage.get()), true);
    p->visited = std::make_unique<faiss::VisitedTable>(static_cast<int>(p->index->ntotal));
    omp_set_num_threads(1);
}

template <class Storage> void build(peer *p, const float *base, uint32_t n, unsigned threads)
{
    size_t dim = p->params.dim;
    std::vector<float> unit;
    if (p->params.metric == KITH_METRIC_COSINE) {
        unit.resize(n * dim);
        for (size_t i = 0; i < n; i++)
            normalise(&unit[i * dim], base + i * dim, p->params.dim);
        base = unit.data();
    }
    omp_set_num_threads(static_cast<int>(threads));
    p->index->train(n, base);
    static_cast<Storage *>(p->storage.get())->ready();
    p->index->add(n, base);
    prepare<Storage>(p);
}

/* Without training, which would see the first rows only. */
void add(peer *p, const float *base, const uint32_t *rows, uint32_t n, unsigned threads)
{
    size_t dim = p->params.dim;
    std::vector<float> vectors(n * dim);
    for (size_t i = 0; i < n; i++) {
        const float *row = base + rows[i] * dim;
        if (p->params.metric == KITH_METRIC_COSINE)
            normalise(&vectors[i * dim], row, p->params.dim);
        else
            std::copy(row, row + dim, &vectors[i * dim]);
        p->number_of[rows[i]] = p->row_of.size();
        p->row_of.push_back(rows[i]);
        p->removed.push_back(false);
    }
    omp_set_num_threads(static_cast<int>(threads));
    p->index->add(n, vectors.data());
    prepare<flat>(p);
}

void take_away(peer *p, const uint32_t *rows, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        auto at = p->number_of.find(rows[i]);
        if (at == p->number_of.end())
            continue;
        p->removed[at->second] = true;
        p->removed_count++;
        p->number_of.erase(at);
    }
}

template <class Storage, class Read> bool load(peer *p, const char *path)
{
    try {
        std::unique_ptr<faiss::Index> file(faiss::read_index(path));
        auto *index = dynamic_cast<faiss::IndexHNSW *>(file.get());
        auto *read = index ? dynamic_cast<Read *>(index->storage) : nullptr;
        if (!read || index->ntotal != p->params.count_max || index->d != static_cast<int>(p->params.dim) ||
            read->metric_type != metric_of(p->params) ||
            index->hnsw.nb_neighbors(1) != static_cast<int>(p->params.m) ||
            index->hnsw.efConstruction != static_cast<int>(p->params.ef_construction))
            return false;
        auto storage = std::make_unique<Storage>(*read);
        storage->ready();
        p->storage = std::move(storage);
        p->index->hnsw = index->hnsw;
        p->index->storage = p->storage.get();
        p->index->ntotal = index->ntotal;
        p->index->is_trained = true;
    } catch (const std::exception &) {
        return false;
    }
    prepare<Storage>(p);
    return true;
}

void save(peer *p, const char *path)
{
    faiss::write_index(p->index.get(), path);
}

void search(peer *p, const float *query, uint32_t k, uint32_t ef)
{
    if (p->params.metric == KITH_METRIC_COSINE) {
        normalise(p->query.data(), query, p->params.dim);
        query = p->query.data();
    }
    if (p->removed_count > 0 && k < ef)
        k = ef;
    p->found.resize(k);
    p->found_distance.resize(k);
    faiss::maxheap_heapify(k, p->found_distance.data(), p->found.data());
    p->distance->set_query(query);
    p->index->hnsw.efSearch = static_cast<int>(ef);
    p->index->hnsw.search(*p->distance, static_cast<int>(k), p->found.data(), p->found_distance.data(),
                          *p->visited);
    faiss::maxheap_reorder(k, p->found_distance.data(), p->found.data());
}

uint32_t rows(peer *p, uint32_t *out_rows, uint32_t k)
{
    uint32_t n = 0;
    for (size_t i = 0; n < k && i < p->found.size() && p->found[i] >= 0; i++) {
        size_t number = static_cast<size_t>(p->found[i]);
        if (p->row_of.empty())
            out_rows[n++] = static_cast<uint32_t>(number);
        else if (!p->removed[number])
            out_rows[n++] = p->row_of[number];
    }
    return n;
}

size_t bytes(const peer *p)
{
    const faiss::HNSW &h = p->index->hnsw;
    const auto *codes = dynamic_cast<const faiss::IndexFlatCodes *>(p->index->storage);
    return (codes ? codes->codes.size() : 0) + h.neighbors.size() * sizeof(h.neighbors[0]) +
           h.offsets.size() * sizeof(h.offsets[0]) + h.levels.size() * sizeof(h.levels[0]);
}
} // namespace

const peer_kind peer_faiss = { "faiss", true,        create<flat>,
                               destroy, build<flat>, load<flat, faiss::IndexFlat>,
                               save,    search,      rows,
                               add,     take_away,   bytes };
const peer_kind peer_faiss_sq8 = { "faiss-sq8", true,       create<sq8>,
                                   destroy,     build<sq8>, load<sq8, faiss::IndexScalarQuantizer>,
                                   save,        search,     rows,
                                   nullptr,     nullptr,    bytes };
