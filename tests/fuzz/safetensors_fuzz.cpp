/// A file that is accepted is read whole, as weights of a network too; what was read is written and read back.
#include "fuzz/fuzz.hpp"

#include <vector>

namespace {

using Tiny = kd::nn::sequential<kd::row<2>, kd::nn::as<"a", kd::nn::linear<1>>>;

void read_every_tensor(const kd::io::safetensors_file& file) {
  kd::io::safetensors_writer copy;
  std::size_t left_out = 0;
  for (const auto& [key, value] : file.metadata()) copy.metadata(key, value);
  for (const kd::io::tensor_info& tensor : file.list()) {
    kd_fuzz::require(tensor.data.size() <= 8192, "a tensor lies within its file");
    if (kd::io::size_of_dtype(tensor.dtype) == 0) {  // can be neither read nor written
      ++left_out;
      continue;
    }
    std::vector<float> floats(tensor.size());
    std::vector<std::int64_t> integers(tensor.size());
    kd_fuzz::accepts([&] { file.read(tensor.name, tensor.shape, std::span<float>(floats)); });
    kd_fuzz::accepts([&] { file.read(tensor.name, tensor.shape, std::span<std::int64_t>(integers)); });
    copy.add(tensor.name, tensor.dtype, tensor.shape, tensor.data);
  }
  const std::string path = kd_fuzz::scratch() / "copy";
  copy.write(path);
  const auto again = kd::io::safetensors_file::open(path);
  kd_fuzz::require(again.list().size() + left_out == file.list().size(), "what was written holds every tensor");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string path = kd_fuzz::file_with(kd_fuzz::bytes_of(data, size));
  kd_fuzz::accepts([&] { read_every_tensor(kd::io::safetensors_file::open(path)); });
  static kd::cpu::device device(1);
  static kd::network<Tiny, kd::cpu::device> network(device, 0);
  const std::vector<float> before(network.parameters(), network.parameters() + network.parameter_count);
  if (!kd_fuzz::accepts([&] { kd::train::load_weights(network, path); }))
    kd_fuzz::require(std::equal(before.begin(), before.end(), network.parameters()),
                     "a refusal leaves the network as it was");
  return 0;
}
