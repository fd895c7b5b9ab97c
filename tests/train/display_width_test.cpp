#include "kd/train/display_width.hpp"

#include <string>
#include <string_view>

#include "support/catch.hpp"

using kd::train::cut_to_width;
using kd::train::display_width;

TEST_CASE("display_width: letters of one, two and no columns", "[train][display_width]") {
  CHECK(display_width("") == 0);
  CHECK(display_width("LightNN-T1.5") == 12);
  CHECK(display_width("Stra\u00dfe") == 6);
  CHECK(display_width("\u77e5\u8b58\u84b8\u7559") == 8);  // Han
  CHECK(display_width("\ud559\uc0dd") == 4);              // Hangul
  CHECK(display_width("\u3072\u3089\u304c\u306a") == 8);  // Hiragana
  CHECK(display_width("\uff21\uff22") == 4);              // full width
  CHECK(display_width("\uff71\uff72") == 2);              // half width
  CHECK(display_width("\U0001f680\U0001f393") == 4);      // emoji
  CHECK(display_width("\U00020000") == 2);                // Han beyond 16 bits
  CHECK(display_width("e\u0301a\u0308") == 2);            // combining marks
  CHECK(display_width("\u2713\u2014\u03b1") == 3);        // check mark, dash, alpha
  CHECK(display_width("\xff\x80z") == 3);                 // not UTF-8
  CHECK(display_width("\xe7\x9f") == 2);                  // a letter cut short
}

TEST_CASE("display_width: the tables are sorted and apart", "[train][display_width]") {
  const auto check = [](const auto& ranges) {
    std::uint32_t before = 0;
    for (const auto& range : ranges) {
      CHECK(range.first > before);
      CHECK(range.last >= range.first);
      before = range.last;
    }
  };
  check(kd::train::detail::zero_width);
  check(kd::train::detail::wide);
  // A mark is never wide, the two in the blocks of wide letters apart: marks are looked up first.
  CHECK(display_width(char32_t{0x3099}) == 0);
  CHECK(display_width(char32_t{0x302a}) == 0);
}

TEST_CASE("cut_to_width: between letters, each with its marks", "[train][display_width]") {
  CHECK(cut_to_width("abc", 5) == "abc");
  CHECK(cut_to_width("abc", 2) == "ab");
  CHECK(cut_to_width("abc", 0).empty());
  const std::string_view han = "\u77e5\u8b58x";
  CHECK(cut_to_width(han, 1).empty());
  CHECK(cut_to_width(han, 2) == "\u77e5");
  CHECK(cut_to_width(han, 3) == "\u77e5");
  CHECK(cut_to_width(han, 4) == "\u77e5\u8b58");
  CHECK(cut_to_width(han, 5) == han);
  CHECK(cut_to_width("e\u0301x", 1) == "e\u0301");
  for (std::size_t columns = 0; columns <= 6; ++columns)
    CHECK(display_width(cut_to_width("a\u77e5\xff\U0001f680", columns)) <= columns);
}
