// A kernel on a CPU, as a CUDA driver starts it; for tests.

#pragma once

namespace gocor::host {

// `arguments` are addresses of the kernel's arguments, in order. Gives null, or why it did not run.
const char* run_kernel(const char* name, const int (&grid)[3], int threads, void* const* arguments);

}  // namespace gocor::host
