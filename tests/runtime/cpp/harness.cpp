// Calls the library as programs do, to be run under sanitizers.
//
//   harness memory MODEL     estimates for which memory runs out, at each place once; prints how many
//   harness estimate MODEL   many threads, batches and strides in buffers of exactly their size; prints "ok"

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gocor.hpp"

#ifdef __SANITIZE_ADDRESS__
// OpenVINO opens a library with RTLD_DEEPBIND, which AddressSanitizer refuses to run with.
extern "C" void* dlopen(const char* name, int flags) {
    using Open = void*(const char*, int);
    static auto* const real = reinterpret_cast<Open*>(dlsym(RTLD_NEXT, "dlopen"));
    return real(name, flags & ~RTLD_DEEPBIND);
}
#endif

namespace {

thread_local int allocations_left = -1;  // of libgocor's in this thread that succeed; -1: any number

}  // namespace

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which have their own
static bool of_libgocor(void* caller) {
    Dl_info info;
    return dladdr(caller, &info) != 0 && std::strstr(info.dli_fname, "libgocor") != nullptr;
}

// Also for the library, which finds it here.
void* operator new(std::size_t size) {
    const bool counted = allocations_left >= 0 && of_libgocor(__builtin_return_address(0));
    if (counted && allocations_left == 0) throw std::bad_alloc();
    if (counted) --allocations_left;
    if (void* const memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }
#endif

namespace {

void check(bool right, const std::string& what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s (%s)\n", what.c_str(), gocor_last_error());
    std::exit(1);
}

// An image on the heap with gaps between its rows, no byte after the last one.
class Noise {
    std::unique_ptr<std::uint8_t[]> memory_;
    int height_, width_;
    std::ptrdiff_t stride_;

public:
    Noise(int height, int width, int gap, unsigned seed)
        : height_(height), width_(width), stride_(std::ptrdiff_t{3} * width + gap) {
        const auto size = static_cast<std::size_t>(stride_ * (height_ - 1) + std::ptrdiff_t{3} * width_);
        memory_ = std::make_unique<std::uint8_t[]>(size);
        std::minstd_rand random(seed + 1);
        for (int y = 0; y < height_; ++y) {
            for (int x = 0; x < 3 * width_; ++x) memory_[y * stride_ + x] = static_cast<std::uint8_t>(random() >> 8);
        }
    }
    gocor::Image image() const { return {memory_.get(), height_, width_, stride_}; }
    gocor::Image reversed() const {
        return {memory_.get() + stride_ * (height_ - 1), height_, width_, -stride_, GOCOR_BGR};
    }
};

// Threads, batches, strides and wrong images.
void estimate_size(const gocor::Estimator& estimator, int height, int width) {
    const Noise first(height, width, 5, 1), second(height, width, 0, 2);
    const std::vector<float> flow = estimator(first.image(), second.image());
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&] {
            for (int run = 0; run < 4; ++run) {
                check(estimator(first.image(), second.image()) == flow, "threads give the same flow");
            }
        });
    }
    for (std::thread& thread : threads) thread.join();

    const std::vector<gocor::Image> references(3, first.image()), queries(3, second.image());
    const std::vector<float> flows = estimator(references, queries);
    check(std::equal(flow.begin(), flow.end(), flows.end() - static_cast<std::ptrdiff_t>(flow.size())), "batch");
    check(estimator(std::vector<gocor::Image>{}, {}).empty(), "no pairs have no flow");
    estimator(first.reversed(), second.reversed());

    const std::uint8_t* const pixels = first.image().pixels;
    gocor::Image no_order(pixels, height, width);
    const int seven = 7;
    std::memcpy(&no_order.order, &seven, sizeof no_order.order);
    for (const gocor::Image& wrong :
         {gocor::Image(nullptr, height, width), gocor::Image(pixels, 1, 1), gocor::Image(pixels, 0, width),
          gocor::Image(pixels, height, -width), gocor::Image(pixels, height, width, 1), no_order}) {
        try {
            estimator(second.image(), wrong);
            check(false, "a wrong image is refused");
        } catch (const gocor::Error& error) {
            check(error.status() != GOCOR_OK && *error.what() != '\0', "an error has a text");
        }
    }
}

void estimate(const std::string& path) {
    gocor::Options options;
    options.parallel = 3;
    const gocor::Estimator estimator(path, options);
    const gocor::Info& info = estimator.info();
    estimate_size(estimator, info.height, info.width);
    estimate_size(estimator, info.height + 7, info.width - 5);
    try {
        const gocor::Estimator none(path + ".none");
        check(false, "a missing file is refused");
    } catch (const gocor::Error& error) {
        check(error.status() == GOCOR_BAD_MODEL, "of a missing file");
    }
    std::puts("ok");
}

// Whatever allocation of an estimate fails, it says so, and the next one works.
void memory(const std::string& path) {
    const gocor::Estimator estimator(path);
    const Noise first(estimator.info().height + 3, estimator.info().width + 5, 1, 1);
    const gocor::Image image = first.image();
    std::vector<float> flow(image.flow_size()), expected(flow.size());
    estimator.estimate(&image, &image, 1, expected.data(), expected.size());
    int failures = 0;
    for (int allocations = 0;; ++allocations) {
        gocor_estimator* fresh = nullptr;  // which has no lane yet
        check(gocor_create(path.c_str(), nullptr, &fresh) == GOCOR_OK, "loading");
        const std::unique_ptr<gocor_estimator, void (*)(gocor_estimator*)> owner(
            fresh, [](gocor_estimator* estimator) { gocor_release(estimator); });
        allocations_left = allocations;
        const gocor_status status = gocor_estimate(fresh, &image, &image, 1, flow.data(), flow.size(), nullptr);
        const bool enough = allocations_left > 0;
        allocations_left = -1;
        if (status == GOCOR_OK && enough) break;
        check(status == GOCOR_OK || status == GOCOR_FAILED, "what failed is said");
        failures += status == GOCOR_FAILED ? 1 : 0;
        const std::string text = gocor_last_error();
        check(status == GOCOR_OK || text == "memory ran out" || text.rfind(path, 0) == 0, text);
        check(gocor_estimate(fresh, &image, &image, 1, flow.data(), flow.size(), nullptr) == GOCOR_OK, "again");
        check(flow == expected, "the flow afterwards");
    }
    std::printf("%d failures\n", failures);
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view command = count > 1 ? arguments[1] : "";
    if (count != 3) return 2;
    try {
        if (command == "memory") {
            memory(arguments[2]);
        } else if (command == "estimate") {
            estimate(arguments[2]);
        } else {
            return 2;
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
