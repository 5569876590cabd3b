// The C interface: arguments are checked, exceptions become status codes, lanes are shared among threads.

#include "gocor.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "backend.h"
#include "error.h"

namespace gocor {
namespace {

Failure invalid(const std::string& where, const std::string& got, const std::string& expected) {
    return {GOCOR_INVALID_ARGUMENT, where, got, expected};
}

// Lanes for as many calls at a time as are allowed, made when they are first needed.
class Lanes {
    Model& model_;
    const std::size_t most_;  // 0: any number
    std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<std::unique_ptr<Lane>> idle_;
    std::size_t lent_ = 0;

public:
    Lanes(Model& model, std::size_t most) : model_(model), most_(most) {}

    std::unique_ptr<Lane> take() {
        std::unique_lock lock(mutex_);
        returned_.wait(lock, [this] { return most_ == 0 || lent_ < most_; });
        ++lent_;
        if (idle_.empty()) return nullptr;
        std::unique_ptr<Lane> lane = std::move(idle_.back());
        idle_.pop_back();
        return lane;
    }

    void give_back(std::unique_ptr<Lane> lane) noexcept {
        {
            const std::scoped_lock lock(mutex_);
            --lent_;
            try {
                if (lane) idle_.push_back(std::move(lane));
            } catch (const std::bad_alloc&) {  // then the next call makes another
                lane.reset();
            }
        }
        returned_.notify_one();
    }

    Model& model() { return model_; }
};

// A lane for the length of a call. One whose run failed is not used again.
class LentLane {
    Lanes& lanes_;
    std::unique_ptr<Lane> lane_;
    int exceptions_ = std::uncaught_exceptions();

public:
    explicit LentLane(Lanes& lanes) : lanes_(lanes), lane_(lanes.take()) {
        if (lane_) return;
        try {
            lane_ = lanes.model().make_lane();
        } catch (...) {
            lanes.give_back(nullptr);
            throw;
        }
    }
    ~LentLane() { lanes_.give_back(std::uncaught_exceptions() == exceptions_ ? std::move(lane_) : nullptr); }
    LentLane(const LentLane&) = delete;
    LentLane& operator=(const LentLane&) = delete;

    Lane* operator->() const { return lane_.get(); }
};

std::unique_ptr<Model> load(const std::string& path, const Options& options) {
    const std::size_t dot = path.find_last_of('.');
    const std::string suffix = dot == std::string::npos ? "" : path.substr(dot);
    [[maybe_unused]] const auto missing = [&path](const std::string& name) {
        return Failure(GOCOR_UNAVAILABLE, path, "is a model for " + name + ", which is not in this build of the library",
                       std::string("it has ") + gocor_version() + "; build it with -DGOCOR_BACKENDS=…");
    };
    if (suffix == ".xml") {
#ifdef GOCOR_OPENVINO
        return load_openvino(path, options);
#else
        throw missing("OpenVINO");
#endif
    }
    if (suffix == ".onnx") {
#ifdef GOCOR_ONNXRUNTIME
        return load_onnxruntime(path, options);
#else
        throw missing("ONNX Runtime");
#endif
    }
    if (suffix == ".engine" || suffix == ".plan") {
#ifdef GOCOR_TENSORRT
        return load_tensorrt(path, options);
#else
        throw missing("TensorRT");
#endif
    }
    throw bad_model(path, "has the unknown suffix '" + suffix + "'", "models are .xml, .onnx or .engine files");
}

// Before a library with worse messages sees the file.
void check_exists(const std::string& path) {
    if (!std::ifstream(path, std::ios::binary)) {
        throw bad_model(path, "no such file, or it cannot be read", "give a model made by gocor export or gocor build");
    }
}

std::string size_in_words(std::int64_t height, std::int64_t width) {
    return std::to_string(height) + "x" + std::to_string(width);
}

void check_image(const std::string& name, const gocor_image& image, const Metadata& metadata) {
    if (image.pixels == nullptr) throw invalid(name, "has no pixels", "an address of them");
    if (image.order != GOCOR_RGB && image.order != GOCOR_BGR) {
        throw invalid(name, "has order " + std::to_string(image.order), "GOCOR_RGB or GOCOR_BGR");
    }
    if (image.height != metadata.height || image.width != metadata.width) {
        throw Failure(GOCOR_BAD_IMAGE, name, "has size " + size_in_words(image.height, image.width),
                      "the model's is " + size_in_words(metadata.height, metadata.width) +
                          "; resize it, or export a model of its size");
    }
    const std::ptrdiff_t stride = image.row_stride, row = std::ptrdiff_t{3} * image.width;
    if (stride != 0 && stride < row && stride > -row) {
        throw invalid(name, "has a row stride of " + std::to_string(stride) + " bytes",
                      "0, or at least its row of " + std::to_string(row) + " bytes");
    }
}

// An image as RGB without gaps.
void copy_image(const gocor_image& image, std::uint8_t* out) {
    const std::ptrdiff_t row = std::ptrdiff_t{3} * image.width;
    const std::ptrdiff_t stride = image.row_stride != 0 ? image.row_stride : row;
    const std::uint8_t* pixels = image.pixels;
    for (std::int32_t y = 0; y < image.height; ++y, out += row) {
        const std::uint8_t* in = pixels + y * stride;
        if (image.order == GOCOR_RGB) {
            std::memcpy(out, in, static_cast<std::size_t>(row));
            continue;
        }
        for (std::ptrdiff_t x = 0; x < row; x += 3) {
            out[x] = in[x + 2];
            out[x + 1] = in[x + 1];
            out[x + 2] = in[x];
        }
    }
}

thread_local std::string last_error;

gocor_status failed(gocor_status status, const char* text) noexcept {
    try {
        last_error = Failure::one_line(text);
    } catch (...) {  // no memory for the message either
        last_error.clear();
    }
    return status;
}

// Runs what may throw for a caller who cannot catch.
template <class Run>
gocor_status guarded(Run run) noexcept {
    last_error.clear();
    try {
        run();
        return GOCOR_OK;
    } catch (const Failure& failure) {
        return failed(failure.status(), failure.what());
    } catch (const std::bad_alloc&) {
        return failed(GOCOR_FAILED, "memory ran out");
    } catch (const std::exception& error) {
        return failed(GOCOR_FAILED, error.what());
    } catch (...) {
        return failed(GOCOR_FAILED, "something unknown was thrown");
    }
}

}  // namespace
}  // namespace gocor

struct gocor_estimator {
    std::unique_ptr<gocor::Model> model;
    mutable gocor::Lanes lanes;  // after the model, which lanes must not outlive
    gocor_info info{};

    gocor_estimator(std::unique_ptr<gocor::Model> loaded, std::size_t parallel)
        : model(std::move(loaded)), lanes(*model, parallel) {
        const gocor::Metadata& metadata = model->metadata;
        info.height = static_cast<std::int32_t>(metadata.height);
        info.width = static_cast<std::int32_t>(metadata.width);
        info.batch = static_cast<std::int32_t>(metadata.batch);
        info.orientation_score = metadata.orientation_score ? 1 : 0;
        info.int8 = metadata.int8 ? 1 : 0;
        info.network = metadata.network.c_str();
        info.backend = model->backend.c_str();
        info.precision = model->precision.c_str();
        info.gocor_version = metadata.gocor_version.c_str();
    }

    void estimate(const gocor_image* references, const gocor_image* queries, std::size_t count, float* flow,
                  float* scores) const {
        const auto batch = static_cast<std::size_t>(info.batch);
        const std::size_t pixels = static_cast<std::size_t>(info.height) * static_cast<std::size_t>(info.width);
        const gocor::LentLane lane(lanes);
        for (std::size_t start = 0; start < count; start += batch) {
            const std::size_t used = std::min(batch, count - start);
            for (std::size_t i = 0; i < batch; ++i) {  // the last pair fills up the last batch
                const std::size_t pair = start + std::min(i, used - 1);
                gocor::copy_image(references[pair], lane->reference() + i * 3 * pixels);
                gocor::copy_image(queries[pair], lane->query() + i * 3 * pixels);
            }
            lane->run();
            std::copy_n(lane->flow(), used * 2 * pixels, flow + start * 2 * pixels);
            if (scores != nullptr && lane->orientation_score() != nullptr) {
                std::copy_n(lane->orientation_score(), used, scores + start);
            }
        }
    }
};

using gocor::guarded;
using gocor::invalid;

gocor_status gocor_create(const char* path, const gocor_options* options, gocor_estimator** estimator) noexcept {
    return guarded([&] {
        if (estimator == nullptr) throw invalid("estimator", "is null", "where to put it");
        *estimator = nullptr;
        if (path == nullptr) throw invalid("path", "is null", "that of a model");
        gocor_options given = GOCOR_OPTIONS_DEFAULT;
        if (options != nullptr) {
            if (options->struct_size != sizeof(given)) {
                throw invalid("options", "have struct_size " + std::to_string(options->struct_size),
                              "start with GOCOR_OPTIONS_DEFAULT: " + std::to_string(sizeof(given)));
            }
            given = *options;
        }
        if (given.threads < 0) throw invalid("threads", "is " + std::to_string(given.threads), "0 or more");
        if (given.parallel < 0) throw invalid("parallel", "is " + std::to_string(given.parallel), "0 or more");
        gocor::check_exists(path);
        const gocor::Options chosen{given.threads, given.plugin_library != nullptr ? given.plugin_library : ""};
        auto made = std::make_unique<gocor_estimator>(gocor::load(path, chosen),
                                                      static_cast<std::size_t>(given.parallel));
        *estimator = made.release();
    });
}

const gocor_info* gocor_get_info(const gocor_estimator* estimator) noexcept {
    return estimator != nullptr ? &estimator->info : nullptr;
}

gocor_status gocor_estimate(const gocor_estimator* estimator, const gocor_image* references, const gocor_image* queries,
                            size_t count, float* flow, size_t flow_size, float* orientation_scores) noexcept {
    return guarded([&] {
        if (estimator == nullptr) throw invalid("estimator", "is null", "one of gocor_create");
        if (count == 0) return;
        if (references == nullptr) throw invalid("references", "is null", "addresses of images");
        if (queries == nullptr) throw invalid("queries", "is null", "addresses of images");
        if (flow == nullptr) throw invalid("flow", "is null", "where to put it");
        const gocor::Metadata& metadata = estimator->model->metadata;
        const auto one = static_cast<std::size_t>(2 * metadata.height * metadata.width);
        if (flow_size / one < count) {
            throw invalid("flow", "has room for " + std::to_string(flow_size) + " floats",
                          std::to_string(count) + " pairs of " + std::to_string(one));
        }
        for (std::size_t i = 0; i < count; ++i) {
            const std::string number = count == 1 ? "" : " " + std::to_string(i);
            gocor::check_image("reference" + number, references[i], metadata);
            gocor::check_image("query" + number, queries[i], metadata);
        }
        estimator->estimate(references, queries, count, flow, orientation_scores);
    });
}

gocor_status gocor_enqueue(const gocor_estimator* estimator, const void* references, const void* queries, float* flow,
                           void* stream) noexcept {
    return guarded([&] {
        if (estimator == nullptr) throw invalid("estimator", "is null", "one of gocor_create");
        if (references == nullptr) throw invalid("references", "is null", "an address on the GPU");
        if (queries == nullptr) throw invalid("queries", "is null", "an address on the GPU");
        if (flow == nullptr) throw invalid("flow", "is null", "an address on the GPU");
        const gocor::LentLane lane(estimator->lanes);
        if (!lane->enqueue(references, queries, flow, stream)) {
            throw gocor::Failure(GOCOR_UNAVAILABLE, "gocor_enqueue", "is for engines, not for " + estimator->model->backend,
                                 "gocor_estimate, which takes images in host memory");
        }
    });
}

void gocor_release(gocor_estimator* estimator) noexcept { delete estimator; }

const char* gocor_last_error() noexcept { return gocor::last_error.c_str(); }

const char* gocor_version() noexcept {
    return GOCOR_VERSION
#ifdef GOCOR_OPENVINO
        " openvino"
#endif
#ifdef GOCOR_ONNXRUNTIME
        " onnxruntime"
#endif
#ifdef GOCOR_TENSORRT
        " tensorrt"
#endif
        ;
}
