// Calls the library as programs do, to be run under sanitizers, and its readers of files.
//
//   harness json|sha256            one document on stdin; its values or its hash on stdout
//   harness onnx                   an ONNX file on stdin: "ok" if it needs no other file, else why not
//   harness specs                  what it knows of the networks, as JSON
//   harness pillow|area SIZE NEW   resizes an image on stdin, of bytes, to stdout
//   harness flow SIZE UNIT IMAGE NEW   resizes a flow on stdin, of floats, to stdout
//   harness fuzz MANIFEST COUNT    damaged manifests, none of which may do more than be refused
//   harness memory MODEL           estimates for which memory runs out, at each place once; prints how many
//   harness estimate MODEL         many threads, batches and strides in buffers of exactly their size; prints "ok"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "error.h"
#include "gocor.hpp"
#include "json.h"
#include "manifest.h"
#include "onnx_file.h"
#include "resample.h"
#include "sha256.h"
#include "spec.h"

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

std::string read_all(std::istream& stream) { return {std::istreambuf_iterator<char>(stream), {}}; }

void print(const gocor::Json& value);

void print_string(const std::string& text) {
    std::putchar('"');
    for (const char character : text) {
        if (character == '"' || character == '\\') std::putchar('\\');
        if (static_cast<unsigned char>(character) < 0x20) {
            std::printf("\\u%04x", static_cast<unsigned>(character));
        } else {
            std::putchar(character);
        }
    }
    std::putchar('"');
}

void print_all(const gocor::Json& value) {
    for (std::size_t i = 0; i < value.values.size(); ++i) {
        if (i != 0) std::putchar(',');
        if (!value.names.empty()) {
            print_string(value.names[i]);
            std::putchar(':');
        }
        print(value.values[i]);
    }
}

void print(const gocor::Json& value) {
    switch (value.kind) {
        case gocor::Json::Kind::null: std::printf("null"); break;
        case gocor::Json::Kind::boolean: std::printf(value.boolean ? "true" : "false"); break;
        case gocor::Json::Kind::integer: std::printf("%lld", static_cast<long long>(value.integer)); break;
        case gocor::Json::Kind::number: std::printf("%.17e", value.number); break;
        case gocor::Json::Kind::string: print_string(value.string); break;
        case gocor::Json::Kind::array: std::putchar('['), print_all(value), std::putchar(']'); break;
        case gocor::Json::Kind::object: std::putchar('{'), print_all(value), std::putchar('}'); break;
    }
}

int json() {
    try {
        print(gocor::parse_json(read_all(std::cin)));
        return 0;
    } catch (const gocor::JsonError& error) {
        std::printf("%s", error.what());
        return 1;
    }
}

int onnx() {
    try {
        gocor::check_self_contained("stdin", read_all(std::cin));
    } catch (const gocor::Failure& failure) {
        std::printf("%s", failure.what());
        return 1;
    }
    std::printf("ok");
    return 0;
}

int specs() {
    const char* comma = "";
    std::putchar('[');
    for (const gocor::NetworkSpec& spec : gocor::network_specs()) {
        std::printf(R"(%s{"name": "%s", "flow_unit": %g, "flow_stride": %lld, "outputs": [)", comma, spec.name.c_str(),
                    static_cast<double>(spec.flow_unit), static_cast<long long>(spec.flow_stride));
        for (const std::string& name : spec.outputs) {
            std::printf("%s\"%s\"", name == spec.outputs.front() ? "" : ", ", name.c_str());
        }
        std::printf(R"(], "tensor_inputs": %zu, "working_sides": [)", spec.tensor_inputs().size());
        for (int side = 1; side <= 600; ++side) {
            std::printf("%s%lld", side == 1 ? "" : ", ", static_cast<long long>(spec.working_side(side)));
        }
        std::printf("]}");
        comma = ", ";
    }
    std::puts("]");
    return 0;
}

// "480x640"
gocor::Size size_of(const std::string& text) {
    const std::size_t cross = text.find('x');
    return {std::stoll(text.substr(0, cross)), std::stoll(text.substr(cross + 1))};
}

template <class T>
void write(const std::vector<T>& values) {
    std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

int resize(std::string_view filter, gocor::Size size, gocor::Size new_size) {
    const std::string image = read_all(std::cin);
    check(image.size() == 3 * size.pixels(), "as many bytes as the image has");
    std::unique_ptr<gocor::ImageResize> resize = std::make_unique<gocor::AreaResize>(size, new_size);
    if (filter == "pillow") resize = std::make_unique<gocor::PillowResize>(size, new_size);
    std::vector<std::uint8_t> out(3 * new_size.pixels()), again(out.size());
    (*resize)(reinterpret_cast<const std::uint8_t*>(image.data()), out.data());
    (*resize)(reinterpret_cast<const std::uint8_t*>(image.data()), again.data());
    check(out == again, "nothing is left of the image before");
    write(out);
    return 0;
}

int flow(gocor::Size size, float unit, gocor::Size image, gocor::Size new_size) {
    const std::string bytes = read_all(std::cin);
    std::vector<float> values(2 * size.pixels()), out(2 * new_size.pixels());
    check(bytes.size() == values.size() * sizeof(float), "as many floats as the flow has");
    std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(values.data()));
    gocor::resize_flow(values.data(), size, unit, image, out.data(), new_size);
    write(out);
    return 0;
}

void fuzz(const std::string& path, int count) {
    std::ifstream file(path + ".json", std::ios::binary);
    const std::string good = read_all(file);
    std::minstd_rand random(0);  // the same damage each time
    const auto below = [&random](std::size_t limit) { return random() % limit; };
    constexpr std::string_view PIECES = "{}[]\",:\\0-19.eE\n\x7f\xff u";
    int refused = 0;
    for (int i = 0; i < count; ++i) {
        std::string text = good;
        for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
            const std::size_t at = below(text.size());
            switch (below(4)) {
                case 0: text[at] = PIECES[below(PIECES.size())]; break;
                case 1: text.erase(at, 1 + below(20)); break;
                case 2: text.insert(at, text.substr(below(text.size()), below(30))); break;
                default: text.insert(at, 1 + below(100), PIECES[below(PIECES.size())]); break;
            }
            if (text.empty()) text = " ";
        }
        try {
            gocor::parse_manifest(text, path, "OpenVINO model");
        } catch (const gocor::Failure&) {
            ++refused;
        }
    }
    check(refused > count / 4, "damaged manifests are refused");
    std::printf("%d of %d refused\n", refused, count);
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
        check(status == GOCOR_OK || text.empty() || text == "memory ran out" || text.rfind(path, 0) == 0, text);
        check(gocor_estimate(fresh, &image, &image, 1, flow.data(), flow.size(), nullptr) == GOCOR_OK, "again");
        check(flow == expected, "the flow afterwards");
    }
    std::printf("%d failures\n", failures);
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view command = count > 1 ? arguments[1] : "";
    try {
        if (command == "json") return json();
        if (command == "onnx") return onnx();
        if (command == "specs") return specs();
        if (command == "flow" && count == 6) {
            return flow(size_of(arguments[2]), std::stof(arguments[3]), size_of(arguments[4]), size_of(arguments[5]));
        }
        if ((command == "pillow" || command == "area") && count == 4) {
            return resize(command, size_of(arguments[2]), size_of(arguments[3]));
        }
        if (command == "sha256") {
            const std::string data = read_all(std::cin);
            std::printf("%s", gocor::sha256(data.data(), data.size()).c_str());
        } else if (command == "fuzz" && count == 4) {
            fuzz(arguments[2], std::atoi(arguments[3]));
        } else if (command == "memory" && count == 3) {
            memory(arguments[2]);
        } else if (command == "estimate" && count == 3) {
            estimate(arguments[2]);
        } else {
            return 2;
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
