#include "reading.h"

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "error.h"

namespace gocor {
namespace {

constexpr std::size_t MIB = std::size_t{1} << 20;

std::string variable(const Limit& limit) { return std::string("GOCOR_MAX_") + limit.kind + "_MIB"; }

std::size_t mebibytes(const Limit& limit) {
    const char* const given = std::getenv(variable(limit).c_str());
    if (given == nullptr) return limit.mebibytes;
    const std::string text = given;
    const bool number = !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
    if (number) return std::stoul(text);
    throw Failure(GOCOR_INVALID_ARGUMENT, variable(limit), "is '" + text + "'", "a number of MiB");
}

Failure too_large(const std::string& path, const Limit& limit, std::size_t size) {
    const std::string needed = std::to_string((size + MIB - 1) / MIB);
    std::string kind = limit.kind;
    for (char& letter : kind) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    return bad_model(
        path,
        "is too large for a " + kind + " (" + needed + " MiB, and " + std::to_string(mebibytes(limit)) + " are read)",
        "where you trust it: " + variable(limit) + "=" + needed);
}

}  // namespace

void check_is_file(const std::string& path, const std::string& hint) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::not_found) throw bad_model(path, "no such file", hint);
    if (error) throw bad_model(path, "cannot be read (" + error.message() + ")", hint);
    if (std::filesystem::is_directory(status)) throw bad_model(path, "is a folder", hint);
    if (!std::filesystem::is_regular_file(status)) throw bad_model(path, "is no regular file", hint);
}

std::string read_file(const std::string& path, const std::string& hint, const Limit& limit) {
    check_is_file(path, hint);
    errno = 0;
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    if (size >= 0) {
        const auto bytes = static_cast<std::size_t>(size);
        if (bytes > mebibytes(limit) * MIB) throw too_large(path, limit, bytes);
        std::string content(bytes, '\0');
        file.seekg(0);
        if (file.read(content.data(), size)) return content;
    }
    const std::string reason = errno != 0 ? std::generic_category().message(errno) : "it became shorter meanwhile";
    throw bad_model(path, "cannot be read (" + reason + ")", hint);
}

}  // namespace gocor
