// Wears the library down through its C interface, to be run under sanitizers where time is not measured.
//
//   stress calls MODEL COUNT            arguments that make sense and some that make none
//   stress files MODEL COUNT            damaged manifests, graphs and weights; none may do more than be refused
//   stress graphs MODEL COUNT           the same, with hashes that are right: OpenVINO reads them, too
//   stress load MODEL COUNT THREADS     estimates at once; JSON about results and memory, as of tests/load.py
//
// MODEL is an .xml file of OpenVINO. Damaged files are written beside it.

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gocor.h"
#include "sha256.h"

#ifdef __SANITIZE_ADDRESS__
// OpenVINO opens a library with RTLD_DEEPBIND, which AddressSanitizer refuses to run with.
extern "C" void* dlopen(const char* name, int flags) {
    using Open = void*(const char*, int);
    static auto* const real = reinterpret_cast<Open*>(dlsym(RTLD_NEXT, "dlopen"));
    return real(name, flags & ~RTLD_DEEPBIND);
}
#endif

namespace {

class Random {
    std::minstd_rand engine_;

public:
    explicit Random(unsigned seed) : engine_(seed * 2654435761U + 1) {}
    std::size_t below(std::size_t limit) { return engine_() % limit; }
    bool one_in(std::size_t times) { return below(times) == 0; }
    template <class Choices>
    auto of(const Choices& choices) {
        return *std::next(std::begin(choices), static_cast<std::ptrdiff_t>(below(std::size(choices))));
    }
};

[[noreturn]] void fail(const std::string& what, int number) {
    std::fprintf(stderr, "number %d: %s (%s)\n", number, what.c_str(), gocor_last_error());
    std::exit(1);
}

// Whatever was asked for: a status of the list, a line of text if it failed and none if it did not.
gocor_status checked(gocor_status status, int number) {
    if (status < GOCOR_OK || status > GOCOR_FAILED) fail("a status that there is not", number);
    const std::string_view text = gocor_last_error();
    if (text.empty() != (status == GOCOR_OK)) fail("a text that does not go with its status", number);
    const auto control = [](char character) { return static_cast<unsigned char>(character) < 0x20; };
    if (std::any_of(text.begin(), text.end(), control)) fail("a text of more than a line", number);
    if (text.size() > 20'000) fail("a text that nobody would read", number);
    return status;
}

struct Estimator {
    gocor_estimator* handle = nullptr;

    explicit Estimator(const std::string& path, int threads = 1) {
        gocor_options options = GOCOR_OPTIONS_DEFAULT;
        options.threads = threads;
        if (gocor_create(path.c_str(), &options, &handle) != GOCOR_OK) fail("a good model is refused", -1);
    }
    ~Estimator() { gocor_release(handle); }
    Estimator(const Estimator&) = delete;
    Estimator& operator=(const Estimator&) = delete;
};

// ── arguments

// An image in memory of exactly its size.
struct Picture {
    std::unique_ptr<std::uint8_t[]> memory;
    gocor_image image{};
};

Picture picture(Random& random, int height, int width) {
    Picture made;
    const std::ptrdiff_t row = std::ptrdiff_t{3} * width, stride = row + random.of(std::vector{0, 0, 1, 7});
    const auto size = static_cast<std::size_t>(stride * (height - 1) + row);
    made.memory = std::make_unique<std::uint8_t[]>(size);
    for (std::size_t i = 0; i < size; i += 3) made.memory[i] = static_cast<std::uint8_t>(random.below(256));
    made.image = {made.memory.get(), height, width, stride == row && random.one_in(2) ? 0 : stride, GOCOR_RGB};
    if (random.one_in(2)) made.image.order = GOCOR_BGR;
    if (random.one_in(3)) {
        made.image.pixels += stride * (height - 1);
        made.image.row_stride = -stride;
    }
    return made;
}

// Makes no sense any more; it has to be found before a pixel is read.
void spoil(Random& random, gocor_image& image) {
    constexpr std::int32_t LEAST = std::numeric_limits<std::int32_t>::min();
    const int order = random.of(std::vector{7, -1, 2});
    switch (random.below(5)) {
        case 0: image.pixels = nullptr; break;
        case 1: image.height = random.of(std::vector{0, -1, LEAST}); break;
        case 2: image.width = random.of(std::vector{0, -1, LEAST}); break;
        case 3: image.row_stride = random.of(std::vector<std::ptrdiff_t>{1, -1, 3 * image.width - 1}); break;
        default: std::memcpy(&image.order, &order, sizeof image.order); break;
    }
}

void call(const Estimator& estimator, Random& random, int number) {
    const gocor_info* info = gocor_get_info(estimator.handle);
    const int height = random.one_in(2) ? info->height : static_cast<int>(1 + random.below(40));
    const int width = random.one_in(2) ? info->width : static_cast<int>(1 + random.below(40));
    const std::size_t count = random.below(4);
    std::vector<Picture> pictures;
    std::vector<gocor_image> images;
    for (std::size_t i = 0; i < 2 * count; ++i) {
        pictures.push_back(picture(random, height, width));
        images.push_back(pictures.back().image);
    }
    bool wrong = count > 0 && random.one_in(3);
    if (wrong) spoil(random, images[random.below(images.size())]);
    const std::size_t size = count * 2 * static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    const bool small = size > 0 && random.one_in(6);
    const std::size_t room = small ? random.below(size) : size;
    const auto flow = std::make_unique<float[]>(room);
    const auto scores = std::make_unique<float[]>(count);
    const gocor_image* references = images.data();
    const gocor_image* queries = images.data() + count;
    float* out = flow.get();
    const gocor_estimator* handle = estimator.handle;
    if (count > 0 && random.one_in(20)) {
        switch (random.below(4)) {
            case 0: references = nullptr; break;
            case 1: queries = nullptr; break;
            case 2: out = nullptr; break;
            default: handle = nullptr; break;
        }
        wrong = true;
    }
    float* const given_scores = random.one_in(2) ? scores.get() : nullptr;
    const auto status = checked(gocor_estimate(handle, references, queries, count, out, room, given_scores), number);
    if (status == GOCOR_OK && (wrong || small)) fail("nonsense is taken", number);
    if (status != GOCOR_OK && !wrong && !small) fail("sense is refused", number);
    if (status == GOCOR_OK && !std::all_of(flow.get(), flow.get() + room, [](float f) { return f == f; })) {
        fail("a flow that is none", number);
    }
    if (random.one_in(10)) {
        const auto done = checked(gocor_enqueue(random.one_in(2) ? handle : nullptr, references, queries, out, nullptr),
                                  number);
        if (done == GOCOR_OK) fail("a GPU where there is none", number);
    }
}

void create(const std::string& path, Random& random, int number) {
    gocor_options options = GOCOR_OPTIONS_DEFAULT;
    options.struct_size = random.of(std::vector<std::size_t>{sizeof options, 0, 1, sizeof options + 8, SIZE_MAX});
    options.threads = random.of(std::vector{0, -1, std::numeric_limits<std::int32_t>::min()});
    options.parallel = random.of(std::vector{0, -5});
    const std::vector<std::string> paths = {"", ".", "/", "/dev/null", path + ".none", path + "/x.xml", ".xml",
                                            std::string(5000, 'a') + ".xml", "a\nb.onnx", "x.engine", path};
    const std::string chosen = random.of(paths);
    const bool sense = options.struct_size == sizeof options && options.threads == 0 && options.parallel == 0;
    if (chosen == path && sense) return;
    gocor_estimator* handle = nullptr;
    gocor_estimator** const place = random.one_in(10) ? nullptr : &handle;
    const char* const text = random.one_in(10) ? nullptr : chosen.c_str();
    if (checked(gocor_create(text, &options, place), number) == GOCOR_OK) fail("a model of nothing", number);
    if (handle != nullptr) fail("a handle in spite of an error", number);
}

void calls(const std::string& path, int count) {
    const Estimator estimator(path);
    for (int number = 0; number < count; ++number) {
        Random random(static_cast<unsigned>(number));
        random.one_in(5) ? create(path, random, number) : call(estimator, random, number);
    }
    gocor_release(nullptr);
    if (gocor_get_info(nullptr) != nullptr) fail("facts about nothing", -1);
    std::printf("%d calls\n", count);
}

// ── files

std::string read_all(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_changed(const std::string& path, const std::string& content) {
    static std::map<std::string, std::string> written;
    if (const auto found = written.find(path); found != written.end() && found->second == content) return;
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
    written[path] = content;
}

std::string damaged(std::string text, Random& random) {
    constexpr std::string_view PIECES = "{}[]<>\"/=,:\\0-19.eE\n\x7f\xff u";
    const std::vector<std::string> words = {"-1", "0", "1", "99999999999999999999", "1e999", "null", "\"\"", "[]", "{}",
                                            "../../etc/passwd", std::string(3000, '['), "\\ud800", "u8", "i64",
                                            "Const"};
    for (std::size_t changes = 1 + random.below(3); changes > 0; --changes) {
        if (text.empty()) return text;
        const std::size_t at = random.below(text.size());
        switch (random.below(6)) {
            case 0: text[at] = random.of(PIECES); break;
            case 1: text.erase(at, 1 + random.below(20)); break;
            case 2: text.insert(at, text.substr(random.below(text.size()), random.below(60))); break;
            case 3: text.resize(at); break;
            case 4: text.insert(at, random.of(words)); break;
            default: {  // a word in quotes, or a number, becomes another
                const std::size_t start = text.find_first_of("\"0123456789", at);
                if (start == std::string::npos) break;
                const std::size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.\"", start);
                text.replace(start, std::min(end, text.size()) - start, random.of(words));
            }
        }
    }
    return text;
}

void replace(std::string& text, const std::string& old, const std::string& other) {
    const std::size_t found = text.find(old);
    if (found != std::string::npos) text.replace(found, old.size(), other);
}

void files(const std::string& path, int count, bool right_hashes) {
    const std::string stem = path.substr(0, path.size() - 4), other = stem + ".damaged";
    const std::string graph = read_all(path), weights = read_all(stem + ".bin"), manifest = read_all(path + ".json");
    int refused = 0;
    for (int number = 0; number < count; ++number) {
        Random random(static_cast<unsigned>(number));
        std::string xml = graph, bin = weights, json = manifest;
        std::string& chosen = right_hashes ? (random.one_in(8) ? bin : xml) : (random.one_in(8) ? xml : json);
        chosen = damaged(chosen, random);
        if (right_hashes) {
            replace(json, gocor::sha256(graph.data(), graph.size()), gocor::sha256(xml.data(), xml.size()));
            replace(json, gocor::sha256(weights.data(), weights.size()), gocor::sha256(bin.data(), bin.size()));
        }
        write_changed(other + ".xml", xml);
        write_changed(other + ".bin", bin);
        write_changed(other + ".xml.json", json);
        gocor_options options = GOCOR_OPTIONS_DEFAULT;
        options.threads = 1;
        gocor_estimator* handle = nullptr;
        const gocor_status status = checked(gocor_create((other + ".xml").c_str(), &options, &handle), number);
        if ((status == GOCOR_OK) != (handle != nullptr)) fail("a handle that does not go with its status", number);
        if (status != GOCOR_OK) {
            ++refused;
            continue;
        }
        const gocor_info* info = gocor_get_info(handle);
        if (info->height < 1 || info->width < 1 || info->batch < 1 || *info->network == '\0') fail("odd facts", number);
        gocor_release(handle);
    }
    std::printf("%d of %d refused\n", refused, count);
}

// ── load

long resident() {
    long total = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> total >> resident;
    return resident * sysconf(_SC_PAGESIZE);
}

void load(const std::string& path, int count, int threads) {
    constexpr int PAIRS = 4, SAMPLES = 100;
    const Estimator estimator(path);
    const gocor_info* info = gocor_get_info(estimator.handle);
    const std::size_t size = 2 * static_cast<std::size_t>(info->height) * static_cast<std::size_t>(info->width);
    std::vector<Picture> pictures;
    std::vector<std::vector<float>> expected(PAIRS, std::vector<float>(size));
    for (int i = 0; i < 2 * PAIRS; ++i) {
        Random random(static_cast<unsigned>(i));
        pictures.push_back(picture(random, info->height, info->width));
    }
    const auto run = [&](int pair, std::vector<float>& flow) {
        const std::size_t at = 2 * static_cast<std::size_t>(pair);
        checked(gocor_estimate(estimator.handle, &pictures[at].image, &pictures[at + 1].image, 1, flow.data(), size,
                               nullptr), pair);
    };
    for (int pair = 0; pair < PAIRS; ++pair) run(pair, expected[static_cast<std::size_t>(pair)]);
    std::atomic<int> next{0}, different{0};
    std::vector<std::atomic<long>> memory(SAMPLES);
    std::vector<std::thread> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&] {
            std::vector<float> flow(size);
            for (int number = next++; number < count; number = next++) {
                run(number % PAIRS, flow);
                if (flow != expected[static_cast<std::size_t>(number % PAIRS)]) ++different;
                const int sample = static_cast<int>(std::int64_t{number} * SAMPLES / count);
                memory[static_cast<std::size_t>(sample)] = resident();
            }
        });
    }
    for (std::thread& worker : workers) worker.join();
    std::sort(expected.begin(), expected.end());
    const auto distinct = std::unique(expected.begin(), expected.end()) - expected.begin();
    std::printf(R"({"different": %d, "distinct": %td, "memory": [)", different.load(), distinct);
    const char* comma = "";
    for (const std::atomic<long>& sample : memory) {
        std::printf("%s%ld", comma, sample.load());
        comma = ", ";
    }
    std::puts("]}");
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view command = count > 1 ? arguments[1] : "";
    if (count < 4) return 2;
    const int times = std::atoi(arguments[3]);
    if (command == "calls") {
        calls(arguments[2], times);
    } else if (command == "files" || command == "graphs") {
        files(arguments[2], times, command == "graphs");
    } else if (command == "load" && count == 5) {
        load(arguments[2], times, std::atoi(arguments[4]));
    } else {
        return 2;
    }
    return 0;
}
