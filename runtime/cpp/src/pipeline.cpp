#include "pipeline.h"

#include <algorithm>
#include <cstring>

namespace gocor {
namespace {

constexpr Size COARSE = {GLUNET_COARSE_SIDE, GLUNET_COARSE_SIDE};
constexpr std::array<float, 3> IMAGENET_MEAN = {0.485F, 0.456F, 0.406F}, IMAGENET_STD = {0.229F, 0.224F, 0.225F};

std::unique_ptr<ImageResize> resize_between(Family family, Size size, Size new_size) {
    if (size == new_size) return nullptr;
    if (family == Family::pwcnet) return std::make_unique<PillowResize>(size, new_size);
    return std::make_unique<AreaResize>(size, new_size);
}

// An image as RGB without gaps.
void copy_image(const gocor_image& image, std::uint8_t* out) {
    const std::ptrdiff_t row = std::ptrdiff_t{3} * image.width;
    const std::ptrdiff_t stride = image.row_stride != 0 ? image.row_stride : row;
    const std::uint8_t* pixels = image.pixels;
    for (std::int32_t y = 0; y < image.height; ++y, out += row) {
        const std::uint8_t* in = pixels + y * stride;
        if (image.order == GOCOR_RGB) {
            std::memcpy(out, in, static_cast<std::size_t>(row));
            continue;
        }
        for (std::ptrdiff_t x = 0; x < row; x += 3) {
            out[x] = in[x + 2];
            out[x + 1] = in[x + 1];
            out[x + 2] = in[x];
        }
    }
}

}  // namespace

Pipeline::Pipeline(const Metadata& metadata, Size images, Size model)
    : tensors_(metadata.tensors()),
      spec_(*metadata.spec),
      images_(images),
      model_(model),
      resize_(resize_between(spec_.family, images, model)),
      resize_coarse_(tensors_ ? resize_between(spec_.family, images, COARSE) : nullptr) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
        for (std::size_t byte = 0; byte < 256; ++byte) {
            float value = static_cast<float>(byte) / 255.0F;
            if (spec_.family == Family::glunet) value = (value - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel];
            values_[channel][byte] = value;
        }
    }
}

void Pipeline::fill(const gocor_image& reference, const gocor_image& query, std::size_t place, Lane& lane) {
    const bool twice = tensors_ && spec_.family == Family::glunet;
    write(reference, place, lane.input(0), twice ? lane.input(2) : nullptr);
    write(query, place, lane.input(1), twice ? lane.input(3) : nullptr);
}

// `coarse` is the input of 256×256, or null.
void Pipeline::write(const gocor_image& image, std::size_t place, void* full, void* coarse) {
    if (!tensors_) {
        std::uint8_t* const out = static_cast<std::uint8_t*>(full) + place * 3 * model_.pixels();
        resize_ ? (*resize_)(packed(image), out) : copy_image(image, out);
        return;
    }
    const std::uint8_t* const original = packed(image);
    const auto add = [&](ImageResize* resize, Size size, void* to) {
        resized_.resize(3 * size.pixels());
        if (resize != nullptr) (*resize)(original, resized_.data());
        normalize(resize != nullptr ? resized_.data() : original, size,
                  static_cast<float*>(to) + place * 3 * size.pixels());
    };
    add(resize_.get(), model_, full);
    if (coarse != nullptr) add(resize_coarse_.get(), COARSE, coarse);
}

void Pipeline::read_flow(const float* flow, std::size_t pairs, float* out) const {
    if (!tensors_ && !resize_) {
        std::copy_n(flow, pairs * 2 * images_.pixels(), out);
        return;
    }
    const std::int64_t stride = tensors_ ? spec_.flow_stride : 1;
    const Size grid = {model_.height / stride, model_.width / stride};
    const float unit = tensors_ ? spec_.flow_unit : 1.0F;
    for (std::size_t pair = 0; pair < pairs; ++pair) {
        resize_flow(flow + pair * 2 * grid.pixels(), grid, unit, model_, out + pair * 2 * images_.pixels(), images_);
    }
}

// Where the image is as RGB without gaps: its own memory, or a copy.
const std::uint8_t* Pipeline::packed(const gocor_image& image) {
    const std::ptrdiff_t row = std::ptrdiff_t{3} * image.width;
    if (image.order == GOCOR_RGB && (image.row_stride == 0 || image.row_stride == row)) return image.pixels;
    packed_.resize(3 * images_.pixels());
    copy_image(image, packed_.data());
    return packed_.data();
}

// float32 (3, height, width) in the family's order of colours.
void Pipeline::normalize(const std::uint8_t* image, Size size, float* out) const {
    for (std::size_t channel = 0; channel < 3; ++channel) {
        const std::uint8_t* in = image + (spec_.family == Family::pwcnet ? 2 - channel : channel);
        for (std::size_t pixel = 0; pixel < size.pixels(); ++pixel, in += 3) *out++ = values_[channel][*in];
    }
}

}  // namespace gocor
