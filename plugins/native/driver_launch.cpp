// `launch` through the CUDA driver, which translates the embedded PTX for the GPU it finds.
//
// The driver's library is looked for at the first launch, so that the plugin library can be built, loaded and asked
// for its plugins where there is no GPU; and it needs no CUDA runtime.

#include <cuda.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "native/embedded_ptx.h"
#include "native/launch.h"

namespace gocor {
namespace {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void* open_driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw Failure(std::string("there is no CUDA driver (") + dlerror() + ")");
    return library;
}

template <class Function>
Function* find(void* library, const char* name) {
    void* address = dlsym(library, name);
    if (address == nullptr) {
        throw Failure(std::string("the CUDA driver is too old (it has no ") + name + "); 550 or later is needed");
    }
    return reinterpret_cast<Function*>(address);
}

// The functions of libcuda.so.1 that are needed here.
struct Driver {
    void* library = open_driver();
    decltype(cuInit)* init = find<decltype(cuInit)>(library, "cuInit");
    decltype(cuGetErrorString)* error_string = find<decltype(cuGetErrorString)>(library, "cuGetErrorString");
    decltype(cuLibraryLoadData)* load = find<decltype(cuLibraryLoadData)>(library, "cuLibraryLoadData");
    decltype(cuLibraryGetKernel)* get_kernel = find<decltype(cuLibraryGetKernel)>(library, "cuLibraryGetKernel");
    decltype(cuLaunchKernel)* launch = find<decltype(cuLaunchKernel)>(library, "cuLaunchKernel");

    Driver() { check(init(0), "cannot be used"); }

    void check(CUresult result, const std::string& what) const {
        if (result == CUDA_SUCCESS) return;
        const char* reason = nullptr;
        error_string(result, &reason);
        throw Failure("the CUDA driver " + what + ": " +
                      (reason != nullptr ? reason : "error " + std::to_string(result)));
    }
};

// Kernels that were launched before. They belong to no CUDA context, so that one of each is enough for the process:
// the driver loads it into every context it is launched in.
class Kernels {
    std::mutex mutex_;
    std::map<std::string, CUkernel> loaded_;

public:
    CUkernel get(const Driver& driver, const std::string& name) {
        const std::scoped_lock lock(mutex_);
        const auto found = loaded_.find(name);
        return found != loaded_.end() ? found->second : loaded_[name] = load(driver, name);
    }

private:
    static CUkernel load(const Driver& driver, const std::string& name) {
        CUlibrary library = nullptr;
        CUkernel kernel = nullptr;
        driver.check(driver.load(&library, ptx(name), nullptr, nullptr, 0, nullptr, nullptr, 0),
                     "refuses kernel " + name + ", which needs driver 550 or later and a GPU from Ampere on");
        driver.check(driver.get_kernel(&kernel, library, name.c_str()), "does not find kernel " + name);
        return kernel;
    }

    static const char* ptx(const std::string& name) {
        for (const EmbeddedPtx* entry = EMBEDDED_PTX; entry->kernel != nullptr; ++entry) {
            if (name == entry->kernel) return entry->text;
        }
        throw Failure("there is no kernel " + name);
    }
};

void launch_kernel(const Geometry& geometry, const void* const* inputs, void* output, void* stream) {
    static const Driver driver;
    static Kernels kernels;
    CUkernel kernel = kernels.get(driver, geometry.kernel);
    std::vector<void*> arguments;  // addresses of them, which the driver does not write to
    arguments.reserve(static_cast<std::size_t>(geometry.inputs) + geometry.numbers.size() + 1);
    for (int i = 0; i < geometry.inputs; ++i) arguments.push_back(const_cast<const void**>(inputs + i));
    for (const int& number : geometry.numbers) arguments.push_back(const_cast<int*>(&number));
    arguments.push_back(&output);
    const auto size = [](int number) { return static_cast<unsigned>(number); };
    const auto& [x, y, z] = geometry.grid;
    driver.check(driver.launch(reinterpret_cast<CUfunction>(kernel), size(x), size(y), size(z), size(geometry.threads),
                               1, 1, size(geometry.shared), static_cast<CUstream>(stream), arguments.data(),
                               nullptr),
                 "cannot launch kernel " + geometry.kernel);
}

}  // namespace

const char* launch(const Geometry& geometry, const void* const* inputs, void* output, void* stream) {
    const auto& [x, y, z] = geometry.grid;
    if (x == 0 || y == 0 || z == 0) return nullptr;
    try {
        launch_kernel(geometry, inputs, output, stream);
        return nullptr;
    } catch (const Failure& failure) {
        thread_local std::string message;
        message = failure.what();
        return message.c_str();
    }
}

}  // namespace gocor
