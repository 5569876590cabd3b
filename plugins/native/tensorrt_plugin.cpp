#include "native/tensorrt_plugin.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
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
        result += &size == &sizes.back() ? "" : ", ";
    }
    return result + ")";
}

// Items as "a, b and c".
std::string enumerated(const std::vector<std::string>& items) {
    std::string result;
    for (std::size_t i = 0; i < items.size(); ++i) {
        result += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
    }
    return result;
}

void check_rank(std::int32_t input, std::int32_t rank) {
    if (input < FEATURES && rank != 4) {
        throw Failure("takes tensors of 4 dimensions, not " + std::to_string(rank));
    }
    if (input >= FEATURES && rank != 1) {
        throw Failure("takes vectors from its third input on, not tensors of " + std::to_string(rank) + " dimensions");
    }
}

// Shapes of all inputs, of which `dims_of(input)` gives one.
template <class DimsOf>
auto shapes_of(const Operator& described, const DimsOf& dims_of) {
    std::vector<std::vector<std::decay_t<decltype(dims_of(0).d[0])>>> shapes;
    for (std::int32_t input = 0; input < described.inputs(); ++input) {
        const auto& dims = dims_of(input);
        check_rank(input, dims.nbDims);
        shapes.emplace_back(dims.d, dims.d + dims.nbDims);
    }
    return shapes;
}

std::vector<Sizes> sizes_of(const std::vector<Dimensions>& shapes) {
    std::vector<Sizes> result;
    for (const Dimensions& dimensions : shapes) {
        Sizes& sizes = result.emplace_back();
        for (const auto* size : dimensions) {
            sizes.push_back(size->isConstant() ? size->getConstantValue() : UNKNOWN);
        }
    }
    return result;
}

int narrow(std::int64_t size) {
    if (size < 0 || size > std::numeric_limits<int>::max()) {
        throw Failure("cannot have a size of " + std::to_string(size));
    }
    return static_cast<int>(size);
}

// The kernels take an image for a block.z, and count its elements, and those of its volume, in 32 bits.
void check_countable(const Sizes& query, std::int32_t radius) {
    const std::int64_t height = query[2], width = query[3];
    const std::int64_t planes = std::max<std::int64_t>(query[1], displacements(radius));
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    const bool countable = height <= 0 || width <= 0 || planes <= most / height / width;
    if (query[0] > 65535 || !countable) {
        throw Failure("takes 65535 images of 2147483647 elements at most, not a query of shape " + text(query));
    }
}

// `type_of(input)` is the dtype of one.
template <class TypeOf>
void check_types(const Operator& described, const TypeOf& type_of) {
    const DataType first = type_of(0), query = type_of(1);
    if (first != query || (first != DataType::kFLOAT && first != DataType::kHALF)) {
        throw Failure("takes two inputs of float32 or two of float16, not " + text(first) + " and " + text(query));
    }
    for (std::int32_t input = FEATURES; input < described.inputs(); ++input) {
        if (type_of(input) != DataType::kFLOAT) {
            throw Failure("takes float32 from its third input on, not " + text(type_of(input)));
        }
    }
}

std::vector<std::int32_t> standard_values(const Attributes& attributes) {
    std::vector<std::int32_t> values(attributes.size());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = attributes[i].standard;
    return values;
}

std::vector<std::int32_t> values_of(const Operator& described, const nvinfer1::PluginFieldCollection* fields) {
    std::vector<std::int32_t> values = standard_values(described.attributes);
    for (std::int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        const std::string name = field.name != nullptr ? field.name : "";
        std::vector<std::string> known(values.size());
        for (std::size_t k = 0; k < known.size(); ++k) known[k] = described.attributes[k].name;
        const auto found = std::find(known.begin(), known.end(), name);
        if (found == known.end()) {
            throw Failure("has no attribute \"" + name + "\", only " + enumerated(known));
        }
        if (field.type != PluginFieldType::kINT32 || field.length != 1 || field.data == nullptr) {
            throw Failure("takes one INT32 as its attribute " + name);
        }
        std::memcpy(&values[static_cast<std::size_t>(found - known.begin())], field.data, sizeof values[0]);
    }
    return values;
}

void check_value(const Attribute& attribute, std::int32_t value) {
    if (attribute.minimum <= value && value <= attribute.maximum) return;
    const std::string got = std::string("has ") + attribute.name + " " + std::to_string(value);
    const std::string range = std::to_string(attribute.minimum) + " to " + std::to_string(attribute.maximum);
    if (attribute.name != std::string(RADIUS.name)) throw Failure(got + ", and takes " + range);
    throw Failure(got + ", and CUDA kernels go from " + range +
                  "; build without the plugin, from the model's function body");
}

}  // namespace

Fields::Fields(const Attributes& attributes, const std::vector<std::int32_t>& values) {
    for (std::size_t i = 0; i < attributes.size(); ++i) {
        fields_.emplace_back(attributes[i].name, &values[i], PluginFieldType::kINT32, 1);
    }
    collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
}

// ── the plugin

Plugin::Plugin(const Operator& described, std::string layer, std::vector<std::int32_t> values)
    : operator_(described),
      layer_(std::move(layer)),
      values_(std::move(values)),
      description_("gocor " GOCOR_VERSION),
      fields_(described.attributes, values_) {
    for (std::size_t i = 0; i < values_.size(); ++i) {
        check_value(described.attributes[i], values_[i]);
        description_ += std::string(", ") + described.attributes[i].name + " " + std::to_string(values_[i]);
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

void Plugin::check_counts(std::int32_t input_count, std::int32_t output_count) const {
    if (input_count == operator_.inputs() && output_count == 1) return;
    throw Failure("has " + std::to_string(operator_.inputs()) + " inputs and one output");
}

void Plugin::check_shapes(const std::vector<Sizes>& inputs) const {
    const std::string expected = operator_.expected(inputs, radius());
    if (expected.empty()) return;
    std::vector<std::string> shapes(inputs.size());
    for (std::size_t i = 0; i < shapes.size(); ++i) shapes[i] = text(inputs[i]);
    throw Failure("has inputs of shapes " + enumerated(shapes) + "; expected " + expected);
}

Problem Plugin::problem(const nvinfer1::PluginTensorDesc* inputs) const {
    check_types(operator_, [&](std::int32_t input) { return inputs[input].type; });
    const auto shapes = shapes_of(operator_, [&](std::int32_t input) { return inputs[input].dims; });
    check_shapes(shapes);
    const Sizes& query = shapes[1];
    check_countable(query, radius());
    return {narrow(query[0]), narrow(query[1]), narrow(query[2]),
            narrow(query[3]), radius(),         inputs[1].type == DataType::kHALF,
            values_.size() > 1 ? values_[1] : 0};
}

// ── while an engine is built

std::int32_t Plugin::getOutputDataTypes(DataType* outputs, std::int32_t output_count, const DataType* inputs,
                                        std::int32_t input_count) const noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        check_types(operator_, [&](std::int32_t input) { return inputs[input]; });
        outputs[0] = inputs[0];
    });
}

std::int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, std::int32_t input_count,
                                     const nvinfer1::DimsExprs*, std::int32_t, nvinfer1::DimsExprs* outputs,
                                     std::int32_t output_count, nvinfer1::IExprBuilder& builder) noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        const auto shapes = shapes_of(operator_, [&](std::int32_t input) { return inputs[input]; });
        check_shapes(sizes_of(shapes));
        const Dimensions output = operator_.output(shapes, radius(), builder);
        outputs[0].nbDims = static_cast<std::int32_t>(output.size());
        for (std::size_t i = 0; i < output.size(); ++i) outputs[0].d[i] = output[i];
    });
}

bool Plugin::supportsFormatCombination(std::int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       std::int32_t input_count, std::int32_t) noexcept {
    const auto type = tensors[position].desc.type;
    const bool is_parameter = FEATURES <= position && position < input_count;
    const bool right = is_parameter ? type == DataType::kFLOAT
                                    : type == tensors[0].desc.type &&
                                          (type == DataType::kFLOAT || type == DataType::kHALF);
    return right && tensors[position].desc.format == nvinfer1::TensorFormat::kLINEAR;
}

std::int32_t Plugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, std::int32_t input_count,
                                     const nvinfer1::DynamicPluginTensorDesc*, std::int32_t output_count) noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        check_types(operator_, [&](std::int32_t input) { return inputs[input].desc.type; });
        check_shapes(shapes_of(operator_, [&](std::int32_t input) { return inputs[input].desc.dims; }));
    });
}

// ── while an engine runs

std::int32_t Plugin::onShapeChange(const nvinfer1::PluginTensorDesc* inputs, std::int32_t input_count,
                                   const nvinfer1::PluginTensorDesc*, std::int32_t output_count) noexcept {
    return attempt([&] {
        check_counts(input_count, output_count);
        problem(inputs);
    });
}

std::int32_t Plugin::enqueue(const nvinfer1::PluginTensorDesc* input_descriptions, const nvinfer1::PluginTensorDesc*,
                             const void* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept {
    return attempt([&] {
        const Geometry geometry = operator_.geometry(problem(input_descriptions));
        const char* failure = launch(geometry, inputs, outputs[0], stream);
        if (failure != nullptr) throw Failure(failure);
    });
}

// ── its creator

Creator::Creator(const Operator& described)
    : operator_(described), values_(standard_values(described.attributes)), fields_(described.attributes, values_) {}

nvinfer1::IPluginV3* Creator::createPlugin(const char* layer, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase) noexcept {
    const char* name = layer != nullptr ? layer : "";
    try {
        return std::make_unique<Plugin>(operator_, name, values_of(operator_, fields)).release();
    } catch (const std::exception& error) {
        log_error(operator_, name, error.what());
        return nullptr;
    }
}

}  // namespace gocor::tensorrt
