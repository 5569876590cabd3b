// The threads of a block on a CPU, for tests: what CUDA promises about them, and no more.
//
// Either real threads, so that ThreadSanitizer sees a missing barrier, or with GOCOR_FIBERS one thread that takes
// turns, which is far faster: a barrier costs 128 switches of a few nanoseconds.
//
// Memory is made to betray mistakes. Each array in shared memory has a heap block of exactly its size, so that
// AddressSanitizer sees overruns. It starts as NaN. A copy in the background makes its target NaN when it is
// started and delivers when it is waited for, the two ends of what hardware may do.

#pragma once

#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#ifdef GOCOR_FIBERS
#include <setjmp.h>
#include <ucontext.h>
#endif

namespace gocor::host {

constexpr int WARP = 32;
constexpr std::size_t SHARED_LIMIT = 49152;  // what a block may have without asking the driver

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "kernel on the host: %s\n", what);
    std::abort();
}

inline void check(bool right, const char* what) {
    if (!right) fail(what);
}

inline bool is_multiple(const void* address, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

#ifdef GOCOR_FIBERS
void let_others_run();

class Barrier {
    int count_, waiting_ = 0;
    unsigned turn_ = 0;

public:
    explicit Barrier(int count) : count_(count) {}

    void wait() {
        const unsigned turn = turn_;
        if (++waiting_ == count_) {
            waiting_ = 0;
            ++turn_;
            return;
        }
        while (turn == turn_) let_others_run();
    }
};
#else
class Barrier {  // one that ThreadSanitizer knows
    pthread_barrier_t barrier_;

public:
    explicit Barrier(int count) { pthread_barrier_init(&barrier_, nullptr, static_cast<unsigned>(count)); }
    ~Barrier() { pthread_barrier_destroy(&barrier_); }
    Barrier(const Barrier&) = delete;
    Barrier& operator=(const Barrier&) = delete;

    void wait() { pthread_barrier_wait(&barrier_); }
};
#endif

// What the lanes of a warp show each other in a collective operation.
struct Shown {
    float a[8], b[4];  // factors, in the order of registers
    const void* row;
};

struct Warp {
    Barrier barrier;
    // Alternately used: one barrier for each operation is then enough, since no lane is two operations ahead.
    Shown shown[2][WARP] = {};

    explicit Warp(int lanes) : barrier(lanes) {}
};

class Block {
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::map<std::string, std::unique_ptr<void, Free>> arrays_;
    std::size_t shared_bytes_ = 0;
    std::mutex mutex_;

public:
    const int x, y, z;
    Barrier barrier;
    std::vector<std::unique_ptr<Warp>> warps;

    Block(int x_, int y_, int z_, int threads) : x(x_), y(y_), z(z_), barrier(threads) {
        for (int first = 0; first < threads; first += WARP) {
            warps.push_back(std::make_unique<Warp>(threads - first < WARP ? threads - first : WARP));
        }
    }

    void* shared(const char* name, std::size_t bytes) {
        const std::scoped_lock lock(mutex_);
        auto& array = arrays_[name];
        if (!array) {
            void* memory = nullptr;
            check(posix_memalign(&memory, 16, bytes) == 0, "out of memory");
            std::memset(memory, 0xff, bytes);
            array.reset(memory);
            shared_bytes_ += bytes;
            check(shared_bytes_ <= SHARED_LIMIT, "more than 48 KB of shared memory");
        }
        return array.get();
    }
};

struct Copy {
    void* to;
    const void* from;  // null: zeros
    std::size_t bytes;
};

// One thread of a block.
struct Lane {
    Block* block = nullptr;
    int thread = 0;
    unsigned operations = 0;                // collective ones so far
    std::vector<std::vector<Copy>> copies;  // batches under way; the last one is not committed yet

    Warp& warp() const { return *block->warps[static_cast<std::size_t>(thread / WARP)]; }

    // Shows the warp something; gives what all lanes show.
    const Shown* show(const Shown& mine) {
        Shown* all = warp().shown[operations++ % 2];
        all[thread % WARP] = mine;
        warp().barrier.wait();
        return all;
    }

    void start_copy(void* to, const void* from, std::size_t bytes) {
        check(is_multiple(to, bytes) && is_multiple(from, bytes), "a copy that is not aligned");
        std::memset(to, 0xff, bytes);
        if (copies.empty()) copies.emplace_back();
        copies.back().push_back({to, from, bytes});
    }

    void commit_copies() {
        if (copies.empty()) copies.emplace_back();
        copies.emplace_back();
    }

    void wait_copies(std::size_t pending) {
        while (copies.size() > pending + 1) {
            for (const Copy& copy : copies.front()) {
                if (copy.from) {
                    std::memcpy(copy.to, copy.from, copy.bytes);
                } else {
                    std::memset(copy.to, 0, copy.bytes);
                }
            }
            copies.erase(copies.begin());
        }
    }

    void run(const std::function<void()>& kernel) {
        kernel();
        for (const auto& batch : copies) check(batch.empty(), "a copy that nobody waited for");
        copies.clear();
    }
};

#ifdef GOCOR_FIBERS

struct Fiber {
    Lane lane;
    jmp_buf state;
    std::unique_ptr<char[]> stack;
    bool done = false;
};

struct Turns {
    std::vector<Fiber> fibers;
    std::size_t current = 0;
    jmp_buf caller;
    const std::function<void()>* kernel = nullptr;
};

inline Turns turns;

inline Lane& self() { return turns.fibers[turns.current].lane; }

[[noreturn]] inline void run_next() {
    const std::size_t count = turns.fibers.size();
    for (std::size_t i = 1; i <= count; ++i) {
        const std::size_t next = (turns.current + i) % count;
        if (turns.fibers[next].done) continue;
        turns.current = next;
        _longjmp(turns.fibers[next].state, 1);
    }
    _longjmp(turns.caller, 1);
}

inline void let_others_run() {
    if (_setjmp(turns.fibers[turns.current].state) == 0) run_next();
}

inline void start_fiber() {
    // Back to make(): later on this stack is entered by longjmp, which saves no signal mask and is ten times faster.
    if (_setjmp(turns.fibers[turns.current].state) == 0) _longjmp(turns.caller, 1);
    self().run(*turns.kernel);
    turns.fibers[turns.current].done = true;
    run_next();
}

inline void make_fiber(Fiber& fiber) {
    constexpr std::size_t STACK = 256 * 1024;
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(STACK);
    fiber.done = false;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, start_fiber, 0);
    if (_setjmp(turns.caller) == 0) setcontext(&context);
}

inline void run_block(Block& block) {
    for (turns.current = 0; turns.current < turns.fibers.size(); ++turns.current) {
        Fiber& fiber = turns.fibers[turns.current];
        fiber.lane = Lane{};
        fiber.lane.block = &block;
        fiber.lane.thread = static_cast<int>(turns.current);
        make_fiber(fiber);
    }
    turns.current = turns.fibers.size() - 1;
    if (_setjmp(turns.caller) == 0) run_next();
}

// Runs a kernel. Not for two threads at once.
inline void run(const int (&grid)[3], int threads, const std::function<void()>& kernel) {
    turns.fibers.resize(static_cast<std::size_t>(threads));
    turns.kernel = &kernel;
    for (int z = 0; z < grid[2]; ++z) {
        for (int y = 0; y < grid[1]; ++y) {
            for (int x = 0; x < grid[0]; ++x) {
                Block block(x, y, z, threads);
                run_block(block);
            }
        }
    }
}

#else

inline thread_local Lane lane_of_this_thread;

inline Lane& self() { return lane_of_this_thread; }

// Runs a kernel.
inline void run(const int (&grid)[3], int threads, const std::function<void()>& kernel) {
    Barrier between(threads);
    std::unique_ptr<Block> block;
    const auto thread = [&](int index) {
        for (int i = 0; i < grid[0] * grid[1] * grid[2]; ++i) {
            if (index == 0) {
                block = std::make_unique<Block>(i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1], threads);
            }
            between.wait();
            self() = Lane{};
            self().block = block.get();
            self().thread = index;
            self().run(kernel);
            between.wait();
        }
    };
    std::vector<std::thread> team;
    for (int i = 0; i < threads; ++i) team.emplace_back(thread, i);
    for (std::thread& member : team) member.join();
}

#endif

}  // namespace gocor::host
