// How a kernel is launched, without any framework: what all operators share of it. C++17, no CUDA header.

#pragma once

#include <string>
#include <vector>

namespace gocor {

// A call of an operator: sizes of its query, and of the search.
struct Problem {
    int batch, channels, height, width;
    int radius;          // 1..8
    bool half;           // dtype of features and volumes: float16, otherwise float32
    int iterations = 0;  // of LocalGOCor
};

struct Geometry {
    std::string kernel;        // entry point
    int grid[3];               // CUDA allows 2^31 - 1, 65535, 65535: more images than that do not start
    int threads;               // of a block
    int shared;                // bytes of dynamic shared memory
    int inputs;                // how many tensors the kernel takes
    std::vector<int> numbers;  // what it takes after them: N, C, H, W of the query, and others
};

constexpr int ceiling(int dividend, int divisor) { return (dividend + divisor - 1) / divisor; }

// Starts a kernel whose arguments are the inputs, the numbers, and the output: contiguous tensors.
// `stream` is a CUstream. Gives null, or why it did not start. An empty grid is no launch, and no failure.
//
// There are two: native/driver_launch.cpp for the CUDA driver, and native/host/launch.cpp for the host twin.
const char* launch(const Geometry& geometry, const void* const* inputs, void* output, void* stream);

}  // namespace gocor
