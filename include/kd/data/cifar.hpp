/// CIFAR-10 and CIFAR-100 in the binary layout of https://www.cs.toronto.edu/~kriz/cifar.html: a record is the label
/// byte (CIFAR-100: coarse, then fine), then 3072 bytes [3][32][32].
/// Krizhevsky: Learning multiple layers of features from tiny images. Technical report, Toronto 2009.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/shape.hpp"
#include "kd/data/dataset.hpp"

namespace kd::inline KD_ABI::data {

/// Loads CIFAR-10 from `dir`, or from `dir`/cifar-10-batches-bin. A file may hold any number of whole records. Errors:
/// file_error when a file is missing or cut, or a label or the number of classes is not CIFAR-10's.
dataset load_cifar10(const std::filesystem::path& dir);

/// Loads CIFAR-100 with its 100 fine labels from `dir`, or from `dir`/cifar-100-binary; errors as load_cifar10.
dataset load_cifar100(const std::filesystem::path& dir);

/// Whether load_cifar10(dir) finds all the files of the set; it does not open them.
bool holds_cifar10(const std::filesystem::path& dir);

/// Loads whichever of the two `dir` holds (CIFAR-10 when it holds both folders); errors as load_cifar10.
dataset load_cifar(const std::filesystem::path& dir);

namespace detail {

inline constexpr std::string_view cifar10_names = "airplane automobile bird cat deer dog frog horse ship truck";
inline constexpr std::string_view cifar100_names =
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail "
    "snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout "
    "tulip turtle wardrobe whale willow_tree wolf woman worm";

/// What tells the two sets apart on disk.
struct cifar_layout {
  std::string_view name, folder, names_file, known_names;
  std::string_view python_folder, python_file;  // of the version that is made of Python's pickles
  std::size_t classes, coarse_classes;          // coarse_classes 0: a record has no coarse label
  std::vector<std::string_view> train_files;
  std::string_view test_file;

  std::size_t label_bytes() const { return coarse_classes == 0 ? 1 : 2; }
  std::size_t record_bytes() const { return label_bytes() + 3 * 32 * 32; }
};

inline cifar_layout cifar10_layout() {
  return {"CIFAR-10",
          "cifar-10-batches-bin",
          "batches.meta.txt",
          cifar10_names,
          "cifar-10-batches-py",
          "data_batch_1",
          10,
          0,
          {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
          "test_batch.bin"};
}
inline cifar_layout cifar100_layout() {
  return {
      "CIFAR-100",   "cifar-100-binary", "fine_label_names.txt", cifar100_names, "cifar-100-python", "train", 100, 20,
      {"train.bin"}, "test.bin"};
}

inline bool has_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}
/// Whether `dir` itself holds the set's files, all or some of them.
inline bool holds(const std::filesystem::path& dir, const cifar_layout& layout) {
  return has_file(dir / layout.train_files[0]) || has_file(dir / layout.test_file);
}

/// Whether all files of the set are in this folder.
inline bool is_complete(const std::filesystem::path& folder, const cifar_layout& layout) {
  const auto there = [&](std::string_view file) { return has_file(folder / file); };
  return std::all_of(layout.train_files.begin(), layout.train_files.end(), there) && there(layout.test_file);
}

/// What to do where a file of the set is missing from `folder`, which was found in `dir`.
inline std::string remedy_of_missing(const std::filesystem::path& dir, const std::filesystem::path& folder,
                                     const cifar_layout& layout) {
  for (const cifar_layout& any : {layout, cifar10_layout(), cifar100_layout()}) {
    for (const std::filesystem::path& python : {folder, dir, dir / any.python_folder}) {
      std::error_code ignored;
      if (std::filesystem::is_regular_file(python / any.python_file, ignored))
        return text(python.string(), " holds the Python version of ", any.name, " (", any.python_file,
                    "), which kd does not read: fetch the binary version from "
                    "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-10: with --download)");
    }
  }
  return text("pass the folder that holds ", layout.folder,
              " (--data DIR or KD_DATA), or fetch the set with --download");
}

/// The folder with the set's files: dir/FOLDER, or dir itself.
inline std::filesystem::path cifar_folder(const std::filesystem::path& dir, const cifar_layout& layout) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(dir, ignored)) {
    throw file_error(text(dir.string(), ": ", has_file(dir) ? "is not a folder" : "no such folder", "; ", layout.name,
                          " is expected there: pass the folder that holds ", layout.folder,
                          " (--data DIR or KD_DATA), or ", "fetch the set with --download"));
  }
  if (std::filesystem::is_directory(dir / layout.folder, ignored)) return dir / layout.folder;
  return dir;
}

/// What stands between the separators, without blanks at its ends; empty pieces are left out.
inline std::vector<std::string> split_names(std::string_view names, char separator) {
  constexpr std::string_view blanks = " \t\r\n";
  std::vector<std::string> out;
  while (!names.empty()) {
    const std::size_t end = std::min(names.find(separator), names.size());
    const std::string_view piece = names.substr(0, end);
    names.remove_prefix(std::min(end + 1, names.size()));
    const std::size_t first = piece.find_first_not_of(blanks);
    if (first != std::string_view::npos)
      out.emplace_back(piece.substr(first, piece.find_last_not_of(blanks) + 1 - first));
  }
  return out;
}

/// All bytes of a file.
inline std::vector<std::uint8_t> file_bytes(const std::filesystem::path& path, std::string_view remedy) {
  std::error_code status;
  const std::uintmax_t size = std::filesystem::file_size(path, status);
  if (status) throw file_error(text(path.string(), ": cannot be read: ", status.message(), "; ", remedy));
  std::vector<std::uint8_t> bytes(size);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw file_error(text(path.string(), ": cannot be opened; check its permissions"));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (static_cast<std::uintmax_t>(file.gcount()) != size) {
    throw file_error(text(path.string(), ": expected ", size, " bytes, got ", file.gcount(), "; ", remedy));
  }
  return bytes;
}

/// Appends the records of one file to `out`.
inline void read_cifar_file(const std::filesystem::path& path, const cifar_layout& layout, split& out) {
  constexpr std::string_view remedy = "remove it and fetch the set again with --download, or copy the file anew";
  const std::vector<std::uint8_t> bytes = file_bytes(path, remedy);
  const std::size_t record = layout.record_bytes(), count = bytes.size() / record;
  if (count == 0 || bytes.size() % record != 0) {
    const std::size_t usual = layout.classes == 10 ? 10'000 : path.filename() == layout.test_file ? 10'000 : 50'000;
    throw file_error(text(path.string(), ": expected a multiple of ", record, " bytes (", record * usual, " in ",
                          layout.name, "'s own file), got ", bytes.size(),
                          "; the file is cut or of another set: ", remedy));
  }
  const std::size_t pixels = record - layout.label_bytes();
  out.images.reserve(out.images.size() + count * pixels);
  out.labels.reserve(out.labels.size() + count);
  const auto check = [&](std::size_t i, std::string_view which, std::size_t label, std::size_t classes) {
    if (label < classes) return;
    throw file_error(text(path.string(), ": record ", i, ": ", which, " ", label, " is outside 0 ... ", classes - 1,
                          " of ", layout.name, "; the file is corrupt or of another set: ", remedy));
  };
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* at = bytes.data() + i * record;
    if (layout.coarse_classes != 0) check(i, "coarse label", at[0], layout.coarse_classes);
    const std::uint8_t label = at[layout.label_bytes() - 1];
    check(i, "label", label, layout.classes);
    out.labels.push_back(label);
    out.images.insert(out.images.end(), at + layout.label_bytes(), at + record);
  }
}

inline std::vector<std::string> cifar_class_names(const std::filesystem::path& folder, const cifar_layout& layout) {
  const std::filesystem::path path = folder / layout.names_file;
  if (!has_file(path)) return split_names(layout.known_names, ' ');
  const std::vector<std::uint8_t> bytes = file_bytes(path, "remove it to use the well-known names");
  // One name a line, which may hold spaces.
  std::vector<std::string> names = split_names({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, '\n');
  if (names.size() != layout.classes) {
    throw file_error(text(path.string(), ": expected the names of ", layout.classes, " classes, got ", names.size(),
                          "; ", "the folder holds another set than ", layout.name,
                          ", or remove the file to use the well-known names"));
  }
  return names;
}

inline dataset load_cifar_as(const std::filesystem::path& dir, const cifar_layout& layout, const cifar_layout& other,
                             std::string_view other_function) {
  const std::filesystem::path folder = cifar_folder(dir, layout);
  if (!holds(folder, layout) && (holds(folder, other) || holds(folder / other.folder, other))) {
    throw file_error(text(dir.string(), ": expected ", layout.name, " (", layout.classes, " classes), got ", other.name,
                          " (", other.classes, " classes); load it with ", other_function, ", or pass the folder of ",
                          layout.name));
  }
  dataset out;
  out.name = layout.name;
  out.image = image_shape(3, 32, 32);
  out.classes = layout.classes;
  out.class_names = cifar_class_names(folder, layout);
  const auto require = [&](std::string_view file) {
    if (has_file(folder / file)) return folder / file;
    throw file_error(text((folder / file).string(), ": no such file; ", layout.name,
                          " needs it: ", remedy_of_missing(dir, folder, layout)));
  };
  for (const std::string_view file : layout.train_files) (void)require(file);
  (void)require(layout.test_file);
  for (const std::string_view file : layout.train_files) read_cifar_file(require(file), layout, out.train);
  read_cifar_file(require(layout.test_file), layout, out.test);
  return out;
}

}  // namespace detail

inline dataset load_cifar10(const std::filesystem::path& dir) {
  return detail::load_cifar_as(dir, detail::cifar10_layout(), detail::cifar100_layout(), "kd::data::load_cifar100");
}

inline dataset load_cifar100(const std::filesystem::path& dir) {
  return detail::load_cifar_as(dir, detail::cifar100_layout(), detail::cifar10_layout(), "kd::data::load_cifar10");
}

inline bool holds_cifar10(const std::filesystem::path& dir) {
  const detail::cifar_layout layout = detail::cifar10_layout();
  std::error_code ignored;
  return std::filesystem::is_directory(dir, ignored) && detail::is_complete(detail::cifar_folder(dir, layout), layout);
}

inline dataset load_cifar(const std::filesystem::path& dir) {
  const detail::cifar_layout ten = detail::cifar10_layout(), hundred = detail::cifar100_layout();
  const bool is_ten = detail::holds(dir, ten) || detail::holds(dir / ten.folder, ten);
  const bool is_hundred = detail::holds(dir, hundred) || detail::holds(dir / hundred.folder, hundred);
  return is_hundred && !is_ten ? load_cifar100(dir) : load_cifar10(dir);
}

}  // namespace kd::inline KD_ABI::data
