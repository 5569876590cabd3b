// Drives a plugin library through TensorRT's interfaces, in TensorRT's place. What comes out is printed as JSON.
//
//   plugin_harness LIBRARY creators
//   plugin_harness LIBRARY create    OPERATOR [NAME=VALUE:TYPE]…       e.g. radius=4:int32
//   plugin_harness LIBRARY lives     OPERATOR VALUES                    clones, serialisation, capabilities
//   plugin_harness LIBRARY formats   OPERATOR INPUTS                    all that it takes; number of its inputs
//   plugin_harness LIBRARY types     OPERATOR TYPE…
//   plugin_harness LIBRARY shapes    OPERATOR VALUES DIMS…              dims as N,C,8,9: names and numbers
//   plugin_harness LIBRARY configure OPERATOR VALUES TYPE DIMS…         -1 for sizes that are not known yet
//   plugin_harness LIBRARY resize    OPERATOR VALUES TYPE DIMS…
//   plugin_harness LIBRARY enqueue   OPERATOR VALUES TYPE DIMS… FILE… OUTPUT    a file for each input
//   plugin_harness LIBRARY parallel  …                                  the same, in several threads at once
//
// VALUES are those of the attributes, such as 4 or 4,3; TYPE is that of the first two inputs and the output.

#include <NvInferRuntime.h>
#include <cuda.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using nvinfer1::DataType;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorFormat;
using Arguments = std::vector<std::string>;

[[noreturn]] void stop(const std::string& why) {
    std::fprintf(stderr, "plugin_harness: %s\n", why.c_str());
    std::exit(2);
}

void require(bool right, const std::string& what) {
    if (!right) stop(what);
}

// ── JSON

std::string quote(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') result += '\\';
        result += c;
    }
    return result + '"';
}

std::string list(const std::vector<std::string>& items) {
    std::string result = "[";
    for (const std::string& item : items) result += (result.size() > 1 ? ", " : "") + item;
    return result + "]";
}

using Members = std::vector<std::pair<std::string, std::string>>;

std::string object(const Members& members) {
    std::string result = "{";
    for (const auto& [name, value] : members) result += (result.size() > 1 ? ", " : "") + quote(name) + ": " + value;
    return result + "}";
}

// ── words for TensorRT's enumerations

const std::map<std::string, DataType> TYPES = {
    {"float32", DataType::kFLOAT}, {"float16", DataType::kHALF}, {"bfloat16", DataType::kBF16},
    {"int8", DataType::kINT8},     {"int32", DataType::kINT32},  {"int64", DataType::kINT64},
};
const std::map<std::string, TensorFormat> FORMATS = {
    {"linear", TensorFormat::kLINEAR}, {"chw2", TensorFormat::kCHW2},   {"hwc", TensorFormat::kHWC},
    {"hwc8", TensorFormat::kHWC8},     {"chw32", TensorFormat::kCHW32},
};
const std::map<std::string, PluginFieldType> FIELD_TYPES = {
    {"int32", PluginFieldType::kINT32},
    {"int64", PluginFieldType::kINT64},
    {"float32", PluginFieldType::kFLOAT32},
    {"char", PluginFieldType::kCHAR},
};

template <class Value>
Value value_of(const std::map<std::string, Value>& words, const std::string& word) {
    const auto found = words.find(word);
    require(found != words.end(), "unknown word: " + word);
    return found->second;
}

template <class Value>
std::string word_of(const std::map<std::string, Value>& words, Value value) {
    for (const auto& [word, known] : words) {
        if (known == value) return word;
    }
    return "another";
}

// ── what TensorRT brings along

class Log final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder {
public:
    std::vector<std::string> messages;

    void log(Severity severity, const char* message) noexcept override {
        messages.push_back(quote((severity == Severity::kERROR ? "" : "not an error: ") + std::string(message)));
    }

    nvinfer1::ILogger* findLogger() override { return this; }
};

class Dimension final : public nvinfer1::IDimensionExpr, nvinfer1::apiv::VDimensionExpr {
    std::int64_t value_;
    bool is_constant_;

public:
    std::string text;

    explicit Dimension(std::int64_t value) : value_(value), is_constant_(true), text(std::to_string(value)) {
        mImpl = this;
    }
    explicit Dimension(const std::string& name) : value_(-1), is_constant_(false), text(quote(name)) { mImpl = this; }

    bool isConstant() const override { return is_constant_; }
    std::int64_t getConstantValue() const override { return value_; }
    bool isSizeTensor() const override { return false; }
};

class Dimensions final : public nvinfer1::IExprBuilder, nvinfer1::apiv::VExprBuilder {
    std::deque<Dimension> made_;

public:
    Dimensions() { mImpl = this; }

    const nvinfer1::IDimensionExpr* constant(std::int64_t value) override { return &made_.emplace_back(value); }

    const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation, const nvinfer1::IDimensionExpr&,
                                              const nvinfer1::IDimensionExpr&) override {
        stop("no plugin of ours computes with sizes");
    }

    const nvinfer1::IDimensionExpr* declareSizeTensor(std::int32_t, const nvinfer1::IDimensionExpr&,
                                                      const nvinfer1::IDimensionExpr&) override {
        stop("no plugin of ours has sizes that depend on data");
    }

    const nvinfer1::IDimensionExpr* parse(const std::string& word) {
        const bool is_number = word.find_first_not_of("0123456789") == std::string::npos;
        return is_number ? constant(std::stoll(word)) : &made_.emplace_back(word);
    }
};

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

nvinfer1::Dims dims_of(const std::string& text) {
    nvinfer1::Dims dims{};
    for (const std::string& size : split(text, ',')) dims.d[dims.nbDims++] = std::stoll(size);
    return dims;
}

std::size_t volume(const nvinfer1::Dims& dims) {
    std::size_t product = 1;
    for (int i = 0; i < dims.nbDims; ++i) product *= static_cast<std::size_t>(dims.d[i]);
    return product;
}

nvinfer1::PluginTensorDesc tensor(const std::string& type, const nvinfer1::Dims& dims) {
    return {dims, value_of(TYPES, type), TensorFormat::kLINEAR, -1.0F};
}

// ── the library

using PluginPointer = std::unique_ptr<nvinfer1::IPluginV3>;

class Library {
    void* handle_;

public:
    Log log;
    std::vector<nvinfer1::IPluginCreatorV3One*> creators;

    explicit Library(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        if (handle_ == nullptr) stop(dlerror());
        find<void(nvinfer1::ILoggerFinder*)>("setLoggerFinder")(&log);
        std::int32_t count = 0;
        const auto* found = find<nvinfer1::IPluginCreatorInterface* const*(std::int32_t&)>("getCreators")(count);
        for (std::int32_t i = 0; i < count; ++i) {
            const nvinfer1::InterfaceInfo info = found[i]->getInterfaceInfo();
            require(std::strcmp(info.kind, "PLUGIN CREATOR_V3ONE") == 0 && info.major == 1,
                    "a creator of another kind");
            creators.push_back(static_cast<nvinfer1::IPluginCreatorV3One*>(found[i]));
        }
    }

    template <class Function>
    Function* find(const char* name) const {
        void* address = dlsym(handle_, name);
        require(address != nullptr, std::string("the library has no ") + name);
        return reinterpret_cast<Function*>(address);
    }

    nvinfer1::IPluginCreatorV3One& creator(const std::string& name) const {
        for (auto* creator : creators) {
            if (creator->getPluginName() == name) return *creator;
        }
        stop("no creator of " + name);
    }

    // `text` has values of the first attributes; the others have their standard ones.
    PluginPointer plugin(const std::string& name, const std::string& text) const {
        std::vector<std::int32_t> values;
        for (const std::string& word : split(text, ',')) values.push_back(std::stoi(word));
        const nvinfer1::PluginFieldCollection& known = *creator(name).getFieldNames();
        require(static_cast<int>(values.size()) <= known.nbFields, "more values than attributes");
        std::vector<nvinfer1::PluginField> fields(known.fields, known.fields + values.size());
        for (std::size_t i = 0; i < fields.size(); ++i) fields[i].data = &values[i];
        const nvinfer1::PluginFieldCollection collection{static_cast<std::int32_t>(fields.size()), fields.data()};
        PluginPointer made(creator(name).createPlugin("layer", &collection, nvinfer1::TensorRTPhase::kBUILD));
        require(made != nullptr, "createPlugin failed: " + list(log.messages));
        return made;
    }

    // The rest of an answer: how it went, and what was logged.
    void print(std::int32_t status, Members members = {}) const {
        members.insert(members.begin(), {{"status", std::to_string(status)}, {"log", list(log.messages)}});
        std::puts(object(members).c_str());
    }
};

template <class Capability>
Capability& capability(nvinfer1::IPluginV3& plugin, nvinfer1::PluginCapabilityType type, const char* kind) {
    auto* found = plugin.getCapabilityInterface(type);
    require(found != nullptr && std::strcmp(found->getInterfaceInfo().kind, kind) == 0, std::string("no ") + kind);
    return *static_cast<Capability*>(found);
}

auto& core(nvinfer1::IPluginV3& plugin) {
    return capability<nvinfer1::IPluginV3OneCore>(plugin, nvinfer1::PluginCapabilityType::kCORE, "PLUGIN_V3ONE_CORE");
}

auto& build(nvinfer1::IPluginV3& plugin) {
    return capability<nvinfer1::IPluginV3OneBuild>(plugin, nvinfer1::PluginCapabilityType::kBUILD,
                                                   "PLUGIN_V3ONE_BUILD");
}

auto& runtime(nvinfer1::IPluginV3& plugin) {
    return capability<nvinfer1::IPluginV3OneRuntime>(plugin, nvinfer1::PluginCapabilityType::kRUNTIME,
                                                     "PLUGIN_V3ONE_RUNTIME");
}

std::string describe(const nvinfer1::PluginFieldCollection& fields) {
    std::vector<std::string> items;
    for (std::int32_t i = 0; i < fields.nbFields; ++i) {
        const nvinfer1::PluginField& field = fields.fields[i];
        require(field.type == PluginFieldType::kINT32 && field.length == 1, "a field that is not one INT32");
        std::int32_t value = 0;
        std::memcpy(&value, field.data, sizeof value);
        items.push_back(
            object({{"name", quote(field.name)}, {"type", quote("int32")}, {"value", std::to_string(value)}}));
    }
    return list(items);
}

// ── commands

void creators(Library& library, const Arguments&) {
    std::vector<std::string> items;
    for (auto* creator : library.creators) {
        items.push_back(object({{"name", quote(creator->getPluginName())},
                                {"version", quote(creator->getPluginVersion())},
                                {"namespace", quote(creator->getPluginNamespace())},
                                {"fields", describe(*creator->getFieldNames())}}));
    }
    library.print(0, {{"creators", list(items)}});
}

void create(Library& library, const Arguments& arguments) {
    std::deque<std::string> names;
    std::deque<std::int64_t> values;  // little-endian, so that its first four bytes are the INT32
    std::vector<nvinfer1::PluginField> fields;
    for (std::size_t i = 1; i < arguments.size(); ++i) {
        const auto parts = split(arguments[i], '=');
        const auto typed = split(parts.at(1), ':');
        fields.emplace_back(names.emplace_back(parts[0]).c_str(), &values.emplace_back(std::stoll(typed[0])),
                            value_of(FIELD_TYPES, typed.at(1)), 1);
    }
    const nvinfer1::PluginFieldCollection collection{static_cast<std::int32_t>(fields.size()), fields.data()};
    const PluginPointer plugin(
        library.creator(arguments[0]).createPlugin("layer", &collection, nvinfer1::TensorRTPhase::kBUILD));
    const bool made = plugin != nullptr;
    library.print(made ? 0 : 1, {{"description", made ? quote(build(*plugin).getMetadataString()) : "null"}});
}

// As an engine does it: what the builder's plugin serialises makes another one, which contexts get copies of.
PluginPointer revive(const Library& library, PluginPointer original) {
    const std::string name = core(*original).getPluginName();
    const nvinfer1::PluginFieldCollection* fields = runtime(*original).getFieldsToSerialize();
    require(fields != nullptr && fields->nbFields > 0, "nothing to serialise");
    std::deque<std::string> names;
    std::deque<std::int32_t> values;
    std::vector<nvinfer1::PluginField> copies;
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
        const nvinfer1::PluginField& field = fields->fields[i];
        std::memcpy(&values.emplace_back(), field.data, sizeof values[0]);
        copies.emplace_back(names.emplace_back(field.name).c_str(), &values.back(), field.type, field.length);
    }
    original.reset();  // nothing of it may be needed any longer
    const nvinfer1::PluginFieldCollection stored{static_cast<std::int32_t>(copies.size()), copies.data()};
    const PluginPointer engine(library.creator(name).createPlugin("layer", &stored, nvinfer1::TensorRTPhase::kRUNTIME));
    require(engine != nullptr, "createPlugin failed: " + list(library.log.messages));
    return PluginPointer(runtime(*engine).attachToContext(nullptr));
}

void lives(Library& library, const Arguments& arguments) {
    std::vector<std::string> items;
    const auto note = [&](nvinfer1::IPluginV3& plugin) {
        require(core(plugin).getPluginName() == arguments[0], "another name");
        require(std::strcmp(core(plugin).getPluginNamespace(), "gocor") == 0, "another namespace");
        require(build(plugin).getNbOutputs() == 1 && build(plugin).getNbTactics() == 0, "other outputs or tactics");
        require(runtime(plugin).setTactic(0) == 0, "setTactic failed");
        items.push_back(object({{"version", quote(core(plugin).getPluginVersion())},
                                {"description", quote(build(plugin).getMetadataString())},
                                {"timing", quote(build(plugin).getTimingCacheID())},
                                {"fields", describe(*runtime(plugin).getFieldsToSerialize())}}));
    };
    PluginPointer original = library.plugin(arguments[0], arguments[1]);
    note(*original);
    PluginPointer copy(original->clone());
    original.reset();
    note(*copy);
    const PluginPointer revived = revive(library, std::move(copy));
    note(*revived);
    library.print(0, {{"plugins", list(items)}});
}

// The combinations that a builder would find: it asks tensor by tensor, those before being settled.
void find_formats(nvinfer1::IPluginV3OneBuild& plugin, std::size_t inputs,
                  std::vector<nvinfer1::DynamicPluginTensorDesc>& tensors, std::vector<std::string>& found) {
    if (tensors.size() == inputs + 1) {
        std::string words;
        for (const auto& one : tensors) {
            words += word_of(TYPES, one.desc.type) + "/" + word_of(FORMATS, one.desc.format) + " ";
        }
        found.push_back(quote(words.substr(0, words.size() - 1)));
        return;
    }
    for (const auto& type : TYPES) {
        for (const auto& format : FORMATS) {
            nvinfer1::DynamicPluginTensorDesc candidate{};
            candidate.desc = {nvinfer1::Dims{}, type.second, format.second, -1.0F};
            tensors.push_back(candidate);
            const auto position = static_cast<std::int32_t>(tensors.size()) - 1;
            if (plugin.supportsFormatCombination(position, tensors.data(), static_cast<std::int32_t>(inputs), 1)) {
                find_formats(plugin, inputs, tensors, found);
            }
            tensors.pop_back();
        }
    }
}

void formats(Library& library, const Arguments& arguments) {
    const PluginPointer plugin = library.plugin(arguments[0], "4");
    const auto inputs = static_cast<std::size_t>(std::stoi(arguments.at(1)));
    std::vector<nvinfer1::DynamicPluginTensorDesc> tensors;
    tensors.reserve(inputs + 1);
    std::vector<std::string> found;
    find_formats(build(*plugin), inputs, tensors, found);
    library.print(0, {{"formats", list(found)}});
}

void types(Library& library, const Arguments& arguments) {
    const PluginPointer plugin = library.plugin(arguments[0], "4");
    std::vector<DataType> inputs;
    for (std::size_t i = 1; i < arguments.size(); ++i) inputs.push_back(value_of(TYPES, arguments[i]));
    DataType output = DataType::kINT8;
    const auto count = static_cast<std::int32_t>(inputs.size());
    const auto status = build(*plugin).getOutputDataTypes(&output, 1, inputs.data(), count);
    library.print(status, {{"type", quote(word_of(TYPES, output))}});
}

void shapes(Library& library, const Arguments& arguments) {
    const PluginPointer plugin = library.plugin(arguments[0], arguments.at(1));
    Dimensions dimensions;
    std::vector<nvinfer1::DimsExprs> inputs(arguments.size() - 2);
    nvinfer1::DimsExprs output{};
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        for (const std::string& word : split(arguments[i + 2], ',')) {
            inputs[i].d[inputs[i].nbDims++] = dimensions.parse(word);
        }
    }
    const auto count = static_cast<std::int32_t>(inputs.size());
    const auto status = build(*plugin).getOutputShapes(inputs.data(), count, nullptr, 0, &output, 1, dimensions);
    std::vector<std::string> words;
    for (int i = 0; i < output.nbDims; ++i) words.push_back(static_cast<const Dimension*>(output.d[i])->text);
    library.print(status, {{"shape", list(words)}});
}

nvinfer1::Dims output_dims(const std::string& name, std::int64_t radius, const nvinfer1::Dims& query) {
    nvinfer1::Dims dims = query;
    if (name != "LocalCorrelationTranspose") dims.d[1] = (2 * radius + 1) * (2 * radius + 1);
    return dims;
}

struct Call {
    std::vector<nvinfer1::PluginTensorDesc> inputs;
    nvinfer1::PluginTensorDesc output;

    std::int32_t count() const { return static_cast<std::int32_t>(inputs.size()); }
};

Call call_of(const Arguments& arguments, std::size_t inputs) {
    const std::string& type = arguments.at(2);
    Call call;
    for (std::size_t i = 0; i < inputs; ++i) {
        call.inputs.push_back(tensor(i < 2 ? type : "float32", dims_of(arguments.at(3 + i))));
    }
    call.output = tensor(type, output_dims(arguments[0], std::stoi(arguments[1]), call.inputs.at(1).dims));
    return call;
}

void configure(Library& library, const Arguments& arguments) {
    const PluginPointer plugin = library.plugin(arguments[0], arguments.at(1));
    const Call call = call_of(arguments, arguments.size() - 3);
    std::vector<nvinfer1::DynamicPluginTensorDesc> inputs(call.inputs.size());
    nvinfer1::DynamicPluginTensorDesc output{};
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i].desc = call.inputs[i];
    output.desc = call.output;
    auto& capability = build(*plugin);
    require(capability.getWorkspaceSize(inputs.data(), call.count(), &output, 1) == 0, "a workspace");
    library.print(capability.configurePlugin(inputs.data(), call.count(), &output, 1));
}

void resize(Library& library, const Arguments& arguments) {
    const PluginPointer plugin = revive(library, library.plugin(arguments[0], arguments.at(1)));
    const Call call = call_of(arguments, arguments.size() - 3);
    library.print(runtime(*plugin).onShapeChange(call.inputs.data(), call.count(), &call.output, 1));
}

// ── enqueue

// Memory of the GPU that the driver has; without a driver there is nothing to enqueue for, and the heap will do.
class Gpu {
    void* driver_ = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    std::vector<CUdeviceptr> memory_;

    template <class Function, class... Values>
    void call(const char* name, Values... values) const {
        auto* function = reinterpret_cast<Function*>(dlsym(driver_, name));
        require(function != nullptr, std::string("the driver has no ") + name);
        const CUresult result = function(values...);
        require(result == CUDA_SUCCESS, name + (" gave error " + std::to_string(result)));
    }

public:
    CUstream stream = nullptr;

    Gpu() {
        if (!is_there()) return;
        CUdevice device = 0;
        CUcontext context = nullptr;
        call<decltype(cuInit)>("cuInit", 0U);
        call<decltype(cuDeviceGet)>("cuDeviceGet", &device, 0);
        call<decltype(cuDevicePrimaryCtxRetain)>("cuDevicePrimaryCtxRetain", &context, device);
        call<decltype(cuCtxSetCurrent)>("cuCtxSetCurrent", context);
        call<decltype(cuStreamCreate)>("cuStreamCreate", &stream, 0U);
    }

    Gpu(const Gpu&) = delete;
    Gpu& operator=(const Gpu&) = delete;
    ~Gpu() {
        for (const CUdeviceptr memory : memory_) call<decltype(cuMemFree)>("cuMemFree_v2", memory);
    }

    // Old drivers, and those that are to fail in the plugin, are not asked for memory.
    bool is_there() const {
        return driver_ != nullptr && dlsym(driver_, "cuMemAlloc_v2") != nullptr &&
               std::getenv("GOCOR_DRIVER_FAILS") == nullptr;
    }

    void* upload(const std::vector<char>& content) {
        if (!is_there() || content.empty()) return const_cast<char*>(content.data());
        CUdeviceptr memory = 0;
        call<decltype(cuMemAlloc)>("cuMemAlloc_v2", &memory, content.size());
        memory_.push_back(memory);
        call<decltype(cuMemcpyHtoD)>("cuMemcpyHtoD_v2", memory, static_cast<const void*>(content.data()),
                                     content.size());
        return reinterpret_cast<void*>(memory);
    }

    void download(std::vector<char>& content, void* memory) const {
        if (!is_there() || content.empty()) return;
        call<decltype(cuStreamSynchronize)>("cuStreamSynchronize", stream);
        call<decltype(cuMemcpyDtoH)>("cuMemcpyDtoH_v2", static_cast<void*>(content.data()),
                                     reinterpret_cast<CUdeviceptr>(memory), content.size());
    }
};

std::vector<char> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    require(file.good(), "cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

struct Data {
    std::vector<std::vector<char>> inputs;
    std::vector<char> output;
};

// Of a call of `enqueue`: operator, values, type, shapes, files and the output's file.
std::size_t inputs_of(const Arguments& arguments) { return (arguments.size() - 4) / 2; }

std::size_t bytes_of(const nvinfer1::PluginTensorDesc& tensor) {
    return volume(tensor.dims) * (tensor.type == DataType::kHALF ? 2 : 4);
}

Data read_data(const Call& call, const Arguments& arguments) {
    Data data;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
        data.inputs.push_back(read(arguments.at(3 + call.inputs.size() + i)));
        require(data.inputs.back().size() == bytes_of(call.inputs[i]), "a file of another size");
    }
    data.output.assign(bytes_of(call.output), '\xff');  // NaN
    return data;
}

std::int32_t run(nvinfer1::IPluginV3& plugin, const Call& call, Data& data) {
    Gpu gpu;
    std::vector<const void*> inputs;
    for (const auto& input : data.inputs) inputs.push_back(gpu.upload(input));
    void* outputs[] = {gpu.upload(data.output)};
    auto& capability = runtime(plugin);
    require(capability.onShapeChange(call.inputs.data(), call.count(), &call.output, 1) == 0, "onShapeChange failed");
    const auto status = capability.enqueue(call.inputs.data(), &call.output, inputs.data(), outputs, nullptr,
                                           reinterpret_cast<cudaStream_t>(gpu.stream));
    gpu.download(data.output, outputs[0]);
    return status;
}

void write(const std::string& path, const std::vector<char>& content) {
    std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

void enqueue(Library& library, const Arguments& arguments) {
    const PluginPointer plugin = revive(library, library.plugin(arguments[0], arguments.at(1)));
    const Call call = call_of(arguments, inputs_of(arguments));
    Data data = read_data(call, arguments);
    const auto status = run(*plugin, call, data);
    write(arguments.back(), data.output);
    library.print(status);
}

void parallel(Library& library, const Arguments& arguments) {
    const Call call = call_of(arguments, inputs_of(arguments));
    std::vector<Data> data(3, read_data(call, arguments));
    const PluginPointer plugin = library.plugin(arguments[0], arguments.at(1));
    std::atomic<std::int32_t> status{0};
    std::vector<std::thread> threads;
    for (Data& own : data) {
        threads.emplace_back([&] {
            const PluginPointer copy(runtime(*plugin).attachToContext(nullptr));
            status += run(*copy, call, own);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Data& own : data) require(own.output == data[0].output, "threads have different results");
    write(arguments.back(), data[0].output);
    library.print(status);
}

const std::map<std::string, std::function<void(Library&, const Arguments&)>> COMMANDS = {
    {"creators", creators}, {"create", create}, {"lives", lives},         {"formats", formats}, {"types", types},
    {"shapes", shapes},     {"resize", resize}, {"configure", configure}, {"enqueue", enqueue}, {"parallel", parallel},
};

}  // namespace

int main(int count, char** values) {
    const Arguments arguments(values + 1, values + count);
    require(arguments.size() >= 2, "LIBRARY COMMAND …");
    Library library(arguments[0]);
    value_of(COMMANDS, arguments[1])(library, Arguments(arguments.begin() + 2, arguments.end()));
    return 0;
}
