#include "files.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#ifdef WITH_PNG
#include <png.h>
#endif

namespace {

constexpr std::uint32_t LARGEST_SIDE = 20'000;

std::size_t bytes_of(const Picture& picture) {
    return std::size_t{3} * static_cast<std::size_t>(picture.height) * static_cast<std::size_t>(picture.width);
}

// The next number of a PPM header, which may have comments.
int read_number(std::istream& file) {
    while ((file >> std::ws).peek() == '#') file.ignore(1000, '\n');
    int number = 0;
    file >> number;
    return number;
}

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    Picture picture;
    const bool known = file.get() == 'P' && file.get() == '6';
    picture.width = read_number(file);
    picture.height = read_number(file);
    const int maximum = read_number(file);
    file.get();  // one space before the pixels
    const int largest = static_cast<int>(LARGEST_SIDE);
    if (!file || !known || maximum != 255 || std::min(picture.width, picture.height) < 1 ||
        std::max(picture.width, picture.height) > largest) {
        throw std::runtime_error(path + ": is no PPM image of 8 bits (P6); convert image.png image.ppm makes one");
    }
    picture.pixels.resize(bytes_of(picture));
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()),
                   static_cast<std::streamsize>(picture.pixels.size()))) {
        throw std::runtime_error(path + ": ends before its last pixel");
    }
    return picture;
}

#ifdef WITH_PNG
Picture read_png(const std::string& path) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    struct Free {
        png_image& image;
        ~Free() { png_image_free(&image); }
    } const free{image};
    const auto failed = [&] { return std::runtime_error(path + ": is no PNG image (" + image.message + ")"); };
    if (png_image_begin_read_from_file(&image, path.c_str()) == 0) throw failed();
    if (std::max(image.width, image.height) > LARGEST_SIDE) {
        throw std::runtime_error(path + ": is larger than " + std::to_string(LARGEST_SIDE) + " pixels");
    }
    image.format = PNG_FORMAT_RGB;  // greys, palettes and 16 bits become 8 bits of RGB; what shows through is black
    Picture picture;
    picture.width = static_cast<int>(image.width);
    picture.height = static_cast<int>(image.height);
    picture.pixels.resize(bytes_of(picture));
    const png_color black{};
    if (png_image_finish_read(&image, &black, picture.pixels.data(), 0, nullptr) == 0) throw failed();
    return picture;
}
#else
Picture read_png(const std::string& path) {
    throw std::runtime_error(path + ": PNG is not in this build, which did not find libpng; convert it to .ppm");
}
#endif

}  // namespace

Picture read_picture(const std::string& path) {
    const bool png = path.size() > 4 && path.compare(path.size() - 4, 4, ".png") == 0;
    return png ? read_png(path) : read_ppm(path);
}

// A tag, the size, and x and y of each pixel (little-endian machines only). A file that was there before is replaced
// when the new one is whole; /dev/null and pipes are written to.
void write_flo(const std::string& path, const std::vector<float>& flow, int height, int width) {
    const std::size_t pixels = flow.size() / 2;
    std::vector<float> interleaved(flow.size());
    for (std::size_t i = 0; i < pixels; ++i) {
        interleaved[2 * i] = flow[i];
        interleaved[2 * i + 1] = flow[pixels + i];
    }
    const float tag = 202021.25F;
    const std::int32_t size[] = {width, height};
    const bool replaces = !std::filesystem::exists(path) || std::filesystem::is_regular_file(path);
    const std::string unfinished = replaces ? path + ".part" : path;
    std::ofstream file(unfinished, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&tag), sizeof tag);
    file.write(reinterpret_cast<const char*>(size), sizeof size);
    file.write(reinterpret_cast<const char*>(interleaved.data()),
               static_cast<std::streamsize>(interleaved.size() * sizeof(float)));
    file.close();
    bool written = file.good();
    if (replaces) {
        written = written && std::rename(unfinished.c_str(), path.c_str()) == 0;
        if (!written) std::remove(unfinished.c_str());
    }
    if (!written) throw std::runtime_error(path + ": cannot be written");
}
