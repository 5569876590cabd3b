// Calls the library with images on a GPU as programs do, to be run under sanitizers on fake_gpu/.
//
//   gpu_harness MODEL      many threads, each with a stream and memory of its own; prints "ok"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <thread>
#include <vector>

#include "gocor.hpp"

namespace {

void check(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s (%s)\n", what, gocor_last_error());
    std::exit(1);
}

void check(cudaError_t status) { check(status == cudaSuccess, cudaGetErrorString(status)); }

class Memory {
    void* address_ = nullptr;

public:
    explicit Memory(std::size_t size) { check(cudaMalloc(&address_, size)); }
    ~Memory() { cudaFree(address_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* get() const { return address_; }
};

void* pinned(std::size_t size) {
    void* address = nullptr;
    check(cudaHostAlloc(&address, size, cudaHostAllocDefault));
    return address;
}

// A pair on a stream of its own, twice without waiting in between; compared with the pair in host memory.
void estimate(const gocor::Estimator& estimator, unsigned seed) {
    const gocor::Info& info = estimator.info();
    const auto bytes = static_cast<std::size_t>(3) * static_cast<std::size_t>(info.height * info.width);
    const gocor::Image shape(nullptr, info.height, info.width);
    const auto batch = static_cast<std::size_t>(info.batch);
    std::minstd_rand random(seed + 1);
    auto* const images = static_cast<std::uint8_t*>(pinned(2 * batch * bytes));
    auto* const flow = static_cast<float*>(pinned(batch * shape.flow_size() * sizeof(float)));
    for (std::size_t i = 0; i < 2 * batch * bytes; ++i) images[i] = static_cast<std::uint8_t>(random() >> 8);
    {
        const Memory references(batch * bytes), queries(batch * bytes), out(batch * shape.flow_size() * sizeof(float));
        cudaStream_t stream = nullptr;
        check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        for (int run = 0; run < 2; ++run) {
            check(cudaMemcpyAsync(references.get(), images, batch * bytes, cudaMemcpyHostToDevice, stream));
            check(
                cudaMemcpyAsync(queries.get(), images + batch * bytes, batch * bytes, cudaMemcpyHostToDevice, stream));
            estimator.enqueue(references.get(), queries.get(), static_cast<float*>(out.get()), stream);
            check(cudaMemcpyAsync(flow, out.get(), batch * shape.flow_size() * sizeof(float), cudaMemcpyDeviceToHost,
                                  stream));
        }
        check(cudaStreamSynchronize(stream));
        check(cudaStreamDestroy(stream));
    }
    std::vector<gocor::Image> first, second;
    for (std::size_t pair = 0; pair < batch; ++pair) {
        first.emplace_back(images + pair * bytes, info.height, info.width);
        second.emplace_back(images + (batch + pair) * bytes, info.height, info.width);
    }
    const std::vector<float> expected = estimator(first, second);
    check(std::equal(expected.begin(), expected.end(), flow), "the flow on the GPU is that in host memory");
    check(cudaFreeHost(images));
    check(cudaFreeHost(flow));
}

void run(const char* path) {
    gocor::Options options;
    options.parallel = 3;
    const gocor::Estimator estimator(path, options);
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < 8; ++thread) {
        threads.emplace_back([&estimator, thread] {
            for (unsigned i = 0; i < 5; ++i) estimate(estimator, 10 * thread + i);
        });
    }
    for (std::thread& thread : threads) thread.join();
    std::puts("ok");
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 2;
    try {
        run(arguments[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
