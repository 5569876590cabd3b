#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

namespace gocor {
namespace {

constexpr int MAX_DEPTH = 64;

class Parser {
    std::string_view text_;
    std::size_t at_ = 0;

public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = this->value(0);
        skip_space();
        if (at_ != text_.size()) fail("something after the document");
        return value;
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        throw JsonError(what + " at character " + std::to_string(at_));
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool take(char wanted) {
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        ++at_;
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) fail(std::string("no ") + wanted);
    }

    bool take_word(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    void skip_space() {
        while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++at_;
    }

    Json value(int depth) {
        if (depth > MAX_DEPTH) fail("too deep a nesting");
        skip_space();
        Json value;
        if (take('{')) {
            value.kind = Json::Kind::object;
            members(value, depth);
        } else if (take('[')) {
            value.kind = Json::Kind::array;
            elements(value, depth);
        } else if (peek() == '"') {
            value.kind = Json::Kind::string;
            value.string = string();
        } else if (const bool yes = take_word("true"); yes || take_word("false")) {
            value.kind = Json::Kind::boolean;
            value.boolean = yes;
        } else if (!take_word("null")) {
            number(value);
        }
        return value;
    }

    void members(Json& object, int depth) {
        skip_space();
        if (take('}')) return;
        do {
            skip_space();
            object.names.push_back(string());
            skip_space();
            expect(':');
            object.values.push_back(value(depth + 1));
            skip_space();
        } while (take(','));
        expect('}');
        std::vector<std::string> sorted = object.names;
        std::sort(sorted.begin(), sorted.end());
        const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
        if (twice != sorted.end()) fail("\"" + *twice + "\" twice in the object that ends");
    }

    void elements(Json& array, int depth) {
        skip_space();
        if (take(']')) return;
        do {
            array.values.push_back(value(depth + 1));
            skip_space();
        } while (take(','));
        expect(']');
    }

    std::string string() {
        expect('"');
        std::string result;
        while (!take('"')) {
            if (at_ >= text_.size()) fail("a string without end");
            const char character = text_[at_++];
            if (static_cast<unsigned char>(character) < 0x20) fail("a control character");
            if (character == '\\') {
                escape(result);
            } else {
                result += character;
            }
        }
        return result;
    }

    void escape(std::string& result) {
        constexpr std::string_view NAMES = "\"\\/bfnrt";
        constexpr std::string_view MEANINGS = "\"\\/\b\f\n\r\t";
        if (take('u')) return code_point(result);
        const std::size_t found = at_ < text_.size() ? NAMES.find(text_[at_]) : std::string_view::npos;
        if (found == std::string_view::npos) fail("an unknown escape");
        ++at_;
        result += MEANINGS[found];
    }

    // \u0041, or a surrogate pair, as UTF-8.
    void code_point(std::string& result) {
        std::uint32_t code = four_digits();
        if (code >= 0xD800 && code < 0xE000) {
            if (code >= 0xDC00 || !take('\\') || !take('u')) fail("half a surrogate pair");
            const std::uint32_t low = four_digits();
            if (low < 0xDC00 || low >= 0xE000) fail("half a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        if (code < 0x80) {
            result += static_cast<char>(code);
            return;
        }
        const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        constexpr std::uint32_t LEADS[] = {0, 0xC0, 0xE0, 0xF0};
        result += static_cast<char>(LEADS[more] | code >> (6 * more));
        for (int i = more - 1; i >= 0; --i) result += static_cast<char>(0x80 | (code >> (6 * i) & 0x3F));
    }

    std::uint32_t four_digits() {
        std::uint32_t code = 0;
        const std::string_view digits = text_.substr(at_, 4);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
        if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) fail("no four digits after \\u");
        at_ += 4;
        return code;
    }

    bool digits() {
        const std::size_t start = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        return at_ > start;
    }

    void number(Json& value) {
        const std::size_t start = at_;
        take('-');
        if (!take('0') && !digits()) fail("no value");
        const bool whole = peek() != '.' && peek() != 'e' && peek() != 'E';
        if (take('.') && !digits()) fail("no digit after the point");
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            if (!digits()) fail("no digit in the exponent");
        }
        const char *first = text_.data() + start, *last = text_.data() + at_;
        if (std::from_chars(first, last, value.number).ec != std::errc()) fail("a number out of range");
        value.kind = whole ? Json::Kind::integer : Json::Kind::number;
        if (whole && std::from_chars(first, last, value.integer).ec != std::errc()) fail("a number out of range");
    }
};

}  // namespace

const Json* Json::find(std::string_view name) const {
    const auto found = std::find(names.begin(), names.end(), name);
    return found == names.end() ? nullptr : &values[static_cast<std::size_t>(found - names.begin())];
}

const Json& Json::get(std::string_view name) const {
    if (const Json* found = find(name)) return *found;
    throw JsonError("no '" + std::string(name) + "'");
}

const std::string& Json::string_at(std::string_view name) const {
    const Json& value = get(name);
    if (value.kind != Kind::string) throw JsonError(std::string(name) + " is no string");
    return value.string;
}

bool Json::boolean_at(std::string_view name) const {
    const Json& value = get(name);
    if (value.kind != Kind::boolean) throw JsonError(std::string(name) + " is neither true nor false");
    return value.boolean;
}

const std::vector<Json>& Json::array_at(std::string_view name) const {
    const Json& value = get(name);
    if (value.kind != Kind::array) throw JsonError(std::string(name) + " is no list");
    return value.values;
}

Json parse_json(std::string_view text) { return Parser(text).document(); }

}  // namespace gocor
