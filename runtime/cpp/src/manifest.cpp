#include "manifest.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <string_view>
#include <system_error>

#include "error.h"
#include "reading.h"
#include "sha256.h"

namespace gocor {
namespace {

constexpr std::int64_t FORMAT = 1;

Failure damaged(const std::string& path, const std::string& kind, const std::string& reason) {
    return bad_model(path, "is a damaged " + kind + " manifest (" + reason + ")", "build the " + kind + " again");
}

std::vector<Tensor> tensors(const Json& values, const std::string& name) {
    std::vector<Tensor> result;
    for (const Json& value : values.array_at(name)) {
        Tensor tensor{value.string_at("name"), value.string_at("dtype"), {}};
        for (const Json& size : value.array_at("shape")) {
            const bool varies = size.kind == Json::Kind::string;  // the name of an axis
            if (!varies && (size.kind != Json::Kind::integer || size.integer < 1)) {
                throw JsonError("tensor '" + tensor.name + "'");
            }
            tensor.shape.push_back(varies ? VARIES : size.integer);
        }
        result.push_back(std::move(tensor));
    }
    return result;
}

std::map<std::string, std::string> properties(const Json& metadata) {
    std::map<std::string, std::string> result;
    for (const std::string& name : metadata.names) result[name] = metadata.string_at(name);
    return result;
}

void fill(Manifest& manifest, const std::string& where) {
    const Json& values = manifest.values;
    manifest.model = values.string_at("model");
    if (manifest.model.empty() || manifest.model == ".." ||
        manifest.model.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
        throw JsonError("model '" + manifest.model + "', which is no name of a file");
    }
    manifest.library_version = values.string_at("library_version");
    for (const char* name : {"model_sha256", "gocor_version"}) values.string_at(name);
    manifest.inputs = tensors(values, "inputs");
    manifest.outputs = tensors(values, "outputs");
    manifest.metadata = read_metadata(properties(values.get("metadata")), where);
    if (manifest.inputs != manifest.metadata.inputs()) {
        throw JsonError("inputs " + in_words(manifest.inputs) + " are not those of its metadata");
    }
    if (!manifest.metadata.fit_outputs(manifest.outputs)) {
        throw JsonError("outputs " + in_words(manifest.outputs) + " are not those of its metadata");
    }
}

}  // namespace

std::string quoted(const std::string& word) {
    constexpr const char* SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_";
    if (!word.empty() && word.find_first_not_of(SAFE) == std::string::npos) return word;
    std::string result = "'";
    for (const char character : word) result += character == '\'' ? "'\"'\"'" : std::string(1, character);
    return result + "'";
}

Manifest read_manifest(const std::string& path, const std::string& kind) {
    const std::string where = path + ".json";
    std::error_code unknown;
    if (!std::filesystem::exists(where, unknown) && !unknown) {
        const std::string name = where.substr(where.find_last_of('/') + 1);
        throw bad_model(path, "has no manifest " + name + " beside it",
                        "copy both files, or build the " + kind + " again: gocor build");
    }
    return parse_manifest(read_file(where, "copy it again", MANIFEST_LIMIT), path, kind);
}

Manifest parse_manifest(const std::string& text, const std::string& path, const std::string& kind) {
    const std::string where = path + ".json";
    Manifest manifest;
    manifest.path = path;
    manifest.kind = kind;
    try {
        manifest.values = parse_json(text);
        const Json* format = manifest.values.find("format");
        if (format == nullptr || format->kind != Json::Kind::integer || format->integer != FORMAT) {
            throw bad_model(where, "is no " + kind + " manifest of format " + std::to_string(FORMAT),
                            "this gocor reads no other; build the " + kind + " again");
        }
        fill(manifest, where);
    } catch (const JsonError& error) {
        throw damaged(where, kind, error.what());
    }
    return manifest;
}

const std::string& Manifest::text(const std::string& name) const {
    try {
        return values.string_at(name);
    } catch (const JsonError& error) {
        throw damaged(path + ".json", kind, error.what());
    }
}

const std::string& Manifest::one_of(const std::string& name, const std::vector<std::string>& known) const {
    const std::string& value = text(name);
    if (std::find(known.begin(), known.end(), value) != known.end()) return value;
    throw damaged(path + ".json", kind, name + " '" + value + "'");
}

bool Manifest::flag(const std::string& name) const {
    try {
        return values.boolean_at(name);
    } catch (const JsonError& error) {
        throw damaged(path + ".json", kind, error.what());
    }
}

std::vector<std::string> Manifest::texts(const std::string& name) const {
    std::vector<std::string> result;
    try {
        for (const Json& value : values.array_at(name)) {
            if (value.kind != Json::Kind::string) throw JsonError(name + " are no strings");
            result.push_back(value.string);
        }
    } catch (const JsonError& error) {
        throw damaged(path + ".json", kind, error.what());
    }
    return result;
}

std::vector<std::vector<std::int64_t>> Manifest::shapes() const {
    std::vector<std::vector<std::int64_t>> found;
    const Json* const value = values.find("shapes");
    const bool given = value != nullptr && value->kind != Json::Kind::null;
    if (given) {
        for (const Json& sizes : value->values) {
            found.emplace_back();
            for (const Json& size : sizes.values) found.back().push_back(size.integer);
        }
    }
    bool right = given != metadata.dynamic.empty() && found.size() == (given ? 3 : 0);
    for (std::size_t i = 0; i < found.size(); ++i) {
        right = right && found[i].size() == 3;
        for (std::size_t axis = 0; right && axis < 3; ++axis) {
            right = found[i][axis] >= (i == 0 ? 1 : found[i - 1][axis]) && found[i][axis] <= LARGEST;
        }
    }
    if (right) return found;
    throw damaged(path + ".json", kind, "shapes are not the least, usual and most of each axis");
}

void Manifest::check_bytes(const std::string& file, const void* data, std::size_t size, const std::string& name) const {
    const std::string expected = text(name), came = sha256(data, size);
    if (came == expected) return;
    throw bad_model(
        file,
        "is not the file that was built (SHA-256 " + came.substr(0, 12) + "…, not " + expected.substr(0, 12) + "…)",
        "copy it again or rebuild it: " + rebuild());
}

std::string Manifest::beside(const std::string& name) const {
    const std::size_t slash = path.find_last_of('/');
    return (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + name;
}

std::string Manifest::rebuild() const {
    return "gocor build " + quoted(beside(model)) + " -o " + quoted(path) + options;
}

void Manifest::check_interface(const std::string& what, const std::vector<Tensor>& found,
                               const std::vector<Tensor>& expected) const {
    const bool same =
        found.size() == expected.size() && std::is_permutation(found.begin(), found.end(), expected.begin());
    if (same) return;
    throw bad_model(path, "has " + what + " " + in_words(found),
                    "its manifest says " + in_words(expected) + "; rebuild it: " + rebuild());
}

std::vector<std::int64_t> release(const std::string& version) {
    std::vector<std::int64_t> numbers;
    bool inside = false;
    for (const char character : version) {
        const bool digit = character >= '0' && character <= '9';
        if (digit && !inside) numbers.push_back(0);
        // No version has as many digits; what a manifest claims must not overflow.
        if (digit && numbers.back() < 1'000'000'000) numbers.back() = numbers.back() * 10 + (character - '0');
        inside = digit;
    }
    if (numbers.empty()) numbers.push_back(0);
    return numbers;
}

}  // namespace gocor
