// `launch` on a CPU, for tests: all kernels, compiled for the host.
//
// GOCOR_RADII(X), such as "X(1) X(4)", leaves radii out and compiles faster.

#include "native/launch.h"

#include "local_correlation/kernel.cuh"
#include "local_correlation_transpose/kernel.cuh"

#ifndef GOCOR_RADII
#define GOCOR_RADII(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#endif

#define KERNELS(RADIUS)                                        \
    GOCOR_LOCAL_CORRELATION(f32, float, RADIUS)                \
    GOCOR_LOCAL_CORRELATION(f16, gocor::half_t, RADIUS)        \
    GOCOR_LOCAL_CORRELATION_TRANSPOSE(f32, float, RADIUS)      \
    GOCOR_LOCAL_CORRELATION_TRANSPOSE(f16, gocor::half_t, RADIUS)

GOCOR_RADII(KERNELS)

namespace gocor {
namespace {

struct Entry {
    const char* name;
    int threads;
    std::function<void(const void*, const void*, int, int, int, int, void*)> run;
};

template <class T>
Entry entry(const char* name, int threads, void (*kernel)(const T*, const T*, int, int, int, int, T*)) {
    return {name, threads, [kernel](const void* first, const void* second, int N, int C, int H, int W, void* out) {
                kernel(static_cast<const T*>(first), static_cast<const T*>(second), N, C, H, W, static_cast<T*>(out));
            }};
}

#define ENTRY(SPACE, NAME, TYPE, RADIUS) entry<TYPE>(#NAME, SPACE::Tiling<TYPE, RADIUS>::THREADS, NAME),
#define ENTRIES(RADIUS)                                                                      \
    ENTRY(correlation, gocor_local_correlation_f32_r##RADIUS, float, RADIUS)                 \
    ENTRY(correlation, gocor_local_correlation_f16_r##RADIUS, half_t, RADIUS)                \
    ENTRY(transpose, gocor_local_correlation_transpose_f32_r##RADIUS, float, RADIUS)         \
    ENTRY(transpose, gocor_local_correlation_transpose_f16_r##RADIUS, half_t, RADIUS)

const Entry ENTRY_POINTS[] = {GOCOR_RADII(ENTRIES)};

}  // namespace

const char* launch(const Geometry& geometry, const Problem& problem, const void* first, const void* second,
                   void* output, void*) {
    for (const Entry& entry : ENTRY_POINTS) {
        if (geometry.kernel != entry.name) continue;
        if (geometry.threads != entry.threads) return "launched with another number of threads than the kernel has";
        host::run(geometry.grid, geometry.threads, [&] {
            entry.run(first, second, problem.batch, problem.channels, problem.height, problem.width, output);
        });
        return nullptr;
    }
    return "there is no such kernel";
}

}  // namespace gocor
