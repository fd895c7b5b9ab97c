// The losses of bfloat16 logits.
#include "losses.hpp"

template kd_python::outcome kd_python::forward_backward(const request&, batch<kd::bfloat16>);
