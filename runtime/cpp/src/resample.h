// Resizing, with the rounding that is part of the official result; see runtime/preprocess.py.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gocor {

// Height and width.
struct Size {
    std::int64_t height = 0, width = 0;

    bool operator==(const Size& other) const { return height == other.height && width == other.width; }
    bool operator!=(const Size& other) const { return !(*this == other); }
    std::size_t pixels() const { return static_cast<std::size_t>(height) * static_cast<std::size_t>(width); }
};

// Resizes uint8 images (height, width, 3) without gaps. One thread at a time may use one.
class ImageResize {
public:
    ImageResize() = default;
    ImageResize(const ImageResize&) = delete;
    ImageResize& operator=(const ImageResize&) = delete;
    virtual ~ImageResize() = default;

    virtual void operator()(const std::uint8_t* image, std::uint8_t* out) = 0;
};

// Pillow's bilinear filter, to the bit: antialiased, weights in 22-bit fixed point; columns first, rounded to bytes,
// then rows; a side that stays is left alone.
class PillowResize final : public ImageResize {
    // Outputs are weighted sums of neighbouring inputs. Empty if the side stays.
    struct Filter {
        struct Output {
            std::size_t start, count;  // inputs
            std::size_t weights;       // where its weights start
        };
        std::vector<Output> outputs;
        std::vector<std::int32_t> weights;
        Filter(std::int64_t size, std::int64_t new_size);
    };

    Size size_, new_size_;
    Filter columns_, rows_;
    std::vector<std::uint8_t> narrow_;  // columns done
    std::vector<std::int32_t> sums_;    // of a row

public:
    PillowResize(Size size, Size new_size);
    void operator()(const std::uint8_t* image, std::uint8_t* out) override;

private:
    void resize_columns(const std::uint8_t* image, std::uint8_t* out) const;
    void resize_rows(const std::uint8_t* image, std::uint8_t* out);
};

// Adaptive average pooling, truncated: output i averages inputs floor(i·size/new) up to ceil((i + 1)·size/new), so that
// enlarging is defined, too. Exact, for windows of up to 16 million pixels.
class AreaResize final : public ImageResize {
    Size size_, new_size_;
    std::vector<std::uint32_t> sums_;  // of the rows of a window

public:
    AreaResize(Size size, Size new_size);
    void operator()(const std::uint8_t* image, std::uint8_t* out) override;
};

// Resizes a flow (2, height, width), first multiplied by `unit`, bilinearly without antialiasing (corners not aligned,
// as torch.nn.functional.interpolate does by default) and scales its vectors, which count pixels of `image`.
void resize_flow(const float* flow, Size size, float unit, Size image, float* out, Size new_size);

}  // namespace gocor
