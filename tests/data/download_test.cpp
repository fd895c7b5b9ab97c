#include "kd/data/download.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "kd/data/open.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

namespace fs = std::filesystem;
using kd::data::cifar_set;
using kd::data::download_cifar;
using kd_test::holds;
using kd_test::message_of;

namespace {

void write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

// A small archive of one record per file, as the official ones are laid out, and its digests.
kd::data::archive make_archive(const fs::path& in, cifar_set which, char shade) {
  const bool ten = which == cifar_set::cifar10;
  const std::string folder = ten ? "cifar-10-batches-bin" : "cifar-100-binary";
  const std::string record = std::string(ten ? 1 : 2, '\3') + std::string(3072, shade);
  if (ten) {
    for (int b = 1; b <= 5; ++b) write(in / folder / kd::text("data_batch_", b, ".bin"), record);
    write(in / folder / "test_batch.bin", record);
  } else {
    write(in / folder / "train.bin", record);
    write(in / folder / "test.bin", record);
  }
  const std::string file = (in / (folder + ".tar.gz")).string();
  REQUIRE(kd::io::run_program({"tar", "-czf", file, "-C", in.string(), folder}) == 0);
  const kd::io::file_digests digests = kd::io::digest_file(file);
  return {"file://" + file, digests.sha256, digests.md5};
}

std::size_t entries(const fs::path& folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder)) ++count;
  return count;
}

}  // namespace

TEST_CASE("download: a local archive is fetched, checked, unpacked and can be loaded", "[data][download]") {
  const kd_test::folder source, home;
  const fs::path dir = home.path() / "made" / "on the way";
  for (const cifar_set which : {cifar_set::cifar10, cifar_set::cifar100}) {
    const kd::data::archive from = make_archive(source.path(), which, 'a');
    download_cifar(which, dir, from);
    const kd::data::dataset set =
        which == cifar_set::cifar10 ? kd::data::load_cifar10(dir) : kd::data::load_cifar100(dir);
    CHECK(set.train.labels.at(0) == 3);
    CHECK(set.test.images.at(3071) == 'a');
  }
  CHECK(entries(dir) == 2);
}

TEST_CASE("download: one checksum is enough, in either case of letters", "[data][download]") {
  const kd_test::folder source, home;
  const kd::data::archive from = make_archive(source.path(), cifar_set::cifar100, 'a');
  download_cifar(cifar_set::cifar100, home.path(), {from.url, from.sha256, ""});
  std::string upper = from.md5;
  for (char& c : upper) c = c >= 'a' ? static_cast<char>(c - 'a' + 'A') : c;
  download_cifar(cifar_set::cifar100, home.path(), {from.url, "", upper});
  CHECK(
      message_of<kd::argument_error>([&] {
        download_cifar(cifar_set::cifar100, home.path(), {from.url, "", ""});
      }) ==
      "kd::data::download_cifar: sha256 or md5 must be given, received neither; pass the archive's checksum, so that a "
      "damaged download cannot pass for data");
}

TEST_CASE("download: a new set replaces the old one, a failure leaves it whole", "[data][download]") {
  const kd_test::folder source, home;
  const kd::data::archive first = make_archive(source.path(), cifar_set::cifar100, 'a');
  download_cifar(cifar_set::cifar100, home.path(), first);
  const kd::data::archive second = make_archive(source.path(), cifar_set::cifar100, 'b');
  const std::string wrong(64, '0'), wrong_md5(32, '1');

  const std::string sha = message_of<kd::file_error>([&] {
    download_cifar(cifar_set::cifar100, home.path(), {second.url, wrong, ""});
  });
  CHECK(holds(sha, second.url + ": expected SHA-256 " + wrong + ", got " + second.sha256 + " ("));
  const std::string md5 = message_of<kd::file_error>([&] {
    download_cifar(cifar_set::cifar100, home.path(), {second.url, "", wrong_md5});
  });
  CHECK(holds(md5, "expected MD5 " + wrong_md5 + ", got " + second.md5 + " ("));
  CHECK(kd::data::load_cifar100(home.path()).test.images.at(0) == 'a');
  CHECK(entries(home.path()) == 1);

  download_cifar(cifar_set::cifar100, home.path(), second);
  CHECK(kd::data::load_cifar100(home.path()).test.images.at(0) == 'b');
  CHECK(entries(home.path()) == 1);
}

TEST_CASE("download: a failing fetch names the address and curl's exit status", "[data][download]") {
  const kd_test::folder home;
  const std::string url = "file://" + (home.path() / "missing.tar.gz").string();
  const std::string got = message_of<kd::file_error>([&] {
    download_cifar(cifar_set::cifar10, home.path() / "data", {url, "", "0"});
  });
  CHECK(holds(got, url + ": curl failed with exit status 37 (the file could not be read)"));
  CHECK(holds(message_of<kd::file_error>([&] {
                download_cifar(cifar_set::cifar10, home.path() / "data", {"gopher://x", "", "0"});
              }),
              "exit status 1 (the address is malformed or of an unsupported protocol)"));
  CHECK(entries(home.path() / "data") == 0);
}

TEST_CASE("download: an archive that is none, or of another set, is refused", "[data][download]") {
  const kd_test::folder source, home;
  const fs::path file = source.path() / "text.tar.gz";
  write(file, "not an archive");
  const kd::io::file_digests digests = kd::io::digest_file(file.string());
  CHECK(holds(message_of<kd::file_error>([&] {
                download_cifar(cifar_set::cifar10, home.path(), {"file://" + file.string(), "", digests.md5});
              }),
              "text.tar.gz: tar failed with exit status 2"));
  const kd::data::archive hundred = make_archive(source.path(), cifar_set::cifar100, 'a');
  CHECK(holds(message_of<kd::file_error>([&] { download_cifar(cifar_set::cifar10, home.path(), hundred); }),
              "expected the folder cifar-10-batches-bin with test_batch.bin in the archive"));
  CHECK(entries(home.path()) == 0);
}

TEST_CASE("download: without curl the message says how to get it", "[data][download]") {
  const kd_test::folder home;
  const std::string path = getenv("PATH");
  setenv("PATH", home.path().c_str(), 1);
  const std::string got = message_of<kd::file_error>([&] {
    download_cifar(cifar_set::cifar10, home.path() / "data", {"file:///x", "", "0"});
  });
  setenv("PATH", path.c_str(), 1);
  CHECK(holds(got, "curl: cannot be started"));
  CHECK(holds(got, "apt install curl"));
}

TEST_CASE("download: what a killed process left is removed, and a second process at work is named",
          "[data][download]") {
  const kd_test::folder source, home;
  const kd::data::archive archive = make_archive(source.path(), cifar_set::cifar10, 'a');
  write(home.path() / ".kd-download/archive.tar.gz", "a rest");
  download_cifar(cifar_set::cifar10, home.path(), archive);
  CHECK(entries(home.path()) == 1);
  const kd::io::file_lock other(home / ".kd-download.lock", "", "");
  CHECK(holds(message_of<kd::file_error>([&] { download_cifar(cifar_set::cifar10, home.path(), archive); }),
              home.path().string() + ": is in use by process "));
}

TEST_CASE("download: open fetches nothing where the set is there", "[data][download]") {
  const kd_test::folder source, home, empty;
  const kd::data::archive mine = make_archive(source.path(), cifar_set::cifar10, 'a');
  download_cifar(cifar_set::cifar10, home.path(), mine);
  const std::string path = getenv("PATH"), set = (home.path() / "cifar-10-batches-bin").string();
  setenv("PATH", empty.path().c_str(), 1);  // curl would not be found
  for (const std::string& folder : {home.path().string(), set})
    CHECK(kd::data::open({.folder = folder, .download = true}).train.size() == 5);
  fs::remove(set + "/data_batch_2.bin");
  CHECK(holds(
      message_of<kd::file_error>([&] { (void)kd::data::open({.folder = home.path().string(), .download = true}); }),
      "curl: cannot be started"));
  setenv("PATH", path.c_str(), 1);
}

TEST_CASE("download: a folder that cannot be written is named", "[data][download]") {
  const kd_test::folder home;
  write(home.path() / "file", "x");
  CHECK(holds(message_of<kd::file_error>([&] {
                download_cifar(cifar_set::cifar10, home.path() / "file", {"file:///x", "", "0"});
              }),
              (home.path() / "file").string() + ": cannot create a folder in it: "));
}

TEST_CASE("download: the official archives have digests of the right length", "[data][download]") {
  for (const cifar_set which : {cifar_set::cifar10, cifar_set::cifar100}) {
    const kd::data::archive from = kd::data::official_archive(which);
    CHECK(from.sha256.size() == 64);
    CHECK(from.md5.size() == 32);
    CHECK(holds(from.url, "https://www.cs.toronto.edu/~kriz/cifar-10"));
  }
}
