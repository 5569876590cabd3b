#include "metadata.h"

#include <algorithm>
#include <optional>

#include "error.h"
#include "json.h"

namespace gocor {
namespace {

constexpr const char* FORMAT = "1";

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

    const NetworkSpec& network() const {
        const std::string& name = text("network");
        for (const NetworkSpec& spec : network_specs()) {
            if (spec.name == name) return spec;
        }
        refuse("network", name);
    }

    std::int64_t number(const std::string& name) const {
        const Json value = parse_json(text(name));
        if (value.kind == Json::Kind::integer && value.integer >= 1 && value.integer <= LARGEST) return value.integer;
        refuse(name, text(name));
    }

    void check_kind(const std::string& name, const std::vector<Json::Kind>& kinds) const {
        if (std::find(kinds.begin(), kinds.end(), parse_json(text(name)).kind) == kinds.end()) {
            refuse(name, text(name));
        }
    }

    // {"height": [64, null], …}: the axes that vary.
    std::map<std::string, Range> ranges(const Metadata& metadata) const {
        const Json value = parse_json(text("dynamic"));
        const std::map<std::string, std::int64_t> usual = {
            {"batch", metadata.batch}, {"height", metadata.size.height}, {"width", metadata.size.width}};
        std::map<std::string, Range> found;
        for (std::size_t i = 0; i < value.names.size(); ++i) {
            const auto axis = usual.find(value.names[i]);
            const std::optional<Range> range = read_range(value.values[i]);
            const bool right = axis != usual.end() && range && range->contains(axis->second) &&
                               (metadata.tensors() || axis->first == "batch");
            if (!right) refuse("dynamic", text("dynamic"));
            found[axis->first] = *range;
        }
        if (value.kind != Json::Kind::object || found.empty()) refuse("dynamic", text("dynamic"));
        return found;
    }

private:
    static std::optional<Range> read_range(const Json& value) {
        if (value.kind != Json::Kind::array || value.values.size() != 2) return {};
        const Json &minimum = value.values[0], &maximum = value.values[1];
        const bool open = maximum.kind == Json::Kind::null;
        if (minimum.kind != Json::Kind::integer || minimum.integer < 1) return {};
        if (!open && (maximum.kind != Json::Kind::integer || maximum.integer < minimum.integer)) return {};
        return Range{minimum.integer, open ? 0 : maximum.integer};
    }

    [[noreturn]] static void refuse(const std::string& name, const std::string& value) {
        throw JsonError(name + " '" + value + "'");
    }
};

std::string in_words(const Range& range) {
    return "from " + std::to_string(range.minimum) + (range.maximum != 0 ? " to " + std::to_string(range.maximum) : "");
}

Metadata read(const Reader& reader) {
    Metadata metadata;
    metadata.spec = &reader.network();
    metadata.io = reader.one_of("io", {"images", "tensors"});
    metadata.precision = reader.find("precision") != nullptr ? reader.one_of("precision", {"fp32", "fp16", "bf16"})
                                                             : "fp32";  // of models from before there were others
    metadata.gocor_version = reader.text("gocor_version");
    metadata.batch = reader.number("batch");
    metadata.size = {reader.number("height"), reader.number("width")};
    if (reader.find("dynamic") != nullptr) metadata.dynamic = reader.ranges(metadata);
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

void check_result(const std::string& path, const std::vector<std::int64_t>& came, const Tensor& expected) {
    if (came == expected.shape) return;
    throw Failure(GOCOR_FAILED, path, "gave " + in_words({Tensor{expected.name, expected.dtype, came}}),
                  "its metadata says " + in_words({expected}) + "; export again");
}

Metadata Metadata::usual() const {
    Metadata fixed = *this;
    fixed.dynamic.clear();
    return fixed;
}

Metadata Metadata::for_images(std::int64_t count, Size images) const {
    Metadata fixed = usual();
    const Size wanted = {spec->working_side(images.height), spec->working_side(images.width)};
    const auto side = [&](const char* axis, std::int64_t value, std::int64_t* out) {
        const auto range = dynamic.find(axis);
        if (range == dynamic.end()) return;
        if (!range->second.contains(value)) {
            throw Failure(GOCOR_BAD_IMAGE, axis, "is " + std::to_string(value) + " at the network's input",
                          "this model takes " + in_words(range->second) + " in steps of " +
                              std::to_string(spec->side_multiple) + "; gocor export --size " +
                              std::to_string(wanted.height) + "x" + std::to_string(wanted.width) +
                              " makes one for this");
        }
        *out = value;
    };
    side("height", wanted.height, &fixed.size.height);
    side("width", wanted.width, &fixed.size.width);
    if (const auto range = dynamic.find("batch"); range != dynamic.end()) {
        fixed.batch = std::max(count, range->second.minimum);
        if (range->second.maximum != 0) fixed.batch = std::min(fixed.batch, range->second.maximum);
    }
    return fixed;
}

std::vector<Tensor> Metadata::inputs() const {
    const std::int64_t pairs = size_or_varies("batch", batch), height = size_or_varies("height", size.height),
                       width = size_or_varies("width", size.width);
    if (!tensors()) {
        const std::vector<std::int64_t> shape = {pairs, height, width, 3};
        return {{"reference", "uint8", shape}, {"query", "uint8", shape}};
    }
    std::vector<Tensor> found;
    for (const std::string& name : spec->tensor_inputs()) {
        const bool coarse = found.size() >= 2;
        found.push_back(
            {name, "float32", {pairs, 3, coarse ? GLUNET_COARSE_SIDE : height, coarse ? GLUNET_COARSE_SIDE : width}});
    }
    return found;
}

std::vector<Tensor> Metadata::results() const {
    const std::int64_t stride = tensors() ? spec->flow_stride : 1;
    const std::int64_t pairs = size_or_varies("batch", batch);
    std::vector<Tensor> found = {
        {tensors() ? spec->outputs.back() : "flow",
         "float32",
         {pairs, 2, size_or_varies("height", size.height / stride), size_or_varies("width", size.width / stride)}}};
    if (orientation_score()) found.push_back({ORIENTATION_SCORE, "float32", {pairs}});
    return found;
}

std::int64_t Metadata::size_or_varies(const char* axis, std::int64_t fixed) const {
    return dynamic.count(axis) != 0 ? VARIES : fixed;
}

std::vector<std::string> Metadata::output_names() const {
    std::vector<std::string> names = tensors() ? spec->outputs : std::vector<std::string>{"flow"};
    if (orientation_score()) names.emplace_back(ORIENTATION_SCORE);
    return names;
}

bool Metadata::fit_outputs(const std::vector<Tensor>& found) const {
    const std::vector<std::string> expected = output_names();
    const std::vector<Tensor> known = results();
    std::vector<std::string> names;
    names.reserve(found.size());
    for (const Tensor& tensor : found) names.push_back(tensor.name);
    const auto fits = [&known](const Tensor& tensor) {
        const auto same =
            std::find_if(known.begin(), known.end(), [&](const Tensor& k) { return k.name == tensor.name; });
        return same == known.end() ? tensor.dtype == "float32" : tensor == *same;
    };
    return std::is_permutation(names.begin(), names.end(), expected.begin(), expected.end()) &&
           std::all_of(found.begin(), found.end(), fits);
}

std::string Metadata::outputs_in_words() const {
    std::string names;
    for (const std::string& name : output_names()) names += (names.empty() ? "" : ", ") + name;
    return names + " with " + in_words(std::vector<Tensor>{results()[0]});
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
    try {
        return read(reader);
    } catch (const JsonError& error) {
        throw bad_model(where, std::string("has damaged gocor metadata (") + error.what() + ")", "export again");
    }
}

}  // namespace gocor
