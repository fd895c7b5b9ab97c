/// Text at compile time: names as template arguments, and short names put together while a model is traced.
#pragma once

#include <cstddef>
#include <string_view>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// A string literal as a template argument: as<"conv1", ...>.
struct fixed_string {
  char characters[64]{};
  template <std::size_t N>
  constexpr fixed_string(const char (&literal)[N]) {
    static_assert(N <= sizeof characters, "kd: a layer's name is longer than 63 characters");
    for (std::size_t i = 0; i < N; ++i) characters[i] = literal[i];
  }
  constexpr std::string_view view() const { return characters; }
};

/// A name of at most 63 characters, such as "layer4.1.conv2.weight".
struct short_name {
  char characters[64]{};
  std::size_t size = 0;

  constexpr short_name() = default;
  constexpr explicit short_name(std::string_view text) { append(text); }

  constexpr std::string_view view() const { return {characters, size}; }
  constexpr short_name& append(std::string_view text) {
    for (const char c : text) {
      if (size >= sizeof characters) throw "kd: a layer's name is longer than 63 characters";
      characters[size++] = c;
    }
    return *this;
  }
  constexpr short_name& append_number(std::size_t number) {
    char digits[20]{};
    std::size_t count = 0;
    do digits[count++] = static_cast<char>('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0) append({&digits[--count], 1});
    return *this;
  }
  friend constexpr bool operator==(const short_name& a, const short_name& b) { return a.view() == b.view(); }
};

/// A short_name as a template argument that compilers print as text: clang makes a list of numbers of an array that
/// does not end with the one zero that is written to it.
template <std::size_t Size>
struct printed_name {
  char characters[Size + 1];
  constexpr explicit printed_name(const short_name& name) {
    for (std::size_t i = 0; i < Size; ++i) characters[i] = name.characters[i];
    characters[Size] = '\0';
  }
};

}  // namespace kd::inline KD_ABI
