// A libcuda.so.1 whose GPU is this CPU: kernels run in their host twin, memory is the heap's.
//
// It takes what the plugin library gives to the real driver, PTX and launches, so that the library that is tested is
// the one that is shipped. GOCOR_DRIVER_FAILS names a function that is to fail.

#include <cuda.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>

#include "native/host/run.h"

namespace {

bool fails(const char* function) {
    const char* name = std::getenv("GOCOR_DRIVER_FAILS");
    return name != nullptr && std::strcmp(name, function) == 0;
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned) { return fails("cuInit") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }

CUresult cuGetErrorString(CUresult error, const char** text) {
    switch (error) {
        case CUDA_ERROR_NO_DEVICE: *text = "no CUDA-capable device is detected"; break;
        case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
            *text = "the provided PTX was compiled with an unsupported toolchain.";
            break;
        default: *text = nullptr; return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

#ifndef GOCOR_OLD_DRIVER

struct CUlib_st {
    std::string kernel;
};

struct CUkern_st {
    std::string name;
};

struct CUstream_st {
    bool used;
};

static CUstream_st the_stream;

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option*, void**, unsigned, CUlibraryOption*,
                           void**, unsigned) {
    static std::deque<CUlib_st> libraries;
    if (fails("cuLibraryLoadData")) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    const std::string ptx = static_cast<const char*>(code), entry = ".visible .entry ";
    const std::size_t start = ptx.find(entry), end = ptx.find('(', start);
    if (start == std::string::npos || end == std::string::npos) return CUDA_ERROR_INVALID_PTX;
    *library = &libraries.emplace_back(CUlib_st{ptx.substr(start + entry.size(), end - start - entry.size())});
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
    static std::deque<CUkern_st> kernels;
    if (library->kernel != name) return CUDA_ERROR_NOT_FOUND;
    *kernel = &kernels.emplace_back(CUkern_st{name});
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void** arguments,
                        void** extra) {
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || block_y != 1 || block_z != 1 || shared != 0 || extra) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (stream != &the_stream || fails("cuLaunchKernel")) return CUDA_ERROR_INVALID_HANDLE;
    const int grid[] = {static_cast<int>(grid_x), static_cast<int>(grid_y), static_cast<int>(grid_z)};
    const char* name = reinterpret_cast<CUkernel>(function)->name.c_str();
    const char* failure = gocor::host::run_kernel(name, grid, static_cast<int>(block_x), arguments);
    return failure == nullptr ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}

// ── for the harness

CUresult cuDeviceGet(CUdevice* device, int number) {
    *device = number;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    *context = nullptr;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }

CUresult cuStreamCreate(CUstream* stream, unsigned) {
    *stream = &the_stream;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }

CUresult cuMemAlloc(CUdeviceptr* memory, std::size_t bytes) {
    *memory = reinterpret_cast<CUdeviceptr>(std::malloc(bytes));
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr memory) {
    std::free(reinterpret_cast<void*>(memory));
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, std::size_t bytes) {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, std::size_t bytes) {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return CUDA_SUCCESS;
}

#endif

}  // extern "C"
