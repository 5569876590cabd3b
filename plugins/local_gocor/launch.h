// How the kernels of LocalGOCor are launched. launch.py says the same; a test holds them together.

#pragma once

#include "native/launch.h"

namespace gocor::fused {

// reference and query (N, C, H, W), target, weight and mask ((2r+1)^2), scalars (4) to volume (N, (2r+1)^2, H, W).
inline Geometry geometry(const Problem& problem) {
    const int radius = problem.radius;
    const int groups = radius <= 4 ? 2 : 1;                                // of two rows of pixels
    const int rows = radius <= 4 ? radius + 1 : radius % 3 == 2 ? 3 : 2;  // of the window, that a warp works on
    const int warps = groups * (2 * (radius + 1) / rows);
    const int tiles = ceiling(problem.width, 8) * ceiling(problem.height, 2 * groups);
    const std::string name = problem.half ? "gocor_local_gocor_f16_r" : "gocor_local_gocor_f32_r";
    return {name + std::to_string(radius),
            {tiles, 1, problem.batch},
            32 * warps,
            0,
            6,
            {problem.batch, problem.channels, problem.height, problem.width, problem.iterations}};
}

}  // namespace gocor::fused
