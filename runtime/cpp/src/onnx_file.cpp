#include "onnx_file.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "error.h"

namespace gocor {
namespace {

constexpr const char* EXPECTED = "a model in one file, as gocor export writes it";
constexpr int DEEPEST = 100;                               // messages in messages; protobuf's own limit
constexpr std::uint64_t OPERATOR = 4, KEY = 1, VALUE = 2;  // fields of a node, and of an entry about external data

enum class Kind : std::uint8_t { model, graph, training, function, node, attribute, sparse, tensor, entry };

struct Damage : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Where fields lead to tensors and nodes; onnx.proto keeps their numbers for ever.
struct Step {
    Kind from;
    std::uint8_t number;
    Kind to;
};
constexpr Step STEPS[] = {
    {Kind::model, 7, Kind::graph},         {Kind::model, 20, Kind::training},   {Kind::model, 25, Kind::function},
    {Kind::graph, 1, Kind::node},          {Kind::graph, 5, Kind::tensor},      {Kind::graph, 15, Kind::sparse},
    {Kind::training, 1, Kind::graph},      {Kind::training, 2, Kind::graph},    {Kind::function, 7, Kind::node},
    {Kind::function, 11, Kind::attribute}, {Kind::node, 5, Kind::attribute},    {Kind::attribute, 5, Kind::tensor},
    {Kind::attribute, 6, Kind::graph},     {Kind::attribute, 10, Kind::tensor}, {Kind::attribute, 11, Kind::graph},
    {Kind::attribute, 22, Kind::sparse},   {Kind::attribute, 23, Kind::sparse}, {Kind::sparse, 1, Kind::tensor},
    {Kind::sparse, 2, Kind::tensor},       {Kind::tensor, 13, Kind::entry},
};

// Texts and messages in a message of protobuf; numbers are passed over.
class Fields {
    std::string_view left_;

public:
    explicit Fields(std::string_view message) : left_(message) {}

    // False at the end.
    bool next(std::uint64_t& number, std::string_view& content) {
        while (!left_.empty()) {
            const std::uint64_t tag = varint();
            // protobuf in C++, which ONNX Runtime reads with, would cut that off.
            if (tag >> 32 != 0) throw Damage("a field whose number has more than 32 bits");
            switch (tag & 7) {
                case 0: varint(); break;
                case 1: skip(8); break;
                case 5: skip(4); break;
                case 2: {
                    const std::uint64_t length = varint();
                    if (length > left_.size()) throw Damage("a field that is longer than its message");
                    number = tag >> 3;
                    content = left_.substr(0, length);
                    left_.remove_prefix(length);
                    return true;
                }
                case 3:
                case 4: break;  // begin and end of a group, whose fields are in between
                default: throw Damage("a field of kind " + std::to_string(tag & 7));
            }
        }
        return false;
    }

private:
    void skip(std::size_t bytes) { left_.remove_prefix(std::min(bytes, left_.size())); }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 70 && !left_.empty(); shift += 7) {
            const auto byte = static_cast<unsigned char>(left_.front());
            left_.remove_prefix(1);
            if (shift < 63) value |= std::uint64_t{byte & 0x7FU} << shift;
            if (shift == 63 && (byte & 0x7F) != 0) value |= std::uint64_t{1} << 63;  // too large for anything
            if (byte < 0x80) return value;
        }
        throw Damage("a number without end");
    }
};

void check_node(const std::string& path, std::string_view node) {
    std::uint64_t number = 0;
    std::string_view content, type;
    for (Fields fields(node); fields.next(number, content);) {
        if (number == OPERATOR) type = content;
    }
    if (type == "EPContext")
        throw bad_model(path, "holds a compiled engine (a node EPContext), which is code", EXPECTED);
}

void check_entry(const std::string& path, std::string_view entry) {
    std::uint64_t number = 0;
    std::string_view content, key, value;
    for (Fields fields(entry); fields.next(number, content);) {
        if (number == KEY) key = content;
        if (number == VALUE) value = content;
    }
    if (key != "location") return;
    throw bad_model(path, "takes weights from another file ('" + std::string(value.substr(0, 200)) + "')", EXPECTED);
}

void check(const std::string& path, Kind kind, std::string_view message, int depth) {
    if (depth > DEEPEST) throw Damage("too deep a nesting");
    if (kind == Kind::node) check_node(path, message);
    if (kind == Kind::entry) check_entry(path, message);
    std::uint64_t number = 0;
    std::string_view content;
    for (Fields fields(message); fields.next(number, content);) {
        for (const Step& step : STEPS) {
            if (step.from == kind && step.number == number) check(path, step.to, content, depth + 1);
        }
    }
}

}  // namespace

void check_self_contained(const std::string& path, std::string_view content) {
    // Without one of these words there is nothing to find.
    const bool suspicious =
        content.find("location") != std::string_view::npos || content.find("EPContext") != std::string_view::npos;
    if (!suspicious) return;
    try {
        check(path, Kind::model, content, 0);
    } catch (const Damage& damage) {
        throw bad_model(path, std::string("is damaged or no ONNX model (") + damage.what() + ")", EXPECTED);
    }
}

}  // namespace gocor
