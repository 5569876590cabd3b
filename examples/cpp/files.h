// Files of the example: pictures in, flow out.

#ifndef FILES_H
#define FILES_H

#include <cstdint>
#include <string>
#include <vector>

struct Picture {
    int height = 0, width = 0;
    std::vector<std::uint8_t> pixels;  // RGB (height, width, 3)
};

// Reads .ppm (P6, 8 bits), and .png if libpng was found. Throws std::runtime_error, one line.
Picture read_picture(const std::string& path);

// Writes Middlebury's .flo of a flow (2, height, width). Throws std::runtime_error, one line.
void write_flo(const std::string& path, const std::vector<float>& flow, int height, int width);

#endif
