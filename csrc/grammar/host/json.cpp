// grammar/host/json.cpp
#include "json.h"

#include <unordered_map>

#include "charset.h"
#include "errors.h"

namespace lmx::grammar {
namespace {
constexpr int kMaxDepth = 2000;
constexpr size_t kFewKeys = 16;  // up to here equal keys are searched for one by one

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json read() {
    if (const size_t bad = find_bad_utf8(text_); bad != std::string_view::npos) {
      i_ = bad;
      fail("well-formed UTF-8");
    }
    Json out;
    skip();
    value(out);
    skip();
    if (i_ < text_.size()) fail("the end");
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    size_t line = 1, column = 1;
    for (size_t j = 0; j < i_ && j < text_.size(); ++j) {
      ++column;
      if (text_[j] == '\n') ++line, column = 1;
    }
    throw GrammarSyntaxError("JSON:" + std::to_string(line) + ":" + std::to_string(column) +
                             ": expected " + expected);
  }
  char peek() const { return i_ < text_.size() ? text_[i_] : '\0'; }
  void skip() {
    while (i_ < text_.size() && std::string_view(" \t\r\n").find(text_[i_]) != text_.npos) ++i_;
  }
  bool take(char c) { return peek() == c && i_ < text_.size() ? (++i_, true) : false; }
  bool take_word(std::string_view word) {
    if (text_.substr(i_, word.size()) != word) return false;
    i_ += word.size();
    return true;
  }

  void value(Json& out) {
    switch (peek()) {
      case '{': return object(out);
      case '[': return array(out);
      case '"':
        out.kind = Json::Kind::string;
        out.text = string();
        return;
      default: break;
    }
    if (take_word("null")) return;
    out.kind = Json::Kind::boolean;
    if (take_word("true")) return void(out.truth = true);
    if (take_word("false")) return;
    number(out);
  }

  void enter() {
    ++i_;
    if (++depth_ > kMaxDepth) fail("at most 2000 open brackets");
    skip();
  }

  void array(Json& out) {
    out.kind = Json::Kind::array;
    enter();
    if (!take(']')) {
      do {
        skip();
        out.items.emplace_back();
        value(out.items.back());
        skip();
      } while (take(','));
      if (!take(']')) fail("',' or ']'");
    }
    --depth_;
  }

  void object(Json& out) {
    out.kind = Json::Kind::object;
    enter();
    if (!take('}')) {
      std::unordered_map<std::string, size_t> index;
      do {
        skip();
        if (peek() != '"') fail("a key");
        std::string key = string();
        skip();
        if (!take(':')) fail("':'");
        skip();
        Json& member = out.items[member_index(out, std::move(key), index)];
        member = Json();
        value(member);
        skip();
      } while (take(','));
      if (!take('}')) fail("',' or '}'");
    }
    --depth_;
  }

  static size_t member_index(Json& out, std::string&& key,
                             std::unordered_map<std::string, size_t>& index) {
    const size_t n = out.keys.size();
    if (n < kFewKeys) {
      for (size_t i = 0; i < n; ++i)
        if (out.keys[i] == key) return i;
    } else {
      if (index.empty())
        for (size_t i = 0; i < n; ++i) index.emplace(out.keys[i], i);
      if (const auto [it, is_new] = index.emplace(key, n); !is_new) return it->second;
    }
    out.keys.push_back(std::move(key));
    out.items.emplace_back();
    return n;
  }

  bool digits() {
    const size_t begin = i_;
    while (peek() >= '0' && peek() <= '9') ++i_;
    return i_ > begin;
  }

  void number(Json& out) {
    const size_t begin = i_;
    take('-');
    if (!take('0') && !digits()) {
      i_ = begin;
      fail("a JSON value");
    }
    if (take('.') && !digits()) fail("a digit");
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!digits()) fail("a digit");
    }
    out.kind = Json::Kind::number;
    out.text = text_.substr(begin, i_ - begin);
  }

  uint32_t hex4() {
    uint32_t value = 0;
    for (int k = 0; k < 4; ++k, ++i_) {
      const char c = peek(), lower = static_cast<char>(c | 32);
      if (c >= '0' && c <= '9')
        value = 16 * value + (c - '0');
      else if (lower >= 'a' && lower <= 'f')
        value = 16 * value + (lower - 'a') + 10;
      else
        fail("a hexadecimal digit");
    }
    return value;
  }

  void escape(std::string& out) {
    const char c = peek();
    ++i_;
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t k = kFrom.find(c); c && k != std::string_view::npos)
      return void(out += kTo[k]);
    if (c != 'u') {
      --i_;
      fail("an escape");
    }
    uint32_t code = hex4();
    if (code >= 0xD800 && code < 0xDC00) {
      if (!take_word("\\u")) fail("the escape of a low surrogate");
      const uint32_t low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("a low surrogate before here");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
      fail("no lone low surrogate before here");
    }
    append_utf8(out, code);
  }

  std::string string() {
    ++i_;
    std::string out;
    while (true) {
      const size_t begin = i_;
      while (i_ < text_.size() && text_[i_] != '"' && text_[i_] != '\\' &&
             static_cast<uint8_t>(text_[i_]) >= 0x20)
        ++i_;
      out.append(text_.substr(begin, i_ - begin));
      if (take('"')) return out;
      if (!take('\\')) fail("'\"' that ends a string");
      escape(out);
    }
  }

  std::string_view text_;
  size_t i_ = 0;
  int depth_ = 0;
};

void write(const Json& value, std::string& out) {
  switch (value.kind) {
    case Json::Kind::null: out += "null"; return;
    case Json::Kind::boolean: out += value.truth ? "true" : "false"; return;
    case Json::Kind::number: out += value.text; return;
    case Json::Kind::string: out += json_quoted(value.text); return;
    default: break;
  }
  const bool is_object = value.is(Json::Kind::object);
  out += is_object ? '{' : '[';
  for (size_t i = 0; i < value.items.size(); ++i) {
    if (i) out += ',';
    if (is_object) out += json_quoted(value.keys[i]) + ':';
    write(value.items[i], out);
  }
  out += is_object ? '}' : ']';
}
}  // namespace

const Json* Json::find(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); ++i)
    if (keys[i] == key) return &items[i];
  return nullptr;
}

Json parse_json(std::string_view text) { return Reader(text).read(); }

std::string json_quoted(std::string_view s) {
  constexpr char kDigits[] = "0123456789abcdef";
  constexpr std::string_view kFrom = "\"\\\b\f\n\r\t", kTo = "\"\\bfnrt";
  std::string out = "\"";
  for (const char c : s) {
    if (const size_t k = kFrom.find(c); k != std::string_view::npos)
      (out += '\\') += kTo[k];
    else if (static_cast<uint8_t>(c) < 0x20)
      (out += "\\u00") += {kDigits[c >> 4], kDigits[c & 15]};
    else
      out += c;
  }
  return out + '"';
}

std::string json_text(const Json& value) {
  std::string out;
  write(value, out);
  return out;
}

const char* name_of(Json::Kind kind) {
  constexpr const char* kNames[] = {"null", "boolean", "number", "string", "array", "object"};
  return kNames[static_cast<int>(kind)];
}
}  // namespace lmx::grammar
