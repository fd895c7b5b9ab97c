/// JSON values (RFC 8259): a strict parser and a writer, enough for file headers, metric lines and results.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/utf8.hpp"

namespace kd::inline KD_ABI::io {

/// One JSON value. Objects keep the order in which members were added; numbers without fraction and exponent that fit
/// 64 bits stay exact integers. A NaN or an infinity, which JSON lacks, becomes null.
class json {
 public:
  enum class kind { null, boolean, integer, number, string, array, object };

  json() = default;  ///< null
  json(std::nullptr_t) {}
  template <std::same_as<bool> Boolean>
  json(Boolean value) : kind_(kind::boolean), integer_(value) {}
  template <std::integral Integer>
  requires(!std::same_as<Integer, bool>) json(Integer value)
      : kind_(kind::integer), negative_(below_zero(value)), integer_(static_cast<std::uint64_t>(value)) {}
  json(double value) : kind_(std::isfinite(value) ? kind::number : kind::null), number_(value) {}
  json(float value);  ///< the number whose shortest text is that of the float: 0.1f is 0.1
  json(std::string value) : kind_(kind::string), string_(std::move(value)) {}
  json(std::string_view value) : kind_(kind::string), string_(value) {}
  json(const char* value) : kind_(kind::string), string_(value) {}

  static json array() { return json(kind::array); }
  static json object() { return json(kind::object); }

  /// Parses one value that fills the whole text; `source` (a file name) starts every message. Throws file_error with
  /// line and column on anything RFC 8259 forbids, on a member name that appears twice, on text that is not UTF-8, on
  /// a number beyond double and on more than 100 levels.
  static json parse(std::string_view text, std::string_view source = "JSON");

  kind type() const { return kind_; }
  bool is_null() const { return kind_ == kind::null; }
  bool is_number() const { return kind_ == kind::integer || kind_ == kind::number; }
  bool is_string() const { return kind_ == kind::string; }
  bool is_array() const { return kind_ == kind::array; }
  bool is_object() const { return kind_ == kind::object; }
  bool is_unsigned() const { return kind_ == kind::integer && !negative_; }

  /// The value as the named type; each throws file_error where the value is of another kind or out of range.
  bool as_bool() const;
  double as_number() const;
  std::int64_t as_integer() const;
  std::uint64_t as_unsigned() const;
  const std::string& as_string() const;

  /// Elements of an array, or values of an object's members in order; empty otherwise.
  const std::vector<json>& items() const { return items_; }
  /// Names of an object's members, parallel to items().
  const std::vector<std::string>& names() const { return names_; }
  std::size_t size() const { return items_.size(); }

  /// The member of that name, or null pointer.
  const json* find(std::string_view name) const;
  /// The member of that name; throws file_error where it is missing.
  const json& at(std::string_view name) const;
  /// The member of that name, added as null where it is missing; a null value becomes an object.
  json& operator[](std::string_view name);
  /// Appends to an array; a null value becomes an array.
  void push_back(json value);

  /// The value as text: on one line, or indented by `indent` spaces per level. Bytes that are not UTF-8 become U+FFFD.
  std::string dump(int indent = 0) const;

 private:
  // Not value < 0 alone: nvcc warns of the comparison where Integer is unsigned.
  template <class Integer>
  static bool below_zero(Integer value) {
    if constexpr (std::signed_integral<Integer>) return value < 0;
    return false;
  }
  explicit json(kind k) : kind_(k) {}
  friend class json_parser;
  [[noreturn]] void wrong_kind(std::string_view wanted) const;
  void write(std::string& out, int indent, int level) const;

  kind kind_ = kind::null;
  bool negative_ = false;      // of an integer; integer_ then holds its two's complement
  std::uint64_t integer_ = 0;  // also the boolean
  double number_ = 0;
  std::string string_;
  std::vector<json> items_;
  std::vector<std::string> names_;
};

/// "null", "string", ...
constexpr std::string_view name_of(json::kind k) {
  constexpr std::string_view names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
  return names[static_cast<std::size_t>(k)];
}

namespace detail {

using kd::detail::is_utf8;
using kd::detail::utf8_length;

inline void append_utf8(std::string& out, std::uint32_t point) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xC0 | point >> 6);
  } else {
    if (point < 0x10000) {
      put(0xE0 | point >> 12);
    } else {
      put(0xF0 | point >> 18);
      put(0x80 | (point >> 12 & 0x3F));
    }
    put(0x80 | (point >> 6 & 0x3F));
  }
  put(0x80 | (point & 0x3F));
}

inline void append_quoted(std::string& out, std::string_view s) {
  constexpr char hex[] = "0123456789abcdef";
  out += '"';
  while (!s.empty()) {
    const std::size_t length = utf8_length(s);
    const char c = s[0];
    if (length == 0) {
      out += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (length == 1 && static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += hex[c >> 4];
      out += hex[c & 15];
    } else {
      out += s.substr(0, length);
    }
    s.remove_prefix(std::max<std::size_t>(length, 1));
  }
  out += '"';
}

}  // namespace detail

/// Recursive-descent parser of one JSON text.
class json_parser {
 public:
  json_parser(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  json document() {
    json result = value(0);
    skip_blanks();
    if (at_ != text_.size()) fail("expected the end of the text");
    return result;
  }

 private:
  static constexpr int max_depth = 100;

  [[noreturn]] void fail(std::string_view rule) const {
    const std::string_view before = text_.substr(0, std::min(at_, text_.size()));
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    std::string found = "the end of the text";
    if (at_ < text_.size()) {
      found.clear();
      detail::append_quoted(found, text_.substr(at_, 12));
    }
    throw file_error(kd::text(source_, ": invalid JSON at line ", line, ", column ", column, ": ", rule, ", found ",
                              found, "; the file is damaged or not JSON: restore it or write it again"));
  }

  bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }
  void skip_blanks() {
    while (next_is(' ') || next_is('\n') || next_is('\r') || next_is('\t')) ++at_;
  }
  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  json value(int depth) {
    skip_blanks();
    if (depth > max_depth) fail("at most 100 levels are read");
    if (take("null")) return {};
    if (take("true")) return true;
    if (take("false")) return false;
    if (next_is('"')) return string();
    if (take("[")) return array(depth);
    if (take("{")) return object(depth);
    if (next_is('-') || digit()) return number();
    fail("expected a value");
  }

  json array(int depth) {
    json result = json::array();
    skip_blanks();
    if (take("]")) return result;
    for (;;) {
      result.items_.push_back(value(depth + 1));
      skip_blanks();
      if (take("]")) return result;
      if (!take(",")) fail("expected ',' or ']'");
    }
  }

  json object(int depth) {
    json result = json::object();
    skip_blanks();
    if (take("}")) return result;
    for (;;) {
      skip_blanks();
      if (!next_is('"')) fail("expected a member name in quotes");
      result.names_.push_back(string());
      skip_blanks();
      if (!take(":")) fail("expected ':'");
      result.items_.push_back(value(depth + 1));
      skip_blanks();
      if (take("}")) break;
      if (!take(",")) fail("expected ',' or '}'");
    }
    std::vector<std::string_view> sorted(result.names_.begin(), result.names_.end());
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end())
      throw file_error(kd::text(source_, ": the name \"", *twice,
                                "\" appears twice in one object, expected once; write the file again"));
    return result;
  }

  std::uint32_t hex4() {
    std::uint32_t unit = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), unit, 16);
    if (status != std::errc{} || end != digits.data() + 4) fail("expected four hex digits");
    at_ += 4;
    return unit;
  }

  std::string string() {
    std::string out;
    ++at_;
    for (;;) {
      if (at_ >= text_.size()) fail("a string is not closed");
      if (take("\"")) return out;
      if (take("\\")) {
        escape(out);
        continue;
      }
      const std::size_t length = detail::utf8_length(text_.substr(at_));
      if (length == 0) fail("a string is not UTF-8");
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("a control character must be escaped");
      out += text_.substr(at_, length);
      at_ += length;
    }
  }

  void escape(std::string& out) {
    constexpr std::string_view codes = "\"\\/bfnrt", meaning = "\"\\/\b\f\n\r\t";
    if (take("u")) {
      std::uint32_t point = hex4();
      if (point >= 0xDC00 && point <= 0xDFFF) fail("a low surrogate stands alone");
      if (point >= 0xD800 && point <= 0xDBFF) {
        if (!take("\\u")) fail("a high surrogate stands alone");
        const std::uint32_t low = hex4();
        if (low < 0xDC00 || low > 0xDFFF) fail("a high surrogate needs a low one");
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
      }
      return detail::append_utf8(out, point);
    }
    const std::size_t which = at_ < text_.size() ? codes.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) fail("unknown escape");
    out += meaning[which];
    ++at_;
  }

  void digits() {
    if (!digit()) fail("expected a digit");
    while (digit()) ++at_;
  }

  json number() {
    const std::size_t begin = at_;
    const bool negative = take("-");
    bool whole = true;
    if (!take("0")) digits();
    if (take(".")) {
      whole = false;
      digits();
    }
    if (next_is('e') || next_is('E')) {
      whole = false;
      ++at_;
      if (next_is('+') || next_is('-')) ++at_;
      digits();
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    std::int64_t below = 0;
    std::uint64_t above = 0;
    if (whole && negative && std::from_chars(first, last, below).ec == std::errc{}) return below;
    if (whole && !negative && std::from_chars(first, last, above).ec == std::errc{}) return above;
    double real = 0;
    if (std::from_chars(first, last, real).ec != std::errc{}) {
      at_ = begin;
      fail("a number is beyond the range of double");
    }
    return real;
  }

  std::string_view text_, source_;
  std::size_t at_ = 0;
};

inline json::json(float value) : json(static_cast<double>(value)) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  if (!is_null()) std::from_chars(digits, end, number_);
}

inline json json::parse(std::string_view text, std::string_view source) { return json_parser(text, source).document(); }

inline void json::wrong_kind(std::string_view wanted) const {
  const std::string value = dump();
  throw file_error(text("JSON: expected ", wanted, ", found ", name_of(kind_), " ", value.substr(0, 60),
                        "; the file was written by another program or is damaged: write it again"));
}
inline bool json::as_bool() const { return kind_ == kind::boolean ? integer_ != 0 : (wrong_kind("a boolean"), false); }
inline double json::as_number() const {
  if (kind_ == kind::number) return number_;
  if (kind_ != kind::integer) wrong_kind("a number");
  return negative_ ? static_cast<double>(static_cast<std::int64_t>(integer_)) : static_cast<double>(integer_);
}
inline std::int64_t json::as_integer() const {
  const bool fits = negative_ || integer_ <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (kind_ != kind::integer || !fits) wrong_kind("a signed 64-bit integer");
  return static_cast<std::int64_t>(integer_);
}
inline std::uint64_t json::as_unsigned() const {
  if (!is_unsigned()) wrong_kind("an unsigned 64-bit integer");
  return integer_;
}
inline const std::string& json::as_string() const {
  if (kind_ != kind::string) wrong_kind("a string");
  return string_;
}

inline const json* json::find(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  return found == names_.end() ? nullptr : &items_[static_cast<std::size_t>(found - names_.begin())];
}
inline const json& json::at(std::string_view name) const {
  const json* found = find(name);
  if (found == nullptr) wrong_kind(text("an object with a member \"", name, "\""));
  return *found;
}
inline json& json::operator[](std::string_view name) {
  if (kind_ == kind::null) kind_ = kind::object;
  if (kind_ != kind::object) wrong_kind("an object");
  if (const json* found = find(name)) return const_cast<json&>(*found);
  names_.emplace_back(name);
  return items_.emplace_back();
}
inline void json::push_back(json value) {
  if (kind_ == kind::null) kind_ = kind::array;
  if (kind_ != kind::array) wrong_kind("an array");
  items_.push_back(std::move(value));
}

inline std::string json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

inline void json::write(std::string& out, int indent, int level) const {
  const auto new_line = [&](int depth) {
    if (indent <= 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent * depth), ' ');
  };
  switch (kind_) {
    case kind::null:
      out += "null";
      return;
    case kind::boolean:
      out += integer_ != 0 ? "true" : "false";
      return;
    case kind::integer:
      out += negative_ ? text(static_cast<std::int64_t>(integer_)) : text(integer_);
      return;
    case kind::number:
      // "-0" would be read back as the integer 0.
      out += number_ == 0 && std::signbit(number_) ? "-0.0" : text(number_);
      return;
    case kind::string:
      detail::append_quoted(out, string_);
      return;
    case kind::array:
    case kind::object: {
      const bool named = kind_ == kind::object;
      out += named ? '{' : '[';
      for (std::size_t i = 0; i < items_.size(); ++i) {
        if (i > 0) out += ',';
        new_line(level + 1);
        if (named) {
          detail::append_quoted(out, names_[i]);
          out += indent > 0 ? ": " : ":";
        }
        items_[i].write(out, indent, level + 1);
      }
      if (!items_.empty()) new_line(level);
      out += named ? '}' : ']';
      return;
    }
  }
  throw error("json::write: unknown kind of value; this is a defect of kd");
}

}  // namespace kd::inline KD_ABI::io
