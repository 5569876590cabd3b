// How the kernels of LocalCorrelation are launched. launch.py says the same; a test holds them together.

#pragma once

#include "native/launch.h"

namespace gocor::correlation {

// reference and query (N, C, H, W) to volume (N, (2r+1)^2, H, W).
inline Geometry geometry(const Problem& problem) {
    const int radius = problem.radius, side = 2 * radius + 1;
    const int groups = radius <= 4 ? 1 : 2;  // blocks that share the dy of a tile
    const int group = ceiling(side, groups);
    const int width = problem.half ? 32 : 16;
    const int height = !problem.half ? 32 / group : radius == 1 ? 4 : radius <= 4 ? 2 : 1;
    const int tiles = ceiling(problem.width, width) * ceiling(problem.height, height);
    const std::string name = problem.half ? "gocor_local_correlation_f16_r" : "gocor_local_correlation_f32_r";
    return {name + std::to_string(radius),
            {tiles, groups, problem.batch},
            problem.half ? 128 : width / 4 * height * group,
            0,
            2,
            {problem.batch, problem.channels, problem.height, problem.width}};
}

}  // namespace gocor::correlation
