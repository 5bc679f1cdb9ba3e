/*
 * normalise.h - what cosine means for libraries that know the inner product only.
 */
#ifndef KITH_BENCH_NORMALISE_H
#define KITH_BENCH_NORMALISE_H

#include <cmath>
#include <cstdint>

inline void normalise(float *dst, const float *src, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += static_cast<double>(src[i]) * static_cast<double>(src[i]);
    float scale = sum > 0 ? static_cast<float>(1 / std::sqrt(sum)) : 0;
    for (uint32_t i = 0; i < dim; i++)
        dst[i] = src[i] * scale;
}

#endif
