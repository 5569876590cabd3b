// All kernels on small shapes with real threads, to be run under a sanitizer. Buffers have exactly their size,
// so that AddressSanitizer sees a step outside. Results are checked as well. Prints "ok".
//
// GOCOR_RADII and GOCOR_ONLY_… as in native/host/launch.cpp, which is linked.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "local_correlation/launch.h"
#include "local_correlation_transpose/launch.h"
#include "local_gocor/launch.h"

using gocor::Problem;

namespace {

struct Shape {
    int batch, channels, height, width;
};

// A tile and its border, whole tiles, rows whose width is a multiple of 4, 8 or neither, several chunks and images.
constexpr Shape SHAPES[] = {{1, 3, 4, 19}, {2, 17, 3, 16}, {1, 2, 3, 36}};

// The same for LocalGOCor, whose chunks stay in shared memory or, if there are many, do not.
constexpr Shape GOCOR_SHAPES[] = {{1, 2, 3, 9}, {2, 17, 1, 8}, {1, 63, 3, 4}};

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
    const void* data() const { return memory_.get() + shift_; }

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

void report(const char* what, const Problem& p, const char* failure, double error) {
    std::printf("%s radius %d, %dx%dx%dx%d %s: %s, error %g\n", what, p.radius, p.batch, p.channels, p.height,
                p.width, p.half ? "float16" : "float32", failure ? failure : "wrong", error);
}

// Both correlations by their definition.
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
    const auto geometry = transpose ? gocor::transpose::geometry(p) : gocor::correlation::geometry(p);
    const void* inputs[] = {first.data(), query.data()};
    const char* failure = gocor::launch(geometry, inputs, result.data(), nullptr);
    const double error = failure ? 0 : relative_error(definition(transpose, p, first, query), result);
    if (!failure && error <= (p.half ? 1e-3 : 1e-5)) return true;
    report(transpose ? "transpose" : "correlation", p, failure, error);
    return false;
}

// LocalGOCor's inputs after the features: target, weight and mask of each displacement, and scalars.
struct Parameters {
    std::vector<std::unique_ptr<Array>> arrays;
    std::vector<std::vector<double>> values;

    explicit Parameters(const Problem& p) {
        const int side = 2 * p.radius + 1, planes = side * side;
        for (const int count : {planes, planes, planes, 4}) {
            std::vector<double>& numbers = values.emplace_back();
            for (int i = 0; i < count; ++i) numbers.push_back(0.6 + 0.3 * number(values.size() * 1000 + i));
            arrays.push_back(std::make_unique<Array>(count, false, false));
            for (int i = 0; i < count; ++i) arrays.back()->set(i, static_cast<float>(numbers[i]));
        }
        values[3][2] /= 10 * p.channels * p.channels;  // lambda
        arrays[3]->set(2, static_cast<float>(values[3][2]));
    }
};

Array array_of(const std::vector<double>& values) {
    Array array(values.size(), false, false);
    for (std::size_t i = 0; i < values.size(); ++i) array.set(i, static_cast<float>(values[i]));
    return array;
}

// LocalGOCor by its definition, filter by filter; features in between are rounded to float.
std::vector<double> optimized(const Problem& p, const Array& reference, const Array& query,
                              const std::vector<std::vector<double>>& parameters) {
    const auto &target = parameters[0], &weight = parameters[1], &mask = parameters[2], &scalars = parameters[3];
    const std::size_t area = static_cast<std::size_t>(p.height) * p.width, planes = target.size(), C = p.channels;
    // Sum over channels or displacements of the squares at each pixel.
    const auto squares = [&](const std::vector<double>& of, std::size_t count) {
        std::vector<double> sums(p.batch * area);
        for (std::size_t i = 0; i < of.size(); ++i) sums[i / area / count * area + i % area] += of[i] * of[i];
        return sums;
    };
    const auto pixel = [&](std::size_t i, std::size_t count) { return i / area / count * area + i % area; };
    std::vector<double> filters(p.batch * C * area);
    for (std::size_t i = 0; i < filters.size(); ++i) filters[i] = reference.get(i);
    const std::vector<double> norms = squares(filters, C);
    for (std::size_t i = 0; i < filters.size(); ++i) filters[i] *= scalars[0] / (norms[pixel(i, C)] / C + 1e-6);
    for (int iteration = 0; iteration < p.iterations; ++iteration) {
        const std::vector<double> scores = definition(false, p, array_of(filters), reference);
        std::vector<double> slopes(scores.size()), residuals(scores.size());
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const std::size_t d = i / area % planes;
            const double sign = (scores[i] > 0) - (scores[i] < 0);
            slopes[i] = weight[d] * ((1 - mask[d]) / 2 * sign + (1 + mask[d]) / 2);
            residuals[i] = slopes[i] * (slopes[i] * scores[i] - weight[d] * target[d]);
        }
        std::vector<double> gradients = definition(true, p, array_of(residuals), reference);
        for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i] += scalars[2] * filters[i];
        std::vector<double> changes = definition(false, p, array_of(gradients), reference);
        for (std::size_t i = 0; i < changes.size(); ++i) changes[i] *= slopes[i];
        const std::vector<double> g = squares(gradients, C), q = squares(changes, planes);
        for (std::size_t i = 0; i < filters.size(); ++i) {
            const std::size_t at = pixel(i, C);
            const double curvature = std::fmax(q[at] + scalars[2] * g[at], 1e-8) + scalars[3] * g[at];
            filters[i] -= scalars[1] * g[at] / curvature * gradients[i];
        }
    }
    return definition(false, p, array_of(filters), query);
}

bool gocor_passes(const Problem& p, bool shifted) {
    const std::size_t plane = static_cast<std::size_t>(p.batch) * p.height * p.width;
    Array reference(plane * p.channels, p.half, shifted), query(plane * p.channels, p.half, shifted);
    Array result(plane * (2 * p.radius + 1) * (2 * p.radius + 1), p.half, shifted);
    for (std::size_t i = 0; i < plane * p.channels; ++i) {
        reference.set(i, static_cast<float>(number(i)));
        query.set(i, static_cast<float>(number(i + 7)));
    }
    const Parameters parameters(p);
    std::vector<const void*> inputs = {reference.data(), query.data()};
    for (const auto& array : parameters.arrays) inputs.push_back(array->data());
    const char* failure = gocor::launch(gocor::fused::geometry(p), inputs.data(), result.data(), nullptr);
    const std::vector<double> expected = optimized(p, reference, query, parameters.values);
    const double error = failure ? 0 : relative_error(expected, result);
    if (!failure && error <= (p.half ? 1e-3 : 1e-5)) return true;
    report("gocor", p, failure, error);
    return false;
}

}  // namespace

#define RADIUS(R) R,

int main() {
    bool right = true, correlations = true, fused = true;
#ifdef GOCOR_ONLY_FUSED
    correlations = false;
#endif
#ifdef GOCOR_ONLY_CORRELATIONS
    fused = false;
#endif
    for (const int radius : {GOCOR_RADII(RADIUS)}) {
        for (const Shape& shape : SHAPES) {
            if (!correlations) break;
            for (const bool half : {false, true}) {
                const Problem p{shape.batch, shape.channels, shape.height, shape.width, radius, half};
                const bool shifted = shape.channels == 2;
                right = passes(false, p, shifted) && passes(true, p, shifted) && right;
            }
        }
        for (const Shape& shape : GOCOR_SHAPES) {
            if (!fused) break;
            for (const bool half : {false, true}) {
                const Problem p{shape.batch, shape.channels, shape.height, shape.width, radius, half, 1};
                right = gocor_passes(p, shape.channels == 2) && right;
            }
        }
    }
    if (right) std::puts("ok");
    return right ? 0 : 1;
}
