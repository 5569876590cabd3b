// All kernels on small shapes with real threads, to be run under a sanitizer. Buffers have exactly their size,
// so that AddressSanitizer sees a step outside. Results are checked as well. Prints "ok".
//
// GOCOR_RADII as in native/host/launch.cpp, which is linked.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "local_correlation/launch.h"
#include "local_correlation_transpose/launch.h"

using gocor::Problem;

namespace {

struct Shape {
    int batch, channels, height, width;
};

// A tile and its border, whole tiles, rows whose width is a multiple of 4, 8 or neither, several chunks and images.
constexpr Shape SHAPES[] = {{1, 3, 4, 19}, {2, 17, 3, 16}, {1, 2, 3, 36}};

// An array on the heap, aligned like a tensor or, with an offset of one element, not at all.
class Array {
    std::unique_ptr<unsigned char[]> memory_;
    std::size_t element_, shift_;

public:
    Array(std::size_t count, bool half, bool shifted)
        : memory_(new unsigned char[(count + shifted) * (half ? 2 : 4)]),
          element_(half ? 2 : 4),
          shift_(shifted ? element_ : 0) {}

    void* data() { return memory_.get() + shift_; }

    double get(std::size_t i) const {
        const unsigned char* at = memory_.get() + shift_ + i * element_;
        if (element_ == 4) {
            float value;
            std::memcpy(&value, at, 4);
            return value;
        }
        _Float16 value;
        std::memcpy(&value, at, 2);
        return static_cast<double>(value);
    }

    void set(std::size_t i, float number) {
        unsigned char* at = memory_.get() + shift_ + i * element_;
        const auto half = static_cast<_Float16>(number);
        element_ == 4 ? std::memcpy(at, &number, 4) : std::memcpy(at, &half, 2);
    }
};

double number(std::size_t i) { return std::sin(12.9898 * static_cast<double>(i % 100003)); }

double relative_error(const std::vector<double>& expected, const Array& actual) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(actual.get(i) - expected[i], 2);
        norm += std::pow(expected[i], 2);
    }
    return std::sqrt(difference / norm);
}

// Both operators by their definition.
std::vector<double> definition(bool transpose, const Problem& p, const Array& first, const Array& query) {
    const int side = 2 * p.radius + 1, planes = side * side;
    const int outputs = transpose ? p.channels : planes;
    std::vector<double> result(static_cast<std::size_t>(p.batch) * outputs * p.height * p.width);
    const auto at = [&](int channels, int n, int c, int y, int x) {
        return ((static_cast<std::size_t>(n) * channels + c) * p.height + y) * p.width + x;
    };
    for (int n = 0; n < p.batch; ++n)
        for (int d = 0; d < planes; ++d)
            for (int c = 0; c < p.channels; ++c)
                for (int y = 0; y < p.height; ++y)
                    for (int x = 0; x < p.width; ++x) {
                        const int row = y + d / side - p.radius, column = x + d % side - p.radius;
                        if (row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
                        const double neighbour = query.get(at(p.channels, n, c, row, column)) / p.channels;
                        if (transpose) {
                            result[at(outputs, n, c, y, x)] += first.get(at(planes, n, d, y, x)) * neighbour;
                        } else {
                            result[at(outputs, n, d, y, x)] += first.get(at(p.channels, n, c, y, x)) * neighbour;
                        }
                    }
    return result;
}

bool passes(bool transpose, const Problem& p, bool shifted) {
    const std::size_t plane = static_cast<std::size_t>(p.batch) * p.height * p.width;
    const std::size_t volume = plane * (2 * p.radius + 1) * (2 * p.radius + 1), features = plane * p.channels;
    const std::size_t in = transpose ? volume : features, out = transpose ? features : volume;
    Array first(in, p.half, shifted), query(features, p.half, shifted), result(out, p.half, shifted);
    for (std::size_t i = 0; i < in; ++i) first.set(i, static_cast<float>(number(i)));
    for (std::size_t i = 0; i < features; ++i) query.set(i, static_cast<float>(number(i + 7)));
    const auto run = transpose ? gocor::transpose::run : gocor::correlation::run;
    const char* failure = run(p, first.data(), query.data(), result.data(), nullptr);
    const double error = failure ? 0 : relative_error(definition(transpose, p, first, query), result);
    if (!failure && error <= (p.half ? 1e-3 : 1e-5)) return true;
    std::printf("%s radius %d, %dx%dx%dx%d %s: %s, error %g\n", transpose ? "transpose" : "correlation", p.radius,
                p.batch, p.channels, p.height, p.width, p.half ? "float16" : "float32", failure ? failure : "wrong",
                error);
    return false;
}

}  // namespace

#define RADIUS(R) R,

int main() {
    bool right = true;
    for (const int radius : {GOCOR_RADII(RADIUS)}) {
        for (const Shape& shape : SHAPES) {
            for (const bool half : {false, true}) {
                const Problem p{shape.batch, shape.channels, shape.height, shape.width, radius, half};
                const bool shifted = shape.channels == 2;
                right = passes(false, p, shifted) && passes(true, p, shifted) && right;
            }
        }
    }
    if (right) std::puts("ok");
    return right ? 0 : 1;
}
