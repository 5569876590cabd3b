// A library that runs models. Each is in one file, <name>_backend.cpp.

#pragma once

#include <cstdint>
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

    virtual std::uint8_t* reference() = 0;  // RGB (batch, height, width, 3), to be filled
    virtual std::uint8_t* query() = 0;
    virtual void run() = 0;
    virtual const float* flow() const = 0;               // (batch, 2, height, width), valid until the next run
    virtual const float* orientation_score() const = 0;  // (batch), or null

    // Enqueues a run on a stream, with everything in the GPU's memory. False if the backend has no GPU.
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
