// What the library throws inside; gocor.cpp turns it into status codes.

#pragma once

#include <stdexcept>
#include <string>

#include "gocor.h"

namespace gocor {

// One line: where, what was found there, what was expected or what to do.
class Failure : public std::runtime_error {
    gocor_status status_;

public:
    Failure(gocor_status status, const std::string& where, const std::string& got, const std::string& expected)
        : std::runtime_error(one_line(where + ": " + got + "; " + expected)), status_(status) {}

    gocor_status status() const noexcept { return status_; }

    static std::string one_line(std::string text) {
        for (char& character : text) {
            if (character == '\n' || character == '\r' || character == '\t') character = ' ';
        }
        return text;
    }
};

// About a model file.
inline Failure bad_model(const std::string& where, const std::string& got, const std::string& expected) {
    return {GOCOR_BAD_MODEL, where, got, expected};
}

}  // namespace gocor
