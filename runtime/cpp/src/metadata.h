// What a model says about itself; see runtime/metadata.py, which writes it.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "resample.h"
#include "spec.h"

namespace gocor {

constexpr const char* ORIENTATION_SCORE = "orientation_score";  // output of the GLU-Net family, float32 (batch)

// Of sides and batches, so that no product of them overflows.
constexpr std::int64_t LARGEST = 1 << 16;

struct Tensor {
    std::string name, dtype;
    std::vector<std::int64_t> shape;

    bool operator==(const Tensor& other) const {
        return name == other.name && dtype == other.dtype && shape == other.shape;
    }
};

// "flow float32 (1, 2, 32, 64); …"
std::string in_words(const std::vector<Tensor>& tensors);

// Refuses a result of another shape than the model says: whoever reads it relies on that.
void check_result(const std::string& path, const std::vector<std::int64_t>& came, const Tensor& expected);

// Sizes that an axis may have, ends included.
struct Range {
    std::int64_t minimum = 1, maximum = 0;  // 0: any from the minimum on

    bool contains(std::int64_t value) const { return value >= minimum && (maximum == 0 || value <= maximum); }
};

constexpr std::int64_t VARIES = -1;  // in shapes

struct Metadata {
    const NetworkSpec* spec = nullptr;
    std::string io, precision, gocor_version;
    std::int64_t batch = 0;                // where sizes vary, the ones that the model is meant for most
    Size size;                             // of the images that it takes, or of its full-size input tensors
    std::map<std::string, Range> dynamic;  // by "batch", "height", "width": those that vary
    bool int8 = false;
    bool operators = false;  // it has some of the domain gocor

    bool tensors() const { return io == "tensors"; }
    bool orientation_score() const { return spec->family == Family::glunet; }

    // The model as one of fixed sizes, of those that it is meant for most.
    Metadata usual() const;
    // The same for a run with up to `count` pairs of images.
    Metadata for_images(std::int64_t count, Size images) const;

    // Inputs, in order.
    std::vector<Tensor> inputs() const;
    // The outputs that results come from: the flow, and the score if there is one.
    std::vector<Tensor> results() const;
    // All outputs, in order. Flows that are not the last are of other sizes, which are not known here.
    std::vector<std::string> output_names() const;

    // Whether a model's outputs are those that it says it has, in any order; and what those are.
    bool fit_outputs(const std::vector<Tensor>& found) const;
    std::string outputs_in_words() const;

private:
    std::int64_t size_or_varies(const char* axis, std::int64_t fixed) const;
};

// Reads the string properties `gocor.*` of the model file `where`.
Metadata read_metadata(const std::map<std::string, std::string>& properties, const std::string& where);

}  // namespace gocor
