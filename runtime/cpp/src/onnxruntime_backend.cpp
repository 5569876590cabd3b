// Models in ONNX Runtime, on the CPU; see runtime/onnxruntime_session.py. By its C interface, which stays compatible:
// whatever header this was compiled with, every later library will do.

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "error.h"
#include "onnx_file.h"
#include "reading.h"

#if ORT_API_VERSION < 12
#error "ONNX Runtime 1.12 or later is needed"
#endif

namespace gocor {
namespace {

// From 1.29 on, ONNX Runtime on Linux leaves an identifier in the home folder and uploads models' names and hashes, and
// only this, before its first environment, keeps it from that (github.com/microsoft/onnxruntime/pull/27379). Setting
// a variable is not safe while other threads read some: a program that has threads by then sets it itself.
void tell_nobody() {
    static std::once_flag once;
    std::call_once(once, [] { setenv("ORT_DISABLE_TELEMETRY", "1", 0); });
}

// Null if the library is older than its header was.
const OrtApi* find_api() noexcept {
    static const OrtApi* const found = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    return found;
}

const OrtApi& api() {
    if (const OrtApi* found = find_api()) return *found;
    throw Failure(GOCOR_UNAVAILABLE, "ONNX Runtime", std::string(OrtGetApiBase()->GetVersionString()) + " is too old",
                  "1." + std::to_string(ORT_API_VERSION) + " or later is needed, whose header this was built with");
}

template <class T, void (*OrtApi::*Release)(T*)>
struct Releaser {
    void operator()(T* object) const noexcept { (find_api()->*Release)(object); }
};

template <class T, void (*OrtApi::*Release)(T*)>
using Owned = std::unique_ptr<T, Releaser<T, Release>>;

using Env = Owned<OrtEnv, &OrtApi::ReleaseEnv>;
using Status = Owned<OrtStatus, &OrtApi::ReleaseStatus>;
using Session = Owned<OrtSession, &OrtApi::ReleaseSession>;
using SessionOptions = Owned<OrtSessionOptions, &OrtApi::ReleaseSessionOptions>;
using MemoryInfo = Owned<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>;
using ModelMetadata = Owned<OrtModelMetadata, &OrtApi::ReleaseModelMetadata>;
using TypeInfo = Owned<OrtTypeInfo, &OrtApi::ReleaseTypeInfo>;
using Value = Owned<OrtValue, &OrtApi::ReleaseValue>;

struct OrtError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void check(OrtStatus* result) {
    const Status status(result);
    if (status) throw OrtError(api().GetErrorMessage(status.get()));
}

// The result of a function that writes it through its last argument.
template <class Object, class Function, class... Arguments>
Object made(Function function, Arguments... arguments) {
    typename Object::pointer object = nullptr;
    check(function(arguments..., &object));
    return Object(object);
}

// The first line of ONNX Runtime's message.
std::string reason(const OrtError& error) {
    const std::string text = error.what();
    return text.substr(0, std::min(text.find('\n'), std::size_t{300}));
}

OrtAllocator* allocator() {
    OrtAllocator* found = nullptr;
    check(api().GetAllocatorWithDefaultOptions(&found));  // of the library's own, not to be released
    return found;
}

// A string that ONNX Runtime allocated.
std::string taken(char* text) {
    std::string copy = text != nullptr ? text : "";
    check(api().AllocatorFree(allocator(), text));
    return copy;
}

std::map<std::string, std::string> properties(const OrtSession* session) {
    const auto metadata = made<ModelMetadata>(api().SessionGetModelMetadata, session);
    char** keys = nullptr;
    std::int64_t count = 0;
    check(api().ModelMetadataGetCustomMetadataMapKeys(metadata.get(), allocator(), &keys, &count));
    std::map<std::string, std::string> found;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::string name = taken(keys[i]);
        char* value = nullptr;
        check(api().ModelMetadataLookupCustomMetadataMap(metadata.get(), allocator(), name.c_str(), &value));
        found[name] = taken(value);
    }
    if (keys != nullptr) check(api().AllocatorFree(allocator(), static_cast<void*>(keys)));
    return found;
}

std::string dtype_name(ONNXTensorElementDataType type) {
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) return "uint8";
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) return "float32";
    return "type " + std::to_string(type);
}

Tensor tensor(const std::string& name, const OrtTypeInfo* type) {
    const OrtTensorTypeAndShapeInfo* info = nullptr;  // of `type`
    check(api().CastTypeInfoToTensorInfo(type, &info));
    if (info == nullptr) return {name, "no tensor", {}};
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api().GetTensorElementType(info, &element));
    std::size_t rank = 0;
    check(api().GetDimensionsCount(info, &rank));
    std::vector<std::int64_t> shape(rank);
    check(api().GetDimensions(info, shape.data(), rank));
    return {name, dtype_name(element), std::move(shape)};
}

template <class Count, class Name, class Type>
std::vector<Tensor> tensors(const OrtSession* session, Count count, Name name, Type type) {
    std::size_t total = 0;
    check(count(session, &total));
    std::vector<Tensor> found;
    for (std::size_t i = 0; i < total; ++i) {
        char* text = nullptr;
        check(name(session, i, allocator(), &text));
        found.push_back(tensor(taken(text), made<TypeInfo>(type, session, i).get()));
    }
    return found;
}

void check_interface(const std::string& path, const OrtSession* session, const Metadata& metadata) {
    const auto refused = [&path](const std::string& what, const std::vector<Tensor>& found, const std::string& says) {
        return bad_model(path, "has " + what + " " + in_words(found), "its metadata says " + says + "; export again");
    };
    const std::vector<Tensor> expected = metadata.inputs();
    const std::vector<Tensor> inputs =
        tensors(session, api().SessionGetInputCount, api().SessionGetInputName, api().SessionGetInputTypeInfo);
    if (inputs.size() != expected.size() || !std::is_permutation(inputs.begin(), inputs.end(), expected.begin())) {
        throw refused("inputs", inputs, in_words(expected));
    }
    const std::vector<Tensor> outputs =
        tensors(session, api().SessionGetOutputCount, api().SessionGetOutputName, api().SessionGetOutputTypeInfo);
    if (!metadata.fit_outputs(outputs)) throw refused("outputs", outputs, metadata.outputs_in_words());
}

Session open(const OrtEnv* env, const std::string& model, int threads) {
    const auto options = made<SessionOptions>(api().CreateSessionOptions);
    check(api().SetSessionGraphOptimizationLevel(options.get(), ORT_ENABLE_ALL));
    check(api().SetIntraOpNumThreads(options.get(), threads));
    check(api().DisableMemPattern(options.get()));  // a fifth of the memory for no time
    // Idle threads would otherwise spin on after a call, and take cores from whatever the caller does next.
    check(api().AddSessionConfigEntry(options.get(), "session.force_spinning_stop", "1"));
    return made<Session>(api().CreateSessionFromArray, env, static_cast<const void*>(model.data()), model.size(),
                         options.get());
}

Session load(const OrtEnv* env, const std::string& path, int threads) {
    const std::string model = read_file(path, "give a model made by gocor export", MODEL_LIMIT);
    check_self_contained(path, model);
    try {
        return open(env, model, threads);  // the bytes that were checked, whatever the file is by now
    } catch (const OrtError& error) {
        if (std::string(error.what()).find("bfloat16") != std::string::npos) {
            throw bad_model(path, "computes in bf16, which ONNX Runtime does not",
                            "build it for another backend: gocor build; or export with --precision fp16");
        }
        throw bad_model(path, "cannot be loaded by ONNX Runtime (" + reason(error) + ")",
                        "give a model made by gocor export");
    }
}

// An input or output, and the value that ONNX Runtime reads or writes it through.
class Memory {
    std::string name_;
    std::unique_ptr<std::byte[]> data_;
    Value value_;

public:
    explicit Memory(const Tensor& tensor) : name_(tensor.name) {
        const bool floats = tensor.dtype == "float32";
        std::size_t size = floats ? sizeof(float) : 1;
        for (const std::int64_t side : tensor.shape) size *= static_cast<std::size_t>(side);
        data_ = std::make_unique<std::byte[]>(size);
        const auto memory = made<MemoryInfo>(api().CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
        value_ = made<Value>(api().CreateTensorWithDataAsOrtValue, memory.get(), static_cast<void*>(data_.get()), size,
                             tensor.shape.data(), tensor.shape.size(),
                             floats ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
    }

    const char* name() const { return name_.c_str(); }
    void* data() const { return data_.get(); }
    OrtValue* value() const { return value_.get(); }
};

class OnnxRuntimeLane final : public Lane {
    const std::string path_;
    OrtSession* session_;
    std::vector<Memory> inputs_, outputs_;  // of the outputs only those that results come from

public:
    OnnxRuntimeLane(std::string path, OrtSession* session) : path_(std::move(path)), session_(session) {}

    void prepare(const Metadata& fixed) override {
        inputs_.clear();
        outputs_.clear();
        for (const Tensor& input : fixed.inputs()) inputs_.emplace_back(input);
        for (const Tensor& output : fixed.results()) outputs_.emplace_back(output);
    }

    void* input(std::size_t index) override { return inputs_[index].data(); }

    void run() override {
        std::vector<const char*> input_names, output_names;
        std::vector<const OrtValue*> inputs;
        std::vector<OrtValue*> outputs;
        for (const Memory& input : inputs_) input_names.push_back(input.name()), inputs.push_back(input.value());
        for (const Memory& output : outputs_) output_names.push_back(output.name()), outputs.push_back(output.value());
        try {
            check(api().Run(session_, nullptr, input_names.data(), inputs.data(), inputs.size(), output_names.data(),
                            outputs.size(), outputs.data()));
        } catch (const OrtError& error) {
            throw Failure(GOCOR_FAILED, path_, "failed in ONNX Runtime (" + reason(error) + ")", "see gocor doctor");
        }
    }

    const float* flow() const override { return static_cast<const float*>(outputs_[0].data()); }
    const float* orientation_score() const override {
        return outputs_.size() > 1 ? static_cast<const float*>(outputs_[1].data()) : nullptr;
    }
};

Env make_env() {
    tell_nobody();
    return made<Env>(api().CreateEnv, ORT_LOGGING_LEVEL_FATAL, "gocor");
}

class OnnxRuntimeModel final : public Model {
    std::string path_;
    Env env_;
    Session session_;  // before the environment goes

public:
    OnnxRuntimeModel(const std::string& path, const Options& options) : path_(path), env_(make_env()) {
        session_ = load(env_.get(), path, options.threads);
        metadata = read_metadata(properties(session_.get()), path);
        check_interface(path, session_.get(), metadata);
        backend = "onnxruntime";
        precision = metadata.precision;
    }

    std::unique_ptr<Lane> make_lane() override { return std::make_unique<OnnxRuntimeLane>(path_, session_.get()); }
};

}  // namespace

std::unique_ptr<Model> load_onnxruntime(const std::string& path, const Options& options) {
    return std::make_unique<OnnxRuntimeModel>(path, options);
}

}  // namespace gocor
