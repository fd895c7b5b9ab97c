/// Short texts that tell what a run learns from: a data set, a table of logits, a teacher.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kd/data/dataset.hpp"
#include "kd/io/checksum.hpp"
#include "kd/nn/network.hpp"
#include "kd/train/teacher.hpp"

namespace kd::inline KD_ABI::train {

/// One split of a data set: how many samples, and XXH64 of their images and of their labels.
struct split_digest {
  std::size_t samples = 0;
  std::string images, labels;
};

namespace detail {

/// 16 hexadecimal digits.
inline std::string hex_of(std::uint64_t digest) {
  std::string digits(16, '0');
  for (std::size_t i = 16; i-- > 0; digest >>= 4) digits[i] = "0123456789abcdef"[digest & 15];
  return digits;
}

}  // namespace detail

/// Reads every image: 150 MB in some hundredths of a second.
inline split_digest digest_of(const data::split& samples) {
  return {.samples = samples.size(),
          .images = detail::hex_of(io::xxh64(std::as_bytes(std::span(samples.images)))),
          .labels = detail::hex_of(io::xxh64(std::as_bytes(std::span(samples.labels))))};
}

/// "network 0123456789abcdef": XXH64 of a network's normalisation of pixels, its weights and its running statistics.
template <class Network>
requires requires { typename Network::plan; }
std::string network_identity(const Network& network) {
  std::uint64_t digest = io::xxh64(std::as_bytes(std::span(network.pixels().mean)));
  digest = io::xxh64(std::as_bytes(std::span(network.pixels().std)), digest);
  for (const nn::tensor_info& info : Network::plan::tensors) {
    const std::vector<float> values = network.read(info);
    digest = io::xxh64(std::as_bytes(std::span(values)), digest);
  }
  return text("network ", detail::hex_of(digest));
}

/// What a student's soft targets come from: "none", "network ...", or "logits ..." with XXH64 of the table.
inline std::string teacher_identity(const no_teacher&) { return "none"; }
inline std::string teacher_identity(const cached_teacher& teacher) {
  if (!teacher.made_by.empty()) return teacher.made_by;
  return text("logits ", detail::hex_of(io::xxh64(std::as_bytes(teacher.logits->elements()))));
}
template <class Network>
std::string teacher_identity(const live_teacher<Network>& teacher) {
  return network_identity(*teacher.network);
}

}  // namespace kd::inline KD_ABI::train
