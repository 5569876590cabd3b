// LocalCorrelationTranspose as a TensorRT plugin. schema.py says the same of names and shapes; a test holds them
// together.

#include "native/tensorrt_plugin.h"

#include "local_correlation_transpose/launch.h"

namespace gocor::tensorrt {
namespace {

std::string expected(const std::vector<Sizes>& inputs, int radius) {
    const int channels = displacements(radius);
    const Sizes& query = inputs[1];
    const bool right = may_be_equal(inputs[0], {query[0], channels, query[2], query[3]});
    return right ? "" : "(N, " + std::to_string(channels) + ", H, W) and (N, C, H, W)";
}

Dimensions output(const std::vector<Dimensions>& inputs, int, nvinfer1::IExprBuilder&) { return inputs[1]; }

}  // namespace

const Operator LOCAL_CORRELATION_TRANSPOSE = {
    "LocalCorrelationTranspose", "1", 0, Attributes(RADIUS), expected, output, transpose::geometry};

}  // namespace gocor::tensorrt
