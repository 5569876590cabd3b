#include "resample.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace gocor {
namespace {

constexpr int PILLOW_BITS = 22;
constexpr std::int32_t HALF = 1 << (PILLOW_BITS - 1);
constexpr std::size_t CHANNELS = 3;

std::uint8_t to_byte(std::int32_t sum) { return static_cast<std::uint8_t>(std::min(sum >> PILLOW_BITS, 255)); }

// As Pillow rounds: a half goes up, and what is below zero towards it.
// NOLINTNEXTLINE(bugprone-incorrect-roundings)
std::int64_t rounded(double value) { return static_cast<std::int64_t>(value + 0.5); }

std::size_t row_length(const Size& size) { return CHANNELS * static_cast<std::size_t>(size.width); }

// The inputs that an output of adaptive average pooling averages.
struct Window {
    std::int64_t start, end;
    Window(std::int64_t output, std::int64_t size, std::int64_t new_size)
        : start(output * size / new_size), end(((output + 1) * size + new_size - 1) / new_size) {}
    std::uint32_t count() const { return static_cast<std::uint32_t>(end - start); }
};

// The two neighbours of each output, and the weight of the second.
struct Neighbours {
    std::vector<std::size_t> first, second;
    std::vector<float> weight;

    Neighbours(std::int64_t size, std::int64_t new_size) {
        // In float32 with one rounding, as PyTorch computes it; the product is exact in double.
        const double scale = static_cast<float>(size) / static_cast<float>(new_size);
        const auto last = static_cast<std::size_t>(size - 1);
        for (std::int64_t i = 0; i < new_size; ++i) {
            const auto position = static_cast<float>(std::max(scale * (static_cast<double>(i) + 0.5) - 0.5, 0.0));
            first.push_back(std::min(static_cast<std::size_t>(position), last));
            second.push_back(std::min(first.back() + 1, last));
            weight.push_back(std::clamp(position - static_cast<float>(first.back()), 0.0F, 1.0F));
        }
    }
};

// Rows of a map whose columns are resized when somebody asks for them: each once, if asked for in order.
class WideRows {
    const float* map_;
    std::size_t width_;
    float unit_;
    const Neighbours& columns_;
    struct Row {
        std::size_t number = SIZE_MAX;
        std::vector<float> values;
    } older_, newer_;

public:
    WideRows(const float* map, std::int64_t width, float unit, const Neighbours& columns)
        : map_(map), width_(static_cast<std::size_t>(width)), unit_(unit), columns_(columns) {}

    // Of two rows; they stay until the next call.
    std::pair<const float*, const float*> get(std::size_t upper, std::size_t lower) {
        if (upper != older_.number) std::swap(older_, newer_);
        return {fill(older_, upper), fill(newer_, lower)};
    }

private:
    const float* fill(Row& row, std::size_t number) {
        if (row.number != number) {
            row.number = number;
            row.values.resize(columns_.weight.size());
            const float* const in = map_ + number * width_;
            for (std::size_t x = 0; x < row.values.size(); ++x) {
                const float weight = columns_.weight[x];
                row.values[x] = in[columns_.first[x]] * unit_ * (1 - weight) + in[columns_.second[x]] * unit_ * weight;
            }
        }
        return row.values.data();
    }
};

void resize_map(const float* map, Size size, float unit, float factor, float* out, Size new_size) {
    if (size == new_size) {
        std::transform(map, map + size.pixels(), out, [=](float value) { return value * unit * factor; });
        return;
    }
    const Neighbours columns(size.width, new_size.width), rows(size.height, new_size.height);
    WideRows wide(map, size.width, unit, columns);
    const auto width = static_cast<std::size_t>(new_size.width);
    for (std::size_t y = 0; y < rows.weight.size(); ++y, out += width) {
        const auto [upper, lower] = wide.get(rows.first[y], rows.second[y]);
        const float weight = rows.weight[y];
        for (std::size_t x = 0; x < width; ++x) out[x] = (upper[x] * (1 - weight) + lower[x] * weight) * factor;
    }
}

}  // namespace

PillowResize::Filter::Filter(std::int64_t size, std::int64_t new_size) {
    if (size == new_size) return;
    // In the order of Pillow's own arithmetic: a weight near a half must be rounded to the same side.
    const double scale = static_cast<double>(size) / static_cast<double>(new_size), radius = std::max(scale, 1.0);
    const double inverse = 1.0 / radius;
    std::vector<double> triangle;
    for (std::int64_t i = 0; i < new_size; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale;
        const auto start = std::max(rounded(centre - radius), std::int64_t{0});
        const auto end = std::min(rounded(centre + radius), size);
        triangle.clear();
        double sum = 0;
        for (std::int64_t input = start; input < end; ++input) {
            const double distance = (static_cast<double>(input) - centre + 0.5) * inverse;
            triangle.push_back(std::max(1.0 - std::abs(distance), 0.0));
            sum += triangle.back();
        }
        outputs.push_back({static_cast<std::size_t>(start), triangle.size(), weights.size()});
        for (const double weight : triangle) {
            weights.push_back(static_cast<std::int32_t>(rounded(weight / sum * (1 << PILLOW_BITS))));
        }
    }
}

PillowResize::PillowResize(Size size, Size new_size)
    : size_(size),
      new_size_(new_size),
      columns_(size.width, new_size.width),
      rows_(size.height, new_size.height),
      sums_(row_length(new_size)) {
    if (!columns_.outputs.empty() && !rows_.outputs.empty()) {
        narrow_.resize(row_length(new_size) * static_cast<std::size_t>(size.height));
    }
}

void PillowResize::operator()(const std::uint8_t* image, std::uint8_t* out) {
    if (columns_.outputs.empty() && rows_.outputs.empty()) {
        std::copy_n(image, CHANNELS * size_.pixels(), out);
    } else if (rows_.outputs.empty()) {
        resize_columns(image, out);
    } else if (columns_.outputs.empty()) {
        resize_rows(image, out);
    } else {
        resize_columns(image, narrow_.data());
        resize_rows(narrow_.data(), out);
    }
}

void PillowResize::resize_columns(const std::uint8_t* image, std::uint8_t* out) const {
    for (std::int64_t y = 0; y < size_.height; ++y, image += row_length(size_)) {
        for (const Filter::Output& output : columns_.outputs) {
            const std::uint8_t* in = image + CHANNELS * output.start;
            std::int32_t sums[CHANNELS] = {HALF, HALF, HALF};
            for (std::size_t tap = 0; tap < output.count; ++tap) {
                const std::int32_t weight = columns_.weights[output.weights + tap];
                for (std::int32_t& sum : sums) sum += weight * *in++;
            }
            for (const std::int32_t sum : sums) *out++ = to_byte(sum);
        }
    }
}

void PillowResize::resize_rows(const std::uint8_t* image, std::uint8_t* out) {
    const std::size_t row = sums_.size();
    for (const Filter::Output& output : rows_.outputs) {
        std::fill(sums_.begin(), sums_.end(), HALF);
        for (std::size_t tap = 0; tap < output.count; ++tap) {
            const std::uint8_t* const in = image + (output.start + tap) * row;
            const std::int32_t weight = rows_.weights[output.weights + tap];
            for (std::size_t x = 0; x < row; ++x) sums_[x] += weight * in[x];
        }
        for (std::size_t x = 0; x < row; ++x) *out++ = to_byte(sums_[x]);
    }
}

AreaResize::AreaResize(Size size, Size new_size) : size_(size), new_size_(new_size), sums_(row_length(size)) {}

void AreaResize::operator()(const std::uint8_t* image, std::uint8_t* out) {
    const std::size_t row = sums_.size();
    for (std::int64_t y = 0; y < new_size_.height; ++y) {
        const Window rows(y, size_.height, new_size_.height);
        std::fill(sums_.begin(), sums_.end(), 0);
        for (std::int64_t input = rows.start; input < rows.end; ++input) {
            const std::uint8_t* const in = image + static_cast<std::size_t>(input) * row;
            for (std::size_t x = 0; x < row; ++x) sums_[x] += in[x];
        }
        for (std::int64_t x = 0; x < new_size_.width; ++x) {
            const Window columns(x, size_.width, new_size_.width);
            std::uint32_t sums[CHANNELS] = {};
            const std::uint32_t* in = sums_.data() + CHANNELS * static_cast<std::size_t>(columns.start);
            for (std::int64_t input = columns.start; input < columns.end; ++input) {
                for (std::uint32_t& sum : sums) sum += *in++;
            }
            const std::uint32_t count = rows.count() * columns.count();
            for (const std::uint32_t sum : sums) *out++ = static_cast<std::uint8_t>(sum / count);
        }
    }
}

void resize_flow(const float* flow, Size size, float unit, Size image, float* out, Size new_size) {
    const double across = static_cast<double>(new_size.width) / static_cast<double>(image.width);
    const double down = static_cast<double>(new_size.height) / static_cast<double>(image.height);
    for (const double factor : {across, down}) {
        resize_map(flow, size, unit, static_cast<float>(factor), out, new_size);
        flow += size.pixels();
        out += new_size.pixels();
    }
}

}  // namespace gocor
