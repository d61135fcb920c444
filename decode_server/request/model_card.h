// What clients are told of a model.
#pragma once

#include "decode_server/served_model.h"
#include "scd/v1/completion.pb.h"

namespace scd {

v1::ModelCard card_of(const ServedModel& model);

}  // namespace scd
