// The facts of each network that the library needs; see runtime/spec.py, which has them, too.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gocor {

enum class Family : std::uint8_t { pwcnet, glunet };

constexpr std::int64_t GLUNET_COARSE_SIDE = 256;  // GLU-Net sees each image a second time at 256×256

struct NetworkSpec {
    std::string name;
    Family family;
    std::int64_t side_multiple;        // the sides of the network's input are multiples of this
    std::int64_t minimum_side;         // the shortest side of it
    std::vector<std::string> outputs;  // flows, coarsest first, as models that take tensors name them
    float flow_unit;                   // pixels of the network's input that one unit of the last flow stands for
    std::int64_t flow_stride = 4;      // the last flow has a height and width of the network's input over this

    // Inputs of models that take tensors; the last two are of GLUNET_COARSE_SIDE.
    std::vector<std::string> tensor_inputs() const;

    // The side that an image's is resized to for the network.
    std::int64_t working_side(std::int64_t side) const;
};

const std::vector<NetworkSpec>& network_specs();

}  // namespace gocor
