#include "native/tensorrt_plugin.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

namespace gocor::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

std::string text(DataType type) {
    switch (type) {
        case DataType::kFLOAT: return "float32";
        case DataType::kHALF: return "float16";
        case DataType::kBF16: return "bfloat16";
        default: return "type " + std::to_string(static_cast<int>(type)) + " of TensorRT";
    }
}

std::string text(const Sizes& sizes) {
    std::string result = "(";
    for (const std::int64_t& size : sizes) {
        result += size == UNKNOWN ? "?" : std::to_string(size);
        result += &size == &sizes.back() ? ")" : ", ";
    }
    return result;
}

Sizes sizes_of(const nvinfer1::Dims& dims) {
    if (dims.nbDims != 4) throw Failure("takes tensors of 4 dimensions, not " + std::to_string(dims.nbDims));
    return {dims.d[0], dims.d[1], dims.d[2], dims.d[3]};
}

Dimensions dimensions_of(const nvinfer1::DimsExprs& dims) {
    if (dims.nbDims != 4) throw Failure("takes tensors of 4 dimensions, not " + std::to_string(dims.nbDims));
    return {dims.d[0], dims.d[1], dims.d[2], dims.d[3]};
}

Sizes sizes_of(const Dimensions& dimensions) {
    Sizes sizes{};
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        sizes[i] = dimensions[i]->isConstant() ? dimensions[i]->getConstantValue() : UNKNOWN;
    }
    return sizes;
}

int narrow(std::int64_t size) {
    if (size < 0 || size > std::numeric_limits<int>::max()) {
        throw Failure("cannot have a size of " + std::to_string(size));
    }
    return static_cast<int>(size);
}

// The kernels take an image for a block.z, and count its elements, and those of its volume, in 32 bits.
void check_countable(const Sizes& sizes, std::int32_t radius) {
    const auto& [batch, channels, height, width] = sizes;
    const std::int64_t planes = std::max<std::int64_t>(channels, (2 * radius + 1) * (2 * radius + 1));
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    const bool countable = height <= 0 || width <= 0 || planes <= most / height / width;
    if (batch > 65535 || !countable) {
        throw Failure("takes 65535 images of 2147483647 elements at most, not a query of shape " + text(sizes));
    }
}

void check_counts(std::int32_t input_count, std::int32_t output_count) {
    if (input_count != 2 || output_count != 1) throw Failure("has two inputs and one output");
}

void check_types(DataType first, DataType query) {
    if (first != query || (first != DataType::kFLOAT && first != DataType::kHALF)) {
        throw Failure("takes two inputs of float32 or two of float16, not " + text(first) + " and " + text(query));
    }
}

std::int32_t radius_of(const nvinfer1::PluginFieldCollection* fields) {
    std::int32_t radius = DEFAULT_RADIUS;
    for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        const std::string name = field.name != nullptr ? field.name : "";
        if (name != "radius") throw Failure("has no attribute \"" + name + "\", only radius");
        if (field.type != PluginFieldType::kINT32 || field.length != 1 || field.data == nullptr) {
            throw Failure("takes one INT32 as its attribute radius");
        }
        std::memcpy(&radius, field.data, sizeof radius);
    }
    return radius;
}

}  // namespace

// ── the plugin

Plugin::Plugin(const Operator& described, std::string layer, std::int32_t radius)
    : operator_(described),
      layer_(std::move(layer)),
      radius_(radius),
      description_(std::string("gocor " GOCOR_VERSION ", radius ") + std::to_string(radius)),
      field_("radius", &radius_, PluginFieldType::kINT32, 1) {
    if (radius < 1 || radius > MAX_RADIUS) {
        throw Failure("has radius " + std::to_string(radius) + ", and CUDA kernels go from 1 to " +
                      std::to_string(MAX_RADIUS) + "; build without the plugin, from the model's function body");
    }
}

// Gives what TensorRT takes for success or failure.
template <class Action>
std::int32_t Plugin::attempt(const Action& action) const noexcept {
    try {
        action();
        return 0;
    } catch (const std::exception& error) {
        log_error(operator_, layer_.c_str(), error.what());
        return 1;
    }
}

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* Plugin::clone() noexcept {
    std::unique_ptr<Plugin> copy;
    attempt([&] { copy = std::make_unique<Plugin>(*this); });
    return copy.release();
}

void Plugin::check_shapes(const Sizes& first, const Sizes& query) const {
    const std::string expected = operator_.expected(first, query, radius_);
    if (!expected.empty()) {
        throw Failure("has inputs of shapes " + text(first) + " and " + text(query) + "; expected " + expected);
    }
}

Problem Plugin::problem(const nvinfer1::PluginTensorDesc& first, const nvinfer1::PluginTensorDesc& query) const {
    check_types(first.type, query.type);
    const Sizes sizes = sizes_of(query.dims);
    check_shapes(sizes_of(first.dims), sizes);
    check_countable(sizes, radius_);
    return {narrow(sizes[0]), narrow(sizes[1]), narrow(sizes[2]),
            narrow(sizes[3]), radius_,          query.type == DataType::kHALF};
}

// ── while an engine is built

std::int32_t Plugin::getOutputDataTypes(DataType* outputs, std::int32_t output_count, const DataType* inputs,
                                        std::int32_t input_count) const noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        check_types(inputs[0], inputs[1]);
        outputs[0] = inputs[0];
    });
}

std::int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, std::int32_t input_count,
                                     const nvinfer1::DimsExprs*, std::int32_t, nvinfer1::DimsExprs* outputs,
                                     std::int32_t output_count, nvinfer1::IExprBuilder& builder) noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        const Dimensions first = dimensions_of(inputs[0]), query = dimensions_of(inputs[1]);
        check_shapes(sizes_of(first), sizes_of(query));
        const Dimensions output = operator_.output(first, query, radius_, builder);
        outputs[0].nbDims = static_cast<std::int32_t>(output.size());
        for (std::size_t i = 0; i < output.size(); ++i) outputs[0].d[i] = output[i];
    });
}

bool Plugin::supportsFormatCombination(std::int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       std::int32_t, std::int32_t) noexcept {
    const auto type = tensors[position].desc.type;
    return tensors[position].desc.format == nvinfer1::TensorFormat::kLINEAR && type == tensors[0].desc.type &&
           (type == DataType::kFLOAT || type == DataType::kHALF);
}

std::int32_t Plugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, std::int32_t input_count,
                                     const nvinfer1::DynamicPluginTensorDesc*, std::int32_t output_count) noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        check_types(inputs[0].desc.type, inputs[1].desc.type);
        check_shapes(sizes_of(inputs[0].desc.dims), sizes_of(inputs[1].desc.dims));
    });
}

// ── while an engine runs

std::int32_t Plugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs, std::int32_t input_count,
                                   const nvinfer1::PluginTensorDesc*, std::int32_t output_count) noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        problem(inputs[0], inputs[1]);
    });
}

std::int32_t Plugin::enqueue(const nvinfer1::PluginTensorDesc* input_descriptions, const nvinfer1::PluginTensorDesc*,
                             const void* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
    return attempt([&] {
        const Problem call = problem(input_descriptions[0], input_descriptions[1]);
        const char* failure = operator_.run(call, inputs[0], inputs[1], outputs[0], stream);
        if (failure != nullptr) throw Failure(failure);
    });
}

// ── its creator

nvinfer1::IPluginV3* Creator::createPlugin(const char* layer, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase) noexcept {
    const char* name = layer != nullptr ? layer : "";
    try {
        return std::make_unique<Plugin>(operator_, name, radius_of(fields)).release();
    } catch (const std::exception& error) {
        log_error(operator_, name, error.what());
        return nullptr;
    }
}

}  // namespace gocor::tensorrt
