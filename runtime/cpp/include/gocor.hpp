// Dense correspondences of image pairs, with the model files of gocor: gocor.h for C++17.
//
//   const gocor::Estimator estimator("model.xml");
//   const std::vector<float> flow = estimator(reference, query);  // (2, height, width) in pixels

#ifndef GOCOR_HPP
#define GOCOR_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gocor.h"

namespace gocor {

using Info = gocor_info;

// What went wrong, in one line.
class Error : public std::runtime_error {
    gocor_status status_;

public:
    Error(gocor_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
    gocor_status status() const noexcept { return status_; }
};

struct Options {
    int threads = 0;             // of the CPU for one estimate; 0: one for each physical core
    int parallel = 0;            // estimates at a time, others wait; 0: any number
    std::string plugin_library;  // of an engine that needs it; empty: the one beside the engine
};

// An image in the caller's memory, three bytes for each pixel. `row_stride` is in bytes; 0 if there are no gaps.
struct Image : gocor_image {
    Image(const std::uint8_t* pixels, int height, int width, std::ptrdiff_t row_stride = 0,
          gocor_order order = GOCOR_RGB)
        : gocor_image{pixels, height, width, row_stride, order} {}

    // Floats in its flow.
    std::size_t flow_size() const noexcept {
        return height < 1 || width < 1
                   ? 0
                   : std::size_t{2} * static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    }
};

// A loaded model. It can be moved; any number of threads may call one, with images of any size.
class Estimator {
    struct Release {
        void operator()(gocor_estimator* estimator) const noexcept { gocor_release(estimator); }
    };
    std::unique_ptr<gocor_estimator, Release> estimator_;

    static void check(gocor_status status) {
        if (status != GOCOR_OK) throw Error(status, gocor_last_error());
    }

public:
    explicit Estimator(const std::string& path, const Options& options = {}) {
        const gocor_options given = {sizeof(gocor_options), options.threads, options.parallel,
                                     options.plugin_library.empty() ? nullptr : options.plugin_library.c_str()};
        gocor_estimator* estimator = nullptr;
        check(gocor_create(path.c_str(), &given, &estimator));
        estimator_.reset(estimator);
    }

    const Info& info() const noexcept { return *gocor_get_info(estimator_.get()); }

    // The flow of a pair, (2, height, width) of the images, in pixels, channel 0 = x: reference(x) ≈ query(x +
    // flow(x)).
    std::vector<float> operator()(const Image& reference, const Image& query) const {
        std::vector<float> flow(reference.flow_size());
        estimate(&reference, &query, 1, flow.data(), flow.size());
        return flow;
    }

    // The flows of pairs, all of one size, (N, 2, height, width).
    std::vector<float> operator()(const std::vector<Image>& references, const std::vector<Image>& queries) const {
        if (references.size() != queries.size()) {
            throw Error(GOCOR_INVALID_ARGUMENT, "queries: are " + std::to_string(queries.size()) +
                                                    "; as many as references, " + std::to_string(references.size()));
        }
        const std::vector<gocor_image> first(references.begin(), references.end());
        const std::vector<gocor_image> second(queries.begin(), queries.end());
        std::vector<float> flow(references.empty() ? 0 : first.size() * references[0].flow_size());
        estimate(first.data(), second.data(), first.size(), flow.data(), flow.size());
        return flow;
    }

    // The same into memory that is there already, and with orientation_scores (N) if that is not null.
    void estimate(const gocor_image* references, const gocor_image* queries, std::size_t count, float* flow,
                  std::size_t flow_size, float* orientation_scores = nullptr) const {
        check(gocor_estimate(estimator_.get(), references, queries, count, flow, flow_size, orientation_scores));
    }

    // One batch on a CUDA stream, everything in the GPU's memory: see gocor_enqueue.
    void enqueue(const void* references, const void* queries, float* flow, void* stream) const {
        check(gocor_enqueue(estimator_.get(), references, queries, flow, stream));
    }
};

}  // namespace gocor

#endif
