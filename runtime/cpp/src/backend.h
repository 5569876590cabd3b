// A library that runs models. Each is in one file, <name>_backend.cpp.

#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "metadata.h"

namespace gocor {

struct Options {
    int threads = 0;
    std::string plugin_library;
};

// What one estimate at a time needs: memory for a batch, and whatever the library keeps for a run.
class Lane {
public:
    Lane() = default;
    Lane(const Lane&) = delete;
    Lane& operator=(const Lane&) = delete;
    virtual ~Lane() = default;

    // Makes memory for runs of these sizes, before the first and before each of others.
    virtual void prepare(const Metadata& fixed) = 0;

    virtual void* input(std::size_t index) = 0;  // memory of one of the metadata's inputs, to be filled
    virtual void run() = 0;
    virtual const float* flow() const = 0;               // the first of the metadata's results, until the next run
    virtual const float* orientation_score() const = 0;  // (batch), or null

    // Enqueues a run of a model that takes images on a stream, with everything in the GPU's memory. False if the
    // backend has no GPU.
    virtual bool enqueue(const void* /*reference*/, const void* /*query*/, float* /*flow*/, void* /*stream*/) {
        return false;
    }
};

// A loaded model. Lanes are made by any thread, and none outlives its model.
class Model {
public:
    Model() = default;
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;
    virtual ~Model() = default;

    virtual std::unique_ptr<Lane> make_lane() = 0;

    Metadata metadata;
    std::string backend;
    std::string precision;  // that it runs in
};

std::unique_ptr<Model> load_openvino(const std::string& path, const Options& options);
std::unique_ptr<Model> load_onnxruntime(const std::string& path, const Options& options);
std::unique_ptr<Model> load_tensorrt(const std::string& path, const Options& options);

}  // namespace gocor
