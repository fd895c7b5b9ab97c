/// A folder of CIFAR's binary files, one of which is the input: refused, or whole.
#include "fuzz/fuzz.hpp"

#include <array>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  constexpr std::size_t record10 = 3073, record100 = 3074;
  static const std::string ten = kd_fuzz::scratch() / "ten", hundred = kd_fuzz::scratch() / "hundred";
  static const bool made = std::filesystem::create_directory(ten) && std::filesystem::create_directory(hundred);
  kd_fuzz::require(made, "the scratch folder can be written");
  const kd_fuzz::bytes input = kd_fuzz::bytes_of(data + 1, size - 1);
  const std::string record(record10, '\3'), wide(record100, '\3');
  constexpr std::array names{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                             "data_batch_5.bin", "test_batch.bin",   "batches.meta.txt"};
  const bool is_ten = data[0] % 2 == 0;
  const std::size_t which = data[0] / 2 % (is_ten ? names.size() : 3);
  kd::data::dataset set;
  bool accepted = false;
  if (is_ten) {
    std::filesystem::remove(ten + "/" + names.back());
    for (std::size_t i = 0; i < names.size(); ++i)
      if (i == which || i + 1 < names.size()) kd_fuzz::put(ten + "/" + names[i], i == which ? input : record);
    accepted = kd_fuzz::accepts([&] { set = kd::data::load_cifar(ten); });
  } else {
    constexpr std::array files{"train.bin", "test.bin", "fine_label_names.txt"};
    std::filesystem::remove(hundred + "/" + files.back());
    for (std::size_t i = 0; i < files.size(); ++i)
      if (i == which || i + 1 < files.size()) kd_fuzz::put(hundred + "/" + files[i], i == which ? input : wide);
    accepted = kd_fuzz::accepts([&] { set = kd::data::load_cifar(hundred); });
  }
  if (!accepted) return 0;
  kd_fuzz::require(set.class_names.size() == set.classes, "every class has a name");
  for (const kd::data::split* split : {&set.train, &set.test}) {
    kd_fuzz::require(split->size() > 0 && split->images.size() == split->size() * set.image.size(),
                     "every label has its image");
    for (const std::int32_t label : split->labels)
      kd_fuzz::require(label >= 0 && static_cast<std::size_t>(label) < set.classes, "labels are classes");
  }
  return 0;
}
