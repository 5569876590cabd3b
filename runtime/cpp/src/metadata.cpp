#include "metadata.h"

#include <algorithm>

#include "error.h"
#include "json.h"

namespace gocor {
namespace {

constexpr const char* FORMAT = "1";
constexpr std::int64_t LARGEST = 1 << 16;  // of sides and batches, so that no product of them overflows

class Reader {
    const std::map<std::string, std::string>& properties_;

public:
    explicit Reader(const std::map<std::string, std::string>& properties) : properties_(properties) {}

    const std::string* find(const std::string& name) const {
        const auto found = properties_.find("gocor." + name);
        return found == properties_.end() ? nullptr : &found->second;
    }

    const std::string& text(const std::string& name) const {
        if (const std::string* found = find(name)) return *found;
        throw JsonError("no gocor." + name);
    }

    const std::string& one_of(const std::string& name, const std::vector<std::string>& known) const {
        const std::string& value = text(name);
        if (std::find(known.begin(), known.end(), value) == known.end()) refuse(name, value);
        return value;
    }

    std::int64_t size(const std::string& name) const {
        const Json value = parse_json(text(name));
        if (value.kind == Json::Kind::integer && value.integer >= 1 && value.integer <= LARGEST) return value.integer;
        refuse(name, text(name));
    }

    void check_kind(const std::string& name, const std::vector<Json::Kind>& kinds) const {
        if (std::find(kinds.begin(), kinds.end(), parse_json(text(name)).kind) == kinds.end()) {
            refuse(name, text(name));
        }
    }

private:
    [[noreturn]] static void refuse(const std::string& name, const std::string& value) {
        throw JsonError(name + " '" + value + "'");
    }
};

Metadata read(const Reader& reader) {
    Metadata metadata;
    metadata.network = reader.one_of("network", {"PWCNet", "PWCNet_GOCor", "GLUNet", "GLUNet_GOCor"});
    metadata.io = reader.one_of("io", {"images", "tensors"});
    metadata.precision = reader.find("precision") != nullptr ? reader.one_of("precision", {"fp32", "fp16", "bf16"})
                                                             : "fp32";  // of models from before there were others
    metadata.gocor_version = reader.text("gocor_version");
    metadata.batch = reader.size("batch");
    metadata.height = reader.size("height");
    metadata.width = reader.size("width");
    metadata.orientation_score = metadata.network.rfind("GLUNet", 0) == 0;
    metadata.int8 = reader.find("int8") != nullptr;
    if (metadata.int8) reader.check_kind("int8", {Json::Kind::object});
    for (const char* name : {"weights_sha256", "checkpoint", "checkpoint_sha256"}) reader.text(name);
    for (const char* name : {"global_iterations", "local_iterations"}) {
        reader.check_kind(name, {Json::Kind::integer, Json::Kind::null});
    }
    reader.check_kind("operators", {Json::Kind::object});
    metadata.operators = !parse_json(reader.text("operators")).names.empty();
    return metadata;
}

}  // namespace

std::string in_words(const std::vector<Tensor>& tensors) {
    std::string text;
    for (const Tensor& tensor : tensors) {
        text += (text.empty() ? "" : "; ") + tensor.name + " " + tensor.dtype + " (";
        for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
            text += (i == 0 ? "" : ", ") + (tensor.shape[i] < 0 ? "?" : std::to_string(tensor.shape[i]));
        }
        text += ')';
    }
    return text.empty() ? "none" : text;
}

std::vector<Tensor> Metadata::inputs() const {
    const std::vector<std::int64_t> shape = {batch, height, width, 3};
    return {{"reference", "uint8", shape}, {"query", "uint8", shape}};
}

std::vector<Tensor> Metadata::outputs() const {
    std::vector<Tensor> tensors = {{"flow", "float32", {batch, 2, height, width}}};
    if (orientation_score) tensors.push_back({"orientation_score", "float32", {batch}});
    return tensors;
}

Metadata read_metadata(const std::map<std::string, std::string>& properties, const std::string& where) {
    const Reader reader(properties);
    if (reader.find("network") == nullptr) {
        throw bad_model(where, "was not made by gocor (no gocor.network property)", "run gocor export");
    }
    const std::string* format = reader.find("format");
    if (format == nullptr || *format != FORMAT) {
        throw bad_model(where, "has metadata of format " + (format == nullptr ? "none" : *format),
                        std::string("this gocor reads format ") + FORMAT + "; export again");
    }
    Metadata metadata;
    try {
        metadata = read(reader);
    } catch (const JsonError& error) {
        throw bad_model(where, std::string("has damaged gocor metadata (") + error.what() + ")", "export again");
    }
    if (metadata.io != "images") {
        throw bad_model(where, "takes preprocessed tensors", "the C++ library takes images: gocor export --io images");
    }
    return metadata;
}

}  // namespace gocor
