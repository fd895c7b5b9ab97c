/// Evaluation: the logits of a whole set, and what they say about it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kd/core/labels.hpp"
#include "kd/core/tensor.hpp"
#include "kd/data/loader.hpp"
#include "kd/nn/network.hpp"

namespace kd::inline KD_ABI::train {

/// What a network gets right.
struct evaluation {
  std::size_t samples = 0;
  double top1 = 0;                          // fraction whose largest logit is the label's
  double top5 = 0;                          // fraction whose label is among the five largest (or all, of fewer classes)
  std::size_t non_finite = 0;               // rows without a prediction, see predicted_class; right nowhere
  tensor<std::uint32_t, 2> confusion = {};  // [label, prediction], counts of the rows that have one

  double top1_percent() const { return 100 * top1; }
};

/// The class of a row's largest logit, the first of equals. A row has none, and row.size() is returned, where softmax
/// is not defined: with a NaN or plus infinity, or with minus infinity (a masked class) everywhere.
inline std::size_t predicted_class(std::span<const float> row) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  std::size_t best = row.size();
  for (std::size_t c = 0; c < row.size(); ++c) {
    if (!(row[c] < infinity)) return row.size();
    if (row[c] > (best == row.size() ? -infinity : row[best])) best = c;
  }
  return best;
}

/// Counts predictions over rows of logits [N,C] and their labels [N]; of equal logits the first class counts. Throws
/// argument_error unless each row has a label and each label is a class.
inline evaluation evaluate_logits(const tensor<float, 2>& logits, std::span<const std::int32_t> labels) {
  const std::size_t classes = logits.extent(1);
  if (labels.size() != logits.extent(0))
    reject_argument("kd::train::evaluate_logits", text("one label for each of ", logits.extent(0), " rows"),
                    labels.size(), "pass the labels of the same samples");
  evaluation result;
  result.samples = labels.size();
  result.confusion = tensor<std::uint32_t, 2>({classes, classes});
  require_labels("kd::train::evaluate_logits", labels, classes);
  std::size_t right = 0, among_five = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::span<const float> row = logits.row(i);
    const auto label = static_cast<std::size_t>(labels[i]);
    const std::size_t best = predicted_class(row);
    if (best == classes) {
      ++result.non_finite;
      continue;
    }
    std::size_t better = 0;
    for (std::size_t c = 0; c < classes; ++c) better += row[c] > row[label] || (row[c] == row[label] && c < label);
    ++result.confusion(label, best);
    right += best == label;
    among_five += better < 5;
  }
  if (result.samples > 0) {
    result.top1 = static_cast<double>(right) / static_cast<double>(result.samples);
    result.top5 = static_cast<double>(among_five) / static_cast<double>(result.samples);
  }
  return result;
}

/// The fraction of rows where two networks have the same predicted_class; a row without one agrees with nothing. Throws
/// argument_error unless both have the same rows and classes.
inline double agreement(const tensor<float, 2>& a, const tensor<float, 2>& b) {
  if (a.extents() != b.extents())
    reject_argument("kd::train::agreement", text("logits [", a.extent(0), ",", a.extent(1), "] on both sides"),
                    text("[", b.extent(0), ",", b.extent(1), "]"), "compare networks on the same samples and classes");
  std::size_t same = 0;
  for (std::size_t i = 0; i < a.extent(0); ++i) {
    const std::size_t best = predicted_class(a.row(i));
    same += best != a.extent(1) && best == predicted_class(b.row(i));
  }
  return a.extent(0) == 0 ? 0 : static_cast<double>(same) / static_cast<double>(a.extent(0));
}

/// The logits [N,Classes] of all images [N,C,H,W] in file order, normalised as the network's pixels() say, in
/// evaluation mode: running statistics, no dropout. A batch_size beyond the images is a batch of all of them. Throws
/// argument_error where the bytes are not whole images, batch_size is 0, or another thread uses the network.
template <class Network>
tensor<float, 2> predict(Network& network, std::span<const std::uint8_t> images, std::size_t batch_size = 128) {
  constexpr shape in = Network::plan::input;
  if (images.size() % in.size() != 0)
    reject_argument("kd::train::predict", text("a whole number of images ", text_of(in), " of ", in.size(), " bytes"),
                    images.size(), "pass images of the network's input shape");
  if (batch_size == 0) reject_argument("kd::train::predict", "batch_size must be at least 1", batch_size, "pass 128");
  const auto mine = network.use();
  auto& device = network.device();
  const std::size_t samples = images.size() / in.size();
  tensor<float, 2> logits({samples, Network::classes});
  if (samples == 0) return logits;
  batch_size = std::min(batch_size, samples);
  const auto resident = device.resident(images);
  auto order = device.template allocate<std::uint32_t>(samples);
  std::vector<std::uint32_t> indices(samples);
  data::sequential_order(indices);
  device.upload(indices.data(), samples, order.data());
  auto rows = device.template allocate<float>(batch_size * Network::classes);
  for (std::size_t begin = 0; begin < samples; begin += batch_size) {
    const std::size_t count = std::min(batch_size, samples - begin);
    device.gather_images({resident.data(), in, order.data() + begin, count}, network.pixels(), {}, {},
                         network.input(count, false));
    device.to_rows(Network::plan::output, count, network.forward_infer(count), rows.data());
    device.download(rows.data(), count * Network::classes, logits.data() + begin * Network::classes);
  }
  return logits;
}

}  // namespace kd::inline KD_ABI::train
