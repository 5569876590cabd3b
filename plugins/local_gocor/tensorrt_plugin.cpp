// LocalGOCor as a TensorRT plugin. schema.py says the same of names, shapes and values; a test holds them together.

#include "native/tensorrt_plugin.h"

#include "local_gocor/launch.h"

namespace gocor::tensorrt {
namespace {

constexpr std::int32_t SCALARS = 4;

std::string expected(const std::vector<Sizes>& inputs, int radius) {
    if (!may_be_equal(inputs[0], inputs[1])) return "two equal shapes (N, C, H, W)";
    const Sizes map = {displacements(radius)};
    const bool right = may_be_equal(inputs[2], map) && may_be_equal(inputs[3], map) && may_be_equal(inputs[4], map) &&
                       may_be_equal(inputs[5], {SCALARS});
    if (right) return "";
    return "three of (" + std::to_string(displacements(radius)) + ") and one of (" + std::to_string(SCALARS) +
           ") after the first two";
}

Dimensions output(const std::vector<Dimensions>& inputs, int radius, nvinfer1::IExprBuilder& builder) {
    const Dimensions& query = inputs[1];
    return {query[0], builder.constant(displacements(radius)), query[2], query[3]};
}

}  // namespace

const Operator LOCAL_GOCOR = {
    "LocalGOCor", "1", 4, Attributes(RADIUS, {"iterations", 3, 0, 1000}), expected, output, fused::geometry};

}  // namespace gocor::tensorrt
