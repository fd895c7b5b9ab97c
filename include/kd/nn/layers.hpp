/// All layers and containers.
#pragma once

#include "kd/nn/activation.hpp"
#include "kd/nn/batch_norm2d.hpp"
#include "kd/nn/conv2d.hpp"
#include "kd/nn/linear.hpp"
#include "kd/nn/plan.hpp"
#include "kd/nn/pool.hpp"
#include "kd/nn/sequential.hpp"
