/// The students' convolutions at batch 128 on a GPU, fused with relu and max pool, beside the unfused chain.
///
/// FLOPS counts every product of the definition once, those with padding and with the zeros that a max pool leaves in
/// the gradient included; bytes_per_second each input and output once. "warm" repeats one set of arrays, which stays in
/// L2, as in a training step; "cold" rotates through more sets than the caches hold.
#include "kd/cuda/direct_conv2d.hpp"

#include "cuda/rotated_sets.hpp"
#include "kd/cuda/pool.hpp"

namespace {

using namespace kd_bench;

constexpr std::size_t batch = 128;

struct layer {
  const char* name;
  kd::conv2d_geometry g;
};
const layer students[]{{"light/features.0", {3, 32, 32, 16, 3, 3, 1, 1, 1, 1}},
                       {"light/features.3", {16, 16, 16, 16, 3, 3, 1, 1, 1, 1}},
                       {"simple/features.0", {3, 32, 32, 8, 3, 3, 1, 1, 1, 1}},
                       {"simple/features.3", {8, 16, 16, 8, 3, 3, 1, 1, 1, 1}}};

template <class T>
struct arrays {
  kd::cuda::buffer<T> x, y, dy, pooled, d_pooled, dx;
  kd::cuda::buffer<std::uint8_t> winners;

  arrays(const kd::cuda::stream& s, const kd::conv2d_geometry& g)
      : x(filled<T>(s, batch * g.in().size(), 1)),
        y(batch * g.out().size()),
        dy(filled<T>(s, batch * g.out().size(), 2)),
        pooled(batch * g.out().size() / 4),
        d_pooled(filled<T>(s, batch * g.out().size() / 4, 3)),
        dx(batch * g.in().size()),
        winners(pooled.size()) {}
};

template <class T>
struct problem {
  kd::conv2d_geometry g;
  kd::cuda::stream stream;
  std::vector<arrays<T>> sets;
  kd::cuda::buffer<float> w, bias, dw, db, scratch;

  problem(const kd::conv2d_geometry& geometry, std::size_t count)
      : g(geometry),
        w(filled<float>(stream, g.weights(), 4)),
        bias(filled<float>(stream, g.out_channels, 5)),
        dw(g.weights()),
        db(g.out_channels),
        scratch(kd::cuda::direct_conv2d_scratch(g, batch)) {
    for (std::size_t i = 0; i < count; ++i) {
      sets.emplace_back(stream, g);
      fused_forward(i);  // winners for the gradients
    }
  }
  kd::pool2d_geometry pool() const { return {g.out_channels, g.out_height(), g.out_width()}; }

  void fused_forward(std::size_t i) {
    arrays<T>& a = sets[i];
    kd::cuda::direct_conv2d_relu_pool_forward<T>(stream, g, batch, a.x.data(), w.data(), bias.data(), a.pooled.data(),
                                                 a.winners.data());
  }
  void fused_data(std::size_t i) {
    arrays<T>& a = sets[i];
    kd::cuda::direct_conv2d_relu_pool_backward_data<T>(stream, g, batch, a.d_pooled.data(), a.winners.data(), w.data(),
                                                       false, a.dx.data());
  }
  void fused_weight(std::size_t i) {
    arrays<T>& a = sets[i];
    kd::cuda::direct_conv2d_relu_pool_backward_weight<T>(stream, g, batch, a.x.data(), a.d_pooled.data(),
                                                         a.winners.data(), dw.data(), db.data(), scratch.data());
  }
  void plain_forward(std::size_t i) {
    arrays<T>& a = sets[i];
    kd::cuda::direct_conv2d_forward<T>(stream, g, batch, a.x.data(), w.data(), bias.data(), true, a.y.data());
  }
  void forward_then_pool(std::size_t i) {
    arrays<T>& a = sets[i];
    plain_forward(i);
    kd::cuda::max_pool2d_forward<T>(stream, pool(), batch, a.y.data(), a.pooled.data(), a.winners.data());
  }
  void plain_data(std::size_t i) {
    arrays<T>& a = sets[i];
    kd::cuda::direct_conv2d_backward_data<T>(stream, g, batch, a.dy.data(), w.data(), false, a.dx.data());
  }
  void plain_weight(std::size_t i) {
    arrays<T>& a = sets[i];
    kd::cuda::direct_conv2d_backward_weight<T>(stream, g, batch, a.x.data(), a.dy.data(), dw.data(), db.data(),
                                               scratch.data());
  }
};

template <class T>
void add(const layer& l) {
  const auto size = [](std::size_t n) { return static_cast<double>(batch * n); };
  const double in = size(l.g.in().size()), out = size(l.g.out().size()), value = sizeof(T);
  const double flops = 2.0 * out * static_cast<double>(9 * l.g.in_channels),
               gradients = 4.0 * static_cast<double>(l.g.weights());
  const double pooled = out / 4 * (value + 1);  // values and winners
  const auto add_one = [&](const char* operation, double bytes, void (problem<T>::*work)(std::size_t)) {
    for (const bool warm : {true, false}) {
      const std::string name = kd::text(operation, "/cuda/", type_name<T>, "/", l.name, warm ? "/warm" : "/cold");
      add_benchmark(name, bytes, [g = l.g, bytes, flops, work, warm](benchmark::State& state) {
        constexpr std::size_t repetitions = 64;
        const std::size_t all = static_cast<std::size_t>(batch * (g.in().size() + g.out().size()) * 3 * sizeof(T));
        problem<T> p(g, warm ? 1 : sets_of(static_cast<double>(all)));
        time_sets(state, p.stream, warm ? repetitions : p.sets.size(), bytes,
                  [&](std::size_t i) { (p.*work)(warm ? 0 : i); });
        state.counters["FLOPS"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
      });
    }
  };
  add_one("direct_conv2d_relu_pool_forward", in * value + pooled, &problem<T>::fused_forward);
  add_one("direct_conv2d_relu_then_max_pool2d_forward", in * value + pooled, &problem<T>::forward_then_pool);
  add_one("direct_conv2d_relu_pool_backward_data", pooled + in * value, &problem<T>::fused_data);
  add_one("direct_conv2d_relu_pool_backward_weight", in * value + pooled + gradients, &problem<T>::fused_weight);
  add_one("direct_conv2d_forward", (in + out) * value, &problem<T>::plain_forward);
  add_one("direct_conv2d_backward_data", (in + out) * value, &problem<T>::plain_data);
  add_one("direct_conv2d_backward_weight", (in + out) * value + gradients, &problem<T>::plain_weight);
}

const bool added = [] {
  for (const layer& l : students) {
    add<float>(l);
    add<bfloat16>(l);
  }
  return true;
}();

}  // namespace
