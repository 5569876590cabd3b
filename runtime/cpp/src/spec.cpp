#include "spec.h"

#include <algorithm>

namespace gocor {
namespace {

NetworkSpec pwcnet(const char* name) {
    return {name, Family::pwcnet, 64, 64, {"flow6", "flow5", "flow4", "flow3", "flow2"}, 20.0F};
}

NetworkSpec glunet(const char* name) {
    return {name, Family::glunet, 8, 256, {"flow4", "flow3", "flow2", "flow1"}, 1.0F};
}

}  // namespace

std::vector<std::string> NetworkSpec::tensor_inputs() const {
    if (family == Family::pwcnet) return {"reference", "query"};
    return {"reference", "query", "reference_256", "query_256"};
}

std::int64_t NetworkSpec::working_side(std::int64_t side) const {
    if (family == Family::pwcnet) return (side + side_multiple - 1) / side_multiple * side_multiple;
    return std::max(minimum_side, side / side_multiple * side_multiple);
}

const std::vector<NetworkSpec>& network_specs() {
    static const std::vector<NetworkSpec> specs = {pwcnet("PWCNet"), pwcnet("PWCNet_GOCor"), glunet("GLUNet"),
                                                   glunet("GLUNet_GOCor")};
    return specs;
}

}  // namespace gocor
