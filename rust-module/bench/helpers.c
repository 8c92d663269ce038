// SPDX-License-Identifier: GPL-2.0
/*
 * What the safe API needs in C, in the module of the queue's benchmark.
 */
#include "../lib/nolocks/helpers.c"
#include "../lib/queue/helpers.c"
#include "filler.c"
