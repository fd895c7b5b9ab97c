#include "kd/data/cifar.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/folder.hpp"
#include "support/message.hpp"

namespace fs = std::filesystem;

namespace {

void write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

// A record whose bytes tell channel, row and column apart.
std::string record(std::string labels, int shade) {
  for (int i = 0; i < 3072; ++i) labels += static_cast<char>((i * 7 + i / 1024 * 31 + shade) & 255);
  return labels;
}

void write_cifar10(const fs::path& folder) {
  for (char b = 1; b <= 5; ++b) {
    write(folder / kd::text("data_batch_", int{b}, ".bin"),
          record({b}, b) + record({static_cast<char>(b + 4)}, b + 50));
  }
  write(folder / "test_batch.bin", record({'\0'}, 200) + record({'\3'}, 201) + record({'\5'}, 202));
}

void write_cifar100(const fs::path& folder) {
  write(folder / "train.bin", record({'\1', '\7'}, 1) + record({'\23', '\143'}, 2));
  write(folder / "test.bin", record({'\2', '\10'}, 3));
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("cifar: CIFAR-10 is read in file order, from the folder and from its parent", "[data][cifar]") {
  const kd_test::folder temporary;
  const fs::path folder = temporary.path() / "cifar-10-batches-bin";
  write_cifar10(folder);
  for (const fs::path& dir : {folder, temporary.path()}) {
    const kd::data::dataset set = kd::data::load_cifar10(dir);
    CHECK(set.name == "CIFAR-10");
    CHECK(set.image == kd::image_shape(3, 32, 32));
    CHECK(set.classes == 10);
    CHECK(set.class_names.at(1) == "automobile");
    CHECK(set.train.labels == std::vector<std::int32_t>{1, 5, 2, 6, 3, 7, 4, 8, 5, 9});
    CHECK(set.test.labels == std::vector<std::int32_t>{0, 3, 5});
    REQUIRE(set.train.images.size() == 10 * 3072);
    std::string joined;
    for (int b = 1; b <= 5; ++b) joined += record("", b) + record("", b + 50);
    CHECK(std::string(set.train.images.begin(), set.train.images.end()) == joined);
    CHECK(kd::data::load_cifar(dir).name == "CIFAR-10");
  }
}

TEST_CASE("cifar: CIFAR-100 is read with its fine labels", "[data][cifar]") {
  const kd_test::folder temporary;
  const fs::path folder = temporary.path() / "cifar-100-binary";
  write_cifar100(folder);
  for (const fs::path& dir : {folder, temporary.path()}) {
    const kd::data::dataset set = kd::data::load_cifar(dir);
    CHECK(set.name == "CIFAR-100");
    CHECK(set.classes == 100);
    REQUIRE(set.class_names.size() == 100);
    CHECK(set.class_names[0] == "apple");
    CHECK(set.class_names[53] == "orange");
    CHECK(set.class_names[99] == "worm");
    CHECK(set.train.labels == std::vector<std::int32_t>{7, 99});
    CHECK(set.test.labels == std::vector<std::int32_t>{8});
    CHECK(std::string(set.test.images.begin(), set.test.images.end()) == record("", 3));
  }
}

TEST_CASE("cifar: class names come from the file when it is there", "[data][cifar]") {
  const kd_test::folder temporary;
  write_cifar10(temporary.path());
  write(temporary.path() / "batches.meta.txt", "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n\n");
  CHECK(kd::data::load_cifar10(temporary.path()).class_names.at(9) == "nine");
  write(temporary.path() / "batches.meta.txt", "zero\none\n");
  const std::string got = kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(temporary.path()); });
  CHECK(has(got, (temporary.path() / "batches.meta.txt").string() + ": expected the names of 10 classes, got 2; "));
}

TEST_CASE("cifar: class names may hold spaces, one name a line", "[data][cifar]") {
  const kd_test::folder temporary;
  write_cifar10(temporary.path());
  write(temporary.path() / "batches.meta.txt",
        "air plane\r\n  one\r\ntwo\n\nthree\nfour\nfive\nsix\nseven\neight\t\nthe last one");
  const kd::data::dataset set = kd::data::load_cifar10(temporary.path());
  CHECK(set.class_names == std::vector<std::string>{"air plane", "one", "two", "three", "four", "five", "six", "seven",
                                                    "eight", "the last one"});
}

TEST_CASE("cifar: the Python version is recognised, and the message says what to do", "[data][cifar]") {
  for (const char* inside : {"", "cifar-10-batches-py/"}) {
    const kd_test::folder temporary;
    for (const char* file : {"data_batch_1", "test_batch", "batches.meta"})
      write(temporary / (inside + std::string(file)), "x");
    const std::string got = kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(temporary.path()); });
    CHECK(has(got, "data_batch_1.bin: no such file; CIFAR-10 needs it: "));
    CHECK(has(got, " holds the Python version of CIFAR-10 (data_batch_1), which kd does not read: "));
    CHECK(has(got, "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-10: with --download)"));
  }
  for (const char* inside : {"", "cifar-100-python/"}) {
    const kd_test::folder temporary;
    for (const char* file : {"train", "test", "meta"}) write(temporary / (inside + std::string(file)), "x");
    const std::string got = kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(temporary.path()); });
    CHECK(has(got, " holds the Python version of CIFAR-100 (train)"));
  }
  const kd_test::folder folders;  // of images by split
  fs::create_directory(folders / "train");
  CHECK_FALSE(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(folders.path()); }), "Python"));
}

TEST_CASE("cifar: a folder holds the set where all of its files are there", "[data][cifar]") {
  const kd_test::folder temporary, parent;
  CHECK_FALSE(kd::data::holds_cifar10(temporary / "none"));
  CHECK_FALSE(kd::data::holds_cifar10(temporary.path()));
  write_cifar10(temporary.path());
  CHECK(kd::data::holds_cifar10(temporary.path()));
  fs::remove(temporary / "data_batch_5.bin");
  CHECK_FALSE(kd::data::holds_cifar10(temporary.path()));
  write_cifar10(parent.path() / "cifar-10-batches-bin");
  CHECK(kd::data::holds_cifar10(parent.path()));
  fs::remove(parent.path() / "cifar-10-batches-bin/test_batch.bin");
  CHECK_FALSE(kd::data::holds_cifar10(parent.path()));
  const kd_test::folder hundred;
  write_cifar100(hundred.path());
  CHECK_FALSE(kd::data::holds_cifar10(hundred.path()));
}

TEST_CASE("cifar: a missing folder or file is named with the remedy", "[data][cifar]") {
  const kd_test::folder temporary;
  const fs::path nowhere = temporary.path() / "nowhere";
  const std::string folder = kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(nowhere); });
  CHECK(has(folder, nowhere.string() + ": no such folder; CIFAR-10 is expected there"));
  CHECK(has(folder, "--download"));
  write_cifar10(temporary.path());
  const std::string file_as_folder =
      kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(temporary.path() / "test_batch.bin"); });
  CHECK(has(file_as_folder, "test_batch.bin: is not a folder; "));
  fs::remove(temporary.path() / "data_batch_3.bin");
  const std::string file = kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(temporary.path()); });
  CHECK(has(file, (temporary.path() / "data_batch_3.bin").string() + ": no such file; CIFAR-10 needs it"));
  CHECK(has(file, "--download"));
  const kd_test::folder empty;
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar(empty.path()); }),
            "data_batch_1.bin: no such file"));
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar100(empty.path()); }),
            "train.bin: no such file; CIFAR-100 needs it"));
}

TEST_CASE("cifar: a cut or empty file is named with both sizes", "[data][cifar]") {
  const kd_test::folder temporary;
  write_cifar10(temporary.path());
  write(temporary.path() / "data_batch_2.bin", record("\1", 1).substr(0, 3000));
  const std::string cut = kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(temporary.path()); });
  CHECK(has(cut, (temporary.path() / "data_batch_2.bin").string() +
                     ": expected a multiple of 3073 bytes (30730000 in CIFAR-10's own file), got 3000; "));
  write(temporary.path() / "data_batch_2.bin", record("\1", 1) + "x");
  CHECK(
      has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(temporary.path()); }), "got 3074; "));
  write(temporary.path() / "data_batch_2.bin", "");
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(temporary.path()); }), "got 0; "));
  fs::remove(temporary.path() / "data_batch_2.bin");
  fs::create_directory(temporary.path() / "data_batch_2.bin");
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(temporary.path()); }),
            "data_batch_2.bin: cannot be read: "));
  const kd_test::folder hundred;
  write_cifar100(hundred.path());
  write(hundred.path() / "train.bin", "short");
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar100(hundred.path()); }),
            "train.bin: expected a multiple of 3074 bytes (153700000 in CIFAR-100's own file), got 5; "));
}

TEST_CASE("cifar: a label out of range is named with file, record and value", "[data][cifar]") {
  const kd_test::folder temporary;
  write_cifar10(temporary.path());
  write(temporary.path() / "test_batch.bin", record({'\1'}, 1) + record({'\12'}, 2));
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(temporary.path()); }),
            (temporary.path() / "test_batch.bin").string() + ": record 1: label 10 is outside 0 ... 9 of CIFAR-10; "));
  const kd_test::folder hundred;
  write_cifar100(hundred.path());
  write(hundred.path() / "train.bin", record({'\1', '\144'}, 1));
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar100(hundred.path()); }),
            "record 0: label 100 is outside 0 ... 99"));
  write(hundred.path() / "train.bin", record({'\24', '\1'}, 1));
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar100(hundred.path()); }),
            "record 0: coarse label 20 is outside 0 ... 19"));
}

TEST_CASE("cifar: a set with another number of classes is named as such", "[data][cifar]") {
  const kd_test::folder ten, hundred;
  write_cifar10(ten.path() / "cifar-10-batches-bin");
  write_cifar100(hundred.path());
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar10(hundred.path()); }),
            hundred.path().string() + ": expected CIFAR-10 (10 classes), got CIFAR-100 (100 classes); "));
  CHECK(has(kd_test::message_of<kd::file_error>([&] { (void)kd::data::load_cifar100(ten.path()); }),
            ten.path().string() + ": expected CIFAR-100 (100 classes), got CIFAR-10 (10 classes); "));
}
