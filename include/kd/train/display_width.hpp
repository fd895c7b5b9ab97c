/// How many columns a text takes on a terminal, and cutting it to a width between letters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/utf8.hpp"

namespace kd::inline KD_ABI::train {

/// Columns of one code point: 0 for marks that join the letter before, 2 for the wide letters of East Asia and for
/// emoji, 1 otherwise. Unicode 15.1: EastAsianWidth.txt (W and F), categories Mn, Me and Cf; scripts whose marks
/// terminals do not agree on are left at 1.
constexpr std::size_t display_width(char32_t point);

/// Columns of a text in UTF-8; a byte that is not UTF-8 counts as the one column of the sign that stands for it.
constexpr std::size_t display_width(std::string_view text);

/// The beginning of a text in UTF-8 that fits the columns: whole letters, each with its marks.
constexpr std::string_view cut_to_width(std::string_view text, std::size_t columns);

namespace detail {

struct code_points {
  std::uint32_t first, last;
};

inline constexpr code_points zero_width[] = {
    {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD},   {0x0610, 0x061A},   {0x064B, 0x065F}, {0x0E31, 0x0E31},
    {0x0E34, 0x0E3A}, {0x0E47, 0x0E4E}, {0x1160, 0x11FF},   {0x1AB0, 0x1AFF},   {0x1DC0, 0x1DFF}, {0x200B, 0x200F},
    {0x202A, 0x202E}, {0x2060, 0x2064}, {0x20D0, 0x20F0},   {0x302A, 0x302D},   {0x3099, 0x309A}, {0xFE00, 0xFE0F},
    {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF}, {0xE0001, 0xE007F}, {0xE0100, 0xE01EF},
};
inline constexpr code_points wide[] = {
    {0x1100, 0x115F},   {0x231A, 0x231B},   {0x2329, 0x232A},   {0x23E9, 0x23EC},   {0x23F0, 0x23F0},
    {0x23F3, 0x23F3},   {0x25FD, 0x25FE},   {0x2614, 0x2615},   {0x2648, 0x2653},   {0x267F, 0x267F},
    {0x2693, 0x2693},   {0x26A1, 0x26A1},   {0x26AA, 0x26AB},   {0x26BD, 0x26BE},   {0x26C4, 0x26C5},
    {0x26CE, 0x26CE},   {0x26D4, 0x26D4},   {0x26EA, 0x26EA},   {0x26F2, 0x26F3},   {0x26F5, 0x26F5},
    {0x26FA, 0x26FA},   {0x26FD, 0x26FD},   {0x2705, 0x2705},   {0x270A, 0x270B},   {0x2728, 0x2728},
    {0x274C, 0x274C},   {0x274E, 0x274E},   {0x2753, 0x2755},   {0x2757, 0x2757},   {0x2795, 0x2797},
    {0x27B0, 0x27B0},   {0x27BF, 0x27BF},   {0x2B1B, 0x2B1C},   {0x2B50, 0x2B50},   {0x2B55, 0x2B55},
    {0x2E80, 0x303E},   {0x3041, 0x33FF},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},
    {0xA960, 0xA97C},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE10, 0xFE19},   {0xFE30, 0xFE6B},
    {0xFF01, 0xFF60},   {0xFFE0, 0xFFE6},   {0x16FE0, 0x18CD5}, {0x1AFF0, 0x1B2FB}, {0x1F004, 0x1F004},
    {0x1F0CF, 0x1F0CF}, {0x1F18E, 0x1F18E}, {0x1F191, 0x1F19A}, {0x1F200, 0x1F320}, {0x1F32D, 0x1F335},
    {0x1F337, 0x1F37C}, {0x1F37E, 0x1F393}, {0x1F3A0, 0x1F3CA}, {0x1F3CF, 0x1F3D3}, {0x1F3E0, 0x1F3F0},
    {0x1F3F4, 0x1F3F4}, {0x1F3F8, 0x1F43E}, {0x1F440, 0x1F440}, {0x1F442, 0x1F4FC}, {0x1F4FF, 0x1F53D},
    {0x1F54B, 0x1F54E}, {0x1F550, 0x1F567}, {0x1F57A, 0x1F57A}, {0x1F595, 0x1F596}, {0x1F5A4, 0x1F5A4},
    {0x1F5FB, 0x1F64F}, {0x1F680, 0x1F6C5}, {0x1F6CC, 0x1F6CC}, {0x1F6D0, 0x1F6D2}, {0x1F6D5, 0x1F6D7},
    {0x1F6DC, 0x1F6DF}, {0x1F6EB, 0x1F6EC}, {0x1F6F4, 0x1F6FC}, {0x1F7E0, 0x1F7EB}, {0x1F7F0, 0x1F7F0},
    {0x1F90C, 0x1F93A}, {0x1F93C, 0x1F945}, {0x1F947, 0x1F9FF}, {0x1FA70, 0x1FAFF}, {0x20000, 0x2FFFD},
    {0x30000, 0x3FFFD},
};

template <std::size_t Count>
constexpr bool is_among(const code_points (&ranges)[Count], std::uint32_t point) {
  const auto* const at = std::lower_bound(ranges, ranges + Count, point,
                                          [](const code_points& range, std::uint32_t p) { return range.last < p; });
  return at != ranges + Count && at->first <= point;
}

/// The first letter of a text that is not empty: its bytes, without marks that follow, and its columns.
struct letter {
  std::size_t bytes, columns;
};

constexpr letter first_letter(std::string_view text) {
  const std::size_t bytes = kd::detail::utf8_length(text);
  if (bytes == 0) return {1, 1};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::uint32_t point = bytes == 1 ? byte(0) : byte(0) & (0xFFu >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) point = point << 6 | (byte(i) & 0x3Fu);
  return {bytes, display_width(char32_t{point})};
}

}  // namespace detail

constexpr std::size_t display_width(char32_t point) {
  if (point < 0x300) return 1;
  return detail::is_among(detail::zero_width, point) ? 0 : detail::is_among(detail::wide, point) ? 2 : 1;
}

constexpr std::size_t display_width(std::string_view text) {
  std::size_t columns = 0;
  while (!text.empty()) {
    const detail::letter next = detail::first_letter(text);
    columns += next.columns;
    text.remove_prefix(next.bytes);
  }
  return columns;
}

constexpr std::string_view cut_to_width(std::string_view text, std::size_t columns) {
  std::size_t taken = 0, bytes = 0;
  while (bytes < text.size()) {
    const detail::letter next = detail::first_letter(text.substr(bytes));
    if (taken + next.columns > columns) break;
    taken += next.columns;
    bytes += next.bytes;
  }
  return text.substr(0, bytes);
}

}  // namespace kd::inline KD_ABI::train
