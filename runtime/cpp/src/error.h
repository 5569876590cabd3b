// What the library throws inside; gocor.cpp turns it into status codes.

#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "gocor.h"

namespace gocor {

// Where, what was found there, what was expected or what to do.
class Failure : public std::runtime_error {
    gocor_status status_;

public:
    Failure(gocor_status status, const std::string& where, const std::string& got, const std::string& expected)
        : std::runtime_error(where + ": " + got + "; " + expected), status_(status) {}

    gocor_status status() const noexcept { return status_; }
};

// About a model file.
inline Failure bad_model(const std::string& where, const std::string& got, const std::string& expected) {
    return {GOCOR_BAD_MODEL, where, got, expected};
}

// A line in UTF-8 that a terminal shows and does not obey, as in core/errors.py: texts quote files, which may hold
// escape sequences, no text at all, or more of it than anybody reads.
std::string one_line(std::string_view text);

}  // namespace gocor
