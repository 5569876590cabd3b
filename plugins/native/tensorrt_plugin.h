// Our operators as TensorRT plugins (IPluginV3): all that they share. An operator gives an `Operator`.
//
// No exception leaves a method: what goes wrong is said to TensorRT's logger, and the method gives a failure.

#pragma once

#include <NvInferRuntime.h>
#include <NvInferVersion.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "native/launch.h"

static_assert(NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 1009, "TensorRT 10.9 or later is needed");

namespace gocor::tensorrt {

constexpr const char* NAMESPACE = "gocor";
constexpr std::int32_t MAX_RADIUS = 8;  // of the kernels
constexpr std::int32_t FEATURES = 2;    // inputs of float32 or float16, of 4 dimensions; the second is (N, C, H, W)

constexpr int displacements(int radius) { return (2 * radius + 1) * (2 * radius + 1); }

// What went wrong, in words for the log.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

constexpr std::int64_t UNKNOWN = -1;  // a size that is known at run time only

using Sizes = std::vector<std::int64_t>;
using Dimensions = std::vector<const nvinfer1::IDimensionExpr*>;

// A number that the ONNX node gives.
struct Attribute {
    const char* name;
    std::int32_t standard, minimum, maximum;
};

constexpr Attribute RADIUS = {"radius", 4, 1, MAX_RADIUS};

// Those of an operator: radius, and iterations if there are any.
class Attributes {
    Attribute all_[2];
    std::size_t count_;

public:
    constexpr explicit Attributes(const Attribute& radius) noexcept : all_{radius, {}}, count_(1) {}
    constexpr Attributes(const Attribute& radius, const Attribute& iterations) noexcept
        : all_{radius, iterations}, count_(2) {}

    std::size_t size() const { return count_; }
    const Attribute* begin() const { return all_; }
    const Attribute* end() const { return all_ + count_; }
    const Attribute& operator[](std::size_t i) const { return all_[i]; }
};

// What is special about an operator.
struct Operator {
    const char* name;
    const char* version;
    std::int32_t parameters;  // vectors of float32 after the FEATURES
    Attributes attributes;
    // What the shapes of the inputs ought to be, for a message. Empty when these may be right: sizes may be UNKNOWN.
    std::string (*expected)(const std::vector<Sizes>& inputs, int radius);
    Dimensions (*output)(const std::vector<Dimensions>& inputs, int radius, nvinfer1::IExprBuilder&);
    Geometry (*geometry)(const Problem&);

    std::int32_t inputs() const { return FEATURES + parameters; }
};

extern const Operator LOCAL_CORRELATION, LOCAL_CORRELATION_TRANSPOSE, LOCAL_GOCOR;

// Equal, as far as both are known.
inline bool may_be_equal(std::int64_t a, std::int64_t b) { return a == b || a == UNKNOWN || b == UNKNOWN; }

inline bool may_be_equal(const Sizes& a, const Sizes& b) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (!may_be_equal(a[i], b[i])) return false;
    }
    return true;
}

// Says what went wrong with a layer to the logger of the calling builder or engine, or to stderr if there is none.
void log_error(const Operator& described, const char* layer, const char* what) noexcept;

// Attributes as TensorRT passes them on; the values stay where they are.
class Fields {
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_{};

public:
    Fields(const Attributes& attributes, const std::vector<std::int32_t>& values);
    Fields(const Fields&) = delete;
    Fields& operator=(const Fields&) = delete;
    const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }
};

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
    const Operator& operator_;
    std::string layer_;
    std::vector<std::int32_t> values_;  // of the attributes
    std::string description_;
    Fields fields_;

public:
    // Throws a Failure unless there are kernels for these values of the attributes.
    Plugin(const Operator& described, std::string layer, std::vector<std::int32_t> values);
    Plugin(const Plugin& other) : Plugin(other.operator_, other.layer_, other.values_) {}
    Plugin& operator=(const Plugin&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    const char* getPluginName() const noexcept override { return operator_.name; }
    const char* getPluginVersion() const noexcept override { return operator_.version; }
    const char* getPluginNamespace() const noexcept override { return NAMESPACE; }

    std::int32_t getNbOutputs() const noexcept override { return 1; }
    std::int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, std::int32_t input_count,
                                 const nvinfer1::DynamicPluginTensorDesc* outputs,
                                 std::int32_t output_count) noexcept override;
    std::int32_t getOutputDataTypes(nvinfer1::DataType* outputs, std::int32_t output_count,
                                    const nvinfer1::DataType* inputs, std::int32_t input_count) const noexcept override;
    std::int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, std::int32_t input_count,
                                 const nvinfer1::DimsExprs* shape_inputs, std::int32_t shape_input_count,
                                 nvinfer1::DimsExprs* outputs, std::int32_t output_count,
                                 nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(std::int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                   std::int32_t input_count, std::int32_t output_count) noexcept override;
    const char* getTimingCacheID() noexcept override { return description_.c_str(); }
    const char* getMetadataString() noexcept override { return description_.c_str(); }

    std::int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, std::int32_t input_count,
                               const nvinfer1::PluginTensorDesc* outputs, std::int32_t output_count) noexcept override;
    std::int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descriptions,
                         const nvinfer1::PluginTensorDesc* output_descriptions, const void* const* inputs,
                         void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return fields_.collection(); }

private:
    template <class Action>
    std::int32_t attempt(const Action& action) const noexcept;
    int radius() const { return values_[0]; }
    void check_counts(std::int32_t input_count, std::int32_t output_count) const;
    void check_shapes(const std::vector<Sizes>& inputs) const;
    Problem problem(const nvinfer1::PluginTensorDesc* inputs) const;
};

class Creator final : public nvinfer1::IPluginCreatorV3One {
    const Operator& operator_;
    std::vector<std::int32_t> values_;
    Fields fields_;

public:
    explicit Creator(const Operator& described);
    Creator(const Creator&) = delete;
    Creator& operator=(const Creator&) = delete;

    nvinfer1::IPluginV3* createPlugin(const char* layer, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return fields_.collection(); }
    const char* getPluginName() const noexcept override { return operator_.name; }
    const char* getPluginVersion() const noexcept override { return operator_.version; }
    const char* getPluginNamespace() const noexcept override { return NAMESPACE; }
};

}  // namespace gocor::tensorrt
