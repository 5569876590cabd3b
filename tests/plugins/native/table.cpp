// The operators on the host, callable from Python through ctypes.

#include <cstring>

#include "local_correlation/launch.h"
#include "local_correlation_transpose/launch.h"

using gocor::Geometry;
using gocor::Problem;

extern "C" {

struct FlatGeometry {
    char kernel[64];
    int grid[3], threads, shared;
};

void gocor_geometry(int transpose, const Problem* problem, FlatGeometry* to) {
    const Geometry from =
        transpose ? gocor::transpose::geometry(*problem) : gocor::correlation::geometry(*problem);
    std::strncpy(to->kernel, from.kernel.c_str(), sizeof to->kernel - 1);
    std::memcpy(to->grid, from.grid, sizeof to->grid);
    to->threads = from.threads;
    to->shared = from.shared;
}

const char* gocor_run(int transpose, const Problem* problem, const void* first, const void* query, void* out) {
    return transpose ? gocor::transpose::run(*problem, first, query, out, nullptr)
                     : gocor::correlation::run(*problem, first, query, out, nullptr);
}

}  // extern "C"
