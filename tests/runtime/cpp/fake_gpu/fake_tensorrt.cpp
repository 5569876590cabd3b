// A TensorRT that runs a kind of network only, on the CUDA runtime of fake_cuda.cpp.
//
// An "engine" is a text: its first word is FAKE, then a line for each of
//
//   input NAME TYPE SIZE…      uint8 or float32; -1 for a size that varies
//   output NAME SIZE…          float32
//   most BATCH SIDE            the largest batch and the longest side that it was built for
//   small                      flows are half as large as they should be, where sizes vary
//   plugin                     it needs a plugin library
//   host-code                  it brings code that runs on the host
//
// The networks are those of tests/sampler_models.py. What of TensorRT's interfaces is not here ends the program:
// defaults.h, which tests make of its headers, has those.

#include <atomic>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "defaults.h"
#include "fake_cuda.h"

namespace {

using namespace nvinfer1;

struct Port {
    DataType type = DataType::kFLOAT;
    bool input = false;
    Dims dims{};
};

struct Plan {
    std::vector<std::string> names;
    std::map<std::string, Port> ports;
    std::int64_t batch = 64, longest = 1 << 12;
    bool plugin = false, host_code = false, small = false;
};

// False if a text is no engine.
bool parse(const std::string& text, Plan& plan) {
    std::istringstream lines(text);
    std::string line, word, name;
    if (!std::getline(lines, line) || line != "FAKE") return false;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        words >> word;
        if (word == "small") plan.small = true;
        if (word == "plugin") plan.plugin = true;
        if (word == "host-code") plan.host_code = true;
        if (word == "most") words >> plan.batch >> plan.longest;
        if (word != "input" && word != "output") continue;
        Port port;
        port.input = word == "input";
        words >> name;
        if (port.input) {
            words >> word;
            port.type = word == "uint8" ? DataType::kUINT8 : DataType::kFLOAT;
        }
        while (words >> port.dims.d[port.dims.nbDims]) ++port.dims.nbDims;
        plan.names.push_back(name);
        plan.ports[name] = port;
    }
    return true;
}

std::size_t count(const Dims& dims) {
    std::size_t product = 1;
    for (std::int32_t i = 0; i < dims.nbDims; ++i) product *= static_cast<std::size_t>(dims.d[i]);
    return product;
}

// Values of an input, channels first.
class Values {
    const void* data_;
    bool bytes_;
    std::int64_t pixels_, width_;

public:
    std::int64_t batch, height;

    Values(const void* data, DataType type, const Dims& dims)
        : data_(data),
          bytes_(type == DataType::kUINT8),
          pixels_(bytes_ ? dims.d[1] * dims.d[2] : dims.d[2] * dims.d[3]),
          width_(bytes_ ? dims.d[2] : dims.d[3]),
          batch(dims.d[0]),
          height(bytes_ ? dims.d[1] : dims.d[2]) {}

    std::int64_t width() const { return width_; }
    float at(std::int64_t pair, std::int64_t channel, std::int64_t y, std::int64_t x) const {
        const std::int64_t pixel = y * width_ + x;
        if (bytes_) return static_cast<const std::uint8_t*>(data_)[(pair * pixels_ + pixel) * 3 + channel];
        return static_cast<const float*>(data_)[(pair * 3 + channel) * pixels_ + pixel];
    }
};

// The network: see tests/sampler_models.py.
void sample(const std::map<std::string, Values>& in, const std::string& name, bool last, float* out) {
    if (name == "orientation_score") {
        const bool tensors = in.count("reference_256") != 0;
        const Values &first = in.at(tensors ? "reference_256" : "reference"),
                     &second = in.at(tensors ? "query_256" : "query");
        for (std::int64_t pair = 0; pair < first.batch; ++pair) {
            double sum = 0;
            for (std::int64_t channel = 0; channel < 3; ++channel) {
                for (std::int64_t y = 0; y < first.height; ++y) {
                    for (std::int64_t x = 0; x < first.width(); ++x) {
                        sum += first.at(pair, channel, y, x) * second.at(pair, channel, y, x);
                    }
                }
            }
            *out++ = static_cast<float>(sum / static_cast<double>(3 * first.height * first.width()));
        }
        return;
    }
    const Values &reference = in.at("reference"), &query = in.at("query");
    const std::int64_t step = name == "flow" ? 1 : 4;
    for (std::int64_t pair = 0; pair < reference.batch; ++pair) {
        for (std::int64_t channel = 0; channel < 2; ++channel) {
            for (std::int64_t y = 0; y < reference.height; y += step) {
                for (std::int64_t x = 0; x < reference.width(); x += step) {
                    const float value = reference.at(pair, channel, y, x);
                    *out++ = last ? value + query.at(pair, channel + 1, y, x) * 10.0F : -value;
                }
            }
        }
    }
}

// What a context has on the GPU; its work may still run when it is gone.
struct Running {
    int enqueued = 0, computed = 0;
    bool dropped = false;
};

class Context final : public ContextDefaults {
    const Plan& plan_;
    const int device_;
    ILogger& logger_;
    std::map<std::string, Dims> shapes_;
    std::map<std::string, void*> addresses_;
    std::shared_ptr<Running> running_ = std::make_shared<Running>();
    mutable std::atomic_flag busy_ = ATOMIC_FLAG_INIT;

    // One thread at a time may use a context.
    struct Alone {
        std::atomic_flag& busy;
        explicit Alone(std::atomic_flag& flag) : busy(flag) {
            if (busy.test_and_set()) fake::problem("two threads used one context");
        }
        ~Alone() { busy.clear(); }
        Alone(const Alone&) = delete;
        Alone& operator=(const Alone&) = delete;
    };

    bool fail(const char* text) const {
        logger_.log(ILogger::Severity::kERROR, text);
        return false;
    }

public:
    Context(const Plan& plan, int device, ILogger& logger) : plan_(plan), device_(device), logger_(logger) {
        mImpl = this;
        fake_count(1);
        for (const auto& [name, port] : plan.ports) {
            if (port.input) shapes_[name] = port.dims;
        }
    }
    ~Context() override {
        const std::scoped_lock lock(fake::mutex());
        if (running_->computed != running_->enqueued) fake::problem("a context was dropped while it ran");
        if (fake::current_device() != device_) fake::problem("a context was dropped while another device was current");
        running_->dropped = true;
        fake_count(-1);
    }
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    bool setInputShape(char const* name, Dims const& dims) noexcept override {
        const Alone alone(busy_);
        const auto port = plan_.ports.find(name);
        if (port == plan_.ports.end() || fake::fails("setInputShape")) {
            return fail("setInputShape: Error Code 3: API Usage Error (wrong value)");
        }
        const Dims& built = port->second.dims;
        for (std::int32_t i = 0; i < built.nbDims; ++i) {
            const std::int64_t most = i == 0 ? plan_.batch : plan_.longest;
            const bool fits = built.d[i] < 0 ? dims.d[i] > 0 && dims.d[i] <= most : dims.d[i] == built.d[i];
            if (dims.nbDims != built.nbDims || !fits) {
                return fail("setInputShape: Error Code 3: API Usage Error (out of the profile)");
            }
        }
        shapes_[name] = dims;
        return true;
    }

    Dims getTensorShape(char const* name) const noexcept override {
        const Port& port = plan_.ports.at(name);
        if (port.input) return shapes_.at(name);
        Dims dims = port.dims;
        const Dims& image = shapes_.at("reference");
        const bool tensors = plan_.ports.at("reference").type == DataType::kFLOAT;
        dims.d[0] = image.d[0];
        if (dims.nbDims == 4) {
            const int step = plan_.small ? 8 : 4;
            dims.d[2] = tensors ? image.d[2] / step : image.d[1];
            dims.d[3] = tensors ? image.d[3] / step : image.d[2];
        }
        return dims;
    }

    bool setTensorAddress(char const* name, void* data) noexcept override {
        const Alone alone(busy_);
        addresses_[name] = data;
        if (fake::fails("setTensorAddress")) {
            return fail("setTensorAddress: Error Code 3: API Usage Error (wrong address)");
        }
        return plan_.ports.count(name) != 0 && reinterpret_cast<std::uintptr_t>(data) % 256 == 0;
    }
    bool setInputTensorAddress(char const* name, void const* data) noexcept override {
        return setTensorAddress(name, const_cast<void*>(data));
    }

    bool enqueueV3(cudaStream_t stream) noexcept override {
        const Alone alone(busy_);
        const std::scoped_lock lock(fake::mutex());
        if (fake::current_device() != device_) fake::problem("enqueued while another device was current");
        if (addresses_.size() != plan_.ports.size())
            return fail("Error Code 3: API Usage Error (an address is missing)");
        if (fake::fails("enqueueV3")) return fail("[x.cpp::run::7] Error Code 1: Cuda Runtime (illegal access)");
        fake::enqueue(stream, [=, turn = ++running_->enqueued, addresses = addresses_, running = running_] {
            if (running->dropped) fake::problem("a dropped context ran");
            if (++running->computed != turn) fake::problem("runs of one context overlap");
            compute(addresses);
        });
        return true;
    }

private:
    void compute(const std::map<std::string, void*>& addresses) const {
        std::map<std::string, Values> in;
        std::string last;
        for (const std::string& name : plan_.names) {
            const Port& port = plan_.ports.at(name);
            const Dims dims = getTensorShape(name.c_str());
            fake::use_device(addresses.at(name), count(dims) * (port.type == DataType::kFLOAT ? sizeof(float) : 1));
            if (port.input) in.emplace(name, Values(addresses.at(name), port.type, dims));
            if (!port.input && name != "orientation_score") last = name;
        }
        for (const std::string& name : plan_.names) {
            if (!plan_.ports.at(name).input) sample(in, name, name == last, static_cast<float*>(addresses.at(name)));
        }
    }
};

class Engine final : public EngineDefaults {
    const Plan plan_;
    const int device_ = fake::current_device();
    ILogger& logger_;

public:
    Engine(Plan plan, ILogger& logger) : plan_(std::move(plan)), logger_(logger) {
        mImpl = this;
        fake_count(1);
    }
    ~Engine() override {
        if (fake::current_device() != device_) fake::problem("an engine was dropped while another device was current");
        fake_count(-1);
    }
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(plan_.names.size()); }
    char const* getIOTensorName(std::int32_t index) const noexcept override {
        return plan_.names[static_cast<std::size_t>(index)].c_str();
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        return plan_.ports.at(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    Dims getTensorShape(char const* name) const noexcept override { return plan_.ports.at(name).dims; }
    DataType getTensorDataType(char const* name) const noexcept override { return plan_.ports.at(name).type; }

    Dims getProfileShape(char const* name, std::int32_t, OptProfileSelector select) const noexcept override {
        Dims dims = plan_.ports.at(name).dims;
        for (std::int32_t i = 0; i < dims.nbDims; ++i) {
            const std::int64_t most = i == 0 ? plan_.batch : plan_.longest, least = i == 0 ? 1 : 64;
            if (dims.d[i] < 0) dims.d[i] = select == OptProfileSelector::kMAX ? most : least;
        }
        return dims;
    }

    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override {
        if (fake::current_device() != device_) fake::problem("a context was made while another device was current");
        if (fake::fails("createExecutionContext")) {
            logger_.log(ILogger::Severity::kERROR,
                        "[a.cpp::allocate::9] Error Code 2: OutOfMemory (Requested size was 1 MiB)");
            return nullptr;
        }
        return new Context(plan_, device_, logger_);
    }
};

class Registry final : public RegistryDefaults {
public:
    int loaded = 0;
    ILogger* logger = nullptr;

    PluginLibraryHandle loadLibrary(AsciiChar const* path) noexcept override {
        if (std::strchr(path, '/') == nullptr) {
            logger->log(ILogger::Severity::kERROR, "looked for in the system's folders, as dlopen does");
            return nullptr;
        }
        std::string start(4, ' ');
        std::ifstream(path, std::ios::binary).read(start.data(), 4);
        if (start !=
            "\x7f"
            "ELF") {
            logger->log(ILogger::Severity::kERROR, "[pluginRegistry.cpp::loadLibrary::5] Error: (file too short)");
            return nullptr;
        }
        ++loaded;
        return this;
    }
};

class Runtime final : public RuntimeDefaults {
    ILogger& logger_;
    Registry registry_;
    bool host_code_ = false;

public:
    explicit Runtime(ILogger& logger) : logger_(logger) {
        mImpl = this;
        registry_.logger = &logger;
        fake_count(1);
    }
    ~Runtime() override { fake_count(-1); }
    Runtime(const Runtime&) = delete;
    Runtime& operator=(const Runtime&) = delete;

    IPluginRegistry& getPluginRegistry() noexcept override { return registry_; }
    void setEngineHostCodeAllowed(bool allowed) noexcept override { host_code_ = allowed; }

    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
        Plan plan;
        const char* wrong = nullptr;
        if (!parse({static_cast<const char*>(blob), size}, plan))
            wrong = "IRuntime::x: Error Code 1: Serialization (magicTag differs)";
        if (plan.plugin && registry_.loaded == 0)
            wrong = "IPluginRegistry::getCreator: Error Code 4: API Usage Error (Cannot find plugin)";
        if (plan.host_code && !host_code_)
            wrong = "IRuntime::x: Error Code 9: API Usage Error (host code is not allowed)";
        if (wrong == nullptr) return new Engine(std::move(plan), logger_);
        logger_.log(ILogger::Severity::kWARNING, "somebody else's business");
        logger_.log(ILogger::Severity::kERROR, wrong);
        logger_.log(ILogger::Severity::kERROR, "and what follows from it");
        return nullptr;
    }
};

}  // namespace

extern "C" {

void* createInferRuntime_INTERNAL(void* logger, std::int32_t) noexcept {
    auto& log = *static_cast<ILogger*>(logger);
    if (!fake::fails("createInferRuntime")) return static_cast<IRuntime*>(new Runtime(log));
    log.log(ILogger::Severity::kINTERNAL_ERROR, "CUDA initialization failure with error: 35");
    return nullptr;
}

std::int32_t getInferLibVersion() noexcept { return 110400; }
std::int32_t getInferLibBuildVersion() noexcept { return 106; }

}  // extern "C"
