// Engines in TensorRT; see runtime/tensorrt_session.py and runtime/manifest.py.

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "error.h"
#include "manifest.h"
#include "reading.h"
#include "sha256.h"

namespace gocor {
namespace {

constexpr const char* PLUGIN_LIBRARY = "libgocor_plugins.so";
constexpr const char* PLUGIN_VARIABLE = "GOCOR_PLUGIN_LIBRARY";
constexpr int OLDEST_COMPATIBLE_SM = 80;  // engines built for hardware compatibility run from Ampere on
constexpr std::uintptr_t ALIGNMENT = 256;  // bytes; what TensorRT asks of every address

void check(cudaError_t status, const std::string& path) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // what is not sticky is told once
    throw Failure(GOCOR_FAILED, path, std::string("failed on the GPU (") + cudaGetErrorString(status) + ")",
                  "see gocor doctor");
}

// Keeps the first error until somebody asks. TensorRT has one for the process, to its very end.
class Logger final : public nvinfer1::ILogger {
    std::mutex mutex_;
    std::string error_;

public:
    void log(Severity severity, const char* text) noexcept override {
        if (severity > Severity::kERROR) return;
        try {
            const std::scoped_lock lock(mutex_);
            if (error_.empty()) error_ = text;
        } catch (...) {  // NOLINT(bugprone-empty-catch): then there is no reason to be told
        }
    }

    std::string take_error(const std::string& otherwise) {
        const std::scoped_lock lock(mutex_);
        return error_.empty() ? otherwise : std::exchange(error_, "");
    }
};

Logger& logger() {
    static auto* const instance = new Logger;
    return *instance;
}

// Makes a GPU current in this thread, and then again the one that was.
class OnDevice {
    int before_ = 0;
    const cudaError_t known_ = cudaGetDevice(&before_);
    const cudaError_t status_;

public:
    // For destructors, which do what they can.
    explicit OnDevice(int device) noexcept : status_(known_ == cudaSuccess ? cudaSetDevice(device) : known_) {}
    OnDevice(int device, const std::string& path) : OnDevice(device) { check(status_, path); }
    ~OnDevice() {
        if (known_ == cudaSuccess) cudaSetDevice(before_);
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
};

std::vector<std::int64_t> sizes(const nvinfer1::Dims& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

// What belongs to one input or output: pinned memory, and memory on the GPU.
class Buffer {
    const std::string name_;
    std::size_t size_;
    void *host_ = nullptr, *device_ = nullptr;

public:
    Buffer(const Tensor& tensor, const std::string& path)
        : name_(tensor.name), size_(tensor.dtype == "float32" ? sizeof(float) : 1) {
        for (const std::int64_t side : tensor.shape) size_ *= static_cast<std::size_t>(side);
        check(cudaHostAlloc(&host_, size_, cudaHostAllocDefault), path);
        const cudaError_t status = cudaMalloc(&device_, size_);
        if (status != cudaSuccess) cudaFreeHost(host_);
        check(status, path);
    }
    ~Buffer() {
        cudaFree(device_);
        cudaFreeHost(host_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    const char* name() const { return name_.c_str(); }
    void* host() const { return host_; }
    void* device() const { return device_; }
    cudaError_t upload(cudaStream_t stream) const {
        return cudaMemcpyAsync(device_, host_, size_, cudaMemcpyHostToDevice, stream);
    }
    cudaError_t download(cudaStream_t stream) const {
        return cudaMemcpyAsync(host_, device_, size_, cudaMemcpyDeviceToHost, stream);
    }
};

// A stream, and an event for when the last run was done, which may have been on another stream.
class Stream {
    cudaStream_t stream_ = nullptr;
    cudaEvent_t done_ = nullptr;

public:
    explicit Stream(const std::string& path) {
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), path);
        const cudaError_t status = cudaEventCreateWithFlags(&done_, cudaEventDisableTiming);
        if (status != cudaSuccess) cudaStreamDestroy(stream_);
        check(status, path);
    }
    ~Stream() {
        wait();  // nothing that runs may lose its memory
        cudaEventDestroy(done_);
        cudaStreamDestroy(stream_);
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    void wait() const {
        cudaEventSynchronize(done_);
        cudaStreamSynchronize(stream_);
    }

    cudaStream_t get() const { return stream_; }
    cudaEvent_t done() const { return done_; }
};

class TensorRtLane final : public Lane {
    const std::string path_;
    const int device_;
    std::vector<std::unique_ptr<Buffer>> inputs_, outputs_;
    Buffer *flow_ = nullptr, *score_ = nullptr;  // of the outputs; null: the model has none
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    Stream stream_;

public:
    TensorRtLane(std::string path, int device, std::unique_ptr<nvinfer1::IExecutionContext> context)
        : path_(std::move(path)), device_(device), context_(std::move(context)), stream_(path_) {}
    ~TensorRtLane() override {
        const OnDevice on_device(device_);
        stream_.wait();  // nothing that runs may lose its memory
        context_.reset();
        outputs_.clear();
        inputs_.clear();
    }

    void prepare(const Metadata& fixed) override {
        const OnDevice on_device(device_, path_);
        stream_.wait();  // nothing that runs may lose its memory
        inputs_.clear();
        outputs_.clear();
        score_ = nullptr;
        logger().take_error("");
        for (const Tensor& input : fixed.inputs()) {
            nvinfer1::Dims dims{};
            dims.nbDims = static_cast<std::int32_t>(input.shape.size());
            std::copy(input.shape.begin(), input.shape.end(), dims.d);
            if (!context_->setInputShape(input.name.c_str(), dims)) throw failed();
            inputs_.push_back(std::make_unique<Buffer>(input, path_));
        }
        for (const std::string& name : fixed.output_names()) {
            const Tensor output{name, "float32", sizes(context_->getTensorShape(name.c_str()))};
            for (const Tensor& result : fixed.results()) {
                if (result.name == name) check_result(path_, output.shape, result);
            }
            outputs_.push_back(std::make_unique<Buffer>(output, path_));
            if (name == fixed.results()[0].name) flow_ = outputs_.back().get();
            if (name == ORIENTATION_SCORE) score_ = outputs_.back().get();
        }
    }

    void* input(std::size_t index) override { return inputs_[index]->host(); }
    const float* flow() const override { return static_cast<const float*>(flow_->host()); }
    const float* orientation_score() const override {
        return score_ != nullptr ? static_cast<const float*>(score_->host()) : nullptr;
    }

    void run() override {
        const OnDevice on_device(device_, path_);
        cudaStream_t stream = stream_.get();
        check(cudaStreamWaitEvent(stream, stream_.done(), 0), path_);
        for (const auto& input : inputs_) check(input->upload(stream), path_);
        enqueue_on(stream, inputs_[0]->device(), inputs_[1]->device(), flow_->device());
        check(flow_->download(stream), path_);
        if (score_ != nullptr) check(score_->download(stream), path_);
        check(cudaStreamSynchronize(stream), path_);
    }

    bool enqueue(const void* reference, const void* query, float* flow, void* stream) override {
        check_addresses(reference, query, flow);
        const OnDevice on_device(device_, path_);
        auto* const given = static_cast<cudaStream_t>(stream);
        cudaStreamCaptureStatus captured = cudaStreamCaptureStatusNone;
        check(cudaStreamIsCapturing(given, &captured), path_);
        if (captured != cudaStreamCaptureStatusNone) {
            throw Failure(GOCOR_INVALID_ARGUMENT, "stream", "is being captured into a CUDA graph",
                          "call it outside of the capture");
        }
        check(cudaStreamWaitEvent(given, stream_.done(), 0), path_);
        enqueue_on(given, reference, query, flow);
        const cudaError_t recorded = cudaEventRecord(stream_.done(), given);
        if (recorded != cudaSuccess) cudaStreamSynchronize(given);  // a lane whose run failed is dropped
        check(recorded, path_);
        return true;
    }

private:
    static void check_addresses(const void* reference, const void* query, const void* flow) {
        for (const auto& [name, address] :
             {std::pair{"references", reference}, std::pair{"queries", query}, std::pair{"flow", flow}}) {
            if (reinterpret_cast<std::uintptr_t>(address) % ALIGNMENT == 0) continue;
            throw Failure(GOCOR_INVALID_ARGUMENT, name,
                          "starts at an address that is no multiple of " + std::to_string(ALIGNMENT),
                          "one as cudaMalloc gives it");
        }
    }

    void enqueue_on(cudaStream_t stream, const void* reference, const void* query, void* flow) {
        logger().take_error("");  // of somebody else
        bool right = true;
        for (const auto& input : inputs_) {
            const void* address = input == inputs_[0] ? reference : input == inputs_[1] ? query : input->device();
            right = right && context_->setInputTensorAddress(input->name(), address);
        }
        for (const auto& output : outputs_) {
            right =
                right && context_->setTensorAddress(output->name(), output.get() == flow_ ? flow : output->device());
        }
        if (!right || !context_->enqueueV3(stream)) throw failed();
    }

    Failure failed() const {
        const std::string reason = logger().take_error("it does not say why");
        return {GOCOR_FAILED, path_, "failed in TensorRT (" + reason + ")", "see gocor doctor"};
    }
};

// "11.4.0.106"
std::string installed() {
    const std::int32_t version = getInferLibVersion();
    return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100) + "." + std::to_string(getInferLibBuildVersion());
}

std::string dtype_name(nvinfer1::DataType type) {
    if (type == nvinfer1::DataType::kUINT8) return "uint8";
    if (type == nvinfer1::DataType::kFLOAT) return "float32";
    return "type " + std::to_string(static_cast<int>(type));
}

// The plugin library that an engine was built with, or the one that the caller names. Without a folder in it, its name
// would be looked up in the system's folders, and not be the file whose hash was checked.
std::string plugin_path(const Manifest& manifest, const Options& options) {
    const char* const given = std::getenv(PLUGIN_VARIABLE);
    std::string path = manifest.beside(PLUGIN_LIBRARY);
    if (given != nullptr && *given != '\0') path = given;
    if (!options.plugin_library.empty()) path = options.plugin_library;
    return path.find('/') == std::string::npos ? "./" + path : path;
}

class TensorRtModel final : public Model {
    Manifest manifest_;
    int device_ = 0;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::mutex mutex_;  // for making contexts

public:
    TensorRtModel(const std::string& path, const Options& options) : manifest_(read_manifest(path, "engine")) {
        if (options.threads != 0) {
            throw Failure(GOCOR_INVALID_ARGUMENT, "threads", "are those of the CPU, and " + path + " is an engine",
                          "0");
        }
        remember_options();
        if (manifest_.one_of("backend", {"tensorrt", "tensorrt-rtx"}) == "tensorrt-rtx") {
            throw Failure(GOCOR_UNAVAILABLE, path, "is an engine for TensorRT-RTX", "this library runs TensorRT's");
        }
        const std::string plan = read_file(path, "give an engine made by gocor build", MODEL_LIMIT);
        manifest_.check_bytes(path, plan.data(), plan.size(), "engine_sha256");
        check(cudaGetDevice(&device_), path);
        check_runs_here();
        load(plan, options);
        check_tensors(nvinfer1::TensorIOMode::kINPUT, "inputs", manifest_.inputs);
        check_tensors(nvinfer1::TensorIOMode::kOUTPUT, "outputs", manifest_.outputs);
        metadata = manifest_.metadata;
        narrow_sizes();
        backend = "tensorrt";
        precision = metadata.precision;
    }
    ~TensorRtModel() override {
        const OnDevice on_device(device_);
        engine_.reset();
        runtime_.reset();
    }

    std::unique_ptr<Lane> make_lane() override {
        const OnDevice on_device(device_, manifest_.path);
        const std::scoped_lock lock(mutex_);
        logger().take_error("");
        std::unique_ptr<nvinfer1::IExecutionContext> context(engine_->createExecutionContext());
        if (!context) {
            throw Failure(GOCOR_FAILED, manifest_.path,
                          "failed in TensorRT (" + logger().take_error("no execution context") + ")",
                          "is there enough memory on the GPU? See Options::parallel");
        }
        return std::make_unique<TensorRtLane>(manifest_.path, device_, std::move(context));
    }

private:
    void remember_options() {
        const std::string& plugins = manifest_.one_of("plugins", {"quick", "library", "none"});
        if (plugins == "none" && manifest_.metadata.operators) manifest_.options += " --plugins none";
        if (plugins == "library") {
            manifest_.options += " --plugin-library " + quoted(manifest_.beside(PLUGIN_LIBRARY));
        }
        if (manifest_.flag("hardware_compatible")) manifest_.options += " --hardware-compatible";
        if (manifest_.flag("version_compatible")) manifest_.options += " --version-compatible";
        if (manifest_.flag("tf32")) manifest_.options += " --tf32";
        std::string shapes;
        for (const auto& sizes : manifest_.shapes()) {
            shapes += (shapes.empty() ? " --shapes " : "/") + std::to_string(sizes[0]) + "x" +
                      std::to_string(sizes[1]) + "x" + std::to_string(sizes[2]);
        }
        manifest_.options += shapes;
    }

    void check_runs_here() const {
        const std::string version = installed();
        const std::vector<std::int64_t> built = release(manifest_.library_version), have = release(version);
        const bool compatible = manifest_.flag("version_compatible") && have[0] == built[0] && have >= built;
        if (version != manifest_.library_version && !compatible) {
            throw bad_model(manifest_.path,
                            "was built with TensorRT " + manifest_.library_version + "; " + version + " is installed",
                            "rebuild it with that: " + manifest_.rebuild());
        }
        int major = 0, minor = 0;
        check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_), manifest_.path);
        check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_), manifest_.path);
        const int number = 10 * major + minor;
        const std::string sm = "sm_" + std::to_string(number);
        const std::vector<std::string> targets = manifest_.texts("targets");
        const bool built_for = std::find(targets.begin(), targets.end(), sm) != targets.end();
        if (built_for || (manifest_.flag("hardware_compatible") && number >= OLDEST_COMPATIBLE_SM)) return;
        std::string known;
        for (const std::string& target : targets) known += (known.empty() ? "" : ", ") + target;
        throw bad_model(manifest_.path, "was built for " + known + "; this GPU is " + sm,
                        "rebuild it for this GPU: " + manifest_.rebuild());
    }

    void load(const std::string& plan, const Options& options) {
        runtime_.reset(nvinfer1::createInferRuntime(logger()));
        if (!runtime_) {
            throw Failure(GOCOR_UNAVAILABLE, "TensorRT", "does not start (" + logger().take_error("no reason") + ")",
                          "see gocor doctor");
        }
        // A version-compatible engine brings code that runs on the host; its hash says that gocor build wrote it.
        const bool version_compatible = manifest_.flag("version_compatible");
        runtime_->setEngineHostCodeAllowed(version_compatible);
        if (manifest_.text("plugins") == "library" && !version_compatible) load_plugins(options);  // those have theirs
        logger().take_error("");
        engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        if (engine_) return;
        throw bad_model(manifest_.path, "cannot be loaded by TensorRT (" + logger().take_error("no reason") + ")",
                        "rebuild it: " + manifest_.rebuild());
    }

    // Whoever may write to the library's folder can do anything to this program; the hash is against mistakes.
    void load_plugins(const Options& options) const {
        const std::string path = plugin_path(manifest_, options);
        const std::string where =
            std::string("put ") + PLUGIN_LIBRARY + " beside the engine, or name it in the options";
        const std::string content =
            read_file(path, "the plugin library of " + manifest_.path + ": " + where, MODEL_LIMIT);
        const std::string came = sha256(content.data(), content.size()), expected = manifest_.text("plugin_sha256");
        if (came != expected) {
            throw bad_model(path,
                            "is not the plugin library of " + manifest_.path + " (SHA-256 " + came.substr(0, 12) +
                                "…, not " + expected.substr(0, 12) + "…)",
                            where + ", or rebuild the engine");
        }
        logger().take_error("");
        if (runtime_->getPluginRegistry().loadLibrary(path.c_str()) != nullptr) return;
        throw bad_model(path, "cannot be loaded (" + logger().take_error("no reason") + ")",
                        "build the plugin library for TensorRT " + manifest_.library_version);
    }

    // Sizes vary as far as the engine was built for, not as far as the model's do.
    void narrow_sizes() {
        const std::vector<std::vector<std::int64_t>> shapes = manifest_.shapes();
        if (shapes.empty()) return;
        metadata.batch = shapes[1][0];
        metadata.size = {shapes[1][1], shapes[1][2]};
        for (auto& [axis, range] : metadata.dynamic) {
            const std::size_t at = axis == "batch" ? 0 : axis == "height" ? 1 : 2;
            range = {shapes[0][at], shapes[2][at]};
        }
    }

    void check_tensors(nvinfer1::TensorIOMode mode, const std::string& what,
                       const std::vector<Tensor>& expected) const {
        std::vector<Tensor> found;
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char* name = engine_->getIOTensorName(i);
            if (engine_->getTensorIOMode(name) != mode) continue;
            found.push_back({name, dtype_name(engine_->getTensorDataType(name)), sizes(engine_->getTensorShape(name))});
        }
        manifest_.check_interface(what, found, expected);
    }
};

}  // namespace

std::unique_ptr<Model> load_tensorrt(const std::string& path, const Options& options) {
    return std::make_unique<TensorRtModel>(path, options);
}

}  // namespace gocor
