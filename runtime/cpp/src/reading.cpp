#include "reading.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
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

std::string read_file(const std::string& path, const std::string& what, const Limit& limit) {
    errno = 0;
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    std::string content;
    // A folder opens, too, and says that it is as long as there are numbers.
    if (size >= 0 && size < std::streamoff{1} << 40) {
        const auto bytes = static_cast<std::size_t>(size);
        if (bytes > mebibytes(limit) * MIB) throw too_large(path, limit, bytes);
        content.resize(bytes);
        file.seekg(0);
        if (file.read(content.data(), size)) return content;
    }
    if (errno == ENOENT) throw bad_model(path, "no such file", what);
    throw bad_model(path, "cannot be read (" + std::generic_category().message(errno != 0 ? errno : EISDIR) + ")",
                    what);
}

}  // namespace gocor
