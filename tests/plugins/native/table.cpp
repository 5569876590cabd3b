// The operators on the host, callable from Python through ctypes.

#include <cstring>

#include "local_correlation/launch.h"
#include "local_correlation_transpose/launch.h"
#include "local_gocor/launch.h"
#include "native/device.cuh"

using gocor::Geometry;
using gocor::Problem;

extern "C" {

struct FlatGeometry {
    char kernel[64];
    int grid[3], threads, shared, inputs, count, numbers[5];
};

static Geometry geometry_of(int number, const Problem& problem) {
    return number == 0   ? gocor::correlation::geometry(problem)
           : number == 1 ? gocor::transpose::geometry(problem)
                         : gocor::fused::geometry(problem);
}

void gocor_geometry(int number, const Problem* problem, FlatGeometry* to) {
    const Geometry from = geometry_of(number, *problem);
    std::strncpy(to->kernel, from.kernel.c_str(), sizeof to->kernel - 1);
    std::memcpy(to->grid, from.grid, sizeof to->grid);
    to->threads = from.threads;
    to->shared = from.shared;
    to->inputs = from.inputs;
    to->count = static_cast<int>(from.numbers.size());
    std::memcpy(to->numbers, from.numbers.data(), from.numbers.size() * sizeof(int));
}

const char* gocor_run(int number, const Problem* problem, const void* const* inputs, void* out) {
    return gocor::launch(geometry_of(number, *problem), inputs, out, nullptr);
}

// c (16x8) = a (16x16) b (16x8), row by row, with one warp. Registers are filled by load_matrices, the way that
// every user of ldmatrix knows, or element by element as CuTe has it: A is ((4,8),(2,2,2)):((32,1),(16,8,128)) of
// m + 16 k, B ((4,8),(2,2)):((16,1),(8,64)) of n + 8 k, C ((4,8),(2,2)):((32,1),(16,8)) of m + 16 n.
void gocor_multiply(const gocor::half_t* a, const gocor::half_t* b, float* c, bool loaded) {
    gocor::host::run({1, 1, 1}, 32, [&] {
        const int lane = gocor::thread_index(), t = lane % 4, g = lane / 4;
        unsigned from_a[4], from_b[2];
        if (loaded) {
            gocor::load_matrices(from_a, a + lane % 16 * 16 + lane / 16 * 8);
            gocor::load_matrices_transposed(from_b, b + lane % 16 * 8);
        } else {
            const auto element_a = [&](int i) { return a[i % 16 * 16 + i / 16]; };
            const auto element_b = [&](int i) { return b[i / 8 * 8 + i % 8]; };
            for (int i = 0; i < 4; ++i) {
                const int first = 32 * t + g + 8 * (i % 2) + 128 * (i / 2);
                from_a[i] = gocor::pack(element_a(first), element_a(first + 16));
            }
            for (int i = 0; i < 2; ++i) {
                const int first = 16 * t + g + 64 * i;
                from_b[i] = gocor::pack(element_b(first), element_b(first + 8));
            }
        }
        float sum[4] = {};
        gocor::multiply_add(sum, from_a, from_b);
        for (int i = 0; i < 4; ++i) {
            const int at = 32 * t + g + 16 * (i % 2) + 8 * (i / 2);
            c[at % 16 * 8 + at / 16] = sum[i];
        }
    });
}

}  // extern "C"
