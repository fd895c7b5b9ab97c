#include "kd/io/foreign_format.hpp"

#include <fstream>
#include <string>

#include "kd/io/safetensors.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

using kd_test::folder;
using kd_test::holds;

namespace {

using namespace std::string_literals;

/// A zip archive's first bytes, of a member of this name.
std::string zip_of(const std::string& member) {
  return "PK\3\4\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s + static_cast<char>(member.size()) + "\0\0\0"s +
         member + std::string(40, 'x');
}

std::string refusal(const folder& here, const std::string& name, const std::string& content) {
  std::ofstream(here / name, std::ios::binary) << content;
  return kd_test::message_of<kd::file_error>([&] { kd::io::safetensors_file::open(here / name); });
}

}  // namespace

TEST_CASE("foreign format: files of other formats are named, with the way to convert them", "[io][safetensors]") {
  const folder here;
  const struct {
    std::string file, content, found, remedy;
  } cases[] = {
      {"light.pth", zip_of("light/data.pkl"), "a zip archive, as torch.save writes", "torch.load(\""},
      {"renamed.safetensors", zip_of("light/data.pkl"), "torch.save", "/renamed.converted.safetensors\")"},
      {"legacy.pt", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."s, "a Python pickle",
       "safetensors.torch.save_file("},
      {"dict.pkl", "\x80\x04\x95\x02\0\0\0\0\0\0\0}\x94."s, "a Python pickle", "/dict.safetensors\")"},
      {"short.pkl", "\x80\x02}q\0."s, "a Python pickle", "torch.load(\""},
      {"logits.npy", "\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"s, "an .npy array",
       "safetensors.numpy.save_file({\"logits\": "},
      {"all.npz", zip_of("logits.npy"), "an .npz archive", "np.load(\""},
      {"light.tar.gz", "\x1f\x8b\x08\0\0\0\0\0\2\3"s + std::string(40, 'x'), "gzip", "unpack it"},
      {"light.tar", "light/data" + std::string(247, '\0') + "ustar\0"s + std::string(249, '\0'), "a tar archive",
       "unpack it"},
      {"light.h5", "\x89HDF\r\n\x1a\n"s + std::string(40, '\0'), "an HDF5 file", "safetensors.numpy.save_file"},
      {"light.gguf", "GGUF\3\0\0\0"s + std::string(40, '\0'), "a GGUF file", "safetensors file that it was made from"},
      {"pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44\n", "Git LFS", "git lfs pull"},
      {"model.safetensors.index.json", "{\"metadata\": {\"total_size\": 3}}", "JSON text", "safetensors file itself"},
      {"page", "<!DOCTYPE html>\n<html>", "a web page", "fetch the file itself"},
  };
  for (const auto& c : cases) {
    const std::string message = refusal(here, c.file, c.content);
    INFO(message);
    CHECK(holds(message, here / c.file + ": expected a safetensors file, found ", c.found, c.remedy));
  }
  // A path is Python's literal.
  CHECK(holds(refusal(here, "a \"b\".pt", zip_of("light/data.pkl")), "a \\\"b\\\".pt\", map_location"));
}

TEST_CASE("foreign format: a damaged safetensors file is called that", "[io][safetensors]") {
  const folder here;
  // Lengths of headers whose low bytes are those of a pickle, of gzip, of text.
  for (const std::string& length :
       {"\x80\x02}\0"s, "\x80\x02\0\0"s, "\x1f\x8b\x08\0"s, "<\0\0\0"s, "{\0\0\0"s, "PK\3\4"s}) {
    for (const std::string& rest : {""s, "{\"w\":{\"dtype\":\"F32\","s}) {
      const std::string message = refusal(here, "cut", length + "\0\0\0\0"s + rest);
      INFO(message);
      CHECK(holds(message, "the header length must be 1 to "));
    }
  }
  CHECK(kd::io::recognise("x", "").name.empty());
  CHECK(kd::io::recognise("x", "\x80").name.empty());
  CHECK(kd::io::recognise("x", "PK\3\4").name == "a zip archive, as torch.save writes");
}
