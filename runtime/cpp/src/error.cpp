#include "error.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace gocor {
namespace {

constexpr std::size_t LONGEST = 4000, LAST = 400;  // bytes of a text, and those of its end if it is longer

// How many bytes the UTF-8 character at the start of a text has; 0 if there is none, or one that controls a terminal.
std::size_t printable(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) return lead >= 0x20 && lead != 0x7f ? 1 : 0;
    const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || length > text.size()) return 0;
    std::uint32_t code = lead & (0xFFU >> (length + 1));
    for (const char next : text.substr(1, length - 1)) {
        const auto byte = static_cast<unsigned char>(next);
        if ((byte & 0xC0) != 0x80) return 0;
        code = code << 6 | (byte & 0x3FU);
    }
    constexpr std::uint32_t SHORTEST[] = {0, 0, 0xA0, 0x800, 0x10000};  // with as many bytes; up to A0 they control
    const bool right = code >= SHORTEST[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    return right ? length : 0;
}

}  // namespace

std::string one_line(std::string_view text) {
    if (text.size() > LONGEST) {
        return one_line(text.substr(0, LONGEST - LAST)) + " … " + one_line(text.substr(text.size() - LAST));
    }
    constexpr const char* DIGITS = "0123456789abcdef";
    std::string line;
    while (!text.empty()) {
        const auto code = static_cast<unsigned char>(text[0]);
        const std::size_t shown = printable(text);
        if (shown != 0) {
            line += text.substr(0, shown);
        } else if (code == '\n' || code == '\r' || code == '\t') {
            line += ' ';
        } else {
            line += {'\\', 'x', DIGITS[code >> 4], DIGITS[code & 15]};
        }
        text.remove_prefix(std::max(shown, std::size_t{1}));
    }
    return line;
}

}  // namespace gocor
