// Flow of an image pair with libgocor: two .ppm images in, a .flo file out, and how long it took.
//
//   cmake -S examples/cpp -B build/example -Dgocor_ROOT=/opt/gocor && cmake --build build/example
//   build/example/estimate model.xml reference.ppm query.ppm flow.flo
//
// `convert image.png image.ppm` makes such images. Whatever else you read images with fits as well: gocor::Image
// takes an address, a size and a stride, in RGB or BGR; cv::Mat's are {mat.data, mat.rows, mat.cols,
// static_cast<std::ptrdiff_t>(mat.step), GOCOR_BGR}.

#include <gocor.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int LARGEST_SIDE = 20'000;
constexpr int RUNS = 10;

struct Picture {
    int height = 0, width = 0;
    std::vector<std::uint8_t> pixels;
    gocor::Image image() const { return {pixels.data(), height, width}; }
};

// The next number of a PPM header, which may have comments.
int read_number(std::istream& file) {
    while ((file >> std::ws).peek() == '#') file.ignore(1000, '\n');
    int number = 0;
    file >> number;
    return number;
}

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    Picture picture;
    const bool known = file.get() == 'P' && file.get() == '6';
    picture.width = read_number(file);
    picture.height = read_number(file);
    const int maximum = read_number(file);
    file.get();  // one space before the pixels
    if (!file || !known || maximum != 255 || std::min(picture.width, picture.height) < 1 ||
        std::max(picture.width, picture.height) > LARGEST_SIDE) {
        throw std::runtime_error(path + ": is no PPM image of 8 bits (P6); convert image.png image.ppm makes one");
    }
    picture.pixels.resize(std::size_t{3} * static_cast<std::size_t>(picture.height) *
                          static_cast<std::size_t>(picture.width));
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()))) {
        throw std::runtime_error(path + ": ends before its last pixel");
    }
    return picture;
}

// Middlebury's format: a tag, the size, and x and y of each pixel (little-endian machines only).
void write_flo(const std::string& path, const std::vector<float>& flow, int height, int width) {
    const std::size_t pixels = flow.size() / 2;
    std::vector<float> interleaved(flow.size());
    for (std::size_t i = 0; i < pixels; ++i) {
        interleaved[2 * i] = flow[i];
        interleaved[2 * i + 1] = flow[pixels + i];
    }
    const float tag = 202021.25F;
    const std::int32_t size[] = {width, height};
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&tag), sizeof tag);
    file.write(reinterpret_cast<const char*>(size), sizeof size);
    file.write(reinterpret_cast<const char*>(interleaved.data()),
               static_cast<std::streamsize>(interleaved.size() * sizeof(float)));
    if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

void run(const std::string& model, const std::string& first, const std::string& second, const std::string& output) {
    const Picture reference = read_ppm(first), query = read_ppm(second);
    const gocor::Estimator estimator(model);
    const gocor::Info& info = estimator.info();
    std::printf("%s, %dx%d, %s in %s\n", info.network, info.height, info.width, info.precision, info.backend);

    std::vector<float> flow = estimator(reference.image(), query.image());  // the first run takes longer
    std::vector<double> milliseconds;
    for (int i = 0; i < RUNS; ++i) {
        const auto start = std::chrono::steady_clock::now();
        flow = estimator(reference.image(), query.image());
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
        milliseconds.push_back(took.count());
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    std::printf("%.2f ms in the middle of %d runs, %.2f to %.2f\n", milliseconds[RUNS / 2], RUNS, milliseconds.front(),
                milliseconds.back());
    write_flo(output, flow, info.height, info.width);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 5) {
        std::fprintf(stderr, "usage: estimate MODEL REFERENCE.ppm QUERY.ppm FLOW.flo\n");
        return 2;
    }
    try {
        run(arguments[1], arguments[2], arguments[3], arguments[4]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
