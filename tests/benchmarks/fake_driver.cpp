// A stand-in for libcuda.so.1 on a CPU: `device` memory is the host's, and kernels are their host twins.
//
// It takes the calls of benchmarks/on_gpu/driver.py byte for byte as the real driver would, so that a wrong
// argument, geometry or order of parameters shows here.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "native/host/run.h"

namespace {

constexpr int INVALID_VALUE = 1, INVALID_PTX = 218, NOT_FOUND = 500, LAUNCH_FAILED = 719;
constexpr int ERROR_LOG = 5, ERROR_LOG_BYTES = 6;

}  // namespace

extern "C" {

int cuInit(unsigned flags) { return flags == 0 ? 0 : INVALID_VALUE; }

int cuDeviceGet(int* device, int ordinal) {
    *device = 7;
    return ordinal == 0 ? 0 : INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = context;
    return device == 7 ? 0 : INVALID_VALUE;
}

int cuCtxSetCurrent(void* context) { return context ? 0 : INVALID_VALUE; }

int cuCtxSynchronize() { return 0; }

int cuGetErrorString(int code, const char** text) {
    *text = code == INVALID_PTX ? "a PTX JIT compilation failed" : "a fake error";
    return 0;
}

// A module is its own text; an image that holds "garbage" does not compile.
int cuModuleLoadDataEx(void** module, const char* image, unsigned count, const int* options, void** values) {
    if (std::strstr(image, "garbage")) {
        if (count == 2 && options[0] == ERROR_LOG && options[1] == ERROR_LOG_BYTES) {
            const auto size = reinterpret_cast<std::uintptr_t>(values[1]);
            std::strncpy(static_cast<char*>(values[0]), "ptxas: line 1 is garbage", size);
        }
        return INVALID_PTX;
    }
    *module = new std::string(image);
    return 0;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (static_cast<std::string*>(module)->find(std::string(".entry ") + name + "(") == std::string::npos) {
        return NOT_FOUND;
    }
    *function = new std::string(name);
    return 0;
}

int cuFuncGetAttribute(int* value, int attribute, void*) {
    *value = 100 + attribute;
    return 0;
}

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned block_y,
                   unsigned block_z, unsigned shared, void* stream, void** parameters, void** extra) {
    const std::string& name = *static_cast<std::string*>(function);
    if (block_y != 1 || block_z != 1 || shared || stream || extra) return INVALID_VALUE;
    const int grid[] = {static_cast<int>(x), static_cast<int>(y), static_cast<int>(z)};
    return gocor::host::run_kernel(name.c_str(), grid, static_cast<int>(threads), parameters) ? LAUNCH_FAILED : 0;
}

int cuMemAlloc_v2(std::uint64_t* address, std::size_t size) {
    *address = reinterpret_cast<std::uint64_t>(std::aligned_alloc(256, (size + 255) / 256 * 256));
    return *address ? 0 : INVALID_VALUE;
}

int cuMemFree_v2(std::uint64_t address) {
    std::free(reinterpret_cast<void*>(address));
    return 0;
}

int cuMemcpyHtoD_v2(std::uint64_t address, const void* from, std::size_t size) {
    std::memcpy(reinterpret_cast<void*>(address), from, size);
    return 0;
}

int cuMemcpyDtoH_v2(void* to, std::uint64_t address, std::size_t size) {
    std::memcpy(to, reinterpret_cast<const void*>(address), size);
    return 0;
}

}  // extern "C"
