// LocalCorrelation as a TensorRT plugin. schema.py says the same of names and shapes; a test holds them together.

#include "native/tensorrt_plugin.h"

#include "local_correlation/launch.h"

namespace gocor::tensorrt {
namespace {

std::string expected(const Sizes& reference, const Sizes& query, int) {
    for (std::size_t i = 0; i < query.size(); ++i) {
        if (!may_be_equal(reference[i], query[i])) return "two equal shapes (N, C, H, W)";
    }
    return "";
}

Dimensions output(const Dimensions&, const Dimensions& query, int radius, nvinfer1::IExprBuilder& builder) {
    return {query[0], builder.constant(displacements(radius)), query[2], query[3]};
}

}  // namespace

const Operator LOCAL_CORRELATION = {"LocalCorrelation", "1", expected, output, correlation::run};

}  // namespace gocor::tensorrt
