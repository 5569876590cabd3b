#include "fake_cuda.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

struct CUstream_st {
    std::vector<std::function<void()>> work;
    std::size_t done = 0;
    bool destroyed = false, captured = false;
};

struct CUevent_st {
    cudaStream_t stream = nullptr;
    std::size_t position = 0;
    bool destroyed = false;
};

namespace {

constexpr std::size_t ALIGNMENT = 256;
constexpr int POISON = 0xCD;

struct Memory {
    std::size_t size;
    bool pinned;
};

struct Gpu {
    int devices = 1, major = 9, minor = 0, alive = 0;
    std::map<const char*, Memory> memory;  // by address
    // Those that were destroyed stay, to notice who still uses them.
    std::deque<CUstream_st> streams{CUstream_st{}};  // the first is the default one
    std::deque<CUevent_st> events;
    std::string problems, fails;
    int skip = 0;
};

Gpu& gpu() {
    static auto* const one = new Gpu;
    return *one;
}

thread_local int current = 0;
thread_local cudaError_t last_error = cudaSuccess;

CUstream_st& stream_of(cudaStream_t stream) {
    CUstream_st& found = stream != nullptr ? *stream : gpu().streams.front();
    if (found.destroyed) fake::problem("a destroyed stream was used");
    return found;
}

CUevent_st& event_of(cudaEvent_t event) {
    if (event->destroyed) fake::problem("a destroyed event was used");
    return *event;
}

// Does a stream's work up to a position.
void run(CUstream_st& stream, std::size_t position) {
    while (stream.done < position) {
        const std::function<void()> work = std::exchange(stream.work[stream.done++], {});
        work();
    }
}

void run_all() {
    for (CUstream_st& stream : gpu().streams) run(stream, stream.work.size());
}

const std::pair<const char* const, Memory>* find(const void* address) {
    const char* const place = static_cast<const char*>(address);
    auto after = gpu().memory.upper_bound(place);
    if (after == gpu().memory.begin()) return nullptr;
    const auto& found = *--after;
    return place < found.first + found.second.size ? &found : nullptr;
}

void check_memory(const void* address, std::size_t size, bool pinned) {
    const auto* found = find(address);
    if (found == nullptr) return fake::problem("memory was used that is freed, or not CUDA's");
    if (found->second.pinned != pinned) return fake::problem("memory of the wrong side was used");
    if (static_cast<const char*>(address) + size > found->first + found->second.size) {
        fake::problem("more was used than the memory holds");
    }
}

cudaError_t allocate(void** out, std::size_t size, bool pinned) {
    *out = std::aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    std::memset(*out, POISON, size);
    gpu().memory[static_cast<const char*>(*out)] = {size, pinned};
    ++gpu().alive;
    return cudaSuccess;
}

cudaError_t release(void* address, bool pinned) {
    if (address == nullptr) return cudaSuccess;
    run_all();  // as cudaFree does
    const auto found = gpu().memory.find(static_cast<const char*>(address));
    if (found == gpu().memory.end() || found->second.pinned != pinned) {
        fake::problem("memory was freed twice, or never allocated");
        return cudaErrorInvalidValue;
    }
    gpu().memory.erase(found);
    --gpu().alive;
    std::free(address);
    return cudaSuccess;
}

// Runs a function of CUDA's, or lets it fail.
template <class Run>
cudaError_t call(const char* name, Run run, cudaError_t error = cudaErrorUnknown) {
    const std::scoped_lock lock(fake::mutex());
    last_error = fake::fails(name) ? error : run();
    return last_error;
}

}  // namespace

namespace fake {

std::recursive_mutex& mutex() {
    static auto* const one = new std::recursive_mutex;
    return *one;
}

void problem(const std::string& text) {
    const std::scoped_lock lock(mutex());
    gpu().problems += text + "\n";
}

bool fails(const char* function) {
    const std::scoped_lock lock(mutex());
    if (gpu().fails != function || gpu().skip-- > 0) return false;
    gpu().fails.clear();
    return true;
}

int current_device() { return current; }

void enqueue(cudaStream_t stream, std::function<void()> work) {
    const std::scoped_lock lock(mutex());
    stream_of(stream).work.push_back(std::move(work));
}

void use_device(const void* address, std::size_t size) {
    const std::scoped_lock lock(mutex());
    check_memory(address, size, false);
}

}  // namespace fake

extern "C" {

void fake_reset(int devices, int major, int minor) {
    const std::scoped_lock lock(fake::mutex());
    run_all();
    gpu() = Gpu{};
    gpu().devices = devices;
    gpu().major = major;
    gpu().minor = minor;
}

void fake_fail(const char* function, int skip) {
    const std::scoped_lock lock(fake::mutex());
    gpu().fails = function;
    gpu().skip = skip;
}

const char* fake_problems(void) { return gpu().problems.c_str(); }

int fake_alive(void) {
    const std::scoped_lock lock(fake::mutex());
    return gpu().alive;
}

void fake_capture(cudaStream_t stream, int captured) {
    const std::scoped_lock lock(fake::mutex());
    stream_of(stream).captured = captured != 0;
}

void fake_count(int change) {
    const std::scoped_lock lock(fake::mutex());
    gpu().alive += change;
}

cudaError_t cudaGetLastError(void) { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        default: return "unknown error";
    }
}

cudaError_t cudaGetDevice(int* device) {
    const auto get = [&] {
        *device = current;
        return gpu().devices > 0 ? cudaSuccess : cudaErrorNoDevice;
    };
    return call("cudaGetDevice", get);
}

cudaError_t cudaSetDevice(int device) {
    const auto set = [&] {
        if (device < 0 || device >= gpu().devices) return cudaErrorInvalidDevice;
        current = device;
        return cudaSuccess;
    };
    return call("cudaSetDevice", set);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const auto get = [&] {
        *value = attribute == cudaDevAttrComputeCapabilityMajor ? gpu().major : gpu().minor;
        return cudaSuccess;
    };
    return call("cudaDeviceGetAttribute", get);
}

cudaError_t cudaMalloc(void** out, std::size_t size) {
    return call("cudaMalloc", [&] { return allocate(out, size, false); }, cudaErrorMemoryAllocation);
}

cudaError_t cudaHostAlloc(void** out, std::size_t size, unsigned) {
    return call("cudaHostAlloc", [&] { return allocate(out, size, true); }, cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* address) {
    return call("cudaFree", [&] { return release(address, false); });
}

cudaError_t cudaFreeHost(void* address) {
    return call("cudaFreeHost", [&] { return release(address, true); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
    const auto copy = [=] {
        check_memory(to, size, kind == cudaMemcpyDeviceToHost);
        check_memory(from, size, kind == cudaMemcpyHostToDevice);
        std::memcpy(to, from, size);
    };
    const auto enqueue = [&] {
        fake::enqueue(stream, copy);
        return cudaSuccess;
    };
    return call("cudaMemcpyAsync", enqueue);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind) {
    const auto copy = [&] {
        run_all();
        check_memory(kind == cudaMemcpyHostToDevice ? to : from, size, false);
        std::memcpy(to, from, size);
        return cudaSuccess;
    };
    return call("cudaMemcpy", copy);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const auto create = [&] {
        *stream = &gpu().streams.emplace_back();
        ++gpu().alive;
        return cudaSuccess;
    };
    return call("cudaStreamCreateWithFlags", create);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const auto destroy = [&] {
        CUstream_st& found = stream_of(stream);
        if (found.done < found.work.size()) fake::problem("a stream was destroyed that still had work");
        found.destroyed = true;
        --gpu().alive;
        return cudaSuccess;
    };
    return call("cudaStreamDestroy", destroy);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    const auto ask = [&] {
        *status = stream_of(stream).captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
        return cudaSuccess;
    };
    return call("cudaStreamIsCapturing", ask);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const auto wait = [&] {
        CUstream_st& found = stream_of(stream);
        run(found, found.work.size());
        return cudaSuccess;
    };
    return call("cudaStreamSynchronize", wait);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const auto wait = [&] {
        const CUevent_st before = event_of(event);  // as it is now: recording it again changes nothing
        if (before.position > 0) {
            fake::enqueue(stream, [before] { run(*before.stream, before.position); });
        }
        return cudaSuccess;
    };
    return call("cudaStreamWaitEvent", wait);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    const auto create = [&] {
        *event = &gpu().events.emplace_back();
        ++gpu().alive;
        return cudaSuccess;
    };
    return call("cudaEventCreateWithFlags", create);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const auto record = [&] {
        CUstream_st& found = stream_of(stream);
        event_of(event).stream = &found;
        event->position = found.work.size();
        return cudaSuccess;
    };
    return call("cudaEventRecord", record);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const auto wait = [&] {
        const CUevent_st& found = event_of(event);
        if (found.position > 0) run(*found.stream, found.position);
        return cudaSuccess;
    };
    return call("cudaEventSynchronize", wait);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const auto destroy = [&] {
        event_of(event).destroyed = true;
        --gpu().alive;
        return cudaSuccess;
    };
    return call("cudaEventDestroy", destroy);
}

}  // extern "C"
