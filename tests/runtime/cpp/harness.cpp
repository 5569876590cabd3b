// Calls the library as programs do, to be run under sanitizers, and its readers of files.
//
//   harness json|sha256            one document on stdin; its values or its hash on stdout
//   harness fuzz MANIFEST COUNT    damaged manifests, none of which may do more than be refused
//   harness estimate MODEL         many threads, batches and strides in buffers of exactly their size; prints "ok"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "error.h"
#include "gocor.hpp"
#include "json.h"
#include "manifest.h"
#include "sha256.h"

#ifdef __SANITIZE_ADDRESS__
// OpenVINO opens a library with RTLD_DEEPBIND, which AddressSanitizer refuses to run with.
extern "C" void* dlopen(const char* name, int flags) {
    using Open = void*(const char*, int);
    static auto* const real = reinterpret_cast<Open*>(dlsym(RTLD_NEXT, "dlopen"));
    return real(name, flags & ~RTLD_DEEPBIND);
}
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
    Noise(const gocor::Info& info, int gap, unsigned seed)
        : height_(info.height), width_(info.width), stride_(std::ptrdiff_t{3} * info.width + gap) {
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

void estimate(const std::string& path) {
    gocor::Options options;
    options.parallel = 3;
    const gocor::Estimator estimator(path, options);
    const gocor::Info& info = estimator.info();
    const Noise first(info, 5, 1), second(info, 0, 2);
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
    estimator(first.reversed(), second.reversed());

    for (const gocor_image& wrong : {gocor_image{nullptr, info.height, info.width, 0, GOCOR_RGB},
                                     gocor_image{first.image().pixels, 1, 1, 0, GOCOR_RGB},
                                     gocor_image{first.image().pixels, info.height, info.width, 1, GOCOR_RGB}}) {
        float out = 0;
        try {
            estimator.estimate(&wrong, &wrong, 1, &out, 1);
            check(false, "a wrong image is refused");
        } catch (const gocor::Error& error) {
            check(error.status() != GOCOR_OK && *error.what() != '\0', "an error has a text");
        }
    }
    try {
        const gocor::Estimator none(path + ".none");
        check(false, "a missing file is refused");
    } catch (const gocor::Error& error) {
        check(error.status() == GOCOR_BAD_MODEL, "of a missing file");
    }
    std::puts("ok");
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view command = count > 1 ? arguments[1] : "";
    try {
        if (command == "json") return json();
        if (command == "sha256") {
            const std::string data = read_all(std::cin);
            std::printf("%s", gocor::sha256(data.data(), data.size()).c_str());
        } else if (command == "fuzz" && count == 4) {
            fuzz(arguments[2], std::atoi(arguments[3]));
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
