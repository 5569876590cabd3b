#pragma once

#include <cstddef>
#include <string>

namespace gocor {

// SHA-256 of bytes in lower-case hexadecimal digits (FIPS 180-4).
std::string sha256(const void* data, std::size_t size);

}  // namespace gocor
