// Flow of an image pair with libgocor: two pictures in (.ppm, or .png with libpng), a .flo file out, and how long it
// took.
//
//   cmake -S examples/cpp -B build/example -Dgocor_ROOT=/opt/gocor && cmake --build build/example
//   build/example/estimate model.xml reference.png query.png flow.flo
//
// Whatever else you read images with fits as well: gocor::Image takes an address, a size and a stride, in RGB or BGR;
// cv::Mat's are {mat.data, mat.rows, mat.cols, static_cast<std::ptrdiff_t>(mat.step), GOCOR_BGR}.

#include <gocor.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "files.h"

namespace {

constexpr int RUNS = 10;

void run(const std::string& model, const std::string& first, const std::string& second, const std::string& output) {
    const Picture one = read_picture(first), two = read_picture(second);
    const gocor::Image reference(one.pixels.data(), one.height, one.width);
    const gocor::Image query(two.pixels.data(), two.height, two.width);
    const gocor::Estimator estimator(model);
    const gocor::Info& info = estimator.info();
    std::printf("%s, %dx%d, %s in %s\n", info.network, info.height, info.width, info.precision, info.backend);

    std::vector<float> flow = estimator(reference, query);  // the first run takes longer
    std::vector<double> milliseconds;
    for (int i = 0; i < RUNS; ++i) {
        const auto start = std::chrono::steady_clock::now();
        flow = estimator(reference, query);
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
        milliseconds.push_back(took.count());
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    std::printf("%.2f ms in the middle of %d runs, %.2f to %.2f\n", milliseconds[RUNS / 2], RUNS, milliseconds.front(),
                milliseconds.back());
    write_flo(output, flow, one.height, one.width);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 5) {
        std::fprintf(stderr, "usage: estimate MODEL REFERENCE QUERY FLOW.flo\n");
        return 2;
    }
    try {
        run(arguments[1], arguments[2], arguments[3], arguments[4]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
