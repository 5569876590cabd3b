// Lanes are shared among threads: each call is lent one that no other has.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "backend.h"
#include "pipeline.h"

namespace gocor {

// What one call at a time has: a backend's lane, and what is prepared for sizes like those that came last.
struct Worker {
    std::unique_ptr<Lane> lane;
    std::int64_t batch = 0;  // that the lane has memory for
    Size size;
    std::unique_ptr<Pipeline> pipeline;
};

// Workers for as many calls at a time as are allowed, made when they are first needed.
class Lanes {
    Model& model_;
    const std::size_t most_;  // 0: any number
    std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<Worker> idle_;
    std::size_t lent_ = 0;

public:
    Lanes(Model& model, std::size_t most) : model_(model), most_(most) {}

    // One that is idle, else one without a lane. The caller has to give it back.
    Worker take() {
        std::unique_lock lock(mutex_);
        returned_.wait(lock, [this] { return most_ == 0 || lent_ < most_; });
        ++lent_;
        if (idle_.empty()) return {};
        Worker worker = std::move(idle_.back());
        idle_.pop_back();
        return worker;
    }

    void give_back(Worker worker) noexcept {
        {
            const std::scoped_lock lock(mutex_);
            --lent_;
            try {
                if (worker.lane) idle_.push_back(std::move(worker));
            } catch (const std::bad_alloc&) {  // then the next call makes another
                worker = {};
            }
        }
        returned_.notify_one();
    }

    Model& model() { return model_; }
};

// A worker for the length of a call. One whose run failed is not used again.
class LentLane {
    Lanes& lanes_;
    Worker worker_;
    int exceptions_ = std::uncaught_exceptions();

public:
    explicit LentLane(Lanes& lanes) : lanes_(lanes), worker_(lanes.take()) {
        if (worker_.lane) return;
        try {
            worker_.lane = lanes.model().make_lane();
        } catch (...) {
            lanes.give_back({});
            throw;
        }
    }
    ~LentLane() { lanes_.give_back(std::uncaught_exceptions() == exceptions_ ? std::move(worker_) : Worker{}); }
    LentLane(const LentLane&) = delete;
    LentLane& operator=(const LentLane&) = delete;

    Lane& lane() const { return *worker_.lane; }

    void prepare(const Metadata& fixed) {
        if (worker_.batch == fixed.batch && worker_.size == fixed.size) return;
        worker_.lane->prepare(fixed);
        worker_.batch = fixed.batch;
        worker_.size = fixed.size;
    }

    Pipeline& pipeline_for(Size images) {
        std::unique_ptr<Pipeline>& pipeline = worker_.pipeline;
        if (!pipeline || pipeline->images() != images || pipeline->model() != worker_.size) {
            pipeline = std::make_unique<Pipeline>(lanes_.model().metadata, images, worker_.size);
        }
        return *pipeline;
    }
};

}  // namespace gocor
