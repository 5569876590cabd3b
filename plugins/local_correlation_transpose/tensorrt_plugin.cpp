// LocalCorrelationTranspose as a TensorRT plugin. schema.py says the same of names and shapes; a test holds them
// together.

#include "native/tensorrt_plugin.h"

#include "local_correlation_transpose/launch.h"

namespace gocor::tensorrt {
namespace {

std::string expected(const Sizes& volume, const Sizes& query, int radius) {
    const int channels = displacements(radius);
    const bool right = may_be_equal(volume[0], query[0]) && may_be_equal(volume[1], channels) &&
                       may_be_equal(volume[2], query[2]) && may_be_equal(volume[3], query[3]);
    return right ? "" : "(N, " + std::to_string(channels) + ", H, W) and (N, C, H, W)";
}

Dimensions output(const Dimensions&, const Dimensions& query, int, nvinfer1::IExprBuilder&) { return query; }

}  // namespace

const Operator LOCAL_CORRELATION_TRANSPOSE = {"LocalCorrelationTranspose", "1", expected, output, transpose::run};

}  // namespace gocor::tensorrt
