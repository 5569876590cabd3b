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

    // A line that a terminal shows and does not obey: files that it quotes may hold escape sequences.
    static std::string one_line(const std::string& text) {
        constexpr const char* DIGITS = "0123456789abcdef";
        std::string line;
        for (const char character : text) {
            const auto code = static_cast<unsigned char>(character);
            if (character == '\n' || character == '\r' || character == '\t') {
                line += ' ';
            } else if (code < 0x20 || code == 0x7f) {
                line += {'\\', 'x', DIGITS[code >> 4], DIGITS[code & 15]};
            } else {
                line += character;
            }
        }
        return line;
    }
};

// About a model file.
inline Failure bad_model(const std::string& where, const std::string& got, const std::string& expected) {
    return {GOCOR_BAD_MODEL, where, got, expected};
}

}  // namespace gocor
