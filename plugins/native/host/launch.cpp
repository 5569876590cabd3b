// `launch` on a CPU, for tests: all kernels, compiled for the host.
//
// GOCOR_RADII(X), such as "X(1) X(4)", leaves radii out and compiles faster; so do GOCOR_ONLY_CORRELATIONS and
// GOCOR_ONLY_FUSED.

#include "native/launch.h"

#include <cstring>
#include <utility>

#include "local_correlation/kernel.cuh"
#include "local_correlation_transpose/kernel.cuh"
#include "local_gocor/kernel.cuh"
#include "native/host/run.h"

#ifndef GOCOR_RADII
#define GOCOR_RADII(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#endif

#define CORRELATIONS(RADIUS)                              \
    GOCOR_LOCAL_CORRELATION(f32, float, RADIUS)           \
    GOCOR_LOCAL_CORRELATION(f16, gocor::half_t, RADIUS)   \
    GOCOR_LOCAL_CORRELATION_TRANSPOSE(f32, float, RADIUS) \
    GOCOR_LOCAL_CORRELATION_TRANSPOSE(f16, gocor::half_t, RADIUS)
#define FUSED(RADIUS)                     \
    GOCOR_LOCAL_GOCOR(f32, float, RADIUS) \
    GOCOR_LOCAL_GOCOR(f16, gocor::half_t, RADIUS)

#ifndef GOCOR_ONLY_FUSED
GOCOR_RADII(CORRELATIONS)
#endif
#ifndef GOCOR_ONLY_CORRELATIONS
GOCOR_RADII(FUSED)
#endif

namespace gocor {
namespace {

struct Entry {
    const char* name;
    int threads;
    std::size_t arguments;
    std::function<void(void* const*)> run;
};

template <class... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), void* const* arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Arguments*>(arguments[I])...);
}

template <class... Arguments>
Entry entry(const char* name, int threads, void (*kernel)(Arguments...)) {
    return {name, threads, sizeof...(Arguments), [kernel](void* const* arguments) {
                call(kernel, arguments, std::index_sequence_for<Arguments...>());
            }};
}

#define ENTRY(SPACE, NAME, TYPE, RADIUS) entry(#NAME, SPACE::Tiling<TYPE, RADIUS>::THREADS, NAME),
#define CORRELATION_ENTRIES(RADIUS)                                                  \
    ENTRY(correlation, gocor_local_correlation_f32_r##RADIUS, float, RADIUS)         \
    ENTRY(correlation, gocor_local_correlation_f16_r##RADIUS, half_t, RADIUS)        \
    ENTRY(transpose, gocor_local_correlation_transpose_f32_r##RADIUS, float, RADIUS) \
    ENTRY(transpose, gocor_local_correlation_transpose_f16_r##RADIUS, half_t, RADIUS)
#define FUSED_ENTRIES(RADIUS)                                    \
    ENTRY(fused, gocor_local_gocor_f32_r##RADIUS, float, RADIUS) \
    ENTRY(fused, gocor_local_gocor_f16_r##RADIUS, half_t, RADIUS)

const Entry ENTRY_POINTS[] = {
#ifndef GOCOR_ONLY_FUSED
    GOCOR_RADII(CORRELATION_ENTRIES)
#endif
#ifndef GOCOR_ONLY_CORRELATIONS
    GOCOR_RADII(FUSED_ENTRIES)
#endif
};

const Entry* find(const char* name) {
    for (const Entry& entry : ENTRY_POINTS) {
        if (std::strcmp(entry.name, name) == 0) return &entry;
    }
    return nullptr;
}

}  // namespace

const char* host::run_kernel(const char* name, const int (&grid)[3], int threads, void* const* arguments) {
    const Entry* entry = find(name);
    if (entry == nullptr) return "there is no such kernel";
    if (threads != entry->threads) return "launched with another number of threads than the kernel has";
    run(grid, threads, [&] { entry->run(arguments); });
    return nullptr;
}

const char* launch(const Geometry& geometry, const void* const* inputs, void* output, void*) {
    std::vector<void*> arguments;
    for (int i = 0; i < geometry.inputs; ++i) arguments.push_back(const_cast<const void**>(inputs + i));
    for (const int& number : geometry.numbers) arguments.push_back(const_cast<int*>(&number));
    arguments.push_back(&output);
    const Entry* entry = find(geometry.kernel.c_str());
    if (entry != nullptr && arguments.size() != entry->arguments) {
        return "launched with another number of arguments than the kernel has";
    }
    return host::run_kernel(geometry.kernel.c_str(), geometry.grid, geometry.threads, arguments.data());
}

}  // namespace gocor
