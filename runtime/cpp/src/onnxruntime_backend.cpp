// Models in ONNX Runtime, on the CPU; see runtime/onnxruntime_session.py. By its C interface, which stays compatible:
// whatever header this was compiled with, every later library will do.

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "error.h"

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

// The first line of ONNX Runtime's message, without the file name that the caller gives already.
std::string reason(const OrtError& error) {
    std::string text = error.what();
    text = text.substr(0, text.find('\n'));
    const std::string prefix = "Load model from ", end = " failed:";
    const std::size_t found = text.find(end);
    if (text.rfind(prefix, 0) == 0 && found != std::string::npos) text.erase(0, found + end.size());
    return text.substr(0, 300);
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

void check_interface(const std::string& path, const std::string& what, const std::vector<Tensor>& found,
                     const std::vector<Tensor>& expected) {
    if (found.size() == expected.size() && std::is_permutation(found.begin(), found.end(), expected.begin())) return;
    throw bad_model(path, "has " + what + " " + in_words(found),
                    "its metadata says " + in_words(expected) + "; export again");
}

Session open(const OrtEnv* env, const std::string& path, int threads) {
    const auto options = made<SessionOptions>(api().CreateSessionOptions);
    check(api().SetSessionGraphOptimizationLevel(options.get(), ORT_ENABLE_ALL));
    check(api().SetIntraOpNumThreads(options.get(), threads));
    // Idle threads would otherwise spin on after a call, and take cores from whatever the caller does next.
    check(api().AddSessionConfigEntry(options.get(), "session.force_spinning_stop", "1"));
    return made<Session>(api().CreateSession, env, path.c_str(), options.get());
}

Session load(const OrtEnv* env, const std::string& path, int threads) {
    try {
        return open(env, path, threads);
    } catch (const OrtError& error) {
        if (std::string(error.what()).find("bfloat16") != std::string::npos) {
            throw bad_model(path, "computes in bf16, which ONNX Runtime does not",
                            "build it for another backend: gocor build; or export with --precision fp16");
        }
        throw bad_model(path, "cannot be loaded by ONNX Runtime (" + reason(error) + ")",
                        "give a model made by gocor export");
    }
}

class OnnxRuntimeLane final : public Lane {
    const std::string path_;
    OrtSession* session_;
    std::vector<std::uint8_t> reference_, query_;
    std::vector<float> flow_, score_;
    std::vector<Value> values_;  // of these vectors' memory

public:
    OnnxRuntimeLane(std::string path, OrtSession* session, const Metadata& metadata)
        : path_(std::move(path)), session_(session) {
        const auto memory = made<MemoryInfo>(api().CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
        const std::vector<Tensor> inputs = metadata.inputs(), outputs = metadata.outputs();
        add(memory.get(), reference_, inputs[0], ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
        add(memory.get(), query_, inputs[1], ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
        add(memory.get(), flow_, outputs[0], ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
        if (metadata.orientation_score) add(memory.get(), score_, outputs[1], ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    }

    std::uint8_t* reference() override { return reference_.data(); }
    std::uint8_t* query() override { return query_.data(); }

    void run() override {
        constexpr const char* INPUTS[] = {"reference", "query"};
        constexpr const char* OUTPUTS[] = {"flow", "orientation_score"};
        const OrtValue* const inputs[] = {values_[0].get(), values_[1].get()};
        OrtValue* outputs[] = {values_[2].get(), values_.size() > 3 ? values_[3].get() : nullptr};
        try {
            check(api().Run(session_, nullptr, INPUTS, inputs, 2, OUTPUTS, values_.size() - 2, outputs));
        } catch (const OrtError& error) {
            throw Failure(GOCOR_FAILED, path_, "failed in ONNX Runtime (" + reason(error) + ")", "see gocor doctor");
        }
    }

    const float* flow() const override { return flow_.data(); }
    const float* orientation_score() const override { return score_.empty() ? nullptr : score_.data(); }

private:
    template <class T>
    void add(const OrtMemoryInfo* memory, std::vector<T>& data, const Tensor& tensor, ONNXTensorElementDataType type) {
        std::size_t size = 1;
        for (const std::int64_t side : tensor.shape) size *= static_cast<std::size_t>(side);
        data.resize(size);
        values_.push_back(made<Value>(api().CreateTensorWithDataAsOrtValue, memory, static_cast<void*>(data.data()),
                                      size * sizeof(T), tensor.shape.data(), tensor.shape.size(), type));
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
    OnnxRuntimeModel(const std::string& path, const Options& options)
        : path_(path), env_(make_env()) {
        session_ = load(env_.get(), path, options.threads);
        metadata = read_metadata(properties(session_.get()), path);
        check_interface(path, "inputs",
                        tensors(session_.get(), api().SessionGetInputCount, api().SessionGetInputName,
                                api().SessionGetInputTypeInfo),
                        metadata.inputs());
        check_interface(path, "outputs",
                        tensors(session_.get(), api().SessionGetOutputCount, api().SessionGetOutputName,
                                api().SessionGetOutputTypeInfo),
                        metadata.outputs());
        backend = "onnxruntime";
        precision = metadata.precision;
    }

    std::unique_ptr<Lane> make_lane() override {
        return std::make_unique<OnnxRuntimeLane>(path_, session_.get(), metadata);
    }
};

}  // namespace

std::unique_ptr<Model> load_onnxruntime(const std::string& path, const Options& options) {
    return std::make_unique<OnnxRuntimeModel>(path, options);
}

}  // namespace gocor
