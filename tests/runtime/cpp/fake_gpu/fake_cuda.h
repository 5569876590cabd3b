// A CUDA runtime on main memory, for tests on machines without a GPU.
//
// Streams are as late as CUDA allows: what is enqueued runs only when something waits for it. A missing wait thus gives
// wrong numbers, or one of the problems below, and not by chance. tests/fake_gpu.py is the same for Python.

#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>

namespace fake {

// Of everything here, and of what runs on streams.
std::recursive_mutex& mutex();

// Notes what a real GPU would have punished with wrong numbers or worse.
void problem(const std::string& text);

// Whether a function is to fail this time; see fake_fail.
bool fails(const char* function);

// The device that is current in this thread.
int current_device();

void enqueue(cudaStream_t stream, std::function<void()> work);

// Checks that memory is the GPU's, and still is.
void use_device(const void* address, std::size_t size);

}  // namespace fake

// For tests.
extern "C" {

// Everything as it was, and another number of GPUs and compute capability.
void fake_reset(int devices, int major, int minor);

// Makes the call of a function fail that comes after `skip` others; "" for none.
void fake_fail(const char* function, int skip);

// Problems, a line each.
const char* fake_problems(void);

// What was allocated and is not yet given back: memory, streams, events, contexts.
int fake_alive(void);

// Begins or ends the capture of a stream into a CUDA graph.
void fake_capture(cudaStream_t stream, int captured);

// Of the library that stands for TensorRT.
void fake_count(int change);

}  // extern "C"

#endif
