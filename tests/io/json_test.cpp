#include "kd/io/json.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "support/catch.hpp"
#include "support/message.hpp"

using kd::io::json;

namespace {

std::string refusal_of(std::string_view text) {
  return kd_test::message_of<kd::file_error>([&] { json::parse(text, "results.json"); });
}

}  // namespace

TEST_CASE("json: text that is read and written again is unchanged", "[io][json]") {
  for (const char* same : {"null", "true", "false", "0", "-1", "18446744073709551615", "-9223372036854775808", "0.1",
                           "-2.5e-300", "\"\"", "[]", "{}", "[1,[2,{\"a\":[]}],\"b\"]", "{\"b\":1,\"a\":{\"c\":null}}",
                           "\"caf\xc3\xa9 \\\"\\\\\\n\\t\\u0001\""})
    CHECK(json::parse(same).dump() == same);
}

TEST_CASE("json: escapes become UTF-8", "[io][json]") {
  CHECK(json::parse(R"("\u0041\u00e9\u20ac\ud83d\ude00\/\b\f\r")").as_string() ==
        "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80/\b\f\r");
}

TEST_CASE("json: blanks are allowed around every token", "[io][json]") {
  CHECK(json::parse(" \n{ \"a\" :\t[ 1 , 2 ]\r} ").dump() == "{\"a\":[1,2]}");
}

TEST_CASE("json: integers stay exact and kinds are checked", "[io][json]") {
  CHECK(json::parse("18446744073709551615").as_unsigned() == std::numeric_limits<std::uint64_t>::max());
  CHECK(json::parse("-9223372036854775808").as_integer() == std::numeric_limits<std::int64_t>::min());
  CHECK(json::parse("-3").as_number() == -3);
  CHECK(json::parse("2.5").as_number() == 2.5);
  CHECK(json::parse("18446744073709551616").type() == json::kind::number);
  CHECK_THROWS_AS(json::parse("-1").as_unsigned(), kd::file_error);
  CHECK_THROWS_AS(json::parse("1.0").as_unsigned(), kd::file_error);
  CHECK_THROWS_AS(json::parse("18446744073709551615").as_integer(), kd::file_error);
  CHECK_THROWS_AS(json::parse("\"1\"").as_number(), kd::file_error);
  CHECK_THROWS_AS(json::parse("null").as_number(), kd::file_error);
  CHECK_THROWS_AS(json::parse("1").as_string(), kd::file_error);
  CHECK_THROWS_AS(json::parse("1").as_bool(), kd::file_error);
  CHECK_THROWS_AS(json::parse("{\"a\":1}").at("epoch"), kd::file_error);
}

TEST_CASE("json: minus zero keeps its sign", "[io][json]") {
  for (const json& zero : {json(-0.0), json(-0.0f), json::parse("-0.0"), json::parse("-0e0")}) {
    CHECK(zero.dump() == "-0.0");
    CHECK(std::signbit(json::parse(zero.dump()).as_number()));
  }
  CHECK(json(0.0).dump() == "0");
}

TEST_CASE("json: what RFC 8259 forbids is rejected", "[io][json]") {
  for (const char* bad : {"",
                          " ",
                          "nul",
                          "01",
                          "+1",
                          "1.",
                          ".5",
                          "1e",
                          "-",
                          "NaN",
                          "Infinity",
                          "'a'",
                          "\"a",
                          "\"\\x\"",
                          "\"\\u12",
                          "\"\\u12g4\"",
                          "[1,]",
                          "[1 2]",
                          "{\"a\"}",
                          "{\"a\":1,}",
                          "{a:1}",
                          "[",
                          "{",
                          "1 2",
                          "[1]]",
                          "1e999",
                          "\"\t\"",
                          "\"\\ud800\"",
                          "\"\\udc00\"",
                          "\"\\ud800\\u0041\"",
                          "\"\xff\"",
                          "\"\xc0\x80\"",
                          "\"\xed\xa0\x80\"",
                          "\"\xf5\x80\x80\x80\"",
                          "\"\xe2\x82\"",
                          "\"\\u+123\"",
                          "\"\\u 123\"",
                          "/**/1",
                          "-x",
                          "1e+"}) {
    INFO(bad);
    CHECK_THROWS_AS(json::parse(bad), kd::file_error);
  }
}

TEST_CASE("json: messages name source, place, rule and what was found", "[io][json]") {
  CHECK(refusal_of("{\n  \"a\": 1,\n  b}") ==
        "results.json: invalid JSON at line 3, column 3: expected a member name in quotes, found \"b}\"; the file is "
        "damaged or not JSON: restore it or write it again");
  CHECK(refusal_of("[1").find("line 1, column 3: expected ',' or ']', found the end of the text") != std::string::npos);
  CHECK(refusal_of("{\"a\":1,\"b\":2,\"a\":3}").find("the name \"a\" appears twice") != std::string::npos);
}

TEST_CASE("json: nesting is limited, not the stack's end", "[io][json]") {
  CHECK_NOTHROW(json::parse(std::string(100, '[') + std::string(100, ']')));
  CHECK_THROWS_AS(json::parse(std::string(102, '[') + std::string(102, ']')), kd::file_error);
  CHECK_THROWS_AS(json::parse(std::string(1000000, '[')), kd::file_error);
}

TEST_CASE("json: values are built, found and written", "[io][json]") {
  json run;
  run["name"] = "LightNN";
  run["distilled"] = true;
  run["temperature"] = 1.01f;
  run["loss"] = std::numeric_limits<double>::quiet_NaN();
  run["top"] = -std::numeric_limits<float>::infinity();
  run["seed"] = 3;
  run["images"] = 50000u;
  run["curve"].push_back(0.5);
  run["curve"].push_back(nullptr);
  run["seed"] = -4;
  CHECK(run.dump() ==
        "{\"name\":\"LightNN\",\"distilled\":true,\"temperature\":1.01,\"loss\":null,\"top\":null,\"seed\":-4,"
        "\"images\":50000,\"curve\":[0.5,null]}");
  CHECK(run["curve"].dump(2) == "[\n  0.5,\n  null\n]");
  CHECK(json::object().dump(2) == "{}");
  CHECK(run.find("missing") == nullptr);
  CHECK(json("\xff!").dump() == "\"\\ufffd!\"");
  CHECK_THROWS_AS(json(1).push_back(2), kd::file_error);
  CHECK_THROWS_AS(json(1)["a"], kd::file_error);
}
