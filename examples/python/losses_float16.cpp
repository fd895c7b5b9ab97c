// The losses of float16 logits.
#include "losses.hpp"

template kd_python::outcome kd_python::forward_backward(const request&, batch<kd::float16>);
