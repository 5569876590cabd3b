// Reading files that anybody may have written: never more of them than a limit; see core/reading.py.

#pragma once

#include <cstddef>
#include <string>

namespace gocor {

// How large files of one kind may be. The environment variable GOCOR_MAX_<KIND>_MIB may say otherwise.
struct Limit {
    const char* kind;  // in capital letters
    std::size_t mebibytes;
};

constexpr Limit MANIFEST_LIMIT = {"MANIFEST", 1}, MODEL_LIMIT = {"MODEL", 2048};

// Refuses what is no file: a folder, or a pipe, which would be waited for. `hint` is what to do if it is missing.
void check_is_file(const std::string& path, const std::string& hint);

// The bytes of a file.
std::string read_file(const std::string& path, const std::string& hint, const Limit& limit);

}  // namespace gocor
