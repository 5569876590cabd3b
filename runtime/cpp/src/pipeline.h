// From images to a model's inputs, and from its last flow to theirs; see runtime/preprocess.py.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"
#include "gocor.h"
#include "metadata.h"
#include "resample.h"

namespace gocor {

// For images of one size. It keeps memory between calls: one thread at a time may use one.
class Pipeline {
    const bool tensors_;  // preprocessed ones, not images, are what the model takes
    const NetworkSpec& spec_;
    const Size images_, model_;
    std::unique_ptr<ImageResize> resize_, resize_coarse_;  // null if nothing is to be resized
    std::array<std::array<float, 256>, 3> values_{};       // of the bytes of each input channel
    std::vector<std::uint8_t> packed_, resized_;

public:
    // Args: the model's metadata, which has to stay, the size of the images, and of the runs' full-size inputs.
    Pipeline(const Metadata& metadata, Size images, Size model);

    Size images() const { return images_; }
    Size model() const { return model_; }

    // Writes a pair to its place in the batch of a lane.
    void fill(const gocor_image& reference, const gocor_image& query, std::size_t place, Lane& lane);

    // Flows of the images, of the first `pairs` of a batch.
    void read_flow(const float* flow, std::size_t pairs, float* out) const;

private:
    void write(const gocor_image& image, std::size_t place, void* full, void* coarse);
    const std::uint8_t* packed(const gocor_image& image);
    void normalize(const std::uint8_t* image, Size size, float* out) const;
};

}  // namespace gocor
