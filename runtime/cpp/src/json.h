// JSON (RFC 8259), read strictly: what a manifest needs, and nothing that writes.

#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace gocor {

struct JsonError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A value. `get` and the readers below throw a JsonError that names what is missing or of another kind.
struct Json {
    enum class Kind : std::uint8_t { null, boolean, integer, number, string, array, object };

    Kind kind = Kind::null;
    bool boolean = false;
    std::int64_t integer = 0;
    double number = 0;  // also of an integer
    std::string string;
    std::vector<std::string> names;  // of an object's members, in order; their values are in `values`
    std::vector<Json> values;        // of an object or array

    const Json* find(std::string_view name) const;  // a member, or null
    const Json& get(std::string_view name) const;

    const std::string& string_at(std::string_view name) const;
    bool boolean_at(std::string_view name) const;
    const std::vector<Json>& array_at(std::string_view name) const;
};

// Reads a document. Names may not come twice, nesting goes to 64, and numbers have to fit their types.
Json parse_json(std::string_view text);

}  // namespace gocor
