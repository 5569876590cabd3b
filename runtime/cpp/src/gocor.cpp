// The C interface: arguments are checked, exceptions become status codes, lanes are shared among threads.

#include "gocor.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "backend.h"
#include "error.h"
#include "lanes.h"
#include "reading.h"

namespace gocor {
namespace {

Failure invalid(const std::string& where, const std::string& got, const std::string& expected) {
    return {GOCOR_INVALID_ARGUMENT, where, got, expected};
}

std::unique_ptr<Model> load(const std::string& path, const Options& options) {
    const std::string suffix = std::filesystem::path(path).extension().string();
    [[maybe_unused]] const auto missing = [&path](const std::string& name) {
        return Failure(GOCOR_UNAVAILABLE, path,
                       "is a model for " + name + ", which is not in this build of the library",
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

std::string size_in_words(std::int64_t height, std::int64_t width) {
    return std::to_string(height) + "x" + std::to_string(width);
}

void check_image(const std::string& name, const gocor_image& image, const gocor_image& first) {
    if (image.pixels == nullptr) throw invalid(name, "has no pixels", "an address of them");
    int order = 0;  // whatever a caller put there: an enum with another value than its own is not to be read
    static_assert(sizeof order == sizeof image.order);
    std::memcpy(&order, &image.order, sizeof order);
    if (order != GOCOR_RGB && order != GOCOR_BGR) {
        throw invalid(name, "has order " + std::to_string(order), "GOCOR_RGB or GOCOR_BGR");
    }
    const std::string size = "has size " + size_in_words(image.height, image.width);
    if (image.height < 1 || image.width < 1) throw Failure(GOCOR_BAD_IMAGE, name, size, "at least 1x1");
    if (image.height != first.height || image.width != first.width) {
        throw Failure(GOCOR_BAD_IMAGE, name, size,
                      "that of the first reference, " + size_in_words(first.height, first.width));
    }
    const std::ptrdiff_t stride = image.row_stride, row = std::ptrdiff_t{3} * image.width;
    if (stride != 0 && stride < row && stride > -row) {
        throw invalid(name, "has a row stride of " + std::to_string(stride) + " bytes",
                      "0, or at least its row of " + std::to_string(row) + " bytes");
    }
}

thread_local std::string last_error;

gocor_status failed(gocor_status status, const char* text) noexcept {
    try {
        last_error = one_line(text);
        return status;
    } catch (...) {
        last_error = "memory ran out";  // short enough for a string to need none
        return GOCOR_FAILED;
    }
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
        info.height = static_cast<std::int32_t>(metadata.size.height);
        info.width = static_cast<std::int32_t>(metadata.size.width);
        info.batch = static_cast<std::int32_t>(metadata.batch);
        info.orientation_score = metadata.orientation_score() ? 1 : 0;
        info.int8 = metadata.int8 ? 1 : 0;
        info.network = metadata.spec->name.c_str();
        info.backend = model->backend.c_str();
        info.precision = model->precision.c_str();
        info.gocor_version = metadata.gocor_version.c_str();
    }

    void estimate(const gocor_image* references, const gocor_image* queries, std::size_t count, float* flow,
                  float* scores) const {
        const gocor::Size size = {references[0].height, references[0].width};
        const auto sized = [&](std::size_t pairs) {
            return model->metadata.for_images(static_cast<std::int64_t>(pairs), size);
        };
        sized(count);  // what is refused needs no lane
        gocor::LentLane lent(lanes);
        gocor::Lane& lane = lent.lane();
        for (std::size_t start = 0, used = 0; start < count; start += used) {
            const gocor::Metadata fixed = sized(count - start);
            const auto batch = static_cast<std::size_t>(fixed.batch);
            used = std::min(batch, count - start);
            lent.prepare(fixed);
            gocor::Pipeline& pipeline = lent.pipeline_for(size);
            for (std::size_t i = 0; i < batch; ++i) {  // the last pair fills up the last batch
                const std::size_t pair = start + std::min(i, used - 1);
                pipeline.fill(references[pair], queries[pair], i, lane);
            }
            lane.run();
            pipeline.read_flow(lane.flow(), used, flow + start * 2 * size.pixels());
            if (scores != nullptr && lane.orientation_score() != nullptr) {
                std::copy_n(lane.orientation_score(), used, scores + start);
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
        gocor::check_is_file(path, "give a model made by gocor export or gocor build");
        const gocor::Options chosen{given.threads, given.plugin_library != nullptr ? given.plugin_library : ""};
        auto made =
            std::make_unique<gocor_estimator>(gocor::load(path, chosen), static_cast<std::size_t>(given.parallel));
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
        const auto check_pair = [&](std::size_t i) {
            const std::string number = count == 1 ? "" : " " + std::to_string(i);
            gocor::check_image("reference" + number, references[i], references[0]);
            gocor::check_image("query" + number, queries[i], references[0]);
        };
        check_pair(0);
        const std::size_t one = 2 * gocor::Size{references[0].height, references[0].width}.pixels();
        if (flow_size / one < count) {
            throw invalid("flow", "has room for " + std::to_string(flow_size) + " floats",
                          std::to_string(count) + " pairs of " + std::to_string(one));
        }
        for (std::size_t i = 1; i < count; ++i) check_pair(i);  // now that the count is believed
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
        const std::string instead = "gocor_estimate, which takes images in host memory";
        if (estimator->model->metadata.tensors()) {
            throw gocor::Failure(GOCOR_UNAVAILABLE, "gocor_enqueue", "is for models that take images, not tensors",
                                 instead + "; or gocor export --io images");
        }
        gocor::LentLane lent(estimator->lanes);
        lent.prepare(estimator->model->metadata.usual());
        if (!lent.lane().enqueue(references, queries, flow, stream)) {
            throw gocor::Failure(GOCOR_UNAVAILABLE, "gocor_enqueue",
                                 "is for engines, not for " + estimator->model->backend, instead);
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
