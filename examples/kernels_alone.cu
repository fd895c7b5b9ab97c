// kd's loss kernels in a program that has CUDA and nothing else of kd: no trainer, no tensors, no cuBLAS, no cuDNN.
//
//   nvcc -std=c++20 -arch=native -Ikernels examples/kernels_alone.cu -o kernels_alone
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>
#include <kd/formula/losses.hpp>
#include <kd/kernel/logit_loss.cuh>

namespace formula = kd::formula;
namespace kernel = kd::kernel;

namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "kernels_alone: %s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}
template <class T>
T* managed(std::size_t size) {
  T* data = nullptr;
  check(cudaMallocManaged(&data, size * sizeof(T)), "memory");
  for (std::size_t i = 0; i < size; ++i) data[i] = T{};
  return data;
}

}  // namespace

int main() {
  constexpr std::size_t rows = 64, classes = 32000;
  // Any terms of kd/formula, here those of on-policy distillation: 0.9 T^2 JSD + 0.1 CE.
  const formula::logit_loss loss(2, 2, true, formula::weighted{0.9f, formula::jensen_shannon{.beta = 0.1f}},
                                 formula::weighted{0.1f, formula::cross_entropy{}});
  using Loss = formula::logit_loss<formula::jensen_shannon, formula::cross_entropy>;
  using Batch = kernel::dense_batch<float>;

  auto* const student = managed<float>(rows * classes);
  auto* const teacher = managed<float>(rows * classes);
  auto* const gradient = managed<float>(rows * classes);
  auto* const labels = managed<std::int32_t>(rows);
  for (std::size_t i = 0; i < rows * classes; ++i) {
    student[i] = 0.01f * static_cast<float>(i * 37 % 401) - 2;
    teacher[i] = 0.01f * static_cast<float>(i * 53 % 601) - 3;
  }
  for (std::size_t i = 0; i < rows; ++i) labels[i] = static_cast<std::int32_t>(i);
  const Batch batch{.rows = rows,
                    .classes = classes,
                    .student = {student},
                    .teacher = {teacher},
                    .labels = {labels},
                    .gradient = {gradient}};

  // The loss lies in device memory, so that a recorded launch follows a schedule.
  Loss* on_device = nullptr;
  check(cudaMalloc(&on_device, sizeof(Loss)), "memory");
  check(cudaMemcpy(on_device, &loss, sizeof(Loss), cudaMemcpyHostToDevice), "copy");
  auto* const counted = managed<kernel::counted_rows>(1);
  auto* const terms = managed<kernel::loss_row<Loss>>(rows);
  auto* const sums = managed<formula::loss_sums>(1);

  // A block for each row, then one block that adds the rows up, in their order.
  constexpr unsigned threads = kernel::few_row_threads;
  kernel::logit_loss_by_block<threads, Loss, Batch><<<rows, threads>>>(batch, on_device, counted, terms);
  kernel::fold_loss_rows<Loss, Batch><<<1, kernel::fold_loss_threads>>>(batch, on_device, counted, terms, sums);
  check(cudaGetLastError(), "launch");
  check(cudaDeviceSynchronize(), "loss");

  std::printf("total %.6f, jensen_shannon %.6f, cross_entropy %.6f, first gradient %.3g\n", sums->total / rows,
              sums->values[0] / rows, sums->values[1] / rows, static_cast<double>(gradient[0]));
}
