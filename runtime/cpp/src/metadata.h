// What a model says about itself; see runtime/metadata.py, which writes it.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gocor {

struct Tensor {
    std::string name, dtype;
    std::vector<std::int64_t> shape;

    bool operator==(const Tensor& other) const {
        return name == other.name && dtype == other.dtype && shape == other.shape;
    }
};

// "flow float32 (1, 2, 32, 64); …"
std::string in_words(const std::vector<Tensor>& tensors);

struct Metadata {
    std::string network, io, precision, gocor_version;
    std::int64_t batch = 0, height = 0, width = 0;
    bool orientation_score = false;  // an output of the GLU-Net family
    bool int8 = false;
    bool operators = false;  // it has some of the domain gocor

    // Of a model that takes images, the only ones that get here.
    std::vector<Tensor> inputs() const;
    std::vector<Tensor> outputs() const;
};

// Reads the string properties `gocor.*` of the model file `where`.
Metadata read_metadata(const std::map<std::string, std::string>& properties, const std::string& where);

}  // namespace gocor
