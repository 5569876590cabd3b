// LocalCorrelation as a TensorRT plugin. schema.py says the same of names and shapes; a test holds them together.

#include "native/tensorrt_plugin.h"

#include "local_correlation/launch.h"

namespace gocor::tensorrt {
namespace {

std::string expected(const std::vector<Sizes>& inputs, int) {
    return may_be_equal(inputs[0], inputs[1]) ? "" : "two equal shapes (N, C, H, W)";
}

Dimensions output(const std::vector<Dimensions>& inputs, int radius, nvinfer1::IExprBuilder& builder) {
    const Dimensions& query = inputs[1];
    return {query[0], builder.constant(displacements(radius)), query[2], query[3]};
}

}  // namespace

const Operator LOCAL_CORRELATION = {
    "LocalCorrelation", "1", 0, Attributes(RADIUS), expected, output, correlation::geometry};

}  // namespace gocor::tensorrt
