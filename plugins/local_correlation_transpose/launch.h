// How the kernels of LocalCorrelationTranspose are launched. launch.py says the same; a test holds them together.

#pragma once

#include "native/launch.h"

namespace gocor::transpose {

// volume (N, (2r+1)^2, H, W) and query (N, C, H, W) to features (N, C, H, W).
inline Geometry geometry(const Problem& problem) {
    const int radius = problem.radius;
    const int width = problem.half ? 32 : 16, channels = problem.half ? 32 : 16;
    const int height = !problem.half ? 8 : radius <= 2 ? 4 : radius <= 4 ? 2 : 1;
    const int tiles = ceiling(problem.width, width) * ceiling(problem.height, height);
    const std::string name =
        problem.half ? "gocor_local_correlation_transpose_f16_r" : "gocor_local_correlation_transpose_f32_r";
    return {name + std::to_string(radius),
            {tiles, ceiling(problem.channels, channels), problem.batch},
            128,
            0,
            2,
            {problem.batch, problem.channels, problem.height, problem.width}};
}

}  // namespace gocor::transpose
