// Models in OpenVINO, on the CPU; see runtime/openvino_session.py.

#include <algorithm>
#include <array>
#include <openvino/openvino.hpp>
#include <sstream>
#include <utility>

#include "backend.h"
#include "error.h"
#include "manifest.h"
#include "reading.h"

namespace gocor {
namespace {

constexpr const char* DEVICE = "CPU";
constexpr std::array<std::int64_t, 2> OLDEST = {2025, 4};  // as for the Python package

// The last line of OpenVINO's message that says something: before it stand its source files.
std::string reason(const std::exception& error) {
    std::istringstream lines(error.what());
    std::string said;
    for (std::string line; std::getline(lines, line);) {
        const std::size_t start = line.find_first_not_of(" \t\r");
        if (start == std::string::npos) continue;
        line.erase(0, start);
        const bool place = line.rfind("Exception from", 0) == 0 ||
                           (line.rfind("Check ", 0) == 0 && line.find(" failed at") != std::string::npos);
        if (!place || said.empty()) said = line;
    }
    return said.substr(0, 300);
}

// Runs what throws OpenVINO's exceptions.
template <class Run>
auto in_openvino(gocor_status status, const std::string& path, const std::string& what, const std::string& hint,
                 Run run) {
    try {
        return run();
    } catch (const std::bad_alloc&) {
        throw;
    } catch (const std::exception& error) {
        throw Failure(status, path, what + " (" + reason(error) + ")", hint);
    }
}

std::string dtype_name(const ov::element::Type& type) {
    if (type == ov::element::u8) return "uint8";
    if (type == ov::element::f32) return "float32";
    return type.get_type_name();
}

// Inputs or outputs, under those of `expected`'s names that they have: outputs that are equal become one, under both.
std::vector<Tensor> tensors(const std::vector<ov::Output<const ov::Node>>& ports, const std::vector<Tensor>& expected) {
    std::vector<Tensor> found;
    for (const auto& port : ports) {
        Tensor tensor{"?", dtype_name(port.get_element_type()), {}};
        if (const ov::PartialShape& shape = port.get_partial_shape(); shape.rank().is_static()) {
            for (const auto& size : shape) tensor.shape.push_back(size.is_static() ? size.get_length() : VARIES);
        }
        const std::size_t before = found.size();
        for (const Tensor& known : expected) {
            if (port.get_names().count(known.name) != 0) found.push_back({known.name, tensor.dtype, tensor.shape});
        }
        if (found.size() == before) found.push_back(std::move(tensor));
    }
    return found;
}

// Never given back: with each Core OpenVINO gives the calling thread another stack for signal handlers, and frees it
// with the Core. Freed in another order or thread, it leaves programs whose handlers use that stack (Python, Java, Go)
// with none.
ov::Core& shared_core() {
    static auto* const core = new ov::Core;
    return *core;
}

std::string installed() {
    const std::string version = ov::get_openvino_version().buildNumber;
    return version.substr(0, version.find('-'));
}

void check_version(const Manifest& manifest) {
    const std::string version = installed();
    const auto first_two = [](const std::string& text) {
        const std::vector<std::int64_t> numbers = release(text);
        return std::array{numbers[0], numbers.size() > 1 ? numbers[1] : 0};
    };
    if (first_two(version) < OLDEST) {
        throw Failure(GOCOR_UNAVAILABLE, "OpenVINO", version + " is too old", "2025.4 or later is needed");
    }
    if (first_two(version) < first_two(manifest.library_version)) {
        throw bad_model(
            manifest.path,
            "was built with OpenVINO " + manifest.library_version + "; " + version + " is installed, which is older",
            "update OpenVINO, or rebuild the model: " + manifest.rebuild());
    }
}

std::string weights_path(const std::string& path) { return path.substr(0, path.find_last_of('.')) + ".bin"; }

// The weights where OpenVINO wants them, which are as large as the model.
ov::Tensor read_weights(const Manifest& manifest) {
    const std::string path = weights_path(manifest.path);
    const std::string content =
        read_file(path, "the weights of " + manifest.path + ": copy them, too, or rebuild it: " + manifest.rebuild(),
                  MODEL_LIMIT);
    manifest.check_bytes(path, content.data(), content.size(), "bin_sha256");
    ov::Tensor weights(ov::element::u8, {content.size()});
    std::copy(content.begin(), content.end(), weights.data<std::uint8_t>());
    return weights;
}

class OpenVinoLane final : public Lane {
    std::string path_;
    ov::InferRequest request_;
    std::vector<Tensor> results_;
    std::vector<ov::Tensor> inputs_, outputs_;  // of the outputs only those of results

public:
    OpenVinoLane(std::string path, ov::InferRequest request) : path_(std::move(path)), request_(std::move(request)) {}

    void prepare(const Metadata& fixed) override {
        in_openvino(GOCOR_FAILED, path_, "failed in OpenVINO", "see gocor doctor", [&] {
            inputs_.clear();
            for (const Tensor& input : fixed.inputs()) {
                inputs_.push_back(request_.get_tensor(input.name));
                inputs_.back().set_shape({input.shape.begin(), input.shape.end()});
            }
        });
        results_ = fixed.results();
    }

    void* input(std::size_t index) override { return inputs_[index].data(); }
    void run() override {
        in_openvino(GOCOR_FAILED, path_, "failed in OpenVINO", "see gocor doctor", [this] {
            request_.infer();
            outputs_.clear();
            for (const Tensor& result : results_) outputs_.push_back(request_.get_tensor(result.name));
        });
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            const ov::Shape shape = outputs_[i].get_shape();
            check_result(path_, {shape.begin(), shape.end()}, results_[i]);
        }
    }
    const float* flow() const override { return outputs_[0].data<const float>(); }
    const float* orientation_score() const override {
        return outputs_.size() > 1 ? outputs_[1].data<const float>() : nullptr;
    }
};

class OpenVinoModel final : public Model {
    Manifest manifest_;
    ov::Tensor weights_;  // constants of the compiled model may point into it
    ov::CompiledModel compiled_;

public:
    OpenVinoModel(const std::string& path, const Options& options) : manifest_(read_manifest(path, "OpenVINO model")) {
        manifest_.one_of("backend", {"openvino"});
        const std::string& wanted = manifest_.one_of("inference_precision", {"f32", "bf16"});
        manifest_.options = " --backend openvino";
        if (wanted != "f32") manifest_.options += " --inference-precision " + wanted;
        const std::string graph = read_file(path, "give a model made by gocor build", MODEL_LIMIT);
        manifest_.check_bytes(path, graph.data(), graph.size(), "xml_sha256");
        weights_ = read_weights(manifest_);
        check_version(manifest_);
        compile(graph, wanted, options.threads);
        check_execution(wanted);
        manifest_.check_interface("inputs", tensors(compiled_.inputs(), manifest_.inputs), manifest_.inputs);
        manifest_.check_interface("outputs", tensors(compiled_.outputs(), manifest_.outputs), manifest_.outputs);
        metadata = manifest_.metadata;
        backend = "openvino";
        precision = wanted == "bf16" ? "bf16" : metadata.precision;
    }

    std::unique_ptr<Lane> make_lane() override {
        return in_openvino(GOCOR_FAILED, manifest_.path, "failed in OpenVINO", "see gocor doctor", [this] {
            return std::make_unique<OpenVinoLane>(manifest_.path, compiled_.create_infer_request());
        });
    }

private:
    void compile(const std::string& graph, const std::string& wanted, int threads) {
        const std::string hint = "rebuild it: " + manifest_.rebuild();
        ov::Core& core = shared_core();
        if (wanted == "bf16") {
            const auto capabilities = core.get_property(DEVICE, ov::device::capabilities);
            if (std::find(capabilities.begin(), capabilities.end(), "BF16") == capabilities.end()) {
                throw Failure(GOCOR_UNAVAILABLE, manifest_.path, "runs in bf16, which is not there on this CPU",
                              "build it without --inference-precision bf16");
            }
        }
        ov::AnyMap properties = {
            {ov::hint::inference_precision.name(), wanted},
            {ov::hint::performance_mode.name(), "LATENCY"},
        };
        if (threads > 0) properties[ov::inference_num_threads.name()] = threads;
        in_openvino(GOCOR_BAD_MODEL, manifest_.path, "cannot be loaded by OpenVINO", hint,
                    [&] { compiled_ = core.compile_model(core.read_model(graph, weights_), DEVICE, properties); });
    }

    // Believes nothing: what was asked for is what runs.
    void check_execution(const std::string& wanted) const {
        const auto refused = [this](const std::string& got, const std::string& expected) {
            return Failure(GOCOR_UNAVAILABLE, manifest_.path, got, expected);
        };
        for (const std::string& device : compiled_.get_property(ov::execution_devices)) {
            if (device != DEVICE) throw refused("is run by OpenVINO on " + device, "the CPU");
        }
        std::vector<std::string> precisions = {compiled_.get_property(ov::hint::inference_precision).get_type_name()};
        constexpr std::array ARITHMETIC = {"Convolution", "Deconvolution", "MatMul", "FullyConnected"};
        for (const auto& node : compiled_.get_runtime_model()->get_ops()) {
            const auto& about = node->get_rt_info();
            const auto type = about.find("layerType"), runs_in = about.find("runtimePrecision");
            if (type == about.end() || runs_in == about.end()) continue;
            const auto name = type->second.as<std::string>();
            if (std::find(ARITHMETIC.begin(), ARITHMETIC.end(), name) == ARITHMETIC.end()) continue;
            const auto came = runs_in->second.as<std::string>();
            if (came != "f32" && came != "i8" && came != "u8") precisions.push_back(came);
        }
        for (const std::string& came : precisions) {
            if (came != wanted) throw refused("is computed by OpenVINO in " + came, wanted + ", as its manifest says");
        }
    }
};

}  // namespace

std::unique_ptr<Model> load_openvino(const std::string& path, const Options& options) {
    return std::make_unique<OpenVinoModel>(path, options);
}

}  // namespace gocor
