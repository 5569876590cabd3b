// A TensorRT that does nothing but ask a quickly deployable plugin what a build asks of it.
//
// It takes the place of libnvinfer under NVIDIA's Python bindings. Their C++ side, through which TensorRT calls
// a plugin written in Python, is then at work as in a real build, with real symbolic sizes: here an expression
// carries its value, and whether it would be known while the engine is built.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "NvInfer.h"
#include "impl/NvInferPythonPlugin.h"

using namespace nvinfer1;

namespace {

class Size final : public IDimensionExpr, apiv::VDimensionExpr {
public:
    Size(int64_t value, bool known) : value(value), known(known) { mImpl = this; }
    bool isConstant() const noexcept override { return known; }
    int64_t getConstantValue() const noexcept override { return known ? value : -1; }
    bool isSizeTensor() const noexcept override { return false; }

    int64_t const value;
    bool const known;
};

Size const& size_of(IDimensionExpr const& expression) { return static_cast<Size const&>(expression); }

int64_t calculate(DimensionOperation operation, int64_t a, int64_t b) {
    switch (operation) {
        case DimensionOperation::kSUM: return a + b;
        case DimensionOperation::kPROD: return a * b;
        case DimensionOperation::kMAX: return a > b ? a : b;
        case DimensionOperation::kMIN: return a < b ? a : b;
        case DimensionOperation::kSUB: return a - b;
        case DimensionOperation::kEQUAL: return a == b;
        case DimensionOperation::kLESS: return a < b;
        case DimensionOperation::kFLOOR_DIV: return a / b;
        case DimensionOperation::kCEIL_DIV: return (a + b - 1) / b;
    }
    return -1;
}

class Sizes final : public IExprBuilder, apiv::VExprBuilder {
public:
    Sizes() { mImpl = this; }
    IDimensionExpr const* make(int64_t value, bool known) {
        made.push_back(std::make_unique<Size>(value, known));
        return made.back().get();
    }
    IDimensionExpr const* constant(int64_t value) override { return make(value, true); }
    IDimensionExpr const* operation(DimensionOperation operation, IDimensionExpr const& first,
                                    IDimensionExpr const& second) override {
        Size const &a = size_of(first), &b = size_of(second);
        return make(calculate(operation, a.value, b.value), a.known && b.known);
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) override {
        return nullptr;
    }

private:
    std::vector<std::unique_ptr<Size>> made;
};

class Parameters final : public IKernelLaunchParams, IKernelLaunchParamsImpl {
public:
    Parameters() { mImpl = this; }

#define GOCOR_PARAMETER(name, index)                                          \
    ISymExpr* get##name() noexcept override { return expressions[index]; }    \
    bool set##name(ISymExpr* expression) noexcept override {                  \
        expressions[index] = expression;                                      \
        return true;                                                          \
    }
    GOCOR_PARAMETER(GridX, 0)
    GOCOR_PARAMETER(GridY, 1)
    GOCOR_PARAMETER(GridZ, 2)
    GOCOR_PARAMETER(BlockX, 3)
    GOCOR_PARAMETER(BlockY, 4)
    GOCOR_PARAMETER(BlockZ, 5)
    GOCOR_PARAMETER(SharedMem, 6)
#undef GOCOR_PARAMETER

    ISymExpr* expressions[7]{};
};

class Arguments final : public ISymExprs, ISymExprsImpl {
public:
    Arguments() { mImpl = this; }
    ISymExpr* getSymExpr(int32_t index) const noexcept override { return expressions[index]; }
    bool setSymExpr(int32_t index, ISymExpr* expression) noexcept override {
        expressions[index] = expression;
        return true;
    }
    int32_t getNbSymExprs() const noexcept override { return static_cast<int32_t>(expressions.size()); }
    bool setNbSymExprs(int32_t count) noexcept override {
        expressions.resize(count);
        return true;
    }

    std::vector<ISymExpr*> expressions;
};

class Registry final : public IPluginRegistry {
public:
    void setErrorRecorder(IErrorRecorder* const) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    bool isParentSearchEnabled() const override { return false; }
    void setParentSearchEnabled(bool const) override {}
    PluginLibraryHandle loadLibrary(AsciiChar const*) noexcept override { return nullptr; }
    void deregisterLibrary(PluginLibraryHandle) noexcept override {}
    bool registerCreator(IPluginCreatorInterface& creator, AsciiChar const* const) noexcept override {
        creators.push_back(&creator);
        return true;
    }
    IPluginCreatorInterface* const* getAllCreators(int32_t* const count) const noexcept override {
        *count = static_cast<int32_t>(creators.size());
        return creators.data();
    }
    IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t* const count) noexcept override {
        return getAllCreators(count);
    }
    IPluginCreatorInterface* getCreator(AsciiChar const* const name, AsciiChar const* const version,
                                        AsciiChar const* const space) noexcept override {
        for (IPluginCreatorInterface* each : creators) {
            auto* creator = static_cast<IPluginCreatorV3Quick*>(each);
            if (!std::strcmp(creator->getPluginName(), name) && !std::strcmp(creator->getPluginVersion(), version) &&
                !std::strcmp(creator->getPluginNamespace(), space)) {
                return creator;
            }
        }
        return nullptr;
    }
    bool deregisterCreator(IPluginCreatorInterface const&) noexcept override { return false; }
    IPluginResource* acquirePluginResource(AsciiChar const*, IPluginResource*) noexcept override { return nullptr; }
    int32_t releasePluginResource(AsciiChar const*) noexcept override { return 0; }

private:
    std::vector<IPluginCreatorInterface*> creators;
};

Registry& registry() {
    static auto* one = new Registry;  // the bindings use it until the process ends
    return *one;
}

constexpr int kMOST_INPUTS = 6, kMOST_TENSORS = kMOST_INPUTS + 1, kRANK = 4, kMOST_FORMATS = 8;

// As in tests/tensorrt_layer.py.
struct Node {
    char const* name;
    int32_t attributes;
    char const* attribute_names[2];
    int32_t attribute_values[2], half, dynamic, inputs, ranks[kMOST_INPUTS];
    int64_t shapes[kMOST_INPUTS][kRANK];

    DataType dtype(int tensor) const {
        return half && (tensor < 2 || tensor == inputs) ? DataType::kHALF : DataType::kFLOAT;
    }
};

struct Built {
    int32_t output_dtype;
    int64_t output_shape[kRANK];
    int32_t formats;  // combinations
    int32_t format_dtypes[kMOST_FORMATS][kMOST_TENSORS], format_layouts[kMOST_FORMATS][kMOST_TENSORS];
    int64_t launch[7];  // grid x y z, block x y z, bytes of shared memory
    int32_t argument_count;
    int64_t arguments[8];
    char kernel[128];
    char const* ptx;
    int32_t ptx_size;
};

DynamicPluginTensorDesc describe(Node const& node, int index, int rank, int64_t const* shape) {
    DynamicPluginTensorDesc tensor{};
    tensor.desc.type = node.dtype(index);
    tensor.desc.format = TensorFormat::kLINEAR;
    tensor.desc.dims.nbDims = tensor.min.nbDims = tensor.opt.nbDims = tensor.max.nbDims = rank;
    for (int i = 0; i < rank; ++i) {
        tensor.desc.dims.d[i] = node.dynamic ? -1 : shape[i];
        tensor.min.d[i] = tensor.opt.d[i] = tensor.max.d[i] = shape[i];
    }
    return tensor;
}

int64_t value_of(ISymExpr* expression) {
    bool const is_int32 = expression && expression->getType() == PluginArgType::kINT &&
                          expression->getDataType() == PluginArgDataType::kINT32;
    return is_int32 ? size_of(*static_cast<IDimensionExpr*>(expression->getExpr())).value : -1;
}

// What the parser does: attributes as one int32 each, and ahead-of-time form, since the node says aot=1.
IPluginV3QuickAOTBuild* create(Node const& node) {
    auto* creator = static_cast<IPluginCreatorV3Quick*>(registry().getCreator(node.name, "1", "gocor"));
    if (!creator) return nullptr;
    std::vector<PluginField> attributes;
    for (int i = 0; i < node.attributes; ++i) {
        attributes.emplace_back(node.attribute_names[i], &node.attribute_values[i], PluginFieldType::kINT32, 1);
    }
    PluginFieldCollection const fields{node.attributes, attributes.data()};
    IPluginV3* plugin = creator->createPlugin(node.name, "gocor", &fields, TensorRTPhase::kBUILD,
                                              QuickPluginCreationRequest::kSTRICT_AOT);
    if (!plugin) return nullptr;
    return static_cast<IPluginV3QuickAOTBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}

bool choose_format(IPluginV3QuickAOTBuild& plugin, std::vector<DynamicPluginTensorDesc> const& tensors,
                   Built& built) {
    int const count = static_cast<int>(tensors.size()), inputs = count - 1;
    built.formats = plugin.getNbSupportedFormatCombinations(tensors.data(), inputs, 1);
    if (built.formats < 1 || built.formats > kMOST_FORMATS) return false;
    std::vector<PluginTensorDesc> formats(built.formats * count);
    if (plugin.getSupportedFormatCombinations(tensors.data(), inputs, 1, formats.data(), built.formats)) return false;
    for (int i = 0; i < built.formats * count; ++i) {
        built.format_dtypes[i / count][i % count] = static_cast<int32_t>(formats[i].type);
        built.format_layouts[i / count][i % count] = static_cast<int32_t>(formats[i].format);
    }
    return plugin.configurePlugin(tensors.data(), inputs, &tensors[inputs], 1) == 0 && plugin.getNbTactics() == 0 &&
           plugin.setTactic(0) == 0;
}

bool take_kernel(IPluginV3QuickAOTBuild& plugin, std::vector<DimsExprs> const& inputs,
                 std::vector<DynamicPluginTensorDesc> const& tensors, Sizes& sizes, Built& built) {
    int const count = static_cast<int>(inputs.size());
    Parameters parameters;
    Arguments arguments;
    if (plugin.getLaunchParams(inputs.data(), tensors.data(), count, 1, &parameters, &arguments, sizes)) return false;
    for (int i = 0; i < 7; ++i) built.launch[i] = value_of(parameters.expressions[i]);
    built.argument_count = arguments.getNbSymExprs();
    for (int i = 0; i < built.argument_count && i < 8; ++i) {
        built.arguments[i] = value_of(arguments.expressions[i]);
    }
    std::vector<PluginTensorDesc> in;
    for (int i = 0; i < count; ++i) in.push_back(tensors[i].desc);
    char const* kernel = nullptr;
    char* ptx = nullptr;
    if (plugin.getKernel(in.data(), count, &tensors[count].desc, 1, &kernel, &ptx, &built.ptx_size)) return false;
    std::strncpy(built.kernel, kernel, sizeof(built.kernel) - 1);
    built.ptx = ptx;  // lives as long as the plugin, which nobody deletes
    return true;
}

}  // namespace

// Gives null, or the stage at which the build failed; the bindings write the reason to stderr.
extern "C" char const* gocor_quick_build(Node const* node, Built* built) {
    IPluginV3QuickAOTBuild* plugin = create(*node);
    if (!plugin) return "createPlugin";
    int const count = node->inputs;
    std::vector<DataType> dtypes;
    for (int i = 0; i < count; ++i) dtypes.push_back(node->dtype(i));
    DataType output{};
    if (plugin->getNbOutputs() != 1 ||
        plugin->getOutputDataTypes(&output, 1, dtypes.data(), node->ranks, count)) {
        return "getOutputDataTypes";
    }
    built->output_dtype = static_cast<int32_t>(output);

    static std::vector<std::unique_ptr<Sizes>> builders;  // the plugins keep expressions
    Sizes& sizes = *builders.emplace_back(std::make_unique<Sizes>());
    std::vector<DimsExprs> shapes(count);
    DimsExprs output_shape{};
    for (int i = 0; i < count; ++i) {
        shapes[i].nbDims = node->ranks[i];
        for (int k = 0; k < node->ranks[i]; ++k) shapes[i].d[k] = sizes.make(node->shapes[i][k], !node->dynamic);
    }
    if (plugin->getOutputShapes(shapes.data(), count, nullptr, 0, &output_shape, 1, sizes)) return "getOutputShapes";
    for (int i = 0; i < output_shape.nbDims && i < kRANK; ++i) {
        built->output_shape[i] = size_of(*output_shape.d[i]).value;
    }

    std::vector<DynamicPluginTensorDesc> tensors;
    for (int i = 0; i < count; ++i) tensors.push_back(describe(*node, i, node->ranks[i], node->shapes[i]));
    tensors.push_back(describe(*node, count, kRANK, built->output_shape));
    if (!choose_format(*plugin, tensors, *built)) return "getSupportedFormatCombinations";
    return take_kernel(*plugin, shapes, tensors, sizes, *built) ? nullptr : "getLaunchParams";
}

// What the bindings link.
extern "C" {
IPluginRegistry* getPluginRegistry() noexcept { return &registry(); }
IPluginRegistry* nvinfer1::getBuilderPluginRegistry(EngineCapability) noexcept { return &registry(); }
void* createInferBuilder_INTERNAL(void*, int32_t) noexcept { return nullptr; }
void* createInferRefitter_INTERNAL(void*, void*, int32_t) noexcept { return nullptr; }
void* createInferRuntime_INTERNAL(void*, int32_t) noexcept { return nullptr; }
}
